"""The parts of a linear site's units: weights rebuilt from the site's own kernel, and their sum (ELUDe, eq. 4 to 6).

What a decomposition stores of a part is which of its unit's weights it holds. Its weights and bias follow from the
kernel, in whatever dtype that has; so nothing here rounds, and casting a network casts its parts.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int, Integer, UInt8
from torch import Tensor
from torch.nn import functional

Mask = UInt8[Tensor, "atoms d_in"]


@runtime_checkable
class KnownParts(Protocol):
    """What the units of a site were made of, where somebody made them."""

    @property
    def parts(self) -> Float[Tensor, "parts d_in"]:
        """The kernel rows of the parts; those of one unit hold different weights and sum to its kernel row."""
        ...

    @property
    def unit_of_part(self) -> Int[Tensor, " parts"]:
        """The unit that each part is of."""
        ...


@dataclass(frozen=True, eq=False)
class Parts:
    """How every unit of a site is split.

    Attributes:
        holds: 1 where a part holds its unit's weight.
        unit_of_atom: The unit of each part, ascending: the parts of a unit stand beside each other.
        divisors: What a held weight is divided by: the number of its owners where they share it, else 1.
        bias_shares: The share of its unit's bias that each part has.
        signs: 1 or -1 for each part, as it adds to its unit or is taken off; None where all add.
        notes: The decomposition's, which may name the kernel (`methods.seals`).
    """

    holds: Mask
    unit_of_atom: Int[Tensor, " atoms"]
    divisors: Integer[Tensor, "units d_in"]
    bias_shares: Float[Tensor, " atoms"]
    signs: Int[Tensor, " atoms"] | None = None
    notes: Mapping[str, object] = field(default_factory=dict)

    def weights(
        self, weight: Float[Tensor, "units d_in"], bias: Float[Tensor, " units"] | None
    ) -> tuple[Float[Tensor, "atoms d_in"], Float[Tensor, " atoms"]]:
        """Weight and bias of every part, in the kernel's dtype and on its device."""
        tensors = (self.holds, self.unit_of_atom, self.divisors, self.bias_shares)
        holds, unit_of_atom, divisors, shares = (tensor.to(weight.device) for tensor in tensors)
        return part_weights(holds, unit_of_atom, divisors, shares, weight, bias)


def part_weights(
    holds: Mask,
    unit_of_atom: Int[Tensor, " atoms"],
    divisors: Integer[Tensor, "units d_in"],
    bias_shares: Float[Tensor, " atoms"],
    weight: Float[Tensor, "units d_in"],
    bias: Float[Tensor, " units"] | None,
) -> tuple[Float[Tensor, "atoms d_in"], Float[Tensor, " atoms"]]:
    """Weight and bias of these parts; arguments as the attributes of `Parts`, and the site's own kernel and bias.

    Divided in float64 and rounded once. For many parts that happens on the kernel, and a mask is all that is left for
    each of them; for few on the rows that they need.
    """
    rows = unit_of_atom
    if len(rows) < len(weight):
        weights = (weight.index_select(0, rows).double() / divisors.index_select(0, rows)).to(weight.dtype)
    else:
        weights = (weight.double() / divisors).to(weight.dtype).index_select(0, rows)
    weights.mul_(holds)
    if bias is None:
        return weights, weight.new_zeros(len(holds))
    return weights, (bias_shares * bias.double().index_select(0, unit_of_atom)).to(weight.dtype)


def equal_parts(
    owns: Mask, unit_of_atom: Int[Tensor, " atoms"], n_units: int, notes: Mapping[str, object] | None = None
) -> Parts:
    """Parts of which the owners of a weight share it equally (eq. 4), and the bias by what they own (below eq. 5).

    The share of the bias is the mean over dimensions of the fraction that the subunit owns, taken from the fractions
    and never from w / W, so that a weight of zero needs no special case.
    """
    counts = n_owners(owns, unit_of_atom, n_units)
    # A unit's rows at a time would do; by blocks, since in float64 all of them are eight times the masks.
    rows = zip(owns.split(1024), unit_of_atom.split(1024), strict=True)
    shares = [(own / counts[unit].double()).mean(dim=1) for own, unit in rows]
    return Parts(owns, unit_of_atom, counts, torch.cat(shares), None, notes or {})


def n_owners(owns: Mask, unit_of_atom: Int[Tensor, " atoms"], n_units: int) -> Integer[Tensor, "units d_in"]:
    """How many subunits share each input dimension of each unit, in as few bytes as they need."""
    counts = torch.zeros(n_units, owns.shape[1], dtype=torch.int32, device=owns.device)
    counts.index_add_(0, unit_of_atom, owns.to(torch.int32))
    return counts.to(torch.uint8) if int(counts.max()) < 256 else counts


def summed_by_unit(
    codes: Float[Tensor, "*batch atoms"],
    unit_of_atom: Int[Tensor, " atoms"],
    n_units: int,
    signs: Int[Tensor, " atoms"] | None = None,
) -> Float[Tensor, "*batch units"]:
    """The units: the sum of each one's parts (eq. 6), or what is left where some are taken off (sign -1).

    Codes of a unit are added in the order of atoms, which must be that of units. `index_add_` does that on the CPU in
    the time of a copy; on a GPU it adds in any order, or sorts first where torch must be deterministic, so the bags
    of an embedding stand in for it there. A running sum over all atoms (the paper's words on efficiency, section 4.2)
    would lose a digit in float32: the sum of a unit would be a difference of two long ones.
    """
    if signs is not None:
        codes = codes * signs
    if codes.device.type != "cpu":
        return summed_in_bags(codes, unit_of_atom, n_units)
    units = codes.new_zeros(*codes.shape[:-1], n_units)
    return units.index_add_(units.ndim - 1, unit_of_atom, codes)


def summed_in_bags(
    codes: Float[Tensor, "*batch atoms"], unit_of_atom: Int[Tensor, " atoms"], n_units: int
) -> Float[Tensor, "*batch units"]:
    """The same sums, each atom an embedding of all tokens and each unit a bag of those: one pass, in atom order."""
    units = torch.arange(n_units, device=codes.device)
    starts = torch.searchsorted(unit_of_atom, units)
    atoms = torch.arange(codes.shape[-1], device=codes.device)
    tokens = codes.reshape(-1, codes.shape[-1])
    sums: Tensor = functional.embedding_bag(atoms, tokens.t(), starts, mode="sum")
    return sums.t().contiguous().view(*codes.shape[:-1], n_units)


def packed(mask: Mask) -> UInt8[Tensor, "atoms bytes"]:
    """The mask in an eighth of the memory: eight dimensions a byte, the first in the lowest bit."""
    padded: Tensor = functional.pad(mask, (0, -mask.shape[1] % 8)).unflatten(1, (-1, 8))
    return (padded << places(mask)).sum(dim=2, dtype=torch.uint8)


def unpacked(bits: UInt8[Tensor, "atoms bytes"], d_in: int) -> Mask:
    """The mask that was packed: each byte is looked up among the 256 there are, whose eight dimensions are one word."""
    every_byte = torch.arange(256, dtype=torch.uint8, device=bits.device)
    words = ((every_byte[:, None] >> places(bits)) & 1).view(torch.int64).squeeze(1)
    return words[bits.int()].view(torch.uint8)[:, :d_in]


def places(like: Tensor) -> UInt8[Tensor, "8"]:
    """The bits of a byte, lowest first."""
    return torch.arange(8, dtype=torch.uint8, device=like.device)
