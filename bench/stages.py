"""The stages of a run: data set, backbone, activations, decomposition, values; each built once and kept in the cache.

Every key is made of what the stage's result follows from: the component and its options, and the content of the
stages before it. So a stage asks for the ones before it by itself, whatever was done or lost earlier.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors import torch as safetensors

from bench import UsageError, activations, heads, measuring, stability, sweeps
from bench.backbones import Backbone, Report
from bench.cache import Cache, read_manifest
from bench.cells import Cell, SiteSpec
from bench.datasets import Dataset
from bench.lanes import Came, Failure
from bench.measuring import Skipped
from bench.provenance import provenance
from bench.registry import Registry
from bench.sites import Site
from methods import artifacts
from methods.protocol import Decomposition, Divisible, Follower

WEIGHTS = "weights.safetensors"


class Workshop:
    """Where the stages are worked; one per process."""

    def __init__(self, registry: Registry, cache: Cache, report: Report, n_threads: int = 1) -> None:
        self.registry = registry
        self.cache = cache
        self.report = report
        self.n_threads = n_threads
        self.loaded: dict[str, Any] = {}

    def once(self, identity: Mapping[str, Any], make: Callable[[], Any]) -> Any:
        """What `make` returned when it was first asked for under this identity."""
        key = repr(identity)
        if key not in self.loaded:
            self.loaded[key] = make()
        return self.loaded[key]

    def dataset(self, spec: SiteSpec) -> Dataset:
        """The data set, loaded, as the site's backbone sees it."""
        geometry = getattr(spec.backbone.built, "geometry", None)

        def make() -> Dataset:
            stored: Dataset = self.once(spec.dataset.identity, spec.dataset.built.load)
            return stored.seen_by(geometry, self.n_threads)

        return self.once({"seen": spec.dataset.identity, "by": str(geometry)}, make)  # type: ignore[no-any-return]

    def backbone(self, spec: SiteSpec) -> Backbone:
        """The backbone with its weights, trained or loaded if the cache has none."""
        factory, dataset = spec.backbone.built, self.dataset(spec)
        identity: dict[str, Any] = {"backbone": spec.backbone.identity, "packages": versions()}
        if factory.trained_on_dataset:
            identity["dataset"] = dataset.fingerprint

        def build(folder: Path) -> None:
            weights = factory.weights(dataset, self.report)
            (folder / WEIGHTS).write_bytes(safetensors.save(weights))

        def make() -> Backbone:
            if getattr(factory, "is_loaded", False):
                weights = factory.weights(dataset, self.report)
            else:
                weights = safetensors.load_file(self.cache.get("backbones", identity, build) / WEIGHTS)
            whole: Backbone = factory.assemble(weights, dataset)
            if not heads.needs_head(factory):
                return whole
            return heads.stage(self.cache, whole, dataset, self.report, versions())

        # The head may differ between data sets even where the weights do not.
        return self.once({**identity, "dataset": dataset.fingerprint}, make)  # type: ignore[no-any-return]

    def site(self, spec: SiteSpec) -> Site:
        """The site in its backbone."""
        return Site(self.backbone(spec), spec.module)

    def encoder(self, spec: SiteSpec) -> Backbone:
        """The other network through which metrics may see the images."""
        if spec.encoder is None:
            raise UsageError("encoder: got none; expected a backbone; name one in the suite's site")
        return self.backbone(replace(spec, backbone=spec.encoder, encoder=None))

    def activations_key(self, spec: SiteSpec, token_seed: int) -> dict[str, Any]:
        """What the sampled activations follow from."""
        return {
            "version": activations.VERSION,
            "dataset": self.dataset(spec).fingerprint,
            "backbone": self.backbone(spec).fingerprint,
            "module": spec.module,
            "tokens_per_image": spec.tokens_per_image,
            "token_seed": token_seed,
            "dtype": "float32",
            "packages": versions(),
        }

    def source(self, spec: SiteSpec, token_seed: int, reads: frozenset[str]) -> activations.TensorSource:
        """The sampled tokens of the probing split, extracted if the cache has none."""
        site, split = self.site(spec), self.dataset(spec).train

        def build(folder: Path) -> None:
            activations.extract(site, split, spec.tokens_per_image, token_seed, folder, self.report)

        folder = self.cache.get("activations", self.activations_key(spec, token_seed), build)
        return activations.opened(folder, site, split, self.report).only(reads)

    def settled(self, cell: Cell) -> Cell:
        """The cell with its method chosen, where it is swept."""
        if cell.selected_at is None:
            return cell
        return replace(cell, method=sweeps.chosen_of(self, cell), selected_at=None)

    def decomposition_key(self, cell: Cell) -> dict[str, Any]:
        """What the decomposition follows from."""
        cell = self.settled(cell)
        return {
            "method": cell.method.identity,
            "activations": self.activations_key(cell.site, cell.token_seed),
            "leader": self.decomposition_key(cell.leader) if cell.leader else None,
            "init_seed": cell.init_seed,
        }

    def decomposition(self, cell: Cell) -> Decomposition:
        """What the cell's method finds at its site, or found before."""
        cell = self.settled(cell)
        method, key = cell.method.built, self.decomposition_key(cell)

        def find() -> Decomposition:
            source = self.keeping(cell, keeps)
            if cell.leader and isinstance(method, Follower):
                return method.decompose_like(source, self.decomposition(cell.leader), seed=cell.init_seed)
            return method.decompose(source, seed=cell.init_seed)  # type: ignore[no-any-return]

        with self.cache.unfinished("decompositions", key) as keeps:
            return artifacts.load(self.cache.get("decompositions", key, self.saving(cell, find)))

    def keeping(self, cell: Cell, keeps: Path | None) -> activations.TensorSource:
        """What the cell's method looks at, with a folder for what it puts by."""
        source = self.source(cell.site, cell.token_seed, cell.method.built.reads)
        return replace(source, keeps=keeps, n_threads=self.n_threads)

    def find_units(self, cell: Cell, units: range) -> bool:
        """Find what is in some units and put it by, beside others who do others; False where all is there already.

        Raises:
            UsageError: The method does not work unit by unit, or the site has fewer units.
        """
        if not isinstance(cell.method.built, Divisible):
            what = f"{cell.name} is of {cell.method.entry.name!r}, which does not work unit by unit"
            raise UsageError(f"CELL: {what}; expected a method that does, elude say; use `eludebench run`")
        n_units = self.site(cell.site).units
        if not units or units[-1] >= n_units:
            raise UsageError(f"--units: {units.start}:{units.stop}; expected some units within 0:{n_units}; change it")
        cell = self.settled(cell)
        with self.cache.unfinished("decompositions", self.decomposition_key(cell), is_shared=True) as keeps:
            if keeps is not None:
                cell.method.built.decompose_units(self.keeping(cell, keeps), units)
        return keeps is not None

    def has_decomposition(self, cell: Cell) -> bool:
        """Whether the cache holds what the cell's method finds."""
        return self.cache.folder("decompositions", self.decomposition_key(cell)).is_dir()

    def put_decomposition(self, cell: Cell, found: Decomposition) -> None:
        """Put by what was found in one pass with others."""
        self.cache.get("decompositions", self.decomposition_key(cell), self.saving(cell, lambda: found))

    def saving(self, cell: Cell, find: Callable[[], Decomposition]) -> Callable[[Path], None]:
        """What fills the cache's folder with what is found."""

        def build(folder: Path) -> None:
            found, site = find(), self.site(cell.site)
            header = {
                "method": cell.method.entry.name,
                "options": dict(cell.method.options),
                "site": {"module": site.path, "d_in": site.d_in, "units": site.units},
                "backbone": {"name": site.backbone.name, "fingerprint": site.backbone.fingerprint},
                "tokens": {"per_image": cell.site.tokens_per_image, "seed": cell.token_seed},
                "init_seed": cell.init_seed,
            }
            artifacts.save(found, folder, header)

        return build

    def origin(self, cell: Cell) -> dict[str, str]:
        """Where the cell's decomposition was made; the cache may hold it from another commit or machine."""
        made = read_manifest(self.cache.folder("decompositions", self.decomposition_key(cell)))["made"]
        return {f"decomposition_{key}": str(value) for key, value in made.items()}

    def lacking(self, cell: Cell) -> str | None:
        """What the cell's method reads and its site does not have."""
        if "labels" in cell.method.built.reads and self.dataset(cell.site).train.labels is None:
            return f"needs labels, and data set {cell.site.dataset.entry.name!r} has none"
        if "truth" in cell.method.built.reads and self.backbone(cell.site).truth is None:
            return f"needs the parts of the units, and backbone {cell.site.backbone.entry.name!r} has no known ones"
        return self.lacking(cell.leader) if cell.leader else None

    def perform(self, payload: tuple[str, Any, Any], came: Came) -> Any:
        """Do one task of a run.

        It is ("backbone", site, 0), ("activations", site, token seed), ("sweep", cell, 0), ("units", cell, (index,
        shares)), ("find", cell, 0), ("compare", comparison, 0) or ("evaluate", cells, 0); for the last two, `came` is
        what came of finding each, and for finding, of its shares.
        """
        kind, subject, seed_or_share = payload
        if kind == "backbone":
            self.backbone(subject)
            return None
        if kind == "activations":
            self.source(subject, seed_or_share, frozenset({"outputs"}))
            return None
        if kind == "evaluate":
            return measuring.evaluated(self, subject, came)
        if kind == "find":
            return measuring.found(self, subject, came)
        if kind == "units":
            return measuring.found(self, subject, share=seed_or_share)
        if kind == "compare":
            bad = next((one for one in came.values() if isinstance(one, Skipped | Failure)), None)
            return stability.compared(self, subject) if bad is None else bad
        lacking = self.lacking(subject)
        return Skipped(lacking) if lacking else sweeps.trials_of(self, subject)


