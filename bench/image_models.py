"""Backbones from timm: any of its image models, with the preprocessing that it was published with."""

import difflib
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import timm
from timm.data import resolve_data_config
from timm.models import clean_state_dict, is_model
from torch import Tensor, nn

from bench import zoo
from bench.backbones import Backbone, Standardised, prefix_of
from bench.geometry import Geometry
from bench.loaded import Loaded
from bench.weights import FILES, Origin


@dataclass(frozen=True)
class TimmBackbone(Loaded):
    """An image model of timm, by name.

    Its preprocessing is timm's for evaluation. Its own classifier is kept where the data set has as many classes;
    otherwise it gives what the classifier would be given, and a head is fitted on that. Options as in `Loaded`.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        check_name(self.model)
        _ = self.geometry

    @cached_property
    def published(self) -> dict[str, Any]:
        """What timm knows of the pretrained model (`published`)."""
        return published(self.model)

    @cached_property
    def preprocessing(self) -> dict[str, Any]:
        """Size, interpolation, crop, mean and standard deviation, with timm's defaults filled in."""
        return dict(resolve_data_config({}, pretrained_cfg=self.published))

    @property
    def geometry(self) -> Geometry:
        """How images become squares.

        Raises:
            ValueError: timm does it in a way that the bench does not know.
        """
        return geometry_of(self.preprocessing, self.model)

    @property
    def origin(self) -> Origin:
        """Timm's own copy on Hugging Face's hub; torch.hub's file for the few models that have none there."""
        known = self.published
        repository, named = str(known.get("hf_hub_id") or ""), known.get("hf_hub_filename")
        address = "" if repository or known.get("custom_load") else str(known.get("url") or "")
        return Origin(self.model, repository, address, (named, *FILES) if named else FILES)

    @property
    def n_classes(self) -> int:
        """Classes of the pretrained classifier."""
        return int(self.published.get("num_classes") or 0)

    def architecture(self, with_classifier: bool) -> nn.Module:
        """The model as timm makes it."""
        return create(self.model, num_classes=self.n_classes if with_classifier else 0)

    def converted(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The tensors under timm's names, by the filter that timm has for the model's family."""
        module = self.architecture(with_classifier=self.n_classes > 0)
        family_filter: Callable[..., Any] | None = getattr(
            sys.modules[type(module).__module__], "checkpoint_filter_fn", None
        )
        return dict(family_filter(clean_state_dict(state), module)) if family_filter else state

    def backbone(self, module: nn.Module, notes: Mapping[str, float | int | str]) -> Backbone:
        """The backbone with timm's preprocessing."""
        own = self.preprocessing
        row = zoo.row_of(self.model)
        transform = Standardised(tuple(own["mean"]), tuple(own["std"]))
        return Backbone.of(
            self.model,
            module,
            transform,
            preprocessing=str(transform),
            prefix=prefix_of(module),
            licence=row.licence if row else str(self.published.get("license") or "not stated"),
            notes=notes,
            geometry=self.geometry,
        )


def published(name: str) -> dict[str, Any]:
    """What timm knows of a pretrained model: where it is, its licence, its preprocessing, its classifier."""
    known = timm.models.get_pretrained_cfg(name)
    return dict(known.to_dict()) if known else {}


def create(name: str, **options: Any) -> nn.Module:
    """The architecture of that name, at random weights."""
    made: nn.Module = timm.create_model(name, pretrained=False, **options)
    return made


def check_name(name: str) -> None:
    """Nothing, where timm has a model of that name.

    Raises:
        ValueError: It has none; the message names the nearest.
    """
    problem = "" if name and is_model(name) else "no model of timm"
    try:
        if not problem:
            timm.models.get_pretrained_cfg(name)
    except RuntimeError:
        problem = "a model of timm, but has no weights of that tag"
    if problem:
        known = {*timm.list_models(), *timm.list_models(pretrained=True)}
        near = difflib.get_close_matches(name, sorted(known), n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
        raise ValueError(
            f"model: got {name!r}, which is {problem}; {hint}expected a name such as 'vit_tiny_patch16_224'; "
            "timm.list_models('*vit*') lists those there are"
        )


def geometry_of(preprocessing: Mapping[str, Any], name: str) -> Geometry:
    """How timm makes a square of an image when it evaluates (`timm.data.transforms_factory`).

    Raises:
        ValueError: In a way that the bench does not know.
    """
    channels, height, width = preprocessing["input_size"]
    share, mode, interpolation = (preprocessing[key] for key in ("crop_pct", "crop_mode", "interpolation"))
    resize = math.floor(height / share)
    unknown = {
        f"{channels} channels": channels != 3,
        f"{height} x {width} pixels": height != width,
        f"crop mode {mode!r} with a crop of {share}": mode != "center" and not (mode == "squash" and resize == height),
        f"interpolation {interpolation!r}": interpolation not in ("bilinear", "bicubic"),
        f"a crop of {share}": resize < height,
    }
    if found := [what for what, is_so in unknown.items() if is_so]:
        raise ValueError(
            f"model: {name!r} takes images in a way that the bench does not know ({', '.join(found)}); expected a "
            "square of 3 channels, cropped from the centre or squashed; choose another, or write a BackboneFactory"
        )
    return Geometry(height, 0 if mode == "squash" else resize, interpolation)
