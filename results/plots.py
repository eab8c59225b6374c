"""A chart as a file: heading and warnings on top, panels, the legend, and notes below; SVG, PDF or PNG.

For print: nothing is smaller than 8 points at the width that it is made for, and nothing hangs on colour alone. SVG
keeps text as text, so that it can be searched, read out and stays small; Verdana, which is nearly as wide, stands in
where DejaVu Sans is missing. PDF carries its fonts. Files hold no dates.
"""

import io
from collections.abc import Iterable, Sequence
from html import escape
from math import ceil
from textwrap import wrap
from typing import Any, Final

from matplotlib import style
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from results.charts import Chart, Matrix, Panel, Plane, Rows, described
from results.plots_matrix import CELL, draw_matrix
from results.plots_panels import BOLD, LETTER, draw_plane, draw_rows, handles_of

SIZE: Final = 8.0
"""Points of the smallest text."""
HEADING: Final = 10.0
FONT: Final = "DejaVu Sans"
LOOK: Final[Sequence[str | dict[str, Any]]] = [
    "default",
    {
        "svg.hashsalt": "eludebench",
        "svg.fonttype": "none",
        "pdf.fonttype": 42,
        "font.family": FONT,
        "font.size": SIZE,
        "axes.titlesize": SIZE,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.labelsize": SIZE,
        "xtick.labelsize": SIZE,
        "ytick.labelsize": SIZE,
        "axes.linewidth": 0.6,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "text.parse_math": False,
        "axes.unicode_minus": True,
    },
]
_LINE: Final = 1.28
"""Height of a line of text in its size."""
_GAP: Final = 0.08
_DARK_RED: Final = "#8B0000"


def to_bytes(chart: Chart, format: str, width: float) -> bytes:
    """The chart as a file of one of the formats of `results.figures`.

    Args:
        chart: What it shows.
        format: "svg", "pdf" or "png".
        width: In inches.
    """
    words = described(chart)
    metadata: dict[str, dict[str, Any]] = {
        "svg": {"Title": _clean(chart.title), "Date": None},
        "pdf": {"Title": _clean(chart.title), "Subject": _clean(words), "CreationDate": None},
        "png": {"Title": _clean(chart.title), "Description": _clean(words), "Software": None},
    }
    file = io.BytesIO()
    with style.context(LOOK, after_reset=True):
        figure_of(chart, width).savefig(file, format=format, metadata=metadata[format], dpi=200)
    return _readable(file.getvalue(), _clean(words)) if format == "svg" else file.getvalue()


