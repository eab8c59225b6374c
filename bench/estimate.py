"""What a run will take: the seconds of each of its tasks, and the moment at which the last of them will be over."""

import heapq
import math
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.cache import digest
from bench.calibration import StartCalibrator
from bench.cells import Cell, SiteSpec
from bench.findings import Chunk, Findings
from bench.lanes import Failure, Task, Waiting, threads_of_a_lane
from bench.processes import run_tasks
from bench.stability import Comparison
from bench.stopwatch import Clock
from bench.tasks import site_of, tasks_for

BUSY_SHARE = 0.5
"""Load of the machine before it is calibrated, a core, from which on it is called busy."""


@dataclass(frozen=True)
class Estimate:
    """What is expected of a run on this machine, as it is loaded now.

    Attributes:
        tasks: What is to be done.
        seconds: Expected seconds of each task, by its id; those of which there are any.
        reasons: Why there are none for a task, by its id.
        total_seconds: From the command to its end; at least that, where tasks have none.
        starting_seconds: The part of that in which processes start and load data sets.
        workers: Processes that work.
        calibration_seconds: What finding this out took.
        load: Processes that wanted to run on average of the minute before; None where the system does not tell.
    """

    tasks: tuple[Task, ...]
    seconds: Mapping[str, float]
    reasons: Mapping[str, str]
    total_seconds: float
    starting_seconds: float
    workers: int
    calibration_seconds: float
    load: float | None

    def __str__(self) -> str:
        """As a clause."""
        many = f"{self.workers} workers" if self.workers > 1 else "one worker"
        how = f"with {many} on this machine (calibrated in {in_words(self.calibration_seconds)})"
        n = len(self.reasons)
        least = f"at least {in_words(self.total_seconds)} {how}, without {n} task{'s' * (n > 1)} not rehearsed"
        said = least if n else f"about {in_words(self.total_seconds)} {how}"
        if self.load is not None and self.load > BUSY_SHARE * (os.cpu_count() or 1):
            return f"very roughly {said}; other programs keep it busy (load {self.load:.1f} on {os.cpu_count()} cores)"
        return said

    def clause(self, key: str) -> str:
        """What is expected of one task, to be put behind its state; empty where it is not to be done."""
        if key in self.reasons:
            return f"; not rehearsed: {self.reasons[key]}"
        return f"; about {in_words(self.seconds[key])}" if key in self.seconds else ""

    def shared(self) -> list[str]:
        """Lines about the tasks that are no cells and take time."""
        others = [task for task in self.tasks if task.payload[0] != "find" and self.seconds.get(task.id, 1.0) > 0]
        start = f"starting the processes and loading data sets; about {in_words(self.starting_seconds)}"
        return [start, *(f"{task.name}{self.clause(task.id)}" for task in others)]

    def of(self, key: str) -> dict[str, float | str | None]:
        """What is expected of one task, as JSON; nothing where it is not to be done."""
        if key in self.seconds:
            return {"expected_seconds": self.seconds[key]}
        return {"expected_seconds": None, "reason": self.reasons[key]} if key in self.reasons else {}

    def as_json(self) -> dict[str, Any]:
        """All of it."""
        return {
            "expected_seconds": self.total_seconds,
            "is_lower_bound": bool(self.reasons),
            "starting_seconds": self.starting_seconds,
            "calibration_seconds": self.calibration_seconds,
            "workers": self.workers,
            "load": self.load,
            "shared": [{"task": t.name, **self.of(t.id)} for t in self.tasks if t.payload[0] != "cell"],
        }


class Collected:
    """A `bench.lanes.Observer` that keeps what comes back."""

    def __init__(self) -> None:
        self.outcomes: dict[str, Any] = {}

    def progressed(self, task: Task, what: str, done: int, total: int) -> None:
        """Of no interest."""

    def said(self, text: str) -> None:
        """Of no interest."""

    def waited(self) -> None:
        """Of no interest."""

    def finished(self, task: Task, outcome: Any) -> None:
        """Keep the outcome."""
        self.outcomes[task.id] = outcome

    def divided(self, task: Task, reason: str) -> None:
        """Of no interest."""


