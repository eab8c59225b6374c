"""Decompositions leave the house: in SAELens's form, and as they are kept; what cannot be said is refused early."""

import json
from pathlib import Path

import pytest
import torch

from bench import UsageError
from bench.cache import StorageError
from bench.cells import Cell
from bench.decomposition_files import written
from bench.registry import Registry
from bench.stages import StartWorkshop, Workshop
from bench.suites import load_suite
from methods import artifacts
from methods.checkpoints import Checkpoint

SUITE = """
[[sites]]
label = "shapes"
dataset = { name = "shapes", n_train = 200, n_test = 60 }
backbone = { name = "embedded_vit", width = 16, depth = 1, epochs = 1 }
module = "blocks.0.mlp.fc2"
[[methods]]
name = "topk_sae"
k = 3
epochs = 80
[[methods]]
name = "archetypal_sae"
epochs = 80
[[methods]]
name = "matching_pursuit_sae"
k = 3
epochs = 1
"""


@pytest.fixture(name="shop", scope="module")
def some_workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    start = StartWorkshop((), tmp_path_factory.mktemp("cache"))
    return start.workshop(lambda what, done, total: None, print)


@pytest.fixture(name="cells", scope="module")
def some_cells(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Cell]:
    path = tmp_path_factory.mktemp("suite") / "mine.toml"
    path.write_text(SUITE, encoding="utf-8")
    return {cell.label: cell for cell in load_suite(str(path), Registry()).cells}


@pytest.mark.parametrize("label", ["topk_sae", "archetypal_sae"])
def test_what_saelens_is_given_has_the_same_codes_and_outputs(
    shop: Workshop, cells: dict[str, Cell], label: str, tmp_path: Path
) -> None:
    cell = cells[label]
    written(shop, cell, tmp_path / "out", "saelens")
    config = json.loads((tmp_path / "out" / "cfg.json").read_text(encoding="utf-8"))
    assert config["metadata"]["hook_name"] == "blocks.0.mlp.fc2"
    method, found = cell.method.built, shop.decomposition(cell)
    theirs = Checkpoint(path=str(tmp_path / "out"))
    source = shop.source(cell.site, cell.token_seed, method.reads)
    tokens = source.read(slice(None))
    again = theirs.decompose(source, seed=0)
    ours = method.encode(found, tokens)
    assert torch.allclose(theirs.encode(again, tokens), ours, atol=1e-5)
    assert torch.allclose(theirs.decode(again, ours), method.decode(found, ours), atol=1e-5)


def test_our_own_form_is_what_is_kept(shop: Workshop, cells: dict[str, Cell], tmp_path: Path) -> None:
    written(shop, cells["matching_pursuit_sae"], tmp_path / "out", "own")
    found = shop.decomposition(cells["matching_pursuit_sae"])
    assert torch.equal(artifacts.load(tmp_path / "out").tensors["dictionary"], found.tensors["dictionary"])


def test_what_saelens_has_no_form_for_is_refused_before_any_work(
    shop: Workshop, cells: dict[str, Cell], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="SAELens has no form for 'matching_pursuit_sae'"):
        written(shop, cells["matching_pursuit_sae"], tmp_path / "out", "saelens")
    assert not (tmp_path / "out").exists()


def test_folders_that_cannot_be_used_are_named(shop: Workshop, cells: dict[str, Cell], tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(UsageError, match=r"--to: got .*full, which exists and is not empty"):
        written(shop, cells["topk_sae"], tmp_path / "full", "own")
    with pytest.raises(StorageError, match="--to: cannot write /proc/out"):
        written(shop, cells["topk_sae"], Path("/proc/out"), "own")
