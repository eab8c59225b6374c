"""What a run needs beside its time: files that are not there, disk, memory, calls to judges, and the arithmetic.

All of it follows from the suite and from the sizes of networks and data sets, so it can be told before there are
weights or images. The arithmetic is counted, and divided by what a float32 matrix product reaches on this machine: GPU
hours where it is a GPU. What works in 16 bits or skips zeros takes less, and all else more; `bench.estimate` rehearses
instead, where it can.
"""

import math
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from bench import UsageError
from bench.cache import digest
from bench.cells import Cell, SiteSpec, Suite
from bench.panels import load_panel
from bench.registry import Registry
from bench.rows import mapped_bytes
from bench.shards import stored_bytes
from bench.sites import find_layer
from judges.costs import n_presentations

IMAGENET = (1_281_167, 50_000)
"""Images of ImageNet-1k's two splits: what a data set that is not there is taken for."""
PRODUCT_SIDE = 2048
PATIENCE_SECONDS = 0.5


@dataclass(frozen=True)
class Size:
    """How large a site is.

    Attributes:
        d_in: Width of what enters it.
        units: Width of what leaves it.
        positions: Tokens of an image; 1 where that is not known.
        flops: Of a forward pass of one image; 0 where that is not known.
        images: Of the probing and the evaluation split, as many as are used.
        is_assumed: The data set is not there, and taken to be of ImageNet-1k's size.
    """

    d_in: int
    units: int
    positions: int
    flops: float
    images: tuple[int, int]
    is_assumed: bool

    @property
    def tokens(self) -> int:
        """Positions of all evaluation images."""
        return self.images[1] * self.positions


@dataclass(frozen=True)
class Needs:
    """What a run needs.

    Attributes:
        missing: What is not there, a line each, with what to do.
        disk_bytes: Of the activations that are kept.
        spool_bytes: Of the outputs that one evaluation puts by while it lasts, where the disk has room.
        memory_bytes: Most that a decomposition holds, of the methods that tell.
        judges: The panel's judges.
        calls: To each of them.
        petaflop: Multiplications and additions by what they are for, in 1e15.
        rate: Of a float32 matrix product on this device, per second.
        device: That device.
        is_assumed: A data set is not there, and taken to be of ImageNet-1k's size.
    """

    missing: tuple[str, ...]
    disk_bytes: int
    spool_bytes: int
    memory_bytes: int
    judges: tuple[str, ...]
    calls: int
    petaflop: Mapping[str, float]
    rate: float
    device: str
    is_assumed: bool

    @property
    def hours(self) -> float:
        """How long the arithmetic takes at that rate."""
        return sum(self.petaflop.values()) * 1e15 / self.rate / 3600

    def lines(self) -> list[str]:
        """For people."""
        disk = f"disk: {self.disk_bytes / 1e9:.3g} GB of activations"
        if self.spool_bytes:
            disk += f", {self.spool_bytes / 1e9:.3g} GB while a worker evaluates, where there is room"
        memory = f"memory: {self.memory_bytes / 1e9:.3g} GB at most in a decomposition, of those that tell"
        found = [f"missing: {line}" for line in self.missing]
        if self.is_assumed:
            found.append(f"sizes: data that is not there is taken to have {IMAGENET[0]:,} and {IMAGENET[1]:,} images")
        found.append(f"{disk}; {memory}" if self.memory_bytes else disk)
        if self.judges:
            every = f"{self.calls * len(self.judges):,} calls, {self.calls:,} to each of {', '.join(self.judges)}"
            found.append(f"judges: {every}")
        work = ", ".join(f"{what} {amount:.3g}" for what, amount in self.petaflop.items() if amount)
        if work:
            kind = "GPU hours" if self.device.startswith("cuda") else "hours"
            rate = f"{self.rate / 1e12:.3g} TFLOP/s, a float32 product on this {self.device}"
            found.append(f"arithmetic in PFLOP: {work}; {self.hours:.3g} {kind} at {rate}: computed, not measured")
        return found

    def as_json(self) -> dict[str, Any]:
        """All of it."""
        return {**vars(self), "hours_of_arithmetic": self.hours}


