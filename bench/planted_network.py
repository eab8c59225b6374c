"""The backbone `planted_network`: a network whose units are polysemantic by construction, so that the truth is known.

    pixels -> patches -> linear filters -> ReLU -> SITE (linear) -> mean over patches -> linear head

Nothing is trained, and nothing but the head looks at data: filters and kernel are drawn, the head is a ridge fit.

- inputs of the site: most answer to one concept of `bench.concepts`, each with a strength of its own; some (`overlap`)
  answer to a second one as well; some (`distractors`) to no concept, only to the light of the image. All have noise of
  their own, and a ReLU that lets part of it through.
- units: a unit is the sum of parts. Part (u, c) holds the kernel weights of unit u on the inputs of concept c; an input
  that two concepts of a unit drive belongs to the one that drives it more. Every other weight of the unit is small
  (`interference`) and belongs to one part at random: it is no concept's, but it is in the unit and has to be
  somewhere. So parts have disjoint support and sum to the unit's kernel row exactly. A few units (`monosemantic`) have
  one part, which shows who splits what is whole. There are fewer units than concepts, and each concept is in several
  units: concepts are superposed.

What makes it easy or hard, and for whom:

- All weights inside parts are positive and concepts are sparse, as after a ReLU; a unit's large values are then those
  of one or two concepts. This suits everything that looks at a unit's largest values.
- That units are exact sums of parts is the hypothesis of methods that split weights; they can be exactly right here.
  Methods that look for directions in the outputs meet about 2.5 nonzero entries a concept and more concepts than
  units: the sparse superposition that they are made for, which they can only recover up to its interference.
- Larger `overlap`, `noise`, `interference` and `distractors` make it harder for all. `interference` bounds how near
  any method can come to a part's direction: nothing tells to which part such a weight was dealt. Fewer `n_units` make
  it harder for directions, more parts a unit (`fewest_parts`, `most_parts`) for partitions. Where `spread` is large,
  a unit's top images are those of its strongest part.

The defaults were chosen by what the truth and the whole units score (a part tells its own concept, the top images of a
unit mix several) and by the accuracy of the network. They were not tuned on a method's score; but the scores of one
early run of ELUDe and a random partition had been seen before the last knob, `spread`, was set on whole units.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from bench import UsageError, concepts
from bench.backbones import Backbone
from bench.datasets import Dataset, Split, labels_of
from bench.embedded import one_thread
from bench.known_parts import cut
from bench.lanes import Report
from bench.options import check_at_least

SITE: Final = "site"
REFERENCE_NOISE: Final = 12.0
"""Pixel noise, in grey levels, at which `PlantedNetwork.noise` is meant: the default of `bench.concepts`."""
RESPONSE: Final = 5.0
"""What a part gives for its concept at full strength, on average; its weights are then about 1."""
RIDGE: Final = 1e-3
"""Of the head, as a share of the mean variance of the pooled units."""
BATCH_IMAGES: Final = 500


@dataclass(frozen=True, eq=False)
class Plan:
    """What is drawn before there is a network.

    Attributes:
        strength: How strongly each input answers to each concept: 0 where it does not, 1 at most.
        kernel: The weights of the site.
        owner: The part, numbered over all units, that each weight belongs to.
        unit_of_part: The unit of each part, ascending.
        concept_of_part: The concept of each part.
    """

    strength: Float[np.ndarray, "d_in concepts"]
    kernel: Float[np.ndarray, "units d_in"]
    owner: Int[np.ndarray, "units d_in"]
    unit_of_part: Int[np.ndarray, " parts"]
    concept_of_part: Int[np.ndarray, " parts"]

    @property
    def ownership(self) -> tuple[Tensor, Tensor, Tensor]:
        """Owner of each weight, unit and concept of each part, for torch."""
        owner, unit, concept = map(torch.from_numpy, (self.owner, self.unit_of_part, self.concept_of_part))
        return owner, unit, concept


class PlantedModule(nn.Module):
    """From images in [0, 1] to logits; see the module's docstring."""

    def __init__(self, d_in: int, n_units: int, n_classes: int) -> None:
        super().__init__()
        self.filters = nn.Conv2d(3, d_in, concepts.PATCH, stride=concepts.PATCH)
        self.site = nn.Linear(d_in, n_units)
        self.head = nn.Linear(n_units, n_classes)

    def features(self, images: Float[Tensor, "images 3 height width"]) -> Float[Tensor, "images tokens d_in"]:
        """What enters the site: one token a patch, row by row."""
        maps: Tensor = functional.relu(self.filters(images))
        return maps.flatten(2).transpose(1, 2)

    def forward(self, images: Float[Tensor, "images 3 height width"]) -> Float[Tensor, "images classes"]:
        """The logits."""
        logits: Tensor = self.head(self.site(self.features(images)).mean(dim=1))
        return logits


