"""Sweeps: eq. 9 against its text, what stands in the records, one stream for all, and going on after a stop."""

from pathlib import Path
from typing import Any

import pytest

from bench.cells import Cell, Suite
from bench.folder import outcomes, read_plan
from bench.registry import Registry
from bench.runner import run
from bench.stages import StartWorkshop
from bench.suites import SuiteError, load_suite
from bench.sweeps import grid, stacks, sweep_id, trial_ids
from metrics.selection import best, selection_scores
from results.records import COMPLETE, FAILED, SKIPPED

SITE = """
token_seeds = [42, 7]
[[sites]]
label = "shapes"
dataset = { name = "shapes", n_train = 200, n_test = 60 }
backbone = { name = "embedded_vit", width = 16, depth = 1, epochs = 1 }
module = "blocks.0.mlp.fc2"
"""
TOPK = """
[[methods]]
name = "topk_sae"
k = 3
epochs = 2
sweep = { learning_rate = [1e-4, 1e-2], dead_weight = [1e-5, 1e-3] }
"""


def suite_of(tmp_path: Path, methods: str) -> Suite:
    path = tmp_path / "mine.toml"
    path.write_text(SITE + methods, encoding="utf-8")
    return load_suite(str(path), Registry())


def run_of(suite: Suite, tmp_path: Path, folder: str = "run") -> Path:
    run(suite, tmp_path / folder, StartWorkshop((), tmp_path / "cache"), n_lanes=0, is_quiet=True)
    return tmp_path / folder


def test_scores_are_those_of_eq_9() -> None:
    # error 0, 1/2, 1 and active share 1, 0, 1/2 after normalisation
    assert selection_scores([0.2, 0.4, 0.6], [0.5, 0.1, 0.3]) == pytest.approx([0.5, 0.75, 0.25])
    assert best([0.5, 0.75, 0.25]) == 1


def test_what_is_equal_for_all_takes_no_part() -> None:
    assert selection_scores([0.2, 0.4], [0.1, 0.1]) == [1.0, 0.5]
    assert selection_scores([0.3], [0.1]) == [1.0]


def test_diverged_configurations_are_left_out() -> None:
    assert selection_scores([None, 0.2, 0.4], [None, 0.1, 0.1]) == [None, 1.0, 0.5]
    assert best([None, 0.5, 0.5]) == 1
    assert best([None]) is None


def test_the_grid_has_every_combination() -> None:
    assert list(grid({"a": [1, 2], "b": [3, 4]})) == [
        {"a": 1, "b": 3},
        {"a": 1, "b": 4},
        {"a": 2, "b": 3},
        {"a": 2, "b": 4},
    ]


def test_only_what_can_be_stacked_is_stacked(tmp_path: Path) -> None:
    text = TOPK.replace("dead_weight = [1e-5, 1e-3]", "expansion_factor = [2.0, 4.0]")
    variants = suite_of(tmp_path, text).cells[0].method.variants
    assert [variant.options["expansion_factor"] for variant in variants] == [2.0, 4.0, 2.0, 4.0]
    assert stacks(variants) == [[0, 2], [1, 3]]
    elude = '[[methods]]\nname = "elude"\nsweep = { min_cluster_size = [4, 8] }\n'
    assert stacks(suite_of(tmp_path, elude).cells[0].method.variants) == [[0], [1]]


def test_a_sweep_leaves_its_records_and_its_choice(tmp_path: Path) -> None:
    suite = suite_of(tmp_path, TOPK)
    groups = outcomes(run_of(suite, tmp_path))
    first, second = suite.cells
    assert sweep_id(first) == sweep_id(second)
    trials = [groups[one] for one in trial_ids(first)]
    scores = [next(row.value for row in group if row.metric == "sweep_score") for group in trials]
    errors = [next(row.value for row in group if row.metric == "sweep_error") for group in trials]
    chosen = [bool(group[-1].notes["is_chosen"]) for group in trials]
    assert chosen.count(True) == 1
    assert None not in scores + errors
    assert scores[chosen.index(True)] == max(score for score in scores if score is not None)
    # Both token seeds take the variant chosen on the first.
    taken = trials[chosen.index(True)][-1].options
    for cell in suite.cells:
        assert groups[cell.id][-1].text == COMPLETE
        assert dict(groups[cell.id][-1].options) == dict(taken)
    assert groups[first.id][-1].notes["stack"] == 4
    assert groups[second.id][-1].notes["stack"] == 1
    (planned,) = read_plan(tmp_path / "run")["sweeps"]
    assert planned["swept"] == ["learning_rate", "dead_weight"]
    assert planned["trials"] == trial_ids(first)


