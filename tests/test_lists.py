"""The list path finds a minimum spanning tree: against distances and trees in float64, by numpy and scipy."""

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy import ndarray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

from methods.clustering import certificate, dense
from methods.clustering.components import State, first_round, joined, kruskal, lightest, merged, numbered
from methods.clustering.host import Host
from methods.clustering.lists import spanning_tree
from methods.clustering.neighbours import (
    Plan,
    Sizes,
    core_distances,
    empty_lists,
    fill,
    planned,
    sample_thresholds,
)
from methods.clustering.trees import SpanningTree, condense
from methods.clustering.working import Working, lowest, prepare

ROOT = Path(__file__).resolve().parent.parent
SMALL = Sizes(tile_rows=192, tile_columns=320)
WAYS: dict[str, dict[str, Any]] = {
    "float32": {},
    "float16": {"precision": "float16"},
    "gpu": {"precision": "float16", "kernels": "torch"},
}


def blobs(n: int, d: int, seed: int = 0, spread: float = 1.0) -> ndarray:
    """Six clusters of unequal density that touch."""
    rng = np.random.default_rng(seed)
    centres = spread * rng.normal(size=(6, d))
    found = centres[rng.integers(0, 6, n)] + rng.normal(size=(n, d)) * rng.uniform(0.3, 1.5, size=(n, 1))
    return found.astype(np.float32)


def contributions(n: int, d: int) -> ndarray:
    """Heavy-tailed contribution vectors of norm 1."""
    rng = np.random.default_rng(1)
    parts = rng.lognormal(0, 2, size=(5, d)) * rng.normal(size=(5, d))
    x = parts[rng.integers(0, 5, n)] * rng.gamma(0.5, size=(n, d)) + 0.3 * rng.lognormal(0, 1.5, size=(n, d))
    unit: ndarray = x / np.linalg.norm(x, axis=1, keepdims=True)
    return unit.astype(np.float32)


def duplicates() -> ndarray:
    """Three points 200 times each, among others."""
    x = blobs(300, 16)
    return np.concatenate([x[:1]] * 200 + [x[1:2]] * 200 + [x[2:3]] * 200 + [x])


def zeros() -> ndarray:
    """Contributions of norm 1 and some that vanish."""
    x = contributions(400, 64)
    x[::4] = 0
    return x


def hostile() -> ndarray:
    """One entry near 1 and the rest below what float16 can tell apart beside it."""
    rng = np.random.default_rng(2)
    x = 1e-6 * rng.normal(size=(500, 48))
    x[np.arange(500), rng.integers(0, 3, 500)] = 0.999
    return x.astype(np.float32)


def near_ties() -> ndarray:
    """A grid whose neighbours are at one distance but for 1e-7."""
    rng = np.random.default_rng(3)
    grid: ndarray = np.stack(np.meshgrid(*[np.arange(5.0)] * 4), axis=-1).reshape(-1, 4)
    found: ndarray = grid + 1e-7 * rng.normal(size=grid.shape)
    return found


def apart(common: float, between: float) -> ndarray:
    """Two groups with inner distances of about 1, this far from the origin and from each other."""
    rng = np.random.default_rng(4)
    x: ndarray = rng.normal(size=(600, 8)) / 4 + common / np.sqrt(8)
    x[:300] += between / np.sqrt(8)
    return np.asarray(x, dtype=np.float32)


def wide(n: int, step: float) -> ndarray:
    """Values of ordinary size beside some whose squared distances float32 cannot hold."""
    ordinary = np.random.default_rng(8).normal(size=n) if n > 1 else np.ones(1)
    found: ndarray = np.concatenate([ordinary, step * np.arange(39)])[:, None]
    return found


