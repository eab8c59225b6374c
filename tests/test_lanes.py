"""Lanes: order, failures that stay where they happened, and processes that die."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from bench.cache import StorageError
from bench.lanes import Came, Failure, Report, Task
from bench.processes import Lane, run_tasks


def start(report: Report, say: Callable[[str], None]) -> Callable[[Any, Came], Any]:
    """A worker that does what its payload says."""

    def work(payload: Any, came: Came) -> Any:
        what, *rest = payload
        if what == "listen":
            return dict(came)
        if what == "fail":
            raise RuntimeError(f"no {rest[0]}\nsecond line")
        if what == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "sleep":
            time.sleep(2.5)
        if what == "full":
            raise StorageError("--cache: cannot write: the disk is full")
        if what == "talk":
            report("steps", 1, 2)
            report("steps", 2, 2)
            say("a line")
        return what

    return work


class Notes:
    """Writes down what it hears."""

    def __init__(self) -> None:
        self.outcomes: dict[str, Any] = {}
        self.steps: list[tuple[str, str, int, int]] = []
        self.lines: list[str] = []
        self.n_waits = 0
        self.divisions: dict[str, str] = {}

    def divided(self, task: Task, reason: str) -> None:
        self.divisions[task.id] = reason

    def progressed(self, task: Task, what: str, done: int, total: int) -> None:
        self.steps.append((task.id, what, done, total))

    def said(self, text: str) -> None:
        self.lines.append(text)

    def waited(self) -> None:
        self.n_waits += 1

    def finished(self, task: Task, outcome: Any) -> None:
        self.outcomes[task.id] = outcome


def task(key: str, what: str, *needs: str) -> Task:
    return Task(key, f"task {key}", (what, key), needs)


@pytest.mark.parametrize("n_lanes", [0, 1, 2])
def test_tasks_run_after_what_they_need_and_failures_stay_put(n_lanes: int) -> None:
    notes = Notes()
    tasks = [
        task("c", "ok", "b"), task("b", "talk", "a"), task("a", "ok", "not in the list"),
        task("x", "fail"), task("y", "ok", "x"), task("z", "ok", "y"),
    ]  # fmt: skip
    run_tasks(tasks, n_lanes, start, notes)
    order = [key for key in notes.outcomes if key in "abc"]
    assert order == ["a", "b", "c"]
    assert notes.outcomes["c"] == "ok"
    assert ("b", "steps", 2, 2) in notes.steps
    assert notes.lines == ["a line"]
    assert notes.outcomes["x"].reason == "RuntimeError: no x"
    assert "Traceback" in notes.outcomes["x"].traceback
    assert notes.outcomes["y"].reason == "needs task x, which failed: RuntimeError: no x"
    assert notes.outcomes["z"].reason.startswith("needs task y, which failed: needs task x")


def test_a_process_that_dies_is_the_failure_of_its_task_alone() -> None:
    notes = Notes()
    run_tasks([task("a", "die"), task("b", "ok"), task("c", "die"), task("d", "ok")], 1, start, notes)
    assert isinstance(notes.outcomes["a"], Failure)
    assert "the worker process died (SIGKILL), 2 times under this task" in notes.outcomes["a"].reason
    assert "the worker process died (SIGKILL), 2 times under this task" in notes.outcomes["c"].reason
    assert notes.lines == [f"task {key}: the worker process died (SIGKILL); it is done again" for key in "ac"]
    assert (notes.outcomes["b"], notes.outcomes["d"]) == ("ok", "ok")


@pytest.mark.parametrize("n_lanes", [0, 2])
def test_a_task_behind_others_is_told_what_came_of_them_good_or_bad(n_lanes: int) -> None:
    notes = Notes()
    last = Task("z", "task z", ("listen",), after=("a", "b", "not in the list"))
    run_tasks([last, task("a", "fail"), task("b", "talk")], n_lanes, start, notes)
    came = notes.outcomes["z"]
    assert list(notes.outcomes)[-1] == "z"
    assert came["b"] == "talk"
    assert came["a"].reason == "RuntimeError: no a"
    assert set(came) == {"a", "b"}


@pytest.mark.parametrize(("n_lanes", "what"), [(0, "fail"), (1, "die"), (2, "die")])
def test_where_a_task_fails_its_parts_are_done_in_its_place(n_lanes: int, what: str) -> None:
    notes = Notes()
    parts = (Task("p", "part p", ("listen",), after=("a",)), task("q", what), task("r", "ok"))
    whole = Task("w", "the whole", (what, "w"), after=("a",), parts=parts)
    run_tasks([task("a", "ok"), whole, task("b", "ok", "w")], n_lanes, start, notes)
    assert set(notes.outcomes) == {"a", "b", "p", "q", "r"}
    assert notes.outcomes["p"] == {"a": "ok"}
    assert isinstance(notes.outcomes["q"], Failure)
    assert (notes.outcomes["r"], notes.outcomes["b"]) == ("ok", "ok")
    assert list(notes.divisions) == ["w"]
    whole_that_works = Task("v", "another", ("ok", "v"), parts=parts)
    run_tasks([whole_that_works], n_lanes, start, again := Notes())
    assert again.outcomes == {"v": "ok"}


def test_a_task_that_is_alone_runs_when_nothing_else_does() -> None:
    class Times(Notes):
        def __init__(self) -> None:
            super().__init__()
            self.ends: dict[str, float] = {}

        def finished(self, task: Task, outcome: Any) -> None:
            super().finished(task, outcome)
            self.ends[task.id] = time.monotonic()

    notes = Times()
    alone = Task("alone", "alone", ("sleep", "alone"), is_alone=True)
    run_tasks([alone, task("a", "sleep"), task("b", "ok", "a"), task("c", "sleep")], 2, start, notes)
    assert list(notes.outcomes)[-1] == "alone"
    assert notes.ends["alone"] - max(notes.ends[one] for one in "abc") >= 2.4


@pytest.mark.parametrize("n_lanes", [0, 1])
def test_a_full_disk_ends_everything(n_lanes: int) -> None:
    notes = Notes()
    with pytest.raises(StorageError, match="the disk is full"):
        run_tasks([task("a", "ok"), task("b", "full"), task("c", "ok")], n_lanes, start, notes)
    assert list(notes.outcomes) == ["a"]


def test_a_process_that_died_while_idle_is_noticed() -> None:
    lane = Lane(start)
    lane.process.kill()
    lane.process.join()
    lane.give(task("a", "ok"), {})
    assert lane.receive() == ("died", "SIGKILL")
    lane.give(task("b", "ok"), {})
    assert lane.receive() == ("done", "ok")
    lane.close()


def test_silence_is_noticed() -> None:
    notes = Notes()
    run_tasks([task("a", "sleep")], 1, start, notes)
    assert notes.outcomes == {"a": "sleep"}
    assert notes.n_waits >= 1


def test_lanes_leave_no_process_behind() -> None:
    run_tasks([task("a", "ok"), task("b", "ok")], 2, start, Notes())
    deadline = time.monotonic() + 5
    while children() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert children() == []


def children() -> list[Any]:
    return multiprocessing.active_children()
