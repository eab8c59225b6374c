"""Runs that differ in the init seed: which are compared, what their training started from, and what comes out."""

import statistics
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bench.cells import Cell
from bench.measuring import Measurement
from bench.planted import planted
from bench.registry import Registry
from bench.stability import Comparison, alive, compared, dictionaries_of, groups_of
from bench.stages import StartWorkshop, Workshop
from bench.suites import load_suite
from methods.archetypal import ArchetypalSAE
from methods.autoencoder import Autoencoder, AutoencoderStack
from methods.checkpoints import Checkpoint
from methods.controls import PCA
from methods.matching_pursuit import MatchingPursuitSAE
from methods.matryoshka import MatryoshkaSAE
from methods.protocol import Decomposition, HasDictionary, HasStart
from methods.sae import BatchTopKSAE, JumpReLUSAE, TopKSAE, VanillaSAE
from methods.transcoder import Transcoder
from metrics.similarity import Dictionary, similarity

FAMILIES: tuple[Autoencoder, ...] = (
    VanillaSAE(),
    TopKSAE(k=4),
    BatchTopKSAE(k=4),
    JumpReLUSAE(),
    MatchingPursuitSAE(k=4),
    MatryoshkaSAE(k=4),
    ArchetypalSAE(),
    ArchetypalSAE(points_seed=0, points_per_atom=1.5),
    Transcoder(),
)


def states_seen(monkeypatch: pytest.MonkeyPatch, place: int) -> list[dict[str, torch.Tensor]]:
    """A list that grows by the state of one configuration of a stack whenever its losses are asked for."""
    seen: list[dict[str, torch.Tensor]] = []
    losses = AutoencoderStack.losses

    def noted(stack: AutoencoderStack, batch: Any) -> torch.Tensor:
        seen.append(stack.state(place))
        return losses(stack, batch)

    monkeypatch.setattr(AutoencoderStack, "losses", noted)
    return seen


