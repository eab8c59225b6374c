"""Data sets: what a split is, and the three sets that need no download.

`shapes` is the default: drawn here, with known factors and any number of images. `photos` cuts up the photographs
inside the scikit-image and scikit-learn wheels; `digits` is scikit-learn's. All are 32x32 RGB and held in memory as
bytes (3 kB per image). Files of the user's own are read one by one (`bench.pictures`).
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Int, UInt8
from torch import Tensor
from torch.nn import functional

from bench import UsageError, photos, shapes
from bench.geometry import Geometry, Seen
from bench.options import check_at_least


@runtime_checkable
class Split(Protocol):
    """Images that may be read when asked for, with labels where there are any."""

    @property
    def labels(self) -> Int[Tensor, " images"] | None:
        """Index into the data set's classes, per image; None where nobody has labelled them."""
        ...

    @property
    def factors(self) -> Mapping[str, Int[Tensor, " images"]]:
        """The known causes of each image by name, as indices; empty where none are known."""
        ...

    @property
    def concepts(self) -> Bool[Tensor, "images tokens concepts"] | None:
        """Which concepts each patch shows, patches row by row; None where nobody knows."""
        ...

    def __len__(self) -> int: ...

    def images(self, rows: Int[Tensor, " rows"] | slice) -> UInt8[Tensor, "rows 3 height width"]:
        """The pixels of these images, in the order of `rows`."""
        ...


@dataclass(frozen=True, eq=False)
class InMemory:
    """A split whose pixels are one tensor.

    Attributes:
        pixels: Every image.
        labels: Index into the data set's classes, per image; None where nobody has labelled them.
        factors: The known causes of each image by name, as indices.
        concepts: Which concepts each patch shows, patches row by row; None where nobody knows.
    """

    pixels: UInt8[Tensor, "images 3 height width"]
    labels: Int[Tensor, " images"] | None
    factors: Mapping[str, Int[Tensor, " images"]] = field(default_factory=dict)
    concepts: Bool[Tensor, "images tokens concepts"] | None = None

    def __len__(self) -> int:
        return len(self.pixels)

    def images(self, rows: Int[Tensor, " rows"] | slice) -> UInt8[Tensor, "rows 3 height width"]:
        """The pixels of these images, in the order of `rows`."""
        return self.pixels[rows]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Two splits that share no image.

    Attributes:
        name: What tables call it.
        classes: The names of the labels.
        train: The probing split: backbones may be trained on it, and methods decompose its activations.
        test: The evaluation split: every score is measured on it.
        fingerprint: SHA-256, in hex, of all that a split holds (`fingerprint_of`), so that caches are keyed by content.
        licence: The terms of the images.
        summary: One sentence for reports.
        notes: Facts that every record made from it shall hold (images left out, say).
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    test: Split
    fingerprint: str
    licence: str
    summary: str
    notes: Mapping[str, float | int | str | bool] = field(default_factory=dict)

    def seen_by(self, geometry: Geometry | None, n_threads: int = 1) -> "Dataset":
        """The same as a network sees it that takes squares of one size; as it is for one that takes what comes."""
        geometry = geometry or getattr(self.train, "geometry", None)  # files have an own one for the latter
        if geometry is None:
            return self
        return replace(self, train=Seen(self.train, geometry, n_threads), test=Seen(self.test, geometry, n_threads))


@runtime_checkable
class DatasetFactory(Protocol):
    """A frozen dataclass of options that loads a data set; one of files is a `bench.pictures.FileOptions` besides.

    Attributes:
        version: Raised whenever the same options would give other images than before.
    """

    version: ClassVar[int]

    def load(self) -> Dataset:
        """The data set that these options describe."""
        ...


def labels_of(split: Split) -> Int[Tensor, " images"]:
    """The labels of a split that has to have some.

    Raises:
        UsageError: It has none.
    """
    if split.labels is None:
        raise UsageError("dataset: got one without labels; expected the class of each image; choose a labelled one")
    return split.labels


def fingerprint_of(train: Split, test: Split) -> str:
    """SHA-256, in hex, of both splits: shape and bytes of pixels, labels, concepts, and factors by name."""
    digest = hashlib.sha256()

    def add(name: str, tensor: Tensor) -> None:
        digest.update(f"|{name} {tuple(tensor.shape)}|".encode())
        digest.update(tensor.contiguous().numpy().tobytes())

    for split in (train, test):
        for name, values in (("labels", split.labels), ("concepts", split.concepts), *sorted(split.factors.items())):
            if values is not None:
                add(name, values.long())
        for start in range(0, len(split), 1024):
            add("pixels", split.images(slice(start, start + 1024)))
    return digest.hexdigest()


