"""What extraction costs, against the bare forward pass over the same images in the same run, and what memory it takes.

The aim is at most 1.1 times the bare forward pass, and a peak that does not depend on the number of images.
"""

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from jaxtyping import Int, UInt8
from PIL import Image
from pytest_benchmark.fixture import BenchmarkFixture
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from bench.backbones import Backbone, prefix_of
from bench.datasets import Split
from bench.embedded import to_unit_range
from bench.extraction import extract, tried
from bench.geometry import Geometry, Seen
from bench.lanes import quietly
from bench.memory import peak_bytes
from bench.shards import Wanted
from bench.sites import Site

ROOT = Path(__file__).resolve().parents[2]
SMALL = {"img_size": 32, "patch_size": 4, "embed_dim": 192, "depth": 4, "num_heads": 6, "num_classes": 48}
BASE = {"img_size": 224, "patch_size": 16, "embed_dim": 768, "depth": 12, "num_heads": 12, "num_classes": 1000}
SEEDS = (42, 123, 456)


@dataclass(frozen=True, eq=False)
class Drawn:
    """Images at random, each drawn when it is asked for: nothing of them is held."""

    n: int
    side: int
    labels: None = None
    concepts: None = None

    @property
    def factors(self) -> Mapping[str, Int[Tensor, " images"]]:
        return {}

    def __len__(self) -> int:
        return self.n

    def images(self, rows: Int[Tensor, " rows"] | slice) -> UInt8[Tensor, "rows 3 height width"]:
        n = len(range(*rows.indices(self.n))) if isinstance(rows, slice) else len(rows)
        seed = int(torch.arange(self.n)[rows][0])
        shape = (n, 3, self.side, self.side)
        return torch.randint(256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


@dataclass(frozen=True, eq=False)
class Files(Drawn):
    """JPEG files of 320 x 256 pixels, smooth as photographs are."""

    folder: Path = Path()

    @classmethod
    def made(cls, n: int, folder: Path) -> "Files":
        for row in range(n):
            coarse = torch.randint(256, (3, 10, 8), generator=torch.Generator().manual_seed(row), dtype=torch.uint8)
            small = Image.fromarray(coarse.permute(1, 2, 0).contiguous().numpy())
            small.resize((320, 256), Image.Resampling.BICUBIC).save(folder / f"{row}.jpeg", quality=90)
        return cls(n, 224, folder=folder)

    def picture(self, row: int) -> Image.Image:
        return Image.open(io.BytesIO((self.folder / f"{row}.jpeg").read_bytes()))


Taken = tuple[float, float]
"""Wall and CPU seconds."""


def since(begin: Taken) -> Taken:
    """What has gone by since then."""
    return time.perf_counter() - begin[0], time.process_time() - begin[1]


def backbone_of(options: Mapping[str, int]) -> Backbone:
    torch.manual_seed(0)
    module = VisionTransformer(**options)
    return Backbone.of("vit", module, to_unit_range, preprocessing="rgb / 127.5 - 1", prefix=prefix_of(module))


def places(backbone: Backbone, options: Mapping[str, int], n: int, seeds: Sequence[int]) -> list[Wanted]:
    """The second layers of the last n blocks' MLPs, two tokens an image."""
    blocks = range(options["depth"] - n, options["depth"])
    return [Wanted(Site(backbone, f"blocks.{block}.mlp.fc2"), seed, 2) for block in blocks for seed in seeds]


@torch.inference_mode()
def bare(site: Site, split: Split) -> Taken:
    """One forward pass over all images, which are in memory, in batches of the same size."""
    size, _ = tried([site], split.images(torch.arange(2)))
    batches = [split.images(rows) for rows in torch.arange(len(split)).split(size)]
    begin = time.perf_counter(), time.process_time()
    for images in batches:
        site.backbone.module(site.backbone.transform(images))
    return since(begin)


def extraction(wanted: Sequence[Wanted], split: Split) -> Taken:
    """Wall and CPU seconds of one pass."""
    with TemporaryDirectory() as root:
        folders = [Path(root) / str(index) for index in range(len(wanted))]
        for folder in folders:
            folder.mkdir()
        begin = time.perf_counter(), time.process_time()
        extract(wanted, folders, split, quietly)
        return since(begin)


@pytest.mark.parametrize("what", ["small", "base", "base, files"])
def test_extraction(benchmark: BenchmarkFixture, tmp_path: Path, what: str) -> None:
    """One thread. `ratio`: one site and seed; `ratio_of_many`: four sites under three seeds in one pass.

    Both are of the shortest of two runs, which take turns with those of the bare forward pass, by the wall's clock;
    `cpu_ratio` by the CPU's, which other programs on the machine touch less. Images in memory are drawn as they are
    asked for, which is part of extraction's time and not of the bare pass's, as is the decoding of files. A pass runs
    two images more, to see what the sites look like.
    """
    torch.set_num_threads(1)
    options, n = (SMALL, 2048) if what == "small" else (BASE, 48)
    backbone = backbone_of(options)
    split: Split = Drawn(n, options["img_size"])
    if what == "base, files":
        split = Seen(Files.made(n, tmp_path), Geometry(224, 256))
    one, many = places(backbone, options, 1, SEEDS[:1]), places(backbone, options, 4, SEEDS)
    taken: dict[str, list[Taken]] = {"bare": [], "one": [], "many": []}

    def rounds() -> None:
        for _ in range(2):
            taken["bare"].append(bare(one[0].site, split))
            taken["one"].append(extraction(one, split))
            taken["many"].append(extraction(many, split))

    benchmark.pedantic(rounds, rounds=1)
    wall, cpu = ({name: min(run[clock] for run in runs) for name, runs in taken.items()} for clock in (0, 1))
    benchmark.extra_info.update(
        n_images=n,
        images_per_second=round(n / wall["one"], 2),
        ratio=round(wall["one"] / wall["bare"], 3),
        ratio_of_many=round(wall["many"] / wall["bare"], 3),
        cpu_ratio=round(cpu["one"] / cpu["bare"], 3),
        cpu_ratio_of_many=round(cpu["many"] / cpu["bare"], 3),
    )


def peak_of(n: int) -> None:
    """In a process of its own: extract from so many images, and print the peak."""
    torch.set_num_threads(1)
    backbone = backbone_of(SMALL)
    before = peak_bytes()
    extraction(places(backbone, SMALL, 4, SEEDS), Drawn(n, 32))
    print(json.dumps({"before": before, "peak": peak_bytes()}))


def test_memory(benchmark: BenchmarkFixture) -> None:
    """The peak of a process that extracts four sites under three seeds, of 1,024 images and of ten times as many."""
    found: dict[int, dict[str, int]] = {}

    def measure(n: int) -> dict[str, int]:
        script = f"import test_extraction_speed as own; own.peak_of({n})"
        env = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{Path(__file__).parent}", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-c", script]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env, check=True)
        peaks: dict[str, int] = json.loads(done.stdout)
        return peaks

    benchmark.pedantic(lambda: found.update({n: measure(n) for n in (1024, 10_240)}), rounds=1)
    few, many = found[1024], found[10_240]
    benchmark.extra_info.update(
        peak_mib=[round(one["peak"] / 2**20) for one in (few, many)],
        before_mib=[round(one["before"] / 2**20) for one in (few, many)],
        ratio_of_peaks=round(many["peak"] / few["peak"], 3),
        ratio_above_start=round((many["peak"] - many["before"]) / (few["peak"] - few["before"]), 3),
    )
