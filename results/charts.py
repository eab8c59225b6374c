"""What a figure shows, as data: points with intervals, rows, win matrices, and what is not there and why.

A chart is made from records (`results.charted`, `results.charted_panels`) and drawn by `results.plots`; so that its
description for readers who do not see it, and tests, need no picture.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["method", "reference", "published"]
"""A contestant, one that is there to compare with, or what the paper prints."""


@dataclass(frozen=True)
class Number:
    """One number; the ends of its interval or spread are None where it has none."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Axis:
    """What an axis says.

    Attributes:
        label: Its quantity with the unit.
        direction: Where better numbers lie; "none" where neither way is better.
        is_log: Whether it is logarithmic.
        limits: Where it begins and ends; None leaves that to the numbers.
        line: Where a line of reference is drawn.
        line_says: What that line is.
        decimals: Digits after the point to which numbers are compared, as tables show them; None compares them exactly.
    """

    label: str
    direction: Literal["up", "down", "none"] = "none"
    is_log: bool = False
    limits: tuple[float, float] | None = None
    line: float | None = None
    line_says: str = ""
    decimals: int | None = None


@dataclass(frozen=True)
class Mark:
    """One point of a plane.

    Attributes:
        name: What it stands for; marks of one name look the same.
        kind: Whose it is.
        x: Across.
        y: Upwards.
        size: Expansion factor, as the area of the marker; None where it is not known or not shown.
        says: A word beside it.
        is_chosen: Whether it is ringed.
    """

    name: str
    kind: Kind
    x: Number
    y: Number
    size: float | None = None
    says: str = ""
    is_chosen: bool = False


@dataclass(frozen=True)
class Plane:
    """Points on two axes.

    Attributes:
        title: What its points were measured at.
        x: The axis across.
        y: The axis upwards.
        marks: The points.
        front: Names and places of those that none is better than in both, by x; empty where no front is drawn.
        is_joined: Whether points of one name are joined in their order.
    """

    title: str
    x: Axis
    y: Axis
    marks: tuple[Mark, ...]
    front: tuple[Mark, ...] = ()
    is_joined: bool = False


@dataclass(frozen=True)
class Row:
    """One line of a list.

    Attributes:
        name: What it stands for.
        kind: Whose it is.
        numbers: One for each series of the list; None where it has none there.
        says: Words at its right end.
    """

    name: str
    kind: Kind
    numbers: tuple[Number | None, ...]
    says: str = ""


@dataclass(frozen=True)
class Rows:
    """A list of named numbers on one axis, the first on top.

    Attributes:
        title: What they were measured at.
        x: The axis.
        rows: The lines.
        series: What each number of a line is; one name, where there is one, is not shown.
        says: Heading of the words at the right; empty where there are none.
    """

    title: str
    x: Axis
    rows: tuple[Row, ...]
    series: tuple[str, ...] = ("",)
    says: str = ""


@dataclass(frozen=True)
class Matrix:
    """Who won how often against whom.

    Attributes:
        title: What was judged.
        names: The methods, best first.
        wins: Presentations that the row won against the column.
    """

    title: str
    names: tuple[str, ...]
    wins: tuple[tuple[int, ...], ...]

    def share(self, row: int, column: int) -> float | None:
        """Share of the decided presentations of the two that the row won, in %; None where there is none."""
        n = self.decided(row, column)
        return 100 * self.wins[row][column] / n if n else None

    def decided(self, row: int, column: int) -> int:
        """Presentations of the two with a winner."""
        return self.wins[row][column] + self.wins[column][row]


Panel = Plane | Rows | Matrix


@dataclass(frozen=True)
class Chart:
    """One figure.

    Attributes:
        title: Its heading.
        shows: What one sees in it, in a sentence.
        panels: Its parts.
        warnings: What a reader has to be told first.
        notes: What the marks mean, and what is not drawn and why.
        names: Contestants in the order that gives each its marker, whether drawn or not.
        references: Those that are there to compare with, likewise.
    """

    title: str
    shows: str
    panels: tuple[Panel, ...]
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    references: tuple[str, ...] = ()


