"""Tables and tar shards hold the same images as folders, row for row; what is wrong with one is said."""

import json
import shutil
import sys
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from made_images import CLASSES, encoded, image_folder, rows, shard, shards

from bench import UsageError, image_shards, image_tables, pictures
from bench.datasets import Dataset, DatasetFactory, labels_of
from bench.geometry import Pictures
from bench.image_files import ImageFolder, listed
from bench.image_shards import WebDataset, expanded, shards_of
from bench.image_tables import HuggingFace
from bench.pictures import ChangedError, OnDisk, labelled
from bench.registry import Registry

Factory = ImageFolder | HuggingFace | WebDataset


def forget() -> None:
    """As another process would begin."""
    for kept in (listed, image_tables.opened, image_tables.files_of, image_shards.indexed, pictures.ends_digest):
        kept.cache_clear()


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("hf"))
    forget()
    yield
    forget()


def table(split: str, label: Any = None, **columns: Any) -> datasets.Dataset:
    features = {
        "image": datasets.Image(), "label": label or datasets.ClassLabel(names=list(CLASSES)), **columns
    }  # fmt: skip
    return datasets.Dataset.from_dict({**rows(split), **dict.fromkeys(columns, None)}, datasets.Features(features))


def saved(path: Path, **kinds: Any) -> Path:
    both = datasets.DatasetDict({"train": table("train", **kinds), "validation": table("val", **kinds)})
    both.save_to_disk(path)
    return path


def parquet(path: Path) -> Path:
    path.mkdir()
    for name, split in (("train", "train"), ("validation", "val")):
        whole = table(split)
        for part in range(2):
            whole.shard(2, part, contiguous=True).to_parquet(path / f"{name}-{part:05d}-of-00002.parquet")
    return path


