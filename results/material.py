"""What figures are made from, and what all of them do with it: look a column up, take numbers, say what is missing."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Final

from results.charts import Axis, Chart, Kind, Number
from results.layout import PANELS, Column, Layout, Seeds, Site
from results.panels import Finding
from results.records import Record
from results.specs import EFFICIENCY, GROUND_TRUTH, LEADERBOARD, PROBES, PROXY_VERDICTS, STRUCTURE, VERDICTS
from results.summaries import SEED_WORDS, Summaries, Summary, summarise

PUBLISHED: Final = "published"
_LONGEST_REASON: Final = 240
_NAMES: Final[Mapping[str, str]] = {
    "r2": "R²",
    "top1": "top-1 accuracy after replacement",
    "top5": "top-5 accuracy after replacement",
    "agreement": "agreement with the untouched network",
    "llm_win_rate": "LLM win rate",
    "proxy_win_rate": "proxy panel win rate",
    "latency": "time of a batch",
    "peak_memory": "peak memory",
    "l0": "L0",
}
_UNITS: Final[Mapping[str, str]] = {"1": "", "ms a batch": "ms", "atoms a token": "active atoms a token"}


class NothingToDrawError(ValueError):
    """A run that has nothing for a figure; the message says what it needs."""


@dataclass(frozen=True)
class Material:
    """What a figure is made from.

    Attributes:
        records: The rows of one closed group per cell (the values of `results.records.latest`), in any order.
        layout: Which rows there are and which cells they stand for; None where only the paper's numbers are drawn.
        findings: What panels of judges found, in the order in which they are drawn.
        beside: "published" to draw the paper's numbers too.
        x: Metric across, where the figure leaves it open; empty for its own.
        y: Metric upwards, likewise.
    """

    records: Sequence[Record] = ()
    layout: Layout | None = None
    findings: tuple[Finding, ...] = ()
    beside: str = ""
    x: str = ""
    y: str = ""

    @property
    def run(self) -> Layout:
        """The layout.

        Raises:
            NothingToDrawError: There is no run.
        """
        if self.layout is None:
            raise NothingToDrawError("figure: got no run; expected one; give --run DIR")
        return self.layout


@dataclass
class Gaps:
    """What is missing in a figure, and why."""

    found: dict[str, dict[str, list[str]]] = field(default_factory=dict)

    def add(self, site: str, name: str, reason: str) -> None:
        """Something of a site is missing."""
        text = reason if len(reason) <= _LONGEST_REASON else f"{reason[:_LONGEST_REASON]}…"
        names = self.found.setdefault(text, {}).setdefault(site, [])
        if name not in names:
            names.append(name)

    def note(self, summary: Summary, site: str, name: str) -> None:
        """What is to be said of a number that lacks values; nothing where it lacks none."""
        if summary.mean is None:
            self.add(site, name, summary.reason or "no value")
        elif summary.n_seeds < summary.n_expected:
            words = SEED_WORDS.get(summary.seeds, "panel")
            why = f" ({summary.reason})" if summary.reason else ""
            self.add(site, name, f"from {summary.n_seeds} of {summary.n_expected} {words}s only{why}")

    def notes(self) -> tuple[str, ...]:
        """One sentence for each reason."""
        told = []
        for reason, where in self.found.items():
            alike: dict[str, list[str]] = {}
            for site, names in where.items():
                alike.setdefault(", ".join(names), []).append(site)
            who = "; ".join(f"{names} at {', '.join(sites)}" for names, sites in alike.items())
            told.append(f"Missing: {who}: {reason}.")
        return tuple(told)


def column_of(metric: str, layout: Layout | None, option: str) -> Column:
    """The column of a metric that a table has, or that a plugin brought.

    Raises:
        LookupError: There is none.
    """
    specs = (LEADERBOARD, VERDICTS, PROXY_VERDICTS, STRUCTURE, EFFICIENCY, GROUND_TRUTH, PROBES)
    own = layout.others if layout else ()
    known = {one.metric: one for one in [*own, *(column for spec in reversed(specs) for column in spec.columns)]}
    if metric not in known:
        near = get_close_matches(metric, known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else "see `eludebench list metrics`"
        raise LookupError(f"{option}: got {metric!r}; expected one of {', '.join(sorted(known))}; {hint}")
    return known[metric]


def axis_of(column: Column) -> Axis:
    """The axis of a column: its quantity with the unit, and where better numbers lie."""
    unit = _UNITS.get(column.unit, column.unit)
    name = _NAMES.get(column.metric, column.heading)
    label = f"{name} ({unit})" if unit and unit not in name else name
    return Axis(label, column.direction, decimals=None if column.is_scientific else column.decimals)


def number_of(summary: Summary) -> Number | None:
    """The mean with its spread over seeds, or with the interval of the one seed; None where there is no value."""
    if summary.mean is None:
        return None
    if summary.std is not None:
        return Number(summary.mean, summary.mean - summary.std, summary.mean + summary.std)
    return Number(summary.mean, summary.low, summary.high)


def summaries_of(columns: Iterable[Column], records: Sequence[Record], layout: Layout) -> Summaries:
    """The summary of every row and column; a column that comes twice counts once."""
    return summarise(dict.fromkeys(columns), records, layout)


def kind_of(label: str, layout: Layout) -> Kind:
    """Whether a label is a contestant or there to compare with."""
    return "reference" if label in layout.references else "method"


def labels_at(site: Site, layout: Layout) -> list[str]:
    """The labels of a site's rows, in order."""
    return [label for one, label in layout.rows() if one.label == site.label]


