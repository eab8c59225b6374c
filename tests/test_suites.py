"""Suites: what they become, and every way in which one can be wrong, told all at once before any work."""

from pathlib import Path

import pytest

from bench import UnknownNameError, UsageError
from bench.registry import KINDS, Registry, shipped_suites, suite_path
from bench.runner import selected
from bench.suites import load_suite
from bench.tasks import tasks_for
from results.specs import ABLATIONS

GOOD = """
description = "one"

[[sites]]
dataset = { name = "shapes", n_train = 60, n_test = 30 }
backbone = { name = "embedded_vit", width = 12, depth = 1, heads = 2, epochs = 1 }
module = "blocks.0.mlp.fc2"

[[methods]]
name = "elude"

[[methods]]
name = "random_partition"
"""

assert ABLATIONS.published is not None
PAPERS = ABLATIONS.published


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("name", sorted(shipped_suites()))
def test_shipped_suites_load(name: str) -> None:
    suite = load_suite(name, Registry())
    assert suite.name == name
    assert suite.description
    assert len({cell.id for cell in suite.cells}) == len(suite.cells)
    unshipped = {"checkpoint"} | ({"planted_truth"} if name != "planted" else set())  # of a folder, a planted site
    asked = {cell.method.entry.name for cell in suite.cells}
    learned = {name for name in Registry().tables["methods"] if name.endswith("_sae")} | {"transcoder"}
    only = {"sweep": learned, "ablations": {"elude", "random_partition"}}
    assert asked == only.get(name, set(Registry().tables["methods"]) - unshipped)


def test_cells_that_decompose_again_or_are_timed_are_evaluated_one_by_one() -> None:
    for name, flag in (("properties", "runs_apart"), ("efficiency", "runs_alone")):
        cells = load_suite(name, Registry()).cells
        assert all(getattr(cell, flag) for cell in cells)
        evaluations = [task for task in tasks_for(cells) if task.payload[0] == "evaluate"]
        assert [len(task.payload[1]) for task in evaluations] == [1] * len(cells)
        assert all(task.is_alone == (name == "efficiency") for task in evaluations)
    quick = [task for task in tasks_for(load_suite("quick", Registry()).cells) if task.payload[0] == "evaluate"]
    assert [len(task.payload[1]) for task in quick] == [16, 16]
    assert not any(task.is_alone for task in quick)


def test_the_sweep_is_that_of_the_paper() -> None:
    suite = load_suite("sweep", Registry())
    sizes = {cell.label: len(cell.method.variants) for cell in suite.cells}
    assert sum(size for label, size in sizes.items() if not label.startswith("transcoder")) == 99
    assert sizes["transcoder"] == sizes["transcoder_d_in"] == sizes["vanilla_sae"] == sizes["jumprelu_sae"] == 27
    rates = {variant.options["learning_rate"] for cell in suite.cells for variant in cell.method.variants}
    assert rates == {1e-4, 5e-4, 1e-3}
    assert {cell.method.options["epochs"] for cell in suite.cells} == {50}
    assert {cell.method.options["k"] for cell in suite.cells if "k" in cell.method.options} == {0, 20}


def test_ablations_change_one_choice_of_quick_s_elude_at_a_time() -> None:
    suite, quick = load_suite("ablations", Registry()), load_suite("quick", Registry())
    baseline = next(cell for cell in quick.cells if cell.label == "elude").method.options
    changed = {
        cell.label: {name for name, value in cell.method.options.items() if value != baseline[name]}
        for cell in suite.cells
        if cell.method.entry.name == "elude"
    }
    assert changed.pop("elude") == set()
    assert {len(names) for names in changed.values()} == {1}
    assert suite.labels[0] == "random_partition"
    assert set(PAPERS.keys) <= set(suite.labels)


def test_full_has_a_star_of_seeds() -> None:
    suite = load_suite("full", Registry())
    seeds = {(cell.token_seed, cell.init_seed) for cell in suite.cells}
    assert seeds == {(42, 42), (123, 42), (999, 42), (42, 7), (42, 1024)}
    assert {cell.id for cell in load_suite("quick", Registry()).cells} < {cell.id for cell in suite.cells}


def test_cells_know_leaders_references_and_all_options(tmp_path: Path) -> None:
    elude, random = load_suite(written(tmp_path, GOOD), Registry()).cells
    assert random.leader is not None
    assert random.leader.id == elude.id
    assert random.is_reference
    assert not elude.is_reference
    assert elude.method.options["min_cluster_size"] == 8
    assert elude.name == "shapes/elude/t42/i42"


