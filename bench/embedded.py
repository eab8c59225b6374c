"""The backbone that needs no download: a timm `VisionTransformer`, trained from scratch on the data set under study.

On one thread, to the same bits each time on the same machine. The default has no class token and averages its patch
tokens: every output of the last block then reaches the logits, so an error made at any token of the last site can cost
accuracy; with a class-token head only that token's can.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, UInt8
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional

from bench.backbones import Backbone, prefix_of
from bench.datasets import Dataset, labels_of
from bench.geometry import ahead
from bench.lanes import Report
from bench.options import check_at_least


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
        batches = torch.split(torch.randperm(n_images), options.batch_size)
        for step, (rows, pixels) in enumerate(ahead(dataset.train, batches)):
            images = to_unit_range(pixels)
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
