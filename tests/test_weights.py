"""Weights: found where they are, refused where they are another network's, and never made up unasked."""

import hashlib
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from huggingface_hub import constants
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from bench import UsageError
from bench.backbones import BackboneFactory
from bench.datasets import Dataset, InMemory, Shapes
from bench.dino import DINOv2, interpolated
from bench.heads import headed, needs_head
from bench.image_models import TimmBackbone
from bench.network_files import FileBackbone
from bench.registry import Registry
from bench.replay import Replay
from bench.sites import Site
from bench.vision_towers import HFBackbone
from bench.weights import content_of, given, load_exactly, problem_of, random_state, tensors_of

MODEL = "test_vit.r160_in1k"


def silent(what: str, done: int, total: int) -> None:
    """A report that nobody reads."""


def assert_keeps_to_the_protocol(factory: Any) -> None:
    assert isinstance(factory, BackboneFactory)


@pytest.fixture(autouse=True)
def _own_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty caches, and no way out."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "torch"))


@pytest.fixture(name="data", scope="module")
def _data() -> Dataset:
    return Shapes(n_train=48, n_test=48).load()


@pytest.fixture(name="state", scope="module")
def _state(data: Dataset) -> dict[str, Tensor]:
    return TimmBackbone(MODEL, "random", seed=5).weights(data, silent)


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def put_in_hub(root: Path, repository: str, files: dict[str, dict[str, Tensor]], **texts: str) -> Path:
    """As huggingface_hub keeps what it downloaded."""
    folder = root / "hub" / f"models--{repository.replace('/', '--')}"
    snapshot = folder / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0" * 40)
    for name, tensors in files.items():
        save_file(tensors, snapshot / name)
    for name, text in texts.items():
        (snapshot / name.replace("__", ".")).write_text(text)
    return snapshot


def test_weights_come_from_the_hubs_cache(tmp_path: Path, data: Dataset, state: dict[str, Tensor]) -> None:
    factory = TimmBackbone(MODEL)
    assert factory.content == "absent"
    assert f"model.safetensors of timm/{MODEL} in {tmp_path / 'hub'}" in factory.missing
    snapshot = put_in_hub(tmp_path, f"timm/{MODEL}", {"model.safetensors": state})
    assert factory.missing == ""
    assert factory.content == hashlib.sha256((snapshot / "model.safetensors").read_bytes()).hexdigest()
    assert same(factory.weights(data, silent), state)
    backbone = factory.assemble(factory.weights(data, silent), data)
    assert backbone.notes["weights_sha256"] == factory.content
    assert "weights" not in backbone.notes
    assert factory.warning == ""


def test_what_is_absent_and_cannot_be_had_is_told_once(tmp_path: Path, data: Dataset) -> None:
    hub = tmp_path / "torch" / "checkpoints" / "dinov2_vitb14_pretrain.pth"
    with pytest.raises(UsageError) as raised:
        DINOv2("dinov2_vitb14").weights(data, silent)
    message = str(raised.value)
    assert "HF_HUB_OFFLINE is set" in message
    assert f"dinov2/dinov2_vitb14/dinov2_vitb14_pretrain.pth as {hub}" in message
    assert f"model.safetensors of timm/vit_base_patch14_dinov2.lvd142m in {tmp_path / 'hub'}" in message
    assert "--weights NAME=PATH" in message
    assert "--random-weights" in message
    assert "\n" not in message
    with pytest.raises(UsageError, match=r"google/siglip2-base-patch16-224 has none here and none could be fetched"):
        HFBackbone("google/siglip2-base-patch16-224").weights(data, silent)
    with pytest.raises(UsageError, match=r"backbone: 'some/model' cannot be read .*expected config\.json in a folder"):
        HFBackbone("some/model")


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "backbone."])
@pytest.mark.parametrize("kind", ["file", "folder", "nested", "half"])
def test_a_path_and_what_stands_before_the_names(
    tmp_path: Path, data: Dataset, state: dict[str, Tensor], prefix: str, kind: str
) -> None:
    tensors = {prefix + name: tensor for name, tensor in state.items()}
    if kind in ("file", "folder"):
        save_file(tensors, tmp_path / "model.safetensors")
        place = tmp_path / "model.safetensors" if kind == "file" else tmp_path
    else:
        place = tmp_path / "weights.pth"
        kept = {name: tensor.bfloat16() for name, tensor in tensors.items()} if kind == "half" else tensors
        torch.save({"state_dict": kept, "epoch": 3} if kind == "nested" else kept, place)
    found = TimmBackbone(MODEL, str(place)).weights(data, silent)
    expected = {name: tensor.bfloat16().float() for name, tensor in state.items()} if kind == "half" else state
    assert same(found, expected)


