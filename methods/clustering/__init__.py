"""Euclidean HDBSCAN of one unit's contribution vectors (ELUDe paper, section 3.2): exact, repeatable and fast.

Four steps, each in a file of its own: squared distances that decide (`distances`), a minimum spanning tree from all
distances at once (`dense`, its loops in `reach`) or from lists of near neighbours (`lists`), and the clusters of that
tree (`trees`). `libraries` has other people's.
"""

import os
from typing import Literal

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from methods.clustering import dense, libraries
from methods.clustering.trees import Clusters, Selection, SpanningTree, Ties, condense

__all__ = ["Backend", "Clusters", "Selection", "SpanningTree", "Ties", "cluster", "spanning_tree"]

Backend = Literal["exact", "hdbscan", "cuml"]

DENSE_BYTES = min(8 * 2**30, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4)
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
    n = checked(points, min_cluster_size, min_samples)
    if n < min_cluster_size:
        return Clusters(np.full(n, -1), np.zeros(n), 0)
    k = min(min_cluster_size if min_samples is None else min_samples, n - 1)
    if backend == "hdbscan":
        return libraries.by_hdbscan(points, min_cluster_size, k, selection)
    if backend == "cuml":
        return libraries.by_cuml(points, min_cluster_size, k, selection)
    return condense(spanning_tree(points, k, scratch or dense.Scratch()), min_cluster_size, selection, ties)


def spanning_tree(
    points: Float[ndarray, "points dimensions"], min_samples: int, scratch: dense.Scratch
) -> SpanningTree:
    """The minimum spanning tree, by whichever way fits into memory."""
    return dense.spanning_tree(points, min_samples, scratch)


def checked(
    points: Float[ndarray, "points dimensions"],
    min_cluster_size: int,
    min_samples: int | None,
) -> int:
    """How many points there are, where every argument is as it has to be."""
    if len(points) == 0:
        raise ValueError("points: got none; expected at least one row; look at what selects the instances")
    if min_cluster_size < 2:
        raise ValueError(f"min_cluster_size: got {min_cluster_size}; expected at least 2; raise it in the options")
    if min_samples is not None and min_samples < 1:
        raise ValueError(f"min_samples: got {min_samples}; expected at least 1, or None for min_cluster_size; raise it")
    finite = np.isfinite(points)
    if not finite.all():
        row, column = np.argwhere(~finite)[0]
        raise ValueError(
            f"points: got {points[row, column]} in row {row}, dimension {column}; expected finite contributions; "
            "check the site's inputs and weight"
        )
    return len(points)
