"""What flows into one unit: contributions of its instances, and what is summed over them (ELUDe paper, section 3.2).

Contributions are made from the site's inputs when they are needed and never stored. Sums run over the rows in their
order, so that they do not depend on how many threads there are.
"""

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from methods.clustering.compiled import compiled

EPSILON = 1e-12
"""Added to norms (eq. 2) so that a contribution of zero stays zero."""


@compiled
def contributions(
    inputs: Float[ndarray, "tokens d_in"],
    rows: Int[ndarray, " instances"],
    weight: Float[ndarray, " d_in"],
    normalize: bool,
) -> Float[ndarray, "instances d_in"]:
    """W_u * q of each instance, in the precision of the inputs; at unit length where it is to be normalised."""
    found = np.empty((len(rows), len(weight)), inputs.dtype)
    for at in range(len(rows)):
        source, row, square = inputs[rows[at]], found[at], 0.0
        for j in range(len(weight)):
            row[j] = source[j] * weight[j]
            square += np.float64(row[j]) * np.float64(row[j])
        if normalize:
            scale = 1.0 / (np.sqrt(square) + EPSILON)
            for j in range(len(weight)):
                row[j] *= scale
    return found


@compiled
def cluster_sums(
    vectors: Float[ndarray, "vectors d_in"],
    rows: Int[ndarray, " instances"],
    labels: Int[ndarray, " instances"],
    shares: Float[ndarray, " instances"],
    n_clusters: int,
) -> Float[ndarray, "k d_in"]:
    """The sum over each cluster's instances of the vector in their row, times their share, in float64; noise is out."""
    sums = np.zeros((n_clusters, vectors.shape[1]))
    for at in range(len(rows)):
        if labels[at] >= 0:
            row, total, share = vectors[rows[at]], sums[labels[at]], shares[at]
            for j in range(len(row)):
                total[j] += share * np.float64(row[j])
    return sums
