"""Small data sets of image files, made on the spot in every layout that the bench reads."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("ant", "bee", "cow")
N_TRAIN, N_TEST = 6, 4
SIZES = ((40, 48), (56, 40), (37, 61))


def picture(split: int, label: int, place: int) -> Image.Image:
    """An image that is like no other: a colour for each class, a gradient, and some noise."""
    rng = np.random.default_rng((split, label, place))
    width, height = SIZES[place % len(SIZES)]
    pixels = rng.integers(0, 60, (height, width, 3))
    pixels[:, :, label % 3] += np.linspace(60, 190, width, dtype=np.int64)
    return Image.fromarray(pixels.astype(np.uint8))


def encoded(split: int, label: int, place: int) -> bytes:
    """The same as a file: PNG for every third image, JPEG for the others."""
    file = io.BytesIO()
    picture(split, label, place).save(file, "PNG" if place % 3 == 2 else "JPEG", quality=90)
    return file.getvalue()


def suffix(place: int) -> str:
    return ".png" if place % 3 == 2 else ".JPEG"


def images() -> list[tuple[str, int, int, bytes]]:
    """Split, label, place within the class, and file, in the order of an image folder."""
    return [
        (name, label, place, encoded(split, label, place))
        for split, (name, n) in enumerate((("train", N_TRAIN), ("val", N_TEST)))
        for label in range(len(CLASSES))
        for place in range(n)
    ]


def image_folder(root: Path) -> Path:
    """The images in torchvision's layout."""
    for split, label, place, data in images():
        folder = root / split / CLASSES[label]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{place:03d}{suffix(place)}").write_bytes(data)
    return root


def rows(split: str) -> dict[str, list[object]]:
    """The images of one split as columns."""
    own = [(label, data) for name, label, _, data in images() if name == split]
    return {"image": [{"bytes": data, "path": None} for _, data in own], "label": [label for label, _ in own]}


def shard(path: Path, members: list[tuple[str, bytes]]) -> Path:
    """A tar of these files."""
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def shards(root: Path, *, in_json: bool = False) -> Path:
    """The images in two tars a split, with their labels beside each."""
    root.mkdir(exist_ok=True)
    for split in ("train", "val"):
        members = []
        for i, (_, label, place, data) in enumerate(one for one in images() if one[0] == split):
            beside = ("json", json.dumps({"label": label}).encode()) if in_json else ("cls", str(label).encode())
            members.append([(f"{i:05d}{suffix(place).lower()}", data), (f"{i:05d}.{beside[0]}", beside[1])])
        half = len(members) // 2
        for number, part in enumerate((members[:half], members[half:])):
            shard(root / f"{split}-{number:06d}.tar", [file for sample in part for file in sample])
    return root
