"""From images of any size to the square of bytes that a network takes: decoded, resized, cropped; many at a time.

A backbone's preprocessing has two halves. The first, here, keeps bytes: it depends on the file alone, so it can run
ahead of the network on other threads. The second, `Backbone.transform`, makes floating-point numbers of them.
"""

from collections import deque
from collections.abc import Generator, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Int, UInt8
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

Pixels = UInt8[Tensor, "rows 3 height width"]
Indices = Int[Tensor, " _"]
"""Rows of a split; batches differ in how many."""

BATCHES_AHEAD = 2
"""Batches that are decoded before they are asked for: one is being worked on, the next follows without a wait."""


@dataclass(frozen=True)
class Geometry:
    """How an image becomes the square that a network takes.

    Attributes:
        side: Side of the square, in pixels.
        resize: What the shorter side is brought to before the middle is cut out; 0 brings both sides to `side`, which
            changes the proportions.
        interpolation: Of the resizing; both are antialiased.
        by: What resizes: Pillow, as timm and torchvision do with files, or torchvision on tensors, as the processors
            of transformers do. They differ by a level here and there.
    """

    side: int
    resize: int = 0
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    by: Literal["pillow", "tensor"] = "pillow"

    def __post_init__(self) -> None:
        if self.side < 1 or (self.resize and self.resize < self.side):
            got = f"side {self.side}, resize {self.resize}"
            raise ValueError(f"geometry: got {got}; expected a side of at least 1 and a resize of 0 or at least that")

    def __str__(self) -> str:
        """In words and numbers, as part of a backbone's fingerprint."""
        how = (
            f"shorter side to {self.resize}, middle {self.side} x {self.side}"
            if self.resize
            else f"to {self.side} x {self.side}"
        )
        return f"{how}, {self.interpolation}, {self.by}"

    def at_least(self, side: int) -> "Geometry":
        """The same field of view with at least so many pixels a side."""
        if side <= self.side:
            return self
        return replace(self, side=side, resize=round(self.resize * side / self.side))

    def of(self, image: Image.Image) -> UInt8[Tensor, "3 side side"]:
        """The square of one image; other modes than RGB become it."""
        image = image.convert("RGB")
        mode = InterpolationMode(self.interpolation)
        size = [self.resize] if self.resize else [self.side, self.side]
        if self.by == "pillow":
            bytes_of = tensor_of(functional.resize(image, size, interpolation=mode))
        else:
            bytes_of = functional.resize(tensor_of(image), size, interpolation=mode, antialias=True)
            top, left = ((length - self.side) // 2 for length in bytes_of.shape[-2:])  # torchvision rounds instead
            middle: Tensor = bytes_of[:, top : top + self.side, left : left + self.side].contiguous()
            return middle
        square: Tensor = functional.center_crop(bytes_of, [self.side, self.side])
        return square


def tensor_of(image: Image.Image) -> UInt8[Tensor, "3 height width"]:
    """An RGB image as a tensor; a copy."""
    return torch.from_numpy(np.array(image, dtype=np.uint8)).permute(2, 0, 1).contiguous()


@runtime_checkable
class Pictures(Protocol):
    """Images of any size, one by one: what a data set of files offers."""

    def picture(self, row: int) -> Image.Image:
        """One image, decoded, in RGB."""
        ...


class Seen:
    """A split as a network sees it: every image brought to its square, on several threads at once.

    Attributes:
        split: The split as it is stored; it has `picture`, or else `images` of one size.
        geometry: How an image becomes the square.
        n_threads: How many images are worked at a time.
    """

    def __init__(self, split: "StoredSplit", geometry: Geometry, n_threads: int = 1) -> None:
        self.split = split
        self.geometry = geometry
        self.n_threads = n_threads

    @property
    def labels(self) -> Int[Tensor, " images"] | None:
        """Index into the data set's classes, per image; None where nobody has labelled them."""
        return self.split.labels

    @property
    def factors(self) -> Mapping[str, Int[Tensor, " images"]]:
        """The known causes of each image by name, as indices; empty where none are known."""
        return self.split.factors

    @property
    def concepts(self) -> Bool[Tensor, "images tokens concepts"] | None:
        """Nothing: what a patch of the stored image shows is not what one of the square shows."""
        return None

    def __len__(self) -> int:
        return len(self.split)

    def images(self, rows: Int[Tensor, " rows"] | slice) -> Pixels:
        """The squares of these images, in the order of `rows`."""
        if isinstance(rows, slice):
            rows = torch.arange(*rows.indices(len(self)))
        indices = rows.tolist()
        if self.n_threads > 1 and len(indices) > 1:
            with ThreadPoolExecutor(self.n_threads) as pool:
                squares = list(pool.map(self.square, indices))
        else:
            squares = [self.square(row) for row in indices]
        return torch.stack(squares) if squares else torch.empty(0, 3, self.geometry.side, self.geometry.side).byte()

    def at_least(self, side: int) -> "Seen":
        """The same in as many pixels or more: for people, who see more in an image than the network is given."""
        return Seen(self.split, self.geometry.at_least(side), self.n_threads)

    def square(self, row: int) -> UInt8[Tensor, "3 side side"]:
        """The square of one image."""
        if isinstance(self.split, Pictures):
            return self.geometry.of(self.split.picture(row))
        pixels = self.split.images(torch.tensor([row]))[0]
        return self.geometry.of(Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy()))


def seen_anew(split: "StoredSplit", geometry: Geometry | None) -> "StoredSplit":
    """The same images as another network sees them: from how they are stored, whoever sees them now."""
    stored, n_threads = (split.split, split.n_threads) if isinstance(split, Seen) else (split, 1)
    geometry = geometry or getattr(stored, "geometry", None)  # files have an own one for those that take what comes
    return stored if geometry is None else Seen(stored, geometry, n_threads)


@runtime_checkable
class StoredSplit(Protocol):
    """What `Seen` asks of a split (`bench.datasets.Split`)."""

    @property
    def labels(self) -> Int[Tensor, " images"] | None: ...  # noqa: D102

    @property
    def factors(self) -> Mapping[str, Int[Tensor, " images"]]: ...  # noqa: D102

    def __len__(self) -> int: ...

    def images(self, rows: Int[Tensor, " rows"] | slice) -> Pixels: ...  # noqa: D102


def ahead(
    split: StoredSplit, batches: Iterable[Indices]
) -> Generator[tuple[Indices, UInt8[Tensor, "_ 3 height width"]], None, None]:
    """Each batch of rows with its images, in order; files are decoded on threads beside while the caller works.

    At most `BATCHES_AHEAD` batches are held beside the one handed out. What goes wrong with an image is raised when its
    batch is due. A split that decodes nothing is read when it is asked, without threads: they would only cost.
    """
    if not isinstance(split, Seen | Pictures):
        for rows in batches:
            yield rows, split.images(rows)
        return
    left, coming = iter(batches), deque[tuple[Indices, list[Future[Tensor]]]]()
    pool = ThreadPoolExecutor(split.n_threads if isinstance(split, Seen) else 1)

    def begin(n: int) -> None:
        for rows in islice(left, n):
            # Image by image, so that no thread waits for the last image of a batch.
            parts = [rows[i : i + 1] for i in range(len(rows))] if isinstance(split, Seen) else [rows]
            coming.append((rows, [pool.submit(split.images, part) for part in parts]))

    try:
        begin(BATCHES_AHEAD)
        while coming:
            begin(1)
            rows, parts = coming.popleft()
            pixels = torch.cat([part.result() for part in parts])
            del parts
            yield rows, pixels
    finally:
        pool.shutdown(cancel_futures=True)
