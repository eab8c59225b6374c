"""The report says what the run says, in one file that loads nothing, and stays as small as it is asked to be."""

import base64
import hashlib
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import made_report
import pytest
from test_tables import SPEC, ending, layout_of, measured
from typer.testing import CliRunner

from bench import UsageError
from bench.cli import app
from bench.folder import layout_of as run_layout
from bench.report_parts import columns_of, reading
from results.layout import Layout
from results.leaders import leaders
from results.records import Record
from results.report import Views, page, size_of, size_of_metrics, size_of_picture
from results.specs import LEADERBOARD
from results.tables import render

ROOT = Path(__file__).resolve().parent.parent


class Reader(HTMLParser):
    """What a browser finds in a page: its elements, the texts of scripts and styles, and its headings."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.levels: list[int] = []
        self._open = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._open = tag
        if re.fullmatch("h[1-6]", tag):
            self.levels.append(int(tag[1]))

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        self.texts.setdefault(self._open, []).append(data)


@pytest.fixture(scope="module")
def made() -> str:
    return page(made_report.report())


def test_one_report_is_one_text(made: str) -> None:
    assert page(made_report.report()) == made


def test_nothing_is_loaded_and_nothing_else_runs(made: str) -> None:
    reader = Reader(made)
    addresses = [attrs.get(name) or "" for _, attrs in reader.elements for name in ("src", "href") if name in attrs]
    assert addresses
    assert all(address.startswith(("data:", "#")) for address in addresses)
    assert [
        tag for tag, attrs in reader.elements if any(name.startswith("on") or name == "style" for name in attrs)
    ] == []
    assert [tag for tag, _ in reader.elements if tag in ("iframe", "object", "embed", "base", "form")] == ["form"] * 3
    scripts = [attrs for tag, attrs in reader.elements if tag == "script"]
    assert scripts == [{"type": "application/json", "id": "data"}, {}]


def test_the_policy_names_the_script_and_the_style_that_are_there(made: str) -> None:
    reader = Reader(made)
    policy = next(attrs["content"] or "" for tag, attrs in reader.elements if tag == "meta" and "http-equiv" in attrs)
    (style,), script = reader.texts["style"], reader.texts["script"][-1]
    for text in (style, script):
        assert f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" in policy
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy


def test_data_come_back_as_they_were(made: str) -> None:
    reader = Reader(made)
    data = json.loads(reader.texts["script"][0])
    views = made_report.views()
    texts = [reply.text for pair in views.judged for reply in pair.replies]
    assert [reply["text"] for pair in data["judged"] for reply in pair["replies"]] == texts
    files = data["pictures"]["shapes"]["files"]
    assert {int(key): base64.b64decode(file.split(",")[1]) for key, file in files.items()} == views.pictures[0].files
    assert not set("<>&\u2028\u2029") & set(reader.texts["script"][0])


def test_text_that_is_no_utf8_is_shown_as_what_it_is() -> None:
    broken = replace(made_report.report(), warnings=["a path \udcff"])
    assert r"a path \udcff" in page(broken).encode("utf-8").decode("utf-8")


def ranked(n_seeds: int = 1, sites: str = "s") -> tuple[list[Record], Layout]:
    """By score, c and a are close together, b is behind, and the reference is above all of them."""
    numbers = {"a": (50.0, 48.0, 52.0), "b": (40.0, 39.0, 41.0), "c": (53.0, 51.5, 54.0), "r": (99.0, 98.0, 99.5)}
    layout = layout_of(*numbers, n_seeds=n_seeds, references=frozenset("r"), sites=sites)
    records = []
    for (site, label, seed, _), cell in layout.cells.items():
        score, low, high = numbers[label]
        if site != "x":  # nothing was measured there
            known = {"interval": "bootstrap", "low": low, "high": high}
            records += [measured(cell, "score", score + seed * (3 if label == "c" else 1), **known)]
            records += [measured(cell, "loss", 1.0, **known | {"low": 0.5, "high": 1.5}), ending(cell)]
    return records, layout


def test_the_best_is_told_with_those_that_its_interval_reaches() -> None:
    assert leaders(SPEC.columns, *ranked()) == [
        "s: c is best by score, 53.00 [51.5, 54.0] %; its 95 % interval overlaps that of a."
    ]
    gap, score, loss = SPEC.columns[2], SPEC.columns[0], SPEC.columns[1]
    assert leaders((gap, loss, score), *ranked()) == [
        "s: a and b and c are best by loss, 1.0 [0.5, 1.5]; their 95 % interval overlaps no other's."
    ]
    assert leaders((gap,), *ranked()) == []
    records, layout = ranked(n_seeds=2, sites="sx")
    assert leaders((score,), records, layout) == [
        "s: c is best by score, 54.50 ± 2.12 %; its mean ± standard deviation overlaps no other's."
    ]
    alone = replace(layout, references=frozenset("rab"))
    assert leaders((score,), records, alone) == []


def test_every_column_of_the_leaderboard_is_explained_in_a_line() -> None:
    plan = json.loads((ROOT / "results/quick/run.json").read_text())
    layout = run_layout(plan)
    (_, columns), (_, methods) = reading("leaderboard", [], replace(layout, measured=None))
    told = dict(columns)
    assert "plugin" not in " ".join(told.values())
    assert told["MS-Score (%)"].startswith("Mean over scored atoms: 100")
    assert told["MS-Score (%)"].endswith("More is better.")
    assert told["KL"].endswith("In nats.")
    assert len(columns) == len({*told}) == len(columns_of("leaderboard", [], replace(layout, measured=None))) + 1
    assert [label for label, _ in methods] == plan["labels"]
    shown = render(LEADERBOARD, [], layout=layout, format="html", beside="nothing").count("data-direction")
    assert shown == len(columns_of("leaderboard", [], layout))


def test_headings_are_in_order(made: str) -> None:
    levels = Reader(made).levels
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_a_run_without_results_says_what_to_do() -> None:
    nothing = replace(made_report.report(), leaderboard=None, pareto=None, figures=[], views=Views())
    text = page(nothing)
    assert "No results yet" in text
    assert "Run the suite." in text


def test_sizes_are_those_of_the_data() -> None:
    """What units, pairs and images are said to take together is what they take, and no less."""
    whole, empty = made_report.views(), Views()
    named = [replace(one, units=()) for one in whole.explored]
    bare = [replace(one, files={}, captions={}) for one in whole.pictures]
    metrics = ["ms_score", "hoyer"]
    sizes = [size_of(unit, metrics) for one in whole.explored for unit in one.units]
    sizes += [size_of(pair) for pair in whole.judged]
    sizes += [
        size_of_picture(index, file, one.captions.get(index, ""))
        for one in whole.pictures
        for index, file in one.files.items()
    ]
    heads = len(Views(bare, named).json()) + size_of_metrics(metrics)
    assert len(empty.json()) < heads < len(whole.json()) <= heads + sum(sizes)
    assert heads + sum(sizes) < 1.02 * len(whole.json())


def run(*words: str) -> tuple[int, str]:
    """Exit code and standard output of the command in this process; problems as themselves."""
    found = CliRunner().invoke(app, ["report", *words], catch_exceptions=False)
    return found.exit_code, found.stdout


@pytest.fixture(scope="module")
def of_planted(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The report of the committed run `planted`; what was built in it is nowhere any more."""
    folder = tmp_path_factory.mktemp("report")
    out = folder / "page.html"
    code, text = run(str(ROOT / "results/planted"), "--out", str(out), "--cache", str(folder / "cache"), "--json")
    told = json.loads(text)
    assert code == 0
    assert told["report"] == str(out)
    assert told["bytes"] == out.stat().st_size
    return out.read_text(encoding="utf-8")


