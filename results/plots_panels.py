"""The panels of a chart on their axes: planes of points and lists of numbers; markers and colours.

Colours are those of Okabe and Ito 2008 ("Color Universal Design"), told apart by people with any colour vision; every
method has a marker of its own besides, and all markers have dark edges, so that grey prints say the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import hypot, sqrt
from textwrap import fill
from typing import Any, Final, Literal

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, ScalarFormatter
from matplotlib.transforms import ScaledTranslation

from results.charts import Axis, Chart, Kind, Mark, Number, Plane, Rows

COLORS: Final = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#F0E442")
MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "*", "d", "H", "8")
REFERENCE_MARKERS: Final = ("x", "+", "1", "2", "3", "4", "|", "_")
REFERENCE: Final = "#555555"
EDGE: Final = "#222222"
Line = Literal["-", "--", ":", "-."]
LETTER: Final = 0.54
"""Width of a letter in its size, rather too wide."""
BOLD: Final = 0.62
KINDS: Final[tuple[Kind, ...]] = ("method", "reference", "published")
_LINES: Final[tuple[Line, ...]] = ("-", "--", ":", "-.")
_SERIES: Final[tuple[tuple[str, str, Line], ...]] = (
    ("o", COLORS[0], "-"),
    ("D", COLORS[3], "--"),
    ("^", COLORS[2], ":"),
)
_LARGEST: Final = 64.0
_ONE_PLACE: Final = 3.0
"""Points between two markers below which the upper one hides most of the other."""
_STEP: Final = 7.0
"""Points from one to the next of markers that are moved apart."""


@dataclass(frozen=True)
class Look:
    """What a marker looks like."""

    marker: str
    face: str
    edge: str

    def line(self, size: float | None, label: str) -> Line2D:
        """The marker alone, for a legend."""
        return Line2D([], [], **self.style(size), label=label)

    def style(self, size: float | None) -> dict[str, Any]:
        """How it is plotted; its area grows with the expansion factor."""
        return {
            "marker": self.marker,
            "markerfacecolor": self.face,
            "markeredgecolor": self.edge,
            "markeredgewidth": 0.9 if self.face == "white" or self.marker in REFERENCE_MARKERS else 0.5,
            "markersize": marker_size(size),
            "linestyle": "none",
        }


def marker_size(size: float | None) -> float:
    """Points that a marker is wide; of an expansion factor that is not known as of 4."""
    return sqrt(16 + 6 * min(_LARGEST, max(0.0, 4.0 if size is None else size)))


def look_of(name: str, kind: Kind, chart: Chart) -> Look:
    """The look of a name, the same in every figure of a run."""
    if name in chart.references:
        at = chart.references.index(name)
        return Look(REFERENCE_MARKERS[at % len(REFERENCE_MARKERS)], REFERENCE, REFERENCE)
    at = chart.names.index(name) if name in chart.names else len(chart.names)
    color = COLORS[at % len(COLORS)]
    marker = MARKERS[at % len(MARKERS)]
    return Look(marker, "white", EDGE) if kind == "published" else Look(marker, color, EDGE)


def handles_of(chart: Chart) -> list[tuple[str, Artist]]:
    """The legend: each name that is drawn with its marker, or each series of a list."""
    planes = [panel for panel in chart.panels if isinstance(panel, Plane)]
    drawn = {(mark.name, mark.kind): mark for plane in planes for mark in plane.marks}
    order = [*chart.names, *chart.references]
    order += sorted({name for name, _ in drawn} - set(order))
    found: list[tuple[str, Artist]] = []
    for name in order:
        kinds = [kind for kind in KINDS if (name, kind) in drawn]
        if kinds:
            found.append((name, look_of(name, kinds[0], chart).line(None, name)))
    sizes = sorted({mark.size for mark in drawn.values() if mark.size is not None})
    ends = dict.fromkeys(sizes[:1] + sizes[-1:])
    found += [(f"expansion {size:.3g}", Look("o", "#DDDDDD", EDGE).line(size, "")) for size in ends]
    lists = [panel for panel in chart.panels if isinstance(panel, Rows)]
    most = max((len(panel.series) for panel in lists), default=0)
    for at, series in enumerate(next((panel.series for panel in lists if len(panel.series) == most), ())):
        if series:
            marker, color, line = _SERIES[at]
            found.append((series, Line2D([], [], **_row_style(marker, color, at), linestyle=line, color=color)))
    if any(row.kind == "reference" for panel in lists for row in panel.rows):
        found.append(("reference", Line2D([], [], **_row_style("s", REFERENCE, 0), linestyle="-", color=REFERENCE)))
    return found


def draw_plane(axes: Axes, plane: Plane, chart: Chart, room: tuple[float, float]) -> None:
    """Points with their intervals, the front below them; `room` is how many inches wide and high it is."""
    axes.set_title(_lines(plane.title, room[0] - 0.6, bold=True))
    _scale(axes, plane.x, plane.y, (room[0] - 0.6, room[1] - 0.7))
    if plane.front:
        xs = [mark.x.value for mark in plane.front]
        ys = [mark.y.value for mark in plane.front]
        steps = "steps-pre" if plane.x.direction == "up" else "steps-post"
        axes.plot(xs, ys, color="#777777", linewidth=1.2, linestyle="--", drawstyle=steps, zorder=1, label="front")
    if plane.is_joined:
        for at, name in enumerate(dict.fromkeys(mark.name for mark in plane.marks)):
            own = [mark for mark in plane.marks if mark.name == name]
            line = _LINES[at % len(_LINES)]
            axes.plot(
                [mark.x.value for mark in own],
                [mark.y.value for mark in own],
                color="#666666",
                linewidth=1.0,
                linestyle=line,
                zorder=1,
            )
    ordered = sorted(plane.marks, key=lambda one: -marker_size(one.size))
    drawn = [(mark, _point(axes, mark, chart)) for mark in ordered]
    axes.margins(0.1)
    axes.autoscale_view()
    _widen(axes, plane.x, plane.y)
    inches = (room[0] - 0.6, room[1] - 0.7)
    aside = {} if plane.is_joined else _aside(axes, ordered, inches)
    for mark, lines in drawn:
        if mark in aside:
            moved = axes.transData + ScaledTranslation(aside[mark] / 72, 0, axes.figure.dpi_scale_trans)
            for part in lines:
                part.set_transform(moved)
        if mark.says:
            _say(axes, mark, aside.get(mark, 0.0), inches[0])
    axes.grid(color="#E6E6E6", linewidth=0.5)
    axes.set_axisbelow(True)
    if not plane.marks:
        axes.text(0.5, 0.5, "nothing to draw: see below", transform=axes.transAxes, ha="center", va="center")


def _point(axes: Axes, mark: Mark, chart: Chart) -> list[Line2D]:
    """One point with its intervals and its ring."""
    lines: list[Line2D] = []
    look = look_of(mark.name, mark.kind, chart)
    x, y = mark.x, mark.y
    for number, ends in ((x, ((x.low, x.high), (y.value, y.value))), (y, ((x.value, x.value), (y.low, y.high)))):
        if number.low is not None and number.high is not None:
            lines += axes.plot(*ends, color="#555555", linewidth=0.8, zorder=2)
    lines += axes.plot([x.value], [y.value], **look.style(mark.size), zorder=3, label=f"{mark.kind}: {mark.name}")
    if mark.is_chosen:
        ring: dict[str, Any] = {
            "marker": "o",
            "markersize": marker_size(mark.size) + 6,
            "markerfacecolor": "none",
            "markeredgewidth": 1.2,
        }
        lines += axes.plot(
            [x.value], [y.value], markeredgecolor="black", linestyle="none", zorder=4, label="chosen", **ring
        )
    return lines


def _share(axes: Axes, mark: Mark) -> tuple[float, float]:
    """Where a point lies, as shares of the axes' width and height."""
    across, upwards = axes.transAxes.inverted().transform(axes.transData.transform((mark.x.value, mark.y.value)))
    return float(across), float(upwards)


