"""Intervals: known values, degenerate cases, and that 95 % means about 95 %."""

import numpy as np
import pytest
import torch
from references import interval, number, wilson

from metrics import intervals
from metrics.catalogue import Value
from metrics.intervals import N_RESAMPLES, ImageMean, block_counts, bootstrapped, dealt, proportion


def sample(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=n)


def test_wilson_known_value() -> None:
    # Newcombe 1998, Statistics in Medicine 17, table I: 81 of 263 gives 0.2553 to 0.3662.
    value = proportion(81, 263, "images")
    assert value.value == pytest.approx(30.798, abs=1e-3)
    assert interval(value) == pytest.approx((25.53, 36.62), abs=5e-3)
    assert (value.interval, value.n) == ("wilson over images", 263)


@pytest.mark.parametrize(("n_hits", "n"), [(0, 10), (10, 10), (1, 2), (37, 50)])
def test_wilson_is_its_definition(n_hits: int, n: int) -> None:
    low, high = wilson(n_hits, n)
    assert interval(proportion(n_hits, n, "atoms")) == pytest.approx((100 * low, 100 * high), abs=2e-4)


def test_a_share_of_nothing_is_null() -> None:
    value = proportion(0, 0, "images")
    assert (value.value, value.reason) == (None, "no images")


@pytest.mark.parametrize("statistic", ["mean", "median"])
def test_bootstrap_interval_contains_the_value_and_is_deterministic(statistic: str) -> None:
    numbers = sample(80)
    take = np.mean if statistic == "mean" else np.median
    value = bootstrapped(numbers, "atoms", statistic=statistic)  # type: ignore[arg-type]
    low, high = interval(value)
    assert number(value) == take(numbers)
    assert low < number(value) < high
    assert bootstrapped(numbers, "atoms", statistic=statistic) == value  # type: ignore[arg-type]


def test_bootstrap_interval_is_near_the_normal_one() -> None:
    numbers = sample(400)
    low, high = interval(bootstrapped(numbers, "images"))
    assert high - low == pytest.approx(2 * 1.96 * numbers.std() / 20, rel=0.1)


def test_the_median_has_an_interval_of_its_own() -> None:
    numbers = np.exp(2 * sample(200))
    low, high = interval(bootstrapped(numbers, "atoms", statistic="median"))
    assert low < 1 < high < numbers.mean()


def test_bootstrap_interval_shrinks_with_n() -> None:
    few, many = (interval(bootstrapped(sample(n), "images")) for n in (30, 3000))
    assert (few[1] - few[0]) / (many[1] - many[0]) == pytest.approx(10, rel=0.4)


def test_bootstrap_covers_the_true_mean_about_95_percent_of_the_time() -> None:
    intervals_of_draws = [interval(bootstrapped(sample(60, seed), "images")) for seed in range(200)]
    n_covering = sum(low <= 0 <= high for low, high in intervals_of_draws)
    assert 0.90 <= n_covering / 200 <= 0.985


def test_resampling_in_chunks_covers_the_same_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = sample(50)
    at_once = bootstrapped(numbers, "atoms")
    monkeypatch.setattr(intervals, "MAX_RESAMPLED_NUMBERS", 50 * 7)
    assert bootstrapped(numbers, "atoms") == at_once


def test_one_number_has_no_interval() -> None:
    value = bootstrapped(np.array([3.0]), "atoms")
    assert (value.value, value.low, value.high, value.interval) == (3.0, None, None, "none: one of atoms")


def test_no_numbers_are_null() -> None:
    assert bootstrapped(np.array([]), "atoms", n_excluded=4, reason="all dead").reason == "all dead"


def test_equal_numbers_have_an_interval_of_width_zero() -> None:
    assert interval(bootstrapped(np.full(9, 2.5), "atoms")) == (2.5, 2.5)


def test_block_counts_draw_as_many_blocks_as_there_are() -> None:
    counts = block_counts(64)
    assert counts.shape == (N_RESAMPLES, 64)
    assert (counts.sum(axis=1) == 64).all()
    assert counts.mean(axis=0) == pytest.approx(np.ones(64), abs=0.2)
    assert counts.var() == pytest.approx(63 / 64, rel=0.05)


def mean_of(numbers: np.ndarray, sizes: list[int]) -> Value:
    mean = ImageMean(len(numbers))
    for images in torch.arange(len(numbers)).split(sizes):
        mean.add(images, torch.from_numpy(numbers)[images])
    return mean.value()


def test_the_mean_over_images_is_the_mean_however_they_are_batched() -> None:
    numbers = sample(300)
    one, many = mean_of(numbers, [300]), mean_of(numbers, [7] * 42 + [6])
    assert number(one) == pytest.approx(numbers.mean(), abs=1e-15)
    assert (one.n, one.interval) == (300, "bootstrap over images in 64 blocks")
    assert [number(many), *interval(many)] == pytest.approx([number(one), *interval(one)], abs=1e-14)


def test_the_interval_of_a_mean_in_blocks_is_near_the_bootstrap_over_images_of_a_sorted_split() -> None:
    numbers = np.sort(sample(6400))
    low, high = interval(mean_of(numbers, [6400]))
    expected = interval(bootstrapped(numbers, "images"))
    assert high - low == pytest.approx(expected[1] - expected[0], rel=0.25)


def test_with_fewer_images_than_blocks_each_image_is_resampled() -> None:
    numbers = sample(30)
    low, high = interval(mean_of(numbers, [30]))
    expected = interval(bootstrapped(numbers, "images"))
    assert (low, high) == pytest.approx(expected, abs=0.1)


def test_the_mean_of_no_image_of_one_and_of_some() -> None:
    assert ImageMean(5).value(n_excluded=5, reason="all broken") == Value.null("all broken", n_excluded=5)
    assert ImageMean(0).value() == Value.null("no images")
    assert mean_of(np.array([2.5]), [1]) == Value(2.5, None, None, "none: one block of images", 1)


def test_images_are_dealt_to_blocks_of_one_size() -> None:
    blocks = dealt(1000)
    sizes = torch.bincount(blocks.long(), minlength=64)
    assert (int(sizes.min()), int(sizes.max())) == (15, 16)
    assert blocks[:64].unique().numel() < 64  # at random, not in turn