def test_only_the_towers_tensors_are_read_from_shards(tmp_path: Path) -> None:
    tower = {f"encoder.{i}.weight": torch.randn(3, 4) for i in range(4)}
    kept = {f"model.vision_tower.vision_model.{name}": tensor.half() for name, tensor in tower.items()}
    names = list(kept)
    shards = [{names[0]: kept[names[0]], "language_model.weight": torch.zeros(9)}, {n: kept[n] for n in names[1:]}]
    for i, shard in enumerate(shards):
        save_file(shard, tmp_path / f"model-{i}.safetensors")
    weight_map = {name: f"model-{i}.safetensors" for i, shard in enumerate(shards) for name in shard}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    paths = given(str(tmp_path))
    assert [path.name for path in paths] == ["model-0.safetensors", "model-1.safetensors"]
    found = tensors_of(paths, tower)
    assert same(found, {name: tensor.half().float() for name, tensor in tower.items()})
    hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    assert content_of(paths) == hashlib.sha256("".join(hashes).encode()).hexdigest()


def test_a_wrong_checkpoint_names_its_first_tensors(tmp_path: Path, data: Dataset, state: dict[str, Tensor]) -> None:
    path = tmp_path / "model.safetensors"
    lacking = {name: tensor for name, tensor in state.items() if not name.startswith("blocks.1.")}
    save_file({**lacking, "extra": torch.zeros(2)}, path)
    with pytest.raises(
        UsageError, match=r"tensors missing \(blocks.1.*, \.\.\.\); 1 tensors that it does not have \(extra\)"
    ):
        TimmBackbone(MODEL, str(path)).weights(data, silent)
    save_file({**state, "norm.weight": torch.zeros(7)}, path)
    wrong = (
        r"is not test_vit\.r160_in1k: 1 tensors of another shape \(norm.weight \(7,\) for \(64,\)\); .*--random-weights"
    )
    with pytest.raises(UsageError, match=wrong):
        TimmBackbone(MODEL, str(path)).weights(data, silent)
    path.write_bytes(b"no tensors at all")
    with pytest.raises(UsageError, match=r"model.safetensors cannot be read"):
        TimmBackbone(MODEL, str(path)).weights(data, silent)
    pickled = tmp_path / "harmful.pth"
    torch.save(pathlib_of(tmp_path), pickled)
    with pytest.raises(UsageError, match=r"harmful.pth cannot be read"):
        TimmBackbone(MODEL, str(pickled)).weights(data, silent)
    other = nn.Linear(3, 4).state_dict()
    assert problem_of(other, other) == ""
    assert problem_of({**other, "mask": torch.zeros(1)}, other, ["mask"]) == ""


def pathlib_of(path: Path) -> Any:
    """Something that no file of weights should make."""
    return {"where": path}


def test_dinov2s_own_file_fits_and_its_positions_are_brought_to_the_grid(tmp_path: Path, data: Dataset) -> None:
    state = DINOv2("dinov2_vits14", "random", seed=2).weights(data, silent)
    positions = torch.randn(1, 37 * 37 + 1, 384, generator=torch.Generator().manual_seed(0))
    published = {**state, "pos_embed": positions, "mask_token": torch.zeros(1, 384)}
    folder = tmp_path / "torch" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(published, folder / "dinov2_vits14_pretrain.pth")
    factory = DINOv2("dinov2_vits14")
    assert same(factory.weights(data, silent), {**state, "pos_embed": interpolated(positions, 16)})
    head = {"weight": torch.randn(48, 768), "bias": torch.randn(48)}
    torch.save(head, tmp_path / "head.pth")
    headed = DINOv2("dinov2_vits14", head=str(tmp_path / "head.pth"))
    assert not needs_head(headed, 48)
    assert headed.content == f"{factory.content}, head {content_of([tmp_path / 'head.pth'])}"
    weights, seen = headed.weights(data, silent), data.seen_by(headed.geometry)
    images = seen.test.images(slice(0, 2))
    with torch.no_grad():
        plain, whole = (one.assemble(weights, seen) for one in (factory, headed))
        features = plain.module(plain.transform(images))
        expected = nn.functional.linear(features, head["weight"], head["bias"])
        assert torch.allclose(whole.module(whole.transform(images)), expected, atol=1e-4)
    with pytest.raises(UsageError, match=r"head: .*expected a weight of 10 classes x features and a bias"):
        headed.head_of(10)


