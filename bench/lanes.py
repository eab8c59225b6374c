"""Lanes: processes that work side by side on tasks that wait for one another.

One lane is one process with one pipe. What a task reports, returns or dies of comes back over it, so that a crash
(out of memory, a signal) is the failure of exactly the task that ran there; the lane is then started anew. A lane
whose parent is gone ends itself at its next report. Without lanes, tasks run in this process, one after another.
"""

import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol, runtime_checkable

from bench.backbones import Report
from bench.cache import StorageError


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


def attempt(work: Callable[[Any, Came], Any], payload: Any, came: Came) -> tuple[str, Any]:
    """What the work returned ("done"), or why it failed; a storage that cannot be written ends everything."""
    try:
        return "done", work(payload, came)
    except StorageError as error:
        return "storage", str(error)
    except Exception as error:
        return "done", Failure(one_line(error), traceback.format_exc())


def serve(pipe: Connection, start: Start) -> None:
    """The life of a lane's process; Ctrl-C is the parent's to handle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    last = [0.0]

    def report(what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if done >= total or now - last[0] > 0.2:
            last[0] = now
            pipe.send(("progress", (what, done, total)))

    try:
        work = start(report, lambda text: pipe.send(("said", text)))
        while True:
            pipe.send(attempt(work, *pipe.recv()))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        os._exit(1)


class Lane:
    """The parent's end of one process."""

    def __init__(self, start: Start) -> None:
        self.start = start
        self.task: Task | None = None
        self.open()

    def open(self) -> None:
        """Start the process, by spawning: a fork would copy locked threads of torch and rich."""
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, self.start), daemon=True)
        # The child inherits that Ctrl-C is ignored, so that it is the parent's to handle from the first instant on.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        self.process.start()
        signal.signal(signal.SIGINT, before)
        theirs.close()

    def give(self, task: Task, came: Came) -> None:
        """Hand it a task; a lane that died while idle shows when its answer is awaited."""
        self.task = task
        with suppress(OSError):
            self.pipe.send((task.payload, dict(came)))

    def close(self) -> None:
        """End the process, whatever it does."""
        self.process.kill()
        self.process.join()
        self.pipe.close()

    def receive(self) -> tuple[str, Any]:
        """The next message; a dead process is the failure of its task."""
        try:
            kind, content = self.pipe.recv()
            return kind, content
        except (EOFError, ConnectionResetError):
            self.process.join()
            code = self.process.exitcode or 0
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            self.pipe.close()
            self.open()
            return "done", Failure(f"the worker process died ({how}); it may have run out of memory; use --workers 1")


def run_tasks(tasks: Sequence[Task], n_lanes: int, start: Start, observer: Observer) -> None:
    """Do all tasks, each after what it needs; a task whose need failed fails with that reason.

    Raises:
        StorageError: A worker could not write; nothing more is started.
    """
    if n_lanes == 0:
        run_here(tasks, start, observer)
        return
    waiting = Waiting(tasks, observer)
    lanes = [Lane(start) for _ in range(min(n_lanes, len(tasks)))]
    try:
        while waiting.rest or any(lane.task for lane in lanes):
            for lane in lanes:
                if lane.task is None and (task := waiting.take([one.task for one in lanes if one.task])):
                    lane.give(task, waiting.came(task))
            busy = {lane.pipe: lane for lane in lanes if lane.task}
            heard = wait(list(busy), timeout=1.0)
            for pipe in heard:
                hear(busy[pipe], waiting, observer)  # type: ignore[index]
            if not heard:
                observer.waited()
    finally:
        for lane in lanes:
            lane.close()


def hear(lane: Lane, waiting: "Waiting", observer: Observer) -> None:
    """Pass one message of a lane on."""
    task = lane.task
    kind, content = lane.receive()
    if task is None:
        return
    if kind == "progress":
        observer.progressed(task, *content)
    elif kind == "said":
        observer.said(content)
    elif kind == "storage":
        raise StorageError(content)
    else:
        lane.task = None
        waiting.settle(task, content)


class Waiting:
    """The tasks that have not been started, and what has come of the others."""

    def __init__(self, tasks: Sequence[Task], observer: Observer) -> None:
        self.rest = list(tasks)
        self.undone = {task.id for task in tasks}
        self.observer = observer
        self.outcomes: dict[str, Any] = {}

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


def run_here(tasks: Sequence[Task], start: Start, observer: Observer) -> None:
    """Do all tasks in this process: for debuggers and tests."""
    waiting = Waiting(tasks, observer)
    current: list[Task] = []
    work = start(lambda what, done, total: observer.progressed(current[-1], what, done, total), observer.said)
    while task := waiting.take():
        current.append(task)
        kind, outcome = attempt(work, task.payload, waiting.came(task))
        if kind == "storage":
            raise StorageError(outcome)
        waiting.settle(task, outcome)
