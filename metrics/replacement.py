"""What the backbone does with the reconstruction: accuracy and logits after replacement.

The site's outputs are replaced by what the decomposition makes of them and the rest of the backbone runs on (Bağcı et
al. 2026, section 4.1). Accuracy alone hides errors that cancel, so the agreement with the untouched backbone, the
divergence of the predicted distributions and the largest logit difference stand beside it.
"""

from collections.abc import Mapping
from typing import ClassVar, Final

import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from metrics.catalogue import MetricRow, Value, rows_of
from metrics.intervals import ImageMean, proportion
from metrics.protocol import EvaluationBatch, EvaluationFacts

TOP: Final = 5


class Replacement:
    """Top-1 and top-5 with and without the reconstruction, `agreement`, `kl` and `max_logit_difference` in one pass.

    Among equal logits the lowest class ranks first. An image with a logit that is not finite has no prediction: it is
    wrong, agrees with nothing, is left out of the divergence, and is counted in the reason. Top-5 of five classes or
    fewer is null: whatever the logits, every image would be right.
    """

    rows: ClassVar[tuple[MetricRow, ...]] = rows_of("metrics.replacement:Replacement")
    version: ClassVar[int] = 1
    passes: ClassVar[int] = 1

    def __init__(self, facts: EvaluationFacts) -> None:
        self._n_images = 0
        self._n_classes = 0
        names = ("top1", "top1_untouched", "top5", "top5_untouched", "agreement")
        self._n_hits = dict.fromkeys(names, 0)
        self._n_not_finite = dict.fromkeys(names, 0)
        self._divergence = ImageMean(facts.n_images)
        self._max_difference = 0.0

    def update(self, batch: EvaluationBatch, *, pass_index: int) -> None:
        """Count hits, add up divergences, and keep the largest difference."""
        untouched, replaced = batch.logits, batch.replaced_logits
        # Without labels nothing is a hit; the bench then puts null in place of the accuracies.
        labels = torch.full_like(batch.images, -1) if batch.labels is None else batch.labels
        labels = labels.to(replaced.device)
        untouched_is_finite, replaced_is_finite = _is_finite(untouched), _is_finite(replaced)
        both_are_finite = untouched_is_finite & replaced_is_finite
        rank, rank_untouched = _rank(replaced, labels), _rank(untouched, labels)
        for name, is_hit, is_finite in (
            ("top1", rank < 1, replaced_is_finite),
            ("top1_untouched", rank_untouched < 1, untouched_is_finite),
            ("top5", rank < TOP, replaced_is_finite),
            ("top5_untouched", rank_untouched < TOP, untouched_is_finite),
            ("agreement", replaced.argmax(dim=1) == untouched.argmax(dim=1), both_are_finite),
        ):
            self._n_hits[name] += int((is_hit & is_finite).sum())
            self._n_not_finite[name] += int((~is_finite).sum())
        before, after = untouched[both_are_finite].double(), replaced[both_are_finite].double()
        self._divergence.add(batch.images.to(before.device)[both_are_finite], _divergence(before, after))
        if before.numel():
            self._max_difference = max(self._max_difference, float((after - before).abs().max()))
        self._n_images += len(labels)
        self._n_classes = replaced.shape[1]

    def compute(self) -> Mapping[str, Value]:
        """The seven values; null where the split is empty, and no largest difference where a logit is not finite."""
        values = {
            name: proportion(n_hits, self._n_images, "images", reason=_warning(self._n_not_finite[name]))
            for name, n_hits in self._n_hits.items()
        }
        if 0 < self._n_classes <= TOP:
            null = Value.null(f"{TOP} of {self._n_classes} classes: every image would be right", n=self._n_images)
            values |= dict.fromkeys(("top5", "top5_untouched"), null)
        n_not_finite = self._n_not_finite["agreement"]
        n = self._n_images - n_not_finite
        why = f"{n_not_finite} images with logits that are not finite" if n_not_finite else None
        values["kl"] = self._divergence.value(n_excluded=n_not_finite, reason=why)
        if self._n_images == 0 or why:
            values["max_logit_difference"] = Value.null(why or "no images", n=n, n_excluded=n_not_finite)
        else:
            values["max_logit_difference"] = Value.exact(self._max_difference, n=n)
        return values


def _is_finite(logits: Float[Tensor, "images classes"]) -> Bool[Tensor, " images"]:
    return torch.isfinite(logits).all(dim=1)


def _rank(logits: Float[Tensor, "images classes"], labels: Int[Tensor, " images"]) -> Int[Tensor, " images"]:
    """How many classes rank before the true one; all of them where the label is none of the classes."""
    n_classes = logits.shape[1]
    label = labels.clamp(0, n_classes - 1)[:, None]
    own = logits.gather(1, label)
    is_lower_class = torch.arange(n_classes, device=logits.device) < label
    rank = ((logits > own) | ((logits == own) & is_lower_class)).sum(dim=1)
    return rank.where((labels >= 0) & (labels < n_classes), n_classes)


def _divergence(
    untouched: Float64[Tensor, "images classes"], replaced: Float64[Tensor, "images classes"]
) -> Float64[Tensor, " images"]:
    """KL(untouched || replaced) of the softmax of each image's logits, in nats."""
    log_p, log_q = untouched.log_softmax(dim=1), replaced.log_softmax(dim=1)
    return (log_p.exp() * (log_p - log_q)).sum(dim=1).clamp(min=0)  # rounding may leave it below zero


def _warning(n_not_finite: int) -> str | None:
    return f"{n_not_finite} images with logits that are not finite, counted as misses" if n_not_finite else None
