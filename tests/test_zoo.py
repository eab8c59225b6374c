"""Real backbones at their real size, with random weights: sites, preprocessing, exactness, and what records say."""

import gc
import math
import pickle
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import transformers
from large import LARGE
from numpy import ndarray
from PIL import Image
from timm.data import create_transform, resolve_model_data_config
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torchvision import transforms

from bench import UnknownNameError, UsageError, zoo
from bench.backbones import Backbone, BackboneFactory
from bench.datasets import Dataset, InMemory
from bench.dino import DINOv2, interpolated, pool_tokens
from bench.geometry import tensor_of
from bench.heads import headed, needs_head
from bench.image_models import TimmBackbone
from bench.layer_cost import random_parts
from bench.registry import Registry
from bench.sites import Site, paths_of
from bench.vision_towers import HFBackbone
from methods.surgery import disentangle, unwrap

PARTS = 2
SIDES = [(500, 375), (333, 481), (224, 224), (97, 640)]
"""Widths and heights of pictures, some smaller than the squares, some odd."""


def silent(what: str, done: int, total: int) -> None:
    """A report that nobody reads."""


def picture(width: int, height: int) -> Image.Image:
    """Noise over waves: what interpolates badly beside what interpolates well."""
    rng = np.random.default_rng(width)
    y, x = np.mgrid[:height, :width]
    waves = 127 + 100 * np.sin(x / 9 + y / 23)[..., None] * np.array([1.0, -0.5, 0.3])
    return Image.fromarray(np.clip(waves + rng.normal(0, 20, (height, width, 3)), 0, 255).astype(np.uint8))


def dataset(n_classes: int) -> Dataset:
    """Two pictures."""
    pixels = torch.stack([tensor_of(picture(240, 240)), tensor_of(picture(240, 240).rotate(90))])
    split = InMemory(pixels, torch.tensor([0, 1]))
    names = tuple(map(str, range(n_classes)))
    return Dataset("pictures", names, split, split, "0" * 64, "none", "made here")


def factory_of(name: str, **options: Any) -> Any:
    entry = Registry().find("backbones", name)
    return entry.load()(**{**options, **entry.preset})


def with_head(backbone: Backbone, width: int, n_classes: int = 10) -> Backbone:
    """With a random head, since these give features."""
    weight = torch.randn(n_classes, width, generator=torch.Generator().manual_seed(0)) / math.sqrt(width)
    return headed(backbone, {"weight": weight, "bias": torch.zeros(n_classes)})


def assert_keeps_to_the_protocol(factory: Any) -> None:
    assert isinstance(factory, BackboneFactory)


@pytest.fixture(autouse=True)
def _one_at_a_time() -> Iterator[None]:
    """Networks of up to 400 million parameters: what one test held is gone before the next."""
    with torch.no_grad():
        yield
    gc.collect()


