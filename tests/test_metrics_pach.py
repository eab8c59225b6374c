"""The MS-Score's variant `pach`: against the pairwise loop, by its laws, and atoms without a score."""

from typing import Any

import numpy as np
import pytest
import torch
from references import Evaluation, evaluation, ms_score_pach, number, stream

from metrics.pach import PachScore


def streamed(split: Evaluation, batch_size: int = 16) -> list[float | None]:
    metric = PachScore(split)
    stream(metric, split, batch_size)
    return [None if np.isnan(score) else score for score in metric.per_atom().scores.tolist()]


def pairwise(split: Evaluation) -> list[float | None]:
    assert split.embeddings is not None
    best, e = split.codes.amax(dim=1).double().numpy(), split.embeddings.double().numpy()
    return [ms_score_pach(best[:, atom], e) for atom in range(split.n_atoms)]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("batch_size", [1, 16, 40])
def test_equals_the_pairwise_loop(seed: int, batch_size: int) -> None:
    split = evaluation(seed=seed)
    assert streamed(split, batch_size) == pytest.approx(pairwise(split), abs=1e-10)


@pytest.mark.parametrize("offset", [1e3, -1e6, 1e9])
@pytest.mark.parametrize("batch_size", [1, 16])
def test_large_offsets_cancel_nothing(offset: float, batch_size: int) -> None:
    split = evaluation(n_images=60)
    split.codes = split.codes.double() + offset
    assert streamed(split, batch_size) == pytest.approx(pairwise(split), abs=1e-6)


def test_an_outlier_in_the_first_batch_cancels_nothing() -> None:
    split = evaluation(n_images=60)
    split.codes[0] += 1e4
    assert streamed(split, 1) == pytest.approx(pairwise(split), abs=1e-6)


def test_sparse_codes_and_dead_atoms() -> None:
    split = evaluation(n_images=60, n_atoms=12, codes_are_nonnegative=True)
    split.codes = (split.codes - torch.linspace(0, 4, 12)).relu()
    expected = pairwise(split)
    assert None in expected
    found = streamed(split)
    assert [score is None for score in found] == [score is None for score in expected]
    assert [s for s in found if s is not None] == pytest.approx([s for s in expected if s is not None], abs=1e-10)


def test_zero_embeddings_are_orthogonal_to_everything() -> None:
    split = evaluation(n_images=30)
    assert split.embeddings is not None
    split.embeddings[::3] = 0
    assert streamed(split) == pytest.approx(pairwise(split), abs=1e-10)


@pytest.mark.parametrize("factor", [1e-3, 2.0**20])
def test_scaling_codes_or_embeddings_leaves_scores(factor: float) -> None:
    split = evaluation()
    assert split.embeddings is not None
    before = streamed(split)
    split.codes, split.embeddings = split.codes * factor, split.embeddings * factor
    assert streamed(split) == pytest.approx(before, abs=1e-5)


def test_one_embedding_scores_1() -> None:
    split = evaluation(embeddings=torch.tensor([[3.0, 4.0]]).expand(40, 2))
    assert streamed(split) == pytest.approx([1.0] * 7, abs=1e-12)


def value(codes: torch.Tensor, **options: Any) -> tuple[float | None, str | None, int, int]:
    split = evaluation(codes=codes, **options)
    found = stream(PachScore(split), split)["ms_score_pach"]
    return found.value, found.reason, found.n, found.n_excluded


def test_every_exclusion_is_counted_under_one_reason() -> None:
    codes = evaluation(n_atoms=6).codes.abs() + 0.1
    codes[:, :, 1] = 2.5
    codes[:, :, 2] = 0
    codes[7, :, 2] = 4
    codes[0, 0, 3] = torch.nan
    codes[30, 0, 4] = torch.inf
    score, reason, n, n_excluded = value(codes)
    assert score is not None
    assert (n, n_excluded) == (2, 4)
    assert reason == "1 never active, 1 with fewer than two positive weights, 2 with values that are not finite"


def test_negative_codes_are_no_activity_where_codes_are_non_negative() -> None:
    codes = -evaluation(n_atoms=3).codes.abs() - 1
    assert value(codes)[1] is None
    assert value(codes, codes_are_nonnegative=True)[1] == "no atom has a score: 3 never active"


def test_an_embedding_that_is_not_finite_spoils_every_atom() -> None:
    split = evaluation()
    assert split.embeddings is not None
    split.embeddings[3, 1] = torch.nan
    found = stream(PachScore(split), split)["ms_score_pach"]
    assert (found.value, found.reason) == (None, "no atom has a score: 7 with values that are not finite")


def test_one_image_is_null() -> None:
    assert value(torch.ones(1, 3, 2))[:2] == (None, "1 of the at least 2 images that a pair takes")


def test_the_value_is_the_mean_of_the_scored() -> None:
    split = evaluation(n_atoms=9)
    split.codes[:, :, 4] = 0
    expected = [score for score in pairwise(split) if score is not None]
    assert len(expected) == 8
    assert number(stream(PachScore(split), split)["ms_score_pach"]) == pytest.approx(100 * np.mean(expected))


def test_scores_without_a_pass_are_an_error_that_names_the_next_step() -> None:
    with pytest.raises(RuntimeError, match=r"stream the split through update\(pass_index=0\)"):
        PachScore(evaluation()).per_atom()