def _aside(axes: Axes, marks: Sequence[Mark], inches: tuple[float, float]) -> dict[Mark, float]:
    """By how many points markers that would hide each other on axes of that size are moved to the right."""
    groups: list[list[Mark]] = []
    for mark in marks:
        place = _share(axes, mark)
        for group in groups:
            gaps = [(a - b) * size * 72 for a, b, size in zip(place, _share(axes, group[0]), inches, strict=True)]
            if hypot(*gaps) < _ONE_PLACE and mark.name != group[0].name:
                group.append(mark)
                break
        else:
            groups.append([mark])
    return {
        mark: _STEP * (at - (len(group) - 1) / 2) for group in groups if len(group) > 1 for at, mark in enumerate(group)
    }


def _say(axes: Axes, mark: Mark, aside: float, inches: float) -> None:
    """The word of a point: to its right where there is room on axes of that width; above its middle, but at the top."""
    across, upwards = _share(axes, mark)
    away = marker_size(mark.size) / 2 + 2
    is_left = len(mark.says) * LETTER * 8 + away > (1 - across) * inches * 72
    is_top = upwards > 0.85
    axes.annotate(
        mark.says,
        (mark.x.value, mark.y.value),
        xytext=(aside - away if is_left else aside + away, 0 if is_top else away),
        textcoords="offset points",
        ha="right" if is_left else "left",
        va="center" if is_top else "bottom",
        zorder=5,
    )


