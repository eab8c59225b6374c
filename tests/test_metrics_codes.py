"""The summary of codes and the ranking by it: against plain loops, with ties, NaN and any split into batches."""

import pytest
import torch
from references import top_images
from torch import Tensor

from metrics import codes as module
from metrics import exemplars
from metrics.codes import CodeSummary
from metrics.exemplars import Exemplars, Ranking


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def few_values(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(-1, 2, shape, generator=torch.Generator().manual_seed(seed)).float()


def assert_is_summary(codes: Tensor) -> None:
    """Every entry against Python's max, min and count."""
    summary = CodeSummary.of(codes)
    assert summary.n_tokens == codes.shape[1]
    assert (summary.position.dtype, summary.n_active.dtype) == (torch.int32, torch.int32)
    for image, tokens in enumerate(codes.transpose(1, 2).tolist()):
        for atom, own in enumerate(tokens):
            assert summary.largest[image, atom] == max(own)
            assert summary.position[image, atom] == own.index(max(own))
            assert summary.smallest[image, atom] == min(own)
            assert summary.n_active[image, atom] == sum(code != 0 for code in own)


@pytest.mark.parametrize("n_tokens", [1, 2, 3, 4, 5, 8, 9, 16, 17, 31, 50, 65])
@pytest.mark.parametrize("make", [noise, few_values], ids=["distinct", "ties"])
def test_equals_plain_loops(n_tokens: int, make: object) -> None:
    assert_is_summary(make(7, n_tokens, 5))  # type: ignore[operator]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_in_any_dtype(dtype: torch.dtype) -> None:
    assert_is_summary(noise(3, 300, 4).to(dtype))  # more tokens than bfloat16 counts to


@pytest.mark.parametrize("cached", [1, 40, 10**6])
def test_however_much_is_looked_at_together(cached: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CACHED", cached)
    assert_is_summary(few_values(9, 18, 5, seed=1))


def test_codes_that_lie_apart_in_memory() -> None:
    assert_is_summary(noise(6, 20, 9)[::2, 1:, ::3])


def test_infinite_codes_and_the_largest_in_the_rest_at_the_end() -> None:
    codes = noise(2, 18, 3)
    codes[0, 17, 0], codes[0, 16, 1], codes[1, 3, 2] = torch.inf, 9, -torch.inf
    assert_is_summary(codes)


def test_nan_is_both_extremes_and_its_first_token_the_position() -> None:
    codes = noise(3, 18, 4)
    codes[1, 5, 2] = codes[1, 9, 2] = torch.nan
    summary, expected = CodeSummary.of(codes), codes.max(dim=1)
    assert summary.largest.isnan().nonzero().tolist() == [[1, 2]]
    assert summary.smallest.isnan().nonzero().tolist() == [[1, 2]]
    assert torch.equal(summary.position.long(), expected.indices)
    assert summary.position[1, 2] == 5
    assert summary.n_active.tolist() == [[18] * 4] * 3


def test_no_images() -> None:
    summary = CodeSummary.of(torch.zeros(0, 4, 3))
    assert summary.largest.shape == summary.position.shape == (0, 3)
    assert Ranking(3).exemplars() is None


# --- ranking ---------------------------------------------------------------------------------------------------------


def ranked(codes: Tensor, k: int, sizes: list[int]) -> Exemplars:
    ranking = Ranking(k)
    for images in torch.arange(len(codes)).split(sizes):
        ranking.add(images, CodeSummary.of(codes[images]))
    found = ranking.exemplars()
    assert found is not None
    return found


def orders() -> dict[str, Tensor]:
    """Splits that fill the buffer of candidates in different ways."""
    many = noise(400, 2, 6)
    return {
        "random": many,
        "ascending": many.sort(dim=0).values,
        "descending": many.sort(dim=0, descending=True).values,
        "ties": few_values(400, 2, 6),
        "all equal": torch.ones(400, 2, 6),
        "sparse": (many - 2.5).relu(),
        "minus infinity": many.where(many > 1.5, -torch.inf),
    }


@pytest.mark.parametrize("name", orders())
@pytest.mark.parametrize("batch_size", [7, 64, 150])
@pytest.mark.parametrize("max_waiting", [1, 5, 64])
def test_exemplars_are_the_best_images(
    name: str, batch_size: int, max_waiting: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exemplars, "MAX_WAITING", max_waiting)
    codes = orders()[name]
    sizes = [batch_size] * (400 // batch_size) + [400 % batch_size] * (400 % batch_size > 0)
    found, best = ranked(codes, 12, sizes), codes.amax(dim=1)
    for atom in range(6):
        images = top_images(best[:, atom].tolist(), 12)
        assert found.images[atom].tolist() == images
        assert found.scores[atom].tolist() == best[images, atom].tolist()
        assert found.positions[atom].tolist() == [codes[i, :, atom].tolist().index(best[i, atom]) for i in images]
    assert found.smallest.tolist() == codes.amin(dim=(0, 1)).tolist()


def test_images_with_nan_rank_first_in_their_order() -> None:
    codes = noise(60, 2, 3)
    codes[[5, 30, 59], 1, 1] = torch.nan
    found = ranked(codes, 4, [20, 20, 20])
    assert found.images[1, :3].tolist() == [5, 30, 59]
    assert found.scores[1].isnan().tolist() == [True, True, True, False]
    assert found.smallest.isnan().tolist() == [False, True, False]


def test_what_is_held_does_not_grow_with_the_images() -> None:
    def held(n_images: int) -> int:
        ranking = Ranking(10)
        for start in range(0, n_images, 50):
            ranking.add(torch.arange(start, start + 50), CodeSummary.of(noise(50, 2, 6, seed=start)))
        parts = [part for scored in (ranking._kept, ranking._waiting) if scored for part in vars(scored).values()]
        return sum(part.untyped_storage().nbytes() for part in parts)

    assert held(2000) == held(200) == 6 * (10 + 64) * 12


def test_looking_at_the_exemplars_midway_changes_nothing() -> None:
    codes = noise(200, 2, 6)
    ranking = Ranking(9)
    for images in torch.arange(200).split(40):
        ranking.add(images, CodeSummary.of(codes[images]))
        found = ranking.exemplars()
        assert found is not None
        upto = int(images[-1]) + 1
        assert torch.equal(found.images, ranked(codes[:upto], 9, [upto]).images)
