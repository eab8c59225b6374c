"""ELUDe: explicit, lossless, unsupervised disentanglement (Bagci et al. 2026, section 3).

Per unit: the top-k instances that drive it, the contributions of the layer below to each, their density clusters,
one representative direction per cluster, the margin rho that separates the subunits best, and an exact partition of
the unit's weights among them. Nothing is trained and nothing is lost: the subunits of a unit sum to it.

Where the paper leaves a point open, the choice is named where it is made; the alternatives are options.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from numpy import ndarray
from torch import Tensor

from methods import groups
from methods.clustering import Clusters, Selection, cluster
from methods.partition import WeightPartition, partition_decomposition
from methods.protocol import ActivationSource, Decomposition
from methods.seals import seal

EPSILON = 1e-12
"""Added to norms (eq. 2) so that a contribution of zero stays zero."""


@dataclass(frozen=True)
class ELUDe(WeightPartition):
    """Clusters each unit's incoming contributions and splits its weights among the clusters.

    Attributes:
        top_k: Instances per unit (eq. 1): a share of all tokens when below 1, a count otherwise. The paper's 60,000
            to 500,000 of 2.56 million are shares of 0.023 to 0.195.
        min_cluster_size: HDBSCAN's smallest cluster (the paper: 1,000 at its scale).
        min_samples: HDBSCAN's core neighbour; 0 takes the library's default, `min_cluster_size`.
        selection: "leaf" (the paper's) or "eom".
        normalize: L2-normalise the contributions before clustering (section 3.2).
        rho: The margin of eq. 3; 0 searches 0.05, 0.10, ..., 1.00 per unit.
        objective: What the search maximises; the paper says it in words, "margin" is our reading.
        group_rule: What happens where several sets win a dimension; "exactly_one" is the paper's text.
    """

    top_k: float = 0.05
    min_cluster_size: int = 8
    min_samples: int = 0
    selection: Selection = "leaf"
    normalize: bool = True
    rho: float = 0.0
    objective: groups.Objective = "margin"
    group_rule: groups.GroupRule = "exactly_one"

    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if self.top_k <= 0:
            raise ValueError(f"top_k: got {self.top_k}; expected a share below 1 or a count of at least 1; raise it")
        if self.min_cluster_size < 2:
            raise ValueError(f"min_cluster_size: got {self.min_cluster_size}; expected at least 2; raise it")
        if self.min_samples < 0:
            raise ValueError(f"min_samples: got {self.min_samples}; expected 0 (default) or more; raise it")
        if not 0 <= self.rho <= 1:
            raise ValueError(f"rho: got {self.rho}; expected 0 (search) or a value up to 1; change it")

    def decompose(self, activations: ActivationSource, *, seed: int) -> Decomposition:
        """The subunits of every unit of the site; the seed changes nothing, since nothing here is random.

        Raises:
            ValueError: Activations are not finite.
        """
        tokens = activations.read(slice(None))
        inputs, weight = tokens.needed_inputs(), tokens.needed_weight()
        if not torch.isfinite(tokens.outputs).all():
            raise ValueError("outputs: got a value that is not finite; expected finite activations; check the site")
        k = self.instances(activations.n_tokens)
        units = []
        for unit in range(weight.shape[0]):
            activations.report("units", unit, weight.shape[0])
            values = tokens.outputs[:, unit]
            rows = top_instances(values, k)
            contributions = (inputs[rows] * weight[unit]).numpy()
            units.append((*self.split(contributions), float(values[rows[-1]])))
        activations.report("units", weight.shape[0], weight.shape[0])
        owns, clusters, rhos, lowest = zip(*units, strict=True)
        noise = [float((c.labels < 0).mean()) for c in clusters]
        return partition_decomposition(
            [torch.from_numpy(block) for block in owns],
            [c.n_clusters for c in clusters],
            {
                "instances": k,
                "noise_share": float(np.mean(noise)),
                "units_with_instances_at_or_below_zero": sum(value <= 0 for value in lowest),
                **seal(weight, tokens.bias),
            },
            rho=torch.tensor(rhos, dtype=torch.float64),
            noise_share=torch.tensor(noise, dtype=torch.float64),
            cluster_sizes=torch.cat([cluster_sizes(c) for c in clusters]),
        )

    def instances(self, n_tokens: int) -> int:
        """How many instances of a unit are looked at: `top_k` as a count, never more than there are."""
        count = round(self.top_k * n_tokens) if self.top_k < 1 else round(self.top_k)
        return max(1, min(count, n_tokens))

    def split(
        self, contributions: Float[ndarray, "instances d_in"]
    ) -> tuple[UInt8[ndarray, "k d_in"], Clusters, float]:
        """The assignment of one unit's dimensions to its subunits, its clusters, and its rho (0 where unsplit)."""
        points = normalized(contributions) if self.normalize else contributions
        found = cluster(points, self.min_cluster_size, self.min_samples or None, self.selection)
        if found.n_clusters < 2:
            return np.ones((1, contributions.shape[1]), dtype=np.uint8), found, 0.0
        directions = representatives(points, found)
        if self.rho:
            return groups.owners(directions, self.rho, self.group_rule), found, self.rho
        inside = found.labels >= 0
        rho, owns = groups.best_rho(
            directions,
            contributions[inside].astype(np.float64),
            found.labels[inside],
            self.objective,
            self.group_rule,
        )
        return owns, found, rho


def top_instances(values: Float[Tensor, " tokens"], k: int) -> Int[Tensor, " k"]:
    """The k largest (eq. 1) in a total order: value descending, then token index ascending.

    `torch.topk` promises no order among equal values, so the k-th value is found first and ties at it are filled by
    index. Signed: the largest, not the largest in size.
    """
    lowest = torch.topk(values, k).values[-1]
    above = torch.nonzero(values > lowest).squeeze(1)
    ties = torch.nonzero(values == lowest).squeeze(1)[: k - len(above)]
    rows = torch.cat([above, ties])
    return rows[torch.sort(values[rows], descending=True, stable=True).indices]


def normalized(vectors: Float[ndarray, "rows d_in"]) -> Float[ndarray, "rows d_in"]:
    """Rows at unit length; a row of zeros stays zero."""
    x = vectors.astype(np.float64)
    unit: Float[ndarray, "rows d_in"] = x / (np.linalg.norm(x, axis=1, keepdims=True) + EPSILON)
    return unit


def representatives(points: Float[ndarray, "instances d_in"], found: Clusters) -> Float[ndarray, "k d_in"]:
    """One unit-norm direction per cluster: the probability-weighted mean of its members (eq. 2); noise is out."""
    shares = np.where(found.labels[None, :] == np.arange(found.n_clusters)[:, None], found.probabilities[None, :], 0.0)
    return normalized(shares @ points)


def cluster_sizes(found: Clusters) -> Int[Tensor, " atoms"]:
    """Members of the cluster behind each subunit; 0 for a unit that stays whole."""
    if found.n_clusters < 2:
        return torch.zeros(1, dtype=torch.int64)
    return torch.from_numpy(np.bincount(found.labels[found.labels >= 0], minlength=found.n_clusters))
