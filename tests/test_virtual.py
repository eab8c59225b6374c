"""PURE and DNRwCV: compared with slow versions, the laws of virtual units, and inputs that could trip them."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from method_references import (
    concept_vectors,
    median_distance,
    permuted,
    pure_centroids,
    pure_codes,
    random_site,
    ranked,
    site,
    tokens,
)

from bench.activations import TensorSource
from bench.contract import check
from bench.planted import planted, tokens_of
from methods.images import strongest_images
from methods.partition import parents
from methods.protocol import Activations, Decomposition, Explicit, HasDictionary
from methods.virtual import PURE, REFERENCE_DISTANCE, DNRwCV

SOURCES: dict[str, Callable[[], TensorSource]] = {"planted": planted, "random": lambda: random_site(3)}


@pytest.mark.parametrize(
    "method", [PURE(), PURE(n_parts=5, weighting="activation"), DNRwCV(), DNRwCV(rescale=False, threshold=5.0)]
)
def test_contract(method: PURE | DNRwCV) -> None:
    assert {law: problem for law, problem in check(method).items() if problem} == {}
    assert isinstance(method, HasDictionary)
    assert not isinstance(method, Explicit)


# PURE


def centroids_of(found: Decomposition, unit: int) -> np.ndarray:
    return found.tensors["centroids"][parents(found) == unit].double().numpy()


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize(("n_parts", "weighting"), [(2, "positive"), (3, "positive"), (2, "activation")])
def test_centroids_are_those_of_the_loop(name: str, n_parts: int, weighting: str) -> None:
    source = SOURCES[name]()
    found = PURE(n_images=30, n_parts=n_parts, weighting=weighting).decompose(source, seed=0)  # type: ignore[arg-type]
    assert found.n_atoms == n_parts * source.outputs.shape[1]
    for unit in range(source.outputs.shape[1]):
        expected = pure_centroids(source, unit, 30, n_parts, weighting == "activation")
        assert np.allclose(centroids_of(found, unit), expected, atol=1e-6)


@pytest.mark.parametrize("name", SOURCES)
def test_codes_are_those_of_the_loop(name: str) -> None:
    source = SOURCES[name]()
    method = PURE(n_images=30, n_parts=3)
    found = method.decompose(source, seed=0)
    expected = pure_codes(source, {unit: centroids_of(found, unit) for unit in range(source.outputs.shape[1])})
    codes = method.encode(found, tokens(source, torch.float64))
    assert np.allclose(codes.numpy(), expected.reshape(len(codes), -1), atol=1e-5)
    assert len(set(codes.ne(0).sum(dim=0).tolist())) > 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_parts_sum_to_the_unit_exactly(dtype: torch.dtype) -> None:
    source = random_site(1)
    method = PURE(n_images=20, n_parts=4)
    found = method.decompose(source, seed=0)
    given_tokens = tokens(source, dtype)
    codes = method.encode(found, given_tokens)
    assert codes.dtype == dtype
    units = torch.zeros_like(given_tokens.outputs).index_add_(1, parents(found), codes)
    assert torch.equal(units, given_tokens.outputs)
    assert int((codes != 0).sum(dim=1).max()) <= source.outputs.shape[1]


def test_an_image_gives_a_unit_to_one_part_at_all_its_positions() -> None:
    source = random_site(1)
    method = PURE(n_images=20, n_parts=3)
    found = method.decompose(source, seed=0)
    codes = method.encode(found, tokens(source)).view(60, 4, 7, 3)
    assert bool((codes.ne(0).any(dim=1).sum(dim=2) == 1).all())


def two_mechanisms(n_images: int = 80) -> tuple[TensorSource, torch.Tensor]:
    """One unit that every image drives, half of them through the first inputs and half through the last."""
    generator = torch.Generator().manual_seed(0)
    which = torch.arange(n_images) % 2
    inputs = 0.05 * torch.rand(n_images, 4, 20, generator=generator)
    inputs[which == 0, :, :10] += 1 + 0.3 * torch.rand(n_images // 2, 4, 10, generator=generator)
    inputs[which == 1, :, 10:] += 1 + 0.3 * torch.rand(n_images // 2, 4, 10, generator=generator)
    return site(inputs, torch.ones(1, 20)), which


def test_two_planted_mechanisms_are_told_apart() -> None:
    source, which = two_mechanisms()
    method = PURE()
    found = method.decompose(source, seed=0)
    used = method.encode(found, tokens(source)).view(80, 4, 2).ne(0).all(dim=1)
    assert bool((used.sum(dim=1) == 1).all())
    part = used.to(torch.int64).argmax(dim=1)
    assert len(set(zip(part.tolist(), which.tolist(), strict=True))) == 2
    dictionary = method.dictionaries(found, torch.ones(1, 20))["input"]
    strongest = dictionary[part[which == 0][0]]
    assert float(strongest[:10].sum()) > 0.9
    assert float(strongest[10:].sum()) < 0.1
    assert found.tensors["cluster_sizes"].tolist() == [40, 40]


@given(st.integers(1, 9), st.integers(0, 5))
def test_the_strongest_images_stand_in_a_total_order(k: int, seed: int) -> None:
    values = torch.randint(-2, 3, (7, 4, 3), generator=torch.Generator().manual_seed(seed)).float()
    source = site(values, torch.eye(3))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("methods.images.BATCH_IMAGES", 2)
        images, peaks = strongest_images(source, k)
    for unit in range(3):
        expected = ranked([float(image[:, unit].max()) for image in values])[:k]
        assert images[unit].tolist() == expected
        assert peaks[unit].tolist() == [float(values[i, :, unit].max()) for i in expected]


@pytest.mark.parametrize("method", [PURE(n_images=20), DNRwCV(n_images=20)])
def test_the_order_of_images_changes_nothing(method: PURE | DNRwCV) -> None:
    source = random_site(2)
    again = permuted(source, torch.randperm(60, generator=torch.Generator().manual_seed(0)))
    found, other = (method.decompose(one, seed=0) for one in (source, again))
    assert found.n_atoms == other.n_atoms > 0
    for name, tensor in found.tensors.items():
        assert torch.allclose(tensor, other.tensors[name], atol=1e-6)


@pytest.mark.parametrize("method", [PURE(n_images=20), DNRwCV(n_images=20)])
def test_batches_and_seeds_change_nothing(method: PURE | DNRwCV, monkeypatch: pytest.MonkeyPatch) -> None:
    source = random_site(2)
    found = method.decompose(source, seed=0)
    monkeypatch.setattr("methods.images.BATCH_IMAGES", 7)
    again = method.decompose(source, seed=1)
    assert all(torch.equal(tensor, again.tensors[name]) for name, tensor in found.tensors.items())


def test_memory_decides_only_how_many_units_are_encoded_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    source = random_site(2)
    method = PURE(n_images=20)
    found = method.decompose(source, seed=0)
    codes = method.encode(found, tokens(source))
    monkeypatch.setattr("methods.virtual.CHUNK_ELEMENTS", 1)
    assert torch.equal(method.encode(found, tokens(source)), codes)


def test_images_may_have_different_numbers_of_tokens_and_any_names() -> None:
    source = random_site(2)
    method = PURE(n_images=20)
    found = method.decompose(source, seed=0)
    everything = tokens(source)
    pieces = [slice(0, 3), slice(4, 5), slice(8, 12)]
    rows = torch.cat([torch.arange(240)[piece] for piece in pieces])
    names = torch.tensor([7] * 3 + [2] + [7] * 4)

    def taken(which: torch.Tensor | slice, names: torch.Tensor) -> Activations:
        inputs, outputs = everything.needed_inputs()[which], everything.outputs[which]
        return dataclasses.replace(everything, inputs=inputs, outputs=outputs, image_of_token=names)

    alone = [method.encode(found, taken(piece, torch.zeros(piece.stop - piece.start).long())) for piece in pieces]
    assert torch.equal(method.encode(found, taken(rows, names)), torch.cat(alone))


def test_images_without_positive_activation_take_no_part() -> None:
    # As zeros they would be a cluster of their own, and the two mechanisms would fall into the other.
    source, _ = two_mechanisms()
    assert source.weight is not None
    inputs = torch.cat([torch.zeros(40, 4, 20), source.inputs.view(80, 4, 20)])  # type: ignore[union-attr]
    more = site(inputs, source.weight)
    found, expected = (PURE(n_images=120).decompose(one, seed=0) for one in (more, source))
    assert torch.equal(found.tensors["centroids"], expected.tensors["centroids"])


def test_a_unit_that_is_never_positive_stays_whole() -> None:
    source, _ = two_mechanisms()
    weight = torch.cat([torch.ones(1, 20), -torch.ones(1, 20)])
    both = site(source.inputs.view(80, 4, 20), weight)  # type: ignore[union-attr]
    found = PURE().decompose(both, seed=0)
    assert parents(found).tolist() == [0, 0, 1]
    assert found.notes["whole_units"] == found.notes["units_never_positive"] == 1
    assert not found.tensors["centroids"][2].any()
    assert torch.equal(PURE().encode(found, tokens(both))[:, 2], both.outputs[:, 1])


@pytest.mark.parametrize("n_images", [1, 2, 30])
@pytest.mark.parametrize("value", [0.0, 0.3])
def test_constant_tokens_leave_every_unit_whole(n_images: int, value: float) -> None:
    # 0.3 x random weights: attributions that are equal but for the rounding of sums.
    weight = torch.randn(5, 37, generator=torch.Generator().manual_seed(0))
    source = site(torch.full((n_images, 4, 37), value), weight)
    found = PURE().decompose(source, seed=0)
    assert found.n_atoms == found.notes["whole_units"] == 5
    assert bool(torch.isfinite(found.tensors["centroids"]).all())
    assert torch.equal(PURE().encode(found, tokens(source)), tokens(source).outputs)


def test_parts_that_differ_by_rounding_alone_are_one() -> None:
    # The same pattern at many strengths: normalised, the attributions are equal but for their last digits.
    strengths = torch.linspace(1.0, 2.0, 30)[:, None, None]
    pattern = torch.rand(37, generator=torch.Generator().manual_seed(0))
    found = PURE().decompose(site((strengths * pattern).expand(-1, 4, -1).contiguous(), torch.ones(5, 37)), seed=0)
    assert found.n_atoms == 5
    assert torch.allclose(found.tensors["centroids"], pattern / pattern.sum(), atol=1e-6)


def test_a_position_without_activation_adds_nothing() -> None:
    # Its inputs cancel: the unit is at zero there, and so is the gradient of its positive part.
    inputs = torch.tensor([[3.0, 0.0], [9.0, 9.0], [0.0, 5.0], [1.0, 1.0]]).expand(3, -1, -1).contiguous()
    found = PURE().decompose(site(inputs, torch.tensor([[1.0, -1.0]])), seed=0)
    assert torch.allclose(found.tensors["centroids"], torch.tensor([[1.0, 0.0]]))


def test_a_whole_unit_beside_split_ones_keeps_its_activation() -> None:
    source, _ = two_mechanisms()
    weight = torch.stack([torch.eye(20)[0], torch.ones(20)])
    found = PURE().decompose(site(source.inputs.view(80, 4, 20), weight), seed=0)  # type: ignore[union-attr]
    assert parents(found).tolist() == [0, 1, 1]
    inputs = -torch.ones(4, 20)
    given_tokens = Activations(inputs, inputs @ weight.T, weight, None, torch.zeros(4).long())
    assert PURE().encode(found, given_tokens)[:, 0].tolist() == [-1.0] * 4


def test_fewer_distinct_images_than_parts_leave_the_unit_whole() -> None:
    source, which = two_mechanisms()
    inputs = source.inputs.view(80, 4, 20)[which]  # type: ignore[union-attr]
    twice = site(inputs, torch.ones(1, 20))
    assert PURE(n_parts=2).decompose(twice, seed=0).n_atoms == 2
    assert PURE(n_parts=3).decompose(twice, seed=0).n_atoms == 1


def test_stored_float32_serves_float64_tokens() -> None:
    source = random_site(4)
    for method in (PURE(n_images=20), DNRwCV(n_images=20)):
        found = method.decompose(source, seed=0)
        single, double = (method.encode(found, tokens(source, dtype)) for dtype in (torch.float32, torch.float64))
        assert double.dtype == torch.float64
        assert torch.allclose(single.double(), double, atol=1e-4)


def test_pure_needs_whole_images() -> None:
    source = planted()
    found = PURE().decompose(source, seed=0)
    tokens_alone = dataclasses.replace(tokens_of(source, PURE.reads), image_of_token=None)
    with pytest.raises(ValueError, match="image_of_token: got None; expected whole images; declare"):
        PURE().encode(found, tokens_alone)


# DNRwCV


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize(("rescale", "threshold"), [(True, 15.0), (False, 15.0), (True, 12.0)])
def test_concept_vectors_are_those_of_the_loop(name: str, rescale: bool, threshold: float) -> None:
    source = SOURCES[name]()
    found = DNRwCV(n_images=30, rescale=rescale, threshold=threshold).decompose(source, seed=0)
    scale = REFERENCE_DISTANCE / median_distance(source, 30) if rescale else 1.0
    assert float(found.notes["scale"]) == pytest.approx(scale, rel=1e-6)
    for unit in range(source.outputs.shape[1]):
        vectors = found.tensors["vectors"][parents(found) == unit]
        expected = concept_vectors(source, unit, 30, threshold, scale)
        assert len(vectors) == len(expected)
        assert np.allclose(vectors.numpy(), np.stack(expected) if expected else np.zeros((0, 7)), atol=1e-5)


def test_rescaling_makes_the_units_of_the_backbone_irrelevant() -> None:
    # The threshold is a distance in one use and a squared distance in the other: scaling one number is not enough.
    source = random_site(5)
    assert source.weight is not None
    assert source.bias is not None
    louder = site(source.inputs.view(60, 4, 14), 100 * source.weight, 100 * source.bias)  # type: ignore[union-attr]
    method = DNRwCV(n_images=30)
    found, other = (method.decompose(one, seed=0) for one in (source, louder))
    assert torch.equal(parents(found), parents(other))
    assert torch.allclose(found.tensors["vectors"], other.tensors["vectors"], atol=1e-5)
    with pytest.raises(ValueError, match="threshold: got"):
        DNRwCV(n_images=30, rescale=False).decompose(louder, seed=0)


def groups_of(sizes: list[int], centres: list[list[float]], spread: float) -> TensorSource:
    """A site with the identity as its weight: groups of images around centres."""
    middle = torch.tensor(centres).repeat_interleave(torch.tensor(sizes), dim=0)
    noise = spread * torch.randn(len(middle), middle.shape[1], generator=torch.Generator().manual_seed(0))
    return site((middle + noise)[:, None].expand(-1, 4, -1).contiguous(), torch.eye(middle.shape[1]))


def test_two_planted_concepts_of_one_unit_are_two_vectors() -> None:
    source = groups_of([40, 40], [[9.0, 0.0, 9.0], [9.0, 9.0, 0.0]], 0.2)
    found = DNRwCV(rescale=False).decompose(source, seed=0)
    vectors = found.tensors["vectors"][parents(found) == 0]
    assert len(vectors) == 2
    expected = torch.tensor([[1.0, 0.0, 1.0], [1.0, 1.0, 0.0]]) / 2**0.5
    assert torch.allclose(vectors.sort(dim=0).values, expected.sort(dim=0).values, atol=0.02)
    codes = DNRwCV().encode(found, tokens(source))
    assert torch.allclose(codes, source.outputs @ found.tensors["vectors"].T)


def test_small_clusters_and_far_points_go() -> None:
    near = groups_of([30, 4], [[20.0, 0.0], [0.0, 20.0]], 0.1)
    found = DNRwCV(rescale=False, n_images=34).decompose(near, seed=0)
    assert parents(found).tolist() == [0, 1]
    assert found.tensors["cluster_sizes"].tolist() == [30, 30]
    assert torch.allclose(found.tensors["vectors"], torch.tensor([[1.0, 0.0]]).expand(2, -1), atol=0.01)
    # One stray of 41 stays in the cluster of the others (Ward below 100) but not in its concept.
    stray = groups_of([40, 1], [[9.0, 0.0], [9.0, 30.0]], 0.01)
    one = DNRwCV(rescale=False, threshold=100.0).decompose(stray, seed=0).tensors
    assert one["cluster_sizes"].tolist() == [40, 40]
    assert torch.allclose(one["vectors"], torch.tensor([[1.0, 0.0]]).expand(2, -1), atol=1e-3)


def test_a_unit_may_have_no_concept() -> None:
    source = groups_of([30, 4], [[20.0, 0.0], [0.0, 20.0]], 0.1)
    found = DNRwCV(rescale=False, n_images=4, min_members=4).decompose(source, seed=0)
    assert parents(found).tolist() == [0, 1]
    wide = groups_of([4, 4, 4, 4, 30], [[50.0, 9.0], [60.0, 8.0], [70.0, 7.0], [80.0, 6.0], [0.0, 40.0]], 0.1)
    found = DNRwCV(rescale=False, n_images=16).decompose(wide, seed=0)
    assert parents(found).tolist() == [1]
    assert found.notes["units_without_concepts"] == 1


@pytest.mark.parametrize(
    "source", [lambda: site(torch.ones(1, 4, 3), torch.eye(3)), lambda: site(torch.zeros(30, 4, 3), torch.eye(3))]
)
def test_no_concept_at_all_says_what_to_change(source: Callable[[], TensorSource]) -> None:
    with pytest.raises(ValueError, match=r"threshold: got 15.0, at which no unit has 5 images .* lower min_members"):
        DNRwCV().decompose(source(), seed=0)


@pytest.mark.parametrize("noise", [0.0, 1e-7])
def test_constant_tokens_are_one_concept_for_every_unit(noise: float) -> None:
    # Scaled up to the reference distance, rounding would look like structure.
    inputs = 2.0 + noise * torch.randn(30, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    source = site(inputs, torch.eye(3, dtype=torch.float64))
    found = DNRwCV().decompose(source, seed=0)
    assert found.n_atoms == 3
    assert found.notes["scale"] == 1.0
    assert torch.allclose(found.tensors["vectors"], torch.full((3, 3), 3**-0.5))


def test_ties_among_top_images_go_to_the_lower_index() -> None:
    inputs = torch.tensor([[1.0, 5.0]] * 6 + [[1.0, -5.0]] * 6)[:, None].expand(-1, 4, -1).contiguous()
    found = DNRwCV(n_images=6).decompose(site(inputs, torch.eye(2)), seed=0)
    assert torch.allclose(found.tensors["vectors"][0], torch.tensor([1.0, 5.0]) / 26**0.5)


# Both


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        (PURE, {"n_images": 1}, "n_images: got 1; expected at least 2; raise it"),
        (PURE, {"n_parts": 1}, "n_parts: got 1; expected 2 to 5, as the authors have it; change it"),
        (PURE, {"n_parts": 6}, "n_parts: got 6; expected 2 to 5"),
        (PURE, {"n_init": 0}, "n_init: got 0; expected at least 1"),
        (PURE, {"kmeans_seed": -1}, "kmeans_seed: got -1; expected at least 0"),
        (DNRwCV, {"threshold": 0.0}, "threshold: got 0.0; expected a positive number; raise it"),
        (DNRwCV, {"threshold": float("nan")}, "threshold: got nan; expected a positive number"),
        (DNRwCV, {"min_members": 0}, "min_members: got 0; expected at least 1"),
        (DNRwCV, {"max_iter": 0}, "max_iter: got 0; expected at least 1"),
    ],
)
def test_bad_options_are_named(method: type, options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        method(**options)


@pytest.mark.parametrize("method", [PURE(), DNRwCV()])
def test_activations_that_are_not_finite_are_refused(method: PURE | DNRwCV) -> None:
    source = random_site(0)
    source.outputs[3, 4] = torch.nan
    with pytest.raises(ValueError, match="outputs: got a value that is not finite"):
        method.decompose(source, seed=0)


@pytest.mark.parametrize("method", [PURE(), DNRwCV()])
def test_sites_without_images_are_refused(method: PURE | DNRwCV) -> None:
    with pytest.raises(ValueError, match='images: not read at this site; expected them; declare "images"'):
        method.decompose(planted(method.reads - {"images"}), seed=0)
    with pytest.raises(ValueError, match="images: got none; expected at least one; choose another data set"):
        method.decompose(
            site(torch.zeros(0, 4, 3), torch.eye(3), labels=torch.zeros(1).long()[:0], head=torch.eye(3)), seed=0
        )
