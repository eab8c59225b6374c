"""Grids: nine exemplars as one picture, 3 x 3, as a judge is shown them (Bağcı et al. 2026, appendix B.1).

A grid is known by a digest of what is in it, not of its bytes, so a tournament is drawn without making any picture;
`Grids` makes those that are asked for. Cells have neither border nor text, and files no metadata: nothing in a picture
says where it is from.
"""

import hashlib
import json
import os
import struct
import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from jaxtyping import UInt8

VERSION: Final = 1
"""Raised whenever the same images would give another picture than before."""

SIDE: Final = 3
CELLS: Final = SIDE * SIDE
GREY: Final = 128  # of the blank grid

_HELD_BYTES: Final = 2**25  # of pictures in memory: some 20 of 336-pixel cells
_N_LOCKS: Final = 64
_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"

Pixels = Callable[[Sequence[int]], UInt8[Any, "some 3 height width"]]
"""The images with these indices; called from several threads at a time."""


class GridsError(Exception):
    """A picture cannot be kept: says which, what was found, what was expected and the next step."""


def grid_digest(fingerprint: str, images: Sequence[int], cell_px: int) -> str:
    """Identity of a grid, 32 hex digits: what the data set holds, which images in which order, and the size of a cell.

    Args:
        fingerprint: Hash of all that the data set holds.
        images: Indices in the order of the cells; none for the blank grid.
        cell_px: Side of a cell in pixels.
    """
    what = ["grid", VERSION, fingerprint, list(images), cell_px]
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:32]


