"""The planted track: images show the concepts that are said, and a network is made of the parts that are said."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from references import Evaluation, number, stream
from sklearn.metrics import roc_auc_score
from torch import Tensor

from bench import UsageError, concepts
from bench.activations import TensorSource, opened
from bench.backbones import BackboneFactory
from bench.concepts import Concepts
from bench.datasets import Dataset, Shapes, labels_of
from bench.extraction import extract
from bench.lanes import quietly
from bench.planted import planted
from bench.planted_network import PlantedNetwork
from bench.rows import Rows
from bench.shards import FILLED, Wanted
from bench.sites import Site
from methods.controls import PlantedTruth, RandomPartition
from methods.protocol import Activations
from metrics.ground_truth import GroundTruth, PlantedParts
from metrics.protocol import Truth

FACTORY = PlantedNetwork()


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return Concepts(n_train=1500, n_test=1000).load()


@pytest.fixture(scope="module")
def weights(dataset: Dataset) -> dict[str, Tensor]:
    return FACTORY.weights(dataset, quietly)


@pytest.fixture(scope="module")
def site(dataset: Dataset, weights: dict[str, Tensor]) -> Site:
    return Site(FACTORY.assemble(weights, dataset), "site")


def shown(split: Any) -> Tensor:
    assert split.concepts is not None
    found: Tensor = split.concepts
    return found


def patches(images: Tensor) -> Tensor:
    """Every patch, row by row, cut without the renderer's help."""
    cut = [images[:, :, y : y + 8, x : x + 8] for y in range(0, 32, 8) for x in range(0, 32, 8)]
    return torch.stack(cut, dim=1).float()


def test_a_larger_set_begins_with_the_images_of_a_smaller_one() -> None:
    small, large = Concepts(n_train=130, n_test=40).load(), Concepts(n_train=520, n_test=300).load()
    for one, other in ((small.train, large.train), (small.test, large.test)):
        assert torch.equal(one.images(slice(None)), other.images(slice(0, len(one))))
        assert torch.equal(labels_of(one), labels_of(other)[: len(one)])
        assert torch.equal(shown(one), shown(other)[: len(one)])


def test_a_patch_shows_what_is_said_and_nothing_else(dataset: Dataset) -> None:
    """A least-squares fit of all glyphs and even light to each patch: present ones are bright, absent ones are not."""
    glyphs = concepts.templates(36).flatten(1)
    light = torch.eye(3).repeat_interleave(64, dim=1)
    pixels = patches(dataset.test.images(slice(0, 250))).flatten(0, 1).flatten(1)
    strength = torch.linalg.lstsq(torch.cat([glyphs, light]).T, pixels.T).solution[:36].T
    present = shown(dataset.test)[:250].flatten(0, 1)
    assert strength[present].quantile(0.01) > 0.4
    assert strength[~present].quantile(0.99) < 0.3
    assert strength[present].mean() == pytest.approx(0.8, abs=0.05)


def test_shares_of_empty_single_and_double_patches_are_the_options(dataset: Dataset) -> None:
    n_shown = shown(dataset.train).sum(dim=2).flatten()
    shares = n_shown.bincount(minlength=3) / len(n_shown)
    assert shares.tolist() == pytest.approx([0.4, 0.45, 0.15], abs=0.015)
    all_double = Concepts(n_train=100, n_test=1, empty=0.0, double=1.0).load().train
    assert (shown(all_double).sum(dim=2) == 2).all()


def test_the_class_is_the_theme_which_is_there_more_often_than_any(dataset: Dataset) -> None:
    labels, share = labels_of(dataset.train), shown(dataset.train).float().mean(dim=1)
    own = share.gather(1, labels[:, None]).mean()
    others = (share.sum(dim=1) - share.gather(1, labels[:, None])[:, 0]).mean() / 35
    assert own > 10 * others
    assert dataset.classes[:2] == ("amber disc", "amber ring")
    assert torch.equal(dataset.train.factors["theme"], labels)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_concepts": 37}, "n_concepts: received 37; expected at most 36"),
        ({"empty": 1.5}, r"empty: received 1\.5; expected a share"),
        ({"empty": 0.9, "double": 0.2}, r"empty \+ double: received 1\.1"),
        ({"noise": -1.0}, r"noise: received -1\.0; expected 0 or more"),
        ({"n_test": 0}, "n_test: received 0; expected at least 1"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Concepts(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"most_parts": 1}, "most_parts: received 1; expected at least 2"),
        ({"overlap": 2.0}, r"overlap: received 2\.0; expected a share"),
        ({"interference": -0.1}, r"interference: received -0\.1; expected 0 or more"),
    ],
)
def test_options_of_the_network_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PlantedNetwork(**options)