def sites_of(layout: Layout) -> list[Site]:
    """The sites that have rows."""
    present = {site.label for site, _ in layout.rows()}
    return [site for site in layout.sites if site.label in present]


def heading_of(site: Site) -> str:
    """What a panel of a figure is headed with."""
    return f"{site.label}: {site.backbone}, {site.module}"


def warnings_of(layout: Layout) -> tuple[str, ...]:
    """What has to be told first, each with the sites that it holds of."""
    said: dict[str, list[str]] = {}
    for site in sites_of(layout):
        if site.warnings:
            said.setdefault("; ".join(site.warnings), []).append(site.label)
    return tuple(f"these are no results. {', '.join(sites)}: {what}" for what, sites in said.items())


def bars(columns: Iterable[Column], layout: Layout) -> tuple[str, ...]:
    """What the bars around the numbers are, in a sentence for each kind of seeds."""
    return tuple(dict.fromkeys(_bars(column.seeds, layout) for column in columns))


def _bars(seeds: Seeds, layout: Layout) -> str:
    if seeds in PANELS:
        return f"Bars: 95 % intervals. {layout.panels.get(seeds, '')}".rstrip()
    if seeds == "comparison":
        inits = ", ".join(map(str, layout.init_seeds))
        return f"Bars: 95 % intervals over all pairs of init seeds {inits}, unless exact."
    own = layout.token_seeds if seeds == "token_seeds" else layout.init_seeds
    word = SEED_WORDS[seeds]
    if len(own) > 1:
        return f"Bars: ± sample standard deviation over {word}s {', '.join(map(str, own))}."
    return f"Bars: 95 % intervals at {word} {own[0]}, unless exact."


def chart_of(title: str, shows: str, panels: Sequence[object], layout: Layout | None, notes: Iterable[str]) -> Chart:
    """The chart with the warnings and the names of a run."""
    names = layout.labels if layout else ()
    references = layout.references if layout else frozenset[str]()
    return Chart(
        title,
        shows,
        tuple(panels),  # type: ignore[arg-type]
        warnings_of(layout) if layout else (),
        tuple(dict.fromkeys(notes)),
        tuple(label for label in names if label not in references),
        tuple(label for label in names if label in references),
    )