def grid_png(images: UInt8[Any, "n 3 height width"], cell_px: int) -> bytes:
    """Nine images as one RGB picture, row by row, each resized to a square cell (bicubic, antialiased); a PNG.

    No image at all gives the blank grid, mid-grey all over. Equal images give equal bytes.

    Args:
        images: The pixels, best exemplar first; a NumPy array or a tensor in main memory.
        cell_px: Side of a cell in pixels; the picture's side is three times as long.

    Raises:
        ValueError: The number of images is neither nine nor none, or a cell has no pixel.
    """
    if cell_px < 1:
        raise ValueError(f"cell_px: got {cell_px}; expected at least 1 pixel; give 336 for the paper's grids")
    if len(images) not in (0, CELLS):
        raise ValueError(
            f"images: got {len(images)}; expected {CELLS}, or none for the blank grid; leave out units that fewer "
            f"images drive"
        )
    from PIL import Image

    picture = np.full((SIDE, cell_px, SIDE, cell_px, 3), GREY, np.uint8)
    for cell, image in enumerate(np.asarray(images).transpose(0, 2, 3, 1)):
        resized = Image.fromarray(np.ascontiguousarray(image)).resize((cell_px, cell_px), Image.Resampling.BICUBIC)
        picture[cell // SIDE, :, cell % SIDE] = np.asarray(resized)
    return _png(picture.reshape(SIDE * cell_px, SIDE * cell_px, 3))


class Grids:
    """The pictures of a tournament, made when they are asked for and kept as files named by their digests.

    It may be asked from several threads and processes at a time: what two of them make at once is the same, and a file
    is renamed into place whole. A file that is cut short or is no such picture is made again. In memory only the last
    few pictures are held.

    Attributes:
        n_made: Pictures made so far; the others were there.
    """

    def __init__(self, folder: Path | None, pixels: Pixels, recipes: Mapping[str, Sequence[int]], cell_px: int) -> None:
        """Where pictures are kept (None: nowhere), where pixels come from, and which images each grid has.

        Args:
            folder: Made with the first picture. A picture of 336-pixel cells takes 1 to 1.6 MB.
            pixels: Reads images by index.
            recipes: The images of each grid, by digest, in the order of the cells.
            cell_px: Side of a cell in pixels.
        """
        self.n_made = 0
        self._folder, self._pixels, self._recipes, self._cell_px = folder, pixels, recipes, cell_px
        self._held: OrderedDict[str, bytes] = OrderedDict()
        self._n_bytes = 0
        self._lock = threading.Lock()
        self._making = [threading.Lock() for _ in range(_N_LOCKS)]

    def png(self, digest: str) -> bytes:
        """The picture of a grid.

        Raises:
            LookupError: No recipe has this digest.
            GridsError: Its file cannot be written.
        """
        if digest not in self._recipes:
            raise LookupError(
                f"grid: got {digest!r}; expected one of {len(self._recipes)} recipes; draw the pairs again"
            )
        with self._making[hash(digest) % _N_LOCKS]:  # judges want the same picture at the same time
            held = self._find(digest)
            if held is not None:
                return held
            png = self._read(digest) or self._make(digest)
            with self._lock:
                self._n_bytes += len(png)
                self._held[digest] = png
                while self._n_bytes > _HELD_BYTES and len(self._held) > 1:
                    self._n_bytes -= len(self._held.popitem(last=False)[1])
            return png

    def _find(self, digest: str) -> bytes | None:
        """The picture, if it is in memory."""
        with self._lock:
            if digest in self._held:
                self._held.move_to_end(digest)
            return self._held.get(digest)

    def _read(self, digest: str) -> bytes | None:
        """The file of a grid; None where none can be read or it is no picture of this size."""
        if self._folder is None:
            return None
        try:
            png = (self._folder / f"{digest}.png").read_bytes()
        except OSError:
            return None
        return png if is_whole(png, SIDE * self._cell_px) else None

    def _make(self, digest: str) -> bytes:
        """The picture, made now, and written into the folder.

        Raises:
            GridsError: It cannot be written.
        """
        recipe = self._recipes[digest]
        images = self._pixels(recipe) if len(recipe) else np.empty((0, 3, 1, 1), np.uint8)
        png = grid_png(images, self._cell_px)
        with self._lock:
            self.n_made += 1
        if self._folder is not None:
            _write(self._folder / f"{digest}.png", png)
        return png


def is_whole(png: bytes, side: int) -> bool:
    """Whether this is an RGB picture of this side as `grid_png` writes it: the three chunks, each with its checksum."""
    header = _chunk(b"IHDR", _header(side))
    if not png.startswith(_SIGNATURE + header):
        return False
    start = len(_SIGNATURE) + len(header)
    if len(png) < start + 24:
        return False
    (length,) = struct.unpack_from(">I", png, start)
    end = start + 8 + length
    if png[start + 4 : start + 8] != b"IDAT" or len(png) != end + 16:
        return False
    checksum = zlib.crc32(memoryview(png)[start + 4 : end])
    return png[end:] == struct.pack(">I", checksum) + _chunk(b"IEND", b"")


def _write(path: Path, png: bytes) -> None:
    """Write a picture aside and rename it into place; its folder is made.

    Raises:
        GridsError: It cannot be written.
    """
    aside = path.with_name(f"{path.stem}.{os.getpid()}-{threading.get_ident()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            aside.write_bytes(png)
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)
    except OSError as error:
        raise GridsError(
            f"{path}: got {error.strerror or error}; expected {len(png)} bytes to be written; make room or allow "
            f"writing there, then do it again: replies stay good"
        ) from error


def _png(picture: UInt8[np.ndarray, "side side 3"]) -> bytes:
    """The bytes of a PNG with one filter for all rows.

    Pillow's encoder tries five filters on each row. At 1008 x 1008 this takes 55 ms where Pillow at its fastest level
    takes 175, and photographs come out as large (1.6 MB); levels above 1 save less than a tenth and take 2 to 10 times
    as long. All filtering is left to "up", row minus the row above, and zlib looks for runs alone.
    """
    rows = picture.reshape(len(picture), -1)
    filtered = np.empty((len(rows), rows.shape[1] + 1), np.uint8)
    filtered[:, 0] = 2
    filtered[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    packer = zlib.compressobj(level=1, strategy=zlib.Z_RLE)
    body = packer.compress(filtered.tobytes()) + packer.flush()
    return _SIGNATURE + _chunk(b"IHDR", _header(len(picture))) + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")


def _header(side: int) -> bytes:
    """Width, height, 8 bits, RGB, and the only methods there are."""
    return struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
