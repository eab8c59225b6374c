"""The schema of a record, made from `results.records.Record` itself: JSON Schema for programs, Markdown for people.

Types, nulls and descriptions come from the fields and their docstring; the rules that join fields are said here again,
as far as JSON Schema can say them, and a test holds that both agree. Two rules it cannot say: `low` is not above
`high`, and `time` is in UTC.
"""

import inspect
import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Final, get_args, get_origin

from results.records import COMPLETE, FAILED, MIGRATIONS, SCHEMA, SKIPPED, STATUS, Record

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
FORMATS: Final = ("json", "md")

_TYPES: Final = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}
_BREAKS: Final = r"\n\r\v\f\x1c-\x1e\x85\u2028\u2029"
_ONE_LINE: Final = rf"^[^{_BREAKS}]*(\r\n|[{_BREAKS}])?(?![\s\S])"
"""What Python's `str.splitlines` makes one line of, where it is not empty."""
_NULL: Final = {"type": "null"}
_EMPTY_FOR: Final = ("value", "low", "high")


def record_schema() -> dict[str, Any]:
    """The JSON Schema of one record, draft 2020-12.

    Whole numbers may be written with or without a point (1.0 is 1), as in JSON itself.
    """
    said = descriptions()
    properties = {
        item.name: {"type": _json_type(item.type), "description": said[item.name], **_own_rules().get(item.name, {})}
        for item in fields(Record)
    }
    return {
        "$schema": DIALECT,
        "$id": f"urn:eludebench:record:{SCHEMA}",
        "title": "Record",
        "description": first_line(Record),
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
        "allOf": _joint_rules(),
    }


def descriptions() -> dict[str, str]:
    """What the docstring of `Record` says of each field, in one line each."""
    _, _, attributes = inspect.getdoc(Record).partition("Attributes:\n")  # type: ignore[union-attr]
    found: dict[str, str] = {}
    for line in inspect.cleandoc(attributes).splitlines():
        begins = re.match(r"(\w+): (.*)", line)
        if begins:
            name, text = begins.groups()
            found[name] = text
        elif line.strip():
            found[name] += f" {line.strip()}"
    return found


def first_line(documented: object) -> str:
    """The first line of a docstring."""
    return (inspect.getdoc(documented) or "").partition("\n")[0]


def _json_type(annotation: Any) -> str | list[str]:
    """The JSON type of a field, or its types."""
    if get_origin(annotation) is Mapping:
        return "object"
    names = [_TYPES[member] for member in get_args(annotation) or (annotation,)]
    return names[0] if len(names) == 1 else names


def _own_rules() -> dict[str, dict[str, Any]]:
    """What holds for a field by itself, beside its type."""
    return {
        "schema": {"const": SCHEMA},
        "kind": {"enum": ["value", "cell"]},
        "n": {"minimum": 0},
        "n_excluded": {"minimum": 0},
        "time": {"format": "date-time"},
    }


def _joint_rules() -> list[dict[str, Any]]:
    """What holds for several fields together."""
    return [
        {
            "$comment": "an interval has both ends or none",
            **_if({"low": _NULL}, {"high": _NULL}, {"high": {"type": "number"}}),
        },
        {
            "$comment": "what a row of kind value looks like",
            **_if(
                {"kind": {"const": "value"}},
                {
                    "text": _NULL,
                    "metric": {"not": {"const": STATUS}},
                    "unit": {"minLength": 1},
                    "interval": {"minLength": 1},
                },
            ),
        },
        {
            "$comment": "a null value has a reason and no interval",
            **_if(
                {"kind": {"const": "value"}, "value": _NULL},
                {"reason": {"type": "string", "minLength": 1}, "low": _NULL, "high": _NULL},
            ),
        },
        {
            "$comment": "what a row of kind cell looks like",
            **_if(
                {"kind": {"const": "cell"}},
                {
                    "metric": {"const": STATUS},
                    "text": {"enum": [COMPLETE, FAILED, SKIPPED]},
                    **dict.fromkeys(_EMPTY_FOR, _NULL),
                },
            ),
        },
        {
            "$comment": "a failed or skipped cell says why, in one line",
            **_if(
                {"kind": {"const": "cell"}, "text": {"enum": [FAILED, SKIPPED]}},
                {"reason": {"type": "string", "minLength": 1, "pattern": _ONE_LINE}},
            ),
        },
    ]


def _if(
    condition: Mapping[str, Any], then: Mapping[str, Any], otherwise: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """A rule about properties that holds where others are as the condition says."""
    rule: dict[str, Any] = {"if": {"properties": dict(condition)}, "then": {"properties": dict(then)}}
    return rule | ({"else": {"properties": dict(otherwise)}} if otherwise else {})


def schema_markdown() -> str:
    """The same for people: every field, what joins fields, and how versions are read; ends with a line end."""
    schema = record_schema()
    lines = [
        "# Records",
        "",
        "<!-- made by `eludebench schema --format md`; a test fails when it is no longer what that prints -->",
        "",
        f"`records.jsonl` holds one JSON object in each line. {schema['description']} This is version {SCHEMA} of its "
        "fields; `eludebench schema` prints the same as JSON Schema (draft 2020-12).",
        "",
        "| field | type | what it is |",
        "| --- | --- | --- |",
    ]
    for name, rules in schema["properties"].items():
        types = rules["type"] if isinstance(rules["type"], list) else [rules["type"]]
        lines.append(f"| `{name}` | {' or '.join(types)} | {rules['description']} |")
    rules_in_words = [
        "All fields are always there, and no others.",
        "NaN and infinity do not exist; a number that could not be measured is null, and `reason` says why.",
        "`low` and `high` are both numbers or both null, and `low` is not above `high`.",
        f'A row of kind "value" has a unit and says how its interval was made; its metric is not "{STATUS}" and its '
        "text is null.",
        f'A row of kind "cell" has the metric "{STATUS}", one of the texts "{COMPLETE}", "{FAILED}" and "{SKIPPED}", '
        f"and no numbers; a {FAILED} or {SKIPPED} one gives its reason in one line.",
        'The rows of a cell stand together, those of kind "value" first; the row of kind "cell" closes them. Rows '
        "behind the last closed cell are what a killed process left, and are not read.",
        "A cell that stands there twice was tried again: its last closed rows count.",
    ]
    lines += ["", "## Rules", "", *(f"- {one}" for one in rules_in_words)]
    lines += ["", "## Versions", "", *(f"- {one}" for one in _versions())]
    return "\n".join(lines) + "\n"


def _versions() -> list[str]:
    """How records of each version are read."""
    older = [f"Version {one} is read: its fields are made those of version {one + 1}." for one in sorted(MIGRATIONS)]
    return [
        f"Version {SCHEMA} is what is written.",
        *older,
        "Any other is refused, with the version that was found and what to do.",
    ]
