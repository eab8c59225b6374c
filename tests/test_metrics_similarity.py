"""Similarity of dictionaries: hand-made cases, brute force over all matchings, and what zeros and sizes do."""

import statistics
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from references import interval, matched_cosine, number
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from metrics import matching
from metrics.similarity import UNTRAINED, Dictionary, Stability, similarity


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def alike(a: Tensor, b: Tensor, parents_a: list[int] | None = None, parents_b: list[int] | None = None) -> float:
    parents = [None if one is None else torch.tensor(one) for one in (parents_a, parents_b)]
    return number(similarity(Dictionary(a, parents[0]), Dictionary(b, parents[1])))


def test_by_hand() -> None:
    a = torch.tensor([[2.0, 0.0], [0.0, 3.0]])
    assert alike(a, a) == 1.0
    assert alike(a, a.flip(0)) == 1.0
    assert alike(a, -a) == 0.0  # each axis is matched with the other's opposite, which is orthogonal to it
    assert alike(a[:1], -a[:1]) == -1.0
    assert alike(a, torch.tensor([[1.0, 1.0], [-1.0, 1.0]])) == pytest.approx(np.sqrt(0.5))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5), st.integers(1, 5), st.integers(1, 4), st.integers(0, 10_000))
def test_equals_the_best_of_all_matchings(n_a: int, n_b: int, width: int, seed: int) -> None:
    a, b = drawn(n_a, width, seed=seed), drawn(n_b, width, seed=seed + 1)
    a[drawn(n_a, seed=seed + 2) > 1.2] = 0
    expected = matched_cosine(a.double().numpy(), b.double().numpy())
    value = similarity(Dictionary(a), Dictionary(b))
    if value.value is None:
        assert not a.any()
    else:
        assert value.value == pytest.approx(expected, abs=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_unit_by_unit_equals_the_mean_of_all_units_matched_alone(seed: int) -> None:
    a, b = drawn(7, 3, seed=seed), drawn(8, 3, seed=seed + 1)
    parents_a, parents_b = [0, 0, 0, 1, 1, 2, 4], [4, 0, 1, 1, 1, 2, 2, 0]
    expected = [
        matched_cosine(
            a[[i for i, parent in enumerate(parents_a) if parent == unit]].double().numpy(),
            b[[i for i, parent in enumerate(parents_b) if parent == unit]].double().numpy(),
        )
        for unit in (0, 1, 2, 4)
    ]
    assert alike(a, b, parents_a, parents_b) == pytest.approx(np.mean(expected), abs=1e-6)


def test_neither_order_nor_length_of_rows_matters() -> None:
    a, b = drawn(50, 8), drawn(60, 8, seed=1)
    before = alike(a, b)
    lengths = drawn(60, 1, seed=2).abs() + 0.01
    order = torch.randperm(60, generator=torch.Generator().manual_seed(3))
    assert alike(a, (b * lengths)[order]) == pytest.approx(before, abs=1e-9)
    assert alike(b, a) == pytest.approx(before, abs=1e-9)
    assert alike(a * 1e-30, b * 1e30) == pytest.approx(before, abs=1e-6)


def test_the_short_cut_gives_what_matching_gives() -> None:
    a = drawn(40, 6)
    assert alike(a, a) == 1.0
    assert alike(a, a[torch.arange(40).flip(0)]) == pytest.approx(1.0, abs=1e-12)


def test_blocks_of_rows_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = drawn(50, 8), drawn(40, 8, seed=1)
    before = alike(a, b)
    monkeypatch.setattr(matching, "BLOCK_ROWS", 7)
    assert alike(a, b) == pytest.approx(before, abs=1e-9)


def test_other_sizes_cost_the_share_that_is_left_over() -> None:
    a = drawn(6, 12)
    assert alike(a, a[:3]) == pytest.approx(1 - 3 / 6, abs=1e-12)
    assert alike(a, a[:3], [0] * 6, [0] * 3) == pytest.approx(0.5, abs=1e-12)
    # Unit 0 is the same; unit 1 is split in one run and whole in the other.
    assert alike(a[:3], a[:2], [0, 1, 1], [0, 1]) == pytest.approx((1 + 0.5) / 2, abs=1e-12)


def test_a_unit_that_only_one_run_has_counts_minus_one() -> None:
    a = drawn(3, 5)
    value = similarity(Dictionary(a, torch.tensor([0, 1, 1])), Dictionary(a[:1], torch.tensor([0])))
    assert (number(value), value.n, value.n_excluded) == (0.0, 2, 0)


def test_rows_of_zeros_are_left_out_and_counted() -> None:
    a, b = drawn(5, 4), drawn(5, 4)
    a[1] = 0
    b[[1, 3]] = 0
    value = similarity(Dictionary(a), Dictionary(b))
    assert (value.n, value.n_excluded, value.reason) == (3, 3, "3 rows of zeros left out")
    assert number(value) == pytest.approx(1 - 1 / 4, abs=1e-12)
    parents = torch.tensor([0, 1, 2, 2, 3])
    by_unit = similarity(Dictionary(a, parents), Dictionary(b, parents))
    assert (by_unit.n, by_unit.n_excluded, by_unit.reason) == (3, 1, "3 rows of zeros left out")
    assert number(by_unit) == pytest.approx((1 + (1 - 1 / 2) + 1) / 3, abs=1e-12)


def test_nothing_to_match_is_null_with_a_reason() -> None:
    zeros, parents = torch.zeros(2, 3), torch.tensor([0, 1])
    assert similarity(Dictionary(zeros), Dictionary(zeros)).reason == "no atoms to match; 4 rows of zeros left out"
    assert similarity(Dictionary(zeros[:0]), Dictionary(drawn(2, 3))).reason == (
        "no atoms to match; a dictionary is empty"
    )
    value = similarity(Dictionary(zeros, parents), Dictionary(zeros, parents))
    assert (value.value, value.n_excluded, value.reason) == (None, 2, "no unit with an atom that is alive")
    broken = drawn(2, 3)
    broken[0, 0] = torch.nan
    assert similarity(Dictionary(broken), Dictionary(broken)).reason == "a dictionary has values that are not finite"


def test_other_widths_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"other: got rows of width 4; expected 3; compare two decompositions of one"):
        similarity(Dictionary(drawn(2, 3)), Dictionary(drawn(2, 4)))


