"""The manifest: all that judges will be asked, written before the first of them is.

A header in JSON names a file of presentations and one of recipes by their hashes, and is renamed into place after
them: whoever dies anywhere leaves either the old manifest or the new one. A pool may change in the same folder, and
replies to the presentations that were there before and still are stay good.
"""

import hashlib
import json
import os
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from judges.drawn import Drawn, MethodNote, Notes, PairNote, hashed
from judges.protocol import Presentation, Settings

SCHEMA: Final = 1
"""Raised whenever older programs could not read what is written."""

HEADER: Final = "manifest.json"


class ManifestError(ValueError):
    """A manifest cannot be read or written: says which, what was found, what was expected and the next step."""


@dataclass(frozen=True)
class Saved:
    """What saving changed.

    Attributes:
        new: Presentations that were not there before.
        kept: Presentations that were.
        gone: Presentations that were there and are no more; replies to them are not read.
    """

    new: int
    kept: int
    gone: int


@dataclass(frozen=True)
class Manifest:
    """A tournament before any judge has seen it.

    Attributes:
        settings: How methods are compared.
        pool: Id and label of every method, by id.
        presentations: What is asked, in the order in which it was drawn.
        recipes: The images of each grid by digest, in the order of the cells; none for the blank grid.
        notes: Counts and reasons to be said beside the ranks.
        fingerprints: Hashes of what the draw follows from, by name: data set, prompt.
    """

    settings: Settings
    pool: tuple[tuple[str, str], ...]
    presentations: tuple[Presentation, ...]
    recipes: Mapping[str, tuple[int, ...]]
    notes: Notes = field(default_factory=Notes)
    fingerprints: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls, drawn: Drawn, *, settings: Settings, pool: Iterable[tuple[str, str]], fingerprints: Mapping[str, str]
    ) -> "Manifest":
        """What was drawn, under these settings, among the methods of this pool (id and label of each)."""
        ordered = tuple(sorted(pool))
        return cls(settings, ordered, drawn.presentations, drawn.recipes, drawn.notes, dict(fingerprints))

    @property
    def pool_id(self) -> str:
        """Identity of the pool, 32 hex digits: the ids of its methods and the settings.

        A win rate is relative to the methods that it was measured against, so rates of different pools never stand in
        one column. Labels and the order of methods do not matter.
        """
        return hashed("pool", sorted(method for method, _ in self.pool), asdict(self.settings))

    def save(self, folder: Path) -> Saved:
        """Write the manifest in the place of the one that was there, with its files; says what changed.

        Raises:
            ManifestError: The folder holds a damaged manifest or that of a newer program, or it cannot be written.
        """
        before = load(folder) if (folder / HEADER).exists() else None
        old = {entry["file"] for entry in _header(folder)["files"].values()} if before is not None else set()
        files = {
            "presentations": _write_lines(folder, "presentations", map(asdict, self.presentations)),
            "recipes": _write_lines(folder, "recipes", sorted(self.recipes.items())),
        }
        header = {
            "schema": SCHEMA,
            "pool_id": self.pool_id,
            "settings": asdict(self.settings),
            "pool": self.pool,
            "fingerprints": dict(self.fingerprints),
            "notes": asdict(self.notes),
            "files": files,
        }
        header["sha256"] = _digest(header)
        _write(folder / HEADER, json.dumps(header, indent=1, sort_keys=True, allow_nan=False).encode() + b"\n")
        for name in old - {entry["file"] for entry in files.values()}:
            with suppress(OSError):  # it is in nobody's way
                (folder / name).unlink()
        ids = {one.id for one in self.presentations}
        known = {one.id for one in before.presentations} if before is not None else set()
        return Saved(new=len(ids - known), kept=len(ids & known), gone=len(known - ids))


def load(folder: Path) -> Manifest:
    """The manifest of a folder.

    Raises:
        ManifestError: There is none, a newer program wrote it, or it is damaged.
    """
    header = _header(folder)
    rows = {name: _read_lines(folder, entry) for name, entry in header["files"].items()}
    try:
        notes = header["notes"]
        return Manifest(
            settings=Settings(**header["settings"]),
            pool=tuple((method, label) for method, label in header["pool"]),
            presentations=tuple(_presentation(row) for row in rows["presentations"]),
            recipes={grid: tuple(images) for grid, images in rows["recipes"]},
            notes=Notes(
                pairs=tuple(PairNote(**{**note, "methods": tuple(note["methods"])}) for note in notes["pairs"]),
                methods=tuple(MethodNote(**note) for note in notes["methods"]),
                planted=tuple(notes["planted"]),
            ),
            fingerprints=header["fingerprints"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(folder / HEADER, f"fields that do not fit ({error})") from error


def _presentation(row: Mapping[str, Any]) -> Presentation:
    """A presentation as it was written: lists are pairs again."""
    return Presentation(**{**row, **{name: tuple(row[name]) for name in ("methods", "units", "grids")}})


def _header(folder: Path) -> dict[str, Any]:
    """The header, if it is whole and of a schema that is known.

    Raises:
        ManifestError: It is not.
    """
    path = folder / HEADER
    try:
        header = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise ManifestError(f"{path}: got no such file; expected a manifest; draw the tournament first") from error
    except ValueError as error:
        raise _damaged(path, "text that is no JSON") from error
    schema = header.get("schema") if isinstance(header, dict) else None
    if isinstance(schema, int) and schema > SCHEMA:
        raise ManifestError(f"{path}: got schema {schema}; expected {SCHEMA} or older; use the program that wrote it")
    if schema != SCHEMA:
        raise _damaged(path, f"schema {schema!r}")
    if header.pop("sha256", None) != _digest(header):
        raise _damaged(path, "a text that its hash does not fit")
    return dict(header)


def _digest(header: Mapping[str, Any]) -> str:
    """Hash of the fields of a header."""
    return hashed("header", header)


def _write_lines(folder: Path, name: str, rows: Iterable[Any]) -> dict[str, str]:
    """Write one JSON value a line into a file named by its hash; what the header says of it."""
    body = "".join(json.dumps(row, sort_keys=True, allow_nan=False) + "\n" for row in rows).encode()
    sha256 = hashlib.sha256(body).hexdigest()
    file = f"{name}-{sha256[:16]}.jsonl"
    _write(folder / file, body)
    return {"file": file, "sha256": sha256}


def _read_lines(folder: Path, entry: Mapping[str, str]) -> list[Any]:
    """The values in a file that the header names.

    Raises:
        ManifestError: It is missing or not what was written.
    """
    path = folder / entry["file"]
    try:
        body = path.read_bytes()
    except FileNotFoundError as error:
        raise _damaged(path, "no such file") from error
    if hashlib.sha256(body).hexdigest() != entry["sha256"]:
        raise _damaged(path, f"{len(body)} bytes that the hash in {HEADER} does not fit")
    return [json.loads(line) for line in body.splitlines()]


def _write(path: Path, body: bytes) -> None:
    """Write a file aside, to disk, and rename it into place; its folder is made.

    Raises:
        ManifestError: It cannot be written.
    """
    aside = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with aside.open("wb") as file:
                file.write(body)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)
    except OSError as error:
        raise ManifestError(
            f"{path}: got {error.strerror or error}; expected {len(body)} bytes to be written; make room or allow "
            f"writing there, then do it again"
        ) from error


def _damaged(path: Path, found: str) -> ManifestError:
    return ManifestError(
        f"{path}: got {found}; expected what was written; remove {HEADER} and draw the tournament again: replies stay "
        f"good"
    )
