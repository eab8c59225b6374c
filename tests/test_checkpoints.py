"""Other projects' checkpoints compute here what they compute there, and ours compute there what they do here."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_references import (
    ATOMS,
    DICTIONARIES,
    SAELENS,
    UNITS,
    K,
    Result,
    Weights,
    bare,
    dictionary_forward,
    largest,
    linear,
    normal,
    positive,
    saelens_forward,
    sparsify_weights,
    times,
    tokens,
    write_dictionary,
    write_saelens,
    write_sparsify,
)
from safetensors.torch import load_file
from torch import Tensor

from bench.activations import TensorSource
from bench.contract import check
from bench.planted import planted
from methods import artifacts
from methods.autoencoder import Autoencoder
from methods.checkpoints import Checkpoint, read
from methods.matryoshka import MatryoshkaSAE
from methods.protocol import Activations, Decomposition
from methods.sae import BatchTopKSAE, JumpReLUSAE, TopKSAE, VanillaSAE
from methods.saelens import export_saelens

OUTPUTS = frozenset({"outputs"})


def ours(folder: Path, x: Tensor) -> Result:
    found = read(folder, "auto")
    method = Checkpoint(str(folder))
    codes = method.encode(found, Activations(None, x))
    return codes, method.decode(found, codes)


def assert_same(folder: Path, expected: Result, x: Tensor, tolerance: float = 1e-10) -> None:
    codes, outputs = ours(folder, x)
    assert codes.dtype == outputs.dtype == x.dtype
    assert int((expected[0] != 0).sum()) > 0
    torch.testing.assert_close(codes, expected[0].to(x), rtol=0, atol=tolerance)
    torch.testing.assert_close(outputs, expected[1].to(x), rtol=0, atol=tolerance)


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("name", SAELENS)
def test_saelens_codes_and_outputs_are_its_own(name: str, centred: bool, tmp_path: Path) -> None:
    fields, extra = SAELENS[name]
    weights = {**bare(), **extra}
    if name == "gated":
        del weights["b_enc"]
    config = {**fields, "architecture": name.split()[0], "apply_b_dec_to_input": centred}
    folder = write_saelens(tmp_path / "sae", weights, **config)
    assert_same(folder, saelens_forward(weights, config, tokens()), tokens())


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("used", [torch.float32, torch.float64])
def test_the_dtype_of_the_activations_is_that_of_the_codes(
    stored: torch.dtype, used: torch.dtype, tmp_path: Path
) -> None:
    weights = bare(stored)
    folder = write_saelens(tmp_path / "sae", weights, architecture="standard")
    double = {name: tensor.double() for name, tensor in weights.items()}
    x = tokens().to(used)
    assert_same(folder, saelens_forward(double, {"architecture": "standard"}, x.double()), x, 1e-4)
    assert read(folder, "auto").tensors["dictionary"].dtype == torch.float32


def test_a_dead_row_of_the_dictionary_stays_dead(tmp_path: Path) -> None:
    weights = bare()
    weights["W_dec"][3] = 0
    fields = {"architecture": "topk", "k": K, "rescale_acts_by_decoder_norm": True}
    codes, outputs = ours(write_saelens(tmp_path / "sae", weights, **fields), tokens())
    assert bool(torch.isfinite(codes).all() & torch.isfinite(outputs).all())
    assert bool(
        torch.isfinite(
            read(
                write_dictionary(
                    tmp_path / "dl",
                    "AutoEncoder",
                    {**linear("bias"), "decoder.weight": weights["W_dec"].T.contiguous()},
                ),
                "auto",
            ).tensors["encoder_weight"]
        ).all()
    )


def test_saelens_scaling_that_is_not_folded_in_is_read_from_beside(tmp_path: Path) -> None:
    fields = {"architecture": "standard", "normalize_activations": "expected_average_only_in"}
    folder = write_saelens(tmp_path / "sae", {**bare(), "scaling_factor": torch.ones(ATOMS).double()}, **fields)
    with pytest.raises(ValueError, match=r"normalize_activations: got 'expected_average_only_in'; expected none, or"):
        read(folder, "auto")
    (folder / "activation_scaler.json").write_text('{"scaling_factor": 0.25, "has_whitening": false}')
    codes, outputs = saelens_forward(bare(), fields, 0.25 * tokens())
    assert_same(folder, (codes, outputs / 0.25), tokens())


@pytest.mark.parametrize("activation", ["topk", "groupmax"])
def test_sparsify_codes_and_outputs_are_its_own(activation: str, tmp_path: Path) -> None:
    weights = sparsify_weights()
    folder = write_sparsify(tmp_path / "layers.3", activation=activation)
    pre = positive(times(tokens() - weights["b_dec"], weights["encoder.weight"].T) + weights["encoder.bias"])
    codes = largest(pre, K)
    if activation == "groupmax":
        size = ATOMS // K
        codes = torch.cat([largest(pre[:, start : start + size], 1) for start in range(0, ATOMS, size)], dim=1)
    assert_same(folder, (codes, times(codes, weights["W_dec"]) + weights["b_dec"]), tokens())
    notes = read(folder, "auto").notes
    assert (notes["architecture"], notes["k"], notes["claimed_site"]) == (activation, K, "layers.3")


def test_sparsify_counts_latents_by_the_expansion_factor(tmp_path: Path) -> None:
    weights = {n: w[: 2 * UNITS] if len(w) == ATOMS else w for n, w in sparsify_weights().items()}
    folder = write_sparsify(tmp_path / "sae", weights, num_latents=0, expansion_factor=2)
    assert read(folder, "auto").n_atoms == 2 * UNITS


@pytest.mark.parametrize("name", DICTIONARIES)
def test_dictionary_learning_codes_and_outputs_are_its_own(name: str, tmp_path: Path) -> None:
    folder = write_dictionary(tmp_path / "trainer_0", name, DICTIONARIES[name])
    assert_same(folder, dictionary_forward(name, DICTIONARIES[name], tokens()), tokens())
    notes = read(folder, "auto").notes
    assert (notes["claimed_site"], notes["claimed_backbone"], notes["k"]) == ("resid", "vit", K)


def fitted(folder: Path, source: TensorSource) -> Path:
    """A SAELens jumprelu folder (as a BatchTopK one is saved) that belongs to the source: decoder by least squares."""
    x = source.outputs.double()
    weights = {**bare(), "b_dec": x.mean(dim=0), "threshold": torch.full((ATOMS,), 0.5, dtype=torch.float64)}
    codes, _ = saelens_forward(weights, {"architecture": "jumprelu"}, x)
    weights["W_dec"] = torch.linalg.lstsq(codes, x - weights["b_dec"]).solution.contiguous()
    return write_saelens(folder, {n: w.float().contiguous() for n, w in weights.items()}, architecture="jumprelu")


def test_a_checkpoint_is_a_method_like_any_other(tmp_path: Path) -> None:
    folder = fitted(tmp_path / "sae", planted(OUTPUTS))
    method = Checkpoint(str(folder))
    assert {law: reason for law, reason in check(method).items() if reason} == {}
    source = planted(OUTPUTS)
    found = method.decompose(source, seed=0)
    assert torch.equal(found.tensors["dictionary"], method.decompose(source, seed=1).tensors["dictionary"])
    x = source.outputs.double()
    x_hat = method.decode(found, method.encode(found, source.read(slice(None)))).double()
    r2 = 1 - (x - x_hat).square().sum() / (x - x.mean(dim=0)).square().sum()
    assert found.notes["sample_r2"] == pytest.approx(float(r2), abs=1e-9)
    assert found.notes["sample_tokens"] == 600
    assert len(str(found.notes["sha256"])) == 64
    assert (found.notes["claimed_site"], found.notes["claimed_backbone"]) == ("blocks.3.hook", "vit")
    assert tuple(method.dictionaries(found, torch.zeros(UNITS, 40))["output"].shape) == (ATOMS, UNITS)
    artifacts.save(found, tmp_path, {})
    assert artifacts.load(tmp_path).notes == found.notes


def test_codes_do_not_depend_on_the_batch(tmp_path: Path) -> None:
    x = tokens()
    for name in ("BatchTopKSAE", "AutoEncoderTopK"):
        folder = write_dictionary(tmp_path / name, name, DICTIONARIES[name])
        parts = torch.cat([ours(folder, part)[0] for part in x.split(7)])
        torch.testing.assert_close(parts, ours(folder, x)[0], rtol=0, atol=1e-12)


def test_a_constant_site_has_no_r2(tmp_path: Path) -> None:
    folder = fitted(tmp_path / "sae", planted(OUTPUTS))
    found = Checkpoint(str(folder)).decompose(
        TensorSource(None, torch.full((700, UNITS), 0.1, dtype=torch.float64)), seed=0
    )
    assert "sample_r2" not in found.notes


def test_a_checkpoint_of_another_site_is_refused(tmp_path: Path) -> None:
    source = planted(OUTPUTS)
    method = Checkpoint(str(fitted(tmp_path / "sae", source)))
    shifted = TensorSource(None, source.outputs.flip(1) * 3 + 5)
    with pytest.raises(
        ValueError, match=r"path: got R2 -\d.* on 600 tokens .*; expected 0 or more; a negative R2 means"
    ):
        method.decompose(shifted, seed=0)
    with pytest.raises(ValueError, match=r"path: got width 12 at a site of 11 units; .* \(it says vit blocks.3.hook\)"):
        method.decompose(TensorSource(None, source.outputs[:, :11]), seed=0)
    with pytest.raises(ValueError, match="path: got R2 nan"):
        method.decompose(TensorSource(None, source.outputs * torch.nan), seed=0)


def own_state(**extra: Tensor) -> Decomposition:
    state = {
        "encoder_weight": normal(ATOMS, UNITS, seed=1),
        "encoder_bias": normal(ATOMS, seed=2),
        "dictionary": torch.nn.functional.normalize(normal(ATOMS, UNITS, seed=3), dim=1),
        "mean": normal(UNITS, seed=4),
        "scale": torch.tensor([2.5], dtype=torch.float64),
    }
    return Decomposition(ATOMS, {**state, **extra})


def own_forward(found: Decomposition, activation: str, x: Tensor) -> Result:
    state = found.tensors
    scaled = (x - state["mean"]) / state["scale"]
    codes = positive(times(scaled, state["encoder_weight"].T) + state["encoder_bias"])
    if activation == "topk":
        codes = largest(codes, K)
    if activation == "threshold":
        codes = torch.where(codes >= state["threshold"], codes, 0.0)
    return codes, times(codes, state["dictionary"]) * state["scale"] + state["mean"]


@pytest.mark.parametrize("activation", ["relu", "topk", "threshold"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_an_export_has_our_codes_in_saelens_and_back(activation: Any, dtype: torch.dtype, tmp_path: Path) -> None:
    threshold = {"threshold": torch.tensor([0.8], dtype=torch.float64)} if activation == "threshold" else {}
    wide = own_state(**threshold)
    found = Decomposition(ATOMS, {name: tensor.to(dtype) for name, tensor in wide.tensors.items()})
    k = K if activation == "topk" else None
    export_saelens(found, tmp_path / "out", activation=activation, k=k, header={"hook_name": "blocks.0"})
    config = json.loads((tmp_path / "out" / "cfg.json").read_text())
    assert config["architecture"] == {"relu": "standard", "topk": "topk", "threshold": "jumprelu"}[activation]
    assert config["metadata"]["hook_name"] == "blocks.0"
    # As SAELens reads it, and as it computes.
    weights = {n: w.double() for n, w in load_file(tmp_path / "out" / "sae_weights.safetensors").items()}
    expected = own_forward(
        Decomposition(ATOMS, {n: t.double() for n, t in found.tensors.items()}), activation, tokens()
    )
    tolerance = 1e-10 if dtype == torch.float64 else 3e-6
    for theirs, our in zip(saelens_forward(weights, config, tokens()), expected, strict=True):
        torch.testing.assert_close(theirs, our, rtol=0, atol=tolerance * float(our.abs().max()))
    assert_same(tmp_path / "out", expected, tokens(), tolerance * float(expected[1].abs().max()))


@pytest.mark.parametrize(
    ("method", "activation"),
    [
        (VanillaSAE(epochs=2), "relu"),
        (TopKSAE(k=K, epochs=2), "topk"),
        (BatchTopKSAE(k=K, epochs=2), "threshold"),
        (MatryoshkaSAE(k=K, epochs=2), "threshold"),
        (JumpReLUSAE(epochs=2), "threshold"),
    ],
    ids=["vanilla", "topk", "batch topk", "matryoshka", "jumprelu"],
)
def test_what_we_trained_comes_back_the_same(method: Autoencoder, activation: Any, tmp_path: Path) -> None:
    source = planted(OUTPUTS)
    found = method.decompose(source, seed=0)
    k = K if activation == "topk" else None
    export_saelens(found, tmp_path, activation=activation, k=k, header={})
    double = Activations(None, source.outputs.double())
    codes = method.encode(found, double)
    assert_same(tmp_path, (codes, method.decode(found, codes)), double.outputs, 1e-5)


def test_a_code_on_the_threshold_stays(tmp_path: Path) -> None:
    found = own_state(threshold=torch.tensor([0.75], dtype=torch.float64))
    state = {name: torch.zeros_like(tensor) for name, tensor in found.tensors.items()}
    state |= {"threshold": found.tensors["threshold"], "scale": torch.ones(1).double()}
    state["encoder_bias"] = torch.full((ATOMS,), 0.75, dtype=torch.float64)
    export_saelens(Decomposition(ATOMS, state), tmp_path, activation="threshold", header={})
    weights = load_file(tmp_path / "sae_weights.safetensors")
    assert float(saelens_forward(weights, {"architecture": "jumprelu"}, tokens(1))[0].min()) == 0.75
    assert float(ours(tmp_path, tokens(1))[0].min()) == 0.75
    assert torch.equal(read(tmp_path, "auto").tensors["threshold"], state["threshold"].expand(ATOMS))


@pytest.mark.parametrize(
    ("activation", "k", "extra", "message"),
    [
        (
            "threshold",
            None,
            {},
            "got tensors dictionary, .* for activation 'threshold'; expected .*, threshold for one",
        ),
        ("relu", None, {"threshold": torch.ones(1)}, "decomposition: got tensors .*threshold for activation 'relu'"),
        ("topk", None, {}, "k: got None; expected 1 to 30 with topk, and none without"),
        ("relu", 3, {}, "k: got 3; expected 1 to 30 with topk"),
        ("relu", None, {"dictionary": torch.ones(ATOMS, 7)}, "an encoder of shape .* and a dictionary of shape"),
    ],
)
def test_what_saelens_has_not_is_not_exported(
    activation: Any, k: int | None, extra: Weights, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        export_saelens(own_state(**extra), tmp_path / "out", activation=activation, k=k, header={})
    assert not (tmp_path / "out").exists()
