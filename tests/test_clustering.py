"""Exact clustering: equal to hdbscan's own tree condensed by definition, and the same however the work is cut."""

import sys
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import hdbscan
import numpy as np
import pytest
import torch
from clustering_references import blobs, heavy_tailed, reference
from numpy import ndarray
from sklearn.metrics import adjusted_rand_score
from torch import Tensor

from bench.datasets import Shapes
from bench.embedded import EmbeddedViT
from bench.sites import Site
from methods.clustering import checked, cluster, dense, libraries, lists, memory_bytes
from methods.clustering.trees import condense, numbered_by_smallest_member
from methods.instances import top_instances


@cache
def embedded() -> tuple[Tensor, Tensor, Tensor]:
    """Inputs, outputs and weight of the default site, of the default backbone trained for one epoch."""
    dataset, factory = Shapes(n_train=1500, n_test=48).load(), EmbeddedViT(epochs=1)
    backbone = factory.assemble(factory.weights(dataset, lambda what, done, total: None), dataset)
    site = Site(backbone, "blocks.2.mlp.fc2")
    reading = site.read(dataset.train.images(slice(0, 400)))
    return reading.inputs.flatten(0, 1), reading.outputs.flatten(0, 1), site.weight


def contributions(unit: int) -> ndarray:
    """What flows into a unit of the embedded backbone on its top instances: real, heavy-tailed data."""
    inputs, outputs, weight = embedded()
    points = (inputs[top_instances(outputs[:, unit], 900)] * weight[unit]).numpy()
    unit_norm: ndarray = points / np.linalg.norm(points, axis=1, keepdims=True)
    return unit_norm


