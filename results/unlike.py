"""What two sides of a comparison do not share beside their numbers: data, backbones, options, machines, versions."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

from results.compare import Side
from results.records import TIMES, Record, without_times

Pairs = Sequence[tuple[Side, Side]]

_OF_RUN: Final[Mapping[str, Callable[[Record], Any]]] = {
    "suite": lambda row: row.suite,
    "commit": lambda row: row.commit,
    "changes of the checkout": lambda row: row.dirty,
    "device": lambda row: row.device,
}
_OF_SITE: Final[Mapping[str, Callable[[Record], Any]]] = {
    "data set": lambda row: row.dataset,
    "backbone": lambda row: row.backbone,
    "module": lambda row: row.module,
    "fingerprint of the data set": lambda row: row.notes.get("dataset_fingerprint"),
    "fingerprint of the backbone": lambda row: row.notes.get("backbone_fingerprint"),
    "judges": lambda row: row.notes.get("judges"),
    "reader of replies": lambda row: row.notes.get("reader"),
}


def unlike(pairs: Pairs, *, same_methods: bool) -> list[str]:
    """What differs, a line for each thing, with what it is in A and in B.

    Args:
        pairs: The sides.
        same_methods: Whether both sides of a pair are meant to be one method, so that other options are worth a word.
    """
    lines = list(_lines("", rows_of(pairs, 0), rows_of(pairs, 1), _OF_RUN))
    lines += _nested("", rows_of(pairs, 0), rows_of(pairs, 1), "version of", lambda row: row.versions)
    for place, own in _by(pairs, lambda side: side.site).items():
        a, b = rows_of(own, 0), rows_of(own, 1)
        lines += _lines(f"{place}: ", a, b, _OF_SITE)
        lines += _nested(f"{place}: ", a, b, "option", lambda row: row.site_options)
    if same_methods:
        for place, own in _by(pairs, lambda side: f"{side.site}/{side.label}").items():
            a, b = rows_of(own, 0), rows_of(own, 1)
            lines += _lines(f"{place}: ", a, b, {"method": lambda row: row.method})
            lines += _nested(f"{place}: ", a, b, "option", lambda row: row.options)
    return list(dict.fromkeys(lines))


def rows_of(pairs: Pairs, side: int) -> list[Record]:
    """All rows of side A (0) or B (1)."""
    return [
        row
        for pair in pairs
        for kind, cells in pair[side].cells.items()
        for seed in cells
        for row in pair[side].rows(kind, seed)
    ]


@dataclass(frozen=True)
class Sameness:
    """How much of two runs is one and the same.

    Attributes:
        n_records: Rows that both have: of the same place, seed and metric.
        n_equal: How many of these are equal, to the last bit and times aside.
        n_only_a: Rows that A alone has.
        n_only_b: Rows that B alone has.
        fields: The fields in which rows of both differ, times aside.
    """

    n_records: int
    n_equal: int
    n_only_a: int
    n_only_b: int
    fields: tuple[str, ...]


def sameness(pairs: Pairs) -> Sameness:
    """How much of both sides is equal, row by row."""
    a, b = (dict(_placed(pairs, side)) for side in (0, 1))
    both = [(a[key], b[key]) for key in a if key in b]
    names = [item.name for item in fields(Record) if item.name not in TIMES]
    differ = {name for one, other in both for name in names if getattr(one, name) != getattr(other, name)}
    return Sameness(
        n_records=len(both),
        n_equal=sum(without_times(one) == without_times(other) for one, other in both),
        n_only_a=len(a.keys() - b.keys()),
        n_only_b=len(b.keys() - a.keys()),
        fields=tuple(name for name in names if name in differ),
    )


def _placed(pairs: Pairs, side: int) -> Iterator[tuple[tuple[int, str, str, str], Record]]:
    """Every row of a side with where it stands: which pair, kind, seed and metric."""
    for at, pair in enumerate(pairs):
        for kind, cells in pair[side].cells.items():
            for seed in cells:
                for row in pair[side].rows(kind, seed):
                    yield (at, kind, seed, row.metric), row


def _by(pairs: Pairs, name: Callable[[Side], str]) -> dict[str, list[tuple[Side, Side]]]:
    """The pairs by a name of their sides, both names where they differ."""
    found: dict[str, list[tuple[Side, Side]]] = {}
    for a, b in pairs:
        key = name(a) if name(a) == name(b) else f"{name(a)} and {name(b)}"
        found.setdefault(key, []).append((a, b))
    return found


def _lines(
    place: str, a: Sequence[Record], b: Sequence[Record], wanted: Mapping[str, Callable[[Record], Any]]
) -> Iterator[str]:
    """What differs of a few things that are said on every row; what a side does not say at all is no difference."""
    for what, of in wanted.items():
        left, right = _values(of(row) for row in a), _values(of(row) for row in b)
        if left and right and set(left) != set(right):
            yield f"{place}{what}: {_listed(left)} in A, {_listed(right)} in B"


def _nested(
    place: str, a: Sequence[Record], b: Sequence[Record], what: str, of: Callable[[Record], Mapping[str, Any]]
) -> Iterator[str]:
    """The same of mappings, key by key."""
    left, right = ([_flat(one) for one in _distinct(of(row) for row in rows)] for rows in (a, b))
    if not (left and right):
        return
    for key in dict.fromkeys(key for one in (*left, *right) for key in one):
        ours, theirs = (_values(one.get(key, "not set") for one in side) for side in (left, right))
        if set(ours) != set(theirs):
            yield f"{place}{what} {key}: {_listed(ours)} in A, {_listed(theirs)} in B"


def _distinct(found: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The mappings, equal ones once; rows of a cell share theirs."""
    return list({json.dumps(one, sort_keys=True): one for one in found}.values())


def _flat(nested: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """The leaves of a mapping of mappings, by their path."""
    found: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{before}{key}.")
        else:
            found[f"{before}{key}"] = value
    return found


def _values(found: Iterable[Any]) -> list[str]:
    """What there is, in words, each once; without what is not said."""
    return list(dict.fromkeys(one if isinstance(one, str) else json.dumps(one) for one in found if one is not None))


def _listed(found: Sequence[str]) -> str:
    """A few things in words."""
    return ", ".join(found)
