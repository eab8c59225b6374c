"""Suites: what is run, as short TOML files; read strictly, all errors at once, before any work.

A suite names sites (data set, backbone, module path), methods with their options, metrics, token seeds and init
seeds. Its cells are one method at one site under one token seed and one init seed. Seeds form a star, as in the
paper: every token seed at the first init seed, and every other init seed at the first token seed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from bench import UsageError
from bench.asked import compares, found, parse_metrics, parse_tables
from bench.cells import Cell, Component, SiteSpec, Suite
from bench.changes import Changes
from bench.components import parse_sites, with_options
from bench.options import Problems, checked_keys, text_of, toml_of
from bench.panels import load_panel
from bench.registry import Registry, shipped_suites, suite_path, unknown
from bench.sweeps import combinations
from methods.protocol import Explicit, Follower

SUITE_KEYS = {
    "description": str,
    "panel": str,
    **dict.fromkeys(("token_seeds", "init_seeds", "metrics", "tables", "sites", "methods"), list),
}
METHOD_KEYS = ("name", "label", "at", "sweep")
UNCHANGED = Changes()


class SuiteError(UsageError):
    """A suite cannot be used; one line per problem."""


def load_suite(name: str, registry: Registry, changes: Changes = UNCHANGED) -> Suite:
    """The suite of that name or path, with the methods of plugin files added under their default options.

    Args:
        name: A shipped suite, or the path of a file.
        registry: What its names stand for.
        changes: What of it is otherwise than written.

    Raises:
        SuiteError: It cannot be read, or something in it is wrong; the message holds every problem, one a line.
    """
    path = suite_path(name)
    problems = Problems(f"suite {path.name}")
    return from_text(path.stem, text_of(path, problems), registry, changes, problems)


def suite_of(plan: Mapping[str, Any], registry: Registry) -> Suite:
    """The suite that a run was made of, as its plan keeps it.

    Raises:
        SuiteError: Something that it names is not here, or the run is older than the keeping of suites.
    """
    name, changes = str(plan["suite"]), Changes.kept_in(plan)
    if "suite_text" in plan:
        return from_text(name, plan["suite_text"], registry, changes, Problems(f"suite {name} of the run"))
    if name not in shipped_suites():
        raise SuiteError(
            f"suite: got a run of {name!r}, which is not shipped and not kept in its run.json; expected it there; "
            "`eludebench run` with the same suite and folder puts it there and measures nothing again"
        )
    return load_suite(name, registry, changes)


def from_text(name: str, text: str, registry: Registry, changes: Changes, problems: Problems) -> Suite:
    """The suite in a text.

    Raises:
        SuiteError: Something in it is wrong, or a problem was noted before.
    """
    raw = {} if problems.found else toml_of(text, problems)
    changed = {} if problems.found else changes.applied(raw, registry, problems)
    suite = None if problems.found else parse(name, changed, registry, problems)
    if problems.found or suite is None:
        raise SuiteError("\n".join(problems.found))
    return replace(suite, changes=changes, text=text)


def parse(name: str, raw: Mapping[str, Any], registry: Registry, problems: Problems) -> Suite | None:
    """The suite, or None with what is wrong noted in `problems`."""
    checked_keys(raw, SUITE_KEYS, "", problems)
    token_seeds = seeds(raw, "token_seeds", problems)
    init_seeds = seeds(raw, "init_seeds", problems)
    metrics = parse_metrics(raw, registry, problems)
    is_compared = compares(raw, len(init_seeds), [row for _, row in metrics], problems)
    metrics = [(entry, row) for entry, row in metrics if "init_seeds" not in row.needs]
    asked = parse_tables(raw, problems)
    for key in ("sites", "methods"):
        if not raw.get(key):
            problems.add(f"{key}: got none; expected at least one [[{key}]] table; add one")
    sites = [site for i, table in tables(raw, "sites", problems) for site in parse_sites(i, table, registry, problems)]
    site_labels = [site.label for site in sites]
    unique(site_labels, "sites", problems)
    method_tables = list(tables(raw, "methods", problems))
    mentioned = {table.get("name") for _, table in method_tables}
    added = [entry for entry in registry.from_files("methods") if entry.name not in mentioned]
    method_tables += [(len(method_tables) + i, {"name": entry.name}) for i, entry in enumerate(added)]
    rows = [parse_method(i, table, site_labels, registry, problems) for i, table in method_tables]
    labels = [row[0] for row in rows if row]
    unique(labels, "methods", problems)
    if problems.found:
        return None
    whole_sites = tuple(sites)
    named = tuple((row.name, f"{entry.identity} version {entry.load().version}") for entry, row in metrics)
    swept = any(method.variants for row in rows if row for method in row[1].values())
    if "sweep" in asked and not swept and not problems.found:
        problems.add("tables: got 'sweep' in a suite that sweeps nothing; expected a method with `sweep`; leave it out")
    cells = star(whole_sites, [row for row in rows if row], token_seeds, init_seeds, named, problems)
    alone, apart = (
        any(getattr(entry.load(), flag, False) for entry, _ in metrics) for flag in ("runs_alone", "runs_apart")
    )
    cells = [replace(cell, runs_alone=alone, runs_apart=apart) for cell in cells]
    return Suite(
        name=name,
        description=str(raw.get("description", "")),
        sites=whole_sites,
        labels=tuple(labels),
        token_seeds=token_seeds,
        init_seeds=init_seeds,
        metrics=tuple(row for _, row in metrics),
        tables=asked,
        cells=tuple(cells),
        compares=is_compared,
        panel=parse_panel(raw, registry, problems),
    )


def parse_panel(raw: Mapping[str, Any], registry: Registry, problems: Problems) -> str:
    """The panel that judges what a run found, if any; looked at here, so that it fails before anything else is done."""
    name = raw.get("panel", "")
    if isinstance(name, str) and name:
        try:
            load_panel(name, registry)
        except UsageError as error:
            for line in str(error.args[0]).splitlines():
                problems.add(f"panel: {line}")
    return name if isinstance(name, str) else ""


def tables(raw: Mapping[str, Any], key: str, problems: Problems) -> list[tuple[int, Mapping[str, Any]]]:
    """The numbered tables of a list; anything else in it is a problem."""
    entries = raw.get(key) if isinstance(raw.get(key), list) else []
    for i, entry in enumerate(entries or []):
        if not isinstance(entry, dict):
            problems.add(f"{key}[{i}]: got {entry!r}; expected a table; write [[{key}]]")
    return [(i, entry) for i, entry in enumerate(entries or []) if isinstance(entry, dict)]


def seeds(raw: Mapping[str, Any], key: str, problems: Problems) -> tuple[int, ...]:
    """A list of distinct whole numbers; 42 alone where none is given."""
    values = raw.get(key, [42])
    if not isinstance(values, list):
        return ()
    if not values or len(set(map(str, values))) < len(values) or any(type(v) is not int or v < 0 for v in values):
        problems.add(f"{key}: got {values!r}; expected a list of distinct whole numbers from 0 up; mend it")
        return ()
    return tuple(values)


def unique(labels: Sequence[str], key: str, problems: Problems) -> None:
    """Labels name rows, so no two may be equal."""
    for label in dict.fromkeys(label for label in labels if labels.count(label) > 1):
        problems.add(f"{key}: label {label!r} is used twice; expected distinct labels; give one another `label`")


def parse_method(
    i: int, table: Mapping[str, Any], site_labels: Sequence[str], registry: Registry, problems: Problems
) -> tuple[str, dict[str, Component]] | None:
    """One [[methods]] table: its label, and the method with its options at each site.

    Everything but `name`, `label`, `at` and `sweep` is an option; `at.SITE` overrides options at one site.
    """
    where = f"methods[{i}]"
    name = table.get("name")
    if not isinstance(name, str):
        problems.add(f"{where}.name: got {name!r}; expected the name of a method; see `eludebench list methods`")
        return None
    entry = found(registry, "methods", name, where, problems)
    if entry is None:
        return None
    at, label = table.get("at", {}), table.get("label", name)
    if not isinstance(label, str):
        problems.add(f"{where}.label: got {label!r}; expected a text; change it")
        return None
    if not isinstance(at, dict) or not all(isinstance(options, dict) for options in at.values()):
        problems.add(f"{where}.at: got {at!r}; expected options per site; write at.SITE = {{ option = value }}")
        return None
    for site in at:
        if site not in site_labels:
            problems.add(f"{where}.at: {unknown('site', site, site_labels, 'the suite')}")
    options = {key: value for key, value in table.items() if key not in METHOD_KEYS}
    fixed = {*options, *(name for own in at.values() for name in own)}
    sweep = combinations(table, fixed, where, problems)
    made: dict[str, Component | None] = {}
    for site in site_labels or [""]:
        own = {**options, **at.get(site, {})}
        made[site] = with_options("method", entry, own, where, problems)
        variants = [with_options("method", entry, {**own, **values}, where, problems) for values in sweep]
        base = made[site]
        if base and variants and not isinstance(base.built, Explicit):
            problems.add(f"{where}.sweep: {name!r} has virtual units; expected an explicit method; leave sweep out")
        if base and variants:
            made[site] = replace(base, variants=tuple(one for one in variants if one))
    whole = {site: method for site, method in made.items() if method}
    return (label, whole) if len(whole) == len(made) else None


def star(
    sites: Sequence[SiteSpec],
    rows: Sequence[tuple[str, Mapping[str, Component]]],
    token_seeds: Sequence[int],
    init_seeds: Sequence[int],
    metrics: tuple[tuple[str, str], ...],
    problems: Problems,
) -> list[Cell]:
    """All cells, in the suite's order of sites, seeds and methods."""
    methods = dict(rows)
    pairs = [(t, init_seeds[0]) for t in token_seeds] + [(token_seeds[0], i) for i in init_seeds[1:]]

    def cell(site: SiteSpec, label: str, t: int, i: int, followers: tuple[str, ...]) -> Cell | None:
        method = methods[label][site.label]
        leader = None
        if isinstance(method.built, Follower):
            like = method.built.like
            if like not in methods or like in (*followers, label):
                choices = [other for other in methods if other not in (*followers, label)]
                message = unknown("like", like, choices, "the suite")
                problems.add(f"methods {label!r}: copies its sizes from another method: {message}")
                return None
            leader = cell(site, like, t, i, (*followers, label))
        first = (token_seeds[0], init_seeds[0]) if method.variants else None
        return Cell(site, label, method, leader, t, i, metrics, first)

    made = [cell(site, label, t, i, ()) for site in sites for t, i in pairs for label in methods]
    return [one for one in made if one]
