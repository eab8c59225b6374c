"""What the backbone does with the reconstruction: accuracy and logits after replacement.

The site's outputs are replaced by what the decomposition makes of them and the rest of the backbone runs on (Bağcı et
al. 2026, section 4.1). Accuracy alone hides errors that cancel, so the agreement with the untouched backbone and the
largest logit difference stand beside it.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metrics.catalogue import MetricRow, Value, rows_of
from metrics.intervals import proportion
from metrics.protocol import EvaluationBatch, EvaluationFacts


class Replacement:
    """`top1`, `top1_untouched`, `agreement` and `max_logit_difference` in one pass.

    Among equal logits the lowest class is the prediction. An image with a logit that is not finite has no prediction:
    it is wrong, agrees with nothing, and is counted in the reason.
    """

    rows: ClassVar[tuple[MetricRow, ...]] = rows_of("metrics.replacement:Replacement")
    version: ClassVar[int] = 1
    passes: ClassVar[int] = 1

    def __init__(self, facts: EvaluationFacts) -> None:
        self._n_images = 0
        self._n_hits = {"top1": 0, "top1_untouched": 0, "agreement": 0}
        self._n_not_finite = {"top1": 0, "top1_untouched": 0, "agreement": 0}
        self._max_difference = 0.0

    def update(self, batch: EvaluationBatch, *, pass_index: int) -> None:
        """Count hits, and keep the largest difference."""
        untouched, replaced = batch.logits, batch.replaced_logits
        # Without labels nothing is a hit; the bench then puts null in place of both accuracies.
        labels = torch.full_like(batch.images, -1) if batch.labels is None else batch.labels
        labels = labels.to(replaced.device)
        untouched_is_finite, replaced_is_finite = _is_finite(untouched), _is_finite(replaced)
        predicted, predicted_untouched = replaced.argmax(dim=1), untouched.argmax(dim=1)
        both_are_finite = untouched_is_finite & replaced_is_finite
        for name, is_hit, is_finite in (
            ("top1", predicted == labels, replaced_is_finite),
            ("top1_untouched", predicted_untouched == labels, untouched_is_finite),
            ("agreement", predicted == predicted_untouched, both_are_finite),
        ):
            self._n_hits[name] += int((is_hit & is_finite).sum())
            self._n_not_finite[name] += int((~is_finite).sum())
        difference = (replaced.double() - untouched.double()).abs()[both_are_finite]
        if difference.numel():
            self._max_difference = max(self._max_difference, float(difference.max()))
        self._n_images += len(labels)

    def compute(self) -> Mapping[str, Value]:
        """The four values; null where the split is empty, and no largest difference where a logit is not finite."""
        values = {
            name: proportion(n_hits, self._n_images, "images", reason=_warning(self._n_not_finite[name]))
            for name, n_hits in self._n_hits.items()
        }
        n_not_finite = self._n_not_finite["agreement"]
        n = self._n_images - n_not_finite
        if self._n_images == 0 or n_not_finite:
            reason = "no images" if self._n_images == 0 else f"{n_not_finite} images with logits that are not finite"
            values["max_logit_difference"] = Value.null(reason, n=n, n_excluded=n_not_finite)
        else:
            values["max_logit_difference"] = Value.exact(self._max_difference, n=n)
        return values


def _is_finite(logits: Float[Tensor, "images classes"]) -> Bool[Tensor, " images"]:
    return torch.isfinite(logits).all(dim=1)


def _warning(n_not_finite: int) -> str | None:
    return f"{n_not_finite} images with logits that are not finite, counted as misses" if n_not_finite else None