# The proven matching of large sets

UNIT = {
    "random": lambda: (drawn(200, 16), drawn(333, 16, seed=1)),
    "square": lambda: (drawn(300, 8), drawn(300, 8, seed=1)),
    "noisy copies": lambda: (drawn(300, 32), drawn(300, 32).flip(0) + 0.7 * drawn(300, 32, seed=1)),
    "crowded": lambda: (drawn(150, 2), drawn(150, 2, seed=1).abs()),
    "duplicates": lambda: (drawn(5, 16)[torch.arange(300) % 5], drawn(320, 16, seed=1)),
    "axes": lambda: (torch.eye(8)[torch.arange(200) % 3], torch.eye(8)[torch.arange(210) % 8]),
}


def directions(name: str) -> tuple[Tensor, Tensor]:
    a, b = UNIT[name]()
    return a / a.norm(dim=1, keepdim=True), b / b.norm(dim=1, keepdim=True)


@pytest.mark.parametrize("name", UNIT)
@pytest.mark.parametrize("turned", [False, True])
def test_the_proven_matching_is_the_dense_solvers(name: str, turned: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = reversed(directions(name)) if turned else directions(name)
    monkeypatch.setattr(matching, "LARGE", 1)
    monkeypatch.setattr(matching, "BLOCK_ROWS", 64)
    rows, columns = matching.best_matching(a, b)
    exact = (a.double() @ b.double().T).numpy()
    best = exact[linear_sum_assignment(exact, maximize=True)].mean()
    assert exact[rows, columns].mean() == pytest.approx(best, abs=1e-7)
    assert len(rows) == len(set(rows)) == len(set(columns)) == min(len(a), len(b))
    assert (np.diff(rows) > 0).all()


def test_one_round_of_few_pairs_proves_nothing_and_the_dense_solver_has_the_last_word(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    a, b = directions("crowded")
    before = matching.best_matching(a, b)
    for name, value in (("LARGE", 1), ("CANDIDATES", 1), ("ROUNDS", 1)):
        monkeypatch.setattr(matching, name, value)
    assert matching.proven(a, b) is None
    for one, other in zip(matching.best_matching(a, b), before, strict=True):
        assert np.array_equal(one, other)


def test_prices_prove_the_matching() -> None:
    a, b = directions("random")
    pairs = matching.Pairs.of(torch.arange(len(a) * len(b)), a, b)
    exact = 2 - (a.double() @ b.double().T).numpy()
    rows, columns = linear_sum_assignment(exact)
    of_row, of_column = matching.prices(pairs, columns.astype(np.int64), len(b))
    assert (exact - of_row[:, None] - of_column >= -1e-9).all()
    assert np.allclose(exact[rows, columns], of_row[rows] + of_column[columns])
    assert (np.delete(of_column, columns) == 0).all()
    assert (of_column <= 0).all()
    assert float(exact[rows, columns].sum()) == pytest.approx(float(of_row.sum() + of_column.sum()))


# Stability over several runs


def runs(*dictionaries: Dictionary, kind: str = "output") -> list[dict[str, Dictionary]]:
    return [{kind: one} for one in dictionaries]


def test_stability_is_the_mean_over_pairs_and_tells_their_spread() -> None:
    three = [Dictionary(drawn(6, 4, seed=seed)) for seed in range(3)]
    pairs = [number(similarity(one, other)) for one, other in combinations(three, 2)]
    stability = Stability(runs(*three), None)
    value = stability.compute()["stability"]
    low, high = interval(value)
    assert number(value) == pytest.approx(np.mean(pairs), abs=1e-12)
    assert low < number(value) < high
    assert value.interval == "bootstrap over matched atoms, pooled over 3 pairs of runs"
    assert (value.n, value.n_excluded) == (18, 0)
    notes = stability.notes()
    assert notes["stability_std"] == pytest.approx(statistics.stdev(pairs))
    assert [notes[f"stability_pair_{index}"] for index in (1, 2, 3)] == pytest.approx(pairs)


def test_pairs_of_other_sizes_count_alike() -> None:
    three = [Dictionary(drawn(n, 4, seed=n)) for n in (3, 9, 6)]
    three[2].rows[0] = 0
    pairs = [number(similarity(one, other)) for one, other in combinations(three, 2)]
    value = Stability(runs(*three), None).compute()["stability"]
    assert number(value) == pytest.approx(np.mean(pairs), abs=1e-12)
    assert (value.n, value.n_excluded, value.reason) == (3 + 3 + 5, 1, "1 rows of zeros left out")


def test_stability_by_unit_is_over_units() -> None:
    parents = torch.tensor([0, 0, 1, 2])
    three = [Dictionary(drawn(4, 4, seed=seed), parents) for seed in range(3)]
    for one in three:
        one.rows[3] = 0
    three[0].rows[2] = 0
    pairs = [number(similarity(one, other)) for one, other in combinations(three, 2)]
    value = Stability(runs(*three, kind="input"), None).compute()["stability_input"]
    assert number(value) == pytest.approx(np.mean(pairs), abs=1e-12)
    assert value.interval == "bootstrap over units, pooled over 3 pairs of runs"
    assert (value.n, value.n_excluded, value.reason) == (6, 3, "4 rows of zeros left out")


def test_the_same_dictionary_in_any_order_is_stable() -> None:
    rows = drawn(20, 5)
    three = [Dictionary(rows[drawn(20, seed=seed).argsort()]) for seed in range(3)]
    value = Stability(runs(*three), runs(*three)).compute()
    assert number(value["stability"]) == pytest.approx(1, abs=1e-12)
    assert interval(value["stability"]) == pytest.approx((1, 1), abs=1e-12)
    assert number(value["stability_gain"]) == pytest.approx(0, abs=1e-12)


def test_gain_is_what_training_adds_atom_by_atom() -> None:
    found, starts = ([Dictionary(drawn(12, 5, seed=seed + more)) for seed in range(3)] for more in (0, 10))
    values = Stability(runs(*found), runs(*starts)).compute()
    gain = values["stability_gain"]
    assert number(gain) == pytest.approx(number(values["stability"]) - number(values["stability_start"]), abs=1e-12)
    assert (gain.n, gain.interval) == (36, values["stability"].interval)
    low, high = interval(gain)
    assert low < number(gain) < high
    found[0].rows[0] = 0
    without = Stability(runs(*found), runs(*starts)).compute()["stability_gain"]
    assert without.low is None
    assert without.reason == "other atoms before than after: rows of zeros left out"
    assert without.value is not None


def test_what_cannot_be_compared_is_null_with_a_reason() -> None:
    one, other = Dictionary(drawn(3, 2)), Dictionary(drawn(3, 2, seed=1))
    values = Stability(runs(one, other), None).compute()
    assert values["stability_input"].reason == "the method gives no dictionary in the space of the site's inputs"
    assert values["stability_start"].reason == values["stability_gain"].reason == UNTRAINED
    alone = Stability(runs(one), None).compute()["stability"]
    assert alone.reason == "got 1 run; similarity is between runs of two init seeds at least"
    dead = Stability(runs(one, Dictionary(torch.zeros(4, 2))), None).compute()["stability"]
    assert (dead.reason, dead.n_excluded) == ("no atoms to match; 4 rows of zeros left out", 4)
    other.rows[0, 0] = torch.inf
    broken = Stability(runs(one, other), None).compute()["stability"]
    assert broken.reason == "a dictionary has values that are not finite"
    with pytest.raises(ValueError, match="got rows of width 4; expected 2"):
        Stability(runs(one, Dictionary(drawn(2, 4))), None)
