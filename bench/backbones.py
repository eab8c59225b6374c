"""Backbones: frozen vision networks with their own preprocessing, and the small ViT that needs no download.

`Backbone.of` makes a backbone of any `torch.nn.Module` from preprocessed images to logits; whatever loads a network
(timm, transformers, torch.hub) ends there. `EmbeddedViT` is the default of the bench: a timm `VisionTransformer`,
trained from scratch on the data set under study, on one thread, to the same bits each time on the same machine.

The default has no class token and averages its patch tokens. Every output of the last block then reaches the logits,
so an error made at any token of the last site can cost accuracy; with a class-token head only that token's can.
"""

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, UInt8
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional

from bench.datasets import Dataset, check_at_least, labels_of
from metrics.protocol import Truth

Transform = Callable[[UInt8[Tensor, "images 3 h w"]], Float[Tensor, "images 3 h2 w2"]]
"""A network's own preprocessing of a batch of pixels."""

Report = Callable[[str, int, int], None]
"""Told what is being done, how many steps of it are done, and how many there are."""


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
    """

    name: str
    module: nn.Module
    transform: Transform
    prefix: tuple[str, ...]
    fingerprint: str
    licence: str
    notes: Mapping[str, float | int | str] = field(default_factory=dict)
    truth: Truth | None = None

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

        Raises:
            ValueError: `prefix` names a kind that is neither "cls" nor "register".
        """
        if unknown := sorted(set(prefix) - {"cls", "register"}):
            raise ValueError(f'prefix: received {unknown}; expected only "cls" and "register"; name each token as one')
        module.eval().requires_grad_(False)
        counted = {"n_parameters": sum(parameter.numel() for parameter in module.parameters())}
        fingerprint = fingerprint_of(module, preprocessing)
        return cls(name, module, transform, prefix, fingerprint, licence, {**counted, **(notes or {})}, truth)

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
        return seen[-1] if is_classified else outputs.flatten(1)


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


