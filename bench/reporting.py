"""What stands on the report of a run: gathered from its folder, in the order of the page (`results.report`)."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from bench import UsageError
from bench.changes import Changes
from bench.folder import LEDGER, layout_of, outcomes, read_plan, states
from bench.panels import kind_told_by
from bench.report_parts import columns_of, drawings, html_of, reading
from results.layout import Layout
from results.leaders import leaders
from results.ledger import unfinished
from results.records import COMPLETE, FAILED, SKIPPED, Record
from results.report import Drawing, Report, Sheet, Trouble
from results.subjects import NothingToShowError
from results.sweeps import SweepSpec
from results.tables import TABLES

LEADERBOARD: Final = "leaderboard"
PARETO: Final = "pareto"
PAPER: Final = "paper-"
TO_DO: Final = "to do"

Groups = Mapping[str, Sequence[Record]]


def gathered(folder: Path, command: str) -> Report:
    """The report of a run without what can be explored in it.

    Args:
        folder: Of the run.
        command: What makes the page.

    Raises:
        FolderError: The folder holds no run.
        UsageError: Its records contradict each other.
    """
    plan = read_plan(folder, "DIR")
    groups = outcomes(folder)
    layout = layout_of(plan)
    records = [record for group in groups.values() for record in group]
    rows = states(plan, groups)
    counts = {state: sum(one.split(":")[0] == state for _, _, one in rows) for state in STATES}
    has_any = any(record.kind == "value" for record in records)
    try:
        sheets = tables(plan, records, layout) if has_any else []
        figures = drawings(folder, records, layout) if has_any else []
    except ValueError as error:  # records that contradict each other: of two pools, say
        raise UsageError(str(error.args[0])) from error
    told = panel_tables()
    first = sheets[0] if sheets else None  # the leaderboard, or where the run has none of it the suite's first table
    return Report(
        suite=plan["suite"],
        description=plan.get("description", ""),
        warnings=[*(warnings(plan, groups) if has_any else []), *cut_off(folder)],
        facts=facts(plan, groups),
        counts=[(state, n) for state, n in counts.items() if n],
        troubles=troubles(rows),
        leaderboard=first,
        leaders=leaders(columns_of(first.name, records, layout), records, layout) if first else [],
        reading=reading(first.name, records, layout) if first else [],
        pareto=next((one for one in figures if one.name == PARETO), None),
        tables=[one for one in sheets if one is not first and one.name not in told],
        figures=[one for one in figures if one.name != PARETO and not of_panel(one)],
        panels=list(layout.panels.values()),
        panel_tables=[one for one in sheets if one.name in told],
        panel_figures=[one for one in figures if of_panel(one)],
        command=command,
        next_step=f"Nothing was measured yet. `{run_command(plan, folder)}` measures it; then make this page again.",
    )


STATES: Final = (COMPLETE, FAILED, SKIPPED, TO_DO)
PANEL_FIGURES: Final = frozenset({"forest", "wins", "judges"})


def of_panel(drawing: Drawing) -> bool:
    """Whether a figure is about judges."""
    return drawing.name in PANEL_FIGURES


def panel_tables() -> frozenset[str]:
    """Names of the tables that tell what judges said and nothing else."""
    return frozenset(name for name in TABLES if kind_told_by(name))


def warnings(plan: Mapping[str, Any], groups: Groups) -> list[str]:
    """What a reader has to know before any number: weights, slices, panels, seeds, and what is not there."""
    said: dict[str, list[str]] = {}
    for site in plan["sites"]:
        for warning in site.get("warnings", ()):
            said.setdefault(warning, []).append(site["label"])
    lines = [f"{', '.join(sites)}: {warning}. These are no results." for warning, sites in said.items()]
    for one in plan.get("judged", ()):
        if one["kind"] == "proxy_panel":
            lines.append(f"Panel {one['panel']}: a proxy panel; its win rates are not those of vision-language models.")
        lines += [f"Panel {one['panel']}: {caveat}." for caveat in one["caveats"]]
    if len(plan["token_seeds"]) == 1:
        lines.append("One token seed: intervals do not cover the draw of tokens.")
    found = [told.partition(":")[0] for _, _, told in states(plan, groups)]
    for state, what in ((FAILED, "failed"), (TO_DO, "have not been run")):
        if found.count(state):
            lines.append(f"{found.count(state)} of {len(found)} cells {what}; their numbers are missing.")
    wanted = identities(plan)
    if any(group[-1].dirty for cell, group in groups.items() if cell in wanted):
        lines.append("Some numbers were made by a checkout with changes of its own, which are in no commit.")
    return list(dict.fromkeys(lines))


def cut_off(folder: Path) -> list[str]:
    """That the records end in the middle of a cell, where they do."""
    n_rows = unfinished(folder / LEDGER)
    return [f"{n_rows} rows of an unfinished cell at the end of {LEDGER} are left out."] if n_rows else []


def troubles(rows: Sequence[tuple[str, str, str]]) -> list[Trouble]:
    """The cells without numbers, those with the same reason together, failed ones first."""
    found: dict[tuple[str, str], list[str]] = {}
    for name, _, told in rows:
        state, _, reason = told.partition(": ")
        if state != COMPLETE:
            found.setdefault((state, reason), []).append(name)
    ordered = sorted(found.items(), key=lambda item: STATES.index(item[0][0]))
    return [Trouble(state, reason, tuple(names)) for (state, reason), names in ordered]


def facts(plan: Mapping[str, Any], groups: Groups) -> list[tuple[str, str]]:
    """Where the numbers come from; of the records of this plan alone."""
    wanted = identities(plan)
    records = [record for cell, group in groups.items() if cell in wanted for record in group]
    closing = [group[-1] for cell, group in groups.items() if cell in wanted]
    options = {site["label"]: f"{site['module']} of {site['backbone']} on {site['dataset']}" for site in plan["sites"]}
    told = [
        ("command", run_command(plan)),
        ("sites", "; ".join(f"{label}: {what}" for label, what in options.items())),
        ("methods", ", ".join(plan["labels"])),
        ("seeds", f"tokens {seeds(plan['token_seeds'])}; init {seeds(plan['init_seeds'])}"),
    ]
    if not closing:
        return told
    times = sorted(record.time for record in closing)
    versions = {name: version for record in closing for name, version in record.versions.items()}
    several = {name for name in versions if len({record.versions.get(name) for record in closing}) > 1}
    return [
        *told,
        ("commit", "; ".join(dict.fromkeys(commit_of(record) for record in closing))),
        ("device", "; ".join(dict.fromkeys(record.device for record in closing))),
        ("measured", moment(times[0]) if times[0] == times[-1] else f"{moment(times[0])} to {moment(times[-1])} UTC"),
        *([("took", duration(plan["took"]))] if "took" in plan else []),
        ("records", f"{len(records):,} in {len(closing):,} groups, each a cell, a variant, a comparison or a verdict"),
        ("versions", ", ".join(version_of(name, versions, several) for name in shown_versions(versions))),
    ]


def identities(plan: Mapping[str, Any]) -> frozenset[str]:
    """The hashes of all that a plan has records of: cells, comparisons, variants of sweeps and verdicts."""
    found = [one["id"] for one in (*plan["cells"], *plan.get("comparisons", ()))]
    found += [trial for sweep in plan.get("sweeps", ()) for trial in sweep["trials"]]
    found += [verdict for one in plan.get("judged", ()) for verdict in one["verdicts"].values()]
    return frozenset(found)


def seeds(values: Sequence[int]) -> str:
    """Seeds in words."""
    return ", ".join(map(str, values))


def commit_of(record: Record) -> str:
    """The commit, and whether the code was changed after it."""
    if record.commit is None:
        return "no checkout, so no commit"
    return record.commit[:12] + (", with changes that are in no commit" if record.dirty else "")


def moment(time: str) -> str:
    """A time for people, to the minute."""
    return time[:16].replace("T", " ")


def duration(took: Mapping[str, Any]) -> str:
    """How long a run took."""
    text = f"{in_minutes(took['seconds'])}, {took['tasks']} tasks, {took['workers']} workers"
    judging = took.get("judging_seconds")
    return f"{text}; {in_minutes(judging)} of judging" if judging else text


def in_minutes(seconds: float) -> str:
    """Seconds below two minutes, minutes above."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def shown_versions(versions: Mapping[str, str]) -> list[str]:
    """The packages that were there."""
    return [name for name, version in versions.items() if version != "not installed"]


