"""HDBSCAN of one unit's contribution vectors (ELUDe paper, section 3.2).

Through the `hdbscan` package: on precomputed distances while they fit in memory (several times faster than its tree
search at these widths), on the vectors beyond that, with the spanning tree exact in both. Labels are numbered by their
smallest member, so that the same partition always has the same labels.
"""

import hdbscan
import numpy as np
from jaxtyping import Float
from numpy import ndarray

from methods.clustering.trees import Clusters, Selection, numbered_by_smallest_member

DENSE_LIMIT_BYTES = 2 * 1024**3
"""Up to this much memory, distances are precomputed; hdbscan holds two float64 copies at its peak."""


def cluster(
    points: Float[ndarray, "points dimensions"],
    min_cluster_size: int,
    min_samples: int | None = None,
    selection: Selection = "leaf",
) -> Clusters:
    """The clusters of these points by Euclidean HDBSCAN (Campello et al. 2013).

    Args:
        points: One row per point; the order matters in ties, so callers fix it.
        min_cluster_size: Fewest points that make a cluster, at least 2.
        min_samples: Which neighbour's distance is the core distance, the point itself not counted; None takes
            `min_cluster_size`, hdbscan's default.
        selection: "leaf" for the leaves of the condensed tree (the paper's), "eom" for excess of mass.

    Raises:
        ValueError: `min_cluster_size` is below 2, or a point is not finite.
    """
    if min_cluster_size < 2:
        raise ValueError(f"min_cluster_size: got {min_cluster_size}; expected at least 2; raise it in the options")
    if not np.isfinite(points).all():
        raise ValueError("points: got a value that is not finite; expected finite contributions; check the site")
    n = len(points)
    if n < min_cluster_size:
        return Clusters(np.full(n, -1), np.zeros(n), 0)
    dense = 2 * 8 * n * n <= DENSE_LIMIT_BYTES
    model = hdbscan.HDBSCAN(
        min_cluster_size=min_cluster_size,
        min_samples=None if min_samples is None else min(min_samples, n - 1),
        cluster_selection_method=selection,
        metric="precomputed" if dense else "euclidean",
        core_dist_n_jobs=1,
        approx_min_span_tree=False,
    )
    model.fit(pairwise_distances(points) if dense else points.astype(np.float64))
    labels = numbered_by_smallest_member(model.labels_)
    return Clusters(labels, np.asarray(model.probabilities_, dtype=np.float64), int(labels.max(initial=-1)) + 1)


def pairwise_distances(points: Float[ndarray, "points dimensions"]) -> Float[ndarray, "points points"]:
    """Euclidean distances in float64, exactly symmetric with a zero diagonal."""
    x = points.astype(np.float64)
    gram = x @ x.T
    squares = np.diagonal(gram)
    squared = squares[:, None] + squares[None, :] - (gram + gram.T)
    np.maximum(squared, 0.0, out=squared)
    np.fill_diagonal(squared, 0.0)
    return np.sqrt(squared, out=squared)