LAYOUTS: dict[str, Callable[[Path], Factory]] = {
    "saved": lambda path: HuggingFace(path=str(saved(path))),
    "parquet": lambda path: HuggingFace(path=str(parquet(path))),
    "shards": lambda path: WebDataset(
        train=str(shards(path) / "train-{000000..000001}.tar"), test=str(path / "val-{000000,000001}.tar")
    ),
    "shards with json": lambda path: WebDataset(
        train=str(shards(path, in_json=True) / "train-{000000..000001}.tar"), test=str(path / "val-00000{0..1}.tar")
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_it_holds_the_images_of_the_folder(layout: str, tmp_path: Path) -> None:
    factory = LAYOUTS[layout](tmp_path / "own")
    folder = ImageFolder(root=str(image_folder(tmp_path / "images"))).load()
    dataset = factory.load()
    assert isinstance(factory, DatasetFactory)
    assert dataset.classes == (CLASSES if isinstance(factory, HuggingFace) else ("0", "1", "2"))
    for ours, theirs in ((dataset.train, folder.train), (dataset.test, folder.test)):
        assert isinstance(ours, OnDisk)
        assert isinstance(theirs, Pictures)
        assert torch.equal(labels_of(ours), labels_of(theirs))
        order = torch.randperm(len(ours), generator=torch.Generator().manual_seed(0)).tolist()
        with ThreadPoolExecutor(4) as pool:
            for row, picture in zip(order, pool.map(ours.picture, order), strict=True):
                assert np.array_equal(np.asarray(picture), np.asarray(theirs.picture(row)))
        assert len({ours.name(row) for row in order}) == len(ours)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_its_identity_follows_its_files_wherever_they_are(layout: str, tmp_path: Path) -> None:
    factory = LAYOUTS[layout](tmp_path / "own")
    content, fingerprint = factory.content, factory.load().fingerprint
    forget()
    assert (factory.content, factory.load().fingerprint) == (content, fingerprint)
    shutil.move(tmp_path / "own", tmp_path / "moved")
    forget()
    moved: dict[str, Any] = {
        option: str(value).replace(str(tmp_path / "own"), str(tmp_path / "moved"))
        for option, value in vars(factory).items()
        if option in factory.places
    }
    there = type(factory)(**moved)
    assert (there.content, there.load().fingerprint) == (content, fingerprint)
    assert type(factory)(**moved, side=8).load().fingerprint != fingerprint
    files = sorted(path for path in (tmp_path / "moved").rglob("*") if path.suffix in (".arrow", ".parquet", ".tar"))
    files[0].write_bytes(files[0].read_bytes()[:-1] + b"\1")
    forget()
    assert there.content != content


def test_labels_may_be_numbers_or_texts(tmp_path: Path) -> None:
    numbers = HuggingFace(path=str(saved(tmp_path / "numbers", label=datasets.Value("int64")))).load()
    assert numbers.classes == ("0", "1", "2")
    texts = HuggingFace(path=str(saved(tmp_path / "texts", label=datasets.Value("string")))).load()
    assert texts.classes == ("0", "1", "2")
    assert torch.equal(labels_of(texts.train), labels_of(numbers.train))
    names, train, test = labelled(["cow", "ant"], ["bee"], "label")
    assert (names, train.tolist(), test.tolist()) == (("ant", "bee", "cow"), [2, 0], [1])
    names, train, test = labelled([4, 1], [2], "label")
    assert (names, train.tolist(), test.tolist()) == (("0", "1", "2", "3", "4"), [4, 1], [2])
    odd: list[list[Any]] = [[1, -2], [True], [10**7], [1, "a"]]
    for bad in odd:
        with pytest.raises(UsageError, match=r"label: got the label .*; expected every label to be a text, or every"):
            labelled(bad, [0], "label")


def load(path: Path, **options: Any) -> Dataset:
    return HuggingFace(path=str(path), **options).load()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label": "labels"}, "label: train has no column 'labels'; expected one of image, label; set label to it"),
        ({"image": "img"}, "image: train has no column 'img'; expected one of image, label; set image to it"),
        ({"image": "label"}, "image: column 'label' of train holds ClassLabel.*; expected images; choose another"),
        ({"test": "val"}, r"path: .* has no split 'val' \(dataset_dict.json, train, validation\); expected a data set"),
    ],
)
def test_a_wrong_column_or_split_is_named(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = saved(tmp_path / "own")
    with pytest.raises(UsageError, match=message):
        load(path, **options)


def test_a_table_that_is_damaged_is_an_error(tmp_path: Path) -> None:
    path = saved(tmp_path / "own")
    with pytest.raises(ValueError, match="path: got none; expected a data set of two splits"):
        HuggingFace()
    data = path / "train" / "data-00000-of-00001.arrow"
    data.write_bytes(data.read_bytes()[: data.stat().st_size // 3])
    with pytest.raises(UsageError, match=r"path: .*train cannot be opened \(.*\); expected a data set of two splits"):
        load(path)
    forget()
    data.unlink()
    with pytest.raises(UsageError, match=r"path: .*data-00000-of-00001.arrow is missing; expected a data set of two"):
        load(path)
    forget()
    (path / "train" / "state.json").write_text("{")
    with pytest.raises(UsageError, match=r"path: .*state.json is damaged"):
        load(path)


def test_rows_without_a_class_and_classes_that_differ_are_errors(tmp_path: Path) -> None:
    names = datasets.ClassLabel(names=list(CLASSES))
    features = datasets.Features({"image": datasets.Image(), "label": names})
    bare = datasets.Dataset.from_dict({**rows("val"), "label": [0] * 10 + [-1, -1]}, features)
    other = table("val", datasets.ClassLabel(names=["ant", "cow", "bee"]))
    for name, test, message in (
        ("bare", bare, r"label: 2 rows of validation have none, row 10 first; expected the class of every image"),
        ("other", other, r"label: the classes of 'label' in train and validation differ; expected the same names"),
    ):
        datasets.DatasetDict({"train": table("train"), "validation": test}).save_to_disk(tmp_path / name)
        with pytest.raises(UsageError, match=message):
            load(tmp_path / name)


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = saved(tmp_path / "own")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UsageError, match=r"needs the package datasets .*; add the extra data: pip install .*\[data\]"):
        load(path)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("a-{08..11}.tar", ["a-08.tar", "a-09.tar", "a-10.tar", "a-11.tar"]),
        ("{x,yy}/{0..1}", ["x/0", "x/1", "yy/0", "yy/1"]),
        ("plain", ["plain"]),
    ],
)
def test_braces_are_written_out(pattern: str, expected: list[str]) -> None:
    assert list(expanded(pattern)) == expected


def test_a_folder_of_shards_is_taken_in_order_of_name(tmp_path: Path) -> None:
    shards(tmp_path / "own")
    assert [path.name for path in shards_of(str(tmp_path / "own"), "train")] == [
        "train-000000.tar", "train-000001.tar", "val-000000.tar", "val-000001.tar"
    ]  # fmt: skip
    assert Registry().find("datasets", "webdataset").load() is WebDataset


