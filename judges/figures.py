"""A report as one figure: win rates with intervals and rank groups, the win matrix, and the judges' position bias.

The only file of this package that imports matplotlib; import it where a figure is asked for, not before. Files come out
the same to the last byte for the same report and the same matplotlib.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from judges.estimates import Estimate
from judges.markdown import letters
from judges.ranking import Standing
from judges.report import Report

COLOR: Final = "#1f5fa8"
GREY: Final = "#888888"
LOOK: Final[Sequence[str | dict[str, Any]]] = [
    "default",
    {"svg.hashsalt": "eludebench", "font.family": "DejaVu Sans", "font.size": 9.0},
]


def report_figure(found: Report) -> Figure:
    """The figure, its size by the number of methods and judges."""
    standings = found.ranking.standings
    with style.context(LOOK, after_reset=True):
        figure = Figure(figsize=(15, max(3.2, 1.6 + 0.36 * len(standings))), layout="constrained")
        forest, matrix, bias = figure.subplots(1, 3, width_ratios=[1.2, 1.2, 0.8])
        name = found.panel or "LLM Rank"
        figure.suptitle(f"{name}: {found.title} ({found.ranking.seeds})")
        _forest(forest, found, standings)
        _matrix(matrix, found, standings)
        _bias(bias, found)
        for axes in (forest, matrix, bias):
            if found.panel:
                axes.set_xlabel(f"{axes.get_xlabel()} ({found.panel})")
                axes.set_title(f"{axes.get_title()} ({found.panel})")
    return figure


def write_figure(figure: Figure, path: Path) -> None:
    """Write the figure as the ending of the path says: .svg or .png, without dates.

    Raises:
        ValueError: Another ending.
    """
    metadata = {".svg": {"Date": None}, ".png": {"Software": None}}.get(path.suffix)
    if metadata is None:
        raise ValueError(f"path: got ending '{path.suffix}'; expected .svg or .png; name such a file")
    with style.context(LOOK, after_reset=True):
        figure.savefig(path, metadata=metadata, dpi=150)


def _forest(axes: Axes, found: Report, standings: tuple[Standing, ...]) -> None:
    """Win rates, best on top, with the letters of the rank groups at the right."""
    for place, one in enumerate(standings):
        _point(axes, one.win_rate, place)
        axes.text(1.02, place, letters(one.groups), transform=axes.get_yaxis_transform(), va="center")
    axes.axvline(50, color=GREY, linewidth=0.8, linestyle=":")
    axes.set_xlim(0, 100)
    _names(axes, [found.label(one.method) for one in standings])
    axes.set_xlabel("win rate, %")
    axes.set_title("Win rates, 95 % intervals, rank groups")


def _matrix(axes: Axes, found: Report, standings: tuple[Standing, ...]) -> None:
    """Share of decided presentations that the row won against the column."""
    wins = found.ranking.wins.astype(np.float64)
    games = wins + wins.T
    shares = np.ma.masked_where(games == 0, 100 * wins / np.maximum(games, 1))
    if standings:
        axes.imshow(shares, cmap="RdBu", vmin=0, vmax=100, aspect="auto")
    for row, column in zip(*np.nonzero(games), strict=True):
        share = shares[row, column]
        axes.text(
            column,
            row,
            f"{share:.0f}",
            ha="center",
            va="center",
            fontsize=7,
            color="white" if abs(share - 50) > 35 else "black",
        )
    names = [found.label(one.method) for one in standings]
    axes.set_xticks(range(len(names)), names, rotation=60, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("against")
    axes.set_title("Wins of the row, % of decided")


def _bias(axes: Axes, found: Report) -> None:
    """Position bias of each judge."""
    for place, voter in enumerate(found.agreement.voters):
        _point(axes, voter.position_bias, place)
    axes.axvline(0, color=GREY, linewidth=0.8, linestyle=":")
    _names(axes, [voter.judge for voter in found.agreement.voters])
    axes.set_xlabel("points to A")
    axes.set_title("Position bias")


def _point(axes: Axes, number: Estimate, place: int) -> None:
    """A number with its interval, or a word in its place."""
    if number.value is None:
        axes.text(0.02, place, number.reason, transform=axes.get_yaxis_transform(), va="center", color=GREY)
        return
    if number.low is not None and number.high is not None:
        axes.hlines(place, number.low, number.high, color=COLOR, linewidth=2)
    axes.plot([number.value], [place], "o", color=COLOR, markersize=5)


def _names(axes: Axes, names: list[str]) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(max(len(names), 1) - 0.5, -0.5)
