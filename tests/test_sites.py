"""Sites and activations: any module, any linear layer or 1x1 convolution, read and replaced as by hand."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from bench import UsageError
from bench.activations import TensorSource, opened
from bench.backbones import Backbone, prefix_of
from bench.batches import Batch, SiteBatch
from bench.datasets import InMemory
from bench.extraction import extract
from bench.lanes import quietly
from bench.passes import sampled_positions
from bench.replay import Replay
from bench.shards import FILLED, Wanted
from bench.sites import Site, find_layer
from bench.subject import Subject
from methods.controls import Backbone as NeuronBasis
from methods.controls import RandomPartition
from methods.elude import ELUDe
from methods.protocol import Activations, Codes, Decomposition


class Conv(nn.Module):
    """A small network whose site is a 1x1 convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 10, 4, stride=4)
        self.mix = nn.Conv2d(10, 6, 1)
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        maps: Tensor = torch.relu(self.mix(torch.relu(self.stem(x))))
        logits: Tensor = self.head(maps.mean(dim=(2, 3)))
        return logits


class ChannelsLast(Conv):
    """The same with a linear layer on a channels-last map."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(10, 6)  # type: ignore[assignment]

    def forward(self, x: Tensor) -> Tensor:
        maps: Tensor = torch.relu(self.mix(torch.relu(self.stem(x)).movedim(1, -1)))
        logits: Tensor = self.head(maps.mean(dim=(1, 2)))
        return logits


class Twice(nn.Module):
    """Runs one layer twice in a forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        pooled: Tensor = self.layer(self.layer(x.mean(dim=(2, 3))))
        return pooled


class InPlace(Conv):
    """Changes what enters and what leaves the site after it ran."""

    def forward(self, x: Tensor) -> Tensor:
        before = self.stem(x)
        maps = self.mix(before)
        before += 1
        maps.relu_()
        logits: Tensor = self.head(maps.mean(dim=(2, 3)))
        return logits


