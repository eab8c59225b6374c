"""A second decomposition: another seed, steps counted, labels withheld; and what float64 makes of a subject."""

import dataclasses
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from bench.activations import TensorSource
from bench.backbones import Backbone as BackboneNetwork
from bench.batches import Batch, SiteBatch
from bench.datasets import InMemory
from bench.planted import planted
from bench.replay import Replay
from bench.rerun import Rerun, compared_by, counted_steps, decomposed_again
from bench.sites import Site
from bench.subject import Subject, moved
from methods.controls import PCA, Backbone, RandomDirections, RandomPartition
from methods.elude import ELUDe
from methods.protocol import ActivationSource, Codes, Decomposition, Method, Properties
from metrics.catalogue import Value
from metrics.properties import Exactness, Repeatability

CLAIMS = Properties(stable=True, training_free=True, explicit=True, lossless=True, unsupervised=True)


@dataclasses.dataclass(frozen=True)
class Trained(Backbone):
    """Takes seven steps on a weight that it then keeps as its dictionary."""

    def decompose(self, activations: ActivationSource, *, seed: int) -> Decomposition:
        weight = nn.Parameter(torch.ones(3, 12))
        optimizer = torch.optim.SGD([weight], lr=0.1)
        for _ in range(7):
            optimizer.zero_grad()
            (weight * activations.read(slice(0, 3)).outputs).sum().backward()
            optimizer.step()
        return Decomposition(n_atoms=3, tensors={"dictionary": weight.detach()})

    def dictionaries(self, decomposition: Decomposition, weight: Tensor) -> dict[str, Tensor]:
        return {"output": decomposition.tensors["dictionary"]}


@dataclasses.dataclass(frozen=True)
class Supervised(Backbone):
    """Notes the labels that it reads, which must be there."""

    reads: ClassVar[frozenset[str]] = frozenset({"outputs", "labels"})

    def decompose(self, activations: ActivationSource, *, seed: int) -> Decomposition:
        images = activations.images
        if images is None or images.labels is None:
            raise LookupError("labels: got none;\nexpected some")
        return dataclasses.replace(super().decompose(activations, seed=seed), tensors={"labels": images.labels})


@dataclasses.dataclass(frozen=True)
class Optional(Supervised):
    """Declares to read labels and does without."""

    def decompose(self, activations: ActivationSource, *, seed: int) -> Decomposition:
        return Backbone().decompose(activations, seed=seed)


@dataclasses.dataclass(frozen=True)
class NoDirections:
    """A method without a dictionary."""

    reads: ClassVar[frozenset[str]] = frozenset({"outputs"})
    properties: ClassVar[Properties] = CLAIMS
    version: ClassVar[int] = 1

    def decompose(self, activations: ActivationSource, *, seed: int) -> Decomposition:
        return Decomposition(n_atoms=1, tensors={"seed": torch.tensor(seed)})

    def encode(self, decomposition: Decomposition, activations: object) -> Codes:
        return torch.zeros(1, 1)


def again(method: Method, *, leader: Decomposition | None = None, seed: int = 1) -> Rerun:
    found = method.decompose(planted(method.reads), seed=0) if leader is None else leader
    return decomposed_again(method, found, leader, planted, planted().read(slice(None)).needed_weight(), seed=seed)


def test_steps_of_optimizers_are_counted_while_the_method_runs_and_no_longer() -> None:
    method, weight = Trained(), planted().read(slice(None)).needed_weight()
    found = method.decompose(planted(), seed=0)
    with torch.inference_mode():  # metrics ask for it where gradients are switched off
        rerun = decomposed_again(method, found, None, planted, weight, seed=1)
    assert rerun.gradient_steps == 7
    with counted_steps() as steps:
        pass
    Trained().decompose(planted(), seed=0)
    assert steps == []
    assert again(ELUDe(top_k=0.2, min_cluster_size=5)).gradient_steps == 0


def test_a_step_that_fails_leaves_no_hook_behind() -> None:
    with pytest.raises(RuntimeError), counted_steps() as steps:
        raise RuntimeError
    Trained().decompose(planted(), seed=0)
    assert steps == []


def test_the_second_run_has_the_seed_and_both_dictionaries_are_there() -> None:
    method = RandomDirections()
    rerun = again(method, seed=5)
    first, second = (method.decompose(planted(), seed=seed) for seed in (0, 5))
    assert rerun.dictionary is not None
    assert rerun.dictionary_again is not None
    assert torch.equal(rerun.dictionary, first.tensors["directions"])
    assert torch.equal(rerun.dictionary_again, second.tensors["directions"])
    assert rerun.unit_of_atom_again is None
    assert again(NoDirections()).dictionary is None


def test_methods_that_split_units_are_compared_by_their_input_weights() -> None:
    method, weight = ELUDe(top_k=0.2, min_cluster_size=5), planted().read(slice(None)).needed_weight()
    found = method.decompose(planted(), seed=0)
    rows = compared_by(method, found, weight)
    assert rows is not None
    assert torch.equal(rows, method.dictionaries(found, weight)["input"])
    plain = compared_by(RandomDirections(), RandomDirections().decompose(planted(), seed=0), weight)
    assert plain is not None
    assert plain.shape == (96, 12)


