"""The tiles of the embedded `photos` set, cut from photographs inside the scikit-image and scikit-learn wheels.

Each photograph is laid out as a grid of square cells that do not overlap, and a cell is one tile: cut out first, then
enlarged to 32x32 by itself (bilinear), so that no pixel of a photograph enters two tiles. The cells of a photograph
are as large as the number of tiles asked for allows, 32 pixels at most (a tile is never shrunk) and 8 at least. Of
cells with the same pixels, which are black sky, only the first is used. Files are read by their path in the wheel;
nothing is ever downloaded.
"""

from collections.abc import Sequence
from importlib.resources import files
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.nn import functional

SIDE = 32
_SMALLEST_CELL = 8

Picture = UInt8[np.ndarray, "_ _ 3"]
"""RGB pixels; the axes are anonymous because no two photographs need be of one size."""


class Photograph(NamedTuple):
    """A photograph inside a wheel: its label, the package, the file in it, and the terms as the package states them."""

    name: str
    package: str
    file: str
    licence: str


PHOTOGRAPHS = (
    Photograph("astronaut", "skimage", "data/astronaut.png", "public domain (NASA)"),
    Photograph("brick", "skimage", "data/brick.png", "CC0"),
    Photograph("camera", "skimage", "data/camera.png", "CC0 (Lav Varshney)"),
    Photograph("cat", "skimage", "data/chelsea.png", "CC0 (Stefan van der Walt)"),
    Photograph("clock", "skimage", "data/clock_motion.png", "public domain (Stefan van der Walt)"),
    Photograph("coffee", "skimage", "data/coffee.png", "CC0 (Rachel Michetti)"),
    Photograph("coins", "skimage", "data/coins.png", "no known restrictions (Brooklyn Museum)"),
    Photograph("grass", "skimage", "data/grass.png", "CC0"),
    Photograph("gravel", "skimage", "data/gravel.png", "CC0"),
    Photograph("hubble", "skimage", "data/hubble_deep_field.jpg", "public domain (NASA)"),
    Photograph("moon", "skimage", "data/moon.png", "not stated by scikit-image"),
    Photograph("retina", "skimage", "data/retina.jpg", "CC0 (Mikael Häggström)"),
    Photograph("rocket", "skimage", "data/rocket.jpg", "public domain (SpaceX)"),
    Photograph("tissue", "skimage", "data/ihc.png", "no known restrictions (CMMI)"),
    Photograph("china", "sklearn", "datasets/images/china.jpg", "CC BY 2.0 (danielbuechele)"),
    Photograph("flower", "sklearn", "datasets/images/flower.jpg", "CC BY 2.0 (vultilion)"),
)
"""The sixteen photographs. Left out: drawings, text and test patterns; `cell` (a phase image computed from a
hologram); `microaneurysms` (102 pixels wide); `motorcycle` (a stereo pair, so one scene twice, with no terms stated);
`lfw_subset` (faces of 25 pixels)."""


class Cell(NamedTuple):
    """A square of a photograph: index into `PHOTOGRAPHS`, the pixel of its upper left corner, its side."""

    photograph: int
    top: int
    left: int
    side: int


def read(photograph: Photograph) -> Picture:
    """The pixels of a photograph; grey ones get three equal channels."""
    from skimage.io import imread  # here: a second to import, and only this set needs it

    pixels = imread(str(files(photograph.package) / photograph.file))
    return np.stack([pixels] * 3, axis=-1) if pixels.ndim == 2 else pixels


def lay_out(pictures: Sequence[Picture], n_each: int, seed: int) -> list[list[Cell]]:
    """`n_each` cells of each photograph in a random order; every photograph has its own random stream.

    Raises:
        ValueError: A photograph is too small for that many cells.
    """
    cells = []
    for index, picture in enumerate(pictures):
        sides = range(SIDE, _SMALLEST_CELL - 1, -1)
        grid = next((g for side in sides if len(g := _distinct_cells(index, picture, side, n_each)) >= n_each), None)
        if grid is None:
            raise ValueError(_too_small(pictures, n_each))
        order = np.random.default_rng((seed, index)).permutation(len(grid))
        cells.append([grid[place] for place in order[:n_each]])
    return cells


def _too_small(pictures: Sequence[Picture], n_each: int) -> str:
    held = [len(_distinct_cells(index, picture, _SMALLEST_CELL, 0)) for index, picture in enumerate(pictures)]
    fewest = min(held)
    return (
        f"n_train, n_test: received sizes that need {n_each} tiles of each photograph; expected at most {fewest}, "
        f"which is what {PHOTOGRAPHS[held.index(fewest)].name} holds at {_SMALLEST_CELL} pixels a side; lower either"
    )


def _distinct_cells(index: int, picture: Picture, side: int, n_least: int) -> list[Cell]:
    """The grid's cells less those whose pixels occur before; the whole grid where it is too small anyhow."""
    n_rows, n_columns = picture.shape[0] // side, picture.shape[1] // side
    grid = [Cell(index, row * side, column * side, side) for row in range(n_rows) for column in range(n_columns)]
    if len(grid) < n_least and side > _SMALLEST_CELL:
        return grid
    first: dict[bytes, Cell] = {}
    for cell in grid:
        first.setdefault(_pixels(picture, cell).tobytes(), cell)
    return list(first.values())


def cut(pictures: Sequence[Picture], cells: Sequence[Cell]) -> UInt8[Tensor, "cells 3 32 32"]:
    """The tiles of these cells, each enlarged from its own pixels alone."""
    tiles = torch.empty(len(cells), 3, SIDE, SIDE, dtype=torch.uint8)
    for place, cell in enumerate(cells):
        pixels = torch.from_numpy(_pixels(pictures[cell.photograph], cell).copy()).permute(2, 0, 1)[None].float()
        tiles[place] = functional.interpolate(pixels, size=(SIDE, SIDE), mode="bilinear")[0].round().byte()
    return tiles


def _pixels(picture: Picture, cell: Cell) -> UInt8[np.ndarray, "side side 3"]:
    return picture[cell.top : cell.top + cell.side, cell.left : cell.left + cell.side]
