"""Exact partitions of a site's weights: what ELUDe and its controls have in common (ELUDe paper, sections 3.3, 3.4).

An assignment is a 0/1 matrix `owns` (atoms x d_in): which subunits share each input dimension of their parent unit.
Every dimension of every unit has at least one owner, and the owners of one share its weight equally; so the
subunits' weights sum to the unit's. Weights are always rebuilt from the backbone's own: the assignment is all that
a decomposition stores.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torch.nn import functional

from methods.layer import DisentangledLayer
from methods.parts import Parts, equal_parts, summed_by_unit
from methods.protocol import Activations, Codes, Decomposition, Dictionaries, Properties
from methods.seals import check_seal


class SplitUnits(ABC):
    """The verbs of every method that splits units: its codes and its layer follow from its parts."""

    @abstractmethod
    def parts(self, decomposition: Decomposition) -> Parts:
        """How the units are split, for `methods.surgery.disentangle`."""

    def encode(self, decomposition: Decomposition, activations: Activations) -> Codes:
        """Activations of the parts, each as it stands, whether it adds to its unit or is taken off."""
        weights, biases = self.built(decomposition, activations.needed_weight(), activations.bias)
        return functional.linear(activations.needed_inputs(), weights, biases)

    def layer(
        self,
        decomposition: Decomposition,
        weight: Float[Tensor, "units d_in"],
        bias: Float[Tensor, " units"] | None,
    ) -> DisentangledLayer:
        """The layer that sums the parts in place of the site."""
        return DisentangledLayer(linear_of(weight, bias), self.parts(decomposition), "sum")

    def dictionaries(self, decomposition: Decomposition, weight: Float[Tensor, "units d_in"]) -> Dictionaries:
        """The parts' weights are "input"; "output" is what each adds to the units: 1 (-1 if taken off) at its own.

        A part whose weights are all zero is dead: a row of zeros in both. Dense, both of them: 24,576 parts of 3,072
        units are 300 MB in float32.
        """
        parts = self.parts(decomposition)
        rows = parts.weights(weight, None)[0]
        is_alive = (rows != 0).any(dim=1)
        signs = is_alive if parts.signs is None else is_alive * parts.signs.to(is_alive.device)
        outputs = weight.new_zeros(len(rows), len(weight))
        outputs.scatter_(1, parts.unit_of_atom.to(weight.device)[:, None], signs.to(weight)[:, None])
        return {"output": outputs, "input": rows}

    def built(
        self,
        decomposition: Decomposition,
        weight: Float[Tensor, "units d_in"],
        bias: Float[Tensor, " units"] | None,
    ) -> tuple[Float[Tensor, "atoms d_in"], Float[Tensor, " atoms"]]:
        """Weights and biases of the parts, built once and kept as long as the decomposition lives.

        `encode` is handed one batch after the other with the same kernel, and building costs more than comparing. The
        result follows from the arguments alone: another kernel is noticed by its values, and built anew.

        Raises:
            ValueError: The kernel is not the one that the decomposition was made from.
        """
        kept = _BUILT.get(decomposition)
        if kept is None or not kept.is_from(weight, bias):
            check_seal(decomposition.notes, weight, bias, "the site")
            with torch.inference_mode(False):  # what is kept may be asked for outside inference mode next time
                own, own_bias = weight.detach().clone(), None if bias is None else bias.detach().clone()
                kept = Built(own, own_bias, self.parts(decomposition).weights(own, own_bias))
            _BUILT[decomposition] = kept
        return kept.parts


class WeightPartition(SplitUnits):
    """The verbs `encode`, `decode` and `layer` of every method whose decomposition is an assignment `owns`."""

    reads: ClassVar[frozenset[str]] = frozenset({"inputs", "outputs", "weight"})
    properties: ClassVar[Properties] = Properties(
        stable=True, training_free=True, explicit=True, lossless=True, unsupervised=True
    )

    def parts(self, decomposition: Decomposition) -> Parts:
        """How the units are split, for `methods.surgery.disentangle`."""
        n_units = len(decomposition.tensors["clusters_found"])
        return equal_parts(decomposition.tensors["owns"], parents(decomposition), n_units, decomposition.notes)

    def decode(self, decomposition: Decomposition, codes: Codes) -> Float[Tensor, "tokens units"]:
        """The units: sums of subunits."""
        unit_of_atom = parents(decomposition).to(codes.device)
        return summed_by_unit(codes, unit_of_atom, len(decomposition.tensors["clusters_found"]))


@dataclass(frozen=True, eq=False)
class Built:
    """The weights and biases of parts, and copies of the kernel and bias that they were built from."""

    weight: Float[Tensor, "units d_in"]
    bias: Float[Tensor, " units"] | None
    parts: tuple[Float[Tensor, "atoms d_in"], Float[Tensor, " atoms"]]

    def is_from(self, weight: Float[Tensor, "units d_in"], bias: Float[Tensor, " units"] | None) -> bool:
        """Whether these are that kernel and bias: dtype, device, every value."""
        if (bias is None) != (self.bias is None):
            return False
        pairs = [(self.weight, weight)] + ([] if bias is None or self.bias is None else [(self.bias, bias)])
        alike = all(one.dtype == other.dtype and one.device == other.device for one, other in pairs)
        return alike and all(torch.equal(one, other) for one, other in pairs)


_BUILT: WeakKeyDictionary[Decomposition, Built] = WeakKeyDictionary()


def linear_of(weight: Float[Tensor, "units d_in"], bias: Float[Tensor, " units"] | None) -> nn.Linear:
    """The layer of this kernel and bias, frozen."""
    units, d_in = weight.shape
    layer = nn.Linear(d_in, units, bias is not None, device="meta")
    layer.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        layer.bias = nn.Parameter(bias, requires_grad=False)
    return layer


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
