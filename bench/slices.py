"""Some images of a split: a random slice of a data set, or all but those that cannot be decoded."""

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Int
from PIL import Image
from torch import Tensor

from bench import UsageError
from bench.cache import digest
from bench.datasets import Dataset, Split
from bench.geometry import Geometry, Pictures, Pixels

VERSION = 1
"""Raised whenever the same share would draw other images than before."""


class Some:
    """Some images of a split, in the order of their rows there.

    Attributes:
        split: The whole split.
        rows: Which images of it.
    """

    def __init__(self, split: Split, rows: Int[Tensor, " some"]) -> None:
        self.split = split
        self.rows = rows

    @property
    def labels(self) -> Int[Tensor, " some"] | None:
        """Index into the data set's classes, per image; None where nobody has labelled them."""
        return None if self.split.labels is None else self.split.labels[self.rows]

    @property
    def factors(self) -> Mapping[str, Int[Tensor, " some"]]:
        """The known causes of each image by name, as indices; empty where none are known."""
        return {name: values[self.rows] for name, values in self.split.factors.items()}

    @property
    def concepts(self) -> Bool[Tensor, "some tokens concepts"] | None:
        """Which concepts each patch shows, patches row by row; None where nobody knows."""
        return None if self.split.concepts is None else self.split.concepts[self.rows]

    def __len__(self) -> int:
        return len(self.rows)

    def images(self, rows: Int[Tensor, " rows"] | slice) -> Pixels:
        """The pixels of these images, in the order of `rows`."""
        return self.split.images(self.rows[rows])


class SomePictures(Some):
    """The same of a split of files."""

    @property
    def geometry(self) -> Geometry | None:
        """How images become squares for a backbone that takes them as they come; None leaves them."""
        return getattr(self.split, "geometry", None)

    def picture(self, row: int) -> Image.Image:
        """One image, decoded, in RGB."""
        if not isinstance(self.split, Pictures):
            raise TypeError(f"split: got {type(self.split).__name__}; expected one with pictures; use `some`")
        return self.split.picture(int(self.rows[row]))

    def name(self, row: int) -> str:
        """What people call an image."""
        return name_of(self.split, int(self.rows[row]))


def some(split: Split, rows: Int[Tensor, " some"]) -> Some:
    """These images of a split; of one that has them, their pictures too."""
    return (SomePictures if isinstance(split, Pictures) else Some)(split, rows)


def name_of(split: Split, row: int) -> str:
    """What people call an image: its file's name where the split knows it, else its row."""
    named = getattr(split, "name", None)
    return str(named(row)) if named is not None else f"image {row}"


def sampled(dataset: Dataset, share: float, seed: int = 0) -> Dataset:
    """A random slice of both splits, the same one each time, rounded up to whole images.

    Of every class one image comes first (where the slice is smaller than the number of classes, some have none), then
    all classes in proportion to their size. A larger share holds the images of a smaller one.

    Args:
        dataset: The whole; 1 gives it as it is.
        share: Of the images, above 0 and up to 1.
        seed: Of the draw.

    Raises:
        UsageError: The share is none.
    """
    if not 0 < share <= 1:
        raise UsageError(f"share: got {share}; expected a number above 0, up to 1; give 0.01 for a hundredth")
    if share == 1:
        return dataset
    train, test = (
        some(split, drawn(split, share, np.random.default_rng((seed, stream))))
        for stream, split in enumerate((dataset.train, dataset.test))
    )
    of = {"dataset": dataset.fingerprint, "share": share, "seed": seed, "sampling": VERSION}
    return replace(dataset, train=train, test=test, fingerprint=digest(of))


def drawn(split: Split, share: float, rng: np.random.Generator) -> Int[Tensor, " some"]:
    """Rows of a slice, ascending."""
    n = len(split)
    order = rng.permutation(n)
    labels = np.zeros(n, dtype=np.int64) if split.labels is None else split.labels.numpy()[order]
    grouped = np.argsort(labels, kind="stable")
    counts = np.bincount(labels)
    starts = np.cumsum(counts) - counts
    # How much of its class comes before an image: the first of every class has 0.
    before = np.empty(n)
    before[grouped] = (np.arange(n) - starts[labels[grouped]]) / counts[labels[grouped]]
    n_drawn = math.ceil(round(share * n, 9))  # 0.07 * 100 is a little more than 7
    return torch.from_numpy(np.sort(order[np.argsort(before, kind="stable")[:n_drawn]]))
