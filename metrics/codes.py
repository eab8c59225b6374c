"""What several metrics read off the codes of a batch, made in one go.

Codes are most of what an evaluation holds (40 images of 257 tokens and 6,144 atoms are 253 MB), so they are read from
memory once: a few tokens stay in the processor's cache while everything is taken of them. Two things about torch shape
the rest. Comparing into floats is faster than into booleans. And `max` with indices is far dearer than `amax`, so
positions are looked up afterwards: first which group of neighbouring tokens has the largest code, then
where in that group it is.
"""

import math
from dataclasses import dataclass
from typing import Final

import torch
from jaxtyping import Float, Int
from torch import Tensor

CACHED: Final = 2**16  # codes looked at together on a CPU: 256 KiB, and as much again for what is made of them
LAUNCHED: Final = 2**26  # the same on a GPU, where fewer and larger calls count for more than a cache


@dataclass(frozen=True)
class CodeSummary:
    """Each image's extremes of every atom's code over the image's tokens.

    Where a code is NaN, both extremes of its atom and image are, and the position is the first such token.

    Attributes:
        largest: The largest code.
        position: The token where it is found, the first of equal ones.
        smallest: The smallest code.
        n_active: Tokens with a code that is not exactly zero.
        n_tokens: Tokens an image.
    """

    largest: Float[Tensor, "images atoms"]
    position: Int[Tensor, "images atoms"]
    smallest: Float[Tensor, "images atoms"]
    n_active: Int[Tensor, "images atoms"]
    n_tokens: int

    @classmethod
    def of(cls, codes: Float[Tensor, "images tokens atoms"]) -> "CodeSummary":
        """The summary of these codes, of at least one token an image; counts and positions are int32."""
        n_images, n_tokens, n_atoms = codes.shape
        largest, smallest = codes.new_empty(n_images, n_atoms), codes.new_empty(n_images, n_atoms)
        position, n_active = (codes.new_empty(n_images, n_atoms, dtype=torch.int32) for _ in range(2))
        group = math.isqrt(n_tokens)
        n_elements = CACHED if codes.device.type == "cpu" else LAUNCHED
        n_at_once = max(1, n_elements // max(1, group * n_atoms))
        for start in range(0, n_images, n_at_once):
            some = slice(start, start + n_at_once)
            groups = _Groups.of(codes[some], group)
            torch.amax(groups.largest, dim=1, out=largest[some])
            torch.amin(groups.smallest, dim=1, out=smallest[some])
            n_active[some] = groups.n_active.sum(dim=1)
            position[some] = groups.first(codes[some], largest[some], group)
        has_nan = largest.isnan().any(dim=1)
        if has_nan.any():  # NaN equals nothing, so that it was not found above
            position[has_nan] = codes[has_nan].max(dim=1).indices.int()
        return cls(largest, position, smallest, n_active, n_tokens)


@dataclass(frozen=True)
class _Groups:
    """The same over groups of neighbouring tokens.

    Attributes:
        largest: The largest code of the group.
        smallest: The smallest one.
        n_active: Codes of the group that are not zero, a whole number.
    """

    largest: Float[Tensor, "images groups atoms"]
    smallest: Float[Tensor, "images groups atoms"]
    n_active: Float[Tensor, "images groups atoms"]

    @classmethod
    def of(cls, codes: Float[Tensor, "images tokens atoms"], group: int) -> "_Groups":
        """What there is in each `group` tokens and in the rest that is left at the end."""
        n_images, n_tokens, n_atoms = codes.shape
        shape = n_images, -(-n_tokens // group), n_atoms
        groups = cls(codes.new_empty(shape), codes.new_empty(shape), codes.new_empty(shape, dtype=torch.float32))
        flags = codes.new_empty((n_images, group, n_atoms), dtype=torch.float32)
        for index, some in enumerate(codes.split(group, dim=1)):
            is_active = torch.ne(some, 0, out=flags[:, : some.shape[1]])
            torch.sum(is_active, dim=1, out=groups.n_active[:, index])
            torch.amax(some, dim=1, out=groups.largest[:, index])
            torch.amin(some, dim=1, out=groups.smallest[:, index])
        return groups

    def first(
        self, codes: Float[Tensor, "images tokens atoms"], largest: Float[Tensor, "images atoms"], group: int
    ) -> Int[Tensor, "images atoms"]:
        """The first token that has the largest code; of no meaning where that is NaN."""
        # The rest at the end is looked through with tokens before it, in none of which the largest code is found.
        start = (_first(self.largest, largest) * group).clamp_(max=codes.shape[1] - group)
        tokens = start[:, None] + torch.arange(group, device=codes.device)[:, None]
        return start + _first(codes.gather(1, tokens), largest)


def _first(
    values: Float[Tensor, "images several atoms"], sought: Float[Tensor, "images atoms"]
) -> Int[Tensor, "images atoms"]:
    """The first index at which the sought value is found; the last one where it is nowhere."""
    n = values.shape[1]
    from_the_end = torch.arange(n, 0, -1, dtype=torch.float32, device=values.device)[:, None]
    is_found = torch.eq(values, sought[:, None], out=torch.empty_like(values, dtype=torch.float32))
    return n - is_found.mul_(from_the_end).amax(dim=1).clamp_(min=1).long()