DATA: dict[str, tuple[Any, int]] = {
    "blobs-64": (lambda: blobs(1200, 64), 30),
    "blobs-768": (lambda: blobs(700, 768), 20),
    "blobs-3072": (lambda: blobs(400, 3072), 15),
    "contributions-768": (lambda: contributions(800, 768), 25),
    "contributions-3072": (lambda: contributions(400, 3072), 40),
    "one-blob": (lambda: blobs(600, 32, spread=0.0), 10),
    "noise": (lambda: np.random.default_rng(5).uniform(size=(800, 5)).astype(np.float32), 5),
    "duplicates": (duplicates, 20),
    "duplicates-fewer-than-k": (duplicates, 250),
    "all-the-same": (lambda: np.ones((200, 8), dtype=np.float32), 10),
    "all-zero": (lambda: np.zeros((150, 8), dtype=np.float32), 10),
    "zeros": (zeros, 30),
    "hostile": (hostile, 20),
    "near-ties": (near_ties, 8),
    "far-groups": (lambda: apart(0, 50), 20),
    "common-offset": (lambda: apart(300, 5), 20),
    "offset-apart": (lambda: apart(0, 3000), 20),
    "tiny": (lambda: blobs(500, 16) * np.float32(1e-30), 10),
    "huge": (lambda: blobs(500, 16) * np.float32(1e15), 10),
    "float64": (lambda: blobs(500, 16).astype(np.float64) + 1e-9 * np.random.default_rng(6).normal(size=(500, 16)), 10),
    "wide-1e-20": (lambda: wide(200, 1e-20), 3),
    "wide-1e-26": (lambda: wide(200, 1e-26), 3),
    "wide-1e-30": (lambda: wide(1, 1e-30), 3),
    "wide-1e-100": (lambda: wide(200, 1e-100), 3),
    "first-neighbour": (lambda: blobs(700, 3), 1),
    "every-neighbour": (lambda: blobs(120, 6), 119),
    "two-points": (lambda: blobs(2, 4), 1),
    "three-points": (lambda: blobs(3, 4), 2),
}


def reference(points: ndarray, k: int) -> SpanningTree:
    """Everything in float64: all distances by differences, rows sorted, scipy's tree."""
    distances = cdist(points.astype(np.float64), points.astype(np.float64))
    others = distances + np.diag(np.full(len(points), np.inf))
    cores = np.partition(others, k - 1, axis=1)[:, k - 1]
    weights = np.maximum(np.maximum(cores[:, None], cores), distances)
    ranks = np.unique(weights, return_inverse=True)[1].reshape(weights.shape) + 1.0  # scipy drops edges of weight 0
    np.fill_diagonal(ranks, 0)
    tree = minimum_spanning_tree(ranks).tocoo()
    heads, tails = tree.row.astype(np.int64), tree.col.astype(np.int64)
    return SpanningTree(cores, heads, tails, weights[heads, tails])


@cache
def expected(name: str) -> tuple[ndarray, int, SpanningTree]:
    """Data, k, and the reference's tree of them."""
    make, k = DATA[name]
    points = make()
    return points, k, reference(points, k)


def assert_same_tree(found: SpanningTree, wanted: SpanningTree, k: int) -> None:
    np.testing.assert_allclose(found.cores, wanted.cores, rtol=1e-12, atol=0)
    np.testing.assert_allclose(np.sort(found.weights), np.sort(wanted.weights), rtol=1e-12, atol=0)
    for size in {2, max(2, k), max(2, 2 * k)}:
        np.testing.assert_array_equal(condense(found, size).labels, condense(wanted, size).labels)
    ends = np.maximum(found.cores[found.heads], found.cores[found.tails])
    close = found.weights < ends * (1 + 1e-12)
    np.testing.assert_array_equal(found.weights[close], ends[close])  # ties are ties, to the bit


def assert_same_bits(found: SpanningTree, points: ndarray, k: int) -> None:
    wanted = dense.spanning_tree(points, k, dense.Scratch())
    np.testing.assert_array_equal(found.cores, wanted.cores)
    np.testing.assert_array_equal(np.sort(found.weights), np.sort(wanted.weights))
    np.testing.assert_array_equal(condense(found, 2).labels, condense(wanted, 2).labels)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", DATA)
def test_tree_is_the_reference(name: str, way: str) -> None:
    points, k, wanted = expected(name)
    assert_same_tree(spanning_tree(points, k, sizes=SMALL, **WAYS[way]), wanted, k)


