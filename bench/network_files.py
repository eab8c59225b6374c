"""Backbones from a Python file: `backbone = "path/net.py:make"` in a suite.

`make` is a function without arguments that returns an `nn.Module`, from squares of numbers to logits or, with
`gives_features = true`, to features; or it is a class that keeps to `bench.backbones.BackboneFactory`, which is made
with its default options. A class with options of its own belongs in a plugin file's table `BACKBONES`.
"""

import hashlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from bench import UsageError
from bench import weights as files
from bench.backbones import FACTORY_NEEDS, Backbone, BackboneFactory, Standardised
from bench.datasets import Dataset
from bench.geometry import Geometry
from bench.heads import needs_head
from bench.lanes import Report
from bench.registry import imported


@dataclass(frozen=True)
class FileBackbone:
    """What a Python file makes. All options but the first two and `checkpoint` are for functions only.

    Attributes:
        path: The file.
        attribute: The function or class in it.
        checkpoint: A file of weights for the module; empty where it brings its own; "random" where those are.
        seed: Of what the function draws, if it draws anything.
        side: Of the squares that the module takes, in pixels.
        resize: What the shorter side is brought to before the middle is cut out; 0 squashes.
        interpolation: Of the resizing.
        mean: Of the shares of 255, per channel.
        std: Of the shares of 255, per channel.
        n_cls: Class tokens before the patch tokens.
        n_registers: Registers between these and the patch tokens.
        gives_features: The module gives features, so that a head is fitted on them.
        licence: Of the weights.
    """

    path: str = ""
    attribute: str = ""
    checkpoint: str = ""
    seed: int = 0
    side: int = 224
    resize: int = 256
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    n_cls: int = 0
    n_registers: int = 0
    gives_features: bool = False
    licence: str = "not stated"

    is_loaded: ClassVar[bool] = True
    places: ClassVar[tuple[str, ...]] = ("path", "checkpoint")

    def __post_init__(self) -> None:
        if not self.path or not Path(self.path).is_file():
            raise ValueError(f"path: got {self.path!r}, which is no file; expected FILE.py:FACTORY as name; mend it")
        if len(self.mean) != 3 or len(self.std) != 3:
            raise ValueError(f"mean: got {self.mean} and std {self.std}; expected three numbers each; mend them")
        if self.checkpoint not in ("", files.RANDOM) and not files.given(self.checkpoint):
            raise ValueError(
                f"checkpoint: got {self.checkpoint!r}, which holds no weights; expected a file; mend the path"
            )
        _ = self.made

    @cached_property
    def made(self) -> Any:
        """The function, or the factory that the class makes.

        Raises:
            ValueError: The file does not run, or has neither.
        """
        found = getattr(module_of(Path(self.path)), self.attribute, None)
        if isinstance(found, type) and not issubclass(found, nn.Module):
            whole = found()
            lacking = [name for name in FACTORY_NEEDS if not hasattr(whole, name)]
            if lacking:
                what = f"{self.attribute!r} of {self.path}, which has no {', '.join(lacking)}"
                raise ValueError(f"attribute: got {what}; expected a BackboneFactory (README, backbones); add them")
            return whole
        if not callable(found):
            what = "is not there" if found is None else f"is a {type(found).__name__}"
            raise ValueError(
                f"attribute: got {self.attribute!r}, which {what} in {self.path}; expected a function that returns an "
                "nn.Module, or a BackboneFactory; mend the name"
            )
        return found

    def __getstate__(self) -> dict[str, Any]:
        """The options alone: another process reads the file again."""
        return {option.name: getattr(self, option.name) for option in fields(self)}

    @property
    def factory(self) -> BackboneFactory | None:
        """The factory, where it is one."""
        return self.made if isinstance(self.made, BackboneFactory) else None

    @property
    def version(self) -> int:
        """The factory's, or that of the way in which functions are used."""
        return self.factory.version if self.factory else 1

    @property
    def trained_on_dataset(self) -> bool:
        """Whether the weights depend on the data set."""
        return bool(self.factory and self.factory.trained_on_dataset)

    @property
    def geometry(self) -> Geometry | None:
        """How images become squares; a factory may take them as they come."""
        if self.factory:
            return getattr(self.factory, "geometry", None)
        return Geometry(self.side, self.resize, self.interpolation)

    @property
    def content(self) -> str:
        """Hashes of the file and of the weights."""
        own = [f"file {files.content_of([Path(self.path)])}", str(getattr(self.factory, "content", ""))]
        if self.checkpoint:
            is_random = self.checkpoint == files.RANDOM
            own.append(files.RANDOM if is_random else files.content_of(files.given(self.checkpoint)))
        return ", ".join(filter(None, own))

    @property
    def warning(self) -> str:
        """What a reader of its numbers has to be told first."""
        return "random weights" if self.checkpoint == files.RANDOM else getattr(self.factory, "warning", "")

    def features_only(self, n_classes: int) -> bool:
        """Whether a head is to be fitted for a data set of so many classes."""
        return needs_head(self.factory, n_classes) if self.factory else self.gives_features

    def module(self) -> nn.Module:
        """What the function returns, under the seed.

        Raises:
            UsageError: It is no module.
        """
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self.seed)
            made = self.made()
        if not isinstance(made, nn.Module):
            what = f"{self.attribute} of {self.path} returned a {type(made).__name__}"
            raise UsageError(f"backbone: {what}; expected an nn.Module; mend it")
        return made

    def skeleton(self) -> nn.Module:
        """The module, to look sites up in."""
        return self.factory.skeleton() if self.factory else self.module()

    def weights(self, dataset: Dataset, report: Report) -> dict[str, Tensor]:
        """The module's state: its own, or that of the file of weights.

        Raises:
            UsageError: The file's tensors are not those of the module.
        """
        if self.factory:
            return self.factory.weights(dataset, report)
        own = self.module().state_dict()
        if self.checkpoint in ("", files.RANDOM):
            return own
        paths = files.given(self.checkpoint)
        state = files.tensors_of(paths, own)
        if problem := files.problem_of(state, own):
            raise UsageError(
                f"weights: {paths[0]} is not {self.attribute} of {self.path}: {problem}; expected its {len(own)} "
                "tensors; give the right file with --weights NAME=PATH"
            )
        return state

    def assemble(self, weights: Mapping[str, Tensor], dataset: Dataset) -> Backbone:
        """The backbone that these weights make.

        Raises:
            UsageError: The module does not give one row of logits, or of features, for an image.
        """
        if self.factory:
            return self.factory.assemble(weights, dataset)
        module = self.module()
        files.load_exactly(module, weights)
        transform = Standardised(triple(self.mean), triple(self.std))
        about = {"weights": f"random, seed {self.seed}"} if self.checkpoint == files.RANDOM else {}
        whole = Backbone.of(
            self.attribute,
            module,
            transform,
            preprocessing=str(transform),
            prefix=("cls",) * self.n_cls + ("register",) * self.n_registers,
            licence=self.licence,
            notes={"file": Path(self.path).name, **about},
            geometry=self.geometry,
        )
        with torch.inference_mode():
            given = module(transform(torch.zeros(1, 3, self.side, self.side, dtype=torch.uint8)))
        wanted = given.shape[-1] if self.gives_features else len(dataset.classes)
        if given.shape != (1, wanted):
            raise UsageError(
                f"backbone: {self.attribute} of {self.path} gives {tuple(given.shape)} for one image; expected "
                f"(1, {wanted}); mend its forward pass, or say gives_features = true to have a head fitted"
            )
        return whole


def triple(values: tuple[float, ...]) -> tuple[float, float, float]:
    """Three numbers as such."""
    red, green, blue = values
    return red, green, blue


def module_of(path: Path) -> Any:
    """The file as a module, read once for each of its contents.

    Raises:
        ValueError: It does not run.
    """
    name = f"eludebench_network_{hashlib.sha256(path.read_bytes()).hexdigest()[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    try:
        return imported(path, name)
    except ValueError as error:
        raise ValueError(f"path: {error}") from error
