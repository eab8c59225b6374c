"""What several metrics read off the codes of a batch, made in one go."""

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class CodeSummary:
    """Each image's extremes of every atom's code over the image's tokens.

    Attributes:
        largest: The largest code.
        position: The token where it is found, the first of equal ones.
        smallest: The smallest code.
        n_active: Tokens with a code that is not exactly zero.
    """

    largest: Float[Tensor, "images atoms"]
    position: Int[Tensor, "images atoms"]
    smallest: Float[Tensor, "images atoms"]
    n_active: Int[Tensor, "images atoms"]

    @classmethod
    def of(cls, codes: Float[Tensor, "images tokens atoms"]) -> "CodeSummary":
        """The summary of these codes."""
        largest, position = codes.max(dim=1)  # torch promises the first of equal maxima
        return cls(largest, position, codes.amin(dim=1), (codes != 0).sum(dim=1))
