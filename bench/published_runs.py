"""A run as one folder for other people: records as Parquet, their schema, the plan, the tables and a card."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from bench import UsageError
from bench.folder import PLAN, outcomes, read_plan, renderer, states, write_text
from bench.new_folder import new_folder
from bench.reporting import TO_DO, identities, warnings
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
    asked = identities(plan)
    records = [row for cell, group in groups.items() if cell in asked for row in group]
    if not records:
        raise UsageError(
            f"RUN: got {folder}, which has no records of what it was asked for; expected some; "
            f"`eludebench run {plan['suite']} --out {folder}` first"
        )
    caveats = [*warnings(plan, groups), *incomplete(plan, groups)]
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


def incomplete(plan: Mapping[str, Any], groups: Mapping[str, Sequence[Record]]) -> list[str]:
    """The cells whose rows hold a reason in place of numbers, in a sentence; none where there are none."""
    found = [(name, told.partition(":")[0]) for name, _, told in states(plan, groups)]
    bad = [f"{name} ({state})" for name, state in found if state not in (COMPLETE, TO_DO)]
    return [f"Not complete: {', '.join(bad)}."] if bad else []


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
