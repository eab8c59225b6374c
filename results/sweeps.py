"""The table of a run's sweeps: every variant with what eq. 9 looked at, its score, and which was chosen."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from results.filling import warnings_of
from results.layout import Layout, Sweep
from results.records import FAILED, STATUS, Record
from results.sheets import DASH, Cell, Group, Heading, Notes, Row, Sheet, by_letter, noted, spans
from results.subjects import NothingToShowError

ERROR, L0, SCORE = "sweep_error", "sweep_l0", "sweep_score"


@dataclass(frozen=True)
class SweepSpec:
    """The table of all sweeps of a run.

    Attributes:
        name: Its name on the command line.
        title: First words of its caption.
    """

    name: str
    title: str


SWEEPS = SweepSpec("sweep", "Every configuration of every sweep")


def sweep_rows(records: Iterable[Record], layout: Layout) -> list["Trial"]:
    """Every variant of every sweep of the layout.

    Raises:
        NothingToShowError: There is no sweep.
    """
    if not layout.sweeps:
        raise NothingToShowError(
            "table: got a run without sweeps; expected `sweep` in its suite; run the suite `sweep`"
        )
    index = {(record.cell, record.metric): record for record in records}
    return [row for sweep in layout.sweeps for row in _rows(sweep, index)]


@dataclass(frozen=True)
class Trial:
    """One variant: numbers are None where it found nothing."""

    site: str
    label: str
    options: Mapping[str, object]
    numbers: tuple[float | None, ...]
    is_chosen: bool
    reason: str


def _rows(sweep: Sweep, index: Mapping[tuple[str, str], Record]) -> Iterable[Trial]:
    for trial in sweep.trials:
        status = index.get((trial, STATUS))
        if status is None:
            yield Trial(sweep.site, sweep.label, {}, (None, None, None), False, "not run yet")
            continue
        found = [index.get((trial, name)) for name in (ERROR, L0, SCORE)]
        options = {name: status.options[name] for name in sweep.swept}
        reason = f"failed: {status.reason}" if status.text == FAILED else ""
        numbers = tuple(record.value if record else None for record in found)
        yield Trial(sweep.site, sweep.label, options, numbers, bool(status.notes.get("is_chosen")), reason)


def sweeps_to_csv(rows: Sequence[Trial]) -> str:
    """One line per variant; numbers that are not known are empty."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["site", "label", "options", "mse", "l0", "score", "is_chosen", "reason"])
    for row in rows:
        options = " ".join(f"{name}={value}" for name, value in row.options.items())
        numbers = ["" if number is None else repr(number) for number in row.numbers]
        writer.writerow([row.site, row.label, options, *numbers, row.is_chosen, row.reason])
    return file.getvalue()


def sweep_sheet(spec: SweepSpec, rows: Sequence[Trial], layout: Layout) -> Sheet:
    """A row for every variant, with what was chosen."""
    notes: Notes = {}
    sites = {site.label: site for site in layout.sites}
    found = []
    for row in rows:
        options = ", ".join(f"{name} {value}" for name, value in row.options.items())
        error, l0, score = (
            Cell(DASH if n is None else format(n, form), value=n)
            for n, form in zip(row.numbers, (".4g", ".4g", ".4f"), strict=True)
        )
        score = replace(score, notes=noted(row.reason, notes))
        chosen = Cell("yes" if row.is_chosen else "", "strong" if row.is_chosen else "")
        words = (row.site, row.label, options)
        found.append(Row(words, (error, l0, score, chosen), row.label, site=sites.get(row.site)))
    return Sheet(
        name=spec.name,
        caption=spans(
            f"{spec.title}: mean squared error and active atoms a token over the probing tokens, and "
            "the score of eq. 9, min-max normalised within the sweep."
        ),
        words=("site", "method", "options"),
        headings=(Heading("MSE", "down"), Heading("L0", "down"), Heading("score", "up"), Heading("chosen")),
        groups=(Group((), tuple(found)),),
        warnings=warnings_of(layout),
        footnotes=by_letter(notes),
    )
