"""`huggingface`: images in a table of the `datasets` library, saved to disk or as Parquet files.

    PATH/dataset_dict.json, PATH/train/data-00000-of-00012.arrow, ...     what `DatasetDict.save_to_disk` writes
    PATH/train-00000-of-00012.parquet, PATH/validation-....parquet        what the hub stores (also in PATH/data)

Arrow files are mapped into memory and read row by row; leave them alone while a run lasts. Parquet has no access by
row: the library copies it into Arrow files of its own once, as large as the images, in its own cache
(HF_DATASETS_CACHE). The encoded images are taken out of the table and decoded here (`bench.pictures`); the library
would turn them as EXIF asks for.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from bench import UsageError
from bench.cache import digest
from bench.datasets import Dataset
from bench.pictures import FileOptions, OnDisk, ends_digest, labelled

STATE, INFO = "state.json", "dataset_info.json"
LAYOUT = "a data set of two splits from save_to_disk, or a folder of Parquet files named SPLIT-*.parquet"


@dataclass(frozen=True)
class HuggingFace(FileOptions):
    """`huggingface`: a data set of the `datasets` library on disk; needs the extra `data`.

    Its files stand for the images in every key: of each its name, its size, and a hash of its first and last 64 kB.
    The same images saved anew may therefore be another data set.

    Attributes:
        path: The folder.
        train: Name of the probing split.
        test: Name of the evaluation split.
        image: Name of the column with the images.
        label: Name of the column with the classes: a `ClassLabel`, indices from 0, or texts.
        side: See `FileOptions`, as `corrupt` and `check`.
    """

    path: str = ""
    train: str = "train"
    test: str = "validation"
    image: str = "image"
    label: str = "label"

    version: ClassVar[int] = 1
    places: ClassVar[tuple[str, ...]] = ("path",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.path:
            raise ValueError(f"path: got none; expected {LAYOUT}; set path")

    @property
    def content(self) -> str:
        """SHA-256 over names, sizes and both ends of the files; read once per process."""
        folder = Path(self.path).expanduser()
        return digest({str(place): ends_digest(files_of(folder, split)) for place, split in enumerate(self.splits)})

    @property
    def splits(self) -> tuple[str, str]:
        """Names of the probing and the evaluation split."""
        return self.train, self.test

    def load(self) -> Dataset:
        """Both splits, none of whose images is read.

        Raises:
            UsageError: The package, a split or a column is missing, or labels are not those of classes.
        """
        folder = Path(self.path).expanduser()
        first, second = (Table(folder, split, self.image) for split in self.splits)
        values = [table.labels(self.label) for table in (first, second)]
        if first.class_names(self.label) != second.class_names(self.label):
            raise UsageError(
                f"label: the classes of {self.label!r} in {self.train} and {self.test} differ; expected the same names "
                "in the same order; cast one split's column to the other's"
            )
        classes, *labels = labelled(values[0], values[1], "label")
        names = first.class_names(self.label)
        if names is not None and len(classes) > len(names):
            raise UsageError(f"label: got index {len(classes) - 1} of {len(names)} classes; expected less; mend it")
        classes = tuple(names or classes)
        train, test = (OnDisk(table, own, self.side) for table, own in zip((first, second), labels, strict=True))
        parts = {"content": self.content, "columns": [self.image, self.label], "side": self.side}
        return Dataset(
            name="huggingface",
            classes=classes,
            train=train,
            test=test,
            fingerprint=digest({"huggingface": self.version, **parts}),
            licence="not stated: files of the user's own",
            summary=f"Images in a table: {len(train)} to probe, {len(test)} to evaluate, {len(classes)} classes.",
        )


class Table:
    """One split, its images encoded as they are stored; the library reads it from any number of threads."""

    def __init__(self, folder: Path, split: str, image: str) -> None:
        self.split = split
        self.image = image
        self.whole = opened(files_of(folder, split))
        column = self.column(image, "image")
        library = needed()
        if isinstance(column, library.Image):
            self.images = self.whole.select_columns([image]).cast_column(image, library.Image(decode=False))
        elif getattr(column, "dtype", "") in ("binary", "large_binary"):
            self.images = self.whole.select_columns([image])
        else:
            raise UsageError(f"image: column {image!r} of {split} holds {column}; expected images; choose another")
        if not len(self.whole):
            raise UsageError(f"path: split {split!r} has no row; expected at least one image; choose another")

    def column(self, name: str, option: str) -> Any:
        """What a column holds, as the library describes it.

        Raises:
            UsageError: There is none of that name.
        """
        features: Mapping[str, Any] = self.whole.features
        if name not in features:
            raise UsageError(
                f"{option}: {self.split} has no column {name!r}; expected one of {', '.join(sorted(features))}; set "
                f"{option} to it"
            )
        return features[name]

    def class_names(self, label: str) -> tuple[str, ...] | None:
        """The names that come with a `ClassLabel`; None where the column is another."""
        names = getattr(self.column(label, "label"), "names", None)
        return None if names is None else tuple(names)

    def labels(self, label: str) -> Sequence[int | str]:
        """A column, whole.

        Raises:
            UsageError: A row has no label.
        """
        self.column(label, "label")
        values: list[int | str] = self.whole.select_columns([label])[:][label]
        unlabelled = [row for row, value in enumerate(values) if value is None or value == -1]
        if unlabelled:
            raise UsageError(
                f"label: {len(unlabelled)} rows of {self.split} have none, row {unlabelled[0]} first; expected the "
                "class of every image; choose another split or column"
            )
        return values

    def __len__(self) -> int:
        return len(self.whole)

    def name(self, row: int) -> str:
        """The split and the row."""
        return f"{self.split}[{row}]"

    def read(self, row: int) -> bytes:
        """The image as it is stored.

        Raises:
            UsageError: The table holds a path where bytes should be.
        """
        cell = self.images[row][self.image]
        data = cell.get("bytes") if isinstance(cell, dict) else cell
        if not isinstance(data, bytes):
            raise UsageError(
                f"image: {self.name(row)} holds no bytes of a picture; expected every image inside the table; write it "
                "anew with save_to_disk, which puts them in"
            )
        return data


def needed() -> Any:
    """The `datasets` library, silent.

    Raises:
        UsageError: It is not installed.
    """
    try:
        import datasets
    except ImportError as error:
        raise UsageError(
            f"dataset: 'huggingface' needs the package datasets ({error}); expected it installed; add the extra data: "
            'pip install "eludebench[data]"'
        ) from error
    datasets.disable_progress_bars()
    return datasets


@cache
def opened(files: tuple[Path, ...]) -> Any:
    """A split as the library opens it, once per process.

    Raises:
        UsageError: It cannot be opened.
    """
    library = needed()
    try:
        if files[0].name == STATE:
            return library.load_from_disk(str(files[0].parent), keep_in_memory=False).with_format(None)
        return library.Dataset.from_parquet([str(path) for path in files], keep_in_memory=False)
    except Exception as error:  # the library's, Arrow's and Parquet's own errors, of no common type
        said = str(error).splitlines()
        raise UsageError(
            f"path: {files[0].parent} cannot be opened ({type(error).__name__}: {said[0] if said else ''}); expected "
            f"{LAYOUT}; write or fetch it anew"
        ) from error


@cache
def files_of(folder: Path, split: str) -> tuple[Path, ...]:
    """The files of a split: what its `state.json` names, with it, or its Parquet files in order of name.

    Raises:
        UsageError: There are none.
    """
    state = folder / split / STATE
    if state.is_file():
        try:
            names = [str(one["filename"]) for one in json.loads(state.read_text(encoding="utf-8"))["_data_files"]]
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(f"path: {state} is damaged ({error}); expected {LAYOUT}; write it anew") from error
        files = [state, state.with_name(INFO), *(state.with_name(name) for name in names)]
    else:
        files = sorted([*folder.glob(f"{split}-*.parquet"), *folder.glob(f"data/{split}-*.parquet")])
        files = files or sorted(folder.glob(f"{split}.parquet"))
    missing = [path for path in files if not path.is_file()]
    if missing or not files:
        there = sorted(path.name for path in folder.iterdir())[:8] if folder.is_dir() else []
        lack = f"{missing[0]} is missing" if missing else f"{folder} has no split {split!r} ({', '.join(there) or '-'})"
        raise UsageError(f"path: {lack}; expected {LAYOUT}; check path, train and test")
    return tuple(files)
