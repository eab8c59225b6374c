"""Every registered method keeps the contract, and the contract notices when one does not."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from bench import UsageError, contract
from bench.activations import TensorSource
from bench.backbones import Backbone as BackboneNetwork
from bench.batches import Batch, SiteBatch
from bench.contract import CHECKS, Outcome, check, checked
from bench.datasets import InMemory
from bench.planted import planted
from bench.registry import Registry
from bench.replay import Replay
from bench.sites import Site
from bench.subject import Subject
from methods import artifacts
from methods.controls import Backbone
from methods.elude import ELUDe
from methods.protocol import Activations, ActivationSource, Codes, Decomposition, Properties

METHODS = sorted(Registry().tables["methods"].keys() - {"checkpoint"})
"""Every method that its default options make whole: a checkpoint is nothing without its folder."""


@pytest.mark.parametrize("name", METHODS)
def test_contract(name: str) -> None:
    results = dict(checked(Registry().find("methods", name).load()()))
    assert set(results) == {one.__name__ for one in CHECKS}
    assert {law: outcome for law, outcome in results.items() if outcome.verdict == "BROKEN"} == {}


@dataclasses.dataclass(frozen=True)
class Unseeded(Backbone):
    """Draws from the global generator."""

    def decompose(self, activations: ActivationSource, *, seed: int) -> Decomposition:
        found = super().decompose(activations, seed=seed)
        return dataclasses.replace(found, tensors={"noise": torch.rand(3)})


@dataclasses.dataclass(frozen=True)
class Lossy(Backbone):
    """Claims to be lossless and is not."""

    def decode(self, decomposition: Decomposition, codes: Codes) -> Tensor:
        return codes * 1.01


@dataclasses.dataclass(frozen=True)
class Greedy(Backbone):
    """Reads what it did not declare."""

    def encode(self, decomposition: Decomposition, activations: Activations) -> Codes:
        return activations.outputs + activations.needed_inputs().sum()


@dataclasses.dataclass(frozen=True)
class Centred(Backbone):
    """Lets the tokens beside one change its codes."""

    def encode(self, decomposition: Decomposition, activations: Activations) -> Codes:
        return activations.outputs - activations.outputs.mean(dim=0)


@dataclasses.dataclass(frozen=True)
class Scribbler(Backbone):
    """Writes to what it is given."""

    def decompose(self, activations: ActivationSource, *, seed: int) -> Decomposition:
        activations.read(slice(None)).outputs.mul_(2)
        return super().decompose(activations, seed=seed)


@dataclasses.dataclass(frozen=True)
class Narrow(Backbone):
    """Gives one code too few."""

    def encode(self, decomposition: Decomposition, activations: Activations) -> Codes:
        return activations.outputs[:, 1:]


@dataclasses.dataclass(frozen=True)
class Odd(Backbone):
    """Has an option that no suite can hold."""

    point: tuple[int, int] = (1, 2)


@dataclasses.dataclass(frozen=True)
class Single(Backbone):
    """Gives codes in single precision, whatever it is given."""

    def encode(self, decomposition: Decomposition, activations: Activations) -> Codes:
        return activations.outputs.float()


@dataclasses.dataclass(frozen=True)
class Fickle(Backbone):
    """Gives other codes in double precision."""

    def encode(self, decomposition: Decomposition, activations: Activations) -> Codes:
        return activations.outputs * (1.1 if activations.outputs.dtype == torch.float64 else 1)


@dataclasses.dataclass(frozen=True)
class Stray(Backbone):
    """Gives codes on a device of its own."""

    def encode(self, decomposition: Decomposition, activations: Activations) -> Codes:
        return activations.outputs.to("meta")


@dataclasses.dataclass(frozen=True)
class Divides(Backbone):
    """Stops where a unit does not vary."""

    def decompose(self, activations: ActivationSource, *, seed: int) -> Decomposition:
        _ = 1 / float(activations.read(slice(None)).outputs.std(dim=0, correction=0).min())
        return super().decompose(activations, seed=seed)


@dataclasses.dataclass(frozen=True)
class Chatty(Backbone):
    """Says in two lines that there are too few tokens."""

    def decompose(self, activations: ActivationSource, *, seed: int) -> Decomposition:
        if activations.n_tokens < 2:
            raise ValueError("tokens: got 1;\nexpected more")
        return super().decompose(activations, seed=seed)


@dataclasses.dataclass(frozen=True)
class Hollow(Backbone):
    """Keeps what is no number where all tokens are zero."""

    def decompose(self, activations: ActivationSource, *, seed: int) -> Decomposition:
        x = activations.read(slice(None)).outputs
        return dataclasses.replace(super().decompose(activations, seed=seed), tensors={"mean": (x / x.abs().max())[0]})


@dataclasses.dataclass(frozen=True)
class Picky(Backbone):
    """Encodes no fewer than two tokens."""

    def encode(self, decomposition: Decomposition, activations: Activations) -> Codes:
        return activations.outputs * (activations.outputs[1:2] != torch.inf).reshape(1, -1)


@dataclasses.dataclass(frozen=True)
class Skewed(Backbone):
    """Has a dictionary of another width than inputs and outputs."""

    def dictionaries(self, decomposition: Decomposition, weight: Tensor) -> dict[str, Tensor]:
        return {"output": torch.zeros(decomposition.n_atoms, 7)}


@dataclasses.dataclass(frozen=True)
class Misspelt:
    """Claims to be explicit and has no decode."""

    reads: ClassVar[frozenset[str]] = Backbone.reads
    properties: ClassVar[Properties] = Backbone.properties
    version: ClassVar[int] = 1

    def decompose(self, activations: ActivationSource, *, seed: int) -> Decomposition:
        return Backbone().decompose(activations, seed=seed)

    def encode(self, decomposition: Decomposition, activations: Activations) -> Codes:
        return activations.outputs


class Thawed(Backbone):
    """Is no dataclass of its own but keeps the parent's; still a method."""

    version: ClassVar[int] = 2


