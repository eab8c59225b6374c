"""The figures of a run: what there is, what each shows, one function that draws.

A figure is a pure function of its arguments: the same records in any order, drawn by the same matplotlib, give the same
bytes. matplotlib is imported when something is drawn, not before.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final

from results.charted import ablations, efficiency, pareto, stability
from results.charted_options import robustness, sweeps
from results.charted_panels import forest, judges, wins
from results.charts import Chart
from results.layout import Layout
from results.material import PUBLISHED, Material, NothingToDrawError
from results.panels import Finding
from results.records import Record

__all__ = ["FIGURES", "FORMATS", "WIDTHS", "FigureSpec", "NothingToDrawError", "chart", "drawn"]

FORMATS: Final = ("svg", "pdf", "png")
WIDTHS: Final[Mapping[str, float]] = {"page": 6.9, "column": 3.3}
"""Inches of the two widths that a figure can have in print."""


@dataclass(frozen=True)
class FigureSpec:
    """A figure without its numbers.

    Attributes:
        name: Its name on the command line.
        title: Its heading.
        shows: What it shows, in words.
        made: Makes the chart.
        takes: Which of "beside", "x" and "y" it understands.
    """

    name: str
    title: str
    shows: str
    made: Callable[[Material], Chart]
    takes: frozenset[str] = frozenset()


_ALL: Final = (
    FigureSpec(
        "pareto",
        "Faithfulness and interpretability",
        "every method by how faithful and how interpretable it is, with the front; area by expansion factor",
        pareto,
        frozenset({"beside", "x", "y"}),
    ),
    FigureSpec(
        "forest",
        "Win rates",
        "how often judges preferred each method, with intervals and ranks",
        forest,
        frozenset({"beside"}),
    ),
    FigureSpec("wins", "Win matrix", "which method won how often against which", wins),
    FigureSpec("judges", "Judges", "position bias and flips of each judge, and how far the judges agree", judges),
    FigureSpec("stability", "Stability", "how alike a method's dictionaries come out under several seeds", stability),
    FigureSpec("efficiency", "Latency and memory", "what a method costs inside the running network", efficiency),
    FigureSpec("ablations", "Ablations", "MS-Score with one choice changed at a time", ablations),
    FigureSpec("sweeps", "Sweeps", "error and active atoms of every variant of a sweep, and which was chosen", sweeps),
    FigureSpec(
        "robustness",
        "Robustness",
        "a metric against any numeric option that varies, of the data or of a method",
        robustness,
        frozenset({"y"}),
    ),
)
FIGURES: Final[Mapping[str, FigureSpec]] = {spec.name: spec for spec in _ALL}


def chart(
    name: str,
    records: Iterable[Record] = (),
    layout: Layout | None = None,
    *,
    panels: Sequence[Finding] = (),
    beside: str = "",
    x: str = "",
    y: str = "",
) -> Chart:
    """What the figure of that name shows, as data.

    Args:
        name: One of `FIGURES`.
        records: The rows of one closed group per cell (the values of `results.records.latest`), in any order.
        layout: Which rows there are and which cells they stand for; None for `pareto` of the paper's numbers alone.
        panels: What panels of judges found.
        beside: "published" draws the paper's numbers too, hollow.
        x: Metric across, where the figure leaves it open.
        y: Metric upwards, likewise.

    Raises:
        LookupError: There is no such figure or metric.
        ValueError: The figure has no such option, or there is nothing to draw (`NothingToDrawError`).
    """
    spec = FIGURES.get(name)
    if spec is None:
        raise LookupError(f"figure: got {name!r}; expected {_one_of(name, FIGURES)}")
    if beside not in ("", PUBLISHED):
        raise ValueError(f"--beside: got {beside!r}; expected {PUBLISHED!r}; give that, or leave it out")
    given = {"beside": beside, "x": x, "y": y}
    for option in (option for option, value in given.items() if value and option not in spec.takes):
        takers = ", ".join(one.name for one in _ALL if option in one.takes)
        raise ValueError(f"--{option}: got one for {name}; expected it for {takers} only; leave it out")
    return spec.made(Material(tuple(records), layout, tuple(panels), beside, x, y))


def drawn(
    name: str,
    records: Iterable[Record] = (),
    layout: Layout | None = None,
    *,
    format: str = "svg",
    width: str = "page",
    **options: Any,
) -> bytes:
    """The figure of that name as a file.

    Args:
        name: As for `chart`, and so are the next two.
        records: See there.
        layout: See there.
        format: "svg" with text as text, "pdf" with its fonts inside, or "png" with 200 dots an inch.
        width: One of `WIDTHS`.
        options: As `chart` takes them.

    Raises:
        LookupError, ValueError: As `chart`; or there is no such format or width.
    """
    for option, got, known in (("format", format, FORMATS), ("width", width, tuple(WIDTHS))):
        if got not in known:
            raise ValueError(f"--{option}: got {got!r}; expected {_one_of(got, known)}")
    made = chart(name, records, layout, **options)
    from results.plots import to_bytes

    return to_bytes(made, format, WIDTHS[width])


def _one_of(got: str, known: Iterable[str]) -> str:
    """What could have been meant: all names, then the nearest."""
    names = list(known)
    near = get_close_matches(got, names, n=1, cutoff=0.5)
    return f"one of {', '.join(names)}; " + (f"did you mean {near[0]!r}?" if near else "choose one")