def front_of(marks: Iterable[Mark], x: Axis, y: Axis) -> tuple[Mark, ...]:
    """Those of the marks that no other is at least as good as in both and better than in one, from left to right.

    Numbers are compared as tables show them: what prints the same is equal. Empty where an axis has no better end.
    """
    if "none" in (x.direction, y.direction):
        return ()
    signs = tuple(1 if axis.direction == "up" else -1 for axis in (x, y))
    found = [(signs[0] * _shown(one.x, x), signs[1] * _shown(one.y, y), one) for one in marks]
    kept: list[tuple[float, float, Mark]] = []
    for place in sorted(found, key=lambda each: (-each[0], -each[1])):
        if not kept or place[1] > kept[-1][1] or place[:2] == kept[-1][:2]:
            kept.append(place)
    return tuple(sorted((one for *_, one in kept), key=lambda one: (one.x.value, one.y.value, one.name)))


def _shown(number: Number, axis: Axis) -> float:
    return number.value if axis.decimals is None else round(number.value, axis.decimals)


def described(chart: Chart) -> str:
    """The chart in words with all of its numbers, for those who do not see it."""
    parts = [f"{chart.title}. {chart.shows}"]
    parts += [f"Warning: {one}." for one in chart.warnings]
    parts += [_panel_in_words(panel) for panel in chart.panels]
    return " ".join([*parts, *chart.notes])


def in_words(number: Number) -> str:
    """The number with the ends of its interval."""
    text = _short(number.value)
    if number.low is None or number.high is None:
        return text
    return f"{text} [{_short(number.low)}, {_short(number.high)}]"


def _short(value: float) -> str:
    """Four digits; no sign before zero."""
    text = f"{value:.4g}"
    return "0" if float(text) == 0 else text


def _panel_in_words(panel: Panel) -> str:
    if isinstance(panel, Plane):
        marks = [_mark_in_words(one) for one in panel.marks]
        front = f" Front: {', '.join(one.name for one in panel.front)}." if panel.front else ""
        return f"{panel.title}; {panel.x.label} and {panel.y.label}: {'; '.join(marks) or 'no point'}.{front}"
    if isinstance(panel, Rows):
        rows = [f"{_name(row.name, row.kind)} {_numbers(row, panel.series)}" for row in panel.rows]
        return f"{panel.title}; {panel.x.label}: {'; '.join(rows) or 'no number'}."
    lines = []
    for at, name in enumerate(panel.names):
        shares = [(other, panel.share(at, to)) for to, other in enumerate(panel.names) if to != at]
        told = ", ".join(f"{other} {share:.0f}" for other, share in shares if share is not None)
        lines.append(f"{name} against {told or 'nobody'}")
    return f"{panel.title}; wins of the row in % of decided presentations: {'; '.join(lines)}."


def _mark_in_words(mark: Mark) -> str:
    """Name and word of a point, once where they are the same, both numbers, and what its size stands for."""
    said = f" {mark.says}" if mark.says not in ("", mark.name) else ""
    size = "" if mark.size is None else f", expansion {_short(mark.size)}"
    chosen = " (chosen)" if mark.is_chosen else ""
    return f"{_name(mark.name, mark.kind)}{said} {in_words(mark.x)}, {in_words(mark.y)}{size}{chosen}"


def _numbers(row: Row, series: Sequence[str]) -> str:
    told = [
        f"{name} {in_words(number)}".strip()
        for name, number in zip(series, row.numbers, strict=True)
        if number is not None
    ]
    return ", ".join([*told, *([row.says] if row.says else [])]) or "no number"


def _name(name: str, kind: Kind) -> str:
    return name if kind == "method" else f"{name} ({kind})"
