"""`webdataset`: images in tar shards as WebDataset has them, read by row.

    imagenet-train-000000.tar:  n01440764_10026.jpg, n01440764_10026.cls, n01440764_10027.jpg, ...

The files that share a name up to the first dot are one sample: an image (.jpg, .jpeg, .png, .webp) and its class
(.cls, or a field of .json). The headers of a shard say where each file is, so they are read once, in each process, and
images by position afterwards. That takes 50 microseconds a file: two minutes for ImageNet's 2.6 million.
"""

import hashlib
import itertools
import json
import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import ClassVar

import numpy as np
from jaxtyping import Int64

from bench import UsageError
from bench.cache import digest
from bench.datasets import Dataset
from bench.pictures import ChangedError, FileOptions, OnDisk, ends_digest, labelled, labels_digest

PICTURES = ("jpg", "jpeg", "png", "webp")
LAYOUT = "uncompressed tar shards of WebDataset: a folder of them, or a pattern such as train-{000000..000146}.tar"
BRACES = re.compile(r"\{([^{}]*)\}")
RANGE = re.compile(r"(\d+)\.\.(\d+)")
THREADS = 16
"""Shards whose headers are read at a time, for storage that takes its time over each."""


@dataclass(frozen=True)
class WebDataset(FileOptions):
    """`webdataset`: tar shards for both splits.

    The shards stand for the images in every key: of each its name, its size, and a hash of its first and last 64 kB;
    the data set's fingerprint holds all names, positions and labels besides.

    Attributes:
        train: The shards of the probing split: a folder, whose shards are taken in order of name, or a pattern.
        test: The shards of the evaluation split.
        label: The field of a sample's .json that names its class, where it has no .cls: an index from 0, or a text.
        side: See `FileOptions`, as `corrupt` and `check`.
    """

    train: str = ""
    test: str = ""
    label: str = "label"

    version: ClassVar[int] = 1
    places: ClassVar[tuple[str, ...]] = ("train", "test")

    def __post_init__(self) -> None:
        super().__post_init__()
        for option in self.places:
            if not getattr(self, option):
                raise ValueError(f"{option}: got none; expected {LAYOUT}; set {option}")

    @property
    def content(self) -> str:
        """SHA-256 over names, sizes and both ends of all shards; read once per process."""
        return digest({option: ends_digest(shards_of(getattr(self, option), option)) for option in self.places})

    def load(self) -> Dataset:
        """Both splits; the headers and labels of all shards are read, and no image.

        Raises:
            UsageError: A shard is missing or damaged, or a sample is not an image with a label.
        """
        train, test = (indexed(shards_of(getattr(self, option), option), self.label) for option in self.places)
        classes, *labels = labelled(train.values, test.values, "label")
        lists = [[split.digest, labels_digest(own)] for split, own in zip((train, test), labels, strict=True)]
        parts = {"content": self.content, "lists": lists, "side": self.side}
        return Dataset(
            name="webdataset",
            classes=classes,
            train=OnDisk(train, labels[0], self.side),
            test=OnDisk(test, labels[1], self.side),
            fingerprint=digest({"webdataset": self.version, **parts}),
            licence="not stated: files of the user's own",
            summary=f"Images in tar shards: {len(train)} to probe, {len(test)} to evaluate, {len(classes)} classes.",
        )


@dataclass
class Sample:
    """What was found of one sample: where each of its files is, by ending."""

    key: str
    files: dict[str, tuple[int, int]] = field(default_factory=dict)


class Shards:
    """The samples of one split, in the order of the shards and of the files in them.

    Attributes:
        values: The label of each, as it is written.
        digest: SHA-256 over names and positions of all images.
    """

    def __init__(self, paths: Sequence[Path], indices: Sequence["Index"]) -> None:
        self.paths = tuple(paths)
        self.sizes = [one.n_bytes for one in indices]
        self.ends = np.cumsum([len(one.keys) for one in indices])
        self.keys = [key for one in indices for key in one.keys]
        self.positions: Int64[np.ndarray, "images 2"] = np.concatenate([one.positions for one in indices])
        self.values = [value for one in indices for value in one.values]
        hashed = hashlib.sha256("\n".join(self.keys).encode(errors="surrogateescape"))
        hashed.update(self.positions.astype("<i8").tobytes())
        self.digest = hashed.hexdigest()

    def __len__(self) -> int:
        return len(self.keys)

    def shard(self, row: int) -> int:
        """Which shard an image is in."""
        return int(np.searchsorted(self.ends, row, side="right"))

    def name(self, row: int) -> str:
        """The shard's name and the sample's."""
        return f"{self.paths[self.shard(row)].name}/{self.keys[row]}"

    def read(self, row: int) -> bytes:
        """The image's file; every reader opens the shard for itself.

        Raises:
            ChangedError: The shard is gone, or has another size than when it was indexed.
        """
        shard = self.shard(row)
        start, size = (int(number) for number in self.positions[row])
        try:
            with self.paths[shard].open("rb", buffering=0) as file:
                n_bytes = os.fstat(file.fileno()).st_size
                data = os.pread(file.fileno(), size, start)
        except FileNotFoundError:
            raise ChangedError(self.name(row), "is gone with its shard") from None
        if n_bytes != self.sizes[shard] or len(data) != size:
            raise ChangedError(self.name(row), f"is in a shard of {n_bytes} bytes where {self.sizes[shard]} were read")
        return data


