"""The disentangled layer: what goes on downstream never changes, and parts are what one asks for."""

import copy
import io
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import jaxtyping
import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional

from bench.efficiency import AGAIN, BACKBONE, SPLIT, Protocol
from bench.layer_cost import measure_layer, random_parts
from methods.layer import Affine, DisentangledLayer
from methods.parts import Parts, packed, summed_by_unit, summed_in_bags, unpacked
from methods.surgery import disentangle, linear_at, unwrap

DTYPES = [torch.float32, torch.bfloat16, torch.float64, torch.float16]
SUMS = {torch.float32: 3e-6, torch.bfloat16: 3e-2, torch.float64: 1e-14, torch.float16: 4e-3}
"""How far logits may move where the parts are summed, in shares of the largest."""
PATH = "blocks.1.mlp.fc2"


@pytest.fixture(autouse=True)
def _as_the_bench_runs() -> Iterator[None]:
    """Without gradients, and with an error from whatever is not deterministic."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    with torch.no_grad():
        yield
    torch.use_deterministic_algorithms(before)


def small() -> VisionTransformer:
    """The embedded ViT's shape, at random weights."""
    torch.manual_seed(0)
    return VisionTransformer(
        img_size=32, patch_size=8, embed_dim=96, depth=3, num_heads=4, num_classes=10, class_token=False,
        global_pool="avg",
    ).eval()  # fmt: skip


def signed_parts(n_units: int, d_in: int) -> Parts:
    """Every third unit in two parts and a residual that is taken off, as DPCiCNN's; the others whole."""
    generator = torch.Generator().manual_seed(0)
    holds, signs, parents = [], [], []
    for unit in range(n_units):
        own = torch.randint(3, (d_in,), generator=generator)
        split = torch.stack([own != 1, own != 0, own == 2]) if unit % 3 == 0 else torch.ones(1, d_in, dtype=torch.bool)
        holds.append(split.to(torch.uint8))
        signs += [1, 1, -1] if unit % 3 == 0 else [1]
        parents += [unit] * len(split)
    ones = torch.ones(n_units, d_in, dtype=torch.uint8)
    shares = torch.ones(len(signs), dtype=torch.float64)
    return Parts(torch.cat(holds), torch.tensor(parents), ones, shares, torch.tensor(signs))


def batch(dtype: torch.dtype = torch.float32, n: int = 2, side: int = 32) -> Tensor:
    return torch.randn(n, 3, side, side, generator=torch.Generator().manual_seed(1)).to(dtype)


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Equal to the bit, signs of zeros too."""
    integers = {2: torch.int16, 4: torch.int32, 8: torch.int64}[one.itemsize]
    return one.dtype == other.dtype and torch.equal(one.view(integers), other.view(integers))


def gap(one: Tensor, other: Tensor) -> float:
    """Largest difference, in shares of the largest value."""
    return float((one.double() - other.double()).abs().max() / other.double().abs().max())


def check_both_merges(network: nn.Module, path: str, images: Tensor, parts: Parts) -> float:
    """Exact is exact whoever asks, the sum is near, and unwrapping gives the very module back; the sum's gap."""
    plain, before = linear_at(network, path), network(images)
    layer = disentangle(network, path, parts)
    assert same_bits(network(images), before)
    with layer.asking() as all_of_them, layer.steering(torch.tensor([3, 0]), Affine()):
        assert same_bits(network(images), before)
    assert all_of_them.codes is not None
    assert all_of_them.codes.shape[-1] == len(parts.holds)
    assert all_of_them.codes.dtype == before.dtype
    with layer.asking(torch.tensor([5, 1])) as some:
        assert same_bits(network(images), before)
    assert some.codes is not None
    assert gap(some.codes, all_of_them.codes[..., [5, 1]]) <= SUMS[before.dtype]
    assert unwrap(network) == [path]
    assert network.get_submodule(path) is plain
    disentangle(network, path, parts, "sum")
    moved = gap(network(images), before)
    unwrap(network)
    return moved


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("signed", [False, True])
def test_the_embedded_vit_keeps_every_logit(dtype: torch.dtype, signed: bool) -> None:
    parts = signed_parts(96, 384) if signed else random_parts(96, 384, 8)
    moved = check_both_merges(small().to(dtype), PATH, batch(dtype), parts)
    assert 0 < moved <= SUMS[dtype]


