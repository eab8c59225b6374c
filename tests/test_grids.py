"""Grids: the same bytes for the same images, cells where they belong, files that mend themselves."""

import errno
import io
import os
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import UInt8
from PIL import Image

from judges.grids import Grids, GridsError, grid_digest, grid_png, is_whole

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (30, 3, 20, 24), np.uint8)
CELL = 16


def pixels(rows: Sequence[int]) -> UInt8[np.ndarray, "some 3 height width"]:
    return IMAGES[list(rows)]


def opened(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as image:
        assert image.mode == "RGB"
        assert image.info == {}
        return np.asarray(image)


@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_every_cell_is_the_image_resized(cell_px: int, height: int, width: int, seed: int) -> None:
    images = np.random.default_rng(seed).integers(0, 256, (9, 3, height, width), np.uint8)
    slow = Image.new("RGB", (3 * cell_px, 3 * cell_px))
    for i, image in enumerate(images):
        cell = Image.fromarray(image.transpose(1, 2, 0).copy()).resize((cell_px, cell_px), Image.Resampling.BICUBIC)
        slow.paste(cell, (i % 3 * cell_px, i // 3 * cell_px))
    png = grid_png(images, cell_px)
    assert np.array_equal(opened(png), np.asarray(slow))
    assert is_whole(png, 3 * cell_px)


def test_arrays_and_tensors_give_the_same_bytes_every_time() -> None:
    images = IMAGES[:9]
    assert grid_png(images, CELL) == grid_png(torch.from_numpy(images), CELL) == grid_png(images[::1].copy(), CELL)
    assert grid_png(images, CELL) != grid_png(images[::-1], CELL)


def test_no_image_is_the_blank_grid() -> None:
    blank = opened(grid_png(np.empty((0, 3, 5, 5), np.uint8), CELL))
    assert blank.shape == (3 * CELL, 3 * CELL, 3)
    assert np.unique(blank).tolist() == [128]


@pytest.mark.parametrize("n", [1, 8, 10])
def test_another_number_of_images_is_refused_by_its_number(n: int) -> None:
    with pytest.raises(ValueError, match=rf"images: got {n}; expected 9, or none for the blank grid; leave out units"):
        grid_png(IMAGES[:n], CELL)


def test_a_cell_has_pixels() -> None:
    with pytest.raises(ValueError, match="cell_px: got 0; expected at least 1 pixel"):
        grid_png(IMAGES[:9], 0)


def test_a_digest_follows_from_content_order_and_size() -> None:
    digest = grid_digest("data", range(9), CELL)
    assert len(digest) == 32
    assert set(digest) <= set("0123456789abcdef")
    assert digest == grid_digest("data", tuple(range(9)), CELL)
    others = {grid_digest("other", range(9), CELL), grid_digest("data", range(8, -1, -1), CELL)}
    others |= {grid_digest("data", range(9), CELL + 1), grid_digest("data", (), CELL)}
    assert len({digest, *others}) == 5


def recipes(n: int) -> dict[str, tuple[int, ...]]:
    drawn = [tuple(np.random.default_rng(seed).permutation(30)[:9].tolist()) for seed in range(n)]
    return {grid_digest("data", images, CELL): images for images in [*drawn, ()]}


@pytest.mark.parametrize("kept", [True, False])
def test_pictures_are_made_once(tmp_path: Path, kept: bool) -> None:
    table = recipes(3)
    folder = tmp_path / "grids" if kept else None
    grids = Grids(folder, pixels, table, CELL)
    assert not (tmp_path / "grids").exists()
    made = {digest: grids.png(digest) for digest in table}
    assert {digest: grids.png(digest) for digest in table} == made
    for digest, images in table.items():
        assert made[digest] == grid_png(IMAGES[list(images)], CELL)
    assert grids.n_made == len(table)
    again = Grids(folder, pixels, table, CELL)
    assert {digest: again.png(digest) for digest in table} == made
    assert again.n_made == (0 if kept else len(table))
    if kept:
        assert sorted(path.name for path in (tmp_path / "grids").iterdir()) == sorted(f"{name}.png" for name in table)


def test_memory_holds_a_few_pictures_only(monkeypatch: pytest.MonkeyPatch) -> None:
    table = recipes(40)
    monkeypatch.setattr("judges.grids._HELD_BYTES", 20 * len(Grids(None, pixels, table, CELL).png(next(iter(table)))))
    grids = Grids(None, pixels, table, CELL)
    for digest in table:
        grids.png(digest)
    last, first = list(table)[-1], next(iter(table))
    grids.png(last)
    assert grids.n_made == len(table)
    grids.png(first)
    assert grids.n_made == len(table) + 1


def changed(png: bytes, how: str) -> bytes:
    if how == "bit":
        return png[:200] + bytes([png[200] ^ 1]) + png[201:]
    if how == "pillow":
        file = io.BytesIO()
        Image.open(io.BytesIO(png)).save(file, "PNG", pnginfo=None, dpi=(72, 72))
        return file.getvalue()
    other = grid_png(IMAGES[:9], CELL - 1)
    return {"empty": b"", "text": b"no picture", "longer": png + b"\0", "size": other}[how]


@pytest.mark.parametrize("how", ["empty", "text", "bit", "longer", "size", "pillow"])
def test_a_damaged_or_foreign_file_is_made_again(tmp_path: Path, how: str) -> None:
    table = recipes(1)
    digest = next(iter(table))
    whole = Grids(tmp_path, pixels, table, CELL).png(digest)
    path = tmp_path / f"{digest}.png"
    path.write_bytes(changed(whole, how))
    grids = Grids(tmp_path, pixels, table, CELL)
    assert grids.png(digest) == whole
    assert grids.n_made == 1
    assert path.read_bytes() == whole


def test_a_file_cut_anywhere_is_noticed() -> None:
    png = grid_png(IMAGES[:9], 4)
    assert is_whole(png, 12)
    assert not any(is_whole(png[:n], 12) for n in range(len(png)))


def test_an_unknown_grid_is_an_error() -> None:
    with pytest.raises(LookupError, match="grid: got 'ab'; expected one of 3 recipes; draw the pairs again"):
        Grids(None, pixels, recipes(2), CELL).png("ab")


def test_threads_get_the_same_pictures(tmp_path: Path) -> None:
    table = recipes(20)
    expected = {digest: grid_png(IMAGES[list(images)], CELL) for digest, images in table.items()}
    grids = Grids(tmp_path, pixels, table, CELL)
    wrong: list[str] = []

    def ask(order: list[str]) -> None:
        wrong.extend(digest for digest in order if grids.png(digest) != expected[digest])

    orders = [list(np.random.default_rng(seed).permutation(list(table))) for seed in range(8)]
    threads = [threading.Thread(target=ask, args=([str(digest) for digest in order],)) for order in orders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert sorted(path.stem for path in tmp_path.iterdir()) == sorted(table)
    assert all(is_whole(path.read_bytes(), 3 * CELL) for path in tmp_path.iterdir())


def test_a_picture_that_cannot_be_kept_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    recipes = {"one": tuple(range(9))}
    with pytest.raises(GridsError, match=r"file/one\.png: got File exists; expected \d+ bytes to be written"):
        Grids(tmp_path / "file", pixels, recipes, CELL).png("one")

    def full(self: Path, target: Path) -> Path:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(GridsError, match=r"one\.png: got No space left on device; .*: replies stay good$"):
        Grids(tmp_path / "grids", pixels, recipes, CELL).png("one")
    assert list((tmp_path / "grids").iterdir()) == []
