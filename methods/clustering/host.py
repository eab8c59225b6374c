"""The list path on a processor: one-thread products and machine code, on a pool of threads."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from methods.clustering.compiled import compiled
from methods.clustering.dense import one_blas_thread
from methods.clustering.distances import squared_distances
from methods.clustering.machines import Lists

GLANCE = 32
"""Pairs that are counted at once, in vector instructions, before any is looked at; most counts are 0."""


class Host:
    """A processor.

    The tasks do not depend on the number of threads, so the results do not either.
    """

    half = torch.float32
    chunk = 1 << 18
    task_rows, task_pairs = 256, 4096

    def __init__(self, points: Float[ndarray, "points dimensions"], threads: int) -> None:
        self.array = np.ascontiguousarray(points)
        self.points = torch.from_numpy(self.array)
        self.pool = ThreadPoolExecutor(threads)
        self.scratch = np.empty(0, dtype=np.float32)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """One thread of BLAS and of torch in each of the pool's while it lasts; then the pool ends.

        Torch's own threads wait by spinning, which on a busy machine costs more than its share of the work.
        """
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with one_blas_thread(), self.pool:
                yield
        finally:
            torch.set_num_threads(before)

    def products(
        self, rows: Float[Tensor, "rows dimensions"], columns: Float[Tensor, "columns dimensions"]
    ) -> Float[Tensor, "rows columns"]:
        """As `Machine`; the tile is one buffer, since fresh pages cost as much as a thin product."""
        left, right = rows.numpy(), columns.numpy().T
        size = len(rows) * len(columns)
        if self.scratch.size < size or self.scratch.dtype != left.dtype:
            self.scratch = np.empty(size, dtype=left.dtype)
        tile = self.scratch[:size].reshape(len(rows), len(columns))
        parts = [slice(first, first + self.task_rows) for first in range(0, len(rows), self.task_rows)]
        list(self.pool.map(lambda part: np.matmul(left[part], right, out=tile[part]), parts))
        return torch.from_numpy(tile)

    def append(
        self,
        products: Float[Tensor, "rows columns"],
        squares: Float[Tensor, " points"],
        lists: Lists,
        first_row: int,
        first_column: int,
    ) -> None:
        """As `Machine`: first the rows' lists, on the pool, then the columns'."""
        tile = products.numpy()
        known = (squares.numpy(), lists.thresholds.numpy())
        found = (lists.values.numpy(), lists.entries.numpy(), lists.counts.numpy())
        for fill, length in ((fill_rows, tile.shape[0]), (fill_columns, tile.shape[1])):
            step = -(-length // 8)
            starts = range(0, length, step)
            list(self.pool.map(lambda s: fill(tile, *known, *found, first_row, first_column, s, s + step), starts))  # noqa: B023

    def smallest(self, values: Float[Tensor, "rows entries"], k: int) -> Float[Tensor, " rows"]:
        """As `Machine`; numpy's selection is vectorised, torch's is not."""
        parts = torch.split(values, self.task_rows)
        found = self.pool.map(lambda part: np.partition(part.numpy(), k - 1, axis=1)[:, k - 1].copy(), parts)
        return torch.from_numpy(np.concatenate(list(found)))

    def distances(self, i: Int[Tensor, " pairs"], j: Int[Tensor, " pairs"]) -> Float[Tensor, " pairs"]:
        """As `Machine`, by `methods.clustering.distances`."""
        left, right = i.numpy(), j.numpy()
        parts = [slice(first, first + self.task_pairs) for first in range(0, len(left), self.task_pairs)]
        found = self.pool.map(lambda part: squared_distances(self.array, left[part], right[part]), parts)
        return torch.from_numpy(np.concatenate([np.empty(0), *found]))


@compiled
def fill_rows(
    tile: Float[ndarray, "rows columns"],
    squares: Float[ndarray, " points"],
    thresholds: Float[ndarray, " points"],
    values: Float[ndarray, "points capacity"],
    entries: Int[ndarray, "points capacity"],
    counts: Int[ndarray, " points"],
    first_row: int,
    first_column: int,
    start: int,
    stop: int,
) -> None:
    """Appends columns to the lists of the tile's rows start .. stop-1."""
    capacity = values.shape[1]
    for r in range(start, min(stop, tile.shape[0])):
        i = first_row + r
        at, limit, square = counts[i], thresholds[i], squares[i]
        for begin in range(max(0, i + 1 - first_column), tile.shape[1], GLANCE):
            products = tile[r, begin : begin + GLANCE]
            others = squares[first_column + begin : first_column + begin + len(products)]
            near = 0
            for c in range(len(products)):
                near += (square + others[c]) - products[c] - products[c] <= limit
            if near:
                for c in range(len(products)):
                    a = (square + others[c]) - products[c] - products[c]
                    if a <= limit:
                        if at < capacity:
                            values[i, at] = max(a, 0.0)
                            entries[i, at] = first_column + begin + c
                        at += 1
        counts[i] = at


@compiled
def fill_columns(
    tile: Float[ndarray, "rows columns"],
    squares: Float[ndarray, " points"],
    thresholds: Float[ndarray, " points"],
    values: Float[ndarray, "points capacity"],
    entries: Int[ndarray, "points capacity"],
    counts: Int[ndarray, " points"],
    first_row: int,
    first_column: int,
    start: int,
    stop: int,
) -> None:
    """Appends rows to the lists of the tile's columns start .. stop-1; it goes along rows, as memory does."""
    capacity = values.shape[1]
    end = min(stop, tile.shape[1])
    for r in range(tile.shape[0]):
        i = first_row + r
        square = squares[i]
        for begin in range(max(start, i + 1 - first_column), end, GLANCE):
            products = tile[r, begin : min(begin + GLANCE, end)]
            j = first_column + begin
            others, limits = squares[j : j + len(products)], thresholds[j : j + len(products)]
            near = 0
            for c in range(len(products)):
                near += (square + others[c]) - products[c] - products[c] <= limits[c]
            if near:
                for c in range(len(products)):
                    a = (square + others[c]) - products[c] - products[c]
                    if a <= limits[c]:
                        at = counts[j + c]
                        if at < capacity:
                            values[j + c, at] = max(a, 0.0)
                            entries[j + c, at] = i
                        counts[j + c] = at + 1