def needs_of(
    suite: Suite,
    chosen: Sequence[Cell],
    registry: Registry,
    device: str = "cpu",
    n_threads: int = 1,
    *,
    done: Collection[str] = (),
) -> Needs:
    """What these cells need, but for those that are done, where a process of so many threads works on that device.

    The suite's panel judges the done ones as well.
    """
    sites = sites_of(chosen)
    sizes = {digest(site.identity): size_of(site) for site in sites}
    own = [size for size in sizes.values() if size is not None]
    cells = [cell for cell in chosen if cell.id not in done]
    memory = [held_bytes(cell, size, n_threads) for cell in cells if (size := sizes[digest(cell.site.identity)])]
    panel = load_panel(suite.panel, registry) if suite.panel else None
    calls = 0
    if panel is not None:
        n_methods = [len({cell.label for cell in chosen if cell.site == site}) for site in sites]
        options = {"unit_pairs": panel.settings.unit_pairs, "token_seeds": len(suite.token_seeds)}
        calls = sum(n_presentations(n, **options) for n in n_methods if n > 1)
    return Needs(
        missing=tuple(missing_in(sites)),
        disk_bytes=sum(kept_bytes(cells, sizes)),
        spool_bytes=max((4 * size.tokens * size.units for size in own), default=0) if cells else 0,
        memory_bytes=max(memory, default=0),
        judges=tuple(judge.name for judge in panel.judges) if panel else (),
        calls=calls,
        petaflop={what: amount / 1e15 for what, amount in arithmetic(cells, sizes).items()},
        rate=product_rate(device),
        device=device,
        is_assumed=any(size.is_assumed for size in own),
    )


def sites_of(cells: Sequence[Cell]) -> list[SiteSpec]:
    """Where the cells are, in order."""
    return list({cell.site.label: cell.site for cell in cells}.values())


def fetched(cells: Sequence[Cell]) -> bool:
    """Whether something was downloaded that these cells lacked.

    Raises:
        UsageError: Something is missing and cannot be had; all of it is named.
    """
    problems, is_new = [], False
    for what, built in missing_in(sites_of(cells)).items():
        if not hasattr(built, "fetch"):
            problems.append(what)
            continue
        try:
            built.fetch()
            is_new = True
        except UsageError as error:
            problems.append(str(error))
    if problems:
        raise UsageError("\n".join(problems))
    return is_new


def missing_in(sites: Sequence[SiteSpec]) -> dict[str, Any]:
    """What is not there, in words that begin with the sites, and the component that it is missing of."""
    found: dict[str, tuple[list[str], Any]] = {}
    for site in sites:
        for component in (site.dataset, site.backbone, site.encoder):
            if component and (why := getattr(component.built, "missing", "")):
                found.setdefault(why, ([], component.built))[0].append(site.label)
    return {f"{', '.join(labels)}: {why}": built for why, (labels, built) in found.items()}


def size_of(site: SiteSpec) -> Size | None:
    """How large a site is; None where its network cannot be looked at."""
    factory = site.backbone.built
    n, is_assumed = images_of(site)
    try:
        skeleton = factory.skeleton()
        layer = find_layer(skeleton, site.module)
    except Exception:  # whatever a library says: a plan goes on without
        return None
    units, d_in = layer.weight.flatten(1).shape
    positions, flops = forward_of(skeleton, layer, getattr(factory, "geometry", None))
    images = tuple(max(1, math.ceil(site.share * one)) for one in n)
    return Size(d_in, units, positions, flops, (images[0], images[1]), is_assumed)


def images_of(site: SiteSpec) -> tuple[tuple[int, int], bool]:
    """Images of both splits, and whether they are assumed."""
    built = site.dataset.built
    told = (built.n_train, built.n_test) if hasattr(built, "n_train") and hasattr(built, "n_test") else None
    if told is None and not getattr(built, "missing", ""):
        dataset = built.load()
        told = (len(dataset.train), len(dataset.test))
    return (IMAGENET, True) if told is None else (told, False)


