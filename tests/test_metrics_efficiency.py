"""Latency and memory follow from the timed batches: means, ratios and intervals, nulls where nothing was timed."""

import math

import numpy as np
import pytest
from references import Timed, evaluation, interval, number, timings
from scipy.stats import bootstrap

from metrics.catalogue import Value
from metrics.efficiency import Efficiency


def values(timed: dict[str, Timed]) -> dict[str, Value]:
    """What the metric makes of these timings."""
    return dict(Efficiency(evaluation(timed=timed)).compute())


def only(*ways: str, **changes: Timed) -> dict[str, Timed]:
    """The backbone's timings and these."""
    return {name: one for name, one in timings().items() if name.startswith("backbone") or name in ways} | changes


def test_means_and_ratio_are_those_of_the_timed_batches() -> None:
    timed = timings()
    found = values(timed)
    both = [*timed["backbone"].milliseconds, *timed["backbone again"].milliseconds]
    mean = {name: math.fsum(one.milliseconds) / len(one.milliseconds) for name, one in timed.items()}
    backbone = math.fsum(both) / len(both)
    assert number(found["latency"]) == pytest.approx(mean["merged"], rel=1e-12)
    assert number(found["latency_unasked"]) == pytest.approx(mean["unasked"], rel=1e-12)
    assert number(found["latency_codes"]) == pytest.approx(mean["codes"], rel=1e-12)
    assert number(found["latency_backbone"]) == pytest.approx(backbone, rel=1e-12)
    assert number(found["latency_ratio"]) == pytest.approx(mean["merged"] / backbone, rel=1e-12)
    drift = 100 * (mean["backbone again"] / mean["backbone"] - 1)
    assert number(found["latency_drift"]) == pytest.approx(drift, rel=1e-9)
    assert (found["latency"].n, found["latency_backbone"].n) == (20, 40)
    assert found["latency"].interval == "bootstrap over timed batches"


def test_the_ratio_s_interval_is_that_of_another_bootstrap() -> None:
    timed = timings(n=200)
    both = np.array([*timed["backbone"].milliseconds, *timed["backbone again"].milliseconds])
    reference = bootstrap(
        (np.array(timed["merged"].milliseconds), both),
        lambda x, y, axis: x.mean(axis=axis) / y.mean(axis=axis),
        method="percentile",
        n_resamples=9999,
        rng=np.random.default_rng(0),
    ).confidence_interval
    low, high = interval(values(timed)["latency_ratio"])
    width = reference.high - reference.low
    assert low == pytest.approx(reference.low, abs=0.1 * width)
    assert high == pytest.approx(reference.high, abs=0.1 * width)


def test_scaling_every_time_scales_latency_and_leaves_the_ratio() -> None:
    timed = timings()
    slower = {name: Timed(tuple(3 * ms for ms in one.milliseconds), one.peak_bytes) for name, one in timed.items()}
    before, after = values(timed), values(slower)
    assert number(after["latency"]) == pytest.approx(3 * number(before["latency"]), rel=1e-12)
    for name in ("latency_ratio", "latency_drift"):
        assert number(after[name]) == pytest.approx(number(before[name]), rel=1e-9)
        assert interval(after[name]) == pytest.approx(interval(before[name]), rel=1e-9)


def test_a_method_without_a_layer_of_its_own_is_hooked_and_has_one_way() -> None:
    timed = only("hooked")
    found = values(timed)
    assert number(found["latency"]) == pytest.approx(np.mean(timed["hooked"].milliseconds), rel=1e-12)
    for name in ("latency_unasked", "latency_codes", "peak_memory_codes", "peak_memory_unasked"):
        assert found[name].value is None
        assert found[name].reason == (
            "the method has no layer of its own, so that it runs in the network in one way only"
        )


def test_memory_is_in_millions_of_bytes_and_null_on_a_cpu() -> None:
    found = values(only("merged", "codes", codes=Timed((1.0, 2.0), 577_490_000)))
    assert number(found["peak_memory_codes"]) == 577.49
    assert (found["peak_memory_codes"].interval, found["peak_memory_codes"].n) == ("exact", 2)
    on_cpu = values(timings(peak_bytes=None))
    for name in ("peak_memory", "peak_memory_codes", "peak_memory_unasked", "peak_memory_backbone"):
        assert on_cpu[name].value is None
        assert on_cpu[name].reason == "measured on a CPU, for which torch counts no allocations"


def test_a_single_timed_batch_has_no_interval() -> None:
    timed = {name: Timed((100.0 + at,), None) for at, name in enumerate(("backbone", "backbone again", "hooked"))}
    found = values(timed)
    assert (found["latency"].value, found["latency"].low) == (102.0, None)
    assert found["latency_ratio"].low is None
    assert found["latency_ratio"].interval == "none: one of timed batches"
    assert number(found["latency_ratio"]) == pytest.approx(102.0 / 100.5, rel=1e-12)
    assert number(found["latency_drift"]) == pytest.approx(1.0, rel=1e-9)


def test_nothing_else_may_run_meanwhile_and_no_image_is_read() -> None:
    assert (Efficiency.runs_alone, Efficiency.passes) == (True, 0)