def test_provenance_is_that_of_the_records(of_planted: str) -> None:
    folder = ROOT / "results/planted"
    records = [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]
    plan = json.loads((folder / "run.json").read_text())
    wanted = {cell["id"] for cell in plan["cells"]}
    facts = of_planted[of_planted.index('<dl class="facts">') : of_planted.index("</dl>", of_planted.index("facts"))]
    for record in records:
        if record["cell"] in wanted:
            assert record["commit"][:12] in facts
            assert record["device"] in facts
    assert f"<strong>{len(wanted)}</strong> complete" in of_planted
    assert "eludebench run planted" in facts


def test_every_table_of_the_run_is_there_once(of_planted: str) -> None:
    names = [attrs["data-table"] for tag, attrs in Reader(of_planted).elements if "data-table" in attrs]
    plan = json.loads((ROOT / "results/planted/run.json").read_text())
    assert set(plan["tables"]) <= set(names)
    assert len(names) == len(set(names))
    assert names[0] == "leaderboard"


@pytest.mark.parametrize("name", ["efficiency", "properties"])
def test_a_run_without_a_leaderboard_begins_with_its_own_table(name: str, tmp_path: Path) -> None:
    code, _ = run(str(ROOT / "results" / name), "--out", str(tmp_path / "page.html"), "--cache", str(tmp_path / "none"))
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert code == 0
    assert "No results yet" not in text
    (first, *_) = [attrs["data-table"] for tag, attrs in Reader(text).elements if "data-table" in attrs]
    assert first == json.loads((ROOT / "results" / name / "run.json").read_text())["tables"][0]


