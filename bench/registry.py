"""Names to components: built-ins as one literal table, other people's plugins through the same door.

A component is named by "module:attribute" and imported only when it is used, so listing imports nothing. Plugins come
as entry points (groups `eludebench.methods`, ...) or as one file given with `--plugin`, which holds tables named
`METHODS`, `METRICS`, `DATASETS`, `BACKBONES` or `JUDGES`: dictionaries from name to class.
"""

import difflib
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from bench import UnknownNameError, UsageError, zoo
from metrics.catalogue import ROWS

BUILT_IN: dict[str, dict[str, tuple[str, str]]] = {
    "methods": {
        "archetypal_sae": (
            "methods.archetypal:ArchetypalSAE",
            "TopK autoencoder with atoms near mixtures of data",
        ),
        "backbone": ("methods.controls:Backbone", "the neuron basis: every unit as it is (reference)"),
        "batchtopk_sae": ("methods.sae:BatchTopKSAE", "sparse autoencoder with k active atoms a token on average"),
        "checkpoint": (
            "methods.checkpoints:Checkpoint",
            "somebody else's autoencoder, from its folder",
        ),
        "dnrwcv": ("methods.virtual:DNRwCV", "directions found by clustering a unit's top images (virtual units)"),
        "dpcicnn": ("methods.dpcicnn:DPCiCNN", "splits a unit's weights between two classes, exactly (needs labels)"),
        "elude": ("methods.elude:ELUDe", "clusters each unit's contributions and splits its weights exactly"),
        "jumprelu_sae": ("methods.sae:JumpReLUSAE", "sparse autoencoder with a learned threshold per atom"),
        "matching_pursuit_sae": ("methods.matching_pursuit:MatchingPursuitSAE", "dictionary read by k greedy steps"),
        "matryoshka_sae": ("methods.matryoshka:MatryoshkaSAE", "BatchTopK autoencoder with nested dictionaries"),
        "pca": ("methods.controls:PCA", "principal components (reference)"),
        "planted_truth": ("methods.controls:PlantedTruth", "the parts that a planted network was made of (reference)"),
        "pure": (
            "methods.virtual:PURE",
            "clusters of a unit's incoming attributions (virtual units)",
        ),
        "random_directions": ("methods.controls:RandomDirections", "random unit-norm directions (reference)"),
        "random_partition": ("methods.controls:RandomPartition", "weights split at random, parts as ELUDe (reference)"),
        "topk_sae": ("methods.sae:TopKSAE", "sparse autoencoder that keeps the k largest codes of a token"),
        "transcoder": ("methods.transcoder:Transcoder", "sparse codes of the site's inputs that rebuild its outputs"),
        "vanilla_sae": ("methods.sae:VanillaSAE", "sparse autoencoder with an L1 penalty"),
    },
    "metrics": {name: (row.computed_by, row.summary) for name, row in ROWS.items()},
    "judges": {
        "endpoint": ("judges.client:Endpoint", "a vision-language model behind an OpenAI-compatible endpoint"),
        "proxy": ("judges.proxies:ProxyJudge", "likeness of the cells of a grid, computed from pixels: no model"),
    },
    "backbones": {
        "embedded_features": (
            "bench.heads:EmbeddedFeatures",
            "the same without its classifier: a head is fitted on it",
        ),
        "embedded_vit": ("bench.embedded:EmbeddedViT", "small timm ViT, trained from scratch on the suite's data set"),
        "file": ("bench.network_files:FileBackbone", "a network from a Python file; or write FILE.py:FACTORY as name"),
        "hf": ("bench.vision_towers:HFBackbone", "any vision model of transformers; or write hf:REPOSITORY as name"),
        "planted_network": ("bench.planted_network:PlantedNetwork", "units made of known parts, for data set concepts"),
        "timm": ("bench.image_models:TimmBackbone", "any image model of timm; or write timm:MODEL as name"),
    },
    "datasets": {
        "concepts": ("bench.concepts:Concepts", "glyphs on a grid, 36 classes, known concepts in every patch"),
        "digits": ("bench.datasets:Digits", "handwritten digits that ship inside scikit-learn, 10 classes"),
        "huggingface": ("bench.image_tables:HuggingFace", "your images in a Hugging Face data set on disk, or Parquet"),
        "image_folder": ("bench.image_files:ImageFolder", "your images in folders, one a class (torchvision's layout)"),
        "photos": ("bench.datasets:Photos", "disjoint tiles of photographs that ship with scikit-image, scikit-learn"),
        "shapes": ("bench.datasets:Shapes", "procedural shapes in colours on textures, 48 classes, known factors"),
        "webdataset": ("bench.image_shards:WebDataset", "your images in tar shards (WebDataset's layout)"),
    },
}
KINDS = tuple(BUILT_IN)
SHIPPED = Path(__file__).parent
REFERENCES = frozenset({"backbone", "random_partition", "pca", "random_directions", "planted_truth"})
"""Methods that are yardsticks, not contestants: tables show them apart and never mark them best."""


