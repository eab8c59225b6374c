"""What a method is given to look at: tokens of one site, or whole images, streamed."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

from methods.parts import KnownParts


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
        """The named tokens, in the order of `rows`: held in memory, so not all of them at once."""
        ...

    def inputs_at(
        self, rows: Int[Tensor, " rows"], dimensions: slice = slice(None)
    ) -> Float[Tensor, "rows dimensions"]:
        """What enters the site at the named tokens, in the order of `rows`, or some of its dimensions; a copy."""
        ...

    def outputs_of(self, units: slice) -> Float[Tensor, "tokens units"]:
        """The outputs of a few units for all tokens."""
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
