"""Controls: what a method must beat before its numbers mean anything.

`Backbone` is the neuron basis itself; `RandomPartition` splits the weights at random into as many parts per unit as
ELUDe found (Table 7 of the ELUDe paper), so that a gain over it comes from the clusters and not from the splitting.
`PlantedTruth` is the other end: the split that a network was made of, which no metric of splits may rank below chance.
`PCA` and `RandomDirections` are two more bases: the one that variance alone gives, and one that nothing gives.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from methods.partition import WeightPartition, parents, partition_decomposition
from methods.protocol import Activations, ActivationSource, Codes, Decomposition, Dictionaries, Properties
from methods.seals import seal

BATCH_TOKENS = 65_536
"""Tokens that are looked at together where all of them are streamed."""


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

    def dictionaries(self, decomposition: Decomposition, weight: Float[Tensor, "units d_in"]) -> Dictionaries:
        """The axes of the unit space are "output"; the kernel's rows, as the weights of whole units, "input"."""
        return {"output": torch.eye(decomposition.n_atoms, dtype=weight.dtype, device=weight.device), "input": weight}


@dataclass(frozen=True)
class PCA:
    """All principal components of the outputs, the one with the largest variance first: a rotation about the mean.

    A component's sign is open; the entry that is largest in size (the first of equal ones) is made positive.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"outputs"})
    properties: ClassVar[Properties] = Properties(
        stable=True, training_free=True, explicit=True, lossless=True, unsupervised=True
    )
    version: ClassVar[int] = 1

    def decompose(self, activations: ActivationSource, *, seed: int) -> Decomposition:
        """As many orthonormal directions as there are units, in float64; two passes over the tokens.

        Raises:
            ValueError: Activations are not finite.
        """
        n = activations.n_tokens
        mean = (
            torch.stack([batch.outputs.double().sum(dim=0) for batch in activations.batches(BATCH_TOKENS)]).sum(0) / n
        )
        if not torch.isfinite(mean).all():
            raise ValueError("outputs: got a value that is not finite; expected finite activations; check the site")
        moments = torch.zeros(len(mean), len(mean), dtype=mean.dtype, device=mean.device)
        for batch in activations.batches(BATCH_TOKENS):
            x = batch.outputs.double() - mean
            moments += x.T @ x
        variances, vectors = torch.linalg.eigh(moments / n)
        directions = vectors.T.flip(0)
        largest = directions.gather(1, directions.abs().argmax(dim=1, keepdim=True))
        return Decomposition(
            n_atoms=len(mean),
            tensors={
                "directions": (directions * largest.sign()).contiguous(),
                "mean": mean,
                "variances": variances.flip(0).clamp_min(0),
            },
        )

    def encode(self, decomposition: Decomposition, activations: Activations) -> Codes:
        """Coordinates along the components, from the mean."""
        x = activations.outputs
        return (x - decomposition.tensors["mean"].to(x)) @ decomposition.tensors["directions"].to(x).T

    def decode(self, decomposition: Decomposition, codes: Codes) -> Float[Tensor, "tokens units"]:
        """Rotated back."""
        return codes @ decomposition.tensors["directions"].to(codes) + decomposition.tensors["mean"].to(codes)

    def dictionaries(self, decomposition: Decomposition, weight: Float[Tensor, "units d_in"]) -> Dictionaries:
        """The components are "output"."""
        return {"output": decomposition.tensors["directions"]}


@dataclass(frozen=True)
class RandomDirections:
    """Gaussian directions of unit length, more than there are units; codes are projections on them.

    They span the unit space, so their dual frame gives the outputs back, up to rounding.

    Attributes:
        expansion_factor: Atoms per unit of the site, at least 1.
    """

    expansion_factor: float = 8.0

    reads: ClassVar[frozenset[str]] = frozenset({"outputs"})
    properties: ClassVar[Properties] = Properties(
        stable=False, training_free=True, explicit=True, lossless=True, unsupervised=True
    )
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if self.expansion_factor < 1:
            raise ValueError(f"expansion_factor: got {self.expansion_factor}; expected at least 1; raise it")

    def decompose(self, activations: ActivationSource, *, seed: int) -> Decomposition:
        """The directions and their dual frame, in float64; of the activations only the width matters."""
        units = activations.read(slice(0, 1)).outputs.shape[1]
        n_atoms = round(self.expansion_factor * units)
        drawn = torch.randn(n_atoms, units, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        directions = drawn / drawn.norm(dim=1, keepdim=True)
        dual = torch.linalg.pinv(directions).T.contiguous()
        return Decomposition(n_atoms=n_atoms, tensors={"directions": directions, "dual": dual})

    def encode(self, decomposition: Decomposition, activations: Activations) -> Codes:
        """Projections on the directions."""
        return activations.outputs @ decomposition.tensors["directions"].to(activations.outputs).T

    def decode(self, decomposition: Decomposition, codes: Codes) -> Float[Tensor, "tokens units"]:
        """The codes' combination of the dual frame."""
        return codes @ decomposition.tensors["dual"].to(codes)

    def dictionaries(self, decomposition: Decomposition, weight: Float[Tensor, "units d_in"]) -> Dictionaries:
        """The directions are "output"."""
        return {"output": decomposition.tensors["directions"]}


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
        tokens = activations.read(slice(0, 1))
        weight = tokens.needed_weight()
        parts = torch.bincount(parents(leader), minlength=weight.shape[0]).tolist()
        rng = np.random.default_rng(seed)
        owns = []
        for k in parts:
            part = rng.integers(k, size=weight.shape[1])
            owns.append(torch.from_numpy((part[None, :] == np.arange(k)[:, None]).astype(np.uint8)))
        return partition_decomposition(owns, parts, {"parts_like": self.like, **seal(weight, tokens.bias)})


@dataclass(frozen=True)
class PlantedTruth(WeightPartition):
    """The parts that the site's units were made of, where that is known: what a perfect method would find."""

    reads: ClassVar[frozenset[str]] = WeightPartition.reads | {"truth"}
    version: ClassVar[int] = 1

    def decompose(self, activations: ActivationSource, *, seed: int) -> Decomposition:
        """The known parts; a weight of zero, which is in none of them, is shared by all parts of its unit.

        Raises:
            LookupError: Nobody knows the parts.
            ValueError: They are no partition of the site's kernel.
        """
        if activations.truth is None:
            raise LookupError("truth: got none; expected the parts of the units; choose a planted network")
        tokens = activations.read(slice(0, 1))
        weight = tokens.needed_weight()
        known, unit_of_part = activations.truth.parts.to(weight), activations.truth.unit_of_part
        blocks, counts = [], []
        for unit, row in enumerate(weight):
            parts = known[unit_of_part == unit]
            holds = parts != 0
            if not (len(parts) and torch.equal(parts, row * holds) and torch.equal(holds.sum(dim=0) > 0, row != 0)):
                what = f"its {len(parts)} parts do not hold each nonzero weight of unit {unit} as it is"
                raise ValueError(f"truth: {what}; expected a partition of the kernel; choose another site")
            if bool((holds.sum(dim=0) > 1).any()):
                what = f"two parts hold one weight of unit {unit}"
                raise ValueError(f"truth: {what}; expected a partition of the kernel; choose another site")
            blocks.append((holds | (row == 0)).to(torch.uint8))
            counts.append(len(parts))
        return partition_decomposition(blocks, counts, {"planted": True, **seal(weight, tokens.bias)})
