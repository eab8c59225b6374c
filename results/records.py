"""One measured number with all of its provenance, and what can be said of many of them.

A cell (one method with its options at one site, under one pair of seeds) leaves a group of records: one of kind
"value" per number, then exactly one of kind "cell" that closes the group and says whether the cell is complete.
A number that could not be measured is null with a reason; NaN and infinity do not exist here.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from functools import cache
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, get_args, get_origin

if TYPE_CHECKING:
    import pandas

SCHEMA = 1
COMPLETE = "complete"
FAILED = "failed"
SKIPPED = "skipped"
STATUS = "status"
TIMES = ("time", "seconds", "peak_bytes")
MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}
"""What makes the fields of an older schema those of the next one, by the older version; others cannot be read."""

_AS_THEY_ARE: frozenset[type] = frozenset({type(None), bool, int, str})
_REMAKE = "remove the rows of its cell and run the suite again"


@dataclass(frozen=True, kw_only=True)
class Record:
    """One row of `records.jsonl`: a number or null with a reason, and where it comes from.

    Mappings are kept as plain JSON values (tuples become lists, NumPy numbers become Python's), so that a record
    equals itself after a round trip through the file.

    Attributes:
        schema: Version of this list of fields; raised whenever it changes.
        kind: "value" for a measured number, "cell" for the row that closes a cell.
        suite: Name of the suite that asked for it.
        cell: Hash that identifies the cell.
        site: Label of the site in the suite.
        dataset: Name of the data set.
        backbone: Name of the backbone.
        module: Module path of the site in the backbone.
        method: Name of the method in the registry.
        label: Label of the method in the suite; one method may stand there several times with other options.
        token_seed: Seed of the draw of tokens.
        init_seed: Seed of the method's own randomness.
        metric: Name of the metric; "status" in a row of kind "cell".
        value: The number in `unit`; None where it could not be measured, and in rows of kind "cell".
        text: "complete", "failed" or "skipped" in rows of kind "cell", None in the others.
        unit: Unit of value, low and high: "%", "1", ...; empty in rows of kind "cell".
        low: Lower end of the 95 % interval, None where the value is exact or null.
        high: Upper end of the 95 % interval, None where the value is exact or null.
        interval: How the interval was made ("wilson over images", "exact", ...); empty in rows of kind "cell".
        n: How many things the value is made of.
        n_excluded: How many were left out of it.
        reason: Why the value is null or things were left out; why a cell was skipped; for a failed one its error in
            one line.
        traceback: Full traceback of a failed cell.
        options: All options of the method, defaults included.
        site_options: All options of data set and backbone, and how many tokens of an image were sampled.
        notes: What the method noted about its decomposition.
        commit: Git commit of the code, None outside a checkout.
        dirty: Whether the checkout had changes of its own, None outside a checkout.
        versions: Version of each package that took part.
        device: Device that it ran on, in words.
        seconds: Wall seconds that it took, None where nobody looked at the clock.
        peak_bytes: Most memory held on the device, None where that is unknown.
        time: When the record was made, ISO 8601 in UTC.
    """

    schema: int = SCHEMA
    kind: str
    suite: str
    cell: str
    site: str
    dataset: str
    backbone: str
    module: str
    method: str
    label: str
    token_seed: int
    init_seed: int
    metric: str
    value: float | None = None
    text: str | None = None
    unit: str = ""
    low: float | None = None
    high: float | None = None
    interval: str = ""
    n: int = 0
    n_excluded: int = 0
    reason: str | None = None
    traceback: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    site_options: Mapping[str, Any] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)
    commit: str | None
    dirty: bool | None
    versions: Mapping[str, str]
    device: str
    seconds: float | None = None
    peak_bytes: int | None = None
    time: str

    def __post_init__(self) -> None:
        _settle(self, is_plain=False)


def _settle(record: Record, *, is_plain: bool) -> None:
    """Bring every field to its type, and refuse what is no record; mappings may hold plain JSON values already."""
    for name, (wanted, exact) in _types().items():
        value = getattr(record, name)
        if type(value) in exact and (type(value) is not float or math.isfinite(value)):
            continue  # nearly always, and far faster than what follows
        if is_plain and wanted is Mapping and type(value) is dict:
            continue
        value = _plain(value, name)
        if wanted == float | None and type(value) is int:
            value = _finite(value, name)
        elif wanted in (int, int | None) and type(value) is float and value.is_integer():
            value = int(value)  # JSON does not tell 1.0 from 1
        object.__setattr__(record, name, value)
        if isinstance(value, bool) or not isinstance(value, wanted):
            expected = getattr(wanted, "__name__", None) or str(wanted)
            raise ValueError(f"{name}: got {value!r}; expected {expected}; give the record that")
    problem = _problem(record)
    if problem:
        raise ValueError(problem)


@cache
def _types() -> dict[str, tuple[Any, frozenset[type]]]:
    """What `isinstance` is to say of each field, and which types alone say that it holds."""
    kinds = {item.name: Mapping if get_origin(item.type) is Mapping else item.type for item in fields(Record)}
    return {name: (kind, frozenset({kind, *get_args(kind)}) & {*_AS_THEY_ARE, float}) for name, kind in kinds.items()}


def _plain(value: Any, where: str) -> Any:
    """The value as plain JSON types."""
    if type(value) in _AS_THEY_ARE:
        return value
    if isinstance(value, dict | Mapping):
        if {type(key) for key in value} - {str} and not all(isinstance(key, str) for key in value):
            raise ValueError(f"{where}: got keys {list(value)!r}; expected strings; convert the keys")
        as_it_is = _AS_THEY_ARE
        return {str(k): one if type(one) in as_it_is else _plain(one, f"{where}.{k}") for k, one in value.items()}
    if isinstance(value, str | Integral):
        return str(value) if isinstance(value, str) else int(value)
    if isinstance(value, Real):
        return _finite(value, where)
    if isinstance(value, list | tuple):
        return [_plain(item, f"{where}[{index}]") for index, item in enumerate(value)]
    raise ValueError(f"{where}: got a {type(value).__name__}; expected what JSON can hold; convert it first")


def _finite(value: Any, where: str) -> float:
    """A number as a float."""
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{where}: got {number}; expected a finite number; record null with a reason instead")
    return number


def _problem(record: Record) -> str | None:
    """What contradicts itself in a record whose fields are of the right types."""
    ends = [end for end in (record.low, record.high) if end is not None]
    try:
        offset = datetime.fromisoformat(record.time).utcoffset()
    except ValueError:
        offset = None
    if record.schema != SCHEMA:
        return f"schema: got {record.schema}; expected {SCHEMA}; leave the default"
    if record.kind not in ("value", "cell"):
        return f'kind: got {record.kind!r}; expected "value" or "cell"; choose one'
    if offset is None or offset:
        return f"time: got {record.time!r}; expected ISO 8601 in UTC; use datetime.now(UTC).isoformat()"
    if len(ends) == 1 or ends != sorted(ends):
        return f"low, high: got {record.low}, {record.high}; expected both or neither, ascending; check the interval"
    if record.n < 0 or record.n_excluded < 0:
        return f"n, n_excluded: got {record.n}, {record.n_excluded}; expected counts; give 0 or more"
    return _problem_of_value(record, ends) if record.kind == "value" else _problem_of_cell(record, ends)


def _problem_of_value(record: Record, ends: list[float]) -> str | None:
    """What contradicts itself in a row of kind "value"."""
    metric = record.metric
    if record.text is not None:
        return f"text: got {record.text!r} in a value row; expected None; put words into reason"
    if metric == STATUS:
        return f'metric: got "{STATUS}" in a value row; expected a metric; that name closes a cell'
    if record.value is None and not record.reason:
        return f"reason: got none for a null {metric}; expected why it is null; give one"
    if record.value is None and ends:
        return f"low, high: got an interval of a null {metric}; expected None; drop it"
    if not record.unit or not record.interval:
        return f'unit, interval: got an empty one for {metric}; expected words; "1" and "exact" exist'
    return None


def _problem_of_cell(record: Record, ends: list[float]) -> str | None:
    """What contradicts itself in a row of kind "cell"."""
    if record.metric != STATUS:
        return f'metric: got {record.metric!r} in a cell row; expected "{STATUS}"; set it'
    if record.text not in (COMPLETE, FAILED, SKIPPED):
        return f'text: got {record.text!r} in a cell row; expected "{COMPLETE}", "{FAILED}" or "{SKIPPED}"; choose one'
    if record.value is not None or ends:
        return "value: got a number in a cell row; expected None; give it a value row of its own"
    if record.text in (FAILED, SKIPPED) and len((record.reason or "").splitlines()) != 1:
        return f"reason: got {record.reason!r} for a {record.text} cell; expected why in one line; give that"
    return None


def to_line(record: Record) -> str:
    """The record as one line of JSON, without the line's end."""
    return json.dumps({name: getattr(record, name) for name in _types()}, allow_nan=False)


def from_line(line: bytes | str) -> Record:
    """The record that `to_line` wrote, of this schema or of an older one that `MIGRATIONS` leads from.

    Raises:
        ValueError: The line is no record, or one of a schema that is not read.
    """
    not_finite: list[float] = []

    def number(text: str) -> float:
        found = float(text)
        if not math.isfinite(found):
            not_finite.append(found)
        return found

    try:
        data = json.loads(line, parse_float=number, parse_constant=number)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"got no JSON ({error}); expected a record; {_REMAKE}") from None
    if not isinstance(data, dict) or not isinstance(data.get("schema"), int):
        raise ValueError(f"got {str(data)[:40]!r}; expected an object with a schema; {_REMAKE}")
    if data["schema"] > SCHEMA:
        raise ValueError(f"schema: got {data['schema']}; expected at most {SCHEMA}; update eludebench")
    while (older := data["schema"]) < SCHEMA:
        if older not in MIGRATIONS:
            oldest = min([*MIGRATIONS, SCHEMA])
            raise ValueError(f"schema: got {older}; expected {oldest} to {SCHEMA}; use the eludebench that wrote it")
        data = {**MIGRATIONS[older](data), "schema": older + 1}
    if (names := _types().keys()) != data.keys():
        missing, unknown = sorted(names - data.keys()), sorted(data.keys() - names)
        raise ValueError(f"got no {missing} and too many {unknown}; expected a record's fields; {_REMAKE}")
    record: Record = object.__new__(Record)
    record.__dict__.update(data)
    _settle(record, is_plain=not not_finite)
    return record


