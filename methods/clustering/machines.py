"""What the list path asks of a device: products of tiles, lists filled from them, pairs measured in float64.

`host` answers through numba on a processor, `gpu` through torch and Triton, so that one driver serves both.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Lists:
    """Near rows of every row.

    Attributes:
        values: Approximate squared distances; -1 once it is proved that the squared distance is at most the core's.
        entries: Which rows these are.
        counts: How many there were; above the capacity where some were lost.
        thresholds: Whatever is not listed is further away than this, approximately.
    """

    values: Float[Tensor, "points capacity"]
    entries: Int[Tensor, "points capacity"]
    counts: Int[Tensor, " points"]
    thresholds: Float[Tensor, " points"]


@runtime_checkable
class Machine(Protocol):
    """What the list path needs of a device.

    Attributes:
        points: The data, as given, where the machine works.
        half: How rows rounded to float16 are stored.
        chunk: Elements that an intermediate tensor may have.
    """

    points: Float[Tensor, "points dimensions"]
    half: torch.dtype
    chunk: int

    def products(
        self, rows: Float[Tensor, "rows dimensions"], columns: Float[Tensor, "columns dimensions"]
    ) -> Float[Tensor, "rows columns"]:
        """Inner products of two blocks, summed in float32, or in float64 for float64; the next tile overwrites them."""
        ...

    def append(
        self,
        products: Float[Tensor, "rows columns"],
        squares: Float[Tensor, " points"],
        lists: Lists,
        first_row: int,
        first_column: int,
    ) -> None:
        """Puts the pairs row < column of a tile that are within a threshold into the lists of both ends, in order.

        A list that is full keeps what it has, and its count goes on.
        """
        ...

    def smallest(self, values: Float[Tensor, "rows entries"], k: int) -> Float[Tensor, " rows"]:
        """The k-th smallest value of each row, counted from 1."""
        ...

    def distances(self, i: Int[Tensor, " pairs"], j: Int[Tensor, " pairs"]) -> Float[Tensor, " pairs"]:
        """Squared distances of pairs of points in float64, by differences: the same bits for a pair in any call."""
        ...
