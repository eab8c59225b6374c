"""ELUDe on tokens that are never held whole: the same bits as on tensors, within the memory that it names."""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import bench.rows
from bench.activations import TensorSource
from bench.rows import Rows
from methods.clustering import DENSE_BYTES
from methods.clustering.memory import is_dense, kept_bytes
from methods.contributions import Fetched, OnDevice, Resident, on_device
from methods.elude import ELUDe
from methods.protocol import ActivationSource, Decomposition

ROOT = Path(__file__).resolve().parent.parent


def write(folder: Path, n: int, d_in: int, units: int, rows_a_shard: int, dtype: type = np.float16) -> Tensor:
    """Tokens around a few sparse prototypes as shards, outputs beside inputs; gives the kernel of the site."""
    rng = np.random.default_rng(0)
    prototypes = np.maximum(rng.standard_normal((30, d_in), dtype=np.float32) - 1, 0)
    weight = rng.standard_normal((units, d_in), dtype=np.float32)
    for number, start in enumerate(range(0, n, rows_a_shard)):
        m = min(rows_a_shard, n - start)
        noise = 0.05 * np.abs(rng.standard_normal((m, d_in), dtype=np.float32))
        inputs = (prototypes[rng.integers(30, size=m)] + noise).astype(np.float16)
        outputs = (inputs.astype(np.float32) @ weight.T).astype(np.float16)
        for name, values in (("inputs", inputs), ("outputs", outputs)):
            np.save(folder / f"{name}-{number:05d}.npy", values.astype(dtype))
    return torch.from_numpy(weight)


def stored(folder: Path, weight: Tensor) -> TensorSource[Rows]:
    inputs, outputs = (Rows.of(sorted(folder.glob(f"{name}-*.npy"))) for name in ("inputs", "outputs"))
    return TensorSource(inputs, outputs, weight)


def assert_same(one: Decomposition, other: Decomposition) -> None:
    assert one.notes == other.notes
    assert one.tensors.keys() == other.tensors.keys()
    assert all(torch.equal(tensor, other.tensors[name]) for name, tensor in one.tensors.items())


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that is cut into pieces has many, and files count as large."""
    monkeypatch.setattr(bench.rows, "KEPT_BYTES", 0)
    monkeypatch.setattr(bench.rows, "WINDOW_BYTES", 20_000)
    monkeypatch.setattr("methods.contributions.CHUNK_BYTES", 37 * 4 * 60)
    monkeypatch.setattr("methods.contributions.DEVICE_CHUNK_BYTES", 37 * 4 * 60)
    monkeypatch.setattr("methods.instances.READ_BYTES", 3 * 4 * 2000)
    monkeypatch.setattr("methods.instances.KEY_BYTES", 4000)


@pytest.mark.parametrize(("rows_a_shard", "dtype"), [(300, np.float16), (2000, np.float16), (2000, np.float32)])
@pytest.mark.parametrize("objective", ["margin", "accuracy"])
def test_shards_give_the_bits_that_tensors_give(
    tmp_path: Path, rows_a_shard: int, dtype: type, objective: str, request: pytest.FixtureRequest
) -> None:
    weight = write(tmp_path, 2000, 60, 7, rows_a_shard, dtype)
    source = stored(tmp_path, weight)
    whole = source.read(slice(None))
    plain = TensorSource(whole.needed_inputs().clone(), whole.outputs.clone(), weight)
    method = ELUDe(top_k=0.2, min_cluster_size=8, objective=objective)  # type: ignore[arg-type]
    expected = method.decompose(plain, seed=0)
    assert expected.n_atoms > 7
    assert len(plain.outputs[:, 0].unique()) < 2000  # coarse enough for ties
    request.getfixturevalue("small_windows")
    assert_same(method.decompose(source, seed=0), expected)
    assert_same(method.decompose(replace(source, n_threads=3), seed=0), expected)


@pytest.mark.parametrize(("room", "where"), [(10**9, torch.float16), (2000 * 60 * 2 - 1, None), (10**9, torch.float32)])
@pytest.mark.usefixtures("small_windows")
def test_a_device_holds_the_inputs_where_they_fit_and_fetches_them_where_not(
    tmp_path: Path, room: int, where: torch.dtype | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    weight = write(tmp_path, 2000, 60, 7, 300)
    source: ActivationSource = stored(tmp_path, weight)
    if where == torch.float32:  # a third is no number of 16 bits
        whole = source.read(slice(None))
        source = TensorSource(whole.needed_inputs() / 3, whole.outputs, weight)
    device = on_device(source.inputs_at, 2000, weight, torch.device("cpu"), room)
    if where is None:
        assert isinstance(device.inputs, Fetched)
    else:
        assert isinstance(device.inputs, Resident)
        assert device.inputs.values.dtype == where
    method = ELUDe(top_k=0.2, min_cluster_size=8)
    expected = method.decompose(source, seed=0)

    def arithmetic(self: ELUDe, activations: ActivationSource, k: int) -> OnDevice:
        return device

    monkeypatch.setattr(ELUDe, "arithmetic_for", arithmetic)
    assert_same(method.decompose(source, seed=0), expected)


def test_the_bound_says_what_grows_and_what_does_not() -> None:
    paper, method = (2_560_000, 3072, 768), ELUDe(top_k=60_000.0, min_cluster_size=1000)
    bound = method.memory_bytes(*paper) or 0
    whole = 2_560_000 * (3072 + 768) * 4
    assert 2 * 4 * 60_000 * 3072 < bound < whole / 4
    assert (method.memory_bytes(2_560_000, 3072, 10_000) or 0) - bound == 2 * 60 * 3072 * (10_000 - 768)
    assert (method.memory_bytes(2 * 2_560_000, 3072, 768) or 0) - bound <= 120 * 2_560_000
    small = ELUDe(top_k=2000.0, min_cluster_size=50)
    one, four = (small.memory_bytes(100_000, 3072, 16, n_threads) or 0 for n_threads in (1, 4))
    assert one < four < 4 * one
    assert ELUDe(backend="hdbscan").memory_bytes(*paper) is None
    assert ELUDe(umap_dimensions=5).memory_bytes(*paper) is None
    n = int((DENSE_BYTES / 4) ** 0.5)
    assert is_dense(n)
    assert not is_dense(n + 1)
    assert kept_bytes(n + 1) == 0


WORKS_WITHIN_A_BOUND = """
import json, sys
from pathlib import Path
import numpy as np, torch
from bench.activations import TensorSource
from bench.memory import forget_peak, peak_bytes
from bench.rows import Rows, mapped_bytes
from methods.clustering.memory import kept_bytes
from methods.contributions import OnProcessor
from methods.elude import ELUDe
from methods.instances import each_unit, top_instances

