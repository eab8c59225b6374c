"""The minimum spanning tree of the mutual reachability graph from lists of near rows: exact, in bounded memory.

For more points than their distances fit, and for a GPU: products in low precision only say which pairs are near and
which far, by more than they may be off; float64 decides the rest. Stages: a working copy and how far it may be off
(`working`), one pass over half the pairs into lists and core distances (`neighbours`), components around density peaks
and a tree of them (`components`), and a second pass over what the lists cannot rule out (`certificate`). HDBSCAN:
Campello et al. 2013.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from methods.clustering.certificate import second_pass
from methods.clustering.components import (
    Edges,
    State,
    certified_round,
    first_round,
    grouped,
    joined,
    kruskal,
    lightest,
    merged,
    numbered,
)
from methods.clustering.gpu import Torch
from methods.clustering.host import Host
from methods.clustering.machines import Lists
from methods.clustering.neighbours import (
    GPU_SIZES,
    Plan,
    Sizes,
    coarseness,
    core_distances,
    empty_lists,
    fill,
    planned,
    sample_thresholds,
)
from methods.clustering.trees import SpanningTree
from methods.clustering.working import Precision, Working, lowest, prepare

Kernels = Literal["numba", "torch", "triton"]
Facts = dict[str, float | int]

COARSE = 0.05
"""Where the radius is wider than this part of the thresholds, float64 products are cheaper than checking so many."""


def spanning_tree(
    points: Float[ndarray, "points dimensions"] | Float[Tensor, "points dimensions"],
    min_samples: int,
    device: str = "cpu",
    precision: Precision | None = None,
    kernels: Kernels | None = None,
    sizes: Sizes | None = None,
    threads: int | None = None,
) -> SpanningTree:
    """A minimum spanning tree of the mutual reachability graph of these points.

    Args:
        points: One row per point, float32 or float64: the vectors as given are the data.
        min_samples: Which neighbour's distance is the core distance, the point itself not counted.
        device: "cpu", or a CUDA device.
        precision: Of the products; None for float16 on a GPU and float32 on a processor. It changes the time, not the
            tree; where its radius is too wide for the data, float64 takes over.
        kernels: "numba" on a processor, "triton" on a GPU (None takes these); "torch" runs on either, more slowly.
        sizes: Tiles and memory; None for what suits the device.
        threads: Of a processor; None takes torch's.

    Raises:
        ValueError: `min_samples` is not among 1 .. points - 1, the kernels do not run on the device, or the lists
            cannot fit.
        ArithmeticError: A measured distance is outside its radius.
    """
    n = len(points)
    if not 1 <= min_samples < n:
        raise ValueError(f"min_samples: got {min_samples} for {n} points; expected 1 to {n - 1}; clip it")
    on_gpu = torch.device(device).type == "cuda"
    kernels = kernels or ("triton" if on_gpu else "numba")
    if on_gpu and kernels == "numba":
        raise ValueError(f"kernels: got 'numba' on {device}; expected 'triton' or 'torch'; leave it out")
    sizes = sizes or (GPU_SIZES if on_gpu else Sizes())
    if kernels == "numba":
        array = points.cpu().numpy() if isinstance(points, Tensor) else points
        machine: Host | Torch = Host(array, threads or torch.get_num_threads())
    else:
        machine = Torch(torch.as_tensor(points, device=device), kernels == "triton")
    with machine.at_work(), torch.inference_mode():
        return Run(machine, min_samples, sizes, {}).tree(precision or ("float16" if on_gpu else "float32"))


@dataclass(frozen=True, eq=False)
class Run:
    """The stages in their order, with what they counted."""

    machine: Host | Torch
    min_samples: int
    sizes: Sizes
    facts: Facts

    def tree(self, precision: Precision) -> SpanningTree:
        """All stages; the ends of the edges and the core distances are those of the points as given."""
        working, lists = self.listed(precision)
        with self.phase("cores_seconds"):
            cores, found = core_distances(working, lists, self.min_samples, self.sizes)
            self.facts.update(found)
        reach = lowest(lists.thresholds, *working.radius(slice(None), None)).double()
        edges = self.spanned(State(working, cores, reach), lists)
        return handed_over(working, cores, edges, self.facts)

    def listed(self, precision: Precision) -> tuple[Working, Lists]:
        """The working copy, in float64 where that precision is too coarse for these points, and their lists."""
        n = len(self.machine.points)
        plan = planned(n, self.min_samples, self.sizes)
        with self.phase("prepare_seconds"):
            working = prepare(self.machine, precision)
        with self.phase("thresholds_seconds"):
            known = sample_thresholds(working, plan, self.sizes)
            coarse = coarseness(working, known)
        if coarse > COARSE and precision != "float64":
            return self.listed("float64")
        lists = empty_lists(working, plan.capacity)
        with self.phase("pass_seconds"):
            if not plan.by_rows:
                fill(working, lists, self.min_samples, plan, self.sizes, known)
        self.facts.update(working.facts)
        self.facts.update(described(lists, plan, working, coarse))
        return working, lists

    def spanned(self, state: State, lists: Lists) -> Edges:
        """The edges of the tree."""
        with self.phase("components_seconds"):
            edges, parents = first_round(lists, state.cores, self.machine.chunk)
            component, n_components = numbered(parents)
            self.facts["components"] = n_components
            rounds = measured = 0
            while n_components > self.sizes.few_components:
                more, checks = certified_round(state, lists, component, n_components)
                if not len(more):
                    break
                edges, rounds, measured = merged(edges, more), rounds + 1, measured + checks
                part, n_components = grouped(more, component, n_components)
                component = part[component]
            if n_components > self.sizes.components:
                raise ValueError(
                    f"sizes.components: got {self.sizes.components}, but the lists leave {n_components} components; "
                    f"expected no more; raise it ({8 * n_components**2} bytes), or sizes.list_bytes"
                )
            between, checks = lightest(state, lists, component, n_components, by_pair=True)
            tree = kruskal(between, component, n_components)
            self.facts["parts_joined"] = n_components - len(tree)
            tree = joined(state, tree, component, n_components)
            self.facts.update(rounds=1 + rounds, components_left=n_components, edges_measured=measured + checks)
        with self.phase("second_pass_seconds"):
            tree, found = second_pass(state, tree, component, n_components, self.sizes)
            self.facts.update(found)
        return merged(edges, tree)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Adds the seconds that a stage takes to the facts."""
        start = time.perf_counter()
        yield
        if self.machine.points.is_cuda:
            torch.cuda.synchronize(self.machine.points.device)
        self.facts[name] = self.facts.get(name, 0.0) + time.perf_counter() - start


