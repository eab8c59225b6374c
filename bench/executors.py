"""Ray: lanes on many machines, or on this one. The only file that imports it, and only where it is asked for.

A lane is one actor; Ray places it, and gives it its processors or its GPU. Actors are never restarted by Ray: one that
dies is replaced here and its task given again, as with any other lane.
"""

import os
import pickle
import re
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

from bench import UsageError
from bench.lanes import Came, Failure, Kept, Observer, Start, Task, Waiting, attempt, reporting, work_off

TALK_SECONDS = 1.0
"""How long a worker that has nothing to say is listened to at a time."""


@dataclass(frozen=True)
class Cluster:
    """Which cluster, and what part of it.

    Attributes:
        address: As `ray start` printed it, or "auto" for the one that runs on this machine; None starts one here, which
            ends with the run.
        n_workers: How many workers; None takes as many as there is room for.
        n_threads: Processors of each.
        gpus_per_worker: GPUs of each; a worker sees no other. Ray takes a share below 1 too.
    """

    address: str | None = None
    n_workers: int | None = None
    n_threads: int = 1
    gpus_per_worker: float = 0.0

    def __post_init__(self) -> None:
        if self.n_workers is not None and self.n_workers < 1:
            raise UsageError(f"--workers: got {self.n_workers}; expected at least 1 with --engine ray; raise it")


def library() -> Any:
    """Ray, imported; it sends no statistics home.

    Raises:
        UsageError: It is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise UsageError(
            "--engine: got ray, which is not installed; expected the extra of that name; install eludebench[ray], or "
            "use --engine local"
        ) from error
    return ray


def run_on_ray(
    tasks: Sequence[Task],
    start: Start,
    observer: Observer,
    *,
    cluster: Cluster,
    n_workers: int,
    kept: Kept | None = None,
) -> None:
    """Do all tasks on a cluster, each after what it needs; a task whose need failed fails with that reason.

    Args:
        tasks: What is to be done.
        start: Makes, inside each worker, what does the work.
        observer: Told what happens, in this process.
        cluster: Which, and what a worker takes.
        n_workers: How many.
        kept: Where what comes of tasks is put by; what is there already is not done again.

    Raises:
        StorageError: A worker could not write; nothing more is started.
    """
    waiting = Waiting(tasks, observer, kept)
    work_off(waiting, Actors(library(), cluster, min(n_workers, len(waiting.rest)), start, kept))


class Worker:
    """The life of a lane's process, as an actor: one thread works, another passes on what is said meanwhile."""

    def __init__(self, start: bytes) -> None:
        self.begin = start
        self.task = ""
        self.work: Callable[[Any, Came], Any] | None = None
        self.kept: Kept | None = None
        self.said: SimpleQueue[tuple[str, str, Any]] = SimpleQueue()

    def perform(self, task: str, given: bytes) -> tuple[str, Any]:
        """Do a task; what is handed over is unpacked here, since plugins have to be loaded before."""
        self.task = task
        if self.work is None:
            start, self.kept = pickle.loads(self.begin)
            self.work = start(reporting(self.put), lambda text: self.put(("said", text)))
        payload, came = pickle.loads(given)
        return attempt(self.work, task, payload, came, self.kept)

    def put(self, message: tuple[str, Any]) -> None:
        """Say something of the task that is done."""
        self.said.put((self.task, *message))

    def heard(self) -> list[tuple[str, str, Any]]:
        """What was said within a second, the newest progress alone: the task, what kind of thing, and the thing."""
        lines: list[tuple[str, str, Any]] = []
        progress: list[tuple[str, str, Any]] = []
        try:
            message = self.said.get(timeout=TALK_SECONDS)
            time.sleep(TALK_SECONDS / 2)  # many workers are listened to by one process
            while True:
                if message[1] == "progress":
                    progress = [message]
                else:
                    lines.append(message)
                message = self.said.get_nowait()
        except Empty:
            return [*lines, *progress]


class Actors:
    """Lanes that are actors of a cluster."""

    def __init__(self, ray: Any, cluster: Cluster, n: int, start: Start, kept: Kept | None) -> None:
        self.ray = ray
        self.n = n
        self.start = pickle.dumps((start, kept))
        self.made = ray.remote(
            num_cpus=cluster.n_threads,
            num_gpus=cluster.gpus_per_worker,
            max_restarts=0,
            max_task_retries=0,
            concurrency_groups={"talk": 1},
            scheduling_strategy="SPREAD",
        )(Worker)
        self.actors = [self.made.remote(self.start) for _ in range(n)]
        self.tasks = [""] * n
        self.doing: dict[Any, int] = {}
        self.talking: dict[Any, int] = {}

    def give(self, lane: int, task: Task, came: Came) -> None:
        """Have a lane do a task."""
        given = pickle.dumps((task.payload, dict(came)))
        self.tasks[lane] = task.id
        self.doing[self.actors[lane].perform.remote(task.id, given)] = lane

    def heard(self, busy: Collection[int]) -> list[tuple[int, str, Any]]:
        """What lanes say: those that talk first, then those that are done or dead."""
        for lane in set(busy) - set(self.talking.values()):
            call = self.actors[lane].heard.options(concurrency_group="talk")
            self.talking[call.remote()] = lane
        calls = [*self.doing, *self.talking]
        if not calls:
            time.sleep(TALK_SECONDS)
            return []
        self.ray.wait(calls, timeout=TALK_SECONDS)
        ready, _ = self.ray.wait(calls, num_returns=len(calls), timeout=0)
        found: list[tuple[int, str, Any]] = []

        def is_news(kind: str, task: str, lane: int) -> bool:
            return kind == "said" or (lane in busy and self.tasks[lane] == task)

        for call in [one for one in ready if one in self.talking]:
            lane = self.talking.pop(call)
            found += [(lane, *rest) for task, *rest in self.words(call) if is_news(rest[0], task, lane)]
        for call in [one for one in ready if one in self.doing]:
            found.append(self.ended(call, self.doing.pop(call)))
        return found

    def words(self, call: Any) -> list[tuple[str, str, Any]]:
        """What a worker said; nothing of one that died, which shows where its task ends."""
        try:
            return list(self.ray.get(call))
        except self.ray.exceptions.RayError:
            return []

    def ended(self, call: Any, lane: int) -> tuple[int, str, Any]:
        """What came of a task; where its worker died there is another now."""
        try:
            return lane, *self.ray.get(call)
        except self.ray.exceptions.RayTaskError as error:
            return lane, "done", Failure(last_line(error), str(error))
        except self.ray.exceptions.RayError as error:
            self.ray.kill(self.actors[lane])  # it may live on where it only was out of reach
            self.actors[lane] = self.made.remote(self.start)
            self.talking = {one: other for one, other in self.talking.items() if other != lane}
            return lane, "died", how_it_died(error)

    def close(self) -> None:
        """End all of them."""
        for actor in self.actors:
            self.ray.kill(actor)


def how_it_died(error: Exception) -> str:
    """What Ray says of the end of a process, without its advice."""
    text = " ".join(str(error).split())
    exit_type, detail = re.search(r"exit type: (\w+)", text), re.search(r"exit detail: ([^.]*)", text)
    said = ", ".join(found.group(1) for found in (exit_type, detail) if found)
    return f"{type(error).__name__}: {said or text[:200]}"


def last_line(error: Exception) -> str:
    """What an error that came from another process comes down to."""
    return next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)