def forward_of(skeleton: nn.Module, layer: nn.Module, geometry: Any) -> tuple[int, float]:
    """Positions of an image at a layer, and what a forward pass of one image computes; (1, 0) where it cannot run."""
    if geometry is None:
        return 1, 0.0
    seen: list[Tensor] = []
    handle = layer.register_forward_hook(lambda _layer, _args, output: seen.append(output))
    try:
        device = next(skeleton.parameters()).device
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            skeleton.eval()(torch.zeros(1, 3, geometry.side, geometry.side, device=device))
    except Exception:
        return 1, 0.0
    finally:
        handle.remove()
    output = seen[0]
    positions = output[0, 0].numel() if isinstance(layer, nn.Conv2d) else output[0, ..., 0].numel()
    return positions, float(counter.get_total_flops())


def held_bytes(cell: Cell, size: Size, n_threads: int) -> int:
    """Most that a decomposition holds, the pages of its files included; 0 where its method does not tell."""
    tell = getattr(cell.method.built, "memory_bytes", None)
    n_tokens, itemsize = size.images[0] * cell.site.tokens_per_image, np.dtype(cell.site.stored).itemsize
    own = tell(n_tokens, size.d_in, size.units, n_threads) if tell else None
    if own is None:
        return 0
    files = mapped_bytes(n_tokens, size.d_in, itemsize, n_threads) + mapped_bytes(n_tokens, size.units, itemsize)
    return int(own) + files


def kept_bytes(cells: Sequence[Cell], sizes: Mapping[str, Size | None]) -> Iterator[int]:
    """Bytes of the activations of each site and token seed."""
    kept: dict[str, int] = {}
    for cell in cells:
        site, size = cell.site, sizes[digest(cell.site.identity)]
        if size is not None:
            tokens = size.images[0] * min(
                site.tokens_per_image, size.positions if size.flops else site.tokens_per_image
            )
            key = digest({"site": site.identity, "seed": cell.token_seed})
            kept[key] = stored_bytes(tokens, size.d_in, size.units, site.stored)
    yield from kept.values()


def arithmetic(cells: Sequence[Cell], sizes: Mapping[str, Size | None]) -> dict[str, float]:
    """Multiplications and additions by what they are for; what a method does not tell is not in it."""
    found = {"forward": 0.0, "decompositions": 0.0, "codes": 0.0}
    passes: dict[str, float] = {}
    done: set[str] = set()
    for cell in cells:
        size = sizes[digest(cell.site.identity)]
        if size is None:
            continue
        source = {**cell.site.identity, "module": "", "tokens_per_image": 0}
        passes[digest(source)] = size.images[0] * size.flops
        seeds = {"token_seed": cell.token_seed, "init_seed": cell.init_seed}
        passes[digest({"site": cell.site.identity, **seeds})] = size.images[1] * size.flops
        is_swept_here = cell.selected_at == (cell.token_seed, cell.init_seed)
        for one in cell.method.variants if is_swept_here else (cell.method,):
            key = digest({"method": one.identity, "site": cell.site.identity, **seeds})
            told = getattr(one.built, "flops", None)
            if told is not None and key not in done:
                n_tokens = size.images[0] * cell.site.tokens_per_image
                found["decompositions"] += told(n_tokens, size.d_in, size.units)
            done.add(key)
        n_atoms = size.units * getattr(cell.method.built, "expansion_factor", 0.0)
        found["codes"] += 4.0 * size.tokens * size.units * n_atoms
    found["forward"] = sum(passes.values(), start=0.0)
    return found


def product_rate(device: str) -> float:
    """Multiplications and additions a second of a float32 matrix product; the best of some, in half a second."""
    matrix = torch.ones(PRODUCT_SIDE, PRODUCT_SIDE, device=device)
    best, end = math.inf, time.perf_counter() + PATIENCE_SECONDS
    while time.perf_counter() < end or best == math.inf:
        begin = time.perf_counter()
        float((matrix @ matrix)[0, 0])  # a number on the processor: it waits for the device
        best = min(best, time.perf_counter() - begin)
    return 2.0 * PRODUCT_SIDE**3 / best
