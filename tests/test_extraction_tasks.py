"""One task extracts for all cells of one backbone and data set; the workshop and the rehearsal go by it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_sharing import workshop

from bench import extraction, place
from bench.cells import Cell
from bench.estimate import estimated
from bench.registry import Registry
from bench.suites import load_suite
from bench.tasks import extractions, group_of, site_of, tasks_for

TWO_SITES = """
token_seeds = [42, 123]
init_seeds = [42, 43]
[[sites]]
label = "last"
dataset = { name = "shapes", n_train = 64, n_test = 32 }
backbone = { name = "embedded_vit", width = 12, depth = 2, heads = 2, epochs = 2 }
module = "blocks.1.mlp.fc2"
[[sites]]
label = "first"
dataset = { name = "shapes", n_train = 64, n_test = 32 }
backbone = { name = "embedded_vit", width = 12, depth = 2, heads = 2, epochs = 2 }
module = "blocks.0.mlp.fc2"
[[methods]]
name = "backbone"
[[methods]]
name = "topk_sae"
k = 4
epochs = 1
"""


@pytest.fixture(name="cells")
def some_cells(tmp_path: Path) -> list[Cell]:
    path = tmp_path / "two.toml"
    path.write_text(TWO_SITES, encoding="utf-8")
    return list(load_suite(str(path), Registry(())).cells)


def pairs_of(task: Any) -> list[tuple[str, int]]:
    return [(site.module, seed) for site, seed in task.payload[1]]


def test_all_sites_and_seeds_of_a_backbone_are_one_task_that_all_cells_need(cells: list[Cell]) -> None:
    tasks = tasks_for(cells)
    (one,) = [task for task in tasks if task.payload[0] == "activations"]
    modules = ("blocks.1.mlp.fc2", "blocks.0.mlp.fc2")
    assert sorted(pairs_of(one)) == sorted((module, seed) for module in modules for seed in (42, 123))
    assert one.name == "last and 1 more: activations of token seeds 42, 123"
    finding = [task for task in tasks if task.payload[0] == "find"]
    assert len(finding) == len(cells)
    assert all(one.id in task.needs for task in finding)
    assert site_of(one) == cells[0].site
    (alone,) = extractions([cell for cell in cells if cell.token_seed == 42 and cell.site.label == "last"]).values()
    assert alone.name == "last: activations of token seed 42"
    assert alone.id != one.id


def test_what_one_pass_cannot_give_is_a_task_of_its_own(cells: list[Cell]) -> None:
    site = cells[0].site
    others = [replace(site, stored="float16"), replace(site, tokens_per_image=3), replace(site, share=0.5)]
    assert len({group_of(one) for one in (site, *others)}) == 4
    assert group_of(replace(site, module="head", label="other")) == group_of(site)
    (task,) = extractions([replace(cells[0], selected_at=(7, 42))]).values()
    assert pairs_of(task) == [(site.module, 42), (site.module, 7)]


def test_the_workshop_extracts_a_group_in_one_pass(
    cells: list[Cell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = workshop(tmp_path / "cache")
    passes: list[int] = []
    own = extraction.run

    def counted(*given: Any) -> None:
        passes.append(len(given[1]))
        own(*given)

    monkeypatch.setattr(extraction, "run", counted)
    (task,) = [task for task in tasks_for(cells) if task.payload[0] == "activations"]
    assert shop.perform(task.payload, {}) is None
    assert passes == [4]
    reads = frozenset({"inputs", "outputs"})
    alone = workshop(tmp_path / "alone")
    for site, seed in task.payload[1]:
        together, apart = (one.source(site, seed, reads).read(slice(None)) for one in (shop, alone))
        assert torch.equal(together.outputs, apart.outputs)
        assert torch.equal(together.needed_inputs(), apart.needed_inputs())
    assert passes == [4, 1, 1, 1, 1]
    half = replace(cells[0].site, stored="float16")
    source = shop.source(half, 42, reads)
    assert source.read(slice(None)).outputs.dtype == torch.float32
    whole = shop.source(cells[0].site, 42, reads).read(slice(None)).outputs
    assert torch.equal(source.read(slice(None)).outputs, whole.half().float())
    assert passes[-1] == 1


def test_a_rehearsal_is_of_one_pass_for_what_is_missing(
    cells: list[Cell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted: list[int] = []
    own = place.Place.pass_seconds

    def counted(self: place.Place, pairs: Any, clock: Any) -> float:
        wanted.append(len(pairs))
        return own(self, pairs, clock)

    monkeypatch.setattr(place.Place, "pass_seconds", counted)
    cache = tmp_path / "cache"
    some = [replace(cell, metrics=()) for cell in cells if cell.label == "backbone" and cell.token_seed == 42]
    found = estimated(some, 0, (), cache)
    assert not found.reasons
    assert wanted == [2]
    (task,) = [task for task in found.tasks if task.payload[0] == "activations"]
    assert found.seconds[task.id] > 0
    workshop(cache).source(some[0].site, some[0].token_seed, frozenset({"outputs"}))
    estimated(some, 0, (), cache)
    assert wanted == [2, 1]
    workshop(cache).extracted(task.payload[1])
    assert estimated(some, 0, (), cache).seconds[task.id] == 0
