"""What a judge is: something that looks at two grids and says which one shows a single concept more clearly."""

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

Choice = Literal["A", "B", "none"]


@dataclass(frozen=True)
class Verdict:
    """One judge's answer to one presentation.

    Attributes:
        choice: The grid that is more coherent, or "none" where the reply names neither.
        reply: The raw text, kept so that a newer reader can read it again.
    """

    choice: Choice
    reply: str


@runtime_checkable
class Judge(Protocol):
    """Compares two grids; each is a PNG of nine exemplars."""

    def compare(self, grid_a: bytes, grid_b: bytes) -> Verdict:
        """Which of the two units is more coherent (ELUDe paper, B.1)."""
        ...
