"""The plans of several runs of one suite as one plan; what they plan differently is said, not decided."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from bench.changes import Changes
from bench.folder import ABSENT

Plans = Mapping[str, Mapping[str, Any]]
"""Plans by the name of their run."""

LISTS: Final = ("labels", "token_seeds", "init_seeds", "metrics", "tables")
_Table = tuple[Callable[[Mapping[str, Any]], str], tuple[str, ...], str]
_TABLES: Final[Mapping[str, _Table]] = {
    "sites": (lambda one: str(one["label"]), ("dataset", "backbone", "module"), "site"),
    "cells": (lambda one: str(one["name"]), ("id",), "cell"),
    "comparisons": (lambda one: f"{one['site']}/{one['label']}/stability", ("id",), "comparison"),
    "sweeps": (lambda one: f"{one['site']}/{one['label']}", ("swept", "trials"), "sweep"),
    "plugin_metrics": (lambda one: str(one["name"]), ("unit", "direction"), "metric"),
    "judged": (lambda one: f"{one['kind']} at {one['site']}", ("pool", "panel", "verdicts"), "panel"),
}
"""What names a row of each table of a plan, which of its entries must agree, and what a row is called."""


def conflicts_of(plans: Plans) -> Iterator[str]:
    """Why plans cannot be one: a line for each thing that two of them say differently."""
    (first, plan), *others = plans.items()
    for name, other in others:
        if other["suite"] != plan["suite"]:
            yield f"suite: {plan['suite']!r} in {first} and {other['suite']!r} in {name}"
            continue
        if not Changes.kept_in(other).alike(Changes.kept_in(plan)):
            yield f"changes of the suite: {Changes.kept_in(plan)} in {first} and {Changes.kept_in(other)} in {name}"
        for seeds in ("token_seeds", "init_seeds"):
            was, now = plan[seeds][0], other[seeds][0]
            if was != now:
                yield f"first of the {seeds.replace('_', ' ')}: {was} in {first} and {now} in {name}"
    for table, (key, entries, word) in _TABLES.items():
        yield from _differing(plans, table, key, entries, word)
    yield from _other_images(plans)


def _differing(
    plans: Plans, table: str, key: Callable[[Mapping[str, Any]], str], entries: Iterable[str], word: str
) -> Iterator[str]:
    """Rows of one table that have one name and say different things."""
    known: dict[str, tuple[str, Mapping[str, Any]]] = {}
    for name, plan in plans.items():
        for row in plan.get(table, ()):
            first, before = known.setdefault(key(row), (name, row))
            for entry in entries:
                was, now = before[entry], row[entry]
                if was != now:
                    yield f"{word} {key(row)}: {entry} is {_short(was)} in {first} and {_short(now)} in {name}"


def _other_images(plans: Plans) -> Iterator[str]:
    """Sites whose images are other files; a run that has not read them yet says nothing of them."""
    known: dict[str, tuple[str, str]] = {}
    for name, plan in plans.items():
        for site in plan["sites"]:
            content = site.get("content", ABSENT)
            first, before = known.setdefault(site["label"], (name, content))
            if before == ABSENT:
                known[site["label"]] = name, content
            elif content not in (before, ABSENT):
                hashes = f"{before[:12]} in {first} and {content[:12]} in {name}"
                yield f"site {site['label']}: the hash of the list of images is {hashes}"


def merged_plan(plans: Plans) -> dict[str, Any]:
    """One plan of what all of them ask for, in the order of the first; without how long each took."""
    every = list(plans.values())
    whole = {key: value for key, value in every[0].items() if key not in ("schema", "took")}
    if any(plan.get("suite_text") != whole.get("suite_text") for plan in every):
        whole.pop("suite_text", None)  # no text says what all of them planned
    for name in LISTS:
        whole[name] = list(dict.fromkeys(one for plan in every for one in plan[name]))
    whole["references"] = sorted({one for plan in every for one in plan["references"]})
    for table, (key, _, _) in _TABLES.items():
        rows: dict[str, Any] = {}
        for plan in every:
            for row in plan.get(table, ()):
                rows[key(row)] = _filled(rows[key(row)], row) if key(row) in rows else dict(row)
        if rows or table in whole:
            whole[table] = list(rows.values())
    whole["site_options"] = {}
    for plan in every:
        whole["site_options"] = {**plan["site_options"], **whole["site_options"]}
    return whole


def _filled(before: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    """A row with what another run knows of it: the list of images that it read, and what it warns of."""
    filled = {**row, **before}
    if before.get("content") == ABSENT:
        filled["content"] = row.get("content", ABSENT)
    for said in ("warnings", "caveats"):
        if said in filled:
            filled[said] = list(dict.fromkeys([*before.get(said, ()), *row.get(said, ())]))
    return filled


def _short(value: Any) -> str:
    """A value in few words."""
    text = str(value)
    return text if len(text) <= 40 else f"{text[:40]}..."
