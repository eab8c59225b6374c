"""Rank groups: which methods cannot be told apart.

Two methods are separated if the difference of their win rates is more than the resampled differences allow: a z-test
with the standard error of the paired bootstrap over unit pairs, two-sided, adjusted by Holm 1979 over all pairs of
methods at 5 %. (Counting resamples below 0 cannot give p-values small enough for 45 pairs: with 1,000 of them the
smallest is 0.002.) A group is a longest run of neighbours in rank of which no two are separated; groups may overlap, as
the letters of Piepho 2004 do, and two methods that share one are never separated.
"""

from typing import Final

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.stats import norm

from judges.estimates import ratio

LEVEL: Final = 0.05


def rank_groups(
    rates: Float[np.ndarray, " methods"],
    draws: Float[np.ndarray, "resamples methods"],
    *,
    n_unit_pairs: Int[np.ndarray, " methods"],
) -> list[tuple[int, ...]]:
    """Numbers of the groups of each method, from the best; none for a method without a rate.

    Args:
        rates: Win rates in %; not a number where a method has none.
        draws: The same in each resample of unit pairs.
        n_unit_pairs: Unit pairs with a decided presentation, of each method.
    """
    ranked = [m for m in np.argsort(-rates, kind="stable").tolist() if np.isfinite(rates[m])]
    apart = separated(rates[ranked], draws[:, ranked], n_unit_pairs[ranked])
    groups: list[list[int]] = [[] for _ in rates]
    number, last = 0, 0
    for start in range(len(ranked)):
        stop = start + 1
        while stop < len(ranked) and not apart[start:stop, stop].any():
            stop += 1
        if stop > last:
            number, last = number + 1, stop
            for m in ranked[start:stop]:
                groups[m].append(number)
    return [tuple(found) for found in groups]


def separated(
    rates: Float[np.ndarray, " methods"],
    draws: Float[np.ndarray, "resamples methods"],
    n_unit_pairs: Int[np.ndarray, " methods"],
) -> Bool[np.ndarray, "methods methods"]:
    """Which methods differ at 5 %, all pairs taken together."""
    first, second = np.triu_indices(len(rates), 1)
    gaps = np.abs(rates[first] - rates[second])
    errors = np.maximum(_spread(draws[:, first] - draws[:, second]), _floor(n_unit_pairs[first], n_unit_pairs[second]))
    is_apart = np.zeros((len(rates), len(rates)), dtype=bool)
    is_apart[first, second] = holm(2 * norm.sf(ratio(gaps, errors)))
    return np.asarray(is_apart | is_apart.T)


def holm(p_values: Float[np.ndarray, " tests"]) -> Bool[np.ndarray, " tests"]:
    """Which of the tests are rejected at `LEVEL`, the chance of any false rejection kept below it (Holm 1979)."""
    order = np.argsort(p_values, kind="stable")
    passes = p_values[order] <= LEVEL / np.arange(len(p_values), 0, -1)
    rejected = np.zeros(len(p_values), dtype=bool)
    rejected[order] = np.logical_and.accumulate(passes)
    return rejected


def _spread(draws: Float[np.ndarray, "resamples tests"]) -> Float[np.ndarray, " tests"]:
    """Standard deviation over the resamples in which both have a rate; 0 where fewer than two do."""
    there = np.isfinite(draws)
    n = there.sum(axis=0)
    filled = np.where(there, draws, 0.0)
    means = filled.sum(axis=0) / np.maximum(n, 1)
    squares = np.where(there, (filled - means) ** 2, 0.0).sum(axis=0)
    return np.asarray(np.sqrt(squares / np.maximum(n - 1, 1)))


def _floor(first: Int[np.ndarray, " tests"], second: Int[np.ndarray, " tests"]) -> Float[np.ndarray, " tests"]:
    """Least standard error of a difference, in points, for methods whose unit pairs all end alike.

    Resamples of those do not vary at all. It is the error of two shares of 1 or 0 with one hit and one miss added
    (Laplace's rule).
    """
    n = np.stack([first, second]).astype(np.float64)
    return np.asarray(100 * np.sqrt(((n + 1) / (n + 2) ** 2 / np.maximum(n, 1)).sum(axis=0)))
