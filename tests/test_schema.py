"""The schema of records says what `Record` takes; records of every version that was ever written stay readable."""

import json
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from typer.testing import CliRunner

from bench.cli import app
from results import records
from results.ledger import LedgerError, read
from results.records import SCHEMA, Record, from_line, to_line
from results.schema import descriptions, record_schema, schema_markdown

ROOT: Final = Path(__file__).resolve().parent.parent
FIXTURES: Final = sorted((ROOT / "tests" / "records").glob("v*.jsonl"))
CHECK: Final = Draft202012Validator(record_schema())


def lines_of(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="ascii").splitlines()]


BASES: Final = lines_of(ROOT / "tests" / "records" / f"v{SCHEMA}.jsonl")


def is_taken(data: dict[str, Any]) -> bool:
    try:
        from_line(json.dumps(data))
    except ValueError:
        return False
    return True


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(record_schema())
    assert set(descriptions()) == set(record_schema()["properties"])
    assert all(text.endswith(".") for text in descriptions().values())


@pytest.mark.parametrize("path", sorted((ROOT / "results").glob("*/records.jsonl")), ids=lambda path: path.parent.name)
def test_committed_records_follow_it(path: Path) -> None:
    rows = lines_of(path)
    assert rows
    assert [list(CHECK.iter_errors(row)) for row in rows] == [[]] * len(rows)


anything = (
    st.none()
    | st.booleans()
    | st.integers(-2, 2)
    | st.sampled_from([1.5, 1.0, -3.0, "", "a", "a\n", "a\nb", "a\r\n", "a\x85b", "\n", "%"])
    | st.sampled_from(["value", "cell", "status", "complete", "failed", "skipped"])
    | st.just([])
    | st.dictionaries(st.sampled_from(["k", "a.b"]), st.integers() | st.none(), max_size=2)
)
changed_fields = st.sampled_from([name for name in BASES[0] if name != "time"])


@settings(max_examples=600, deadline=None)
@given(base=st.sampled_from(BASES), changes=st.dictionaries(changed_fields, anything, max_size=4), data=st.data())
def test_the_schema_and_the_class_take_and_refuse_the_same(base: Any, changes: dict[str, Any], data: Any) -> None:
    changed = base | changes
    ends = [changed["low"], changed["high"]]
    if all(isinstance(end, float | int) for end in ends) and ends != sorted(ends):
        changed |= {"low": ends[1], "high": ends[0]}  # that they ascend is what a schema cannot say
    if data.draw(st.integers(0, 9), label="drop") == 0:
        del changed[data.draw(st.sampled_from(sorted(changed)), label="which")]
    assert CHECK.is_valid(changed) == is_taken(changed), [error.message for error in CHECK.iter_errors(changed)]


@pytest.mark.parametrize("name", BASES[0])
@pytest.mark.parametrize("value", [None, True, 1, 1.5, "a", {}, []], ids=repr)
def test_types_and_nulls_are_the_same_field_by_field(name: str, value: Any) -> None:
    for base in BASES:
        if name != "time" or not isinstance(value, str):
            changed = base | {name: value}
            if name in ("low", "high") and value is not None:
                changed["low" if name == "high" else "high"] = value
            assert CHECK.is_valid(changed) == is_taken(changed)


def test_a_whole_number_with_a_point_is_a_count() -> None:
    assert from_line(json.dumps(BASES[0] | {"n": 3.0})) == from_line(json.dumps(BASES[0] | {"n": 3}))
    with pytest.raises(ValueError, match="value: got inf; expected a finite number"):
        from_line(json.dumps(BASES[1] | {"value": 10**400}))


def test_an_unknown_field_is_refused_by_both() -> None:
    extra = BASES[0] | {"p_value": 0.05}
    assert not CHECK.is_valid(extra)
    assert not is_taken(extra)


# Versions


def test_every_version_has_its_fixture() -> None:
    assert [path.stem for path in FIXTURES] == [f"v{version}" for version in range(1, SCHEMA + 1)]


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.stem)
def test_records_of_every_version_stay_readable(path: Path) -> None:
    found = read(path)
    assert len(found) == len(lines_of(path))
    assert {row.kind for row in found} == {"value", "cell"}
    assert {row.text for row in found} == {None, "complete", "failed", "skipped"}
    assert any(row.kind == "value" and row.value is None for row in found)
    assert any(row.low is not None for row in found)
    assert [from_line(to_line(row)) for row in found] == found


def test_the_present_version_comes_back_as_it_was_written() -> None:
    path = FIXTURES[-1]
    assert [to_line(row) for row in read(path)] == path.read_text(encoding="ascii").splitlines()


@pytest.mark.parametrize("version", [0, -1])
def test_an_older_version_that_cannot_be_read_is_refused_with_its_number(version: int, tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text(json.dumps(BASES[0] | {"schema": version}) + "\n", encoding="ascii")
    said = rf"line 1: schema: got {version}; expected 1 to {SCHEMA}; use the eludebench that wrote it"
    with pytest.raises(LedgerError, match=said):
        read(path)


def test_a_newer_version_is_refused_with_its_number(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text(json.dumps(BASES[0] | {"schema": SCHEMA + 1}) + "\n", encoding="ascii")
    with pytest.raises(LedgerError, match=rf"schema: got {SCHEMA + 1}; expected at most {SCHEMA}; update eludebench"):
        read(path)


def test_older_versions_are_made_newer_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    old = {name: value for name, value in BASES[0].items() if name not in ("device", "site")}
    old |= {"schema": SCHEMA - 2, "place": "fc1"}
    monkeypatch.setitem(
        records.MIGRATIONS,
        SCHEMA - 2,
        lambda data: {name: value for name, value in data.items() if name != "place"} | {"site": data["place"]},
    )
    with pytest.raises(ValueError, match=rf"schema: got {SCHEMA - 1}; expected {SCHEMA - 2} to {SCHEMA}"):
        from_line(json.dumps(old))
    monkeypatch.setitem(records.MIGRATIONS, SCHEMA - 1, lambda data: data | {"device": "unknown"})
    found = from_line(json.dumps(old))
    assert found == Record(**BASES[0] | {"site": "fc1", "device": "unknown"})
    assert f"- Version {SCHEMA - 2} is read: its fields are made those of version {SCHEMA - 1}." in schema_markdown()


def test_the_first_records_of_all_lacked_a_field_and_say_so() -> None:
    """Those of the first commit with records are of version 1 too, from before `site_options`."""
    with pytest.raises(
        ValueError, match=r"got no \['site_options'\] and too many \[\]; expected a record's fields; remove"
    ):
        from_line(json.dumps({name: value for name, value in BASES[0].items() if name != "site_options"}))


# The page and the command


def test_the_committed_page_is_what_the_command_prints() -> None:
    printed = CliRunner().invoke(app, ["schema", "--format", "md"], catch_exceptions=False)
    assert printed.stdout == (ROOT / "results" / "RECORDS.md").read_text(encoding="utf-8")
    for name in record_schema()["properties"]:
        assert f"| `{name}` |" in printed.stdout


def test_the_command_prints_the_schema() -> None:
    printed = CliRunner().invoke(app, ["schema"], catch_exceptions=False)
    assert json.loads(printed.stdout) == record_schema()
