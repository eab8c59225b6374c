"""Euclidean HDBSCAN of one unit's contribution vectors (ELUDe paper, section 3.2): exact, repeatable and fast.

Four steps, each in a file of its own: squared distances that decide (`distances`), a minimum spanning tree from all
distances at once (`dense`, its loops in `reach`) or from lists of near neighbours (`lists`), and the clusters of that
tree (`trees`). `libraries` has other people's.
"""

import math
import os
from contextlib import suppress
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from methods.clustering import dense, libraries, lists
from methods.clustering.trees import Clusters, Selection, SpanningTree, Ties, condense

__all__ = ["Backend", "Clusters", "Selection", "SpanningTree", "Ties", "cluster", "condense", "spanning_tree"]

Backend = Literal["exact", "hdbscan", "cuml"]
DTYPES = ("float32", "float64")


def memory_bytes(limit: Path = Path("/sys/fs/cgroup/memory.max")) -> int:
    """The memory of this machine, or of the container that it is."""
    bounds = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    with suppress(OSError, ValueError):  # "max" where there is no limit
        bounds.append(int(limit.read_text(encoding="ascii")))
    return min(bounds)


DENSE_BYTES = min(8 * 2**30, memory_bytes() // 4)
"""Up to this much memory all distances are held at once; beyond it, lists of near neighbours. The result is one."""


def cluster(
    points: Float[ndarray, "points dimensions"],
    min_cluster_size: int,
    min_samples: int | None = None,
    selection: Selection = "leaf",
    backend: Backend = "exact",
    *,
    ties: Ties = "all",
    scratch: dense.Scratch | None = None,
) -> Clusters:
    """The clusters of these points by Euclidean HDBSCAN (Campello et al. 2013).

    Args:
        points: One row per point, float32 or float64: the data are these very numbers.
        min_cluster_size: Fewest points that make a cluster, at least 2.
        min_samples: Which neighbour's distance is the core distance, the point itself not counted; None takes
            `min_cluster_size`, and what is beyond the last neighbour takes that.
        selection: "leaf" for the leaves of the condensed tree (the paper's), "eom" for excess of mass.
        backend: "exact" is ours, and does not depend on the order of the rows; "hdbscan" is the package's exact one,
            "cuml" its approximation on a GPU (the extra `cuml`), which the paper's runs used.
        ties: What "exact" does with merges of equal weight; see `condense`.
        scratch: Memory and threads to be used again; one thread and new memory if None.

    Raises:
        ValueError: An argument is out of range, or a point is not finite.
        ModuleNotFoundError: The backend's package is not there.
    """
    if backend == "exact":
        tree = spanning_tree(points, min_cluster_size, min_samples, scratch=scratch)
        return condense(tree, min_cluster_size, selection, ties)
    if backend not in get_args(Backend):
        raise ValueError(f"backend: got {backend!r}; expected one of {', '.join(get_args(Backend))}; change it")
    k = checked(points, min_cluster_size, min_samples)
    if len(points) < min_cluster_size:
        return Clusters(np.full(len(points), -1), np.zeros(len(points)), 0)
    if backend == "hdbscan":
        return libraries.by_hdbscan(points, min_cluster_size, k, selection)
    return libraries.by_cuml(points, min_cluster_size, k, selection)


def spanning_tree(
    points: Float[ndarray, "points dimensions"] | Float[Tensor, "points dimensions"],
    min_cluster_size: int,
    min_samples: int | None = None,
    *,
    scratch: dense.Scratch | None = None,
) -> SpanningTree:
    """The minimum spanning tree, by whichever way fits into memory; on a GPU where the points are there.

    Arguments and errors are those of `cluster`.
    """
    k, scratch = checked(points, min_cluster_size, min_samples), scratch or dense.Scratch()
    if len(points) < 2:
        none = np.zeros(0, np.int64)
        return SpanningTree(np.zeros(len(points)), none, none, np.zeros(0))
    if isinstance(points, Tensor):
        return lists.spanning_tree(points, k, device=str(points.device), threads=scratch.n_threads)
    try:
        return dense.spanning_tree(points, k, scratch, DENSE_BYTES)
    except MemoryError:
        return lists.spanning_tree(points, k, threads=scratch.n_threads)


def checked(
    points: Float[ndarray, "points dimensions"] | Float[Tensor, "points dimensions"],
    min_cluster_size: int,
    min_samples: int | None,
) -> int:
    """Which neighbour's distance is the core distance, where every argument is as it has to be."""
    dtype = str(points.dtype).removeprefix("torch.")
    if points.ndim != 2 or 0 in points.shape or dtype not in DTYPES:
        raise ValueError(
            f"points: got {dtype} of shape {tuple(points.shape)}; expected at least one row and one dimension, "
            "float32 or float64; look at what selects the instances"
        )
    if min_cluster_size < 2:
        raise ValueError(f"min_cluster_size: got {min_cluster_size}; expected at least 2; raise it in the options")
    if min_samples is not None and min_samples < 1:
        raise ValueError(f"min_samples: got {min_samples}; expected at least 1, or None for min_cluster_size; raise it")
    largest = max(float(points.max()), -float(points.min()))
    if not math.isfinite(largest):
        bad = (~np.isfinite(points)).nonzero() if isinstance(points, ndarray) else (~points.isfinite()).nonzero().T
        row, column = int(bad[0][0]), int(bad[1][0])
        raise ValueError(
            f"points: got {float(points[row, column])} in row {row}, dimension {column}; expected finite "
            "contributions; check the site's inputs and weight"
        )
    if largest > 1e150 or 0 < largest < 1e-150:
        raise ValueError(
            f"points: got values up to {largest}; expected the largest between 1e-150 and 1e150, so that squares are "
            "numbers; scale them"
        )
    return min(min_cluster_size if min_samples is None else min_samples, len(points) - 1)
