"""The training loop: the same steps as overcomplete's, the same result after an interruption, and bounded memory."""

import contextlib
import math
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

import bench.activations
import methods.training
from bench.activations import TensorSource
from bench.planted import planted
from methods.archetypal import ArchetypalSAE
from methods.autoencoder import Autoencoder, Start
from methods.matching_pursuit import MatchingPursuitSAE
from methods.protocol import Activations, Decomposition
from methods.sae import BatchTopKSAE, JumpReLUSAE, LibraryAutoencoder, TopKSAE, VanillaSAE, drawing, overcomplete_sae
from methods.training import Training, adam, centre_and_scale, factor, step, train

OUTPUTS = frozenset({"outputs"})
SEED, BATCH, EPOCHS = 3, 100, 10


class Prepared:
    """A loader for overcomplete: each pass gives the batches of our next epoch, centred and scaled."""

    def __init__(self, source: TensorSource, mean: Tensor, scale: Tensor) -> None:
        self.source, self.mean, self.scale = source, mean, scale
        self.epoch = 0

    def __iter__(self) -> Iterator[Tensor]:
        seed = SEED * 100_003 + self.epoch
        self.epoch += 1
        for batch in self.source.batches(BATCH, seed=seed):
            yield (batch.outputs - self.mean) / self.scale


def criterion(method: Any, model: Any) -> Callable[..., Tensor]:
    """The loss of the ELUDe paper, made of overcomplete's own terms."""
    from overcomplete.sae.jump_sae import heaviside
    from overcomplete.sae.losses import reanimation_regularizer

    def loss(x: Tensor, x_hat: Tensor, pre_codes: Tensor, codes: Tensor, dictionary: Tensor) -> Tensor:
        if isinstance(method, MatchingPursuitSAE):  # the library gives the residual for pre-codes
            pre_codes = x @ dictionary.T
        total: Tensor = (x - x_hat).square().mean()
        total = total + reanimation_regularizer(
            x, x_hat, pre_codes, codes, dictionary, penalty=method.dead_weight / len(x)
        )
        if isinstance(method, VanillaSAE):
            total = total + method.l1_weight * codes.abs().sum() / len(x)
        if isinstance(method, JumpReLUSAE):
            thresholds = torch.exp(model.thresholds)
            active = heaviside(functional.relu(pre_codes), thresholds, model.kernel_fn, model.bandwidth)
            total = total + method.sparsity_weight * active.sum() / len(x)
        return total

    return loss


FAMILIES: tuple[LibraryAutoencoder, ...] = (
    VanillaSAE(l1_weight=2e-2),
    TopKSAE(k=4),
    BatchTopKSAE(k=4),
    # The library's narrow kernel, 1e-3, makes a chaos of ten epochs: rounding grows to 1e-3 in them.
    JumpReLUSAE(sparsity_weight=1e-2, bandwidth=1e-2),
    MatchingPursuitSAE(k=4),
    ArchetypalSAE(),
)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda one: type(one).__name__)
def test_losses_and_weights_are_those_of_overcompletes_loop(family: LibraryAutoencoder) -> None:
    method = replace(family, epochs=EPOCHS, batch_size=BATCH, learning_rate=5e-3, dead_weight=1e-2)
    source = planted(OUTPUTS)
    found = method.decompose(source, seed=SEED)
    mean, scale = centre_and_scale(source)
    overcomplete_sae()
    from overcomplete.sae.train import train_sae

    with drawing(SEED):
        model: Any = method.model(12, 96)
    if isinstance(method, ArchetypalSAE):
        _, buffers = method.initial(Start(source, 96, mean, scale, SEED))
        model.dictionary.C = buffers["points"]
    optimizer = torch.optim.Adam(model.parameters(), lr=method.learning_rate)
    loader = Prepared(source, mean, scale)
    logs = train_sae(model, loader, criterion(method, model), optimizer, nb_epochs=EPOCHS, clip_grad=1.0)

    print(family, found.notes["final_loss"], logs["avg_loss"][-1])
    assert logs["avg_loss"][-1] < 0.8 * logs["avg_loss"][0]
    assert float(found.notes["final_loss"]) == pytest.approx(logs["avg_loss"][-1], rel=1e-6)
    theirs = {"dictionary": model.get_dictionary()}
    if not isinstance(method, MatchingPursuitSAE):
        linear = next(layer for layer in model.encoder.modules() if isinstance(layer, torch.nn.Linear))
        theirs |= {"encoder_weight": linear.weight, "encoder_bias": linear.bias}
    if isinstance(method, BatchTopKSAE):
        theirs["threshold"] = model.running_threshold.reshape(1)
    if isinstance(method, JumpReLUSAE):
        theirs["threshold"] = torch.exp(model.thresholds)
    assert set(theirs) == set(found.tensors) - {"mean", "scale"}
    for name, tensor in theirs.items():
        gap = float((found.tensors[name] - tensor.detach()).abs().max())
        print(f"{name}: largest gap {gap:.1e}")
        assert gap < 5e-5, name


