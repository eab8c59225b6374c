"""What a rehearsal is asked, and what comes of it."""

from dataclasses import dataclass

from bench.cells import SiteSpec
from bench.lanes import Task
from bench.stopwatch import PhaseBegin
from methods.protocol import Decomposition


@dataclass(frozen=True)
class Chunk:
    """Tasks of one site that are rehearsed in one lane: what they share is made once.

    Attributes:
        site: Their site.
        groups: Tasks of equal work beside each other.
    """

    site: SiteSpec
    groups: tuple[tuple[Task, ...], ...]


@dataclass(frozen=True)
class Findings:
    """What came of a chunk.

    Attributes:
        seconds: What each task will take, by its id.
        reasons: Why there is no such number.
        measuring: What the evaluation of each cell will take, by its id, apart from what it shares.
        sharing_seconds: What all evaluations at the site share: the backbone's pass.
        starting_seconds: What starting the lane took.
        loading_seconds: What loading the data set took.
    """

    seconds: dict[str, float]
    reasons: dict[str, str]
    measuring: dict[str, float]
    sharing_seconds: float
    starting_seconds: float
    loading_seconds: float


@dataclass(frozen=True)
class Hurried:
    """What a method finds in few tokens, and how it went.

    Attributes:
        found: What it found.
        phases: What it reported, and its end.
        scales: For totals that stand for few tokens or images, how many times as large they are in full.
    """

    found: Decomposition
    phases: list[PhaseBegin]
    scales: dict[int, float]
