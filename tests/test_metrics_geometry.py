"""Effective rank and coherence: scipy, overcomplete and plain loops, and the laws that hold for any dictionary."""

from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from references import evaluation, number
from scipy.linalg import svdvals
from scipy.stats import entropy, ortho_group
from torch import Tensor

from methods.sae import overcomplete_sae
from metrics import geometry
from metrics.catalogue import Value
from metrics.geometry import NAMES, Geometry

EXACT = 1e-6


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def described(rows: Tensor, kind: str = "output") -> dict[str, Value]:
    """The values of one dictionary, under their plain names."""
    suffix = "" if kind == "output" else "_input"
    values = Geometry(evaluation(n_images=1, dictionaries={kind: rows})).compute()
    return {name: values[f"{name}{suffix}"] for name in NAMES}


def numbers(rows: Tensor) -> dict[str, float]:
    return {name: number(value) for name, value in described(rows).items()}


def by_hand(rows: Tensor) -> dict[str, float]:
    """Every value read off its definition: scipy's singular values and entropy, and a loop over pairs."""
    alive = [row for row in rows.double().numpy() if np.any(row != 0)]
    unit = [row / np.sqrt(np.sum(row**2)) for row in alive]
    cosines = [abs(float(np.sum(one * other))) for one, other in combinations(unit, 2)]
    n, width = len(alive), len(alive[0])
    return {
        "effective_rank": float(np.exp(entropy(svdvals(np.array(alive))))),
        "effective_rank_unit_rows": float(np.exp(entropy(svdvals(np.array(unit))))),
        "coherence_max": max(cosines),
        "coherence_mean": sum(cosines) / len(cosines),
        "coherence_p95": float(np.quantile(cosines, 0.95)),
        "welch_bound": float(np.sqrt(max(n - width, 0) / (width * (n - 1)))),
    }


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 30), st.integers(1, 12), st.integers(0, 10_000))
def test_equals_scipy_and_loops_over_pairs(n_atoms: int, width: int, seed: int) -> None:
    rows = drawn(n_atoms, width, seed=seed) * (drawn(n_atoms, 1, seed=seed + 1) * 2).exp()
    got = numbers(rows)
    for name, expected in by_hand(rows).items():
        assert got[name] == pytest.approx(expected, abs=EXACT, rel=EXACT)


@pytest.mark.parametrize("n_atoms", [2, 3, 256, 257, 600])
def test_blocks_of_rows_do_not_matter(n_atoms: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = drawn(n_atoms, 9)
    before = numbers(rows)
    assert before == pytest.approx({**before, **by_hand(rows)}, abs=EXACT)
    for size in (1, 7, 1000):
        monkeypatch.setattr(geometry, "BLOCK_ROWS", size)
        assert numbers(rows) == pytest.approx(before, abs=1e-9 if size == 1000 else EXACT)


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e-6])
def test_the_papers_number_is_overcompletes(scale: float) -> None:
    overcomplete_sae()  # which can only be imported once a name is put back
    from overcomplete.metrics import dictionary_collinearity

    rows = drawn(40, 8) * scale * (2 * drawn(40, 1, seed=1)).exp()
    rows[3] = 0
    largest, _ = dictionary_collinearity(rows.double())
    assert numbers(rows)["coherence_paper"] == pytest.approx(100 * largest, abs=1e-4 * EXACT + 1e-9)