@dataclass
class Points:
    """A stack of one vector and one number per configuration, drawn to the mean of the tokens."""

    n: int
    parameters: dict[str, Tensor] = field(init=False)
    buffers: dict[str, Tensor] = field(default_factory=dict)
    seen: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.parameters = {"w": torch.zeros(self.n, 12, requires_grad=True), "c": torch.ones(self.n).requires_grad_()}

    def project(self) -> None:
        self.seen.append(self.parameters["w"].detach().clone())

    def losses(self, batch: Activations) -> Tensor:
        w, c = self.parameters["w"], self.parameters["c"]
        return (batch.outputs - c[:, None, None] * (w[:, None] + 1)).square().mean(dim=(1, 2))


def test_cosine_ends_at_about_zero() -> None:
    assert factor("cosine", 0.0) == 1.0
    assert factor("cosine", 0.5) == pytest.approx(0.5)
    assert factor("constant", 0.99) == 1.0
    moved = {}
    for schedule in ("cosine", "constant"):
        stack = Points(1)
        training = Training(5, BATCH, (1e-3,), schedule)
        assert train(stack, planted(OUTPUTS), training, seed=0).steps == 30
        path = torch.stack(stack.seen)
        moved[schedule] = (path[1:] - path[:-1]).abs().amax(dim=(1, 2))
    assert float(moved["cosine"][0]) == pytest.approx(float(moved["constant"][0]))
    ratio = moved["cosine"] / moved["constant"]
    assert ratio.tolist() == pytest.approx([0.5 * (1 + math.cos(math.pi * done / 30)) for done in range(30)], rel=0.2)
    assert float(moved["cosine"][-1]) < 0.01 * float(moved["cosine"][0])


@pytest.mark.parametrize("clip_norm", [0.0, 0.5, 1e9])
def test_each_configurations_gradient_is_clipped_by_itself(clip_norm: float) -> None:
    stack = Points(3)
    optimizer, slices = adam(stack, Training(1, 1, (1e-3, 1e-3, 1e-2)))
    generator = torch.Generator().manual_seed(0)
    gradients = {name: torch.randn(tensor.shape, generator=generator) for name, tensor in stack.parameters.items()}
    gradients["w"][1] *= 1e-3
    gradients["c"][1] *= 1e-3
    step({name: gradient.clone() for name, gradient in gradients.items()}, optimizer, slices, clip_norm)
    for configuration in range(3):
        alone = [torch.nn.Parameter(tensor.detach()[configuration]) for tensor in stack.parameters.values()]
        for parameter, name in zip(alone, stack.parameters, strict=True):
            parameter.grad = gradients[name][configuration].clone()
        if clip_norm:
            torch.nn.utils.clip_grad_norm_(alone, clip_norm)
        for parameter, name in zip(alone, stack.parameters, strict=True):
            (got,) = [
                part.grad[configuration - rows.start]
                for of, rows, part in slices
                if of == name and rows.start <= configuration < rows.stop and part.grad is not None
            ]
            torch.testing.assert_close(got, parameter.grad)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda one: type(one).__name__)
def test_bfloat16_comes_close(family: Autoencoder) -> None:
    losses = {}
    for precision in ("fp32", "bf16"):
        method = replace(family, epochs=40, batch_size=BATCH, learning_rate=5e-3, precision=precision)
        found = method.decompose(planted(OUTPUTS), seed=0)
        losses[precision] = float(found.notes["final_loss"])
        assert {tensor.dtype for tensor in found.tensors.values()} == {torch.float32}
    print(losses)
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.05, abs=2e-3)
    assert losses["bf16"] != losses["fp32"]