LAST = {
    "dinov2_vits14": (1536, 384, 257, ("cls",)),
    "dinov2_vitb14": (3072, 768, 257, ("cls",)),
    "dinov2_vitl14": (4096, 1024, 257, ("cls",)),
    "augreg_vit_b16": (3072, 768, 197, ("cls",)),
    "convnextv2_base": (4096, 1024, 49, ()),
    "siglip2_b16": (3072, 768, 196, ()),
    "llava_onevision": (4304, 1152, 729, ()),
}
"""Of the last site: width in, units, positions; and the tokens before the patches."""


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=LARGE if name in ("dinov2_vitl14", "llava_onevision") else ()) for name in zoo.ROWS],
)
def test_a_backbone_of_table_8_at_its_real_size(name: str) -> None:
    d_in, units, n_positions, prefix = LAST[name]
    factory, row = factory_of(name, checkpoint="random", seed=3), zoo.ROWS[name]
    assert_keeps_to_the_protocol(factory)
    assert factory.content.split(",")[0] == "random"
    assert (factory.missing, factory.warning) == ("", "random weights")
    skeleton = dict(factory.skeleton().named_modules())
    for place in row.places:
        layer = skeleton[place.path]
        assert isinstance(layer, nn.Linear)
        assert layer.weight.shape == (place.units, place.d_in)
        assert layer.weight.is_meta

    is_own = factory.n_classes > 0
    data = dataset(1000 if is_own else 10).seen_by(factory.geometry)
    assert needs_head(factory, 1000) is not is_own
    state = factory.weights(data, silent)
    backbone = factory.assemble(state, data)
    loaded = backbone.module.state_dict()
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[path], tensor) for path, tensor in state.items())
    assert all(bool(tensor.isfinite().all()) for tensor in state.values())
    assert backbone.licence == row.licence
    assert backbone.notes["weights"] == "random, seed 3"
    assert backbone.notes["source"] == row.identifier
    assert backbone.prefix == prefix
    assert len(backbone.fingerprint) == 64

    images = data.test.images(slice(0, 1))
    path, width = row.places[-1].path, 2 * units if "dino" in name else units
    backbone = backbone if is_own else with_head(backbone, width)
    reading = Site(backbone, path).read(images)
    assert reading.inputs.shape == (1, n_positions, d_in)
    assert reading.outputs.shape == (1, n_positions, units)
    assert reading.logits.shape == (1, 1000 if is_own else 10)
    assert reading.logits.std() > 1e-3
    # One image through the layer split into parts, which are asked for: the very logits of the untouched network.
    with disentangle(backbone.module, path, random_parts(units, d_in, PARTS)).asking(torch.arange(4)) as asked:
        logits = backbone.module(backbone.transform(images))
    assert asked.codes is not None
    assert asked.codes.numel() == n_positions * 4
    assert torch.equal(logits, reading.logits)
    assert unwrap(backbone.module) == [path]


@pytest.mark.parametrize("name", zoo.ROWS)
def test_preprocessing_is_the_sources_own(name: str) -> None:
    factory = factory_of(name, checkpoint="random")
    transform, (theirs, mean, std) = transform_of(factory), source_of(factory)
    assert (transform.mean, transform.std) == (tuple(mean), tuple(std))
    for size in SIDES:
        image = picture(*size)
        ours, expected = transform(factory.geometry.of(image)[None])[0], theirs(image)
        assert ours.shape == expected.shape
        assert (ours - expected).abs().max() <= 1e-6


def source_of(factory: Any) -> tuple[Callable[[Image.Image], Tensor], Any, Any]:
    """The source's own preprocessing of a picture, with its mean and standard deviation."""
    if isinstance(factory, TimmBackbone):
        with torch.device("meta"):
            config = resolve_model_data_config(timm.create_model(factory.model))
        return create_transform(**config, is_training=False), config["mean"], config["std"]
    if isinstance(factory, HFBackbone):
        own, side = factory.processor, factory.geometry.side

        def processed(image: Image.Image) -> Tensor:
            pixels: Tensor = own(images=image, return_tensors="pt")["pixel_values"]
            return pixels.reshape(-1, 3, side, side)[0]

        return processed, own.image_mean, own.image_std
    # as dinov2/data/transforms.py, make_classification_eval_transform, has it
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    bicubic = transforms.InterpolationMode.BICUBIC
    steps = [transforms.Resize(256, bicubic), transforms.CenterCrop(224), transforms.ToTensor()]
    return transforms.Compose([*steps, transforms.Normalize(mean, std)]), mean, std


def transform_of(factory: Any) -> Any:
    """What the factory's backbones preprocess with, found without making a network of hundreds of millions."""
    return factory.backbone(nn.Linear(1, 1), {}).transform


