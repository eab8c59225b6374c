"""The manifest of an entry of the cache: every file with its size and SHA-256, written last, and checked when read."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"

Facts = Mapping[str, int | str]
"""What a manifest says of a file: "bytes", its size, and "sha256", the hash of its content in hexadecimal."""


def file_digest(path: Path) -> str:
    """SHA-256, in hexadecimal, of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def facts_of(path: Path) -> Facts:
    """What a manifest says of a file."""
    return {"bytes": path.stat().st_size, "sha256": file_digest(path)}


def read_manifest(folder: Path) -> dict[str, Any]:
    """What `write_manifest` wrote: "key", "made" and "files"."""
    manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    return manifest


def write_manifest(
    folder: Path, key: Mapping[str, Any], made: Mapping[str, Any], known: Mapping[str, Facts] | None = None
) -> None:
    """List every file with size and SHA-256, known or found; written aside and renamed, after everything else."""
    names = [str(path.relative_to(folder)) for path in sorted(folder.rglob("*")) if path.is_file()]
    files = {name: (known or {}).get(name) or facts_of(folder / name) for name in names}
    text = (
        json.dumps({"key": dict(key), "made": dict(made), "files": files}, indent=1, sort_keys=True, allow_nan=False)
        + "\n"
    )
    partial = folder / f"{MANIFEST}.partial"
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.rename(folder / MANIFEST)


def damage_of(folder: Path) -> tuple[str, str] | None:
    """The first file that is not what the manifest says, and how; None where all is well."""
    try:
        files = read_manifest(folder)["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return MANIFEST, "is missing or unreadable"
    for name, facts in files.items():
        path = folder / name
        if not path.is_file():
            return name, "is missing"
        if path.stat().st_size != facts["bytes"]:
            return name, f"has {path.stat().st_size} bytes where {facts['bytes']} were written"
        if file_digest(path) != facts["sha256"]:
            return name, "does not match its SHA-256"
    return None
