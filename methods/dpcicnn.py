"""DPCiCNN: disentangling polysemantic channels, with labels (Hesse et al. 2025, arXiv:2504.12939).

A channel that matters for two classes, and gets there from different inputs, is split in three: one part without what
is the second class's own, one without the first's, and a residual without either, which is taken off again since the
other two both hold what is shared. Nothing is lost. The paper does this for channels of convolutional networks, by
the authors' code one channel and pair at a time; here it is done for every unit of a site.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from methods.groups import RHOS
from methods.images import batches_of_images, images_of
from methods.partition import SplitUnits, parents
from methods.parts import Parts, summed_by_unit
from methods.protocol import ActivationSource, Codes, Decomposition, Properties
from methods.seals import seal

CHUNK_TOKENS = 8192
"""Tokens whose parts are computed at once while rho is searched."""
EPSILON = 1e-5
"""Added to the other part's activation in the objective (the authors')."""


@dataclass(frozen=True, eq=False)
class ClassStatistics:
    """What one pass over the images leaves of them.

    Attributes:
        n_images: Images of each class.
        responsible: In how many of them each unit is responsible for the class's logit.
        inputs: Their mean input, over images and positions; zero for a class without images.
    """

    n_images: Int[Tensor, " classes"]
    responsible: Int[Tensor, "classes units"]
    inputs: Float[Tensor, "classes d_in"]


@dataclass(frozen=True, eq=False)
class PolysemanticUnit:
    """A unit that two classes drive from different inputs.

    Attributes:
        unit: Which.
        classes: The two classes, the lower label first.
        relevance: The class's mean of weight x input (the paper's average relevance vector) for each of the two.
    """

    unit: int
    classes: tuple[int, int]
    relevance: Float[Tensor, "2 d_in"]


@dataclass(frozen=True)
class DPCiCNN(SplitUnits):
    """Splits each unit that two classes drive differently into one part per class and a residual (Hesse et al. 2025).

    Where several pairs of classes make a unit polysemantic, it is split by the one with the smallest cosine, among
    equals by the lowest labels: the authors' code takes the pair by hand.

    Attributes:
        attribution_share: A unit is responsible for an image's class if its attribution (activation x gradient of
            the class logit, summed over positions) is at least this share of all positive ones, and positive; tau.
        class_share: It is responsible for a class if so in at least this share of the class's images; p.
        max_cosine: A pair of classes makes it polysemantic if the cosine between their relevance is below this;
            gamma.
        rho: The margin by which an input must matter more to one class than to the other to be its own; 0 searches
            0.05, 0.10, ..., 1.00 per unit.
    """

    attribution_share: float = 0.03
    class_share: float = 0.75
    max_cosine: float = 0.5
    rho: float = 0.0

    reads: ClassVar[frozenset[str]] = frozenset({"inputs", "outputs", "weight", "images", "labels"})
    properties: ClassVar[Properties] = Properties(
        stable=True, training_free=True, explicit=True, lossless=True, unsupervised=False
    )
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        for name in ("attribution_share", "class_share"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name}: got {getattr(self, name)}; expected a share above 0, up to 1; change it")
        if not -1 <= self.max_cosine <= 1:
            raise ValueError(f"max_cosine: got {self.max_cosine}; expected -1 to 1; change it")
        if not 0 <= self.rho <= 1:
            raise ValueError(f"rho: got {self.rho}; expected 0 (search) or a value up to 1; change it")

    def decompose(self, activations: ActivationSource, *, seed: int) -> Decomposition:
        """The parts of every unit of the site; the seed changes nothing, since nothing here is random.

        Raises:
            LookupError: There are no labels.
            ValueError: Activations are not finite, or there are no images.
        """
        tokens = activations.read(slice(0, 1))
        weight = tokens.needed_weight()
        statistics = self.statistics(activations, weight)
        responsible = self.responsible(statistics)
        several = (responsible.sum(dim=0) >= 2).nonzero().squeeze(1).tolist()
        found = []
        for unit in several:
            classes = responsible[:, unit].nonzero().squeeze(1)
            pair = self.smallest_cosine(classes, statistics.inputs[classes] * weight[unit].cpu().double())
            if pair is not None:
                found.append(PolysemanticUnit(unit, *pair))
        rhos = [self.rho] * len(found) if self.rho else best_rhos(activations, found, weight, tokens.bias)
        notes: dict[str, int | str] = {"split_units": len(found), "units_responsible_for_several_classes": len(several)}
        notes |= seal(weight, tokens.bias)
        return assembled(found, rhos, weight.shape[0], weight.shape[1], notes)

    def statistics(self, activations: ActivationSource, weight: Float[Tensor, "units d_in"]) -> ClassStatistics:
        """What counts of every class, from one pass over the images, each of which is run forth and back."""
        labels = labels_of(activations)
        images = images_of(activations)
        n_images = torch.bincount(labels)
        responsible = torch.zeros(len(n_images), weight.shape[0], dtype=torch.int64)
        inputs = torch.zeros(len(n_images), weight.shape[1], dtype=torch.float64)
        for rows, batch in batches_of_images(activations, torch.arange(len(labels)), "images"):
            gradients = images.class_gradients(rows)
            if not torch.isfinite(gradients).all():
                raise ValueError("gradients: got a value that is not finite; expected finite ones; check the backbone")
            attribution = (batch.outputs.double() * gradients.double()).sum(dim=1)
            needed = self.attribution_share * attribution.clamp_min(0).sum(dim=1, keepdim=True)
            # Positive too: where no unit has a positive attribution, none is responsible.
            matters = (attribution >= needed) & (attribution > 0)
            responsible.index_add_(0, labels[rows], matters.to(torch.int64).cpu())
            inputs.index_add_(0, labels[rows], batch.inputs.double().mean(dim=1).cpu())
        return ClassStatistics(n_images, responsible, inputs / n_images.clamp_min(1)[:, None])

    def responsible(self, statistics: ClassStatistics) -> Bool[Tensor, "classes units"]:
        """Which units are responsible for which classes; none for a class without images, whose share is 0."""
        return statistics.responsible / statistics.n_images.clamp_min(1).double()[:, None] >= self.class_share

    def smallest_cosine(
        self, classes: Int[Tensor, " classes"], relevance: Float[Tensor, "classes d_in"]
    ) -> tuple[tuple[int, int], Float[Tensor, "2 d_in"]] | None:
        """The pair of classes that differs most, with its relevance; None where no pair differs enough.

        A class whose inputs give the unit nothing (all comes from the bias) has no direction and pairs with none.
        """
        length = relevance.norm(dim=1)
        directed = length > 0
        classes, relevance, length = classes[directed], relevance[directed], length[directed]
        if len(classes) < 2:
            return None
        directions = relevance / length[:, None]
        below = torch.ones(len(classes), len(classes), dtype=torch.bool).tril()  # each pair once
        cosines = (directions @ directions.T).masked_fill(below, math.inf)
        row, column = divmod(int(cosines.argmin()), len(classes))
        if float(cosines[row, column]) >= self.max_cosine:
            return None
        first, second = classes[[row, column]].tolist()
        return (first, second), relevance[[row, column]]

    def parts(self, decomposition: Decomposition) -> Parts:
        """How the units are split, for `methods.surgery.disentangle`; each part has the unit's whole bias."""
        tensors, unit_of_atom = decomposition.tensors, parents(decomposition)
        divisors = torch.ones(len(tensors["rho"]), tensors["keeps"].shape[1], dtype=torch.uint8)
        shares = torch.ones(len(unit_of_atom), dtype=torch.float64)
        return Parts(tensors["keeps"], unit_of_atom, divisors, shares, tensors["signs"], decomposition.notes)

    def decode(self, decomposition: Decomposition, codes: Codes) -> Float[Tensor, "tokens units"]:
        """The units: both parts, less what they share."""
        unit_of_atom, signs = (values.to(codes.device) for values in (parents(decomposition), signs_of(decomposition)))
        return summed_by_unit(codes, unit_of_atom, len(decomposition.tensors["rho"]), signs)


