"""What a person sees of a long run: bars in a terminal, a plain line every 30 seconds elsewhere, nothing when quiet.

Everything goes to standard error, so that standard output stays the result's.
"""

import sys
import time
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from bench.lanes import Failure, Task
from bench.measuring import Skipped
from bench.sweeps import without_choice

LINE_EVERY_SECONDS = 30.0


class Display:
    """Shows how far a run is; the tasks' own results are somebody else's.

    Attributes:
        is_quiet: Show nothing at all.
    """

    def __init__(self, n_tasks: int, *, is_quiet: bool = False, console: Console | None = None) -> None:
        self.console = console or Console(file=sys.stderr)
        self.is_quiet = is_quiet
        self.n_tasks = n_tasks
        self.n_finished = 0
        self.last_line = time.monotonic()
        self.latest = "starting"
        self.began: dict[str, tuple[str, int, float]] = {}
        self.bars: Progress | None = None
        if not is_quiet and self.console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
            self.bars = Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=self.console)
            self.whole = self.bars.add_task("run", total=n_tasks)
            self.rows: dict[str, Any] = {}

    def of(self, n_tasks: int) -> "Display":
        """The same for so many tasks."""
        self.n_tasks = n_tasks
        if self.bars:
            self.bars.update(self.whole, total=n_tasks)
        return self

    def __enter__(self) -> "Display":
        if self.bars:
            self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bars:
            self.bars.stop()

    def progressed(self, task: Task, what: str, done: int, total: int) -> None:
        """A running task says how far it is."""
        rate = self.rate(task, what, done)
        if self.bars:
            if task.id not in self.rows:
                self.rows[task.id] = self.bars.add_task(task.name)
            text = f"{task.name}: {what}" + (f", {rate:.3g}/s" if rate else "")
            self.bars.update(self.rows[task.id], description=text, completed=done, total=total)
        else:
            pace = f", {rate:.3g}/s, {span((total - done) / rate)} left" if rate else ""
            self.latest = f"{task.name}: {what} {done}/{total}{pace}"
            self.waited()

    def rate(self, task: Task, what: str, done: int) -> float | None:
        """How many are done in a second, since this was first heard of; None before a second has gone by."""
        now = time.monotonic()
        began, first, start = self.began.get(task.id, ("", 0, now))
        if began != what or done < first:
            first, start = done, now
            self.began[task.id] = (what, first, start)
        return (done - first) / (now - start) if done > first and now - start >= 1 else None

    def waited(self) -> None:
        """Time has gone by: without bars, a line is due every 30 seconds, whether anything was reported or not."""
        if not self.bars and time.monotonic() - self.last_line >= LINE_EVERY_SECONDS:
            self.said(f"{self.n_finished}/{self.n_tasks} tasks; {self.latest}")

    def said(self, text: str) -> None:
        """One line for people."""
        if not self.is_quiet:
            self.last_line = time.monotonic()
            self.console.print(f"{time.strftime('%H:%M:%S')} {text}", markup=False, highlight=False, soft_wrap=True)

    def finished(self, task: Task, outcome: Any) -> None:
        """A task is over."""
        self.n_finished += 1
        if self.bars:
            self.bars.update(self.whole, completed=self.n_finished)
            if task.id in self.rows:
                self.bars.remove_task(self.rows.pop(task.id))
        self.said(f"{self.n_finished}/{self.n_tasks} {task.name} {ending(outcome)}")

    def divided(self, task: Task, reason: str) -> None:
        """A task failed, and its parts are done in its place."""
        self.n_tasks += len(task.parts) - 1
        if self.bars:
            self.bars.update(self.whole, total=self.n_tasks)
            if task.id in self.rows:
                self.bars.remove_task(self.rows.pop(task.id))
        self.said(f"{task.name} failed as a whole: {reason}; done one by one")


def span(seconds: float) -> str:
    """A time as people say it."""
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def ending(outcome: Any) -> str:
    """How a task ended; with the reason where it failed or was skipped, or where all variants of its sweep failed."""
    if isinstance(outcome, dict) and (n_failed := sum(isinstance(one, Failure) for one in outcome.values())):
        return f"done, but for {n_failed} of {len(outcome)} that failed" if n_failed < len(outcome) else "failed"
    if isinstance(outcome, Skipped):
        return f"skipped: {outcome.reason}"
    failed = without_choice(outcome) if isinstance(outcome, list) else None
    if isinstance(outcome, Failure):
        failed = outcome.reason
    return "done" if failed is None else f"failed: {failed}"
