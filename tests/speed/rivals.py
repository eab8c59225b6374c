"""One clustering, timed in a process of its own: `python tests/speed/rivals.py NAME N D`, JSON on standard output.

The data are blobs of unit norm, 1 % of the points the smallest cluster and the core neighbour. They are made and the
code is compiled and warm before the clock starts. Memory is what the process holds at its peak beyond what it held
with the points made. The folders of the project and of its tests have to be on PYTHONPATH.
"""

import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from clustering_references import blobs
from numpy import ndarray

from bench.memory import forget_peak, peak_bytes

THREADS = os.cpu_count() or 1


def ours(points: ndarray, size: int) -> ndarray:
    from methods.clustering import cluster
    from methods.clustering.dense import Scratch

    return cluster(points, size, scratch=SCRATCH.setdefault("one", Scratch(THREADS))).labels


def by_lists(points: ndarray, size: int) -> ndarray:
    from methods.clustering import lists
    from methods.clustering.trees import condense

    return condense(lists.spanning_tree(points, size), size).labels


def hdbscan_with(algorithm: str) -> Callable[[ndarray, int], ndarray]:
    def fit(points: ndarray, size: int) -> ndarray:
        import hdbscan

        model = hdbscan.HDBSCAN(size, algorithm=algorithm, cluster_selection_method="leaf", core_dist_n_jobs=THREADS)
        labels: ndarray = model.fit(points.astype(np.float64)).labels_
        return labels

    return fit


def sklearn_brute(points: ndarray, size: int) -> ndarray:
    from sklearn.cluster import HDBSCAN

    # scikit-learn counts the point itself among its neighbours.
    model = HDBSCAN(
        min_cluster_size=size,
        min_samples=size + 1,
        algorithm="brute",
        cluster_selection_method="leaf",
        n_jobs=THREADS,
        copy=True,
    )
    labels: ndarray = model.fit(points.astype(np.float64)).labels_
    return labels


def fast_hdbscan(points: ndarray, size: int) -> ndarray:
    from fast_hdbscan import HDBSCAN

    labels: ndarray = HDBSCAN(min_cluster_size=size, cluster_selection_method="leaf").fit(points).labels_
    return labels


SCRATCH: dict[str, Any] = {}
RIVALS: dict[str, Callable[[ndarray, int], ndarray]] = {
    "exact": ours,
    "lists": by_lists,
    "hdbscan default": hdbscan_with("best"),
    "hdbscan generic": hdbscan_with("generic"),
    "sklearn brute": sklearn_brute,
    "fast_hdbscan": fast_hdbscan,
}


def measure(name: str, n: int, d: int) -> dict[str, float | int]:
    """Seconds, peak bytes and clusters of one rival at one size."""
    warnings.simplefilter("ignore")
    RIVALS[name](blobs(300, d, 4, 1), 10)
    points = blobs(n, d, 10, 0)
    forget_peak()
    before = peak_bytes() or 0
    if name == "exact":
        ours(points, n // 100)  # the memory of all distances is touched once, and used for every unit from then on
    start = time.perf_counter()
    labels = RIVALS[name](points, n // 100)
    seconds = time.perf_counter() - start
    grown = max(1, (peak_bytes() or 0) - before)
    return {"seconds": seconds, "grown_bytes": grown, "clusters": int(labels.max()) + 1}


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
