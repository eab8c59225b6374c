"""Backbones from transformers: vision models, and the vision towers of models of images and text.

A tower is a module of its own here: its paths are those that transformers gives it (`encoder.layers.11.mlp.fc2`), and
of a larger checkpoint only its tensors are read. Images become squares as the source's image processor makes them.
"""

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from bench import UsageError, zoo
from bench.backbones import Backbone, Standardised
from bench.cache import digest
from bench.geometry import Geometry
from bench.loaded import Loaded
from bench.weights import Origin, given

ELSEWHERE = ("_name_or_path", "transformers_version")
"""What a configuration says of where and by what it was read, and not of the model."""
INTERPOLATIONS: dict[int, Literal["bilinear", "bicubic"]] = {2: "bilinear", 3: "bicubic"}


def library() -> Any:
    """The package transformers.

    Raises:
        UsageError: It is not installed.
    """
    try:
        import transformers
    except ImportError as error:
        raise UsageError(
            f"backbone: transformers is not there ({error}); expected it for backbones from Hugging Face; install "
            "eludebench with its extra: pip install 'eludebench[towers]'"
        ) from error
    return transformers


@dataclass(frozen=True)
class HFBackbone(Loaded):
    """A vision model of transformers, by its repository or by a folder of the same files. Options as in `Loaded`.

    A model with a classifier of as many classes as the data set keeps it; one with another is asked for what its
    classifier is given. A head is fitted on that, or on the tokens of a model without a classifier.

    Attributes:
        features: Of a model without a classifier: what it gives as pooled ("pooled"), the class token ("cls"), the mean
            of the patch tokens ("patches"); "auto" is pooled where the model pools, and else the patches.
    """

    features: Literal["auto", "pooled", "cls", "patches"] = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.model:
            raise ValueError("model: got none; expected a repository or a folder; write hf:OWNER/NAME as the name")
        _ = self.config, self.geometry

    @cached_property
    def config(self) -> Any:
        """The configuration of the vision part: from the catalogue, the cache, or the hub.

        Raises:
            UsageError: There is none.
        """
        auto, row = library().AutoConfig, zoo.row_of(self.model)
        whole = auto.for_model(**row.config) if row else fetched(auto.from_pretrained, self.model, "config.json")
        return getattr(whole, "vision_config", None) or whole

    @cached_property
    def processor(self) -> Any:
        """The image processor: from the catalogue, the cache, or the hub; errors as for `config`."""
        row = zoo.row_of(self.model)
        if row:
            options = dict(row.processor)
            return getattr(library(), options.pop("image_processor_type"))(**options)
        return fetched(library().AutoImageProcessor.from_pretrained, self.model, "preprocessor_config.json")

    @property
    def geometry(self) -> Geometry:
        """How images become squares.

        Raises:
            UsageError: The processor does it in a way that the bench does not know.
        """
        return geometry_of(self.processor, self.model)

    @property
    def origin(self) -> Origin:
        """The repository; of a folder, nothing is published."""
        is_folder = Path(self.model).is_dir()
        return Origin(self.model, "" if is_folder else self.model)

    @property
    def content(self) -> str:
        """What stands at its places, and the configurations that are read beside the weights."""
        own = [
            {name: value for name, value in one.to_dict().items() if name not in ELSEWHERE}
            for one in (self.config, self.processor)
        ]
        return f"{super().content}, configurations {digest({'both': json.dumps(own, sort_keys=True, default=str)})}"

    def paths(self) -> tuple[Path, ...]:
        """The files of the weights as far as they are here; those of a model's folder without being told."""
        return super().paths() or given(self.model)

    @property
    def is_classifier(self) -> bool:
        """Whether it was published with a classifier of images."""
        named = getattr(self.config, "architectures", None) or [""]
        return str(named[0]).endswith("ForImageClassification")

    @property
    def n_classes(self) -> int:
        """Classes of the published classifier."""
        return int(self.config.num_labels) if self.is_classifier else 0

    def architecture(self, with_classifier: bool) -> nn.Module:
        """The model as transformers makes it; a hook picks what is asked for from what it gives."""
        if not self.is_classifier:
            module: nn.Module = library().AutoModel.from_config(self.config)
            prefix = prefix_of(module)
            kind = self.features
            if kind in ("cls", "patches") and hasattr(module, "pooler"):
                module.register_module("pooler", None)  # its tensors may be missing where nothing reads them
            module.register_forward_hook(functools.partial(pool, kind=kind, n_prefix=len(prefix), model=self.model))
            return module
        module = library().AutoModelForImageClassification.from_config(self.config)
        if not with_classifier:
            without_classifier(module, self.model)
        module.register_forward_hook(logits_of)
        return module

    def converted(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The tensors under the names of this version of transformers, by its own conversions."""
        classes = library()
        auto = classes.AutoModelForImageClassification if self.is_classifier else classes.AutoModel
        with torch.device("meta"):
            kind = type(auto.from_config(self.config))
        module, told = kind.from_pretrained(None, config=self.config, state_dict=state, output_loading_info=True)
        made_up = {*told["missing_keys"], *(name for name, *_ in told["mismatched_keys"])}
        own = set(self.skeleton().state_dict())
        return {name: tensor for name, tensor in module.state_dict().items() if name in own - made_up}

    def backbone(self, module: nn.Module, notes: Mapping[str, float | int | str]) -> Backbone:
        """The backbone with the source's preprocessing."""
        processor, row = self.processor, zoo.row_of(self.model)
        transform = Standardised(tuple(processor.image_mean), tuple(processor.image_std))
        return Backbone.of(
            self.model,
            module,
            transform,
            # What runs is the installed version's code, which the weights say nothing of.
            preprocessing=f"{transform}; transformers {library().__version__}",
            prefix=prefix_of(module),
            licence=row.licence if row else "not stated here: see the model's card",
            notes={**notes, "features": "" if self.is_classifier else self.features},
            geometry=self.geometry,
        )


def fetched(load: Any, model: str, file: str) -> Any:
    """What transformers reads of a model, from the cache or else from the hub.

    Raises:
        UsageError: It is neither there nor to be had.
    """
    try:
        return load(model)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"backbone: {model!r} cannot be read ({str(error).strip().splitlines()[0]}); expected {file} in a "
            f"folder of that name, in the cache of Hugging Face's hub, or on the hub; fetch it "
            f"(`hf download {model} {file}`)"
        ) from error