@pytest.mark.parametrize("family", FAMILIES, ids=repr)
def test_the_start_is_what_the_first_step_sees_bit_for_bit(
    family: Autoencoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = replace(family, epochs=1, batch_size=100)
    seen = states_seen(monkeypatch, 0)
    found = method.decompose(planted(method.reads), seed=5)
    assert isinstance(method, HasStart)
    start = method.start(planted(method.reads), seed=5)
    first = method.dictionaries(Decomposition(found.n_atoms, seen[0]), torch.zeros(12, 40))
    last = method.dictionaries(found, torch.zeros(12, 40))
    assert start.keys() == first.keys() == last.keys() == {"output", *(["input"] if "inputs" in method.reads else [])}
    for kind, rows in start.items():
        assert torch.equal(rows, first[kind])
        assert not torch.equal(rows, last[kind])
        assert not rows.requires_grad
    other = method.start(planted(method.reads), seed=6)
    is_drawn_from_the_run = not isinstance(method, ArchetypalSAE) or method.points_seed < 0
    assert torch.equal(start["output"], other["output"]) is not is_drawn_from_the_run


def test_a_stack_of_variants_starts_where_each_alone_does(monkeypatch: pytest.MonkeyPatch) -> None:
    variants = [TopKSAE(k=4, epochs=1, learning_rate=rate) for rate in (1e-3, 1e-4)]
    seen = states_seen(monkeypatch, 1)
    variants[0].decompose_stack(variants, planted(frozenset({"outputs"})), seed=2)
    start = variants[1].start(planted(frozenset({"outputs"})), seed=2)
    assert torch.equal(start["output"], seen[0]["dictionary"])


def test_what_trains_nothing_has_no_start() -> None:
    assert not any(isinstance(method, HasStart) for method in (PCA(), Checkpoint()))
    assert all(isinstance(method, HasDictionary) for method in (PCA(), Checkpoint()))


SUITE = """
token_seeds = [42, 7]
init_seeds = [42, 7, 1024]
metrics = ["l0"]
[[sites]]
label = "shapes"
dataset = { name = "shapes", n_train = 200, n_test = 60 }
backbone = { name = "embedded_vit", width = 16, depth = 1, epochs = 1 }
module = "blocks.0.mlp.fc2"
[[methods]]
name = "topk_sae"
k = 3
epochs = 3
expansion_factor = 2.0
[[methods]]
name = "transcoder"
epochs = 1
expansion_factor = 1.0
[[methods]]
name = "elude"
top_k = 0.5
min_cluster_size = 5
[[methods]]
name = "random_partition"
"""


@pytest.fixture(name="shop", scope="module")
def some_workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    start = StartWorkshop((), tmp_path_factory.mktemp("cache"))
    return start.workshop(lambda what, done, total: None, print)


@pytest.fixture(name="cells", scope="module")
def some_cells(tmp_path_factory: pytest.TempPathFactory) -> tuple[Cell, ...]:
    path = tmp_path_factory.mktemp("suite") / "mine.toml"
    path.write_text(SUITE, encoding="utf-8")
    return load_suite(str(path), Registry()).cells


@pytest.fixture(name="measured", scope="module")
def measured_comparisons(shop: Workshop, cells: tuple[Cell, ...]) -> dict[str, Measurement]:
    return {one.label: compared(shop, one) for one in groups_of(cells)}


def test_one_comparison_for_each_method_over_the_init_seeds_of_the_first_token_seed(cells: tuple[Cell, ...]) -> None:
    groups = groups_of(cells)
    assert [one.name for one in groups] == [
        f"shapes/{label}/stability" for label in ("topk_sae", "transcoder", "elude", "random_partition")
    ]
    for one in groups:
        assert [(cell.token_seed, cell.init_seed) for cell in one.cells] == [(42, 42), (42, 7), (42, 1024)]
        assert {cell.label for cell in one.cells} == {one.label}
    assert len({one.id for one in groups}) == 4
    assert groups_of([cell for cell in cells if cell.init_seed == 42]) == []


def test_a_comparison_is_what_its_cells_are_but_not_what_is_measured_of_them(cells: tuple[Cell, ...]) -> None:
    one = groups_of(cells)[0]
    assert len(one.id) == 16
    same = Comparison(one.site, "other", tuple(replace(cell, label="other", metrics=()) for cell in one.cells))
    assert same.id == one.id
    assert replace(one, cells=one.cells[:2]).id != one.id


def test_a_trained_method_is_compared_after_and_before(
    shop: Workshop, cells: tuple[Cell, ...], measured: dict[str, Measurement]
) -> None:
    comparison, got = groups_of(cells)[0], measured["topk_sae"]
    rows = []
    for cell in comparison.cells:
        found, tokens = shop.decomposition(cell), shop.source(cell.site, 42, frozenset({"outputs"})).read(slice(None))
        is_alive = (cell.method.built.encode(found, tokens) != 0).any(dim=0)
        rows.append(Dictionary(found.tensors["dictionary"] * is_alive[:, None]))
    pairs = [similarity(rows[i], rows[j]).value or 0.0 for i, j in ((0, 1), (0, 2), (1, 2))]
    assert got.values["stability"].value == pytest.approx(statistics.mean(pairs), abs=1e-12)
    assert got.notes["stability_std"] == pytest.approx(statistics.stdev(pairs))
    source = shop.source(comparison.site, 42, frozenset({"outputs"}))
    starts = [Dictionary(cell.method.built.start(source, seed=cell.init_seed)["output"]) for cell in comparison.cells]
    before = [similarity(starts[i], starts[j]).value or 0.0 for i, j in ((0, 1), (0, 2), (1, 2))]
    assert got.values["stability_start"].value == pytest.approx(statistics.mean(before), abs=1e-12)
    gain = statistics.mean(pairs) - statistics.mean(before)
    assert got.values["stability_gain"].value == pytest.approx(gain, abs=1e-12)
    assert got.values["stability_input"].value is None
    assert got.notes["init_seeds"] == "42, 7, 1024"
    assert got.options["k"] == 3
    assert all(got.values[name].low is not None for name in ("stability", "stability_start"))


def test_atoms_that_no_token_activates_are_dead_and_left_out(shop: Workshop, cells: tuple[Cell, ...]) -> None:
    comparison = groups_of(cells)[0]
    cell = comparison.cells[0]
    found, source = shop.decomposition(cell), shop.source(cell.site, 42, frozenset({"outputs"}))
    bias = found.tensors["encoder_bias"].clone()
    before = alive(cell.method.built, found, source)
    one = int(before.nonzero()[0])
    bias[one] = -1e9
    other = replace(found, tensors={**found.tensors, "encoder_bias": bias})
    after = alive(cell.method.built, other, source)
    assert (after != before).nonzero().flatten().tolist() == [one]
    here: Any = SimpleNamespace(decomposition=lambda _cell: other, site=shop.site, source=shop.source)
    dictionary = dictionaries_of(here, cell)
    assert torch.equal((dictionary["output"].rows == 0).all(dim=1), ~after)


def test_each_method_is_compared_by_what_it_has(measured: dict[str, Measurement]) -> None:
    has = {
        label: {name for name, value in one.values.items() if value.value is not None}
        for label, one in measured.items()
    }
    trained = {"stability", "stability_start", "stability_gain"}
    assert has["topk_sae"] == trained
    assert has["transcoder"] == {*trained, "stability_input"}
    assert has["elude"] == has["random_partition"] == {"stability", "stability_input"}
    assert {measured["elude"].values[name].value for name in ("stability", "stability_input")} == {1.0}
    splits = measured["random_partition"].values["stability_input"]
    assert splits.value is not None
    assert splits.value < 1
    assert splits.interval == "bootstrap over units, pooled over 3 pairs of runs"


def test_the_same_comparison_again_gives_the_same(
    shop: Workshop, cells: tuple[Cell, ...], measured: dict[str, Measurement]
) -> None:
    again = compared(shop, groups_of(cells)[0])
    assert again.values == measured["topk_sae"].values
