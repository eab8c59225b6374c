"""The commands that look at a run and do nothing of it: what is to do and what it takes, and how it stands."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.changes import changes_from
from bench.record_commands import tell_unfinished
from bench.registry import Registry, suite_path
from bench.terminal import (
    NO_FILTER,
    NO_PLUGINS,
    NO_WEIGHTS,
    CacheDir,
    Data,
    Device,
    Json,
    NoSweep,
    Only,
    Out,
    PanelName,
    Plugins,
    PrecisionName,
    RandomWeights,
    RunDir,
    Scale,
    SuiteName,
    Weights,
    Workers,
    show,
    tell,
    waiting,
)

if TYPE_CHECKING:
    from bench.estimate import Estimate


def plan(
    suite: SuiteName,
    out: Out = None,
    only: Only = NO_FILTER,
    data: Data = "",
    weights: Weights = NO_WEIGHTS,
    random_weights: RandomWeights = False,
    scale: Scale = 1.0,
    precision: PrecisionName = "",
    no_sweep: NoSweep = False,
    plugin: Plugins = NO_PLUGINS,
    cache: CacheDir = None,
    workers: Workers = None,
    device: Device = "cpu",
    panel: PanelName = "",
    estimate: Annotated[bool, typer.Option(help="Rehearse what is to do, to say how long it will take.")] = True,
    as_json: Json = False,
) -> None:
    """Show what `run` would do, cell by cell, how long it would take, and what it needs."""
    suite_path(suite)
    changes = changes_from(data, weights, random_weights, scale, precision, no_sweep)
    with waiting("reading the suite"):
        from bench.folder import check_folder, outcomes, states
        from bench.needs import needs_of
        from bench.panels import judged_by
        from bench.runner import comparisons_of, plan_of, selected
        from bench.suites import load_suite
        from bench.workers import workers_of

        who = workers_of("local", "", device, workers)
        registry = Registry(plugin)
        loaded = judged_by(load_suite(suite, registry, changes), panel, registry)
    folder = out or Path("runs") / loaded.name
    whole = plan_of(loaded)
    check_folder(folder, whole)
    cells = selected(loaded.cells, only)
    compared = comparisons_of(loaded, cells)
    names = {cell.name for cell in cells} | {one.name for one in compared}
    rows = [row for row in states(whole, outcomes(folder)) if row[0] in names]
    done = {key for _, key, state in rows if state.split(":")[0] in ("complete", "skipped")}
    needs = needs_of(loaded, cells, registry, who.device, who.n_threads, done=done)
    head: dict[str, Any] = {"suite": loaded.name, "run": str(folder), "needs": needs.as_json()}
    if estimate and len(done) < len(rows) and not needs.missing:
        tell(f"rehearsing what is to do, with {who.n_lanes} workers; --no-estimate leaves it out")
        with waiting("rehearsing what is to do"):
            from bench.cache import default_cache
            from bench.estimate import estimated

            to_do = [cell for cell in cells if cell.id not in done]
            others = [one for one in compared if one.id not in done]
            plugins = tuple(path.resolve() for path in plugin)
            where = cache or default_cache()
            found = estimated(to_do, who.n_lanes, plugins, where, comparisons=others, device=who.device, gpus=who.gpus)
        show_states(rows, head, as_json, found, needs.lines())
    else:
        show_states(rows, head, as_json, lines=needs.lines())


def status(run_dir: RunDir, as_json: Json = False) -> None:
    """Show the state of every cell of a run."""
    from bench.folder import outcomes, read_plan, states

    found = read_plan(run_dir)
    tell_unfinished(run_dir)
    show_states(states(found, outcomes(run_dir)), {"suite": found["suite"], "run": str(run_dir)}, as_json)


def show_states(
    rows: list[tuple[str, str, str]],
    head: dict[str, Any],
    as_json: bool,
    estimate: "Estimate | None" = None,
    lines: Sequence[str] = (),
) -> None:
    """Print the states of cells, what else there is to say, how many there are of each, and what is expected."""
    counts: dict[str, int] = {}
    for _, _, state in rows:
        short = state.split(":")[0]
        counts[short] = counts.get(short, 0) + 1
    if as_json:
        cells: list[dict[str, Any]] = [{"cell": cell, "id": key, "state": state} for cell, key, state in rows]
        if estimate:
            cells = [cell | estimate.of(cell["id"]) for cell in cells]
            head |= {"estimate": estimate.as_json()}
        show({**head, "counts": counts, "cells": cells})
        return
    width = max((len(row[0]) for row in rows), default=0)
    for cell, key, state in rows:
        print(f"{cell:<{width}}  {key}  {state}{estimate.clause(key) if estimate else ''}")
    total = f"; {estimate}" if estimate else ""
    for line in (*(estimate.shared() if estimate else ()), *lines):
        print(line)
    print(f"{head['suite']}: " + ", ".join(f"{n} {state}" for state, n in counts.items()) + total)
