"""The records of several runs as those of one: every cell once, and never two numbers for one thing."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from results.compare import says
from results.records import COMPLETE, FAILED, SKIPPED, Record

Group = Sequence[Record]

_WORTH = {COMPLETE: 2, SKIPPED: 1, FAILED: 0}
"""Which of two outcomes of one cell is kept: as a second attempt would replace the first."""


@dataclass(frozen=True)
class United:
    """What several runs hold together.

    Attributes:
        groups: One closed group for each cell, in the order of the runs and of their files.
        n_equal: How many cells more than one run had, with equal numbers.
        conflicts: What two runs say differently of one number, a line each.
    """

    groups: tuple[Group, ...]
    n_equal: int
    conflicts: tuple[str, ...]


def united(runs: Mapping[str, Mapping[str, Group]]) -> United:
    """The cells of all runs, each once.

    A complete cell stands for one that failed or was skipped elsewhere. Numbers of one cell must be equal to the last
    bit; when they were made, in which time and on which machine is not compared, and the first run's rows are kept.

    Args:
        runs: The last closed group of every cell (`results.records.latest`), by the name of the run.
    """
    kept: dict[str, tuple[str, Group]] = {}
    conflicts: list[str] = []
    again: set[str] = set()
    for name, groups in runs.items():
        for cell, group in groups.items():
            if cell not in kept:
                kept[cell] = name, group
                continue
            first, before = kept[cell]
            was, now = (_WORTH[str(one[-1].text)] for one in (before, group))
            if now > was:
                kept[cell] = name, group
            elif now == was == _WORTH[COMPLETE]:
                conflicts += _conflicts(first, before, name, group)
                again.add(cell)
    return United(tuple(group for _, group in kept.values()), len(again), tuple(conflicts))


def place_of(record: Record) -> str:
    """What people call the cell of a record."""
    return f"{record.site}/{record.label}/t{record.token_seed}/i{record.init_seed}"


def _conflicts(first: str, before: Group, name: str, group: Group) -> Iterator[str]:
    """What two complete groups of one cell say differently."""
    ours, theirs = ({row.metric: row for row in rows} for rows in (before, group))
    for metric in dict.fromkeys([*ours, *theirs]):
        one, other = ours.get(metric), theirs.get(metric)
        if one is None or other is None:
            where = name if one is None else first
            yield f"cell {before[0].cell} ({place_of(before[0])}): {metric} is in {where} alone"
        elif says(one) != says(other):
            pairs = zip(_FIELDS, says(one), says(other), strict=True)
            what = next(f"{field} is {was} in {first} and {now} in {name}" for field, was, now in pairs if was != now)
            yield f"cell {one.cell} ({place_of(one)}): {metric}: {what}"


_FIELDS = ("metric", "value", "low", "high", "unit", "interval", "n", "n_excluded", "reason")
