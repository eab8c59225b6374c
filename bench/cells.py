"""What a suite comes down to: sites, methods with their options, and the cells that pair them under seeds.

A cell is the unit of work, of failure and of records. Its identity is a hash of everything that its numbers follow
from; labels are names for people and no part of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from bench.cache import digest
from bench.changes import Changes
from bench.registry import REFERENCES, Entry
from metrics.catalogue import MetricRow

Precision = Literal["float32", "bfloat16", "float16"]
Stored = Literal["float32", "float16"]

VERSION = 1
"""Part of every cell's identity; raised when the bench itself computes something differently."""


@dataclass(frozen=True)
class Component:
    """A registered component with the options that a suite gives it.

    Attributes:
        entry: Where it is registered.
        options: Every option with its value, defaults filled in.
        built: The component itself: a frozen dataclass of these options.
        variants: For a method that is swept, the same component under each combination of the swept options.
    """

    entry: Entry
    options: Mapping[str, Any]
    built: Any
    variants: "tuple[Component, ...]" = ()

    @property
    def choices(self) -> dict[str, Any]:
        """Its options, but for those that say where something is, and not what."""
        places = getattr(self.built, "places", ())
        return {name: value for name, value in self.options.items() if name not in places}

    @property
    def identity(self) -> dict[str, Any]:
        """What it is, for keys: code, its version, options."""
        own = {"component": self.entry.identity, "version": self.built.version, "options": self.choices}
        content = getattr(self.built, "content", "")  # of files that an option names
        own |= {"content": content} if content else {}
        return {**own, "variants": [variant.identity for variant in self.variants]} if self.variants else own


@dataclass(frozen=True)
class SiteSpec:
    """One site of a suite: where activations are read, and how many.

    Attributes:
        label: What tables call it.
        dataset: The images.
        backbone: The network.
        module: Module path of the layer.
        tokens_per_image: Tokens of each probing image that methods decompose.
        encoder: Another network, for metrics.
        precision: Of the backbone's forward pass.
        stored: Of the activations on disk.
        share: Of the images of both splits, drawn at random; 1 takes all.
        caveat: What has to be said of its data.
    """

    label: str
    dataset: Component
    backbone: Component
    module: str
    tokens_per_image: int
    encoder: Component | None = None
    precision: Precision = "float32"
    stored: Stored = "float32"
    share: float = 1.0
    caveat: str = ""

    @property
    def unusual(self) -> dict[str, Any]:
        """Those of its own options that are not as usual."""
        usual = {"precision": "float32", "stored": "float32", "share": 1.0}
        return {name: getattr(self, name) for name, value in usual.items() if getattr(self, name) != value}

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a reader of its numbers has to be told first."""
        found = [getattr(self.backbone.built, "warning", ""), self.caveat]
        found += [f"{100 * self.share:g} % of the images"] if self.share < 1 else []
        return tuple(one for one in found if one)

    @property
    def options(self) -> dict[str, Any]:
        """Every option of it, for records; what only says where something is stays on the machine."""
        return {
            "dataset": self.dataset.choices,
            "backbone": self.backbone.choices,
            "tokens_per_image": self.tokens_per_image,
            **({} if self.encoder is None else {"encoder": self.encoder.choices}),
            **self.unusual,
        }

    @property
    def identity(self) -> dict[str, Any]:
        """What it is, for keys; its label is not part of it."""
        return {
            "dataset": self.dataset.identity,
            "backbone": self.backbone.identity,
            "module": self.module,
            "tokens_per_image": self.tokens_per_image,
            **({} if self.encoder is None else {"encoder": self.encoder.identity}),
            **self.unusual,
        }


@dataclass(frozen=True)
class Cell:
    """One method at one site under one token seed and one init seed: the unit of work, of failure and of records.

    Attributes:
        site: Where.
        label: The method's label in the suite.
        method: What.
        leader: The cell whose decomposition this one's method follows; None for methods that follow nobody.
        token_seed: Draws the sampled tokens.
        init_seed: Draws whatever the method draws.
        metrics: The values to measure: name, and the identity of the code that computes it.
        selected_at: For a method that is swept, the token seed and the init seed on which one variant is chosen.
        runs_alone: A metric measures time, so that nothing else may run meanwhile.
        runs_apart: A metric has the method decompose again, which takes longer than sharing the backbone's pass saves.
    """

    site: SiteSpec
    label: str
    method: Component
    leader: "Cell | None"
    token_seed: int
    init_seed: int
    metrics: tuple[tuple[str, str], ...]
    selected_at: tuple[int, int] | None = None
    runs_alone: bool = False
    runs_apart: bool = False

    @property
    def id(self) -> str:
        """Hash of everything that its numbers follow from, names and labels aside."""
        parts = {
            "bench": VERSION,
            "site": self.site.identity,
            "method": self.method.identity,
            "leader": self.leader.id if self.leader else None,
            "token_seed": self.token_seed,
            "init_seed": self.init_seed,
            "metrics": [list(metric) for metric in self.metrics],
        }
        if self.selected_at is not None:
            parts["selected_at"] = list(self.selected_at)
        return digest(parts)[:16]

    @property
    def unmeasured(self) -> "Cell":
        """The same without metrics, its leader too: what is found, whatever is measured of it."""
        return replace(self, metrics=(), leader=self.leader.unmeasured if self.leader else None)

    @property
    def name(self) -> str:
        """What people call it."""
        return f"{self.site.label}/{self.label}/t{self.token_seed}/i{self.init_seed}"

    @property
    def is_reference(self) -> bool:
        """Whether the method is a yardstick rather than a contestant."""
        return self.method.entry.name in REFERENCES


@dataclass(frozen=True)
class Suite:
    """A validated suite and its cells; `tables` are those that a run of it writes, the first is printed.

    `compares` says whether runs are compared that differ in the init seed alone; `panel` names the judges that a run of
    it ends with, if any; `changes` are what a command line said of it; `text` is what it was read from.
    """

    name: str
    description: str
    sites: tuple[SiteSpec, ...]
    labels: tuple[str, ...]
    token_seeds: tuple[int, ...]
    init_seeds: tuple[int, ...]
    metrics: tuple[MetricRow, ...]
    tables: tuple[str, ...]
    cells: tuple[Cell, ...]
    compares: bool = False
    panel: str = ""
    changes: Changes = field(default_factory=Changes)
    text: str = ""
