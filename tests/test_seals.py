"""Seals: a decomposition is of one kernel, which is known in every dtype and told from every other."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from bench.layer_cost import random_parts
from bench.planted import planted
from methods.elude import ELUDe
from methods.layer import DisentangledLayer
from methods.parts import Parts
from methods.protocol import Decomposition
from methods.seals import NOTE, seal
from methods.surgery import disentangle

DTYPES = [torch.float32, torch.bfloat16, torch.float64, torch.float16]


def linear(bias: bool = True, seed: int = 0) -> nn.Linear:
    torch.manual_seed(seed)
    return nn.Linear(24, 6, bias)


def sealed(parts: Parts, plain: nn.Linear) -> Parts:
    return replace(parts, notes=seal(plain.weight, plain.bias))


def test_the_sealed_kernel_is_known_in_every_dtype() -> None:
    parts = sealed(random_parts(6, 24, 3), linear())
    for dtype in DTYPES:
        cast = linear().to(dtype)
        for layer in (cast, copy.deepcopy(cast).double(), copy.deepcopy(cast).float()):
            DisentangledLayer(layer, parts).check()
    changed = linear()
    changed.weight.data[2, 3] = torch.nextafter(changed.weight.data[2, 3], torch.tensor(9.0))
    with pytest.raises(ValueError, match=r"^weight: the layer has kernel and bias of SHA-256 \w{12} in float32"):
        DisentangledLayer(changed, parts)
    with pytest.raises(ValueError, match=r"in float32; expected those that the decomposition was made from"):
        DisentangledLayer(linear(bias=False), parts)
    old = replace(parts, notes={"top_k": 3})
    assert NOTE not in old.notes
    DisentangledLayer(changed, old)


def test_another_checkpoint_is_refused() -> None:
    network = nn.Sequential(linear())
    disentangle(network, "0", sealed(random_parts(6, 24, 3), linear()))
    network.load_state_dict(nn.Sequential(linear()).state_dict())
    with pytest.raises(ValueError, match=r"weight: module '0' has kernel and bias of SHA-256"):
        network.load_state_dict(nn.Sequential(linear(seed=1)).state_dict())


def test_encode_builds_once_and_notices_another_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    source, method = planted(), ELUDe(top_k=0.2, min_cluster_size=5)
    found, tokens = method.decompose(source, seed=0), source.read(slice(None))
    built: list[Parts] = []
    parts = ELUDe.parts

    def counted(self: ELUDe, decomposition: Decomposition) -> Parts:
        built.append(parts(self, decomposition))
        return built[-1]

    monkeypatch.setattr(ELUDe, "parts", counted)
    with torch.inference_mode():
        codes = method.encode(found, tokens)
    some = replace(tokens, inputs=tokens.needed_inputs()[:7], outputs=tokens.outputs[:7])
    assert torch.allclose(method.encode(found, some), codes[:7], atol=1e-6)
    assert len(built) == 1
    assert torch.equal(method.layer(found, tokens.needed_weight(), tokens.bias).codes(tokens.needed_inputs()), codes)
    with pytest.raises(ValueError, match="weight: the site has kernel and bias of SHA-256"):
        method.encode(found, replace(tokens, weight=2 * tokens.needed_weight()))
    unsealed = replace(found, notes={})
    doubled = method.encode(unsealed, replace(tokens, weight=2 * tokens.needed_weight(), bias=None))
    halved = method.encode(unsealed, replace(tokens, bias=None))
    assert torch.allclose(doubled, 2 * halved, atol=1e-5)
