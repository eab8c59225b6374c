"""ELUDe: each step against a slow version of the paper's own words, and the laws that make it lossless."""

from itertools import combinations

import hdbscan
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import adjusted_rand_score

from bench.planted import planted
from methods import groups
from methods.clustering import cluster
from methods.clustering.libraries import pairwise_distances
from methods.clustering.trees import numbered_by_smallest_member
from methods.elude import ELUDe, normalized, representatives, top_instances
from methods.parts import equal_parts, n_owners
from methods.protocol import Activations

SCORES = st.sampled_from([0.0, 0.1, 0.2, 0.25, 0.5, 0.75, 1.0, -0.5, -1.0])


def owners_by_subsets(representatives: np.ndarray, rho: float) -> np.ndarray:
    """Eq. 3 and 4 as they stand: every subset S of the subunits is tried, but for the empty and the full one."""
    k, d = representatives.shape
    owns = np.ones((k, d), dtype=np.uint8)
    for j in range(d):
        scores = np.abs(representatives[:, j])
        winners = [
            chosen
            for size in range(1, k)
            for chosen in combinations(range(k), size)
            if rho * min(scores[list(chosen)]) > max(scores[[c for c in range(k) if c not in chosen]])
        ]
        if len(winners) == 1:
            owns[:, j] = [c in winners[0] for c in range(k)]
    return owns


@given(
    arrays(np.float64, st.tuples(st.integers(2, 5), st.integers(1, 6)), elements=SCORES),
    st.sampled_from(groups.RHOS),
)
def test_owners_are_those_of_equation_3(directions: np.ndarray, rho: float) -> None:
    assert np.array_equal(groups.owners(directions, rho), owners_by_subsets(directions, rho))


@given(arrays(np.float64, st.tuples(st.integers(2, 5), st.integers(1, 6)), elements=SCORES), st.permutations(range(5)))
def test_owners_follow_a_renumbering_of_subunits(directions: np.ndarray, order: list[int]) -> None:
    order = [i for i in order if i < len(directions)]
    assert np.array_equal(groups.owners(directions[order], 0.5), groups.owners(directions, 0.5)[order])


def test_equal_scores_never_win() -> None:
    equal = np.full((3, 2), 0.7)
    assert groups.owners(equal, 1.0).all()
    assert groups.owners(np.zeros((3, 2)), 1.0).all()


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("exactly_one", [1, 1, 1, 1]),
        ("smallest", [1, 0, 0, 0]),
        ("largest", [1, 1, 1, 0]),
        ("best_ratio", [1, 1, 1, 0]),
    ],
)
def test_group_rules_where_several_sets_win(rule: groups.GroupRule, expected: list[int]) -> None:
    # Gaps: 0.5/0.8 no... 0.8 -> 0.4 (ratio 0.50) qualifies, 0.4 -> 0.3 does not, 0.3 -> 0.1 (ratio 0.33) qualifies.
    directions = np.array([[0.8], [0.4], [0.3], [0.1]])
    assert groups.owners(directions, 0.6, rule)[:, 0].tolist() == expected


def test_rho_search_takes_the_best_of_all_and_the_smallest_of_equals() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 20)
    contributions = rng.normal(size=(60, 30)) + 3 * rng.normal(size=(3, 30))[labels]
    directions = normalized(np.stack([contributions[labels == c].mean(axis=0) for c in range(3)]))

    def margin(rho: float) -> float:
        owns = owners_by_subsets(directions, rho)
        activation = contributions @ (owns / owns.sum(axis=0)).T
        means = np.stack([activation[labels == c].mean(axis=0) for c in range(3)])
        return float(np.mean([means[c, c] - np.mean([means[o, c] for o in range(3) if o != c]) for c in range(3)]))

    margins = [margin(rho) for rho in groups.RHOS]
    rho, owns = groups.best_rho(directions, contributions, labels)
    assert rho == groups.RHOS[int(np.argmax(margins))]
    assert np.array_equal(owns, owners_by_subsets(directions, rho))
    same = groups.best_rho(np.eye(3, 30), contributions, labels)
    assert same[0] == 0.05


