"""Pairing: every pair of methods is drawn by itself, and the counts of the paper come out."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from math import comb
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as laws
from hypothesis import strategies as st

from judges.drawn import Drawn, Notes, merged
from judges.grids import grid_digest
from judges.pairing import MAX_REDRAWS, Contestant, draw, tournament
from judges.protocol import PAPER, Settings

STREAM: dict[str, str | int] = {"seed": 0, "backbone": "vit", "site": "block 11", "expansion": 8, "token_seed": 1}
DIGEST = partial(grid_digest, "data", cell_px=48)


def contestant(
    name: str, units: int = 80, n_images: int = 500, eligible: int | None = None, seed: int = 0
) -> Contestant:
    rng = np.random.default_rng([seed, *name.encode()])
    exemplars = np.argsort(rng.random((units, n_images)), axis=1)[:, :9]
    return Contestant(name, f"method {name}", exemplars, np.arange(units) < (units if eligible is None else eligible))


def played(
    pool: Sequence[Contestant], token_seed: int = 0, settings: Settings = PAPER, site: str = "block 11"
) -> Drawn:
    return tournament(
        pool, site=site, stream={"backbone": "vit"}, token_seed=token_seed, settings=settings, digest=DIGEST
    )


POOL = [contestant(name) for name in "abcdef"]
SMALL = replace(PAPER, unit_pairs=7)


@pytest.mark.parametrize(("n_methods", "expected"), [(10, 13_500), (6, 4_500)])
def test_the_paper_s_counts(n_methods: int, expected: int) -> None:
    pool = [contestant(f"m{i}", 60) for i in range(n_methods)]
    drawn = merged(played(pool, seed) for seed in range(3))
    assert len(drawn.presentations) == expected == comb(n_methods, 2) * 50 * 2 * 3
    assert len({one.id for one in drawn.presentations}) == expected
    assert Counter(Counter(one.comparison for one in drawn.presentations).values()) == {2: expected // 2}
    assert {one.grids[0] for one in drawn.presentations} == set(drawn.recipes)
    assert {note.drawn for note in drawn.notes.pairs} == {50}
    assert len(drawn.notes.pairs) == 3 * comb(n_methods, 2)
    each = Counter(method for one in drawn.presentations for method in one.methods)
    assert set(each.values()) == {(n_methods - 1) * 50 * 2 * 3}


def test_a_presentation_shows_the_grids_of_its_units() -> None:
    by_id = {each.id: each for each in POOL}
    drawn = played(POOL, settings=SMALL)
    for one in drawn.presentations:
        for method, unit, grid in zip(one.methods, one.units, one.grids, strict=True):
            assert drawn.recipes[grid] == tuple(by_id[method].exemplars[unit].tolist())
            assert grid == DIGEST(drawn.recipes[grid])
        assert (one.site, one.token_seed, one.rung, one.expected) == ("block 11", 0, "", "none")


def test_the_second_order_is_the_first_one_swapped() -> None:
    presentations = played(POOL, settings=SMALL).presentations
    for first, second in zip(presentations[::2], presentations[1::2], strict=True):
        assert (first.order, second.order) == (0, 1)
        assert first.comparison == second.comparison
        assert first.id != second.id
        back = replace(second, methods=second.methods[::-1], units=second.units[::-1], grids=second.grids[::-1])
        assert replace(back, id=first.id, order=0) == first


def test_adding_a_method_leaves_all_other_presentations_as_they_are() -> None:
    before = played(POOL[:4], settings=SMALL)
    after = played([POOL[5], *POOL[:4], POOL[4]], settings=SMALL)
    mine = {each.id for each in POOL[:4]}
    assert tuple(one for one in after.presentations if set(one.methods) <= mine) == before.presentations
    assert tuple(note for note in after.notes.pairs if set(note.methods) <= mine) == before.notes.pairs
    assert before.recipes.items() <= after.recipes.items()
    assert len(after.presentations) - len(before.presentations) == (comb(6, 2) - comb(4, 2)) * 7 * 2


@given(st.permutations(POOL))
@laws(max_examples=6, deadline=None)
def test_the_order_of_contestants_does_not_matter(pool: list[Contestant]) -> None:
    assert played(pool, settings=SMALL) == played(POOL, settings=SMALL)


def test_labels_name_nothing() -> None:
    renamed = [replace(each, label="another") for each in POOL]
    assert played(renamed, settings=SMALL).presentations == played(POOL, settings=SMALL).presentations


@given(st.integers(0, 40), st.integers(0, 40), st.integers(1, 30), st.integers(0, 2**31))
@laws(max_examples=60, deadline=None)
def test_a_draw_is_of_distinct_eligible_units_whoever_comes_first(n_a: int, n_b: int, n_pairs: int, seed: int) -> None:
    a, b = contestant("a", 40, eligible=n_a), contestant("b", 40, eligible=n_b)
    drawn = draw(a, b, stream={"seed": seed}, n_pairs=n_pairs)
    assert drawn == draw(b, a, stream={"seed": seed}, n_pairs=n_pairs)
    assert len(drawn.units) == min(n_a, n_b, n_pairs)
    for side, n in ((0, n_a), (1, n_b)):
        units = [pair[side] for pair in drawn.units]
        assert len(set(units)) == len(units)
        assert all(0 <= unit < n for unit in units)
    short = [f"method {name}: {n} eligible units" for name, n in (("a", n_a), ("b", n_b)) if n < n_pairs]
    assert drawn.reason == "; ".join(short)


@pytest.mark.parametrize("key", [*STREAM, "a", "b"])
def test_all_that_keys_a_draw_changes_it(key: str) -> None:
    a, b = contestant("a"), contestant("b")
    base = draw(a, b, stream=STREAM, n_pairs=50)
    if key in STREAM:
        other = draw(a, b, stream={**STREAM, key: "other"}, n_pairs=50)
    else:
        a, b = (replace(each, id="c") if each.id == key else each for each in (a, b))
        other = draw(a, b, stream=STREAM, n_pairs=50)
    assert other.units != base.units
    assert draw(a, b, stream=dict(reversed(STREAM.items())), n_pairs=50) == (base if key in STREAM else other)


def test_units_are_drawn_evenly_and_apart() -> None:
    a, b = contestant("a", 20), contestant("b", 20)
    n = 1000
    pairs = [pair for seed in range(n) for pair in draw(a, b, stream={"seed": seed}, n_pairs=5).units]
    for side in (0, 1):
        counts = np.bincount([pair[side] for pair in pairs], minlength=20)
        # Each count is hypergeometric over seeds: mean 250, deviation 14; five of them.
        assert abs(counts - n * 5 / 20).max() < 5 * np.sqrt(n * 0.25 * 0.75)
    joint = np.bincount([20 * u + v for u, v in pairs], minlength=400)
    assert abs(joint - n * 5 / 400).max() < 5 * np.sqrt(n * 5 / 400)


def test_equal_grids_are_drawn_again() -> None:
    a = contestant("a", 60)
    half = a.exemplars.copy()
    half[30:] = half[30:, ::-1]
    b = Contestant("b", "b", half, a.eligible)
    n_equal = 0
    for seed in range(200):
        drawn = draw(a, b, stream={"seed": seed}, n_pairs=20)
        assert drawn.null == 0
        assert len(set(drawn.units)) == len({u for u, _ in drawn.units}) == len({v for _, v in drawn.units}) == 20
        n_equal += sum(u == v and u < 30 for u, v in drawn.units)
    assert n_equal == 0


def test_what_stays_equal_is_kept_and_counted() -> None:
    row = np.arange(9)
    a, b = (Contestant(name, name, np.tile(row, (60, 1)), np.ones(60, bool)) for name in "ab")
    drawn = draw(a, b, stream=STREAM, n_pairs=25)
    assert drawn.null == len(drawn.units) == 25
    assert played([a, b], settings=replace(PAPER, unit_pairs=25)).notes.pairs[0].null == 25
    # All are equal and in use, so these units come in the order of the queue.
    queue = [u for u, _ in draw(a, b, stream=STREAM, n_pairs=60).units]
    for position in (MAX_REDRAWS, MAX_REDRAWS + 1):
        other = a.exemplars.copy()
        other[queue[position]] = row[::-1]
        assert draw(replace(a, exemplars=other), b, stream=STREAM, n_pairs=1).null == (position > MAX_REDRAWS)


def test_one_side_without_spare_units_is_paired_with_the_other_s() -> None:
    a = contestant("a", 3)
    b = contestant("b", 30)
    same = b.exemplars.copy()
    first = draw(a, b, stream=STREAM, n_pairs=3).units
    for u, v in first:
        same[v] = a.exemplars[u]
    drawn = draw(a, replace(b, exemplars=same), stream=STREAM, n_pairs=3)
    assert drawn.null == 0
    assert [u for u, _ in drawn.units] == [u for u, _ in first]
    assert not {v for _, v in drawn.units} & {v for _, v in first}


def test_few_eligible_units_are_said() -> None:
    pool = [contestant("a"), contestant("b", 80, eligible=12), contestant("c", 40, eligible=0)]
    drawn = played(pool)
    notes = {note.methods: note for note in drawn.notes.pairs}
    assert {methods: note.drawn for methods, note in notes.items()} == {("a", "b"): 12, ("a", "c"): 0, ("b", "c"): 0}
    assert notes["a", "b"].reason == "method b: 12 eligible units"
    assert notes["b", "c"].reason == "method b: 12 eligible units; method c: 0 eligible units"
    assert {note.asked for note in notes.values()} == {50}
    assert [note.ineligible_share for note in drawn.notes.methods] == [0, 68 / 80, 1]
    everyone = played(pool, settings=replace(PAPER, eligible="any"))
    assert [note.drawn for note in everyone.notes.pairs] == [50, 40, 40]
    assert everyone.notes.methods == drawn.notes.methods


def test_whether_any_unit_may_be_drawn_says_nothing_where_all_are_eligible() -> None:
    assert played(POOL, settings=replace(SMALL, eligible="any")) == played(POOL, settings=SMALL)


def broken(each: Contestant, **values: Any) -> Contestant:
    """With values that the annotations refuse, as they come from elsewhere."""
    copy = replace(each)
    for name, value in values.items():
        object.__setattr__(copy, name, value)
    return copy


def test_all_that_is_wrong_is_said_at_once() -> None:
    a = POOL[0]
    nan = a.exemplars.astype(np.float32)
    nan[0, 0] = np.nan
    missing = a.exemplars.copy()
    missing[[3, 5], 8] = -1
    twice = a.exemplars.copy()
    twice[7, 1] = twice[7, 0]
    pool = [
        a,
        replace(a, label="again"),
        broken(a, id="2", label="eight", exemplars=a.exemplars[:, :8]),
        broken(a, id="3", label="nan", exemplars=nan),
        replace(a, id="4", label="missing", exemplars=missing),
        replace(a, id="5", label="twice", exemplars=twice),
        broken(a, id="6", label="mask", eligible=a.eligible[:-1]),
        replace(a, id="7", label="empty", exemplars=a.exemplars[:0], eligible=a.eligible[:0]),
    ]
    with pytest.raises(ValueError, match="contestants: ") as caught:
        played(pool)
    lines = str(caught.value).splitlines()
    assert lines == [
        "exemplars of 'eight': got shape (80, 8); expected (units, 9); give nine images a unit",
        "exemplars of 'nan': got float32 with NaN; expected integers; give the indices of the images",
        "exemplars of 'missing': got 2 units with an image that is missing or there twice; expected 9 images each; "
        "mark these units as not eligible",
        "exemplars of 'twice': got 1 units with an image that is missing or there twice; expected 9 images each; "
        "mark these units as not eligible",
        "exemplars of 'mask': got bool (79,) that says who is eligible; expected bool (80,); give one value a unit",
        "exemplars of 'empty': got no unit; expected one or more; leave the method out",
        "contestants: got id 'a' of method a, again; expected an id each; leave out all but one",
    ]


def test_units_that_are_not_drawn_may_lack_images() -> None:
    exemplars = POOL[0].exemplars.copy()
    exemplars[40:] = -1
    few = Contestant("few", "few", exemplars, np.arange(80) < 40)
    assert played([few, POOL[1]]).notes.pairs[0].drawn == 40
    with pytest.raises(ValueError, match="exemplars of 'few': got 40 units"):
        played([few, POOL[1]], settings=replace(PAPER, eligible="any"))


@pytest.mark.parametrize("n", [0, 1])
def test_a_tournament_needs_two(n: int) -> None:
    with pytest.raises(ValueError, match=f"contestants: got {n}; expected two or more; add methods"):
        played(POOL[:n])


def test_ids_tell_sites_and_seeds_apart() -> None:
    parts = [played(POOL[:3], seed, SMALL, site) for seed in range(2) for site in ("one", "two")]
    together = merged(parts)
    assert len(together.presentations) == sum(len(part.presentations) for part in parts)
    assert together.presentations[: len(parts[0].presentations)] == parts[0].presentations
    assert len(together.notes.pairs) == 4 * 3
    assert merged([]) == Drawn((), {}, Notes())
    with pytest.raises(ValueError, match="of site 'one', token seed 0, twice; expected each once"):
        merged([parts[0], parts[0]])


def test_ids_follow_from_content() -> None:
    """Stored replies are found by these; a change of either is a break with everything judged so far."""
    a, b = (Contestant(name, name, np.arange(90).reshape(10, 9), np.ones(10, bool)) for name in "ab")
    drawn = played([a, b], settings=replace(PAPER, unit_pairs=2))
    assert [(one.units, one.id[:8], one.comparison[:8]) for one in drawn.presentations] == PINNED
    assert {len(text) for one in drawn.presentations for text in (one.id, one.comparison, *one.grids)} == {32}


PINNED = [
    ((9, 8), "51ae10a1", "2d4f643b"),
    ((8, 9), "add1a2f9", "2d4f643b"),
    ((4, 9), "a3aaa516", "b138ce89"),
    ((9, 4), "ba6a7cb2", "b138ce89"),
]
