"""Two runs or methods side by side: what is paired, what is equal, what is refused, and what is said first."""

import csv
import io
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from made_runs import POOL, TOKEN_SEEDS, a_run, ending, group, judged_entry, plan_of, row, verdict, write_run
from scipy.stats import ttest_rel
from typer.testing import CliRunner

from bench import UsageError
from bench.cli import app
from bench.comparing import compared_methods, compared_runs
from results.compare import Difference, Side, differences, paired_interval
from results.compared import Compared, equality, render_compared

ROOT = Path(__file__).resolve().parent.parent
numbers = st.floats(-100, 100).map(lambda value: round(value, 3))


def side(label: str, values: list[float | None]) -> Side:
    """A method with one value of `r2` for each token seed."""
    cells = {str(seed): f"{label}{seed}" for seed in range(len(values))}
    groups = {
        f"{label}{seed}": group(f"{label}{seed}", label, seed, {"r2": value}) for seed, value in enumerate(values)
    }
    return Side("s", label, {"token_seeds": cells}, groups)


def only(found: list[Difference]) -> Difference:
    (one,) = found
    return one


# Pairing


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(numbers, numbers), min_size=2, max_size=6))
def test_the_paired_interval_is_that_of_the_paired_t_test(pairs: list[tuple[float, float]]) -> None:
    ours, theirs = ([pair[at] for pair in pairs] for at in (0, 1))
    assume(max(b - a for a, b in pairs) - min(b - a for a, b in pairs) > 0.01)  # scipy has no interval of width 0
    one = only(differences(side("a", [*ours]), side("b", [*theirs])))
    expected = ttest_rel(theirs, ours).confidence_interval(0.95)
    assert one.low is not None
    assert one.high is not None
    assert math.isclose(one.low, expected.low, rel_tol=1e-9, abs_tol=1e-9)
    assert math.isclose(one.high, expected.high, rel_tol=1e-9, abs_tol=1e-9)
    assert one.how == f"paired t over {len(pairs)} token seeds"


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=4))
def test_the_other_way_round_is_the_same_with_another_sign(pairs: list[tuple[float, float]]) -> None:
    a, b = side("a", [one for one, _ in pairs]), side("b", [one for _, one in pairs])
    there, back = only(differences(a, b)), only(differences(b, a))
    assert there.difference == pytest.approx(-(back.difference or 0.0), abs=1e-12)
    assert (there.a, there.b) == (back.b, back.a)
    if there.low is not None and there.high is not None:
        assert (back.low, back.high) == pytest.approx((-there.high, -there.low), abs=1e-9)
    assert there.is_equal == back.is_equal == (a.cells == b.cells or [x for x, _ in pairs] == [y for _, y in pairs])


def test_a_shift_under_every_seed_has_an_interval_of_width_zero() -> None:
    assert paired_interval([2.0, 2.0, 2.0]) == (2.0, 2.0)


def test_one_seed_is_not_paired_and_keeps_both_intervals() -> None:
    ends = {"interval": "bootstrap over images"}
    a = Side(
        "s",
        "a",
        {"token_seeds": {"1": "a"}},
        {"a": [one := row("a", "a", 1, low=49.0, high=51.0, **ends), ending(one)]},
    )
    b = Side("s", "b", {"token_seeds": {"1": "b"}}, {"b": [two := row("b", "b", 1, value=60.0), ending(two)]})
    found = only(differences(a, b))
    assert (found.difference, found.low, found.high, found.how) == (10.0, None, None, "not paired")
    assert (found.a_interval, found.b_interval) == ((49.0, 51.0), None)
    text = render_compared(Compared("A run", "B run", [], [found]), "md")
    assert "A [49, 51]" in text
    assert "| not paired |" in text


def test_only_seeds_that_both_have_are_taken_and_the_others_are_named() -> None:
    found = only(differences(side("a", [1.0, None, 3.0]), side("b", [2.0, 5.0, 5.0])))
    assert found.seeds == ("0", "2")
    assert (found.a, found.b, found.difference) == (2.0, 3.5, 1.5)
    assert found.reason == "token seed 1: A: no atom"
    assert (found.n_a, found.n_b) == (20, 20)


def test_what_is_nowhere_is_a_dash_with_its_reason() -> None:
    broken = [ending(row("b0", "b", 0), "failed", "RuntimeError: boom")]
    b = Side("s", "b", {"token_seeds": {"0": "b0"}}, {"b0": broken})
    found = only(differences(side("a", [1.0]), b))
    assert (found.difference, found.reason) == (None, "B: failed: RuntimeError: boom")
    text = render_compared(Compared("x", "y", [], [found]), "md")
    assert "— (a)" in text
    assert "- (a) B: failed: RuntimeError: boom\n" in text
    assert "nan" not in text.lower()


def test_other_units_are_not_subtracted() -> None:
    a, b = side("a", [1.0]), side("b", [1.0])
    b = replace(b, groups={key: [replace(rows[0], unit="1"), rows[1]] for key, rows in b.groups.items()})
    found = only(differences(a, b))
    assert (found.difference, found.is_refused) == (None, True)
    assert found.reason == "not compared: the units differ (% and 1)"


