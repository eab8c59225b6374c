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
from bench.stages import Skipped
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
        self.bars: Progress | None = None
        if not is_quiet and self.console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
            self.bars = Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=self.console)
            self.whole = self.bars.add_task("run", total=n_tasks)
            self.rows: dict[str, Any] = {}

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
        if self.bars:
            if task.id not in self.rows:
                self.rows[task.id] = self.bars.add_task(task.name)
            self.bars.update(self.rows[task.id], description=f"{task.name}: {what}", completed=done, total=total)
        else:
            self.latest = f"{task.name}: {what} {done}/{total}"
            self.waited()

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


def ending(outcome: Any) -> str:
    """How a task ended; with the reason where it failed or was skipped, or where all variants of its sweep failed."""
    if isinstance(outcome, Skipped):
        return f"skipped: {outcome.reason}"
    failed = without_choice(outcome) if isinstance(outcome, list) else None
    if isinstance(outcome, Failure):
        failed = outcome.reason
    return "done" if failed is None else f"failed: {failed}"
