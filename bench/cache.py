"""The cache: built things on disk, found by the content of everything they were built from.

An entry is a folder with a manifest that is written last; the folder is made aside and renamed, so that what is there
is whole. Reading checks every file against the manifest's SHA-256; what does not match is said, thrown away and built
again. Names, paths and times are in no key.
"""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from bench.manifest import MANIFEST, Facts, damage_of, write_manifest

ABANDONED_SECONDS = 24 * 3600
UNFINISHED_SECONDS = 30 * 24 * 3600

REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "it may not be written to",
    errno.EPERM: "it may not be written to",
}


class StorageError(Exception):
    """A folder cannot be written; the message is one line with the next step."""


class NotCachedError(LookupError):
    """A cache that is only looked at does not hold something."""


def storage_error(argument: str, path: Path, error: OSError) -> StorageError:
    """The one-line form of a failed write, naming the argument that chose the folder."""
    what = REASONS.get(error.errno or 0, error.strerror or str(error))
    return StorageError(
        f"{argument}: cannot write {path}: {what}; expected a writable folder with room; free it or give another with "
        f"{argument}, then run the same command again: finished work is kept"
    )


def default_cache() -> Path:
    """Where built things are kept unless `--cache` says otherwise."""
    named = os.environ.get("ELUDEBENCH_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "eludebench"


def canonical(parts: Mapping[str, Any]) -> str:
    """The text that is hashed: JSON with sorted keys and no spaces.

    Raises:
        ValueError: Something in it is no JSON, or no number.
    """
    return json.dumps(parts, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(parts: Mapping[str, Any]) -> str:
    """SHA-256, in hexadecimal, of the parts' canonical text."""
    return hashlib.sha256(canonical(parts).encode()).hexdigest()


class Cache:
    """A folder of entries, each found by stage and key."""

    def __init__(self, root: Path, say: Callable[[str], None], made: Mapping[str, Any] | None = None) -> None:
        """A cache in `root`.

        Args:
            root: Its folder.
            say: Told, in one line, when an entry is damaged and built again.
            made: Where and by what entries are made; kept in their manifests, no part of any key.
        """
        self.root = root
        self.say = say
        self.made = made or {}
        self.checked: set[Path] = set()

    def folder(self, stage: str, key: Mapping[str, Any]) -> Path:
        """Where the entry is, or would be."""
        return self.root / stage / digest(key)

    def get(self, stage: str, key: Mapping[str, Any], build: Callable[[Path], None]) -> Path:
        """The entry's folder, built first if it is not there or is damaged; checked once per process.

        Args:
            stage: Kind of entry; a folder name.
            key: Everything that the content follows from.
            build: Fills an empty folder. If it raises, nothing is kept.

        Raises:
            StorageError: The cache cannot be written.
        """
        final = self.folder(stage, key)
        if self.is_whole(final):
            return final
        self.throw_away_damaged(final)
        aside = self.root / "aside" / uuid.uuid4().hex
        self.guarded(lambda: aside.mkdir(parents=True))
        try:
            self.guarded(lambda: build(aside), is_ours=self.is_written_here)
            self.guarded(lambda: write_manifest(aside, key, self.made))
            self.guarded(lambda: move(aside, final))
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        return final

    def throw_away_damaged(self, final: Path) -> None:
        """Make room where an entry stands that is not as it was written, and say so."""
        damage = damage_of(final) if final.is_dir() else None
        if damage is not None:
            self.say(f"cache: {final / damage[0]} {damage[1]}; it is thrown away and built again")
            self.guarded(lambda: shutil.rmtree(final))

    def existing(self, stage: str, key: Mapping[str, Any]) -> Path:
        """The entry's folder.

        Raises:
            NotCachedError: There is none that is whole.
        """
        final = self.folder(stage, key)
        if not self.is_whole(final):
            raise NotCachedError(f"{stage}: the cache holds none for this key")
        return final

    def finish(self, stage: str, key: Mapping[str, Any], filled: Path, files: Mapping[str, Facts]) -> None:
        """Make a folder of the cache the entry, by renaming it.

        Args:
            stage: Kind of entry.
            key: Everything that the content follows from.
            filled: The folder, with all that the entry holds.
            files: Size and SHA-256 of files that are known already; only the others are read for it.
        """
        final = self.folder(stage, key)
        self.throw_away_damaged(final)
        self.guarded(lambda: write_manifest(filled, key, self.made, files))
        self.guarded(lambda: move(filled, final))
        self.checked.add(final)

    def is_whole(self, folder: Path) -> bool:
        """Whether an entry is there and as it was written; looked at once per process."""
        if folder.is_dir() and (folder in self.checked or damage_of(folder) is None):
            self.checked.add(folder)
            return True
        return False

    @contextmanager
    def unfinished(self, stage: str, key: Mapping[str, Any], *, is_shared: bool = False) -> Iterator[Path | None]:
        """A folder for what long work keeps in case it is interrupted, thrown away when the work is done.

        The same stage and key lead to the same folder again. Those who share it do parts of the work side by side and
        leave it as it is; whoever is to finish the work has it alone, and waits for it. An error leaves it as it is
        too: what was kept was right. None where the work is done already.
        """
        folder = self.root / "unfinished" / stage / digest(key)
        mode = fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX
        lock = None
        while lock is None and not self.is_whole(self.folder(stage, key)):
            self.guarded(lambda: folder.mkdir(parents=True, exist_ok=True))
            lock = self.locked(folder / "lock", mode)
        if lock is None or self.is_whole(self.folder(stage, key)):
            yield None
            return
        with lock:
            yield folder
            if not is_shared:
                shutil.rmtree(folder, ignore_errors=True)

    def locked(self, path: Path, mode: int) -> IO[str] | None:
        """The file, locked, once nobody else is in the way; None where it has been thrown away meanwhile."""
        try:
            lock = path.open("a+", encoding="ascii")  # network file systems share a lock only of what can be read
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(lock, mode | fcntl.LOCK_NB)
        except BlockingIOError:
            self.say(f"{path.parent}: another process is at this very work; waiting for it")
            self.guarded(lambda: fcntl.flock(lock, mode))
        except OSError as error:
            raise storage_error("--cache", path, error) from error
        if is_same(lock, path):
            return lock
        lock.close()
        return None

    def sweep(self) -> None:
        """Throw away what killed runs left: half-made entries after a day, what was kept to go on after a month."""
        for pattern, seconds in (("aside/*", ABANDONED_SECONDS), ("unfinished/*/*", UNFINISHED_SECONDS)):
            for folder in self.root.glob(pattern):
                with suppress(OSError):
                    if time.time() - folder.stat().st_mtime > seconds:
                        shutil.rmtree(folder)

    def guarded(self, act: Callable[[], object], is_ours: Callable[[OSError], bool] = lambda error: True) -> None:
        """Do it; a failure that is the cache's own becomes a `StorageError`."""
        try:
            act()
        except OSError as error:
            if not is_ours(error):
                raise
            raise storage_error("--cache", self.root, error) from error

    def is_written_here(self, error: OSError) -> bool:
        """Whether a builder failed to write into the cache, and not to read something elsewhere."""
        place = Path(error.filename) if isinstance(error.filename, str) else self.root
        return error.errno in REASONS and place.is_relative_to(self.root)


def is_same(file: IO[str], path: Path) -> bool:
    """Whether an open file still is the one at a path."""
    try:
        return os.fstat(file.fileno()).st_ino == path.stat().st_ino
    except FileNotFoundError:
        return False


class Looking(Cache):
    """A cache that nothing is written to and nothing thrown away from; what is there is believed as it stands."""

    def get(self, stage: str, key: Mapping[str, Any], build: Callable[[Path], None]) -> Path:
        """The entry's folder; errors as in `existing`."""
        return self.existing(stage, key)

    def is_whole(self, folder: Path) -> bool:
        """Whether an entry is there."""
        return (folder / MANIFEST).is_file()

    @contextmanager
    def unfinished(self, stage: str, key: Mapping[str, Any], *, is_shared: bool = False) -> Iterator[None]:
        """No folder."""
        yield None

    def sweep(self) -> None:
        """Leave everything as it is."""


def move(aside: Path, final: Path) -> None:
    """Rename into place; where another process was first, its entry stays."""
    final.parent.mkdir(parents=True, exist_ok=True)
    try:
        aside.rename(final)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
