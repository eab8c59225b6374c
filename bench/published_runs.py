"""A run as one folder for other people: records as Parquet, their schema, the plan, the tables and a card."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from bench import UsageError
from bench.folder import PLAN, outcomes, read_plan, renderer, write_text
from bench.new_folder import new_folder
from results.card import RECORDS, Card, card_markdown
from results.parquet import write_parquet
from results.records import COMPLETE, Record
from results.schema import record_schema

_LOCAL = re.compile(r"(?:^|[\s\"'=:])(?:/[\w.-]+/|~/|[A-Za-z]:\\)")
"""What a path of a machine begins with."""


def published(folder: Path, to: Path, licence: str, say: Callable[[str], None]) -> None:
    """Write what a run found into a new folder that is a data set as the Hugging Face Hub takes it.

    Rows of cells that the run's last command did not ask for are left out.

    Args:
        folder: The run.
        to: A new folder.
        licence: Of the numbers: an identifier such as "cc-by-4.0"; empty to state none.
        say: Told what a person should know before it is published.

    Raises:
        UsageError: The folder holds no run or no records, or `to` is taken.
        StorageError: The new folder cannot be written.
    """
    plan, groups = read_plan(folder, "RUN"), outcomes(folder)
    asked = planned(plan)
    records = [row for cell, group in groups.items() if cell in asked for row in group]
    if not records:
        raise UsageError(
            f"RUN: got {folder}, which has no records of what it was asked for; expected some; "
            f"`eludebench run {plan['suite']} --out {folder}` first"
        )
    caveats = list(warnings_of(plan, groups, asked))
    with new_folder(to, "--to") as aside:
        (aside / RECORDS).parent.mkdir()
        write_parquet(records, aside / RECORDS)
        write_text(aside / "schema.json", json.dumps(record_schema(), indent=1) + "\n")
        write_text(aside / PLAN, json.dumps(plan, indent=1) + "\n")
        (aside / "tables").mkdir()
        tables, made = [], renderer(folder)
        for name in plan["tables"]:
            with suppress(UsageError):  # of what was not measured there is no table
                write_text(aside / "tables" / f"{name}.csv", made(name, "csv"))
                tables.append(name)
        card = Card(f"eludebench: {plan['suite']}", plan["description"], licence, caveats, tables)
        write_text(aside / "README.md", card_markdown(card, records))
    local = local_paths(plan, records)
    if local:
        say(f"warning: paths of a machine stand in {', '.join(local)}; look at them before you publish {to}")
    if not licence:
        say("warning: no licence is stated; --license cc-by-4.0, say, states one")


def planned(plan: Mapping[str, Any]) -> frozenset[str]:
    """The hashes of all that a plan has records of: cells, comparisons, variants of sweeps and verdicts."""
    found = [one["id"] for one in (*plan["cells"], *plan.get("comparisons", ()))]
    found += [trial for sweep in plan.get("sweeps", ()) for trial in sweep["trials"]]
    found += [verdict for one in plan.get("judged", ()) for verdict in one["verdicts"].values()]
    return frozenset(found)


def warnings_of(
    plan: Mapping[str, Any], groups: Mapping[str, Sequence[Record]], asked: frozenset[str]
) -> Iterator[str]:
    """What a reader of the numbers has to know first."""
    for site in plan["sites"]:
        for warning in site.get("warnings", ()):
            yield f"{site['label']}: these are no results: {warning}"
    for one in plan.get("judged", ()):
        yield from (f"{one['panel']}: {caveat}" for caveat in one["caveats"])
        if one["kind"] == "proxy_panel":
            yield f"{one['panel']}: a proxy panel, whose win rates are not those of vision-language models"
    ends = {cell: groups[cell][-1] for cell in asked if cell in groups}
    bad = sorted({f"{end.site}/{end.label} ({end.text})" for end in ends.values() if end.text != COMPLETE})
    if bad:
        yield f"not complete: {', '.join(bad)}; their rows say why"
    if len(asked) > len(ends):
        yield f"{len(asked) - len(ends)} of the {len(asked)} cells that were planned have no records"
    if any(end.dirty for end in ends.values()):
        yield "some numbers were made by a checkout with changes of its own (`dirty`)"


def local_paths(plan: Mapping[str, Any], records: Sequence[Record]) -> list[str]:
    """Where paths of a machine stand: names of columns, and `run.json`."""
    names = ("options", "site_options", "notes", "reason", "traceback")
    found = [name for name in names if any(_has_path(getattr(one, name)) for one in records)]
    return found + ([PLAN] if _has_path(plan) else [])


def _has_path(value: Any) -> bool:
    """Whether a path of a machine stands in a text, or anywhere inside of a value."""
    if isinstance(value, str):
        return _LOCAL.search(value) is not None
    if isinstance(value, Mapping):
        return any(_has_path(one) for one in value.values())
    return isinstance(value, Sequence) and any(_has_path(one) for one in value)
