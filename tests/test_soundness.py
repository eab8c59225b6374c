"""Images that cannot be decoded are found once, counted and named; what is left out is in every record."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from made_images import N_TEST, N_TRAIN, image_folder, picture

from bench import UsageError, soundness
from bench.cache import Cache, Looking
from bench.datasets import Dataset, labels_of
from bench.image_files import ImageFolder, listed
from bench.pictures import ChangedError, OnDisk
from bench.registry import Registry
from bench.slices import sampled
from bench.soundness import Corrupt, check, sound
from bench.stages import Workshop
from bench.suites import load_suite
from bench.tasks import backbone_task
from results.ledger import read
from results.records import Record

ROOT = Path(__file__).resolve().parent.parent
BAD = ("train/ant/001.JPEG", "train/cow/005.png", "val/bee/000.JPEG")


def quietly(_what: str, _done: int, _total: int) -> None:
    pass


@pytest.fixture(autouse=True)
def _listed_anew() -> Iterator[None]:
    listed.cache_clear()
    yield
    listed.cache_clear()


@pytest.fixture(name="root")
def some_root(tmp_path: Path) -> Path:
    """Three images of thirty are cut short."""
    root = image_folder(tmp_path / "images")
    for name in BAD:
        whole = (root / name).read_bytes()
        (root / name).write_bytes(whole[: len(whole) // 2])
    return root


@pytest.fixture(name="said")
def some_lines() -> list[str]:
    return []


@pytest.fixture(name="cache")
def some_cache(tmp_path: Path, said: list[str]) -> Cache:
    return Cache(tmp_path / "cache", said.append)


def train_of(dataset: Dataset) -> OnDisk:
    assert isinstance(dataset.train, OnDisk)
    return dataset.train


@pytest.mark.parametrize("n_threads", [1, 4])
def test_every_image_is_decoded(n_threads: int, root: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    found = check(train_of(ImageFolder(root=str(root)).load()), lambda *step: steps.append(step), n_threads)
    assert [(one.row, one.name) for one in found] == [(1, BAD[0]), (2 * N_TRAIN + 5, BAD[1])]
    assert "truncated" in found[0].reason
    assert steps[-1] == ("checking the images", 3 * N_TRAIN, 3 * N_TRAIN)


def test_an_interrupted_check_goes_on_where_it_was(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was checked is not looked at again: its files may even be gone."""
    monkeypatch.setattr(soundness, "BLOCK", 4)
    train = train_of(ImageFolder(root=str(root)).load())
    expected = check(train, quietly)

    def interrupt(_what: str, done: int, _total: int) -> None:
        if done == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check(train, interrupt, 1, tmp_path)
    (root / train.name(7)).unlink()
    assert check(train, quietly, 1, tmp_path) == expected
    with pytest.raises(ChangedError, match=f"{train.name(7)} is gone"):
        check(train, quietly)


def test_corrupt_images_are_refused_with_their_names(root: Path, cache: Cache, said: list[str]) -> None:
    factory = ImageFolder(root=str(root))
    with pytest.raises(UsageError) as caught:
        sound(factory.load(), factory, cache, quietly, 2)
    (line,) = str(caught.value).splitlines()
    assert line.startswith("corrupt: 3 of 30 images cannot be decoded: ")
    assert all(name in line for name in BAD)
    assert line.endswith('; mend them, or set corrupt = "leave_out" of the data set')
    listing = json.loads(Path(line.split("all are in ")[1].split("; mend")[0]).read_text(encoding="utf-8"))
    assert [name for split in listing.values() for _, name, _ in split] == list(BAD)
    assert len(said) == 1
    assert said[0].startswith("image_folder: 3 of 30 images cannot be decoded: train/ant/001.JPEG (")


def test_what_is_left_out_is_counted_and_named_and_makes_another_data_set(
    root: Path, cache: Cache, said: list[str]
) -> None:
    factory = ImageFolder(root=str(root), side=16, corrupt="leave_out")
    whole = factory.load()
    left = sound(whole, factory, cache, quietly)
    assert (len(left.train), len(left.test)) == (3 * N_TRAIN - 2, 3 * N_TEST - 1)
    assert {name: left.notes[name] for name in ("n_left_out_train", "n_left_out_test")} == {
        "n_left_out_train": 2,
        "n_left_out_test": 1,
    }
    assert all(name in str(left.notes["left_out"]) for name in BAD)
    assert left.fingerprint != whole.fingerprint
    kept = [row for row in range(3 * N_TRAIN) if row not in (1, 2 * N_TRAIN + 5)]
    assert torch.equal(labels_of(left.train), labels_of(whole.train)[kept])
    assert torch.equal(left.train.images(slice(None)), whole.train.images(torch.tensor(kept)))
    assert torch.equal(left.seen_by(None, 2).train.images(slice(None)), left.train.images(slice(None)))
    for row in (0, 8, len(kept) - 1):
        (root / train_of(whole).name(kept[row])).unlink()  # not looked at again
    assert sound(whole, factory, Cache(cache.root, said.append), quietly).fingerprint == left.fingerprint
    assert len(said) == 1


def test_a_sound_set_is_the_same_whatever_the_policy(tmp_path: Path, cache: Cache, said: list[str]) -> None:
    root = image_folder(tmp_path / "images")
    found = [
        sound(factory.load(), factory, cache, quietly)
        for factory in (
            ImageFolder(root=str(root)),
            ImageFolder(root=str(root), corrupt="leave_out"),
            ImageFolder(root=str(root), check=False),
        )
    ]
    assert len({one.fingerprint for one in found}) == 1
    assert [dict(one.notes) for one in found] == [{}, {"n_left_out_train": 0, "n_left_out_test": 0}, {}]
    assert said == []