def test_the_hash_follows_the_file(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.zeros(3)}, path)
    before = content_of([path])
    assert before == hashlib.sha256(path.read_bytes()).hexdigest()
    save_file({"a": torch.ones(4)}, path)
    assert content_of([path]) == hashlib.sha256(path.read_bytes()).hexdigest() != before
    assert content_of([]) == "absent"


def test_identities_hold_the_content_and_no_path(tmp_path: Path, state: dict[str, Tensor]) -> None:
    from bench.cells import Component

    def identity(place: str) -> dict[str, Any]:
        entry = Registry().find("backbones", f"timm:{MODEL}")
        options = {**entry.preset, "checkpoint": place}
        return Component(entry, options, entry.load()(**options)).identity

    for name in ("one", "two"):
        save_file(state, tmp_path / f"{name}.safetensors")
    save_file({**state, "norm.bias": torch.ones(64)}, tmp_path / "three.safetensors")
    one, two, three = (identity(str(tmp_path / f"{name}.safetensors")) for name in ("one", "two", "three"))
    assert one == two
    assert one != three
    assert str(tmp_path) not in str(one)
    assert identity("random")["content"] == "random"


def test_random_states_are_loaded_whole() -> None:
    state = random_state(lambda: nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)), 0)
    module = nn.Sequential(nn.Linear(3, 4))
    load_exactly(module, state)
    assert torch.equal(module.state_dict()["0.weight"], state["0.weight"])
    with pytest.raises(RuntimeError, match=r"Missing key.*0\.bias"):
        load_exactly(module, {"0.weight": state["0.weight"]})


def tiny(folder: Path, kind: str) -> tuple[nn.Module, Any]:
    """A model of transformers with its files, in a folder."""
    torch.manual_seed(0)
    common = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 40}
    if kind == "vit":
        config: Any = transformers.ViTConfig(**common, image_size=32, patch_size=16, num_labels=48)
        model, processor = (
            transformers.ViTForImageClassification(config),
            transformers.ViTImageProcessor(size={"height": 32, "width": 32}),
        )
    elif kind == "dinov2":
        config = transformers.Dinov2Config(**common, image_size=28, patch_size=14)
        model, processor = (
            transformers.Dinov2Model(config),
            transformers.BitImageProcessor(size={"shortest_edge": 37}, crop_size={"height": 28, "width": 28}),
        )
    else:
        vision = {**common, "image_size": 32, "patch_size": 16}
        config = transformers.SiglipConfig(vision_config=vision, text_config={**common, "vocab_size": 50000})
        model, processor = (
            transformers.SiglipModel(config),
            transformers.SiglipImageProcessor(size={"height": 32, "width": 32}),
        )
    model.eval().save_pretrained(folder)
    processor.save_pretrained(folder)
    return model, processor


def features(kind: str, model: Any, pixels: Tensor) -> Tensor:
    """What the published model gives."""
    if kind == "vit":
        logits: Tensor = model(pixels).logits
        return logits
    if kind == "dinov2":
        pooled: Tensor = model(pixels).pooler_output
        return pooled
    tower: Tensor = model.vision_model(pixels).pooler_output
    return tower


