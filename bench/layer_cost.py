"""What the disentangled layer costs in any network, with parts that need no decomposition; for the driver on a GPU.

The ways and the clock are those of `bench.efficiency`.
"""

import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bench.efficiency import AGAIN, BACKBONE, SPLIT, LetGo, Protocol, Timing, in_way, timed
from methods.parts import Parts, equal_parts
from methods.surgery import disentangle, linear_at, unwrap

NO_COUNT = "the device is a CPU, for which torch counts no allocations"


def measure_layer(
    network: nn.Module,
    path: str,
    parts: Parts,
    images: Float[Tensor, "images 3 height width"],
    protocol: Protocol,
) -> dict[str, Any]:
    """Time and memory of the backbone and of each way of `SPLIT`, and on what; plain data, for a JSON file.

    Args:
        network: From images to anything, in eval mode, on the device of the images.
        path: Module path of the site.
        parts: How its units are split.
        images: One batch, preprocessed.
        protocol: How often to run.
    """

    @contextmanager
    def put_in(name: str) -> Iterator[LetGo]:
        try:
            with in_way(disentangle(network, path, parts), name) as let_go:
                yield let_go
        finally:
            unwrap(network)

    found = timed(network, images, {name: partial(put_in, name) for name in SPLIT}, protocol)
    backbone_ms = statistics.mean(statistics.mean(found[name].milliseconds) for name in (BACKBONE, AGAIN))
    return {
        "device": torch.cuda.get_device_name(images.device) if images.is_cuda else "cpu",
        "torch": torch.__version__,
        "dtype": str(images.dtype).removeprefix("torch."),
        "images": list(images.shape),
        **vars(protocol),
        "site": path,
        "units": parts.divisors.shape[0],
        "n_atoms": len(parts.holds),
        "codes_bytes": codes_bytes(network, path, parts, images),
        "variants": {name: summed_up(one, backbone_ms, found[BACKBONE].peak_bytes) for name, one in found.items()},
    }


def summed_up(timing: Timing, backbone_ms: float, backbone_peak: int | None) -> dict[str, Any]:
    """Mean, least, deviation, memory, and both against the backbone."""
    times, peak = timing.milliseconds, timing.peak_bytes
    found: dict[str, Any] = {"ms": statistics.mean(times), "ms_least": min(times)}
    found |= {"ms_deviation": statistics.pstdev(times), "ratio": statistics.mean(times) / backbone_ms}
    found |= {"peak_bytes": peak, "reason": NO_COUNT if peak is None else None}
    return found if peak is None or not backbone_peak else {**found, "peak_ratio": peak / backbone_peak}


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
