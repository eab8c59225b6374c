"""Proxy judges: deterministic, blind to order, far above chance on what is easy, and never sure of a tie."""

import asyncio
import io
import json
import subprocess
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Float64
from PIL import Image
from scipy.spatial.distance import cosine, pdist

from bench.datasets import Photos, Shapes
from judges import proxies
from judges.coherence import BLANK, SIDE, WAYS, cells_of, coherences, halved, histogram, likeness
from judges.grids import grid_digest, grid_png
from judges.planted import BLANK as ONE_BLANK
from judges.planted import EASIEST, LADDER, NULLS, planted
from judges.protocol import Judge, JudgeError, Presentation, Reply, Settings
from judges.proxies import ProxyJudge

PANEL = tuple(map(ProxyJudge, WAYS))
CELL = 48
RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (2, 9, 3, 12, 12), np.uint8)
ALIKE = grid_png(np.repeat(NOISE[0, :1], 9, axis=0), CELL)
UNLIKE = grid_png(NOISE[0], CELL)
GREY = grid_png(np.empty((0, 3, 1, 1), np.uint8), CELL)


def asked(judge: ProxyJudge, a: bytes, b: bytes) -> Mapping[str, str]:
    replies = asyncio.run(judge.compare(a, b))
    assert [type(reply) for reply in replies] == [Reply]
    said: Mapping[str, str] = json.loads(replies[-1].text)
    assert list(said) == ["reasoning_a", "reasoning_b", "answer"]
    return said


def test_a_panel_is_three_judges_of_the_kind_proxy() -> None:
    assert [judge.name for judge in PANEL] == ["pixels", "texture", "filters"] == list(WAYS)
    for judge in PANEL:
        assert isinstance(judge, Judge)
        assert judge.kind == "proxy"
        assert judge.n_at_once == 1
        assert asyncio.run(judge.prepare()) == {"name": judge.name, "kind": "proxy", "version": 1}
    with pytest.raises(ValueError, match="name: got 'hog'; expected one of pixels, texture, filters; choose one"):
        ProxyJudge("hog")


@pytest.mark.parametrize("judge", PANEL, ids=lambda judge: judge.name)
def test_the_grid_whose_cells_are_alike_wins_in_either_place(judge: ProxyJudge) -> None:
    assert asked(judge, ALIKE, UNLIKE)["answer"] == "A"
    assert asked(judge, UNLIKE, ALIKE)["answer"] == "B"
    assert asked(judge, ALIKE, UNLIKE)["reasoning_a"] == "coherence 1.000000"


@pytest.mark.parametrize("judge", PANEL, ids=lambda judge: judge.name)
def test_equal_scores_are_no_answer(judge: ProxyJudge) -> None:
    assert asked(judge, UNLIKE, UNLIKE)["answer"] == "none"
    turned = grid_png(NOISE[0, ::-1], CELL)
    said = asked(judge, UNLIKE, turned)
    assert said["answer"] == "none"
    assert said["reasoning_a"] == said["reasoning_b"]


@pytest.mark.parametrize("judge", PANEL, ids=lambda judge: judge.name)
def test_a_blank_grid_loses_against_all_but_itself(judge: ProxyJudge) -> None:
    assert judge.score(GREY) == BLANK == -1
    opposite = np.zeros((9, 3, 4, 4), np.uint8)
    opposite[::2] = 255
    flat = np.tile(np.arange(0, 256, 31, dtype=np.uint8)[:, None, None, None], (1, 3, 4, 4))
    for images in (NOISE[0], opposite, flat):
        assert asked(judge, grid_png(images, CELL), GREY)["answer"] == "A"
    assert asked(judge, GREY, GREY)["answer"] == "none"


@given(st.integers(0, 2**32 - 1), st.permutations(range(9)))
@settings(max_examples=20, deadline=None)
def test_the_order_of_cells_does_not_matter(seed: int, order: list[int]) -> None:
    images = np.random.default_rng(seed).integers(0, 256, (9, 3, 5, 5), np.uint8)
    one, other = coherences(grid_png(images, CELL)), coherences(grid_png(images[order], CELL))
    assert one == pytest.approx(other, abs=1e-12)
    assert all(-1 < value < 1 for value in one.values())


