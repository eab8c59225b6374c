"""What images on disk cost: listing a folder, reading the headers of a shard, decoding and resizing."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_images import shard
from PIL import Image
from pytest_benchmark.fixture import BenchmarkFixture

from bench.geometry import Geometry, Seen
from bench.image_files import ImageFolder, listed
from bench.image_shards import indexed
from bench.pictures import OnDisk

N_CLASSES, N_LISTED, N_DECODED = 50, 20_000, 64


def photo(seed: int) -> bytes:
    """A JPEG of 500 x 375 pixels, ImageNet's usual size: smooth shapes under some noise, about 100 kB."""
    rng = np.random.default_rng(seed)
    smooth = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize((500, 375))
    noisy = np.asarray(smooth, np.int64) + rng.integers(-12, 13, (375, 500, 3))
    file = io.BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()


def seconds(benchmark: BenchmarkFixture) -> float:
    """Of the fastest round."""
    stats: Any = benchmark.stats
    return float(stats["min"])


def test_listing_a_folder(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    for number in range(N_LISTED):
        path = tmp_path / "train" / f"n{number % N_CLASSES:08d}" / f"{number:08d}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    listing = benchmark.pedantic(listed.__wrapped__, (tmp_path / "train",), rounds=3)
    assert len(listing) == N_LISTED
    benchmark.extra_info["microseconds_an_image"] = seconds(benchmark) / N_LISTED * 1e6
    held = len(listing.paths) + listing.sizes.nbytes + listing.ends.nbytes + listing.labels.nbytes
    benchmark.extra_info["bytes_an_image"] = held / N_LISTED


def test_indexing_a_shard(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    n = 2000
    members = [(f"{i:06d}.{ending}", b"0") for i in range(n) for ending in ("jpg", "cls")]
    path = shard(tmp_path / "own.tar", members)
    found = benchmark.pedantic(indexed.__wrapped__, ((path,), "label"), rounds=3)
    assert len(found) == n
    benchmark.extra_info["microseconds_an_image"] = seconds(benchmark) / n * 1e6


@pytest.mark.parametrize("n_threads", [1, 2, 4])
def test_decoding_and_resizing(n_threads: int, benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    for name, n in (("train", N_DECODED), ("val", 1)):
        (tmp_path / name / "one").mkdir(parents=True)
        for number in range(n):
            (tmp_path / name / "one" / f"{number}.JPEG").write_bytes(photo(number))
    listed.cache_clear()
    split = ImageFolder(root=str(tmp_path)).load().train
    assert isinstance(split, OnDisk)
    seen = Seen(split, Geometry(224, resize=256), n_threads)
    pixels = benchmark.pedantic(seen.images, (slice(None),), rounds=3, warmup_rounds=1)
    assert pixels.shape == (N_DECODED, 3, 224, 224)
    benchmark.extra_info["images_a_second"] = N_DECODED / seconds(benchmark)