def test_identity_is_content(tmp_path: Path) -> None:
    first = load_suite(written(tmp_path, GOOD), Registry()).cells[0].id
    relabelled = GOOD.replace('name = "elude"', 'name = "elude"\nlabel = "ours"').replace(
        'name = "random_partition"', 'name = "random_partition"\nlike = "ours"'
    )
    assert load_suite(written(tmp_path, relabelled), Registry()).cells[0].id == first
    spelt_out = GOOD.replace('name = "elude"', 'name = "elude"\nmin_cluster_size = 8\ntop_k = 0.05')
    assert load_suite(written(tmp_path, spelt_out), Registry()).cells[0].id == first
    changed = GOOD.replace('name = "elude"', 'name = "elude"\nmin_cluster_size = 9')
    cells = load_suite(written(tmp_path, changed), Registry()).cells
    assert cells[0].id != first
    assert cells[1].id != load_suite(written(tmp_path, GOOD), Registry()).cells[1].id


def test_options_can_differ_at_a_site(tmp_path: Path) -> None:
    text = GOOD.replace('name = "elude"', 'name = "elude"\nmin_cluster_size = 9\nat.shapes = { min_cluster_size = 4 }')
    assert load_suite(written(tmp_path, text), Registry()).cells[0].method.options["min_cluster_size"] == 4


PROBLEMS = {
    "unknown key": ("module =", "modul =", r"sites\[0\]\.modul: key: got 'modul'; did you mean 'module'\?"),
    "unknown suite key": ("description", "descripton", "descripton: key: got 'descripton'; did you mean 'description'"),
    "unknown method": ('"elude"', '"eludee"', r"methods\[0\]: method: got 'eludee'; did you mean 'elude'\?"),
    "unknown data set": ('"shapes"', '"shape"', r"sites\[0\]\.dataset: dataset: got 'shape'; did you mean 'shapes'"),
    "unknown backbone": (
        '"embedded_vit"',
        '"vit"',
        r"backbone: got 'vit'.*expected one of augreg_vit_b16, .*, embedded_features, embedded_vit",
    ),
    "unknown option": ('name = "elude"', 'name = "elude"\nmin_cluster = 5', "did you mean 'min_cluster_size'"),
    "unknown metric": ("description", 'metrics = ["r3"]\ndescription', "metrics: metric: got 'r3'; did you mean 'r2'"),
    "unknown module": ("mlp.fc2", "mlp.fc3", "module: got 'blocks.0.mlp.fc3'; did you mean 'blocks.0.mlp.fc2'"),
    "no linear layer": ("blocks.0.mlp.fc2", "blocks.0.norm1", "'blocks.0.norm1', which is a LayerNorm; expected a lin"),
    "wrong type": ('name = "elude"', 'name = "elude"\ntop_k = "5"', "top_k: got '5'; expected a number"),
    "wrong choice": ('name = "elude"', 'name = "elude"\nselection = "best"', "expected one of 'leaf', 'eom'"),
    "wrong value": (
        'name = "elude"',
        'name = "elude"\nmin_cluster_size = 1',
        "min_cluster_size: got 1; expected at least 2",
    ),
    "wrong option of data": ("n_train = 60", "n_train = 0", r"dataset\.n_train: received 0; expected at least 1"),
    "twice": ('name = "random_partition"', 'name = "elude"', "label 'elude' is used twice"),
    "no methods": ("[[methods]]", "[[other]]", "methods: got none; expected at least one"),
    "seeds": (
        "description",
        "token_seeds = [1, 1]\ndescription",
        r"token_seeds: got \[1, 1\]; expected a list of distinct",
    ),
    "leader": (
        '"random_partition"',
        '"random_partition"\nlike = "nobody"',
        "copies its sizes from another method: like: got 'nobody'; expected one of elude",
    ),
    "tokens": ("module =", "tokens_per_image = 0\nmodule =", "tokens_per_image: got 0; expected at least 1"),
    "site of options": (
        'name = "elude"',
        'name = "elude"\nat.shape = { rho = 0.5 }',
        "site: got 'shape'; did you mean 'sh",
    ),
    "at": ('name = "elude"', 'name = "elude"\nat = 3', r"at: got 3; expected options per site; write at\.SITE"),
    "at a site": ('name = "elude"', 'name = "elude"\nat.shapes = 3', "expected options per site"),
    "label": ('name = "elude"', 'name = "elude"\nlabel = 7', "label: got 7; expected a text"),
    "no number": ('name = "elude"', 'name = "elude"\ntop_k = nan', "top_k: got nan; expected a number"),
    "no network": ("width = 12", "mlp_ratio = -1.0, width = 12", "backbone: .*expected options that make a network"),
    "metrics twice": ("description", 'metrics = ["r2", "r2"]\ndescription', "metrics: got .*; expected distinct names"),
    "no metrics": (
        "description",
        "metrics = []\ndescription",
        r"metrics: got \[\]; expected distinct names, at least one",
    ),
    "no TOML": ("[[sites]]", "[[sites]", "cannot be read"),
}