def test_the_leaderboard_says_who_leads_and_how_to_read_it(of_planted: str) -> None:
    board = of_planted[of_planted.index('<section id="leaderboard"') : of_planted.index('<section id="pareto"')]
    assert '<p class="leader">' in board[: board.index("<table")]
    assert "is best by MS-Score" in board
    assert board.index("<summary>How to read it</summary>") > board.index("</table>")


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench", "report", str(tmp_path)], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: DIR: got {tmp_path}, which holds no run.json; expected the folder of a run;")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--max-mb", "inf"), "--max-mb: got inf; expected megabytes above 0"),
        (("--max-mb", "0.1"), "--max-mb: got 0.1; expected 0."),
        (("--plugin", "no.py"), "--plugin: got "),
        (("--out", "nowhere/page.html"), "--out: got nowhere/page.html, whose folder is not there; expected one that"),
    ],
)
def test_what_cannot_be_done_is_told_before_it_is_tried(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    with pytest.raises(UsageError) as error:
        run(str(ROOT / "results/planted"), "--out", str(tmp_path / "a.html"), "--cache", str(tmp_path / "none"), *words)
    assert str(error.value).startswith(said)
    assert list(tmp_path.iterdir()) == []


def test_verdicts_of_two_pools_are_refused(tmp_path: Path) -> None:
    """Not as if nothing had been measured, and not with a traceback."""
    for name in ("run.json", "records.jsonl"):
        shutil.copy(ROOT / "results/quick" / name, tmp_path)
    path = tmp_path / "records.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    ours = [row for row in rows if row["label"] == "elude" and "pool" in row["notes"]]
    for row in ours:
        row["notes"]["pool"] = "f" * 64
    assert ours
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with pytest.raises(UsageError, match=r"pool: got verdicts of 2 pools at shapes: .*; expected one, as a rate is"):
        run(str(tmp_path), "--cache", str(tmp_path / "none"))


def test_a_run_that_measured_nothing_has_a_page(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text((ROOT / "results/planted/run.json").read_text())
    code, _ = run(str(tmp_path))
    text = (tmp_path / "report.html").read_text()
    assert code == 0
    assert "No results yet" in text
    assert f"eludebench run planted --out {tmp_path}" in text
