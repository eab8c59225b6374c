"""Rows of shards against a memory-mapped array of the same bytes, read by numpy's own indexing."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

import bench.rows
from bench.rows import Rows

N, WIDTH, SHARDS = 100_000, 1536, 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("rows")
    values = np.random.default_rng(0).standard_normal((N, WIDTH), dtype=np.float32).astype(np.float16)
    np.save(made / "whole.npy", values)
    for number, some in enumerate(np.split(values, SHARDS)):
        np.save(made / f"inputs-{number:05d}.npy", some)
    return made


def least_seconds(work: Callable[[], object], rounds: int = 5) -> float:
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


@pytest.mark.parametrize("what", ["5000 rows at random", "64 columns"])
@pytest.mark.parametrize("is_kept", [True, False], ids=["kept", "let go of"])
def test_reading(
    benchmark: BenchmarkFixture, folder: Path, what: str, is_kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.rows, "KEPT_BYTES", 2**40 if is_kept else 0)
    plain = np.load(folder / "whole.npy", mmap_mode="r")
    rows = Rows.of(sorted(folder.glob("inputs-*.npy")))
    index = torch.randperm(N, generator=torch.Generator().manual_seed(0))[:5000]
    read: tuple[Callable[[], torch.Tensor], Callable[[], np.ndarray]]
    if what == "64 columns":
        read = (lambda: rows.columns(64, 128).T, lambda: np.ascontiguousarray(plain[:, 64:128].astype(np.float32).T))
    else:
        read = (lambda: rows[index], lambda: plain[index.numpy()].astype(np.float32))
    assert np.array_equal(read[0]().numpy(), read[1]())
    peer = least_seconds(read[1])
    benchmark.pedantic(read[0], rounds=5)
    ours = benchmark.stats.stats.min  # type: ignore[union-attr]
    benchmark.extra_info.update(plain_seconds=peer, ratio=round(ours / peer, 2), file_bytes=N * WIDTH * 2)