# Runs


def test_equal_runs_are_said_to_be_equal_bit_for_bit(tmp_path: Path) -> None:
    values: dict[str, list[float | None]] = {"x": [1.0, 2.0, 3.0], "y": [4.0, None, 6.0]}
    a = a_run(tmp_path / "a", values)
    b = a_run(tmp_path / "b", values, time="2026-02-02T00:00:00+00:00", seconds=9.0)
    found = compared_runs(a, b)
    assert equality(found) == "Equal, bit for bit: both have the same 12 records, times aside."
    assert found.warnings == []
    assert "| x" not in render_compared(found, "md")


def test_one_bit_is_told(tmp_path: Path) -> None:
    a = a_run(tmp_path / "a", {"x": [1.0, 2.0, 3.0], "y": [4.0, 5.0, 6.0]})
    b = a_run(tmp_path / "b", {"x": [1.0, math.nextafter(2.0, 3.0), 3.0], "y": [4.0, 5.0, 6.0]})
    found = compared_runs(a, b)
    assert [one.is_equal for one in found.differences] == [False, True]
    assert equality(found) == "1 of 2 numbers are equal, bit for bit."
    assert "| x" in render_compared(found, "md")


def test_equal_numbers_of_other_versions_are_both_said(tmp_path: Path) -> None:
    a = a_run(tmp_path / "a", {"x": [1.0, 2.0, 3.0]})
    b = a_run(tmp_path / "b", {"x": [1.0, 2.0, 3.0]}, versions={"torch": "2.15"}, commit="c2")
    found = compared_runs(a, b)
    assert equality(found) == "All 1 numbers are equal, bit for bit; the records differ in: commit, versions."
    assert found.warnings == ["commit: c1 in A, c2 in B", "version of torch: 2.9 in A, 2.15 in B"]


CHANGES: list[tuple[dict[str, Any], str]] = [
    ({"device": "cuda: H200"}, "device: cpu in A, cuda: H200 in B"),
    ({"dirty": True}, "changes of the checkout: false in A, true in B"),
    ({"suite": "other"}, "suite: tiny in A, other in B"),
    ({"dataset": "photos"}, "s: data set: shapes in A, photos in B"),
    ({"backbone": "resnet"}, "s: backbone: vit in A, resnet in B"),
    ({"module": "blocks.1"}, "s: module: blocks.0 in A, blocks.1 in B"),
    ({"site_options": {"dataset": {"n_train": 6}}}, "s: option dataset.n_train: 5 in A, 6 in B"),
    ({"options": {"k": 32}}, "s/x: option k: 20 in A, 32 in B"),
    ({"options": {"k": 20, "tied": True}}, 's/x: option tied: not set in A, true in B'),
    ({"method": "z"}, "s/x: method: x in A, z in B"),
    ({"versions": {"torch": "2.9", "timm": "1"}}, "version of timm: not set in A, 1 in B"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "said"), CHANGES, ids=lambda one: str(next(iter(one))) if one else "")
