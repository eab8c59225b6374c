"""Fitted heads: near what the network's own head reaches, in the way of replaced logits, and never in a path's way."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench import UsageError, heads
from bench.backbones import Backbone, BackboneFactory
from bench.cache import Cache
from bench.datasets import Dataset, InMemory, Shapes
from bench.embedded import EmbeddedViT, to_unit_range
from bench.heads import EmbeddedFeatures, fit, headed, needs_head, rows_within, stage
from bench.sites import Site
from metrics.heads import fit_head, predict

SMALL: dict[str, Any] = {"width": 32, "depth": 1, "heads": 2, "epochs": 8, "learning_rate": 3e-3}


def silent(what: str, done: int, total: int) -> None:
    """A report that nobody reads."""


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    """Shapes by their colour alone: eight classes, which a small network learns in seconds."""
    whole = Shapes(n_train=900, n_test=300).load()
    train, test = (InMemory(split.images(slice(None)), split.factors["colour"]) for split in (whole.train, whole.test))
    return Dataset("colours", tuple("abcdefgh"), train, test, "f" * 64, "none", "shapes by their colour")


@pytest.fixture(scope="module")
def trained(dataset: Dataset) -> Backbone:
    factory = EmbeddedViT(**SMALL)
    return factory.assemble(factory.weights(dataset, silent), dataset)


@pytest.fixture(scope="module")
def weights(dataset: Dataset) -> dict[str, Tensor]:
    return EmbeddedFeatures(**SMALL).weights(dataset, silent)


@pytest.fixture
def features(dataset: Dataset, weights: dict[str, Tensor]) -> Backbone:
    return EmbeddedFeatures(**SMALL).assemble(weights, dataset)


@pytest.fixture(scope="module")
def head(dataset: Dataset, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return fit(EmbeddedFeatures(**SMALL).assemble(weights, dataset), dataset, silent)


def accuracy(backbone: Backbone, dataset: Dataset) -> float:
    logits = backbone.module(backbone.transform(dataset.test.images(slice(None))))
    return float((logits.argmax(1) == dataset.test.labels).double().mean())


def test_which_factories_need_a_head() -> None:
    assert needs_head(EmbeddedFeatures(), 8)
    assert not needs_head(EmbeddedViT(), 8)
    assert isinstance(EmbeddedFeatures(), BackboneFactory)
    paths = [set(dict(factory.skeleton().named_modules())) for factory in (EmbeddedViT(), EmbeddedFeatures())]
    assert paths[0] == paths[1]


def test_the_network_is_the_trained_one_without_its_classifier(trained: Backbone, features: Backbone) -> None:
    own, stripped = trained.module.state_dict(), features.module.state_dict()
    assert own.keys() - stripped.keys() == {"head.weight", "head.bias"}
    assert all(torch.equal(own[name], tensor) for name, tensor in stripped.items())
    assert (trained.name, features.name) == ("embedded-vit-32x1", "embedded-features-32x1")


def test_a_fitted_head_reaches_what_the_trained_one_does(
    dataset: Dataset, trained: Backbone, features: Backbone, head: dict[str, Tensor]
) -> None:
    own, fitted = accuracy(trained, dataset), accuracy(headed(features, head), dataset)
    assert own > 0.6
    assert abs(fitted - own) < 0.08


def test_the_head_is_that_of_the_pooled_features(dataset: Dataset, features: Backbone, head: dict[str, Tensor]) -> None:
    images = features.transform(dataset.train.images(slice(None)))
    seen = torch.cat([features.module(some) for some in images.split(100)])
    expected = fit_head(seen, dataset.train.labels if dataset.train.labels is not None else seen, 8)
    logits = headed(features, head).module(images[:50])
    assert torch.allclose(logits, predict(expected, seen[:50]), atol=1e-3)
    assert float(head["held_out_accuracy"]) == pytest.approx(expected.held_out_accuracy[expected.setting], abs=0.02)
    assert float(head["n_images"]) == 900


def test_sites_keep_their_paths_and_replaced_outputs_reach_the_head(
    dataset: Dataset, features: Backbone, head: dict[str, Tensor]
) -> None:
    paths = [name for name, _ in features.module.named_modules()]
    backbone = headed(features, head)
    assert [name for name, _ in backbone.module.named_modules()] == [*paths, heads.NAME]
    site, images = Site(backbone, "blocks.0.mlp.fc2"), dataset.test.images(slice(0, 20))
    reading = site.read(images)
    assert reading.logits.shape == (20, 8)
    assert torch.equal(site.logits_with(images, reading.outputs), reading.logits)
    assert not torch.allclose(site.logits_with(images, torch.zeros_like(reading.outputs)), reading.logits)
    layer = nn.Linear(site.d_in, site.units)
    layer.load_state_dict(site.module.state_dict())
    with site.swapped(layer) as network:
        assert torch.equal(network(backbone.transform(images)), reading.logits)
    assert site.class_gradients(images, torch.zeros(20).long()).abs().max() > 0


def test_a_copy_in_float64_runs_through_a_head_of_its_own(
    dataset: Dataset, features: Backbone, head: dict[str, Tensor]
) -> None:
    backbone = headed(features, head)
    images = backbone.transform(dataset.test.images(slice(0, 5)))
    precise = copy.deepcopy(backbone.module).double()(images.double())
    assert precise.dtype == torch.float64
    assert torch.allclose(precise.float(), backbone.module(images), atol=1e-4)
    assert backbone.module(images).dtype == torch.float32


def test_the_fingerprint_covers_network_and_head(
    dataset: Dataset, weights: dict[str, Tensor], head: dict[str, Tensor]
) -> None:
    def made(weights: Mapping[str, Tensor], head: Mapping[str, Tensor]) -> Backbone:
        return headed(EmbeddedFeatures(**SMALL).assemble(weights, dataset), head)

    nudged = {**head, "bias": head["bias"] + 1e-3}
    others = {**weights, "blocks.0.mlp.fc2.bias": weights["blocks.0.mlp.fc2.bias"] + 1e-3}
    prints = {made(*parts).fingerprint for parts in ((weights, head), (weights, nudged), (others, head))}
    assert len(prints) == 3
    backbone = made(weights, head)
    assert backbone.fingerprint in prints
    assert backbone.notes["head_n_images"] == 900
    assert backbone.notes["n_parameters"] == sum(p.numel() for p in backbone.module.parameters())
    assert not any(parameter.requires_grad for parameter in backbone.module.parameters())
    with pytest.raises(ValueError, match="has a fitted head; expected one without"):
        headed(backbone, head)


def test_twice_gives_the_same_bits(dataset: Dataset, features: Backbone, head: dict[str, Tensor]) -> None:
    again = fit(features, dataset, silent)
    assert again.keys() == head.keys()
    assert all(torch.equal(again[name], tensor) for name, tensor in head.items())


def test_the_evaluation_split_is_never_looked_at(dataset: Dataset, features: Backbone) -> None:
    class Untouchable(InMemory):
        def images(self, rows: Any) -> Any:
            raise AssertionError("images of the evaluation split were looked at")

    pixels, labels = dataset.train.images(slice(0, 80)), dataset.train.labels
    assert labels is not None
    few, untouchable = InMemory(pixels, labels[:80]), Untouchable(pixels, None)
    blind = Dataset("blind", dataset.classes, few, untouchable, "e" * 64, "", "")
    assert fit(features, blind, silent)["weight"].shape == (8, 32)


def test_no_labels_and_no_features_are_said(dataset: Dataset, features: Backbone) -> None:
    bare = InMemory(dataset.train.images(slice(0, 20)), None)
    unlabelled = Dataset("bare", dataset.classes, bare, bare, "d" * 64, "", "")
    with pytest.raises(UsageError, match="dataset: got one without labels"):
        fit(features, unlabelled, silent)
    tokens = Backbone.of("conv", nn.Conv2d(3, 4, 8, stride=8), to_unit_range, preprocessing="")
    with pytest.raises(
        UsageError, match=r"'conv' gives \(1, 4, 4, 4\) for 1 images; expected features, images x width"
    ):
        fit(tokens, dataset, silent)


def test_of_more_images_than_fit_some_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    assert torch.equal(rows_within(10, 5), torch.arange(10))
    monkeypatch.setattr(heads, "MAX_FEATURE_BYTES", 4 * 5 * 6)
    rows = rows_within(10, 5)
    assert len(rows) == 6
    assert torch.equal(rows, rows.sort().values)
    assert torch.equal(rows, rows_within(10, 5))


def test_the_head_is_kept_and_found_again(
    dataset: Dataset, weights: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted: list[str] = []

    def counted(backbone: Backbone, *rest: Any) -> dict[str, Tensor]:
        fitted.append(backbone.name)
        return fit(backbone, *rest)

    monkeypatch.setattr(heads, "fit", counted)
    cache = Cache(tmp_path, print)

    def made(packages: Mapping[str, str]) -> Backbone:
        return stage(cache, EmbeddedFeatures(**SMALL).assemble(weights, dataset), dataset, silent, packages)

    one, other = made({"torch": "1"}), made({"torch": "1"})
    assert one.fingerprint == other.fingerprint
    assert accuracy(one, dataset) == accuracy(other, dataset)
    assert len(fitted) == 1
    made({"torch": "2"})
    assert len(fitted) == 2
