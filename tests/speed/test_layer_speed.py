"""The disentangled layer against the layer that it holds, on one thread: 3,072 to 768 units of 8 parts each."""

import functools
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import nn

from bench.layer_cost import random_parts
from methods.layer import Affine, DisentangledLayer
from methods.parts import summed_by_unit

TOKENS, D_IN, UNITS, PER_UNIT = 2048, 3072, 768, 8


@functools.cache
def case() -> tuple[nn.Linear, DisentangledLayer, DisentangledLayer, torch.Tensor]:
    """The layer, the exact one, the summing one, and tokens."""
    torch.manual_seed(0)
    plain, parts = nn.Linear(D_IN, UNITS), random_parts(UNITS, D_IN, PER_UNIT)
    return plain, DisentangledLayer(plain, parts), DisentangledLayer(plain, parts, "sum"), torch.randn(TOKENS, D_IN)


def least(run: Callable[[], object], rounds: int = 3) -> float:
    """Seconds of the fastest of a few calls."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def fastest(benchmark: BenchmarkFixture) -> float:
    """Seconds of the fastest round."""
    stats: Any = benchmark.stats
    return float(min(stats.stats.data))


@pytest.mark.parametrize("what", ["plain", "exact", "exact, 16 codes", "exact, 16 steered", "exact, all codes", "sum"])
@torch.inference_mode()
def test_layer(benchmark: BenchmarkFixture, what: str) -> None:
    """`extra_info`: the time over that of the plain layer, and the multiplications over its."""
    torch.set_num_threads(1)
    plain, exact, summing, tokens = case()
    some = torch.arange(16) * 300
    within = {
        "exact, 16 codes": lambda: exact.asking(some),
        "exact, 16 steered": lambda: exact.steering(some, Affine(0.0)),
        "exact, all codes": exact.asking,
    }.get(what, nullcontext)
    layer = {"plain": plain, "sum": summing}.get(what, exact)
    products = {"plain": 1.0, "exact": 1.0, "exact, all codes": 1.0 + PER_UNIT, "sum": PER_UNIT}
    product = products.get(what, 1 + 16 / UNITS)
    with within():
        outputs = benchmark.pedantic(lambda: layer(tokens), rounds=5, warmup_rounds=1)
    assert outputs.shape == (TOKENS, UNITS)
    seconds = fastest(benchmark)
    benchmark.extra_info.update(
        ratio=round(seconds / least(lambda: plain(tokens)), 3),
        products_ratio=round(product, 3),
        gflops=round(2e-9 * product * TOKENS * D_IN * UNITS / seconds, 1),
    )


@torch.inference_mode()
def test_segment_sum(benchmark: BenchmarkFixture) -> None:
    """`extra_info`: bytes read and written a second, and those of a copy of the codes."""
    torch.set_num_threads(1)
    _, exact, _, tokens = case()
    codes = exact.codes(tokens)
    sums = benchmark.pedantic(lambda: summed_by_unit(codes, exact.unit_of_atom, UNITS), rounds=5, warmup_rounds=1)
    copied = least(codes.clone)
    benchmark.extra_info.update(
        gigabytes_a_second=round(1e-9 * (codes.nbytes + sums.nbytes) / fastest(benchmark), 2),
        copy_gigabytes_a_second=round(2e-9 * codes.nbytes / copied, 2),
    )


@torch.inference_mode()
def test_weights_are_built(benchmark: BenchmarkFixture) -> None:
    """All parts' weights from the packed masks, which happens for every batch that somebody asks about."""
    torch.set_num_threads(1)
    _, exact, _, _ = case()
    weights, _ = benchmark.pedantic(exact.weights, rounds=5, warmup_rounds=1)
    assert weights.shape == (UNITS * PER_UNIT, D_IN)
