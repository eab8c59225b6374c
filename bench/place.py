"""A site as it is rehearsed: its backbone, trained or barely so, and the tokens of its first images."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Int, UInt8
from torch import Tensor

from bench import activations, extraction, heads
from bench.activations import SiteImages, TensorSource
from bench.backbones import Backbone
from bench.cache import NotCachedError
from bench.cells import SiteSpec
from bench.datasets import Dataset, Split
from bench.lanes import quietly
from bench.shards import FILLED, Wanted
from bench.sites import Site
from bench.stages import Workshop
from bench.stopwatch import PATIENCE_SECONDS, Clock

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


class Place:
    """A site as it is rehearsed.

    Attributes:
        loading_seconds: What loading the data set took.
        dataset: The data set, whole.
        is_kept: The backbone came from the cache.
        site: The site, in that backbone or in one that was barely trained.
        tokens: Tokens of its first images.
        few: Images that are run at once.
        n_read: How many of its first images were read.
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
            backbone = barely_trained(spec.backbone.built, self.dataset).on(workshop.device, spec.precision)
        self.site = Site(backbone, spec.module)
        self.read_some(clock)

    def read_some(self, clock: Clock) -> None:
        """Read the first images: twice as many each time, until they take a moment."""
        split = self.dataset.train
        n = 8
        seconds = 0.0
        while seconds < PATIENCE_SECONDS / 2 and n < min(MOST_IMAGES, len(split)):
            n = min(2 * n, len(split))
            with tempfile.TemporaryDirectory() as folder:
                seconds = self.extract([self.wanted(self.spec, 0)], n, Path(folder), clock)
                found = activations.opened(Path(folder) / "0" / FILLED, self.site, split, quietly).read(slice(None))
                inputs, outputs = found.needed_inputs().clone(), found.outputs.clone()
        images = SiteImages(self.site, split)
        weight, bias = self.site.weight.cpu(), None if self.site.bias is None else self.site.bias.cpu()
        self.tokens = TensorSource(inputs, outputs, weight, bias, images=images)
        self.n_read = n
        self.n_tokens = len(outputs) // n * len(split)
        self.few = min(n, MOST_AT_ONCE)

    def wanted(self, spec: SiteSpec, token_seed: int) -> Wanted:
        """The tokens of a site of this backbone."""
        return Wanted(Site(self.site.backbone, spec.module), token_seed, spec.tokens_per_image, spec.stored)

    def extract(self, wanted: Sequence[Wanted], n_images: int, folder: Path, clock: Clock) -> float:
        """Extract from the first images, each into its own numbered folder; the seconds that it took."""
        folders = [folder / str(index) for index in range(len(wanted))]
        for one in folders:
            one.mkdir()
        begin = clock()
        extraction.extract(wanted, folders, First(self.dataset.train, n_images), quietly)
        return clock() - begin

    def pass_seconds(self, pairs: Sequence[tuple[SiteSpec, int]], clock: Clock) -> float:
        """What one image takes in a pass that extracts the activations of these sites and token seeds."""
        with tempfile.TemporaryDirectory() as folder:
            wanted = [self.wanted(spec, seed) for spec, seed in pairs]
            return self.extract(wanted, self.n_read, Path(folder), clock) / self.n_read


def barely_trained(factory: Any, dataset: Dataset) -> Backbone:
    """A backbone of the right shape after as little training as it takes.

    Raises:
        ValueError: It cannot be trained.
    """
    why: Exception | None = None
    for n in FIRST_IMAGES:
        try:
            weights = factory.weights(replace(dataset, train=First(dataset.train, n)), quietly)
            made: Backbone = factory.assemble(weights, dataset)
            return with_some_head(made, dataset) if heads.needs_head(factory, len(dataset.classes)) else made
        except (ArithmeticError, ValueError) as error:  # a schedule that has too few steps, say
            why = error
    raise ValueError(f"backbone: {factory} cannot be trained on the first {n} images: {why}") from why


def with_some_head(backbone: Backbone, dataset: Dataset) -> Backbone:
    """The backbone with a head of the right shape that nobody fitted."""
    width = next(heads.features_of(backbone, dataset, torch.arange(1))).shape[1]
    n_classes = len(dataset.classes)
    head = {"weight": torch.zeros(n_classes, width), "bias": torch.zeros(n_classes)}
    return heads.headed(backbone, head)