def version_of(name: str, versions: Mapping[str, str], several: set[str]) -> str:
    """A package with its version."""
    return f"{name} {versions[name]}{' and others' if name in several else ''}"


def run_command(plan: Mapping[str, Any], folder: Path | None = None) -> str:
    """The command that the run was made with."""
    changes = Changes.kept_in(plan)
    words = [f"eludebench run {shlex.quote(plan['suite'])}", *([str(changes)] if changes.as_json() else [])]
    return " ".join([*words, *([f"--out {shlex.quote(str(folder))}"] if folder else [])])


def tables(plan: Mapping[str, Any], records: Sequence[Record], layout: Layout) -> list[Sheet]:
    """The tables that the suite asks for, and every other of our own that the run has all numbers for."""
    names = [LEADERBOARD, *plan["tables"], *(name for name in TABLES if is_whole(name, layout))]
    bare = replace(layout, sites=tuple(replace(site, warnings=()) for site in layout.sites))  # they head the page
    found = []
    for name in dict.fromkeys(names):
        try:
            html = html_of(TABLES[name], records, bare)
        except NothingToShowError:
            continue
        found.append(Sheet(name, TABLES[name].title.replace("`", ""), html))
    return found


def is_whole(name: str, layout: Layout) -> bool:
    """Whether a run of this layout measures everything that a table of our own shows, whatever its methods."""
    spec = TABLES[name]
    if isinstance(spec, SweepSpec):
        return bool(layout.sweeps)
    if name.startswith(PAPER) or layout.measured is None:
        return False
    takes_off = any(column.less for column in spec.columns)  # such a table is about one method's variants
    return not takes_off and {column.metric for column in spec.columns} <= layout.measured
