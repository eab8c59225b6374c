"""Lanes: where tasks that wait for one another are worked side by side, whatever a lane is made of.

A lane does one task at a time, in a process of its own (`bench.processes` here, `bench.executors` on many machines).
A process that dies takes the task along that ran there and nothing else; the task is given once more, then it has
failed. What comes of a task is put by before it is told, so that whoever hears of it may die.
"""

import os
import time
import traceback
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from bench.cache import StorageError

Report = Callable[[str, int, int], None]
"""Told what is being done, how many steps of it are done, and how many there are."""
RETRIES = 1
"""How often a task is given again whose worker process died under it; one that raised is not."""


def quietly(what: str, done: int, total: int) -> None:
    """Progress that nobody wants to see: a `Report`."""


@dataclass(frozen=True)
class Task:
    """Something to do.

    Attributes:
        id: Names it in other tasks' `needs`.
        name: What people call it.
        payload: What the worker is handed.
        needs: The tasks that must have succeeded before; ids that are not in the list count as done.
        after: The tasks that must be over before, whatever came of them: the worker is handed what did.
        parts: What is done in its place where it fails: one of several things in it may have ended the process.
        is_alone: Nothing else runs meanwhile.
    """

    id: str
    name: str
    payload: Any
    needs: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    parts: "tuple[Task, ...]" = ()
    is_alone: bool = False


@dataclass(frozen=True)
class Failure:
    """Why a task did not succeed: one line for people, and the traceback where there is one."""

    reason: str
    traceback: str | None = None


@runtime_checkable
class Observer(Protocol):
    """Hears what happens, in the parent process."""

    def progressed(self, task: Task, what: str, done: int, total: int) -> None:
        """A running task says how far it is."""
        ...

    def said(self, text: str) -> None:
        """A running task has a line for people."""
        ...

    def waited(self) -> None:
        """A second has gone by in which nobody said anything."""
        ...

    def finished(self, task: Task, outcome: Any) -> None:
        """A task is over; the outcome is what it returned, or a `Failure`."""
        ...

    def divided(self, task: Task, reason: str) -> None:
        """A task failed, and its parts are done in its place."""
        ...


Came = Mapping[str, Any]
"""What came of the tasks that another one stood behind, by id: what they returned, or a `Failure`."""

Start = Callable[[Report, Callable[[str], None]], Callable[[Any, Came], Any]]
"""Makes, inside a lane, the function that does a payload; given how to report progress and how to say a line."""


def one_line(error: Exception) -> str:
    """Type and first line of an error."""
    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"


