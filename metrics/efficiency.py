"""What a method costs inside the running network: milliseconds a batch and peak memory (Bağcı et al. 2026, B.4).

The timings come from the bench, which runs the network as it is, with the method in it, and as it is once more. The
paper's construction is the one that is compared: a method that has a layer of its own stands in the site's place with
its parts summed ("merged"), every other one is computed after the untouched site ("hooked").
"""

from collections.abc import Mapping
from typing import ClassVar, Final

import numpy as np
from jaxtyping import Float64

from metrics.catalogue import MetricRow, Value, rows_of
from metrics.intervals import N_RESAMPLES, SEED, bootstrapped, percentiles
from metrics.protocol import EvaluationBatch, EvaluationFacts, Timing

BACKBONE, AGAIN = "backbone", "backbone again"
PAPERS: Final = ("merged", "hooked")
"""The ways that the paper times: whichever of them a method has."""
OVER: Final = "timed batches"
MEGABYTE: Final = 1e6
NO_COUNT: Final = "measured on a CPU, for which torch counts no allocations"

Times = Float64[np.ndarray, "_"]


class Efficiency:
    """Latency and memory of every way in which the method runs in the network, beside those of the network itself.

    Intervals are over timed batches, resampled: they cover the machine's jitter, not its drift, which is a value of
    its own. A method that has no such way has a null that says so.
    """

    rows: ClassVar[tuple[MetricRow, ...]] = rows_of("metrics.efficiency:Efficiency")
    version: ClassVar[int] = 1
    passes: ClassVar[int] = 0
    runs_alone: ClassVar[bool] = True

    def __init__(self, facts: EvaluationFacts) -> None:
        self.facts = facts

    def update(self, batch: EvaluationBatch, *, pass_index: int) -> None:
        """Nothing: no image of the split is looked at."""

    def compute(self) -> Mapping[str, Value]:
        """One value per row."""
        timings = self.facts.timings()
        before, after = times_of(timings[BACKBONE]), times_of(timings[AGAIN])
        backbone = np.concatenate([before, after])
        way = next((name for name in PAPERS if name in timings), None)
        chosen = None if way is None else timings[way]
        return {
            "latency": latency(chosen),
            "latency_ratio": Value.null(NO_WAY) if chosen is None else ratio(times_of(chosen), backbone),
            "latency_unasked": latency(timings.get("unasked")),
            "latency_codes": latency(timings.get("codes")),
            "latency_backbone": bootstrapped(backbone, OVER),
            "latency_drift": drift(before, after),
            "peak_memory": memory(chosen),
            "peak_memory_unasked": memory(timings.get("unasked")),
            "peak_memory_codes": memory(timings.get("codes")),
            "peak_memory_backbone": memory(timings[BACKBONE]),
        }


NO_WAY: Final = "the method has no layer of its own, so that it runs in the network in one way only"


def times_of(timing: Timing) -> Times:
    """The milliseconds of each timed batch."""
    return np.asarray(timing.milliseconds, dtype=np.float64)


def latency(timing: Timing | None) -> Value:
    """The mean of the timed batches; null where there is no such way."""
    return Value.null(NO_WAY) if timing is None else bootstrapped(times_of(timing), OVER)


def memory(timing: Timing | None) -> Value:
    """The most memory that was allocated; exact, since it is one number. Null where it is not counted."""
    if timing is None:
        return Value.null(NO_WAY)
    if timing.peak_bytes is None:
        return Value.null(NO_COUNT)
    return Value.exact(timing.peak_bytes / MEGABYTE, n=len(timing.milliseconds))


def resampled_means(times: Times, rng: np.random.Generator) -> Float64[np.ndarray, " resamples"]:
    """The means of resampled batches."""
    means: Float64[np.ndarray, " resamples"] = times[rng.integers(len(times), size=(N_RESAMPLES, len(times)))].mean(1)
    return means


def ratio(times: Times, backbone: Times) -> Value:
    """Mean over mean, its interval by resampling both; without one where a side has a single batch."""
    value, n = float(times.mean() / backbone.mean()), len(times)
    if min(n, len(backbone)) < 2:
        return Value(value, None, None, f"none: one of {OVER}", n)
    rng = np.random.default_rng(SEED)
    low, high = percentiles(resampled_means(times, rng) / resampled_means(backbone, rng))
    return Value(value, low, high, f"bootstrap over {OVER}", n)


def drift(before: Times, after: Times) -> Value:
    """How much longer the untouched network took after everything than before, in %."""
    found = ratio(after, before)
    ends = [None if end is None else 100 * (end - 1) for end in (found.value, found.low, found.high)]
    return Value(ends[0], ends[1], ends[2], found.interval, found.n, reason=None)
