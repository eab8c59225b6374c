"""Shards: the files of one entry of activations as they are written, and what an interrupted attempt left of them.

A shard is `inputs-00000.npy` and `outputs-00000.npy`, of the same images; all but the last have the same number. Each
is written aside and renamed, and a note of its size and hash comes last: a shard with a note is whole.
"""

import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.lib.format import write_array_header_2_0
from torch import Tensor

from bench import UsageError
from bench.cells import Stored
from bench.manifest import Facts
from bench.passes import Taken
from bench.sites import Site

SHARD_BYTES = 2**26
"""Size of a file, at most, where a batch is no larger: what a killed extraction loses is little."""
FILLED = "entry"
"""Where, in the folder of unfinished work, the entry grows."""
NAMES = ("inputs", "outputs")
POSITION = np.dtype(np.int32)
"""How the image and the position of a token are written."""


@dataclass(frozen=True, eq=False)
class Wanted:
    """The sampled tokens of one site under one token seed.

    Attributes:
        site: The site.
        token_seed: Draws the positions.
        per_image: Tokens of each image.
        stored: Number format on disk.
    """

    site: Site
    token_seed: int
    per_image: int
    stored: Stored = "float32"


def stored_bytes(n_tokens: int, d_in: int, units: int, stored: Stored) -> int:
    """Size on disk of the tokens of one site under one token seed: inputs, outputs, and image and position of each.

    The heads of the files, 128 bytes each, and the manifest come on top.
    """
    return n_tokens * ((d_in + units) * np.dtype(stored).itemsize + 2 * POSITION.itemsize)


@dataclass
class Growing:
    """A `.npy` file whose rows come one after another, and the hash of what was written.

    Attributes:
        file: Open for writing.
        hash: Of everything in it.
        n_bytes: Size so far.
    """

    file: BinaryIO
    hash: "hashlib._Hash" = field(default_factory=hashlib.sha256)
    n_bytes: int = 0

    def head(self, shape: tuple[int, int], dtype: np.dtype[Any]) -> None:
        """Begin an array of this shape."""
        head = BytesIO()
        write_array_header_2_0(head, {"descr": dtype.str, "fortran_order": False, "shape": shape})
        self.write(head.getvalue())

    def write(self, raw: bytes | memoryview) -> int:
        """Add bytes; gives how many they are."""
        self.hash.update(raw)
        self.n_bytes += len(raw)
        return self.file.write(raw)

    def facts(self) -> Facts:
        """Size and hash, for a manifest; nothing can be added afterwards."""
        self.file.close()
        return {"bytes": self.n_bytes, "sha256": self.hash.hexdigest()}


class Shards:
    """The shards of one entry.

    Args:
        wanted: What they hold.
        folder: Where they grow; finished ones of an earlier attempt are taken over.
        drawn: The positions that are taken of each image at the site, those for other seeds too.
        begin: Where its own begin among them.
        n_own: How many are its own.
        size: Images of a batch; a shard holds a whole number of batches.
    """

    def __init__(
        self, wanted: Wanted, folder: Path, drawn: Int[Tensor, "images taken"], begin: int, n_own: int, size: int
    ) -> None:
        self.wanted = wanted
        self.folder = folder
        self.drawn = drawn
        self.columns = slice(begin, begin + n_own)
        self.widths = (wanted.site.d_in, wanted.site.units)
        self.dtype = np.dtype(wanted.stored)
        self.n_images = len(drawn)
        batch_bytes = size * n_own * max(self.widths) * self.dtype.itemsize
        self.n_shard_images = max(1, SHARD_BYTES // batch_bytes) * size
        self.growing: list[Growing] = []
        (folder / FILLED).mkdir(exist_ok=True)
        self.files: dict[str, Facts] = {}
        self.n_done = 0
        while (facts := self.noted(self.n_done)) is not None:
            self.files |= facts
            self.n_done += 1

    @property
    def n_done_images(self) -> int:
        """How many images stand in finished shards."""
        return min(self.n_done * self.n_shard_images, self.n_images)

    @property
    def missing_bytes(self) -> int:
        """What is still to be written, the files' heads aside."""
        n_tokens = self.n_images * (self.columns.stop - self.columns.start)
        there = sum(int(facts["bytes"]) for facts in self.files.values())
        return max(0, stored_bytes(n_tokens, *self.widths, self.wanted.stored) - there)

    def noted(self, index: int) -> dict[str, Facts] | None:
        """Size and hash of the files of a finished shard; None where it is missing or not whole."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            facts: dict[str, Facts] = json.loads(self.note(index).read_text(encoding="ascii"))
            if all((self.folder / FILLED / name).stat().st_size == one["bytes"] for name, one in facts.items()):
                return facts
        return None

    def note(self, index: int) -> Path:
        """Where size and hash of a shard's files are noted."""
        return self.folder / f"shard-{index:05d}.json"

    def add(self, start: int, taken: Taken) -> None:
        """Write what a batch of images, from this one on, gave at the site.

        Raises:
            UsageError: A value does not fit the number format.
        """
        if start % self.n_shard_images == 0:
            self.begin(start)
        for growing, values in zip(self.growing, (taken.inputs, taken.outputs), strict=True):
            growing.write(self.raw(values))
        if (end := start + len(taken.outputs)) % self.n_shard_images == 0 or end == self.n_images:
            self.end(start // self.n_shard_images)

    def raw(self, values: Float[Tensor, "images taken width"]) -> memoryview:
        """Its own tokens among those taken, as they are written."""
        own = values[:, self.columns].flatten(0, 1)
        stored = own.to(getattr(torch, self.wanted.stored))
        if stored.dtype == torch.float16 and not torch.equal(stored.isfinite(), own.isfinite()):
            raise UsageError(
                f"stored: got float16, and an activation of {float(own.abs().nan_to_num(0, 0).max()):.3g} at "
                f"{self.wanted.site.path!r}; expected at most 65504; store float32"
            )
        return stored.contiguous().flatten().view(torch.uint8).cpu().numpy().data

    def begin(self, start: int) -> None:
        """Open the files of the shard of these images."""
        self.abandon()
        n_images = min(self.n_shard_images, self.n_images - start)
        n_rows = n_images * (self.columns.stop - self.columns.start)
        for name, width in zip(NAMES, self.widths, strict=True):
            self.growing.append(Growing((self.folder / f"{name}.partial").open("wb")))
            self.growing[-1].head((n_rows, width), self.dtype)

    def end(self, index: int) -> None:
        """Give the files their names, and note them."""
        facts: dict[str, Facts] = {}
        for name, growing in zip(NAMES, self.growing, strict=True):
            facts[f"{name}-{index:05d}.npy"] = growing.facts()
            (self.folder / f"{name}.partial").rename(self.folder / FILLED / f"{name}-{index:05d}.npy")
        self.growing = []
        partial = self.folder / "note.partial"
        partial.write_text(json.dumps(facts), encoding="ascii")
        partial.rename(self.note(index))
        self.files |= facts
        self.n_done += 1

    def abandon(self) -> None:
        """Close what is open; it is begun anew by whoever goes on."""
        for growing in self.growing:
            growing.file.close()
        self.growing = []

    def tokens(self) -> None:
        """Write image and position of each token."""
        positions = self.drawn[:, self.columns]
        images = torch.arange(len(positions))[:, None].expand_as(positions)
        pairs = torch.stack([images, positions], dim=-1).flatten(0, 1).numpy().astype(POSITION)
        np.save(self.folder / FILLED / "tokens.npy", pairs)
