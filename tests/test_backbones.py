"""Backbones: training repeats bit for bit, weights survive their file, and any module can become one."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from timm.models.convnext import ConvNeXt
from timm.models.deit import VisionTransformerDistilled
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from bench.backbones import Backbone, BackboneFactory, fingerprint_of, prefix_of
from bench.datasets import Dataset, Shapes
from bench.embedded import EmbeddedViT, to_unit_range

TINY = EmbeddedViT(width=16, depth=2, heads=2, epochs=2, learning_rate=3e-3)


def silent(what: str, done: int, total: int) -> None:
    """A report that nobody reads."""


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return Shapes(n_train=200, n_test=100).load()


@pytest.fixture(scope="module")
def weights(dataset: Dataset) -> dict[str, Tensor]:
    return TINY.weights(dataset, silent)


def logits(backbone: Backbone, dataset: Dataset) -> Tensor:
    output = backbone.module(backbone.transform(dataset.test.images(slice(0, 50))))
    assert isinstance(output, Tensor)
    return output


def test_training_twice_gives_the_same_bits(dataset: Dataset, weights: dict[str, Tensor]) -> None:
    torch.rand(7)  # the caller's random state must not matter
    n_threads = torch.get_num_threads()
    torch.set_num_threads(2)  # nor the number of threads it runs with
    try:
        again = TINY.weights(dataset, silent)
    finally:
        torch.set_num_threads(n_threads)
    assert again.keys() == weights.keys()
    assert all(torch.equal(again[name].view(torch.int32), weights[name].view(torch.int32)) for name in weights)


def test_another_seed_gives_other_weights(dataset: Dataset, weights: dict[str, Tensor]) -> None:
    other = EmbeddedViT(width=16, depth=2, heads=2, epochs=2, learning_rate=3e-3, seed=1).weights(dataset, silent)
    assert not torch.equal(other["blocks.0.mlp.fc2.weight"], weights["blocks.0.mlp.fc2.weight"])


def test_training_leaves_the_callers_state_alone(dataset: Dataset) -> None:
    torch_state, n_threads = torch.get_rng_state(), torch.get_num_threads()
    backbone = TINY.assemble(TINY.weights(dataset, silent), dataset)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert torch.get_num_threads() == n_threads
    assert torch.is_grad_enabled()
    assert not any(parameter.requires_grad for parameter in backbone.module.parameters())


def test_training_learns_and_reports_every_step(dataset: Dataset) -> None:
    seen: list[tuple[str, int, int]] = []
    factory = EmbeddedViT(width=32, depth=1, heads=2, epochs=30, learning_rate=3e-3)
    backbone = factory.assemble(factory.weights(dataset, lambda *step: seen.append(step)), dataset)
    n_total = 30 * 4  # 200 images in batches of 64
    assert seen == [("training the backbone", step, n_total) for step in range(1, n_total + 1)]
    train = dataset.train
    predicted = backbone.module(backbone.transform(train.images(slice(None)))).argmax(1)
    assert (predicted == train.labels).float().mean() > 5 / 48  # five times chance


def test_a_diverging_loss_names_epoch_and_step(dataset: Dataset) -> None:
    diverging = EmbeddedViT(width=16, depth=1, heads=2, epochs=3, learning_rate=1e30)
    with pytest.raises(FloatingPointError, match=r"loss: (nan|inf) at epoch \d, step \d.*lower learning_rate"):
        diverging.weights(dataset, silent)


def test_weights_survive_their_file_bit_for_bit(dataset: Dataset, weights: dict[str, Tensor], tmp_path: Path) -> None:
    save_file(weights, tmp_path / "weights.safetensors")
    one, other = TINY.assemble(weights, dataset), TINY.assemble(load_file(tmp_path / "weights.safetensors"), dataset)
    assert torch.equal(logits(one, dataset).view(torch.int32), logits(other, dataset).view(torch.int32))
    assert one.fingerprint == other.fingerprint
    assert logits(one, dataset).shape == (50, 48)


def test_weights_of_another_size_are_refused(dataset: Dataset, weights: dict[str, Tensor]) -> None:
    with pytest.raises(RuntimeError, match="size mismatch"):
        EmbeddedViT(width=32, depth=2, heads=2).assemble(weights, dataset)
    with pytest.raises(RuntimeError, match="Missing key"):
        EmbeddedViT(width=16, depth=3, heads=2).assemble(weights, dataset)


def test_fingerprint_sees_one_bit_of_one_weight(dataset: Dataset, weights: dict[str, Tensor]) -> None:
    nudged = {name: tensor.clone() for name, tensor in weights.items()}
    value = nudged["blocks.1.mlp.fc2.bias"]
    value[3] = torch.nextafter(value[3], torch.tensor(1e9))
    assert TINY.assemble(weights, dataset).fingerprint != TINY.assemble(nudged, dataset).fingerprint


def test_fingerprint_sees_names_dtypes_shapes_and_preprocessing() -> None:
    def holder(name: str, tensor: Tensor) -> nn.Module:
        module = nn.Module()
        module.register_buffer(name, tensor)
        return module

    zeros = torch.zeros(4)
    prints = [
        fingerprint_of(holder("a", zeros), "none"),
        fingerprint_of(holder("a", zeros), "halved"),
        fingerprint_of(holder("b", zeros), "none"),
        fingerprint_of(holder("a", zeros.view(2, 2)), "none"),
        fingerprint_of(holder("a", zeros.int()), "none"),
        fingerprint_of(holder("a", torch.zeros(8, dtype=torch.bfloat16)), "none"),
        fingerprint_of(holder("a", torch.tensor(0.0)), "none"),
    ]
    assert len(set(prints)) == len(prints)
    assert fingerprint_of(holder("a", torch.zeros(2, 4).T), "") == fingerprint_of(holder("a", torch.zeros(4, 2)), "")


@pytest.mark.parametrize(("pool", "prefix"), [("avg", ()), ("token", ("cls",))])
def test_the_embedded_vit_has_its_sites_and_prefix(dataset: Dataset, pool: str, prefix: tuple[str, ...]) -> None:
    factory = EmbeddedViT(width=24, depth=2, heads=3, epochs=1, pool="avg" if pool == "avg" else "token")
    assert isinstance(factory, BackboneFactory)
    backbone = factory.assemble(factory.weights(dataset, silent), dataset)
    assert backbone.prefix == prefix
    for block in range(2):
        site = backbone.module.get_submodule(f"blocks.{block}.mlp.fc2")
        assert isinstance(site, nn.Linear)
        assert (site.in_features, site.out_features) == (96, 24)
    assert not backbone.module.training
    assert backbone.notes["n_parameters"] == sum(p.numel() for p in backbone.module.parameters())


@pytest.mark.parametrize(("pool", "reach"), [("avg", 16), ("token", 1)])
def test_which_tokens_of_the_last_block_reach_the_logits(dataset: Dataset, pool: str, reach: int) -> None:
    """Why the default averages: with a class token, what the last MLP writes to the patches changes no prediction."""
    factory = EmbeddedViT(width=16, depth=2, heads=2, epochs=1, pool="avg" if pool == "avg" else "token")
    backbone = factory.assemble(factory.weights(dataset, silent), dataset)
    outputs: list[Tensor] = []

    def keep(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        outputs.append(output.requires_grad_())

    backbone.module.get_submodule("blocks.1.mlp.fc2").register_forward_hook(keep)
    (gradient,) = torch.autograd.grad(logits(backbone, dataset).square().sum(), outputs)
    assert (gradient.abs().amax(dim=(0, 2)) > 0).sum() == reach


def test_prefix_of_timm_networks() -> None:
    small = {"img_size": 32, "patch_size": 16, "embed_dim": 8, "depth": 1, "num_heads": 2, "num_classes": 3}
    assert prefix_of(VisionTransformer(**small, reg_tokens=4)) == ("cls",) + ("register",) * 4
    assert (
        prefix_of(VisionTransformer(**small, reg_tokens=2, class_token=False, global_pool="avg")) == ("register",) * 2
    )
    assert prefix_of(VisionTransformer(**small, class_token=False, global_pool="avg")) == ()
    assert prefix_of(Eva(**small, num_reg_tokens=2)) == ("cls", "register", "register")
    assert prefix_of(Eva(**small, class_token=False, global_pool="avg")) == ()
    assert prefix_of(ConvNeXt(depths=(1,) * 4, dims=(8,) * 4, num_classes=3)) == ()
    with pytest.raises(ValueError, match=r"VisionTransformerDistilled has 2 prefix tokens.*prefix=\("):
        prefix_of(VisionTransformerDistilled(**small))


def test_prefix_order_is_the_order_of_the_sequence() -> None:
    vit = VisionTransformer(
        img_size=32, patch_size=16, embed_dim=8, depth=1, num_heads=2, num_classes=3, reg_tokens=4, no_embed_class=True
    )
    with torch.no_grad():
        vit.pos_embed.zero_()
        vit.cls_token.fill_(5.0)
        vit.reg_token.copy_(torch.arange(4.0)[None, :, None].expand(1, 4, 8))
        tokens = vit._pos_embed(torch.full((1, 2, 2, 8), 9.0) if vit.dynamic_img_size else torch.full((1, 4, 8), 9.0))
    assert tokens[0, :, 0].tolist() == [5.0, 0.0, 1.0, 2.0, 3.0, 9.0, 9.0, 9.0, 9.0]
    assert prefix_of(vit) == ("cls", "register", "register", "register", "register")


def test_any_module_makes_a_backbone() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(12, 5))
    backbone = Backbone.of("flat", module, to_unit_range, preprocessing="rgb / 127.5 - 1", notes={"from": "a test"})
    images = torch.randint(0, 256, (6, 3, 2, 2), dtype=torch.uint8)
    first, second = (backbone.module(backbone.transform(images)) for _ in range(2))
    assert torch.equal(first, second)  # eval mode: nothing is dropped
    assert not first.requires_grad
    assert backbone.prefix == ()
    assert backbone.notes == {"n_parameters": 65, "from": "a test"}
    assert backbone.fingerprint == fingerprint_of(module, "rgb / 127.5 - 1")
    with pytest.raises(ValueError, match=r"prefix: received \['dist'\]"):
        Backbone.of("flat", module, to_unit_range, preprocessing="", prefix=("cls", "dist"))


def test_unit_range_maps_the_ends_and_the_middle() -> None:
    levels = torch.tensor([0, 255], dtype=torch.uint8)[:, None, None, None].expand(2, 3, 1, 1)
    assert to_unit_range(levels)[:, 0, 0, 0].tolist() == [-1.0, 1.0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 5}, "heads: received 5; expected a divisor of width=96"),
        ({"epochs": 0}, "epochs: received 0; expected at least 1"),
    ],
)
def test_bad_options_say_what_was_expected(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EmbeddedViT(**options)  # type: ignore[arg-type]


def test_a_patch_that_does_not_divide_the_image_is_refused(dataset: Dataset) -> None:
    with pytest.raises(ValueError, match="patch: received 5; expected a divisor of the images' side, 32"):
        EmbeddedViT(patch=5).weights(dataset, silent)


@pytest.mark.parametrize("epochs", [1, 2, 9, 10, 11])
def test_a_training_may_have_any_number_of_steps(epochs: int) -> None:
    tiny, few = EmbeddedViT(width=16, depth=1, heads=2, epochs=epochs), Shapes(n_train=48, n_test=48).load()
    assert all(bool(value.isfinite().all()) for value in tiny.weights(few, silent).values())
