"""What a linear probe reads out of an image's codes, reconstruction and untouched outputs; and out of k atoms a class.

An image's features are the means over its tokens, for all three alike: the mean is linear, so the probe on pooled
outputs sees what a linear read-out of the tokens would sum to, it favours neither sparse nor dense codes by itself
(a maximum is the top end of noise where codes are dense), and as many features as atoms is what a probe should have.

The heads are fitted on images of the probing split and their penalty is chosen there (`metrics.heads`); the images of
the evaluation split are looked at once, to count hits.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from typing import ClassVar, Final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metrics.catalogue import MetricRow, Value, rows_of
from metrics.heads import Head, fit_head, predict
from metrics.intervals import proportion
from metrics.protocol import EvaluationBatch, EvaluationFacts
from metrics.sparse_probes import SparseProbe, fit_sparse

SIZES: Final = (1, 2, 5)
"""Atoms a class of the k-sparse probes."""

MAX_FEATURE_BYTES: Final = 2**31
"""Of all features that are kept for fitting; fewer images are kept where they would take more."""

MAX_KEPT_HEADS: Final = 8


class Sample:
    """Features and labels of the training images that are kept, no more than fit.

    Of more images those are kept whose index comes first in a fixed order that is scattered evenly over the indices,
    so that what is kept depends neither on the batches nor on how images are sorted by class.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.n_offered = 0
        self._limit = 2**32
        self._parts: list[dict[str, Tensor]] = []

    def __len__(self) -> int:
        return sum(len(part["images"]) for part in self._parts)

    def add(self, images: Int[Tensor, " images"], **columns: Tensor) -> None:
        """Take in some images: labels and features, a row for each."""
        self.n_offered += len(images)
        place = images.long() * 2654435769 % 2**32  # multiples of the golden ratio, no two of them equal
        is_kept = place < self._limit
        self._parts.append({"images": images[is_kept], "place": place[is_kept]})
        self._parts[-1] |= {name: column[is_kept.to(column.device)] for name, column in columns.items()}
        if len(self) > 1.25 * self.capacity:  # not at once: every time costs a copy
            self._thin()

    def _thin(self) -> None:
        place = torch.cat([part["place"] for part in self._parts])
        if len(place) > self.capacity:
            self._limit = int(torch.sort(place).values[self.capacity])
        order = torch.argsort(torch.cat([part["images"] for part in self._parts]))
        rows = order[place[order] < self._limit]
        whole = {}
        for name in tuple(self._parts[0]):
            column = torch.cat([part.pop(name) for part in self._parts])
            whole[name] = column[rows.to(column.device)]
        self._parts = [whole]

    def taken(self) -> dict[str, Tensor]:
        """All that is kept, in the order of the images; nothing is kept afterwards."""
        if not self._parts:
            return {}
        self._thin()
        return self._parts.pop()


_kept_heads: OrderedDict[str, Head] = OrderedDict()


def head_of(features: Float[Tensor, "images features"], labels: Int[Tensor, " images"], n_classes: int) -> Head:
    """The head of these features, found again where their content is that of features before.

    The untouched outputs are the same for all methods of a site, and so is what an exact method makes of them.
    """
    digest = hashlib.sha256(f"{n_classes} {tuple(features.shape)} {features.dtype} {features.device}".encode())
    for tensor in (features, labels):
        digest.update(tensor.contiguous().cpu().numpy().tobytes())
    key = digest.hexdigest()
    if key not in _kept_heads:
        _kept_heads[key] = fit_head(features, labels, n_classes)
    _kept_heads.move_to_end(key)
    while len(_kept_heads) > MAX_KEPT_HEADS:
        _kept_heads.popitem(last=False)
    return _kept_heads[key]


def pooled(values: Float[Tensor, "images tokens width"]) -> Float[Tensor, "images width"]:
    """The mean over an image's tokens, in float32 at least."""
    return values.mean(dim=1, dtype=torch.promote_types(values.dtype, torch.float32))


def pooled_outputs(batch: EvaluationBatch) -> Float[Tensor, "images units"]:
    """Of the untouched site; the same for all methods."""
    return pooled(batch.outputs)