def test_the_same_command_again_adds_nothing(tmp_path: Path) -> None:
    suite = suite_of(tmp_path, TOPK)
    ledger = run_of(suite, tmp_path) / "records.jsonl"
    before = ledger.read_bytes()
    run_of(suite, tmp_path)
    assert ledger.read_bytes() == before


def test_an_interrupted_sweep_goes_on_to_the_same_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suite = suite_of(tmp_path, TOPK)
    whole = outcomes(run_of(suite, tmp_path / "whole"))
    monkeypatch.setattr("methods.training.KEEP_SECONDS", 0.0)
    steps: list[int] = []

    def interrupted(*args: Any) -> None:
        steps.append(len(steps))
        if len(steps) == 3:  # in the second of two epochs
            raise KeyboardInterrupt
        original(*args)

    from methods import training

    original = training.step
    monkeypatch.setattr("methods.training.step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_of(suite, tmp_path / "cut")
    assert list((tmp_path / "cut" / "cache" / "unfinished" / "sweeps").glob("*/*/training-0-4.safetensors"))
    steps.append(-1)  # never three again
    again = outcomes(run_of(suite, tmp_path / "cut"))
    # 400 tokens are two steps an epoch: two before the cut, the cut one, two after it; then the other token seed's four
    assert len([one for one in steps if one >= 0]) == 3 + 2 + 4
    assert not list((tmp_path / "cut" / "cache" / "unfinished").glob("*/*"))
    for key, group in whole.items():
        assert [(row.metric, row.value) for row in again[key]] == [(row.metric, row.value) for row in group]


def test_a_diverging_variant_is_recorded_and_harms_no_other(tmp_path: Path) -> None:
    suite = suite_of(tmp_path, TOPK.replace("1e-2]", "1e38]"))
    groups = outcomes(run_of(suite, tmp_path))
    trials = [groups[one] for one in trial_ids(suite.cells[0])]
    assert [group[-1].text for group in trials] == [COMPLETE, COMPLETE, FAILED, FAILED]
    assert "step" in str(trials[2][-1].reason)
    assert "lower learning_rate (1e+38)" in str(trials[2][-1].reason)
    assert all(groups[cell.id][-1].text == COMPLETE for cell in suite.cells)


def test_where_all_diverge_the_cells_fail_with_the_reason(tmp_path: Path) -> None:
    suite = suite_of(tmp_path, TOPK.replace("[1e-4, 1e-2]", "[1e38]"))
    groups = outcomes(run_of(suite, tmp_path))
    for cell in suite.cells:
        assert groups[cell.id][-1].text == FAILED
        assert "none of 2 variants found anything" in str(groups[cell.id][-1].reason)


def test_where_the_method_cannot_be_applied_sweep_and_cells_are_skipped_and_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("bench.stages.Workshop.lacking", lambda self, cell: "needs labels")
    suite = suite_of(tmp_path, TOPK)
    run(suite, tmp_path / "run", StartWorkshop((), tmp_path / "cache"), n_lanes=0)
    assert {key: group[-1].text for key, group in outcomes(tmp_path / "run").items()} == {
        cell.id: SKIPPED for cell in suite.cells
    }
    said = [line[9:] for line in capsys.readouterr().err.splitlines()]
    assert said[-5:-2] == [
        "3/7 shapes/topk_sae: sweep of 4 skipped: needs labels",
        "4/7 shapes/topk_sae/t42/i42 skipped: needs labels",
        "5/7 shapes/topk_sae/t7/i42 skipped: needs labels",
    ]


def test_a_sweep_of_another_shape_is_another_cell(tmp_path: Path) -> None:
    def first(text: str) -> Cell:
        return suite_of(tmp_path, text).cells[0]

    assert first(TOPK).id != first(TOPK.replace("1e-2", "2e-2")).id
    assert first(TOPK).id != first(TOPK.split("sweep")[0]).id
    assert first(TOPK).id == first(TOPK).id


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sweep = { learning_rate = 1e-4 }", r"sweep: got .*; expected lists of values"),
        ("sweep = { learning_rate = [] }", r"sweep: got .*; expected lists of values"),
        (
            "sweep = { learning_rat = [1e-4] }",
            r"option: got 'learning_rat'; did you mean 'learning_rate'",
        ),
        ("sweep = { epochs = [2, 3] }", r"sweep.epochs: stands among the options too"),
        ("sweep = { learning_rate = [1e-4, 1e-4] }", r"expected distinct values"),
        ("sweep = { learning_rate = [-1.0] }", r"learning_rate: got -1.0; expected a positive number"),
    ],
)
def test_bad_sweeps_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SuiteError, match=message):
        suite_of(tmp_path, TOPK.split("sweep")[0] + text)


