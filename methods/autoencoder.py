"""What all learned baselines share: options, scaling, stacked training, and reading a trained dictionary back.

A family says how it starts, what its loss is made of and which codes stay; everything else is here. Outputs are
centred and divided by one scalar before the encoder and put back behind the decoder: the families have no bias for it.
"""

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from methods.coding import LinearCoding, Tensors
from methods.protocol import Activations, ActivationSource, Decomposition, Dictionaries, Properties
from methods.training import Training, centre_and_scale, device_for_training, largest_stack, train

KeptBy = Literal["relu", "topk", "threshold"]
Initial = tuple[dict[str, Tensor], dict[str, Tensor]]
"""Parameters and buffers of one configuration before training."""


class Terms(NamedTuple):
    """What a family's loss is made of on a batch, per configuration: error + penalty_weight * penalty - dead * dormant.

    Attributes:
        error: Mean squared error of the reconstruction, over tokens and dimensions.
        dormant: Mean pre-code of the atoms that no token of the batch activates (appendix E.1).
        penalty: What the family makes sparse with; 0 where the number of active atoms is fixed.
    """

    error: Float[Tensor, " stack"]
    dormant: Float[Tensor, " stack"]
    penalty: Float[Tensor, " stack"]


@dataclass(frozen=True)
class Start:
    """What a family may know before it trains.

    Attributes:
        source: The tokens.
        n_atoms: Atoms to be learned.
        mean: Mean vector of the outputs.
        scale: Root mean square of what is left after taking it off.
        seed: Seed of everything drawn.
    """

    source: ActivationSource
    n_atoms: int
    mean: Float[Tensor, " units"]
    scale: Float[Tensor, ""]
    seed: int


