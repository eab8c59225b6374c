"""The MS-Score: against the pairwise loop, by its laws, and every way in which an atom can have none."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from references import Evaluation, evaluation, interval, ms_scores, number, stream, top_images, wilson
from torch import Tensor

from metrics import monosemanticity
from metrics.catalogue import Value
from metrics.exemplars import Exemplars, Ranking
from metrics.intervals import SEED
from metrics.monosemanticity import MSScore


def streamed(split: Evaluation, k: int = 100, batch_size: int = 16) -> MSScore:
    metric = MSScore(split, top_k=k)
    stream(metric, split, batch_size)
    return metric


def measured(split: Evaluation, k: int = 100) -> Mapping[str, Value]:
    return MSScore.compute(streamed(split, k))


def scores(split: Evaluation, k: int = 100, batch_size: int = 16) -> list[float | None]:
    """The score of every atom, None for NaN."""
    per_atom = streamed(split, k, batch_size).per_atom()[0].scores.tolist()
    return [None if np.isnan(score) else score for score in per_atom]


def ranked(split: Evaluation, k: int, batch_size: int) -> Exemplars:
    ranking = Ranking(k)
    for batch in split.batches(batch_size):
        ranking.add(batch.images, batch.summary)
    exemplars = ranking.exemplars()
    assert exemplars is not None
    return exemplars


def one_atom(codes: list[float], outputs: list[list[float]], **options: bool) -> Evaluation:
    """One atom, one token an image."""
    return evaluation(codes=torch.tensor(codes)[:, None, None], outputs=torch.tensor(outputs)[:, None], **options)


# --- against the reference -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [2, 10, 40, 100])
@pytest.mark.parametrize("seed", range(3))
def test_equals_the_pairwise_loop(k: int, seed: int) -> None:
    split = evaluation(seed=seed)
    assert scores(split, k) == pytest.approx(ms_scores(split, k), abs=1e-12)


@pytest.mark.parametrize("k", [5, 100])
def test_equals_the_pairwise_loop_on_sparse_non_negative_codes(k: int) -> None:
    split = evaluation(n_atoms=30, codes_are_nonnegative=True)
    thresholds = torch.linspace(0, 4, 30)
    split.codes = (split.codes - thresholds).relu()
    expected = ms_scores(split, k)
    assert None in expected
    assert [score is None for score in scores(split, k)] == [score is None for score in expected]
    assert [s for s in scores(split, k) if s is not None] == pytest.approx([s for s in expected if s is not None])


@settings(max_examples=40, deadline=None)
@given(
    codes=st.lists(st.lists(st.integers(0, 3), min_size=2, max_size=2), min_size=2, max_size=12),
    k=st.integers(2, 12),
    batch_size=st.integers(1, 12),
    nonnegative=st.booleans(),
)
def test_equals_the_pairwise_loop_with_many_ties(
    codes: list[list[int]], k: int, batch_size: int, nonnegative: bool
) -> None:
    split = evaluation(codes=torch.tensor(codes).float()[:, :, None], codes_are_nonnegative=nonnegative)
    assert scores(split, k, batch_size) == pytest.approx(ms_scores(split, k), abs=1e-12)


def test_values_are_the_mean_the_median_and_their_share() -> None:
    split = evaluation(n_atoms=12)
    split.codes[:, :, [1, 5, 6]] = 0
    values, expected = measured(split), [score for score in ms_scores(split) if score is not None]
    assert len(expected) == 9
    assert number(values["ms_score"]) == pytest.approx(100 * np.mean(expected))
    assert number(values["ms_score_median"]) == pytest.approx(100 * np.median(expected))
    assert number(values["ms_score_alive"]) == pytest.approx(100 * np.mean(expected) * 9 / 12)
    assert number(values["ms_excluded_share"]) == 25
    assert (values["ms_score"].n, values["ms_score"].n_excluded) == (9, 3)
    low, high = wilson(3, 12)
    assert interval(values["ms_excluded_share"]) == pytest.approx((100 * low, 100 * high), abs=2e-4)


# --- the null baseline -----------------------------------------------------------------------------------------------


def shuffled(n_images: int) -> list[int]:
    order: list[int] = torch.randperm(n_images, generator=torch.Generator().manual_seed(SEED)).tolist()
    return order


@pytest.mark.parametrize("batch_size", [1, 16, 40])
@pytest.mark.parametrize("k", [5, 100])
def test_the_null_baseline_embeds_each_image_by_another(k: int, batch_size: int) -> None:
    split = evaluation(n_images=40, n_atoms=12)
    split.codes[:, :, [1, 5, 6]] = 0
    expected = [score for score in ms_scores(split, k, embedded_by=shuffled(40)) if score is not None]
    metric = MSScore(split, top_k=k)
    value = stream(metric, split, batch_size)["ms_score_permuted"]
    assert number(value) == pytest.approx(100 * np.mean(expected), abs=1e-10)
    assert (value.n, value.n_excluded, value.reason) == (9, 3, "3 never active")


def test_the_null_baseline_of_atoms_with_meaning_is_what_any_images_score() -> None:
    generator = torch.Generator().manual_seed(0)
    kind = torch.randint(10, (400,), generator=generator)
    split = evaluation(
        codes=(kind[:, None] == torch.arange(10)).float()[:, None] + 0.01 * torch.rand(400, 1, 10, generator=generator),
        outputs=torch.eye(10)[kind][:, None],
    )
    values = measured(split, k=20)
    assert number(values["ms_score"]) == pytest.approx(100)
    assert number(values["ms_score_permuted"]) == pytest.approx(10, abs=3)  # of ten kinds, two images are of one


def test_the_null_baseline_leaves_out_atoms_that_it_cannot_embed() -> None:
    split = evaluation(n_atoms=3)
    split.codes[11, 2, :] = torch.tensor([-9.0, 9.0, -9.0])
    split.outputs[shuffled(40)[11], 2, 0] = torch.inf
    values = measured(split, k=5)
    assert values["ms_score"].n >= values["ms_score_permuted"].n
    assert "not finite" in (values["ms_score_permuted"].reason or "")


# --- exemplars -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 3, 16, 40])
def test_exemplars_with_ties_are_the_lower_images_whatever_the_batch_size(batch_size: int) -> None:
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(3, (40, 4, 6), generator=generator).float()
    kept = ranked(evaluation(codes=codes), k=15, batch_size=batch_size)
    best = codes.amax(dim=1)
    for atom in range(6):
        images = top_images(best[:, atom].tolist(), 15)
        assert kept.images[atom].tolist() == images
        assert kept.scores[atom].tolist() == best[images, atom].tolist()
        assert kept.positions[atom].tolist() == [codes[i, :, atom].tolist().index(best[i, atom]) for i in images]
    assert kept.smallest.tolist() == codes.amin(dim=(0, 1)).tolist()


def test_fewer_images_than_k_keeps_all() -> None:
    kept = ranked(evaluation(n_images=7), k=100, batch_size=3)
    assert kept.scores.shape == (7, 7)
    assert all(sorted(images) == list(range(7)) for images in kept.images.tolist())


def test_weights_are_normalised_by_the_extremes_over_all_tokens() -> None:
    codes = torch.tensor([[[1.0], [-4.0]], [[6.0], [0.0]], [[-2.0], [-3.0]]])  # the smallest is no image's largest
    assert ranked(evaluation(codes=codes), k=3, batch_size=3).weights().tolist() == [[1.0, 0.5, 0.2]]


# --- laws ------------------------------------------------------------------------------------------------------------


def test_identical_embeddings_score_1() -> None:
    split = one_atom([1.0, 2.0, 3.0, 0.5], [[3.0, 4.0]] * 4)
    assert scores(split) == pytest.approx([1.0], abs=1e-12)
    assert number(measured(split)["ms_score"]) == pytest.approx(100, abs=1e-10)


def test_two_opposite_embeddings_score_minus_1() -> None:
    assert scores(one_atom([1.0, 2.0, 0.0], [[3.0, 4.0], [-6.0, -8.0], [1.0, 0.0]])) == pytest.approx([-1.0], abs=1e-12)


def test_orthogonal_embeddings_score_0() -> None:
    assert scores(one_atom([1.0, 2.0, 0.0], [[0.0, 5.0], [-7.0, 0.0], [1.0, 1.0]])) == pytest.approx([0.0], abs=1e-12)


def test_random_directions_score_about_0() -> None:
    split = evaluation(n_images=150, n_units=50, n_atoms=40)
    split.outputs = split.outputs - 2
    assert number(measured(split)["ms_score"]) == pytest.approx(0, abs=0.5)


@pytest.mark.parametrize("factor", [1e-3, 7.0, 2.0**20])
def test_scaling_codes_or_outputs_leaves_scores(factor: float) -> None:
    split = evaluation()
    before = scores(split, k=10)
    split.codes = split.codes * factor
    split.outputs = split.outputs * factor
    assert scores(split, k=10) == pytest.approx(before, abs=1e-5)


def test_shifting_signed_codes_leaves_scores() -> None:
    split = evaluation()
    before = scores(split, k=10)
    split.codes = split.codes + 8
    assert scores(split, k=10) == pytest.approx(before, abs=1e-5)


def test_permuting_atoms_permutes_scores() -> None:
    split = evaluation()
    before, order = scores(split), [3, 0, 6, 1, 5, 2, 4]
    split.codes = split.codes[:, :, order]
    assert scores(split) == pytest.approx([before[atom] for atom in order], abs=1e-12)


def test_images_that_are_not_kept_do_not_matter() -> None:
    split = evaluation()
    kept = ranked(split, k=10, batch_size=16)
    before = scores(split, k=10)
    for image in set(range(40)) - set(kept.images.flatten().tolist()):
        split.outputs[image] = torch.nan
    assert scores(split, k=10) == before


def test_embedding_a_few_pairs_at_a_time_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    split = evaluation()
    before = scores(split)
    monkeypatch.setattr(monosemanticity, "MAX_ELEMENTS", 3 * split.n_units)
    assert scores(split) == pytest.approx(before, abs=1e-12)


def test_the_second_pass_reads_outputs_only() -> None:
    split = evaluation()
    metric = MSScore(split)
    (batch,) = split.batches(40)
    metric.update(batch, pass_index=0)
    assert batch.was_read == {"codes"}
    batch.was_read.clear()
    metric.update(batch, pass_index=1)
    assert batch.was_read == {"outputs"}


def test_interval_shrinks_with_more_atoms() -> None:
    few, many = (interval(measured(evaluation(n_atoms=n), k=5)["ms_score"]) for n in (30, 1080))
    assert (few[1] - few[0]) / (many[1] - many[0]) == pytest.approx(6, rel=0.4)


# --- atoms without a score -------------------------------------------------------------------------------------------


def reasons(codes: Tensor, *, codes_are_nonnegative: bool = False) -> tuple[str | None, float | None]:
    value = measured(evaluation(codes=codes, codes_are_nonnegative=codes_are_nonnegative))["ms_score"]
    return value.reason, value.value


def test_an_atom_constant_at_any_code_is_never_active() -> None:
    codes = evaluation(n_atoms=3).codes
    codes[:, :, 1] = 2.5
    assert reasons(codes)[0] == "1 never active"


def test_an_atom_with_negative_codes_only_is_active_unless_codes_are_non_negative() -> None:
    codes = evaluation(n_atoms=3).codes
    codes[:, :, 1] = -codes[:, :, 1].abs()
    assert reasons(codes)[0] is None
    assert reasons(codes, codes_are_nonnegative=True)[0] == "1 never active"


def test_a_single_positive_weight_is_excluded() -> None:
    codes = evaluation(n_atoms=3).codes.abs()
    codes[:, :, 1] = 0
    codes[7, 2, 1] = 4
    assert reasons(codes, codes_are_nonnegative=True)[0] == "1 with fewer than two positive weights"


def test_a_second_weight_below_the_rounding_of_eq_7_is_not_a_pair() -> None:
    codes = evaluation(n_atoms=3).codes.abs()
    codes[:, :, 1] = 0
    codes[7, 2, 1] = 4
    codes[9, 0, 1] = 1e-20
    assert reasons(codes, codes_are_nonnegative=True)[0] == "1 with fewer than two positive weights"


def test_an_atom_with_a_code_that_is_not_finite_is_excluded() -> None:
    codes = evaluation(n_atoms=4).codes
    codes[0, 0, 1] = torch.nan
    codes[39, 2, 2] = -torch.inf
    codes[20, 1, 3] = torch.inf
    reason, value = reasons(codes)
    assert reason == "3 with values that are not finite"
    assert value is not None


def test_an_atom_with_an_embedding_that_is_not_finite_is_excluded() -> None:
    split = evaluation(n_atoms=3)
    split.codes[11, 2, :] = torch.tensor([-9.0, 9.0, -9.0])  # only the second atom is driven by this token
    split.outputs[11, 2, 0] = torch.inf
    value = measured(split, k=10)["ms_score"]
    assert (value.reason, value.n) == ("1 with values that are not finite", 2)


def test_every_reason_is_counted() -> None:
    codes = evaluation(n_atoms=6).codes.abs()
    codes[:, :, 1:4] = 0
    codes[7, 2, 1] = 4
    codes[0, 0, 5] = torch.nan
    expected = "2 never active, 1 with fewer than two positive weights, 1 with values that are not finite"
    assert reasons(codes, codes_are_nonnegative=True)[0] == expected


def test_all_dead_is_null_and_fully_excluded() -> None:
    values = measured(evaluation(codes=torch.zeros(20, 3, 6), codes_are_nonnegative=True))
    for name in ("ms_score", "ms_score_median", "ms_score_alive", "ms_score_permuted"):
        assert (values[name].value, values[name].reason) == (None, "no atom has a score: 6 never active")
        assert values[name].n_excluded == 6
    assert values["ms_excluded_share"].value == 100


def test_one_image_is_null() -> None:
    values = measured(evaluation(n_images=1))
    assert {value.reason for value in values.values()} == {"1 of the at least 2 images that a pair takes"}
    assert all(value.value is None for value in values.values())


def test_one_scored_atom_has_no_interval() -> None:
    value = measured(evaluation(n_atoms=1))["ms_score"]
    assert value.value is not None
    assert (value.low, value.high) == (None, None)


def test_an_embedding_of_zeros_is_orthogonal_to_everything_itself_included() -> None:
    split = one_atom([2.0, 2.0, 2.0, 2.0, 0.0], [[0.0, 0.0], [0.0, 0.0], [1.0, 0.0], [2.0, 0.0], [5.0, 5.0]])
    assert scores(split) == pytest.approx([1 / 6], abs=1e-12)  # one of six pairs has cosine 1, the others 0


def test_all_ties_keep_the_first_images() -> None:
    split = evaluation(n_images=30, codes=torch.cat([torch.ones(30, 2, 3), torch.zeros(30, 1, 3)], dim=1))
    assert scores(split, k=4, batch_size=7) == pytest.approx(ms_scores(split, k=4), abs=1e-12)
    assert ranked(split, 4, 7).images.tolist() == [[0, 1, 2, 3]] * 3


@pytest.mark.parametrize("missing", [0, 1])
def test_scores_without_both_passes_are_an_error_that_names_the_next_step(missing: int) -> None:
    split = evaluation()
    metric = MSScore(split)
    if missing == 1:
        for batch in split.batches(16):
            metric.update(batch, pass_index=0)
    with pytest.raises(RuntimeError, match=rf"stream the split through update\(pass_index={missing}\)"):
        metric.per_atom()
