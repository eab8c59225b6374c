"""A run that is judged: what is asked, what is kept, what a second command does, and what tables show of it."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bench import UsageError, judge_commands, judging
from bench import judged as where_replies_are
from bench.conclusions import changes, concluded, panels_of, sites_of
from bench.exemplars import Shown
from bench.folder import outcomes, read_plan, rendered, write_plan
from bench.judged import Context, beside_others
from bench.judging import contests
from bench.measuring import exemplars_of
from bench.registry import Registry
from bench.runner import run
from bench.stages import StartWorkshop
from bench.suites import load_suite
from bench.verdicts import rows_for
from judges.manifest import load
from judges.protocol import Verdict
from judges.replies import RepliesError
from results.layout import PANELS
from results.tables import TABLES, TableSpec

TESTS = Path(__file__).resolve().parent
FOUR = TESTS / "four.toml"
PANEL = """
[settings]
unit_pairs = 4
cell_px = 16
planted = 2

[[judges]]
judge = "proxy"
name = "pixels"

[[judges]]
judge = "proxy"
name = "filters"
"""
FAILING = '''
from dataclasses import dataclass
from judges.protocol import JudgeError, Reply

@dataclass(frozen=True)
class Stops:
    """Answers three times, then no more."""

    name: str = "stops"
    kind = "proxy"
    n_at_once: int = 1
    ready: bool = True

    async def prepare(self):
        if not self.ready:
            raise JudgeError("judge stops: got nothing; expected a server; start it")
        object.__setattr__(self, "left", [1, 2, 3])
        return {"name": self.name}

    async def compare(self, grid_a, grid_b):
        if not self.left:
            raise JudgeError("judge stops: got no answer any more; expected one; start it again")
        self.left.pop()
        return (Reply('{"answer": "A"}'),)

JUDGES = {"stops": Stops}
'''


class Bench:
    """A run of four methods, with a cache."""

    def __init__(self, root: Path) -> None:
        self.root, self.cache, self.folder = root, root / "cache", root / "run"
        self.panel = root / "mine.toml"
        self.panel.write_text(PANEL, encoding="utf-8")
        self.suite = root / "four.toml"
        self.suite.write_text(FOUR.read_text(encoding="utf-8"), encoding="utf-8")

    def run(self, folder: Path | None = None) -> None:
        suite = load_suite(str(self.suite), Registry())
        run(suite, folder or self.folder, StartWorkshop((), self.cache), n_lanes=0, is_quiet=True)

    def judge(self, folder: Path | None = None, panel: Path | None = None, plugins: tuple[Path, ...] = ()) -> Any:
        suite = load_suite(str(self.suite), Registry(plugins))
        start = StartWorkshop(plugins, self.cache)
        where, who = folder or self.folder, str(panel or self.panel)
        return judge_commands.judged(suite, where, who, start, list(plugins), is_quiet=True)


@pytest.fixture(name="judged", scope="module")
def a_judged_run(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    bench = Bench(tmp_path_factory.mktemp("judged"))
    bench.run()
    found, failed = bench.judge()
    assert not failed
    assert len(found) == 1
    return bench


@pytest.fixture(name="copy")
def a_copy_of_it(judged: Bench, tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    shutil.copytree(judged.folder, folder)
    return folder


def replies_in(folder: Path, judge: str = "pixels") -> list[dict[str, Any]]:
    (path,) = folder.glob(f"judging/*/shapes/replies/{judge}.jsonl")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_every_presentation_is_asked_once_in_both_orders(judged: Bench) -> None:
    one = concluded(*sites_of(judged.folder, "mine"))
    real = [each for each in one.manifest.presentations if not each.rung]
    assert len(real) == 6 * 4 * 2  # pairs of four methods, unit pairs, orders
    ids = [row["id"] for row in replies_in(judged.folder)]
    assert sorted(ids) == sorted(each.id for each in one.manifest.presentations)
    assert {label for _, label in one.manifest.pool} == {"backbone", "random_partition", "topk_sae", "elude"}


def test_the_records_say_what_the_report_says(judged: Bench) -> None:
    one = concluded(*sites_of(judged.folder, "mine"))
    (entry,) = read_plan(judged.folder)["judged"]
    groups = outcomes(judged.folder)
    for standing in one.report.ranking.standings:
        rows = {row.metric: row for row in groups[entry["verdicts"][one.report.label(standing.method)]]}
        assert rows["proxy_win_rate"].value == standing.win_rate.value
        assert (rows["proxy_rank"].value, rows["proxy_rank"].low) == (standing.rank, standing.rank_low)
        assert rows["proxy_rank"].label == one.report.label(standing.method)
        assert rows["proxy_win_rate"].n == standing.decided
        assert rows["status"].text == "complete"
        assert rows["status"].notes["pool"] == one.manifest.pool_id
        assert set(rows) == {"status", *(row.name for row in rows_for("proxy"))}


def test_a_proxy_panel_is_called_one_and_never_stands_under_llm_rank(judged: Bench) -> None:
    (where,) = sites_of(judged.folder, "mine")
    texts = [rendered(judged.folder, name, "md") for name in ("leaderboard", "proxy_verdicts")]
    texts += [(where / name).read_text(encoding="utf-8") for name in ("report.md", "report.json", "wins.svg")]
    for text in texts:
        assert "proxy panel" in text
        assert "LLM Rank" not in text
        assert "llm_" not in text.replace("llm_panel", "")
    with pytest.raises(UsageError, match="measures none of its metrics"):
        rendered(judged.folder, "verdicts", "md")


def test_the_same_command_again_asks_nobody_and_gives_the_same(judged: Bench, copy: Path) -> None:
    before = replies_in(copy), rendered(copy, "proxy_verdicts", "csv"), (copy / "records.jsonl").read_bytes()
    judged.judge(copy)
    assert (replies_in(copy), rendered(copy, "proxy_verdicts", "csv"), (copy / "records.jsonl").read_bytes()) == before


def test_a_method_that_joins_adds_its_own_pairs_and_asks_nothing_twice(judged: Bench, tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.cache = judged.cache
    whole = bench.suite.read_text(encoding="utf-8")
    bench.suite.write_text(whole[: whole.index('[[methods]]\nname = "topk_sae"')] + elude_of(whole), encoding="utf-8")
    bench.run()
    bench.judge()
    few = replies_in(bench.folder)
    bench.suite.write_text(whole, encoding="utf-8")
    bench.run()
    bench.judge()
    many = replies_in(bench.folder)
    assert many[: len(few)] == few
    assert len({row["id"] for row in many}) == len(many)
    assert sorted(row["id"] for row in many) == sorted(row["id"] for row in replies_in(judged.folder))


def elude_of(whole: str) -> str:
    return whole[whole.index('[[methods]]\nname = "elude"') :]


def test_a_run_of_other_methods_forgets_what_was_judged_of_the_old_ones(judged: Bench, copy: Path) -> None:
    suite = load_suite(str(judged.suite), Registry())
    assert read_plan(copy)["judged"]
    run(suite, copy, StartWorkshop((), judged.cache), n_lanes=0, is_quiet=True)
    assert read_plan(copy)["judged"]
    changed = copy.parent / "four.toml"
    changed.write_text(FOUR.read_text(encoding="utf-8").replace("k = 4", "k = 5"), encoding="utf-8")
    run(load_suite(str(changed), Registry()), copy, StartWorkshop((), judged.cache), n_lanes=0, is_quiet=True)
    assert "judged" not in read_plan(copy)
    judge_commands.judge_reparse(copy, "mine")
    assert read_plan(copy)["judged"] == []
    with pytest.raises(UsageError, match="fewer than two methods"):  # the suite that it was judged by is not the run's
        contests(load_suite(str(judged.suite), Registry()), only_elude(judged, copy.parent / "narrow"))


def only_elude(judged: Bench, folder: Path) -> Path:
    """A run of one method, whose ledger has all four."""
    shutil.copytree(judged.folder, folder)
    plan = read_plan(folder)
    plan["cells"] = [cell for cell in plan["cells"] if cell["label"] == "elude"]
    plan.pop("schema")
    write_plan(folder, plan)
    return folder


def test_another_suite_s_run_is_refused(judged: Bench, tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    other.write_text(FOUR.read_text(encoding="utf-8"), encoding="utf-8")
    with pytest.raises(UsageError, match="holds a run of suite 'four'"):
        contests(load_suite(str(other), Registry()), judged.folder)


def test_replies_are_read_again_by_a_newer_reader_without_a_call(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (where,) = sites_of(copy, "mine")
    assert changes(concluded(where)) == {"pixels": 0, "filters": 0}
    before = {row["id"]: row["text"] for row in replies_in(copy)}
    monkeypatch.setattr(where_replies_are, "read", lambda text: Verdict("A", "json"))
    judge_commands.judge_reparse(copy, "mine")
    again = concluded(where)
    assert {said.choice for said in again.verdicts["pixels"].values()} == {"A"}
    assert {row["id"]: row["text"] for row in replies_in(copy)} == before
    rates = [one.win_rate.value for one in again.report.ranking.standings]
    assert rates == [50.0] * 4  # who always says A prefers nobody
    (entry,) = read_plan(copy)["judged"]
    rows = {row.metric: row for row in outcomes(copy)[entry["verdicts"]["elude"]]}
    assert rows["proxy_win_rate"].value == 50.0


def test_a_judge_that_stops_leaves_the_others_and_is_told_of(judged: Bench, copy: Path, tmp_path: Path) -> None:
    plugin, panel = tmp_path / "plugin.py", tmp_path / "three.toml"
    plugin.write_text(FAILING, encoding="utf-8")
    panel.write_text(PANEL + '[[judges]]\njudge = "stops"\n', encoding="utf-8")
    found, failed = judged.judge(copy, panel, (plugin,))
    (line,) = failed
    assert line.startswith("shapes: stops stopped after 3 of ")
    assert "start it again" in line
    assert len(found[0].verdicts["stops"]) == 3
    assert len(found[0].verdicts["pixels"]) == len(found[0].manifest.presentations)
    assert "stops did not answer everything" in rendered(copy, "proxy_verdicts", "md")
    panel.write_text(PANEL + '[[judges]]\njudge = "stops"\nready = false\n', encoding="utf-8")
    with pytest.raises(UsageError, match="start it"):
        judged.judge(copy, panel, (plugin,))


def test_judges_may_be_asked_one_after_the_other(judged: Bench, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    judged.run(folder)
    suite, start = load_suite(str(judged.suite), Registry()), StartWorkshop((), judged.cache)
    for name in ("filters", "pixels"):
        judge_commands.judged(suite, folder, str(judged.panel), start, [], is_quiet=True, only=[name])
    assert rendered(folder, "proxy_verdicts", "csv") == rendered(judged.folder, "proxy_verdicts", "csv")


def test_judges_that_are_not_asked_must_be_those_whose_replies_count(judged: Bench, copy: Path) -> None:
    (path,) = copy.glob("judging/*/shapes/replies/filters.identity.json")
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"version": "older"}), encoding="utf-8")
    suite, start = load_suite(str(judged.suite), Registry()), StartWorkshop((), judged.cache)
    with pytest.raises(RepliesError, match=r"another judge of the name 'filters' \(version is .* and was 'older'"):
        judge_commands.judged(suite, copy, str(judged.panel), start, [], is_quiet=True, only=["pixels"])


def test_nothing_to_compare_is_an_error_before_anything_is_done(judged: Bench, tmp_path: Path) -> None:
    suite = load_suite(str(judged.suite), Registry())
    with pytest.raises(UsageError, match=r"holds no run\.json"):
        contests(suite, tmp_path)
    run(suite, tmp_path / "run", StartWorkshop((), judged.cache), only=["method=elude"], n_lanes=0, is_quiet=True)
    with pytest.raises(UsageError, match="fewer than two methods"):
        contests(suite, tmp_path / "run")
    assert (
        judge_commands.judged_at_the_end(suite, tmp_path / "run", StartWorkshop((), judged.cache), [], is_quiet=True)
        == []
    )


SEES = """
from dataclasses import dataclass
from judges.proxies import ProxyJudge

