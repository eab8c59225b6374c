"""Charts of what was measured: faithfulness against interpretability, stability, cost, ablations."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from results.charted_paper import BACKBONE, SAYS, place_of, printed_marks, printed_names, printed_planes
from results.charts import Axis, Chart, Mark, Number, Plane, Row, Rows, front_of
from results.layout import Column, Layout, Site
from results.machines import apart
from results.material import (
    PUBLISHED,
    Gaps,
    Material,
    NothingToDrawError,
    axis_of,
    bars,
    chart_of,
    column_of,
    heading_of,
    kind_of,
    labels_at,
    number_of,
    sites_of,
    summaries_of,
)
from results.specs import ABLATIONS, EFFICIENCY, LEADERBOARD, STRUCTURE
from results.summaries import Summaries

FRONT: Final = (
    "Named and dashed: the front, methods that no other is better than in both, by the numbers as tables show them; "
    "references take no part."
)
SIZE: Final = (
    "The area of a marker grows with the expansion factor; markers that would hide each other stand side by side."
)
_EXPANSION: Final = next(one for one in LEADERBOARD.columns if one.metric == "expansion_factor")
_LOG_FROM: Final = 10.0
"""How many times the smallest number the largest is where an axis of costs becomes logarithmic."""


def pareto(material: Material) -> Chart:
    """Faithfulness against interpretability, a panel for each site; the front; sizes by expansion factor."""
    layout = material.layout
    x = column_of(material.x or "r2", layout, "--x")
    y = column_of(material.y or "ms_score", layout, "--y")
    axes = axis_of(x), axis_of(y)
    gaps = Gaps()
    planes: list[Plane] = []
    notes = [SIZE]
    if layout is not None:
        summaries = summaries_of((x, y, _EXPANSION), material.records, layout)
        planes = [_plane(site, (x, y), axes, summaries, layout, gaps, material.beside) for site in sites_of(layout)]
        notes += bars((x, y), layout)
        if not any(one.kind != "published" for plane in planes for one in plane.marks):
            raise NothingToDrawError(
                f"figure: got a run without both {x.metric} and {y.metric}; expected both of one method at least; "
                "give other metrics with --x and --y, or run a suite that measures them"
            )
    shows = f"{axes[1].label} against {axes[0].label}, one point for each method"
    if material.beside == PUBLISHED:
        is_own = layout is not None and any(place_of(site.label) for site in sites_of(layout))
        planes += [] if is_own else printed_planes((x.metric, axes[0]), (y.metric, axes[1]))
        if not any(one.kind == "published" for plane in planes for one in plane.marks):
            raise NothingToDrawError(
                f"--beside: the paper prints no {x.metric} with {y.metric} of these sites; expected metrics of its "
                "Tables 2, 3 or 6; leave --beside out, or choose r2, top1, ms_score, llm_rank or llm_win_rate"
            )
        notes.append(SAYS)
    notes.append(FRONT if any(plane.front for plane in planes) else "No front: an axis has no better end.")
    chart = chart_of("Faithfulness and interpretability", f"{shows}.", planes, layout, [*notes, *gaps.notes()])
    if layout is None:
        return replace(chart, names=printed_names(), references=(BACKBONE,))
    return chart


def _plane(
    site: Site,
    columns: tuple[Column, Column],
    axes: tuple[Axis, Axis],
    summaries: Summaries,
    layout: Layout,
    gaps: Gaps,
    beside: str,
) -> Plane:
    """The points of one site."""
    marks = []
    for label in labels_at(site, layout):
        both = [summaries[site.label, label, column] for column in columns]
        for summary in both:
            gaps.note(summary, site.label, label)
        x, y = map(number_of, both)
        size = summaries[site.label, label, _EXPANSION].mean
        if x is not None and y is not None:
            marks.append(Mark(label, kind_of(label, layout), x, y, size))
    front = front_of([one for one in marks if one.kind == "method"], *axes)
    marks = [replace(one, says=one.name if one in front else "") for one in marks]
    place = place_of(site.label) if beside == PUBLISHED else None
    if place is not None:
        marks += printed_marks(columns[0].metric, columns[1].metric, place)
    return Plane(heading_of(site), *axes, tuple(marks), front)


def stability(material: Material) -> Chart:
    """How alike the dictionaries of all init seeds are, beside what their starts were, a panel for each site."""
    layout = material.run
    chosen = {one.metric: one for one in STRUCTURE.columns if one.seeds == "comparison"}
    columns = (chosen["stability"], chosen["stability_start"])
    summaries = summaries_of(columns, material.records, layout)
    gaps = Gaps()
    panels = []
    for site in sites_of(layout):
        rows = []
        for label in labels_at(site, layout):
            first, start = (summaries[site.label, label, column] for column in columns)
            gaps.note(first, site.label, label)
            if first.mean is not None:
                gaps.note(start, f"{site.label} (start)", label)
            rows.append(Row(label, kind_of(label, layout), (number_of(first), number_of(start))))
        axis = Axis("similarity over init seeds (cosine)", "up")
        panels.append(Rows(heading_of(site), axis, _sorted(rows), ("trained", "at its start")))
    _needs(panels, "stability", "a suite with two init seeds, `full` say")
    return chart_of(
        "Stability",
        "How alike a method's dictionaries come out under several init seeds, beside those that training started from.",
        panels,
        layout,
        [*bars(columns[:1], layout), *gaps.notes()],
    )


def efficiency(material: Material) -> Chart:
    """Time of a batch and peak memory in the running network, two panels for each site and machine."""
    layout = apart(material.run, material.records)
    chosen = {one.metric: one for one in EFFICIENCY.columns}
    columns = (chosen["latency"], chosen["peak_memory"])
    summaries = summaries_of(columns, material.records, layout)
    gaps = Gaps()
    panels = []
    for site in sites_of(layout):
        for column in columns:
            rows = []
            for label in labels_at(site, layout):
                summary = summaries[site.label, label, column]
                gaps.note(summary, f"{site.label} ({axis_of(column).label})", label)
                rows.append(Row(label, kind_of(label, layout), (number_of(summary),)))
            panels += [_cost(site, column, rows)] if any(row.numbers[0] for row in rows) else []
    _needs(panels, "latency or peak memory", "the suite `efficiency`")
    machines = [f"{site.label}: measured on {site.machine}." for site in sites_of(layout) if site.machine]
    return chart_of(
        "Latency and memory",
        "What a batch of images costs where the method runs inside the network, in time and in memory.",
        panels,
        layout,
        [*bars(columns, layout), *machines, *gaps.notes()],
    )


def _cost(site: Site, column: Column, rows: Sequence[Row]) -> Rows:
    """A list of costs, the least on top; a logarithmic axis where they are far apart; a line at the backbone."""
    values = {row.name: row.numbers[0].value for row in rows if row.numbers[0] is not None}
    is_log = bool(values) and min(values.values()) > 0 and max(values.values()) > _LOG_FROM * min(values.values())
    own = axis_of(column)
    axis = replace(
        own,
        label=f"{own.label}, log scale" if is_log else own.label,
        is_log=is_log,
        line=values.get(BACKBONE),
        line_says="backbone" if BACKBONE in values else "",
    )
    return Rows(f"{site.label}: {axis.label.partition(' (')[0]}", axis, _sorted(rows, reverse=False))


def ablations(material: Material) -> Chart:
    """MS-Score of every variant of the baseline, and its difference from the baseline seed by seed."""
    layout = material.run
    score, difference = (one for one in ABLATIONS.columns if one.metric == "ms_score")
    baseline = str(difference.less)
    methods = {record.label: record.method for record in material.records}
    variants = [label for label in layout.labels if methods.get(label) == methods.get(baseline) is not None]
    if len(variants) < 2:
        raise NothingToDrawError(
            f"figure: got a run without variants of {baseline}; expected that method under several labels; "
            "run the suite `ablations`"
        )
    summaries = summaries_of((score, difference), material.records, layout)
    gaps = Gaps()
    panels = []
    shown = [label for label in layout.labels if label in variants or label in layout.references]
    for site in sites_of(layout):
        here = [label for label in shown if label in labels_at(site, layout)]
        found: Mapping[Column, list[Row]] = {score: [], difference: []}
        for column, rows in found.items():
            for label in here:
                summary = summaries[site.label, label, column]
                gaps.note(summary, site.label, label)
                number = Number(0.0) if column is difference and label == baseline else number_of(summary)
                rows.append(Row(label, kind_of(label, layout), (number,)))
        at = summaries[site.label, baseline, score].mean
        scored = replace(axis_of(score), line=at, line_says="" if at is None else baseline)
        panels.append(Rows(f"{site.label}: MS-Score", scored, tuple(found[score])))
        against = Axis("difference (points of MS-Score)", "up", line=0.0, line_says=baseline)
        panels.append(Rows(f"{site.label}: against {baseline}", against, tuple(found[difference])))
    _needs(panels, "ms_score", "the suite `ablations`")
    shows = f"MS-Score of {baseline} with one choice changed at a time, and the difference from {baseline}."
    return chart_of("Ablations", shows, panels, layout, [*bars((score,), layout), *gaps.notes()])


def _sorted(rows: Sequence[Row], *, reverse: bool = True) -> tuple[Row, ...]:
    """By the first number, those without one last, in their order."""

    def key(row: Row) -> tuple[bool, float]:
        first = row.numbers[0]
        return first is None, 0.0 if first is None else (-first.value if reverse else first.value)

    return tuple(sorted(rows, key=key))


def _needs(panels: Sequence[Rows], what: str, step: str) -> None:
    """Refuse to draw a figure without numbers."""
    if not any(number is not None for panel in panels for row in panel.rows for number in row.numbers):
        raise NothingToDrawError(f"figure: got a run without {what}; expected it of one method at least; run {step}")