@pytest.mark.parametrize(
    ("broken", "law"),
    [
        (Unseeded, "seed_decides"),
        (Lossy, "losslessness_is_as_claimed"),
        (Greedy, "method"),
        (Centred, "batches_do_not_matter"),
        (Scribbler, "activations_are_untouched"),
        (Narrow, "codes_have_their_shape"),
        (Misspelt, "outputs_have_their_shape"),
        (Odd, "options_are_plain"),
    ],
)
def test_contract_notices(broken: Callable[[], object], law: str) -> None:
    assert check(broken())[law]


@pytest.mark.parametrize(
    ("broken", "law", "says"),
    [
        (Single, "dtype_is_kept", "encode: got torch.float32 on cpu for torch.float64 on cpu; make what it needs"),
        (Fickle, "dtype_is_kept", "encode: 100% of tokens differ in torch.float64 on cpu; expected rounding only"),
        (
            Divides,
            "degenerate_inputs_are_survived",
            "equal tokens: ZeroDivisionError: float division by zero;",
        ),
        (Chatty, "degenerate_inputs_are_survived", "one token of one image: the ValueError has several lines"),
        (Hollow, "degenerate_inputs_are_survived", "zeros alone: tensors['mean']: not finite; expected numbers only"),
        (Picky, "degenerate_inputs_are_survived", "one token of one image: "),
        (Skewed, "dictionaries_have_their_shape", "['output']: got shape (12, 7); expected (12, 12)"),
    ],
)
def test_a_broken_law_says_where(broken: Callable[[], object], law: str, says: str) -> None:
    assert says in (check(broken())[law] or "")


def test_another_device_is_tried_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contract, "accelerator", lambda: None)
    assert dict(checked(Backbone()))["device_is_kept"] == Outcome("not tried", "no GPU")
    monkeypatch.setattr(contract, "accelerator", lambda: torch.device("cpu"))
    assert dict(checked(Backbone()))["device_is_kept"] == Outcome("holds")
    assert "got torch.float32 on meta for torch.float32 on cpu" in (check(Stray())["device_is_kept"] or "")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", METHODS)