@dataclass(frozen=True)
class Sees:
    '''Stands for a vision-language model.'''

    name: str = "sees"
    way: str = "filters"
    kind = "vlm"
    n_at_once: int = 1

    async def prepare(self):
        return {"name": self.name, "kind": "vlm", "model": self.way}

    async def compare(self, grid_a, grid_b):
        return await ProxyJudge(self.way).compare(grid_a, grid_b)

JUDGES = {"sees": Sees}
"""
TWO = """
[settings]
unit_pairs = 4
cell_px = 16
planted = 2

[[judges]]
judge = "sees"
name = "filters"
{options}

[[judges]]
judge = "sees"
name = "pixels"
way = "pixels"
"""


def test_a_panel_of_vision_language_models_fills_the_llm_rank(judged: Bench, copy: Path, tmp_path: Path) -> None:
    plugin, panel = tmp_path / "plugin.py", tmp_path / "two.toml"
    plugin.write_text(SEES, encoding="utf-8")
    panel.write_text(TWO.format(options=""), encoding="utf-8")
    (one,), failed = judged.judge(copy, panel, (plugin,))
    assert not failed
    text = rendered(copy, "verdicts", "md")
    assert "LLM Rank" in text
    assert "proxy" not in text
    both = rendered(copy, "leaderboard", "md")
    assert "LLM Rank" in both
    assert "proxy panel rank" in both
    # the same answers as the proxies gave, so the same ranks under other names
    kinds = {entry["kind"]: entry["verdicts"] for entry in read_plan(copy)["judged"]}
    groups = outcomes(copy)
    for label in ("elude", "topk_sae"):
        llm = {row.metric: row.value for row in groups[kinds["llm_panel"][label]]}
        proxy = {row.metric: row.value for row in groups[kinds["proxy_panel"][label]]}
        assert llm["llm_win_rate"] == proxy["proxy_win_rate"]
        assert not any(name.startswith("proxy") for name in llm)
    assert one.kind == "llm_panel"


def test_replies_of_a_proxy_never_count_for_a_model_of_the_same_name(judged: Bench, copy: Path, tmp_path: Path) -> None:
    plugin, panel = tmp_path / "plugin.py", tmp_path / "mine.toml"  # as the panel that has judged the run
    plugin.write_text(SEES, encoding="utf-8")
    panel.write_text(TWO.format(options=""), encoding="utf-8")
    with pytest.raises(RepliesError, match="kind"):
        judged.judge(copy, panel, (plugin,))
    assert {entry["kind"] for entry in read_plan(copy)["judged"]} == {"proxy_panel"}
    assert concluded(*sites_of(copy, "mine")).kind == "proxy_panel"


def test_who_was_accepted_stays_accepted_and_who_asks_otherwise_waits(
    judged: Bench, copy: Path, tmp_path: Path
) -> None:
    suite, start = load_suite(str(judged.suite), Registry()), StartWorkshop((), judged.cache)
    for accept in (["pixels"], []):
        judge_commands.judged(suite, copy, str(judged.panel), start, [], is_quiet=True, accept=accept)
        assert Context.load(*sites_of(copy, "mine")).accepted == ("pixels",)
    (where,) = sites_of(copy, "mine")
    before = load(where)
    with beside_others(where, before, Context.load(where)):
        with beside_others(where, before, Context.load(where)):
            pass
        other = beside_others(where, replace(before, pool=before.pool[:2]), Context.load(where))
        with pytest.raises(UsageError, match="another process is asking"), other:
            pass
    assert load(where) == before


def test_a_panel_that_cannot_be_had_leaves_the_run_s_tables(judged: Bench, copy: Path, tmp_path: Path) -> None:
    panel = tmp_path / "away.toml"
    panel.write_text(
        '[[judges]]\njudge = "endpoint"\nname = "a"\nmodel = "m"\nurls = ["http://127.0.0.1:9/v1"]\n', encoding="utf-8"
    )
    suite = replace(load_suite(str(judged.suite), Registry()), panel=str(panel))
    start = StartWorkshop((), judged.cache)
    (line,) = judge_commands.judged_at_the_end(suite, copy, start, [], is_quiet=True)
    assert "a" in line
    assert "127.0.0.1:9" in line


def test_a_method_without_units_to_show_has_nulls(judged: Bench, copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = exemplars_of

    def without(workshop: Any, cells: Any) -> Any:
        shown = dict(found(workshop, cells))
        for cell in cells:
            if cell.label == "topk_sae":
                one = shown[cell.id]
                assert isinstance(one, Shown)
                shown[cell.id] = replace(one, is_eligible=torch.zeros_like(one.is_eligible))
        return shown

    monkeypatch.setattr(judging, "exemplars_of", without)
    judged.judge(copy)
    (entry,) = read_plan(copy)["judged"]
    rows = {row.metric: row for row in outcomes(copy)[entry["verdicts"]["topk_sae"]]}
    assert rows["proxy_rank"].value is None
    assert rows["proxy_rank"].reason is not None
    assert rows["proxy_rank"].reason.startswith("no unit that nine images drive")
    assert rows["proxy_ineligible_share"].value == 100.0
    assert "topk_sae" in rendered(copy, "proxy_verdicts", "md")


def test_the_same_method_under_two_labels_meets_once(judged: Bench, tmp_path: Path) -> None:
    twice = tmp_path / "four.toml"
    twin = elude_of(FOUR.read_text(encoding="utf-8")).replace('name = "elude"', 'name = "elude"\nlabel = "twin"')
    twice.write_text(FOUR.read_text(encoding="utf-8") + "\n" + twin, encoding="utf-8")
    suite = load_suite(str(twice), Registry())
    run(suite, tmp_path / "run", StartWorkshop((), judged.cache), n_lanes=0, is_quiet=True)
    (contest,) = contests(suite, tmp_path / "run")
    assert "twin" not in contest.cells
    assert contest.left_out == {"twin": "the same method with the same options as elude"}


def test_an_unknown_panel_or_judge_is_named(judged: Bench) -> None:
    assert panels_of(judged.folder) == ["mine"]
    with pytest.raises(UsageError, match="expected one of: mine"):
        sites_of(judged.folder, "other")
    with pytest.raises(UsageError, match="--accept judge: got 'nobody'"):
        judge_commands.judged(
            load_suite(str(judged.suite), Registry()),
            judged.folder,
            str(judged.panel),
            StartWorkshop((), judged.cache),
            [],
            is_quiet=True,
            accept=["nobody"],
        )


@pytest.mark.parametrize("prefix", ["llm", "proxy"])
def test_columns_of_judged_tables_agree_with_their_rows(prefix: str) -> None:
    rows = {row.name: row for row in rows_for(prefix)}
    columns = [
        column
        for spec in TABLES.values()
        if isinstance(spec, TableSpec)
        for column in spec.columns
        if column.seeds == f"{prefix}_panel"
    ]
    assert {column.metric for column in columns} == set(rows)
    assert all(column.unit == rows[column.metric].unit for column in columns)
    assert all(column.direction in (rows[column.metric].direction, "none") for column in columns)
    assert {column.seeds for column in columns} <= set(PANELS)