def geometry_of(processor: Any, model: str) -> Geometry:
    """How an image processor of transformers makes a square of an image.

    Raises:
        UsageError: In a way that the bench does not know.
    """

    def sizes(name: str) -> dict[str, int]:
        own = getattr(processor, name, None)
        return {key: value for key, value in dict(own or {}).items() if value}

    size, crop = sizes("size"), sizes("crop_size") if getattr(processor, "do_center_crop", False) else {}
    resize, side = 0, size.get("height", 0)
    if size.keys() == {"shortest_edge"} and crop:
        resize, side = size["shortest_edge"], crop.get("height", 0)
    squares = [one for one in (size, crop) if one.keys() == {"height", "width"}]
    interpolation = INTERPOLATIONS.get(int(processor.resample))
    is_known = all(one["height"] == one["width"] for one in squares) and bool(squares) and bool(interpolation)
    is_known = is_known and processor.do_resize and processor.do_rescale and processor.do_normalize
    is_known = (
        is_known and abs(processor.rescale_factor * 255 - 1) < 1e-9 and (not crop or bool(resize) or crop == size)
    )
    if not is_known or not interpolation:
        raise UsageError(
            f"backbone: {model!r} has an image processor that the bench does not know ({type(processor).__name__}: "
            f"size {size}, crop {crop}, resample {processor.resample}); expected one that resizes to a square, or "
            "resizes the shorter side and crops the middle, bilinear or bicubic; choose another, or write a factory"
        )
    backends = {base.__name__ for base in type(processor).__mro__}
    return Geometry(side, resize, interpolation, "tensor" if "TorchvisionBackend" in backends else "pillow")


def prefix_of(module: nn.Module) -> tuple[str, ...]:
    """The kinds of the tokens that a model of transformers puts before its patch tokens, told by their parameters.

    Raises:
        UsageError: There are tokens of another kind.
    """
    named = {name.rpartition(".")[2]: tensor for name, tensor in module.named_parameters()}
    if "distillation_token" in named:
        what = f"{type(module).__name__} has a distillation token"
        raise UsageError(f"backbone: {what}; expected class token and registers only; write a BackboneFactory")
    is_there = any(name in named for name in ("cls_token", "class_embedding"))
    registers = next((named[name] for name in ("register_tokens", "storage_tokens") if name in named), None)
    return ("cls",) * is_there + ("register",) * (0 if registers is None else registers.shape[-2])


def pool(_module: nn.Module, _args: Any, output: Any, *, kind: str, n_prefix: int, model: str) -> Tensor:
    """The features, from what a model gives; a hook of it.

    Raises:
        UsageError: It does not give what was asked for.
    """
    pooled = getattr(output, "pooler_output", None)
    if kind in ("auto", "pooled") and pooled is not None:
        found: Tensor = pooled.flatten(1)
        return found
    tokens: Tensor = output.last_hidden_state
    if kind == "cls" and n_prefix and tokens.ndim == 3:
        return tokens[:, 0]
    if kind in ("auto", "patches"):
        return tokens[:, n_prefix:].mean(1) if tokens.ndim == 3 else tokens.mean((2, 3))
    raise UsageError(f"features: got {kind!r}, which {model!r} does not give; expected another; leave it at 'auto'")


def logits_of(_module: nn.Module, _args: Any, output: Any) -> Tensor:
    """The logits, or where the classifier was taken away what it would be given; a hook of the model."""
    logits: Tensor = output.logits
    return logits


def without_classifier(module: nn.Module, model: str) -> None:
    """Take the classifier away, so that the model gives what it would be given; every other path stays.

    Raises:
        UsageError: It is not where it usually is.
    """
    own = getattr(module, "classifier", None)
    if isinstance(own, nn.Linear):
        module.set_submodule("classifier", nn.Identity())
    elif isinstance(own, nn.Sequential) and isinstance(own[-1], nn.Linear):
        own[-1] = nn.Identity()
    else:
        raise UsageError(
            f"backbone: {model!r} keeps its classifier in no module `classifier`; expected one there, to fit a head in "
            "its place; take data of as many classes, or write a BackboneFactory"
        )
