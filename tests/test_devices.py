"""Everything gives the same on another device as on the processor, and 16-bit forward passes change what they should.

There is no GPU where these tests run by default: a made-up one (`elsewhere`) refuses to mix devices as a real one does.
"""

import dataclasses
import shutil
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from elsewhere import Elsewhere, Mixed, There
from references import stream
from test_methods import METHODS
from test_metrics_catalogue import CLASSES, sparse_evaluation
from test_sites import backbone_of, split_of, vit
from torch import Tensor

from bench import UsageError, devices
from bench.activations import TensorSource
from bench.backbones import Backbone
from bench.batches import Batch, SiteBatch
from bench.cache import Cache
from bench.case import case_of
from bench.cells import Cell, Precision
from bench.contract import same_elsewhere
from bench.measuring import Measurement, evaluated
from bench.provenance import device_in_words, provenance
from bench.registry import Registry
from bench.replay import Replay
from bench.sites import Site
from bench.stages import StartWorkshop, Workshop
from bench.subject import Subject
from bench.suites import load_suite
from methods.controls import RandomPartition
from methods.elude import ELUDe
from methods.layer import DisentangledLayer
from methods.seals import seal
from metrics.catalogue import ROWS, Value

CPU = torch.device("cpu")

SUITE = """
description = "every metric of a small network, on two devices"
token_seeds = [42]
init_seeds = [42]
metrics = {metrics}

[[sites]]
label = "shapes"
dataset = {{ name = "shapes", n_train = 200, n_test = 60 }}
backbone = {{ name = "embedded_vit", width = 32, depth = 2, epochs = 2, pool = "token" }}
encoder = {{ name = "embedded_vit", width = 16, depth = 1, epochs = 1 }}
module = "blocks.1.mlp.fc2"

[[methods]]
name = "elude"
min_cluster_size = 4

[[methods]]
name = "topk_sae"
k = 4
epochs = 1

[[methods]]
name = "dnrwcv"
"""


def there(value: Any) -> Any:
    """On the made-up GPU."""
    return {name: there(one) for name, one in value.items()} if isinstance(value, dict) else value.to("cuda")


def same(one: Value, other: Value) -> bool:
    """Whether two values are the same but for rounding, their intervals and reasons too."""

    def near(a: float | None, b: float | None) -> bool:
        return a is b if a is None or b is None else a == pytest.approx(b, rel=1e-6, abs=1e-9)

    facts = (one.n, one.n_excluded, one.reason) == (other.n, other.n_excluded, other.reason)
    return facts and near(one.value, other.value) and near(one.low, other.low) and near(one.high, other.high)


# --- the made-up GPU ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "mixes",
    [
        lambda here, far: far + here,
        lambda here, far: here @ far.T,
        lambda here, far: torch.where(far > 0, here, 0),
        lambda here, far: torch.cat([far, here]),
        lambda here, far: here[far.long()],
        lambda here, far: far.gather(0, here.long()),
        lambda here, far: far.index_add_(0, torch.arange(2), far),
        lambda here, far: torch.stack([far.sum(), here.sum()]),
        lambda here, far: torch.nn.functional.linear(here, far),
        lambda here, far: here.add_(far),
        lambda here, far: torch.randn(2, device=far.device, generator=torch.Generator()),
        lambda here, far: far.cumsum(dim=0),
        lambda here, far: torch.nn.Linear(3, 3).to("cuda")(here),
        lambda here, far: torch.zeros(2, 3, device="cuda").copy_(far).add_(here),
    ],
)
def test_the_made_up_device_refuses_a_mix(mixes: Callable[[Tensor, Tensor], Tensor]) -> None:
    with Elsewhere(), pytest.raises(Mixed):
        mixes(torch.ones(2, 3), torch.ones(2, 3).to("cuda"))


def test_the_made_up_device_computes_what_a_gpu_would() -> None:
    with Elsewhere():
        here = torch.arange(6.0).view(2, 3)
        far = here.to("cuda")
        assert (far.device, far.is_cuda, far.sum().item()) == (torch.device("cuda", 0), True, 15.0)
        assert (torch.zeros_like(far).device, far.new_ones(2).device) == (far.device, far.device)
        assert torch.arange(3, device=far.device).is_cuda
        assert isinstance(far[torch.tensor([1])], There)  # the processor's indices may be used
        assert torch.equal((far * here.sum()).cpu(), here * 15)  # and its single numbers
        far += 1
        assert torch.equal(far.cpu(), here + 1)  # what was moved is a copy
        with pytest.raises(TypeError, match=r"Use Tensor\.cpu\(\) first"):
            far.numpy()