def test_an_image_that_was_mended_to_its_old_length_is_sound(tmp_path: Path, cache: Cache) -> None:
    root = image_folder(tmp_path / "images")
    path = root / BAD[0]
    whole = path.read_bytes()
    path.write_bytes(whole[:100] + bytes(len(whole) - 100))
    factory = ImageFolder(root=str(root))
    with pytest.raises(UsageError, match="1 of 30 images"):
        sound(factory.load(), factory, cache, quietly)
    path.write_bytes(whole)
    assert sound(factory.load(), factory, cache, quietly).fingerprint == factory.load().fingerprint


def test_a_slice_is_checked_alone_and_an_unchecked_set_is_taken_as_it_is(root: Path, cache: Cache) -> None:
    factory = ImageFolder(root=str(root))
    whole = factory.load()
    part = sampled(whole, 0.2)
    steps: list[int] = []
    found = check(part.train, lambda _what, _done, total: steps.append(total))  # type: ignore[arg-type]
    assert set(steps) == {len(part.train)}
    assert all(one == Corrupt(one.row, part.train.name(one.row), one.reason) for one in found)  # type: ignore[attr-defined]
    unchecked = ImageFolder(root=str(root), check=False)
    assert sound(whole, unchecked, cache, quietly) is whole
    assert sound(whole, factory, Looking(cache.root, print), quietly) is whole


def test_a_site_takes_its_share_of_what_is_sound(root: Path, cache: Cache, tmp_path: Path, said: list[str]) -> None:
    (tmp_path / "own.toml").write_text(SUITE.format(corrupt="leave_out").replace('"images"', json.dumps(str(root))))
    registry = Registry()
    whole = load_suite(str(tmp_path / "own.toml"), registry).sites[0]
    half = replace(whole, share=0.5)
    workshop = Workshop(registry, cache, quietly, n_threads=2)
    first, second = workshop.dataset(whole), workshop.dataset(half)
    assert workshop.dataset(half) is second
    assert (len(first.train), len(first.test)) == (3 * N_TRAIN - 2, 3 * N_TEST - 1)
    assert len(second.train) == 3 * N_TRAIN // 2 - int(str(second.notes["n_left_out_train"]))
    assert second.fingerprint != first.fingerprint
    assert set(labels_of(second.train).tolist()) == {0, 1, 2}
    assert second.train.images(slice(0, 2)).shape == (2, 3, 32, 32)
    assert backbone_task(whole).id != backbone_task(half).id
    assert len(said) >= 1


def test_a_split_without_any_sound_image_is_an_error(tmp_path: Path, cache: Cache) -> None:
    root = image_folder(tmp_path / "images")
    for path in (root / "val").rglob("*.*"):
        path.write_bytes(b"gone")
    factory = ImageFolder(root=str(root), corrupt="leave_out")
    with pytest.raises(UsageError, match=r"corrupt: none of the 12 images of the test split can be decoded, val/ant/0"):
        sound(factory.load(), factory, cache, quietly)


SUITE = """
description = "a folder of images through a whole run"
token_seeds = [42]
init_seeds = [42]

[[sites]]
label = "mine"
dataset = {{ name = "image_folder", root = "images", side = 32, corrupt = "{corrupt}" }}
backbone = {{ name = "embedded_vit", width = 32, depth = 2, epochs = 2 }}
module = "blocks.1.mlp.fc2"

[[methods]]
name = "backbone"

[[methods]]
name = "pca"
"""


def ran(folder: Path, corrupt: str, code: int) -> tuple[str, list[Record]]:
    """A run of both methods: what it says, and its records."""
    (folder / f"{corrupt}.toml").write_text(SUITE.format(corrupt=corrupt))
    words = ["run", f"{corrupt}.toml", "--out", corrupt, "--workers", "1", "--cache", "cache"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    done = subprocess.run([sys.executable, "-m", "bench", *words], capture_output=True, text=True, cwd=folder, env=env)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr, read(folder / corrupt / "records.jsonl")


def test_a_run_says_in_every_record_what_was_left_out_and_another_refuses(tmp_path: Path) -> None:
    root = image_folder(tmp_path / "images")
    for place in range(20, 40):  # enough of each class for every metric to have a value
        for split, name in enumerate(("train", "val")):
            for label, kind in enumerate(("ant", "bee", "cow")):
                picture(split, label, place).save(root / name / kind / f"{place:03d}.png")
    broken = root / "train" / "bee" / "000.JPEG"
    broken.write_bytes(broken.read_bytes()[:600])
    said, records = ran(tmp_path, "leave_out", 0)
    assert "2 of 2 cells complete" in said
    assert said.count("image_folder: 1 of 150 images cannot be decoded: train/bee/000.JPEG (") == 1
    values = [record for record in records if record.value is not None]
    assert {record.label for record in values} == {"backbone", "pca"}
    for record in records:
        assert (record.notes["n_left_out_train"], record.notes["n_left_out_test"]) == (1, 0)
        assert str(record.notes["left_out"]).startswith("train/bee/000.JPEG (")
    accuracy = {record.metric: record.value for record in values if record.label == "backbone"}
    assert accuracy["r2"] == 100
    said, _ = ran(tmp_path, "refuse", 3)
    assert "UsageError: corrupt: 1 of 150 images cannot be decoded: train/bee/000.JPEG (" in said