class Windows(nn.Module):
    """Puts four windows of each image in the place of images."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        windows: Tensor = self.layer(x.unfold(2, 8, 8).unfold(3, 8, 8).mean(dim=(-1, -2)).movedim(1, -1).reshape(-1, 3))
        return windows.reshape(len(x), 4, 3).mean(dim=1)


def to_float(images: Tensor) -> Tensor:
    return images.float() / 255


def vit(*, registers: int = 0, pool: str = "token") -> VisionTransformer:
    return VisionTransformer(
        img_size=16,
        patch_size=8,
        embed_dim=12,
        depth=2,
        num_heads=2,
        num_classes=5,
        global_pool=pool,
        reg_tokens=registers,
    )


def backbone_of(module: nn.Module) -> Backbone:
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.2)
    return Backbone.of("any", module, to_float, preprocessing="x / 255", prefix=prefix_of(module))


def batch_of(subject: Subject, split: InMemory) -> Batch:
    everything = torch.arange(len(split))
    return Batch(subject, SiteBatch(Replay(subject.site), everything, split.images(everything), split))


def split_of(n: int, side: int = 16) -> InMemory:
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(256, (n, 3, side, side), generator=generator, dtype=torch.uint8)
    return InMemory(pixels, torch.randint(5, (n,), generator=generator), {})


CASES: dict[str, tuple[Callable[[], nn.Module], str, int, int, int]] = {
    "vit": (lambda: vit(), "blocks.1.mlp.fc2", 48, 12, 5),
    "vit with registers": (lambda: vit(registers=2), "blocks.1.mlp.fc2", 48, 12, 7),
    "convolution": (Conv, "mix", 10, 6, 16),
    "channels last": (ChannelsLast, "mix", 10, 6, 16),
    "pooled": (Conv, "head", 6, 5, 1),
}


@pytest.fixture(params=CASES, name="case")
def any_case(request: pytest.FixtureRequest) -> tuple[Site, int]:
    make, path, d_in, units, positions = CASES[request.param]
    site = Site(backbone_of(make()), path)
    assert (site.d_in, site.units) == (d_in, units)
    return site, positions


def test_outputs_are_weight_times_inputs_plus_bias(case: tuple[Site, int]) -> None:
    site, positions = case
    reading = site.read(split_of(4).images(slice(None)))
    assert reading.inputs.shape == (4, positions, site.d_in)
    assert reading.outputs.shape == (4, positions, site.units)
    assert site.bias is not None
    assert torch.allclose(reading.inputs @ site.weight.T + site.bias, reading.outputs, atol=1e-5)


def test_replacing_outputs_by_themselves_changes_nothing(case: tuple[Site, int]) -> None:
    site, _ = case
    images = split_of(4).images(slice(None))
    reading = site.read(images)
    assert torch.equal(site.logits_with(images, reading.outputs), reading.logits)
    assert not torch.allclose(site.logits_with(images, reading.outputs * 2), reading.logits)


def test_a_disentangled_layer_in_the_network_gives_the_same_logits(case: tuple[Site, int]) -> None:
    site, _ = case
    split = split_of(60)
    reading = site.read(split.images(slice(None)))
    inputs, outputs = reading.inputs.flatten(0, 1), reading.outputs.flatten(0, 1)
    source = TensorSource(inputs.clone(), outputs.clone(), site.weight, site.bias)
    leader = ELUDe(top_k=0.5, min_cluster_size=2).decompose(source, seed=0)
    for method, found in (
        (ELUDe(), leader),
        (RandomPartition(), RandomPartition().decompose_like(source, leader, seed=0)),
    ):
        assert found.n_atoms > site.units
        layer = method.layer(found, site.weight, site.bias)
        before = site.backbone.module.get_submodule(site.path)
        with site.swapped(layer) as network:
            assert network.get_submodule(site.path) is not before
            logits = network(site.backbone.transform(split.images(slice(None))))
        assert site.backbone.module.get_submodule(site.path) is before
        assert torch.allclose(logits, reading.logits, atol=1e-4)
        # Swapping the layer in and replacing the outputs by the decoded codes are two ways to one result.
        codes = method.encode(found, Activations(inputs, outputs, site.weight, site.bias))
        decoded = method.decode(found, codes).reshape(reading.outputs.shape)
        assert torch.allclose(site.logits_with(split.images(slice(None)), decoded), logits, atol=1e-5)


def test_positions_are_known_by_kind() -> None:
    site = Site(backbone_of(vit(registers=2)), "blocks.0.mlp.fc1")
    assert site.kinds(7) == ("cls", "register", "register", "patch", "patch", "patch", "patch")
    assert site.kept(7).tolist() == [0, 3, 4, 5, 6]
    assert Site(backbone_of(Conv()), "mix").kinds(4) == ("patch",) * 4
    assert Site(backbone_of(Conv()), "head").kinds(1) == ("pooled",)


def test_registers_are_replaced_but_not_studied() -> None:
    site = Site(backbone_of(vit(registers=2)), "blocks.0.mlp.fc2")
    subject = Subject(site, NeuronBasis(), NeuronBasis().decompose(TensorSource(None, torch.zeros(2, 12)), seed=0), 5)
    split = split_of(3)
    batch = batch_of(subject, split)
    assert batch.codes.shape == batch.outputs.shape == (3, 5, 12)
    assert torch.equal(batch.replaced_logits, batch.logits)


@dataclass(frozen=True)
class Summing(NeuronBasis):
    """Sums each unit over an image, and notes how many positions it was given."""

    reads: ClassVar[frozenset[str]] = frozenset({"outputs", "images"})
    seen: list[int] = field(default_factory=list)

    def encode(self, decomposition: Decomposition, activations: Activations) -> Codes:
        assert activations.image_of_token is not None
        n_images, width = int(activations.image_of_token.max()) + 1, activations.outputs.shape[1]
        whole = activations.outputs.view(n_images, -1, width)
        self.seen.append(whole.shape[1])
        return whole.sum(dim=1, keepdim=True).expand_as(whole).reshape(-1, width)


@pytest.mark.parametrize(("registers", "seen"), [(0, [5]), (2, [5, 7])])
def test_a_method_of_whole_images_sees_no_registers_and_encodes_no_more_than_it_must(
    registers: int, seen: list[int]
) -> None:
    site = Site(backbone_of(vit(registers=registers)), "blocks.0.mlp.fc2")
    method = Summing()
    subject = Subject(site, method, method.decompose(TensorSource(None, torch.zeros(2, 12)), seed=0), 5)
    split = split_of(3)
    batch = batch_of(subject, split)
    assert torch.equal(batch.codes, batch.outputs.sum(dim=1, keepdim=True).expand_as(batch.outputs))
    assert batch.reconstruction.shape == (3, 5, 12)
    assert method.seen == seen


@pytest.mark.parametrize(
    ("module", "path", "message"),
    [
        (Conv(), "mixx", r"module: got 'mixx'; did you mean 'mix'\? expected one of head, mix"),
        (Conv(), "stem", "module: got 'stem', which is a 4x4 convolution with stride 4.*choose one of mix, head"),
        (vit(), "blocks.0.norm1", "which is a LayerNorm; expected a linear layer or a 1x1 convolution"),
        (Conv(), "", "module: got '', which is a Conv; expected a linear layer"),
    ],
)
def test_bad_paths_are_named(module: nn.Module, path: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        find_layer(module, path)


def test_a_layer_that_runs_twice_is_refused() -> None:
    site = Site(backbone_of(Twice()), "layer")
    with pytest.raises(UsageError, match="'layer' ran 2 times in one forward pass; expected once"):
        site.read(split_of(2).images(slice(None)))


def test_what_was_read_survives_work_in_place() -> None:
    site = Site(backbone_of(InPlace()), "mix")
    reading = site.read(split_of(4).images(slice(None)))
    assert site.bias is not None
    assert torch.allclose(reading.inputs @ site.weight.T + site.bias, reading.outputs, atol=1e-5)
    assert float(reading.outputs.min()) < 0


def test_a_layer_over_windows_is_refused() -> None:
    site = Site(backbone_of(Windows()), "layer")
    with pytest.raises(UsageError, match="'layer' gave 8 outputs for 2 images"):
        site.read(split_of(2).images(slice(None)))


def test_logits_that_are_not_the_classes_are_refused() -> None:
    site = Site(backbone_of(Conv()), "mix")
    found = NeuronBasis().decompose(TensorSource(None, torch.zeros(2, 6)), seed=0)
    split = split_of(2)
    with pytest.raises(UsageError, match="'any' gives 5 logits; expected 7, one per class"):
        _ = batch_of(Subject(site, NeuronBasis(), found, 7), split).logits


def test_sampled_positions_are_seeded_distinct_and_never_registers() -> None:
    kept = torch.tensor([0, 3, 4, 5, 6])
    drawn = sampled_positions(9000, kept, 2, 42)
    assert torch.equal(drawn, sampled_positions(9000, kept, 2, 42))
    assert not torch.equal(drawn, sampled_positions(9000, kept, 2, 123))
    assert bool((drawn[:, 0] < drawn[:, 1]).all())
    assert set(drawn.unique().tolist()) == {0, 3, 4, 5, 6}
    counts = torch.bincount(drawn.flatten(), minlength=7)[kept].double()
    assert float((counts / 3600 - 1).abs().max()) < 0.08
    assert torch.equal(sampled_positions(5000, kept, 2, 42), drawn[:5000])
    assert sampled_positions(3, kept, 9, 0).shape == (3, 5)


def test_extraction_holds_exactly_the_sampled_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.extraction.BATCH_IMAGES", 4)
    site = Site(backbone_of(vit(registers=2)), "blocks.1.mlp.fc2")
    split = split_of(10)
    steps: list[tuple[str, int, int]] = []
    extract([Wanted(site, 42, 2)], [tmp_path], split, lambda *step: steps.append(step))
    assert steps[-1] == ("images", 10, 10)
    tokens = np.load(tmp_path / FILLED / "tokens.npy")
    assert tokens[:, 0].tolist() == [i for i in range(10) for _ in range(2)]
    expected = sampled_positions(10, torch.tensor([0, 3, 4, 5, 6]), 2, 42).flatten()
    assert tokens[:, 1].tolist() == expected.tolist()
    reading = site.read(split.images(slice(None)))
    source = opened(tmp_path / FILLED, site, split, quietly)
    assert source.n_tokens == 20
    found = source.read(slice(None))
    assert torch.allclose(found.outputs, reading.outputs[tokens[:, 0], tokens[:, 1]], atol=1e-5)
    assert torch.allclose(found.needed_inputs(), reading.inputs[tokens[:, 0], tokens[:, 1]], atol=1e-5)
    rows = torch.tensor([5, 0, 19])
    assert torch.equal(source.read(rows).outputs, found.outputs[rows])
    shuffled = torch.cat([batch.outputs for batch in source.batches(6, seed=3)])
    assert not torch.equal(shuffled, found.outputs)
    assert torch.equal(shuffled.sort(dim=0).values, found.outputs.sort(dim=0).values)
    assert torch.equal(torch.cat([batch.outputs for batch in source.batches(6)]), found.outputs)


def test_methods_get_only_what_they_declare(tmp_path: Path) -> None:
    site = Site(backbone_of(Conv()), "mix")
    extract([Wanted(site, 0, 2)], [tmp_path], split_of(3), quietly)
    tokens = opened(tmp_path / FILLED, site, split_of(3), quietly).only(frozenset({"outputs"})).read(slice(None))
    assert tokens.inputs is None
    assert tokens.weight is None
    assert tokens.bias is None