@dataclass(frozen=True)
class StartWorkshop:
    """Makes a workshop inside a lane: plugins loaded, one torch thread, deterministic kernels.

    Attributes:
        plugins: Plugin files; loaded before any task arrives, since tasks hold their classes.
        cache: Root of the cache.
        n_threads: For what gives the same result on any number of threads.
    """

    plugins: tuple[Path, ...]
    cache: Path
    n_threads: int = 1

    kind_of_cache: ClassVar[type[Cache]] = Cache

    def __call__(self, report: Report, say: Callable[[str], None]) -> Callable[[Any, Came], Any]:
        """The function that does a task's payload."""
        return self.workshop(report, say).perform

    def workshop(self, report: Report, say: Callable[[str], None]) -> Workshop:
        """The workshop, with everything set that its results follow from."""
        # One thread each: two threads were measured ten times slower than one on a busy machine.
        torch.set_num_threads(1)
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it a GPU's products are not deterministic
        torch.use_deterministic_algorithms(True)
        made = {key: provenance()[key] for key in ("commit", "dirty", "device")}
        cache = self.kind_of_cache(self.cache, say, made)
        cache.sweep()
        return Workshop(Registry(self.plugins), cache, report, self.n_threads)


def versions() -> dict[str, str]:
    """The packages that results follow from; part of every key, so that no upgrade meets old results."""
    return {name: version for name, version in provenance()["versions"].items() if name != "eludebench"}
