"""What a disentangled layer costs inside a running network: milliseconds a batch and peak memory (ELUDe, B.4).

The network is timed as it is, then with the layer swapped in: with nobody asking for codes, with all codes asked for,
and with the parts summed as the paper does. The network as it is comes once more at the end, which says how much the
machine drifted meanwhile; ratios are to the mean of both. Rows of different machines are never compared.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from methods.layer import Asked, Merge
from methods.parts import Parts, equal_parts
from methods.surgery import disentangle, linear_at, unwrap

VARIANTS: dict[str, tuple[Merge | None, bool]] = {
    "plain": (None, False),
    "exact": ("exact", False),
    "exact, all codes": ("exact", True),
    "sum": ("sum", False),
    "plain again": (None, False),
}
"""What is timed: the merge, None for the untouched network, and whether all codes are asked for."""


def measure_layer(
    network: nn.Module,
    path: str,
    parts: Parts,
    images: Float[Tensor, "images 3 height width"],
    *,
    warm_ups: int = 100,
    runs: int = 500,
    is_compiled: bool = True,
) -> dict[str, Any]:
    """Time and memory of each of `VARIANTS`, and on what they were measured; plain data, for a JSON file.

    Codes are let go after each batch, as by a reader who is done with them: kept until the next one's are there, they
    would count twice. `peak_bytes` is null on a CPU, with the reason.

    Args:
        network: From images to anything, in eval mode, on the device of the images.
        path: Module path of the site.
        parts: How its units are split.
        images: One batch, preprocessed.
        warm_ups: Untimed passes before.
        runs: Timed passes (the paper: 100 and 500).
        is_compiled: Whether `torch.compile` is on.
    """
    variants = {}
    for name, (merge, is_asked) in VARIANTS.items():
        with swapped(network, path, parts, merge, is_asked) as asked:
            torch.compiler.reset()
            forward = torch.compile(network) if is_compiled else network
            variants[name] = timed(forward, images, asked, warm_ups, runs)
    both = [variants[name] for name in ("plain", "plain again")]
    plain_ms = statistics.mean(one["ms"] for one in both)
    for one in variants.values():
        one["ratio"] = one["ms"] / plain_ms
        if one["peak_bytes"] is not None:
            one["peak_ratio"] = one["peak_bytes"] / both[0]["peak_bytes"]
    return {
        "device": torch.cuda.get_device_name(images.device) if images.is_cuda else "cpu",
        "torch": torch.__version__,
        "dtype": str(images.dtype).removeprefix("torch."),
        "images": list(images.shape),
        "is_compiled": is_compiled,
        "warm_ups": warm_ups,
        "runs": runs,
        "site": path,
        "units": parts.divisors.shape[0],
        "n_atoms": len(parts.holds),
        "codes_bytes": codes_bytes(network, path, parts, images),
        "variants": variants,
    }


@contextmanager
def swapped(network: nn.Module, path: str, parts: Parts, merge: Merge | None, is_asked: bool) -> Iterator[Asked | None]:
    """The network with the layer in it, or untouched where merge is None; gives what was asked for."""
    if merge is None:
        yield None
        return
    layer = disentangle(network, path, parts, merge)
    try:
        with layer.asking() if is_asked else nullcontext() as asked:
            yield asked
    finally:
        unwrap(network)


@torch.inference_mode()
def timed(
    forward: Callable[[Tensor], Any], images: Tensor, asked: Asked | None, warm_ups: int, runs: int
) -> dict[str, Any]:
    """Mean and deviation of milliseconds a pass, and the most memory that was allocated meanwhile."""

    def once() -> None:
        forward(images)
        if asked is not None:
            asked.codes = None

    for _ in range(warm_ups):
        once()
    if not images.is_cuda:
        seconds = []
        for _ in range(runs):
            start = time.perf_counter()
            once()
            seconds.append(time.perf_counter() - start)
        reason = "the device is a CPU, for which torch counts no allocations"
        return spread([1e3 * one for one in seconds]) | {"peak_bytes": None, "reason": reason}
    torch.cuda.synchronize(images.device)
    torch.cuda.reset_peak_memory_stats(images.device)
    pairs = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(runs)]
    for start_event, end_event in pairs:
        start_event.record()
        once()
        end_event.record()
    torch.cuda.synchronize(images.device)
    peak = torch.cuda.max_memory_allocated(images.device)
    return spread([a.elapsed_time(b) for a, b in pairs]) | {"peak_bytes": peak, "reason": None}


def spread(times: list[float]) -> dict[str, float]:
    """Mean, least and standard deviation."""
    return {"ms": statistics.mean(times), "ms_least": min(times), "ms_deviation": statistics.pstdev(times)}


@torch.inference_mode()
def codes_bytes(network: nn.Module, path: str, parts: Parts, images: Tensor) -> int:
    """The size of all codes of the batch."""
    seen: list[int] = []
    handle = linear_at(network, path).register_forward_hook(lambda _module, _args, own: seen.append(own.nbytes))
    try:
        network(images[:1])
    finally:
        handle.remove()
    return sum(seen) * len(images) * len(parts.holds) // parts.divisors.shape[0]


def random_parts(n_units: int, d_in: int, per_unit: int, seed: int = 0) -> Parts:
    """Parts for timings, which do not depend on which weights a part holds: half are shared, half have one owner."""
    generator = torch.Generator().manual_seed(seed)
    owner = torch.randint(per_unit, (n_units, 1, d_in), generator=generator)
    is_shared = torch.rand(n_units, 1, d_in, generator=generator) < 0.5
    owns = is_shared | (owner == torch.arange(per_unit)[:, None])
    unit_of_atom = torch.arange(n_units).repeat_interleave(per_unit)
    return equal_parts(owns.flatten(0, 1).to(torch.uint8), unit_of_atom, n_units)
