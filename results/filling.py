"""From summaries to a sheet: a table of one number per row and column.

What is marked is decided on the numbers as they are shown: two methods that print the same number are equal. Per site
and column the best number is marked wherever it stands, and the next one down wherever it stands, also where several
share the first place. Reference rows take no part, and where fewer than two contestants have a value nothing is marked.
"""

from collections.abc import Mapping, Sequence

from results import published
from results.digits import footnote, number, ranked, shown
from results.layout import PANELS, Beside, Column, Layout, Printed, Published, Seeds, Site, TableSpec
from results.sheets import (
    ABSENT,
    Cell,
    Heading,
    Mark,
    Notes,
    Row,
    Sheet,
    Span,
    Words,
    by_letter,
    grouped,
    noted,
    spans,
)
from results.summaries import SEED_WORDS, Summaries, Summary

NOT_PRINTED = "the paper has no such number"
EXPANSION = Column("expansion_factor", "expansion", "none", 2, 2, "1")
"""What a row's expansion factor is taken from, whichever columns the table has."""
MARKS: Words = (
    Span("Per site, by the numbers as shown: "),
    Span("best", "best"),
    Span(", "),
    Span("second best", "second"),
    Span("; "),
    Span("references", "reference"),
    Span(" are not ranked."),
)


def table_sheet(spec: TableSpec, summaries: Summaries, layout: Layout, beside: Beside) -> Sheet:
    """The table of what was measured; a table of the paper in its layout, with columns that it lacks at the end.

    Args:
        spec: What it shows.
        summaries: Its numbers, and the expansion factors of its rows.
        layout: Its rows.
        beside: Where the paper's figures stand.
    """
    notes: Notes = {}
    columns = placed(spec)
    figures = None if beside == "nothing" else spec.published
    marks = {
        site.label: {column: _ranks(column, site.label, summaries, layout) for column, _ in columns}
        for site in layout.sites
    }
    rows = [
        (site, label, _cells(columns, figures, beside, (site, label), summaries, layout, marks[site.label], notes))
        for site, label in layout.rows()
    ]
    with_backbone = {site.label for site, label, _ in rows if label == published.BACKBONE}
    named = [
        (
            group_names(spec, site, has_backbone=site.label in with_backbone),
            Row(
                words=(row_name(spec, site, label),),
                cells=cells,
                label=label,
                is_reference=label in layout.references,
                site=site,
                expansion=expansion_of(summaries, site, label),
            ),
        )
        for site, label, cells in rows
    ]
    return Sheet(
        name=spec.name,
        caption=_caption(spec.title, [column for column, _ in columns], layout, beside if figures else "nothing"),
        words=("site", "method") if spec.form is None else spec.form.words,
        headings=_headings(spec, columns, figures, beside, notes),
        groups=grouped(named),
        warnings=warnings_of(layout),
        remarks=(
            *(((Span("paper: "), *spans(figures.says)),) if figures else ()),
            *((Span(one),) for one in (spec.form.remarks if spec.form and figures else ())),
            *places_of(layout),
        ),
        footnotes=by_letter(notes),
    )


def placed(spec: TableSpec) -> list[tuple[Column, Printed | None]]:
    """The columns from left to right, with the place that each has in the paper's layout."""
    shown = [column for column in spec.columns if not column.csv_only]
    if spec.form is None:
        return [(column, None) for column in shown]
    by_heading = {column.heading: column for column in shown}
    own = [(by_heading[one.ours], one) for one in spec.form.columns if one.ours in by_heading]
    return [*own, *((column, None) for column in shown if column not in [each for each, _ in own])]


def _headings(
    spec: TableSpec,
    columns: Sequence[tuple[Column, Printed | None]],
    figures: Published | None,
    beside: Beside,
    notes: Notes,
) -> tuple[Heading, ...]:
    """The headings, with those of the paper's figures where these have columns of their own."""
    found = []
    for column, place in columns:
        group = "" if spec.form is None else place.group if place else "Beside the paper's"
        text = place.heading if place else column.heading
        letters = noted(place.note, notes) if place and figures else ()
        found.append(Heading(text + (" (%)" if column.unit == "%" else ""), column.direction, group, letters))
        if has_figure(figures, column) and beside == "column":
            found.append(Heading(f"paper: {column.heading}", group=group, is_published=True))
    return tuple(found)


def has_figure(figures: Published | None, column: Column) -> bool:
    """Whether the paper prints something for the column."""
    figure = figures.figures.get(column.heading) if figures else None
    return figure is not None and not figure.csv_only


def _cells(
    columns: Sequence[tuple[Column, Printed | None]],
    figures: Published | None,
    beside: Beside,
    place: tuple[Site, str],
    summaries: Summaries,
    layout: Layout,
    marks: Mapping[Column, Mapping[str, Mark]],
    notes: Notes,
) -> tuple[Cell, ...]:
    """The cells of one row."""
    site, label = place
    found = []
    for column, _ in columns:
        summary = summaries[site.label, label, column]
        mark: Mark = "reference" if label in layout.references else marks[column].get(label, "")
        said, difference, letters = "", "", noted(footnote(summary), notes)
        if figures is not None and has_figure(figures, column) and beside == "cell":
            said = published.shown(figures, column, site.label, label)
            letters += () if said else noted(NOT_PRINTED, notes)
            difference = _difference(figures, column, site.label, label, summary) if said else ""
            said = said or ABSENT
        found.append(
            Cell(
                shown(column, summary),
                "" if summary.mean is None else mark,
                notes=letters,
                value=summary.mean,
                published=said,
                difference=difference,
            )
        )
        if figures is not None and has_figure(figures, column) and beside == "column":
            found.append(Cell(published.shown(figures, column, site.label, label)))
    return tuple(found)


