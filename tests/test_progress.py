"""What a person sees of a run: bars in a terminal, a line now and then elsewhere, nothing when quiet."""

import io

import pytest
from rich.console import Console

from bench import progress
from bench.lanes import Failure, Task
from bench.progress import Display

TASK = Task("a", "shapes: backbone", ("backbone", None, 0))


def console(*, terminal: bool) -> tuple[Console, io.StringIO]:
    file = io.StringIO()
    return Console(file=file, force_terminal=terminal, width=100), file


def test_without_a_terminal_a_line_is_due_every_30_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr("bench.progress.time.monotonic", lambda: clock[0])
    where, file = console(terminal=False)
    with Display(3, console=where) as display:
        for second in range(1, 91):
            clock[0] = 1000.0 + second
            if second == 10:
                display.progressed(TASK, "epochs", 1, 20)
            display.waited()
    lines = file.getvalue().splitlines()
    assert [line[9:] for line in lines] == ["0/3 tasks; shapes: backbone: epochs 1/20"] * 3


def test_what_is_over_is_said_with_its_reason() -> None:
    where, file = console(terminal=False)
    display = Display(2, console=where)
    display.finished(TASK, None)
    display.finished(TASK, Failure("ValueError: no"))
    lines = [line[9:] for line in file.getvalue().splitlines()]
    assert lines == ["1/2 shapes: backbone done", "2/2 shapes: backbone failed: ValueError: no"]


def test_a_terminal_gets_bars() -> None:
    where, file = console(terminal=True)
    with Display(1, console=where) as display:
        display.progressed(TASK, "epochs", 5, 20)
        display.bars.refresh() if display.bars else None
        assert "shapes: backbone: epochs" in file.getvalue()
        assert "5/20" in file.getvalue()
        display.finished(TASK, None)
        assert display.rows == {}


@pytest.mark.parametrize("terminal", [True, False])
def test_quiet_is_quiet(monkeypatch: pytest.MonkeyPatch, terminal: bool) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY_SECONDS", 0.0)
    where, file = console(terminal=terminal)
    with Display(1, is_quiet=True, console=where) as display:
        display.progressed(TASK, "epochs", 5, 20)
        display.said("something")
        display.finished(TASK, None)
    assert file.getvalue() == ""
