"""The list path on a GPU: tensor cores, and Triton kernels or the torch code that these are tested against.

Without Triton it runs on any device, so that the tests drive on a processor what a GPU will do.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from jaxtyping import Float, Int
from torch import Tensor

from methods.clustering.machines import Lists


class Torch:
    """A GPU, or a processor that does as one would.

    Args:
        points: The data, on the device.
        triton: Whether the kernels are Triton's; else they are torch's, several times slower.
    """

    half = torch.float16

    def __init__(self, points: Float[Tensor, "points dimensions"], triton: bool) -> None:
        self.points = points.contiguous()
        self.triton = triton
        self.chunk = 1 << 26 if points.is_cuda else 1 << 20

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """The device current while it lasts, since Triton launches there, and any kernel of torch's allowed.

        In its deterministic mode torch refuses `kthvalue` on a GPU: of equal values it may find either. Only the value
        is used here, which is the same, and so is everything else that runs.
        """
        strict, warns = (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
        )
        torch.use_deterministic_algorithms(False)
        try:
            with torch.cuda.device(self.points.device) if self.points.is_cuda else nullcontext():
                yield
        finally:
            torch.use_deterministic_algorithms(strict, warn_only=warns)

    def products(
        self, rows: Float[Tensor, "rows dimensions"], columns: Float[Tensor, "columns dimensions"]
    ) -> Float[Tensor, "rows columns"]:
        """As `Machine`: on tensor cores with float32 sums where the rows are float16."""
        if rows.dtype != torch.float16:
            return torch.mm(rows, columns.T)
        if rows.is_cuda:
            return torch.mm(rows, columns.T, out_dtype=torch.float32)
        return torch.mm(rows.float(), columns.float().T)

    def append(
        self,
        products: Float[Tensor, "rows columns"],
        squares: Float[Tensor, " points"],
        lists: Lists,
        first_row: int,
        first_column: int,
    ) -> None:
        """As `Machine`, in two launches."""
        if self.triton:
            from methods.clustering.kernels import append
        else:
            append = append_lines
        append(products, squares, lists, first_row, first_column, True)
        append(products.T, squares, lists, first_column, first_row, False)

    def smallest(self, values: Float[Tensor, "rows entries"], k: int) -> Float[Tensor, " rows"]:
        """As `Machine`."""
        found: Tensor = torch.kthvalue(values, k, dim=1).values
        return found

    def distances(self, i: Int[Tensor, " pairs"], j: Int[Tensor, " pairs"]) -> Float[Tensor, " pairs"]:
        """As `Machine`; the decisions of one run are all this kernel's or all this sum's."""
        if self.triton:
            from methods.clustering.kernels import distances

            return distances(self.points, i, j)
        return folded_distances(self.points, i, j, self.chunk)


def append_lines(
    products: Float[Tensor, "lines others"],
    squares: Float[Tensor, " points"],
    lists: Lists,
    first_line: int,
    first_other: int,
    later: bool,
) -> None:
    """Appends to the lists of the tile's lines those of the others that come later in the data, or those before."""
    lines = torch.arange(first_line, first_line + products.shape[0], device=products.device)
    others = torch.arange(first_other, first_other + products.shape[1], device=products.device)
    a = ((squares[lines][:, None] + squares[others]) - 2.0 * products).clamp_(min=0.0)
    order = others > lines[:, None] if later else others < lines[:, None]
    near = order & (a <= lists.thresholds[lines][:, None])
    line, other = near.nonzero(as_tuple=True)
    found = near.sum(1)
    place = torch.arange(len(line), device=line.device) - (found.cumsum(0) - found)[line] + lists.counts[lines][line]
    fits = place < lists.values.shape[1]
    line, other, place = line[fits], other[fits], place[fits]
    lists.values[lines[line], place] = a[line, other].float()
    lists.entries[lines[line], place] = others[other].int()
    lists.counts[lines] += found.int()


def folded_distances(
    points: Float[Tensor, "points dimensions"], i: Int[Tensor, " pairs"], j: Int[Tensor, " pairs"], chunk: int
) -> Float[Tensor, " pairs"]:
    """Squared distances in float64, halves added onto each other: torch's own sum depends on how many there are."""
    width = 1 << (points.shape[1] - 1).bit_length()
    step = max(1, chunk // width)
    found = torch.empty(len(i), dtype=torch.float64, device=points.device)
    for first in range(0, len(i), step):
        pairs = slice(first, first + step)
        squares = (points[i[pairs]].double() - points[j[pairs]].double()).square()
        squares = torch.nn.functional.pad(squares, (0, width - squares.shape[1]))
        while squares.shape[1] > 1:
            half = squares.shape[1] // 2
            squares = squares[:, :half] + squares[:, half:]
        found[pairs] = squares[:, 0]
    return found
