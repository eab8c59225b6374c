"""The exemplars that judges are shown: the best images of every atom, by a slow reference; who takes part."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from references import Batch, Evaluation

from bench import evaluation, exemplars
from bench.cells import Cell
from bench.exemplars import N_KEPT, N_SHOWN, Showing, Shown
from bench.lanes import Failure
from bench.measuring import evaluated, exemplars_of
from bench.registry import Registry
from bench.stages import StartWorkshop, Workshop
from bench.suites import load_suite

FOUR = Path(__file__).parent / "four.toml"


def shown_of(codes: torch.Tensor, sizes: Sequence[int], *, nonnegative: bool = False) -> Shown:
    found: list[Shown] = []
    outputs, labels, logits = (
        torch.zeros(*codes.shape[:2], 1),
        torch.zeros(len(codes)).long(),
        torch.zeros(len(codes), 2),
    )
    split = Evaluation(outputs, codes, outputs, labels, logits, logits, codes_are_nonnegative=nonnegative)
    showing = Showing(found, split)
    for images in torch.arange(len(codes)).split(list(sizes)):
        showing.update(Batch(split, images), pass_index=0)
    assert showing.compute() == {}
    (one,) = found
    return one


def test_the_best_images_are_those_with_the_largest_code_of_any_token_and_the_first_of_equals() -> None:
    codes = torch.randint(0, 6, (40, 3, 5), generator=torch.Generator().manual_seed(0)).float()
    shown = shown_of(codes, [13, 13, 14])
    for atom in range(5):
        best = codes[:, :, atom].max(dim=1).values.tolist()
        order = sorted(range(40), key=lambda image: (-best[image], image))[:N_KEPT]
        assert shown.images[atom].tolist() == order
        assert shown.scores[atom].tolist() == [best[image] for image in order]
        for image, position in zip(order, shown.positions[atom].tolist(), strict=True):
            assert codes[image, position, atom] == best[image]
            assert not (codes[image, :position, atom] == best[image]).any()
    again = shown_of(codes, [1] * 40)
    assert torch.equal(again.images, shown.images)


@pytest.mark.parametrize(("nonnegative", "expected"), [(True, [True, False, False]), (False, [True, True, False])])
def test_an_atom_takes_part_where_nine_images_drive_it(nonnegative: bool, expected: list[bool]) -> None:
    codes = torch.zeros(20, 1, 3)
    codes[:N_SHOWN, 0, 0] = 1.0  # nine images above zero
    codes[: N_SHOWN - 1, 0, 1] = 1.0  # eight; the others are 0, which is above the smallest one
    codes[-1, 0, 1] = -2.0 if not nonnegative else 0.0
    shown = shown_of(codes, [20], nonnegative=nonnegative)
    assert shown.is_eligible.tolist() == expected  # the third is constant


def test_fewer_images_than_a_grid_holds_let_nobody_take_part() -> None:
    shown = shown_of(torch.rand(N_SHOWN - 1, 2, 4), [N_SHOWN - 1])
    assert shown.images.shape == (4, N_SHOWN - 1)
    assert not shown.is_eligible.any()


def test_a_code_that_is_not_finite_lets_its_atom_take_no_part() -> None:
    codes = torch.rand(20, 2, 2, generator=torch.Generator().manual_seed(0))
    codes[3, 0, 1] = float("nan")
    assert shown_of(codes, [7, 13]).is_eligible.tolist() == [True, False]


@pytest.fixture(name="shop", scope="module")
def some_workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    start = StartWorkshop((), tmp_path_factory.mktemp("cache"))
    return start.workshop(lambda what, done, total: None, print)


@pytest.fixture(name="cells", scope="module")
def some_cells() -> list[Cell]:
    return [cell for cell in load_suite(str(FOUR), Registry()).cells if cell.label in ("backbone", "topk_sae")]


def test_they_are_kept_and_the_backbone_does_not_run_for_them_again(
    shop: Workshop, cells: list[Cell], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = exemplars_of(shop, cells)
    assert not [one for one in first.values() if isinstance(one, Failure)]

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("the split was evaluated again")

    monkeypatch.setattr(evaluation, "evaluate", never)
    again = exemplars_of(shop, cells)
    for key, one in first.items():
        other = again[key]
        assert isinstance(one, Shown)
        assert isinstance(other, Shown)
        assert all(torch.equal(value, vars(other)[name]) for name, value in vars(one).items())


def test_of_the_bare_backbone_they_are_the_images_with_the_largest_outputs(shop: Workshop, cells: list[Cell]) -> None:
    (cell,) = (one for one in cells if one.label == "backbone")
    shown = exemplars_of(shop, [cell])[cell.id]
    site, split = shop.site(cell.site), shop.dataset(cell.site).test
    outputs = site.read(split.images(slice(None))).outputs
    best = outputs[:, site.kept(outputs.shape[1])].amax(dim=1)
    assert isinstance(shown, Shown)
    assert torch.equal(shown.images[:, 0], best.argmax(dim=0).int())
    assert torch.allclose(shown.scores[:, 0], best.amax(dim=0), rtol=1e-5)
    assert shown.is_eligible.all()


def test_an_evaluation_leaves_the_same_as_looking_for_them_alone(cells: list[Cell], tmp_path: Path) -> None:
    def shop(name: str) -> Workshop:
        return StartWorkshop((), tmp_path / name).workshop(lambda what, done, total: None, print)

    together, alone = shop("together"), shop("alone")
    evaluated(together, cells, {})
    for cell in cells:
        kept = Shown.load(together.cache.folder("exemplars", exemplars.key_of(together, cell)))
        found = exemplars_of(alone, [cell])[cell.id]
        assert all(torch.equal(value, vars(found)[name]) for name, value in vars(kept).items())