torch.set_num_threads(1)
folder, n_threads = Path(sys.argv[1]), int(sys.argv[2])
inputs, outputs = (Rows.of(sorted(folder.glob(f"{name}-*.npy"))) for name in ("inputs", "outputs"))
weight = torch.from_numpy(np.load(folder / "weight.npy"))
source = TensorSource(inputs, outputs, weight, n_threads=n_threads)
shape, pages = (len(inputs), inputs.shape[1], outputs.shape[1]), mapped_bytes(*outputs.shape, 2)
pages += mapped_bytes(*inputs.shape, 2, n_threads)
small = TensorSource(torch.rand(500, 64), torch.rand(500, 2), torch.rand(2, 64))  # loads what is compiled
ELUDe(top_k=300.0, min_cluster_size=10).decompose(small, seed=0)


def measured(work, bound):
    forget_peak()
    before = peak_bytes()
    found = work()
    return {"peak": peak_bytes() - before, "bound": bound + pages, **found}


def whole():
    found = method.decompose(source, seed=0)
    return {"atoms": found.n_atoms, "whole_units": found.notes["whole_units"]}


def contributions():
    arithmetic, k = OnProcessor(source.inputs_at, weight.numpy()), 20_000
    (_, values), *_ = each_unit(source, [3])
    rows = top_instances(values, k, source.inputs_at).numpy()
    points = arithmetic.contributions(3, rows, True)
    labels = np.arange(k) % 40 - 1
    sums, means = arithmetic.sums(points, labels, np.ones(k), 39), arithmetic.means(3, rows, labels, 39)
    x = source.inputs_at(torch.from_numpy(rows[labels == 7][:300])).double().numpy() * weight[3].double().numpy()
    y = points[labels == 7][:300] * np.linalg.norm(x, axis=1, keepdims=True)
    return {"apart": float(np.abs(x - y).max() / np.abs(x).max()), "finite": bool(np.isfinite(sums + means).all())}


method, large = ELUDe(top_k=2000.0, min_cluster_size=20), ELUDe(top_k=20_000.0, min_cluster_size=500)
print(json.dumps([
    measured(whole, method.memory_bytes(*shape, n_threads)),
    measured(contributions, large.memory_bytes(*shape, n_threads) - kept_bytes(20_000)),
]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_a_hundred_thousand_tokens_go_through_within_the_bound(tmp_path: Path) -> None:
    n, d_in, units = 100_000, 3072, 16
    np.save(tmp_path / "weight.npy", write(tmp_path, n, d_in, units, 12_500).numpy())
    whole = n * d_in * 4
    command = [sys.executable, "-c", WORKS_WITHIN_A_BOUND, str(tmp_path), "2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    decomposed, contributed = json.loads(done.stdout)
    for what, found in (("decomposition", decomposed), ("contributions", contributed)):
        print(f"{what}, 2 threads: {in_megabytes(found)} MB; all inputs: {whole / 1e6:.0f} MB")
    assert decomposed["atoms"] > 2 * units
    assert decomposed["whole_units"] < units / 2
    assert contributed["apart"] < 1e-5
    assert contributed["finite"]
    assert decomposed["peak"] < decomposed["bound"] < whole / 2
    assert contributed["peak"] < contributed["bound"] < 0.6 * whole  # a fifth of it is the contributions themselves


def in_megabytes(found: Mapping[str, float]) -> dict[str, float]:
    return {name: round(found[name] / 1e6, 1) for name in ("peak", "bound")}
