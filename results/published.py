"""The paper's own figures, as it prints them, to stand beside what was measured here (Bağcı et al. 2026).

The files in `results/published` are the paper's tables as text. Their numbers were measured on other backbones, data
and machines than ours: they stand in columns of their own, and are never ranked.
"""

import csv
from functools import cache
from pathlib import Path

from results.layout import Column, Figure, Published

FOLDER = Path(__file__).parent / "published"
ABSENT = "–"
"""What stands for a figure that the paper does not print, beside one that it does."""


@cache
def rows_of(file: str) -> tuple[dict[str, str], ...]:
    """The rows of one of the paper's tables, by column."""
    with (FOLDER / file).open(encoding="utf-8", newline="") as lines:
        return tuple(csv.DictReader(lines))


def figures(published: Published, column: Column, label: str) -> tuple[float | None, ...]:
    """What the paper prints for that column and row, one entry for each set of rows it is looked for in.

    None where it prints nothing; no entries where the column has no figure.
    """
    figure = published.figures.get(column.heading)
    if figure is None:
        return ()
    return tuple(_figure(published, figure, label, dict(where)) for where in published.where)


def shown(published: Published, column: Column, label: str) -> str:
    """The figures as they stand in the table; empty where the paper has none for that row."""
    found = figures(published, column, label)
    if all(one is None for one in found):
        return ""
    return " / ".join(ABSENT if one is None else f"{one:.{column.decimals}f}" for one in found)


def _figure(published: Published, figure: Figure, label: str, where: dict[str, str]) -> float | None:
    """One figure, in the unit of the column."""

    def printed(key: str) -> float | None:
        for row in rows_of(published.file):
            if {published.key: key, **where}.items() <= row.items():
                return float(row[figure.column]) if row[figure.column] else None
        return None

    value = printed(published.keys.get(label, label))
    if value is None:
        return None
    if figure.less is not None:
        taken_off = printed(figure.less)
        return None if taken_off is None else figure.scale * (value - taken_off)
    if figure.over is not None:
        divisor = printed(figure.over)
        return None if divisor is None else figure.scale * value / divisor
    return figure.scale * value