class Probes:
    """Accuracy of linear probes on untouched outputs, codes and reconstruction, and of k-sparse probes on codes.

    At most 20,000 training images, and no more than have their features in 2 GiB; fitting takes about as much again.
    An image with a feature that is not finite is left out of the training and is a miss in the evaluation; both are
    counted in the reason. A class that only the evaluation split has is never predicted. Virtual units have no
    reconstruction to probe.
    """

    rows: ClassVar[tuple[MetricRow, ...]] = rows_of("metrics.probes:Probes")
    version: ClassVar[int] = 1
    passes: ClassVar[int] = 1
    n_training_images: ClassVar[int] = 20_000

    def __init__(self, facts: EvaluationFacts) -> None:
        widths = {"outputs": facts.n_units, "codes": facts.n_atoms}
        if facts.is_explicit:
            widths["reconstruction"] = facts.n_units
        self._kinds = tuple(widths)
        self._sample = Sample(min(self.n_training_images, MAX_FEATURE_BYTES // (4 * max(1, sum(widths.values())))))
        self._n_atoms = facts.n_atoms
        self._probes: dict[str, Head | SparseProbe] | None = None
        self._stopped = ""
        self._notes: list[str] = []
        self._n_images = 0
        self._n_bad = 0
        self._n_hits = {row.name: 0 for row in self.rows}
        self._n_bad_of = {row.name: 0 for row in self.rows}

    def _features(self, batch: EvaluationBatch) -> dict[str, Tensor]:
        features = {"outputs": batch.of_site(pooled_outputs), "codes": pooled(batch.codes)}
        if "reconstruction" in self._kinds:
            features["reconstruction"] = pooled(batch.reconstruction)
        return features

    def learn(self, batch: EvaluationBatch) -> None:
        """Keep the features of these images."""
        if batch.labels is None or self._probes is not None:
            return
        features = self._features(batch)
        is_finite = torch.stack([column.isfinite().all(dim=1).cpu() for column in features.values()]).all(dim=0)
        self._n_bad += int((~is_finite).sum())
        columns = {"labels": batch.labels.cpu(), **features}
        self._sample.add(
            batch.images.cpu()[is_finite],
            **{name: column[is_finite.to(column.device)] for name, column in columns.items()},
        )

    def _fit(self) -> dict[str, Head | SparseProbe]:
        """Every probe by the name of its value; none, with a reason, where there is nothing to learn from."""
        taken = self._sample.taken()
        if not taken or len(taken["labels"].unique()) < 2:
            n = len(taken["labels"].unique()) if taken else 0
            self._stopped = f"the probing split showed images of {n} classes; probes need at least 2"
            return {}
        n_images, n_classes = len(taken["images"]), int(taken["labels"].max()) + 1
        if n_images < self._sample.n_offered:
            self._notes.append(f"fitted on {n_images} of {self._sample.n_offered} images, whose features fit in 2 GiB")
        if self._n_bad:
            self._notes.append(f"{self._n_bad} training images with features that are not finite left out")
        found: dict[str, Head | SparseProbe] = {}
        for kind in self._kinds:
            features = taken.pop(kind)
            labels = taken["labels"].to(features.device)
            found[f"probe_{kind}"] = head_of(features, labels, n_classes)
            if kind == "codes":
                sparse = fit_sparse(features, labels, n_classes, SIZES)
                found |= {f"probe_codes_k{k}": probe for k, probe in sparse.items()}
        return found

    def update(self, batch: EvaluationBatch, *, pass_index: int) -> None:
        """Count hits; the probes are fitted when the first batch comes."""
        if self._probes is None:
            self._probes = self._fit()
        features = self._features(batch)
        self._n_images += len(batch.images)
        if batch.labels is None:
            return
        for name, probe in self._probes.items():
            kind = "codes" if isinstance(probe, SparseProbe) else name.removeprefix("probe_")
            x = features[kind]
            scores = probe.log_odds(x) if isinstance(probe, SparseProbe) else predict(probe, x)
            is_finite = x.isfinite().all(dim=1)
            is_hit = (scores.argmax(dim=1) == batch.labels.to(scores.device)) & is_finite
            self._n_hits[name] += int(is_hit.sum())
            self._n_bad_of[name] += int((~is_finite).sum())

    def compute(self) -> Mapping[str, Value]:
        """All values; null where the split is empty, where there was nothing to learn from, or for virtual units."""
        if self._n_images == 0 or self._stopped:
            reason = self._stopped if self._n_images else "no images"
            return {row.name: Value.null(reason) for row in self.rows}
        nothing = Value.null("virtual units: nothing is rebuilt from the codes")
        probes = self._probes or {}
        return {
            row.name: self._value(row.name, probes[row.name]) if row.name in probes else nothing for row in self.rows
        }

    def _value(self, name: str, probe: Head | SparseProbe) -> Value:
        notes = list(self._notes)
        if isinstance(probe, SparseProbe) and int(name[-1]) > self._n_atoms:
            notes.append(f"only {self._n_atoms} atoms")
        if isinstance(probe, Head) and not probe.has_converged:
            notes.append("the solver stopped before its tolerance")
        if self._n_bad_of[name]:
            notes.append(f"{self._n_bad_of[name]} images with features that are not finite, counted as misses")
        return proportion(self._n_hits[name], self._n_images, "images", reason="; ".join(notes) or None)
