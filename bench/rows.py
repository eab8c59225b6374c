"""One long table of numbers spread over files: read by rows or by columns, never held whole.

Shards are `.npy` files of float32 or float16, mapped into memory; what is read is float32. Pages of a file that have
been read stay with the process until it lets go of them, and so its memory would grow with the file: where the files
are large, every read that copies lets go of what it has copied.
"""

import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

DTYPES = ("float32", "float16")
KEPT_BYTES = 256 * 2**20
"""Files up to this size together stay mapped once they are read."""
WINDOW_BYTES = 32 * 2**20
"""Of larger files, at most about this much of one is mapped at a time."""
FOLIO_BYTES = 2 * 2**20
"""A page that is looked at brings up to this much of its neighbourhood with it."""
BLOCK_ROWS = 4096
"""Rows that are turned into columns at a time, so that they stay in the cache meanwhile."""


def mapped_bytes(n_rows: int, width: int, itemsize: int, n_readers: int = 1) -> int:
    """Most pages of so many rows on disk that are mapped at once, where several threads read copies of them."""
    n_bytes = n_rows * width * itemsize
    return n_bytes if n_bytes <= KEPT_BYTES else min(n_bytes, n_readers * (WINDOW_BYTES + 2 * FOLIO_BYTES))


@dataclass(frozen=True, eq=False)
class Shard:
    """One file, memory-mapped.

    Attributes:
        values: Its rows, as they are on disk.
        pages: The map behind them.
        begins: At which byte of the map the first row is.
    """

    values: Float[Tensor, "rows width"]
    pages: mmap.mmap
    begins: int

    @classmethod
    def of(cls, path: Path) -> "Shard":
        """The shard in a file.

        Raises:
            ValueError: It holds something else than rows of float32 or float16.
        """
        # "c" is copy on write: nothing is ever written, but torch takes it for a writable array and does not warn.
        array = np.load(path, mmap_mode="c")
        if array.ndim != 2 or array.dtype.name not in DTYPES or not array.flags.c_contiguous:
            raise ValueError(
                f"{path}: got {array.dtype} of shape {array.shape}; expected rows of {' or '.join(DTYPES)}; delete the "
                "folder it is in, and they are extracted again"
            )
        return cls(torch.from_numpy(array), array._mmap, array.offset % mmap.ALLOCATIONGRANULARITY)

    @property
    def row_bytes(self) -> int:
        """Size of a row on disk."""
        return self.values.shape[1] * self.values.element_size()

    def let_go(self, start: int, stop: int) -> None:
        """Give back the pages of some rows; reading them again brings them back."""
        if hasattr(mmap, "MADV_DONTNEED"):
            first = (self.begins + start * self.row_bytes) // FOLIO_BYTES * FOLIO_BYTES
            last = -(-(self.begins + stop * self.row_bytes) // FOLIO_BYTES) * FOLIO_BYTES
            self.pages.madvise(mmap.MADV_DONTNEED, first, min(last, len(self.pages)) - first)


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows of some shards, one shard after the other.

    Attributes:
        shards: At least one; all are of one width and one dtype, and all but the last have the same number of rows.
    """

    shards: tuple[Shard, ...]

    @classmethod
    def of(cls, paths: Sequence[Path]) -> "Rows":
        """The rows of these files, in this order; nothing is read before it is used.

        Raises:
            ValueError: There are no files, or they do not belong together.
        """
        if not paths:
            raise ValueError("paths: got none; expected at least one .npy file; look at the folder they should be in")
        shards = tuple(Shard.of(path) for path in paths)
        first, n_rows = shards[0].values, len(shards[0].values)
        for path, shard, is_last in zip(paths, shards, [*[False] * (len(paths) - 1), True], strict=True):
            found = shard.values
            is_full = len(found) == n_rows or (is_last and 0 < len(found) < n_rows)
            if not is_full or found.shape[1] != first.shape[1] or found.dtype != first.dtype:
                raise ValueError(
                    f"{path}: got {found.dtype} of shape {tuple(found.shape)} beside {first.dtype} of shape "
                    f"{tuple(first.shape)} in {paths[0].name}; expected the same, with fewer rows only in the last "
                    "file; delete the folder they are in, and they are extracted again"
                )
        return cls(shards)

    @cached_property
    def rows_a_shard(self) -> int:
        """Rows of every shard but the last."""
        return len(self.shards[0].values)

    @cached_property
    def shape(self) -> tuple[int, int]:
        """How many rows there are, and their width."""
        last = self.shards[-1].values
        return self.rows_a_shard * (len(self.shards) - 1) + len(last), last.shape[1]

    def __len__(self) -> int:
        return self.shape[0]

    @cached_property
    def window(self) -> int:
        """Rows of a shard that are mapped at a time."""
        return max(1, WINDOW_BYTES // max(1, self.shards[0].row_bytes))

    @cached_property
    def is_kept(self) -> bool:
        """Whether what is read stays mapped."""
        return len(self) * self.shards[0].row_bytes <= KEPT_BYTES

    def __getitem__(self, rows: slice | Int[Tensor, " rows"]) -> Float[Tensor, "rows width"]:
        """The named rows, in that order; consecutive ones of one float32 shard are no copy.

        Raises:
            IndexError: There is no such row.
        """
        if not isinstance(rows, slice):
            return self.taken(rows)
        start, stop, step = rows.indices(len(self))
        if step < 0:
            raise ValueError(f"rows: got a step of {step}; expected one above 0; turn the result around")
        if step > 1:
            return self.taken(torch.arange(start, max(start, stop), step))
        stop = max(start, stop)
        number, first = divmod(start, max(1, self.rows_a_shard))
        if self.shards[0].values.dtype == torch.float32 and first + stop - start <= self.rows_a_shard:
            return self.shards[min(number, len(self.shards) - 1)].values[first : first + stop - start]
        found = torch.empty(stop - start, self.shape[1])
        for shard, first, last, at in self.windows(start, stop):
            found[at : at + last - first] = shard.values[first:last]
            self.done_with(shard, first, last)
        return found

    def taken(self, rows: Int[Tensor, " rows"], columns: slice = slice(None)) -> Float[Tensor, "rows columns"]:
        """The named rows, in that order, or some columns of them; always a copy.

        Files are read from their beginning to their end, whatever the order.

        Raises:
            IndexError: There is no such row.
        """
        index = self.checked(rows)
        if self.is_kept and len(self.shards) == 1:
            return self.shards[0].values[:, columns].index_select(0, index).float()
        ordered, order = torch.sort(index)
        found = torch.empty(len(index), len(range(*columns.indices(self.shape[1]))))
        at = 0
        while at < len(ordered):
            number, first = divmod(int(ordered[at]), self.rows_a_shard)
            last = min((first // self.window + 1) * self.window, self.rows_a_shard)
            end = int(torch.searchsorted(ordered, number * self.rows_a_shard + last))
            shard, here = self.shards[number], ordered[at:end] - number * self.rows_a_shard
            found[order[at:end]] = shard.values[:, columns].index_select(0, here).float()
            self.done_with(shard, first, min(last, len(shard.values)))
            at = end
        return found

    def columns(self, start: int, stop: int) -> Float[Tensor, "rows columns"]:
        """All rows of a few columns; a copy in which the values of one column lie side by side."""
        start, stop, _ = slice(start, stop).indices(self.shape[1])
        found = torch.empty(max(0, stop - start), len(self))
        for shard, first, last, at in self.windows(0, len(self)):
            for row in range(first, last, BLOCK_ROWS):
                block = shard.values[row : min(row + BLOCK_ROWS, last), start:stop].float()
                found[:, at + row - first : at + row - first + len(block)] = block.T
            self.done_with(shard, first, last)
        return found.T

    def windows(self, start: int, stop: int) -> Iterator[tuple[Shard, int, int, int]]:
        """Consecutive rows, as many at a time as are mapped at once.

        Gives the shard, the first row and the one after the last in it, and how many rows came before.
        """
        at = start
        while at < stop:
            number, first = divmod(at, self.rows_a_shard)
            last = min(first + self.window, self.rows_a_shard, first + stop - at)
            yield self.shards[number], first, last, at - start
            at += last - first

    def checked(self, rows: Int[Tensor, " rows"]) -> Int[Tensor, " rows"]:
        """The rows on the host, counted from the first one.

        Raises:
            IndexError: There is no such row.
        """
        index, n = rows.cpu().long(), len(self)
        if len(index):
            for row in map(int, index.aminmax()):
                if not -n <= row < n:
                    raise IndexError(f"rows: got {row}; expected {-n} to {n - 1}; there are {n} rows")
        return torch.where(index < 0, index + n, index)

    def done_with(self, shard: Shard, start: int, stop: int) -> None:
        """Let go of rows that have been copied, where the files are large."""
        if not self.is_kept:
            shard.let_go(start, stop)

    def let_go(self) -> None:
        """Give back the pages of all files: those too that were handed out as they are."""
        for shard in self.shards:
            shard.let_go(0, len(shard.values))
