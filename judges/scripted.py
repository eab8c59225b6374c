"""A judge with set accuracy and position bias: what tests and simulations know the truth of."""

import hashlib
import json
import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from judges.protocol import JudgeKind, Reply


@dataclass(frozen=True)
class ScriptedJudge:
    """Answers by a hidden quality of the grids, with errors of known rates; the same grids get the same answer.

    With probability `invalid` the reply cannot be read. Of the others, a share `position_bias` names A whatever is
    shown (B where it is negative), and the rest names the better grid with probability `accuracy`. So where A is
    better, P(A) = b + (1 - b) * accuracy for a bias b >= 0, and where B is, P(B) = (1 - b) * accuracy. Between equal
    grids the rest is a fair coin. The two orders of a pair are drawn independently.

    Attributes:
        name: What people call it.
        accuracy: Probability of naming the better grid where position does not decide, from 0 to 1.
        position_bias: Share of the readable answers that position decides, from -1 (B) to 1 (A).
        invalid: Share of replies that cannot be read, from 0 to 1.
        seed: Seed of its errors.
        quality: The hidden quality of a grid's PNG; the larger one is more coherent.
        n_at_once: Presentations that it is asked at the same time.
    """

    name: str
    accuracy: float = 1.0
    position_bias: float = 0.0
    invalid: float = 0.0
    seed: int = 0
    quality: Callable[[bytes], float] = field(kw_only=True)
    n_at_once: int = 1
    kind: JudgeKind = field(default="scripted", init=False)

    def __post_init__(self) -> None:
        """Check the rates.

        Raises:
            ValueError: One is no share.
        """
        for option, lowest in (("accuracy", 0.0), ("position_bias", -1.0), ("invalid", 0.0)):
            value = getattr(self, option)
            if not lowest <= value <= 1:
                raise ValueError(f"{option}: got {value}; expected {lowest} to 1; set it there")

    def claims(self) -> Mapping[str, Any]:
        """Its options; it has nothing else."""
        options = ("accuracy", "position_bias", "invalid", "seed")
        return {"kind": self.kind, "name": self.name, **{option: getattr(self, option) for option in options}}

    async def prepare(self) -> Mapping[str, Any]:
        """Its claims; there is nothing to make ready."""
        return self.claims()

    async def compare(self, grid_a: bytes, grid_b: bytes) -> tuple[Reply, ...]:
        """One reply, in the form that the prompt asks for."""
        digests = [hashlib.sha256(grid).digest() for grid in (grid_a, grid_b)]
        key = hashlib.sha256(b"".join([f"{self.name}\n{self.seed}\n".encode(), *digests])).digest()
        rng = random.Random(key)
        is_unreadable, by_position, by_chance = rng.random(), rng.random(), rng.random()
        if is_unreadable < self.invalid:
            return (Reply("I cannot tell.", finish_reason="stop"),)
        better = self.quality(grid_a) - self.quality(grid_b)
        share_right = self.accuracy if better else 0.5
        if by_position < abs(self.position_bias):
            names_a = self.position_bias > 0
        else:
            names_a = (by_chance < share_right) == (math.copysign(1.0, better) > 0)
        answer = {"reasoning_a": "", "reasoning_b": "", "answer": "A" if names_a else "B"}
        return (Reply(json.dumps(answer), finish_reason="stop"),)