def test_a_network_is_the_same_bits_each_time_and_leaves_the_random_state(
    dataset: Dataset, weights: dict[str, Tensor]
) -> None:
    assert isinstance(FACTORY, BackboneFactory)
    state, n_threads = torch.get_rng_state(), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        again = FACTORY.weights(dataset, quietly)
    finally:
        torch.set_num_threads(n_threads)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(again[name], weights[name]) for name in weights)
    assert set(FACTORY.skeleton().state_dict()) == set(weights)
    other = replace(FACTORY, seed=1).weights(dataset, quietly)
    assert not torch.equal(other["site.weight"], weights["site.weight"])


def test_another_data_set_is_refused() -> None:
    with pytest.raises(UsageError, match=r"planted_network was given the data set 'shapes'; expected 'concepts'"):
        FACTORY.weights(Shapes(n_train=10, n_test=10).load(), quietly)
    with pytest.raises(ValueError, match="d_in: 30 inputs are no distractors; expected one a concept"):
        PlantedNetwork(d_in=40).plan(36)


def truth_of(site: Site) -> Truth:
    assert isinstance(site.backbone.truth, Truth)
    return site.backbone.truth


def test_parts_of_a_unit_are_apart_and_sum_to_its_kernel_row_exactly(site: Site) -> None:
    truth = truth_of(site)
    for unit in range(site.units):
        parts = truth.parts[truth.unit_of_part == unit]
        assert ((parts != 0).sum(dim=0) == 1).all()
        assert torch.equal(parts.sum(dim=0), site.weight[unit])
        concepts_here = truth.concept_of_part[truth.unit_of_part == unit].tolist()
        assert len(set(concepts_here)) == len(concepts_here)
    counts = truth.unit_of_part.bincount().tolist()
    assert counts.count(1) == 4
    assert set(counts) == {1, 2, 3, 4}
    assert set(truth.concept_of_part.bincount().tolist()) == {2, 3}  # each concept is in several units
    assert site.units < len(truth.names)  # and there are fewer units than concepts


def test_a_part_tells_its_concept_and_its_whole_unit_does_not(site: Site, dataset: Dataset) -> None:
    truth, reading = truth_of(site), site.read(dataset.test.images(slice(None)))
    present = shown(dataset.test).flatten(0, 1).numpy()
    codes = (reading.inputs @ truth.parts.T).flatten(0, 1).numpy()
    outputs = reading.outputs.flatten(0, 1).numpy()
    units, own = truth.unit_of_part.tolist(), truth.concept_of_part.tolist()
    of_part = [roc_auc_score(present[:, concept], codes[:, part]) for part, concept in enumerate(own)]
    of_unit = [roc_auc_score(present[:, concept], outputs[:, units[part]]) for part, concept in enumerate(own)]
    is_split = np.array([units.count(unit) > 1 for unit in units])
    assert min(of_part) > 0.97
    assert np.mean(of_part) > 0.998
    assert np.mean(np.array(of_unit)[is_split]) < 0.98
    assert np.array(of_unit)[~is_split] == pytest.approx(np.array(of_part)[~is_split])


def test_the_network_names_the_theme_of_images_that_its_head_has_not_seen(site: Site, dataset: Dataset) -> None:
    predicted = site.read(dataset.test.images(slice(None))).logits.argmax(dim=1)
    assert (predicted == labels_of(dataset.test)).float().mean() > 0.6