# --- metrics, methods, a whole evaluation ----------------------------------------------------------------------------


@pytest.mark.parametrize("computed_by", CLASSES)
def test_a_metric_gives_the_same_elsewhere(computed_by: str) -> None:
    module, attribute = computed_by.split(":")
    metric = getattr(import_module(module), attribute)
    here = sparse_evaluation()
    expected = stream(metric(here), here)
    with Elsewhere():  # the images' rows, a second run and what was planted stay on the processor, as in the bench
        tensors = {name: there(value) for name, value in vars(here).items() if isinstance(value, Tensor)}
        split = dataclasses.replace(here, **tensors, dictionaries=there(here.dictionaries))
        found = stream(metric(split), split)
    assert {name: same(value, expected[name]) for name, value in found.items()} == dict.fromkeys(expected, True)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_gives_the_same_elsewhere(name: str) -> None:
    method = Registry().find("methods", name).load()
    case = case_of(method(epochs=1) if "epochs" in {one.name for one in dataclasses.fields(method)} else method())
    with Elsewhere():
        same_elsewhere(case, torch.zeros((), device="cuda"))  # raises what differs


@pytest.fixture(name="cells", scope="module")
def some_cells(tmp_path_factory: pytest.TempPathFactory) -> list[Cell]:
    path = tmp_path_factory.mktemp("suite") / "devices.toml"
    dear = {"Efficiency", "Repeatability", "Probes"}  # the made-up device is slow; each is tried by itself above
    rows = [row for row in ROWS.values() if "init_seeds" not in row.needs]
    names = [row.name for row in rows if row.computed_by.split(":")[1] not in dear]
    path.write_text(SUITE.format(metrics=names))
    return list(load_suite(str(path), Registry()).cells)


def quiet(*_: Any) -> None:
    """Say nothing."""


def shop_on(device: str, folder: Path) -> Workshop:
    """A workshop on that device."""
    return Workshop(Registry(), Cache(folder, quiet), quiet, device=device)


def values_of(workshop: Workshop, cells: list[Cell]) -> dict[str, Measurement]:
    """What is measured of the cells, by label."""
    found: dict[str, Measurement] = {}
    for cell, outcome in zip(cells, evaluated(workshop, cells, {}).values(), strict=True):
        assert isinstance(outcome, Measurement), outcome
        found[cell.label] = outcome
    return found


