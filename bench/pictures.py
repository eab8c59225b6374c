"""Images of the user's own files: read one by one, decoded by Pillow, never held.

Every kind of data set on disk is a `Store` (`bench.image_files`, `bench.image_tables`, `bench.image_shards`) behind
the one split of this file. Decoding is that of torchvision's default loader: whatever the mode, `convert("RGB")`; the
orientation that EXIF asks for is not applied, as nothing applies it where networks are trained on such folders.
A file that Pillow finds cut short is an error and never filled up with grey.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from io import BytesIO
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Int, UInt8
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from bench import UsageError
from bench.geometry import Geometry, Pixels, Seen, tensor_of
from bench.options import check_at_least

ENDS = 2**16
"""Bytes at either end of a file that stand for what is in it; a Parquet file's index is at its end."""
MAX_CLASSES = 1_000_000
"""More than any labels are meant to have: a number above it is no index of a class."""


class UnreadableError(UsageError):
    """An image cannot be decoded.

    Attributes:
        name: Which one.
        reason: What Pillow says of it.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name, self.reason = name, reason

    def __str__(self) -> str:
        """The one line."""
        return (
            f"image: {self.name} cannot be decoded ({self.reason}); expected a whole image; mend it, or set corrupt = "
            '"leave_out" with check = true'
        )


class ChangedError(UsageError):
    """A file is not what it was when the data set was listed."""

    def __init__(self, name: str, how: str) -> None:
        super().__init__(name, how)
        self.name, self.how = name, how

    def __str__(self) -> str:
        """The one line."""
        return (
            f"image: {self.name} {self.how}; expected it as it was when the data set was listed; leave the files alone "
            "and run the same command again: a changed set is listed anew and is another data set"
        )


@runtime_checkable
class Store(Protocol):
    """Encoded images in a fixed order; may be asked from several threads at a time."""

    def __len__(self) -> int: ...

    def name(self, row: int) -> str:
        """What people call an image: its path below the data set's folder, say."""
        ...

    def read(self, row: int) -> bytes:
        """The image's file as it stands on disk.

        Raises:
            ChangedError: It is not what was listed.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class FileOptions:
    """What all data sets of files let choose.

    Each of them also lists, in `places`, the options that say where its files are and not what is in them; a hash of
    what is there is in its property `content`, and stands for the images in a cell's identity.

    Attributes:
        side: The square that images are brought to for a backbone that takes them as they come: shorter side resized
            (bicubic), middle cut. 0 leaves them as they are, which needs images of one size. Backbones with a
            geometry of their own do not look at it.
        corrupt: What becomes of images that cannot be decoded: the data set is refused, or they are left out of it.
        check: Whether every image is decoded once before the data set is used for the first time.
    """

    side: int = 0
    corrupt: Literal["refuse", "leave_out"] = "refuse"
    check: bool = True

    def __post_init__(self) -> None:
        check_at_least("side", self.side, 0)
        if self.corrupt == "leave_out" and not self.check:
            raise ValueError(
                'check: got false with corrupt = "leave_out"; expected true, or nobody knows what to leave out; '
                "change either"
            )


class OnDisk:
    """A split whose images are decoded when they are asked for.

    Attributes:
        store: Where the files are.
        labels: Index into the data set's classes, per image.
        geometry: How images become squares for a backbone that takes them as they come; None leaves them.
    """

    def __init__(self, store: Store, labels: Int[Tensor, " images"], side: int = 0) -> None:
        self.store = store
        self.labels = labels
        self.geometry = Geometry(side, resize=side) if side else None

    @property
    def factors(self) -> Mapping[str, Int[Tensor, " images"]]:
        """None are known."""
        return {}

    @property
    def concepts(self) -> None:
        """None are known."""
        return None

    def __len__(self) -> int:
        return len(self.store)

    def name(self, row: int) -> str:
        """What people call an image."""
        return self.store.name(row)

    def picture(self, row: int) -> Image.Image:
        """One image in RGB, as large as it is stored.

        Raises:
            UnreadableError: It cannot be decoded.
            ChangedError: Its file is not what was listed.
        """
        return decoded(self.store.read(row), self.store.name(row))

    def images(self, rows: Int[Tensor, " rows"] | slice) -> Pixels:
        """The pixels of these images, in the order of `rows`.

        Raises:
            UsageError: There is no `side`, and not all of them have the size of the first image of the split.
        """
        if self.geometry is not None:
            return Seen(self, self.geometry).images(rows)
        if isinstance(rows, slice):
            rows = torch.arange(*rows.indices(len(self)))
        pixels = [self.of_one_size(row) for row in rows.tolist()]
        return torch.stack(pixels) if pixels else torch.empty(0, *self.shape, dtype=torch.uint8)

    @cached_property
    def shape(self) -> torch.Size:
        """Of the first image's pixels."""
        return tensor_of(self.picture(0)).shape

    def of_one_size(self, row: int) -> UInt8[Tensor, "3 height width"]:
        """An image's pixels, which have to be as many as the first one's."""
        pixels = tensor_of(self.picture(row))
        if pixels.shape != self.shape:
            one, other = (f"{shape[2]} x {shape[1]}" for shape in (self.shape, pixels.shape))
            raise UsageError(
                f"side: got 0, and {self.name(0)} is {one}, {self.name(row)} {other}; expected images of one size for "
                "a backbone that takes them as they come; set side of the data set, to 224 say"
            )
        return pixels


