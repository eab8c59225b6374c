"""What is evaluated: one decomposition at one site, moved to where the site is and swapped in where it can be."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from bench.rerun import Rerun
from bench.sites import Site
from methods.protocol import Activations, Decomposition, Explicit, HasDictionary, Method, Swappable
from metrics.protocol import Timing, Truth


@dataclass(frozen=True)
class Facts:
    """What metrics may know before the first batch."""

    n_images: int
    n_units: int
    n_atoms: int
    unit_of_atom: Int[Tensor, " atoms"] | None
    codes_are_nonnegative: bool
    is_explicit: bool
    truth: Truth | None
    again: Callable[[], Rerun]
    timings: Callable[[], Mapping[str, Timing]]
    directions: Callable[[], Mapping[str, Float[Tensor, "atoms width"]]]

    @property
    def dictionaries(self) -> Mapping[str, Float[Tensor, "atoms width"]]:
        """The atoms as directions, "output" in the space of the outputs, "input" of the inputs; those there are."""
        return self.directions()


def moved(decomposition: Decomposition, like: Tensor) -> Decomposition:
    """The decomposition on the device of `like`, its floating-point tensors in that dtype.

    The caller of `encode` and `decode` owns device and dtype (`methods.protocol`): methods need not do it.
    """

    def move(tensor: Tensor) -> Tensor:
        return tensor.to(like.device, like.dtype if tensor.is_floating_point() else tensor.dtype)

    tensors = {name: move(tensor) for name, tensor in decomposition.tensors.items()}
    parents = decomposition.unit_of_atom
    return replace(decomposition, tensors=tensors, unit_of_atom=None if parents is None else move(parents))


def nothing_again() -> Rerun:
    """Never.

    Raises:
        LookupError: Always.
    """
    raise LookupError("again: got none; expected how to decompose once more; give the Subject one")


def nothing_timed(subject: "Subject") -> Mapping[str, Timing]:
    """Never.

    Raises:
        LookupError: Always.
    """
    raise LookupError("timings: got none; expected how the network is timed; give the Subject one")


class Subject:
    """One decomposition at one site, ready to be looked at batch by batch.

    The site's outputs are replaced by what an explicit method decodes; a method whose atoms can stand in the network
    has a layer besides, which is timed and looked at for exactness. Virtual units replace nothing.

    Attributes:
        found: The decomposition as it was found.
        decomposition: The same on the site's device and in its dtype.
        again: Decomposes once more with another seed; called when a metric asks for it, once.
        timings: Times the network with this in it; called when a metric asks for it, once.
    """

    def __init__(
        self,
        site: Site,
        method: Method,
        decomposition: Decomposition,
        n_classes: int,
        again: Callable[[], Rerun] = nothing_again,
        timings: Callable[["Subject"], Mapping[str, Timing]] = nothing_timed,
    ) -> None:
        self.site = site
        self.n_classes = n_classes
        self.method = method
        self.found = decomposition
        self.decomposition = decomposition = moved(decomposition, site.weight)
        self.again = functools.cache(again)
        self.timings = functools.cache(functools.partial(timings, self))
        self.layer: nn.Module | None = None
        if isinstance(method, Swappable):
            own = site.module  # it computes as the network around it does, in its dtype
            bias = None if own.bias is None else own.bias.detach()
            self.layer = method.layer(decomposition, own.weight.detach().flatten(1), bias)

    def facts(self, n_images: int) -> Facts:
        """What metrics may know before the first batch."""
        return Facts(
            n_images=n_images,
            n_units=self.site.units,
            n_atoms=self.decomposition.n_atoms,
            unit_of_atom=self.decomposition.unit_of_atom,
            codes_are_nonnegative=bool(getattr(self.method, "codes_are_nonnegative", False)),
            is_explicit=isinstance(self.method, Explicit),
            truth=self.site.backbone.truth,
            again=self.again,
            timings=self.timings,
            directions=self.directions,
        )

    def directions(self) -> Mapping[str, Float[Tensor, "atoms width"]]:
        """The atoms as directions; none where the method gives none."""
        if not isinstance(self.method, HasDictionary):
            return {}
        return self.method.dictionaries(self.decomposition, self.site.weight)

    @cached_property
    def in_float64(self) -> "Subject":
        """The same with the backbone and the decomposition in float64."""
        return Subject(self.site.in_float64, self.method, self.found, self.n_classes)

    @property
    def lacks(self) -> dict[str, str]:
        """Properties of a batch that do not exist for this method, each with the reason."""
        if isinstance(self.method, Explicit):
            return {}
        reason = "virtual units: the network stays as it is and nothing is rebuilt from the codes"
        return dict.fromkeys(("reconstruction", "replaced_logits", "in_place_logits"), reason)

    def activations(self, inputs: Tensor, outputs: Tensor) -> Activations:
        """These tokens of whole images, with no more of the site than the method declares to read."""
        reads = self.method.reads
        n, positions = outputs.shape[:2]
        images = None
        if "images" in reads:
            images = torch.arange(n, device=outputs.device).repeat_interleave(positions)
        # Copies, so that a method that works in place cannot change what it is measured against.
        inputs, outputs = inputs.flatten(0, 1).clone(), outputs.flatten(0, 1).clone()
        weight = self.site.weight if "weight" in reads else None
        bias = self.site.bias if "weight" in reads else None
        return Activations(inputs if "inputs" in reads else None, outputs, weight, bias, images)
