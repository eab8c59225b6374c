"""Lanes that are processes of this machine, on its processor or with a GPU each.

One lane is one process with one pipe, over which everything comes back that it says; a lane that dies is started anew.
One whose parent is gone ends itself at its next word. Without lanes, tasks run in this process, one after another.
"""

import multiprocessing
import os
import signal
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any

from bench.cache import StorageError
from bench.lanes import Came, Kept, Observer, Start, Task, Waiting, attempt, reporting, work_off

VISIBLE = "CUDA_VISIBLE_DEVICES"


def run_tasks(
    tasks: Sequence[Task],
    n_lanes: int,
    start: Start,
    observer: Observer,
    *,
    gpus: Sequence[str] = (),
    kept: Kept | None = None,
) -> None:
    """Do all tasks on this machine, each after what it needs; a task whose need failed fails with that reason.

    Args:
        tasks: What is to be done.
        n_lanes: How many processes work; 0 works in this one.
        start: Makes, inside each, what does the work.
        observer: Told what happens.
        gpus: For each lane the one GPU that it sees, as CUDA numbers or names it; there are then as many lanes as
            GPUs, whatever `n_lanes`. An empty text hides them all. Without any, lanes see what this process sees.
        kept: Where what comes of tasks is put by; what is there already is not done again.

    Raises:
        StorageError: A worker could not write; nothing more is started.
    """
    waiting = Waiting(tasks, observer, kept)
    places = [{VISIBLE: gpu} for gpu in gpus] if gpus else [{} for _ in range(n_lanes)]
    if places:
        work_off(waiting, Processes(places[: len(waiting.rest)], start, kept))
    else:
        run_here(waiting, start, kept)


def run_here(waiting: Waiting, start: Start, kept: Kept | None) -> None:
    """Do all tasks in this process: for debuggers and tests."""
    current: list[Task] = []
    observer = waiting.observer
    work = start(lambda what, done, total: observer.progressed(current[-1], what, done, total), observer.said)
    while task := waiting.take():
        current.append(task)
        kind, outcome = attempt(work, task.id, task.payload, waiting.came(task), kept)
        if kind == "storage":
            raise StorageError(outcome)
        waiting.settle(task, outcome)


def serve(pipe: Connection, start: Start, kept: Kept | None) -> None:
    """The life of a lane's process; Ctrl-C is the parent's to handle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        work = start(reporting(pipe.send), lambda text: pipe.send(("said", text)))
        while True:
            task, payload, came = pipe.recv()
            pipe.send(attempt(work, task, payload, came, kept))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        os._exit(1)


@contextmanager
def inherited(environment: Mapping[str, str]) -> Iterator[None]:
    """Variables that a process started meanwhile has from its first instant on, before it imports anything.

    It inherits too that Ctrl-C is held back, so that it is the parent's to handle, who gets it afterwards.
    """
    before = {name: os.environ.get(name) for name in environment}
    resource_tracker.ensure_running()  # where it is only started later, it lets the signal through
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    os.environ.update(environment)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


class Lane:
    """The parent's end of one process."""

    def __init__(self, start: Start, kept: Kept | None = None, environment: Mapping[str, str] | None = None) -> None:
        self.start = start
        self.kept = kept
        self.environment = environment or {}
        self.open()

    def open(self) -> None:
        """Start the process, by spawning: a fork would copy locked threads of torch and rich, and what CUDA sees."""
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, self.start, self.kept), daemon=True)
        with inherited(self.environment):
            self.process.start()
        theirs.close()

    def give(self, task: Task, came: Came) -> None:
        """Hand it a task; a lane that died while idle shows when its answer is awaited."""
        with suppress(OSError):
            self.pipe.send((task.id, task.payload, dict(came)))

    def close(self) -> None:
        """End the process, whatever it does."""
        self.process.kill()
        self.process.join()
        self.pipe.close()

    def receive(self) -> tuple[str, Any]:
        """The next message; of a dead process how it died, and another is started."""
        try:
            kind, content = self.pipe.recv()
            return kind, content
        except (EOFError, ConnectionResetError):
            self.process.join()
            code = self.process.exitcode or 0
            self.pipe.close()
            self.open()
            return "died", signal.Signals(-code).name if code < 0 else f"exit code {code}"


class Processes:
    """Lanes of this machine, one for each place, which is what its environment has besides this process's."""

    def __init__(self, places: Sequence[Mapping[str, str]], start: Start, kept: Kept | None = None) -> None:
        self.lanes = [Lane(start, kept, place) for place in places]
        self.n = len(self.lanes)

    def give(self, lane: int, task: Task, came: Came) -> None:
        """Have a lane do a task."""
        self.lanes[lane].give(task, came)

    def heard(self, busy: Collection[int]) -> list[tuple[int, str, Any]]:
        """The next message of each that has one within a second."""
        pipes: dict[Any, int] = {self.lanes[lane].pipe: lane for lane in busy}
        ready = [pipes[pipe] for pipe in wait(list(pipes), timeout=1.0)]
        return [(lane, *self.lanes[lane].receive()) for lane in ready]

    def close(self) -> None:
        """End all processes."""
        for lane in self.lanes:
            lane.close()
