"""The commands about one decomposition: a share of its units, and a copy of it for other programs."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from bench import UsageError
from bench.changes import changes_from
from bench.lanes import quietly
from bench.registry import Registry, suite_path, unknown
from bench.terminal import (
    NO_PLUGINS,
    NO_WEIGHTS,
    CacheDir,
    Data,
    NoSweep,
    Plugins,
    PrecisionName,
    Quiet,
    RandomWeights,
    Scale,
    SuiteName,
    Weights,
    resolved,
    tell,
    waiting,
)

if TYPE_CHECKING:
    from bench.cells import Cell, Suite


def decompose(
    suite: SuiteName,
    cell: Annotated[str, typer.Argument(metavar="CELL", help="As in `plan`: SITE/LABEL/tSEED/iSEED.")],
    units: Annotated[str, typer.Option("--units", metavar="FROM:TO", help="Units of the site; TO is not among them.")],
    data: Data = "",
    weights: Weights = NO_WEIGHTS,
    random_weights: RandomWeights = False,
    scale: Scale = 1.0,
    precision: PrecisionName = "",
    no_sweep: NoSweep = False,
    plugin: Plugins = NO_PLUGINS,
    cache: CacheDir = None,
    quiet: Quiet = False,
) -> None:
    """Find some units of a cell's decomposition, so that several machines share it; then `run` the suite."""
    suite_path(suite)
    changes = changes_from(data, weights, random_weights, scale, precision, no_sweep)
    start, _, stop = units.partition(":")
    if not (start.isdecimal() and stop.isdecimal()):
        raise UsageError(f"--units: got {units!r}; expected FROM:TO, 0:384 say; change it")
    with waiting("reading the suite"):
        from bench.cache import default_cache
        from bench.lanes import Task
        from bench.progress import Display
        from bench.stages import StartWorkshop
        from bench.suites import load_suite

        chosen = chosen_cell(load_suite(suite, Registry(plugin), changes), cell)
    display, task = Display(1, is_quiet=quiet), Task(chosen.id, chosen.name, ())
    begin = StartWorkshop(resolved(plugin), cache or default_cache(), os.cpu_count() or 1)
    with display:
        workshop = begin.workshop(lambda what, done, total: display.progressed(task, what, done, total), display.said)
        is_new = workshop.find_units(chosen, range(int(start), int(stop)))
    if not quiet:
        print(f"units {units} of {chosen.name}: {'found and kept' if is_new else 'the decomposition is there already'}")


def export_decomposition(
    suite: SuiteName,
    cell: Annotated[str, typer.Argument(metavar="CELL", help="As in `plan`: SITE/LABEL/tSEED/iSEED.")],
    to: Annotated[Path, typer.Option("--to", help="A new folder.")],
    form: Annotated[
        Literal["saelens", "own"], typer.Option("--format", help="saelens, or own: what is kept here.")
    ] = "own",
    data: Data = "",
    weights: Weights = NO_WEIGHTS,
    random_weights: RandomWeights = False,
    scale: Scale = 1.0,
    precision: PrecisionName = "",
    no_sweep: NoSweep = False,
    plugin: Plugins = NO_PLUGINS,
    cache: CacheDir = None,
) -> None:
    """Write a cell's decomposition into a folder, for other programs."""
    suite_path(suite)
    changes = changes_from(data, weights, random_weights, scale, precision, no_sweep)
    with waiting("reading the suite"):
        from bench.cache import default_cache
        from bench.decomposition_files import written
        from bench.stages import StartWorkshop
        from bench.suites import load_suite

        chosen = chosen_cell(load_suite(suite, Registry(plugin), changes), cell)
    start = StartWorkshop(resolved(plugin), cache or default_cache(), os.cpu_count() or 1)
    written(start.workshop(quietly, tell), chosen, to, form)
    print(f"wrote {to}")


def chosen_cell(suite: "Suite", name: str) -> "Cell":
    """The cell of that name."""
    cells = {cell.name: cell for cell in suite.cells}
    if name not in cells:
        raise UsageError(unknown("CELL", name, cells, f"eludebench plan {suite.name}"))
    return cells[name]
