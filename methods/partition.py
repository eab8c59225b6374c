"""Exact partitions of a site's weights: what ELUDe and its controls have in common (ELUDe paper, sections 3.3, 3.4).

An assignment is a 0/1 matrix `owns` (atoms x d_in): which subunits share each input dimension of their parent unit.
Every dimension of every unit has at least one owner, and the owners of one share its weight equally; so the
subunits' weights sum to the unit's. Weights are always rebuilt from the backbone's own: the assignment is all that
a decomposition stores.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torch.nn import functional

from methods.protocol import Activations, Codes, Decomposition, Properties

Owns = UInt8[Tensor, "atoms d_in"]


def n_owners(owns: Owns, unit_of_atom: Int[Tensor, " atoms"], n_units: int) -> Float[Tensor, "units d_in"]:
    """How many subunits share each input dimension of each unit."""
    counts = torch.zeros(n_units, owns.shape[1], dtype=torch.float64, device=owns.device)
    return counts.index_add_(0, unit_of_atom, owns.double())


def subunit_weights(
    owns: Owns,
    unit_of_atom: Int[Tensor, " atoms"],
    weight: Float[Tensor, "units d_in"],
    bias: Float[Tensor, " units"] | None,
) -> tuple[Float[Tensor, "atoms d_in"], Float[Tensor, " atoms"]]:
    """Weight and bias of every subunit: eq. 4 and the bias shares below eq. 5.

    The share of the bias is the mean over dimensions of the fraction that the subunit owns, taken from the
    fractions and never from w / W, so that a weight of zero needs no special case.
    """
    fractions = owns / n_owners(owns, unit_of_atom, weight.shape[0])[unit_of_atom]
    dtype = weight.dtype
    biases = torch.zeros(len(owns), dtype=dtype, device=weight.device)
    if bias is not None:
        biases = (fractions.mean(dim=1) * bias.double()[unit_of_atom]).to(dtype)
    return (fractions * weight.double()[unit_of_atom]).to(dtype), biases


def summed_by_unit(
    codes: Float[Tensor, "*batch atoms"],
    unit_of_atom: Int[Tensor, " atoms"],
    n_units: int,
    signs: Int[Tensor, " atoms"] | None = None,
) -> Float[Tensor, "*batch units"]:
    """The units: the sum of each one's subunits (eq. 6), or what is left where some are taken off (sign -1)."""
    units = codes.new_zeros(*codes.shape[:-1], n_units)
    return units.index_add_(units.ndim - 1, unit_of_atom, codes if signs is None else codes * signs)


class DisentangledLinear(nn.Module):
    """A linear site computed through its subunits, for swapping into a running backbone (paper, B.4 and eq. 8).

    Attributes:
        weight: Subunit weights (atoms x d_in).
        bias: Subunit biases (atoms).
        unit_of_atom: Parent of each subunit.
        n_units: Output width of the site it replaces.
        signs: 1 or -1 for each subunit, as it adds to its parent or is taken off; None where all add.
    """

    weight: Tensor
    bias: Tensor
    unit_of_atom: Tensor
    signs: Tensor | None

    def __init__(
        self, weight: Tensor, bias: Tensor, unit_of_atom: Tensor, n_units: int, signs: Tensor | None = None
    ) -> None:
        super().__init__()
        self.n_units = n_units
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)
        self.register_buffer("unit_of_atom", unit_of_atom)
        self.register_buffer("signs", signs)

    def codes(self, inputs: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch atoms"]:
        """The subunits' activations."""
        return functional.linear(inputs, self.weight, self.bias)

    def forward(self, inputs: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch units"]:
        """The site's outputs, each the sum of its subunits."""
        return summed_by_unit(self.codes(inputs), self.unit_of_atom, self.n_units, self.signs)


class SplitUnits(ABC):
    """The verb `encode` of every method that splits units: the codes are those of its layer."""

    def encode(self, decomposition: Decomposition, activations: Activations) -> Codes:
        """Activations of the parts of units, each as it stands, whether it adds to its unit or is taken off."""
        layer = self.layer(decomposition, activations.needed_weight(), activations.bias)
        return layer.codes(activations.needed_inputs())

    @abstractmethod
    def layer(
        self,
        decomposition: Decomposition,
        weight: Float[Tensor, "units d_in"],
        bias: Float[Tensor, " units"] | None,
    ) -> DisentangledLinear:
        """The layer that stands in the network in place of the site."""


class WeightPartition(SplitUnits):
    """The verbs `encode`, `decode` and `layer` of every method whose decomposition is an assignment `owns`."""

    reads: ClassVar[frozenset[str]] = frozenset({"inputs", "outputs", "weight"})
    properties: ClassVar[Properties] = Properties(
        stable=True, training_free=True, explicit=True, lossless=True, unsupervised=True
    )

    def decode(self, decomposition: Decomposition, codes: Codes) -> Float[Tensor, "tokens units"]:
        """The units: sums of subunits."""
        return summed_by_unit(codes, parents(decomposition), int(decomposition.tensors["clusters_found"].shape[0]))

    def dictionary(
        self, decomposition: Decomposition, weight: Float[Tensor, "units d_in"]
    ) -> Float[Tensor, "atoms d_in"]:
        """The input weights of the subunits; a row of zeros is a dead one."""
        return subunit_weights(decomposition.tensors["owns"], parents(decomposition), weight, None)[0]

    def layer(
        self,
        decomposition: Decomposition,
        weight: Float[Tensor, "units d_in"],
        bias: Float[Tensor, " units"] | None,
    ) -> DisentangledLinear:
        """The layer of rebuilt weights and bias shares."""
        unit_of_atom = parents(decomposition)
        weights, biases = subunit_weights(decomposition.tensors["owns"], unit_of_atom, weight, bias)
        return DisentangledLinear(weights, biases, unit_of_atom, weight.shape[0])


def parents(decomposition: Decomposition) -> Int[Tensor, " atoms"]:
    """The parent unit of each atom.

    Raises:
        ValueError: The decomposition does not split units.
    """
    if decomposition.unit_of_atom is None:
        raise ValueError("unit_of_atom: got None; expected the parent of each atom; this method does not split units")
    return decomposition.unit_of_atom


def partition_decomposition(
    owns_by_unit: list[UInt8[Tensor, "_ d_in"]],
    clusters_found: list[int],
    notes: dict[str, float | int | str | bool],
    **tensors: Tensor,
) -> Decomposition:
    """One decomposition from the assignments of all units, in unit order.

    Args:
        owns_by_unit: The assignment of each unit (its subunits x d_in).
        clusters_found: Clusters found in each unit, before a K of 0 or 1 became one whole unit.
        notes: Facts of the method; dead subunits and the noise are counted here for all.
        **tensors: More tensors to keep.
    """
    owns = torch.cat(owns_by_unit)
    sizes = torch.tensor([len(block) for block in owns_by_unit])
    dead = int((owns.sum(dim=1) == 0).sum())
    return Decomposition(
        n_atoms=len(owns),
        tensors={"owns": owns, "clusters_found": torch.tensor(clusters_found), **tensors},
        unit_of_atom=torch.repeat_interleave(torch.arange(len(sizes)), sizes),
        notes={
            "dead_subunits": dead,
            "whole_units": int((sizes == 1).sum()),
            "most_subunits_of_a_unit": int(sizes.max()),
            **notes,
        },
    )
