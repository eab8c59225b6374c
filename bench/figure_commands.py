"""The command that draws figures, and what the report of a run takes from it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from bench import UsageError
from bench.record_commands import tell_unfinished
from bench.terminal import tell

ALL = "all"


def figure(
    name: Annotated[str, typer.Argument(help="pareto, forest, wins, judges, ...; or all of them.")],
    run_dir: Annotated[Path | None, typer.Option("--run", help="Folder of a run.")] = None,
    form: Annotated[str, typer.Option("--format", help="svg, pdf or png; as FILE ends if not given.")] = "",
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="A file; for `all` a folder.")] = None,
    beside: Annotated[str, typer.Option("--beside", help="published: the paper's numbers too, hollow.")] = "",
    x: Annotated[str, typer.Option("--x", metavar="METRIC", help="Across, for pareto.")] = "",
    y: Annotated[str, typer.Option("--y", metavar="METRIC", help="Upwards, for pareto and robustness.")] = "",
    width: Annotated[str, typer.Option("--width", help="page (6.9 inches) or column (3.3).")] = "page",
    published: Annotated[bool, typer.Option("--published", help="The paper's numbers alone, without a run.")] = False,
) -> None:
    """Draw a figure of a run, or all that it has data for."""
    from results.figures import FIGURES

    if published and run_dir is not None:
        raise UsageError("--published: got it with --run; expected one of them; use --beside published for both")
    if run_dir is None and not published:
        raise UsageError("--run: got none; expected the folder of a run; give it, or --published for the paper's alone")
    if run_dir is not None:
        tell_unfinished(run_dir)
    options: dict[str, Any] = {"beside": "published" if published else beside, "x": x, "y": y, "width": width}
    if name != ALL:
        ending = form or (out.suffix.removeprefix(".") if out else "") or "svg"
        path = out or Path(f"{name}.{ending}")
        written(path, rendered_figure(run_dir, name, ending, **options))
        tell(f"figure: {path}")
        return
    if run_dir is None or any((beside, x, y)):
        raise UsageError("figure: got all with --published, --beside, --x or --y; expected --run alone; name a figure")
    folder = out or run_dir / "figures"
    there = figures_of(run_dir)
    for one in there:
        path = folder / f"{one}.{form or 'svg'}"
        written(path, rendered_figure(run_dir, one, form or "svg", width=width))
        tell(f"figure: {path}")
    left_out = [one for one in FIGURES if one not in there]
    if left_out:
        tell(f"without data in this run: {', '.join(left_out)}")


def figures_of(folder: Path) -> list[str]:
    """Names of the figures that a run has data for, in order.

    Raises:
        UsageError: The folder holds no run.
    """
    from results.figures import FIGURES, NothingToDrawError, chart

    material = material_of(folder)
    found = []
    for name in FIGURES:
        try:
            chart(name, **material)
        except NothingToDrawError:
            continue
        found.append(name)
    return found


def rendered_figure(folder: Path | None, name: str, format: str, **options: Any) -> bytes:
    """A figure of a run as a file.

    Args:
        folder: The run; None for the paper's numbers alone.
        name: One of `results.figures.FIGURES`.
        format: "svg", "pdf" or "png".
        options: As `results.figures.drawn` takes them: beside, x, y, width.

    Raises:
        UsageError: The folder holds no run, or there is no such figure, format or option, or nothing to draw.
    """
    from results.figures import drawn

    material = {} if folder is None else material_of(folder)
    try:
        return drawn(name, **material, format=format, **options)
    except (LookupError, ValueError) as error:
        raise UsageError(str(error.args[0])) from error


def material_of(folder: Path) -> Mapping[str, Any]:
    """What figures of a run are made from, by the names of the arguments of `results.figures.chart`."""
    from bench.findings_of_panels import findings_of
    from bench.folder import layout_of, outcomes, read_plan

    layout = layout_of(read_plan(folder))
    records = [record for group in outcomes(folder).values() for record in group]
    return {"records": records, "layout": layout, "panels": findings_of(folder)}


def written(path: Path, content: bytes) -> None:
    """Write a file, in a folder that is made if need be.

    Raises:
        StorageError: It cannot be written.
    """
    from bench.folder import make_folder, write_bytes

    make_folder(path.parent)
    write_bytes(path, content)
