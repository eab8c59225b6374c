"""Planted pairs: purities as promised, both orders, nothing that gives them away, reasons where a rung is missing."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as laws
from hypothesis import strategies as st
from jaxtyping import Int

from judges.drawn import Drawn
from judges.grids import grid_digest
from judges.planted import BLANK, EASIEST, EQUAL, LADDER, NULLS, RUNGS, SAME, SHUFFLED, SIDES, planted
from judges.protocol import Presentation, Settings

DIGEST = partial(grid_digest, "data", cell_px=48)
LABELS = np.random.default_rng(0).integers(0, 48, 2000)
TEN = Settings(planted=10)


def made(
    labels: Int[np.ndarray, " images"] | None, settings: Settings = TEN, n_images: int = 0, site: str = "block 11"
) -> Drawn:
    stream: dict[str, str | int] = {"backbone": "vit"}
    return planted(labels, site=site, settings=settings, stream=stream, digest=DIGEST, n_images=n_images)


def by_rung(drawn: Drawn) -> Mapping[str, list[Presentation]]:
    rungs: dict[str, list[Presentation]] = {}
    for one in drawn.presentations:
        rungs.setdefault(one.rung, []).append(one)
    return rungs


def shown(drawn: Drawn, one: Presentation) -> list[tuple[int, ...]]:
    return [drawn.recipes[grid] for grid in one.grids]


def purity(images: tuple[int, ...], labels: Int[np.ndarray, " images"] = LABELS) -> int:
    return max(Counter(labels[list(images)].tolist()).values())


DRAWN, DRAWN_MANY = made(LABELS), made(LABELS, Settings(planted=100))


def test_every_rung_has_its_pairs_in_both_orders_and_one_grid_twice_is_shown_once() -> None:
    rungs = by_rung(DRAWN)
    assert tuple(rungs) == RUNGS
    assert len(RUNGS) == 8
    assert next(iter(LADDER)) == EASIEST
    for of_rung in (found for rung, found in rungs.items() if rung != SAME):
        assert len(of_rung) == 20
        assert len({one.comparison for one in of_rung}) == 10
        for first, second in zip(of_rung[::2], of_rung[1::2], strict=True):
            assert (first.order, second.order) == (0, 1)
            assert first.grids == second.grids[::-1]
    assert [one.order for one in rungs[SAME]] == [0] * 10
    shown_grids = [one.grids for one in DRAWN.presentations]
    assert len(set(shown_grids)) == len(shown_grids) == len({one.id for one in DRAWN.presentations}) == 150
    assert DRAWN.notes.planted == ()
    assert len(made(LABELS, Settings()).presentations) == 7 * 20 * 2 + 20


def test_the_purer_grid_is_the_right_answer_in_both_orders() -> None:
    for one in DRAWN.presentations:
        if one.rung not in LADDER:
            continue
        purities = [purity(images) for images in shown(DRAWN, one)]
        better, worse = LADDER[one.rung]
        a, b = purities if one.order == 0 else purities[::-1]
        assert a == better
        assert b == worse if worse else b <= 2
        assert one.expected == ("A" if purities[0] > purities[1] else "B")


def test_sides_are_called_what_they_are_in_the_order_of_the_draw() -> None:
    numbers = {"nine": 9, "six": 6, "three": 3}
    assert tuple(SIDES) == RUNGS
    for one in DRAWN.presentations:
        words = SIDES[one.rung] if one.order == 0 else SIDES[one.rung][::-1]
        for said, images in zip(words, shown(DRAWN, one), strict=True):
            if said.endswith("of one class"):
                assert purity(images) == numbers[said.split()[0]]
            assert (said == "blank") == (not images)
        if one.rung == EASIEST:
            assert words["AB".index(one.expected)] == "nine of one class"


def test_a_blank_grid_is_never_right() -> None:
    for one in by_rung(DRAWN)[BLANK]:
        a, b = shown(DRAWN, one)
        assert (a, b)["AB".index(one.expected)] != ()
        assert () in (a, b)
        assert purity(a or b) == 9


def test_null_pairs_have_equal_purities_and_no_answer() -> None:
    rungs = by_rung(DRAWN)
    for rung in NULLS:
        seen = set()
        for one in rungs[rung]:
            assert one.expected == "none"
            a, b = shown(DRAWN, one)
            if rung == SAME:
                assert one.grids[0] == one.grids[1]
            else:
                assert one.grids[0] != one.grids[1]
            if rung == SHUFFLED:
                assert sorted(a) == sorted(b)
            if rung == EQUAL:
                assert max(purity(a), 2) == max(purity(b), 2)
            seen.add(purity(a))
        assert {9, 6, 3} < seen


@given(st.integers(2, 40), st.integers(9, 300), st.integers(0, 2**20))
@laws(max_examples=20, deadline=None)
def test_grids_hold_nine_distinct_images_and_two_at_most_of_any_other_class(
    n_classes: int, n_images: int, seed: int
) -> None:
    labels = np.random.default_rng(seed).integers(0, n_classes, n_images)
    drawn = made(labels, Settings(planted=3, seed=seed))
    for images in drawn.recipes.values():
        assert len(images) == len(set(images)) in (0, 9)
        assert all(0 <= image < n_images for image in images)
        if images:
            counts = sorted(Counter(labels[list(images)].tolist()).values(), reverse=True)
            assert counts[0] in (9, 6, 3, 2, 1)
            assert all(count <= 2 for count in counts[1:])
    rungs = by_rung(drawn)
    assert len(drawn.notes.planted) == len(RUNGS) - len(rungs)
    assert {grid for one in drawn.presentations for grid in one.grids} == set(drawn.recipes)


def test_nothing_in_their_ids_gives_them_away() -> None:
    for one in DRAWN.presentations:
        assert (one.methods, one.units, one.token_seed) == (("", ""), (-1, -1), -1)
        for text in (one.id, one.comparison, *one.grids):
            assert len(text) == 32
            assert set(text) <= set("0123456789abcdef")
    for grid, images in DRAWN.recipes.items():
        assert grid == DIGEST(images)


def test_the_class_s_images_may_stand_in_any_cell() -> None:
    counts = np.zeros(9)
    for one in by_rung(DRAWN_MANY)["6 against 3"][::2]:
        labels = LABELS[list(shown(DRAWN_MANY, one)[0])]
        counts += labels == np.bincount(labels).argmax()
    # Binomial: 100 grids, two thirds of the cells each; mean 66.7, deviation 4.7; five of them.
    assert abs(counts - 100 * 6 / 9).max() < 5 * np.sqrt(100 * 2 / 9)


def test_more_pairs_and_other_sites_leave_the_first_as_they_are() -> None:
    few, many = by_rung(DRAWN), by_rung(DRAWN_MANY)
    assert all(many[rung][: len(few[rung])] == few[rung] for rung in RUNGS)
    assert not set(made(LABELS, site="another").recipes) & set(DRAWN.recipes) - {DIGEST(())}
    assert not set(made(LABELS, replace(TEN, seed=1)).recipes) & set(DRAWN.recipes) - {DIGEST(())}
    assert made(LABELS) == DRAWN


def test_zero_plants_none() -> None:
    assert made(LABELS, Settings(planted=0)) == Drawn()


def test_without_labels_only_null_pairs_are_left() -> None:
    drawn = made(None, n_images=100)
    assert tuple(by_rung(drawn)) == NULLS
    assert all(len(set(images)) == 9 for images in drawn.recipes.values())
    assert drawn.notes.planted == tuple(
        f"block 11: no planted pairs {rung!r}: the images have no labels" for rung in RUNGS if rung not in NULLS
    )


@pytest.mark.parametrize(("labels", "n_images"), [(None, 8), (np.arange(8), 0), (np.zeros(0, np.int64), 0)])
def test_too_few_images_plant_nothing(labels: Int[np.ndarray, " images"] | None, n_images: int) -> None:
    drawn = made(labels, n_images=n_images)
    assert drawn.presentations == ()
    assert drawn.recipes == {}
    n = n_images if labels is None else len(labels)
    assert drawn.notes.planted == tuple(
        f"block 11: no planted pairs {rung!r}: {n} images, fewer than 9" for rung in RUNGS
    )


def test_small_classes_leave_the_rungs_that_can_be_made() -> None:
    """Twenty classes of seven images: none has nine."""
    drawn = made(np.repeat(np.arange(20), 7))
    assert tuple(by_rung(drawn)) == ("6 against 3", *NULLS)
    assert drawn.notes.planted[0] == (
        f"block 11: no planted pairs {EASIEST!r}: 20 classes of up to 7 images are too few for 9 images of one class "
        f"and 2 at most of any other"
    )


def test_few_classes_leave_the_rungs_that_can_be_made() -> None:
    """Three classes: no grid has six images of others, and none is random without three of one class."""
    drawn = made(np.repeat(np.arange(3), 50))
    assert tuple(by_rung(drawn)) == ("9 against 6", BLANK, *NULLS)
    assert {purity(images, np.repeat(np.arange(3), 50)) for images in drawn.recipes.values() if images} == {9, 6}
