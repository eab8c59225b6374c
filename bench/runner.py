"""A run: the cells of a suite that are still to do, worked in lanes, each leaving its records.

The same command again continues: complete cells are skipped, failed ones are tried again, new ones are added. Records
are written by this process alone, one cell at a time.
"""

import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import UsageError
from bench.cache import digest
from bench.cells import Cell, Suite
from bench.folder import LEDGER, PLAN, check_folder, make_folder, outcomes, read_plan, write_plan
from bench.lanes import Failure, Task, one_line, run_tasks
from bench.progress import Display
from bench.provenance import now, provenance
from bench.registry import unknown
from bench.stages import Measurement, Skipped, StartWorkshop
from bench.sweeps import Trial, sweep_id, trial_ids, variant_cell
from metrics.catalogue import Value
from results.ledger import Ledger
from results.records import COMPLETE, FAILED, SKIPPED, STATUS, Record

ONLY: dict[str, Callable[[Cell], str]] = {
    "site": lambda cell: cell.site.label,
    "dataset": lambda cell: cell.site.dataset.entry.name,
    "backbone": lambda cell: cell.site.backbone.entry.name,
    "method": lambda cell: cell.method.entry.name,
    "label": lambda cell: cell.label,
    "token_seed": lambda cell: str(cell.token_seed),
    "init_seed": lambda cell: str(cell.init_seed),
}


def selected(cells: Sequence[Cell], only: Iterable[str]) -> list[Cell]:
    """The cells that satisfy every `key=value`; values of one key given twice are alternatives.

    Raises:
        UsageError: A pair has another form, an unknown key, or a value that no cell has.
    """
    wanted: dict[str, set[str]] = {}
    for pair in only:
        key, equals, value = pair.partition("=")
        if not equals:
            raise UsageError(f"--only: got {pair!r}; expected key=value; keys are {', '.join(ONLY)}")
        if key not in ONLY:
            raise UsageError(f"--only {unknown('key', key, ONLY, 'eludebench run --help')}")
        values = {ONLY[key](cell) for cell in cells}
        if value not in values:
            raise UsageError(f"--only {unknown(key, value, values, 'eludebench plan SUITE')}")
        wanted.setdefault(key, set()).add(value)
    return [cell for cell in cells if all(ONLY[key](cell) in values for key, values in wanted.items())]


def plan_of(suite: Suite) -> dict[str, Any]:
    """What `run.json` holds of a suite."""
    return {
        "suite": suite.name,
        "description": suite.description,
        "sites": [
            {
                "label": site.label,
                "dataset": site.dataset.entry.name,
                "backbone": site.backbone.entry.name,
                "module": site.module,
            }
            for site in suite.sites
        ],
        "labels": list(suite.labels),
        "references": sorted({cell.label for cell in suite.cells if cell.is_reference}),
        "site_options": {site.label: site.options for site in suite.sites},
        "token_seeds": list(suite.token_seeds),
        "init_seeds": list(suite.init_seeds),
        "metrics": [row.name for row in suite.metrics],
        "tables": list(suite.tables),
        "sweeps": sweeps_of(suite.cells),
        "cells": [
            {
                "id": cell.id,
                "name": cell.name,
                "site": cell.site.label,
                "label": cell.label,
                "token_seed": cell.token_seed,
                "init_seed": cell.init_seed,
            }
            for cell in suite.cells
        ],
    }