@pytest.mark.parametrize("way", ["float32", "float16"])
@pytest.mark.parametrize("name", [name for name in DATA if name not in ("blobs-768", "blobs-3072")])
def test_numbers_are_those_of_the_dense_path(name: str, way: str) -> None:
    points, k, _ = expected(name)
    assert_same_bits(spanning_tree(points, k, sizes=SMALL, **WAYS[way]), points, k)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("name", "sizes", "fact"),
    [
        ("blobs-64", replace(SMALL, rank=3), "rows_done_again"),
        ("blobs-64", replace(SMALL, capacity=34), "rows_done_again"),
        ("duplicates", replace(SMALL, capacity=30), "rows_done_again"),
        ("blobs-64", replace(SMALL, list_bytes=1200 * 8 * 17), "by_rows"),
        ("duplicates", replace(SMALL, list_bytes=900 * 8 * 17), "by_rows"),
        ("noise", replace(SMALL, few_components=12), "rounds"),
        ("blobs-64", replace(SMALL, candidates=1), "survivors"),
        ("far-groups", SMALL, "parts_joined"),
    ],
)
def test_tree_is_the_reference_when_memory_is_short(name: str, sizes: Sizes, fact: str, way: str) -> None:
    points, k, wanted = expected(name)
    found = spanning_tree(points, k, sizes=sizes, **WAYS[way])
    assert found.facts[fact] > (1 if fact in ("rounds", "parts_joined") else 0)
    assert_same_tree(found, wanted, k)


def test_a_radius_too_wide_for_the_data_takes_float64() -> None:
    bits = {}
    for name in ("common-offset", "offset-apart", "contributions-768"):
        points, k, _ = expected(name)
        bits[name] = [spanning_tree(points, k, sizes=SMALL, **way).facts["precision_bits"] for way in WAYS.values()]
    assert bits == {"common-offset": [32, 16, 16], "offset-apart": [64, 64, 64], "contributions-768": [32, 16, 16]}


def listed(points: ndarray, k: int, sizes: Sizes, precision: Any = "float32") -> tuple[Working, Any, Plan]:
    """The stages up to the lists."""
    working, plan = prepare(Host(points, 2), precision), planned(len(points), k, sizes)
    lists = empty_lists(working, plan.capacity)
    fill(working, lists, k, plan, sizes, sample_thresholds(working, plan, sizes))
    return working, lists, plan


def test_the_second_pass_is_needed() -> None:
    """Two dense groups of more than k points have no short edge between them in any list."""
    points, k, wanted = expected("blobs-64")
    found = spanning_tree(points, k, sizes=SMALL)
    assert found.facts["survivors"] > 0
    assert found.facts["edges_changed"] > 0
    working, lists, _ = listed(points, k, SMALL)
    cores, _ = core_distances(working, lists, k, SMALL)
    state = State(working, cores, torch.zeros_like(cores))
    edges, parents = first_round(lists, cores, 1 << 20)
    component, n = numbered(parents)
    tree = kruskal(lightest(state, lists, component, n, by_pair=True)[0], component, n)
    without = merged(edges, joined(state, tree, component, n)).weights.sqrt().numpy() / working.scale
    assert np.sort(without).sum() > wanted.weights.sum() * (1 + 1e-6)


