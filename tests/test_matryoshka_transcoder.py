"""The two families that overcomplete does not have, against slow references: Matryoshka and the transcoder."""

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import sae_references as references
import torch
from torch import Tensor
from torch.nn import functional

from bench.activations import TensorSource
from bench.planted import planted
from methods.autoencoder import Autoencoder, AutoencoderStack, Start
from methods.matryoshka import MatryoshkaSAE
from methods.protocol import Activations
from methods.sae import BatchTopKSAE, overcomplete_sae
from methods.sparse import Combine, pairs_of_mask
from methods.training import centre_and_scale
from methods.transcoder import Transcoder

OUTPUTS = frozenset({"outputs"})
BOTH = frozenset({"inputs", "outputs"})


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The references are NumPy's; that a GPU gives the same is the contract's to test."""
    monkeypatch.setattr("methods.autoencoder.device_for_training", lambda: torch.device("cpu"))


def precise(tensor: Tensor) -> np.ndarray:
    array: np.ndarray = tensor.detach().double().numpy()
    return array


def started(method: Autoencoder, source: TensorSource) -> AutoencoderStack:
    """Two configurations that have moved apart."""
    mean, scale = centre_and_scale(source)
    start = Start(source, method.n_atoms(source, len(mean)), mean, scale, 0)
    variants = [replace(method, dead_weight=weight) for weight in (1e-2, 3.0)]
    stack = AutoencoderStack(variants, start, method.initial(start))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in stack.parameters.values():
            tensor += 0.1 * torch.randn(tensor.shape, generator=generator)
    stack.project()
    return stack


def pre_codes_of(stack: AutoencoderStack, place: int, x: np.ndarray) -> np.ndarray:
    weight, bias = (precise(stack.parameters[name][place]) for name in ("encoder_weight", "encoder_bias"))
    pre_codes: np.ndarray = x @ weight.T + bias
    return pre_codes


def test_prefixes_are_sixteenths() -> None:
    assert MatryoshkaSAE().prefixes(160) == [10, 30, 70, 160]
    assert MatryoshkaSAE().prefixes(96) == references.prefix_ends(96) == [6, 18, 42, 96]
    assert MatryoshkaSAE().prefixes(24_576) == [1536, 4608, 10_752, 24_576]
    assert MatryoshkaSAE().prefixes(5) == [1, 2, 5]  # no prefix is empty, none is there twice


@pytest.mark.parametrize("expansion_factor", [8.0, 5.0], ids=["96 atoms", "60 atoms"])
def test_matryoshkas_loss_is_that_of_the_reference(expansion_factor: float) -> None:
    source = planted(OUTPUTS)
    method = MatryoshkaSAE(k=4, expansion_factor=expansion_factor)
    stack = started(method, source)
    batch = source.read(slice(0, 50))
    losses = stack.losses(batch)
    x = precise((batch.outputs - stack.mean) / stack.scale)
    for place, dead_weight in enumerate((1e-2, 3.0)):
        pre_codes = pre_codes_of(stack, place, x)
        codes, threshold = references.batch_topk(pre_codes, 4)
        error = references.matryoshka_error(x, codes, precise(stack.parameters["dictionary"][place]))
        dormant = references.dormant(pre_codes, codes)
        assert abs(dead_weight * dormant) > 1e-4
        assert float(losses[place].detach()) == pytest.approx(error - dead_weight * dormant, rel=1e-5)
        assert float(stack.buffers["threshold"][place]) == pytest.approx(threshold, rel=1e-5)
    assert not torch.isclose(losses[0], losses[1])


def test_matryoshkas_gradient_is_that_of_dense_autograd() -> None:
    method = MatryoshkaSAE(k=4)
    generator = torch.Generator().manual_seed(0)
    stack, tokens, atoms, width = 3, 20, 48, 6
    x = torch.randn(tokens, width, generator=generator, dtype=torch.float64)
    dictionary = torch.randn(stack, atoms, width, generator=generator, dtype=torch.float64).requires_grad_()
    pre_codes = torch.randn(stack, tokens, atoms, generator=generator, dtype=torch.float64).requires_grad_()
    pairs = method.chosen(pre_codes.detach(), {"threshold": -torch.ones(stack, dtype=torch.float64)})
    ours = method.error(pre_codes.flatten()[pairs.entries], dictionary, x, pairs)

    codes = functional.relu(pre_codes)
    level = codes.detach().flatten(1).sort(dim=1, descending=True).values[:, 4 * tokens - 1]
    codes = codes * (codes >= level[:, None, None])
    ends = references.prefix_ends(atoms)
    errors = [(x - codes[:, :, :end] @ dictionary[:, :end]).square().mean(dim=(1, 2)) for end in ends]
    dense = torch.stack(errors).mean(dim=0)
    torch.testing.assert_close(ours, dense)
    cotangent = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    for got, wanted in zip(
        *(torch.autograd.grad((loss * cotangent).sum(), (pre_codes, dictionary)) for loss in (ours, dense)), strict=True
    ):
        assert bool(wanted.any())
        torch.testing.assert_close(got, wanted)


def test_matryoshka_starts_and_reads_as_batch_topk() -> None:
    source = planted(OUTPUTS)
    method = MatryoshkaSAE(k=4, epochs=2, batch_size=100)
    found = method.decompose(source, seed=0)
    mean, scale = centre_and_scale(source)
    start = Start(source, 96, mean, scale, 0)
    ours, theirs = (one.initial(start)[0] for one in (method, BatchTopKSAE(k=4)))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    library = method.library_model(found)
    with torch.no_grad():
        _, codes, x_hat = library((source.outputs - mean) / scale)
    got = method.encode(found, source.read(slice(None)))
    torch.testing.assert_close(got, codes, rtol=0, atol=1e-6)
    torch.testing.assert_close(method.decode(found, got), x_hat * scale + mean, rtol=1e-6, atol=1e-5)


def test_a_bag_of_a_prefix_that_no_token_uses_is_zero() -> None:
    mask = torch.zeros(1, 2, 8, dtype=torch.bool)
    mask[0, 1, 7] = True
    pairs = pairs_of_mask(mask, torch.tensor([1, 3, 8]))
    assert pairs.bags.tolist() == [5]
    parts = Combine.apply(torch.ones(1), torch.ones(1, 8, 2), pairs)
    assert parts.tolist() == [[0, 0]] * 5 + [[1, 1]]


@pytest.mark.parametrize(("base", "n_atoms"), [("d_out", 24), ("d_in", 80)])
def test_the_transcoder_counts_its_atoms_from_its_base(base: Literal["d_out", "d_in"], n_atoms: int) -> None:
    method = Transcoder(expansion_factor=2.0, expansion_base=base, epochs=1)
    found = method.decompose(planted(BOTH), seed=0)
    assert found.n_atoms == n_atoms
    shapes = {name: tuple(tensor.shape) for name, tensor in found.tensors.items()}
    assert shapes == {
        "encoder_weight": (n_atoms, 40),
        "encoder_bias": (n_atoms,),
        "dictionary": (n_atoms, 12),
        "output_bias": (12,),
        "mean": (12,),
        "scale": (1,),
        "input_scale": (1,),
    }


def test_the_transcoder_is_the_reference() -> None:
    source = planted(BOTH)
    method = Transcoder(epochs=3)
    found = method.decompose(source, seed=0)
    state = {name: precise(tensor) for name, tensor in found.tensors.items()}
    tokens = source.read(slice(0, 50))
    q = precise(tokens.needed_inputs()) / state["input_scale"]
    names = ("encoder_weight", "encoder_bias", "dictionary", "output_bias")
    _, codes, predicted = references.transcoder(q, *(state[name] for name in names))
    assert np.abs(state["output_bias"]).max() > 0
    got = method.encode(found, tokens)
    assert precise(got) == pytest.approx(codes, abs=1e-5)
    assert precise(method.decode(found, got)) == pytest.approx(predicted * state["scale"] + state["mean"], abs=1e-5)
    inputs = precise(source.read(slice(None)).needed_inputs())
    expected = ((inputs - inputs.mean(axis=0)) ** 2).mean() ** 0.5
    assert float(found.tensors["input_scale"]) == pytest.approx(expected, rel=1e-6)


def test_the_transcoders_loss_is_that_of_the_reference() -> None:
    source = planted(BOTH)
    method = Transcoder(l1_weight=2e-2)
    stack = started(method, source)
    with torch.no_grad():
        stack.parameters["encoder_bias"][:, :5] = -1e3  # five atoms that no token activates
    batch = source.read(slice(0, 50))
    losses = stack.losses(batch)
    q = precise(batch.needed_inputs()) / float(stack.buffers["input_scale"][0])
    outputs = precise((batch.outputs - stack.mean) / stack.scale)
    names = ("encoder_weight", "encoder_bias", "dictionary", "output_bias")
    for place, dead_weight in enumerate((1e-2, 3.0)):
        weights = (precise(stack.parameters[name][place]) for name in names)
        pre_codes, codes, predicted = references.transcoder(q, *weights)
        expected = references.transcoder_loss(outputs, predicted, pre_codes, codes, 2e-2, dead_weight)
        assert references.dormant(pre_codes, codes) < -100
        assert float(losses[place].detach()) == pytest.approx(expected, rel=1e-5)


def test_the_transcoder_reads_no_units_to_encode() -> None:
    source = planted(BOTH)
    method = Transcoder(epochs=2)
    found = method.decompose(source, seed=0)
    tokens = source.read(slice(None))
    noise = torch.randn(tokens.outputs.shape, generator=torch.Generator().manual_seed(0)) * torch.inf
    assert torch.equal(method.encode(found, tokens), method.encode(found, Activations(tokens.inputs, noise)))
    with pytest.raises(ValueError, match=r"^inputs: not read at this site; expected them; declare"):
        method.encode(found, Activations(None, tokens.outputs))


def test_the_transcoder_starts_as_overcompletes_plain_autoencoder_and_is_not_tied() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(100, 12, generator=generator)
    source = TensorSource(x, x)
    mean, scale = centre_and_scale(source)
    parameters, _ = Transcoder().initial(Start(source, 96, mean, scale, 7))
    torch.manual_seed(7)
    library = overcomplete_sae().SAE(12, nb_concepts=96)
    linear = next(layer for layer in library.encoder.modules() if isinstance(layer, torch.nn.Linear))
    assert torch.equal(parameters["encoder_weight"], linear.weight)
    assert torch.equal(parameters["encoder_bias"], linear.bias)
    pair = torch.stack([parameters[name].detach().flatten() for name in ("encoder_weight", "dictionary")])
    assert abs(float(torch.corrcoef(pair)[0, 1])) < 0.15
    assert float(parameters["dictionary"].abs().max()) <= (6 / (96 + 12)) ** 0.5


def test_the_transcoder_learns_outputs_from_inputs() -> None:
    source = planted(BOTH)
    method = Transcoder(epochs=60, batch_size=100, learning_rate=3e-3, l1_weight=1e-3)
    found = method.decompose(source, seed=0)
    tokens = source.read(slice(None))
    x_hat = method.decode(found, method.encode(found, tokens))
    left = (tokens.outputs - x_hat).square().sum() / (tokens.outputs - tokens.outputs.mean(dim=0)).square().sum()
    print(f"R2 {1 - float(left):.3f}")
    assert float(left) < 0.05
