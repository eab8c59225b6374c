"""DPCiCNN: each step compared with a slow version, the laws of the split, and inputs that could trip it."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from method_references import (
    cosine,
    permuted,
    planted_images,
    random_site,
    relevance,
    responsible_classes,
    separation,
    site,
    three_parts,
    tokens,
)

from bench.activations import TensorSource
from bench.contract import check
from bench.planted import planted
from methods.dpcicnn import DPCiCNN, parts_of
from methods.groups import RHOS
from methods.partition import parents
from methods.protocol import Decomposition, Explicit, HasDictionary, Swappable

SOURCES: dict[str, Callable[[], TensorSource]] = {
    "planted": planted,
    "random 3": lambda: random_site(3),
    "random 8": lambda: random_site(8, classes=6),
}


@pytest.mark.parametrize("method", [DPCiCNN(), DPCiCNN(rho=0.5, class_share=0.3)])
def test_contract(method: DPCiCNN) -> None:
    assert {law: problem for law, problem in check(method).items() if problem} == {}
    assert isinstance(method, Explicit)
    assert isinstance(method, Swappable)
    assert isinstance(method, HasDictionary)


def pairs_of(found: Decomposition) -> dict[int, tuple[int, int]]:
    """The classes of each split unit."""
    labels = found.tensors["class_of_atom"]
    units = [unit for unit in range(len(found.tensors["rho"])) if int((parents(found) == unit).sum()) == 3]
    return {unit: tuple(labels[parents(found) == unit][:2].tolist()) for unit in units}


@pytest.mark.parametrize("name", SOURCES)
def test_units_and_pairs_are_those_of_the_loop(name: str) -> None:
    source = SOURCES[name]()
    found = DPCiCNN(class_share=0.6).decompose(source, seed=0)
    expected: dict[int, tuple[int, int]] = {}
    several = 0
    for unit in range(source.outputs.shape[1]):
        classes = responsible_classes(source, unit, 0.03, 0.6)
        several += len(classes) >= 2
        vectors = {label: relevance(source, unit, label) for label in classes}
        cosines = {(a, b): cosine(vectors[a], vectors[b]) for a in classes for b in classes if a < b}
        if cosines and min(cosines.values()) < 0.5:
            expected[unit] = min(cosines, key=lambda pair: cosines[pair])
    assert expected
    assert pairs_of(found) == expected
    assert found.notes["split_units"] == len(expected)
    assert found.notes["units_responsible_for_several_classes"] == several


@pytest.mark.parametrize("name", SOURCES)
def test_rho_is_the_one_that_separates_best(name: str) -> None:
    source = SOURCES[name]()
    found = DPCiCNN(class_share=0.6).decompose(source, seed=0)
    for unit, pair in list(pairs_of(found).items())[:4]:
        scores = [separation(source, unit, pair, rho) for rho in RHOS]
        rho = float(found.tensors["rho"][unit])
        assert scores[RHOS.index(rho)] == pytest.approx(max(scores), rel=1e-6)
        first, second = (relevance(source, unit, label) for label in pair)
        assert np.array_equal(found.tensors["keeps"][parents(found) == unit].numpy(), three_parts(first, second, rho))


@pytest.mark.parametrize("rho", [0.05, 0.5, 1.0])
def test_parts_are_those_of_the_loop(rho: float) -> None:
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randint(-3, 4, (2, 200), generator=generator).double()
    assert np.array_equal(parts_of(vectors, rho).numpy(), three_parts(vectors[0].numpy(), vectors[1].numpy(), rho))


@pytest.mark.parametrize("rho", [0.05, 0.5, 0.95, 1.0])
def test_an_input_is_never_both_classes_own(rho: float) -> None:
    # Both negative: rho x ARV1 > ARV2 and rho x ARV2 > ARV1 hold at once, and the input would be lost from the sum.
    vectors = torch.tensor([[-1.0, -1.0, -1.0, 0.0, 2.0], [-1.0, -1.1, -0.9, 0.0, 2.0]])
    first, second, residual = parts_of(vectors, rho).to(torch.int64)
    assert torch.equal(first + second - residual, torch.ones(5, dtype=torch.int64))


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("name", SOURCES)
def test_parts_rebuild_the_outputs(name: str, dtype: torch.dtype, bound: float) -> None:
    source = SOURCES[name]()
    method = DPCiCNN(class_share=0.6)
    found = method.decompose(source, seed=0)
    assert int((found.tensors["signs"] == -1).sum()) > 0
    given = tokens(source, dtype)
    codes = method.encode(found, given)
    size = float(given.outputs.abs().max())
    assert codes.dtype == dtype
    assert float((method.decode(found, codes) - given.outputs).abs().max()) <= bound * size
    layer = method.layer(found, given.needed_weight(), given.bias)
    assert float((layer(given.needed_inputs()) - given.outputs).abs().max()) <= bound * size
    assert torch.equal(layer.codes(given.needed_inputs()), codes)
    dictionaries = method.dictionaries(found, given.needed_weight())
    units = torch.zeros_like(given.needed_weight())
    units.index_add_(0, parents(found), dictionaries["input"] * found.tensors["signs"][:, None])
    alive = codes * (dictionaries["input"] != 0).any(dim=1)
    assert torch.allclose(alive @ dictionaries["output"], method.decode(found, alive), atol=bound * size)
    assert float((units - given.needed_weight()).abs().max()) <= bound * size


def test_the_layer_has_its_signs() -> None:
    source = SOURCES["planted"]()
    method = DPCiCNN()
    found = method.decompose(source, seed=0)
    given = tokens(source)
    layer = method.layer(found, given.needed_weight(), given.bias)
    assert torch.equal(layer.state_dict()["signs"], found.tensors["signs"])
    unnoted = replace(found, notes={})
    without = method.layer(unnoted, given.needed_weight(), None)
    assert torch.allclose(without(given.needed_inputs()), given.needed_inputs() @ given.needed_weight().T, atol=1e-5)


def two_classes(n: int = 40, shared: float = 0.0, bias: float = 0.0) -> TensorSource:
    """Unit 0 is driven by class 0 through inputs 0-3 and by class 1 through 4-7; unit 1 by class 0 alone."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % 2
    inputs = 0.01 * torch.rand(n, 4, 10, generator=generator)
    inputs[labels == 0, :, :4] += 1 + torch.rand(n // 2, 4, 4, generator=generator)
    inputs[labels == 1, :, 4:8] += 1 + torch.rand(n // 2, 4, 4, generator=generator)
    inputs[:, :, 8:] += shared
    weight = torch.stack([torch.ones(10), torch.cat([torch.ones(4), torch.zeros(6)])])
    return site(inputs, weight, torch.tensor([bias, 0.0]), labels, torch.tensor([[1.0, 1.0], [1.0, 0.0]]))


def test_a_planted_polysemantic_unit_is_split_the_right_way() -> None:
    source = two_classes(shared=0.3, bias=0.2)
    found = DPCiCNN().decompose(source, seed=0)
    assert parents(found).tolist() == [0, 0, 0, 1]
    assert found.tensors["signs"].tolist() == [1, 1, -1, 1]
    assert found.tensors["class_of_atom"].tolist() == [0, 1, -1, -1]
    assert found.tensors["rho"][1] == 0
    first, second, residual, whole = found.tensors["keeps"].tolist()
    assert first[:8] == [1, 1, 1, 1, 0, 0, 0, 0]
    assert second[:8] == [0, 0, 0, 0, 1, 1, 1, 1]
    assert residual[:8] == [0] * 8
    assert whole == [1] * 10
    codes = DPCiCNN().encode(found, tokens(source)).view(40, 4, 4)
    for label in (0, 1):
        own, other = (codes[label::2, :, part].mean() for part in (label, 1 - label))
        assert float(own) > 3 * float(other)


def test_each_part_has_the_whole_bias() -> None:
    source = two_classes(bias=0.5)
    found = DPCiCNN().decompose(source, seed=0)
    given = tokens(source)
    layer = DPCiCNN().layer(found, given.needed_weight(), given.bias)
    assert layer.weights()[1].tolist() == [0.5, 0.5, 0.5, 0.0]


def test_the_pair_with_the_smallest_cosine_is_taken() -> None:
    # Classes 1 and 2 share half of their inputs, 0 and 1 a quarter, 0 and 2 none.
    labels = torch.arange(30) % 3
    patterns = torch.tensor([[1.0, 1, 0, 0, 0, 0], [0, 1, 1, 1, 0, 0], [0, 0, 0, 1, 1, 0]])
    inputs = patterns[labels][:, None].expand(-1, 4, -1).contiguous()
    source = site(inputs, torch.ones(1, 6), labels=labels, head=torch.ones(3, 1))
    assert pairs_of(DPCiCNN().decompose(source, seed=0)) == {0: (0, 2)}
    assert pairs_of(DPCiCNN(max_cosine=-0.5).decompose(source, seed=0)) == {}


def test_classes_without_images_are_responsible_for_nothing() -> None:
    # 0 of 0 images is a share of at least p to whoever multiplies instead of dividing.
    source = two_classes()
    images = planted_images(source)
    assert source.weight is not None
    head = torch.cat([images.head[:1], torch.ones(4, 2), images.head[1:]])
    spread = site(images.inputs, source.weight, source.bias, 5 * images.labels, head)
    found = DPCiCNN().decompose(spread, seed=0)
    assert pairs_of(found) == {0: (0, 5)}
    assert found.notes["units_responsible_for_several_classes"] == 1


@pytest.mark.parametrize("sign", [0.0, -1.0])
def test_where_no_attribution_is_positive_no_unit_is_responsible(sign: float) -> None:
    # A share of a positive total of zero is zero, which an attribution of zero reaches.
    source = two_classes()
    images = planted_images(source)
    assert source.weight is not None
    against = site(images.inputs, source.weight, source.bias, images.labels, sign * images.head)
    found = DPCiCNN().decompose(against, seed=0)
    assert found.n_atoms == 2
    assert found.notes["units_responsible_for_several_classes"] == 0


def test_shares_are_reached_exactly() -> None:
    # 11 of 20 images is a share of 0.55, though 0.55 x 20 is more than 11 in floating point.
    source = two_classes(40)
    images = planted_images(source)
    assert source.weight is not None
    inputs = images.inputs.clone()
    inputs[torch.arange(40)[images.labels == 1][:9]] = 0.0
    source = site(inputs, source.weight, None, images.labels, images.head)
    assert pairs_of(DPCiCNN(class_share=0.55).decompose(source, seed=0)) == {0: (0, 1)}
    assert pairs_of(DPCiCNN(class_share=0.56).decompose(source, seed=0)) == {}


def test_a_class_that_drives_a_unit_by_its_bias_alone_has_no_direction() -> None:
    labels = torch.arange(20) % 2
    inputs = labels[:, None, None].expand(-1, 4, 3).float().contiguous()
    source = site(inputs, torch.ones(1, 3), torch.ones(1), labels, torch.ones(2, 1))
    found = DPCiCNN().decompose(source, seed=0)
    assert found.n_atoms == 1
    assert found.notes["units_responsible_for_several_classes"] == 1


def test_equal_margins_go_to_the_smallest() -> None:
    # The classes' inputs are disjoint, so every margin gives the same parts.
    labels = torch.arange(20) % 2
    inputs = torch.eye(2)[labels][:, None].expand(-1, 4, -1).contiguous()
    source = site(inputs, torch.ones(1, 2), labels=labels, head=torch.ones(2, 1))
    assert DPCiCNN().decompose(source, seed=0).tensors["rho"].tolist() == [0.05]
    assert DPCiCNN(rho=0.7).decompose(source, seed=0).tensors["rho"].tolist() == [0.7]


@pytest.mark.parametrize("name", SOURCES)
def test_the_order_of_images_and_the_seed_change_nothing(name: str) -> None:
    source = SOURCES[name]()
    n = planted_images(source).n_images
    again = permuted(source, torch.randperm(n, generator=torch.Generator().manual_seed(0)))
    found, other = DPCiCNN().decompose(source, seed=0), DPCiCNN().decompose(again, seed=7)
    assert all(torch.equal(tensor, other.tensors[key]) for key, tensor in found.tensors.items())


def test_batches_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    source = random_site(3)
    found = DPCiCNN().decompose(source, seed=0)
    monkeypatch.setattr("methods.images.BATCH_IMAGES", 7)
    monkeypatch.setattr("methods.dpcicnn.CHUNK_TOKENS", 5)
    again = DPCiCNN().decompose(source, seed=0)
    assert all(torch.equal(tensor, again.tensors[key]) for key, tensor in found.tensors.items())


@pytest.mark.parametrize("n_images", [1, 12])
@pytest.mark.parametrize("value", [0.0, 0.3])
def test_constant_tokens_leave_every_unit_whole(n_images: int, value: float) -> None:
    weight = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    source = site(torch.full((n_images, 4, 7), value), weight, labels=torch.arange(n_images) % 3)
    found = DPCiCNN().decompose(source, seed=0)
    assert found.n_atoms == 5
    codes = DPCiCNN().encode(found, tokens(source))
    assert torch.allclose(DPCiCNN().decode(found, codes), source.outputs)


def test_without_labels_the_reason_is_named() -> None:
    with pytest.raises(LookupError, match="labels: got none; expected the class of each image; choose a labelled data"):
        DPCiCNN().decompose(planted(DPCiCNN.reads - {"labels"}), seed=0)


def test_activations_and_gradients_that_are_not_finite_are_refused() -> None:
    source = random_site(0)
    planted_images(source).head[0, 0] = torch.nan
    with pytest.raises(ValueError, match="gradients: got a value that is not finite"):
        DPCiCNN().decompose(source, seed=0)
    source.outputs[3, 4] = torch.nan
    with pytest.raises(ValueError, match="outputs: got a value that is not finite"):
        DPCiCNN().decompose(source, seed=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attribution_share": 0.0}, "attribution_share: got 0.0; expected a share above 0, up to 1; change it"),
        ({"class_share": 1.5}, "class_share: got 1.5; expected a share above 0, up to 1"),
        ({"max_cosine": 2.0}, "max_cosine: got 2.0; expected -1 to 1; change it"),
        ({"rho": -0.1}, "rho: got -0.1; expected 0 .search. or a value up to 1; change it"),
    ],
)
def test_bad_options_are_named(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DPCiCNN(**options)
