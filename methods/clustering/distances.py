"""Squared distances in float64: the numbers that decide, wherever those of lower precision leave a doubt.

The distance of a pair is the sum of its squared differences over the dimensions, in one order: it is the same number
whichever row comes first, on any number of threads, in any tile.
"""

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from methods.clustering.compiled import compiled, compiled_sum


@compiled_sum
def squared_distance(points: Float[ndarray, "points dimensions"], i: int, j: int) -> float:
    """Squared Euclidean distance of two rows, in float64."""
    a, b = points[i], points[j]
    total = 0.0
    for at in range(points.shape[1]):
        difference = np.float64(a[at]) - np.float64(b[at])
        total += difference * difference
    return total


@compiled_sum
def squared_norm(points: Float[ndarray, "points dimensions"], i: int) -> float:
    """Squared norm of a row, in float64."""
    row = points[i]
    total = 0.0
    for at in range(len(row)):
        total += np.float64(row[at]) * np.float64(row[at])
    return total


@compiled
def squared_distances(
    points: Float[ndarray, "points dimensions"], i: Int[ndarray, " pairs"], j: Int[ndarray, " pairs"]
) -> Float[ndarray, " pairs"]:
    """Squared Euclidean distances of pairs of rows, in float64."""
    found = np.empty(len(i))
    for pair in range(len(i)):
        found[pair] = squared_distance(points, i[pair], j[pair])
    return found
