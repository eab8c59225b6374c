"""Charts of what changes with an option: the variants of a sweep, and curves over any numeric option of a run."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from results.charts import Axis, Chart, Mark, Number, Plane
from results.layout import Column, Layout, Site, Sweep
from results.material import (
    Gaps,
    Material,
    NothingToDrawError,
    axis_of,
    bars,
    chart_of,
    column_of,
    kind_of,
    labels_at,
    number_of,
    sites_of,
    summaries_of,
)
from results.records import FAILED, STATUS, Record
from results.summaries import Summaries
from results.sweeps import ERROR, L0

_LOG_FROM: Final = 20.0
_Options = Mapping[str, Any]


def sweeps(material: Material) -> Chart:
    """Error against active atoms of every variant of every sweep, the chosen ones ringed; a panel for each site."""
    layout = material.run
    if not layout.sweeps:
        raise NothingToDrawError(
            "figure: got a run without sweeps; expected `sweep` in its suite; run the suite `sweep`"
        )
    index = {(record.cell, record.metric): record for record in material.records}
    gaps = Gaps()
    planes = []
    order = {label: at for at, label in enumerate(layout.labels)}
    for sweep in sorted(layout.sweeps, key=lambda one: order.get(one.label, len(order))):
        marks = list(_variants(sweep, index, gaps))
        x = _spread(Axis("L0 (active atoms a token)", "down"), [one.x.value for one in marks])
        y = _spread(Axis("mean squared error (activation²)", "down"), [one.y.value for one in marks])
        title = f"{sweep.site}: {sweep.label}, {', '.join(sweep.swept)}"
        planes.append(Plane(title, x, y, tuple(marks), is_joined=True))
    if not any(plane.marks for plane in planes):
        raise NothingToDrawError("figure: got sweeps none of whose variants was measured; run the suite again")
    return chart_of(
        "Sweeps",
        "What each variant of a swept method leaves unexplained, against how many atoms it uses.",
        planes,
        layout,
        ["Ringed: chosen by eq. 9. Beside each point: the swept option. Exact, without intervals.", *gaps.notes()],
    )


def _variants(sweep: Sweep, index: Mapping[tuple[str, str], Record], gaps: Gaps) -> Iterable[Mark]:
    """The variants of one sweep that found something."""
    for at, trial in enumerate(sweep.trials, start=1):
        status = index.get((trial, STATUS))
        x, y = index.get((trial, L0)), index.get((trial, ERROR))
        if status is None or status.text == FAILED:
            reason = "not run yet" if status is None else f"failed: {status.reason}"
            gaps.add(sweep.site, f"variant {at} of {sweep.label}", reason)
        elif x is None or y is None or x.value is None or y.value is None:
            reason = next((one.reason for one in (x, y) if one is not None and one.reason), "not measured")
            gaps.add(sweep.site, f"variant {at} of {sweep.label}", str(reason))
        else:
            says = ", ".join(_worded(status.options[name]) for name in sweep.swept)
            is_chosen = bool(status.notes.get("is_chosen"))
            yield Mark(sweep.label, "method", Number(x.value), Number(y.value), says=says, is_chosen=is_chosen)


def robustness(material: Material) -> Chart:
    """One metric against whatever numeric option varies, of the sites' data or of a method; a panel for each option."""
    layout = material.run
    column = column_of(material.y or "ms_score", layout, "--y")
    summaries = summaries_of((column,), material.records, layout)
    first = {(record.site, record.label): record for record in material.records if record.cell in layout.cells.values()}
    gaps = Gaps()
    planes = [
        *_over_sites(layout, first, column, summaries, gaps),
        *_over_labels(layout, first, column, summaries, gaps),
    ]
    planes = [plane for plane in planes if len({mark.x.value for mark in plane.marks}) > 1]
    if not planes:
        raise NothingToDrawError(
            f"figure: got a run in which {column.metric} was measured at no two values of a numeric option; expected "
            "sites that differ in one option of their data (a corruption's severity say), or one method under several "
            "labels that differ in one option; write such a suite"
        )
    return chart_of(
        "Robustness",
        f"{axis_of(column).label} against the option that varies, all others being equal.",
        planes,
        layout,
        [*bars((column,), layout), *gaps.notes()],
    )


