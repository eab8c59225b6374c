"""What other parts of the project give to the report: tables as HTML, figures, and what can be explored."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from results.explored import Explored, Judged, Pictures
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
    folder: Path, plugins: Sequence[Path], cache: Path | None, max_bytes: int, report: Callable[[str], None]
) -> tuple[Views, list[str]]:
    """Units and judged pairs, and what was left out of them."""
    pictures: list[Pictures] = []
    explored: list[Explored] = []
    judged: list[Judged] = []
    return Views(pictures, explored, judged), ["units and judged pairs: not looked at"]
