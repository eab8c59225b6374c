"""The README's table and example are true: made again here from the committed records, and tried.

As a program this file writes the table into the README: `make readme`.
"""

import json
import re
import tomllib
from pathlib import Path

import pytest

from bench import __version__
from bench.contract import check
from bench.folder import outcomes, read_plan, rendered
from bench.registry import Registry
from bench.suites import load_suite
from results.tables import embed

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
RUN = ROOT / "results" / "quick"


def with_true_table(text: str) -> str:
    return embed(text, "leaderboard", rendered(RUN, "leaderboard", "md"))


def test_the_table_follows_from_the_committed_records() -> None:
    text = README.read_text(encoding="utf-8")
    assert with_true_table(text) == text


def test_the_committed_run_is_the_quick_suite_and_complete() -> None:
    plan = read_plan(RUN)
    groups = outcomes(RUN)
    assert plan["suite"] == "quick"
    assert {groups[cell["id"]][-1].text for cell in plan["cells"]} == {"complete"}
    records = [record for group in groups.values() for record in group]
    assert {record.dirty for record in records} == {False}
    assert all(record.value is not None for record in records if record.kind == "value")


def test_the_committed_run_is_of_today_s_suite() -> None:
    assert [cell["id"] for cell in read_plan(RUN)["cells"]] == [
        cell.id for cell in load_suite("quick", Registry()).cells
    ]


def test_the_example_method_passes(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    example = next(block for block in blocks if "METHODS" in block)
    assert len(example.splitlines()) <= 40
    plugin = tmp_path / "my_method.py"
    plugin.write_text(example, encoding="utf-8")
    entry = Registry([plugin]).from_files("methods")[0]
    assert {law: problem for law, problem in check(entry.load()()).items() if problem} == {}


@pytest.mark.parametrize("site", ["shapes", "photos"])
def test_the_committed_numbers_are_what_must_hold(site: str) -> None:
    records = [record for group in outcomes(RUN).values() for record in group if record.site == site]
    values = {(record.label, record.metric): record.value for record in records if record.kind == "value"}
    r2, difference = values["elude", "r2"], values["elude", "max_logit_difference"]
    assert r2 is not None
    assert difference is not None
    assert abs(1 - r2 / 100) <= 1e-10
    assert values["elude", "agreement"] == 100.0
    assert 0 < difference < 1e-4
    assert values["elude", "top1"] == values["backbone", "top1_untouched"]
    assert values["random_partition", "expansion_factor"] == values["elude", "expansion_factor"]


def test_the_changelog_knows_the_version() -> None:
    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"] == __version__


def test_the_plan_is_readable_json() -> None:
    assert json.loads((RUN / "run.json").read_text(encoding="utf-8"))["schema"] == 1


if __name__ == "__main__":
    README.write_text(with_true_table(README.read_text(encoding="utf-8")), encoding="utf-8")
