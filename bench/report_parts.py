"""What other parts of the project give to the report: tables as HTML, figures, and what can be explored."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.explore import explored
from results.layout import Layout
from results.records import Record
from results.report import Drawing, Views
from results.tables import render


def html_of(spec: Any, records: Sequence[Record], layout: Layout) -> str:
    """A table as HTML."""
    from markupsafe import escape

    text = render(spec, records, layout=layout, format="md")  # until the format "html" is there
    row = f"<tr><td><pre>{escape(text)}</pre></td></tr>"
    return f'<table class="sheet" data-table="{spec.name}"><tbody>{row}</tbody></table>'


def drawings(folder: Path) -> list[Drawing]:
    """Every figure that a run has data for."""
    return []


def looked_at(
    folder: Path,
    plugins: Sequence[Path],
    cache: Path | None,
    suite: str,
    max_bytes: int,
    report: Callable[[str, int, int], None],
) -> tuple[Views, list[str]]:
    """Units and judged pairs, and what was left out of them; what a method left out is said where it is shown."""
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
