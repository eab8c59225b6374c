"""What is timed is what B.4 says: methods behind the untouched site, layers in its place, the network as it was."""

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from bench.activations import TensorSource
from bench.backbones import Backbone as BackboneNetwork
from bench.backbones import prefix_of
from bench.efficiency import AGAIN, BACKBONE, HOOKED, ON_CPU, SPLIT, Protocol, Timing, timed, timings_of, ways_of
from bench.sites import Site
from bench.subject import Subject
from methods.controls import PCA, Backbone, RandomPartition
from methods.layer import DisentangledLayer
from methods.protocol import Activations, Codes, Decomposition, Method, Properties
from metrics.protocol import Timing as TimingProtocol

FEW = Protocol(warm_ups=1, runs=3, is_compiled=False)
ROOT = Path(__file__).resolve().parent.parent
PATH = "blocks.1.mlp.fc2"


@pytest.fixture(autouse=True)
def _without_gradients() -> Any:
    with torch.no_grad():
        yield


def site_of(*, registers: int = 0) -> Site:
    """A small ViT at random weights: 12 units, 48 inputs, 4 patches and CLS."""
    torch.manual_seed(0)
    module = VisionTransformer(
        img_size=8, patch_size=4, embed_dim=12, depth=2, num_heads=2, num_classes=5, reg_tokens=registers
    ).eval()
    network = BackboneNetwork.of(
        "any", module, lambda images: images.float() / 255, preprocessing="x / 255", prefix=prefix_of(module)
    )
    return Site(network, PATH)


def pixels(n: int = 6) -> Tensor:
    """Images as a data set gives them."""
    return torch.randint(256, (n, 3, 8, 8), generator=torch.Generator().manual_seed(1)).to(torch.uint8)


def source_of(site: Site) -> TensorSource:
    """The tokens of a few images at that site."""
    reading = site.read(pixels(40))
    inputs, outputs = reading.inputs.flatten(0, 1).clone(), reading.outputs.flatten(0, 1).clone()
    return TensorSource(inputs, outputs, site.weight, site.bias)


def subject_of(method: Method, site: Site) -> Subject:
    """That method's decomposition of the site; a random partition has three parts a unit."""
    source = source_of(site)
    if isinstance(method, RandomPartition):
        leader = Decomposition(36, {}, torch.arange(12).repeat_interleave(3))
        return Subject(site, method, method.decompose_like(source, leader, seed=0), 5)
    return Subject(site, method, method.decompose(source, seed=0), 5)


@dataclass(frozen=True)
class Noting(Backbone):
    """The units, and what was asked of it in which order."""

    calls: list[tuple[str, tuple[int, ...]]] = field(default_factory=list)

    def encode(self, decomposition: Decomposition, activations: Activations) -> Codes:
        self.calls.append(("encode", tuple(activations.outputs.shape)))
        return activations.outputs

    def decode(self, decomposition: Decomposition, codes: Codes) -> Tensor:
        self.calls.append(("decode", tuple(codes.shape)))
        return codes


@dataclass(frozen=True)
class Virtual:
    """Units beside the network, summed over whole images; reads everything."""

    reads: ClassVar[frozenset[str]] = frozenset({"inputs", "outputs", "weight", "images"})
    properties: ClassVar[Properties] = Properties(
        stable=True, training_free=True, explicit=False, lossless=False, unsupervised=True
    )
    version: ClassVar[int] = 1
    seen: list[Activations] = field(default_factory=list)

    def decompose(self, activations: Any, *, seed: int) -> Decomposition:
        return Decomposition(12, {})

    def encode(self, decomposition: Decomposition, activations: Activations) -> Codes:
        self.seen.append(activations)
        return activations.outputs


def logits_in(subject: Subject, way: Callable[[], AbstractContextManager[Callable[[], None]]]) -> Tensor:
    """What the network says while the method is in it that way."""
    with way():
        network = subject.site.backbone.module
        found: Tensor = network(subject.site.backbone.transform(pixels()))
    return found


def test_a_method_behind_the_site_runs_once_a_pass_and_changes_nothing() -> None:
    site = site_of()
    method = Noting()
    subject = subject_of(method, site)
    found = timings_of(subject, pixels(), FEW)
    assert list(found) == [BACKBONE, HOOKED, AGAIN]
    assert method.calls == [("encode", (30, 12)), ("decode", (30, 12))] * 4
    before = site.backbone.module(site.backbone.transform(pixels()))
    assert torch.equal(logits_in(subject, ways_of(subject)[HOOKED]), before)
    assert not site.module._forward_hooks


def test_what_was_captured_is_the_reconstruction_and_is_let_go() -> None:
    site = site_of()
    subject = subject_of(PCA(), site)
    with ways_of(subject)[HOOKED]() as let_go:
        site.backbone.module(site.backbone.transform(pixels()))
        captured = let_go.__self__  # type: ignore[attr-defined]
        assert torch.allclose(captured.values, site.read(pixels()).outputs.flatten(0, 1), atol=1e-5)
        let_go()
        assert captured.values is None


def test_virtual_units_are_encoded_only_and_see_no_registers() -> None:
    method = Virtual()
    site = site_of(registers=2)
    found = timings_of(subject_of(method, site), pixels(), FEW)
    assert list(found) == [BACKBONE, HOOKED, AGAIN]
    assert len(method.seen) == 4
    activations = method.seen[0]
    assert activations.outputs.shape == (30, 12)
    assert activations.needed_inputs().shape == (30, 48)
    assert torch.equal(activations.needed_weight(), site.weight)
    assert activations.image_of_token is not None
    assert activations.image_of_token.tolist() == [image for image in range(6) for _ in range(5)]