def test_every_layer_has_the_papers_label() -> None:
    assert zoo.path_of("dinov2_vitb14", "layer 12") == "blocks.11.mlp.fc2"
    assert zoo.path_of("dinov2_vitl14", "layer 23") == "blocks.22.mlp.fc2"
    assert zoo.path_of("siglip2_b16", "layer 12") == "encoder.layers.11.mlp.fc2"
    assert zoo.path_of("convnextv2_base", "last linear layer of the fourth stage") == "stages.3.blocks.2.mlp.fc2"
    assert zoo.path_of("convnextv2_base", "stage 3 block 27") == "stages.2.blocks.26.mlp.fc2"
    assert zoo.path_of("timm:vit_tiny_patch16_224", "blocks.*.mlp.fc2") == "blocks.*.mlp.fc2"
    with pytest.raises(
        UnknownNameError, match=r"got 'layer 13'; did you mean 'layer [0-9]+'.* 'layer 1' to 'layer 12'"
    ):
        zoo.path_of("dinov2_vitb14", "layer 13")
    skeleton = DINOv2("dinov2_vits14", "random").skeleton()
    assert paths_of(skeleton, "blocks.*.mlp.fc2") == tuple(f"blocks.{i}.mlp.fc2" for i in range(12))
    assert paths_of(skeleton, "blocks.[89].mlp.fc?") == tuple(f"blocks.{i}.mlp.fc{j}" for i in (8, 9) for j in (1, 2))
    assert paths_of(skeleton, "blocks.1.mlp.fc2") == ("blocks.1.mlp.fc2",)
    with pytest.raises(
        UnknownNameError, match=r"module: got 'blocks\.\*\.mlp\.fc3'; did you mean 'blocks\.[0-9]+\.mlp\.fc"
    ):
        paths_of(skeleton, "blocks.*.mlp.fc3")
    with pytest.raises(UnknownNameError, match="only backbones of the catalogue have labels and 'timm:x' is none"):
        zoo.path_of("timm:x", "layer 1")


def test_names_stand_for_backbones(tmp_path: Path) -> None:
    registry = Registry()
    entry = registry.find("backbones", "timm:vit_tiny_patch16_224")
    assert (entry.target, entry.preset) == ("bench.image_models:TimmBackbone", {"model": "vit_tiny_patch16_224"})
    assert registry.find("backbones", "hf:google/any").preset == {"model": "google/any"}
    path = tmp_path / "net.py"
    preset = {"path": str(path), "attribute": "make"}
    assert registry.find("backbones", f"{path}:make").preset == preset
    assert (
        registry.find("backbones", "dinov2_vitb14").summary
        == "DINOv2-B/14, 12 layers, the last of 768 units; Apache-2.0"
    )
    with pytest.raises(UnknownNameError, match="did you mean 'dinov2_vitb14'"):
        registry.find("backbones", "dinov2_vitb")
    with pytest.raises(UnknownNameError):
        registry.find("metrics", "timm:vit_tiny_patch16_224")
    with pytest.raises(ValueError, match=r"model: got 'vit_tinny_patch16_224'.*did you mean 'vit_tiny_patch16_224'"):
        TimmBackbone("vit_tinny_patch16_224")
    with pytest.raises(
        ValueError, match=r"model: got 'test_vit\.nothing', which is a model of timm, but has no weights"
    ):
        TimmBackbone("test_vit.nothing")
    with pytest.raises(ValueError, match="model: got 'dinov2_vitg14'; expected one of dinov2_vits14"):
        DINOv2("dinov2_vitg14")
    with pytest.raises(ValueError, match=r"checkpoint: got 'nowhere\.pth', which is not there"):
        TimmBackbone("test_vit", "nowhere.pth")
    with pytest.raises(ValueError, match=r"takes images in a way that the bench does not know \(crop mode 'squash'"):
        TimmBackbone("dm_nfnet_f0.dm_in1k")
    with pytest.raises(ValueError, match=r"does not know \(1024 x 768 pixels\)"):
        TimmBackbone("vit_base_patch16_sapiens2.fb")


