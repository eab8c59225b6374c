"""A few images of a split at a site: what is the same for all decompositions, and what one of them makes of it."""

from collections.abc import Callable
from functools import cached_property
from typing import Any, NoReturn, TypeVar

from jaxtyping import Bool, Float, Int
from torch import Tensor, float32, float64

from bench import UsageError
from bench.backbones import Backbone, widened
from bench.datasets import Split
from bench.geometry import seen_anew
from bench.replay import Replay
from bench.sites import Images, Reading
from bench.subject import Subject
from methods.protocol import Explicit, Method
from metrics.codes import CodeSummary
from metrics.protocol import EvaluationBatch

T = TypeVar("T")


class SiteBatch:
    """A few images at a site: what is the same for all decompositions.

    The rows and the pixels are on the processor, everything else where the site is.
    """

    def __init__(
        self,
        replay: Replay,
        images: Int[Tensor, " images"],
        pixels: Images,
        split: Split,
        encoder: Backbone | None = None,
    ) -> None:
        self.replay = replay
        self.site = replay.site
        self.images = images
        self.pixels = pixels
        self.split = split
        self.encoder = encoder
        self.labels = None if split.labels is None else split.labels[images].to(self.site.device)
        self.reading: Reading = replay.read(pixels)
        self.kept = self.site.kept(self.reading.outputs.shape[1])
        self.outputs = self.studied(self.reading.outputs)
        self.logits = self.reading.logits
        self.memo: dict[Any, Any] = {}

    def studied(self, values: Float[Tensor, "images positions width"]) -> Float[Tensor, "images tokens width"]:
        """The positions that are studied; registers are out."""
        return values if len(self.kept) == values.shape[1] else values[:, self.kept]

    @cached_property
    def embeddings(self) -> Float[Tensor, "images width"]:
        """What the encoder makes of each image."""
        if self.encoder is None:
            raise UsageError("encoder: got none; expected another network; name one in the suite's site")
        if self.encoder.geometry == self.site.backbone.geometry:
            return self.encoder.embeddings(self.pixels)
        return self.encoder.embeddings(seen_anew(self.split, self.encoder.geometry).images(self.images))

    @cached_property
    def concepts(self) -> Bool[Tensor, "images tokens concepts"]:
        """Which of the known concepts are present at each token."""
        concepts = self.split.concepts
        if concepts is None:
            raise UsageError("dataset: got one that plants no concepts; expected one that does; choose `concepts`")
        return concepts[self.images].to(self.site.device)

    @cached_property
    def in_float64(self) -> "SiteBatch":
        """The same images, with the backbone in float64."""
        return SiteBatch(Replay(self.site.in_float64), self.images, self.pixels, self.split)


