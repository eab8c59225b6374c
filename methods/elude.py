"""ELUDe: explicit, lossless, unsupervised disentanglement (Bagci et al. 2026, section 3).

Per unit: the top-k instances that drive it, the contributions of the layer below to each, their density clusters,
one representative direction per cluster, the margin rho that separates the subunits best, and an exact partition of
the unit's weights among them. Nothing is trained and nothing is lost: the subunits of a unit sum to it.

Where the paper leaves a point open, the choice is named where it is made; the alternatives are options.
"""

from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from numpy import ndarray
from torch import Tensor

from methods import groups
from methods.clustering import Backend, Clusters, Selection, SpanningTree, cluster, condense, memory, spanning_tree
from methods.clustering.dense import Scratch, one_blas_thread
from methods.clustering.libraries import reduced
from methods.contributions import EPSILON, Arithmetic, OnDevice, OnProcessor, gathered_bytes, on_device
from methods.instances import READ_BYTES, UNITS_PER_READ, chosen_bytes, each_unit, top_instances
from methods.partition import WeightPartition, partition_decomposition
from methods.protocol import ActivationSource, Decomposition
from methods.seals import seal

FREED_BYTES = 48 * 2**20
"""Of a thread: memory that was given back and that the C library keeps, in blocks of up to 32 MiB."""
SMALL_INSTANCES = 4096
"""Up to this many instances, threads work on a unit each; beyond, all work on one, in the memory of one."""