def test_what_is_not_the_same_is_named(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    a = a_run(tmp_path / "a", {"x": [1.0, 2.0, 3.0]})
    groups = [
        [replace(one, **changes) for one in group(f"x{seed}", "x", seed, {"r2": float(seed)})] for seed in TOKEN_SEEDS
    ]
    b = write_run(tmp_path / "b", plan_of(["x"]), groups)
    found = compared_runs(a, b)
    assert found.warnings == [said]
    text = render_compared(found, "md")
    assert text.index("Not the same on both sides") < len(text)


def test_plans_that_differ_are_named(tmp_path: Path) -> None:
    a = a_run(tmp_path / "a", {"x": [1.0, 2.0, 3.0], "y": [1.0, 1.0, 1.0]})
    plan = plan_of(["x", "z"], seeds=(1, 2), changes={"scale": 0.1})
    plan["sites"][0]["content"] = "d" * 64
    b = write_run(tmp_path / "b", plan, [group("x1", "x", 1, {"r2": 1.0, "l0": 3.0})])
    assert compared_runs(a, b).warnings == [
        "changes of the suite: no changes in A, --scale 0.1 in B",
        "token seeds: 1, 2, 3 in A, 1, 2 in B; what both have is compared",
        "s: hash of the list of images: cccccccccccc in A, dddddddddddd in B",
        "in A alone: s/y",
        "in B alone: s/z",
        "measured in B alone: l0",
    ]


# Judges


def judged(folder: Path, rate: float, pool: str = POOL) -> Path:
    plan = plan_of(["x", "y"], judged=[judged_entry(["x", "y"], pool)])
    groups = [group(f"{label}{seed}", label, seed, {"r2": 1.0}) for label in "xy" for seed in TOKEN_SEEDS]
    return write_run(folder, plan, [*groups, verdict("x", rate, pool), verdict("y", 100 - rate, pool)])


def test_win_rates_of_one_pool_stand_beside_each_other_unpaired(tmp_path: Path) -> None:
    found = compared_runs(judged(tmp_path / "a", 40.0), judged(tmp_path / "b", 60.0), metrics=["proxy_win_rate"])
    assert [(one.difference, one.how) for one in found.differences] == [(20.0, "not paired"), (-20.0, "not paired")]


def test_win_rates_of_other_pools_are_refused(tmp_path: Path) -> None:
    a, b = judged(tmp_path / "a", 40.0), judged(tmp_path / "b", 60.0, "b" * 32)
    rates = [one for one in compared_runs(a, b).differences if one.metric == "proxy_win_rate"]
    assert all(one.difference is None and one.is_refused for one in rates)
    said = "not compared: the pools differ (aaaaaaaaaaaa and bbbbbbbbbbbb), and a rate is relative to the methods of"
    assert {one.reason for one in rates} == {f"{said} its pool"}
    with pytest.raises(UsageError, match=r"--metric: proxy_win_rate at s: not compared: the pools differ .*; leave it"):
        compared_runs(a, b, metrics=["proxy_win_rate"])


# Two methods, and what is refused


def test_two_methods_are_compared_at_every_site_that_has_both(tmp_path: Path) -> None:
    a_run(tmp_path, {"x": [1.0, 2.0, 3.0], "y": [2.0, 4.0, 6.0]})
    plan = plan_of(["x", "y"]) | {"init_seeds": [7, 8]}
    first = [cell for cell in plan["cells"] if cell["token_seed"] == 1]
    plan["cells"] += [cell | {"id": f"{cell['label']}8", "init_seed": 8} for cell in first]
    write_run(tmp_path, plan, [group("x8", "x", 1, {"r2": 5.0}), group("y8", "y", 1, {"r2": 5.5})])
    one = only([*compared_methods(tmp_path, "x", "y").differences])
    assert (one.site, one.label, one.how, one.difference) == ("s", "x / y", "paired t over 3 token seeds", 2.0)
    over_inits = only([*compared_methods(tmp_path, "s/x", "y", over="init_seeds").differences])
    assert (over_inits.seeds, over_inits.difference, over_inits.how[-10:]) == (("7", "8"), 0.75, "init seeds")
    assert compared_methods(tmp_path, "x", "y").sameness is None


def test_two_sites_may_be_compared_and_that_is_said() -> None:
    found = compared_methods(ROOT / "results" / "quick", "shapes/elude", "photos/elude", metrics=["ms_score"])
    assert only([*found.differences]).site == "shapes / photos"
    assert "shapes and photos: data set: shapes in A, photos in B" in found.warnings


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["elud", "pca", "--run", "{quick}"], "A: got 'elud'; expected the label of a method, or SITE/LABEL; did you"),
        (["elude", "pca", "--run", "{quick}", "--metric", "r3"], "--metric: got 'r3'; expected a metric of both sides"),
        (["elude", "pca", "--run", "{quick}", "--over", "seeds"], "--over: got 'seeds'; expected one of token-seeds"),
        (["{quick}", "{quick}", "--format", "html"], "--format: got 'html'; expected one of md, csv, json"),
        (["{quick}", "{nowhere}"], "B: got {nowhere}, which holds no run.json; expected the folder of a run"),
        (["topk_sae", "elude"], "A: got topk_sae, which holds no run.json; expected the folder of a run"),
        (["topk_sae", "elude"], "two methods of one run need --run DIR"),
        (["{empty}", "{quick}"], "A: got {empty}, a run without records; expected some to compare"),
        (["{quick}", "{planted}"], "have no method at one site in common, by their labels"),
    ],
    ids=lambda one: one[0] if isinstance(one, list) else "",
)  # fmt: skip
def test_what_cannot_be_compared_says_why(words: list[str], said: str, tmp_path: Path) -> None:
    places = {
        "quick": ROOT / "results" / "quick",
        "planted": ROOT / "results" / "planted",
        "nowhere": tmp_path / "nowhere",
        "empty": write_run(tmp_path / "empty", plan_of(["x"]), []),
    }
    done = CliRunner().invoke(app, ["compare", *(word.format(**places) for word in words)])
    assert isinstance(done.exception, UsageError)
    assert said.format(**places) in str(done.exception)


def test_csv_and_json_have_everything_at_full_precision(tmp_path: Path) -> None:
    a = a_run(tmp_path / "a", {"x": [0.1, 0.2, 0.3], "y": [1.0, 1.0, 1.0]})
    b = a_run(tmp_path / "b", {"x": [0.2, 0.5, 0.3], "y": [1.0, 1.0, 1.0]})
    words = ["compare", str(a), str(b), "--format"]
    rows = list(csv.DictReader(io.StringIO(CliRunner().invoke(app, [*words, "csv"]).stdout)))
    told = json.loads(CliRunner().invoke(app, [*words, "json"]).stdout)
    assert [one["label"] for one in rows] == [one["label"] for one in told["differences"]] == ["x", "y"]
    low, high = paired_interval([0.2 - 0.1, 0.5 - 0.2, 0.0])
    assert (float(rows[0]["low"]), float(rows[0]["high"])) == (low, high)
    assert (told["differences"][0]["low"], told["differences"][0]["direction"]) == (low, "up")
    assert rows[1]["is_equal"] == "True"