def estimated(
    cells: Sequence[Cell],
    n_lanes: int,
    plugins: tuple[Path, ...],
    cache: Path,
    clock: Clock = time.perf_counter,
    comparisons: Sequence[Comparison] = (),
    device: str = "cpu",
    gpus: Sequence[str] = (),
) -> Estimate:
    """What these cells will take in so many lanes; 0 works in this process. Comparisons are not rehearsed."""
    begin, load = time.perf_counter(), os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    tasks = tuple(tasks_for(cells, comparisons))
    chunks = chunks_of([task for task in tasks if task.payload[0] not in ("evaluate", "compare")], max(n_lanes, 1))
    heard = Collected()
    start = StartCalibrator(plugins, cache, threads_of_a_lane(n_lanes), time.time(), clock, device=device)
    run_tasks(chunks, n_lanes, start, heard, gpus=gpus)
    seconds: dict[str, float] = {}
    reasons: dict[str, str] = {}
    found = []
    for chunk in chunks:
        outcome: Findings | Failure = heard.outcomes[chunk.id]
        if isinstance(outcome, Failure):
            reasons |= {task.id: outcome.reason for group in chunk.payload.groups for task in group}
        else:
            seconds |= outcome.seconds
            reasons |= outcome.reasons
            found.append((chunk.payload.site.identity, outcome))
    reasons |= {task.id: "comparisons are not" for task in tasks if task.payload[0] == "compare"}
    for task in tasks:
        if task.payload[0] == "evaluate":
            add_evaluation(task, found, seconds, reasons)
    # Every lane starts and, sooner or later, loads every data set.
    loading = {digest(site["dataset"]): outcome.loading_seconds for site, outcome in found}
    starting = min((outcome.starting_seconds for _, outcome in found), default=0.0) + sum(loading.values())
    own = tasks_for(cells, comparisons, n_lanes)
    total = starting + makespan(own, shared_out(own, seconds), max(n_lanes, 1))
    return Estimate(tasks, seconds, reasons, total, starting, max(n_lanes, 1), time.perf_counter() - begin, load)


def add_evaluation(
    task: Task,
    found: Sequence[tuple[Mapping[str, Any], Findings]],
    seconds: dict[str, float],
    reasons: dict[str, str],
) -> None:
    """What an evaluation of several cells will take: what they share, and each one's own where that is known."""
    cells: Sequence[Cell] = task.payload[1]
    own = {key: value for _, outcome in found for key, value in outcome.measuring.items()}
    known = [own[cell.id] for cell in cells if cell.id in own]
    if not known:
        reasons[task.id] = reasons.get(cells[0].id, "none of its decompositions was rehearsed")
        return
    site = digest(cells[0].site.identity)
    sharing = max(outcome.sharing_seconds for identity, outcome in found if digest(identity) == site)
    seconds[task.id] = sharing + sum(known)


def chunks_of(tasks: Sequence[Task], n_lanes: int) -> list[Task]:
    """The rehearsals: tasks of equal work together, the methods of one site shared out among as many lanes as it has.

    A sweep and its cells stay in one chunk: what both need is then made once.
    """
    sites: dict[str, tuple[SiteSpec, dict[str, dict[str, list[Task]]]]] = {}
    for task in tasks:
        kind, subject, _ = task.payload
        is_cell, site = kind in ("find", "sweep"), site_of(task)
        _, methods = sites.setdefault(digest(site.identity), (site, {}))
        groups = methods.setdefault(digest({"method": subject.method.identity}) if is_cell else "", {})
        groups.setdefault(work_of(task), []).append(task)
    made = []
    for key, (site, methods) in sites.items():
        n_shares = math.ceil(n_lanes / len(sites))
        for index in range(min(n_shares, len(methods))):
            share = list(methods.values())[index::n_shares]
            chunk = Chunk(site, tuple(tuple(group) for groups in share for group in groups.values()))
            made.append(Task(f"{key} {index}", site.label, chunk))
    return made


def work_of(task: Task) -> str:
    """The same for tasks of one method at one site that differ in seeds only."""
    kind, subject, _ = task.payload
    if kind != "find":
        return f"{kind} {task.id if kind == 'sweep' else ''}"
    leader = subject.leader.method.identity if subject.leader else None
    return f"find {digest({'leader': leader, 'metrics': [list(metric) for metric in subject.metrics]})}"


def shared_out(tasks: Sequence[Task], seconds: Mapping[str, float]) -> dict[str, float]:
    """The seconds of each task, where those of a decomposition are found in shares of it."""
    shares = [(task.id, task.payload[1].id) for task in tasks if task.payload[0] == "units"]
    n_shares = Counter(cell for _, cell in shares)
    own = {share: seconds.get(cell, 0.0) / n_shares[cell] for share, cell in shares}
    return {**seconds, **dict.fromkeys(n_shares, 0.0), **own}


def makespan(tasks: Sequence[Task], seconds: Mapping[str, float], n_lanes: int) -> float:
    """When the last task is over, where each lane takes the next task that may begin; unknown seconds count as none."""
    waiting = Waiting(tasks, Collected())
    busy: list[tuple[float, int, Task]] = []
    now, n_given = 0.0, 0
    while True:
        while len(busy) < n_lanes and (task := waiting.take()):
            heapq.heappush(busy, (now + seconds.get(task.id, 0.0), n_given, task))
            n_given += 1
        if not busy:
            return now
        now, _, over = heapq.heappop(busy)
        waiting.settle(over, None)


def in_words(seconds: float) -> str:
    """A duration for people, to two digits."""
    for unit, size in (("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.{0 if seconds >= 10 * size else 1}f} {unit}"
    return f"{seconds:.{0 if seconds >= 10 else 1}f} seconds"