@dataclass(frozen=True)
class Index:
    """Where the images of one shard are.

    Attributes:
        keys: What their samples are called.
        positions: First byte and number of bytes, per image.
        values: Labels as they are written.
        n_bytes: The shard's size.
    """

    keys: list[str]
    positions: Int64[np.ndarray, "images 2"]
    values: list[int | str]
    n_bytes: int


def shards_of(pattern: str, option: str) -> tuple[Path, ...]:
    """The shards that a folder or a pattern stands for.

    Raises:
        UsageError: There are none, or one is missing.
    """
    place = Path(pattern).expanduser()
    paths = sorted(place.glob("*.tar")) if place.is_dir() else [Path(one).expanduser() for one in expanded(pattern)]
    missing = [str(path) for path in paths if not path.is_file()]
    if missing or not paths:
        lack = f"{len(missing)} of {len(paths)} shards are missing, {missing[0]} first" if missing else "no *.tar in it"
        raise UsageError(f"{option}: got {pattern!r}, {lack}; expected {LAYOUT}; check it")
    return tuple(paths)


def expanded(pattern: str) -> Iterator[str]:
    """The texts that a pattern with braces stands for: `{000..146}` counts, `{a,b}` lists."""
    pieces = BRACES.split(pattern)  # text and what is in braces take turns
    choices = [choices_of(piece) if place % 2 else [piece] for place, piece in enumerate(pieces)]
    return ("".join(parts) for parts in itertools.product(*choices))


def choices_of(inside: str) -> list[str]:
    """What stands between braces, one by one; numbers keep their leading zeros."""
    counted = RANGE.fullmatch(inside)
    if not counted:
        return inside.split(",")
    first, last = counted.groups()
    return [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]


@cache
def indexed(paths: tuple[Path, ...], label: str) -> Shards:
    """The samples of these shards, found once per process.

    Raises:
        UsageError: As `index_of`.
    """
    with ThreadPoolExecutor(THREADS) as pool:
        return Shards(paths, list(pool.map(lambda path: index_of(path, label), paths)))


def index_of(path: Path, label: str) -> Index:
    """The samples of one shard.

    Raises:
        UsageError: The shard is damaged, holds two samples of one name, or one without image or label.
    """
    samples = samples_of(path)
    if not samples:
        raise UsageError(f"shard: {path} holds no image; expected {LAYOUT}; remove it or write it anew")
    positions, values = [], []
    with path.open("rb", buffering=0) as file:
        for sample in samples:
            pictures = [ending for ending in sample.files if ending in PICTURES]
            if len(pictures) != 1:
                raise UsageError(
                    f"shard: sample {sample.key} of {path} has {len(pictures)} images ({', '.join(sample.files)}); "
                    f"expected one that ends in {', '.join(PICTURES)}; mend the shard"
                )
            positions.append(sample.files[pictures[0]])
            values.append(value_of(sample, file.fileno(), label, path))
        n_bytes = os.fstat(file.fileno()).st_size
    return Index([one.key for one in samples], np.array(positions, dtype=np.int64), values, n_bytes)


def samples_of(path: Path) -> list[Sample]:
    """The files of a shard by sample, in their order.

    Raises:
        UsageError: It is no whole tar, or a name occurs twice.
    """
    found: dict[str, Sample] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            while (member := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # or it would remember them all
                folder, _, name = member.name.removeprefix("./").rpartition("/")
                stem, _, ending = name.partition(".")
                if not member.isfile() or not ending or name.startswith("__"):
                    continue
                key = f"{folder}/{stem}" if folder else stem
                files = found.setdefault(key, Sample(key)).files
                if ending.lower() in files:
                    raise UsageError(
                        f"shard: {path} holds {member.name} twice; expected every name once; write the shard anew"
                    )
                files[ending.lower()] = (member.offset_data, member.size)
            end = tar.offset
    except (tarfile.TarError, OSError) as error:
        raise broken(path, str(error)) from error
    with path.open("rb") as file:  # what is no header ends a tar for the library; nothing but zeros may
        block = os.pread(file.fileno(), tarfile.BLOCKSIZE, end)
    if block != bytes(tarfile.BLOCKSIZE):
        raise broken(path, f"it stops at byte {end} without the zeros that end a tar")
    return list(found.values())


def broken(path: Path, how: str) -> UsageError:
    """The error of a shard that is not whole."""
    return UsageError(f"shard: {path} is no whole tar ({how}); expected {LAYOUT}; copy or write it again")


def value_of(sample: Sample, file: int, label: str, path: Path) -> int | str:
    """The label of a sample: its .cls, or a field of its .json.

    Raises:
        UsageError: It has neither.
    """
    if "cls" in sample.files:
        start, size = sample.files["cls"]
        text = os.pread(file, size, start).decode(errors="replace").strip()
        return int(text) if text.isdecimal() else text
    if "json" in sample.files:
        start, size = sample.files["json"]
        try:
            value = json.loads(os.pread(file, size, start))[label]
        except (ValueError, KeyError, TypeError):
            value = None
        if isinstance(value, int | str):
            return value
    raise UsageError(
        f"shard: sample {sample.key} of {path} has no label ({', '.join(sample.files)}); expected a .cls, or a .json "
        f"with a number or a text as {label!r}; write one, or set label to the field's name"
    )
