"""Numbers with their 95 % intervals, or a null with its reason.

Intervals are never optional (Agarwal et al. 2021, arXiv:2108.13264). Shares are in %, biases in percentage points.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Float
from scipy.stats import binomtest, norm

CONFIDENCE: Final = 0.95


@dataclass(frozen=True)
class Estimate:
    """One number and how sure it is.

    Attributes:
        value: The number; None where it cannot be told.
        low: Lower end of the 95 % interval; None where there is no interval.
        high: Upper end.
        reason: Why value or interval are missing, or what else the reader should know; empty otherwise.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str = ""

    def on_line(self, slope: float, offset: float = 0.0) -> "Estimate":
        """The same on another scale: `slope` > 0 times the number, plus `offset`."""
        value, low, high = (None if end is None else slope * end + offset for end in (self.value, self.low, self.high))
        return Estimate(value, low, high, self.reason)


def share(n_hits: int, n: int, over: str) -> Estimate:
    """The share of hits in %, with its Wilson interval; null where there is nothing to count.

    Args:
        n_hits: How many of them are hits, 0 to `n`.
        n: How many there are.
        over: What they are, for the reason of a null.
    """
    if n == 0:
        return Estimate(None, reason=f"no {over}")
    interval = binomtest(n_hits, n).proportion_ci(confidence_level=CONFIDENCE, method="wilson")
    return Estimate(100 * n_hits / n, 100 * float(interval.low), 100 * float(interval.high))


def difference_of_paired_shares(n_first: int, n_second: int, n: int, over: str) -> Estimate:
    """The share of the first kind less that of the second, in points, where each thing is of one kind or of neither.

    The interval is the adjusted one of Bonett and Price 2012, "Adjusted Wald confidence interval for a difference of
    binomial proportions based on paired data", which has a width where both counts are 0 too.

    Args:
        n_first: Things of the first kind.
        n_second: Things of the second kind.
        n: Things in all, those of neither kind included; 0 gives a null.
        over: What they are, for the reason of a null.
    """
    if n == 0:
        return Estimate(None, reason=f"no {over}")
    first, second = (n_first + 1) / (n + 2), (n_second + 1) / (n + 2)
    half = float(norm.isf((1 - CONFIDENCE) / 2)) * np.sqrt((first + second - (first - second) ** 2) / (n + 2))
    low, high = max(-1.0, float(first - second - half)), min(1.0, float(first - second + half))
    return Estimate(100 * (n_first - n_second) / n, 100 * low, 100 * high)


def resampled(value: float | None, draws: Float[np.ndarray, " resamples"], reason: str = "") -> Estimate:
    """A number with the percentile interval of its resamples.

    Args:
        value: The number itself; None or one that is not finite gives a null.
        draws: The number in each resample; those that are not finite are left out.
        reason: Why the number is missing, or what the reader should know.
    """
    if value is None or not np.isfinite(value):
        return Estimate(None, reason=reason or "nothing to count")
    finite = draws[np.isfinite(draws)]
    if len(finite) == 0:
        return Estimate(float(value), reason=reason or "no resample has anything to count")
    low, high = np.quantile(finite, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Estimate(float(value), float(low), float(high), reason)


def ratio(over: Float[np.ndarray, "*shape"], under: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """Quotients, element by element; not a number where the divisor is 0. Callers turn that into a null."""
    found = np.full(np.shape(over), np.nan)
    np.divide(over, under, out=found, where=under > 0)
    return found
