"""k-means and what is nearest to its centroids: the clusters of methods that fix how many there are."""

import warnings
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from methods.clustering.trees import numbered_by_smallest_member


def kmeans(
    points: Float[ndarray, "points width"], n: int, **options: Any
) -> tuple[Int[ndarray, " points"], Float[ndarray, "clusters width"]]:
    """The cluster of each point and the centroids, in the order of each cluster's first point.

    Fewer than n clusters where points coincide.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # says that points coincide, which the result shows
        model = KMeans(n, **options).fit(points)
    found, first = np.unique(model.labels_, return_index=True)
    return numbered_by_smallest_member(model.labels_), model.cluster_centers_[found[np.argsort(first)]]


def nearest(
    points: Float[Tensor, "units images d_in"],
    centroids: Float[Tensor, "units most d_in"],
    parts: Int[Tensor, " units"],
) -> Int[Tensor, "units images"]:
    """Which of the unit's centroids is nearest, the first among equals; beyond its number of parts is padding."""
    # The square of the point itself is the same for all of them.
    distances = centroids.square().sum(dim=2)[:, None] - 2 * points @ centroids.transpose(1, 2)
    padding = torch.arange(centroids.shape[1], device=parts.device) >= parts[:, None]
    return distances.masked_fill(padding[:, None], torch.inf).argmin(dim=2)