@runtime_checkable
class BackboneFactory(Protocol):
    """A frozen dataclass of options that makes a backbone in two steps, so that the dear one can be cached.

    Attributes:
        version: Raised whenever the same options and data would give other weights than before.
        trained_on_dataset: The weights depend on the data set, not only its number of classes.

    One whose networks have no classifier and give features, images x width, says so with a class attribute
    `features_only = True`; the bench then fits a head on them (`bench.heads`).
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


@dataclass(frozen=True)
class EmbeddedViT:
    """A small ViT trained from scratch on the probing split, on the CPU with one thread.

    AdamW (weight decay 0.05) and one cycle of the learning rate (a tenth of the steps up, cosine down). No
    augmentation: shifts by 1 pixel cost 15 points of accuracy on `shapes` within these epochs, by 2 pixels they brought
    0.3 on `digits`. The result depends on the options and the data only: not on the caller's number of threads, nor on
    its random state, which is left as it was.

    Attributes:
        width: Width of a token; also the number of units at the end of each block's MLP, `blocks.{i}.mlp.fc2`.
        depth: Number of blocks.
        heads: Attention heads, a divisor of the width.
        patch: Side of a patch in pixels.
        mlp_ratio: Hidden width of the MLP over the width.
        pool: What the head reads: the mean of the patch tokens ("avg", without a class token) or a class token.
        epochs: Passes over the probing split.
        batch_size: Images per step.
        learning_rate: The peak of the cycle.
        seed: Seed of the initial weights and the order of the images.
    """

    width: int = 96
    depth: int = 3
    heads: int = 4
    patch: int = 8
    mlp_ratio: float = 4.0
    pool: Literal["avg", "token"] = "avg"
    epochs: int = 14
    batch_size: int = 64
    learning_rate: float = 1e-3
    seed: int = 0

    version: ClassVar[int] = 1
    trained_on_dataset: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for option in ("width", "depth", "heads", "patch", "epochs", "batch_size"):
            check_at_least(option, getattr(self, option), 1)
        if self.width % self.heads:
            raise ValueError(f"heads: received {self.heads}; expected a divisor of width={self.width}; change either")
        if self.pool not in ("avg", "token"):
            raise ValueError(f'pool: received {self.pool!r}; expected "avg" or "token"; choose one of them')

    def weights(self, dataset: Dataset, report: Report) -> dict[str, Tensor]:
        """The state after training on `dataset.train`.

        Raises:
            FloatingPointError: The loss stopped being a finite number.
        """
        with _own_random_state(self.seed), one_thread():
            module = self._architecture(_side(dataset), len(dataset.classes))
            _train(module, dataset, self, report)
        return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}

    def assemble(self, weights: Mapping[str, Tensor], dataset: Dataset) -> Backbone:
        """The ViT with these weights, every one of which must fit."""
        with _own_random_state(self.seed):
            module = self._architecture(_side(dataset), len(dataset.classes))
        module.load_state_dict(weights, strict=True)
        return Backbone.of(
            f"embedded-vit-{self.width}x{self.depth}",
            module,
            to_unit_range,
            preprocessing="rgb / 127.5 - 1",
            prefix=prefix_of(module),
            licence="none needed: trained here from scratch",
            notes={"trained_on": dataset.name, "epochs": self.epochs, "seed": self.seed},
        )

    def skeleton(self) -> nn.Module:
        """The architecture without weights, for a set of one class, to look sites up in before any work."""
        with torch.device("meta"):
            return self._architecture(self.patch, 1)

    def _architecture(self, side: int, n_classes: int) -> nn.Module:
        if side % self.patch:
            raise ValueError(f"patch: received {self.patch}; expected a divisor of the images' side, {side}; change it")
        vit: nn.Module = VisionTransformer(
            img_size=side,
            patch_size=self.patch,
            num_classes=n_classes,
            embed_dim=self.width,
            depth=self.depth,
            num_heads=self.heads,
            mlp_ratio=self.mlp_ratio,
            class_token=self.pool == "token",
            global_pool=self.pool,
        )
        return vit


def _side(dataset: Dataset) -> int:
    return dataset.train.images(slice(0, 1)).shape[-1]


def to_unit_range(images: UInt8[Tensor, "images 3 h w"]) -> Float[Tensor, "images 3 h w"]:
    """Pixels from 0..255 to -1..1."""
    return images.float() / 127.5 - 1


def _train(module: nn.Module, dataset: Dataset, options: EmbeddedViT, report: Report) -> None:
    labels, n_images = labels_of(dataset.train), len(dataset.train)
    n_steps = math.ceil(n_images / options.batch_size)
    n_total = n_steps * options.epochs
    optimizer = torch.optim.AdamW(module.parameters(), lr=options.learning_rate, weight_decay=0.05, fused=True)
    rise = 0.1 if n_total != 10 else 0.2  # of ten steps a tenth is one, and torch divides by one step less
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, options.learning_rate, total_steps=n_total, pct_start=rise, cycle_momentum=False
    )
    module.train()
    for epoch in range(options.epochs):
        for step, rows in enumerate(torch.split(torch.randperm(n_images), options.batch_size)):
            images = to_unit_range(dataset.train.images(rows))
            loss = functional.cross_entropy(module(images), labels[rows].long())
            if not math.isfinite(loss.item()):
                raise FloatingPointError(
                    f"loss: {loss.item()} at epoch {epoch}, step {step}; expected a finite number; "
                    f"lower learning_rate (now {options.learning_rate})"
                )
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
            report("training the backbone", epoch * n_steps + step + 1, n_total)


@contextmanager
def _own_random_state(seed: int) -> Iterator[None]:
    """Within, the CPU's random numbers follow `seed`; afterwards they go on where they were."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed the accelerators too
        yield


@contextmanager
def one_thread() -> Iterator[None]:
    """Within, torch works on one thread, so that sums come in one order."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)
