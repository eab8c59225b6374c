"""Backbones without a classifier: a linear head is fitted on their frozen features and put behind them.

DINOv2 and its like give features, and the bench asks for logits. A `BackboneFactory` with `features_only = True` makes
a backbone whose forward pass gives images x width; `stage` fits a head on it (the linear evaluation of Oquab et al.
2023, arXiv:2304.07193; `metrics.heads` says how), keeps it in the cache, and hangs it behind the network. No module
path changes: sites are found under the names that they have without the head.

`EmbeddedFeatures` is the embedded ViT with its own classifier thrown away, so that what a fitted head reaches can be
compared offline with the head that the network was trained with.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from safetensors import torch as safetensors
from torch import Tensor, nn

from bench import UsageError
from bench.backbones import Backbone, fingerprint_of
from bench.cache import Cache
from bench.datasets import Dataset, labels_of
from bench.embedded import EmbeddedViT
from bench.geometry import ahead
from bench.lanes import Report
from metrics.heads import fit_head
from metrics.solvers import LBFGS, SGD

VERSION = 1
"""Raised whenever the same features and options would give another head than before."""

NAME = "fitted_head"
"""Of the submodule; no site."""

BATCH_IMAGES = 256
MAX_FEATURE_BYTES = 2**31
OPTIONS: LBFGS | SGD = LBFGS()


@dataclass(frozen=True)
class EmbeddedFeatures(EmbeddedViT):
    """The embedded ViT, trained as `EmbeddedViT` is and then stripped of its classifier.

    The network was trained on the images that the penalty is chosen on, so the accuracy there flatters; that on the
    evaluation split does not, and comes near the thrown-away classifier's.
    """

    features_only: ClassVar[bool] = True

    def weights(self, dataset: Dataset, report: Report) -> dict[str, Tensor]:
        """The state after training, without the classifier's tensors; errors as in `EmbeddedViT.weights`."""
        trained = EmbeddedViT(**vars(self)).weights(dataset, report)
        return {name: tensor for name, tensor in trained.items() if not name.startswith("head.")}

    def assemble(self, weights: Mapping[str, Tensor], dataset: Dataset) -> Backbone:
        """The ViT that gives the mean of its patch tokens, normalised, or its class token (`pool`)."""
        whole = super().assemble(weights, dataset)
        return replace(whole, name=whole.name.replace("vit", "features"))

    def _architecture(self, side: int, n_classes: int) -> nn.Module:
        return super()._architecture(side, 0)  # so timm puts nothing in the place of the classifier


