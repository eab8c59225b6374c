"""What exact clustering is held against: hdbscan's own single-linkage tree, condensed by the definition, slowly."""

from dataclasses import dataclass

import hdbscan
import numpy as np
from numpy import ndarray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import cdist


@dataclass(frozen=True, eq=False)
class Reference:
    """What the slow way finds.

    Attributes:
        cores: Core distances.
        weights: Weights of the single-linkage tree, sorted.
        labels: Cluster of each point, numbered by smallest member; -1 for noise.
        probabilities: Memberships.
    """

    cores: ndarray
    weights: ndarray
    labels: ndarray
    probabilities: ndarray


def reference(points: ndarray, min_cluster_size: int, min_samples: int) -> Reference:
    """The multi-way condensation of the tree that `hdbscan(algorithm="generic")` finds.

    It is given float64 distances by direct differences: the expanded form that it uses by itself is off by 1e-8
    between duplicates.
    """
    distances = cdist(points.astype(np.float64), points.astype(np.float64))
    model = hdbscan.HDBSCAN(
        min_cluster_size=min_cluster_size,
        min_samples=min_samples,
        metric="precomputed",
        algorithm="generic",
        approx_min_span_tree=False,
    ).fit(distances)
    merges = model.single_linkage_tree_.to_numpy()
    labels, probabilities = leaves_by_definition(merges, min_cluster_size)
    cores = np.partition(distances, min_samples, axis=1)[:, min_samples]
    return Reference(cores, np.sort(merges[:, 2]), labels, probabilities)


def leaves_by_definition(merges: ndarray, min_cluster_size: int) -> tuple[ndarray, ndarray]:
    """Leaves of the condensed tree: take away all edges of the largest weight at once, and look at what is left.

    Args:
        merges: A linkage: two nodes, their distance, points below.
        min_cluster_size: Fewest points that make a cluster.
    """
    n = len(merges) + 1
    member = list(range(n))
    edges = []
    for left, right, weight, _ in merges:
        a, b = member[int(left)], member[int(right)]
        edges.append((a, b, weight))
        member.append(a)
    heads, tails = (np.array([edge[end] for edge in edges]) for end in (0, 1))
    weights = np.array([edge[2] for edge in edges])
    leaves: list[tuple[ndarray, ndarray]] = []

    def shrink(points: ndarray, is_root: bool) -> None:
        here = np.zeros(n, dtype=bool)
        here[points] = True
        inside = np.flatnonzero(here[heads] & here[tails])
        fell, when = [], []
        while True:
            heaviest = weights[inside].max()
            inside = inside[weights[inside] < heaviest]
            place = np.full(n, -1)
            place[points] = np.arange(len(points))
            ends = (place[heads[inside]], place[tails[inside]])
            graph = coo_matrix((np.ones(len(inside)), ends), shape=(len(points), len(points)))
            _, component = connected_components(graph, directed=False)
            sizes = np.bincount(component)
            big = np.flatnonzero(sizes >= min_cluster_size)
            with np.errstate(divide="ignore"):
                level = np.float64(1.0) / np.float64(heaviest)
            if len(big) > 1:
                for one in big:
                    shrink(points[component == one], False)
                return
            out = component != big[0] if len(big) else np.ones(len(points), dtype=bool)
            fell.append(points[out])
            when.append(np.full(int(out.sum()), level))
            inside = inside[~out[ends[0]]]
            points = points[~out]
            if not len(big):
                if not is_root:
                    leaves.append((np.concatenate(fell), np.concatenate(when)))
                return

    if n >= min_cluster_size:
        shrink(np.arange(n), True)
    labels, probabilities = np.full(n, -1), np.zeros(n)
    for number, (points, levels) in enumerate(sorted(leaves, key=lambda leaf: leaf[0].min())):
        labels[points] = number
        finite = np.isfinite(levels)
        probabilities[points] = np.where(finite, np.where(finite, levels, 0) / levels.max(), 1.0)
    return labels, probabilities


def blobs(n: int, d: int, centres: int, seed: int, spread: float = 0.7) -> ndarray:
    """Points of unit norm around some centres, as many dimensions wide."""
    rng = np.random.default_rng(seed)
    middle = rng.normal(size=(centres, d))
    points = middle[rng.integers(centres, size=n)] + spread * rng.normal(size=(n, d))
    unit_norm: ndarray = (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)
    return unit_norm


def heavy_tailed(n: int, d: int, seed: int) -> ndarray:
    """Like a unit's contributions: few dimensions carry most, which ones depends on a hidden group."""
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=d) * np.exp(rng.normal(size=d))
    groups = np.exp(1.5 * rng.normal(size=(7, d)))
    inputs = np.maximum(0, groups[rng.integers(7, size=n)] * (1 + 0.4 * rng.normal(size=(n, d))) - 0.5)
    points = inputs * weight
    unit_norm: ndarray = (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)
    return unit_norm
