"""Images in folders: the same as torchvision's, stable, and nothing that changed goes unnoticed."""

import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from made_images import CLASSES, N_TEST, N_TRAIN, image_folder, picture
from PIL import Image
from test_sites import Conv, backbone_of
from torch.nn import functional
from torchvision import datasets as reference

from bench import UsageError
from bench.backbones import Backbone
from bench.batches import SiteBatch
from bench.cells import Component
from bench.datasets import Dataset, DatasetFactory, Split, labels_of
from bench.geometry import Geometry, Pictures, Seen
from bench.image_files import ImageFolder, listed
from bench.pictures import ChangedError, OnDisk, UnreadableError, decoded
from bench.registry import Registry
from bench.replay import Replay
from bench.sites import Site
from bench.slices import Some, sampled


@pytest.fixture(autouse=True)
def _listed_anew() -> Iterator[None]:
    """What a process lists once is listed anew in each test."""
    listed.cache_clear()
    yield
    listed.cache_clear()


@pytest.fixture(name="root")
def some_root(tmp_path: Path) -> Path:
    return image_folder(tmp_path / "images")


def again(factory: DatasetFactory) -> Dataset:
    """What another process would load."""
    listed.cache_clear()
    return factory.load()


def split_of(dataset: Dataset) -> OnDisk:
    assert isinstance(dataset.train, OnDisk)
    return dataset.train


def test_classes_order_labels_and_pixels_are_those_of_torchvision(root: Path) -> None:
    """Nested folders, upper-case endings, files that are no images and names beyond ASCII too."""
    odd = root / "train" / "bee"
    for name in ("z.PNG", "sub-a/1.png", "sub/9.png", "sub/deep/0.webp", "zoë.png", "notes.txt"):
        (odd / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("txt"):
            (odd / name).write_text("no image")
        else:
            picture(5, len(name), 0).save(odd / name, lossless=True)
    dataset = ImageFolder(root=str(root)).load()
    for split, name in ((dataset.train, "train"), (dataset.test, "val")):
        theirs = reference.ImageFolder(str(root / name))
        assert isinstance(split, OnDisk)
        assert dataset.classes == tuple(theirs.classes)
        assert labels_of(split).tolist() == theirs.targets
        assert [split.name(row) for row in range(len(split))] == [
            str(Path(path).relative_to(root)) for path, _ in theirs.samples
        ]
        for row in range(len(split)):
            assert np.array_equal(np.asarray(split.picture(row)), np.asarray(theirs[row][0]))
    assert len(dataset.train) == 3 * N_TRAIN + 5


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "RGBA", "LA", "1", "I;16"])
def test_other_modes_become_rgb_as_torchvisions_loader_makes_them(mode: str, tmp_path: Path) -> None:
    image = picture(0, 1, 2)
    image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16)) if mode == "I;16" else image.convert(mode)
    path = tmp_path / ("image.jpg" if mode == "CMYK" else "image.png")
    image.save(path)
    ours = decoded(path.read_bytes(), path.name)
    assert ours.mode == "RGB"
    assert np.array_equal(np.asarray(ours), np.asarray(reference.folder.default_loader(str(path))))


