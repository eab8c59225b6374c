"""The autoencoder families of overcomplete: ours read, start and stack as they must, and refuse what cannot be."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from bench.activations import TensorSource
from bench.planted import planted
from methods.archetypal import ArchetypalSAE
from methods.autoencoder import Autoencoder, Start, dormant_mean
from methods.coding import state_like
from methods.matching_pursuit import MatchingPursuitSAE
from methods.matryoshka import MatryoshkaSAE
from methods.protocol import Activations, Decomposition
from methods.sae import BatchTopKSAE, JumpReLUSAE, LibraryAutoencoder, TopKSAE, VanillaSAE, linear_of, overcomplete_sae
from methods.training import centre_and_scale
from methods.transcoder import Transcoder

OUTPUTS = frozenset({"outputs"})
FAMILIES: tuple[LibraryAutoencoder, ...] = (
    VanillaSAE(epochs=2),
    TopKSAE(k=4, epochs=2),
    BatchTopKSAE(k=4, epochs=2, batch_size=100),
    JumpReLUSAE(epochs=2),
    MatchingPursuitSAE(k=4, epochs=2),
    ArchetypalSAE(epochs=2),
)
each_family = pytest.mark.parametrize("method", FAMILIES, ids=lambda one: type(one).__name__)


def whole(source: TensorSource) -> Activations:
    return source.read(slice(None))


def random_tokens(n: int = 500) -> Tensor:
    return 2 * torch.randn(n, 12, generator=torch.Generator().manual_seed(9)) + 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("where", ["the planted site", "random data"])
@each_family
def test_codes_and_outputs_are_overcompletes(method: LibraryAutoencoder, where: str, dtype: torch.dtype) -> None:
    source = planted(OUTPUTS)
    found = method.decompose(source, seed=0)
    outputs = (source.outputs if where == "the planted site" else random_tokens()).to(dtype)
    model = method.library_model(found).to(dtype)
    model.dictionary._fused_dictionary = model.dictionary._fused_dictionary.to(dtype)  # `to` leaves it behind
    state = state_like(found, outputs)
    with torch.no_grad():
        _, codes, x_hat = model((outputs - state["mean"]) / state["scale"])
    ours = method.encode(found, Activations(None, outputs))
    assert ours.dtype == dtype
    assert bool(ours.any())
    torch.testing.assert_close(ours, codes.to(dtype), rtol=1e-6, atol=1e-6)
    scaled = (method.decode(found, ours) - state["mean"]) / state["scale"]
    torch.testing.assert_close(scaled, x_hat.to(dtype), rtol=1e-6, atol=2e-6)


def test_batch_topk_is_overcompletes_while_it_trains() -> None:
    source = planted(OUTPUTS)
    method = BatchTopKSAE(k=4, epochs=2, batch_size=100)
    found = method.decompose(source, seed=0)
    model = method.library_model(found).train()
    assert model.top_k == 400
    model.running_threshold = None
    buffers = {"threshold": torch.tensor([-1.0])}
    x = (source.outputs - found.tensors["mean"]) / found.tensors["scale"]
    for batch in (x[:100], x[100:200], x[200:300]):
        with torch.no_grad():
            pre_codes, codes = model.encode(batch)
        pairs = method.chosen(pre_codes[None], buffers)
        ours = torch.zeros(pre_codes.numel()).scatter(
            0, pairs.entries, functional.relu(pre_codes).flatten()[pairs.entries]
        )
        assert torch.equal(ours.view_as(codes), codes)
        assert int((codes != 0).sum()) == 400
        assert len((codes != 0).sum(dim=1).unique()) > 1  # of the batch, not of each token
        torch.testing.assert_close(buffers["threshold"][0], model.running_threshold, rtol=1e-6, atol=0)


MODELS: dict[type[LibraryAutoencoder], Callable[[Any], Any]] = {
    VanillaSAE: lambda sae: sae.SAE(12, 96),
    TopKSAE: lambda sae: sae.TopKSAE(12, 96, top_k=4),
    BatchTopKSAE: lambda sae: sae.BatchTopKSAE(12, 96, top_k=400),
    JumpReLUSAE: lambda sae: sae.JumpSAE(12, 96),
    MatchingPursuitSAE: lambda sae: sae.MpSAE(12, 96, k=4),
    ArchetypalSAE: lambda sae: sae.RATopKSAE(12, 96, points=torch.zeros(96, 12)),
}


@each_family
def test_training_starts_from_the_librarys_first_weights(method: LibraryAutoencoder) -> None:
    source = planted(OUTPUTS)
    mean, scale = centre_and_scale(source)
    parameters, _ = method.initial(Start(source, 96, mean, scale, 11))
    torch.manual_seed(11)
    model = MODELS[type(method)](overcomplete_sae())
    expected = {}
    if not isinstance(method, MatchingPursuitSAE):
        expected = {"encoder_weight": linear_of(model).weight, "encoder_bias": linear_of(model).bias}
    if isinstance(method, ArchetypalSAE):
        layer = model.dictionary
        expected |= {"weights": layer.W, "slack": layer.Relax, "multiplier": layer.multiplier}
    else:
        expected["dictionary"] = model.dictionary._weights
    if isinstance(method, JumpReLUSAE):
        expected["log_threshold"] = model.thresholds
    assert set(parameters) == set(expected)
    assert all(torch.equal(parameters[name], tensor) for name, tensor in expected.items())


def variants_of(method: Autoencoder) -> list[Autoencoder]:
    """Four that differ in all they may differ in."""
    option = method.penalty_option
    grid = [(1e-3, 1e-4, 1e-3), (5e-3, 1e-2, 1e-2), (1e-3, 1e-2, 1e-2), (2e-3, 0.0, 0.0)]
    base = replace(method, epochs=4, batch_size=100)
    options: list[dict[str, Any]] = [
        {"learning_rate": rate, "dead_weight": dead, **({option: weight} if option else {})}
        for rate, dead, weight in grid
    ]
    return [replace(base, **one) for one in options]


def largest_gap(one: Decomposition | str, other: Decomposition | str) -> float:
    """The largest difference of two decompositions' tensors, relative to the tensor's largest value."""
    assert not isinstance(one, str), one
    assert not isinstance(other, str), other
    assert set(one.tensors) == set(other.tensors)
    gaps = [
        (one.tensors[name] - other.tensors[name]).abs().max() / one.tensors[name].abs().max() for name in one.tensors
    ]
    return float(torch.stack(gaps).max())


@pytest.mark.parametrize("method", [*FAMILIES, MatryoshkaSAE(k=4), Transcoder()], ids=lambda one: type(one).__name__)
def test_a_stack_gives_what_each_gives_alone(method: Autoencoder) -> None:
    source = planted(method.reads)
    if isinstance(method, JumpReLUSAE):
        method = replace(method, bandwidth=1e-2)  # a narrower kernel makes more of rounding
    variants = variants_of(method)
    together = variants[0].decompose_stack(variants, source, seed=0)
    alone = [one.decompose(source, seed=0) for one in variants]
    gaps = [largest_gap(one, other) for one, other in zip(together, alone, strict=True)]
    others = [largest_gap(alone[0], other) for other in alone[1:]]
    turned = list(reversed(variants))
    reordered = list(reversed(turned[0].decompose_stack(turned, source, seed=0)))
    order_gaps = [largest_gap(one, other) for one, other in zip(together, reordered, strict=True)]
    print(f"{type(method).__name__}: alone {max(gaps):.1e}, reordered {max(order_gaps):.1e}, apart {min(others):.1e}")
    assert max(gaps) < 1e-4
    assert max(order_gaps) < 1e-4
    assert min(others) > 1e-3
    for one, other in zip(together, alone, strict=True):
        assert not isinstance(one, str)
        assert one.notes["final_loss"] == pytest.approx(other.notes["final_loss"], rel=1e-5)
        assert (one.notes["stack"], other.notes["stack"]) == (4, 1)


@pytest.mark.parametrize(
    ("method", "change"),
    [
        (TopKSAE(k=4, epochs=3, batch_size=100), {"learning_rate": 1e30}),
        (JumpReLUSAE(epochs=3, batch_size=100), {"learning_rate": 1e30}),
        (VanillaSAE(epochs=3, batch_size=100), {"l1_weight": math.inf}),
        (BatchTopKSAE(k=4, epochs=3, batch_size=100), {"learning_rate": 1e30}),
        (MatchingPursuitSAE(k=4, epochs=3, batch_size=100), {"dead_weight": math.inf}),
        (ArchetypalSAE(epochs=3, batch_size=100), {"dead_weight": math.inf}),
    ],
    ids=lambda one: type(one).__name__ if isinstance(one, Autoencoder) else "",
)
def test_one_that_diverges_leaves_the_others_alone(method: Autoencoder, change: dict[str, Any]) -> None:
    source = planted(OUTPUTS)
    healthy = replace(method, learning_rate=2e-3)
    beside = [method, replace(healthy, **{"learning_rate": 2e-3} | change), replace(healthy, dead_weight=1e-2)]
    # Of the same place in the stack, so that nothing but the values of its neighbour differs.
    stand_in = replace(healthy, learning_rate=min(beside[1].learning_rate, 4e-3))
    with_it = method.decompose_stack(beside, source, seed=0)
    without = method.decompose_stack([beside[0], stand_in, beside[2]], source, seed=0)
    reported = with_it[1]
    assert isinstance(reported, str)
    assert re.match(
        r"^loss: got (nan|-?inf) at step \d+, epoch 0, batch \d+ of it; expected a finite number; ", reported
    )
    assert reported.endswith(f"lower learning_rate ({beside[1].learning_rate})")
    assert [largest_gap(with_it[place], without[place]) for place in (0, 2)] == [0.0, 0.0]
    with pytest.raises(FloatingPointError, match=r"^loss: got .* of it; expected a finite number; lower learning_rate"):
        beside[1].decompose(source, seed=0)


@pytest.mark.parametrize(
    ("family", "options", "message"),
    [
        (TopKSAE, {"k": 0}, "k: got 0; expected a positive number; raise it"),
        (MatchingPursuitSAE, {"k": -1}, "k: got -1; expected a positive number; raise it"),
        (ArchetypalSAE, {"k": -1}, "k: got -1; expected 0 (active_share) or more; raise it"),
        (VanillaSAE, {"expansion_factor": 0.0}, "expansion_factor: got 0.0; expected a positive number; raise it"),
        (VanillaSAE, {"expansion_factor": -2.0}, "expansion_factor: got -2.0; expected a positive number; raise it"),
        (VanillaSAE, {"epochs": 0}, "epochs: got 0; expected a positive number; raise it"),
        (VanillaSAE, {"batch_size": 0}, "batch_size: got 0; expected a positive number; raise it"),
        (VanillaSAE, {"learning_rate": 0.0}, "learning_rate: got 0.0; expected a positive number; raise it"),
        (VanillaSAE, {"l1_weight": -1.0}, "l1_weight: got -1.0; expected 0 or more; raise it"),
        (TopKSAE, {"dead_weight": -1.0}, "dead_weight: got -1.0; expected 0 or more; raise it"),
        (TopKSAE, {"clip_norm": -1.0}, "clip_norm: got -1.0; expected 0 or more; raise it"),
        (JumpReLUSAE, {"sparsity_weight": -1.0}, "sparsity_weight: got -1.0; expected 0 or more; raise it"),
        (JumpReLUSAE, {"bandwidth": 0.0}, "bandwidth: got 0.0; expected a positive number; raise it"),
        (ArchetypalSAE, {"active_share": 0.0}, "active_share: got 0.0; expected a share between 0 and 1; change it"),
        (ArchetypalSAE, {"active_share": 1.0}, "active_share: got 1.0; expected a share between 0 and 1; change it"),
        (ArchetypalSAE, {"points_per_atom": 0.5}, "points_per_atom: got 0.5; expected at least 1; raise it"),
        (ArchetypalSAE, {"slack": -1.0}, "slack: got -1.0; expected 0 or more; raise it"),
    ],
)
def test_bad_options_are_named(family: type[Autoencoder], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        family(**options)


def with_nan() -> TensorSource:
    outputs = planted(OUTPUTS).outputs.clone()
    outputs[300, 5] = torch.nan
    return TensorSource(None, outputs)


@pytest.mark.parametrize(
    ("method", "source", "message"),
    [
        (
            TopKSAE(k=96),
            planted(OUTPUTS),
            "k: got 96; expected fewer than the 96 atoms; lower it or raise expansion_factor",
        ),
        (
            MatchingPursuitSAE(k=100),
            planted(OUTPUTS),
            "k: got 100; expected fewer than the 96 atoms; lower it or raise expansion_factor",
        ),
        (
            VanillaSAE(expansion_factor=0.01),
            planted(OUTPUTS),
            "expansion_factor: got 0.01 for 12 units; expected at least one atom; raise it",
        ),
        (
            ArchetypalSAE(points_per_atom=7.0),
            planted(OUTPUTS),
            "points_per_atom: got 7.0, which asks for 672 points; expected at most the 600 tokens; "
            "lower it or expansion_factor",
        ),
        (
            VanillaSAE(),
            with_nan(),
            "outputs: got a value that is not finite; expected finite activations; check the site",
        ),
    ],
    ids=["k", "steps", "no atoms", "points", "nan"],
)
def test_what_does_not_fit_the_activations_is_named(method: Autoencoder, source: TensorSource, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        method.decompose(source, seed=0)


def test_a_method_says_beforehand_what_it_would_refuse() -> None:
    method = ArchetypalSAE(expansion_factor=2.0, points_per_atom=3.0)
    assert method.unfit(59, 10) == "needs 60 tokens, a point each, and there are 59"
    assert not method.unfit(60, 10)


@pytest.mark.parametrize(
    "other",
    [TopKSAE(k=5), TopKSAE(k=4, epochs=7), BatchTopKSAE(k=4), VanillaSAE()],
    ids=["k", "epochs", "family", "plain"],
)
def test_a_stack_has_one_shape(other: Autoencoder) -> None:
    method = TopKSAE(k=4)
    with pytest.raises(
        ValueError, match=r"^variants: got .* beside .*; expected only dead_weight, learning_rate to vary"
    ):
        method.decompose_stack([method, other], planted(OUTPUTS), seed=0)


@dataclass(frozen=True)
class Unfinished(LibraryAutoencoder):
    """Says neither what its model is nor what its loss is made of."""


def test_a_family_without_its_own_part_cannot_be_made() -> None:
    with pytest.raises(TypeError, match=r"abstract methods '?model'?, '?terms'?"):
        Unfinished()  # type: ignore[abstract]


def test_one_atom_is_enough_without_k() -> None:
    assert VanillaSAE(expansion_factor=1 / 12, epochs=1).decompose(planted(OUTPUTS), seed=0).n_atoms == 1


def test_archetypes_step_away_from_their_points_as_far_as_the_slack_allows() -> None:
    source = planted(OUTPUTS)
    mean, scale = centre_and_scale(source)
    left = {}
    for slack in (0.0, 0.3):
        method = ArchetypalSAE(slack=slack, expansion_factor=0.5, epochs=20, learning_rate=1e-2, batch_size=100)
        found = method.decompose(source, seed=0)
        _, buffers = method.initial(Start(source, 6, mean, scale, 0))
        points, atoms = (one.double().numpy() for one in (buffers["points"], found.tensors["dictionary"]))
        assert points.shape == atoms.shape == (6, 12)
        combined = np.linalg.lstsq(points.T, atoms.T)[0].T @ points
        left[slack] = float(np.linalg.norm(atoms - combined, axis=1).max())
    assert left[0.0] < 1e-5
    assert left[0.3] > 0.1


@pytest.mark.parametrize(
    "method", [*FAMILIES, MatryoshkaSAE(epochs=2), Transcoder(epochs=2)], ids=lambda one: type(one).__name__
)
def test_the_global_generator_is_left_alone(method: Autoencoder) -> None:
    source = planted(method.reads)
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    found = method.decompose(source, seed=0)
    method.encode(found, whole(source))
    if isinstance(method, LibraryAutoencoder):
        method.library_model(found)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_matching_pursuit_has_negative_codes() -> None:
    method = MatchingPursuitSAE(k=2, epochs=1)
    tensors = {"mean": torch.zeros(2), "scale": torch.ones(1), "dictionary": torch.tensor([[1.0, 0.0], [0.6, 0.8]])}
    found = Decomposition(n_atoms=2, tensors=tensors)
    outputs = torch.tensor([[-1.0, -1.0], [-2.0, -3.0], [3.0, 4.0]])
    codes = method.encode(found, Activations(None, outputs))
    # (-1, -1): products -1 and -1.4, so -1 of the first; then (0, -1): 0 of the first.
    assert codes[0].tolist() == [-1.0, 0.0]
    assert codes[2].tolist() == pytest.approx([0.0, 5.0], abs=1e-6)
    with torch.no_grad():
        _, expected, x_hat = method.library_model(found)(outputs)
    torch.testing.assert_close(codes, expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(method.decode(found, codes), x_hat, rtol=0, atol=1e-6)
    assert not method.codes_are_nonnegative
    assert all(one.codes_are_nonnegative for one in FAMILIES if not isinstance(one, MatchingPursuitSAE))


@each_family
def test_codes_are_as_many_and_as_signed_as_is_said(method: LibraryAutoencoder) -> None:
    found = method.decompose(planted(OUTPUTS), seed=0)
    codes = method.encode(found, Activations(None, random_tokens()))
    if method.codes_are_nonnegative:
        assert float(codes.min()) >= 0
    most = {TopKSAE: 4, MatchingPursuitSAE: 4, ArchetypalSAE: 9}.get(type(method), 96)
    assert int((codes != 0).sum(dim=1).max()) <= most
    if not isinstance(method, ArchetypalSAE):
        torch.testing.assert_close(found.tensors["dictionary"].norm(dim=1), torch.ones(96), rtol=0, atol=1e-6)


def test_training_lowers_the_loss() -> None:
    source = planted(OUTPUTS)
    short, long = (TopKSAE(k=4, epochs=n).decompose(source, seed=0) for n in (1, 30))
    assert float(long.notes["final_loss"]) < 0.5 * float(short.notes["final_loss"])
    assert long.notes["steps"] == 30 * 3


def test_centre_and_scale_are_those_of_numpy() -> None:
    source = planted(OUTPUTS)
    mean, scale = centre_and_scale(source)
    x = source.outputs.double().numpy()
    assert mean.numpy() == pytest.approx(x.mean(axis=0), abs=1e-6)
    assert float(scale) == pytest.approx(((x - x.mean(axis=0)) ** 2).mean() ** 0.5, rel=1e-6)
    assert float(centre_and_scale(TensorSource(None, torch.full((5, 3), 0.1)))[1]) == 1.0


def test_the_dormant_mean_looks_at_dormant_atoms_only() -> None:
    pre_codes = torch.tensor([[[1.0, -2.0, -4.0], [3.0, -2.0, -6.0]], [[1.0, 1.0, 1.0], [-1.0, -1.0, -1.0]]])
    assert dormant_mean(pre_codes, functional.relu(pre_codes)).tolist() == [-3.5, 0.0]