def test_cells_are_cut_where_they_lie() -> None:
    images = NOISE[0, :, :, :4, :4]
    big = np.kron(images, np.ones((1, 1, SIDE // 4, SIDE // 4), np.uint8))
    cells = cells_of(grid_png(big, SIDE))
    assert np.array_equal(cells, big / 255)
    # At twice the size, every pixel is the mean of four.
    double = cells_of(grid_png(np.kron(big, np.ones((1, 1, 2, 2), np.uint8)), 2 * SIDE))
    assert np.abs(double - cells).max() <= 1 / 255


def test_pixels_are_the_mean_cosine_of_coarse_colours() -> None:
    cells = cells_of(UNLIKE)
    rows = []
    for cell in cells:
        coarse = np.array(
            [[cell[:, y : y + 4, x : x + 4].mean((1, 2)) for x in range(0, 24, 4)] for y in range(0, 24, 4)]
        )
        rows.append((coarse - coarse.mean() + 0.3 * (coarse.mean() - 0.5)).ravel())
    slow = np.mean([1 - cosine(rows[i], rows[j]) for i in range(9) for j in range(i)])
    assert WAYS["pixels"](cells) == pytest.approx(slow)


def slow_histogram(cell: Float64[np.ndarray, "3 side side"]) -> Float64[np.ndarray, " bins"]:
    """Tents around six levels of each colour, pixel by pixel, on blocks of 2 x 2."""
    counts = np.zeros((6, 6, 6))
    at = (np.arange(12) + 0.5) / 6 - 1
    for y in range(12):
        for x in range(12):
            colour = cell[:, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].mean((1, 2))
            tents = [np.maximum(0, 1 - np.abs(value * 5 - np.arange(6))) for value in colour]
            counts += np.exp(-(at[y] ** 2 + at[x] ** 2) / 0.98) * np.einsum("i,j,k", *tents)
    shares = counts.ravel() / counts.sum()
    return np.asarray(np.sqrt(shares))


def test_the_likeness_of_colour_histograms_is_that_of_slow_ones() -> None:
    cells = cells_of(UNLIKE)
    distances = pdist([slow_histogram(cell) for cell in cells])
    expected = np.exp(-(distances**2) / 0.98).mean()
    assert likeness(histogram(halved(cells)), 0.7) == pytest.approx(expected)


def test_replies_are_the_same_in_another_process() -> None:
    script = (
        "import sys, asyncio\nfrom judges.coherence import WAYS\nfrom judges.proxies import ProxyJudge\n"
        "a, b = sys.stdin.buffer.read().split(b'|||')\n"
        "print([asyncio.run(judge.compare(a, b))[0].text for judge in map(ProxyJudge, WAYS)])"
    )
    mine = [asyncio.run(judge.compare(ALIKE, UNLIKE))[0].text for judge in PANEL]
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run(
        [sys.executable, "-c", script], input=ALIKE + b"|||" + UNLIKE, capture_output=True, cwd=root, check=True
    )
    assert done.stdout.decode().strip() == repr(mine)


def test_judges_of_a_panel_read_a_grid_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[bytes] = []

    def noted(grid: bytes) -> dict[str, float]:
        read.append(grid)
        return coherences(grid)

    monkeypatch.setattr(proxies, "coherences", noted)
    monkeypatch.setattr(proxies, "_SEEN", {})
    for judge in (*PANEL, ProxyJudge("pixels")):
        asyncio.run(judge.compare(ALIKE, UNLIKE))
    assert read == [ALIKE, UNLIKE]


def test_scores_of_few_grids_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxies, "_SEEN", {})
    monkeypatch.setattr(proxies, "_MOST_SEEN", 2)
    judge = ProxyJudge("pixels")
    for grid in (ALIKE, UNLIKE, GREY, ALIKE):
        assert judge.score(grid) == round(coherences(grid)["pixels"], 6)
        assert len(proxies._SEEN) <= 2


@pytest.mark.parametrize("grid", [b"", b"no picture", ALIKE[:100], ALIKE[:-200]], ids=["empty", "text", "head", "cut"])
def test_what_is_no_picture_is_an_error(grid: bytes) -> None:
    with pytest.raises(JudgeError, match=rf"pixels: grid: got {len(grid)} bytes that are no picture .*; make it again"):
        asyncio.run(ProxyJudge("pixels").compare(UNLIKE, grid))


def test_any_picture_format_is_read() -> None:
    file = io.BytesIO()
    Image.open(io.BytesIO(UNLIKE)).save(file, "BMP")
    assert coherences(file.getvalue()) == coherences(UNLIKE)


def accuracies(name: str) -> Mapping[str, Mapping[str, float]]:
    """Accuracy on 20 pairs of each rung, by judge."""
    data = (Shapes(n_train=1, n_test=800) if name == "shapes" else Photos(n_train=16, n_test=1600)).load()
    assert data.test.labels is not None
    digest = partial(grid_digest, data.fingerprint, cell_px=CELL)
    options = Settings(planted=20, seed=3)
    drawn = planted(data.test.labels.numpy(), site="any", settings=options, stream={}, digest=digest)
    shown = [one for one in drawn.presentations if one.rung not in NULLS]
    pixels = data.test.images(slice(None)).numpy()
    used = {grid for one in shown for grid in one.grids}
    grids = {grid: grid_png(pixels[list(drawn.recipes[grid])], CELL) for grid in used}

    def right(judge: ProxyJudge, one: Presentation) -> bool:
        a, b = (judge.score(grids[grid]) for grid in one.grids)
        return a != b and (a > b) == (one.expected == "A")

    rungs = dict.fromkeys(one.rung for one in shown)
    return {
        judge.name: {rung: float(np.mean([right(judge, one) for one in shown if one.rung == rung])) for rung in rungs}
        for judge in PANEL
    }


@pytest.mark.parametrize(
    ("data", "least"),
    [("shapes", {"pixels": 0.9, "texture": 0.9, "filters": 0.9}), ("photos", {"texture": 0.8, "filters": 0.8})],
    ids=["shapes", "photos"],
)
def test_they_climb_the_purity_ladder(data: str, least: Mapping[str, float]) -> None:
    """Right on nearly all of the easiest rung, and above chance on all: three deviations of a coin tossed 80 times."""
    for judge, found in accuracies(data).items():
        assert found[EASIEST] >= least.get(judge, 0.6), (judge, found)
        assert found[ONE_BLANK] == 1
        assert np.mean([found[rung] for rung in LADDER]) > 0.5 + 3 * np.sqrt(0.25 / 80)