@pytest.mark.parametrize("candidates", [1, 1 << 20])
def test_the_bounds_are_fetched_again_only_after_a_decision(candidates: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are a number for every two components: half a gigabyte at 8,192 of them."""
    calls: list[str] = []

    def counted(name: str) -> Any:
        do = getattr(certificate, name)

        def call(*given: Any) -> Any:
            calls.append(name)
            return do(*given)

        return call

    for name in ("cutoff", "decide"):
        monkeypatch.setattr(certificate, name, counted(name))
    points, k, wanted = expected("blobs-64")
    found = spanning_tree(points, k, sizes=replace(SMALL, tile_rows=64, candidates=candidates))
    assert found.facts["second_pass_rows"] > 4 * 64
    assert calls == ["cutoff", "decide"] * (len(calls) // 2)
    assert (len(calls) > 2) == (candidates == 1)
    assert_same_tree(found, wanted, k)


def test_lists_hold_what_is_within_their_thresholds() -> None:
    """Nothing that a list lacks is nearer than its reach, also after lists were shortened."""
    points, k = blobs(700, 24), 40
    loose = listed(points, k, replace(SMALL, sample=64))[1]
    working, lists, plan = listed(points, k, replace(SMALL, sample=64, capacity=150))
    assert plan.capacity == 150
    assert (lists.thresholds < loose.thresholds).float().mean() > 0.5
    exact = torch.from_numpy(cdist(points, points, "sqeuclidean"))[working.order][:, working.order] * working.scale**2
    reach = lowest(lists.thresholds, *working.radius(slice(None), None))
    for row in range(700):
        if lists.counts[row] <= 150:
            nearer = set(torch.nonzero(exact[row] < reach[row])[:, 0].tolist()) - {row}
            assert nearer <= set(lists.entries[row, : lists.counts[row]].tolist())


def test_thousands_of_components() -> None:
    """Small k leaves more components than a table of pairs is made for."""
    points = np.random.default_rng(7).normal(size=(27_000, 2)).astype(np.float32)
    found = spanning_tree(points, 1, sizes=Sizes(sample=2048))
    assert found.facts["components"] > 8192
    assert found.facts["components_left"] <= 256
    distances, near = cKDTree(points.astype(np.float64)).query(points.astype(np.float64), 48)
    cores = distances[:, 1]
    rows = np.repeat(np.arange(len(points)), 47)
    weights = np.maximum(np.maximum(cores[rows], cores[near[:, 1:].ravel()]), distances[:, 1:].ravel())
    tree = minimum_spanning_tree(coo_array((weights, (rows, near[:, 1:].ravel()))).tocsr())
    assert tree.nnz == len(points) - 1  # so many neighbours connect, and no tree edge in the plane is longer
    np.testing.assert_allclose(found.cores, cores, rtol=1e-12)
    np.testing.assert_allclose(np.sort(found.weights), np.sort(tree.data), rtol=1e-12)


def test_nothing_but_the_points_decides() -> None:
    """Order of the rows, tiles, threads, precision, samples and lists: the same tree weights, cores and labels."""
    points, k, _ = expected("blobs-64")
    first = spanning_tree(points, k)
    again = spanning_tree(points, k)
    for name in ("cores", "heads", "tails", "weights"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    counted = {name: value for name, value in first.facts.items() if not name.endswith("_seconds")}
    assert counted == {name: value for name, value in again.facts.items() if not name.endswith("_seconds")}
    labels = condense(first, k).labels
    assert labels.max() > 2
    variants: list[dict[str, Any]] = [
        {"threads": 1},
        {"threads": 3},
        {"sizes": Sizes(tile_rows=77, tile_columns=1000)},
        {"sizes": Sizes(sample=100)},
        {"precision": "float16"},
        {"precision": "float64"},
    ]
    order = np.random.default_rng(0).permutation(len(points))
    for options in variants:
        other = spanning_tree(points, k, **options)
        np.testing.assert_array_equal(other.cores, first.cores)
        np.testing.assert_array_equal(np.sort(other.weights), np.sort(first.weights))
        np.testing.assert_array_equal(condense(other, k).labels, labels)
        permuted = spanning_tree(points[order], k, **options)
        np.testing.assert_array_equal(permuted.cores, first.cores[order])
        np.testing.assert_array_equal(np.sort(permuted.weights), np.sort(first.weights))
        here, there = condense(permuted, k).labels, labels[order]
        assert len(set(zip(here.tolist(), there.tolist(), strict=True))) == len(set(there.tolist()))


@pytest.mark.parametrize("way", WAYS)
def test_torch_is_left_as_it_was(way: str) -> None:
    n_threads = torch.get_num_threads()
    torch.use_deterministic_algorithms(True)
    try:
        spanning_tree(blobs(60, 4), 3, **WAYS[way])
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.get_num_threads() == n_threads
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_samples": 0}, r"min_samples: got 0 for 20 points; expected 1 to 19; clip it"),
        ({"min_samples": 20}, r"min_samples: got 20 for 20 points"),
        ({"device": "cuda", "kernels": "numba"}, r"kernels: got 'numba' on cuda; expected 'triton' or 'torch'"),
        ({"sizes": Sizes(list_bytes=100)}, r"list_bytes: got 100, 0 entries for each of 20 points; expected at least"),
    ],
)
def test_errors_name_the_argument(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        spanning_tree(blobs(20, 4), **{"min_samples": 3, **options})


TWINS = """
import sys
sys.path.insert(0, {root!r})
import torch
from methods.clustering import gpu, kernels
from methods.clustering.lists import spanning_tree
from methods.clustering.machines import Lists
from methods.clustering.neighbours import Sizes
g = torch.Generator().manual_seed(0)
def lists():
    return Lists(torch.zeros(130, 12), torch.zeros(130, 12, dtype=torch.int32), counts.clone(), limits)
counts = torch.randint(0, 6, (130,), generator=g, dtype=torch.int32)
limits = torch.rand(130, generator=g) * 1.2
squares = torch.rand(130, generator=g)
kernels.ALONG_ROWS, kernels.ALONG_COLUMNS, kernels.DIMENSIONS = (8, 32), (16, 16), 8
for rows, columns in (((0, 50), (0, 70)), ((20, 50), (50, 130)), ((100, 130), (100, 130))):
    tile = torch.rand(rows[1] - rows[0], columns[1] - columns[0], generator=g)
    wanted, found = lists(), lists()
    for tiles, a, b, later in ((tile, rows, columns, True), (tile.T, columns, rows, False)):
        gpu.append_lines(tiles, squares, wanted, a[0], b[0], later)
        kernels.append(tiles, squares, found, a[0], b[0], later)
    for name in ("values", "entries", "counts"):
        assert torch.equal(getattr(wanted, name), getattr(found, name)), name
    assert (found.counts > counts).any() and (found.counts > 12).any()
points = torch.randn(40, 21, generator=g)
i, j = torch.randint(0, 40, (30,), generator=g), torch.randint(0, 40, (30,), generator=g)
found = kernels.distances(points, i, j)
assert torch.allclose(found, gpu.folded_distances(points, i, j, 64), rtol=1e-14, atol=0)
assert torch.equal(found, kernels.distances(points, j, i))
few = Sizes(tile_rows=16, tile_columns=16, capacity=14)
trees = [spanning_tree(points[:26], 4, precision="float16", kernels=k, sizes=few) for k in ("triton", "torch")]
assert abs(trees[0].weights - trees[1].weights).max() < 1e-12
print("same")
"""


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="torch brings Triton on Linux only")
def test_triton_kernels_do_as_their_twins() -> None:
    env = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    script = TWINS.format(root=str(ROOT))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=env, check=False)
    assert done.stdout == "same\n", done.stderr


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("kernels", ["triton", "torch"])
@pytest.mark.parametrize("name", DATA)
def test_tree_is_the_reference_on_a_gpu(name: str, kernels: Any) -> None:
    points, k, wanted = expected(name)
    found = spanning_tree(points, k, device="cuda", kernels=kernels)
    assert_same_tree(found, wanted, k)
    again = spanning_tree(points, k, device="cuda", kernels=kernels)
    np.testing.assert_array_equal(found.weights, again.weights)


def test_the_gpu_measurements_run_on_a_processor(tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    words = ["--quick", "--device", "cpu", "--out", str(tmp_path / "gpu.json")]
    script = ROOT / "tests" / "speed" / "gpu.py"
    subprocess.run([sys.executable, str(script), *words], env=env, check=True, capture_output=True)
    found = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
    assert found["device"]["name"].startswith("cpu")
    sections = ("products", "errors", "lists", "gather", "agreement", "whole", "units", "layer", "energy", "cuml")
    assert [name for name in sections if "error" in found[name]] == []
    assert found["errors"]["outside_radius"] == 0
    assert found["agreement"]["torch"]["weights"] < 1e-12
    assert [run["n"] for run in found["whole"]["runs"]] == [300, 600]
