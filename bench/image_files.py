"""`image_folder`: images in one folder a class, in the layout of torchvision's `ImageFolder`.

    ROOT/train/CLASS/....jpg
    ROOT/val/CLASS/....jpg

Classes, order and labels are torchvision's, so an image's index means the same here and there. The folders are listed
once per process; a hash over the list (split, path, size in bytes) stands for the images in every key, so a set that
changed is another set. What changed since it was listed is noticed when it is read, by its size.
"""

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Int64
from torchvision.datasets.folder import IMG_EXTENSIONS

from bench import UsageError
from bench.cache import digest
from bench.datasets import Dataset
from bench.pictures import ChangedError, FileOptions, OnDisk

LAYOUT = "the layout of torchvision's ImageFolder, one folder a class in each of two splits (train/cat/1.jpg)"
THREADS = 16
"""Folders that are listed at a time: on a network file system each question takes its time, and little else."""


@dataclass(frozen=True)
class ImageFolder(FileOptions):
    """`image_folder`: a folder of images, one folder a class in each split.

    Attributes:
        root: The folder that holds both splits.
        train: Name of the probing split's folder.
        test: Name of the evaluation split's folder.
        side: See `FileOptions`, as `corrupt` and `check`.
    """

    root: str = ""
    train: str = "train"
    test: str = "val"

    version: ClassVar[int] = 1
    places: ClassVar[tuple[str, ...]] = ("root", "train", "test")

    @property
    def missing(self) -> str:
        """What is not there, in words: a suite may leave the root open; empty where there is a folder."""
        if not self.root:
            return f"root: got none; expected a folder in {LAYOUT}; give --data PATH, or set root"
        if not Path(self.root).expanduser().is_dir():
            return f"root: got {self.root!r}, which is no folder; expected one in {LAYOUT}; mend the path"
        return ""

    @property
    def content(self) -> str:
        """SHA-256 over both lists: of each file the split, the path below it and the size in bytes."""
        if self.missing:
            return "absent"
        train, test = self.listings()
        return digest({"train": train.digest, "test": test.digest})

    def listings(self) -> "tuple[Listing, Listing]":
        """Both lists, made once per process.

        Raises:
            UsageError: A split or a class is missing or empty, or cannot be listed.
        """
        if self.missing:
            raise UsageError(self.missing)
        train, test = (listed(Path(self.root).expanduser() / split) for split in (self.train, self.test))
        if train.classes != test.classes:
            ours, theirs = set(train.classes), set(test.classes)
            only = [f"{len(names)} only in {split} ({', '.join(sorted(names)[:5])})"
                    for names, split in ((ours - theirs, self.train), (theirs - ours, self.test)) if names]  # fmt: skip
            raise UsageError(
                f"root: the classes of {self.root} differ: {'; '.join(only)}; expected the same folders in both "
                "splits; add or remove some"
            )
        return train, test

    def load(self) -> Dataset:
        """Both splits, none of whose images is opened.

        Raises:
            UsageError: As `listings`.
        """
        train, test = self.listings()
        return Dataset(
            name="image_folder",
            classes=train.classes,
            train=OnDisk(train, torch.from_numpy(train.labels), self.side),
            test=OnDisk(test, torch.from_numpy(test.labels), self.side),
            fingerprint=digest({"image_folder": self.version, "content": self.content, "side": self.side}),
            licence="not stated: files of the user's own",
            summary=f"Images in folders: {len(train)} to probe, {len(test)} to evaluate, {len(train.classes)} classes.",
        )


