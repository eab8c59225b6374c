"""Extraction: one pass for many sites and seeds, bit for bit what each alone gives; interrupted, resumed, refused."""

import errno
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from jaxtyping import Int, UInt8
from PIL import Image
from test_sites import ChannelsLast, Conv, InPlace, Twice, Windows, backbone_of, split_of, vit
from torch import Tensor, nn

from bench import UsageError
from bench.backbones import Backbone
from bench.cache import Cache, Looking, NotCachedError, StorageError
from bench.datasets import InMemory, Split
from bench.evaluation import stream
from bench.extraction import extract, stage, tried
from bench.geometry import BATCHES_AHEAD, Geometry, Seen, ahead
from bench.lanes import quietly
from bench.passes import read_many, sampled_positions
from bench.replay import Replay
from bench.shards import FILLED, Growing, Wanted, stored_bytes
from bench.sites import Site

N_IMAGES, BATCH, PER_IMAGE = 22, 4, 2
PLACES = ("blocks.0.attn.qkv", "blocks.0.mlp.fc1", "blocks.1.mlp.fc2")


@pytest.fixture(autouse=True)
def small_batches_and_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    shrink(monkeypatch.setattr)


def shrink(set_to: Callable[[str, int], None]) -> None:
    """Batches of 4 images, and shards of 8 at the widest of the places."""
    set_to("bench.extraction.BATCH_IMAGES", BATCH)
    set_to("bench.shards.SHARD_BYTES", 2 * BATCH * PER_IMAGE * 48 * 4)


@dataclass(eq=False)
class Counted:
    """A split that notes which images are read; some are beyond reading."""

    split: InMemory
    read: list[int] = field(default_factory=list)
    broken: frozenset[int] = frozenset()

    def __len__(self) -> int:
        return len(self.split)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.split, name)

    def images(self, rows: Int[Tensor, " rows"] | slice) -> UInt8[Tensor, "rows 3 height width"]:
        indices = torch.arange(len(self))[rows].tolist()
        if self.broken.intersection(indices):
            raise OSError(f"image {min(self.broken)} is truncated")
        self.read += indices
        return self.split.images(rows)


class Files(Counted):
    """The same as files of any size would be: one by one."""

    def picture(self, row: int) -> Image.Image:
        pixels = self.images(torch.tensor([row]))[0]
        return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())


def wanted_at(backbone: Backbone, paths: Sequence[str] = PLACES, seeds: Sequence[int] = (42, 7)) -> list[Wanted]:
    return [Wanted(Site(backbone, path), seed, PER_IMAGE) for path in paths for seed in seeds]


def keys_of(wanted: Sequence[Wanted]) -> list[dict[str, Any]]:
    return [{"path": one.site.path, "seed": one.token_seed, "stored": one.stored} for one in wanted]


def staged(root: Path, wanted: Sequence[Wanted], split: Split, report: Any = quietly) -> list[Path]:
    return stage(Cache(root, lambda text: None), wanted, keys_of(wanted), split, report)


def content(folder: Path) -> dict[str, np.ndarray]:
    """The arrays of an entry, shards put together."""
    whole = {name: [np.load(path) for path in sorted(folder.glob(f"{name}-*.npy"))] for name in ("inputs", "outputs")}
    return {name: np.concatenate(parts) for name, parts in whole.items()} | {"tokens": np.load(folder / "tokens.npy")}


def by_hand(one: Wanted, split: Split) -> dict[str, np.ndarray]:
    """Image by image and token by token, of whole readings in the same batches."""
    found: dict[str, list[np.ndarray]] = {"inputs": [], "outputs": [], "tokens": []}
    n = len(split)
    kept = one.site.kept(one.site.read(split.images(slice(0, 1))).outputs.shape[1])
    positions = sampled_positions(n, kept, one.per_image, one.token_seed)
    for start in range(0, n, BATCH):
        reading = one.site.read(split.images(slice(start, start + BATCH)))
        for image in range(start, min(start + BATCH, n)):
            for position in positions[image].tolist():
                found["inputs"].append(reading.inputs[image - start, position].numpy())
                found["outputs"].append(reading.outputs[image - start, position].numpy())
                found["tokens"].append(np.array([image, position]))
    return {name: np.stack(rows) for name, rows in found.items()}


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "with registers": (lambda: vit(registers=2), "blocks.0.mlp.fc2"),
    "pooled": (lambda: vit(registers=2), "head"),
    "channels first": (Conv, "mix"),
    "channels last": (ChannelsLast, "mix"),
    "work in place": (InPlace, "mix"),
}


