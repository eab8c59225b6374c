"""The panels of a chart on their axes: planes of points, lists of numbers, win matrices; markers and colours.

Colours are those of Okabe and Ito 2008 ("Color Universal Design"), told apart by people with any colour vision; every
method has a marker of its own besides, and all markers have dark edges, so that grey prints say the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from textwrap import fill
from typing import Any, Final, Literal

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from results.charts import Axis, Chart, Kind, Mark, Matrix, Number, Plane, Rows

COLORS: Final = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#F0E442")
MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "*", "d", "H", "8")
REFERENCE_MARKERS: Final = ("x", "+", "1", "2", "3", "4", "|", "_")
REFERENCE: Final = "#555555"
EDGE: Final = "#222222"
CELL: Final = 0.31
"""Inches of a cell of a matrix."""
DIVERGING: Final = LinearSegmentedColormap.from_list("wins", [COLORS[3], "#FFFFFF", COLORS[0]])
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
    for mark in sorted(plane.marks, key=lambda one: -marker_size(one.size)):
        _point(axes, mark, chart)
    axes.margins(0.1)
    axes.autoscale_view()
    for mark in (one for one in plane.marks if one.says):
        _say(axes, mark, room[0] - 0.6)
    axes.grid(color="#E6E6E6", linewidth=0.5)
    axes.set_axisbelow(True)
    if not plane.marks:
        axes.text(0.5, 0.5, "nothing to draw: see below", transform=axes.transAxes, ha="center", va="center")


def _point(axes: Axes, mark: Mark, chart: Chart) -> None:
    """One point with its intervals, its ring and its word."""
    look = look_of(mark.name, mark.kind, chart)
    x, y = mark.x, mark.y
    for number, ends in ((x, ((x.low, x.high), (y.value, y.value))), (y, ((x.value, x.value), (y.low, y.high)))):
        if number.low is not None and number.high is not None:
            axes.plot(*ends, color="#555555", linewidth=0.8, zorder=2)
    axes.plot([x.value], [y.value], **look.style(mark.size), zorder=3, label=f"{mark.kind}: {mark.name}")
    if mark.is_chosen:
        ring: dict[str, Any] = {
            "marker": "o",
            "markersize": marker_size(mark.size) + 6,
            "markerfacecolor": "none",
            "markeredgewidth": 1.2,
        }
        axes.plot([x.value], [y.value], markeredgecolor="black", linestyle="none", zorder=4, label="chosen", **ring)


def _say(axes: Axes, mark: Mark, inches: float) -> None:
    """The word of a point, to its right where there is room on axes of that width."""
    place = (mark.x.value, mark.y.value)
    across, upwards = axes.transAxes.inverted().transform(axes.transData.transform(place))
    away = marker_size(mark.size) / 2 + 2
    is_left = len(mark.says) * LETTER * 8 + away > (1 - across) * inches * 72
    axes.annotate(
        mark.says,
        place,
        xytext=(-away if is_left else away, -away if upwards > 0.9 else away),
        textcoords="offset points",
        ha="right" if is_left else "left",
        va="top" if upwards > 0.9 else "bottom",
        zorder=5,
    )


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


def draw_matrix(axes: Axes, matrix: Matrix, *, is_numbered: bool) -> None:
    """A cell for each two methods: the share in its colour and as a number, with what it is of."""
    n = len(matrix.names)
    axes.set_title(matrix.title)
    axes.set_facecolor("#DDDDDD")
    shares = [[matrix.share(row, column) for column in range(n)] for row in range(n)]
    empty = [[share is None or row == column for column, share in enumerate(own)] for row, own in enumerate(shares)]
    filled = np.ma.masked_array([[50.0 if share is None else share for share in own] for own in shares], empty)
    if n:
        axes.pcolormesh(
            range(n + 1), range(n + 1), filled, cmap=DIVERGING, vmin=0, vmax=100, edgecolors="white", linewidth=0.6
        )
    for row in range(n):
        for column in range(n):
            share = shares[row][column]
            text = "" if row == column else "—" if share is None else f"{share:.0f}\n{matrix.decided(row, column)}"
            if text and is_numbered:
                color = "black" if share is None else readable_on(DIVERGING(share / 100))
                axes.text(column + 0.5, row + 0.5, text, ha="center", va="center", color=color, linespacing=1.05)
    axes.set_xticks([at + 0.5 for at in range(n)], matrix.names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks([at + 0.5 for at in range(n)], matrix.names)
    axes.set_xlim(0, max(1, n))
    axes.set_ylim(max(1, n), 0)
    axes.set_xlabel("against the column")
    axes.set_ylabel("the row won")
    axes.tick_params(length=0)


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
        if one.is_log:
            (axes.set_xscale if one is x else axes.set_yscale)("log")
            axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.set_minor_formatter(NullFormatter())
        if one.limits is not None:
            (axes.set_xlim if one is x else axes.set_ylim)(*one.limits)


def readable_on(color: Sequence[float] | str) -> str:
    """Black or white, whichever is read more easily on a colour."""
    light = luminance(color)
    return "black" if (light + 0.05) / 0.05 >= 1.05 / (light + 0.05) else "white"


def luminance(color: Sequence[float] | str) -> float:
    """Relative luminance of a colour, 0 to 1 (WCAG 2.2)."""
    rgb = to_rgb(color if isinstance(color, str) else tuple(color[:3]))  # type: ignore[arg-type]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in rgb]
    return float(sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True)))
