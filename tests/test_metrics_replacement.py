"""Accuracy after replacement: hand-made cases, a plain loop, and what happens where logits are not finite."""

from collections.abc import Mapping

import pytest
import torch
from references import Evaluation, evaluation, interval, number, stream, wilson

from metrics.catalogue import Value
from metrics.replacement import Replacement


def measured(split: Evaluation) -> Mapping[str, Value]:
    return stream(Replacement(split), split)


def four_images() -> Evaluation:
    """Untouched right on images 0, 1 and 2; replaced right on 0 and 3; equal predictions on 0."""
    return evaluation(
        labels=torch.tensor([0, 1, 0, 1]),
        logits=torch.tensor([[2.0, 1.0], [0.0, 1.0], [3.0, 1.0], [4.0, 1.0]]),
        replaced_logits=torch.tensor([[2.5, 1.0], [1.5, 1.0], [0.0, 1.0], [0.0, 1.0]]),
    )


def test_four_images_by_hand() -> None:
    values = measured(four_images())
    assert values["top1"].value == 50
    assert values["top1_untouched"].value == 75
    assert values["agreement"].value == 25
    assert values["max_logit_difference"] == Value(4.0, None, None, "exact", 4)


def test_equals_a_plain_loop() -> None:
    split = evaluation(n_images=150, seed=2)
    n_right = n_right_untouched = n_equal = 0
    for label, logits, replaced in zip(
        split.labels.tolist(), split.logits.tolist(), split.replaced_logits.tolist(), strict=True
    ):
        n_right += replaced.index(max(replaced)) == label
        n_right_untouched += logits.index(max(logits)) == label
        n_equal += replaced.index(max(replaced)) == logits.index(max(logits))
    values = measured(split)
    assert number(values["top1"]) == pytest.approx(100 * n_right / 150)
    assert number(values["top1_untouched"]) == pytest.approx(100 * n_right_untouched / 150)
    assert number(values["agreement"]) == pytest.approx(100 * n_equal / 150)
    low, high = wilson(n_right, 150)
    assert interval(values["top1"]) == pytest.approx((100 * low, 100 * high), abs=2e-4)


def test_untouched_logits_agree_everywhere_and_differ_nowhere() -> None:
    split = evaluation(n_images=30)
    split.replaced_logits = split.logits
    values = measured(split)
    assert values["agreement"].value == 100
    assert interval(values["agreement"])[0] < 100
    assert values["max_logit_difference"].value == 0
    assert values["top1"].value == values["top1_untouched"].value


def test_the_largest_difference_is_over_the_whole_split_and_absolute() -> None:
    split = evaluation(n_images=40)
    split.replaced_logits = split.logits.clone()
    split.replaced_logits[3, 1] -= 8
    split.replaced_logits[39, 2] += 2
    assert number(measured(split)["max_logit_difference"]) == pytest.approx(8, abs=1e-5)


def test_the_largest_difference_sees_what_float32_rounds_away() -> None:
    split = evaluation(logits=torch.full((2, 2), 1.0, dtype=torch.float64))
    split.replaced_logits = split.logits + 2.0**-40
    assert measured(split)["max_logit_difference"].value == 2.0**-40


def test_equal_logits_predict_the_lowest_class() -> None:
    split = evaluation(logits=torch.zeros(8, 4), replaced_logits=torch.zeros(8, 4), labels=torch.zeros(8).long())
    assert measured(split)["top1"].value == 100


def test_logits_that_are_not_finite_are_misses_and_counted() -> None:
    split = four_images()
    split.replaced_logits[0, 0] = torch.nan
    split.replaced_logits[3, 1] = torch.inf
    values = measured(split)
    assert values["top1"].value == 0
    assert values["top1"].reason == "2 images with logits that are not finite, counted as misses"
    assert values["agreement"].value == 0
    assert (values["top1_untouched"].value, values["top1_untouched"].reason) == (75, None)
    assert values["max_logit_difference"].value is None
    assert values["max_logit_difference"].reason == "2 images with logits that are not finite"


def test_without_a_largest_difference_what_is_finite_and_what_is_not_are_counted() -> None:
    split = evaluation(n_images=30)
    split.replaced_logits[4, 0] = torch.nan
    expected = Value.null("1 images with logits that are not finite", n=29, n_excluded=1)
    assert measured(split)["max_logit_difference"] == expected


def test_without_images_there_is_nothing() -> None:
    assert set(Replacement(four_images()).compute().values()) == {Value.null("no images")}
