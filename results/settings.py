"""A table of one method's options at each site, with the expansion factor that they led to (the paper's Table 9)."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from results import published
from results.digits import footnote, shown
from results.filling import EXPANSION, NOT_PRINTED, warnings_of
from results.layout import Beside, Column, Layout, PaperForm, Site
from results.lines import exact
from results.records import Record
from results.sheets import ABSENT, DASH, Cell, Group, Heading, Notes, Row, Sheet, Span, by_letter, noted
from results.subjects import NothingToShowError
from results.summaries import NOT_RUN, Summaries

DEFAULT_CLUSTER = 1000
"""Clusters of at least this size are the paper's default."""


@dataclass(frozen=True)
class SettingsSpec:
    """The table of a method's options.

    Attributes:
        name: Its name on the command line.
        title: First words of its caption.
        form: How the paper lays it out.
        label: Label of the method.
        sites: What the row of each site holds in the paper's file; a site that is not there has none.
        columns: What is measured beside the options.
    """

    name: str
    title: str
    form: PaperForm
    label: str
    sites: Mapping[str, Mapping[str, str]]
    columns: tuple[Column, ...] = field(default=(EXPANSION,))


@dataclass(frozen=True)
class Setting:
    """The options at one site; None where nothing was recorded yet."""

    site: Site
    options: Mapping[str, Any] | None


def settings_of(spec: SettingsSpec, records: Iterable[Record], layout: Layout) -> list[Setting]:
    """The options of the method at each site of the layout.

    Raises:
        NothingToShowError: The method is at none.
    """
    cells = {cell: site for (site, label, _, _), cell in layout.cells.items() if label == spec.label}
    options: dict[str, Mapping[str, Any]] = {}
    for record in records:
        if record.cell in cells:
            options.setdefault(cells[record.cell], record.options)
    sites = [site for site, label in layout.rows() if label == spec.label]
    if not sites:
        raise NothingToShowError(
            f"table: got {spec.name!r} of a run without a method of the label {spec.label!r}; expected one; "
            "choose another table"
        )
    return [Setting(site, options.get(site.label)) for site in sites]


def settings_sheet(
    spec: SettingsSpec, found: Sequence[Setting], summaries: Summaries, layout: Layout, beside: Beside
) -> Sheet:
    """A row for each site, with what the paper has in the same place."""
    notes: Notes = {}
    rows = []
    for one in found:
        theirs = _theirs(spec, one.site.label)
        cells = [Cell(_text(one.options, name), notes=_missing(one.options, notes)) for name in ("top_k", "clustering")]
        if beside == "cell":
            columns = (spec.form.columns[1].column, spec.form.columns[2].column)
            cells = [_with(cell, spec.form.name(theirs.get(name, "")), "", notes)
                     for cell, name in zip(cells, columns, strict=True)]  # fmt: skip
        summary = summaries[one.site.label, spec.label, EXPANSION]
        measured = Cell(shown(EXPANSION, summary), notes=noted(footnote(summary), notes), value=summary.mean)
        if beside == "cell":
            text = theirs.get(spec.form.columns[3].column, "")
            gap = "" if summary.mean is None or not text else published.difference(summary.mean, Decimal(text), 2)
            measured = _with(measured, text, gap, notes)
        words = (one.site.label, one.site.module)
        rows.append(Row(words, (*cells, measured), spec.label, False, one.site, summary.mean))
    seeds = ", ".join(map(str, layout.token_seeds))
    told = " In brackets the paper's, and by how much ours is larger." if beside == "cell" else ""
    return Sheet(
        name=spec.name,
        caption=(Span(f"{spec.title}. The effective expansion factor is measured, over token seeds {seeds}.{told}"),),
        words=("Site", spec.form.columns[0].heading),
        headings=tuple(Heading(one.heading) for one in spec.form.columns[1:]),
        groups=(Group((), tuple(rows)),),
        warnings=warnings_of(layout),
        remarks=tuple((Span(one),) for one in spec.form.remarks),
        footnotes=by_letter(notes),
    )


def _theirs(spec: SettingsSpec, site: str) -> Mapping[str, str]:
    """The paper's row of a site; empty where there is none."""
    where = spec.sites.get(site)
    rows = published.rows_of(spec.form.file) if where else ()
    return next((row for row in rows if where is not None and where.items() <= row.items()), {})


def _with(cell: Cell, text: str, difference: str, notes: Notes) -> Cell:
    """The cell with what the paper has there."""
    letters = cell.notes if text else (*cell.notes, *noted(NOT_PRINTED, notes))
    return Cell(cell.text, cell.mark, "", letters, cell.value, text or ABSENT, difference)


def _missing(options: Mapping[str, Any] | None, notes: Notes) -> tuple[str, ...]:
    """The letter of why there are no options."""
    return noted(NOT_RUN, notes) if options is None else ()


def _text(options: Mapping[str, Any] | None, name: str) -> str:
    """An option in the paper's words."""
    if options is None:
        return DASH
    if name == "top_k":
        value = options.get("top_k")
        if isinstance(value, float) and value < 1:
            return f"{100 * value:g} %"
        return DASH if value is None else f"{value / 1000:g}k"
    size = options.get("min_cluster_size")
    return DASH if size is None else "default" if size == DEFAULT_CLUSTER else f"min_cluster_size = {size}"


def settings_to_csv(spec: SettingsSpec, found: Sequence[Setting], summaries: Summaries) -> str:
    """One line per site: its options, the factor that was measured, and the paper's."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    options = ["top_k", "min_cluster_size"]
    paper = [f"paper_{name}" for name in (*options, "expansion_factor")]
    measured = ["expansion_factor", "std", "n_seeds", "reason"]
    writer.writerow(["site", "backbone", "module", "label", *options, *measured, *paper])
    for one in found:
        summary = summaries[one.site.label, spec.label, EXPANSION]
        theirs = _theirs(spec, one.site.label)
        printed = [theirs.get(column.column, "") for column in spec.form.columns[1:]]
        own = [(one.options or {}).get(name, "") for name in options]
        numbers = [exact(summary.mean), exact(summary.std), summary.n_seeds, summary.reason or ""]
        writer.writerow([one.site.label, one.site.backbone, one.site.module, spec.label, *own, *numbers, *printed])
    return file.getvalue()