@dataclass(frozen=True)
class Autoencoder(LinearCoding, ABC):
    """The options that every learned baseline has, and its verbs.

    Attributes:
        expansion_factor: Atoms per unit of the site.
        epochs: Passes over the probing tokens (the paper: 50).
        batch_size: Tokens a step (the paper does not say).
        learning_rate: Adam's (the paper sweeps 1e-4, 5e-4, 1e-3).
        dead_weight: Weight of the re-animation term (the paper sweeps 1e-5, 1e-4, 1e-3).
        schedule: Of the learning rate: "constant", or "cosine" down to zero (the paper does not say).
        clip_norm: Largest norm of the gradient, 0 for any (1 in overcomplete's own loop).
        precision: "fp32", or "bf16" for the dense products.
    """

    expansion_factor: float = 8.0
    epochs: int = 50
    batch_size: int = 256
    learning_rate: float = 1e-3
    dead_weight: float = 1e-4
    schedule: Literal["constant", "cosine"] = "constant"
    clip_norm: float = 1.0
    precision: Literal["fp32", "bf16"] = "fp32"

    reads: ClassVar[frozenset[str]] = frozenset({"outputs"})
    properties: ClassVar[Properties] = Properties(
        stable=False, training_free=False, explicit=True, lossless=False, unsupervised=True
    )
    version: ClassVar[int] = 2
    codes_are_nonnegative: ClassVar[bool] = True
    activation: ClassVar[KeptBy | None] = None
    """What keeps a code, for export to other projects; None where they have no name for it."""
    penalty_option: ClassVar[str | None] = None
    """Name of the option that weighs the penalty; None for families without one."""
    positive_options: ClassVar[tuple[str, ...]] = ("expansion_factor", "epochs", "batch_size", "learning_rate")
    """Names of the options that must be above zero."""

    def __post_init__(self) -> None:
        for name, allowed in (("schedule", ("constant", "cosine")), ("precision", ("fp32", "bf16"))):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}: got {getattr(self, name)!r}; expected {' or '.join(allowed)}; choose one")
        for name in self.positive_options:
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name}: got {getattr(self, name)}; expected a positive number; raise it")
        for name in ("dead_weight", "clip_norm", *([self.penalty_option] if self.penalty_option else [])):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}: got {getattr(self, name)}; expected 0 or more; raise it")

    @property
    def stackable(self) -> frozenset[str]:
        """The options in which configurations of one stack may differ."""
        return frozenset({"learning_rate", "dead_weight"} | ({self.penalty_option} if self.penalty_option else set()))

    def decompose(self, activations: ActivationSource, *, seed: int) -> Decomposition:
        """A trained autoencoder.

        Raises:
            FloatingPointError: The loss stopped being finite.
            ValueError: Activations are not finite, or an option does not fit them.
        """
        (found,) = self.decompose_stack([self], activations, seed=seed)
        if isinstance(found, str):
            raise FloatingPointError(found)
        return found

    def decompose_stack(
        self, variants: Sequence["Autoencoder"], activations: ActivationSource, *, seed: int
    ) -> list[Decomposition | str]:
        """Each variant trained, all on one stream of tokens; a text says where one diverged.

        Raises:
            ValueError: Variants differ in more than `stackable`, or as in `decompose`.
        """
        for variant in variants:
            moved = {name: getattr(variant, name) for name in self.stackable}
            if type(variant) is not type(self) or dataclasses.replace(self, **moved) != variant:
                names = ", ".join(sorted(self.stackable))
                raise ValueError(
                    f"variants: got {variant} beside {self}; expected only {names} to vary; train it apart"
                )
        start = self.prepared(activations, seed)
        # Sorted, so that equal learning rates stand beside each other and share one update.
        order = sorted(range(len(variants)), key=lambda index: variants[index].learning_rate)
        initial = self.initial(start)
        size = largest_stack(self.bytes_of_one(initial[0], start.n_atoms))
        found: dict[int, Decomposition | str] = {}
        for begin in range(0, len(order), size):
            chosen = order[begin : begin + size]
            # How many fit may have changed since an interruption; a state of another stack is none of this one.
            name = f"training-{begin}-{begin + len(chosen)}"
            trained = self.trained([variants[index] for index in chosen], start, initial, name)
            found |= dict(zip(chosen, trained, strict=True))
        return [found[index] for index in range(len(variants))]

    def start(self, activations: ActivationSource, *, seed: int) -> Dictionaries:
        """The dictionaries that the first step sees: as they are drawn, and brought to where they must be."""
        start = self.prepared(activations, seed)
        stack = AutoencoderStack([self], start, self.initial(start))
        stack.project()
        return {kind: rows.cpu() for kind, rows in self.directions(stack.state(0)).items()}

    def prepared(self, activations: ActivationSource, seed: int) -> Start:
        """What is known before training; two passes over the tokens at most."""
        mean, scale = centre_and_scale(activations)
        return Start(activations, self.n_atoms(activations, len(mean)), mean, scale, seed)

    def trained(
        self, variants: Sequence["Autoencoder"], start: Start, initial: Initial, name: str
    ) -> list[Decomposition | str]:
        """The variants of one stack, in their order."""
        stack = AutoencoderStack(variants, start, initial)
        rates = tuple(variant.learning_rate for variant in variants)
        training = Training(self.epochs, self.batch_size, rates, self.schedule, self.clip_norm, self.precision)
        progress = train(stack, start.source, training, seed=start.seed, name=name)
        found: list[Decomposition | str] = []
        for place, rate in enumerate(rates):
            if place in progress.diverged:
                found.append(f"{progress.diverged[place]}; expected a finite number; lower learning_rate ({rate})")
                continue
            tensors = {key: tensor.cpu().contiguous() for key, tensor in stack.state(place).items()}
            notes = {"steps": progress.steps, "final_loss": progress.final_losses[place], "stack": len(variants)}
            found.append(Decomposition(n_atoms=start.n_atoms, tensors=tensors, notes=notes))
        return found

    def bytes_of_one(self, parameters: Tensors, n_atoms: int) -> int:
        """Roughly what one configuration holds while it trains: parameters, gradients, moments, and dense codes."""
        return 16 * sum(tensor.numel() for tensor in parameters.values()) + 24 * self.batch_size * n_atoms

    def flops(self, n_tokens: int, d_in: int, units: int) -> float:
        """Multiplications and additions of a training: encoder and decoder, dense, forward and twice that backward."""
        return 12.0 * n_tokens * self.epochs * units * round(self.expansion_factor * units)

    def n_atoms(self, activations: ActivationSource, units: int) -> int:
        """How many atoms are learned at a site of this width.

        Raises:
            ValueError: There would be none, or no fewer active ones than there are.
        """
        n_atoms = round(self.expansion_factor * units)
        if n_atoms < 1:
            factor = self.expansion_factor
            raise ValueError(f"expansion_factor: got {factor} for {units} units; expected at least one atom; raise it")
        k = getattr(self, "k", 0)
        if k >= n_atoms:
            raise ValueError(f"k: got {k}; expected fewer than the {n_atoms} atoms; lower it or raise expansion_factor")
        return n_atoms

    @abstractmethod
    def initial(self, start: Start) -> Initial:
        """Parameters and buffers before training."""

    def project(self, parameters: Tensors) -> None:
        """Bring the rows of the stacked dictionary back to unit norm."""
        rows = parameters["dictionary"].data
        rows /= torch.linalg.vector_norm(rows, dim=-1, keepdim=True) + 1e-8

    @abstractmethod
    def terms(self, parameters: Tensors, buffers: Tensors, x: Tensor, batch: Activations) -> Terms:
        """The loss's terms on a batch of scaled outputs x (tokens x units), per configuration."""

    def frozen(self, parameters: Tensors, buffers: Tensors) -> dict[str, Tensor]:
        """What is kept of one trained configuration."""
        return {name: parameters[name].detach().clone() for name in ("encoder_weight", "encoder_bias", "dictionary")}