@pytest.fixture(scope="module", name="dinov2")
def _dinov2() -> nn.Module:
    """The architecture at full size; LayerScale at 1, since at its initial 1e-5 no layer would matter."""
    torch.manual_seed(0)
    network = timm.create_model(
        "vit_base_patch14_dinov2", pretrained=False, img_size=224, num_classes=1000, init_values=1.0
    )
    nn.init.normal_(network.head.weight, std=0.02)
    return network.eval()  # type: ignore[no-any-return]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_dinov2_keeps_every_logit(dinov2: nn.Module, dtype: torch.dtype, record_property: Callable[..., None]) -> None:
    network, images, path = copy.deepcopy(dinov2).to(dtype), batch(dtype, 1, 224), "blocks.10.mlp.fc2"
    before = network(images)
    with disentangle(network, path, random_parts(768, 3072, 8)).asking() as asked:
        assert same_bits(network(images), before)
    assert asked.codes is not None
    assert asked.codes.shape == (1, 257, 8 * 768)
    unwrap(network)
    disentangle(network, path, random_parts(768, 3072, 8), "sum")
    moved = gap(network(images), before)
    record_property("sum_gap", moved)
    assert 0 < moved <= SUMS[dtype]


def linear(d_in: int = 24, units: int = 6, bias: bool = True, seed: int = 0) -> nn.Linear:
    torch.manual_seed(seed)
    return nn.Linear(d_in, units, bias)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("signed", [True, False])
def test_codes_add_up_to_the_units(bias: bool, signed: bool) -> None:
    plain = linear(bias=bias).double()
    parts = signed_parts(6, 24) if signed else random_parts(6, 24, 5)
    layer = DisentangledLayer(plain, parts)
    inputs = torch.randn(3, 4, 24, dtype=torch.float64)
    codes = layer.codes(inputs)
    by_hand = torch.zeros(3, 4, 6, dtype=torch.float64)
    for atom, unit in enumerate(parts.unit_of_atom.tolist()):
        by_hand[..., unit] += codes[..., atom] * (1 if parts.signs is None else int(parts.signs[atom]))
    assert torch.allclose(by_hand, plain(inputs), atol=1e-13)
    assert torch.allclose(layer.merged(codes), by_hand, atol=1e-14)
    assert torch.equal(codes, functional.linear(inputs, *parts.weights(plain.weight, plain.bias)))


def test_bags_are_sums() -> None:
    codes = torch.randn(3, 5, 14)
    parents = torch.tensor([0, 0, 0, 1, 3, 3, 3, 3, 3, 3, 4, 4, 5, 5])  # unit 2 has no parts
    assert torch.equal(summed_in_bags(codes, parents, 7), summed_by_unit(codes, parents, 7))
    assert torch.equal(summed_in_bags(codes[0, 0], parents, 7), summed_by_unit(codes[0, 0], parents, 7))