@dataclass(frozen=True)
class Shapes:
    """`shapes`: 48 classes, each one of 6 shapes in one of 8 colours, on one of 6 textures; see `bench.shapes`.

    The class is `shape * 8 + colour`; the three factors are independent and known. A set with more images begins with
    the images of a smaller one.

    Attributes:
        n_train: Images in the probing split.
        n_test: Images in the evaluation split.
        seed: Seed of everything drawn.
    """

    n_train: int = 6000
    n_test: int = 4000
    seed: int = 0

    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        _check_options(self.seed, n_train=self.n_train, n_test=self.n_test)

    def load(self) -> Dataset:
        """The images, drawn anew each time (about 0.2 ms each)."""
        train, test = (self._split(n, stream) for stream, n in enumerate((self.n_train, self.n_test)))
        return Dataset(
            name="shapes",
            classes=tuple(f"{colour} {shape}" for shape in shapes.SHAPES for colour in shapes.COLOURS),
            train=train,
            test=test,
            fingerprint=fingerprint_of(train, test),
            licence="none needed: drawn by this program",
            summary="6 shapes x 8 colours on 6 background textures, drawn at random; all three factors are known.",
        )

    def _split(self, n: int, stream: int) -> InMemory:
        drawn = shapes.render(n, seed=self.seed, stream=stream)
        factors = {"shape": drawn.shape, "colour": drawn.colour, "texture": drawn.texture}
        labels = factors["shape"] * len(shapes.COLOURS) + factors["colour"]
        return InMemory(drawn.images, labels, factors)


@dataclass(frozen=True)
class Photos:
    """`photos`: disjoint tiles of sixteen photographs, the label says which; see `bench.photos`.

    No pixel of a photograph enters two tiles, within a split or across. Which cells are train and which are test is
    drawn at random, so a test tile is an unseen piece of a photograph that was seen, often beside a train tile: this
    is no test of generalising to other photographs. At the default sizes the cells are 12 (clock, coins) to 32 (hubble,
    retina) pixels wide before they are enlarged; the blur of the smaller ones helps to tell photographs apart.
    The size of the cells, and with it every image, changes with `n_train` and `n_test`.

    Attributes:
        n_train: Tiles in the probing split.
        n_test: Tiles in the evaluation split.
        seed: Seed of the choice of cells.
    """

    n_train: int = 8000
    n_test: int = 4000
    seed: int = 0

    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        _check_options(self.seed, n_train=self.n_train, n_test=self.n_test)

    def cells(self) -> tuple[list[photos.Cell], list[photos.Cell]]:
        """Where each tile of the two splits was cut."""
        return self._cells([photos.read(photograph) for photograph in photos.PHOTOGRAPHS])

    def load(self) -> Dataset:
        """The tiles, cut anew each time.

        Raises:
            ValueError: The photographs hold fewer tiles than asked for.
        """
        pictures = [photos.read(photograph) for photograph in photos.PHOTOGRAPHS]
        train, test = (
            InMemory(photos.cut(pictures, cells), torch.tensor([cell.photograph for cell in cells]))
            for cells in self._cells(pictures)
        )
        return Dataset(
            name="photos",
            classes=tuple(photograph.name for photograph in photos.PHOTOGRAPHS),
            train=train,
            test=test,
            fingerprint=fingerprint_of(train, test),
            licence="; ".join(f"{photograph.name}: {photograph.licence}" for photograph in photos.PHOTOGRAPHS),
            summary="Disjoint tiles of 16 photographs from the scikit-image and scikit-learn wheels.",
        )

    def _cells(self, pictures: list[photos.Picture]) -> tuple[list[photos.Cell], list[photos.Cell]]:
        """Tile i is cut from photograph i modulo 16; train takes a photograph's first cells, test the next."""
        n = len(pictures)
        n_train_each, n_test_each = -(-self.n_train // n), -(-self.n_test // n)
        layout = photos.lay_out(pictures, n_train_each + n_test_each, self.seed)
        train = [layout[tile % n][tile // n] for tile in range(self.n_train)]
        test = [layout[tile % n][n_train_each + tile // n] for tile in range(self.n_test)]
        return train, test


@dataclass(frozen=True)
class Digits:
    """`digits`: scikit-learn's 1,797 handwritten digits, enlarged from 8x8 grey to 32x32 (bilinear), three channels.

    Attributes:
        n_train: Images in the probing split; all others are the evaluation split.
        seed: Seed of the choice of the probing split.
    """

    n_train: int = 1200
    seed: int = 0

    version: ClassVar[int] = 1
    n_images: ClassVar[int] = 1797

    def __post_init__(self) -> None:
        _check_options(self.seed, n_train=self.n_train)
        if self.n_train >= self.n_images:
            raise ValueError(
                f"n_train: received {self.n_train}; expected at most {self.n_images - 1} of {self.n_images} digits, "
                "so that one is left to test on; lower n_train"
            )

    def load(self) -> Dataset:
        """The digits, in a random order."""
        from sklearn.datasets import load_digits  # here: a second to import, and only this set needs it

        digits = load_digits()
        grey = torch.from_numpy(digits.images).float()[:, None] * (255 / 16)
        pixels = functional.interpolate(grey, size=(32, 32), mode="bilinear").round().byte().expand(-1, 3, -1, -1)
        labels = torch.from_numpy(digits.target).long()
        order = torch.from_numpy(np.random.default_rng(self.seed).permutation(self.n_images))
        train, test = (
            InMemory(pixels[rows].contiguous(), labels[rows]) for rows in (order[: self.n_train], order[self.n_train :])
        )
        return Dataset(
            name="digits",
            classes=tuple(str(digit) for digit in range(10)),
            train=train,
            test=test,
            fingerprint=fingerprint_of(train, test),
            licence="UCI, Optical Recognition of Handwritten Digits (1998): CC BY 4.0; scikit-learn repeats no terms",
            summary="1,797 handwritten digits of scikit-learn, enlarged from 8x8.",
        )


def _check_options(seed: int, **sizes: int) -> None:
    for option, value in sizes.items():
        check_at_least(option, value, 1)
    check_at_least("seed", seed, 0)