@pytest.mark.parametrize("what", NETWORKS)
def test_entries_hold_what_is_read_token_by_token(tmp_path: Path, what: str) -> None:
    make, path = NETWORKS[what]
    (one,) = wanted_at(backbone_of(make()), [path], [42])
    split = split_of(N_IMAGES)
    (folder,) = staged(tmp_path, [one], split)
    assert same(content(folder), by_hand(one, split))
    rows = [len(np.load(file, mmap_mode="r")) for file in sorted(folder.glob("outputs-*.npy"))]
    assert len(set(rows[:-1])) <= 1
    assert rows[-1] <= rows[0]


def test_many_sites_and_seeds_are_each_what_it_is_alone(tmp_path: Path) -> None:
    wanted = wanted_at(backbone_of(vit(registers=2)), (*PLACES, "head"), (42, 7, 1))
    split = Counted(split_of(N_IMAGES))
    together = staged(tmp_path / "together", wanted, split)
    assert len(split.read) == N_IMAGES + 2  # two images show what the sites look like
    for one, folder in zip(wanted, together, strict=True):
        (alone,) = staged(tmp_path / "alone", [one], split.split)
        assert same(content(folder), content(alone))
        assert (folder / "manifest.json").exists()
    assert not list((tmp_path / "together" / "unfinished" / "activations").iterdir())
    several = content(together[0])["outputs"], content(together[1])["outputs"]
    assert not np.array_equal(*several)
    assert len(list(together[0].glob("outputs-*.npy"))) == 3


def test_half_precision_is_the_rounded_value_and_sizes_are_as_said(tmp_path: Path) -> None:
    one = wanted_at(backbone_of(vit()), seeds=[42])[1]
    folders = staged(tmp_path, [one, replace(one, stored="float16")], split_of(N_IMAGES))
    single, half = content(folders[0]), content(folders[1])
    assert half["inputs"].dtype == half["outputs"].dtype == np.float16
    assert np.array_equal(half["inputs"], single["inputs"].astype(np.float16))
    assert np.array_equal(half["outputs"], single["outputs"].astype(np.float16))
    for folder, stored in zip(folders, ("float32", "float16"), strict=True):
        heads = 128 * len(list(folder.glob("*.npy")))
        size = sum(path.stat().st_size for path in folder.glob("*.npy"))
        assert size == heads + stored_bytes(N_IMAGES * PER_IMAGE, one.site.d_in, one.site.units, stored)  # type: ignore[arg-type]


def test_a_value_beyond_half_precision_is_refused(tmp_path: Path) -> None:
    backbone = backbone_of(vit())
    (one,) = wanted_at(backbone, [PLACES[1]], [42])
    assert one.site.module.bias is not None
    one.site.module.bias.data.fill_(70_000.0)
    staged(tmp_path, [one], split_of(N_IMAGES))
    with pytest.raises(UsageError, match=r"stored: got float16, and an activation of 7e\+04 at 'blocks.0.mlp.fc1'"):
        staged(tmp_path, [replace(one, stored="float16")], split_of(N_IMAGES))


def test_what_stands_behind_the_last_site_does_not_run(tmp_path: Path) -> None:
    backbone = backbone_of(vit())
    calls: dict[str, int] = {}
    for path in ("blocks.0.mlp.fc1", "blocks.0.mlp.act", "blocks.1", "head"):
        count = lambda _module, _args, path=path: calls.update({path: calls.get(path, 0) + 1})  # noqa: E731
        backbone.module.get_submodule(path).register_forward_pre_hook(count)
    staged(tmp_path, wanted_at(backbone, PLACES[:2]), split_of(N_IMAGES))
    assert calls == {"blocks.0.mlp.fc1": 1 + 6, "blocks.0.mlp.act": 1, "blocks.1": 1, "head": 1}