@pytest.fixture(name="here", scope="module")
def a_workshop_here(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return shop_on("cpu", tmp_path_factory.mktemp("here"))


@pytest.fixture(name="measured", scope="module")
def measured_here(here: Workshop, cells: list[Cell]) -> dict[str, Measurement]:
    return values_of(here, cells)


@pytest.fixture(name="far")
def a_workshop_elsewhere(here: Workshop, measured: dict[str, Measurement], tmp_path: Path) -> Workshop:
    """With the backbones and decompositions that were found on the processor; nothing else."""
    for stage in ("backbones", "decompositions"):
        shutil.copytree(here.cache.root / stage, tmp_path / stage)
    return shop_on("cuda", tmp_path)


def test_a_whole_evaluation_gives_the_same_elsewhere(
    far: Workshop, cells: list[Cell], measured: dict[str, Measurement]
) -> None:
    with Elsewhere() as device:
        device.computed.clear()
        found = values_of(far, cells)
    assert {"linear", "scaled_dot_product_attention", "gelu"} <= device.computed
    for label, outcome in measured.items():
        pairs = {name: (value, found[label].values[name]) for name, value in outcome.values.items()}
        assert {name: pair for name, pair in pairs.items() if not same(*pair)} == {}


def test_methods_are_given_what_the_processor_holds(here: Workshop, far: Workshop, cells: list[Cell]) -> None:
    reads = frozenset({"inputs", "outputs", "weight", "images", "labels"})
    spec, rows = cells[0].site, torch.arange(5)
    expected = here.source(spec, 7, reads)
    with Elsewhere():
        found = far.source(spec, 7, reads)  # another token seed, so that it is extracted
        assert found.images is not None
        assert expected.images is not None
        tokens, own_tokens = found.read(slice(None)), expected.read(slice(None))
        names = ("inputs", "outputs", "weight", "bias")
        pairs = [(getattr(tokens, name), getattr(own_tokens, name)) for name in names]
        one, other = found.images.read(rows), expected.images.read(rows)
        pairs += [(one.inputs, other.inputs), (one.outputs, other.outputs)]
        pairs.append((found.images.class_gradients(rows), expected.images.class_gradients(rows)))
        assert [type(far_one) for far_one, _ in pairs] == [Tensor] * len(pairs)
        assert all(torch.allclose(far_one, own, rtol=1e-5, atol=1e-6) for far_one, own in pairs)


# --- names, words, precision -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["mps", "gpu", "cuda:x", "", "cuda:-1"])
def test_a_device_that_is_none_is_refused(device: str) -> None:
    with pytest.raises(UsageError, match=r'--device: got .*; expected "cpu", "cuda" or "cuda:N"; choose'):
        devices.checked(device)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_a_gpu_that_torch_does_not_see_is_told_before_any_work(device: str, tmp_path: Path) -> None:
    start = StartWorkshop((), tmp_path / "cache", device=device)
    with pytest.raises(UsageError, match=rf"--device: got {device}; expected a GPU that torch sees; torch .*no GPU: "):
        start.workshop(quiet, quiet)
    assert not (tmp_path / "cache").exists()


def test_records_say_the_device() -> None:
    assert provenance("cpu") == provenance()
    assert device_in_words("cpu").startswith("cpu, one thread: ")
    assert device_in_words("cuda").startswith("cuda: ")


# --- 16 bit ----------------------------------------------------------------------------------------------------------

BITS = {"bfloat16": 2.0**-8, "float16": 2.0**-11}
"""The most that rounding to each precision changes a number by, as a share of it."""


def networks(pool: str = "avg") -> Backbone:
    """A small timm ViT with weights that are no 16-bit numbers."""
    network = vit(registers=1, pool=pool)
    return backbone_of(network)


@pytest.mark.parametrize("precision", BITS)
def test_a_16_bit_pass_is_read_in_float32_and_near_to_it(precision: str) -> None:
    whole, images = networks(), split_of(6).images(slice(None))
    site, own = (Site(one, "blocks.1.mlp.fc2") for one in (whole.on(CPU, precision), whole))
    assert next(whole.module.parameters()).dtype == torch.float32  # what it is made from stays as it is
    assert site.module.weight.dtype == getattr(torch, precision)
    assert site.backbone.fingerprint == whole.fingerprint
    reading, exact = site.read(images), own.read(images)
    for name, values in vars(reading).items():
        expected = getattr(exact, name)
        assert values.dtype == torch.float32
        assert torch.equal(values, values.to(getattr(torch, precision)).float())  # 16-bit numbers, widened
        # Some forty roundings one after the other, of numbers no larger than the largest.
        assert float((values - expected).abs().max()) <= 40 * BITS[precision] * float(expected.abs().max())
        assert not torch.equal(values, expected)


@pytest.mark.parametrize("precision", BITS)
@pytest.mark.parametrize("path", ["blocks.1.mlp.fc2", "blocks.0.attn.qkv"])
def test_what_is_put_back_in_16_bit_gives_the_untouched_logits(precision: str, path: str) -> None:
    site, images = Site(networks().on(CPU, precision), path), split_of(6).images(slice(None))
    replay = Replay(site)
    reading = replay.read(images)
    assert replay.is_exact
    assert torch.equal(site.logits_with(images, reading.outputs), reading.logits)
    other = reading.outputs + 1e-4  # rounded to the network's dtype where it is put back
    assert torch.equal(replay.logits_with(images, other), site.logits_with(images, other))
    gradients = site.class_gradients(images, torch.zeros(6, dtype=torch.int64))
    assert (gradients.shape, gradients.dtype) == (reading.outputs.shape, torch.float32)


@pytest.mark.parametrize("precision", BITS)
def test_the_layer_in_16_bit_is_exact_and_its_seal_knows_the_network(precision: str) -> None:
    whole, images = networks(), split_of(6).images(slice(None))
    site = Site(whole.on(CPU, precision), "blocks.1.mlp.fc2")
    reading = site.read(images)
    source = TensorSource(reading.inputs.flatten(0, 1), reading.outputs.flatten(0, 1), site.weight, site.bias)
    found = RandomPartition().decompose_like(source, ELUDe(min_cluster_size=4).decompose(source, seed=0), seed=0)
    assert torch.equal(site.weight, Site(whole, site.path).weight)  # what methods split is not rounded
    subject = Subject(site, RandomPartition(), found, 5)
    layer = subject.layer
    assert isinstance(layer, DisentangledLayer)
    assert layer.weight.dtype == getattr(torch, precision)
    layer.merge = "exact"
    with site.swapped(layer) as network:
        assert torch.equal(network(site.backbone.transform(images)).float(), reading.logits)
    strange = dataclasses.replace(found, notes={**found.notes, **seal(site.weight + 1, site.bias)})
    with pytest.raises(ValueError, match="load that checkpoint, or decompose this network"):
        Subject(site, RandomPartition(), strange, 5)
    rows = torch.arange(6)
    batch = Batch(subject, SiteBatch(Replay(site), rows, images, split_of(6)))
    size, gap = batch.outputs.abs().max(), (batch.reconstruction - batch.outputs).abs().max()
    assert 0 < float(gap) <= 40 * BITS[precision] * float(size)
    precise = batch.in_float64  # of the weights before any rounding
    assert torch.equal(precise.subject.site.weight.float(), site.weight)
    assert float((precise.reconstruction - precise.outputs).abs().max()) < 1e-12


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_an_evaluation_in_16_bit_is_another_cell_near_the_same_numbers(
    precision: Precision, here: Workshop, cells: list[Cell], measured: dict[str, Measurement]
) -> None:
    (cell,) = (one for one in cells if one.label == "topk_sae")
    rounded = dataclasses.replace(cell, site=dataclasses.replace(cell.site, precision=precision))
    assert rounded.id != cell.id
    assert here.activations_key(rounded.site, 42) != here.activations_key(cell.site, 42)
    assert here.encoder(rounded.site) is here.encoder(cell.site)
    values, exact = values_of(here, [rounded])["topk_sae"].values, measured["topk_sae"].values
    missing = {name for name, value in values.items() if (value.value is None) != (exact[name].value is None)}
    assert missing == set()
    assert values["top1_untouched"].value == pytest.approx(exact["top1_untouched"].value, abs=5.0)  # 3 of 60 images
    assert values["largest_logit"].value == pytest.approx(exact["largest_logit"].value, rel=0.05)


# --- a real GPU ------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_processors_numbers(
    here: Workshop, cells: list[Cell], measured: dict[str, Measurement], tmp_path: Path
) -> None:
    for stage in ("backbones", "decompositions"):
        shutil.copytree(here.cache.root / stage, tmp_path / stage)
    shop = StartWorkshop((), tmp_path, device="cuda").workshop(quiet, quiet)
    again, found = values_of(shop, cells), values_of(shop, cells)
    for label, outcome in measured.items():
        for name, value in outcome.values.items():
            one, other = found[label].values[name], again[label].values[name]
            assert one.value == pytest.approx(other.value, rel=1e-9), (label, name)  # one device, one number
            if not name.endswith(("_difference", "_difference_float64")):  # those are rounding themselves
                assert one.value == pytest.approx(value.value, rel=0.02, abs=1.0), (label, name)


@pytest.mark.parametrize(("name", "index"), [("cuda", 0), ("cuda:1", 1)])
def test_a_lane_takes_the_gpu_that_it_sees(name: str, index: int, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[Any] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    assert devices.set_up(name).type == "cuda"
    assert taken == [index]  # torch refuses a device without a number


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_is_set_up_and_named() -> None:
    assert devices.set_up("cuda:0") == torch.device("cuda", 0)
    assert not torch.backends.cuda.matmul.allow_tf32
    assert torch.are_deterministic_algorithms_enabled()
    assert device_in_words("cuda").startswith(f"cuda: {torch.cuda.get_device_name()}, compute capability ")
    with pytest.raises(UsageError, match=f"expected one below cuda:{torch.cuda.device_count()}"):
        devices.checked("cuda:99")
