"""ELUDe: each step against a slow version of the paper's own words, and the laws that make it lossless."""

import threading
import time
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bench.planted import planted
from methods import groups
from methods.clustering import SpanningTree, cluster, condense
from methods.clustering.dense import Scratch
from methods.clustering.trees import numbered_by_smallest_member
from methods.contributions import Arithmetic, OnDevice, OnProcessor, Resident
from methods.elude import ELUDe, Instances
from methods.instances import blocks_of, top_instances
from methods.parts import equal_parts, n_owners
from methods.protocol import Activations, Decomposition


def normalized(vectors: np.ndarray) -> np.ndarray:
    unit: np.ndarray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


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
    middles = np.stack([contributions[labels == c].mean(axis=0) for c in range(3)])
    rho, owns = groups.best_rho(directions, middles)
    assert rho == groups.RHOS[int(np.argmax(margins))]
    assert np.array_equal(owns, owners_by_subsets(directions, rho))
    same = groups.best_rho(np.eye(3, 30), middles)
    assert same[0] == 0.05


@pytest.mark.parametrize("objective", groups.OBJECTIVES)
def test_every_objective_prefers_the_true_owners_to_sharing(objective: groups.Objective) -> None:
    labels = np.repeat([0, 1], 10)
    contributions = np.zeros((20, 4))
    contributions[labels == 0, :2] = 1.0
    contributions[labels == 1, 2:] = 1.0
    directions = normalized(np.array([[1.0, 1.0, 0.1, 0.1], [0.1, 0.1, 1.0, 1.0]]))
    middles = np.stack([contributions[labels == c].mean(axis=0) for c in range(2)])
    members = (contributions, labels)
    _, owns = groups.best_rho(directions, middles, objective, rhos=(0.05, 0.5), members=members)
    assert owns.tolist() == [[1, 1, 0, 0], [0, 0, 1, 1]]


@given(st.lists(st.sampled_from([-1.0, 0.0, 0.5, 0.5, 2.0]), min_size=1, max_size=30), st.data())
def test_top_instances_are_in_a_total_order(values: list[float], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(values)))
    expected = sorted(range(len(values)), key=lambda i: (-values[i], i))[:k]
    assert top_instances(torch.tensor(values), k).tolist() == expected


def by_token(inputs: np.ndarray) -> Resident:
    return Resident(torch.from_numpy(inputs))


@pytest.mark.parametrize("width", [2, 70])
def test_equal_activations_are_ordered_by_what_enters_and_not_by_token(width: int) -> None:
    rng = np.random.default_rng(0)
    values = torch.from_numpy(rng.integers(6, size=300).astype(np.float32))
    inputs = rng.integers(3, size=(300, width)).astype(np.float32)
    inputs[:, :-2] = 1  # told apart by the last two only, and many not at all
    expected = inputs[top_instances(values, 70, by_token(inputs))]
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(300)
        rows = top_instances(values[order], 70, by_token(inputs[order]))
        assert torch.equal(values[order][rows], torch.sort(values, descending=True).values[:70])
        assert np.array_equal(inputs[order][rows], expected)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("methods.instances.KEY_BYTES", 4)  # one input at a time
            assert torch.equal(top_instances(values[order], 70, by_token(inputs[order])), rows)


