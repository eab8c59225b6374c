"""HDBSCAN by other people's packages, to compare with and to reproduce the paper's own numbers; UMAP before it.

Both order merges of equal weight arbitrarily, so that their clusters may change with the order of the rows. cuML's tree
spans the graph of nearest neighbours and is not always minimal, its floating-point sums come in no fixed order, and it
takes at most 1,023 neighbours (cuML 26.10, `hdbscan.pyx`).
"""

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from methods.clustering.trees import Clusters, Selection, numbered_by_smallest_member

CUML_MOST_SAMPLES = 1023


def by_hdbscan(
    points: Float[ndarray, "points dimensions"], min_cluster_size: int, min_samples: int, selection: Selection
) -> Clusters:
    """The clusters that the package `hdbscan` finds with its exact method, in n^2 float64 numbers, twice."""
    import hdbscan

    model = hdbscan.HDBSCAN(
        min_cluster_size=min_cluster_size,
        min_samples=min_samples,
        cluster_selection_method=selection,
        algorithm="generic",
    ).fit(points.astype(np.float64))
    return renumbered(model.labels_, model.probabilities_)


def by_cuml(
    points: Float[ndarray, "points dimensions"], min_cluster_size: int, min_samples: int, selection: Selection
) -> Clusters:
    """The clusters that cuML finds on a GPU, in float32; they may differ from run to run.

    Raises:
        ModuleNotFoundError: cuML is not installed.
        ValueError: `min_samples` is more than cuML takes.
    """
    try:
        from cuml.cluster import HDBSCAN
    except ImportError as error:
        raise ModuleNotFoundError(
            f"backend: got 'cuml', which cannot be imported ({error}); expected cuML and a GPU; install the extra "
            "`cuml`, or choose 'exact'"
        ) from error
    if min_samples > CUML_MOST_SAMPLES:
        raise ValueError(
            f"min_samples: got {min_samples}; cuML takes at most {CUML_MOST_SAMPLES}; lower it, or choose 'exact'"
        )
    model = HDBSCAN(
        min_cluster_size=min_cluster_size,
        min_samples=min_samples,
        cluster_selection_method=selection,
        output_type="numpy",
    ).fit(np.ascontiguousarray(points, dtype=np.float32))
    return renumbered(model.labels_, model.probabilities_)


def reduced(points: Float[ndarray, "points dimensions"], n_components: int) -> Float[ndarray, "points components"]:
    """The points in fewer dimensions by UMAP (McInnes et al. 2018, arXiv:1802.03426), as the paper's Table 7 tries.

    One fixed seed, and so one thread: otherwise the same points would give another picture every time.

    Raises:
        ModuleNotFoundError: umap-learn is not installed.
    """
    try:
        from umap import UMAP
    except ImportError as error:
        raise ModuleNotFoundError(
            f"umap_dimensions: got {n_components}, and umap-learn cannot be imported ({error}); install the extra "
            "`umap`, or leave it at 0"
        ) from error
    found: Float[ndarray, "points components"] = UMAP(
        n_components=n_components, min_dist=0.0, random_state=0, n_jobs=1
    ).fit_transform(points)
    return found


def renumbered(labels: ndarray, probabilities: ndarray) -> Clusters:
    """A library's clusters, numbered as ours are."""
    numbered = numbered_by_smallest_member(labels)
    return Clusters(numbered, np.asarray(probabilities, dtype=np.float64), int(numbered.max(initial=-1)) + 1)