def test_a_method_keeps_to_the_gpu(name: str) -> None:
    assert dict(checked(Registry().find("methods", name).load()()))["device_is_kept"] == Outcome("holds")


def test_a_law_that_says_nothing_of_a_method_is_not_tried() -> None:
    lossy = dict(checked(Registry().find("methods", "topk_sae").load()(epochs=1)))
    assert lossy["losslessness_is_as_claimed"] == Outcome("not tried", "not claimed")
    assert "losslessness_is_as_claimed" not in check(Registry().find("methods", "topk_sae").load()(epochs=1))


@pytest.mark.parametrize("thing", [object(), 3, Thawed])
def test_contract_refuses_what_is_no_method(thing: object) -> None:
    assert list(check(thing)) == ["method"]


@dataclasses.dataclass(frozen=True)
class Transposed(Backbone):
    """Gives atoms x tokens."""

    def encode(self, decomposition: Decomposition, activations: Activations) -> Codes:
        return activations.outputs.T


@dataclasses.dataclass(frozen=True)
class Doubler(Backbone):
    """Doubles what it is given, in place."""

    def encode(self, decomposition: Decomposition, activations: Activations) -> Codes:
        return activations.outputs.mul_(2)


def batch_of(method: Backbone) -> Batch:
    layer = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 5))
    site = Site(BackboneNetwork.of("any", layer, lambda images: images.float() / 255, preprocessing="x / 255"), "1")
    found = method.decompose(TensorSource(None, torch.zeros(2, 5)), seed=0)
    images = torch.arange(48, dtype=torch.uint8).reshape(4, 3, 2, 2)
    split = InMemory(images, torch.zeros(4, dtype=torch.int64))
    return Batch(Subject(site, method, found, 5), SiteBatch(Replay(site), torch.arange(4), images, split))


@torch.inference_mode()
def test_a_run_refuses_codes_of_another_shape() -> None:
    with pytest.raises(UsageError, match=r"encode: got shape \(5, 4\); expected \(4, 5\); see check-method"):
        _ = batch_of(Transposed()).codes


@dataclasses.dataclass(frozen=True)
class Overflowing(Backbone):
    """Multiplies by a number, there and back."""

    there: float = 1.0
    back: float = 1.0

    def encode(self, decomposition: Decomposition, activations: Activations) -> Codes:
        return activations.outputs * self.there

    def decode(self, decomposition: Decomposition, codes: Codes) -> Tensor:
        return codes * self.back


@torch.inference_mode()
@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_a_run_refuses_what_is_not_finite(number: float) -> None:
    text = (
        r"^method: Overflowing gave {} that are not finite, for 4 of 4 images of a batch, where the site's own "
        r"outputs are; expected numbers; change its options, or see check-method$"
    )
    with pytest.raises(UsageError, match=text.format("codes")):
        _ = batch_of(Overflowing(there=number)).codes
    batch = batch_of(Overflowing(back=number))
    assert bool(batch.codes.isfinite().all())
    for ask in ("reconstruction", "replaced_logits"):
        with pytest.raises(UsageError, match=text.format("outputs")):
            getattr(batch, ask)


@torch.inference_mode()
def test_what_follows_from_a_site_that_is_not_finite_is_no_fault_of_the_method() -> None:
    batch = batch_of(Backbone())
    batch.shared.reading.outputs[2, 0, 1] = math.nan
    assert bool(batch.codes[2].isnan().any())
    assert bool(batch.reconstruction[[0, 1, 3]].isfinite().all())
    batch = batch_of(Overflowing(there=math.inf))
    batch.shared.reading.outputs[2, 0, 1] = math.nan
    with pytest.raises(UsageError, match="gave codes that are not finite, for 3 of 4 images"):
        _ = batch.codes