@pytest.mark.parametrize("d_in", [1, 7, 8, 17, 384])
def test_masks_survive_packing(d_in: int) -> None:
    mask = torch.randint(2, (5, d_in), dtype=torch.uint8)
    assert packed(mask).shape == (5, -(-d_in // 8))
    assert torch.equal(unpacked(packed(mask), d_in), mask)


@pytest.mark.parametrize("merge", ["exact", "sum"])
def test_a_convolution_is_the_linear_layer_at_every_position(merge: Any) -> None:
    plain, mix = linear(), nn.Conv2d(24, 6, 1)
    mix.load_state_dict({"weight": plain.weight[:, :, None, None], "bias": plain.bias})
    parts = signed_parts(6, 24)
    tokens, maps = DisentangledLayer(plain, parts, merge), DisentangledLayer(mix, parts, merge)
    inputs = torch.randn(2, 24, 5, 3)
    atoms = torch.tensor([7, 0, 2])
    asked_of: list[Tensor | None] = []
    outputs = []
    for layer, values in ((tokens, inputs.movedim(1, -1)), (maps, inputs)):
        with layer.asking(atoms) as asked, layer.steering(atoms, Affine(torch.tensor([2.0, 0.0, -1.0]), 0.5)):
            outputs.append(layer(values))
        asked_of.append(asked.codes)
    assert asked_of[0] is not None
    assert asked_of[1] is not None
    assert outputs[1].shape == (2, 6, 5, 3)
    assert asked_of[1].shape == (2, 3, 5, 3)
    assert torch.allclose(asked_of[1].movedim(1, -1), asked_of[0], atol=1e-6)
    assert torch.allclose(outputs[1].movedim(1, -1), outputs[0], atol=1e-6)
    assert maps.codes(inputs).shape == (2, len(parts.holds), 5, 3)
    if merge == "exact":
        assert same_bits(maps(inputs), mix(inputs))


def test_steering_adds_what_the_edit_changes_and_nothing_else() -> None:
    plain, parts = linear(), signed_parts(6, 24)
    assert parts.signs is not None
    layer = DisentangledLayer(plain, parts)
    inputs = torch.randn(7, 24)
    inputs[0] = 0
    before, codes = layer(inputs), layer.codes(inputs)
    for atom, unit in enumerate(parts.unit_of_atom.tolist()):
        with layer.steering(torch.tensor([atom]), Affine(scale=0.0)):
            after = layer(inputs)
        expected = before.clone()
        expected[:, unit] -= codes[:, atom] * int(parts.signs[atom])
        assert torch.allclose(after, expected, atol=1e-6)
        others = [u for u in range(6) if u != unit]
        assert same_bits(after[:, others], before[:, others])
    assert same_bits(layer(inputs), before)
    # Several atoms, out of order, two of one unit; by a function of the codes, only the strongest token of each.
    atoms = torch.tensor([5, 1, 0])

    def strongest(values: Tensor) -> Tensor:
        return torch.where(values == values.amax(dim=0), 3 * values, values)

    with layer.steering(atoms, strongest):
        after = layer(inputs)
    change = torch.zeros_like(before)
    for atom in atoms.tolist():
        token = int(codes[:, atom].argmax())
        change[token, parts.unit_of_atom[atom]] += 2 * codes[token, atom] * parts.signs[atom]
    assert torch.allclose(after - before, change, atol=1e-5)


def test_only_what_is_asked_for_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = DisentangledLayer(linear(), random_parts(6, 24, 5))
    built: list[int] = []
    weights = DisentangledLayer.weights

    def counted(self: DisentangledLayer, atoms: Tensor | None = None) -> tuple[Tensor, Tensor]:
        found = weights(self, atoms)
        built.append(len(found[0]))
        return found

    monkeypatch.setattr(DisentangledLayer, "weights", counted)
    inputs = torch.randn(7, 24)
    layer(inputs)
    assert built == []
    with layer.steering(torch.tensor([4, 2]), Affine(2.0)):
        layer(inputs)
        assert built == [2]
        with layer.asking():
            layer(inputs)
    assert built == [2, 30]
    tensors = [*layer.parameters(), *layer.buffers()]
    assert sum(tensor.nbytes for tensor in tensors if tensor.dtype.is_floating_point) == 4 * (24 * 6 + 6)


def test_hooks_on_the_layer_itself_still_run() -> None:
    network, seen = small(), []
    network.get_submodule(PATH).register_forward_hook(lambda _module, _args, own: seen.append(own.shape))
    disentangle(network, PATH, random_parts(96, 384, 8))
    network(batch())
    assert len(seen) == 1


def test_state_goes_round_and_checkpoints_of_the_plain_network_load() -> None:
    plain, wrapped, parts = small(), small(), random_parts(96, 384, 8)
    names = set(plain.state_dict())
    disentangle(wrapped, PATH, parts)
    state = wrapped.state_dict()
    assert names < set(state)
    assert {name.rpartition(".")[2] for name in set(state) - names} == {"bits", "unit_of_atom", "divisors", "shares"}
    other = small()
    layer = disentangle(other, PATH, random_parts(96, 384, 8, seed=5))
    other.load_state_dict(state, strict=True)
    assert torch.equal(layer.weights()[0], parts.weights(layer.weight, layer.bias)[0])
    other.load_state_dict({name: 2 * tensor for name, tensor in plain.state_dict().items()}, strict=True)
    assert torch.equal(layer.weight, 2 * plain.get_submodule(PATH).weight)
    assert torch.equal(layer.weights()[0], parts.weights(layer.weight, layer.bias)[0])
    with pytest.raises(RuntimeError, match=r"Unexpected key.*blocks\.1\.mlp\.fc2\.(plain\.)?scale"):
        other.load_state_dict({**plain.state_dict(), f"{PATH}.scale": torch.ones(1)}, strict=True)
    unwrap(other)
    assert set(other.state_dict()) == names


def test_copies_and_files_are_layers_of_their_own() -> None:
    network = small()
    layer = disentangle(network, PATH, random_parts(96, 384, 8))
    before = network(batch())
    file = io.BytesIO()
    torch.save(network, file)
    file.seek(0)
    for other in (copy.deepcopy(network), torch.load(file, weights_only=False)):
        with other.get_submodule(PATH).asking() as asked:
            assert same_bits(other(batch()), before)
        assert torch.equal(asked.codes, layer.codes(captured(network)))
        assert set(other.state_dict()) == set(network.state_dict())
        other.load_state_dict(network.state_dict())
        unwrap(other)
        assert same_bits(other(batch()), before)
    assert isinstance(network.get_submodule(PATH), DisentangledLayer)


def captured(network: nn.Module) -> Tensor:
    """What enters the layer."""
    seen: list[Tensor] = []
    handle = network.get_submodule(PATH).register_forward_hook(lambda _module, args, _own: seen.append(args[0]))
    network(batch())
    handle.remove()
    return seen[0]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_casting_rounds_nothing_but_the_kernel(dtype: torch.dtype) -> None:
    parts = random_parts(6, 24, 7)
    there = DisentangledLayer(linear(), parts, "sum").to(dtype)
    back = copy.deepcopy(there).double()
    fresh = DisentangledLayer(linear().to(dtype).double(), parts, "sum")
    for one, other in zip(back.weights(), fresh.weights(), strict=True):
        assert same_bits(one, other)


@pytest.fixture(name="unchecked")
def _unchecked() -> Iterator[None]:
    """Shapes are not checked at run time: the compiler cannot follow the checks."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


@pytest.mark.parametrize("merge", ["exact", "sum"])
@pytest.mark.usefixtures("unchecked")
def test_compile_sees_one_graph(merge: Any) -> None:
    """What the compiler traces; that it also makes code of that is the next test's, once, since it takes its time."""
    network = nn.Sequential(linear(16, 24), nn.GELU(), linear(), nn.GELU(), linear(6, 3))
    layer = disentangle(network, "2", signed_parts(6, 24), merge)
    inputs = torch.randn(9, 16)
    torch.compiler.reset()
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    assert torch.allclose(compiled(inputs), network(inputs), atol=1e-6)
    for atoms in (None, torch.tensor([9, 4])):
        with layer.asking(atoms) as asked:
            compiled(inputs)
            codes = asked.codes
            network(inputs)
        assert codes is not None
        assert asked.codes is not None
        assert torch.allclose(codes, asked.codes, atol=1e-6)
    with layer.steering(torch.tensor([1, 8]), Affine(0.0, 1.0)):
        steered = compiled(inputs)
        assert torch.allclose(steered, network(inputs), atol=1e-6)
    assert not torch.allclose(steered, network(inputs), atol=1e-3)
    assert torch.allclose(compiled(inputs), network(inputs), atol=1e-6)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.skipif(shutil.which("g++") is None, reason="the compiler needs g++")
def test_the_compiler_makes_code_of_it() -> None:
    plain = linear()
    layer = DisentangledLayer(plain, signed_parts(6, 24), "sum")
    inputs = torch.randn(9, 24)
    torch.compiler.reset()
    with layer.asking() as asked:
        outputs = torch.compile(layer, fullgraph=True)(inputs)
    assert asked.codes is not None
    assert torch.allclose(outputs, plain(inputs), atol=1e-6)
    assert torch.allclose(asked.codes, layer.codes(inputs), atol=1e-6)


@pytest.mark.parametrize(
    ("path", "error", "message"),
    [
        ("1", ValueError, "got '1', which is a GELU; expected a linear layer or a 1x1 convolution; choose one of 0, 3"),
        ("2", ValueError, r"which is a 3x3 convolution with stride 1x1 and 1 group\(s\)"),
        ("4", LookupError, "module: got '4', which is not there; expected a path in it; choose one of 0, 3"),
        ("3", ValueError, "parts: module '3' has a kernel of 5 x 6; expected 6 x 24, which the decomposition is of"),
    ],
)
def test_bad_places_are_named(path: str, error: type[Exception], message: str) -> None:
    network = nn.Sequential(linear(), nn.GELU(), nn.Conv2d(6, 6, 3), nn.Conv2d(6, 5, 1))
    with pytest.raises(error, match=message):
        disentangle(network, path, random_parts(6, 24, 3))
    assert unwrap(network) == []


def test_atoms_are_named_by_a_list_or_a_tensor() -> None:
    layer = DisentangledLayer(linear(), random_parts(6, 24, 2))
    inputs = torch.randn(3, 24, generator=torch.Generator().manual_seed(0))
    with layer.asking([1, 4]) as asked:
        layer(inputs)
    assert asked.codes is not None
    assert same_bits(asked.codes, layer.codes(inputs, torch.tensor([1, 4])))
    with layer.steering([1, 4], Affine(0.0)):
        steered = layer(inputs)
    with layer.steering(torch.tensor([1, 4]), Affine(0.0)):
        assert same_bits(layer(inputs), steered)


@pytest.mark.usefixtures("unchecked")
def test_bad_requests_are_named() -> None:
    network = nn.Sequential(linear())
    parts = random_parts(6, 24, 3)
    with pytest.raises(ValueError, match="merge: got 'cumsum'; expected one of exact, sum"):
        disentangle(network, "0", parts, "cumsum")  # type: ignore[arg-type]
    layer = disentangle(network, "0", parts)
    with pytest.raises(ValueError, match="which is disentangled already"):
        disentangle(network, "0", parts)
    for wrong in ([18], [-1, 2], []):
        atoms = torch.tensor(wrong, dtype=torch.int64)
        with pytest.raises(ValueError, match=rf"atoms: got \{wrong}; expected some from 0 to 17"), layer.asking(atoms):
            pass
    repeated, edit = torch.tensor([2, 2]), Affine()
    with pytest.raises(ValueError, match=r"got \[2, 2\]; expected each once"), layer.steering(repeated, edit):
        pass
    with pytest.raises(ValueError, match="asked for within another asking"), layer.asking(), layer.asking():
        pass
    one = torch.tensor([1])
    with pytest.raises(ValueError, match="steered within"), layer.steering(one, edit), layer.steering(one, edit):
        pass
    assert (layer.asked, layer.steered) == (None, None)


def test_timings_say_what_they_are_of() -> None:
    network = small()
    plain = network.get_submodule(PATH)
    protocol = Protocol(warm_ups=1, runs=2, is_compiled=False)
    found = measure_layer(network, PATH, random_parts(96, 384, 8), batch(), protocol)
    assert network.get_submodule(PATH) is plain
    assert list(found["variants"]) == [BACKBONE, *SPLIT, AGAIN]
    assert found["codes_bytes"] == 2 * 16 * 768 * 4
    assert (found["device"], found["dtype"], found["images"]) == ("cpu", "float32", [2, 3, 32, 32])
    for one in found["variants"].values():
        assert 0 < one["ms_least"] <= one["ms"]
        assert one["ratio"] > 0
        assert one["peak_bytes"] is None
        assert one["reason"] == "the device is a CPU, for which torch counts no allocations"