@pytest.mark.parametrize("kind", ["vit", "dinov2", "siglip"])
def test_any_vision_model_of_transformers(tmp_path: Path, kind: str) -> None:
    model, processor = tiny(tmp_path, kind)
    factory = HFBackbone(str(tmp_path))
    assert_keeps_to_the_protocol(factory)
    assert needs_head(factory, 48) is (kind != "vit")
    pictures = [Image.fromarray(np.random.default_rng(i).integers(0, 256, (45, 80, 3), np.uint8)) for i in range(2)]
    squares = torch.stack([factory.geometry.of(picture) for picture in pictures])
    split = InMemory(squares, torch.tensor([0, 1]))
    data = Dataset("pictures", tuple(map(str, range(48))), split, split, "0" * 64, "none", "made here")
    backbone = factory.assemble(factory.weights(data, silent), data)
    theirs = processor(images=pictures, return_tensors="pt")["pixel_values"]
    assert (backbone.transform(squares) - theirs).abs().max() <= 1e-6
    with torch.no_grad():
        assert torch.allclose(backbone.module(theirs), features(kind, model, theirs), atol=1e-6)
    if kind != "vit":
        width = backbone.module(theirs).shape[1]
        backbone = headed(backbone, {"weight": torch.randn(48, width), "bias": torch.zeros(48)})
    path = next(
        name for name, module in backbone.module.named_modules() if isinstance(module, nn.Linear) and "fc2" in name
    )
    replay = Replay(Site(backbone, path))
    reading = replay.read(squares)
    assert replay.is_exact
    assert torch.allclose(replay.site.in_float64.read(squares).logits.float(), reading.logits, atol=1e-4)
    assert backbone.prefix == (() if kind == "siglip" else ("cls",))
    assert not any("text" in name for name, _ in backbone.module.named_parameters())
    if kind == "vit":  # with another number of classes: what the classifier would be given
        headless = factory.assemble(factory.weights(data, silent), Shapes(n_train=48, n_test=48).load())
        assert not needs_head(factory, 48)
        others = Dataset("two", ("a", "b"), split, split, "0" * 64, "none", "made here")
        headless = factory.assemble(factory.weights(data, silent), others)
        with torch.no_grad():
            given_to_it = headless.module(theirs)
            logits = backbone.module.get_submodule("classifier")(given_to_it)
            assert torch.allclose(logits, backbone.module(theirs), atol=1e-6)
    assert pickle.loads(pickle.dumps(factory)).content == factory.content


NET = """
from torch import nn

from bench.embedded import EmbeddedViT


class Small(EmbeddedViT):
    pass


def make():
    return nn.Sequential(nn.Conv2d(3, 6, 16, 16), nn.ReLU(), nn.Flatten(), nn.Linear(24, 48))


number = 3
"""


def test_a_network_from_a_file(tmp_path: Path, data: Dataset) -> None:
    path = tmp_path / "net.py"
    path.write_text(NET)
    entry = Registry().find("backbones", f"{path}:make")
    factory = entry.load()(**entry.preset, side=32, resize=0, checkpoint="random")
    assert_keeps_to_the_protocol(factory)
    assert factory.warning == "random weights"
    seen = data.seen_by(factory.geometry)
    backbone = factory.assemble(factory.weights(seen, silent), seen)
    assert Site(backbone, "3").read(seen.test.images(slice(0, 2))).logits.shape == (2, 48)
    again = pickle.loads(pickle.dumps(factory))
    assert again.assemble(again.weights(seen, silent), seen).fingerprint == backbone.fingerprint
    save_file(backbone.module.state_dict(), tmp_path / "net.safetensors")
    loaded = FileBackbone(str(path), "make", str(tmp_path / "net.safetensors"), seed=9, side=32, resize=0)
    assert same(loaded.weights(seen, silent), dict(backbone.module.state_dict()))
    assert not loaded.features_only(48)
    assert FileBackbone(str(path), "make", gives_features=True).features_only(48)
    of_a_class = FileBackbone(str(path), "Small")
    assert_keeps_to_the_protocol(of_a_class)
    assert of_a_class.trained_on_dataset
    assert of_a_class.geometry is None
    assert "blocks.2.mlp.fc2" in dict(of_a_class.skeleton().named_modules())
    before = loaded.content
    path.write_text(NET + "\n# changed\n")
    assert loaded.content != before
    for attribute, message in (("nothing", "which is not there"), ("number", "which is a int")):
        with pytest.raises(ValueError, match=message):
            FileBackbone(str(path), attribute)
    two = Dataset("two", ("a", "b"), seen.train, seen.test, "0" * 64, "none", "made here")
    weights = loaded.weights(seen, silent)
    with pytest.raises(UsageError, match=r"make of .* gives \(1, 48\) for one image; expected \(1, 2\)"):
        loaded.assemble(weights, two)
    with pytest.raises(ValueError, match="path: got '', which is no file"):
        FileBackbone()