def test_exif_does_not_turn_an_image(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: a quarter turn
    picture(0, 0, 0).save(tmp_path / "turned.png", exif=exif)
    assert decoded((tmp_path / "turned.png").read_bytes(), "turned.png").size == picture(0, 0, 0).size


def test_it_keeps_the_contract_of_a_data_set(root: Path) -> None:
    factory = Registry().find("datasets", "image_folder").load()(root=str(root), side=16)
    assert isinstance(factory, DatasetFactory)
    dataset = factory.load()
    for split, n in ((dataset.train, N_TRAIN), (dataset.test, N_TEST)):
        assert isinstance(split, Split)
        assert isinstance(split, Pictures)
        assert len(split) == n * len(CLASSES)
        whole = split.images(slice(None))
        assert whole.shape == (len(split), 3, 16, 16)
        assert torch.equal(split.images(torch.tensor([5, 0, 7])), whole[[5, 0, 7]])
        assert split.images(slice(3, 3)).shape == (0, 3, 16, 16)
    assert again(factory).fingerprint == dataset.fingerprint


def test_an_encoder_sees_the_files_its_own_way(root: Path) -> None:
    """Whatever squares the backbone is given: the encoder's are made from the files again, not from those."""

    def network(geometry: Geometry | None) -> Backbone:
        return replace(backbone_of(Conv()), geometry=geometry)

    rows = torch.tensor([5, 0, 7])
    for side in (None, 16):  # files with squares of their own are for networks that take what comes
        dataset = ImageFolder(root=str(root), side=side or 0).load()
        own, other = Geometry(24, resize=32), Geometry(16, interpolation="bilinear")
        split = dataset.seen_by(own).train
        for geometry in (own, other, *([None] if side else [])):
            encoder = network(geometry)
            shared = SiteBatch(Replay(Site(network(own), "mix")), rows, split.images(rows), split, encoder)
            expected = encoder.embeddings(dataset.seen_by(geometry).train.images(rows))
            assert torch.equal(shared.embeddings, expected)
        assert not torch.equal(shared.embeddings, encoder.embeddings(split.images(rows)))


def test_threads_and_backbones_see_the_same_squares(root: Path) -> None:
    """A side of its own is the geometry of a backbone that has none; a backbone with one does not look at it."""
    dataset = ImageFolder(root=str(root), side=16).load()
    rows = torch.randperm(len(dataset.train), generator=torch.Generator().manual_seed(0))
    expected = dataset.train.images(rows)
    as_it_comes = dataset.seen_by(None, n_threads=4).train
    assert isinstance(as_it_comes, Seen)
    assert as_it_comes.n_threads == 4
    assert torch.equal(as_it_comes.images(rows), expected)
    geometry = Geometry(24, resize=32)
    seen, bare = (one.seen_by(geometry).train for one in (dataset, ImageFolder(root=str(root)).load()))
    assert torch.equal(seen.images(rows), bare.images(rows))
    assert torch.equal(seen.images(rows[:1])[0], geometry.of(split_of(dataset).picture(int(rows[0]))))


def test_people_see_the_same_field_of_view_in_more_pixels(root: Path) -> None:
    """Each pixel that the network is given is the mean of four of theirs, but for what resizing blurs."""
    seen = ImageFolder(root=str(root)).load().seen_by(Geometry(24, resize=32, interpolation="bilinear")).test
    assert isinstance(seen, Seen)
    rows = torch.arange(len(seen))
    given, shown = seen.images(rows).float(), seen.at_least(48).images(rows).float()
    assert shown.shape[-2:] == (48, 48)
    shrunk = functional.avg_pool2d(shown, 2)
    difference = (shrunk - given).abs().mean()
    other = (shrunk.roll(1, 0) - given).abs().mean()
    turned = (shrunk.flip(-1) - given).abs().mean()
    assert difference < 4 < 20 < min(turned, other)
    assert torch.equal(seen.at_least(10).images(rows), seen.images(rows))


def test_images_of_several_sizes_need_a_side(root: Path, tmp_path: Path) -> None:
    train = ImageFolder(root=str(root)).load().train
    assert train.images(torch.tensor([0, 3])).shape == (2, 3, 48, 40)
    message = r"side: got 0, and train/ant/000.JPEG is 40 x 48, train/ant/001.JPEG 56 x 40; .*; set side of the data"
    with pytest.raises(UsageError, match=message):
        train.images(slice(0, 2))


@pytest.mark.parametrize("change", ["replaced", "removed", "added", "renamed"])
def test_a_changed_folder_is_another_data_set(change: str, root: Path) -> None:
    factory = ImageFolder(root=str(root), side=16)
    before = factory.load()
    content, one = factory.content, root / "train" / "ant" / "001.JPEG"
    if change == "replaced":
        one.write_bytes(one.read_bytes() + b"\0")
    elif change == "removed":
        one.unlink()
    elif change == "added":
        shutil.copy(one, one.with_name("100.JPEG"))
    else:
        one.rename(one.with_name("001b.JPEG"))
    if change != "added":
        how = "has 1[0-9]{3} bytes where 1[0-9]{3} were listed" if change == "replaced" else "is gone"
        message = f"image: train/ant/001.JPEG {how}; expected it as it was when .* run the same command again"
        with pytest.raises(ChangedError, match=message):
            before.train.images(torch.tensor([0, 1]))
    after = again(factory)
    assert after.fingerprint != before.fingerprint
    assert factory.content != content


def test_where_the_folder_is_and_what_splits_are_called_is_no_part_of_the_identity(root: Path, tmp_path: Path) -> None:
    entry = Registry().find("datasets", "image_folder")

    def identity(factory: ImageFolder) -> object:
        return Component(entry, dict(vars(factory)), factory).identity

    first = ImageFolder(root=str(root))
    moved = image_folder(tmp_path / "elsewhere")
    (moved / "val").rename(moved / "validation")
    second = ImageFolder(root=str(moved), test="validation")
    assert identity(first) == identity(second)
    assert first.load().fingerprint == second.load().fingerprint
    assert identity(first) != identity(replace(first, side=16))
    assert str(root) not in str(identity(first))
    swapped = ImageFolder(root=str(root), train="val", test="train")
    assert identity(first) != identity(swapped)


def remove(*names: str) -> object:
    def change(root: Path) -> None:
        for name in names:
            shutil.rmtree(root / name)

    return change


def empty(root: Path) -> None:
    (root / "train" / "dog").mkdir()


def empty_test_class(root: Path) -> None:
    empty(root)
    (root / "val" / "dog").mkdir()
    picture(0, 0, 0).save(root / "train" / "dog" / "0.png")


def flat(root: Path) -> None:
    shutil.rmtree(root / "val")
    (root / "val").mkdir()
    picture(0, 0, 0).save(root / "val" / "ILSVRC2012_val_00000001.JPEG")


def loop(root: Path) -> None:
    (root / "train" / "ant" / "again").symlink_to(root / "train" / "ant")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (remove("val"), r"root: cannot list .*val \(No such file or directory\); expected the layout of torchvision's"),
        (remove("train", "val"), r"root: cannot list .*train \(No such file"),
        (remove("val/bee"), r"root: the classes of .* differ: 1 only in train \(bee\); expected the same folders"),
        (empty, r"root: no image in 1 of 4 classes of .*train \(dog\); expected some in each, ending in .jpg"),
        (empty_test_class, r"root: no image in 1 of 4 classes of .*val \(dog\)"),
        (flat, r"root: .*val has no folder of a class, and 1 images beside; .*; sort them into folders, one a class"),
        (loop, r"root: .*ant/again links to a folder above it; expected none; remove it"),
    ],
    ids=["no val", "no splits", "class missing", "empty class", "empty test class", "flat", "loop"],
)
def test_a_folder_that_is_none_says_what_was_expected(change: object, message: str, root: Path) -> None:
    assert callable(change)
    change(root)
    with pytest.raises(UsageError, match=message):
        ImageFolder(root=str(root)).load()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"root": "x", "side": -1}, "side: received -1; expected at least 0"),
        ({"root": "x", "corrupt": "leave_out", "check": False}, 'check: got false with corrupt = "leave_out"; .* true'),
    ],
)
def test_bad_options_say_what_was_expected(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ImageFolder(**options)  # type: ignore[arg-type]


def test_a_root_may_be_left_open_and_is_missed(root: Path) -> None:
    assert ImageFolder(root=str(root)).missing == ""
    assert ImageFolder().missing.startswith("root: got none; expected a folder in the layout of torchvision's")
    assert ImageFolder(root=str(root / "none")).missing.endswith("; mend the path")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda data: data[: len(data) // 2], "image file is truncated"),
        (lambda data: b"", "no image format that Pillow knows"),
        (lambda data: b"<html>404</html>", "no image format that Pillow knows"),
    ],
)
def test_what_cannot_be_decoded_is_named(damage: object, reason: str, root: Path) -> None:
    assert callable(damage)
    path = root / "train" / "bee" / "000.JPEG"
    path.write_bytes(damage(path.read_bytes()))
    train = ImageFolder(root=str(root), side=16).load().train
    message = rf"image: train/bee/000.JPEG cannot be decoded \({reason}.*\); expected a whole image; mend it, or set"
    with pytest.raises(UnreadableError, match=message):
        train.images(slice(None))


