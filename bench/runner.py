"""A run: the cells of a suite that are still to do, worked in lanes here or on a cluster, each leaving its records.

The same command again continues: complete cells are skipped, failed ones are tried again, new ones are added. Records
are written by this process alone, one cell at a time; what lanes found after an earlier one was gone is taken up.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench import UsageError
from bench.cells import Cell, Suite
from bench.clusters import connected
from bench.executors import Cluster, run_on_ray
from bench.folder import LEDGER, PLAN, check_folder, make_folder, outcomes, read_plan, write_plan
from bench.outcomes import Outcomes
from bench.processes import run_tasks
from bench.progress import Display
from bench.recorder import Recorder
from bench.registry import unknown
from bench.stability import Comparison, groups_of
from bench.stages import StartWorkshop
from bench.sweeps import sweep_id, trial_ids
from bench.tasks import tasks_for
from metrics.catalogue import ROWS
from results.ledger import Ledger
from results.records import COMPLETE, SKIPPED

ONLY: dict[str, Callable[[Cell], str]] = {
    "site": lambda cell: cell.site.label,
    "dataset": lambda cell: cell.site.dataset.entry.name,
    "backbone": lambda cell: cell.site.backbone.entry.name,
    "method": lambda cell: cell.method.entry.name,
    "label": lambda cell: cell.label,
    "token_seed": lambda cell: str(cell.token_seed),
    "init_seed": lambda cell: str(cell.init_seed),
}


def selected(cells: Sequence[Cell], only: Iterable[str]) -> list[Cell]:
    """The cells that satisfy every `key=value`; values of one key given twice are alternatives.

    Raises:
        UsageError: A pair has another form, an unknown key, or a value that no cell has.
    """
    wanted: dict[str, set[str]] = {}
    for pair in only:
        key, equals, value = pair.partition("=")
        if not equals:
            raise UsageError(f"--only: got {pair!r}; expected key=value; keys are {', '.join(ONLY)}")
        if key not in ONLY:
            raise UsageError(f"--only {unknown('key', key, ONLY, 'eludebench run --help')}")
        values = {ONLY[key](cell) for cell in cells}
        if value not in values:
            raise UsageError(f"--only {unknown(key, value, values, 'eludebench plan SUITE')}")
        wanted.setdefault(key, set()).add(value)
    return [cell for cell in cells if all(ONLY[key](cell) in values for key, values in wanted.items())]


def plan_of(suite: Suite) -> dict[str, Any]:
    """What `run.json` holds of a suite."""
    return {
        "suite": suite.name,
        "suite_text": suite.text,
        "description": suite.description,
        **({"changes": suite.changes.as_json()} if suite.changes.as_json() else {}),
        "sites": [
            {
                "label": site.label,
                "dataset": site.dataset.entry.name,
                "backbone": site.backbone.entry.name,
                "module": site.module,
                **({"content": content} if (content := getattr(site.dataset.built, "content", "")) else {}),
                **({"warnings": list(site.warnings)} if site.warnings else {}),
            }
            for site in suite.sites
        ],
        "labels": list(suite.labels),
        "references": sorted({cell.label for cell in suite.cells if cell.is_reference}),
        "site_options": {site.label: site.options for site in suite.sites},
        "token_seeds": list(suite.token_seeds),
        "init_seeds": list(suite.init_seeds),
        "metrics": [row.name for row in suite.metrics],
        "tables": list(suite.tables),
        "sweeps": sweeps_of(suite.cells),
        "comparisons": [
            {"site": one.site.label, "label": one.label, "id": one.id} for one in comparisons_of(suite, suite.cells)
        ],
        "plugin_metrics": [
            {"name": row.name, "unit": row.unit, "direction": row.direction}
            for row in suite.metrics
            if row.name not in ROWS
        ],
        "cells": [
            {
                "id": cell.id,
                "name": cell.name,
                "site": cell.site.label,
                "label": cell.label,
                "token_seed": cell.token_seed,
                "init_seed": cell.init_seed,
            }
            for cell in suite.cells
        ],
    }


def sweeps_of(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """Each sweep once: where it is, which options vary in it, and the records that its variants leave."""
    found: dict[str, dict[str, Any]] = {}
    for cell in cells:
        if cell.selected_at is not None:
            options = [variant.options for variant in cell.method.variants]
            swept = [name for name in options[0] if len({repr(one[name]) for one in options}) > 1]
            place = {"site": cell.site.label, "label": cell.label, "swept": swept, "trials": trial_ids(cell)}
            found.setdefault(sweep_id(cell), place)
    return list(found.values())


def kept_before(folder: Path, suite: Suite) -> dict[str, Any]:
    """What an earlier plan of this folder says that the suite does not.

    That is what the last command that did something took, and what was judged of methods that are as they were.
    """
    before = read_plan(folder, "--out") if (folder / PLAN).exists() else {}
    there = {cell.id for cell in suite.cells}
    judged = [one for one in before.get("judged", []) if there.issuperset(one["cells"])]
    kept = {"took": before.get("took"), "judged": judged}
    return {key: value for key, value in kept.items() if value}


def run(
    suite: Suite,
    folder: Path,
    start: StartWorkshop,
    *,
    only: Sequence[str] = (),
    n_lanes: int = 2,
    gpus: Sequence[str] = (),
    cluster: Cluster | None = None,
    is_quiet: bool = False,
) -> dict[str, str]:
    """Do what is to do of a suite; returns the state of every selected cell by name.

    Args:
        suite: What to run.
        folder: Where the records go.
        start: Makes the workshop of each lane.
        only: `key=value` pairs that narrow the cells down.
        n_lanes: How many processes work; 0 works in this one.
        gpus: One process for each of these GPUs instead, which sees no other (`bench.processes.run_tasks`).
        cluster: Ray's workers work instead, here or on many machines.
        is_quiet: Show no progress.

    Raises:
        UsageError: The folder belongs to another suite, `only` fits nothing, or the cluster cannot be used.
        StorageError, LedgerError: Something cannot be written.
    """
    cells = selected(suite.cells, only)
    whole = plan_of(suite)
    check_folder(folder, whole)
    make_folder(folder)
    with Ledger(folder / LEDGER) as ledger:
        plan = whole | kept_before(folder, suite)
        write_plan(folder, plan)
        complete = {key for key, group in outcomes(folder).items() if group[-1].text in (COMPLETE, SKIPPED)}
        display = Display(0, is_quiet=is_quiet)
        recorder = Recorder(suite, ledger, display, frozenset(complete), Outcomes(folder.resolve()), start.device)
        recorder = recorder.having_taken_up(suite.cells)
        say_what_is_there(suite, recorder)
        begin, done = time.perf_counter(), recorder.complete
        compared = comparisons_of(suite, cells)
        left = [cell for cell in cells if cell.id not in done], [one for one in compared if one.id not in done]
        n_tasks, n_workers = worked(*left, start, recorder, n_lanes, gpus, cluster if any(left) else None)
        if n_tasks:
            took = {"seconds": time.perf_counter() - begin, "tasks": n_tasks, "workers": n_workers}
            write_plan(folder, plan | {"took": took})
    groups = outcomes(folder)
    names = {cell.id: cell.name for cell in cells} | {one.id: one.name for one in compared}
    return {name: str(groups[key][-1].text) for key, name in names.items()}


def worked(
    cells: Sequence[Cell],
    comparisons: Sequence[Comparison],
    start: StartWorkshop,
    recorder: Recorder,
    n_lanes: int,
    gpus: Sequence[str],
    cluster: Cluster | None,
) -> tuple[int, int]:
    """Do what is left, here or on a cluster; how many tasks that were, and how many workers did them."""
    display, kept = recorder.display, recorder.kept
    if cluster is None:
        n_workers = len(gpus) or n_lanes
        tasks = tasks_for(cells, comparisons, n_workers)
        with display.of(len(tasks)):
            run_tasks(tasks, n_lanes, start, recorder, gpus=gpus, kept=kept)
    else:
        start = replace(start, cache=start.cache.resolve())  # workers stand in folders of their own
        with connected(cluster, (kept.run, start.cache), display.said) as n_workers:
            tasks = tasks_for(cells, comparisons, n_workers)
            with display.of(len(tasks)):
                run_on_ray(tasks, start, recorder, cluster=cluster, n_workers=n_workers, kept=kept)
    kept.end([task.id for task in tasks])
    return len(tasks), n_workers


def say_what_is_there(suite: Suite, recorder: Recorder) -> None:
    """Tell what is complete already, and what of an earlier command's was not."""
    ledger, say = recorder.ledger, recorder.display.said
    if ledger.n_dropped:
        say(f"{ledger.path}: {ledger.n_dropped} rows of an unfinished cell were cut off; it is done again")
    whole = recorder.complete - {one for cell in suite.cells if cell.selected_at is not None for one in trial_ids(cell)}
    whole -= {one.id for one in comparisons_of(suite, suite.cells)}
    if whole:
        n_other = len(whole - {cell.id for cell in suite.cells})
        others = f"; {n_other} more in this folder belong to no cell of this command" if n_other else ""
        say(f"complete already: {len(whole) - n_other}{others}")


def comparisons_of(suite: Suite, cells: Sequence[Cell]) -> list[Comparison]:
    """What of these cells is compared: nothing in a suite that is not about all init seeds."""
    return groups_of(cells) if suite.compares else []
