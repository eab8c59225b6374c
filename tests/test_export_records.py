"""A run as a data set: what is read back is what was recorded, null is null, and what must be known comes first."""

import json
import tempfile
from dataclasses import fields
from pathlib import Path
from typing import Any

import datasets
import pytest
from huggingface_hub import DatasetCard
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from made_runs import a_run, ending, group, judged_entry, plan_of, row, verdict, write_run
from pyarrow import parquet  # type: ignore[import-untyped]
from typer.testing import CliRunner

from bench import UsageError
from bench.cli import app
from bench.folder import outcomes, rendered
from bench.published_runs import published
from results.parquet import column_types, nullable_columns, write_parquet
from results.records import Record
from results.schema import descriptions, record_schema

ROOT = Path(__file__).resolve().parent.parent


def record_of(row: dict[str, Any]) -> Record:
    """The record that a row of the file was."""
    kinds = column_types()
    return Record(**{name: json.loads(value) if kinds[name] == "JSON text" else value for name, value in row.items()})


def exported(run: Path, to: Path, licence: str = "cc-by-4.0") -> list[str]:
    """Export a run; what was said."""
    said: list[str] = []
    published(run, to, licence, said.append)
    return said


def front_matter(text: str) -> dict[str, Any]:
    """What the Hub would read."""
    return dict(DatasetCard(text, ignore_metadata_errors=False).data.to_dict())  # type: ignore[no-untyped-call]


@pytest.fixture(name="offline")
def without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()


@pytest.mark.usefixtures("offline")
def test_the_datasets_library_reads_back_every_record(tmp_path: Path) -> None:
    run = ROOT / "results" / "properties"
    assert exported(run, tmp_path / "out") == []
    rows = datasets.load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
    expected = [one for rows_of_cell in outcomes(run).values() for one in rows_of_cell]
    assert [record_of(each) for each in rows] == expected
    assert {one.reason is None for one in expected} == {True, False}


leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(2**40), 2**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
numbers = st.floats(allow_nan=False, allow_infinity=False)


@settings(max_examples=40, deadline=None)
@given(
    values=st.lists(numbers | st.none(), min_size=1, max_size=4),
    options=st.dictionaries(st.text(), leaves | st.lists(leaves, max_size=2), max_size=3),
    text=st.text(min_size=1),
)
def test_whatever_a_record_holds_comes_back(values: list[float | None], options: Any, text: str) -> None:
    made = [
        row("c", "x", 1, metric=text, value=value, reason=None if value is not None else text, options=options)
        for value in values
    ]
    made.append(ending(made[0]))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "records.parquet"
        write_parquet(made, path)
        table = parquet.read_table(path)
    assert [record_of(each) for each in table.to_pylist()] == made
    assert table.column("value").null_count == sum(value is None for value in values) + 1


def test_columns_are_typed_and_described(tmp_path: Path) -> None:
    exported(a_run(tmp_path / "run", {"x": [1.0, None, 3.0]}), tmp_path / "out")
    schema = parquet.read_schema(tmp_path / "out" / "data" / "records.parquet")
    assert schema.names == [item.name for item in fields(Record)]
    assert {name for name in schema.names if schema.field(name).nullable} == nullable_columns()
    described = {name: schema.field(name).metadata[b"description"].decode() for name in schema.names}
    assert described == descriptions()
    kinds = {name: str(schema.field(name).type) for name in ("value", "n", "dirty", "device", "options")}
    assert kinds == {"value": "double", "n": "int64", "dirty": "bool", "device": "string", "options": "string"}


