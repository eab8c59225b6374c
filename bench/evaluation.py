"""The evaluation of one decomposition: all tokens of the evaluation split, streamed through every metric at once."""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bench import UsageError
from bench.backbones import Report
from bench.datasets import Split
from bench.sites import Images
from bench.subject import Subject
from methods.protocol import Explicit, Method
from metrics.catalogue import Value

BATCH_IMAGES = 256


class Batch:
    """A `metrics.protocol.EvaluationBatch`: everything is computed when it is first asked for."""

    def __init__(self, subject: Subject, images: Int[Tensor, " images"], pixels: Images, labels: Tensor | None) -> None:
        self.subject = subject
        self.images = images
        self.labels = labels
        self.pixels = pixels
        self.reading = subject.site.read(pixels)
        n_logits = self.reading.logits.shape[1]
        if n_logits != subject.n_classes:
            raise UsageError(
                f"backbone: {subject.site.backbone.name!r} gives {n_logits} logits; expected {subject.n_classes}, "
                f"one per class of the data set; give it a head for this data set"
            )
        self.kept = subject.site.kept(self.reading.outputs.shape[1])

    @cached_property
    def in_float64(self) -> "Batch":
        """The same images, with the backbone and the decomposition in float64."""
        return Batch(self.subject.in_float64, self.images, self.pixels, self.labels)

    def studied(self, values: Float[Tensor, "images positions width"]) -> Float[Tensor, "images tokens width"]:
        """The positions that are studied; registers are out."""
        return values if len(self.kept) == values.shape[1] else values[:, self.kept]

    @property
    def outputs(self) -> Float[Tensor, "images tokens units"]:
        """Activations of the untouched site."""
        return self.studied(self.reading.outputs)

    @property
    def logits(self) -> Float[Tensor, "images classes"]:
        """Logits of the untouched backbone."""
        return self.reading.logits

    @cached_property
    def all_codes(self) -> Float[Tensor, "images positions atoms"]:
        """Codes at every position, registers too."""
        return self.encoded(self.reading.inputs, self.reading.outputs)

    def encoded(
        self, inputs: Float[Tensor, "images positions d_in"], outputs: Float[Tensor, "images positions units"]
    ) -> Float[Tensor, "images positions atoms"]:
        """What the method makes of these."""
        subject = self.subject
        codes = subject.method.encode(subject.decomposition, subject.activations(inputs, outputs))
        codes = by_image("encode", codes, outputs, subject.decomposition.n_atoms)
        return finite(subject.method, "codes", codes, outputs)

    @cached_property
    def all_reconstruction(self) -> Float[Tensor, "images positions units"]:
        """Outputs rebuilt from the codes at every position, registers too."""
        method = self.subject.method
        if not isinstance(method, Explicit):
            raise UsageError(f"decode: {type(method).__name__} has none; expected one; its units are virtual")
        outputs = method.decode(self.subject.decomposition, self.all_codes.flatten(0, 1).clone())
        outputs = by_image("decode", outputs, self.reading.outputs, self.subject.site.units)
        return finite(method, "outputs", outputs, self.reading.outputs)

    @cached_property
    def codes(self) -> Float[Tensor, "images tokens atoms"]:
        """Value of every atom for every token."""
        if "images" not in self.subject.method.reads or len(self.kept) == self.reading.outputs.shape[1]:
            return self.studied(self.all_codes)
        # Such a method sums over an image, and registers are no part of it.
        return self.encoded(self.studied(self.reading.inputs), self.outputs)

    @property
    def reconstruction(self) -> Float[Tensor, "images tokens units"]:
        """Outputs rebuilt from the codes."""
        return self.studied(self.all_reconstruction)

    @cached_property
    def replaced_logits(self) -> Float[Tensor, "images classes"]:
        """Logits of the network with the decomposition in place of the site."""
        site, layer = self.subject.site, self.subject.layer
        if layer is None:
            return site.logits_with(self.pixels, self.all_reconstruction)
        with site.swapped(layer) as network:
            return network(site.backbone.transform(self.pixels))  # type: ignore[no-any-return]


def by_image(verb: str, values: Tensor, outputs: Float[Tensor, "images positions units"], width: int) -> Tensor:
    """What a method gave for tokens, as images x positions x width.

    Raises:
        UsageError: It is not tokens x width.
    """
    images, positions = outputs.shape[:2]
    if tuple(values.shape) != (images * positions, width):
        raise UsageError(
            f"{verb}: got shape {tuple(values.shape)}; expected {(images * positions, width)}; see check-method"
        )
    return values.reshape(images, positions, width)


def finite(method: Method, what: str, values: Tensor, outputs: Float[Tensor, "images positions units"]) -> Tensor:
    """What a method gave for images, as it is.

    Raises:
        UsageError: It is not finite for an image for which the site's own outputs are.
    """
    is_bad, site_is_bad = (~part.isfinite().flatten(1).all(dim=1) for part in (values, outputs))
    n = int((is_bad & ~site_is_bad).sum())
    if n:
        raise UsageError(
            f"method: {type(method).__name__} gave {what} that are not finite, for {n} of {len(values)} images of a "
            "batch, where the site's own outputs are; expected numbers; change its options, or see check-method"
        )
    return values


def stream(subject: Subject, split: Split, report: Report, what: str) -> Iterator[Batch]:
    """The evaluation split in batches, in index order."""
    n = len(split)
    for start in range(0, n, BATCH_IMAGES):
        report(what, start, n)
        rows = torch.arange(start, min(start + BATCH_IMAGES, n))
        yield batch_of(subject, split, rows)
    report(what, n, n)


def batch_of(subject: Subject, split: Split, rows: Int[Tensor, " rows"]) -> Batch:
    """Some images of the split."""
    return Batch(subject, rows, split.images(rows), None if split.labels is None else split.labels[rows])


Stream = Callable[[Subject, Split, Report, str], Iterator[Batch]]
"""Gives the batches of one pass, whose name is the last argument."""


@torch.inference_mode()
def evaluate(
    subject: Subject,
    split: Split,
    metrics: Sequence[Any],
    names: Sequence[str],
    report: Report,
    stream: Stream = stream,
) -> dict[str, Value]:
    """The named values, by name, in that order.

    Args:
        subject: What is evaluated.
        split: The evaluation split.
        metrics: The classes (`metrics.protocol.Metric`) that compute the values.
        names: Which of their values are wanted.
        report: Told how far it is.
        stream: Gives the batches; a rehearsal has its own.
    """
    facts = subject.facts(len(split))
    lacks = subject.lacks | ({} if split.labels is not None else {"labels": "the data set has no labels"})
    missing = {
        row.name: next(lacks[need] for need in row.needs if need in lacks)
        for metric in metrics
        for row in metric.rows
        if lacks.keys() & set(row.needs)
    }
    running = [metric(facts) for metric in metrics if any(row.name not in missing for row in metric.rows)]
    for index in range(max((metric.passes for metric in running), default=0)):
        for batch in stream(subject, split, report, f"evaluation pass {index + 1}"):
            for metric in running:
                if index < metric.passes:
                    metric.update(batch, pass_index=index)
    found: dict[str, Value] = {}
    for metric in running:
        found.update(metric.compute())
    found |= {name: Value.null(reason) for name, reason in missing.items()}
    for name in names:
        if not isinstance(found.get(name), Value):
            got = type(found[name]).__name__ if name in found else "nothing"
            raise UsageError(
                f"metric {name!r}: compute gave {got} for it; expected a metrics.catalogue.Value; return one"
            )
    return {name: found[name] for name in names}
