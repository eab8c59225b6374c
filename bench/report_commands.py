"""The command `report`: one page of a run, to be read and explored without anything beside it."""

import math
import shlex
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench import UsageError
from bench.terminal import NO_PLUGINS, CacheDir, Json, Plugins, Quiet, resolved, show, tell

if TYPE_CHECKING:
    from results.report import Report

NAME = "report.html"
MEGABYTE = 1_000_000
BYTES_OF_WORDS = 10_000
"""What the page says of what it leaves out, at most."""


def report(
    run_dir: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a run.")],
    out: Annotated[Path | None, typer.Option("--out", help="The page; report.html in DIR if not given.")] = None,
    with_images: Annotated[
        bool | None,
        typer.Option(
            "--with-images/--without-images",
            help="Show the data set's images; only of data sets that ship with this program if not given.",
        ),
    ] = None,
    max_mb: Annotated[float, typer.Option("--max-mb", help="How large the page may be, in megabytes.")] = 20.0,
    plugin: Plugins = NO_PLUGINS,
    cache: CacheDir = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Make one page of a run: tables, figures, its units, what judges said; it needs no network and no other file."""
    from bench.folder import read_plan, write_text
    from bench.registry import Registry
    from results.report import page

    if not 0 < max_mb < math.inf:
        raise UsageError(f"--max-mb: got {max_mb}; expected megabytes above 0, 20 say; change it")
    read_plan(run_dir, "DIR")
    plugins = resolved(plugin)
    if plugins:
        Registry(plugins)  # whatever is wrong with one is told before anything is done
    where = out or run_dir / NAME
    if not where.parent.is_dir():
        raise UsageError(f"--out: got {where}, whose folder is not there; expected one that is; make it first")
    made = made_report(run_dir, out, with_images, max_mb, plugins, cache, is_quiet=quiet or as_json)
    text = page(made)
    write_text(where, text)
    n_bytes = len(text.encode("utf-8"))
    if as_json:
        show({"report": str(where), "bytes": n_bytes, "warnings": list(made.warnings), "left_out": list(made.left_out)})
    elif not quiet:
        for line in made.left_out:
            print(f"left out: {line}")
        print(f"report: {where} ({n_bytes / MEGABYTE:.1f} MB)")


def made_report(
    folder: Path,
    out: Path | None,
    with_images: bool | None,
    max_mb: float,
    plugins: tuple[Path, ...],
    cache: Path | None,
    *,
    is_quiet: bool,
) -> "Report":
    """The report of a run, as large as it may be.

    Raises:
        FolderError: The folder holds no run.
        UsageError: Its records contradict each other, or tables and figures alone take more than the page may.
    """
    from bench.cache import default_cache
    from bench.lanes import quietly
    from bench.reporting import gathered
    from results.report import Views, page

    line, report = command(folder, out, with_images, max_mb, plugins), quietly if is_quiet else said
    looking, left_out = None, ["units, images and judged pairs: the run's cache is not here; --cache says where it is"]
    if not (cache or default_cache()).exists():
        bare = gathered(folder, line)
    else:
        # tables and figures take as long as opening the cache, and a second process does them meanwhile
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            report("tables, figures, and what the cache holds", 0, 0)
            waiting = pool.submit(gathered, folder, line)
            from bench.explore import Looking

            looking = Looking.at(folder, plugins=plugins, cache=cache, report=report)
            bare = waiting.result()
    most, n_bytes = int(max_mb * MEGABYTE), len(page(bare).encode("utf-8")) + BYTES_OF_WORDS
    if n_bytes > most:
        least = math.ceil(10 * n_bytes / MEGABYTE) / 10
        raise UsageError(f"--max-mb: got {max_mb:g}; expected {least:g} or more, as tables and figures take; give more")
    if bare.leaderboard is None:
        return bare
    views = Views()
    if looking is not None:
        views, left_out = looking.within(most - n_bytes, with_images, report)
    return replace(bare, views=views, left_out=left_out)


def said(what: str, done: int, total: int) -> None:
    """Progress as a line, where something begins."""
    if not done:
        tell(f"report: {what}")


def command(folder: Path, out: Path | None, with_images: bool | None, max_mb: float, plugins: Sequence[Path]) -> str:
    """The command line that makes the page again; where the cache is differs from machine to machine."""
    words = ["eludebench", "report", str(folder)]
    words += ["--out", str(out)] if out else []
    words += [] if with_images is None else ["--with-images" if with_images else "--without-images"]
    words += [] if max_mb == 20 else ["--max-mb", f"{max_mb:g}"]
    words += [word for path in plugins for word in ("--plugin", str(path))]
    return shlex.join(words)