@pytest.mark.parametrize("what", PROBLEMS)
def test_what_is_wrong_is_named(tmp_path: Path, what: str) -> None:
    old, new, message = PROBLEMS[what]
    assert old in GOOD
    with pytest.raises(UsageError, match=message) as caught:
        load_suite(written(tmp_path, GOOD.replace(old, new)), Registry())
    assert all(line.startswith("suite ") for line in str(caught.value).splitlines())


def test_all_problems_come_at_once(tmp_path: Path) -> None:
    text = GOOD.replace("mlp.fc2", "mlp.fc3").replace('"elude"', '"eludee"').replace("description", "descripton")
    with pytest.raises(UsageError) as caught:
        load_suite(written(tmp_path, text), Registry())
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert [any(word in line for line in lines) for word in ("fc3", "eludee", "descripton")] == [True] * 3


def test_unknown_suites_suggest_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"suite: got 'qick'; did you mean 'quick'\?"):
        suite_path("qick")


def test_only_narrows_and_says_what_does_not_fit() -> None:
    cells = load_suite("full", Registry()).cells
    some = selected(cells, ["method=elude", "token_seed=42", "token_seed=999", "init_seed=42", "site=photos"])
    assert [cell.name for cell in some] == ["photos/elude/t42/i42", "photos/elude/t999/i42"]
    for pair, message in {
        "method": "expected key=value",
        "metod=elude": "did you mean 'method'",
        "method=eludee": "--only method: got 'eludee'; did you mean 'elude'",
    }.items():
        with pytest.raises(UsageError, match=message):
            selected(cells, [pair])


def test_every_built_in_loads_and_says_what_it_is() -> None:
    registry = Registry()
    for kind in KINDS:
        for name, entry in registry.tables[kind].items():
            assert registry.find(kind, name).load() is not None
            assert entry.summary
            assert entry.owner == "eludebench"


def test_plugins_come_through_the_same_door(tmp_path: Path) -> None:
    plugin = tmp_path / "mine.py"
    plugin.write_text(
        "from methods.controls import Backbone\nclass Mine(Backbone):\n    'Mine.'\nMETHODS = {'mine': Mine}\n"
    )
    registry = Registry([plugin])
    entry = registry.find("methods", "mine")
    assert (entry.owner, entry.summary) == ("mine.py", "Mine.")
    suite = load_suite(written(tmp_path, GOOD), registry)
    assert suite.labels == ("elude", "random_partition", "mine")
    before = entry.identity
    plugin.write_text(plugin.read_text() + "# changed\n")
    assert Registry([plugin]).find("methods", "mine").identity != before


def test_a_plugin_method_takes_its_options_from_the_suite(tmp_path: Path) -> None:
    plugin = tmp_path / "mine.py"
    plugin.write_text("from methods.elude import ELUDe\nclass Mine(ELUDe):\n    'Mine.'\nMETHODS = {'mine': Mine}\n")
    text = GOOD + '[[methods]]\nname = "mine"\nlabel = "ours"\nmin_cluster_size = 5\n'
    suite = load_suite(written(tmp_path, text), Registry([plugin]))
    assert suite.labels == ("elude", "random_partition", "ours")
    assert suite.cells[-1].method.options["min_cluster_size"] == 5


def test_a_plugin_data_set_that_lacks_something_is_named(tmp_path: Path) -> None:
    plugin = tmp_path / "mine.py"
    plugin.write_text(
        "import dataclasses\n@dataclasses.dataclass(frozen=True)\nclass Mine:\n    'Mine.'\nDATASETS = {'mine': Mine}\n"
    )
    text = GOOD.replace('{ name = "shapes", n_train = 60, n_test = 30 }', '"mine"')
    with pytest.raises(UsageError, match=r"'mine' of mine\.py has no version, load; expected them"):
        load_suite(written(tmp_path, text), Registry([plugin]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("METHODS = {'elude': object}", "methods 'elude': claimed by eludebench and by mine.py"),
        ("1 / 0", r"does not import \(ZeroDivisionError: division by zero\)"),
        ("METHODS = [int]", "METHODS of .* is .*; expected a table from name to class"),
        ("METHODS = {'mine': 3}", "METHODS of .* is .*; expected a table from name to class"),
        ("x = 1", "registers nothing; expected a table such as METHODS"),
    ],
)
def test_bad_plugins_are_named(tmp_path: Path, text: str, message: str) -> None:
    plugin = tmp_path / "mine.py"
    plugin.write_text(text)
    with pytest.raises(UsageError, match=message):
        Registry([plugin])


def test_missing_plugins_and_names_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--plugin: got .*, which is no file"):
        Registry([tmp_path / "none.py"])
    with pytest.raises(UnknownNameError, match=r"method: got 'xyz'; expected one of archetypal_sae, backbone"):
        Registry().find("methods", "xyz")