def normal(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def with_zeros() -> ndarray:
    points = blobs(500, 64, 3, 0)
    points[::5] = 0
    return points


def hostile() -> ndarray:
    """One entry of nearly 1 and the rest tiny: what half precision loses most of."""
    points = blobs(500, 64, 3, 0).astype(np.float64)
    points[:, 0] += 50
    unit_norm: ndarray = (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)
    return unit_norm


def near_ties() -> ndarray:
    """Points on a circle, every neighbour's distance the same but for 1e-7."""
    angle = np.linspace(0, 2 * np.pi, 400, endpoint=False) + 1e-7 * normal(0).normal(size=400)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def grid() -> ndarray:
    return np.stack(np.meshgrid(np.arange(25.0), np.arange(25.0)), axis=-1).reshape(-1, 2)


CASES: dict[str, tuple[Callable[[], ndarray], int, int]] = {
    **{
        f"blobs-{d}-{seed}": (partial(blobs, 1000, d, 6, seed), 20, 20)
        for d in (64, 256, 768, 3072)
        for seed in range(4)
    },
    **{f"blobs-loose-{seed}": (partial(blobs, 900, 64, 12, seed, 1.0), 10, 5) for seed in range(4)},
    **{f"heavy-{seed}": (partial(heavy_tailed, 1200, 300, seed), 12, 12) for seed in range(8)},
    **{f"backbone-{unit}": (partial(contributions, unit), 12, 12) for unit in range(0, 96, 8)},
    "nearest-neighbour": (lambda: blobs(1000, 300, 6, 9), 10, 1),
    "duplicates": (lambda: np.repeat(blobs(300, 64, 3, 0), 4, axis=0), 10, 10),
    "three-points-200-times": (lambda: np.repeat(blobs(3, 64, 3, 0), 200, axis=0), 20, 20),
    "three-points-far-core": (lambda: np.repeat(blobs(3, 64, 3, 0), 200, axis=0), 20, 300),
    "zero-vectors": (with_zeros, 10, 10),
    "all-zero": (lambda: np.zeros((50, 8), np.float32), 5, 5),
    "all-noise": (lambda: normal(1).uniform(size=(600, 100)).astype(np.float32), 10, 10),
    "one-blob": (lambda: blobs(600, 100, 1, 0), 10, 10),
    "more-neighbours-than-points": (lambda: blobs(30, 20, 2, 0), 5, 50),
    "fewer-points-than-a-cluster": (lambda: blobs(7, 20, 2, 0), 10, 3),
    "common-offset": (lambda: (normal(2).normal(size=(800, 30)) + 300).astype(np.float32), 10, 10),
    "hostile-to-half": (hostile, 8, 8),
    "near-ties": (near_ties, 8, 8),
    "grid": (grid, 6, 6),
    "one-dimension": (lambda: np.sort(normal(3).normal(size=(500, 1)), axis=0), 8, 8),
    "float64": (lambda: normal(4).normal(size=(500, 40)), 8, 8),
    "far-from-unit-norm": (lambda: 1e15 * blobs(500, 40, 4, 1), 8, 8),
    "beyond-single-precision": (lambda: 1e30 * blobs(500, 40, 4, 1).astype(np.float64), 8, 8),
    "two-points": (lambda: blobs(2, 5, 1, 0), 2, 1),
}


def test_there_are_as_many_data_sets_as_the_acceptance_asks_for() -> None:
    assert len(CASES) >= 50


@pytest.mark.parametrize("name", CASES)
def test_clusters_are_those_of_the_exact_tree_by_definition(name: str) -> None:
    make, size, samples = CASES[name]
    points = make()
    samples = min(samples, len(points) - 1)
    expected = reference(points, size, samples)
    found = cluster(points, size, samples)
    assert int((found.labels != expected.labels).sum()) == 0
    assert np.abs(found.probabilities - expected.probabilities).max() <= 1e-12
    tree = dense.spanning_tree(points, samples, dense.Scratch())
    scale = max(1.0, float(np.abs(points).max()))
    assert np.abs(tree.cores - expected.cores).max() <= 1e-12 * scale
    assert np.abs(np.sort(tree.weights) - expected.weights).max() <= 1e-12 * scale


@pytest.mark.parametrize("name", [name for name in CASES if name != "fewer-points-than-a-cluster"])
def test_the_gpus_way_emulated_finds_the_same(name: str) -> None:
    make, size, samples = CASES[name]
    points = make()
    samples = min(samples, len(points) - 1)
    tree = lists.spanning_tree(points, samples, precision="float16", kernels="torch")
    found, expected = condense(tree, size), cluster(points, size, samples)
    assert np.array_equal(found.labels, expected.labels)
    assert np.abs(found.probabilities - expected.probabilities).max() <= 1e-12


def test_the_data_sets_have_clusters_to_get_wrong() -> None:
    sizes = {name: cluster(make(), size, k).n_clusters for name, (make, size, k) in CASES.items()}
    assert sum(n > 1 for n in sizes.values()) >= 40
    assert sizes["all-noise"] == sizes["one-blob"] == 0


@pytest.mark.parametrize("name", ["heavy-0", "backbone-8", "duplicates", "grid", "blobs-loose-1"])
@pytest.mark.parametrize("selection", ["leaf", "eom"])
def test_the_order_of_rows_changes_nothing(name: str, selection: str) -> None:
    make, size, samples = CASES[name]
    points = make()
    plain = cluster(points, size, samples, selection)  # type: ignore[arg-type]
    for seed in range(3):
        order = normal(seed).permutation(len(points))
        shuffled = cluster(points[order], size, samples, selection)  # type: ignore[arg-type]
        labels, probabilities = np.empty_like(plain.labels), np.empty_like(plain.probabilities)
        labels[order], probabilities[order] = shuffled.labels, shuffled.probabilities
        assert np.array_equal(numbered_by_smallest_member(labels), plain.labels)
        assert np.array_equal(probabilities, plain.probabilities)


def test_equal_masses_do_not_depend_on_the_order_of_rows() -> None:
    points = np.array([6.0, 8, 11, 13, 16, 18, 21, 23, 25, 31, 33, 36, 39, 41, 44, 50])[:, None]
    plain = cluster(points, 2, 1, "eom").labels
    worst = np.array([5, 3, 9, 1, 10, 0, 14, 7, 6, 13, 15, 4, 11, 12, 2, 8])
    for order in (worst, *(normal(seed).permutation(16) for seed in range(30))):
        labels = np.empty(16, np.int64)
        labels[order] = cluster(points[order], 2, 1, "eom").labels
        assert np.array_equal(numbered_by_smallest_member(labels), plain)


def test_lists_take_over_where_the_distances_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    points = heavy_tailed(600, 100, 0)
    coarse = np.concatenate([centre + 1e-5 * normal(0).normal(size=(400, 30)) for centre in blobs(2, 30, 2, 0)])
    for data, room in ((points, 0), (coarse, 4 * 800**2)):  # the second: float32's fit, float64's do not
        plain = cluster(data, 10)
        with monkeypatch.context() as patch:
            patch.setattr("methods.clustering.DENSE_BYTES", room)
            found = cluster(data, 10)
        assert np.array_equal(found.labels, plain.labels)
        assert np.abs(found.probabilities - plain.probabilities).max() <= 1e-12


def test_a_containers_memory_counts(tmp_path: Path) -> None:
    (tmp_path / "limit").write_text("4096\n")
    (tmp_path / "none").write_text("max\n")
    assert memory_bytes(tmp_path / "limit") == 4096
    assert memory_bytes(tmp_path / "none") == memory_bytes(tmp_path / "absent") > 2**30


@pytest.mark.parametrize(
    "cut", [{"TILE": 64}, {"TILE": 100}, {"MOST_TASKS": 1}, {"ENTRIES_OF_A_TASK": 1000, "MOST_TASKS": 7}], ids=str
)
@pytest.mark.parametrize("n_threads", [1, 3])
def test_how_the_work_is_cut_changes_nothing(
    cut: dict[str, int], n_threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = heavy_tailed(1200, 300, 1)
    plain = cluster(points, 12)
    for name, value in cut.items():
        monkeypatch.setattr(dense, name, value)
    found = cluster(points, 12, scratch=dense.Scratch(n_threads))
    assert np.array_equal(found.labels, plain.labels)
    assert np.array_equal(found.probabilities, plain.probabilities)


def test_scratch_memory_is_used_again_and_leaves_no_trace() -> None:
    scratch = dense.Scratch()
    large, small = blobs(900, 64, 5, 0), blobs(400, 64, 5, 1)
    first = cluster(large, 10, scratch=scratch)
    held = scratch.flat
    assert np.array_equal(cluster(small, 10, scratch=scratch).labels, cluster(small, 10).labels)
    assert np.array_equal(cluster(large, 10, scratch=scratch).labels, first.labels)
    assert scratch.flat is held


def test_where_single_precision_is_too_coarse_double_is_used() -> None:
    points = np.concatenate([centre + 1e-5 * normal(0).normal(size=(400, 30)) for centre in blobs(2, 30, 2, 0)])
    tree = dense.spanning_tree(points, 10, dense.Scratch())
    assert tree.facts["float64"] == 1
    assert np.array_equal(condense(tree, 10).labels, reference(points, 10, 10).labels)
    assert dense.spanning_tree(blobs(300, 30, 2, 0), 10, dense.Scratch()).facts["float64"] == 0


def test_a_distance_beyond_its_radius_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = dense.distances

    def wrong(working: dense.Working, scratch: dense.Scratch) -> ndarray:
        matrix = right(working, scratch)
        matrix[5, np.argpartition(matrix[5, : len(working.rows)], 10)[10]] += 3 * working.radius
        return matrix

    monkeypatch.setattr(dense, "distances", wrong)
    monkeypatch.setattr(dense, "DOUBTS_PER_ROW", 10**9)
    with pytest.raises(ArithmeticError, match="points: squared distances"):
        dense.spanning_tree(blobs(300, 30, 2, 0), 10, dense.Scratch())


@pytest.mark.parametrize("selection", ["leaf", "eom"])
@pytest.mark.parametrize("min_samples", [1, 8, 12])
def test_binary_ties_give_the_clusters_of_hdbscan(selection: str, min_samples: int) -> None:
    for seed in range(4):
        points = blobs(300, 12, 6, seed, 0.3)
        ours = cluster(points, 8, min_samples, selection, ties="binary")  # type: ignore[arg-type]
        model = hdbscan.HDBSCAN(8, min_samples, cluster_selection_method=selection, algorithm="generic")
        theirs = model.fit(points.astype(np.float64))
        assert ours.n_clusters == theirs.labels_.max() + 1 > 1
        assert adjusted_rand_score(ours.labels, theirs.labels_) == pytest.approx(1.0)
        assert np.allclose(ours.probabilities, theirs.probabilities_, atol=1e-9)


def test_ties_taken_one_by_one_depend_on_the_order_of_rows() -> None:
    """Why they are not: among these, an order can be found in which the dendrogram gives other clusters."""
    points = grid() + np.repeat([[0.0, 0.0]], 625, axis=0)
    found = set()
    for seed in range(10):
        order = normal(seed).permutation(len(points))
        found.add(cluster(points[order], 6, ties="binary").n_clusters)
    assert len(found) > 1
    assert cluster(points, 6).n_clusters == 0


def test_the_package_is_a_backend() -> None:
    points = blobs(300, 12, 6, 0, 0.3)
    theirs = cluster(points, 8, backend="hdbscan")
    assert adjusted_rand_score(theirs.labels, cluster(points, 8).labels) == pytest.approx(1.0)
    firsts = [int(np.argmax(theirs.labels == c)) for c in range(theirs.n_clusters)]
    assert firsts == sorted(firsts)


def test_a_backend_that_is_not_there_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuml.cluster", None)
    with pytest.raises(ModuleNotFoundError, match="backend: got 'cuml', which cannot be imported"):
        cluster(blobs(30, 3, 2, 0), 5, backend="cuml")
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(ModuleNotFoundError, match="umap_dimensions: got 2, and umap-learn cannot be imported"):
        libraries.reduced(blobs(30, 3, 2, 0), 2)


def test_cuml_is_asked_for_what_it_can_do(monkeypatch: pytest.MonkeyPatch) -> None:
    class Model:
        labels_ = np.array([-1, 1, 1, 0, 0, 0])
        probabilities_ = np.array([0.0, 1.0, 0.5, 1.0, 1.0, 0.25])

        def __init__(self, **options: object) -> None:
            assert options["min_samples"] == 2

        def fit(self, points: ndarray) -> "Model":
            assert points.dtype == np.float32
            return self

    module = type(sys)("cuml.cluster")
    module.HDBSCAN = Model  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cuml", type(sys)("cuml"))
    monkeypatch.setitem(sys.modules, "cuml.cluster", module)
    found = cluster(blobs(6, 3, 2, 0), 2, backend="cuml")
    assert found.labels.tolist() == [-1, 0, 0, 1, 1, 1]
    assert found.probabilities.tolist() == [0.0, 1.0, 0.5, 1.0, 1.0, 0.25]
    with pytest.raises(ValueError, match="min_samples: got 1999; cuML takes at most 1023"):
        cluster(blobs(2000, 3, 2, 0), 5, 1999, backend="cuml")


def test_umap_is_asked_with_one_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    class UMAP:
        def __init__(self, **options: object) -> None:
            assert (options["n_components"], options["random_state"], options["n_jobs"]) == (2, 0, 1)

        def fit_transform(self, points: ndarray) -> ndarray:
            return points[:, :2]

    module = type(sys)("umap")
    module.UMAP = UMAP  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "umap", module)
    assert libraries.reduced(blobs(30, 3, 2, 0), 2).shape == (30, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.empty((0, 3)), 5), r"points: got float64 of shape \(0, 3\); expected at least one row"),
        ((np.ones((5, 3), np.float16), 2), "points: got float16 of shape .* expected .* float32 or float64"),
        ((np.full((20, 3), np.nan), 8), "points: got nan in row 0, dimension 0; expected finite contributions"),
        ((np.array([[1.0, 2.0], [3.0, np.inf]]), 2), "points: got inf in row 1, dimension 1"),
        ((np.ones((5, 3)), 1), "min_cluster_size: got 1; expected at least 2"),
        ((np.ones((5, 3)), 2, 0), "min_samples: got 0; expected at least 1"),
        (
            (np.full((50, 3), 1e200) * np.arange(50)[:, None], 5),
            r"got values up to .*e\+201; expected the largest",
        ),
        (
            (np.full((50, 3), 1e-200) * np.arange(50)[:, None], 5),
            "got values up to .*e-199; expected the largest",
        ),
    ],
)
def test_bad_input_is_named(arguments: tuple[ndarray, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cluster(*arguments)
    with pytest.raises(ValueError, match=message):
        checked(torch.from_numpy(arguments[0]), *arguments[1:], *[None][: 3 - len(arguments)])