@pytest.mark.parametrize("model", ["test_vit.r160_in1k", "test_convnext.r160_in1k", "test_resnet.r160_in1k"])
def test_any_model_of_timm_with_and_without_its_classifier(model: str) -> None:
    factory = TimmBackbone(model, "random", seed=1)
    data = dataset(factory.n_classes).seen_by(factory.geometry)
    state = factory.weights(data, silent)
    whole = factory.assemble(state, data)
    headless = factory.assemble(state, dataset(10))
    assert factory.features_only(10)
    assert not factory.features_only(factory.n_classes)
    assert replace(factory, classifier="fitted").features_only(factory.n_classes)
    images = whole.transform(data.test.images(slice(None)))
    features, logits = headless.module(images), whole.module(images)
    assert logits.shape == (2, factory.n_classes)
    classifier = whole.module.get_submodule(factory.published["classifier"])
    assert torch.allclose(classifier(features), logits, atol=1e-5)
    sites = [path for path, module in headless.module.named_modules() if isinstance(module, nn.Linear)]
    assert set(sites) <= set(dict(factory.skeleton().named_modules()))
    again = pickle.loads(pickle.dumps(factory))
    assert again == factory
    assert again.assemble(again.weights(data, silent), data).fingerprint == whole.fingerprint


def test_seeds_draw_other_weights_and_nothing_else() -> None:
    state = torch.random.get_rng_state()
    one, same, other = (TimmBackbone("test_vit", "random", seed=seed).weights(dataset(3), silent) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["blocks.0.mlp.fc2.weight"], other["blocks.0.mlp.fc2.weight"])
    scales = DINOv2("dinov2_vits14", "random").weights(dataset(3), silent)["blocks.3.ls1.gamma"]
    assert torch.equal(scales, torch.ones(384))


def test_dinov2_gives_what_transformers_gives() -> None:
    torch.manual_seed(0)
    config = transformers.Dinov2Config(
        hidden_size=48, num_hidden_layers=2, num_attention_heads=3, image_size=56, patch_size=14, layerscale_value=0.7
    )
    theirs = transformers.Dinov2Model(config).eval()
    ours = VisionTransformer(
        img_size=56, patch_size=14, embed_dim=48, depth=2, num_heads=3, num_classes=0, global_pool="", init_values=1.0
    ).eval()
    for parameter in theirs.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    state = theirs.state_dict()
    own = {
        "cls_token": state["embeddings.cls_token"],
        "pos_embed": state["embeddings.position_embeddings"],
        "patch_embed.proj.weight": state["embeddings.patch_embeddings.projection.weight"],
        "patch_embed.proj.bias": state["embeddings.patch_embeddings.projection.bias"],
        "norm.weight": state["layernorm.weight"],
        "norm.bias": state["layernorm.bias"],
    }
    for i, block in enumerate(theirs.encoder.layer):
        attention = block.attention
        for kind in ("weight", "bias"):
            queries = [getattr(part, kind) for part in (attention.q_proj, attention.k_proj, attention.v_proj)]
            own[f"blocks.{i}.attn.qkv.{kind}"] = torch.cat(queries)
            for name, part in (
                ("attn.proj", attention.o_proj), ("norm1", block.norm1), ("norm2", block.norm2),
                ("mlp.fc1", block.mlp.fc1), ("mlp.fc2", block.mlp.fc2),
            ):  # fmt: skip
                own[f"blocks.{i}.{name}.{kind}"] = getattr(part, kind)
        own[f"blocks.{i}.ls1.gamma"] = block.layer_scale1.lambda1
        own[f"blocks.{i}.ls2.gamma"] = block.layer_scale2.lambda1
    ours.load_state_dict(own, strict=True)
    ours.register_forward_hook(pool_tokens)
    images = torch.randn(2, 3, 56, 56)
    tokens = theirs(images).last_hidden_state
    expected = torch.cat([tokens[:, 0], tokens[:, 1:].mean(1)], 1)
    assert torch.allclose(ours(images), expected, atol=1e-5)


