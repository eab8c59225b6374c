"""Timings, reported and never pass or fail: `make bench`."""

import subprocess
import sys
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.planted import planted
from methods.elude import ELUDe
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