class AutoencoderStack:
    """Variants of one family, trained side by side (a `methods.training.Stack`)."""

    def __init__(self, variants: Sequence[Autoencoder], start: Start, initial: Initial) -> None:
        self.family = variants[0]
        device = device_for_training()
        parameters, buffers = initial

        def stacked(tensor: Tensor) -> Tensor:
            return tensor.detach().to(device).expand(len(variants), *tensor.shape).clone()

        self.parameters = {name: stacked(tensor).requires_grad_() for name, tensor in parameters.items()}
        self.buffers = {name: stacked(tensor) for name, tensor in buffers.items()}
        self.mean, self.scale = start.mean.to(device), start.scale.to(device)
        self.dead_weight = torch.tensor([variant.dead_weight for variant in variants], device=device)
        option = self.family.penalty_option
        weights: list[Any] = [getattr(variant, option) if option else 0.0 for variant in variants]
        self.penalty_weight = torch.tensor(weights, device=device)

    def project(self) -> None:
        """Bring the parameters back to where they must be."""
        with torch.no_grad():
            self.family.project(self.parameters)

    def losses(self, batch: Activations) -> Float[Tensor, " stack"]:
        """The loss of each configuration."""
        device = self.mean.device
        moved = dataclasses.replace(
            batch,
            inputs=None if batch.inputs is None else batch.inputs.to(device, torch.float32),
            outputs=batch.outputs.to(device, torch.float32),
        )
        x = (moved.outputs - self.mean) / self.scale
        terms = self.family.terms(self.parameters, self.buffers, x, moved)
        return terms.error + self.penalty_weight * terms.penalty - self.dead_weight * terms.dormant

    def state(self, place: int) -> dict[str, Tensor]:
        """What is kept of one configuration."""
        parameters = {name: tensor.detach()[place] for name, tensor in self.parameters.items()}
        buffers = {name: tensor[place] for name, tensor in self.buffers.items()}
        scaling = {"mean": self.mean, "scale": self.scale.reshape(1)}
        return {**scaling, **self.family.frozen(parameters, buffers)}


def pre_codes_of(parameters: Tensors, x: Float[Tensor, "tokens width"]) -> Float[Tensor, "stack tokens atoms"]:
    """What the encoders of a stack make of the same tokens."""
    weight = parameters["encoder_weight"]
    tokens = x.expand(len(weight), *x.shape)
    return torch.baddbmm(parameters["encoder_bias"][:, None], tokens, weight.transpose(1, 2)).float()


def dormant_mean(
    pre_codes: Float[Tensor, "stack tokens atoms"], codes: Float[Tensor, "stack tokens atoms"]
) -> Float[Tensor, " stack"]:
    """Mean pre-code of the atoms that no token activates; 0 where there are none.

    Subtracted from the loss, it pulls dormant atoms up (ELUDe paper, E.1). overcomplete's version sums over the batch
    and so changes its scale with it; this one divides by it, as the paper writes.
    """
    dormant = codes.detach().amax(dim=1) <= 0
    return (pre_codes.mean(dim=1) * dormant).sum(dim=1) / dormant.sum(dim=1).clamp_min(1)


def mean_square(residual: Float[Tensor, "stack tokens width"]) -> Float[Tensor, " stack"]:
    """Mean over tokens and dimensions of the squared residual."""
    return residual.square().mean(dim=(1, 2))