def test_a_follower_follows_the_same_leader_both_times() -> None:
    leader = ELUDe(top_k=0.2, min_cluster_size=5).decompose(planted(), seed=0)
    rerun = again(RandomPartition(), leader=leader)
    assert rerun.unit_of_atom_again is not None
    assert leader.unit_of_atom is not None
    assert torch.equal(rerun.unit_of_atom_again, leader.unit_of_atom)


def test_labels_are_withheld_and_a_method_that_stops_runs_again_with_them() -> None:
    assert again(Supervised()).needs_labels == "LookupError: labels: got none;"
    assert again(Optional()).needs_labels is None
    assert again(Backbone()).needs_labels is None


def test_an_error_that_labels_do_not_mend_is_an_error() -> None:
    @dataclasses.dataclass(frozen=True)
    class Breaks(Supervised):
        """Fails either way."""

        def decompose(self, activations: ActivationSource, *, seed: int) -> Decomposition:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        again(Breaks(), leader=Backbone().decompose(planted(), seed=0))


# What the evaluation makes of it


def subject_of(method: Method) -> tuple[Subject, InMemory]:
    generator = torch.Generator().manual_seed(2)
    layers = nn.Sequential(nn.Flatten(), nn.Linear(12, 6), nn.GELU(), nn.Linear(6, 5))
    for parameter in layers.parameters():
        nn.init.normal_(parameter, generator=generator)
    backbone = BackboneNetwork.of("any", layers, lambda images: images.float() / 255, preprocessing="x / 255")
    site = Site(backbone, "1")
    pixels = torch.randint(256, (9, 3, 2, 2), generator=generator, dtype=torch.uint8)
    labels = torch.randint(5, (9,), generator=generator)
    inputs = pixels.flatten(1).float() / 255
    tokens = TensorSource(inputs, layers[1](inputs).detach(), site.weight, site.bias)

    def source(reads: frozenset[str]) -> ActivationSource:
        return tokens.only(reads)

    found = method.decompose(source(method.reads), seed=0)
    subject = Subject(
        site, method, found, 5, lambda: decomposed_again(method, found, None, source, site.weight, seed=1)
    )
    return subject, InMemory(pixels, labels, {})


def batch_of(subject: Subject, split: InMemory) -> Batch:
    everything = torch.arange(len(split))
    return Batch(subject, SiteBatch(Replay(subject.site), everything, split.images(everything), split))


@torch.inference_mode()
def values_of(method: Method) -> dict[str, Value]:
    """As `bench.evaluation.evaluate` has them measured."""
    subject, split = subject_of(method)
    metrics: list[Any] = [metric(subject.facts(9)) for metric in (Repeatability, Exactness)]
    batch = batch_of(subject, split)
    for metric in metrics:
        metric.update(batch, pass_index=0)
    return {name: value for metric in metrics for name, value in metric.compute().items()}


@pytest.mark.parametrize("method", [Backbone(), PCA(), RandomDirections(), ELUDe(top_k=1.0, min_cluster_size=2)])
def test_exact_methods_differ_by_the_last_digits_of_either_precision(method: Method) -> None:
    values = values_of(method)
    for what in ("output", "logit"):
        size = values[f"largest_{what}"].value or 0.0
        rough, fine = (values[f"{what}_difference{suffix}"].value for suffix in ("", "_float64"))
        assert rough is not None
        assert fine is not None
        assert fine <= 1e-13 * size
        assert rough <= 1e-5 * size
    assert values["runs_in_place"].value == 1


def test_random_directions_are_others_each_time_and_components_the_same() -> None:
    assert values_of(PCA())["seed_similarity"].value == 1.0
    assert (values_of(RandomDirections())["seed_similarity"].value or 0.0) < 0.9


def test_float64_is_a_copy_and_leaves_the_network_alone() -> None:
    subject, split = subject_of(PCA())
    with torch.inference_mode():
        batch = batch_of(subject, split)
        precise = batch.in_float64
        assert precise.logits.dtype == precise.reconstruction.dtype == torch.float64
        assert torch.allclose(precise.logits.float(), batch.logits, atol=1e-5)
        assert batch.in_float64 is precise
    assert subject.site.weight.dtype == torch.float32
    assert subject.decomposition.tensors["mean"].dtype == torch.float32
    assert subject.in_float64.decomposition.tensors["mean"] is subject.found.tensors["mean"]


def test_a_subject_decomposes_again_once_and_only_if_asked() -> None:
    subject, _ = subject_of(PCA())
    facts = subject.facts(9)
    assert facts.again() is facts.again()
    without = Subject(subject.site, PCA(), subject.found, 5)
    with pytest.raises(LookupError, match="again: got none; expected how to decompose once more"):
        without.facts(9).again()


def test_moving_changes_floating_point_alone() -> None:
    found = ELUDe(top_k=0.2, min_cluster_size=5).decompose(planted(), seed=0)
    there = moved(found, torch.zeros((), dtype=torch.float64))
    assert there.tensors["owns"].dtype == torch.uint8
    assert there.unit_of_atom is not None
    assert there.unit_of_atom.dtype == torch.int64
    assert moved(found, torch.zeros(())).tensors["rho"].dtype == torch.float32
