"""The stopwatch that a rehearsed stage reports to: where the rest would take long, it adds it and ends the stage.

What the rest takes follows from the pace seen so far: of the steps that are reported, and of the batches that are
handed out. The first step and the first batch of a pass are slower than the others and no measure.
"""

import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn

PATIENCE_SECONDS = 0.3
"""How long a pace is looked at; a rest that takes no longer than that is worked to its end."""

LONG_STEP = 4
"""A first step that takes so many times the patience has to do as a measure."""

Clock = Callable[[], float]
"""Seconds from anywhere."""

PhaseBegin = tuple[str, int, float]
"""What a stage reported, its total, and the stopwatch's seconds when it did so first."""


class Seen(BaseException):
    """Enough has been seen. No `Exception`: no method shall take it for a failure of its own."""


@dataclass
class Phase:
    """A stretch of work that reports one total.

    Attributes:
        what: What is done.
        total: How many steps of it there are.
        first: Steps done when it was first reported.
        done: Steps done when it was last reported.
        mark: From where its pace is measured: steps done, the stopwatch's seconds, and the clock.
        n_batches: Batches that had been handed out when it was first reported.
        is_in_pass: That was between two batches of one pass.
        is_warm: The first step is over, and the mark behind it.
        counts_batches: Every report so far fits that a step is a batch.
    """

    what: str
    total: int
    first: int
    done: int
    mark: tuple[int, float, float]
    n_batches: int
    is_in_pass: bool
    is_warm: bool = False
    counts_batches: bool = True


@dataclass
class Pace:
    """How fast batches of one kind are worked; the first of each pass is left out, as long as there are others.

    Attributes:
        n: How many were measured.
        seconds: What they took, on the stopwatch.
        first: What the last first one took.
        is_known: It has been looked at for long enough.
    """

    n: int = 0
    seconds: float = 0.0
    first: float = 0.0
    is_known: bool = False

    @property
    def mean(self) -> float:
        """Seconds of a batch."""
        return self.seconds / self.n if self.n else self.first


class Stopwatch:
    """Measures one stage: real seconds, and those of what was left out.

    Args:
        patience: Seconds after which a pace is believed; infinite to measure without ending anything.
        clock: Tests have their own.

    Attributes:
        phases: What was reported, its total, and the stopwatch's seconds when it began.
        has_ended: The stage was ended before its own end.
    """

    def __init__(self, patience: float = PATIENCE_SECONDS, clock: Clock = time.perf_counter) -> None:
        self.patience = patience
        self.clock = clock
        self.began = clock()
        self.left_out = 0.0
        self.phase: Phase | None = None
        self.phases: list[PhaseBegin] = []
        self.paces: dict[tuple[int, bool], Pace] = {}
        self.n_batches = 0
        self.is_in_pass = False
        self.has_ended = False

    @property
    def seconds(self) -> float:
        """What the stage would have taken up to here."""
        return self.clock() - self.began + self.left_out

    def leave_out(self, seconds: float) -> None:
        """Something that takes so long was not done."""
        self.left_out += seconds

    def report(self, what: str, done: int, total: int) -> None:
        """A stage says how far it is.

        Raises:
            Seen: The rest would take long, and has been added.
        """
        phase, mark = self.phase, (done, self.seconds, self.clock())
        if phase is None or (phase.what, phase.total) != (what, total) or done < phase.done:
            self.phase = Phase(what, total, done, done, mark, self.n_batches, self.is_in_pass)
            self.phases.append((what, total, self.seconds))
            return
        phase.counts_batches &= done - phase.first == self.n_batches - phase.n_batches
        phase.done = done
        if done > phase.first and not phase.is_warm:
            phase.is_warm = True
            if mark[2] - phase.mark[2] < LONG_STEP * self.patience:
                phase.mark = mark
        if done > phase.mark[0]:
            before = phase.mark
            self.end_if_long(done - before[0], mark[1] - before[1], mark[2] - before[2], total - done)

    def end_if_long(self, steps: int, seconds: float, real: float, left: int) -> None:
        """Add the rest and end the stage, where its pace is known and its rest is long.

        Raises:
            Seen: It is so.
        """
        if real >= self.patience and real / steps * left > self.patience:
            self.end(seconds / steps * left)

    def end(self, left: float) -> NoReturn:
        """End the stage, of which so many seconds are left.

        Raises:
            Seen: Always.
        """
        self.leave_out(left)
        self.has_ended = True
        raise Seen

    def handed_out(self, total: int, size: int, is_shuffled: bool) -> Iterator[int]:
        """The batches of a pass that are handed out, by number; each is measured until the next is asked for.

        Raises:
            Seen: The reports of this phase count batches, and what is left of them would take long.
        """
        pace = self.paces.setdefault((size, is_shuffled), Pace())
        self.is_in_pass = True
        try:
            for index in range(total):
                self.n_batches += 1
                seconds, real = self.seconds, self.clock()
                yield index
                seconds, real = self.seconds - seconds, self.clock() - real
                if index:
                    pace.n, pace.seconds = pace.n + 1, pace.seconds + seconds
                else:
                    pace.first = seconds
                pace.is_known |= pace.seconds >= self.patience or (not pace.n and real >= LONG_STEP * self.patience)
                if pace.is_known and self.ends_with(pace, total, total - index - 1):
                    return
        finally:
            self.is_in_pass = False

    def ends_with(self, pace: Pace, total: int, left: int) -> bool:
        """Whether a pass of so many batches ends here; those that are left are added.

        Raises:
            Seen: As in `handed_out`.
        """
        phase = self.phase
        if phase is not None and phase.is_in_pass and phase.counts_batches:
            # It was reported with its first batch handed out, and that is now worked too.
            rest = phase.total - phase.first - (self.n_batches - phase.n_batches) - 1
            if rest > left and phase.total % total == 0 and pace.mean * rest > self.patience:
                self.end(pace.mean * rest)
        if pace.mean * left <= self.patience:
            return False
        self.leave_out(pace.mean * left)
        return True


def timed(act: Callable[[], object], watch: Stopwatch) -> float:
    """Seconds that something takes that has the stopwatch."""
    with suppress(Seen):
        act()
    return watch.seconds


def later(watch: Stopwatch, hurried: Sequence[PhaseBegin], scales: Mapping[int, float]) -> float:
    """Seconds of the phases that come after the one in which a stage was ended, as a hurried rehearsal met them.

    Args:
        watch: The stopwatch of the stage; its last phase is the one in which it ended.
        hurried: The phases of the same stage on little, and its end.
        scales: For totals that stand for little, how many times as large they are in full.
    """
    names = [what for what, _, _ in hurried]
    if not watch.has_ended or watch.phase is None or watch.phase.what not in names:
        return 0.0
    rest = hurried[len(names) - names[::-1].index(watch.phase.what) :]
    spans = itertools.pairwise(rest)
    return math.fsum((end - began) * scales.get(total, 1.0) for (_, total, began), (_, _, end) in spans)
