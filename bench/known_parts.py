"""What is known of a site that was made of parts: the `metrics.protocol.Truth` and `methods.parts.KnownParts` of it."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class KnownParts:
    """Of what the units of a site were made.

    Attributes:
        names: The concepts.
        parts: The kernel row of each part.
        unit_of_part: The unit that it is of.
        concept_of_part: The concept that it answers to.
    """

    names: tuple[str, ...]
    parts: Float[Tensor, "parts d_in"]
    unit_of_part: Int[Tensor, " parts"]
    concept_of_part: Int[Tensor, " parts"]


def cut(
    kernel: Float[Tensor, "units d_in"],
    owner: Int[Tensor, "units d_in"],
    unit_of_part: Int[Tensor, " parts"],
    concept_of_part: Int[Tensor, " parts"],
    names: tuple[str, ...],
) -> KnownParts:
    """A kernel's rows cut up by the part that owns each weight, so that the parts of a unit sum to its row exactly."""
    holds = owner[unit_of_part] == torch.arange(len(unit_of_part))[:, None]
    return KnownParts(names, kernel[unit_of_part] * holds, unit_of_part, concept_of_part)
