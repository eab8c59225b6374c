"""A tournament of the paper's size, a grid of its size, and what the proxy panel takes for a grid.

Reported and never pass or fail. `extra_info` has the bytes of a grid, and Pillow's own time for it and its bytes.
"""

import io
import time
from functools import partial

import numpy as np
import pytest
from PIL import Image
from pytest_benchmark.fixture import BenchmarkFixture
from skimage import data

from judges.coherence import coherences
from judges.grids import grid_digest, grid_png
from judges.pairing import Contestant, tournament
from judges.protocol import PAPER


def photographs(side: int) -> np.ndarray:
    """Nine crops of a photograph."""
    picture = data.astronaut()
    corners = np.random.default_rng(0).integers(0, 512 - side, (9, 2))
    return np.stack([picture[y : y + side, x : x + side].transpose(2, 0, 1) for y, x in corners])


@pytest.mark.parametrize(("side", "cell_px"), [(224, 336), (32, 48)])
def test_a_grid(benchmark: BenchmarkFixture, side: int, cell_px: int) -> None:
    images = photographs(side)
    png = benchmark(grid_png, images, cell_px)
    with Image.open(io.BytesIO(png)) as picture:
        picture.load()
        file = io.BytesIO()
        start = time.perf_counter()
        picture.save(file, "PNG", compress_level=1)
        seconds = time.perf_counter() - start
    benchmark.extra_info |= {"bytes": len(png), "pillow_bytes": len(file.getvalue()), "pillow_seconds": seconds}


@pytest.mark.parametrize("cell_px", [48, 336])
def test_the_proxy_panel(benchmark: BenchmarkFixture, cell_px: int) -> None:
    benchmark(coherences, grid_png(photographs(32), cell_px))


def test_a_tournament(benchmark: BenchmarkFixture) -> None:
    """Ten methods of 6,144 units, 4,500 presentations: one backbone and token seed of the paper's Table 2."""
    rng = np.random.default_rng(0)
    exemplars = rng.integers(0, 5000, (10, 6144, 1)) * 9 + np.arange(9)
    pool = [Contestant(f"{i}", f"{i}", rows, np.ones(6144, bool)) for i, rows in enumerate(exemplars)]
    digest = partial(grid_digest, "data", cell_px=336)
    drawn = benchmark.pedantic(
        lambda: tournament(pool, site="block 11", stream={}, token_seed=0, settings=PAPER, digest=digest), rounds=3
    )
    benchmark.extra_info["presentations"] = len(drawn.presentations)