@pytest.fixture(scope="module")
def source(site: Site, dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> TensorSource[Rows]:
    folder = tmp_path_factory.mktemp("activations")
    extract([Wanted(site, 42, 2)], [folder], dataset.train, quietly)
    return opened(folder / FILLED, site, dataset.train, quietly)


def evaluated(site: Site, dataset: Dataset, codes: Tensor, **facts: Any) -> dict[str, float]:
    reading = site.read(dataset.test.images(slice(None)))
    outputs, logits = reading.outputs, reading.logits
    split = Evaluation(outputs, codes, outputs, labels_of(dataset.test), logits, logits, **facts)
    split.concepts, split.truth = shown(dataset.test), site.backbone.truth
    both = {**stream(GroundTruth(split), split, 256), **stream(PlantedParts(split), split)}
    return {name: number(value) for name, value in both.items() if value.value is not None}


def test_the_planted_truth_is_perfect_and_as_many_random_parts_are_not(
    site: Site, dataset: Dataset, source: TensorSource[Rows]
) -> None:
    reading = site.read(dataset.test.images(slice(None)))
    tokens = Activations(reading.inputs.flatten(0, 1), reading.outputs.flatten(0, 1), site.weight, site.bias)
    true = PlantedTruth().decompose(source.only(PlantedTruth.reads), seed=0)
    dealt = RandomPartition().decompose_like(source.only(RandomPartition.reads), true, seed=0)
    values = []
    for method, found in ((PlantedTruth(), true), (RandomPartition(), dealt)):
        codes = method.encode(found, tokens).unflatten(0, (1000, 16))
        dictionary = {"input": method.dictionaries(found, site.weight)["input"]}
        values.append(evaluated(site, dataset, codes, unit_of_atom=found.unit_of_atom, dictionaries=dictionary))
        assert torch.allclose(method.decode(found, codes.flatten(0, 1)), tokens.outputs, atol=1e-4)
    perfect, random = values
    assert perfect["part_cosine"] == pytest.approx(1, abs=1e-6)
    assert perfect["parts_exact_share"] == random["parts_exact_share"] == 100
    assert perfect["concept_auc"] > 0.998
    assert perfect["exemplar_purity"] > 99
    assert random["part_cosine"] < 0.7
    assert random["concept_auc"] < perfect["concept_auc"] - 0.005
    assert random["exemplar_purity"] < 85


def test_the_planted_truth_needs_a_truth_that_is_a_partition_of_the_kernel(source: TensorSource[Rows]) -> None:
    assert source.only(frozenset({"inputs"})).truth is None
    with pytest.raises(LookupError, match="truth: got none; expected the parts of the units; choose a planted network"):
        PlantedTruth().decompose(source.only(RandomPartition.reads), seed=0)
    whole = planted()
    assert whole.weight is not None
    with pytest.raises(ValueError, match="do not hold each nonzero weight of unit 0 as it is"):
        PlantedTruth().decompose(replace(whole, weight=whole.weight * 2), seed=0)
    known: Any = whole.truth
    with pytest.raises(ValueError, match="do not hold each nonzero weight of unit 0"):
        PlantedTruth().decompose(replace(whole, truth=replace(known, parts=known.parts.flip(0))), seed=0)
    again = [0, *range(24)]
    of_parts = ("parts", "unit_of_part", "concept_of_part")
    twice = replace(known, **{name: getattr(known, name)[again] for name in of_parts})
    with pytest.raises(ValueError, match="two parts hold one weight of unit 0"):
        PlantedTruth().decompose(replace(whole, truth=twice), seed=0)


def test_a_weight_of_zero_is_shared_by_all_parts_and_costs_nothing() -> None:
    whole = planted()
    known: Any = whole.truth
    assert whole.weight is not None
    weight, parts = whole.weight.clone(), known.parts.clone()
    weight[:, 5], parts[:, 5] = 0, 0
    here = replace(whole, weight=weight, truth=replace(known, parts=parts))
    found = PlantedTruth().decompose(here, seed=0)
    assert (found.tensors["owns"][:, 5] == 1).all()
    assert torch.equal(PlantedTruth().dictionaries(found, weight)["input"], parts)