@dataclass(frozen=True)
class Entry:
    """One registered component.

    Attributes:
        name: Its name in suites.
        target: "module:attribute", or the loaded object of a plugin file.
        owner: Who registered it: "eludebench", a distribution, or a file.
        summary: One line.
        digest: What, beside its own version, changes when the component's code does: the distribution's version or
            the file's hash; empty for built-ins.
        preset: Options that the name stands for, which a suite cannot give otherwise.
    """

    name: str
    target: str | type
    owner: str
    summary: str
    digest: str = ""
    preset: Mapping[str, Any] = field(default_factory=dict)

    def load(self) -> Any:
        """The component itself.

        Raises:
            UsageError: The target does not exist or does not import.
        """
        if not isinstance(self.target, str):
            return self.target
        module, _, attribute = self.target.partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise UsageError(
                f"{self.name}: {self.target!r} of {self.owner} cannot be loaded ({error}); expected module:attribute; "
                f"install what it needs or mend the entry point"
            ) from error

    @property
    def identity(self) -> str:
        """What cache keys hold of the component's code, its own `version` aside."""
        target = self.target if isinstance(self.target, str) else self.target.__qualname__
        return f"{target}@{self.digest}" if self.digest else target


def shipped_suites() -> dict[str, Path]:
    """The suites that come with the bench, by name."""
    return {path.stem: path for path in sorted((SHIPPED / "suites").glob("*.toml"))}


def shipped_panels() -> dict[str, Path]:
    """The panels of judges that come with the bench, by name."""
    return {path.stem: path for path in sorted((SHIPPED / "panels").glob("*.toml"))}


def suite_path(name: str) -> Path:
    """The file of a suite: a shipped one by name, or any file ending in .toml.

    Raises:
        UsageError: There is none.
    """
    return file_of("suite", name, shipped_suites())


def panel_path(name: str) -> Path:
    """The file of a panel of judges: a shipped one by name, or any file ending in .toml.

    Raises:
        UsageError: There is none.
    """
    return file_of("panel", name, shipped_panels())


def file_of(kind: str, name: str, shipped: Mapping[str, Path]) -> Path:
    """The file of that name: one of those shipped, or any ending in .toml.

    Raises:
        UsageError: There is none.
    """
    if name in shipped:
        return shipped[name]
    path = Path(name)
    if path.suffix == ".toml":
        if path.is_file():
            return path
        raise UsageError(f"{kind}: got {name}, which is no file; expected a {kind} in TOML; check the path")
    raise UsageError(f"{unknown(kind, name, shipped, f'eludebench list {kind}s')}, or give the path of a .toml file")