def _widen(axes: Axes, x: Axis, y: Axis | None) -> None:
    """Make an axis at least ten steps of the last digit that tables show wide: less is rounding, and no gap."""
    for one, interval, widened in ((x, axes.get_xlim(), axes.set_xlim), (y, axes.get_ylim(), axes.set_ylim)):
        if one is None or not one.decimals or one.is_log or one.limits is not None:
            continue
        least, (low, high) = 10.0 ** (1 - one.decimals), interval
        if high - low < least:
            middle = round((low + high) / 2, one.decimals)
            widened(middle - least / 2, middle + least / 2)


def draw_rows(axes: Axes, rows: Rows, room: tuple[float, float], widest: int) -> None:
    """One line for each name, the first on top, with words at the right.

    Args:
        axes: Where.
        rows: What.
        room: Inches across and upwards.
        widest: Letters of the longest name in any list beside, above or below, with which this one lines up.
    """
    names = widest * LETTER * 8 / 72
    says = max((len(row.says) for row in rows.rows), default=0) * LETTER * 8 / 72
    own = max(1.0, room[0] - names - says - 0.2)
    axes.set_title(_lines(rows.title, own, bold=True), pad=14)
    _scale(axes, rows.x, None, (own + 0.05, room[1]))
    if rows.x.line is not None:
        axes.axvline(rows.x.line, color="#777777", linewidth=0.8, linestyle="--", zorder=1)
        axes.text(rows.x.line, 1.005, rows.x.line_says, transform=axes.get_xaxis_transform(), ha="center", va="bottom")
    step = 0.0 if len(rows.series) == 1 else 0.36 / (len(rows.series) - 1)
    for place, row in enumerate(rows.rows):
        for at, number in enumerate(row.numbers):
            where = place + (at * step - 0.18 if step else 0.0)
            marker, color, line = _SERIES[at]
            if row.kind == "reference":
                marker, color = ("s" if at == 0 else marker), REFERENCE
            _number(axes, number, where, _row_style(marker, color, at), line, row.name)
        if row.numbers[0] is None:
            axes.text(0.02, place, "missing", transform=axes.get_yaxis_transform(), va="center", color=REFERENCE)
        axes.text(1.02, place, row.says, transform=axes.get_yaxis_transform(), va="center")
    if rows.says:
        axes.text(1.02, 1.005, rows.says, transform=axes.transAxes, va="bottom")
    axes.set_yticks(range(len(rows.rows)), [row.name for row in rows.rows])
    for text, row in zip(axes.get_yticklabels(), rows.rows, strict=True):
        text.set_fontstyle("italic" if row.kind == "reference" else "normal")
    axes.set_ylim(max(1, len(rows.rows)) - 0.4, -0.6)
    _widen(axes, rows.x, None)
    axes.grid(color="#E6E6E6", linewidth=0.5)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)


def _number(axes: Axes, number: Number | None, where: float, style: dict[str, Any], line: Line, name: str) -> None:
    """A number with its interval."""
    if number is None:
        return
    color = style["markeredgecolor"]
    if number.low is not None and number.high is not None:
        axes.plot([number.low, number.high], [where, where], color=color, linewidth=1.3, linestyle=line, zorder=2)
    axes.plot([number.value], [where], **style, linestyle="none", zorder=3, label=name)


def _row_style(marker: str, color: str, at: int) -> dict[str, Any]:
    """Of the first series filled, of the others hollow."""
    face = color if at == 0 else "white"
    return {"marker": marker, "markerfacecolor": face, "markeredgecolor": color, "markersize": 4.5}


def _lines(text: str, inches: float, *, bold: bool = False) -> str:
    """The text in lines of that width."""
    return fill(text, max(12, int(inches * 72 / (8 * (BOLD if bold else LETTER)))))


def _scale(axes: Axes, x: Axis, y: Axis | None, room: tuple[float, float]) -> None:
    """Labels with the better direction, logarithmic scales with plain numbers, limits."""
    for axis, one, inches in ((axes.xaxis, x, room[0]), (axes.yaxis, y, room[1])):
        if one is None:
            continue
        arrow = {"up": " better\u00a0→", "down": " ←\u00a0better", "none": ""}[one.direction]
        axis.set_label_text(_lines(f"{one.label}{arrow}", inches))
        axis.set_major_formatter(ScalarFormatter(useOffset=False))  # no 1e-11+10e1 beside the axis
        if one.is_log:
            (axes.set_xscale if one is x else axes.set_yscale)("log")
            axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.set_minor_formatter(NullFormatter())
        if one.limits is not None:
            (axes.set_xlim if one is x else axes.set_ylim)(*one.limits)
