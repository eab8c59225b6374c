"""From records to the numbers of a table: one summary per site, method label and column, over the column's seeds."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from results.layout import Column, Layout, Seeds
from results.pools import check_pools
from results.records import FAILED, SKIPPED, STATUS, Record

NOT_RUN = "not run yet"
NOT_MEASURED = "not measured"
NOTHING: dict[Seeds, str] = {"comparison": "not compared: that takes two init seeds"}
"""Why a row has nothing that its numbers could be taken over."""
NOT_JUDGED = "not judged"
SEED_WORDS: dict[Seeds, str] = {"token_seeds": "token seed", "init_seeds": "init seed", "comparison": "comparison"}

_Index = Mapping[tuple[str, str], Record]


@dataclass(frozen=True)
class Summary:
    """What is known of one metric of one method at one site.

    Attributes:
        mean: Mean over the seeds that have a value, None where none has; of a column with `less`, of the differences.
        std: Sample standard deviation (n - 1) over them, None where there are fewer than two.
        n_seeds: How many seeds have a value; of a comparison, which is one value, at most 1.
        n_expected: How many there should be.
        low: Lower end of the 95 % interval where exactly one seed has a value, None otherwise or if exact.
        high: Upper end of it.
        n: How many things the values are made of, over all seeds that have one.
        n_excluded: How many were left out of them.
        reason: Why values are missing; where none is, why things were left out; None where nothing is to be said.
        seeds: What kind of seeds they are.
    """

    mean: float | None
    std: float | None
    n_seeds: int
    n_expected: int
    low: float | None
    high: float | None
    n: int
    n_excluded: int
    reason: str | None
    seeds: Seeds = "token_seeds"


Summaries = Mapping[tuple[str, str, Column], Summary]
"""By site label, method label and column."""


def summarise(
    columns: Iterable[Column], records: Iterable[Record], layout: Layout
) -> dict[tuple[str, str, Column], Summary]:
    """The summary of each (site label, method label, column) of the layout's rows.

    The records are those of one closed group per cell, in any order: the values of `results.records.latest`.

    Raises:
        ValueError: A cell has a metric twice, a value has another unit than its column, or what was judged in several
            pools stands in one column.
    """
    index: dict[tuple[str, str], Record] = {}
    for record in records:
        if (record.cell, record.metric) in index:
            raise ValueError(
                f"records: got {record.metric} of cell {record.cell} twice; expected one group of rows per cell; "
                "pass the rows of results.records.latest"
            )
        index[record.cell, record.metric] = record
    chosen = list(columns)
    check_pools(chosen, index.values(), layout)
    return {
        (site.label, label, column): _summary(column, index, layout, site.label, label)
        for site, label in layout.rows()
        for column in chosen
    }


def _summary(column: Column, index: _Index, layout: Layout, site: str, label: str) -> Summary:
    """The summary of one row and column."""
    found: list[Record] = []
    values: list[float] = []
    gaps: dict[str, list[str]] = {}
    taken_off = dict(layout.expected(column.seeds, site, column.less)) if column.less else {}
    cells = layout.expected(column.seeds, site, label)
    for seed, cell in cells:
        answer = _look_up(column, index, cell, layout.states)
        less = _less(column, index, taken_off.get(seed), layout.states)
        if isinstance(answer, str) or isinstance(less, str):
            gaps.setdefault(answer if isinstance(answer, str) else str(less), []).append(seed)
        elif answer.value is not None:
            found.append(answer)
            values.append(answer.value - less)
    only = found[0] if len(found) == 1 and column.less is None else None
    exclusions = dict.fromkeys(record.reason for record in found if record.reason)
    if not cells:
        gaps[NOTHING.get(column.seeds, NOT_JUDGED)] = []
    return Summary(
        mean=statistics.fmean(values) if values else None,
        std=statistics.stdev(values) if len(values) > 1 else None,
        n_seeds=len(values),
        n_expected=max(1, len(cells)),
        low=only.low if only else None,
        high=only.high if only else None,
        n=sum(record.n for record in found),
        n_excluded=sum(record.n_excluded for record in found),
        reason=_explain(gaps, len(cells), SEED_WORDS.get(column.seeds, "panel")) or "; ".join(exclusions) or None,
        seeds=column.seeds,
    )


def _less(column: Column, index: _Index, cell: str | None, states: Mapping[str, str]) -> float | str:
    """What is taken off at one seed: nothing where the column takes nothing off; else why it is not there."""
    if column.less is None:
        return 0.0
    answer = NOT_RUN if cell is None else _look_up(column, index, cell, states)
    if isinstance(answer, Record) and answer.value is not None:
        return answer.value
    return f"of {column.less}: {answer}"


def _look_up(column: Column, index: _Index, cell: str, states: Mapping[str, str]) -> Record | str:
    """The cell's row for the column if it holds a value, else why there is none."""
    status = index.get((cell, STATUS))
    if status is None:
        return states.get(cell, NOT_RUN)
    if status.text in (FAILED, SKIPPED):
        return f"{status.text}: {status.reason}"
    record = index.get((cell, column.metric))
    if record is None:
        return NOT_MEASURED
    if record.unit != column.unit:
        raise ValueError(
            f"unit: got {record.unit!r} for {record.metric} of cell {cell}; expected {column.unit!r}; "
            "make the table's column and the metric agree"
        )
    if record.value is None:
        n_all = record.n + record.n_excluded
        return f"{record.reason} ({record.n} of {n_all})" if n_all else str(record.reason)
    return record


def _explain(gaps: Mapping[str, Sequence[str]], n_expected: int, word: str) -> str:
    """Why values are missing; the seeds are named unless one reason holds for all of them."""
    if any(len(seeds) == n_expected for seeds in gaps.values()):
        return next(iter(gaps))
    return "; ".join(
        f"{word}{'s' if len(seeds) > 1 else ''} {', '.join(seeds)}: {reason}" for reason, seeds in gaps.items()
    )