def rows_within(n_images: int, width: int) -> Int[Tensor, " rows"]:
    """Which images a head is fitted on: all whose features fit in 2 GiB, else so many at random, a fixed seed."""
    n = min(n_images, MAX_FEATURE_BYTES // (4 * width))
    drawn = torch.randperm(n_images, generator=torch.Generator().manual_seed(0))
    return drawn[:n].sort().values


@torch.inference_mode()
def features_of(backbone: Backbone, dataset: Dataset, rows: Int[Tensor, " rows"]) -> Iterator[Tensor]:
    """The features of these training images, batch by batch, on the device of the network.

    Raises:
        UsageError: The network gives anything but images x width.
    """
    for some, images in ahead(dataset.train, rows.split(BATCH_IMAGES)):
        features = backbone.module(backbone.transform(images))
        if not isinstance(features, Tensor) or features.ndim != 2 or len(features) != len(some):
            got = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise UsageError(
                f"backbone: {backbone.name!r} gives {got} for {len(some)} images; expected features, images x width; "
                "let its forward pass pool the tokens (class token, or class token and mean of the patches)"
            )
        yield features


def fit(backbone: Backbone, dataset: Dataset, report: Report, options: LBFGS | SGD | None = None) -> dict[str, Tensor]:
    """A linear head on the backbone's features of the probing split; the evaluation split is never looked at.

    Args:
        backbone: Gives features, images x width.
        dataset: Its training images are streamed through the network; the features of at most 2 GiB of them are held
            (350,000 images at width 1,536), and fitting takes about as much again.
        report: Told how far it is.
        options: The solver with its grid, chosen from on a fifth of the training images; `OPTIONS` if none is given.

    Returns:
        "weight" and "bias", to be applied to features as they are; "n_images" it was fitted on, "setting" that
        was chosen from the grid and, where there was a choice, its "held_out_accuracy".

    Raises:
        UsageError: The training images have no labels, or the network does not give images x width.
    """
    labels = labels_of(dataset.train)
    width = next(features_of(backbone, dataset, torch.arange(1))).shape[1]
    rows = rows_within(len(dataset.train), width)
    collected: list[Tensor] = []
    for features in features_of(backbone, dataset, rows):
        collected.append(features)
        report("features for the head", min(len(collected) * BATCH_IMAGES, len(rows)), len(rows))
    head = fit_head(torch.cat(collected), labels[rows], len(dataset.classes), options=options or OPTIONS)
    weight, bias = head.folded
    facts = {"setting": head.setting, "n_images": float(len(rows))}
    if head.held_out_accuracy:
        facts["held_out_accuracy"] = head.held_out_accuracy[head.setting]
    numbers = {name: torch.tensor(value, dtype=torch.float64) for name, value in facts.items()}
    return {"weight": weight.cpu().clone(), "bias": bias.cpu().clone(), **numbers}


def headed(backbone: Backbone, head: Mapping[str, Tensor]) -> Backbone:
    """The backbone with this head behind it, logits where there were features; its module is changed in place.

    Every module keeps its path, and the fingerprint covers the head. The head is a submodule, so it moves between
    devices and dtypes with the network and is copied with it.

    Raises:
        ValueError: The backbone has a fitted head already.
    """
    module = backbone.module
    if hasattr(module, NAME):
        raise ValueError(f"backbone: {backbone.name!r} has a fitted head; expected one without; assemble it anew")
    weight, bias = head["weight"], head["bias"]
    linear = nn.Linear(weight.shape[1], weight.shape[0])
    linear.load_state_dict({"weight": weight, "bias": bias}, strict=True)
    like = next(iter(module.parameters()), weight)
    linear.to(like.device, like.dtype).eval().requires_grad_(False)
    module.add_module(NAME, linear)
    module.register_forward_hook(through_head)
    facts = head.keys() - {"weight", "bias"}
    notes: dict[str, float | int | str] = {f"head_{name}": float(head[name]) for name in sorted(facts)}
    n_parameters = backbone.notes.get("n_parameters", 0)
    if isinstance(n_parameters, int):
        notes["n_parameters"] = n_parameters + weight.numel() + bias.numel()
    fingerprint = fingerprint_of(linear, f"a head behind {backbone.fingerprint}")
    return replace(backbone, fingerprint=fingerprint, notes={**backbone.notes, **notes})


def through_head(module: nn.Module, _args: Any, features: Float[Tensor, "images width"]) -> Tensor:
    """The logits; a hook of the network, which hands itself on, so that a copy of it runs through its own head."""
    logits: Tensor = getattr(module, NAME)(features)
    return logits


def stage(
    cache: Cache,
    backbone: Backbone,
    dataset: Dataset,
    report: Report,
    packages: Mapping[str, str],
    device: torch.device | None = None,
) -> Backbone:
    """The backbone with its head, fitted if the cache has none.

    Args:
        cache: Keeps the head, found by the content of everything it follows from.
        backbone: Gives features, images x width; its module is changed in place.
        dataset: What the head is fitted on.
        report: Told how far it is.
        packages: Versions that results follow from.
        device: Where features are computed and the head is fitted, in float32; None takes the processor.
    """
    there = device or torch.device("cpu")
    key = {
        "version": VERSION,
        "backbone": backbone.fingerprint,
        "dataset": dataset.fingerprint,
        "solver": type(OPTIONS).__name__,
        "options": {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(OPTIONS).items()},
        "packages": dict(packages),
    }

    def build(folder: Path) -> None:
        (folder / "head.safetensors").write_bytes(safetensors.save(fit(backbone.on(there), dataset, report)))

    folder = cache.get("heads", key, build)
    return headed(backbone, safetensors.load_file(folder / "head.safetensors"))


def needs_head(factory: Any, n_classes: int) -> bool:
    """Whether the factory's networks give features for so many classes, so that a head has to be fitted."""
    says = getattr(factory, "features_only", False)
    return bool(says(n_classes) if callable(says) else says)
