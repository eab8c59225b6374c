"""What a method is: options, three verbs, and the data that pass between them.

A method is a frozen dataclass of options. `decompose` looks at the activations of the probing split and returns a
`Decomposition`, which is data only; `encode` and `decode` turn activations into codes and codes back into outputs,
batch by batch and without state, so that the caller owns batching, device and dtype.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor, nn

from methods.parts import KnownParts

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


@dataclass(frozen=True)
class Activations:
    """Tokens of one site, as a method may look at them; None means not read.

    Attributes:
        inputs: Activations that enter the site (q in the paper), None where the method does not read them.
        outputs: Activations that leave it (a in the paper), the units under study.
        weight: The site's own kernel W, None where the method does not read it.
        bias: The site's own bias b, None where there is none or the method does not read the weight.
        image_of_token: Which image each token belongs to, for methods that read "images": they are given whole images,
            the tokens of one beside each other. None for the others.
    """

    inputs: Float[Tensor, "tokens d_in"] | None
    outputs: Float[Tensor, "tokens units"]
    weight: Float[Tensor, "units d_in"] | None = None
    bias: Float[Tensor, " units"] | None = None
    image_of_token: Int[Tensor, " tokens"] | None = None

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


@dataclass(frozen=True)
class ImageActivations:
    """Whole images at one site: every studied position (registers are left out).

    Attributes:
        inputs: Activations that enter the site.
        outputs: Activations that leave it.
    """

    inputs: Float[Tensor, "images positions d_in"]
    outputs: Float[Tensor, "images positions units"]


@runtime_checkable
class ImageSource(Protocol):
    """The probing split image by image, for methods that read "images"; every read runs the backbone."""

    @property
    def n_images(self) -> int:
        """How many images there are."""
        ...

    @property
    def labels(self) -> Int[Tensor, " images"] | None:
        """The class of each image; None where the data set has none or the method does not read "labels"."""
        ...

    def read(self, rows: Int[Tensor, " rows"]) -> ImageActivations:
        """All studied positions of the named images, in the order of `rows`."""
        ...

    def class_gradients(self, rows: Int[Tensor, " rows"]) -> Float[Tensor, "rows positions units"]:
        """Gradient of each image's own class logit with respect to the site's outputs.

        Raises:
            LookupError: There are no labels.
        """
        ...


@runtime_checkable
class ActivationSource(Protocol):
    """The probing split's tokens at one site, streamed: nothing here asks for all of them in memory at once."""

    @property
    def truth(self) -> KnownParts | None:
        """What the site's units were made of; None where nobody knows or the method does not read "truth"."""
        ...

    @property
    def images(self) -> ImageSource | None:
        """The same split image by image; None for methods that do not read "images"."""
        ...

    @property
    def n_tokens(self) -> int:
        """How many tokens there are."""
        ...

    @property
    def n_threads(self) -> int:
        """How many threads a method may use whose result does not depend on their number."""
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

    def keep(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Put tensors by, under a name, in case this very work is interrupted and started again."""
        ...

    def kept(self, name: str) -> Mapping[str, Tensor] | None:
        """What an interrupted attempt at this very work last put by under that name; None where there is nothing."""
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
    options name files has a property `content`, a hash of what is in them, so that another file is another cell.
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