@dataclass(frozen=True)
class ELUDe(WeightPartition):
    """Clusters each unit's incoming contributions and splits its weights among the clusters.

    Attributes:
        top_k: Instances per unit (eq. 1): a share of all tokens when below 1, a count otherwise. The paper's 60,000
            to 500,000 of 2.56 million are shares of 0.023 to 0.195.
        min_cluster_size: HDBSCAN's smallest cluster (the paper: 1,000 at its scale).
        min_samples: HDBSCAN's core neighbour; 0 takes the library's default, `min_cluster_size`.
        selection: "leaf" (the paper's) or "eom".
        backend: What clusters: "exact", or the libraries "hdbscan" and "cuml", whose results depend on the order of
            the instances, cuML's also on the run.
        umap_dimensions: Dimensions to which UMAP reduces the contributions first (Table 7); 0 leaves them.
        normalize: L2-normalise the contributions before clustering (section 3.2).
        rho: The margin of eq. 3; 0 searches 0.05, 0.10, ..., 1.00 per unit.
        objective: What the search maximises; the paper says it in words, "margin" is our reading.
        group_rule: What happens where several sets win a dimension; "exactly_one" is the paper's text.
    """

    top_k: float = 0.05
    min_cluster_size: int = 8
    min_samples: int = 0
    selection: Selection = "leaf"
    backend: Backend = "exact"
    umap_dimensions: int = 0
    normalize: bool = True
    rho: float = 0.0
    objective: groups.Objective = "margin"
    group_rule: groups.GroupRule = "exactly_one"

    version: ClassVar[int] = 2
    scales: ClassVar[Mapping[str, int]] = {"top_k": 1, "min_cluster_size": 2, "min_samples": 1}

    def __post_init__(self) -> None:
        if self.top_k <= 0:
            raise ValueError(f"top_k: got {self.top_k}; expected a share below 1 or a count of at least 1; raise it")
        if self.min_cluster_size < 2:
            raise ValueError(f"min_cluster_size: got {self.min_cluster_size}; expected at least 2; raise it")
        if self.min_samples < 0:
            raise ValueError(f"min_samples: got {self.min_samples}; expected 0 (default) or more; raise it")
        if self.umap_dimensions < 0:
            raise ValueError(f"umap_dimensions: got {self.umap_dimensions}; expected 0 (none) or more; raise it")
        if not 0 <= self.rho <= 1:
            raise ValueError(f"rho: got {self.rho}; expected 0 (search) or a value up to 1; change it")

    def decompose(self, activations: ActivationSource, *, seed: int) -> Decomposition:
        """The subunits of every unit of the site; the seed changes nothing, since nothing here is random.

        Every finished unit is kept, so that an interrupted decomposition goes on at the next one.

        Raises:
            ValueError: Activations are not finite.
        """
        site = activations.read(slice(0, 1))
        parts = self.decompose_units(activations, range(site.outputs.shape[1]))
        noise = torch.cat([part["noise_share"] for part in parts])
        return partition_decomposition(
            [part["owns"] for part in parts],
            [int(part["clusters_found"]) for part in parts],
            {
                "instances": self.instances(activations.n_tokens),
                "noise_share": float(noise.mean()),
                "units_with_instances_at_or_below_zero": sum(float(part["lowest"]) <= 0 for part in parts),
                **seal(site.needed_weight(), site.bias),
            },
            rho=torch.cat([part["rho"] for part in parts]),
            noise_share=noise,
            cluster_sizes=torch.cat([part["cluster_sizes"] for part in parts]),
        )

    def decompose_units(self, activations: ActivationSource, units: range) -> list[Mapping[str, Tensor]]:
        """What is found in some of the units, each put by as soon as it is.

        Units know nothing of each other: several machines can take a range each, and `decompose` takes up what they
        have put by.
        """
        found = {unit: part for unit in units if (part := activations.kept(f"unit {unit}")) is not None}
        activations.report("units", len(found), len(units))
        todo = [unit for unit in units if unit not in found]
        for unit, part in self.worked(activations, todo):
            activations.keep(f"unit {unit}", part)
            found[unit] = part
            activations.report("units", len(found), len(units))
        return [found[unit] for unit in units]

    def worked(self, activations: ActivationSource, units: list[int]) -> Iterator[tuple[int, Mapping[str, Tensor]]]:
        """What is found in each of the units, in their order.

        On a processor as many units at a time as there are threads for, but one where a library clusters. On a GPU one
        after the other, while the tree of the one before is cut into its parts on a thread beside.
        """
        k = self.instances(activations.n_tokens)
        arithmetic = self.arithmetic_for(activations, k)
        # UMAP's and cuML's own parallel loops may not be entered by two threads at a time.
        is_shared_out = self.is_ours and k <= SMALL_INSTANCES and not isinstance(arithmetic, OnDevice)
        n_together = activations.n_threads if is_shared_out else 1
        free: SimpleQueue[Scratch] = SimpleQueue()
        for _ in range(n_together):
            free.put(Scratch(activations.n_threads // n_together))

        def whole(unit: int, values: Float[Tensor, " tokens"]) -> dict[str, Tensor]:
            scratch = free.get()
            try:
                return self.parts_of(arithmetic, self.found_in(arithmetic, unit, values, k, scratch))
            finally:
                free.put(scratch)

        with one_blas_thread(), ThreadPoolExecutor(n_together) as pool:
            running: deque[tuple[int, Future[dict[str, Tensor]]]] = deque()
            for unit, values in each_unit(activations, units):
                if isinstance(arithmetic, OnDevice):
                    there = values.to(arithmetic.weight.device)
                    work = partial(self.parts_of, arithmetic, self.found_in(arithmetic, unit, there, k, Scratch()))
                else:
                    work = partial(whole, unit, values)
                if len(running) == n_together:
                    number, future = running.popleft()
                    yield number, future.result()
                running.append((unit, pool.submit(work)))
            for number, future in running:
                yield number, future.result()

    @property
    def is_ours(self) -> bool:
        """Whether no library has a hand in the clustering."""
        return self.backend == "exact" and not self.umap_dimensions

    def arithmetic_for(self, activations: ActivationSource, k: int) -> Arithmetic:
        """Where the units are worked: on a GPU where there is one, the instances are many, and ours clusters them."""
        inputs, weight = activations.inputs_at, activations.read(slice(0, 1)).needed_weight()
        if self.is_ours and k > SMALL_INSTANCES and torch.cuda.is_available():
            device, d_in = torch.device("cuda"), weight.shape[1]
            room = torch.cuda.mem_get_info(device)[0] - memory.device_bytes(k, d_in, self.core_neighbour(k))
            return on_device(inputs, activations.n_tokens, weight, device, room)
        return OnProcessor(inputs, weight.numpy())

    def found_in(
        self, arithmetic: Arithmetic, unit: int, values: Float[Tensor, " tokens"], k: int, scratch: Scratch
    ) -> "Instances":
        """The instances of one unit, their contributions, and the tree or the clusters of these."""
        chosen = top_instances(values, k, arithmetic.inputs)
        rows, lowest = chosen.cpu().numpy(), float(values[chosen[-1]])
        points = arithmetic.contributions(unit, rows, self.normalize)
        clustered = reduced(np.asarray(points), self.umap_dimensions) if self.umap_dimensions else points
        options = (self.min_cluster_size, self.min_samples or None)
        if self.backend == "exact":
            return Instances(unit, rows, lowest, points, spanning_tree(clustered, *options, scratch=scratch))
        found = cluster(np.asarray(clustered), *options, self.selection, self.backend)
        return Instances(unit, rows, lowest, points, found)

    def parts_of(self, arithmetic: Arithmetic, instances: "Instances") -> dict[str, Tensor]:
        """What is kept of one unit: the owners of its dimensions, and the facts of its clusters."""
        found = instances.found
        if not isinstance(found, Clusters):
            found = condense(found, self.min_cluster_size, self.selection)
        owns, rho = self.split(arithmetic, instances, found)
        return {
            "owns": torch.from_numpy(owns),
            "clusters_found": torch.tensor([found.n_clusters]),
            "cluster_sizes": sizes_of(found),
            "rho": torch.tensor([rho], dtype=torch.float64),
            "noise_share": torch.tensor([(found.labels < 0).mean()], dtype=torch.float64),
            "lowest": torch.tensor([instances.lowest], dtype=torch.float64),
        }

    def core_neighbour(self, k: int) -> int:
        """Which neighbour's distance is the core distance among so many instances."""
        return max(1, min(self.min_samples or self.min_cluster_size, k - 1))

    def flops(self, n_tokens: int, d_in: int, units: int) -> float:
        """Multiplications and additions of the distances between the instances of every unit, each pair once."""
        return float(units) * self.instances(n_tokens) ** 2 * d_in

    def memory_bytes(self, n_tokens: int, d_in: int, units: int, n_threads: int = 1) -> int | None:
        """What a decomposition on a processor holds at most, beyond the program, its libraries and pages of files.

        It is for inputs of float32 or less, every unit with as many clusters as fit, and products in float32
        (`methods.clustering.memory` says what others take). A GPU takes the points and the clustering off it.

        Args:
            n_tokens: Tokens that are looked at.
            d_in: Inputs of the site.
            units: Units of the site.
            n_threads: How many threads there are.

        Returns:
            Bytes; None where a library clusters, of which nobody knows what it holds.
        """
        if not self.is_ours:
            return None
        k, units_read = self.instances(n_tokens), min(units, UNITS_PER_READ)
        n_together = n_threads if k <= SMALL_INSTANCES else 1
        n_clusters = max(1, k // self.min_cluster_size)
        working = memory.working_bytes(k, d_in, self.core_neighbour(k), n_threads // n_together)
        split = groups.OWNERS_BYTES * n_clusters * d_in
        if self.objective == "accuracy":
            split += 12 * k * d_in + 8 * k * n_clusters
        points = 4 * k * d_in + max(gathered_bytes(k, d_in), working, split)
        unit = memory.kept_bytes(k) + max(chosen_bytes(n_tokens), 4 * n_tokens + points) + FREED_BYTES
        block = min(max(READ_BYTES, 4 * n_tokens), 4 * n_tokens * units_read)
        return block + n_together * unit + 4 * n_tokens + 2 * n_clusters * d_in * units

    def instances(self, n_tokens: int) -> int:
        """How many instances of a unit are looked at: `top_k` as a count, never more than there are."""
        count = round(self.top_k * n_tokens) if self.top_k < 1 else round(self.top_k)
        return max(1, min(count, n_tokens))

    def split(
        self, arithmetic: Arithmetic, instances: "Instances", found: Clusters
    ) -> tuple[UInt8[ndarray, "k d_in"], float]:
        """The assignment of one unit's dimensions to its subunits, and its rho (0 where unsplit)."""
        k, labels, points = found.n_clusters, found.labels, instances.points
        if k < 2:
            return np.ones((1, points.shape[1]), dtype=np.uint8), 0.0
        sums = arithmetic.sums(points, labels, found.probabilities, k)
        directions = sums / (np.linalg.norm(sums, axis=1, keepdims=True) + EPSILON)
        if self.rho:
            return groups.owners(directions, self.rho, self.group_rule), self.rho
        means = arithmetic.means(instances.unit, instances.rows, labels, k)
        members = None
        if self.objective == "accuracy":
            raw = arithmetic.contributions(instances.unit, instances.rows[labels >= 0], False)
            members = np.asarray(raw.cpu() if isinstance(raw, Tensor) else raw, np.float64), labels[labels >= 0]
        rho, owns = groups.best_rho(directions, means, self.objective, self.group_rule, members=members)
        return owns, rho


@dataclass(frozen=True, eq=False)
class Instances:
    """The instances of one unit on their way from activations to parts.

    Attributes:
        unit: The unit.
        rows: Their tokens, the highest activation first.
        lowest: The lowest activation among them.
        points: Their contributions (instances x d_in).
        found: The tree that spans these, or their clusters where a library finds them.
    """

    unit: int
    rows: Int[ndarray, " instances"]
    lowest: float
    points: ndarray | Tensor
    found: SpanningTree | Clusters


def sizes_of(found: Clusters) -> Int[Tensor, " atoms"]:
    """Members of the cluster behind each subunit; 0 for a unit that stays whole."""
    if found.n_clusters < 2:
        return torch.zeros(1, dtype=torch.int64)
    return torch.from_numpy(np.bincount(found.labels[found.labels >= 0], minlength=found.n_clusters))