class Listing:
    """The images of one split, in order; some 55 bytes an image.

    Attributes:
        folder: The split's folder.
        classes: The names of its folders, sorted.
        labels: Index into the classes, per image.
        digest: SHA-256 over path and size of all files.
    """

    def __init__(self, folder: Path, classes: Sequence[str], found: Sequence["Found"]) -> None:
        self.folder = folder
        self.classes = tuple(classes)
        self.labels: Int64[np.ndarray, " images"] = np.repeat(np.arange(len(found)), [len(one.sizes) for one in found])
        self.sizes = np.concatenate([one.sizes for one in found])
        self.paths = b"".join(one.paths for one in found)
        self.ends = np.cumsum(np.concatenate([one.lengths for one in found]))
        hashed = hashlib.sha256(self.paths)
        for numbers in (self.ends, self.sizes):
            hashed.update(numbers.astype("<i8").tobytes())
        self.digest = hashed.hexdigest()

    def __len__(self) -> int:
        return len(self.sizes)

    def name(self, row: int) -> str:
        """The path below the data set's folder."""
        start = int(self.ends[row - 1]) if row else 0
        return f"{self.folder.name}/{os.fsdecode(self.paths[start : int(self.ends[row])])}"

    def read(self, row: int) -> bytes:
        """The file.

        Raises:
            ChangedError: It is gone, or has another size than when it was listed.
            UsageError: It may not be read.
        """
        name = self.name(row)
        try:
            data = (self.folder.parent / name).read_bytes()
        except FileNotFoundError:
            raise ChangedError(name, "is gone") from None
        except OSError as error:
            raise UsageError(
                f"image: {name} cannot be read ({error.strerror}); expected a readable file; allow reading it"
            ) from error
        if len(data) != self.sizes[row]:
            raise ChangedError(name, f"has {len(data)} bytes where {self.sizes[row]} were listed")
        return data


@dataclass(frozen=True)
class Found:
    """The images of one class: the bytes of their paths below the split's folder, and the length of each."""

    paths: bytes
    lengths: Int64[np.ndarray, " images"]
    sizes: Int64[np.ndarray, " images"]


@cache
def listed(folder: Path) -> Listing:
    """The images below a split's folder, listed once per process.

    Raises:
        UsageError: It is missing, has no class, a class has no image, or something cannot be listed.
    """
    try:
        with os.scandir(folder) as entries:
            found = sorted((entry.name, entry.is_dir()) for entry in entries)
    except OSError as error:
        raise UsageError(f"root: cannot list {folder} ({error.strerror}); expected {LAYOUT}; check the path") from error
    classes = [name for name, is_folder in found if is_folder]
    if not classes:
        flat = sum(is_image(name) for name, _ in found)
        raise UsageError(
            f"root: {folder} has no folder of a class, and {flat} images beside; expected {LAYOUT}; sort them into "
            "folders, one a class"
        )
    try:
        with ThreadPoolExecutor(THREADS) as pool:
            images = list(pool.map(lambda name: of_class(folder, name), classes))
    except OSError as error:
        raise UsageError(
            f"root: cannot list {error.filename} ({error.strerror}); expected folders that may be read; allow it"
        ) from error
    empty = [name for name, one in zip(classes, images, strict=True) if not len(one.sizes)]
    if empty:
        raise UsageError(
            f"root: no image in {len(empty)} of {len(classes)} classes of {folder} ({', '.join(empty[:5])}); expected "
            f"some in each, ending in {', '.join(IMG_EXTENSIONS)}; fill or remove these folders, in both splits"
        )
    return Listing(folder, classes, images)


def of_class(folder: Path, name: str) -> Found:
    """The images of one class, those of folders below it too, in torchvision's order: by folder, then by name."""
    files: list[tuple[str, str, int]] = []
    own = (folder / name).stat()
    waiting = [(name, frozenset({(own.st_dev, own.st_ino)}))]
    while waiting:
        inside, above = waiting.pop()
        with os.scandir(folder / inside) as entries:
            for entry in entries:
                if entry.is_dir():
                    facts = entry.stat()
                    if (here := (facts.st_dev, facts.st_ino)) in above:
                        raise UsageError(f"root: {entry.path} links to a folder above it; expected none; remove it")
                    waiting.append((f"{inside}/{entry.name}", above | {here}))
                elif is_image(entry.name):
                    files.append((inside, entry.name, entry.stat().st_size))
    files.sort()
    paths = [os.fsencode(f"{inside}/{file}") for inside, file, _ in files]
    lengths = np.array([len(path) for path in paths], dtype=np.int64)
    return Found(b"".join(paths), lengths, np.array([size for *_, size in files], dtype=np.int64))


def is_image(name: str) -> bool:
    """Whether a file's name ends as that of an image."""
    return name.lower().endswith(IMG_EXTENSIONS)