@pytest.mark.parametrize("objective", groups.OBJECTIVES)
def test_every_objective_prefers_the_true_owners_to_sharing(objective: groups.Objective) -> None:
    labels = np.repeat([0, 1], 10)
    contributions = np.zeros((20, 4))
    contributions[labels == 0, :2] = 1.0
    contributions[labels == 1, 2:] = 1.0
    directions = normalized(np.array([[1.0, 1.0, 0.1, 0.1], [0.1, 0.1, 1.0, 1.0]]))
    _, owns = groups.best_rho(directions, contributions, labels, objective, rhos=(0.05, 0.5))
    assert owns.tolist() == [[1, 1, 0, 0], [0, 0, 1, 1]]


@given(st.lists(st.sampled_from([-1.0, 0.0, 0.5, 0.5, 2.0]), min_size=1, max_size=30), st.data())
def test_top_instances_are_in_a_total_order(values: list[float], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(values)))
    expected = sorted(range(len(values)), key=lambda i: (-values[i], i))[:k]
    assert top_instances(torch.tensor(values), k).tolist() == expected


def blobs(n: int, centres: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    middle = rng.normal(size=(centres, 12))
    return normalized(middle[rng.integers(centres, size=n)] + 0.15 * rng.normal(size=(n, 12)))


@pytest.mark.parametrize("selection", ["leaf", "eom"])
@pytest.mark.parametrize("min_samples", [None, 1, 12])
def test_clusters_are_those_of_hdbscan_on_vectors(selection: str, min_samples: int | None) -> None:
    for seed in range(4):
        points = blobs(300, 6, seed)
        ours = cluster(points, 8, min_samples, selection)  # type: ignore[arg-type]
        theirs = hdbscan.HDBSCAN(
            min_cluster_size=8, min_samples=min_samples, cluster_selection_method=selection, algorithm="generic"
        ).fit(points)
        assert ours.n_clusters == theirs.labels_.max() + 1 > 1
        assert adjusted_rand_score(ours.labels, theirs.labels_) == pytest.approx(1.0)
        assert np.allclose(ours.probabilities, theirs.probabilities_, atol=1e-9)


def test_memory_decides_only_how_distances_come(monkeypatch: pytest.MonkeyPatch) -> None:
    points = blobs(300, 6)
    dense = cluster(points, 8)
    monkeypatch.setattr("methods.clustering.libraries.DENSE_LIMIT_BYTES", 0)
    assert adjusted_rand_score(cluster(points, 8).labels, dense.labels) == pytest.approx(1.0)


def test_labels_are_numbered_by_smallest_member() -> None:
    assert numbered_by_smallest_member(np.array([-1, 3, 3, 0, -1, 1, 0])).tolist() == [-1, 0, 0, 1, -1, 2, 1]
    assert numbered_by_smallest_member(np.array([-1, -1])).tolist() == [-1, -1]
    labels = cluster(blobs(300, 6), 8).labels
    firsts = [int(np.argmax(labels == c)) for c in range(labels.max() + 1)]
    assert firsts == sorted(firsts)


def test_few_points_are_noise_and_bad_ones_are_refused() -> None:
    assert cluster(blobs(5, 2), 8).labels.tolist() == [-1] * 5
    with pytest.raises(ValueError, match="min_cluster_size: got 1; expected at least 2"):
        cluster(blobs(5, 2), 1)
    with pytest.raises(ValueError, match="points: got a value that is not finite"):
        cluster(np.full((20, 3), np.nan), 8)


def test_distances_are_euclidean_and_symmetric() -> None:
    points = blobs(50, 3)
    found = pairwise_distances(points)
    assert np.allclose(found, np.linalg.norm(points[:, None] - points[None], axis=2), atol=1e-7)
    assert np.array_equal(found, found.T)
    assert not found.diagonal().any()


def test_representatives_weigh_by_probability_and_leave_noise_out() -> None:
    points = blobs(300, 4)
    found = cluster(points, 8)
    for c in range(found.n_clusters):
        total = sum(found.probabilities[i] * points[i] for i in range(300) if found.labels[i] == c)
        assert np.allclose(representatives(points, found)[c], total / np.linalg.norm(total))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_subunits_sum_to_the_unit(dtype: torch.dtype) -> None:
    source = planted()
    method = ELUDe(top_k=0.2, min_cluster_size=5)
    found = method.decompose(source, seed=0)
    assert found.unit_of_atom is not None
    assert found.n_atoms > 12
    tokens = source.read(slice(None))
    assert tokens.bias is not None
    weight, bias, inputs = (x.to(dtype) for x in (tokens.needed_weight(), tokens.bias, tokens.needed_inputs()))
    weights, biases = ELUDe().parts(found).weights(weight, bias)
    bound = 1e-6 if dtype == torch.float32 else 1e-15
    summed = torch.zeros_like(weight).index_add_(0, found.unit_of_atom, weights)
    assert float((summed - weight).abs().max() / weight.abs().max()) <= bound
    assert torch.allclose(
        torch.zeros_like(bias).index_add_(0, found.unit_of_atom, biases), bias, rtol=bound, atol=bound
    )
    codes = method.encode(found, Activations(inputs, inputs @ weight.T + bias, weight, bias))
    assert torch.allclose(method.decode(found, codes), inputs @ weight.T + bias, rtol=0, atol=20 * bound)


def test_a_subunit_answers_to_its_own_cluster() -> None:
    # Two groups of inputs drive one unit, each on tokens of its own: ELUDe must find the two and split between them.
    rng = np.random.default_rng(0)
    which = rng.integers(2, size=400)
    inputs = 0.05 * rng.random((400, 20)).astype(np.float32)
    inputs[which == 0, :10] += 1 + 0.2 * rng.random((int((which == 0).sum()), 10), dtype=np.float32)
    inputs[which == 1, 10:] += 1 + 0.2 * rng.random((int((which == 1).sum()), 10), dtype=np.float32)
    method = ELUDe(top_k=300.0, min_cluster_size=20)
    owns, found, rho = method.split(inputs)
    assert found.n_clusters == 2
    assert 0 < rho <= 1
    assert sorted(map(tuple, owns.tolist())) == [(0,) * 10 + (1,) * 10, (1,) * 10 + (0,) * 10]
    truth = [which[np.flatnonzero(found.labels == c)] for c in range(2)]
    assert all(len(set(members.tolist())) == 1 for members in truth)


def test_unsplit_units_stay_whole_and_are_counted() -> None:
    found = ELUDe(top_k=0.2, min_cluster_size=100).decompose(planted(), seed=0)
    assert found.n_atoms == 12
    assert found.notes["whole_units"] == 12
    assert found.tensors["clusters_found"].tolist() == [0] * 12
    assert found.tensors["owns"].all()


def test_bias_share_needs_no_weight() -> None:
    owns = torch.tensor([[1, 0, 1], [0, 1, 1]], dtype=torch.uint8)
    weights, biases = equal_parts(owns, torch.tensor([0, 0]), 1).weights(torch.zeros(1, 3), torch.tensor([6.0]))
    assert biases.tolist() == [3.0, 3.0]
    assert not weights.any()
    assert n_owners(owns, torch.tensor([0, 0]), 1).tolist() == [[1, 1, 2]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_k": 0.0}, r"top_k: got 0\.0; expected a share below 1 or a count"),
        ({"min_cluster_size": 1}, "min_cluster_size: got 1; expected at least 2"),
        ({"min_samples": -1}, "min_samples: got -1; expected 0"),
        ({"rho": 1.5}, "rho: got 1.5; expected 0"),
    ],
)
def test_bad_options_are_named(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ELUDe(**options)  # type: ignore[arg-type]


def test_activations_that_are_not_finite_are_refused() -> None:
    source = planted()
    source.outputs[3, 4] = torch.nan
    with pytest.raises(ValueError, match="outputs: got a value that is not finite"):
        ELUDe().decompose(source, seed=0)


def test_top_k_is_a_share_or_a_count() -> None:
    assert ELUDe(top_k=0.05).instances(12_000) == 600
    assert ELUDe(top_k=400.0).instances(12_000) == 400
    assert ELUDe(top_k=400.0).instances(100) == 100
    assert ELUDe(top_k=0.001).instances(10) == 1
