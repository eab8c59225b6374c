"""A comparison of two runs or methods as Markdown, CSV or JSON; what could make it unfair comes first."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from results.compare import CONFIDENCE, NOT_PAIRED, Difference
from results.markdown import aligned, escape
from results.sheets import DASH, noted
from results.unlike import Sameness

FORMATS: Final = ("md", "csv", "json")
_ARROWS: Final = {"up": " ↑", "down": " ↓"}
_METHOD: Final = (
    "Paired: the difference is taken seed by seed, and its 95 % interval is Student's t over these differences, which "
    "takes them for independent draws from one normal distribution. It covers the draw of seeds, not that of images, "
    "and is not corrected for the number of rows. Not paired: one seed only; the intervals are those of both numbers."
)


@dataclass(frozen=True)
class Compared:
    """All that is to be said of two runs or methods.

    Attributes:
        a: What A is.
        b: What B is.
        warnings: What is not the same beside the numbers.
        differences: Number by number.
        sameness: How much of two runs is equal; None of two methods.
        directions: Whether more is better, by metric, where that is known: "up", "down" or "none".
    """

    a: str
    b: str
    warnings: Sequence[str]
    differences: Sequence[Difference]
    sameness: Sameness | None = None
    directions: Mapping[str, str] = field(default_factory=dict)


def render_compared(compared: Compared, format: str) -> str:
    """The comparison in the format "md", "csv" or "json"; ends with a line end.

    Markdown leaves out what is equal on both sides and counts it; CSV and JSON have everything, at full precision.

    Raises:
        ValueError: The format is unknown.
    """
    if format not in FORMATS:
        raise ValueError(f"format: got {format!r}; expected one of {', '.join(FORMATS)}; choose one")
    return {"md": _markdown, "csv": _csv, "json": _json}[format](compared)


def equality(compared: Compared) -> str:
    """How much of both sides is equal, in a sentence."""
    every = compared.differences
    n_equal = sum(one.is_equal for one in every)
    same = compared.sameness
    alone = "" if same is None else _alone(same)
    if same is not None and same.n_records and not (same.n_only_a or same.n_only_b):
        if same.n_equal == same.n_records:
            return f"Equal, bit for bit: both have the same {same.n_records} records, times aside."
        if n_equal == len(every):
            return f"All {n_equal} numbers are equal, bit for bit; the records differ in: {', '.join(same.fields)}."
    return f"{n_equal} of {len(every)} numbers are equal, bit for bit.{alone}"


def _alone(same: Sameness) -> str:
    """What only one side has."""
    said = [f"{n} records are in {name} alone" for n, name in ((same.n_only_a, "A"), (same.n_only_b, "B")) if n]
    return f" {'; '.join(said)}." if said else ""


def _markdown(compared: Compared) -> str:
    """For people."""
    footnotes: dict[str, str] = {}
    lines = [["site", "method", "metric", "seeds", "A", "B", "B − A", "95 % interval", "how", "n"]]
    lines += [_line(one, compared, footnotes) for one in compared.differences if not one.is_equal]
    text = [f"**A** is {escape(compared.a)}, **B** is {escape(compared.b)}. {equality(compared)}"]
    if compared.warnings:
        text += ["", "**Not the same on both sides:**", "", *(f"- {escape(one)}" for one in compared.warnings)]
    if len(lines) > 1:
        text += ["", _METHOD, "", *aligned(lines, 4)]
    if footnotes:
        text += ["", *(f"- ({letter}) {escape(words)}" for words, letter in footnotes.items())]
    return "\n".join(text) + "\n"


def _line(one: Difference, compared: Compared, footnotes: dict[str, str]) -> list[str]:
    """One row of the table."""
    unit = "" if one.unit == "1" else f" ({one.unit})"
    head = [escape(one.site), escape(one.label), escape(one.metric + unit) + _ARROWS.get(_direction(one, compared), "")]
    note = "".join(f" ({letter})" for letter in noted(one.reason or "", footnotes))
    if one.difference is None:
        return [*head, "", DASH, DASH, DASH + note, "", "", ""]
    n = f"{one.n_a:,}" if one.n_a == one.n_b else f"{one.n_a:,} / {one.n_b:,}"
    ends = "" if one.low is None or one.high is None else _interval((one.low, one.high))
    if one.how == NOT_PAIRED:
        own = [f"{name} {_interval(pair)}" for name, pair in (("A", one.a_interval), ("B", one.b_interval)) if pair]
        ends = ", ".join(own)
    seeds = ", ".join(one.seeds)
    return [*head, seeds, _shown(one.a), _shown(one.b), _shown(one.difference) + note, ends, one.how, n]


def _direction(one: Difference, compared: Compared) -> str:
    """Whether more is better, where that is known."""
    return compared.directions.get(one.metric, "none")


def _interval(ends: tuple[float, float]) -> str:
    """Both ends in brackets."""
    return f"[{_shown(ends[0])}, {_shown(ends[1])}]"


def _shown(number: float | None) -> str:
    """Four digits that count; zero has no sign."""
    return DASH if number is None else f"{number + 0.0:.4g}"


def _csv(compared: Compared) -> str:
    """One line per site, method and metric."""
    out = io.StringIO()
    rows = [_row(one, compared) for one in compared.differences]
    writer = csv.DictWriter(out, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: "" if value is None else value for key, value in row.items()} for row in rows)
    return out.getvalue()


def _row(one: Difference, compared: Compared) -> dict[str, Any]:
    """A difference in plain columns."""
    row = asdict(one)
    row["direction"] = _direction(one, compared)
    row["seeds"] = " ".join(one.seeds)
    row["n_seeds"] = len(one.seeds)
    for side in ("a", "b"):
        ends = row.pop(f"{side}_interval") or (None, None)
        row[f"{side}_low"], row[f"{side}_high"] = ends
    return row


def _json(compared: Compared) -> str:
    """Everything."""
    told = {
        "a": compared.a,
        "b": compared.b,
        "says": equality(compared),
        "warnings": list(compared.warnings),
        "confidence": CONFIDENCE,
        "sameness": None if compared.sameness is None else asdict(compared.sameness),
        "differences": [_row(one, compared) for one in compared.differences],
    }
    return json.dumps(told, indent=1, allow_nan=False) + "\n"
