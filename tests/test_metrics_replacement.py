"""Accuracy after replacement: hand-made cases, a plain loop, and what happens where logits are not finite."""

import math
from collections.abc import Mapping

import pytest
import torch
from references import Batch, Evaluation, evaluation, interval, number, stream, wilson
from scipy.special import rel_entr
from sklearn.metrics import top_k_accuracy_score
from torch.nn.functional import kl_div

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


@pytest.mark.parametrize("n_classes", [6, 30])
def test_top_5_equals_scikit_learn(n_classes: int) -> None:
    generator = torch.Generator().manual_seed(n_classes)
    logits, replaced = torch.randn(2, 150, n_classes, generator=generator)
    labels = torch.randint(n_classes, (150,), generator=generator)
    values = measured(evaluation(logits=logits, replaced_logits=replaced, labels=labels))
    for name, given in (("top5", replaced), ("top5_untouched", logits)):
        share = top_k_accuracy_score(labels.numpy(), given.numpy(), k=5, labels=range(n_classes))
        assert number(values[name]) == pytest.approx(100 * share, abs=1e-9)
    low, high = wilson(round(1.5 * number(values["top5"])), 150)
    assert interval(values["top5"]) == pytest.approx((100 * low, 100 * high), abs=2e-4)


def test_among_equal_logits_the_lowest_five_classes_are_the_top_5() -> None:
    labels = torch.arange(8)
    values = measured(evaluation(logits=torch.zeros(8, 8), replaced_logits=torch.zeros(8, 8), labels=labels))
    assert values["top5"].value == 62.5


@pytest.mark.parametrize("n_classes", [1, 5])
def test_top_5_of_five_classes_is_null(n_classes: int) -> None:
    logits = torch.zeros(8, n_classes)
    values = measured(evaluation(logits=logits, replaced_logits=logits, labels=torch.zeros(8).long()))
    for name in ("top5", "top5_untouched"):
        assert values[name] == Value.null(f"5 of {n_classes} classes: every image would be right", n=8)
    assert number(values["top1"]) == 100


def test_without_labels_nothing_is_a_hit_and_the_rest_is_measured() -> None:
    class Unlabelled(Batch):
        labels = None  # type: ignore[assignment]

    split = evaluation(n_images=20)
    metric = Replacement(split)
    metric.update(Unlabelled(split, torch.arange(20)), pass_index=0)
    values, expected = metric.compute(), measured(split)
    assert [values[name].value for name in ("top1", "top1_untouched", "top5", "top5_untouched")] == [0, 0, 0, 0]
    assert [values[name] for name in ("agreement", "kl")] == [expected[name] for name in ("agreement", "kl")]


@pytest.mark.parametrize("scale", [1e-4, 1.0, 300.0])
def test_divergence_equals_torch_and_scipy(scale: float) -> None:
    split = evaluation(n_images=90, seed=5)
    split.logits, split.replaced_logits = split.logits * scale, split.replaced_logits * scale
    before, after = split.logits.double(), split.replaced_logits.double()
    found = number(measured(split)["kl"])
    by_torch = kl_div(after.log_softmax(1), before.log_softmax(1), reduction="batchmean", log_target=True)
    assert found == pytest.approx(float(by_torch), abs=1e-12, rel=1e-9)
    if scale == 1:
        p, q = (logits.softmax(1).numpy() for logits in (before, after))
        assert found == pytest.approx(rel_entr(p, q).sum(axis=1).mean(), abs=1e-12)


def test_divergence_is_none_for_shifted_logits_and_has_a_direction() -> None:
    split = evaluation(logits=torch.tensor([[0.0, 0.0]] * 9), replaced_logits=torch.tensor([[4.0, 4.0]] * 9))
    assert number(measured(split)["kl"]) == pytest.approx(0, abs=1e-15)
    split.replaced_logits = torch.tensor([[math.log(3), 0.0]] * 9)  # p = (1/2, 1/2), q = (3/4, 1/4)
    assert number(measured(split)["kl"]) == pytest.approx(0.5 * math.log(4 / 3), abs=1e-7)


def test_divergence_leaves_out_and_counts_images_that_are_not_finite() -> None:
    split = evaluation(n_images=30)
    expected = measured(evaluation(n_images=30))["kl"]
    split.replaced_logits[4, 0], split.logits[9, 1] = torch.nan, -torch.inf
    value = measured(split)["kl"]
    assert (value.n, value.n_excluded, value.reason) == (28, 2, "2 images with logits that are not finite")
    assert number(value) == pytest.approx(number(expected), rel=0.3)
    split.logits[:] = torch.nan
    assert measured(split)["kl"] == Value.null("30 images with logits that are not finite", n_excluded=30)


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