IMAGE, LABEL = ("1.jpg", encoded(0, 0, 0)), ("1.cls", b"0")


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([IMAGE], r"sample 1 of .* has no label \(jpg\); expected a .cls, or a .json with a number or a text as 'lab"),
        ([IMAGE, ("1.json", b'{"class": 3}')], r"sample 1 of .* has no label \(jpg, json\)"),
        ([IMAGE, ("1.json", b"{")], r"sample 1 of .* has no label"),
        ([LABEL], r"sample 1 of .* has 0 images \(cls\); expected one that ends in jpg"),
        ([IMAGE, LABEL, ("1.png", b"")], r"sample 1 of .* has 2 images \(jpg, cls, png\)"),
        ([IMAGE, LABEL, IMAGE], r"shard: .* holds 1.jpg twice; expected every name once; write the shard anew"),
        ([], "shard: .* holds no image"),
    ],
)
def test_a_sample_that_is_not_an_image_with_a_label_is_named(
    members: list[tuple[str, bytes]], message: str, tmp_path: Path
) -> None:
    good = shards(tmp_path / "own") / "val-{000000..000001}.tar"
    bad = shard(tmp_path / "bad.tar", members)
    with pytest.raises(UsageError, match=message):
        WebDataset(train=str(bad), test=str(good)).load()


def gzipped(path: Path) -> None:
    with tarfile.open(path, "w:gz"):
        pass


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:3000]),  # within an image
        lambda path: path.write_bytes(path.read_bytes()[:512]),  # after a header
        lambda path: path.write_bytes(path.read_bytes()[:700]),
        lambda path: path.write_bytes(b"\xff" * 10240),
        lambda path: path.write_bytes(path.read_bytes().rstrip(b"\0")),  # without the zeros at the end
        lambda path: path.write_bytes(b""),
        gzipped,
    ],
)
def test_a_shard_that_is_cut_short_or_no_tar_is_named(damage: Callable[[Path], Any], tmp_path: Path) -> None:
    pattern = str(shards(tmp_path / "own") / "train-{000000..000001}.tar")
    damage(tmp_path / "own" / "train-000001.tar")
    with pytest.raises(UsageError, match=r"shard: .*train-000001.tar is no whole tar \(.*\); expected .*; copy or"):
        WebDataset(train=pattern, test=pattern).load()


def test_a_header_that_is_broken_in_the_middle_does_not_end_a_shard(tmp_path: Path) -> None:
    pattern = str(shards(tmp_path / "own") / "train-{000000..000001}.tar")
    path = tmp_path / "own" / "train-000000.tar"
    with tarfile.open(path) as tar:
        third = tar.getmembers()[2].offset
    data = bytearray(path.read_bytes())
    data[third : third + 8] = b"\xff" * 8
    path.write_bytes(data)
    with pytest.raises(UsageError, match=rf"train-000000.tar is no whole tar \(it stops at byte {third} without"):
        WebDataset(train=pattern, test=pattern).load()


def test_missing_and_changed_shards_are_named(tmp_path: Path) -> None:
    root = shards(tmp_path / "own")
    with pytest.raises(UsageError, match=r"train: got .*, 1 of 3 shards are missing, .*train-000002.tar first; expe"):
        WebDataset(train=str(root / "train-{000000..000002}.tar"), test=str(root)).load()
    with pytest.raises(ValueError, match="test: got none; expected uncompressed tar shards"):
        WebDataset(train=str(root))
    dataset = WebDataset(train=str(root / "train-{000000..000001}.tar"), test=str(root / "val-000000.tar")).load()
    path = root / "train-000000.tar"
    path.write_bytes(path.read_bytes() + bytes(512))
    message = r"train-000000.tar/00000 is in a shard of \d+ bytes where \d+ were read; expected it as it was"
    with pytest.raises(ChangedError, match=message):
        dataset.train.images(slice(0, 1))
    path.unlink()
    with pytest.raises(ChangedError, match=r"train-000000.tar/00000 is gone with its shard"):
        dataset.train.images(slice(0, 1))


def test_the_field_of_the_label_is_an_option(tmp_path: Path) -> None:
    path = shard(tmp_path / "own.tar", [IMAGE, ("1.json", json.dumps({"kind": "ant"}).encode())])
    dataset = WebDataset(train=str(path), test=str(path), label="kind").load()
    assert dataset.classes == ("ant",)
