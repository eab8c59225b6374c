"""The command line: runs and what is made of them; components and plugins are in `bench.authors`.

Results go to standard output, progress and errors to standard error. Exit codes: 0 complete, 1 stopped by the machine
(a full disk), 2 usage, 3 finished with failed cells, 130 interrupted. Nothing heavy is imported before it is needed.
"""

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from bench import UsageError, __version__, authors, decompositions, judge_commands
from bench.changes import Changes
from bench.registry import Registry, suite_path
from bench.terminal import (
    NO_PLUGINS,
    NO_WEIGHTS,
    CacheDir,
    Data,
    Json,
    Plugins,
    PrecisionName,
    Quiet,
    RandomWeights,
    Scale,
    SuiteName,
    Weights,
    resolved,
    show,
    tell,
    waiting,
)

if TYPE_CHECKING:
    from bench.estimate import Estimate

app = typer.Typer(
    name="eludebench",
    help="Says which disentanglement method makes a vision network most interpretable, and at what cost.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Out = Annotated[Path | None, typer.Option("--out", help="Folder of the run; runs/SUITE if not given.")]
Only = Annotated[list[str], typer.Option("--only", metavar="KEY=VALUE", help="Narrow the cells down; repeatable.")]
RunDir = Annotated[Path, typer.Option("--run", help="Folder of a run.")]

Workers = Annotated[
    int | None, typer.Option(min=0, help="Processes; 0 works in this one. Two if not given, or one for each GPU.")
]
Engine = Annotated[str, typer.Option("--engine", help="local, or ray (the extra of that name).")]
Address = Annotated[str, typer.Option("--address", help="Of a Ray cluster that runs already; auto finds it.")]
Device = Annotated[str, typer.Option("--device", help="cpu; cuda for every GPU; or some of them: cuda:0,cuda:2.")]
PanelName = Annotated[
    str, typer.Option("--panel", help="Who judges at the end, not the suite's panel; none for nobody.")
]

INTERRUPTED = 130
NO_FILTER: list[str] = []


@app.command()
def run(
    suite: SuiteName,
    out: Out = None,
    only: Only = NO_FILTER,
    data: Data = "",
    weights: Weights = NO_WEIGHTS,
    random_weights: RandomWeights = False,
    scale: Scale = 1.0,
    precision: PrecisionName = "",
    plugin: Plugins = NO_PLUGINS,
    cache: CacheDir = None,
    workers: Workers = None,
    engine: Engine = "local",
    address: Address = "",
    device: Device = "cpu",
    panel: PanelName = "",
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Run a suite, or go on with it; print its table."""
    suite_path(suite)  # so that a misspelt name is told before anything heavy is imported
    changes = Changes(data, tuple(weights), random_weights, scale, precision)
    with waiting("reading the suite"):
        from bench.cache import default_cache
        from bench.folder import rendered, write_text
        from bench.needs import fetched
        from bench.runner import run as run_suite
        from bench.stages import StartWorkshop
        from bench.suites import load_suite
        from bench.workers import workers_of

        who = workers_of(engine, address, device, workers)
        registry = Registry(plugin)
        loaded = load_suite(suite, registry, changes)
        if fetched(loaded):
            loaded = load_suite(suite, registry, changes)  # what cells are follows from their weights
    loaded = replace(loaded, panel="" if panel == "none" else panel or loaded.panel)
    folder = out or Path("runs") / loaded.name
    start = StartWorkshop(resolved(plugin), cache or default_cache(), who.n_threads, device=who.device)
    states = run_suite(
        loaded,
        folder,
        start,
        only=only,
        n_lanes=who.n_lanes,
        gpus=who.gpus,
        cluster=who.cluster,
        is_quiet=quiet or as_json,
    )
    files = [(folder / f"{name}.{form}", name, form) for name in loaded.tables for form in ("md", "csv")]
    broken = judge_commands.judged_at_the_end(loaded, folder, start, plugin, is_quiet=quiet or as_json)
    for path, name, form in files:
        write_text(path, rendered(folder, name, form))
    first = files[0][0]
    failed = [name for name, state in states.items() if state == "failed"]
    if as_json:
        show({"suite": loaded.name, "run": str(folder), "cells": states, "table": str(first)})
    elif not quiet:
        print(first.read_text(encoding="utf-8"))
        skipped = sum(state == "skipped" for state in states.values())
        done = f"{len(states) - len(failed) - skipped} of {len(states)} cells complete"
        print(f"{done}{f', {skipped} skipped' if skipped else ''}; table: {first}")
    if failed:
        tell(f"error: failed: {', '.join(failed)}; see `eludebench status --run {folder}`")
    for line in broken:
        tell(f"error: {line}")
    if failed or broken:
        raise typer.Exit(3)


@app.command()
def plan(
    suite: SuiteName,
    out: Out = None,
    only: Only = NO_FILTER,
    data: Data = "",
    weights: Weights = NO_WEIGHTS,
    random_weights: RandomWeights = False,
    scale: Scale = 1.0,
    precision: PrecisionName = "",
    plugin: Plugins = NO_PLUGINS,
    cache: CacheDir = None,
    workers: Workers = None,
    device: Device = "cpu",
    estimate: Annotated[bool, typer.Option(help="Rehearse what is to do, to say how long it will take.")] = True,
    as_json: Json = False,
) -> None:
    """Show what `run` would do, cell by cell, how long it would take, and what it needs."""
    suite_path(suite)
    changes = Changes(data, tuple(weights), random_weights, scale, precision)
    with waiting("reading the suite"):
        from bench.folder import check_folder, outcomes, states
        from bench.needs import needs_of
        from bench.runner import comparisons_of, plan_of, selected
        from bench.suites import load_suite
        from bench.workers import workers_of

        who = workers_of("local", "", device, workers)
        registry = Registry(plugin)
        loaded = load_suite(suite, registry, changes)
    folder = out or Path("runs") / loaded.name
    check_folder(folder, loaded.name, changes)
    cells = selected(loaded.cells, only)
    compared = comparisons_of(loaded, cells)
    names = {cell.name for cell in cells} | {one.name for one in compared}
    rows = [row for row in states(plan_of(loaded), outcomes(folder)) if row[0] in names]
    done = {key for _, key, state in rows if state.split(":")[0] in ("complete", "skipped")}
    needs = needs_of(loaded, [cell for cell in cells if cell.id not in done], registry, who.device)
    head: dict[str, Any] = {"suite": loaded.name, "run": str(folder), "needs": needs.as_json()}
    if estimate and len(done) < len(rows) and not needs.missing:
        tell(f"rehearsing what is to do, with {who.n_lanes} workers; --no-estimate leaves it out")
        with waiting("rehearsing what is to do"):
            from bench.cache import default_cache
            from bench.estimate import estimated

            to_do = [cell for cell in cells if cell.id not in done]
            others = [one for one in compared if one.id not in done]
            plugins = tuple(path.resolve() for path in plugin)
            found = estimated(to_do, who.n_lanes, plugins, cache or default_cache(), comparisons=others)
        show_states(rows, head, as_json, found)
    else:
        show_states(rows, head, as_json)
    for line in () if as_json else needs.lines():
        print(line)


@app.command()
def status(run_dir: RunDir, as_json: Json = False) -> None:
    """Show the state of every cell of a run."""
    from bench.folder import outcomes, read_plan, states

    found = read_plan(run_dir)
    show_states(states(found, outcomes(run_dir)), {"suite": found["suite"], "run": str(run_dir)}, as_json)


@app.command()
def table(
    name: Annotated[str, typer.Argument(help="leaderboard, verdicts, structure, ...; README has them all.")],
    run_dir: RunDir,
    form: Annotated[str, typer.Option("--format", help="md or csv.")] = "md",
) -> None:
    """Print a table of a run."""
    from bench.folder import rendered

    print(rendered(run_dir, name, form), end="")


@app.command()
def doctor(cache: CacheDir = None, as_json: Json = False) -> None:
    """Say what on this machine would be in the way."""
    from bench.doctor import examine

    findings = examine(cache)
    if as_json:
        show([vars(finding) for finding in findings])
    else:
        for finding in findings:
            print(f"{'ok     ' if finding.is_fine else 'PROBLEM'}  {finding.what}: {finding.found}")
    if not all(finding.is_fine for finding in findings):
        raise typer.Exit(3)


@app.command()
def version() -> None:
    """Print the version."""
    print(__version__)


def show_states(
    rows: list[tuple[str, str, str]], head: dict[str, Any], as_json: bool, estimate: "Estimate | None" = None
) -> None:
    """Print the states of cells, how many there are of each, and what is expected of those that are to do."""
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
    for line in estimate.shared() if estimate else ():
        print(line)
    print(f"{head['suite']}: " + ", ".join(f"{n} {state}" for state, n in counts.items()) + total)


def stop(code: int, text: str) -> NoReturn:
    """Say why, one line per problem, and leave."""
    for line in text.splitlines():
        tell(f"error: {line}")
    sys.exit(code)


app.add_typer(judge_commands.app, name="judge")
app.command("decompose")(decompositions.decompose)
app.command("export")(decompositions.export)
app.command("list")(authors.list_components)
app.command("new-method")(authors.new_method)
app.command("check-method")(authors.check_method)


def main() -> None:
    """The program: every foreseen error is a line, not a traceback."""
    try:
        app()
    except SystemExit as done:
        if done.code == INTERRUPTED:
            tell("error: interrupted; finished cells are kept, and the same command goes on from there")
        raise
    except UsageError as error:
        stop(2, str(error.args[0]))
    except Exception as error:
        stop_for(error)


def stop_for(error: Exception) -> NoReturn:
    """Leave where something cannot be written; anything unforeseen keeps its traceback."""
    from bench.cache import StorageError
    from judges.grids import GridsError
    from judges.manifest import ManifestError
    from judges.replies import RepliesError
    from results.ledger import LedgerError

    if isinstance(error, StorageError | LedgerError | GridsError | ManifestError | RepliesError):
        stop(1, str(error))
    raise error
