"""What other parts of the project give to the report: tables as HTML, and figures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from results.layout import Layout
from results.records import Record
from results.report import Drawing
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
