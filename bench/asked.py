"""What a suite asks for: metrics and tables."""

from collections.abc import Mapping, Sequence
from typing import Any

from bench import UsageError
from bench.options import Problems
from bench.registry import Entry, Registry, unknown
from metrics.catalogue import ROWS, MetricRow
from results.tables import TABLES


def parse_metrics(raw: Mapping[str, Any], registry: Registry, problems: Problems) -> list[tuple[Entry, MetricRow]]:
    """The metrics asked for, where none are all that are measured by default, each with its catalogue row."""
    asked = raw.get("metrics", list(registry.tables["metrics"]))
    if not isinstance(asked, list):
        return []
    if not asked or len(set(map(str, asked))) < len(asked):
        problems.add(f"metrics: got {asked!r}; expected distinct names, at least one; leave it out for the usual ones")
    entries = [found(registry, "metrics", str(name), "metrics", problems) for name in asked]
    rows = []
    for entry in (entry for entry in entries if entry):
        known = [ROWS[entry.name]] if entry.name in ROWS else list(entry.load().rows)
        row = next((row for row in known if row.name == entry.name), None)
        if row is None:
            problems.add(f"metrics: {entry.name!r} of {entry.owner} has no row of that name; expected one; add it")
        elif row.by_default or "metrics" in raw:
            rows.append((entry, row))
    return rows


def compares(raw: Mapping[str, Any], n_init_seeds: int, rows: Sequence[MetricRow], problems: Problems) -> bool:
    """Whether runs are compared that differ in the init seed alone: where there are some, unless others are asked for.

    Args:
        raw: The suite.
        n_init_seeds: How many init seeds it has.
        rows: The metrics asked for.
        problems: Noted there, where a comparison is asked for that there is nothing to compare for.
    """
    asked = [row.name for row in rows if "init_seeds" in row.needs]
    if asked and n_init_seeds < 2:
        problems.add(f"metrics: got {asked[0]!r} with one init seed; expected two at least; add some to `init_seeds`")
    return n_init_seeds > 1 and (bool(asked) or "metrics" not in raw)


def parse_tables(raw: Mapping[str, Any], problems: Problems) -> tuple[str, ...]:
    """The tables that a run writes; the leaderboard where none are named."""
    asked = raw.get("tables", ["leaderboard"])
    if not isinstance(asked, list):
        return ()
    for name in asked:
        if name not in TABLES:
            problems.add(f"tables: {unknown('table', str(name), TABLES, 'README')}")
    if not asked:
        problems.add("tables: got none; expected at least one name; leave it out for the leaderboard")
    return tuple(map(str, asked))


def found(registry: Registry, kind: str, name: str, where: str, problems: Problems) -> Entry | None:
    """The registered component of that name, or None with the problem noted."""
    try:
        return registry.find(kind, name)
    except UsageError as error:
        problems.add(f"{where}: {error}")
        return None
