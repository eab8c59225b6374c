"""Bradley-Terry strengths: how strong each method is, whichever opponents it met.

A win rate is relative to the pool. The strengths s of Bradley and Terry 1952, P(i beats j) = 1 / (1 + exp(s_j - s_i)),
survive a pool in which some pairs were never compared, or were compared more often than others.

A method that always wins has no finite strength, and two groups of methods that never met have no common scale (Ford
1957). A Gaussian prior of precision `PRIOR` around 0 on every strength bounds the first, and is too weak to be seen
elsewhere: it moves the strength of an evenly matched method with 100 comparisons by 0.004 %. Strengths outside the
largest group of methods that are linked by comparisons are null.
"""

from typing import Final

import numpy as np
from jaxtyping import Bool, Float
from scipy.sparse.csgraph import connected_components
from scipy.special import expit

PRIOR: Final = 1e-3
MAX_STEPS: Final = 200
LARGEST_STEP: Final = 1.0
TOLERANCE: Final = 1e-9


def strengths(wins: Float[np.ndarray, "*batch methods methods"]) -> Float[np.ndarray, "*batch methods"]:
    """The most likely strengths in natural-log odds; in each group of linked methods their mean is 0.

    Newton's method on all resamples at once; steps are cut to `LARGEST_STEP`, for the likelihood flattens far out.

    Args:
        wins: How often the method of the row beat that of the column; halves are welcome, the diagonal is 0.

    Raises:
        ArithmeticError: It does not settle within `MAX_STEPS` steps.
    """
    games = wins + wins.swapaxes(-1, -2)
    diagonal = np.arange(wins.shape[-1])
    found = np.zeros(wins.shape[:-1])
    if found.size == 0:
        return found
    for _ in range(MAX_STEPS):
        expected = expit(found[..., :, None] - found[..., None, :])
        slope = (wins - games * expected).sum(axis=-1) - PRIOR * found
        curvature = -games * expected * (1 - expected)
        curvature[..., diagonal, diagonal] -= curvature.sum(axis=-1) - PRIOR
        step = np.linalg.solve(curvature, slope[..., None])[..., 0]
        largest = np.abs(step).max(axis=-1, keepdims=True)
        found += step * np.minimum(1.0, LARGEST_STEP / np.maximum(largest, LARGEST_STEP))
        if largest.max() < TOLERANCE:
            return found
    raise ArithmeticError(
        f"wins: got strengths that still move by {largest.max():.1e} after {MAX_STEPS} steps; expected them to settle; "
        "check that all counts are finite and at least 0"
    )


def linked(wins: Float[np.ndarray, "methods methods"]) -> Bool[np.ndarray, " methods"]:
    """Which methods are in the largest group that is linked by comparisons: of equal ones, that with more of them.

    No method is where there are no comparisons, or where two groups are equal in both.
    """
    games = wins + wins.T
    if not games.any():
        return np.zeros(len(wins), dtype=bool)
    n_groups, group = connected_components(games > 0, directed=False)
    sizes = [(int((group == one).sum()), float(games[group == one].sum())) for one in range(n_groups)]
    largest = max(sizes)
    if sizes.count(largest) > 1:
        return np.zeros(len(wins), dtype=bool)
    return np.asarray(group == sizes.index(largest))


def has_finite_strengths(wins: Float[np.ndarray, "methods methods"]) -> bool:
    """Whether linked methods have finite strengths without a prior: no split into winners and losers (Ford 1957)."""
    return bool(connected_components(wins > 0, directed=True, connection="strong")[0] <= 1)