def described(lists: Lists, plan: Plan, working: Working, coarse: float) -> Facts:
    """What the pass over the pairs was like."""
    error, square_error = working.radius(slice(None), None)
    finite = lists.thresholds[torch.isfinite(lists.thresholds)]
    top = finite.max() if len(finite) else torch.zeros(())
    return {
        "list_bytes": sum(t.numel() * t.element_size() for t in (lists.values, lists.entries)),
        "list_capacity": plan.capacity,
        "entries_per_row": float(lists.counts.double().mean()),
        "sample": plan.sample,
        "by_rows": int(plan.by_rows),
        "coarseness": coarse,
        "largest_radius": float((2 * error.max() * top.sqrt() + square_error.max()) / working.scale**2),
    }


def handed_over(working: Working, cores: Tensor, edges: Edges, facts: Facts) -> SpanningTree:
    """The tree on the host; a weight that a core distance decides is that very number."""
    order = working.order.cpu().numpy()
    back = np.empty(len(order))
    back[order] = rooted(cores, working.scale)
    heads, tails = order[edges.i.cpu().numpy()], order[edges.j.cpu().numpy()]
    return SpanningTree(back, heads, tails, rooted(edges.weights, working.scale), facts)


def rooted(squared: Float[Tensor, " values"], scale: float) -> Float[ndarray, " values"]:
    """Distances of the points as given; by numpy, since torch's root in float64 may be off in the last bit."""
    roots: ndarray = np.sqrt(squared.cpu().numpy() / scale**2)
    return roots