class Shared(nn.Module):
    """Three layers that are given the same tensor, which is changed in place before the third."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.head = (nn.Linear(3, 3) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(2).movedim(1, -1).contiguous()
        found: Tensor = self.q(x) + self.k(x)
        x.mul_(2)
        logits: Tensor = self.head((found + self.v(x)).mean(dim=1))
        return logits


def test_what_several_sites_are_given_is_copied_once_unless_it_was_changed_meanwhile() -> None:
    backbone, images = backbone_of(Shared()), split_of(3, 4).images(slice(None))
    sites = [Site(backbone, path) for path in "qkv"]
    taken = read_many(backbone, sites, images)
    assert taken[0].inputs is taken[1].inputs
    assert torch.equal(taken[2].inputs, 2 * taken[0].inputs)
    for site, one in zip(sites, taken, strict=True):
        reading = site.read(images)
        assert torch.equal(one.inputs, reading.inputs)
        assert torch.equal(one.outputs, reading.outputs)
    with torch.inference_mode():
        again = read_many(backbone, sites, images)
    assert all(torch.equal(a.inputs, b.inputs) for a, b in zip(again, taken, strict=True))


class Never(Twice):
    """Has a layer that it does not run."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3))


@pytest.mark.parametrize(
    ("make", "message"),
    [(Twice, "'layer' ran 2 times"), (Never, "'layer' ran 0 times"), (Windows, "'layer' gave 8 outputs for 2 images")],
)
def test_layers_that_are_no_sites_are_refused_and_nothing_is_kept(
    tmp_path: Path, make: Callable[[], nn.Module], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        staged(tmp_path, wanted_at(backbone_of(make()), ["layer"]), split_of(N_IMAGES))
    assert not (tmp_path / "activations").exists()
    with pytest.raises(ValueError, match="dataset: its probing split is empty"):
        staged(tmp_path, wanted_at(backbone_of(vit())), split_of(0))


def stops_at(image: int, act: Callable[[], None]) -> Callable[[str, int, int], None]:
    """A report that does something once that image is begun."""
    return lambda what, done, total: act() if done == image else None


def fail() -> None:
    raise RuntimeError("stopped")


def test_an_interrupted_pass_goes_on_at_the_first_missing_shard(tmp_path: Path) -> None:
    wanted, split = wanted_at(backbone_of(vit())), Counted(split_of(N_IMAGES))
    with pytest.raises(RuntimeError, match="stopped"):
        staged(tmp_path, wanted, split, stops_at(12, fail))
    assert not (tmp_path / "activations").exists()
    split.read.clear()
    folders = staged(tmp_path, wanted, split)
    assert split.read == [0, 1, *range(8, N_IMAGES)]
    whole = staged(tmp_path / "undisturbed", wanted, split.split)
    assert all(same(content(a), content(b)) for a, b in zip(folders, whole, strict=True))
    split.read.clear()
    assert staged(tmp_path, wanted, split) == folders
    assert split.read == []


def test_only_what_is_missing_is_extracted(tmp_path: Path) -> None:
    wanted, split = wanted_at(backbone_of(vit())), split_of(N_IMAGES)
    staged(tmp_path, wanted[:2], split)
    with pytest.raises(RuntimeError, match="stopped"):
        staged(tmp_path, wanted[2:4], split, stops_at(20, fail))
    seen: list[int] = []
    folders = staged(tmp_path, wanted, split, lambda what, done, total: seen.append(done))
    assert seen[0] == 0  # those of the last site have nothing yet
    assert all(same(content(folder), by_hand(one, split)) for folder, one in zip(folders, wanted, strict=True))
    assert staged(tmp_path, [wanted[0], wanted[0]], split) == [folders[0]] * 2
    looking = Looking(tmp_path, print)
    assert stage(looking, wanted, keys_of(wanted), split, quietly) == folders
    with pytest.raises(NotCachedError):
        stage(looking, wanted, [{"another": index} for index in range(len(wanted))], split, quietly)


def die_at(image: int, root: Path) -> None:
    """In a process of its own: extract, and be killed."""

    def set_to(name: str, value: int) -> None:
        module, _, attribute = name.rpartition(".")
        setattr(__import__(module, fromlist=[attribute]), attribute, value)

    shrink(set_to)
    kill = stops_at(image, lambda: os.kill(os.getpid(), signal.SIGKILL))
    staged(root, wanted_at(backbone_of(vit())), split_of(N_IMAGES), kill)


def test_a_killed_process_loses_no_finished_shard(tmp_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=die_at, args=(20, tmp_path / "killed"))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    wanted, split = wanted_at(backbone_of(vit())), Counted(split_of(N_IMAGES))
    unfinished = tmp_path / "killed" / "unfinished" / "activations"
    assert len(list(unfinished.glob("*/shard-00001.json"))) == len(wanted)
    folders = staged(tmp_path / "killed", wanted, split)
    assert split.read == [0, 1, *range(16, N_IMAGES)]
    whole = staged(tmp_path / "undisturbed", wanted, split.split)
    assert all(same(content(a), content(b)) for a, b in zip(folders, whole, strict=True))
    assert not list(unfinished.iterdir())


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(b"half")])
def test_a_shard_that_is_not_whole_is_missing(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    wanted, split = wanted_at(backbone_of(vit()), [PLACES[1]], [42]), Counted(split_of(N_IMAGES))
    with pytest.raises(RuntimeError):
        staged(tmp_path, wanted, split, stops_at(20, fail))
    (shard,) = tmp_path.glob("unfinished/*/*/entry/outputs-00001.npy")
    damage(shard)
    split.read.clear()
    (folder,) = staged(tmp_path, wanted, split)
    assert split.read == [0, 1, *range(8, N_IMAGES)]
    assert same(content(folder), by_hand(wanted[0], split.split))


def test_two_who_want_overlapping_entries_extract_them_once(tmp_path: Path) -> None:
    wanted, split = wanted_at(backbone_of(vit())), Counted(split_of(N_IMAGES))
    found: dict[str, list[Path]] = {}
    both = [
        threading.Thread(target=lambda: found.update(one=staged(tmp_path, wanted, split))),
        threading.Thread(target=lambda: found.update(other=staged(tmp_path, wanted[::-1], split))),
    ]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert found["one"] == found["other"][::-1]
    assert len(split.read) == N_IMAGES + 2


def test_too_little_disk_is_said_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted, split = wanted_at(backbone_of(vit()), PLACES[:2]), Counted(split_of(N_IMAGES))
    needed = 2 * sum(stored_bytes(N_IMAGES * PER_IMAGE, 12, units, "float32") for units in (36, 48))
    usage = SimpleNamespace(free=needed - 1)
    monkeypatch.setattr("bench.extraction.shutil", SimpleNamespace(disk_usage=lambda folder: usage))
    message = r"--cache: .* has [\d.e-]+ GB free, and the activations \(4 sites and seeds\) take"
    with pytest.raises(StorageError, match=message) as told:
        staged(tmp_path, wanted, split)
    assert "\n" not in str(told.value)
    assert "give another with --cache" in str(told.value)
    assert split.read == [0, 1]
    usage.free = needed
    with pytest.raises(RuntimeError, match="stopped"):
        staged(tmp_path, wanted, split, stops_at(20, fail))
    usage.free = needed // 2  # what is there already takes no more room
    assert len(staged(tmp_path, wanted, split)) == 4


def test_a_disk_that_fills_up_meanwhile_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted, split = wanted_at(backbone_of(vit())), split_of(N_IMAGES)
    with monkeypatch.context() as patch:

        def full(growing: Growing, raw: bytes) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        patch.setattr(Growing, "write", full)
        with pytest.raises(StorageError, match=r"--cache: cannot write .*: the disk is full"):
            staged(tmp_path, wanted, split)
    assert not (tmp_path / "activations").exists()
    assert same(content(staged(tmp_path, wanted, split)[0]), by_hand(wanted[0], split))


def test_an_image_that_cannot_be_decoded_ends_the_pass_and_nothing_counts_as_done(tmp_path: Path) -> None:
    wanted, whole = wanted_at(backbone_of(vit())), split_of(N_IMAGES)
    files = Files(whole, broken=frozenset([13]))
    split = Seen(files, Geometry(16), n_threads=3)
    before = threading.active_count()
    with pytest.raises(OSError, match="image 13 is truncated"):
        staged(tmp_path, wanted, split)
    assert threading.active_count() == before
    assert not (tmp_path / "activations").exists()
    files.broken = frozenset()
    folders = staged(tmp_path, wanted, split)
    assert all(same(content(a), by_hand(one, whole)) for a, one in zip(folders, wanted, strict=True))


def test_decoding_ahead_keeps_the_order_and_holds_a_few_batches() -> None:
    whole = split_of(40)
    files = Files(whole, broken=frozenset([30]))
    due = [torch.arange(start, start + BATCH) for start in range(0, 40, BATCH)]
    coming = ahead(Seen(files, Geometry(16), n_threads=2), iter(due))
    for handed in range(1, 8):
        rows, pixels = next(coming)
        assert torch.equal(pixels, whole.pixels[rows])
        assert len(files.read) <= (handed + BATCHES_AHEAD) * BATCH
    with pytest.raises(OSError, match="image 30"):
        next(coming)
    assert [rows.tolist() for rows, _ in ahead(whole, due)] == [rows.tolist() for rows in due]


def test_images_in_memory_are_read_when_they_are_asked_for_without_threads() -> None:
    split, before = Counted(split_of(40)), threading.active_count()
    for rows, _ in ahead(split, torch.arange(40).split(BATCH)):
        assert split.read[-1] == int(rows[-1])
        assert threading.active_count() == before


def test_evaluation_sees_the_same_of_files_as_of_memory() -> None:
    site, whole = Site(backbone_of(vit()), PLACES[2]), split_of(300)
    rows = torch.randperm(300, generator=torch.Generator().manual_seed(0))
    seen = Seen(Files(whole), Geometry(16), n_threads=2)
    both = [list(stream(Replay(site), split, rows, None, quietly, "")) for split in (whole, seen)]
    assert [len(batch.images) for batch in both[0]] == [256, 44]
    for a, b in zip(*both, strict=True):
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.outputs, b.outputs)
        assert torch.equal(a.logits, b.logits)
    assert list(stream(Replay(site), whole, rows[:0], None, quietly, "")) == []


