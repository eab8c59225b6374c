"""What a method is: options, three verbs, and the data that pass between them.

A method is a frozen dataclass of options. `decompose` looks at the activations of the probing split and returns a
`Decomposition`, which is data only; `encode` and `decode` turn activations into codes and codes back into outputs,
batch by batch and without state, so that the caller owns batching, device and dtype.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor, nn

Codes = Float[Tensor, "tokens atoms"]
"""The value of every atom for every token; a zero means that the atom is not active."""


@dataclass(frozen=True)
class Properties:
    """What a method claims about itself (Table 1 of the ELUDe paper); `check-method` tries "stable" and "lossless".

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


@dataclass(frozen=True)
class Activations:
    """Tokens of one site, as a method may look at them; None means not read.

    Attributes:
        inputs: Activations that enter the site (q in the paper), None where the method does not read them.
        outputs: Activations that leave it (a in the paper), the units under study.
        weight: The site's own kernel W, None where the method does not read it.
        bias: The site's own bias b, None where there is none or the method does not read the weight.
    """

    inputs: Float[Tensor, "tokens d_in"] | None
    outputs: Float[Tensor, "tokens units"]
    weight: Float[Tensor, "units d_in"] | None = None
    bias: Float[Tensor, " units"] | None = None

    def needed_inputs(self) -> Float[Tensor, "tokens d_in"]:
        """The inputs, for a method that declares to read them.

        Raises:
            ValueError: They were not read at this site.
        """
        if self.inputs is None:
            raise ValueError('inputs: not read at this site; expected them; declare "inputs" in the method\'s reads')
        return self.inputs

    def needed_weight(self) -> Float[Tensor, "units d_in"]:
        """The site's kernel, for a method that declares to read it.

        Raises:
            ValueError: It was not read at this site.
        """
        if self.weight is None:
            raise ValueError('weight: not read at this site; expected it; declare "weight" in the method\'s reads')
        return self.weight


@runtime_checkable
class ActivationSource(Protocol):
    """The probing split's tokens at one site, streamed: nothing here asks for all of them in memory at once."""

    @property
    def n_tokens(self) -> int:
        """How many tokens there are."""
        ...

    def read(self, rows: Int[Tensor, " rows"] | slice) -> Activations:
        """The named tokens, in the order of `rows`; a slice of memory-mapped data copies nothing."""
        ...

    def batches(self, size: int, *, seed: int | None = None) -> Iterator[Activations]:
        """Every token once, in batches of `size` (the last may be smaller); shuffled where a seed is given."""
        ...

    def report(self, what: str, done: int, total: int) -> None:
        """Tell whoever watches how far a long step is; cheap, may be called often."""
        ...


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


@runtime_checkable
class Method(Protocol):
    """A procedure with its options: a frozen dataclass with these attributes and verbs.

    Attributes:
        reads: Which of "inputs", "outputs" and "weight" the method looks at; the rest is None in what it is given.
        properties: What the method claims (`Properties`).
        version: Raised whenever the same options and activations would give another decomposition than before.

    A method whose codes cannot be negative may say so with a class attribute `codes_are_nonnegative = True`.
    """

    reads: ClassVar[frozenset[str]]
    properties: ClassVar[Properties]
    version: ClassVar[int]

    def decompose(self, activations: ActivationSource, *, seed: int) -> Decomposition:
        """What the method finds in these activations; the same seed gives the same result."""
        ...

    def encode(self, decomposition: Decomposition, activations: Activations) -> Codes:
        """The codes of these tokens."""
        ...

    def decode(self, decomposition: Decomposition, codes: Codes) -> Float[Tensor, "tokens units"]:
        """The site's outputs, rebuilt from the codes."""
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
