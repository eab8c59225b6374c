"""What comes of the tasks of a run, as records: those of one cell, or of one variant of a sweep, in one go."""

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from bench.cells import Cell, Suite
from bench.lanes import Failure, Task, one_line
from bench.measuring import Outcome, Skipped
from bench.outcomes import Outcomes, evaluated
from bench.progress import Display
from bench.provenance import machine, now, provenance
from bench.stability import Comparison
from bench.sweeps import Trial, sweep_id, trial_ids, variant_cell
from metrics.catalogue import MetricRow, Value
from metrics.similarity import Stability
from results.ledger import Ledger
from results.records import COMPLETE, FAILED, SKIPPED, STATUS, Record

CHANGED = Failure("the data or the weights are not what they were when the run began; run the same command again")
"""What becomes of a cell that a worker knows under another name: the name follows from what the files hold."""


@dataclass(frozen=True)
class Recorder:
    """Turns what comes back from the lanes into records, shows it, and throws away what was put by of it.

    Attributes:
        suite: Whose cells they are.
        ledger: Where the records go.
        display: Where progress goes.
        complete: The cells and trials of which the ledger has whole records already.
        kept: Where lanes put by what comes of tasks.
        device: What the lanes work on.
    """

    suite: Suite
    ledger: Ledger
    display: Display
    complete: frozenset[str]
    kept: Outcomes
    device: str = "cpu"

    def progressed(self, task: Task, what: str, done: int, total: int) -> None:
        """A running task says how far it is."""
        self.display.progressed(task, what, done, total)

    def said(self, text: str) -> None:
        """A running task has a line for people."""
        self.display.said(text)

    def finished(self, task: Task, outcome: Any) -> None:
        """A cell that is over leaves its records, a failed one its reason."""
        if task.payload[0] == "evaluate":
            for cell in task.payload[1]:
                self.measured(cell, outcome if isinstance(outcome, Failure) else outcome.get(cell.id, CHANGED))
        elif task.payload[0] == "compare":
            self.ledger.append_cell(guarded(partial(self.comparison_records, task.payload[1]), outcome))
        elif task.payload[0] == "sweep" and not isinstance(outcome, Skipped):
            for group in self.sweep_records(task.payload[1], outcome):
                if group[0].cell not in self.complete:
                    self.ledger.append_cell(group)
        if task.payload[0] in ("compare", "sweep"):
            self.kept.drop(task.id)
        self.display.finished(task, outcome)

    def measured(self, cell: Cell, outcome: Outcome) -> None:
        """A cell leaves its records."""
        self.ledger.append_cell(guarded(partial(self.records, cell), outcome))
        self.kept.drop(evaluated(cell.id))

    def having_taken_up(self, cells: Sequence[Cell]) -> "Recorder":
        """Record what lanes measured of these cells when whoever had asked for it was gone; this, knowing of them."""
        taken = set()
        for cell in cells:
            outcome = None if cell.id in self.complete else self.kept.get(evaluated(cell.id))
            if outcome is None:
                self.kept.drop(evaluated(cell.id))  # recorded already, or of no use
            else:
                self.measured(cell, outcome)
                taken.add(cell.id)
        if taken:
            self.display.said(f"taken up: {len(taken)} cells that were measured when the last command was gone")
        return replace(self, complete=self.complete | taken)

    def divided(self, task: Task, reason: str) -> None:
        """A task failed, and its parts are done in its place."""
        self.display.divided(task, reason)

    def waited(self) -> None:
        """A second has gone by."""
        self.display.waited()

    def records(self, cell: Cell, outcome: Outcome) -> list[Record]:
        """The rows of one cell: its values, then the row that closes it."""
        return rows_of(self.shared(cell, cell.id), self.suite.metrics, outcome)

    def comparison_records(self, comparison: Comparison, outcome: Outcome) -> list[Record]:
        """The rows of one comparison; its init seeds are all of its cells', and the first stands in the records."""
        return rows_of(self.shared(comparison.cells[0], comparison.id), Stability.rows, outcome)

    def sweep_records(self, cell: Cell, outcome: list[Trial] | Failure) -> list[list[Record]]:
        """For each variant of a sweep its rows: what eq. 9 looks at, its score, and the row that closes them."""
        groups = []
        n = len(cell.method.variants)
        trials: Sequence[Trial | Failure] = [outcome] * n if isinstance(outcome, Failure) else outcome
        for identity, variant, trial in zip(trial_ids(cell), cell.method.variants, trials, strict=True):
            shared = self.shared(variant_cell(cell, variant), identity)
            shared["notes"] |= {"sweep": sweep_id(cell)}
            if isinstance(trial, Failure) or trial.reason is not None:
                trace = trial.traceback if isinstance(trial, Failure) else None
                shared |= {"text": FAILED, "reason": trial.reason, "traceback": trace}
                groups.append([Record(kind="cell", metric=STATUS, **shared)])
                continue
            shared["notes"] |= {"is_chosen": trial.is_chosen}
            numbers = {
                "sweep_error": ("squared activation", trial.error),
                "sweep_l0": ("atoms a token", trial.l0),
                "sweep_score": ("1", trial.score),
            }
            values = [
                Record(kind="value", metric=name, unit=unit, **vars(Value.exact(number, n=trial.n_tokens)), **shared)
                for name, (unit, number) in numbers.items()
                if number is not None
            ]
            groups.append([*values, Record(kind="cell", metric=STATUS, text=COMPLETE, **shared)])
        return groups

    def shared(self, cell: Cell, identity: str) -> dict[str, Any]:
        """What all rows of one group have in common."""
        return {
            "suite": self.suite.name,
            "cell": identity,
            "site": cell.site.label,
            "dataset": cell.site.dataset.entry.name,
            "backbone": cell.site.backbone.entry.name,
            "module": cell.site.module,
            "method": cell.method.entry.name,
            "label": cell.label,
            "token_seed": cell.token_seed,
            "init_seed": cell.init_seed,
            "options": dict(cell.method.options),
            "site_options": cell.site.options,
            "notes": {"machine": machine()},
            "time": now(),
            **provenance(self.device),
        }


def guarded(make: Callable[[Outcome], list[Record]], outcome: Outcome) -> list[Record]:
    """The records of an outcome; of a failure where what came back makes none: a note that is not finite, say."""
    try:
        return make(outcome)
    except ValueError as error:
        return make(Failure(one_line(error), traceback.format_exc()))


def rows_of(shared: dict[str, Any], metrics: Sequence[MetricRow], outcome: Outcome) -> list[Record]:
    """The values of one group of records, then the row that closes it."""
    if isinstance(outcome, Failure):
        shared |= {"text": FAILED, "reason": outcome.reason, "traceback": outcome.traceback}
        return [Record(kind="cell", metric=STATUS, **shared)]
    if isinstance(outcome, Skipped):
        return [Record(kind="cell", metric=STATUS, text=SKIPPED, reason=outcome.reason, **shared)]
    shared |= {"options": dict(outcome.options), "notes": shared["notes"] | dict(outcome.notes)}
    shared |= {"seconds": outcome.seconds, "peak_bytes": outcome.peak_bytes, **outcome.made}
    values = [
        Record(kind="value", metric=row.name, unit=row.unit, **vars(outcome.values[row.name]), **shared)
        for row in metrics
    ]
    return [*values, Record(kind="cell", metric=STATUS, text=COMPLETE, **shared)]
