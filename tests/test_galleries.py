"""Galleries as pictures: where images, frames and marks stand, and what becomes of texts."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bench.galleries import (
    CELL,
    FRAME,
    GAP,
    MARGIN,
    MOST_TEXT,
    PAIR_CELL,
    Seen,
    box_of,
    cut,
    file_of,
    font,
    lines_of,
    pair_gallery,
    printable,
    text,
    unit_gallery,
)
from results.explored import Atom, Judged, Pictures, Reply, Shown, Unit

COLOURS = [(40 + 9 * i, 255 - 9 * i, (53 * i) % 256) for i in range(24)]
IMAGES = {i: Image.new("RGB", (CELL, CELL), colour) for i, colour in enumerate(COLOURS)}
SEEN = Seen(IMAGES, Pictures("site", {}, grid=(2, 2), n_prefix=1))


def atom(index: int, first: int, n: int, score: float | None = 50.0) -> Atom:
    images = tuple((first + i) % len(COLOURS) for i in range(n))
    return Atom(index, images, (1,) * n, (1.0,) * n, {"ms_score": score}, n_members=7)


UNIT = Unit(3, atom(3, 0, 16), (atom(8, 16, 9), atom(9, 5, 9, None)))


def reply(judge: str, choice: str | None, said: str) -> Reply:
    return Reply(judge, choice, said, said, said)


def pair_of(*replies: Reply) -> Judged:
    sides = Shown("elude", 3, tuple(range(9))), Shown("topk_sae", 5, tuple(range(9, 18)))
    return Judged("shapes", "proxy", "proxy_panel", "abc", 42, *sides, replies, "A")


def cell_at(picture: Image.Image, left: int, top: int, side: int) -> set[tuple[int, ...]]:
    """The colours inside a square."""
    pixels = np.asarray(picture)[top : top + side, left : left + side].reshape(-1, 3)
    return {tuple(int(channel) for channel in one) for one in np.unique(pixels, axis=0)}


def test_a_units_images_stand_left_in_yellow_and_its_parts_right_in_pink() -> None:
    picture = unit_gallery(UNIT, SEEN, title="shapes, elude: unit 3")
    heading = text("shapes, elude: unit 3", 8 * CELL, 16, bold=True).height
    top, left = MARGIN + heading + GAP, MARGIN
    for number in range(16):
        row, column = divmod(number, 4)
        at = left + FRAME + column * CELL, top + FRAME + row * CELL
        assert cell_at(picture, *at, CELL) == {COLOURS[number]}
    assert picture.getpixel((left, top)) == (0xF0, 0xC8, 0x00)
    left += 4 * CELL + 2 * FRAME + 2 * GAP
    for part in UNIT.parts:
        for number, image in enumerate(part.images[:4]):
            row, column = divmod(number, 2)
            at = left + FRAME + column * CELL, top + FRAME + row * CELL
            assert cell_at(picture, *at, CELL) == {COLOURS[image]}
        assert picture.getpixel((left, top)) == (0xCC, 0x79, 0xA7)
        left += 2 * CELL + 2 * FRAME + GAP


def test_parts_are_wrapped_in_rows_and_those_that_are_too_many_are_told() -> None:
    few = unit_gallery(Unit(0, None, (atom(0, 0, 4),) * 3), SEEN, title="t")
    many = unit_gallery(Unit(0, None, (atom(0, 0, 4),) * 60), SEEN, title="t")
    assert many.width < 3000
    assert many.height > 3 * few.height


def test_parts_are_counted_from_one_and_atoms_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    def kept(line: str, *sizes: int, **looks: Any) -> Image.Image:
        said.append(line)
        return text(line, *sizes, **looks)

    monkeypatch.setattr("bench.galleries.text", kept)
    unit_gallery(UNIT, SEEN, title="t")
    shown = sorted(line for line in said if line.startswith(("unit", "part")))
    assert shown == ["part 1, atom 8", "part 2, atom 9", "unit 3"]
    assert said.count("MS-Score 50.0 %") == 2


def test_an_atom_by_itself_shows_nine() -> None:
    picture = unit_gallery(Unit(None, None, (atom(2, 3, 9),)), SEEN, title="t")
    colours = {tuple(one) for one in np.asarray(picture).reshape(-1, 3)[::7].tolist()}
    assert {COLOURS[i] for i in range(3, 12)} <= colours


def test_a_mark_frames_the_patch_and_nothing_else() -> None:
    """By hand: of 2 x 2 patches behind a CLS token, position 2 is the one on the right above: columns 36 to 71."""
    assert box_of(SEEN.pictures, 2, 72) == (36, 0, 71, 35)
    assert box_of(Pictures("s", {}, grid=(3, 5)), 7, 60) == (24, 20, 35, 39)
    assert box_of(SEEN.pictures, 0, 72) is None
    marked = np.asarray(Seen(IMAGES, SEEN.pictures, is_marked=True).cell(0, 2, 72))
    plain = np.asarray(SEEN.cell(0, 2, 72))
    changed = np.argwhere((marked != plain).any(axis=2))
    assert changed.min(axis=0).tolist() == [0, 36]
    assert changed.max(axis=0).tolist() == [35, 71]
    assert (Seen(IMAGES, SEEN.pictures, is_marked=True).cell(0, 0, 72).tobytes()) == SEEN.cell(0, 0, 72).tobytes()


def test_grids_of_a_pair_stand_side_by_side_and_the_chosen_one_is_framed() -> None:
    picture = pair_gallery(pair_of(reply("pixels", "A", "alike")), SEEN)
    pixels = np.asarray(picture)
    for first in (0, 9):
        rows, columns = np.nonzero((pixels == COLOURS[first]).all(axis=2))
        assert [int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1] == [PAIR_CELL, PAIR_CELL]
    left, right = (np.nonzero((pixels == COLOURS[i]).all(axis=2))[1].min() for i in (0, 9))
    top = np.nonzero((pixels == COLOURS[0]).all(axis=2))[0].min()
    assert picture.getpixel((int(left) - 1, int(top))) == (0xF0, 0xC8, 0x00)
    assert picture.getpixel((int(right) - 1, int(top))) == (0x5A, 0x5A, 0x5A)


@pytest.mark.parametrize(
    "said", ["", "<script>alert(1)</script>", "x" * 100_000, "\x00\x1b[2J\u202e\ud800 ok", "好" * 900]
)
def test_any_reply_can_be_drawn_and_stays_of_a_size(said: str) -> None:
    picture = pair_gallery(pair_of(reply("a", "A", said), Reply("b", None, "", "", said)), SEEN)
    assert picture.height < 3000
    assert picture.width < 1200


def test_a_long_text_is_cut_with_a_remark() -> None:
    assert cut("x" * MOST_TEXT) == "x" * MOST_TEXT
    assert cut("x" * 100_000).endswith(f"... (cut here; {100_000 - MOST_TEXT:,} more characters)")


@pytest.mark.parametrize("said", ["one two three " * 40, "W" * 500, "a <b>bold</b> claim", "i" * 300 + " " + "M" * 300])
def test_lines_fit_and_lose_nothing(said: str) -> None:
    lines = lines_of(said, 200, 12, False)
    assert all(font(12).getlength(line) <= 200 for line in lines)
    assert "".join(lines).replace(" ", "") == printable(said).replace(" ", "")


@pytest.mark.parametrize("form", ["png", "pdf"])
def test_the_same_picture_gives_the_same_file(form: str) -> None:
    picture = unit_gallery(UNIT, SEEN, title="t")
    assert file_of(picture, form) == file_of(picture, form)  # type: ignore[arg-type]


def test_a_png_holds_the_picture_to_the_pixel() -> None:
    picture = unit_gallery(UNIT, SEEN, title="t")
    assert Image.open(io.BytesIO(file_of(picture, "png"))).tobytes() == picture.tobytes()