def test_a_method_is_given_only_what_it_reads() -> None:
    @dataclass(frozen=True)
    class OutputsOnly(Virtual):
        reads: ClassVar[frozenset[str]] = frozenset({"outputs"})

    method = OutputsOnly()
    timings_of(subject_of(method, site_of(registers=2)), pixels(), FEW)
    one = method.seen[0]
    assert (one.inputs, one.weight, one.bias, one.image_of_token) == (None, None, None, None)
    assert one.outputs.shape == (42, 12)


def test_a_layer_of_parts_has_three_ways_and_leaves_the_network_as_it_was() -> None:
    site = site_of()
    subject = subject_of(RandomPartition(), site)
    assert isinstance(subject.layer, DisentangledLayer)
    found = timings_of(subject, pixels(), FEW)
    assert list(found) == [BACKBONE, *SPLIT, AGAIN]
    network = site.backbone.module
    assert network.get_submodule(PATH) is site.module
    assert (subject.layer.merge, subject.layer.asked) == ("sum", None)
    before = network(site.backbone.transform(pixels()))
    ways = ways_of(subject)
    assert torch.equal(logits_in(subject, ways["unasked"]), before)
    assert torch.equal(logits_in(subject, ways["codes"]), before)
    assert torch.allclose(logits_in(subject, ways["merged"]), before, atol=1e-5)


def test_all_codes_are_there_until_they_are_let_go() -> None:
    site = site_of()
    subject = subject_of(RandomPartition(), site)
    assert isinstance(subject.layer, DisentangledLayer)
    with ways_of(subject)["codes"]() as let_go:
        site.backbone.module(site.backbone.transform(pixels()))
        asked: Any = subject.layer.asked
        assert asked.codes.shape == (6, 5, 36)
        let_go()
        assert asked.codes is None
    for name in ("unasked", "merged"):
        with ways_of(subject)[name]():
            assert subject.layer.asked is None


def test_another_layer_than_ours_is_merged_only() -> None:
    class Doubled(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            return inputs[..., :12]

    @dataclass(frozen=True)
    class Foreign(Backbone):
        def layer(self, decomposition: Decomposition, weight: Tensor, bias: Tensor | None) -> nn.Module:
            return Doubled()

    site = site_of()
    subject = subject_of(Foreign(), site)
    assert list(timings_of(subject, pixels(), FEW)) == [BACKBONE, "merged", AGAIN]
    before = site.backbone.module(site.backbone.transform(pixels()))
    assert not torch.allclose(logits_in(subject, ways_of(subject)["merged"]), before)


def test_every_timed_batch_is_kept_and_memory_is_none_on_a_cpu() -> None:
    found = timings_of(subject_of(Backbone(), site_of()), pixels())
    for timing in found.values():
        assert isinstance(timing, TimingProtocol)
        assert len(timing.milliseconds) == ON_CPU.runs
        assert min(timing.milliseconds) > 0
        assert timing.peak_bytes is None


def test_time_is_that_of_the_passes_and_not_of_the_warm_ups(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]

    class Slow(nn.Module):
        n_passes = 0

        def forward(self, images: Tensor) -> Tensor:
            self.n_passes += 1
            clock[0] += 100.0 if self.n_passes <= 2 else 0.25
            return images

    monkeypatch.setattr("bench.efficiency.time.perf_counter", lambda: clock[0])
    network = Slow()
    found = timed(network, torch.zeros(1, 3, 2, 2), {}, Protocol(warm_ups=2, runs=3, is_compiled=False))
    assert found[BACKBONE] == Timing((250.0, 250.0, 250.0), None)
    assert network.n_passes == 10


def compiled_passes() -> None:
    """Times a method behind the site and one in its place, compiled; for a process without type checks."""
    compiled = torch.compile
    setattr(torch, "compile", lambda network: compiled(network, backend="eager", fullgraph=True))  # noqa: B010
    with torch.no_grad():
        for method in (PCA(), RandomPartition()):
            site = site_of()
            subject = subject_of(method, site)
            found = timings_of(subject, pixels(), Protocol(warm_ups=1, runs=2, is_compiled=True))
            assert all(len(one.milliseconds) == 2 for one in found.values())
            inputs = site.backbone.transform(pixels())
            before = site.backbone.module(inputs)
            for name, way in ways_of(subject).items():
                with way() as let_go:
                    torch.compiler.reset()
                    assert torch.allclose(torch.compile(site.backbone.module)(inputs), before, atol=1e-5), name
                    if name == HOOKED:
                        captured = let_go.__self__.values  # type: ignore[attr-defined]
                        assert torch.allclose(captured, site.read(pixels()).outputs.flatten(0, 1), atol=1e-5)
                    if name == "codes":
                        assert subject.layer.asked.codes.shape == (6, 5, 36)  # type: ignore[union-attr]
    print("both")


def test_a_compiled_network_computes_what_the_method_makes() -> None:
    """In a process of its own: the type checker of the tests is nothing that the compiler can trace."""
    script = "import test_efficiency; test_efficiency.compiled_passes()"
    paths = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, env={**os.environ, **paths}
    )
    assert done.stdout == "both\n", done.stderr[-2000:]
