"""The command line: runs and what is made of them; components and plugins are in `bench.authors`.

Results go to standard output, progress and errors to standard error. Exit codes: 0 complete, 1 stopped by the machine
(a full disk), 2 usage, 3 finished with failed cells, 130 interrupted. Nothing heavy is imported before it is needed.
"""

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import typer

from bench import (
    UsageError,
    __version__,
    authors,
    decompositions,
    figure_commands,
    gallery_commands,
    judge_commands,
    plan_commands,
    record_commands,
    report_commands,
    table_commands,
)
from bench.changes import changes_from
from bench.registry import Registry, suite_path
from bench.terminal import (
    NO_FILTER,
    NO_PLUGINS,
    NO_WEIGHTS,
    Address,
    CacheDir,
    Data,
    Device,
    Engine,
    Json,
    NoSweep,
    Only,
    Out,
    PanelName,
    Plugins,
    PrecisionName,
    Quiet,
    RandomWeights,
    Scale,
    SuiteName,
    Weights,
    Workers,
    resolved,
    show,
    tell,
    waiting,
)

if TYPE_CHECKING:
    from bench.cells import Suite

app = typer.Typer(
    name="eludebench",
    help="Says which disentanglement method makes a vision network most interpretable, and at what cost.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

INTERRUPTED = 130


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
    no_sweep: NoSweep = False,
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
    changes = changes_from(data, weights, random_weights, scale, precision, no_sweep)
    with waiting("reading the suite"):
        from bench.cache import default_cache
        from bench.needs import fetched
        from bench.panels import judged_by
        from bench.runner import run as run_suite
        from bench.runner import selected
        from bench.stages import StartWorkshop
        from bench.suites import load_suite
        from bench.workers import workers_of

        who = workers_of(engine, address, device, workers)
        registry = Registry(plugin)
        loaded = judged_by(load_suite(suite, registry, changes), panel, registry)
        if fetched(selected(loaded.cells, only)):  # what cells are follows from their weights
            loaded = judged_by(load_suite(suite, registry, changes), panel, registry)
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
    here = replace(start, device="cpu")  # this process has no GPU of its own; exemplars are in the cache
    broken = judge_commands.judged_at_the_end(loaded, folder, here, plugin, is_quiet=quiet or as_json)
    end(loaded, folder, states, broken, is_quiet=quiet, as_json=as_json)


def end(
    suite: "Suite", folder: Path, states: dict[str, str], broken: list[str], *, is_quiet: bool, as_json: bool
) -> None:
    """Write the tables of a run, print the first, and leave with the exit code that its cells and judges ask for."""
    from bench.folder import renderer, write_text

    files = [(folder / f"{name}.{form}", name, form) for name in suite.tables for form in ("md", "csv")]
    made = renderer(folder)
    for path, name, form in files:
        write_text(path, made(name, form))
    first = files[0][0]
    failed = [name for name, state in states.items() if state == "failed"]
    if as_json:
        show({"suite": suite.name, "run": str(folder), "cells": states, "table": str(first)})
    elif not is_quiet:
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


def stop(code: int, text: str) -> NoReturn:
    """Say why, one line per problem, and leave."""
    for line in text.splitlines():
        tell(f"error: {line}")
    sys.exit(code)


app.add_typer(judge_commands.app, name="judge")
app.command("plan")(plan_commands.plan)
app.command("status")(plan_commands.status)
app.command("report")(report_commands.report)
app.command("table")(table_commands.table)
app.command("figure")(figure_commands.figure)
app.command("decompose")(decompositions.decompose)
app.command("gallery")(gallery_commands.gallery)
app.command("export")(record_commands.export)
app.command("export-decomposition")(decompositions.export_decomposition)
app.command("compare")(record_commands.compare)
app.command("merge")(record_commands.merge)
app.command("schema")(record_commands.schema)
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
