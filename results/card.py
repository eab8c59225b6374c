"""The card of a data set of records: what it is, what a reader must know first, and what each column means."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from results.markdown import escape
from results.parquet import column_types, nullable_columns
from results.records import STATUS, Record
from results.schema import descriptions

RECORDS: Final = "data/records.parquet"
_SIZES: Final = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_LARGER: Final = "1M<n<10M"
_TAGS: Final = ("interpretability", "mechanistic-interpretability", "vision", "benchmark")


@dataclass(frozen=True)
class Card:
    """What the card says that the records do not.

    Attributes:
        title: Name of the data set for people.
        description: What the suite is.
        licence: Of the numbers, as it was told: an identifier such as "cc-by-4.0"; empty where nobody told one.
        warnings: What must be read before any number.
        tables: Names of the tables that lie beside the records.
    """

    title: str
    description: str
    licence: str
    warnings: Sequence[str]
    tables: Sequence[str]


def card_markdown(card: Card, records: Sequence[Record]) -> str:
    """The text of `README.md`, front matter first; ends with a line end."""
    lines = [*_front_matter(card, len(records)), "", f"# {escape(card.title)}", ""]
    if card.warnings:
        lines += ["**Read this first:**", "", *(f"- {escape(one)}" for one in card.warnings), ""]
    lines += [f"{escape(card.description)}. " if card.description else ""]
    lines[-1] += (
        "One row per measured number, each with its interval, its counts and where it comes from; a number that could "
        f'not be measured is null and says why. A row of kind "cell" (metric "{STATUS}") closes the rows of a cell: '
        "one method with its options at one site, under one pair of seeds."
    )
    lines += ["", *_facts(card, records), "", "## Read it", "", *_reading(), "", "## Columns", "", *_columns()]
    files = {
        RECORDS: "the records",
        "schema.json": "JSON Schema (draft 2020-12) of a record as `records.jsonl` holds it, the mappings as objects",
        "run.json": "the plan of the run: which cells it was asked for",
        **{f"tables/{name}.csv": f"the table `{name}`, at full precision" for name in card.tables},
    }
    lines += ["", "## Files", "", *(f"- `{name}`: {what}" for name, what in files.items())]
    return "\n".join(lines) + "\n"


def _front_matter(card: Card, n: int) -> list[str]:
    """What the Hub reads; every text is written as JSON, which YAML takes as it is."""
    size = next((name for limit, name in _SIZES if n < limit), _LARGER)
    return [
        "---",
        f"license: {json.dumps(card.licence or 'unknown')}",
        f"pretty_name: {json.dumps(card.title)}",
        f"size_categories: {json.dumps([size])}",
        f"tags: {json.dumps(list(_TAGS))}",
        "configs:",
        "- config_name: records",
        "  default: true",
        "  data_files:",
        "  - split: train",
        f"    path: {RECORDS}",
        "---",
    ]


def _facts(card: Card, records: Sequence[Record]) -> list[str]:
    """What is in it, in a few lines."""
    seeds: dict[str, Any] = {
        name: sorted({getattr(one, name) for one in records}) for name in ("token_seed", "init_seed")
    }
    counted: Mapping[str, str] = {
        "records": f"{len(records):,} of {len({one.cell for one in records}):,} cells",
        "sites": _listed(f"{one.site} ({one.module} of {one.backbone} on {one.dataset})" for one in records),
        "methods": _listed(one.label for one in records),
        "token seeds": ", ".join(map(str, seeds["token_seed"])),
        "init seeds": ", ".join(map(str, seeds["init_seed"])),
        "devices": _listed(one.device for one in records),
        "commits": _listed(str(one.commit) for one in records),
        "licence": card.licence or "nobody stated one: ask whoever gave you this",
    }
    return [f"- {name}: {escape(text)}" for name, text in counted.items()]


def _listed(found: Any) -> str:
    """Each thing once, in the order in which it comes."""
    return ", ".join(dict.fromkeys(found))


def _reading() -> list[str]:
    """How a program reads it."""
    return [
        "```python",
        "import json",
        "from datasets import load_dataset",
        "",
        'rows = load_dataset("PATH OF THIS FOLDER", split="train")',
        'options = [json.loads(text) for text in rows["options"]]',
        "```",
    ]


def _columns() -> list[str]:
    """Every column with its type and what it is."""
    said, nullable = descriptions(), nullable_columns()
    lines = ["| column | type | what it is |", "| --- | --- | --- |"]
    for name, kind in column_types().items():
        lines.append(f"| `{name}` | {kind}{' or null' if name in nullable else ''} | {said[name]} |")
    return lines
