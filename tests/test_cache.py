"""The cache: content keys, atomic entries, damage found and mended, disks that cannot be written."""

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.cache import Cache, StorageError, default_cache, digest
from bench.manifest import MANIFEST


class Builder:
    """Counts how often it builds."""

    def __init__(self, text: str = "weights") -> None:
        self.text = text
        self.times = 0

    def __call__(self, folder: Path) -> None:
        self.times += 1
        (folder / "model.bin").write_text(self.text)


@pytest.fixture(name="said")
def lines() -> list[str]:
    return []


@pytest.fixture(name="cache")
def some_cache(tmp_path: Path, said: list[str]) -> Cache:
    return Cache(tmp_path / "cache", said.append)


def test_an_entry_is_built_once_per_key(cache: Cache) -> None:
    build = Builder()
    first = cache.get("stage", {"a": 1, "b": [1, 2]}, build)
    assert cache.get("stage", {"b": [1, 2], "a": 1}, build) == first
    assert build.times == 1
    assert (first / "model.bin").read_text() == "weights"
    others = [cache.get("stage", {"a": 2, "b": [1, 2]}, build), cache.get("other", {"a": 1, "b": [1, 2]}, build)]
    assert build.times == 3
    assert len({first, *others}) == 3


def test_keys_are_content_only() -> None:
    assert digest({"x": 1.0, "y": None}) == digest({"y": None, "x": 1.0})
    assert digest({"x": 1}) != digest({"x": 1.5})
    with pytest.raises(ValueError, match="Out of range float"):
        digest({"x": float("nan")})


def flip(path: Path) -> None:
    path.write_text("weightz")


def cut(path: Path) -> None:
    path.write_text("wei")


DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "flipped": (lambda folder: flip(folder / "model.bin"), "model.bin does not match its SHA-256"),
    "cut": (lambda folder: cut(folder / "model.bin"), "model.bin has 3 bytes where 7 were written"),
    "gone": (lambda folder: (folder / "model.bin").unlink(), "model.bin is missing"),
    "no manifest": (lambda folder: (folder / MANIFEST).unlink(), "manifest.json is missing or unreadable"),
    "torn manifest": (lambda folder: cut(folder / MANIFEST), "manifest.json is missing or unreadable"),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_damage_is_said_and_built_again(cache: Cache, said: list[str], how: str) -> None:
    damage, message = DAMAGE[how]
    build = Builder()
    folder = cache.get("stage", {"a": 1}, build)
    damage(folder)
    assert cache.get("stage", {"a": 1}, build) == folder
    assert build.times == 2
    assert (folder / "model.bin").read_text() == "weights"
    assert len(said) == 1
    assert message in said[0]
    assert said[0].endswith("it is thrown away and built again")


def test_failed_work_is_never_kept(cache: Cache) -> None:
    def fail(folder: Path) -> None:
        (folder / "model.bin").write_text("half")
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        cache.get("stage", {"a": 1}, fail)
    assert not cache.folder("stage", {"a": 1}).exists()
    assert list((cache.root / "aside").iterdir()) == []
    build = Builder()
    cache.get("stage", {"a": 1}, build)
    assert build.times == 1


def test_whoever_is_second_leaves_the_first_in_place(cache: Cache) -> None:
    def slow(folder: Path) -> None:
        Cache(cache.root, lambda text: None).get("stage", {"a": 1}, Builder("first"))
        (folder / "model.bin").write_text("second")

    folder = cache.get("stage", {"a": 1}, slow)
    assert (folder / "model.bin").read_text() == "first"


@pytest.mark.parametrize(
    ("code", "words"),
    [(errno.ENOSPC, "the disk is full"), (errno.EROFS, "the file system is read-only"), (errno.EACCES, "may not be")],
)
def test_a_disk_that_cannot_be_written_is_one_line(cache: Cache, code: int, words: str) -> None:
    def full(folder: Path) -> None:
        (folder / "model.bin").write_text("half")
        raise OSError(code, os.strerror(code))

    with pytest.raises(StorageError) as caught:
        cache.get("stage", {"a": 1}, full)
    message = str(caught.value)
    assert message.startswith("--cache: cannot write")
    assert words in message
    assert "give another with --cache" in message
    assert "\n" not in message
    assert not cache.folder("stage", {"a": 1}).exists()


def test_other_errors_keep_their_own_words(cache: Cache) -> None:
    def missing(folder: Path) -> None:
        (folder / "nothing").read_text()

    with pytest.raises(FileNotFoundError):
        cache.get("stage", {"a": 1}, missing)


def test_data_that_may_not_be_read_is_no_fault_of_the_cache(cache: Cache) -> None:
    def forbidden(folder: Path) -> None:
        raise OSError(errno.EACCES, os.strerror(errno.EACCES), "/data/imagenet")

    with pytest.raises(PermissionError, match="/data/imagenet"):
        cache.get("stage", {"a": 1}, forbidden)


def test_a_cache_that_cannot_be_made_is_one_line(said: list[str]) -> None:
    with pytest.raises(StorageError, match=r"--cache: cannot write /proc/cache: .*; expected a writable folder"):
        Cache(Path("/proc/cache"), said.append).get("stage", {"a": 1}, Builder())


def test_what_a_killed_run_left_is_swept_after_a_day(cache: Cache) -> None:
    for name, age in (("old", 25 * 3600), ("new", 3600)):
        folder = cache.root / "aside" / name
        folder.mkdir(parents=True)
        os.utime(folder, (time.time() - age,) * 2)
    cache.sweep()
    assert [path.name for path in (cache.root / "aside").iterdir()] == ["new"]


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("ELUDEBENCH_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "eludebench"
    monkeypatch.setenv("ELUDEBENCH_CACHE", str(tmp_path / "mine"))
    assert default_cache() == tmp_path / "mine"
