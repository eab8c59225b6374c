"""One decomposition made by several processes: what each puts by, who waits for whom, and what is told."""

import re
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bench import UsageError
from bench.activations import TensorSource
from bench.cache import Cache
from bench.cells import Cell
from bench.cli import main
from bench.opened import opened
from bench.registry import Registry
from bench.stages import StartWorkshop, Workshop
from bench.suites import load_suite
from methods.elude import ELUDe

SUITE = Path(__file__).parent / "four.toml"


def silent(what: str, done: int, total: int) -> None:
    """A report that nobody reads."""


def cells() -> dict[str, Cell]:
    return {cell.name: cell for cell in load_suite(str(SUITE), Registry(())).cells}


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with the backbone and the activations."""
    root = tmp_path_factory.mktemp("cache")
    cell = cells()["shapes/elude/t42/i42"]
    workshop(root).source(cell.site, 42, frozenset({"outputs"}))
    return root


def workshop(root: Path, n_threads: int = 1) -> Workshop:
    return StartWorkshop((), root, n_threads).workshop(silent, lambda text: None)


def test_ranges_of_units_add_up_to_the_decomposition(warm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = cells()["shapes/elude/t42/i42"]
    assert workshop(warm).find_units(cell, range(20, 32))
    assert workshop(warm, n_threads=2).find_units(cell, range(20))
    (kept,) = (warm / "unfinished" / "decompositions").iterdir()
    assert len(list(kept.glob("unit *.safetensors"))) == 32
    with monkeypatch.context() as patch:
        patch.setattr(ELUDe, "found_in", lambda *_: pytest.fail("a unit that was put by was looked at again"))
        found = workshop(warm).decomposition(cell)
    assert not kept.exists()
    source = workshop(warm).source(cell.site, 42, ELUDe.reads)
    assert torch.equal(cell.method.built.decompose(source, seed=42).tensors["owns"], found.tensors["owns"])
    assert not workshop(warm).find_units(cell, range(20))


def test_the_example_of_the_readme_runs(warm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "shapes/elude/t42/i42"
    found = workshop(warm).decomposition(cells()[name])
    readme = (Path(__file__).resolve().parent.parent / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(import torch\n\nfrom bench.opened.*?)```", readme, re.DOTALL)
    monkeypatch.setenv("ELUDEBENCH_CACHE", str(warm))
    names: dict[str, Any] = {}
    exec(example.replace('"quick"', repr(str(SUITE))), names)
    assert names["codes"].shape == (64, 16, found.n_atoms)
    assert torch.equal(names["network"](names["images"]), names["logits"])
    assert not torch.equal(names["steered"], names["logits"])
    with pytest.raises(UsageError, match=r"cell: shapes/topk_sae/t42/i42 is not in the cache at .*; expected one that"):
        opened(str(SUITE), "shapes/topk_sae/t42/i42")


def test_units_of_a_swept_cell_are_those_of_the_variant_that_was_chosen(tmp_path: Path, warm: Path) -> None:
    text = SUITE.read_text().replace(
        "min_cluster_size = 4", "top_k = 0.2\nmin_cluster_size = 4\nsweep = { min_samples = [1, 3] }"
    )
    (tmp_path / "swept.toml").write_text(text)
    suite = load_suite(str(tmp_path / "swept.toml"), Registry(()))
    (cell,) = [replace(one, token_seed=43) for one in suite.cells if one.label == "elude"]
    assert workshop(warm).find_units(cell, range(32))
    chosen = workshop(warm).settled(cell).method.built
    assert chosen != cell.method.built
    found = workshop(warm).decomposition(cell)
    source = workshop(warm).source(cell.site, 43, ELUDe.reads)
    assert torch.equal(chosen.decompose(source, seed=42).tensors["owns"], found.tensors["owns"])


def test_overlapping_ranges_do_no_harm(tmp_path: Path) -> None:
    source = TensorSource(None, torch.zeros(1, 1), keeps=tmp_path)
    values = {"a": torch.arange(100_000)}

    def keeps_often() -> None:
        for _ in range(50):
            source.keep("unit 1", values)

    both = [threading.Thread(target=keeps_often) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    kept = source.kept("unit 1")
    assert kept is not None
    assert torch.equal(kept["a"], values["a"])
    assert [path.name for path in tmp_path.iterdir()] == ["unit 1.safetensors"]


def test_what_cannot_be_shared_is_named(
    warm: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError, match="CELL: shapes/topk_sae/t42/i42 is of 'topk_sae', which does not work unit by"):
        workshop(warm).find_units(cells()["shapes/topk_sae/t42/i42"], range(3))
    for units in (range(3, 40), range(5, 5)):
        with pytest.raises(UsageError, match=f"--units: {units.start}:{units.stop}; expected some units within 0:32"):
            workshop(warm).find_units(cells()["shapes/elude/t42/i42"], units)
    for words, message in (
        (["shapes/elude/t42/i42", "--units", "0-3"], "--units: got '0-3'; expected FROM:TO"),
        (
            ["shapes/eluded/t42/i42", "--units", "0:3"],
            "CELL: got 'shapes/eluded/t42/i42'; did you mean 'shapes/elude/t42/i42'?",
        ),
    ):
        monkeypatch.setattr("sys.argv", ["eludebench", "decompose", str(SUITE), *words, "--cache", str(warm)])
        with pytest.raises(SystemExit) as done:
            main()
        assert done.value.code == 2
        assert message in capsys.readouterr().err


def test_whoever_finishes_waits_for_those_who_share(tmp_path: Path) -> None:
    said: list[str] = []
    cache, key, order = Cache(tmp_path, said.append), {"what": "work"}, []

    def finish() -> None:
        with cache.unfinished("stage", key) as folder:
            assert folder is not None
            order.append(sorted(path.name for path in folder.glob("part *")))

    with cache.unfinished("stage", key, is_shared=True) as one, cache.unfinished("stage", key, is_shared=True) as two:
        assert one is not None
        assert two == one
        last = threading.Thread(target=finish)
        last.start()
        while not said:
            last.join(0.01)
        (one / "part 1").touch()
        (two / "part 2").touch()
    last.join()
    assert order == [["part 1", "part 2"]]
    assert "another process is at this very work; waiting for it" in said[0]
    assert not one.exists()


def test_whoever_waited_in_vain_is_told_that_nothing_is_left_to_do(tmp_path: Path) -> None:
    said: list[str] = []
    cache, key, seen = Cache(tmp_path, said.append), {"what": "work"}, []

    def second() -> None:
        with cache.unfinished("stage", key) as folder:
            seen.append(folder)

    with cache.unfinished("stage", key) as folder:
        assert folder is not None
        late = threading.Thread(target=second)
        late.start()
        while not said:
            late.join(0.01)
        cache.get("stage", key, lambda into: (into / "result").touch())
    late.join()
    assert seen == [None]


def test_an_error_leaves_what_was_kept_for_the_next(tmp_path: Path) -> None:
    cache, key = Cache(tmp_path, print), {"what": "work"}

    def fails() -> None:
        with cache.unfinished("stage", key) as folder:
            assert folder is not None
            (folder / "part").touch()
            raise FileNotFoundError

    with pytest.raises(FileNotFoundError):
        fails()
    with cache.unfinished("stage", key) as folder:
        assert folder is not None
        assert (folder / "part").exists()
