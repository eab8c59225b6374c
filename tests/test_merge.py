"""Runs of several machines become one; what contradicts itself is named and nothing is written."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_runs import POOL, ending, group, judged_entry, plan_of, row, verdict, write_run
from typer.testing import CliRunner

from bench import UsageError
from bench.cli import app
from bench.comparing import compared_runs
from bench.folder import LEDGER, outcomes, read_plan, rendered, states
from bench.judged import Context
from bench.merging import merged
from judges.drawn import Drawn, Notes
from judges.manifest import Manifest
from judges.protocol import Reply, Settings
from judges.replies import Replies
from results.compared import equality
from results.ledger import Ledger, read, unfinished
from results.merging import united
from results.records import Record, latest, to_line


def cell(name: str, seed: int, value: float | None = None, **changes: Any) -> list[Record]:
    """A cell of the run that `plan_of` plans."""
    return group(f"{name}{seed}", name, seed, {"r2": float(seed) if value is None else value}, **changes)


def failed(name: str, seed: int, text: str = "failed") -> list[Record]:
    return [ending(row(f"{name}{seed}", name, seed), text, "RuntimeError: boom")]


def part(folder: Path, groups: Sequence[Sequence[Record]], **changes: Any) -> Path:
    return write_run(folder, plan_of(["x", "y"], **changes), groups)


def merge(*folders: Path) -> Path:
    out = folders[0].parent / "out"
    merged(folders, out, lambda text: None)
    return out


def refused(*folders: Path) -> str:
    """What merging says against it; nothing is left behind."""
    before = sorted(folders[0].parent.iterdir())
    with pytest.raises(UsageError) as caught:
        merge(*folders)
    assert sorted(folders[0].parent.iterdir()) == before
    return str(caught.value)


# Records


def test_the_parts_of_a_run_are_the_run(tmp_path: Path) -> None:
    every = [cell(name, seed) for name in "xy" for seed in (1, 2, 3)]
    whole = part(tmp_path / "whole", every)
    out = merge(part(tmp_path / "a", every[:2]), part(tmp_path / "b", every[2:5]), part(tmp_path / "c", every[4:]))
    assert outcomes(out) == outcomes(whole)
    assert read(out / LEDGER) == read(whole / LEDGER)
    assert rendered(out, "leaderboard", "csv") == rendered(whole, "leaderboard", "csv")
    assert (out / "leaderboard.md").read_text(encoding="utf-8") == rendered(whole, "leaderboard", "md")
    assert read_plan(out) == read_plan(whole)
    assert {state for _, _, state in states(read_plan(out), outcomes(out))} == {"complete"}
    assert equality(compared_runs(out, whole)).startswith("Equal, bit for bit")


some_groups = st.dictionaries(
    st.sampled_from("pqrs"), st.sampled_from(["complete", "failed", "skipped"]), max_size=4
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.lists(some_groups, min_size=2, max_size=4))
def test_a_cell_is_complete_if_any_run_completed_it(runs: list[dict[str, str]]) -> None:
    made = {
        str(at): {
            f"{name}1": cell(name, 1) if state == "complete" else failed(name, 1, state) for name, state in own.items()
        }
        for at, own in enumerate(runs)
    }
    found = united(made)
    assert found.conflicts == ()
    assert len(found.groups) == len({name for own in runs for name in own})
    assert list(latest(one for rows in found.groups for one in rows)) == [rows[0].cell for rows in found.groups]
    for rows in found.groups:
        states_of = [own[rows[0].label] for own in runs if rows[0].label in own]
        best = next(state for state in ("complete", "skipped", "failed") if state in states_of)
        assert rows[-1].text == best
    again = united(made | {"again": {rows[0].cell: rows for rows in found.groups}})
    assert again.groups == found.groups


def test_the_same_numbers_of_two_machines_are_kept_once_from_the_first(tmp_path: Path) -> None:
    elsewhere: dict[str, Any] = {"device": "cpu: other", "notes": {"machine": "m2"}, "seconds": 9.0}
    a, b = part(tmp_path / "a", [cell("x", 1)]), part(tmp_path / "b", [cell("x", 1, **elsewhere), cell("y", 1)])
    said: list[str] = []
    merged([a, b], tmp_path / "out", said.append)
    assert said == ["2 cells of 2 runs; 1 were in several, with equal numbers"]
    assert outcomes(tmp_path / "out")["x1"] == outcomes(a)["x1"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"value": 1.5}, "value is 1.0 in {a} and 1.5 in {b}"),
        ({"n": 11}, "n is 10 in {a} and 11 in {b}"),
        ({"unit": "1"}, "unit is % in {a} and 1 in {b}"),
        ({"value": None, "reason": "no atom"}, "value is 1.0 in {a} and None in {b}"),
        ({"metric": "l0"}, "r2 is in {a} alone"),
    ],
    ids=lambda one: next(iter(one)) if isinstance(one, dict) else "",
)
def test_numbers_that_contradict_each_other_are_named(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    first = cell("x", 1)
    a = part(tmp_path / "a", [first])
    b = part(tmp_path / "b", [[replace(first[0], **changes), first[1]]])
    text = refused(a, b)
    assert f"RUN: cell x1 (s/x/t1/i7): {'' if 'alone' in said else 'r2: '}{said.format(a=a, b=b)}" in text
    assert "leave a run out; `eludebench compare` shows two of them" in text


def test_many_contradictions_are_counted(tmp_path: Path) -> None:
    labels = [f"m{at}" for at in range(14)]
    for name, value in (("a", 1.0), ("b", 2.0)):
        groups = [cell(label, 1, value) for label in labels]
        write_run(tmp_path / name, plan_of(labels), groups)
    lines = refused(tmp_path / "a", tmp_path / "b").splitlines()
    assert (len(lines), lines[10]) == (12, "RUN: 4 more")


# Plans


OTHER_PLANS: list[tuple[dict[str, Any], str]] = [
    ({"suite": "other"}, "suite: 'tiny' in {a} and 'other' in {b}"),
    ({"changes": {"scale": 0.1}}, "changes of the suite: no changes in {a} and --scale 0.1 in {b}"),
    ({"token_seeds": [9, 1]}, "first of the token seeds: 1 in {a} and 9 in {b}"),
    ({"sites": [{**plan_of(["x"])["sites"][0], "content": "d" * 64}]},
     "site s: the hash of the list of images is cccccccccccc in {a} and dddddddddddd in {b}"),
    ({"sites": [{**plan_of(["x"])["sites"][0], "module": "blocks.1"}]}, "site s: module is blocks.0 in {a} and"),
    ({"cells": [{**plan_of(["x"])["cells"][0], "id": "other"}]}, "cell s/x/t1/i7: id is x1 in {a} and other in {b}"),
    ({"judged": [judged_entry("xy", "b" * 32)]}, f"panel proxy_panel at s: pool is {POOL} in {{a}} and {'b' * 32} in"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "said"), OTHER_PLANS, ids=[next(iter(one)) for one, _ in OTHER_PLANS])
def test_plans_that_contradict_each_other_are_named(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    a = part(tmp_path / "a", [cell("x", 1)], judged=[judged_entry("xy")])
    b = write_run(tmp_path / "b", plan_of(["x", "y"]) | {"judged": [judged_entry("xy")]} | changes, [cell("y", 1)])
    assert f"RUN: {said.format(a=a, b=b)}" in refused(a, b)


def test_a_run_that_grew_brings_its_methods_and_a_site_that_was_not_read_is_filled_in(tmp_path: Path) -> None:
    small = plan_of(["x"])
    small["sites"][0]["content"] = "absent"
    a = write_run(tmp_path / "a", small | {"took": {"seconds": 5}}, [cell("x", 1)])
    grown = plan_of(["x", "z"])
    grown["sites"][0]["warnings"] = ["a slice"]
    b = write_run(tmp_path / "b", grown, [cell("z", 1)])
    plan = read_plan(merge(a, b))
    assert plan["labels"] == ["x", "z"]
    assert [one["id"] for one in plan["cells"]] == ["x1", "x2", "x3", "z1", "z2", "z3"]
    assert (plan["sites"][0]["content"], plan["sites"][0]["warnings"]) == ("c" * 64, ["a slice"])
    assert "took" not in plan


@pytest.mark.parametrize(("texts", "kept"), [(("same", "same"), "same"), (("one", "other"), None)])
def test_a_suite_is_kept_where_all_runs_keep_the_same(texts: tuple[str, str], kept: str | None, tmp_path: Path) -> None:
    a, b = (part(tmp_path / name, [cell(name, 1)], suite_text=text) for name, text in zip("xy", texts, strict=True))
    assert read_plan(merge(a, b)).get("suite_text") == kept


# Judges


def judged(folder: Path, rate: float = 60.0, text: str = "A", pool: Sequence[str] = "xy") -> Path:
    """A run with what a panel left, of one presentation."""
    plan = plan_of(["x", "y"], judged=[judged_entry("xy")])
    write_run(folder, plan, [cell("x", 1), cell("y", 1), verdict("x", rate), verdict("y", 100 - rate)])
    where = folder / "judging" / "proxy" / "s"
    drawn = Drawn((), {}, Notes())
    names = [(f"m{name}", name) for name in pool]
    Manifest.of(drawn, settings=Settings(), pool=names, fingerprints={"dataset": "d"}).save(where)
    cells = {name: (f"{name}1",) for name in "xy"}
    Context("tiny", "s", "proxy", {"pixels": "proxy"}, (), cells, {}).save(where)
    with Replies(where / "replies", "pixels") as replies:
        replies.identify({"name": "pixels", "kind": "proxy"})
        replies.add("p1", [Reply(text, seconds=0.1)])
    return folder


def test_what_judges_left_is_taken_over_from_the_run_that_has_it(tmp_path: Path) -> None:
    a, b = part(tmp_path / "a", [cell("x", 1)]), judged(tmp_path / "b")
    out = merge(a, b)
    left = sorted(path.relative_to(b) for path in (b / "judging").rglob("*") if path.is_file())
    kept = [path for path in left if not path.name.endswith("lock")]
    assert sorted(path.relative_to(out) for path in (out / "judging").rglob("*") if path.is_file()) == kept
    assert all((out / path).read_bytes() == (b / path).read_bytes() for path in kept)
    assert read_plan(out)["judged"] == read_plan(b)["judged"]
    assert outcomes(out)["vx"] == outcomes(b)["vx"]


def test_equal_judging_is_kept_once(tmp_path: Path) -> None:
    a, b = judged(tmp_path / "a"), judged(tmp_path / "b")
    out = merge(a, b)
    where = Path("judging/proxy/s/replies/pixels.jsonl")
    assert (out / where).read_bytes() == (a / where).read_bytes()


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"text": "B"}, "the replies of judge pixels of"), ({"pool": "xz"}, "the pools of")],
    ids=["replies", "pools"],
)
def test_other_judging_is_refused(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    text = refused(judged(tmp_path / "a"), judged(tmp_path / "b", **changes))
    assert f"RUN: {said} {tmp_path}/a/judging/proxy/s and of {tmp_path}/b/judging/proxy/s differ" in text


def test_other_win_rates_are_refused(tmp_path: Path) -> None:
    assert "proxy_win_rate: value is 60.0 in" in refused(judged(tmp_path / "a"), judged(tmp_path / "b", 55.0))


def test_rates_of_two_pools_never_stand_in_one_column(tmp_path: Path) -> None:
    plan = plan_of(["x", "y"], judged=[judged_entry("xy")], tables=["proxy_verdicts"])
    one, other = verdict("x", 60.0), verdict("y", 40.0, "b" * 32)
    folder = write_run(tmp_path / "run", plan, [cell("x", 1), cell("y", 1), one, other])
    with pytest.raises(UsageError, match=r"pool: got verdicts of 2 pools at s: aaaaaaaaaaaa \(x\), bbbbbbbbbbbb \(y\)"):
        rendered(folder, "proxy_verdicts", "md")
    whole = write_run(tmp_path / "whole", plan, [cell("x", 1), cell("y", 1), one, verdict("y", 40.0)])
    assert "60.0" in rendered(whole, "proxy_verdicts", "md")


# The command, and unfinished ledgers


def test_what_comes_of_it_is_a_run_like_any_other(tmp_path: Path) -> None:
    a, b = part(tmp_path / "a", [cell("x", 1)]), part(tmp_path / "b", [cell("y", 1)])
    done = CliRunner().invoke(app, ["merge", str(a), str(b), "--out", str(tmp_path / "out")], catch_exceptions=False)
    assert done.stdout == f"wrote {tmp_path / 'out'}\n"
    shown = CliRunner().invoke(app, ["status", "--run", str(tmp_path / "out")], catch_exceptions=False)
    assert "tiny: 2 complete, 4 to do" in shown.stdout
    with Ledger(tmp_path / "out" / LEDGER) as ledger:
        assert ledger.n_dropped == 0
        ledger.append_cell(cell("x", 2))
    assert set(outcomes(tmp_path / "out")) == {"x1", "y1", "x2"}


def test_folders_that_cannot_be_merged_are_named(tmp_path: Path) -> None:
    a, b = part(tmp_path / "a", [cell("x", 1)]), part(tmp_path / "b", [cell("y", 1)])
    with pytest.raises(UsageError, match=r"RUN: got .*a; expected two or more folders, each once"):
        merge(a)
    with pytest.raises(UsageError, match="expected two or more folders, each once"):
        merge(a, tmp_path / "b" / ".." / "a")
    with pytest.raises(UsageError, match=r"RUN: got .*nowhere, which holds no run.json"):
        merge(a, tmp_path / "nowhere")
    with pytest.raises(UsageError, match=r"--out: got .*, which exists and is not empty; expected a new folder"):
        merged([a, b], a, lambda text: None)
    (tmp_path / "empty").mkdir()
    merged([a, b], tmp_path / "empty", lambda text: None)
    assert len(outcomes(tmp_path / "empty")) == 2


@pytest.mark.parametrize(
    ("keep", "n_rows"),
    [("{whole}", 0), ("{whole}{value}", 1), ("{whole}{value}{half}", 2), ("{whole}{half}", 1), ("{half}", 1), ("", 0)],
)
def test_rows_behind_the_last_closed_cell_are_left_out_and_said(keep: str, n_rows: int, tmp_path: Path) -> None:
    rows = [to_line(one) for one in cell("x", 1)]
    value = to_line(row("y1", "y", 1, options={"kind": "cell"}))
    folder = part(tmp_path / "a", [])
    text = keep.format(whole="\n".join(rows) + "\n", value=value + "\n", half=value[:40])
    (folder / LEDGER).write_text(text, encoding="ascii")
    assert unfinished(folder / LEDGER) == n_rows
    assert len(read(folder / LEDGER)) == (2 if "{whole}" in keep else 0)
    for words in (["status"], ["table", "leaderboard"]):
        done = CliRunner().invoke(app, [*words, "--run", str(folder)], catch_exceptions=False)
        assert (f"{n_rows} rows of an unfinished cell at its end are left out" in done.stderr) == (n_rows > 0)
    assert (folder / LEDGER).read_text(encoding="ascii") == text
    b = part(tmp_path / "b", [cell("y", 1)])
    done = CliRunner().invoke(app, ["merge", str(folder), str(b), "--out", str(tmp_path / "out")])
    assert (f"{n_rows} rows of an unfinished cell" in done.stderr) == (n_rows > 0)
    with Ledger(folder / LEDGER) as ledger:
        assert ledger.n_dropped == n_rows