def sweeps_of(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """Each sweep once: where it is, which options vary in it, and the records that its variants leave."""
    found: dict[str, dict[str, Any]] = {}
    for cell in cells:
        if cell.selected_at is not None:
            options = [variant.options for variant in cell.method.variants]
            swept = [name for name in options[0] if len({repr(one[name]) for one in options}) > 1]
            place = {"site": cell.site.label, "label": cell.label, "swept": swept, "trials": trial_ids(cell)}
            found.setdefault(sweep_id(cell), place)
    return list(found.values())


def took_before(folder: Path) -> dict[str, Any]:
    """What the last command that did something in this folder took, if any did."""
    took = read_plan(folder, "--out").get("took") if (folder / PLAN).exists() else None
    return {"took": took} if took else {}


def tasks_for(cells: Sequence[Cell]) -> list[Task]:
    """The tasks of these cells in order: their backbones, their activations, their sweeps, themselves."""
    backbones: dict[str, Task] = {}
    tokens: dict[str, Task] = {}
    sweeps: dict[str, Task] = {}
    work: list[Task] = []
    for cell in cells:
        site = digest({**cell.site.backbone.identity, "dataset": cell.site.dataset.identity})
        first = Task(f"backbone {site}", f"{cell.site.label}: backbone", ("backbone", cell.site, 0))
        backbones.setdefault(first.id, first)
        second = Task(
            activations_task(cell, cell.token_seed),
            f"{cell.site.label}: activations of token seed {cell.token_seed}",
            ("activations", cell.site, cell.token_seed),
            needs=(first.id,),
        )
        tokens.setdefault(second.id, second)
        needs = (first.id, second.id, *((cell.leader.id,) if cell.leader else ()))
        if cell.selected_at is not None:
            third = Task(
                f"sweep {sweep_id(cell)}",
                f"{cell.site.label}/{cell.label}: sweep of {len(cell.method.variants)}",
                ("sweep", cell, 0),
                needs=(first.id, activations_task(cell, cell.selected_at[0])),
            )
            sweeps.setdefault(third.id, third)
            needs += (third.id,)
        work.append(Task(cell.id, cell.name, ("cell", cell, 0), needs))
    return [*backbones.values(), *tokens.values(), *sweeps.values(), *work]


def activations_task(cell: Cell, token_seed: int) -> str:
    """Identifies the task that extracts the cell's activations."""
    return f"activations {digest(cell.site.identity)} {token_seed}"


@dataclass(frozen=True)
class Recorder:
    """Turns what comes back from the lanes into records, and shows it.

    Attributes:
        suite: Whose cells they are.
        ledger: Where the records go.
        display: Where progress goes.
        complete: The cells and trials of which the ledger has whole records already.
    """

    suite: Suite
    ledger: Ledger
    display: Display
    complete: frozenset[str] = frozenset()

    def progressed(self, task: Task, what: str, done: int, total: int) -> None:
        """A running task says how far it is."""
        self.display.progressed(task, what, done, total)

    def said(self, text: str) -> None:
        """A running task has a line for people."""
        self.display.said(text)

    def finished(self, task: Task, outcome: Any) -> None:
        """A cell that is over leaves its records, a failed one its reason."""
        if task.payload[0] == "cell":
            try:
                rows = self.records(task.payload[1], outcome)
            except ValueError as error:  # what came back is no record: a note that is not finite, say
                outcome = Failure(one_line(error), traceback.format_exc())
                rows = self.records(task.payload[1], outcome)
            self.ledger.append_cell(rows)
        elif task.payload[0] == "sweep" and not isinstance(outcome, Skipped):
            for group in self.sweep_records(task.payload[1], outcome):
                if group[0].cell not in self.complete:
                    self.ledger.append_cell(group)
        self.display.finished(task, outcome)

    def waited(self) -> None:
        """A second has gone by."""
        self.display.waited()

    def records(self, cell: Cell, outcome: Measurement | Skipped | Failure) -> list[Record]:
        """The rows of one cell: its values, then the row that closes it."""
        shared = self.shared(cell, cell.id)
        if isinstance(outcome, Failure):
            shared |= {"text": FAILED, "reason": outcome.reason, "traceback": outcome.traceback}
            return [Record(kind="cell", metric=STATUS, **shared)]
        if isinstance(outcome, Skipped):
            return [Record(kind="cell", metric=STATUS, text=SKIPPED, reason=outcome.reason, **shared)]
        shared |= {"options": dict(outcome.options), "notes": dict(outcome.notes)}
        shared |= {"seconds": outcome.seconds, "peak_bytes": outcome.peak_bytes}
        values = [
            Record(kind="value", metric=row.name, unit=row.unit, **vars(outcome.values[row.name]), **shared)
            for row in self.suite.metrics
        ]
        return [*values, Record(kind="cell", metric=STATUS, text=COMPLETE, **shared)]

    def sweep_records(self, cell: Cell, outcome: list[Trial] | Failure) -> list[list[Record]]:
        """For each variant of a sweep its rows: what eq. 9 looks at, its score, and the row that closes them."""
        groups = []
        n = len(cell.method.variants)
        trials: Sequence[Trial | Failure] = [outcome] * n if isinstance(outcome, Failure) else outcome
        for identity, variant, trial in zip(trial_ids(cell), cell.method.variants, trials, strict=True):
            shared = self.shared(variant_cell(cell, variant), identity) | {"notes": {"sweep": sweep_id(cell)}}
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
            "time": now(),
            **provenance(),
        }


def run(
    suite: Suite,
    folder: Path,
    start: StartWorkshop,
    *,
    only: Sequence[str] = (),
    n_lanes: int = 2,
    is_quiet: bool = False,
) -> dict[str, str]:
    """Do what is to do of a suite; returns the state of every selected cell by name.

    Args:
        suite: What to run.
        folder: Where the records go.
        start: Makes the workshop of each lane.
        only: `key=value` pairs that narrow the cells down.
        n_lanes: How many processes work; 0 works in this one.
        is_quiet: Show no progress.

    Raises:
        UsageError: The folder belongs to another suite, or `only` fits nothing.
        StorageError, LedgerError: Something cannot be written.
    """
    cells = selected(suite.cells, only)
    check_folder(folder, suite.name)
    make_folder(folder)
    with Ledger(folder / LEDGER) as ledger:
        plan = plan_of(suite) | took_before(folder)
        write_plan(folder, plan)
        complete = {key for key, group in outcomes(folder).items() if group[-1].text in (COMPLETE, SKIPPED)}
        tasks = tasks_for([cell for cell in cells if cell.id not in complete])
        display = Display(len(tasks), is_quiet=is_quiet)
        if ledger.n_dropped:
            display.said(f"{ledger.path}: {ledger.n_dropped} rows of an unfinished cell were cut off; it is done again")
        whole = complete - {one for cell in suite.cells if cell.selected_at is not None for one in trial_ids(cell)}
        if whole:
            n_other = len(whole - {cell.id for cell in suite.cells})
            kept = f"; {n_other} more in this folder belong to no cell of this command" if n_other else ""
            display.said(f"complete already: {len(whole) - n_other}{kept}")
        begin = time.perf_counter()
        with display:
            run_tasks(tasks, n_lanes, start, Recorder(suite, ledger, display, frozenset(complete)))
        if tasks:
            took = {"seconds": time.perf_counter() - begin, "tasks": len(tasks), "workers": n_lanes}
            write_plan(folder, plan | {"took": took})
    groups = outcomes(folder)
    return {cell.name: str(groups[cell.id][-1].text) for cell in cells}