def threads_of_a_lane(n_lanes: int) -> int:
    """How many threads a lane has for what gives the same result on any number of them."""
    return max(1, (os.cpu_count() or 1) // max(1, n_lanes))


@runtime_checkable
class Kept(Protocol):
    """Where what comes of tasks is put by until it is recorded, so that it outlives whoever asked for it."""

    def put(self, task: str, outcome: Any) -> None:
        """Put by what came of the task of this id."""
        ...

    def get(self, task: str) -> Any:
        """What came of the task of this id before, None where nothing is known."""
        ...


@runtime_checkable
class Lanes(Protocol):
    """Some lanes, numbered from 0.

    Attributes:
        n: How many.
    """

    n: int

    def give(self, lane: int, task: Task, came: Came) -> None:
        """Have a lane do a task; one that died while idle shows when it is heard."""
        ...

    def heard(self, busy: Collection[int]) -> list[tuple[int, str, Any]]:
        """What lanes that have a task say within a second, in order: the lane, what kind of thing it is, and the thing.

        "progress" (what, done, total); "said" a line; "done" what came of the task; "storage" why nothing can be
        written; "died" how the process ended, in whose place there is another by now.
        """
        ...

    def close(self) -> None:
        """End all of them, whatever they do."""
        ...


def reporting(send: Callable[[tuple[str, Any]], object]) -> Report:
    """A report that sends what it is told as "progress", five times a second at most, the end always."""
    last = [0.0]

    def report(what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if done >= total or now - last[0] > 0.2:
            last[0] = now
            send(("progress", (what, done, total)))

    return report


def attempt(
    work: Callable[[Any, Came], Any], task: str, payload: Any, came: Came, kept: Kept | None = None
) -> tuple[str, Any]:
    """What the work returned ("done"), put by, or why it failed; a storage that cannot be written ends everything."""
    try:
        outcome = work(payload, came)
        if kept is not None:
            kept.put(task, outcome)
    except StorageError as error:
        return "storage", str(error)
    except Exception as error:
        return "done", Failure(one_line(error), traceback.format_exc())
    return "done", outcome


def work_off(waiting: "Waiting", lanes: Lanes) -> None:
    """Do all tasks that wait, each after what it needs; a task whose need failed fails with that reason.

    Raises:
        StorageError: A worker could not write; nothing more is started.
    """
    running: dict[int, Task] = {}
    deaths: Counter[str] = Counter()
    try:
        while waiting.rest or running:
            for lane in range(lanes.n):
                if lane not in running and (task := waiting.take(list(running.values()))):
                    running[lane] = task
                    lanes.give(lane, task, waiting.came(task))
            heard = lanes.heard(list(running))
            for lane, kind, content in heard:
                if kind == "died":
                    bury(waiting, running.pop(lane), content, deaths)
                else:
                    hear(waiting, running, lane, kind, content)
            if not heard:
                waiting.observer.waited()
    finally:
        lanes.close()


def hear(waiting: "Waiting", running: dict[int, Task], lane: int, kind: str, content: Any) -> None:
    """Pass on what a lane says."""
    if kind == "storage":
        raise StorageError(content)
    if kind == "said":
        waiting.observer.said(content)
    elif kind == "progress":
        waiting.observer.progressed(running[lane], *content)
    else:
        waiting.settle(running.pop(lane), content)


def bury(waiting: "Waiting", task: Task, how: str, deaths: Counter[str]) -> None:
    """A worker died under a task: it is to be done again, or has failed where that has happened too often."""
    deaths[task.id] += 1
    died = f"the worker process died ({how})"
    if deaths[task.id] <= RETRIES:
        waiting.observer.said(f"{task.name}: {died}; it is done again")
        waiting.rest.insert(0, task)
        return
    what_next = "see what ended it (a signal, too little memory, a crash in a library), or use --workers 1"
    waiting.settle(task, Failure(f"{died}, {deaths[task.id]} times under this task; expected it to live; {what_next}"))


class Waiting:
    """The tasks that have not been started, and what has come of the others."""

    def __init__(self, tasks: Sequence[Task], observer: Observer, kept: Kept | None = None) -> None:
        """The tasks; those of which is kept what came of them are over, and the observer hears it.

        Args:
            tasks: What is to be done.
            observer: Told what comes of them.
            kept: Where what came of some may have been put by.
        """
        self.rest = list(tasks)
        self.undone = {task.id for task in tasks}
        self.observer = observer
        self.outcomes: dict[str, Any] = {}
        for task in tasks:
            if kept is not None and (outcome := kept.get(task.id)) is not None:
                self.rest.remove(task)
                self.settle(task, outcome)

    def take(self, running: Sequence[Task] = ()) -> Task | None:
        """The first task that can start beside those that run, taken off the list; None where all have to wait."""
        if any(task.is_alone for task in running):
            return None
        ready = [task for task in self.rest if not self.undone.intersection((*task.needs, *task.after))]
        for task in sorted(ready, key=lambda task: task.is_alone):
            if not (task.is_alone and running):
                self.rest.remove(task)
                return task
        return None

    def came(self, task: Task) -> dict[str, Any]:
        """What came of the tasks that it stood behind."""
        return {one: self.outcomes[one] for one in task.after if one in self.outcomes}

    def settle(self, task: Task, outcome: Any) -> None:
        """A task is over; where it failed, so have those that need it, unless its parts are done in its place."""
        self.undone.discard(task.id)
        if isinstance(outcome, Failure) and task.parts:
            self.rest = [*task.parts, *self.rest]
            self.undone |= {part.id for part in task.parts}
            self.observer.divided(task, outcome.reason)
            return
        self.outcomes[task.id] = outcome
        self.observer.finished(task, outcome)
        if isinstance(outcome, Failure):
            for other in [other for other in self.rest if task.id in other.needs]:
                if other in self.rest:
                    self.rest.remove(other)
                    self.settle(other, Failure(f"needs {task.name}, which failed: {outcome.reason}", outcome.traceback))