def assembled(
    found: list[PolysemanticUnit],
    rhos: list[float],
    n_units: int,
    d_in: int,
    notes: Mapping[str, int | str],
) -> Decomposition:
    """The decomposition in which these units are split at these margins, and all others stay whole."""
    keeps = [torch.ones(1, d_in, dtype=torch.uint8)] * n_units
    signs, classes, rho_of_unit = [[1]] * n_units, [[-1]] * n_units, [0.0] * n_units
    for one, rho in zip(found, rhos, strict=True):
        keeps[one.unit] = parts_of(one.relevance, rho).to(torch.uint8)
        signs[one.unit], classes[one.unit], rho_of_unit[one.unit] = [1, 1, -1], [*one.classes, -1], rho
    sizes = torch.tensor([len(parts) for parts in signs])
    return Decomposition(
        n_atoms=int(sizes.sum()),
        tensors={
            "keeps": torch.cat(keeps),
            "signs": torch.tensor(list(chain(*signs))),
            "class_of_atom": torch.tensor(list(chain(*classes))),
            "rho": torch.tensor(rho_of_unit, dtype=torch.float64),
        },
        unit_of_atom=torch.repeat_interleave(torch.arange(n_units), sizes),
        notes=notes,
    )


def labels_of(activations: ActivationSource) -> Int[Tensor, " images"]:
    """The class of each image.

    Raises:
        LookupError: There are none.
    """
    labels = images_of(activations).labels
    if labels is None:
        raise LookupError("labels: got none; expected the class of each image; choose a labelled data set")
    return labels.cpu()