def figure_of(chart: Chart, width: float) -> Figure:
    """The chart drawn, its height by what is in it; to be called under `LOOK`."""
    chart = _cleaned(chart)
    top = [(line, HEADING, "bold", "black") for line in _wrapped(chart.title, width, HEADING, bold=True)]
    for one in chart.warnings:
        top += [(line, SIZE, "bold", _DARK_RED) for line in _wrapped(f"Warning: {one}.", width, SIZE, bold=True)]
    n_columns = _n_columns(chart.panels, width)
    notes = list(chart.notes)
    if any(isinstance(panel, Matrix) and not _fits(panel, width) for panel in chart.panels):
        notes.append("Too narrow for the numbers of all cells; a wider figure has them.")
    below = [line for note in notes for line in _wrapped(note, width, SIZE, bold=False)]
    entries = handles_of(chart)
    per_line = _per_line([name for name, _ in entries], width)
    rows = [chart.panels[at : at + n_columns] for at in range(0, len(chart.panels), n_columns)]
    heights = [max(_height(panel, width / n_columns) for panel in row) for row in rows]
    top_height = sum(size for _, size, *_ in top) * _LINE / 72 + 2 * _GAP
    legend_height = ceil(len(entries) / per_line) * (SIZE * 1.5) / 72 + 2 * _GAP if entries else _GAP
    notes_height = len(below) * SIZE * _LINE / 72 + _GAP
    height = top_height + sum(heights) + legend_height + notes_height + _GAP
    figure = Figure(figsize=(width, height), layout="constrained")
    ends = ((legend_height + notes_height) / height, (sum(heights) + _GAP) / height)
    engine: Any = figure.get_layout_engine()
    engine.set(rect=(0.0, ends[0], 1.0, ends[1]), w_pad=0.04, h_pad=0.04, wspace=0.02, hspace=0.03)
    grid: Any = figure.subplots(len(rows), n_columns, squeeze=False, height_ratios=heights)
    widest = max((len(row.name) for panel in chart.panels if isinstance(panel, Rows) for row in panel.rows), default=1)
    for at, place in enumerate(grid.flat):
        if at < len(chart.panels):
            room = (width / n_columns, heights[at // n_columns])
            _draw(place, chart.panels[at], chart, room, widest, is_numbered=_fits(chart.panels[at], width))
        else:
            place.set_axis_off()
    _write(figure, top, 1 - _GAP / height, height)
    _write(figure, [(line, SIZE, "normal", "#333333") for line in below], notes_height / height, height)
    if entries:
        _legend(figure, entries, per_line, (notes_height + legend_height) / height)
    return figure


def _draw(axes: Axes, panel: Panel, chart: Chart, room: tuple[float, float], widest: int, *, is_numbered: bool) -> None:
    """One panel, which has that many inches across and upwards; `widest` is the longest name of all lists."""
    if isinstance(panel, Plane):
        draw_plane(axes, panel, chart, room)
    elif isinstance(panel, Rows):
        draw_rows(axes, panel, room, widest)
    else:
        draw_matrix(axes, panel, is_numbered=is_numbered)


def _n_columns(panels: Sequence[Panel], width: float) -> int:
    """Panels side by side: two at the width of a page, but for matrices and lists with words at their right."""
    is_wide = any(isinstance(panel, Matrix) for panel in panels)
    return 1 if is_wide or width < 5 or len(panels) < 2 else 2


def _height(panel: Panel, width: float) -> float:
    """Inches that a panel takes."""
    if isinstance(panel, Plane):
        return min(3.1, 0.86 * width)
    if isinstance(panel, Rows):
        return 0.95 + max(2, len(panel.rows)) * (0.17 if len(panel.series) == 1 else 0.22)
    names = max((len(name) for name in panel.names), default=1) * SIZE * LETTER / 72
    return max(2, len(panel.names)) * CELL + 0.9 * names + 0.5


def _fits(panel: Panel, width: float) -> bool:
    """Whether the cells of a matrix are wide enough for numbers."""
    if not isinstance(panel, Matrix):
        return True
    names = max((len(name) for name in panel.names), default=1) * SIZE * LETTER / 72
    return (width - names - 0.2) / max(1, len(panel.names)) >= CELL * 0.75


def _legend(figure: Figure, entries: Sequence[tuple[str, Artist]], per_line: int, top: float) -> None:
    """All names with their markers, in lines from left to right."""
    n_lines = ceil(len(entries) / per_line)
    # matplotlib fills columns first, and evenly: blanks at the end keep the order from left to right
    blank = ("", Line2D([], [], linestyle="none"))
    padded = [*entries, *[blank] * (n_lines * per_line - len(entries))]
    ordered = [padded[at + per_line * line] for at in range(per_line) for line in range(n_lines)]
    figure.legend(
        [artist for _, artist in ordered],
        [name for name, _ in ordered],
        loc="upper left",
        bbox_to_anchor=(0.0, top),
        ncols=per_line,
        frameon=False,
        fontsize=SIZE,
        handletextpad=0.3,
        columnspacing=1.0,
        borderpad=0.2,
        labelspacing=0.35,
    )


def _per_line(names: Sequence[str], width: float) -> int:
    """How many entries of a legend stand side by side."""
    widest = max((len(name) for name in names), default=1) * SIZE * LETTER + 4.0 * SIZE
    return max(1, min(len(names), int(width * 72 / widest)))


def _write(figure: Figure, lines: Iterable[tuple[str, float, str, str]], top: float, height: float) -> None:
    """Lines of text from that place downwards."""
    for text, size, weight, color in lines:
        figure.text(0.01, top, text, fontsize=size, weight=weight, color=color, va="top", in_layout=False)
        top -= size * _LINE / 72 / height


def _wrapped(text: str, width: float, size: float, *, bold: bool) -> list[str]:
    return wrap(text, max(20, int(0.97 * width * 72 / (size * (BOLD if bold else LETTER)))))


def _readable(svg: bytes, words: str) -> bytes:
    """The SVG with its description as an element, and a font to fall back to."""
    text = svg.decode("utf-8")
    head, title, rest = text.partition("</title>")
    rest = rest.replace(f"'{FONT}'", f"'{FONT}', Verdana, sans-serif")
    return f"{head}{title}\n <desc>{escape(words, quote=False)}</desc>{rest}".encode()


def _clean(text: str) -> str:
    """The text without characters that no file of text may hold."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text.replace("\n", " "))


def _cleaned(value: Any) -> Any:
    """A chart, or a part of it, whose texts are clean."""
    from dataclasses import fields, is_dataclass, replace

    if isinstance(value, str):
        return _clean(value)
    if isinstance(value, tuple):
        return tuple(_cleaned(one) for one in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{each.name: _cleaned(getattr(value, each.name)) for each in fields(value)})
    return value
