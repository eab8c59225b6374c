"""What a person sees of a run: bars in a terminal, a line now and then elsewhere, nothing when quiet."""

import io

import pytest
from rich.console import Console

from bench import progress
from bench.lanes import Failure, Task
from bench.measuring import Skipped
from bench.progress import Display
from bench.sweeps import Trial

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


def test_pace_and_time_left_are_of_what_was_done_since_it_began(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("bench.progress.time.monotonic", lambda: clock[0])
    where, file = console(terminal=False)
    display = Display(1, console=where)
    for second, what, done in (
        (0, "units", 68),
        (10, "units", 88),
        (31, "units", 130),
        (40, "pass", 0),
        (62, "pass", 1),
    ):
        clock[0] = float(second)
        display.progressed(TASK, what, done, 768)
    assert [line[9:] for line in file.getvalue().splitlines()] == [
        "0/1 tasks; shapes: backbone: units 130/768, 2/s, 5.3 min left",
        "0/1 tasks; shapes: backbone: pass 1/768, 0.0455/s, 4.7 h left",
    ]


def trial(*, is_chosen: bool, reason: str | None = None) -> Trial:
    return Trial({}, None, None, None, None, is_chosen, 10, reason)


def test_what_is_over_is_said_with_its_reason() -> None:
    where, file = console(terminal=False)
    display = Display(5, console=where)
    diverged = trial(is_chosen=False, reason="loss: got nan")
    for outcome in (
        None,
        Failure("ValueError: no"),
        Skipped("needs labels"),
        [diverged, trial(is_chosen=True)],
        [diverged, diverged],
    ):
        display.finished(TASK, outcome)
    assert [line[9:] for line in file.getvalue().splitlines()] == [
        "1/5 shapes: backbone done",
        "2/5 shapes: backbone failed: ValueError: no",
        "3/5 shapes: backbone skipped: needs labels",
        "4/5 shapes: backbone done",
        "5/5 shapes: backbone failed: none of 2 variants found anything; the first: loss: got nan",
    ]


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
