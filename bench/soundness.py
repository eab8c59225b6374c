"""Whether every image of a data set of files can be decoded, found out once, before the first use.

What is found is kept in the cache by the data set's fingerprint, so each list of files is checked once; a check that
is interrupted goes on where it was. Corrupt images are refused or left out as the data set's option says; either way
they are counted and named. A bit that flipped inside a picture without breaking its format is found by nobody.
"""

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import PIL
import torch

from bench import UsageError
from bench.cache import Cache, NotCachedError, digest
from bench.datasets import Dataset
from bench.geometry import Pictures
from bench.lanes import Report
from bench.pictures import UnreadableError
from bench.slices import name_of, some

VERSION = 1
"""Raised whenever the same files would be judged otherwise than before."""
FOUND = "corrupt.json"
BLOCK = 8192
"""Images of which is written down together that they are done."""
N_NAMED = 5


@runtime_checkable
class Pictured(Pictures, Protocol):
    """A split of files."""

    def __len__(self) -> int: ...


class Corrupt(NamedTuple):
    """An image that cannot be decoded: its row in the split, what people call it, and what Pillow says."""

    row: int
    name: str
    reason: str


def check(split: Pictured, report: Report, n_threads: int = 1, keeps: Path | None = None) -> list[Corrupt]:
    """Which images of a split cannot be decoded; each is decoded in full.

    Args:
        split: It has `picture`.
        report: Told how far it is.
        n_threads: How many images are decoded at a time.
        keeps: A folder that remembers what is done, in case the check is interrupted.

    Raises:
        ChangedError: A file is not what it was when the set was listed.
    """
    corrupt: list[Corrupt] = []
    with ThreadPoolExecutor(n_threads) as pool:
        for start in range(0, len(split), BLOCK):
            stop = min(start + BLOCK, len(split))
            report("checking the images", start, len(split))
            before = keeps / f"{start}.json" if keeps else None
            if before is not None and before.exists():
                corrupt += [Corrupt(*one) for one in json.loads(before.read_text(encoding="utf-8"))]
                continue
            found = [one for one in pool.map(partial(corrupt_at, split), range(start, stop)) if one is not None]
            if before is not None:
                aside = before.with_suffix(".partial")
                aside.write_text(json.dumps(found), encoding="utf-8")
                aside.rename(before)
            corrupt += found
    report("checking the images", len(split), len(split))
    return corrupt


def corrupt_at(split: Pictured, row: int) -> Corrupt | None:
    """What is wrong with one image; None where it can be decoded."""
    try:
        split.picture(row)
    except UnreadableError as error:
        return Corrupt(row, error.name, error.reason)
    return None


def still_corrupt(split: Any, rows: Sequence[int]) -> list[Corrupt]:
    """Those of the images found corrupt that are so now: one that was mended may be as long as before."""
    return [one for row in rows if (one := corrupt_at(split, row)) is not None]


def sound(dataset: Dataset, factory: Any, cache: Cache, report: Report, n_threads: int = 1) -> Dataset:
    """The data set without images that cannot be decoded; one that is not of files as it is.

    Args:
        dataset: What the factory loaded, or a slice of it: only what is used is checked.
        factory: Its options; `check` and `corrupt` say what to do.
        cache: Where it is kept what was found. One that is only looked at, without it, leaves the data set unchecked.
        report: Told how far it is.
        n_threads: How many images are decoded at a time.

    Raises:
        UsageError: There are corrupt images and `corrupt` is "refuse"; or no image is left.
    """
    if not getattr(factory, "check", False):
        return dataset
    key = {"version": VERSION, "dataset": dataset.fingerprint, "pillow": PIL.__version__}
    try:
        folder = found_in(cache, key, dataset, report, n_threads)
    except NotCachedError:
        return dataset
    stored = json.loads((folder / FOUND).read_text(encoding="utf-8"))
    found = {
        name: still_corrupt(split, [row for row, *_ in stored[name]])
        for name, split in (("train", dataset.train), ("test", dataset.test))
    }
    if factory.corrupt == "refuse":
        refuse(found, len(dataset.train) + len(dataset.test), folder / FOUND)
        return dataset
    return without(dataset, found)


def found_in(cache: Cache, key: Mapping[str, Any], dataset: Dataset, report: Report, n_threads: int) -> Path:
    """The cache's folder with what the check found; one process at a time checks, others wait for it."""
    with cache.unfinished("checks", key) as keeps:

        def build(folder: Path) -> None:
            found = {}
            for name, split in (("train", dataset.train), ("test", dataset.test)):
                own = keeps / name if keeps else None
                if own is not None:
                    own.mkdir(exist_ok=True)
                if not isinstance(split, Pictured):
                    raise UsageError(f"check: {dataset.name!r} has no files to check; expected check = false; set it")
                found[name] = check(split, report, n_threads, own)
            (folder / FOUND).write_text(json.dumps(found, indent=1), encoding="utf-8")
            n_corrupt = sum(map(len, found.values()))
            if n_corrupt:
                n = len(dataset.train) + len(dataset.test)
                cache.say(f"{dataset.name}: {n_corrupt} of {n} images cannot be decoded: {named(found)}")

        return cache.get("checks", key, build)


def refuse(found: Mapping[str, Sequence[Corrupt]], n_images: int, path: Path) -> None:
    """Nothing, where no image is corrupt.

    Raises:
        UsageError: Some are.
    """
    n_corrupt = sum(map(len, found.values()))
    if n_corrupt:
        raise UsageError(
            f"corrupt: {n_corrupt} of {n_images} images cannot be decoded: {named(found)}; expected none; all are in "
            f'{path}; mend them, or set corrupt = "leave_out" of the data set'
        )


def named(found: Mapping[str, Sequence[Corrupt]]) -> str:
    """The first corrupt images by name, with the reasons."""
    everything = [one for split in found.values() for one in split]
    more = f", and {len(everything) - N_NAMED} more" if len(everything) > N_NAMED else ""
    return ", ".join(f"{one.name} ({one.reason})" for one in everything[:N_NAMED]) + more


def without(dataset: Dataset, found: Mapping[str, Sequence[Corrupt]]) -> Dataset:
    """The data set without these images, which its notes count and name.

    Raises:
        UsageError: A split has no image left.
    """
    counts = {f"n_left_out_{split}": len(corrupt) for split, corrupt in found.items()}
    if not any(counts.values()):
        return replace(dataset, notes={**dataset.notes, **counts})
    splits = {}
    for name, split in (("train", dataset.train), ("test", dataset.test)):
        is_sound = torch.ones(len(split), dtype=torch.bool)
        is_sound[[one.row for one in found[name]]] = False
        if not is_sound.any():
            first = name_of(split, 0)
            raise UsageError(
                f"corrupt: none of the {len(split)} images of the {name} split can be decoded, {first} for one; "
                "expected some; mend them"
            )
        splits[name] = some(split, is_sound.nonzero()[:, 0])
    left_out = {name: [one.row for one in corrupt] for name, corrupt in found.items()}
    return replace(
        dataset,
        train=splits["train"],
        test=splits["test"],
        fingerprint=digest({"dataset": dataset.fingerprint, "left_out": left_out}),
        notes={**dataset.notes, **counts, "left_out": named(found)},
    )