def _over_sites(
    layout: Layout,
    first: Mapping[tuple[str, str], Record],
    column: Column,
    summaries: Summaries,
    gaps: Gaps,
) -> Iterable[Plane]:
    """A panel for each option of the data that alone differs between sites; a curve for each method."""
    sites = {site.label: site for site in sites_of(layout)}
    options: dict[str, _Options] = {}
    for (name, _), record in first.items():
        options[name] = _flat(record.site_options)
    named = {name: _named(sites[name], options[name]) for name in sites if name in options}
    for option, group in _groups(named):
        marks = [
            _mark(label, named[name][option], summaries, (name, label, column), layout, gaps)
            for label in layout.labels
            for name in group
            if (name, label, column) in summaries
        ]
        yield _curves(f"{', '.join(group)}: {option}", option, column, marks)


def _over_labels(
    layout: Layout,
    first: Mapping[tuple[str, str], Record],
    column: Column,
    summaries: Summaries,
    gaps: Gaps,
) -> Iterable[Plane]:
    """A panel for each option of a method that alone differs between labels; one curve."""
    for site in sites_of(layout):
        rows = {label: first[site.label, label] for label in labels_at(site, layout) if (site.label, label) in first}
        named = {label: {"": record.method} | _flat(record.options) for label, record in rows.items()}
        for option, group in _groups(named):
            marks = [
                _mark(label, named[label][option], summaries, (site.label, label, column), layout, gaps)
                for label in group
            ]
            method = rows[group[0]].method
            yield _curves(
                f"{site.label}: {option} of {method}",
                option,
                column,
                [None if one is None else replace(one, name=method, says=one.name) for one in marks],
            )


def _groups(named: Mapping[str, _Options]) -> Iterable[tuple[str, list[str]]]:
    """Each numeric option with those that differ in it alone, by its value; what differs otherwise stands apart."""
    for option in dict.fromkeys(name for options in named.values() for name in options):
        alike: dict[str, list[str]] = {}
        for name, options in named.items():
            if _is_number(options.get(option)):
                rest = repr(sorted((key, repr(value)) for key, value in options.items() if key != option))
                alike.setdefault(rest, []).append(name)
        for group in alike.values():
            if len({named[name][option] for name in group}) > 1:
                values = {name: float(named[name][option]) for name in group}
                yield option, sorted(group, key=values.__getitem__)


def _named(site: Site, options: _Options) -> _Options:
    """What a site is apart from its label."""
    return {"dataset name": site.dataset, "backbone name": site.backbone, "module": site.module} | dict(options)


def _flat(options: _Options, before: str = "") -> dict[str, Any]:
    """Nested options as one level, `dataset.noise` say."""
    found: dict[str, Any] = {}
    for name, value in options.items():
        inner = _flat(value, f"{before}{name}.") if isinstance(value, Mapping) else {f"{before}{name}": value}
        found |= inner
    return found


def _mark(
    label: str, at: float, summaries: Summaries, key: tuple[str, str, Column], layout: Layout, gaps: Gaps
) -> Mark | None:
    """One point of a curve; None where it has no value."""
    gaps.note(summaries[key], key[0], label)
    number = number_of(summaries[key])
    return None if number is None else Mark(label, kind_of(label, layout), Number(float(at)), number)


def _curves(title: str, option: str, column: Column, marks: Sequence[Mark | None]) -> Plane:
    found = [one for one in marks if one is not None]
    x = _spread(Axis(option), [one.x.value for one in found])
    return Plane(title, x, axis_of(column), tuple(found), is_joined=True)


def _spread(axis: Axis, values: Sequence[float]) -> Axis:
    """The axis, logarithmic where its numbers are far apart."""
    is_log = bool(values) and min(values) > 0 and max(values) > _LOG_FROM * min(values)
    return replace(axis, is_log=is_log, label=f"{axis.label}, log scale") if is_log else axis


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _worded(value: object) -> str:
    return f"{value:g}" if isinstance(value, int | float) else str(value)
