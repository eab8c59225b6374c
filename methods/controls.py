"""Controls: what a method must beat before its numbers mean anything.

`Backbone` is the neuron basis itself; `RandomPartition` splits the weights at random into as many parts per unit as
ELUDe found (Table 7 of the ELUDe paper), so that a gain over it comes from the clusters and not from the splitting.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from methods.partition import WeightPartition, parents, partition_decomposition
from methods.protocol import Activations, ActivationSource, Codes, Decomposition, Properties


@dataclass(frozen=True)
class Backbone:
    """The backbone's own units, unchanged: every unit is one atom."""

    reads: ClassVar[frozenset[str]] = frozenset({"outputs"})
    properties: ClassVar[Properties] = Properties(
        stable=True, training_free=True, explicit=True, lossless=True, unsupervised=True
    )
    version: ClassVar[int] = 1

    def decompose(self, activations: ActivationSource, *, seed: int) -> Decomposition:
        """One atom per unit."""
        units = activations.read(slice(0, 1)).outputs.shape[1]
        return Decomposition(n_atoms=units, tensors={}, unit_of_atom=torch.arange(units))

    def encode(self, decomposition: Decomposition, activations: Activations) -> Codes:
        """The outputs."""
        return activations.outputs

    def decode(self, decomposition: Decomposition, codes: Codes) -> Float[Tensor, "tokens units"]:
        """The codes."""
        return codes


@dataclass(frozen=True)
class RandomPartition(WeightPartition):
    """Each input dimension of a unit goes to one of K random parts, K as the followed method found.

    Attributes:
        like: Label, in the suite, of the method whose numbers of parts are copied.
    """

    like: str = "elude"

    properties: ClassVar[Properties] = Properties(
        stable=False, training_free=True, explicit=True, lossless=True, unsupervised=True
    )
    version: ClassVar[int] = 1

    def decompose(self, activations: ActivationSource, *, seed: int) -> Decomposition:
        """Never: the number of parts must come from somewhere.

        Raises:
            ValueError: Always; the suite's method `like` comes first, then `decompose_like`.
        """
        raise ValueError(f"like: {self.like!r} was not decomposed first; expected that; use decompose_like")

    def decompose_like(self, activations: ActivationSource, leader: Decomposition, *, seed: int) -> Decomposition:
        """A random assignment with the leader's number of parts per unit; the same seed, the same assignment."""
        weight = activations.read(slice(0, 1)).needed_weight()
        parts = torch.bincount(parents(leader), minlength=weight.shape[0]).tolist()
        rng = np.random.default_rng(seed)
        owns = []
        for k in parts:
            part = rng.integers(k, size=weight.shape[1])
            owns.append(torch.from_numpy((part[None, :] == np.arange(k)[:, None]).astype(np.uint8)))
        return partition_decomposition(owns, parts, {"parts_like": self.like})