class Batch:
    """A `metrics.protocol.EvaluationBatch`: everything is computed when it is first asked for."""

    def __init__(self, subject: Subject, shared: SiteBatch) -> None:
        self.subject = subject
        self.shared = shared
        self.images = shared.images
        self.labels = shared.labels
        self.outputs = shared.outputs

    @cached_property
    def in_float64(self) -> "Batch":
        """The same images, with the backbone and the decomposition in float64."""
        return Batch(self.subject.in_float64, self.shared.in_float64)

    @property
    def logits(self) -> Float[Tensor, "images classes"]:
        """Logits of the untouched backbone."""
        n_logits = self.shared.logits.shape[1]
        if n_logits != self.subject.n_classes:
            raise UsageError(
                f"backbone: {self.subject.site.backbone.name!r} gives {n_logits} logits; expected "
                f"{self.subject.n_classes}, one per class of the data set; give it a head for this data set"
            )
        return self.shared.logits

    @property
    def embeddings(self) -> Float[Tensor, "images width"]:
        """What the encoder makes of each image."""
        return self.shared.embeddings

    @property
    def concepts(self) -> Bool[Tensor, "images tokens concepts"]:
        """Which of the known concepts are present at each token."""
        return self.shared.concepts

    def of_site(self, make: Callable[[EvaluationBatch], T]) -> T:
        """What `make` gives for what is the same for all decompositions, computed once."""
        if make not in self.shared.memo:
            self.shared.memo[make] = make(self)
        return self.shared.memo[make]  # type: ignore[no-any-return]

    @cached_property
    def all_codes(self) -> Float[Tensor, "images positions atoms"]:
        """Codes at every position, registers too."""
        return self.encoded(self.shared.reading.inputs, self.shared.reading.outputs)

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
        method, outputs = self.subject.method, self.shared.reading.outputs
        if not isinstance(method, Explicit):
            raise UsageError(f"decode: {type(method).__name__} has none; expected one; its units are virtual")
        rebuilt = method.decode(self.subject.decomposition, self.all_codes.flatten(0, 1).clone())
        rebuilt = by_image("decode", rebuilt, outputs, self.subject.site.units)
        return finite(method, "outputs", rebuilt, outputs)

    @cached_property
    def codes(self) -> Float[Tensor, "images tokens atoms"]:
        """Value of every atom for every token."""
        if "images" not in self.subject.method.reads or len(self.shared.kept) == self.shared.reading.outputs.shape[1]:
            return self.shared.studied(self.all_codes)
        # Such a method sums over an image, and registers are no part of it.
        return self.encoded(self.shared.studied(self.shared.reading.inputs), self.outputs)

    @cached_property
    def summary(self) -> CodeSummary:
        """Each image's extremes of every atom's code."""
        return CodeSummary.of(self.codes)

    @property
    def reconstruction(self) -> Float[Tensor, "images tokens units"]:
        """Outputs rebuilt from the codes."""
        return self.shared.studied(self.all_reconstruction)

    @cached_property
    def replaced_logits(self) -> Float[Tensor, "images classes"]:
        """Logits of the network with the site's outputs replaced by the reconstruction."""
        return self.shared.replay.logits_with(self.shared.pixels, self.all_reconstruction)

    @cached_property
    def in_place_logits(self) -> Float[Tensor, "images classes"]:
        """Logits of the network in which the method's own layer stands in place of the site's, where it has one."""
        site, layer = self.subject.site, self.subject.layer
        if layer is None:
            return self.replaced_logits
        with site.swapped(layer) as network:
            return widened(network(site.backbone.transform(self.shared.pixels)))


class LaterBatch:
    """What there is of a batch from the second pass on: its images, their labels, and the site's outputs."""

    def __init__(
        self,
        images: Int[Tensor, " images"],
        labels: Int[Tensor, " images"] | None,
        outputs: Float[Tensor, "images tokens units"],
    ) -> None:
        self.images = images
        self.labels = labels
        self.outputs = outputs
        self.memo: dict[Any, Any] = {}

    def of_site(self, make: Callable[[EvaluationBatch], T]) -> T:
        """What `make` gives for what is the same for all decompositions, computed once."""
        if make not in self.memo:
            self.memo[make] = make(self)
        return self.memo[make]  # type: ignore[no-any-return]

    def gone(self) -> NoReturn:
        """What is asked for is no longer there.

        Raises:
            RuntimeError: Always.
        """
        raise RuntimeError("batch: asked for more in a second pass; expected images, labels and outputs; keep the rest")

    codes = summary = reconstruction = logits = replaced_logits = property(gone)
    in_place_logits = embeddings = concepts = in_float64 = property(gone)


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
    # A sum that is finite says so of all numbers in it, and is read off faster.
    if values.sum(dtype=float64 if values.dtype == float64 else float32).isfinite():
        return values
    is_bad, site_is_bad = (~part.isfinite().flatten(1).all(dim=1) for part in (values, outputs))
    n = int((is_bad & ~site_is_bad).sum())
    if n:
        raise UsageError(
            f"method: {type(method).__name__} gave {what} that are not finite, for {n} of {len(values)} images of a "
            "batch, where the site's own outputs are; expected numbers; change its options, or see check-method"
        )
    return values
