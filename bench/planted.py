"""A small site with known structure, on which every method can be tried in a moment."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bench.activations import TensorSource
from bench.known_parts import KnownParts, cut
from methods.protocol import READABLE, Activations, ImageActivations

POSITIONS = 4
"""Tokens of an image."""


@dataclass(frozen=True, eq=False)
class PlantedImages:
    """Images of four positions each, with a linear head on their mean.

    Attributes:
        inputs: What enters the site.
        outputs: What leaves it.
        labels: The planted direction of each image.
        head: Weights of the class logits.
    """

    inputs: Float[Tensor, "images positions d_in"]
    outputs: Float[Tensor, "images positions units"]
    labels: Int[Tensor, " images"]
    head: Float[Tensor, "classes units"]

    @property
    def n_images(self) -> int:
        """How many images there are."""
        return len(self.labels)

    def read(self, rows: Int[Tensor, " rows"]) -> ImageActivations:
        """All positions of the named images."""
        return ImageActivations(self.inputs[rows], self.outputs[rows])

    def class_gradients(self, rows: Int[Tensor, " rows"]) -> Float[Tensor, "rows positions units"]:
        """The head's own row, shared among the positions."""
        return (self.head[self.labels[rows]] / POSITIONS)[:, None].expand(-1, POSITIONS, -1)


def planted(reads: frozenset[str] = READABLE) -> TensorSource:
    """A site of 12 units over 40 inputs: 150 images, each in one of six planted directions; gives what is declared."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.relu(torch.randn(6, 40, generator=generator))
    labels = torch.randint(6, (150,), generator=generator)
    noise = 0.1 * torch.randn(600, 40, generator=generator)
    inputs = directions[labels].repeat_interleave(POSITIONS, dim=0) + noise
    weight = torch.randn(12, 40, generator=generator) / 6
    bias = torch.randn(12, generator=generator)
    outputs = inputs @ weight.T + bias
    head = torch.nn.functional.normalize(directions @ weight.T, dim=1)
    images = PlantedImages(inputs.view(150, POSITIONS, 40), outputs.view(150, POSITIONS, 12), labels, head)
    return TensorSource(inputs, outputs, weight, bias, images=images, truth=halves(weight)).only(reads)


def halves(weight: Float[Tensor, "units d_in"]) -> KnownParts:
    """Every unit as two parts, the even weights and the odd ones."""
    units, d_in = weight.shape
    unit_of_part, concept_of_part = torch.arange(2 * units) // 2, torch.arange(2 * units) % 2
    owner = 2 * torch.arange(units)[:, None] + torch.arange(d_in) % 2
    return cut(weight, owner, unit_of_part, concept_of_part, ("even", "odd"))


def degenerate(reads: frozenset[str] = READABLE) -> Iterator[tuple[str, TensorSource]]:
    """The same site where there is nothing to find, with what it is: equal tokens, zeros alone, one token."""
    whole = planted()
    images = whole.images
    if whole.inputs is None or not isinstance(images, PlantedImages):
        raise TypeError("planted: got a site without inputs or images; expected all that can be read; ask for it")

    def site(inputs: Tensor, outputs: Tensor, labels: Tensor) -> TensorSource:
        rows = len(labels) * POSITIONS
        q, a = (values.expand(rows, -1).view(len(labels), POSITIONS, -1) for values in (inputs, outputs))
        here = PlantedImages(q, a, labels, images.head)
        return dataclasses.replace(whole, inputs=inputs, outputs=outputs, images=here).only(reads)

    one, units = whole.inputs[:1], whole.outputs[:1]
    yield "equal tokens", site(one.repeat(whole.n_tokens, 1), units.repeat(whole.n_tokens, 1), images.labels)
    yield "zeros alone", site(torch.zeros_like(whole.inputs), torch.zeros_like(whole.outputs), images.labels)
    yield "one token of one image", site(one, units, images.labels[:1])


def tokens_of(source: TensorSource, reads: frozenset[str]) -> Activations:
    """All tokens, as a method that declares these readings is given them to encode."""
    tokens = source.read(slice(None))
    images = torch.arange(source.n_tokens) // POSITIONS
    return dataclasses.replace(tokens, image_of_token=images if "images" in reads else None)


def some(tokens: Activations, rows: slice) -> Activations:
    """Some of these tokens."""
    inputs = None if tokens.inputs is None else tokens.inputs[rows]
    images = None if tokens.image_of_token is None else tokens.image_of_token[rows]
    return dataclasses.replace(tokens, inputs=inputs, outputs=tokens.outputs[rows], image_of_token=images)


def cast(tokens: Activations, like: Tensor) -> Activations:
    """The same tokens in the dtype and on the device of `like`."""
    names = ("inputs", "outputs", "weight", "bias")
    values = {name: getattr(tokens, name).to(like) for name in names if getattr(tokens, name) is not None}
    images = None if tokens.image_of_token is None else tokens.image_of_token.to(like.device)
    return dataclasses.replace(tokens, **values, image_of_token=images)
