"""What a method is: options, three verbs, and the data that pass between them.

A method is a frozen dataclass of options. `decompose` looks at the activations of the probing split and returns a
`Decomposition`, which is data only; `encode` and `decode` turn activations into codes and codes back into outputs,
batch by batch and without state, so that the caller owns batching, device and dtype.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor, nn

from methods.sources import Activations, ActivationSource, ImageActivations, ImageSource

__all__ = [
    "READABLE",
    "ActivationSource",
    "Activations",
    "Codes",
    "Decomposition",
    "Dictionaries",
    "Divisible",
    "Explicit",
    "Follower",
    "HasDictionary",
    "HasStart",
    "ImageActivations",
    "ImageSource",
    "Method",
    "Properties",
    "Stackable",
    "Swappable",
]  # fmt: skip

Codes = Float[Tensor, "tokens atoms"]
"""The value of every atom for every token; a zero means that the atom is not active."""


@dataclass(frozen=True)
class Properties:
    """What a method claims about itself (Table 1 of the ELUDe paper); the bench measures each claim.

    Attributes:
        stable: The same decomposition on repeated runs with different init seeds.
        training_free: No gradient step is taken.
        explicit: The atoms can be inspected and changed in the running network, not only analysed beside it.
        lossless: The network's outputs stay what they were, up to the rounding of the working dtype.
        unsupervised: No labels are needed.
    """

    stable: bool
    training_free: bool
    explicit: bool
    lossless: bool
    unsupervised: bool


@dataclass(frozen=True, eq=False)
class Decomposition:
    """What a method found at one site: data only, saved as one safetensors file and one JSON header.

    Attributes:
        n_atoms: How many atoms there are.
        tensors: The method's own state by name.
        unit_of_atom: For methods that split units, the unit that each atom is a part of; None for the others.
        notes: Facts worth keeping that are no tensors (clusters found, steps trained, final loss).
    """

    n_atoms: int
    tensors: Mapping[str, Tensor]
    unit_of_atom: Int[Tensor, " atoms"] | None = None
    notes: Mapping[str, float | int | str | bool] = field(default_factory=dict)


READABLE = frozenset({"inputs", "outputs", "weight", "images", "labels", "truth"})
"""What a method can declare to read. Labels are some data sets' only, the truth planted networks': without them, cells
of methods that read them are skipped, with that as the reason."""


@runtime_checkable
class Method(Protocol):
    """A procedure with its options: a frozen dataclass with these attributes and verbs.

    One whose atoms can stand in the network is `Explicit` too; without that, its units are virtual: nothing is rebuilt.

    Attributes:
        reads: Which of `READABLE` the method looks at; the rest is None in what it is given.
        properties: What the method claims (`Properties`).
        version: Raised whenever the same options and activations would give another decomposition than before.

    A method whose codes cannot be negative may say so with a class attribute `codes_are_nonnegative = True`. One whose
    options name files has a property `content`, a hash of what is in them, so that another file is another cell. One
    that knows what its `decompose` holds at most, beyond the program and its libraries, may say it before it is run:
    `memory_bytes(n_tokens, d_in, units, n_threads) -> int | None`, None where nobody knows; so may one that knows the
    multiplications and additions of it: `flops(n_tokens, d_in, units) -> float`. One that cannot be applied to every
    number of tokens says why in `unfit(n_tokens, units) -> str`, empty where it can: its cells are then skipped with
    that reason. One whose options count tokens lists them, each with the least value that makes sense, in a class
    attribute `scales`: on a slice of the data they shrink with it.
    """

    reads: ClassVar[frozenset[str]]
    properties: ClassVar[Properties]
    version: ClassVar[int]

    def decompose(self, activations: ActivationSource, *, seed: int) -> Decomposition:
        """What the method finds in these activations; the same seed gives the same result."""
        ...

    def encode(self, decomposition: Decomposition, activations: Activations) -> Codes:
        """The codes of these tokens, in the dtype and on the device of the outputs."""
        ...


@runtime_checkable
class Explicit(Protocol):
    """A method whose codes rebuild the site's outputs, so that atoms can be inspected and changed in the network."""

    def decode(self, decomposition: Decomposition, codes: Codes) -> Float[Tensor, "tokens units"]:
        """The site's outputs, rebuilt from the codes."""
        ...


Dictionaries = Mapping[str, Float[Tensor, "atoms _"]]
"""Atoms as directions, one row each: "output" in the space of the site's outputs, "input" in that of its inputs."""


@runtime_checkable
class HasDictionary(Protocol):
    """A method whose atoms are directions, which two decompositions can be compared by."""

    def dictionaries(self, decomposition: Decomposition, weight: Float[Tensor, "units d_in"]) -> Dictionaries:
        """One of them or both; a row of zeros is a dead atom. `weight` is the site's own kernel."""
        ...


@runtime_checkable
class HasStart(Protocol):
    """A method that trains, whose atoms are directions before it does."""

    def start(self, activations: ActivationSource, *, seed: int) -> Dictionaries:
        """The dictionaries as the first step of a training with this seed sees them, bit for bit."""
        ...


@runtime_checkable
class Stackable(Protocol):
    """A method of which variants that differ in some options can be decomposed in one pass over the activations."""

    @property
    def stackable(self) -> frozenset[str]:
        """Names of the options in which they may differ."""
        ...

    def decompose_stack(
        self, variants: Sequence[Any], activations: ActivationSource, *, seed: int
    ) -> list[Decomposition | str]:
        """What each variant finds, in their order; a text says why one found nothing."""
        ...


@runtime_checkable
class Divisible(Protocol):
    """A method that works unit by unit, so that several machines can share one decomposition."""

    def decompose_units(self, activations: ActivationSource, units: range) -> Sequence[Mapping[str, Tensor]]:
        """What is in some of the units, each put by as soon as it is found; `decompose` takes up what is put by."""
        ...


@runtime_checkable
class Follower(Protocol):
    """A control that copies a size from another method's decomposition of the same activations.

    The bench decomposes with the method labelled `like` first and hands its result to `decompose_like`, which then
    stands in place of `decompose`.

    Attributes:
        like: The label, in the suite, of the method to follow.
    """

    like: str

    def decompose_like(self, activations: ActivationSource, leader: Decomposition, *, seed: int) -> Decomposition:
        """What the control makes of these activations, sized like the leader's decomposition."""
        ...


@runtime_checkable
class Swappable(Protocol):
    """An explicit method whose atoms can stand in the network where the site's own layer stood."""

    def layer(
        self,
        decomposition: Decomposition,
        weight: Float[Tensor, "units d_in"],
        bias: Float[Tensor, " units"] | None,
    ) -> nn.Module:
        """A module from (..., d_in) to (..., units) that computes the site through the atoms."""
        ...