def cubic(x: float) -> float:
    """The cubic convolution kernel with a = -0.75, which torch uses (Keys 1981)."""
    x, a = abs(x), -0.75
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def resampling(stored: int, wanted: int) -> ndarray:
    """Which share of each stored position a wanted one takes along one axis, edges repeated."""
    shares: ndarray = np.zeros((wanted, stored))
    for i in range(wanted):
        centre = (i + 0.5) * stored / (wanted + 0.1) - 0.5
        for k in range(math.floor(centre) - 1, math.floor(centre) + 3):
            shares[i, min(max(k, 0), stored - 1)] += cubic(centre - k)
    return shares


@pytest.mark.parametrize(("stored", "wanted"), [(37, 16), (5, 9), (4, 4)])
def test_positions_are_interpolated_as_the_official_code_does_it(stored: int, wanted: int) -> None:
    positions = torch.randn(1, stored**2 + 1, 6, generator=torch.Generator().manual_seed(0))
    found = interpolated(positions, wanted)
    assert torch.equal(found[:, 0], positions[:, 0])
    shares = np.eye(stored) if stored == wanted else resampling(stored, wanted)
    grid = positions[0, 1:].double().numpy().reshape(stored, stored, 6)
    expected = np.einsum("ia,jb,abw->ijw", shares, shares, grid).reshape(-1, 6)
    np.testing.assert_allclose(found[0, 1:].numpy(), expected, atol=1e-5)
    with pytest.raises(UsageError, match="pos_embed: got 11 positions"):
        interpolated(torch.zeros(1, 12, 4), 4)


HUBCONF = """
import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.mlp = nn.Sequential()
        self.mlp.add_module("fc1", nn.Linear(width, 4 * width))
        self.mlp.add_module("fc2", nn.Linear(4 * width, width))

    def forward(self, x):
        return x + self.mlp(x)


class Vision(nn.Module):
    def __init__(self):
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 8))
        self.mask_token = nn.Parameter(torch.zeros(1, 8))
        self.patch = nn.Conv2d(3, 8, 14, 14)
        self.blocks = nn.ModuleList([Block(8), Block(8)])
        self.head = nn.Identity()

    def forward_features(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1)
        for block in self.blocks:
            x = block(x)
        return {"x_norm_clstoken": x[:, 0], "x_norm_patchtokens": x[:, 1:]}

    def forward(self, *args, is_training=False, **kwargs):
        ret = self.forward_features(*args, **kwargs)
        return ret if is_training else self.head(ret["x_norm_clstoken"])


def dinov2_vits14(pretrained=True):
    assert not pretrained
    return Vision()
"""


def test_the_official_code_is_run_from_torch_hubs_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    with pytest.raises(
        ValueError, match=r"code: got 'hub', and there is no .*expected a copy of facebookresearch/dinov2"
    ):
        DINOv2("dinov2_vits14", code="hub")
    folder = tmp_path / "facebookresearch_dinov2_main"
    folder.mkdir()
    (folder / "hubconf.py").write_text(HUBCONF)
    factory = DINOv2("dinov2_vits14", "random", code="hub")
    data = dataset(10).seen_by(factory.geometry)
    backbone = factory.assemble(factory.weights(data, silent), data)
    images = backbone.transform(data.test.images(slice(None)))
    tokens: dict[str, Tensor] = backbone.module.forward_features(images)  # type: ignore[operator]
    expected = torch.cat([tokens["x_norm_clstoken"], tokens["x_norm_patchtokens"].mean(1)], 1)
    assert torch.equal(backbone.module(images), expected)
    assert Site(with_head(backbone, 16), "blocks.1.mlp.fc2").read(data.test.images(slice(None))).logits.shape == (2, 10)
    before = factory.content
    (folder / "more.py").write_text("# another line\n")
    assert factory.content != before
    assert factory.content.startswith("random, code ")
