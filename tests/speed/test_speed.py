"""Timings, reported and never pass or fail: `make bench`."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from bench.planted import planted
from methods.elude import ELUDe
from methods.parts import summed_by_unit
from methods.sae import TopKSAE

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.parametrize("words", [["--help"], ["list", "methods"], ["list", "metrics"]], ids=" ".join)
def test_start(benchmark: BenchmarkFixture, words: list[str]) -> None:
    """The aim is under half a second of CPU; `extra_info` has the CPU seconds, children's user and system time."""
    import resource

    def start() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "bench", *words], capture_output=True, check=True, cwd=ROOT)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    benchmark.extra_info["cpu_seconds"] = round(min(start() for _ in range(3)), 3)
    benchmark.pedantic(start, rounds=5)


def test_elude_decomposes(benchmark: BenchmarkFixture) -> None:
    """12 units of the planted site, 120 instances each."""
    source = planted()
    found = benchmark(lambda: ELUDe(top_k=0.2, min_cluster_size=5).decompose(source, seed=0))
    assert found.n_atoms > 12


def test_topk_sae_trains(benchmark: BenchmarkFixture) -> None:
    """Ten epochs of 600 tokens, 96 atoms."""
    source = planted(frozenset({"outputs"}))
    found = benchmark.pedantic(lambda: TopKSAE(k=4, epochs=10).decompose(source, seed=0), rounds=3)
    assert found.notes["steps"] == 30


@pytest.mark.parametrize("what", ["site", "disentangled"])
def test_layer(benchmark: BenchmarkFixture, what: str) -> None:
    """4,096 tokens through 384 -> 96, as it is and through 7 subunits a unit: 7 times the multiplications."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(4096, 384, generator=generator)
    n_atoms = 96 if what == "site" else 96 * 7
    weight = torch.randn(n_atoms, 384, generator=generator)
    parents = torch.arange(96).repeat_interleave(n_atoms // 96)

    def forward() -> torch.Tensor:
        codes = inputs @ weight.T
        return codes if what == "site" else summed_by_unit(codes, parents, 96)

    assert benchmark(forward).shape == (4096, 96)
