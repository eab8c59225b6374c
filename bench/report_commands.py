"""The command `report`: one page of a run, to be read and explored without anything beside it."""

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
    from results.report import page

    if not max_mb > 0:
        raise UsageError(f"--max-mb: got {max_mb}; expected megabytes above 0, 20 say; change it")
    read_plan(run_dir, "DIR")
    where = out or run_dir / NAME
    made = made_report(run_dir, out, with_images, max_mb, resolved(plugin), cache, is_quiet=quiet or as_json)
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
    """
    from bench.cache import default_cache
    from bench.reporting import gathered
    from results.report import page

    line, report = command(folder, out, with_images, max_mb, plugins), nothing if is_quiet else said
    if not (cache or default_cache()).exists():
        bare = gathered(folder, line)
        why = ["units, images and judged pairs: the cache of the run is not on this machine"]
        return bare if bare.leaderboard is None else replace(bare, left_out=why)
    # tables and figures take as long as opening the cache, and a second process does them meanwhile
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        report("tables, figures, and what the cache holds", 0, 0)
        waiting = pool.submit(gathered, folder, line)
        from bench.explore import Looking

        looking = Looking.at(folder, plugins=plugins, cache=cache, report=report)
        bare = waiting.result()
    if bare.leaderboard is None:
        return bare
    place = max(0, int(max_mb * MEGABYTE) - len(page(bare).encode("utf-8")) - 10_000)  # what is said of it takes some
    views, left_out = looking.within(place, with_images, report)
    return replace(bare, views=views, left_out=left_out)


def nothing(what: str, done: int, total: int) -> None:
    """Progress that nobody wants to see."""


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
