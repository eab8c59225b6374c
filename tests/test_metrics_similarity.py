"""Similarity of dictionaries: hand-made cases, brute force over all matchings, and what zeros and sizes do."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from references import matched_cosine, number
from torch import Tensor

from metrics import matching as module
from metrics.similarity import Dictionary, similarity


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
    monkeypatch.setattr(module, "BLOCK_ROWS", 7)
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
