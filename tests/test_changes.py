"""What a command line changes of a suite: the place of data, weights, a slice, a precision."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bench import UsageError
from bench.changes import Changes
from bench.cli import app
from bench.folder import FolderError, changes_of, check_folder, write_plan
from bench.options import Problems
from bench.registry import Registry

PLUGIN = """
from dataclasses import dataclass
from typing import ClassVar

@dataclass(frozen=True)
class Elsewhere:
    "Images of a folder."
    root: str = ""
    version: ClassVar[int] = 1
    places: ClassVar[tuple[str, ...]] = ("root",)
    def load(self): ...

@dataclass(frozen=True)
class Loaded:
    "A network with weights."
    checkpoint: str = ""
    version: ClassVar[int] = 1
    trained_on_dataset: ClassVar[bool] = False
    is_loaded: ClassVar[bool] = True
    places: ClassVar[tuple[str, ...]] = ("checkpoint",)
    def skeleton(self): ...
    def weights(self): ...
    def assemble(self): ...

@dataclass(frozen=True)
class Counting:
    "Counts tokens."
    n: int = 100
    share: float = 0.5
    scales: ClassVar[dict[str, int]] = {"n": 2}

DATASETS = {"elsewhere": Elsewhere}
BACKBONES = {"loaded": Loaded}
METHODS = {"counting": Counting}
"""

RAW: dict[str, Any] = {
    "sites": [
        {"label": "a", "dataset": "elsewhere", "backbone": "loaded", "module": "m"},
        {"label": "b", "dataset": {"name": "elsewhere", "root": "own"}, "backbone": "embedded_vit", "module": "m"},
    ],
    "methods": [{"name": "counting", "n": 1000, "share": 0.1, "at": {"b": {"n": 10}}}, {"name": "pca"}],
}


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    path = tmp_path_factory.mktemp("changes") / "changing.py"
    path.write_text(PLUGIN, encoding="utf-8")
    return Registry([path])


def changed(changes: Changes, registry: Registry) -> dict[str, Any]:
    problems = Problems("suite")
    found = changes.applied(RAW, registry, problems)
    assert not problems.found
    return found


def test_no_changes_change_nothing(registry: Registry) -> None:
    assert changed(Changes(), registry) == RAW
    assert Changes().as_json() == {}


def test_data_goes_where_a_suite_leaves_its_place_open(registry: Registry) -> None:
    a, b = changed(Changes(data="images"), registry)["sites"]
    assert a["dataset"] == {"name": "elsewhere", "root": "images"}
    assert "caveat" not in a
    assert b == RAW["sites"][1]


def test_another_kind_of_data_set_can_stand_there(registry: Registry) -> None:
    assert changed(Changes(data="elsewhere:x:y"), registry)["sites"][0]["dataset"] == {
        "name": "elsewhere",
        "root": "x:y",
    }
    site = changed(Changes(data="shapes"), registry)["sites"][0]
    assert site["dataset"] == {"name": "shapes"}
    assert site["caveat"] == "shapes in place of the suite's own data"


@pytest.mark.parametrize(
    ("data", "expected"), [("elsewhere", "expected elsewhere:ROOT"), ("shapes:x", "expected shapes")]
)
def test_data_of_the_wrong_form_is_refused(data: str, expected: str, registry: Registry) -> None:
    with pytest.raises(UsageError, match=expected):
        Changes(data=data).applied(RAW, registry, Problems("suite"))


def test_weights_go_to_the_backbone_of_that_name(registry: Registry) -> None:
    a, b = changed(Changes(weights=("loaded=some=where",)), registry)["sites"]
    assert a["backbone"] == {"name": "loaded", "checkpoint": "some=where"}
    assert b["backbone"] == "embedded_vit"


def test_random_weights_are_for_backbones_that_load_some(registry: Registry) -> None:
    a, b = changed(Changes(random_weights=True), registry)["sites"]
    assert a["backbone"] == {"name": "loaded", "checkpoint": "random"}
    assert b["backbone"] == "embedded_vit"


def test_a_slice_takes_a_share_of_the_images_and_of_counts_of_tokens(registry: Registry) -> None:
    found = changed(Changes(scale=0.01), registry)
    assert [site["share"] for site in found["sites"]] == [0.01, 0.01]
    assert found["methods"][0] == {"name": "counting", "n": 10, "share": 0.1, "at": {"b": {"n": 2}}}
    assert found["methods"][1] == RAW["methods"][1]


def test_elude_says_which_of_its_options_count_tokens(registry: Registry) -> None:
    raw = {**RAW, "methods": [{"name": "elude", "top_k": 400_000, "min_cluster_size": 1000, "min_samples": 0}]}
    found = Changes(scale=0.001).applied(raw, registry, Problems("suite"))["methods"][0]
    assert found == {"name": "elude", "top_k": 400, "min_cluster_size": 2, "min_samples": 0}
    share = {**RAW, "methods": [{"name": "elude", "top_k": 0.05}]}
    assert Changes(scale=0.5).applied(share, registry, Problems("suite"))["methods"][0]["top_k"] == 0.05


def test_a_sweep_can_be_left_out_and_that_is_told(registry: Registry) -> None:
    raw = {
        **RAW,
        "tables": ["leaderboard", "sweep"],
        "methods": [{"name": "topk_sae", "k": 5, "sweep": {"epochs": [1]}}],
    }
    found = Changes(no_sweep=True).applied(raw, registry, Problems("suite"))
    assert found["methods"] == [{"name": "topk_sae", "k": 5}]
    assert found["tables"] == ["leaderboard"]
    assert all("not swept" in site["caveat"] for site in found["sites"])


def test_what_fits_nothing_in_the_suite_is_told(registry: Registry) -> None:
    problems = Problems("suite x")
    closed = {**RAW, "sites": [RAW["sites"][1]]}
    Changes(data="images", weights=("loadad=x",)).applied(closed, registry, problems)
    assert problems.found[0].startswith("suite x: --data: got it for a suite that leaves no data open")
    assert "--weights backbone: got 'loadad'" in problems.found[1]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"scale": 0.0}, "--scale: got 0.0; expected a share above 0"),
        ({"scale": 1.5}, "--scale: got 1.5"),
        ({"scale": float("nan")}, "--scale: got nan"),
        ({"weights": ("dinov2",)}, "--weights: got 'dinov2'; expected NAME=PATH"),
        ({"weights": ("a=b",), "random_weights": True}, "--weights: got both"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], expected: str) -> None:
    with pytest.raises(UsageError, match=expected.replace(".", r"\.")):
        Changes(**options)


def test_a_folder_holds_a_run_of_one_set_of_changes(tmp_path: Path) -> None:
    changes = Changes(data="shapes", weights=("a=b",), scale=0.5, precision="bfloat16")
    assert changes_of(tmp_path) == Changes()
    write_plan(tmp_path, {"suite": "x", "changes": changes.as_json(), "sites": []})
    assert changes_of(tmp_path) == changes
    check_folder(tmp_path, {"suite": "x", "changes": changes.as_json(), "sites": []})
    words = re.escape("holds a run with --data shapes --weights a=b --scale 0.5 --precision bfloat16")
    with pytest.raises(FolderError, match=words):
        check_folder(tmp_path, {"suite": "x", "sites": []})


def test_a_folder_holds_a_run_of_one_list_of_images(tmp_path: Path) -> None:
    """Other sites may be added, and a site that waits for its data gets them."""

    def plan(**contents: str) -> dict[str, Any]:
        return {"suite": "x", "sites": [{"label": label, "content": own} for label, own in contents.items()]}

    write_plan(tmp_path, plan(photos="a" * 64, waiting="absent"))
    for same in (plan(photos="a" * 64), plan(photos="a" * 64, waiting="b"), plan(other="c"), plan(photos="absent")):
        check_folder(tmp_path, same)
    with pytest.raises(FolderError, match="read other files at photos: the hash of their list was aaaaaaaaaaaa and is"):
        check_folder(tmp_path, plan(photos="b" * 64))


SUITE = """
[[sites]]
label = "s"
dataset = { name = "shapes", n_train = 200, n_test = 100 }
backbone = { name = "embedded_vit", width = 16, depth = 1, heads = 2, epochs = 1 }
module = "blocks.0.mlp.fc2"

[[methods]]
name = "backbone"
"""


def test_a_slice_is_a_warning_on_top_of_the_table_and_in_every_record(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(SUITE, encoding="utf-8")
    options = ["--out", str(tmp_path / "run"), "--cache", str(tmp_path / "cache"), "--workers", "0", "--quiet"]
    done = CliRunner().invoke(app, ["run", str(path), "--scale", "0.5", *options])
    assert done.exit_code == 0, done.output
    table = (tmp_path / "run" / "leaderboard.md").read_text(encoding="utf-8")
    assert table.startswith("**Warning: these are no results. s: 50 % of the images.**\n")
    with (tmp_path / "run" / "leaderboard.csv").open(encoding="utf-8") as lines:
        assert "warnings" in next(lines).split(",")
        assert all("50 % of the images" in line for line in lines)
    records = [json.loads(line) for line in (tmp_path / "run" / "records.jsonl").read_text().splitlines()]
    assert all("50 % of the images" in json.dumps(record) for record in records if record["metric"] == "top1")
    top1 = next(record for record in records if record["metric"] == "top1")
    assert top1["n"] == 50
    again = CliRunner().invoke(app, ["run", str(path), *options])
    assert again.exit_code != 0
