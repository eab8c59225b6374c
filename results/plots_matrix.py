"""A win matrix on its axes: who won how often against whom, as colours and as numbers that can be read on them."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgb

from results.charts import Matrix
from results.plots_panels import COLORS

CELL: Final = 0.31
"""Inches of a cell of a matrix."""
DIVERGING: Final = LinearSegmentedColormap.from_list("wins", [COLORS[3], "#FFFFFF", COLORS[0]])


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


def readable_on(color: Sequence[float] | str) -> str:
    """Black or white, whichever is read more easily on a colour."""
    light = luminance(color)
    return "black" if (light + 0.05) / 0.05 >= 1.05 / (light + 0.05) else "white"


def luminance(color: Sequence[float] | str) -> float:
    """Relative luminance of a colour, 0 to 1 (WCAG 2.2)."""
    rgb = to_rgb(color if isinstance(color, str) else tuple(color[:3]))  # type: ignore[arg-type]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in rgb]
    return float(sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True)))