def signs_of(decomposition: Decomposition) -> Int[Tensor, " atoms"]:
    """1 for each part that adds to its unit, -1 for a residual, which is taken off."""
    return decomposition.tensors["signs"]


def parts_of(relevance: Float[Tensor, "2 d_in"], rho: float) -> Bool[Tensor, "3 d_in"]:
    """Which inputs the first class's part keeps, the second's, and the residual.

    An input is the first class's own where rho times its relevance there exceeds that for the second, and the other
    way round; signed. Where both are negative both may hold: it is then the first's, as in the authors' code, since
    the parts add up only while the two sets are apart.
    """
    own_first = rho * relevance[0] > relevance[1]
    own_second = (rho * relevance[1] > relevance[0]) & ~own_first
    return torch.stack([~own_second, ~own_first, ~(own_first | own_second)])


def best_rhos(
    activations: ActivationSource,
    found: list[PolysemanticUnit],
    weight: Float[Tensor, "units d_in"],
    bias: Float[Tensor, " units"] | None,
) -> list[float]:
    """The margin for each unit that separates its parts best; the smallest among equals.

    The images of the classes concerned are read once more, class by class.
    """
    labels = labels_of(activations)
    # Margins that give the same parts are one candidate, so that rounding cannot choose between them.
    candidates = [
        torch.stack([parts_of(one.relevance, rho)[:2] for rho in RHOS]).unique(dim=0, return_inverse=True)
        for one in found
    ]
    scores = [torch.zeros(len(kept), dtype=torch.float64) for kept, _ in candidates]
    for label in sorted({label for one in found for label in one.classes}):
        rows = (labels == label).nonzero().squeeze(1)
        for _, batch in batches_of_images(activations, rows, f"images of class {label}"):
            for inputs in batch.inputs.split(max(1, CHUNK_TOKENS // batch.inputs.shape[1])):
                tokens = inputs.double()
                for one, (kept, _), score in zip(found, candidates, scores, strict=True):
                    if label in one.classes:
                        weights = weight[one.unit].to(tokens) * kept.to(tokens)
                        shift = 0.0 if bias is None else float(bias[one.unit])
                        ratios = separation(tokens, weights, shift, one.classes.index(label))
                        score += ratios.sum(dim=0).cpu() / len(rows)
    return [RHOS[int(score[which].argmax())] for score, (_, which) in zip(scores, candidates, strict=True)]


def separation(
    inputs: Float[Tensor, "images positions d_in"],
    weights: Float[Tensor, "candidates 2 d_in"],
    bias: float,
    own: int,
) -> Float[Tensor, "images candidates"]:
    """How much more the part of the image's own class is active than the other, by image.

    Active is what is positive, summed over positions, as in the authors' code.
    """
    active = (torch.einsum("ipd,ckd->ipck", inputs, weights) + bias).clamp_min(0).sum(dim=1)
    return active[:, :, own] / (active[:, :, 1 - own] + EPSILON)