def decoded(data: bytes, name: str) -> Image.Image:
    """An image file in RGB.

    Raises:
        UnreadableError: Pillow cannot decode it, or takes it for a decompression bomb.
    """
    try:
        with Image.open(BytesIO(data)) as image:
            return image.convert("RGB")
    except MemoryError:
        raise
    except Exception as error:  # a broken file leads Pillow's readers to nearly every type of error
        said = "no image format that Pillow knows" if isinstance(error, UnidentifiedImageError) else str(error)
        raise UnreadableError(name, said.splitlines()[0] if said else type(error).__name__) from error


def labelled(
    train: Sequence[int | str], test: Sequence[int | str], what: str
) -> tuple[tuple[str, ...], Int[Tensor, " train"], Int[Tensor, " test"]]:
    """Classes, and each image's index into them, of labels as they were written.

    Whole numbers are indices already, as a classifier trained on the set numbers its logits: the classes are called
    "0", "1" and so on up to the largest. Texts are sorted.

    Args:
        train: Of the probing split.
        test: Of the evaluation split.
        what: The option that chose them, for errors.

    Raises:
        UsageError: They are of two kinds, or a number is no index.
    """
    values = {*train, *test}
    if all(isinstance(value, str) for value in values):
        names = sorted(str(value) for value in values)
        index = {name: place for place, name in enumerate(names)}
        first, second = ([index[str(value)] for value in split] for split in (train, test))
        return tuple(names), torch.tensor(first), torch.tensor(second)
    odd = next((value for value in values if type(value) is not int or not 0 <= value < MAX_CLASSES), None)
    if odd is not None:
        raise UsageError(
            f"{what}: got the label {odd!r}; expected every label to be a text, or every one an index from 0 to "
            f"{MAX_CLASSES - 1}; choose another, or mend the labels"
        )
    numbers = tuple(str(place) for place in range(1 + max(int(value) for value in values)))
    return numbers, torch.tensor(list(train)), torch.tensor(list(test))


@cache
def ends_digest(paths: tuple[Path, ...]) -> str:
    """SHA-256, in hexadecimal, over the name, the size, and the first and last bytes of each file; once per process.

    For files too large to be read whole. Compressed images differ in length as soon as they differ.
    """
    hashed = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            n_bytes = os.fstat(file.fileno()).st_size
            hashed.update(f"|{path.name} {n_bytes}|".encode())
            hashed.update(os.pread(file.fileno(), ENDS, 0))
            hashed.update(os.pread(file.fileno(), ENDS, max(ENDS, n_bytes - ENDS)))
    return hashed.hexdigest()


def labels_digest(labels: Int[Tensor, " images"]) -> str:
    """SHA-256, in hexadecimal, of labels."""
    return hashlib.sha256(labels.long().contiguous().numpy().tobytes()).hexdigest()
