"""Two things side by side: one method in two runs, or two methods of one run, number by number.

Where both have several seeds the difference is taken seed by seed, and its 95 % interval is Student's t over these
differences (Student 1908, Biometrika 6(1); advised for benchmarks by Bouthillier et al. 2021, arXiv:2103.03098). It
assumes that the differences are independent draws from one normal distribution, and covers the draw of seeds, not that
of images. A bootstrap over three seeds has ten different resamples and is too narrow. With one seed there is nothing
to pair: the difference stands beside the intervals of the two numbers, and the words "not paired".
"""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from results.layout import PANELS, Layout, Seeds
from results.records import COMPLETE, STATUS, Record
from results.summaries import NOT_JUDGED, NOT_MEASURED, NOT_RUN, NOTHING, SEED_WORDS

CONFIDENCE = 0.95
NOT_PAIRED = "not paired"
NOT_PLANNED = "has no cell of this seed"
OVER: tuple[Seeds, ...] = ("token_seeds", "init_seeds")
"""What differences can be paired over."""


@dataclass(frozen=True)
class Side:
    """One method at one site of one run.

    Attributes:
        site: Label of the site.
        label: Label of the method.
        cells: For each kind of number, the hash of what it is expected from, by the seed in words.
        groups: The rows of the last closed group of each cell, by its hash.
    """

    site: str
    label: str
    cells: Mapping[Seeds, Mapping[str, str]]
    groups: Mapping[str, Sequence[Record]]

    @classmethod
    def of(
        cls, layout: Layout, groups: Mapping[str, Sequence[Record]], site: str, label: str, over: Seeds = "token_seeds"
    ) -> "Side":
        """What a run has of a method at a site, its own numbers over token seeds or init seeds."""
        kinds: tuple[Seeds, ...] = (over, "comparison", *PANELS)
        return cls(site, label, {kind: dict(layout.expected(kind, site, label)) for kind in kinds}, groups)

    def rows(self, kind: Seeds, seed: str) -> Sequence[Record]:
        """The closed rows of one seed; none where it was not run."""
        return self.groups.get(self.cells[kind].get(seed, ""), ())

    def metrics(self, kind: Seeds) -> list[str]:
        """The metrics of that kind, in the order of the records."""
        every = (row.metric for seed in self.cells[kind] for row in self.rows(kind, seed))
        return [metric for metric in dict.fromkeys(every) if metric != STATUS]

    def found(self, kind: Seeds, seed: str, metric: str) -> Record | str:
        """The row of a number, which may be null, or why there is none."""
        if seed not in self.cells[kind]:
            return NOT_JUDGED if kind in PANELS else NOTHING.get(kind, NOT_PLANNED)
        rows = self.rows(kind, seed)
        if not rows:
            return NOT_RUN
        if rows[-1].text != COMPLETE:
            return f"{rows[-1].text}: {rows[-1].reason}"
        return next((row for row in rows if row.metric == metric), NOT_MEASURED)


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One metric of two sides: B less A.

    Attributes:
        site: Label of the site, or of both where they differ.
        label: Label of the method, or both.
        metric: Name of the metric.
        unit: Unit of all numbers here.
        over: What the numbers are taken over.
        seeds: The seeds that both sides have a value of.
        a: Mean of A over these seeds; None where there are none.
        b: Mean of B over them.
        difference: Mean of B less A over them.
        low: Lower end of the 95 % interval of the difference; None where it is not paired.
        high: Upper end of it.
        how: How the interval was made, "not paired", or empty where there is no difference.
        a_interval: The 95 % interval of A's own number, where it is not paired and has one.
        b_interval: The same of B.
        n_a: How many things the numbers of A are made of, these seeds together.
        n_b: The same of B.
        reason: Why there is no difference, or which seeds are left out and why; None where nothing is to be said.
        is_equal: Whether both sides say the same under every seed that both have, to the last bit.
        is_refused: Whether the two may not be compared.
    """

    site: str
    label: str
    metric: str
    unit: str
    over: Seeds
    seeds: tuple[str, ...] = ()
    a: float | None = None
    b: float | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    how: str = ""
    a_interval: tuple[float, float] | None = None
    b_interval: tuple[float, float] | None = None
    n_a: int = 0
    n_b: int = 0
    reason: str | None = None
    is_equal: bool = False
    is_refused: bool = False


def differences(a: Side, b: Side) -> list[Difference]:
    """Every metric that either side has a row of, in the order of the records, over the seeds of both."""
    return [
        _difference(a, b, kind, metric)
        for kind in a.cells
        for metric in dict.fromkeys([*a.metrics(kind), *b.metrics(kind)])
    ]


def paired_interval(numbers: Sequence[float]) -> tuple[float, float]:
    """The 95 % t interval of the mean of differences that were taken pair by pair; Student 1908.

    Args:
        numbers: The differences, two or more; equal ones give an interval of width 0.
    """
    from scipy.stats import t  # here, so that a table needs no scipy

    mean, n = statistics.fmean(numbers), len(numbers)
    half = float(t.ppf((1 + CONFIDENCE) / 2, n - 1)) * statistics.stdev(numbers) / math.sqrt(n)
    return mean - half, mean + half


def says(row: Record) -> tuple[object, ...]:
    """What a value row says; two rows say the same only if each of this is equal, to the last bit."""
    return (row.metric, row.value, row.low, row.high, row.unit, row.interval, row.n, row.n_excluded, row.reason)


def _difference(a: Side, b: Side, kind: Seeds, metric: str) -> Difference:
    """One metric of both sides."""
    pairs = [(seed, a.found(kind, seed, metric), b.found(kind, seed, metric)) for seed in _seeds(a, b, kind)]
    rows = [one for _, *both in pairs for one in both if isinstance(one, Record)]
    units = list(dict.fromkeys(row.unit for row in rows))
    blank = Difference(
        site=_both(a.site, b.site),
        label=_both(a.label, b.label),
        metric=metric,
        unit=units[0],
        over=kind,
        is_equal=all(_is_equal(one, other) for _, one, other in pairs),
    )
    problem = _problem(kind, rows, units)
    if problem:
        return _with(blank, reason=problem, is_equal=False, is_refused=True)
    shared = [(seed, one, other) for seed, one, other in pairs if _has_value(one) and _has_value(other)]
    gaps = [f"{SEED_WORDS.get(kind, 'panel')} {seed}: {why}" for seed, why in _gaps(pairs)]
    if not shared:
        only = {why for _, why in _gaps(pairs)}
        return _with(blank, reason=only.pop() if len(only) == 1 else "; ".join(gaps))
    return _with(blank, reason="; ".join(gaps) or None, **_numbers(kind, shared))


def _seeds(a: Side, b: Side, kind: Seeds) -> list[str]:
    """The seeds that both sides were planned with; of sides that share none, all of them."""
    return [seed for seed in a.cells[kind] if seed in b.cells[kind]] or [*a.cells[kind], *b.cells[kind]]


def _numbers(kind: Seeds, shared: Sequence[tuple[str, Record | str, Record | str]]) -> dict[str, object]:
    """What is known of the seeds that both sides have."""
    ours = [one for _, one, _ in shared if isinstance(one, Record)]
    theirs = [other for _, _, other in shared if isinstance(other, Record)]
    left = [row.value for row in ours if row.value is not None]
    right = [row.value for row in theirs if row.value is not None]
    taken = [after - before for before, after in zip(left, right, strict=True)]
    numbers: dict[str, object] = {
        "seeds": tuple(seed for seed, _, _ in shared),
        "a": statistics.fmean(left),
        "b": statistics.fmean(right),
        "difference": statistics.fmean(taken),
        "n_a": sum(row.n for row in ours),
        "n_b": sum(row.n for row in theirs),
    }
    if len(taken) > 1:
        low, high = paired_interval(taken)
        return numbers | {"low": low, "high": high, "how": f"paired t over {len(taken)} {SEED_WORDS[kind]}s"}
    return numbers | {"how": NOT_PAIRED, "a_interval": _ends(ours[0]), "b_interval": _ends(theirs[0])}


def _with(blank: Difference, **known: object) -> Difference:
    """The difference with what became known of it."""
    return Difference(**{**vars(blank), **known})


def _problem(kind: Seeds, rows: Sequence[Record], units: Sequence[str]) -> str | None:
    """Why two numbers may not be compared at all."""
    if len(units) > 1:
        return f"not compared: the units differ ({' and '.join(units)})"
    pools = list(dict.fromkeys(str(row.notes.get("pool")) for row in rows)) if kind in PANELS else []
    if len(pools) > 1:
        names = " and ".join(pool[:12] for pool in pools)
        return f"not compared: the pools differ ({names}), and a rate is relative to the methods of its pool"
    return None


def _gaps(pairs: Sequence[tuple[str, Record | str, Record | str]]) -> Iterator[tuple[str, str]]:
    """The seeds that have no difference, each with the reason."""
    for seed, one, other in pairs:
        why = [f"{name}: {_why(got)}" for name, got in (("A", one), ("B", other)) if not _has_value(got)]
        if why:
            yield seed, "; ".join(why)


def _why(got: Record | str) -> str:
    """Why something has no value."""
    return got if isinstance(got, str) else str(got.reason)


def _has_value(got: Record | str) -> bool:
    """Whether there is a number."""
    return isinstance(got, Record) and got.value is not None


def _is_equal(one: Record | str, other: Record | str) -> bool:
    """Whether both sides say the same of one seed."""
    if isinstance(one, Record) and isinstance(other, Record):
        return says(one) == says(other)
    return one == other


def _ends(row: Record) -> tuple[float, float] | None:
    """The interval of a number, where it has one."""
    return None if row.low is None or row.high is None else (row.low, row.high)


def _both(one: str, other: str) -> str:
    """One name, or both."""
    return one if one == other else f"{one} / {other}"