@pytest.mark.parametrize("quantile", [0.0, 0.5, 0.95, 1.0])
@pytest.mark.parametrize("rows", [drawn(120, 4), torch.eye(30), torch.eye(3)[torch.arange(50) % 3]], ids=len)
def test_quantiles_are_exact_where_many_cosines_are_equal(
    rows: Tensor, quantile: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(geometry, "QUANTILE", quantile)
    unit = torch.nn.functional.normalize(rows.double(), dim=1)
    cosines = (unit @ unit.T).abs()[tuple(torch.triu_indices(len(rows), len(rows), 1))]
    assert numbers(rows)["coherence_p95"] == pytest.approx(np.quantile(cosines.numpy(), quantile), abs=EXACT)


def test_duplicates_and_opposites_have_coherence_one() -> None:
    rows = drawn(50, 20)
    assert numbers(rows)["coherence_max"] < 1
    for twin in (3 * rows[7], -rows[7], rows[7] * 1e-20):
        both = torch.cat([rows, twin[None]])
        assert numbers(both)["coherence_max"] == pytest.approx(1, abs=1e-9)
    alike = numbers(rows[:1].expand(5, -1))
    assert [alike[f"coherence_{name}"] for name in ("max", "mean", "p95")] == pytest.approx([1, 1, 1], abs=EXACT)
    assert alike["effective_rank"] == pytest.approx(1, abs=EXACT)


@pytest.mark.parametrize("rank", [2, 5, 9])
def test_an_orthonormal_dictionary_has_its_number_as_rank_and_no_coherence(rank: int) -> None:
    rows = torch.from_numpy(ortho_group.rvs(9, random_state=1)[:rank])
    got = numbers(rows)
    assert got["effective_rank"] == pytest.approx(rank, abs=EXACT)
    assert got["effective_rank_unit_rows"] == pytest.approx(rank, abs=EXACT)
    assert [got[f"coherence_{name}"] for name in ("max", "mean", "p95")] == pytest.approx([0, 0, 0], abs=EXACT)
    assert got["welch_bound"] == 0


def test_neither_scale_nor_order_matters() -> None:
    rows = drawn(60, 7)
    before = numbers(rows)
    for other in (rows * 1e-3, rows[torch.randperm(60, generator=torch.Generator().manual_seed(1))]):
        for name, value in numbers(other).items():
            tolerance = 0.5 if name == "coherence_paper" else EXACT  # its epsilon has a scale
            assert value == pytest.approx(before[name], abs=tolerance)
    lengths = (drawn(60, 1, seed=2) * 3).exp()
    stretched = numbers(rows * lengths)
    assert stretched["effective_rank"] < before["effective_rank"] - 0.1
    assert stretched["effective_rank_unit_rows"] == pytest.approx(before["effective_rank_unit_rows"], abs=EXACT)
    assert numbers(rows * 1e-30)["effective_rank"] == pytest.approx(before["effective_rank"], abs=EXACT)


def test_the_welch_bound_is_a_bound_and_reached() -> None:
    angles = torch.arange(3) * 2 * torch.pi / 3
    simplex = numbers(torch.stack([angles.cos(), angles.sin()], dim=1))
    assert simplex["welch_bound"] == pytest.approx(0.5)
    assert simplex["coherence_max"] == pytest.approx(0.5, abs=EXACT)
    got = numbers(drawn(80, 10))
    assert got["coherence_max"] >= got["welch_bound"]
    assert geometry.welch_bound(6144, 768) == pytest.approx(0.0338, abs=5e-5)  # as the definitions have it


def test_rows_of_zeros_are_left_out_and_counted() -> None:
    rows = drawn(12, 5)
    with_zeros = torch.cat([torch.zeros(2, 5), rows, torch.zeros(1, 5)])
    before = described(rows)
    for name, value in described(with_zeros).items():
        assert number(value) == pytest.approx(number(before[name]), abs=1e-9)
        assert (value.n, value.n_excluded, value.reason) == (12, 3, "3 rows of zeros left out")
        assert value.interval == "exact"


def test_merger_rows_of_split_units_are_duplicates_of_full_rank() -> None:
    rows = torch.eye(6)[torch.arange(24) % 6]
    got = numbers(rows)
    assert got["coherence_max"] == 1
    assert got["effective_rank"] == pytest.approx(6, abs=EXACT)
    assert got["coherence_mean"] == pytest.approx(3 / 23, abs=EXACT)


def test_each_space_has_its_own_values() -> None:
    both = {"output": drawn(9, 4), "input": drawn(9, 6, seed=1)}
    values = Geometry(evaluation(n_images=1, dictionaries=both)).compute()
    for kind, suffix in (("output", ""), ("input", "_input")):
        for name, value in numbers(both[kind]).items():
            assert number(values[f"{name}{suffix}"]) == value
    assert {row.name for row in Geometry.rows} == set(values)


def test_one_atom_has_a_rank_and_no_coherence() -> None:
    values = described(drawn(1, 5))
    assert number(values["effective_rank"]) == number(values["effective_rank_unit_rows"]) == 1
    assert number(values["welch_bound"]) == 0
    for name in ("max", "mean", "p95", "paper"):
        assert values[f"coherence_{name}"].reason == "one atom: coherence is between two"


def test_what_has_no_geometry_is_null_with_a_reason() -> None:
    broken = drawn(3, 2)
    broken[1, 1] = torch.nan
    for rows, reason, n_excluded in (
        (broken, "the dictionary has values that are not finite", 3),
        (torch.zeros(4, 2), "4 rows of zeros left out", 4),
        (torch.zeros(0, 2), "the dictionary is empty", 0),
    ):
        for kind in ("output", "input"):
            for value in described(rows, kind).values():
                assert (value.value, value.reason, value.n_excluded) == (None, reason, n_excluded)
    nothing = Geometry(evaluation(n_images=1)).compute()
    assert nothing["coherence_max"].reason == "the method gives no dictionary in the space of the site's outputs"
    assert nothing["coherence_max_input"].reason == "the method gives no dictionary in the space of the site's inputs"
