"""What other parts of the project give to the report: tables as HTML, what their columns mean, and figures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from bench.registry import Registry
from bench.verdicts import rows_for
from metrics.catalogue import ROWS
from results.filling import has_figure
from results.layout import Column, Layout, TableSpec
from results.records import Record
from results.report import Drawing
from results.subjects import columns_of_run
from results.tables import TABLES, render

MEANINGS: Final = {row.name: row.summary for row in (*ROWS.values(), *rows_for("llm"), *rows_for("proxy"))}
BETTER: Final = {"up": " More is better.", "down": " Less is better.", "none": ""}


def html_of(spec: Any, records: Sequence[Record], layout: Layout) -> str:
    """A table as HTML, with the paper's figures where it has them."""
    return render(spec, records, layout=layout, format="html")


def columns_of(name: str, records: Sequence[Record], layout: Layout) -> list[Column]:
    """The columns of numbers that a table of a run shows, from left to right; none of a table of other things."""
    spec = TABLES[name]
    if not isinstance(spec, TableSpec):
        return []
    return [one for one in columns_of_run(spec, records, layout).columns if not one.csv_only]


def reading(name: str, records: Sequence[Record], layout: Layout) -> list[tuple[str, list[tuple[str, str]]]]:
    """What a table's columns mean and its methods are, a line each; methods under names of a suite left out."""
    methods, spec, shown = Registry().tables["methods"], TABLES[name], columns_of(name, records, layout)
    columns = [(f"{one.heading} (%)" if one.unit == "%" else one.heading, meaning(one)) for one in shown]
    if isinstance(spec, TableSpec) and any(has_figure(spec.published, one) for one in shown):
        columns.append(("paper: ...", "What the paper prints, of backbones and data that are others than here."))
    told = [(label, sentence(methods[label].summary)) for label in layout.labels if label in methods]
    return [(heading, rows) for heading, rows in (("Columns", columns), ("Methods", told)) if rows]


def meaning(column: Column) -> str:
    """What the numbers of a column say, their unit and which way is better."""
    unit = "" if column.unit in ("%", "1") else f" In {column.unit}."
    return sentence(MEANINGS.get(column.metric, "a metric of a plugin")) + unit + BETTER[column.direction]


def sentence(text: str) -> str:
    """The text with a capital and a full stop, without marks of code."""
    plain = text.replace("`", "")
    return f"{plain[:1].upper()}{plain[1:].removesuffix('.')}."


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