class Interrupted(Exception):
    """What comes in the middle of an epoch."""


@contextlib.contextmanager
def interrupted_in(monkeypatch: pytest.MonkeyPatch, epoch: int) -> Iterator[list[int]]:
    """Notes the seeds of the epochs that are read; the one with this number stops after two batches."""
    seeds: list[int] = []
    whole = TensorSource.batches

    def batches(self: TensorSource, size: int, *, seed: int | None = None) -> Iterator[Activations]:
        if seed is not None:
            seeds.append(seed)
        for number, batch in enumerate(whole(self, size, seed=seed)):
            if seed is not None and seed % 100_003 == epoch and number == 2:
                raise Interrupted
            yield batch

    with monkeypatch.context() as patch:
        patch.setattr(TensorSource, "batches", batches)
        yield seeds


def same(a: Decomposition | str, b: Decomposition | str) -> bool:
    if isinstance(a, str) or isinstance(b, str):
        return a == b
    tensors = all(torch.equal(a.tensors[name], b.tensors[name]) for name in a.tensors)
    return tensors and set(a.tensors) == set(b.tensors) and a.notes == b.notes


@pytest.mark.parametrize("family", FAMILIES, ids=lambda one: type(one).__name__)
def test_an_interrupted_training_goes_on_to_the_same_result(
    family: Autoencoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(methods.training, "KEEP_SECONDS", 0.0)
    method = replace(family, epochs=5, batch_size=BATCH, schedule="cosine")
    variations = ((1e-3, 1e-2), (2e-3, math.inf), (3e-3, 1e-2))  # the second diverges
    variants = [replace(method, learning_rate=rate, dead_weight=dead) for rate, dead in variations]
    undisturbed = method.decompose_stack(variants, planted(OUTPUTS), seed=0)
    source = replace(planted(OUTPUTS), keeps=tmp_path)
    with interrupted_in(monkeypatch, epoch=3) as seeds, pytest.raises(Interrupted):
        method.decompose_stack(variants, source, seed=0)
    assert seeds == [0, 1, 2, 3]
    with interrupted_in(monkeypatch, epoch=-1) as seeds:
        resumed = method.decompose_stack(variants, source, seed=0)
    assert seeds == [3, 4]
    assert isinstance(undisturbed[1], str)
    assert [same(a, b) for a, b in zip(undisturbed, resumed, strict=True)] == [True] * 3


def test_a_stack_that_does_not_fit_is_trained_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(methods.training, "KEEP_SECONDS", 0.0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    method = TopKSAE(k=4, epochs=3, batch_size=BATCH)
    variants = [replace(method, learning_rate=rate) for rate in (3e-3, 1e-3, 2e-3)]
    whole = method.decompose_stack(variants, planted(OUTPUTS), seed=0)
    source = replace(planted(OUTPUTS), keeps=tmp_path)
    with interrupted_in(monkeypatch, epoch=2), pytest.raises(Interrupted):
        method.decompose_stack(variants, source, seed=0)
    # Less memory is free when it goes on: what was kept of the large stack is nobody's now.
    parameters, _ = method.initial(Start(source, 96, *centre_and_scale(source), seed=0))
    monkeypatch.setattr(methods.training, "STACK_BYTES", 2 * method.bytes_of_one(parameters, 96))
    parts = method.decompose_stack(variants, source, seed=0)
    assert [part.notes["stack"] for part in parts if isinstance(part, Decomposition)] == [1, 2, 2]
    for one, other in zip(whole, parts, strict=True):
        assert isinstance(one, Decomposition)
        assert isinstance(other, Decomposition)
        for name in one.tensors:
            torch.testing.assert_close(one.tensors[name], other.tensors[name], rtol=1e-5, atol=1e-6)


def test_a_torn_state_is_not_gone_on_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(methods.training, "KEEP_SECONDS", 0.0)
    method = TopKSAE(k=4, epochs=3)
    source = replace(planted(OUTPUTS), keeps=tmp_path)
    with interrupted_in(monkeypatch, epoch=2), pytest.raises(Interrupted):
        method.decompose(source, seed=0)
    (kept,) = tmp_path.iterdir()
    kept.write_bytes(kept.read_bytes()[:1000])
    assert same(method.decompose(source, seed=0), method.decompose(planted(OUTPUTS), seed=0))


@dataclass(frozen=True, eq=False)
class Poisoned(TensorSource):
    """Gives a NaN in one batch of one epoch of training; looks finite to whoever reads it in order."""

    epoch: int = 0
    batch: int = 0

    def batches(self, size: int, *, seed: int | None = None) -> Iterator[Activations]:
        for number, one in enumerate(super().batches(size, seed=seed)):
            if seed == self.epoch and number == self.batch:
                one.outputs[0, 0] = torch.nan
            yield one


@pytest.mark.parametrize("check_steps", [1, 7, 100])
@pytest.mark.parametrize(("epoch", "batch"), [(0, 0), (1, 13), (2, 14), (2, 29)])
def test_the_first_bad_batch_is_named(
    epoch: int, batch: int, check_steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(methods.training, "CHECK_STEPS", check_steps)
    source = Poisoned(None, planted(OUTPUTS).outputs, epoch=epoch, batch=batch)
    where = f"loss: got nan at step {30 * epoch + batch}, epoch {epoch}, batch {batch} of it"
    progress = train(Points(2), source, Training(3, 20, (1e-3, 1e-3)), seed=0)
    assert progress.diverged == {0: where, 1: where}
    assert progress.epoch == epoch + 1  # nothing is left to train
    message = re.escape(f"{where}; expected a finite number; lower learning_rate (0.001)")
    with pytest.raises(FloatingPointError, match=f"^{message}$"):
        TopKSAE(k=4, epochs=3, batch_size=20).decompose(source, seed=0)


@pytest.mark.parametrize("size", [32, 50])
@pytest.mark.parametrize("n", [1000, 1024, 129, 7])
def test_a_large_source_gives_every_token_once(n: int, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.activations, "BLOCK_TOKENS", 16)
    monkeypatch.setattr(bench.activations, "POOL_BYTES", 128 * 4)
    source = TensorSource(None, torch.arange(float(n))[:, None])
    orders = []
    for seed in (0, 0, 1):
        batches = [batch.outputs[:, 0] for batch in source.batches(size, seed=seed)]
        assert [len(batch) for batch in batches[:-1]] == [size] * (-(-n // size) - 1)
        orders.append(torch.cat(batches))
        assert orders[-1].sort().values.tolist() == list(range(n))
    assert torch.equal(orders[0], orders[1])
    if n > 128:
        assert not torch.equal(orders[0], orders[2])
        spread = orders[0][:size].max() - orders[0][:size].min()  # one batch reaches beyond neighbouring blocks
        assert float(spread) > 64
    assert torch.cat([batch.outputs[:, 0] for batch in source.batches(size)]).tolist() == list(range(n))


TRAINS_ON_A_FILE = """
import re, sys
from pathlib import Path
import torch
from bench.activations import TensorSource
from bench.planted import planted
from bench.rows import Rows
from methods.sae import TopKSAE

torch.set_num_threads(1)
TopKSAE(k=4, epochs=1).decompose(planted(frozenset({"outputs"})), seed=0)  # what is imported and cached at first use
array = Rows.of([Path(sys.argv[1])])
source = TensorSource(None, array)
Path("/proc/self/clear_refs").write_text("5")
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024
before = peak()
found = TopKSAE(k=2, epochs=1, batch_size=2048, expansion_factor=8 / array.shape[1]).decompose(source, seed=0)
print(found.notes["steps"], peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_memory_does_not_grow_with_the_source(tmp_path: Path) -> None:
    n, width = 500_000, 768
    path = tmp_path / "outputs.npy"
    np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(n, width)).flush()
    assert path.stat().st_size > 1.5e9
    command = [sys.executable, "-c", TRAINS_ON_A_FILE, str(path)]
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    steps, peak_bytes = map(int, done.stdout.split())
    print(f"peak: {peak_bytes / 1e6:.0f} MB above what was there before")
    assert steps == -(-n // 2048)
    assert peak_bytes < 900e6
