"""The stages of a run: data set, backbone, activations, decomposition, values; each built once and kept in the cache.

Every key is made of what the stage's result follows from: the component and its options, and the content of the
stages before it. So a stage asks for the ones before it by itself, whatever was done or lost earlier.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors import torch as safetensors

from bench import UsageError, activations, devices, extraction, heads, measuring, soundness, stability, sweeps
from bench.backbones import Backbone
from bench.cache import Cache
from bench.cells import Cell, SiteSpec
from bench.datasets import Dataset
from bench.lanes import Came, Failure, Report
from bench.manifest import read_manifest
from bench.measuring import Skipped
from bench.provenance import provenance
from bench.registry import Registry
from bench.rows import Rows
from bench.shards import Wanted
from bench.sites import Site, find_layer
from bench.slices import sampled
from methods import artifacts
from methods.protocol import Decomposition, Divisible, Follower

WEIGHTS = "weights.safetensors"


class Workshop:
    """Where the stages are worked; one per process.

    Training the embedded backbone stays on the processor, whatever the device; `bench.devices` says what runs where.
    """

    def __init__(
        self, registry: Registry, cache: Cache, report: Report, n_threads: int = 1, device: str = "cpu"
    ) -> None:
        self.registry = registry
        self.cache = cache
        self.report = report
        self.n_threads = n_threads
        self.device = torch.device(device)
        self.loaded: dict[str, Any] = {}

    def once(self, identity: Mapping[str, Any], make: Callable[[], Any]) -> Any:
        """What `make` returned when it was first asked for under this identity."""
        key = repr(identity)
        if key not in self.loaded:
            self.loaded[key] = make()
        return self.loaded[key]

    def dataset(self, spec: SiteSpec) -> Dataset:
        """The site's share of the data set, loaded and sound, as its backbone sees it."""
        factory, geometry = spec.dataset.built, getattr(spec.backbone.built, "geometry", None)
        identity = {"dataset": spec.dataset.identity, "share": spec.share}

        def readied() -> Dataset:
            whole: Dataset = self.once(spec.dataset.identity, factory.load)
            some = sampled(whole, spec.share)  # before the check: a hundredth is checked a hundred times as fast
            return soundness.sound(some, factory, self.cache, self.report, self.n_threads)

        def make() -> Dataset:
            ready: Dataset = self.once(identity, readied)
            return ready.seen_by(geometry, self.n_threads)

        return self.once({**identity, "by": str(geometry)}, make)  # type: ignore[no-any-return]

    def backbone(self, spec: SiteSpec) -> Backbone:
        """The backbone with its weights, trained or loaded if the cache has none, on the workshop's device."""
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
            if heads.needs_head(factory, len(dataset.classes)):
                whole = heads.stage(self.cache, whole, dataset, self.report, versions(), self.device)
            return whole.on(self.device, spec.precision)

        # The head may differ between data sets even where the weights do not.
        ours = {**identity, "dataset": dataset.fingerprint, "precision": spec.precision}
        return self.once(ours, make)  # type: ignore[no-any-return]

    def site(self, spec: SiteSpec) -> Site:
        """The site in its backbone."""
        return Site(self.backbone(spec), spec.module)

    def encoder(self, spec: SiteSpec) -> Backbone:
        """The other network through which metrics may see the images; always in float32."""
        if spec.encoder is None:
            raise UsageError("encoder: got none; expected a backbone; name one in the suite's site")
        return self.backbone(replace(spec, backbone=spec.encoder, encoder=None, precision="float32"))

    def activations_key(self, spec: SiteSpec, token_seed: int) -> dict[str, Any]:
        """What the sampled activations follow from."""
        return {
            "version": extraction.VERSION,
            "dataset": self.dataset(spec).fingerprint,
            "backbone": self.backbone(spec).fingerprint,
            "module": spec.module,
            "tokens_per_image": spec.tokens_per_image,
            "token_seed": token_seed,
            "stored": spec.stored,
            **{name: value for name, value in spec.unusual.items() if name == "precision"},
            "packages": versions(),
        }

    def source(self, spec: SiteSpec, token_seed: int, reads: frozenset[str]) -> activations.TensorSource[Rows]:
        """The sampled tokens of the probing split, extracted if the cache has none."""
        (folder,) = self.extracted([(spec, token_seed)])
        return activations.opened(folder, self.site(spec), self.dataset(spec).train, self.report).only(reads)

    def extracted(self, pairs: Sequence[tuple[SiteSpec, int]]) -> list[Path]:
        """Where the activations of each site and token seed are, all of one backbone and data set.

        Those that the cache lacks are extracted in one pass over the probing split.
        """
        wanted = [Wanted(self.site(spec), seed, spec.tokens_per_image, spec.stored) for spec, seed in pairs]
        keys = [self.activations_key(spec, seed) for spec, seed in pairs]
        return extraction.stage(self.cache, wanted, keys, self.dataset(pairs[0][0]).train, self.report)

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

    def keeping(self, cell: Cell, keeps: Path | None) -> activations.TensorSource[Rows]:
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
        if hasattr(cell.method.built, "unfit"):
            n_tokens = len(self.dataset(cell.site).train) * cell.site.tokens_per_image
            layer = find_layer(cell.site.backbone.built.skeleton(), cell.site.module)  # there may be no weights yet
            if why := cell.method.built.unfit(n_tokens, layer.weight.shape[0]):
                return str(why)
        return self.lacking(cell.leader) if cell.leader else None

    def perform(self, payload: tuple[str, Any, Any], came: Came) -> Any:
        """Do one task of a run.

        It is ("backbone", site, 0), ("activations", pairs of site and token seed, 0), ("sweep", cell, 0), ("units",
        cell, (index, shares)), ("find", cell, 0), ("compare", comparison, 0) or ("evaluate", cells, 0); for the last
        two, `came` is what came of finding each, and for finding, of its shares.
        """
        kind, subject, share = payload
        if kind == "backbone":
            self.backbone(subject)
            return None
        if kind == "activations":
            self.extracted(subject)
            return None
        if kind == "evaluate":
            return measuring.evaluated(self, subject, came)
        if kind == "find":
            return measuring.found(self, subject, came)
        if kind == "units":
            return measuring.found(self, subject, share=share)
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
        device: "cpu", "cuda" or "cuda:N"; checked where the workshop is made (`bench.devices`).
    """

    plugins: tuple[Path, ...]
    cache: Path
    n_threads: int = 1
    device: str = field(default="cpu", kw_only=True)

    kind_of_cache: ClassVar[type[Cache]] = Cache

    def __call__(self, report: Report, say: Callable[[str], None]) -> Callable[[Any, Came], Any]:
        """The function that does a task's payload."""
        return self.workshop(report, say).perform

    def workshop(self, report: Report, say: Callable[[str], None]) -> Workshop:
        """The workshop, with everything set that its results follow from.

        Raises:
            UsageError: There is no such device here.
        """
        devices.set_up(self.device)
        made = {key: provenance(self.device)[key] for key in ("commit", "dirty", "device")}
        cache = self.kind_of_cache(self.cache, say, made)
        cache.sweep()
        return Workshop(Registry(self.plugins), cache, report, self.n_threads, self.device)


def versions() -> dict[str, str]:
    """The packages that results follow from; part of every key, so that no upgrade meets old results."""
    return {name: version for name, version in provenance()["versions"].items() if name != "eludebench"}