def test_the_folder_has_schema_plan_and_tables(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run", {"x": [1.0, 2.0, 3.0]})
    exported(run, tmp_path / "out")
    out = tmp_path / "out"
    found = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
    assert found == ["README.md", "data/records.parquet", "run.json", "schema.json", "tables/leaderboard.csv"]
    assert json.loads((out / "schema.json").read_text(encoding="utf-8")) == record_schema()
    assert json.loads((out / "run.json").read_text(encoding="utf-8"))["suite"] == "tiny"
    assert (out / "tables" / "leaderboard.csv").read_text(encoding="utf-8") == rendered(run, "leaderboard", "csv")
    check = Draft202012Validator(record_schema())
    for line in (run / "records.jsonl").read_text(encoding="ascii").splitlines():
        check.validate(json.loads(line))


# The card


def test_the_card_has_what_the_hub_reads(tmp_path: Path) -> None:
    exported(a_run(tmp_path / "run", {"x": [1.0, 2.0, 3.0]}), tmp_path / "out")
    text = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    data = front_matter(text)
    assert (data["license"], data["pretty_name"]) == ("cc-by-4.0", "eludebench: tiny")
    assert data["size_categories"] == ["n<1K"]
    (config,) = data["configs"]
    assert config["data_files"] == [{"split": "train", "path": "data/records.parquet"}]
    for name, said in descriptions().items():
        assert f"| `{name}` | " in text
        assert said in text
    assert "licence: cc-by-4.0" in text


def test_what_must_be_known_comes_before_the_numbers(tmp_path: Path) -> None:
    plan = plan_of(["x", "y", "<b>z"], judged=[judged_entry("x") | {"caveats": ["pixels is not calibrated"]}])
    plan["sites"][0]["warnings"] = ["random weights"]
    groups = [group("x1", "x", 1, {"r2": 1.0}, dirty=True), [ending(row("y1", "y", 1), "failed", "E: boom")]]
    other = group("old", "x", 1, {"r2": 9.0})
    run = write_run(tmp_path / "run", plan, [*groups, other, verdict("x", 50.0)])
    exported(run, tmp_path / "out")
    text = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    first = text[: text.index("## Read it")]
    for said in (
        "- s: random weights. These are no results.",
        "- Panel proxy: pixels is not calibrated.",
        "- Panel proxy: a proxy panel; its win rates are not those of vision-language models.",
        "- 1 of 9 cells failed; their numbers are missing.",
        "- 7 of 9 cells have not been run; their numbers are missing.",
        "- Not complete: s/y/t1/i7 (failed).",
        "- Some numbers were made by a checkout with changes of its own, which are in no commit.",
    ):
        assert first.index("Read this first") < first.index(said) < first.index("One row per measured number")
    cells = set(parquet.read_table(tmp_path / "out" / "data" / "records.parquet").column("cell").to_pylist())
    assert cells == {"x1", "y1", "vx"}


def test_names_that_are_markup_are_text(tmp_path: Path) -> None:
    name = '"><b>`x`|\n---\nlicense: mit'
    run = write_run(tmp_path / "run", plan_of([name], suite=name), [group(f"{name}1", name, 1, {"r2": 1.0})])
    exported(run, tmp_path / "out", licence='other"\nconfigs: []')
    text = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    data = front_matter(text)
    assert (data["license"], data["pretty_name"]) == ('other"\nconfigs: []', f"eludebench: {name}")
    assert len(data["configs"]) == 1
    assert "<b>" not in text[text.index("\n# ") :]


# What is refused, and what is said


def test_no_licence_and_paths_of_this_machine_are_said(tmp_path: Path) -> None:
    options = {"dataset": {"path": "/" + "data/imagenet/val"}}
    run = a_run(tmp_path / "run", {"x": [1.0, 2.0, 3.0]}, site_options=options)
    said = exported(run, tmp_path / "out", licence="")
    assert said[0].startswith("warning: paths of a machine stand in site_options; look at them before you publish")
    assert said[1] == "warning: no licence is stated; --license cc-by-4.0, say, states one"
    assert 'license: "unknown"' in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


def test_folders_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run", {"x": [1.0, 2.0, 3.0]})
    with pytest.raises(UsageError, match=r"--to: got .*run, which exists and is not empty; expected a new folder"):
        exported(run, run)
    with pytest.raises(UsageError, match=r"RUN: got .*nowhere, which holds no run.json"):
        exported(tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(UsageError, match="has no records of what it was asked for"):
        exported(write_run(tmp_path / "empty", plan_of(["x"]), []), tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "run"]


def test_the_command_says_where_it_wrote(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run", {"x": [1.0, 2.0, 3.0]})
    with (run / "records.jsonl").open("a", encoding="ascii") as file:
        file.write('{"schema": 1, "ki')
    done = CliRunner().invoke(app, ["export", str(run), "--to", str(tmp_path / "out"), "--license", "mit"])
    assert done.stdout == f"wrote {tmp_path / 'out'}\n"
    assert "1 rows of an unfinished cell at its end are left out" in done.stderr
    assert parquet.read_table(tmp_path / "out" / "data" / "records.parquet").num_rows == 6