def _difference(figures: Published, column: Column, site: str, label: str, summary: Summary) -> str:
    """By how much ours is larger than each of the paper's figures."""
    if summary.mean is None:
        return ""
    theirs = published.figures(figures, column, site, label)
    return " / ".join(
        ABSENT if one is None else published.difference(summary.mean, one, column.decimals) for one in theirs
    )


def group_names(spec: TableSpec, site: Site, *, has_backbone: bool) -> tuple[str, ...]:
    """What stands beside a site's rows: the paper's name of it in the paper's layout, and its label otherwise."""
    where = spec.published.sites.get(site.label) if spec.form and spec.published else None
    if where is None or spec.form is None:
        return (site.label,)
    entries = published.entries(spec.form, where)
    names = tuple(spec.form.name(entry) for entry in entries)
    return (names[0],) if len(names) == 1 or has_backbone else (": ".join(names),)


def row_name(spec: TableSpec, site: Site, label: str) -> str:
    """What a row is called: as the paper prints it in the paper's layout, and by its label otherwise.

    The label's own name comes before that of its row in the paper, as two rows of ours may stand beside one of it.
    """
    if spec.form is None:
        return label
    where = spec.published.sites.get(site.label, {}) if spec.published else {}
    key = label if label in spec.form.names or spec.published is None else spec.published.keys.get(label, label)
    return published.row_name(spec.form, key, where)


def expansion_of(summaries: Summaries, site: Site, label: str) -> float | None:
    """Atoms for each unit of a row; None where that is not known."""
    summary = summaries.get((site.label, label, EXPANSION))
    return summary.mean if summary else None


def warnings_of(layout: Layout) -> tuple[str, ...]:
    """What has to be read before the numbers, with the sites that it holds for."""
    present = {site.label for site, _ in layout.rows()}
    said: dict[str, list[str]] = {}
    for site in layout.sites:
        if site.warnings and site.label in present:
            said.setdefault("; ".join(site.warnings), []).append(site.label)
    return tuple(f"{', '.join(sites)}: {what}" for what, sites in said.items())


def places_of(layout: Layout) -> tuple[Words, ...]:
    """What the sites are, and what their rows were measured on, where that is told."""
    present = {site.label for site, _ in layout.rows()}
    return tuple(
        (
            Span(f"{site.label}: "),
            Span(site.module, "code"),
            Span(f" of {site.backbone} on {site.dataset}{f'; measured on {site.machine}' if site.machine else ''}"),
        )
        for site in layout.sites
        if site.label in present
    )


def _caption(title: str, columns: Sequence[Column], layout: Layout, beside: Beside) -> Words:
    """What the numbers are and what the marks mean."""
    kinds: dict[Seeds, list[str]] = {}
    for column in columns:
        kinds.setdefault(column.seeds, []).append(column.heading)
    if len(kinds) == 1:
        numbers = _averaged(next(iter(kinds)), layout)
    else:
        numbers = " ".join(f"{', '.join(names)}: {_averaged(kind, layout)}" for kind, names in kinds.items())
    told = (Span(" In brackets behind it the paper's number, and by how much ours is larger."),)
    return (*spans(title), Span(f". {numbers} "), *MARKS, *(told if beside == "cell" else ()))


def _averaged(kind: Seeds, layout: Layout) -> str:
    """What the numbers of columns of that kind are, in a sentence."""
    inits = ", ".join(map(str, layout.init_seeds))
    if kind in PANELS:
        return layout.panels.get(kind, "Nothing was judged.")
    if kind == "comparison":
        return (
            f"All pairs of init seeds {inits} at token seed {layout.token_seeds[0]}, compared; "
            "the 95 % interval in brackets, unless exact."
        )
    varied, fixed = (layout.token_seeds, f"init seed {layout.init_seeds[0]}")
    if kind == "init_seeds":
        varied, fixed = (layout.init_seeds, f"token seed {layout.token_seeds[0]}")
    word, seeds = SEED_WORDS[kind], ", ".join(map(str, varied))
    if len(varied) > 1:
        return (
            f"Mean ± sample standard deviation over {word}s {seeds} at {fixed}; "
            f"from a single {word}, its 95 % interval in brackets, unless exact."
        )
    return f"{word.capitalize()} {seeds}, {fixed}; the 95 % interval in brackets, unless exact."


def _ranks(column: Column, site: str, summaries: Summaries, layout: Layout) -> dict[str, Mark]:
    """The mark of each label that has one, in one column of one site."""
    values: dict[str, float] = {}
    for label in layout.labels:
        summary = summaries.get((site, label, column))
        if summary and summary.mean is not None and label not in layout.references:
            values[label] = float(number(column, summary.mean, column.decimals))
    return ranked(values, column.direction)