def test_a_decompression_bomb_is_named(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    train = ImageFolder(root=str(root), side=16).load().train
    with pytest.raises(UnreadableError, match=r"image: train/ant/000.JPEG cannot be decoded \(.*decompression bomb"):
        train.images(slice(0, 1))


def test_a_slice_is_stratified_stable_and_holds_smaller_ones(root: Path) -> None:
    for place in range(100, 200):
        picture(0, 0, place).save(root / "train" / "cow" / f"{place}.png")
    whole = ImageFolder(root=str(root), side=16).load()
    assert sampled(whole, 1.0) is whole
    before: set[int] = set()
    for share, n_drawn in ((0.02, 3), (0.1, 12), (0.25, 30), (0.5, 59)):
        part, twin = sampled(whole, share), sampled(again(ImageFolder(root=str(root), side=16)), share)
        assert isinstance(part.train, Some)
        assert isinstance(twin.train, Some)
        rows = part.train.rows.tolist()
        assert len(rows) == n_drawn
        assert rows == sorted(set(rows)) == twin.train.rows.tolist()
        assert part.fingerprint == twin.fingerprint != whole.fingerprint
        assert before <= set(rows)
        before = set(rows)
        labels = labels_of(part.train)
        assert torch.equal(labels, labels_of(whole.train)[rows])
        assert set(labels.tolist()) == {0, 1, 2}
        if n_drawn > 3:
            for label, n_whole in enumerate((6, 6, 106)):
                assert abs(int((labels == label).sum()) - n_drawn * n_whole / 118) <= 1.5
        assert torch.equal(part.train.images(slice(0, 3)), whole.train.images(torch.tensor(rows[:3])))
        seen = part.seen_by(Geometry(8)).train
        assert torch.equal(seen.images(slice(0, 3)), whole.seen_by(Geometry(8)).train.images(torch.tensor(rows[:3])))
    assert sampled(whole, 0.5, seed=1).fingerprint != part.fingerprint
    for bad in (0.0, 1.1, float("nan")):
        with pytest.raises(UsageError, match=re.escape(f"share: got {bad}; expected a number above 0, up to 1")):
            sampled(whole, bad)