def test_virtual_units_cannot_be_swept(tmp_path: Path) -> None:
    text = '[[methods]]\nname = "dnrwcv"\nsweep = { threshold = [15.0, 20.0] }\n'
    with pytest.raises(SuiteError, match="'dnrwcv' has virtual units; expected an explicit method"):
        suite_of(tmp_path, text)


def test_an_option_of_one_site_cannot_be_swept_too(tmp_path: Path) -> None:
    text = TOPK + "at.shapes = { learning_rate = 0.5 }\n"
    with pytest.raises(SuiteError, match=r"sweep.learning_rate: stands among the options too"):
        suite_of(tmp_path, text)


def test_the_table_of_sweeps_needs_a_sweep(tmp_path: Path) -> None:
    text = 'tables = ["sweep"]\n' + SITE + '[[methods]]\nname = "backbone"\n'
    (tmp_path / "mine.toml").write_text(text, encoding="utf-8")
    with pytest.raises(SuiteError, match="got 'sweep' in a suite that sweeps nothing"):
        load_suite(str(tmp_path / "mine.toml"), Registry())


def test_a_variant_that_does_not_fit_harms_no_other(tmp_path: Path) -> None:
    text = TOPK.replace("k = 3\n", "").replace("dead_weight = [1e-5, 1e-3]", "k = [3, 100000]")
    suite = suite_of(tmp_path, text)
    groups = outcomes(run_of(suite, tmp_path))
    trials = [groups[one] for one in trial_ids(suite.cells[0])]
    assert [group[-1].text for group in trials] == [COMPLETE, FAILED, COMPLETE, FAILED]
    assert "k: got 100000; expected fewer than the 128 atoms" in str(trials[1][-1].reason)
    assert all(groups[cell.id][-1].text == COMPLETE for cell in suite.cells)


NANS = """
from dataclasses import dataclass
from methods.controls import Backbone

@dataclass(frozen=True)
class Nans(Backbone):
    factor: float = 1.0

    def decode(self, decomposition, codes):
        return codes / (2.0 - self.factor) * (float("nan") if self.factor == 2.0 else 1.0)

METHODS = {"nans": Nans}
"""


def test_a_variant_whose_outputs_are_not_finite_is_left_out(tmp_path: Path) -> None:
    plugin = tmp_path / "nans.py"
    plugin.write_text(NANS, encoding="utf-8")
    path = tmp_path / "mine.toml"
    path.write_text(SITE + '[[methods]]\nname = "nans"\nsweep = { factor = [2.0, 1.0] }\n', encoding="utf-8")
    suite = load_suite(str(path), Registry([plugin]))
    run(suite, tmp_path / "run", StartWorkshop((plugin,), tmp_path / "cache"), n_lanes=0, is_quiet=True)
    groups = outcomes(tmp_path / "run")
    broken, chosen = (groups[one] for one in trial_ids(suite.cells[0]))
    assert "its outputs are not finite" in str(broken[-1].reason)
    assert chosen[-1].notes["is_chosen"]
    assert all(groups[cell.id][-1].options["factor"] == 1.0 for cell in suite.cells)


def test_a_swept_follower_chooses_at_the_first_seeds(tmp_path: Path) -> None:
    plugin = tmp_path / "follower.py"
    plugin.write_text(
        "from dataclasses import dataclass\nfrom methods.controls import RandomPartition\n\n"
        "@dataclass(frozen=True)\nclass Swept(RandomPartition):\n    level: int = 0\n\nMETHODS = {'swept': Swept}\n",
        encoding="utf-8",
    )
    methods = '[[methods]]\nname = "elude"\n[[methods]]\nname = "swept"\nsweep = { level = [0, 1] }\n'
    path = tmp_path / "mine.toml"
    path.write_text(SITE + methods, encoding="utf-8")
    cells = [cell for cell in load_suite(str(path), Registry([plugin])).cells if cell.label == "swept"]
    assert len(cells) == 2
    assert len({sweep_id(cell) for cell in cells}) == 1


def test_other_metrics_find_the_same_sweep(tmp_path: Path) -> None:
    run_of(suite_of(tmp_path, TOPK), tmp_path, "one")
    path = tmp_path / "mine.toml"
    path.write_text('metrics = ["r2"]\n' + SITE + TOPK, encoding="utf-8")
    suite = load_suite(str(path), Registry())
    groups = outcomes(run_of(suite, tmp_path, "two"))
    assert all(groups[one][-1].text == COMPLETE for one in trial_ids(suite.cells[0]))
