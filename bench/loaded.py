"""What all backbones with published weights have in common: their options, and the way from a file to a backbone."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from bench import UsageError, heads
from bench import weights as files
from bench.backbones import Backbone
from bench.datasets import Dataset
from bench.lanes import Report
from bench.options import check_at_least


@dataclass(frozen=True)
class Loaded(ABC):
    """A factory of backbones whose weights are loaded; the base of those that there are.

    Attributes:
        model: What it is called where it comes from.
        checkpoint: Where the weights are: empty for the user's cache, a file or a folder, or "random".
        seed: Of random weights.
        head: A file with a linear head ("weight", classes x features, and "bias"), for networks that give features;
            empty for one that the bench fits.
        classifier: Whether the network's own classifier is used where it has as many classes as the data set, or a head
            is fitted on its features in any case.
    """

    model: str = ""
    checkpoint: str = ""
    seed: int = 0
    head: str = ""
    classifier: Literal["own", "fitted"] = "own"

    version: ClassVar[int] = 1
    trained_on_dataset: ClassVar[bool] = False
    is_loaded: ClassVar[bool] = True
    places: ClassVar[tuple[str, ...]] = ("checkpoint", "head")

    def __post_init__(self) -> None:
        check_at_least("seed", self.seed, 0)
        for option, place in (("checkpoint", self.checkpoint), ("head", self.head)):
            if place and place != files.RANDOM and not Path(place).expanduser().exists():
                raise ValueError(
                    f"{option}: got {place!r}, which is not there; expected a file or a folder; mend the path"
                )
        if self.head == files.RANDOM:
            raise ValueError("head: got 'random'; expected a file; leave it out to have a head fitted")

    def __getstate__(self) -> dict[str, Any]:
        """The options alone: what was looked up for them is looked up again in another process."""
        return {option.name: getattr(self, option.name) for option in fields(self)}

    @property
    @abstractmethod
    def origin(self) -> files.Origin:
        """What the weights are called where they are published."""

    @property
    @abstractmethod
    def n_classes(self) -> int:
        """How many classes the network's own classifier has; 0 where it has none."""

    @abstractmethod
    def architecture(self, with_classifier: bool) -> nn.Module:
        """The network from preprocessed images to logits, or without its classifier to features; module paths agree."""

    @abstractmethod
    def backbone(self, module: nn.Module, notes: Mapping[str, float | int | str]) -> Backbone:
        """The backbone of a network that has its weights."""

    def converted(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Published tensors as this architecture takes them, where they are not."""
        return state

    def ignored(self) -> frozenset[str]:
        """Published tensors that this architecture has no use for."""
        return frozenset()

    @property
    def is_random(self) -> bool:
        """Whether the weights are random."""
        return self.checkpoint == files.RANDOM

    @property
    def warning(self) -> str:
        """What a reader of its numbers has to be told first."""
        return "random weights" if self.is_random else ""

    def paths(self) -> tuple[Path, ...]:
        """The files of the weights as far as they are here; nothing is downloaded."""
        return files.given(self.checkpoint, self.origin.files) if self.checkpoint else self.origin.found()

    @property
    def content(self) -> str:
        """What stands at its places: a hash of the weights and of the head."""
        own = files.RANDOM if self.is_random else files.content_of(self.paths())
        return f"{own}, head {files.content_of([Path(self.head).expanduser()])}" if self.head else own

    @property
    def missing(self) -> str:
        """What has to be fetched before it can be used, in words; empty where nothing has to be."""
        return "" if self.is_random or self.paths() else self.origin.wanted

    def fetch(self) -> None:
        """Download the weights if they are not here; to be done before identities are taken, which follow from them.

        Raises:
            UsageError: They cannot be had.
        """
        if not self.is_random and not self.paths():
            if self.checkpoint:
                what = f"{self.checkpoint} holds no {', '.join(self.origin.files)}"
                raise UsageError(f"weights: {what}; expected one of them; give the file itself")
            self.origin.fetched()

    def skeleton(self) -> nn.Module:
        """The architecture without weights or memory, its own classifier included."""
        with torch.device("meta"):
            return self.architecture(with_classifier=self.n_classes > 0)

    def features_only(self, n_classes: int) -> bool:
        """Whether it gives features for a data set of so many classes, and no logits of its own."""
        return not self.head and not self.has_own_head(n_classes)

    def has_own_head(self, n_classes: int) -> bool:
        """Whether the network's own classifier is used for a data set of so many classes."""
        return self.classifier == "own" and not self.head and 0 < self.n_classes == n_classes

    def weights(self, dataset: Dataset, report: Report) -> dict[str, Tensor]:
        """The network's state, its own classifier included: loaded, downloaded first if need be, or random.

        Raises:
            UsageError: The weights are not here and cannot be had, or are those of something else.
        """
        if self.is_random:
            return files.random_state(lambda: self.architecture(with_classifier=self.n_classes > 0), self.seed)
        self.fetch()
        paths = self.paths()
        expected = self.skeleton().state_dict()
        state = files.tensors_of(paths, expected)
        problem = files.problem_of(state, expected, self.ignored())
        if problem:
            try:
                state = self.converted(state)
            except (RuntimeError, ValueError, KeyError, IndexError, AttributeError, TypeError):  # of some other network
                pass
            else:
                problem = files.problem_of(state, expected, self.ignored())
        if problem:
            raise UsageError(
                f"weights: {paths[0]} is not {self.origin.name}: {problem}; expected its {len(expected)} tensors; "
                "give the right file with --weights NAME=PATH, or rehearse with --random-weights"
            )
        return {name: state[name] for name in expected}

    def assemble(self, weights: Mapping[str, Tensor], dataset: Dataset) -> Backbone:
        """The backbone that these weights make, with its own classifier, the head of a file, or features.

        Raises:
            UsageError: The head's file does not fit the features or the data set.
        """
        n_classes = len(dataset.classes)
        is_whole = self.has_own_head(n_classes)
        with files.Unfilled():
            module = self.architecture(with_classifier=is_whole)
        files.load_exactly(module, weights)
        notes: dict[str, float | int | str] = {"source": self.origin.name}
        if self.is_random:
            notes["weights"] = f"random, seed {self.seed}"
        else:
            notes["weights_sha256"] = files.content_of(self.paths())
        notes["classifier"] = "own" if is_whole else Path(self.head).name if self.head else "fitted"
        whole = self.backbone(module, notes)
        return heads.headed(whole, self.head_of(n_classes)) if self.head else whole

    def head_of(self, n_classes: int) -> dict[str, Tensor]:
        """The linear head of the file, for a data set of so many classes.

        Raises:
            UsageError: It has other tensors, or another number of classes.
        """
        path = Path(self.head).expanduser()
        state = files.tensors_of([path], ("weight", "bias"), also=("linear.", "head.", "classifier."))
        shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
        if shapes.keys() != {"weight", "bias"} or len(shapes["weight"]) != 2 or shapes["weight"][0] != n_classes:
            raise UsageError(
                f"head: {path} holds {shapes}; expected a weight of {n_classes} classes x features and a bias; give a "
                "head for this data set, or none to have one fitted"
            )
        return state