@torch.inference_mode()
def test_a_method_cannot_change_what_it_is_measured_against() -> None:
    batch = batch_of(Doubler())
    before = batch.outputs.clone()
    assert torch.equal(batch.codes, 2 * before)
    assert torch.equal(batch.outputs, before)
    assert torch.equal(batch.reconstruction, 2 * before)


def test_artifacts_hold_everything(tmp_path: Path) -> None:
    found = ELUDe(top_k=0.2, min_cluster_size=5).decompose(planted(), seed=0)
    artifacts.save(found, tmp_path, {"method": "elude"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    again = artifacts.load(tmp_path)
    assert again.n_atoms == found.n_atoms
    assert dict(again.notes) == dict(found.notes)
    assert again.unit_of_atom is not None
    assert found.unit_of_atom is not None
    assert torch.equal(again.unit_of_atom, found.unit_of_atom)
    assert all(torch.equal(again.tensors[name], tensor) for name, tensor in found.tensors.items())


def test_artifacts_refuse_a_newer_schema(tmp_path: Path) -> None:
    artifacts.save(Backbone().decompose(planted(), seed=0), tmp_path, {})
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace('"schema": 1', '"schema": 2'))
    with pytest.raises(ValueError, match="got schema 2; expected at most 1; update eludebench"):
        artifacts.load(tmp_path)


def test_dictionaries_are_what_the_atoms_are_made_of() -> None:
    weight = planted().read(slice(None)).needed_weight()
    neurons = Backbone().dictionaries(Backbone().decompose(planted(), seed=0), weight)
    assert torch.equal(neurons["output"], torch.eye(12))
    assert torch.equal(neurons["input"], weight)
    method = ELUDe(top_k=0.2, min_cluster_size=5)
    found = method.decompose(planted(), seed=0)
    assert found.unit_of_atom is not None
    rows, mergers = (method.dictionaries(found, weight)[kind] for kind in ("input", "output"))
    summed = torch.zeros_like(weight).index_add_(0, found.unit_of_atom, rows)
    assert torch.allclose(summed, weight, atol=1e-6)
    assert torch.equal(mergers, torch.eye(12)[found.unit_of_atom])
    owns = found.tensors["owns"].clone()
    parts = (found.unit_of_atom == found.unit_of_atom.mode().values).nonzero().flatten()
    owns[parts], owns[parts[0]] = 0, 1  # all of a unit's weights go to its first part: the others are dead
    found = dataclasses.replace(found, tensors={**found.tensors, "owns": owns})
    rows, mergers = (method.dictionaries(found, weight)[kind] for kind in ("input", "output"))
    is_dead = (owns == 0).all(dim=1)
    assert is_dead.sum() == len(parts) - 1 > 0
    assert torch.equal((rows == 0).all(dim=1), is_dead)
    assert torch.equal(mergers, torch.eye(12)[method.parts(found).unit_of_atom] * ~is_dead[:, None])


def test_undeclared_readings_are_named() -> None:
    tokens = planted(frozenset({"outputs"})).read(slice(0, 2))
    with pytest.raises(ValueError, match="inputs: not read at this site"):
        tokens.needed_inputs()
    with pytest.raises(ValueError, match="weight: not read at this site"):
        tokens.needed_weight()


TABLE_1 = {  # Bağcı et al. 2026, Table 1: stable, training-free, explicit, lossless, unsupervised
    "vanilla_sae": (False, False, True, False, True),
    "topk_sae": (False, False, True, False, True),
    "archetypal_sae": (True, False, True, False, True),
    "matryoshka_sae": (False, False, True, False, True),
    "dnrwcv": (True, True, False, True, True),
    "pure": (True, True, False, True, True),
    "dpcicnn": (True, True, True, True, False),
    "elude": (True, True, True, True, True),
}


@pytest.mark.parametrize("name", TABLE_1)
def test_methods_claim_what_the_paper_claims_of_them(name: str) -> None:
    claims = Registry().find("methods", name).load().properties
    names = ("stable", "training_free", "explicit", "lossless", "unsupervised")
    assert tuple(getattr(claims, claim) for claim in names) == TABLE_1[name]
