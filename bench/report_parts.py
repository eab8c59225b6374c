"""What other parts of the project give to the report: tables as HTML, figures, and what can be explored."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from results.layout import Layout
from results.records import Record
from results.report import Drawing, Views
from results.tables import render


def html_of(spec: Any, records: Sequence[Record], layout: Layout) -> str:
    """A table as HTML, with the paper's figures where it has them."""
    return render(spec, records, layout=layout, format="html")


def drawings(folder: Path, records: Sequence[Record], layout: Layout) -> list[Drawing]:
    """Every figure that a run has data for, in order."""
    from bench.findings_of_panels import findings_of
    from results.charts import described
    from results.figures import FIGURES, WIDTHS, NothingToDrawError, chart
    from results.plots import to_bytes

    panels = findings_of(folder)
    found = []
    for name, spec in FIGURES.items():
        try:
            made = chart(name, records, layout, panels=panels)
        except NothingToDrawError:
            continue
        svg = to_bytes(made, "svg", WIDTHS["page"])
        found.append(Drawing(name, spec.title, f"{spec.title}: {spec.shows}", svg, described(made)))
    return found


def looked_at(
    folder: Path,
    plugins: Sequence[Path],
    cache: Path | None,
    suite: str,
    max_bytes: int,
    report: Callable[[str, int, int], None],
) -> tuple[Views, list[str]]:
    """Units and judged pairs, and what was left out of them; what a method left out is said where it is shown."""
    from bench.cache import default_cache

    if not (cache or default_cache()).exists():  # known before seconds are spent on reading the suite
        return Views(), ["units, images and judged pairs: the cache of the run is not on this machine"]
    from bench.explore import explored

    pictures, methods, judged, left_out = explored(
        folder, plugins=plugins, cache=cache, max_bytes=max_bytes, report=report, suite=suite
    )
    of_methods = {f"{one.site}/{one.label}: {one.left_out}" for one in methods if one.left_out}
    n, n_all = sum(len(one.units) for one in methods), sum(one.n_units for one in methods)
    lines = [line for line in left_out if line not in of_methods]
    lines += (
        [f"{n_all - n} of {n_all} units; each method says below how those were chosen that are"] if n < n_all else []
    )
    return Views(pictures, methods, judged), lines
