"""Backbones: frozen vision networks with their own preprocessing.

`Backbone.of` makes a backbone of any `torch.nn.Module` from preprocessed images to logits; whatever loads a network
(timm, transformers, torch.hub) ends there. `bench.embedded` has the small ViT that is the default of the bench.
"""

import copy
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from bench.datasets import Dataset
from bench.geometry import Geometry
from bench.lanes import Report
from metrics.protocol import Truth

Transform = Callable[[UInt8[Tensor, "images 3 h w"]], Float[Tensor, "images 3 h2 w2"]]
"""A network's own preprocessing of a batch of pixels, done on whatever device the pixels are."""


@dataclass(frozen=True)
class Standardised:
    """Bytes to shares of 255, less a mean and over a standard deviation, per channel: the usual `Transform`.

    Attributes:
        mean: Of the shares, per channel.
        std: Of the shares, per channel.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __call__(self, images: UInt8[Tensor, "images 3 h w"]) -> Float[Tensor, "images 3 h w"]:
        """The numbers, on the device of the images."""
        mean, std = (torch.tensor(one, device=images.device)[:, None, None] for one in (self.mean, self.std))
        return (images.float() / 255 - mean) / std

    def __str__(self) -> str:
        """In words and numbers, as part of a backbone's fingerprint."""
        return f"(rgb / 255 - {self.mean}) / {self.std}"


@dataclass(frozen=True, eq=False)
class Backbone:
    """A frozen network under study; build it with `Backbone.of`.

    Attributes:
        name: What tables call it.
        module: From preprocessed images to logits, in eval mode, its parameters frozen.
        transform: Its own preprocessing, a batch at a time.
        prefix: The kinds ("cls" or "register") of the tokens that stand before the patch tokens, in order.
        fingerprint: SHA-256, in hex, of weights and preprocessing (`fingerprint_of`).
        licence: Under which terms the weights may be used.
        notes: Facts worth keeping (parameters, training options).
        truth: What is known of how its site was made; None where nothing is, as for all networks but planted ones.
        geometry: How images of any size become what `transform` takes; None where it takes images as they come.
        unrounded: The same on the processor in its own dtype, where this one computes in 16 bit; else None.
    """

    name: str
    module: nn.Module
    transform: Transform
    prefix: tuple[str, ...]
    fingerprint: str
    licence: str
    notes: Mapping[str, float | int | str] = field(default_factory=dict)
    truth: Truth | None = None
    geometry: Geometry | None = None
    unrounded: "Backbone | None" = None

    @classmethod
    def of(
        cls,
        name: str,
        module: nn.Module,
        transform: Transform,
        *,
        preprocessing: str,
        prefix: tuple[str, ...] = (),
        licence: str = "not stated",
        notes: Mapping[str, float | int | str] | None = None,
        truth: Truth | None = None,
        geometry: Geometry | None = None,
    ) -> "Backbone":
        """A backbone of any module, which is put in eval mode and frozen in place.

        Args:
            name: What tables call it.
            module: From preprocessed images to logits.
            transform: Its preprocessing.
            preprocessing: The preprocessing in words and numbers; part of the fingerprint, since code has no bytes.
            prefix: Kinds of the tokens before the patch tokens; `prefix_of` reads them off a timm network.
            licence: Under which terms the weights may be used.
            notes: Facts worth keeping, added to the count of parameters.
            truth: What is known of how its site was made.
            geometry: How images of any size become what the preprocessing takes; part of the fingerprint too.

        Raises:
            ValueError: `prefix` names a kind that is neither "cls" nor "register".
        """
        if unknown := sorted(set(prefix) - {"cls", "register"}):
            raise ValueError(f'prefix: received {unknown}; expected only "cls" and "register"; name each token as one')
        module.eval().requires_grad_(False)
        counted = {"n_parameters": sum(parameter.numel() for parameter in module.parameters())}
        fingerprint = fingerprint_of(module, f"{geometry}; {preprocessing}" if geometry else preprocessing)
        return cls(name, module, transform, prefix, fingerprint, licence, {**counted, **(notes or {})}, truth, geometry)

    def on(self, device: torch.device, precision: str = "float32") -> "Backbone":
        """The same on a device, its forward pass in that precision; this one stays as it is.

        The fingerprint stays too: it names the weights, and whoever keeps what follows from them names the precision.

        Args:
            device: Where it computes.
            precision: "float32", which leaves dtypes alone, "bfloat16" or "float16".
        """
        if precision == "float32":
            return self if device.type == "cpu" else self.copied(device)
        dtype = {"bfloat16": torch.bfloat16, "float16": torch.float16}[precision]
        return replace(self.copied(device, dtype), unrounded=self.unrounded or self)

    def copied(self, device: torch.device, dtype: torch.dtype | None = None) -> "Backbone":
        """A copy on that device, in that dtype or in its own; pixels are moved first, and prepared there."""
        with torch.inference_mode(False):  # parameters that are made in inference mode cannot change their dtype
            module = copy.deepcopy(self.module).to(device, dtype)
        transform = self.transform
        return replace(self, module=module, transform=lambda images: transform(images.to(device)).to(device, dtype))

    @torch.inference_mode()
    def embeddings(self, images: UInt8[Tensor, "images 3 h w"]) -> Float[Tensor, "images width"]:
        """What the network's last linear layer, its classifier, is given; what it gives itself where it has none."""
        layers = [module for module in self.module.modules() if isinstance(module, nn.Linear)]
        seen: list[Tensor] = []
        handles = [layer.register_forward_pre_hook(lambda _layer, args: seen.append(args[0])) for layer in layers]
        try:
            outputs: Tensor = self.module(self.transform(images))
        finally:
            for handle in handles:
                handle.remove()
        is_classified = bool(seen) and seen[-1].ndim == 2 and outputs.ndim == 2
        return widened(seen[-1] if is_classified else outputs.flatten(1))