def blobs(n: int, centres: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    middle = rng.normal(size=(centres, 12))
    return normalized(middle[rng.integers(centres, size=n)] + 0.15 * rng.normal(size=(n, 12))).astype(np.float32)


def test_labels_are_numbered_by_smallest_member() -> None:
    assert numbered_by_smallest_member(np.array([-1, 3, 3, 0, -1, 1, 0])).tolist() == [-1, 0, 0, 1, -1, 2, 1]
    assert numbered_by_smallest_member(np.array([-1, -1])).tolist() == [-1, -1]
    labels = cluster(blobs(300, 6), 8).labels
    firsts = [int(np.argmax(labels == c)) for c in range(labels.max() + 1)]
    assert firsts == sorted(firsts)


def test_few_points_are_noise() -> None:
    assert cluster(blobs(5, 2), 8).labels.tolist() == [-1] * 5


def arithmetics(inputs: np.ndarray, weight: np.ndarray) -> list[Arithmetic]:
    return [OnProcessor(by_token(inputs), weight), OnDevice(by_token(inputs), torch.from_numpy(weight))]


@pytest.mark.parametrize("which", [0, 1], ids=["processor", "device"])
def test_representatives_weigh_by_probability_and_leave_noise_out(which: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CHUNK_BYTES", "DEVICE_CHUNK_BYTES"):
        monkeypatch.setattr(f"methods.contributions.{name}", 77 * 12 * 4)
    points = blobs(300, 4)
    found = cluster(points, 8)
    arithmetic = arithmetics(points, np.full((1, 12), 2.0, np.float32))[which]
    held = torch.from_numpy(points) if which else points
    sums = arithmetic.sums(held, found.labels, found.probabilities, found.n_clusters)
    means = arithmetic.means(0, np.arange(300), found.labels, found.n_clusters)
    for c in range(found.n_clusters):
        members = np.flatnonzero(found.labels == c)
        assert np.allclose(sums[c], sum(found.probabilities[i] * points[i].astype(np.float64) for i in members))
        assert np.allclose(means[c], 2 * points[members].astype(np.float64).mean(axis=0))


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
    arithmetic = OnProcessor(by_token(inputs), np.ones((1, 20), np.float32))
    values = torch.arange(400.0).flip(0)
    instances = method.found_in(arithmetic, 0, values, 400, Scratch())
    assert isinstance(instances.found, SpanningTree)
    found = condense(instances.found, 20)
    owns, rho = method.split(arithmetic, instances, found)
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
        ({"umap_dimensions": -1}, "umap_dimensions: got -1; expected 0"),
        ({"rho": 1.5}, "rho: got 1.5; expected 0"),
    ],
)
def test_bad_options_are_named(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ELUDe(**options)  # type: ignore[arg-type]


def test_activations_that_are_not_finite_are_refused() -> None:
    source = planted()
    source.outputs[3, 4] = torch.nan
    with pytest.raises(ValueError, match="outputs: got nan for unit 4 on token 3; expected finite activations"):
        ELUDe().decompose(source, seed=0)


def test_top_k_is_a_share_or_a_count() -> None:
    assert ELUDe(top_k=0.05).instances(12_000) == 600
    assert ELUDe(top_k=400.0).instances(12_000) == 400
    assert ELUDe(top_k=400.0).instances(100) == 100
    assert ELUDe(top_k=0.001).instances(10) == 1


def test_a_second_run_is_the_same_in_every_bit_and_so_is_one_on_more_threads() -> None:
    method, source = ELUDe(top_k=0.2, min_cluster_size=5), planted()
    plain = method.decompose(source, seed=0)
    assert_same(plain, method.decompose(source, seed=1))
    assert_same(plain, method.decompose(replace(source, n_threads=3), seed=0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_order_of_images_changes_nothing(dtype: torch.dtype) -> None:
    method, source = ELUDe(top_k=0.2, min_cluster_size=5), planted()
    source = replace(source, outputs=source.outputs.to(dtype).float())
    assert source.inputs is not None
    for seed in range(3):
        order = torch.randperm(source.n_tokens, generator=torch.Generator().manual_seed(seed))
        shuffled = replace(source, inputs=source.inputs[order], outputs=source.outputs[order])
        assert_same(method.decompose(source, seed=0), method.decompose(shuffled, seed=0))


def test_all_threads_work_on_one_unit_where_instances_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    method, source = ELUDe(top_k=0.2, min_cluster_size=5), planted()
    plain = method.decompose(source, seed=0)
    monkeypatch.setattr("methods.elude.SMALL_INSTANCES", 10)
    assert_same(plain, method.decompose(replace(source, n_threads=3), seed=0))


def test_every_finished_unit_is_kept_and_taken_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    method, source = ELUDe(top_k=0.2, min_cluster_size=5), replace(planted(), keeps=tmp_path)
    plain = method.decompose(planted(), seed=0)
    right, worked = ELUDe.found_in, []

    def dies(self: ELUDe, arithmetic: Arithmetic, unit: int, *rest: Any) -> Instances:
        if unit == 7 and 7 not in worked:
            worked.append(unit)
            raise KeyboardInterrupt
        worked.append(unit)
        return right(self, arithmetic, unit, *rest)

    monkeypatch.setattr(ELUDe, "found_in", dies)
    with pytest.raises(KeyboardInterrupt):
        method.decompose(source, seed=0)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"unit {unit}.safetensors" for unit in range(7)]
    worked = [7]
    assert_same(plain, method.decompose(source, seed=0))
    assert worked == [7, *range(7, 12)]


def test_machines_can_share_the_units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    method, source = ELUDe(top_k=0.2, min_cluster_size=5), replace(planted(), keeps=tmp_path)
    assert len(method.decompose_units(source, range(6, 12))) == 6
    assert len(method.decompose_units(source, range(6))) == 6
    plain = method.decompose(planted(), seed=0)
    monkeypatch.setattr(ELUDe, "found_in", lambda *_: pytest.fail("a unit that was put by was looked at again"))
    assert_same(plain, method.decompose(source, seed=0))


def test_units_are_read_in_blocks_without_gaps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("methods.instances.UNITS_PER_READ", 3)
    assert list(blocks_of([0, 1, 2, 3, 7, 8, 767], 64)) == [[0, 1, 2], [3], [7, 8], [767]]
    assert list(blocks_of([0, 1, 2, 7], 2)) == [[0, 1], [2], [7]]
    assert list(blocks_of([], 64)) == []


def test_libraries_are_entered_by_one_thread_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    inside = threading.Lock()

    def reduced(points: np.ndarray, n_components: int) -> np.ndarray:
        assert inside.acquire(blocking=False)
        time.sleep(0.01)
        inside.release()
        return points[:, :n_components]

    monkeypatch.setattr("methods.elude.reduced", reduced)
    method = ELUDe(top_k=0.2, min_cluster_size=5, umap_dimensions=3)
    assert_same(method.decompose(planted(), seed=0), method.decompose(replace(planted(), n_threads=3), seed=0))


def test_it_says_how_far_it_is() -> None:
    said: list[tuple[str, int, int]] = []
    source = replace(planted(), report=lambda *what: said.append(what))
    ELUDe(top_k=0.2, min_cluster_size=5).decompose(source, seed=0)
    assert said == [("units", done, 12) for done in range(13)]


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("which", [0, 1], ids=["processor", "device"])
def test_contributions_are_products_at_unit_length(which: int, normalize: bool) -> None:
    tokens = planted().read(slice(None))
    inputs = np.concatenate([tokens.needed_inputs().numpy(), np.zeros((1, 40), np.float32)])
    arithmetic = arithmetics(inputs, tokens.needed_weight().numpy())[which]
    found = np.asarray(arithmetic.contributions(2, np.array([5, 3, 5, 600]), normalize))
    expected = inputs[[5, 3, 5]].astype(np.float64) * tokens.needed_weight()[2].numpy()
    assert found.dtype == np.float32
    assert np.allclose(found[:3], normalized(expected) if normalize else expected, rtol=1e-6)
    assert not found[3].any()


@pytest.mark.parametrize("objective", ["margin", "accuracy"])
def test_a_device_finds_what_a_processor_finds(
    objective: groups.Objective, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = ELUDe(top_k=0.2, min_cluster_size=5, objective=objective)
    plain = method.decompose(planted(), seed=0)
    tokens = planted().read(slice(None))
    device = OnDevice(Resident(tokens.needed_inputs()), tokens.needed_weight())
    monkeypatch.setattr(ELUDe, "arithmetic_for", lambda self, tokens, k: device)
    assert_same(plain, method.decompose(replace(planted(), keeps=tmp_path), seed=0))
    assert len(list(tmp_path.iterdir())) == 12


def assert_same(one: Decomposition, other: Decomposition) -> None:
    assert one.notes == other.notes
    assert one.tensors.keys() == other.tensors.keys()
    assert all(torch.equal(tensor, other.tensors[name]) for name, tensor in one.tensors.items())
    assert one.unit_of_atom is not None
    assert other.unit_of_atom is not None
    assert torch.equal(one.unit_of_atom, other.unit_of_atom)
