"""Rehearsals: stages worked at their full size on a few tokens and images, to know what they will take.

A method is given a source of the right number of tokens that holds few and hands out few; `bench.stopwatch` adds what
it leaves out. So a method has nothing to do for it, whoever wrote it and whatever it reports.
"""

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jaxtyping import Bool, Int, UInt8
from torch import Tensor

from bench import activations
from bench.activations import SiteImages, TensorSource, quietly
from bench.backbones import Backbone, Report
from bench.batches import SiteBatch
from bench.cache import NotCachedError
from bench.cells import SiteSpec
from bench.datasets import Dataset, Split
from bench.evaluation import stream
from bench.replay import Replay
from bench.sites import Site
from bench.stages import Workshop
from bench.stopwatch import PATIENCE_SECONDS, Clock, Stopwatch

MOST_IMAGES = 1024
"""Images whose tokens stand for all."""
MOST_AT_ONCE = 128
"""Images that are run at once: half of what a run takes, at about the same cost an image."""
FIRST_IMAGES = (16, 80, 400, 2000)
"""Images that a backbone is barely trained on, the next number where it cannot be on so few."""


@dataclass(frozen=True, eq=False)
class First:
    """The first images of a split."""

    split: Split
    n: int

    @property
    def labels(self) -> Int[Tensor, " images"] | None:
        """Index into the data set's classes, per image; None where nobody has labelled them."""
        return None if self.split.labels is None else self.split.labels[: self.n]

    @property
    def factors(self) -> Mapping[str, Int[Tensor, " images"]]:
        """The known causes of each image by name."""
        return {name: values[: self.n] for name, values in self.split.factors.items()}

    @property
    def concepts(self) -> Bool[Tensor, "images tokens concepts"] | None:
        """Which of the known concepts are present at each token."""
        return None if self.split.concepts is None else self.split.concepts[: self.n]

    def __len__(self) -> int:
        return min(self.n, len(self.split))

    def images(self, rows: Int[Tensor, " rows"] | slice) -> UInt8[Tensor, "rows 3 height width"]:
        """The pixels of these images."""
        return self.split.images(rows)


class RehearsalStream:
    """Two batches of an evaluation's pass; the stopwatch adds the others, at the pace of the second.

    What a second pass does with the images that the first one kept is done in full, as all of them are in the two.
    """

    def __init__(self, watch: Stopwatch, few: int) -> None:
        self.watch = watch
        self.few = few

    def __call__(
        self,
        replay: Replay,
        split: Split,
        rows: Int[Tensor, " rows"],
        encoder: Backbone | None,
        report: Report,
        what: str,
    ) -> Iterator[SiteBatch]:
        """The batches of one pass; few images are handed out whole."""
        n = len(rows)
        if n < 4 * self.few:
            yield from stream(replay, split, rows, encoder, quietly, what)
            return
        for begin in (0, self.few):
            start, some = self.watch.seconds, rows[begin : begin + self.few]
            yield SiteBatch(replay, some, split.images(some), split, encoder)
        self.watch.leave_out((self.watch.seconds - start) * (n / self.few - 2))


class Place:
    """A site as it is rehearsed.

    Attributes:
        loading_seconds: What loading the data set took.
        dataset: The data set, whole.
        is_kept: The backbone came from the cache.
        site: The site, in that backbone or in one that was barely trained.
        tokens: Tokens of its first images.
        few: Images that are run at once.
        image_seconds: What extracting the activations of an image takes.
    """

    def __init__(self, workshop: Workshop, spec: SiteSpec, clock: Clock) -> None:
        begin = clock()
        self.spec = spec
        self.dataset = workshop.dataset(spec)
        self.loading_seconds = clock() - begin
        self.is_kept = True
        try:
            backbone = workshop.backbone(spec)
        except NotCachedError:
            self.is_kept = False
            backbone = barely_trained(spec.backbone.built, self.dataset)
        self.site = Site(backbone, spec.module)
        self.extract(clock)

    def extract(self, clock: Clock) -> None:
        """Read the first images: twice as many each time, until they take a moment."""
        split, per_image = self.dataset.train, self.spec.tokens_per_image
        n = 8
        seconds = 0.0
        while seconds < PATIENCE_SECONDS / 2 and n < min(MOST_IMAGES, len(split)):
            n = min(2 * n, len(split))
            with tempfile.TemporaryDirectory() as folder:
                begin = clock()
                activations.extract(self.site, First(split, n), per_image, 0, Path(folder), quietly)
                seconds = clock() - begin
                found = activations.opened(Path(folder), self.site, split, quietly).read(slice(None))
                inputs, outputs = found.needed_inputs().clone(), found.outputs.clone()
        images = SiteImages(self.site, split)
        self.tokens = TensorSource(inputs, outputs, self.site.weight, self.site.bias, images=images)
        self.image_seconds = seconds / n
        self.n_tokens = len(outputs) // n * len(split)
        self.few = min(n, MOST_AT_ONCE)


def barely_trained(factory: Any, dataset: Dataset) -> Backbone:
    """A backbone of the right shape after as little training as it takes.

    Raises:
        ValueError: It cannot be trained.
    """
    why: Exception | None = None
    for n in FIRST_IMAGES:
        try:
            weights = factory.weights(replace(dataset, train=First(dataset.train, n)), quietly)
            return factory.assemble(weights, dataset)  # type: ignore[no-any-return]
        except (ArithmeticError, ValueError) as error:  # a schedule that has too few steps, say
            why = error
    raise ValueError(f"backbone: {factory} cannot be trained on the first {n} images: {why}") from why