class Registry:
    """Every component of every kind: built-ins, entry points, and the plugin files given."""

    def __init__(self, plugins: Iterable[Path] = ()) -> None:
        """Collect the names; nothing is imported but the plugin files.

        Raises:
            UsageError: A plugin file cannot be used, or two owners claim one name.
        """
        self.plugins = tuple(plugins)
        self.tables: dict[str, dict[str, Entry]] = {kind: {} for kind in KINDS}
        for kind, table in BUILT_IN.items():
            for name, (target, summary) in table.items():
                self.add(kind, Entry(name, target, "eludebench", summary))
            for name, row in zoo.ROWS.items() if kind == "backbones" else ():
                self.add(kind, Entry(name, row.target, "eludebench", row.summary, preset=row.preset))
            for point in entry_points(group=f"eludebench.{kind}"):
                owner = point.dist.name if point.dist else "unknown distribution"
                version = point.dist.version if point.dist else ""
                self.add(kind, Entry(point.name, point.value, owner, f"plugin of {owner}", f"{owner} {version}"))
        for path in self.plugins:
            self.add_file(path)

    def add(self, kind: str, entry: Entry) -> None:
        """Register one component.

        Raises:
            UsageError: The name is taken.
        """
        taken = self.tables[kind].get(entry.name)
        if taken is not None:
            raise UsageError(
                f"{kind} {entry.name!r}: claimed by {taken.owner} and by {entry.owner}; expected one owner; rename one"
            )
        self.tables[kind][entry.name] = entry

    def add_file(self, path: Path) -> None:
        """Register every component of a plugin file."""
        for kind, table in plugin_tables(path).items():
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            for name, component in table.items():
                summary = (component.__doc__ or "").strip().split("\n")[0]
                self.add(kind, Entry(name, component, path.name, summary, digest))

    def from_files(self, kind: str) -> list[Entry]:
        """The components of this kind that came with `--plugin`."""
        owners = {path.name for path in self.plugins}
        return [entry for entry in self.tables[kind].values() if entry.owner in owners]

    def find(self, kind: str, name: str) -> Entry:
        """The component of that name; for backbones also what names of other forms stand for (`zoo.stands_for`).

        Raises:
            UnknownNameError: There is none; the message suggests the nearest and lists all.
        """
        entry = self.tables[kind].get(name)
        if entry is None and kind == "backbones" and (other := zoo.stands_for(name)):
            target, preset, summary = other
            return Entry(name, target, "eludebench", summary, preset=preset)
        if entry is None:
            raise UnknownNameError(unknown(kind.removesuffix("s"), name, self.tables[kind], f"eludebench list {kind}"))
        return entry


def unknown(what: str, name: str, known: Iterable[str], next_step: str) -> str:
    """The one-line message for a name that does not exist."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{what}: got {name!r}; {hint}expected one of {', '.join(names) or '(none)'}; see `{next_step}`"


def imported(path: Path, name: str) -> ModuleType:
    """A Python file as a module of that name, which other processes can unpickle from once they imported it too.

    Raises:
        ValueError: It is no file of Python, or does not import.
    """
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"got {path}, which Python cannot load; expected a file ending in .py; rename it")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        what = f"{path}, which does not import ({type(error).__name__}: {error})"
        raise ValueError(f"got {what}; expected a file that imports; mend it") from error
    return module


def plugin_tables(path: Path) -> Mapping[str, Mapping[str, type]]:
    """The tables of a plugin file, by kind.

    Raises:
        UsageError: There is no such file, it does not import, or it holds no table.
    """
    if not path.is_file():
        raise UsageError(f"--plugin: got {path}, which is no file; expected a Python file; check the path")
    try:
        module = imported(path, f"eludebench_plugin_{path.stem}")
    except ValueError as error:
        raise UsageError(f"--plugin: {error}") from error
    tables = {kind: getattr(module, kind.upper()) for kind in KINDS if hasattr(module, kind.upper())}
    if not tables:
        raise UsageError(
            f"--plugin: {path} registers nothing; expected a table such as METHODS = {{'my_method': MyMethod}}; add one"
        )
    for kind, table in tables.items():
        if not isinstance(table, dict) or not all(isinstance(component, type) for component in table.values()):
            raise UsageError(
                f"--plugin: {kind.upper()} of {path} is {table!r}; expected a table from name to class, such as "
                f"{{'mine': Mine}}; mend it"
            )
    return tables