@dataclass(frozen=True)
class PlantedNetwork:
    """Filters, a planted kernel and a ridge head, for the data set `concepts`; the site is the module `site`.

    Attributes:
        d_in: Inputs of the site.
        n_units: Units of the site.
        fewest_parts: Parts of a polysemantic unit, at least.
        most_parts: Parts of a polysemantic unit, at most.
        monosemantic: Share of units that have one part.
        spread: How unequally the parts of a unit answer to their concepts: 0 all alike.
        overlap: Share of the inputs with a concept that answer to a second one too.
        distractors: Share of inputs that answer to no concept.
        interference: Size of a weight that is no concept's, as a share of those that are.
        noise: Standard deviation of an input's own noise; a concept at full strength gives 0.3 to 1.
        seed: Seed of everything drawn.
    """

    d_in: int = 288
    n_units: int = 32
    fewest_parts: int = 2
    most_parts: int = 4
    monosemantic: float = 0.125
    spread: float = 0.1
    overlap: float = 0.25
    distractors: float = 0.25
    interference: float = 0.05
    noise: float = 0.15
    seed: int = 0

    version: ClassVar[int] = 1
    trained_on_dataset: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for option, least in (("d_in", 1), ("n_units", 1), ("fewest_parts", 1), ("seed", 0)):
            check_at_least(option, getattr(self, option), least)
        check_at_least("most_parts", self.most_parts, self.fewest_parts)
        for option in ("monosemantic", "spread", "overlap", "distractors"):
            if not 0 <= getattr(self, option) <= 1:
                raise ValueError(f"{option}: received {getattr(self, option)}; expected a share in [0, 1]; change it")
        for option in ("interference", "noise"):
            if getattr(self, option) < 0:
                raise ValueError(f"{option}: received {getattr(self, option)}; expected 0 or more; raise it")

    def skeleton(self) -> nn.Module:
        """The architecture without weights, for a set of one class."""
        return self._architecture(1)

    def _architecture(self, n_classes: int) -> PlantedModule:
        """Without weights, so that none are drawn from anybody's random state."""
        with torch.device("meta"):
            return PlantedModule(self.d_in, self.n_units, n_classes).requires_grad_(False)

    def weights(self, dataset: Dataset, report: Report) -> dict[str, Tensor]:
        """The state: drawn filters and kernel, and a head fitted to `dataset.train`.

        Raises:
            UsageError: The data set is not `concepts`.
        """
        plan, rng = self.plan(n_concepts_of(dataset)), np.random.default_rng((self.seed, 1))
        module = self._architecture(len(dataset.classes)).to_empty(device="cpu")
        filters, thresholds = self._filters(plan, rng)
        module.filters.weight.copy_(filters)
        module.filters.bias.copy_(thresholds)  # type: ignore[union-attr]
        module.site.weight.copy_(torch.from_numpy(plan.kernel))
        module.site.bias.copy_(torch.from_numpy(rng.normal(0, 0.5, self.n_units)))
        with one_thread():
            fit_head(module, dataset.train, labels_of(dataset.train), report)
        return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}

    def assemble(self, weights: Mapping[str, Tensor], dataset: Dataset) -> Backbone:
        """The network with these weights, and the truth about its units."""
        plan = self.plan(n_concepts_of(dataset))
        module = self._architecture(len(dataset.classes)).to_empty(device="cpu")
        module.load_state_dict(weights, strict=True)
        return Backbone.of(
            f"planted-{self.n_units}x{self.d_in}",
            module,
            lambda images: images.float() / 255,
            preprocessing="rgb / 255",
            licence="none needed: drawn here",
            notes={"parts": len(plan.unit_of_part), "seed": self.seed},
            truth=cut(module.site.weight.detach(), *plan.ownership, dataset.classes),
        )

    def plan(self, n_concepts: int) -> Plan:
        """Which inputs answer to which concept, which concepts each unit has, and the kernel that they make."""
        rng = np.random.default_rng((self.seed, 0))
        strength = self._strengths(n_concepts, rng)
        of_unit = self._dealt(n_concepts, rng)
        unit_of_part = np.repeat(np.arange(self.n_units), [len(of) for of in of_unit])
        concept_of_part = np.concatenate(of_unit)
        kernel, owner = np.empty((2, self.n_units, self.d_in))
        for unit in range(self.n_units):
            parts = np.flatnonzero(unit_of_part == unit)
            driven = strength[:, concept_of_part[parts]]
            mine, driven = driven.argmax(axis=1), driven.max(axis=1)
            owner[unit] = np.where(driven > 0, parts[mine], rng.choice(parts, self.d_in))
            own = rng.uniform(0.5, 1.5, self.d_in)
            answers = np.bincount(mine, own * driven, len(parts)).clip(min=1e-9)
            own *= (RESPONSE * rng.uniform(1 - self.spread, 1 + self.spread, len(parts)) / answers)[mine]
            kernel[unit] = np.where(driven > 0, own, self.interference * rng.standard_normal(self.d_in))
        return Plan(strength, kernel.astype(np.float32), owner.astype(np.int64), unit_of_part, concept_of_part)

    def _strengths(self, n_concepts: int, rng: np.random.Generator) -> Float[np.ndarray, "d_in concepts"]:
        """Inputs with a concept come first, shared out evenly; the first of them in a random order have two."""
        n_driven = self.d_in - round(self.distractors * self.d_in)
        if n_driven < n_concepts:
            raise ValueError(f"d_in: {n_driven} inputs are no distractors; expected one a concept at least; raise d_in")
        strength = np.zeros((self.d_in, n_concepts), dtype=np.float32)
        inputs = np.arange(n_driven)
        strength[inputs, inputs % n_concepts] = rng.uniform(0.3, 1.0, n_driven)
        shared = rng.permutation(n_driven)[: round(self.overlap * n_driven)]
        second = (shared + rng.integers(1, n_concepts, len(shared))) % n_concepts
        strength[shared, second] = rng.uniform(0.3, 1.0, len(shared))
        return strength

    def _dealt(self, n_concepts: int, rng: np.random.Generator) -> list[Int[np.ndarray, " parts"]]:
        """The concepts of each unit, from a deck that is shuffled anew when it is used up: all come equally often."""
        most = min(self.most_parts, n_concepts)
        counts = rng.integers(min(self.fewest_parts, most), most + 1, self.n_units)
        counts[rng.permutation(self.n_units)[: round(self.monosemantic * self.n_units)]] = 1
        deck: list[int] = []
        dealt = []
        for n in counts.tolist():
            hand: list[int] = []
            while len(hand) < n:
                if not set(deck) - set(hand):
                    deck += rng.permutation(n_concepts).tolist()
                card = next(card for card in deck if card not in hand)
                deck.remove(card)
                hand.append(card)
            dealt.append(np.array(hand))
        return dealt

    def _filters(self, plan: Plan, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Filters on pixels in [0, 1] and thresholds.

        Each concept's amplitude is read off a patch by the pseudo-inverse of all templates and of even light, which is
        exact but for pixel noise and saturation. A filter's own noise is white within what these leave free.
        """
        n_concepts = plan.strength.shape[1]
        light = np.eye(3).repeat(concepts.PATCH**2, axis=1)
        seen = np.concatenate([concepts.templates(n_concepts).flatten(1).double().numpy(), light])
        reads = np.linalg.pinv(seen).T
        white = rng.standard_normal((self.d_in, seen.shape[1]))
        white -= white @ np.linalg.pinv(seen) @ seen
        white *= self.noise / REFERENCE_NOISE / np.linalg.norm(white, axis=1, keepdims=True)
        is_distractor = plan.strength.max(axis=1) == 0
        # Even light varies by about 15 grey levels an image and channel: a distractor has half a concept's strength.
        tint = rng.standard_normal((self.d_in, 3)) * is_distractor[:, None] * (0.5 / 15 / math.sqrt(3))
        filters = 255 * (plan.strength @ reads[:n_concepts] + tint @ reads[n_concepts:] + white)
        # A distractor is centred on the mean light, 50 grey levels, so that its ReLU cuts in the middle.
        thresholds = np.where(is_distractor, -50 * tint.sum(axis=1), -0.1)
        shape = (-1, 3, concepts.PATCH, concepts.PATCH)
        return torch.from_numpy(filters).float().view(shape), torch.from_numpy(thresholds).float()


def n_concepts_of(dataset: Dataset) -> int:
    """How many concepts the data set plants, each of them a class.

    Raises:
        UsageError: It is not `concepts`.
    """
    known = dataset.train.concepts
    if known is None or dataset.classes != concepts.names(known.shape[2]):
        what = f"planted_network was given the data set {dataset.name!r}"
        raise UsageError(f"backbone: {what}; expected 'concepts', whose glyphs its filters are made for; change either")
    return known.shape[2]


def fit_head(module: PlantedModule, split: Split, labels: Int[Tensor, " images"], report: Report) -> None:
    """Fit the head in place: ridge regression of the classes, one-hot, on the pooled units, in float64."""
    pooled = []
    for start in range(0, len(split), BATCH_IMAGES):
        report("fitting the head", start, len(split))
        features = module.features(split.images(slice(start, start + BATCH_IMAGES)).float() / 255)
        pooled.append(module.site(features).mean(dim=1).double())
    x = torch.cat(pooled)
    wanted = functional.one_hot(labels.long(), module.head.out_features).double()
    mean, centre = x.mean(dim=0), wanted.mean(dim=0)
    moments = (x - mean).T @ (x - mean)
    ridge = RIDGE * moments.diagonal().mean() * torch.eye(len(mean), dtype=torch.float64)
    weight = torch.linalg.solve(moments + ridge, (x - mean).T @ (wanted - centre)).T
    module.head.weight.copy_(weight)
    module.head.bias.copy_(centre - weight @ mean)
    report("fitting the head", len(split), len(split))