def widened(values: Tensor) -> Tensor:
    """16-bit numbers in float32, which changes none of them; all others as they are."""
    return values.float() if values.dtype in (torch.bfloat16, torch.float16) else values


def fingerprint_of(module: nn.Module, preprocessing: str) -> str:
    """SHA-256, in hex, of every tensor of the state (name, dtype, shape, bytes) and of the preprocessing's words."""
    digest = hashlib.sha256(preprocessing.encode())
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"|{name} {tensor.dtype} {tuple(tensor.shape)}|".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def prefix_of(module: nn.Module) -> tuple[str, ...]:
    """The kinds of the tokens that a timm network puts before its patch tokens: the class token, then registers.

    Empty for networks without such tokens (ConvNeXt, Swin). timm 1.0.31 names the counts on its ViTs and only holds
    the tensors (`cls_token`, `reg_token`) on its EVA family; both are read.

    Raises:
        ValueError: The network has prefix tokens of another kind (DeiT's distillation token, for one).
    """
    has_class_token = getattr(module, "has_class_token", getattr(module, "cls_token", None) is not None)
    registers = getattr(module, "reg_token", None)
    n_registers = getattr(module, "num_reg_tokens", 0 if registers is None else registers.shape[1])
    prefix = ("cls",) * bool(has_class_token) + ("register",) * int(n_registers)
    n_expected = getattr(module, "num_prefix_tokens", 0)
    if len(prefix) != n_expected:
        raise ValueError(
            f"module: {type(module).__name__} has {n_expected} prefix tokens, {len(prefix)} of them known: {prefix}; "
            'expected class token and registers only; hand prefix=("cls", ...) to Backbone.of yourself'
        )
    return prefix


FACTORY_NEEDS = ("version", "trained_on_dataset", "skeleton", "weights", "assemble")
"""What a `BackboneFactory` has to have; the rest of it may be left out."""


@runtime_checkable
class BackboneFactory(Protocol):
    """A frozen dataclass of options that makes a backbone in two steps, so that the dear one can be cached.

    Attributes:
        version: Raised whenever the same options and data would give other weights than before.
        trained_on_dataset: The weights depend on the data set, not only its number of classes.

    One whose networks have no classifier and give features, images x width, says so with an attribute
    `features_only = True`, or with a method of that name that is asked for a number of classes; the bench then fits a
    head on them (`bench.heads`). One whose networks take squares of one
    size has an attribute `geometry`, the same as its backbones have. One that loads weights, rather than making them,
    says `is_loaded = True`: its weights are not copied into the cache. Options that name places (paths) and not things
    are listed in `places`; what stands there is in a property `content`, a hash, and both make up a cell's identity.
    What a reader of a record has to be warned of is in a property `warning` ("random weights"), empty where nothing is.
    """

    version: ClassVar[int]
    trained_on_dataset: ClassVar[bool]

    def skeleton(self) -> nn.Module:
        """The architecture without weights or data, to look sites up in before any work; tensors may be meta."""
        ...

    def weights(self, dataset: Dataset, report: Report) -> dict[str, Tensor]:
        """The network's state, trained or loaded; dear, and what the bench caches."""
        ...

    def assemble(self, weights: Mapping[str, Tensor], dataset: Dataset) -> Backbone:
        """The backbone that these weights make; cheap."""
        ...
