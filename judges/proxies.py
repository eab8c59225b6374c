"""The proxy panel: three judges computed from pixels, for machines without a vision-language model.

They sit behind the same door as any judge, so the default run exercises pairing, reading, consensus and statistics for
real. What they find is no LLM Rank: everything made from them says `proxy panel`.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from judges.coherence import VERSION, WAYS, coherences
from judges.protocol import JudgeError, JudgeKind, Reply

_DECIMALS: Final = 6  # coarser than what a sum in another order changes

_MOST_SEEN: Final = 200_000  # 80 MB

_SEEN: Final[dict[str, Mapping[str, float]]] = {}
"""Scores of all three kinds by hash of the picture: judges of one process read each grid once between them.

Emptied when it is full.
"""


@dataclass(frozen=True)
class ProxyJudge:
    """A judge that calls the grid more coherent whose cells are more alike; the same grids always get the same reply.

    It answers in the paper's JSON. Where both coherences are equal as printed, the answer is "none": a judge cannot say
    tie, so such a reply counts as one that cannot be read.

    Attributes:
        name: What likeness is: a name in `judges.coherence.WAYS`.
        kind: Always "proxy".
        n_at_once: One: it computes, and waits for nobody.
    """

    name: str
    kind: JudgeKind = field(default="proxy", init=False)
    n_at_once: int = field(default=1, init=False)

    def __post_init__(self) -> None:
        if self.name not in WAYS:
            raise ValueError(f"name: got {self.name!r}; expected one of {', '.join(WAYS)}; choose one of these")

    def claims(self) -> Mapping[str, Any]:
        """Name, kind and version of the features: all that the replies follow from."""
        return {"name": self.name, "kind": self.kind, "version": VERSION}

    async def prepare(self) -> Mapping[str, Any]:
        """Its claims; there is nothing to make ready."""
        return self.claims()

    async def compare(self, grid_a: bytes, grid_b: bytes) -> tuple[Reply, ...]:
        """One reply, with both coherences where a judge would give its reasons.

        Raises:
            JudgeError: A grid is no picture.
        """
        a, b = (self.score(grid) for grid in (grid_a, grid_b))
        answer = "none" if a == b else "A" if a > b else "B"
        said = {"reasoning_a": _words(a), "reasoning_b": _words(b), "answer": answer}
        return (Reply(json.dumps(said), finish_reason="stop"),)

    def score(self, grid: bytes) -> float:
        """The coherence of a grid, to six decimals.

        Raises:
            JudgeError: It is no picture.
        """
        key = hashlib.sha256(grid).hexdigest()
        if key not in _SEEN:
            if len(_SEEN) >= _MOST_SEEN:
                _SEEN.clear()
            try:
                _SEEN[key] = {name: round(value, _DECIMALS) for name, value in coherences(grid).items()}
            except ValueError as error:
                raise JudgeError(f"{self.name}: {error}") from error
        return _SEEN[key][self.name]


def _words(score: float) -> str:
    return f"coherence {score:.{_DECIMALS}f}"