def test_what_is_run_at_once_follows_from_the_widest_layer_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone, images = backbone_of(vit()), split_of(2).images(slice(None))
    sites = [Site(backbone, path) for path in (PLACES[0], "head")]
    monkeypatch.setattr("bench.extraction.BATCH_IMAGES", 256)
    assert tried(sites, images) == (256, [5, 1])
    monkeypatch.setattr("bench.extraction.BATCH_BYTES", 20 * 5 * 48 * 4)  # 5 tokens of 48 units, and room for 20 images
    assert tried(sites, images)[0] == 16
    monkeypatch.setattr("bench.extraction.BATCH_BYTES", 1)
    assert tried(sites, images)[0] == 1


def test_the_draws_are_those_of_one_generator_in_blocks() -> None:
    kept, generator = torch.tensor([0, 3, 4, 5, 6]), torch.Generator().manual_seed(9)
    order = [torch.rand(n, 5, generator=generator).argsort(dim=1)[:, :2] for n in (4096, 4096, 808)]
    assert torch.equal(sampled_positions(9000, kept, 2, 9), kept[torch.cat(order).sort(dim=1).values])


def test_folders_that_are_given_hold_what_their_notes_say(tmp_path: Path) -> None:
    wanted = wanted_at(backbone_of(vit()), PLACES[:2], [42])
    folders = [tmp_path / str(index) for index in range(len(wanted))]
    for folder in folders:
        folder.mkdir()
    for folder, files in zip(folders, extract(wanted, folders, split_of(N_IMAGES), quietly), strict=True):
        there = {path.name: path.stat().st_size for path in (folder / FILLED).iterdir()}
        assert there.pop("tokens.npy")
        assert {name: facts["bytes"] for name, facts in files.items()} == there