def latest(records: Iterable[Record]) -> dict[str, list[Record]]:
    """For each cell, the rows of its last closed group: of a failed attempt and a later complete one, the latter.

    The records are taken in the order of the file. Rows that no "cell" row closes are left out.
    """
    open_rows: dict[str, list[Record]] = {}
    closed: dict[str, list[Record]] = {}
    for record in records:
        rows = open_rows.setdefault(record.cell, [])
        rows.append(record)
        if record.kind == "cell":
            closed[record.cell] = open_rows.pop(record.cell)
    return closed


def without_times(record: Record) -> dict[str, Any]:
    """The record's fields without those that differ between two identical runs: time, seconds and peak_bytes."""
    return {name: getattr(record, name) for name in _types() if name not in TIMES}


def to_frame(records: Sequence[Record]) -> "pandas.DataFrame":
    """One row per record, in their order.

    The mappings become one column per key (`options.k`, `notes.final_loss`, `versions.torch`), sorted by name and
    empty where a record lacks the key. What is null is pandas' missing value.
    """
    import pandas

    mappings = [name for name, (kind, _) in _types().items() if kind is Mapping]
    plain = [name for name in _types() if name not in mappings]
    nested = {f"{name}.{key}" for record in records for name in mappings for key in getattr(record, name)}
    columns: dict[str, list[Any]] = {name: [getattr(record, name) for record in records] for name in plain}
    for column in sorted(nested):
        name, key = column.split(".", 1)
        columns[column] = [getattr(record, name).get(key) for record in records]
    frame = pandas.DataFrame(columns, columns=[*plain, *sorted(nested)])
    kinds = {"value": "float64", "low": "float64", "high": "float64", "seconds": "float64"}
    return frame.astype({**kinds, "peak_bytes": "Int64", "dirty": "boolean"})
