"""The working copy of the points: rounded, so that products are fast, with a radius that says how far it may be off.

Row r of the copy is h_r, near y_r = (x - offset) 2^s for the point x it stands for, with ||y_r - h_r|| <= error_r. From
products of the copy, a = ||h_i||^2 + ||h_j||^2 - 2 h_i.h_j lies within g (||h_i||^2 + ||h_j||^2) of ||h_i - h_j||^2,
and that root lies within error_i + error_j of ||y_i - y_j||; both errors have a floor, for what float32 cannot hold. So
`lowest(a)` and `highest(a)` enclose the true squared distance. The errors of rows are bounds for any values, also
heavy-tailed ones. Below float64, g is not: it is calibrated on some rows, with a margin (`calibrated`), since the worst
case of a sum is sqrt(d) / 4 times wider. So every pair that float64 measures is held against its radius, and one
outside ends the run; a pair that no one measures rests on g. All squared distances between here and the finished tree
are those of y, 4^s times those of the points; a power of two is exact.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from methods.clustering.machines import Machine

Precision = Literal["float16", "float32", "float64"]

BITS = {"float16": 16, "float32": 32, "float64": 64}
SLACK = 2.0**-19
"""Relative room for the rounding of the bounds themselves, which are computed in float32."""
SMALLEST_ROOT, SMALLEST_SQUARE = 2.0**-64, 2.0**-124
"""Added to the error of a root, and for each dimension to that of a square: float32 loses what is below 2^-126."""
LARGEST = 30_000.0
"""Entries are scaled below this: float16 ends at 65,504, and small entries stay out of its subnormals."""
SEED = 20_250
CALIBRATED_ROWS = {"cpu": 192, "cuda": 2048}


@dataclass(frozen=True, eq=False)
class Working:
    """The rounded copy of some points, in a fixed random order: the last rows are a uniform sample.

    Attributes:
        machine: What multiplies tiles and measures pairs.
        rows: The copy.
        squares: ||h||^2 of each row.
        errors: How far the row may be from the point it stands for.
        order: Which point each row stands for.
        scale: 2^s.
        relative: g, the error of `a` relative to the two squares.
        facts: What the calibration found.
    """

    machine: Machine
    rows: Float[Tensor, "points dimensions"]
    squares: Float[Tensor, " points"]
    errors: Float[Tensor, " points"]
    order: Int[Tensor, " points"]
    scale: float
    relative: float
    facts: dict[str, float | int]

    def approximate(
        self, rows: slice | Int[Tensor, " rows"], columns: slice | Int[Tensor, " columns"]
    ) -> Float[Tensor, "rows columns"]:
        """Approximate squared distances `a` of a tile, at least 0; written over by the next tile."""
        tile = self.machine.products(self.rows[rows], self.rows[columns])
        tile.mul_(-2.0).add_(self.squares[rows][:, None]).add_(self.squares[columns][None, :])
        return tile.clamp_(min=0.0)

    def distances(self, i: Int[Tensor, " pairs"], j: Int[Tensor, " pairs"]) -> Float[Tensor, " pairs"]:
        """The squared distances that decide, of pairs of rows, in float64."""
        return self.machine.distances(self.order[i], self.order[j]) * self.scale**2

    def radius(
        self, i: slice | Int[Tensor, "*rows"], j: Int[Tensor, "*others"] | None
    ) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
        """The error of the root and of the square, for pairs of rows; without `j`, the largest that row i can meet."""
        if j is None:
            error, squares = self.errors[i] + self.errors.max(), self.squares[i] + self.squares.max()
        else:
            error, squares = self.errors[i] + picked(self.errors, j), self.squares[i] + picked(self.squares, j)
        return error, squares.float().mul_(self.relative).add_(self.floor)

    @property
    def floor(self) -> float:
        """The error of the square that is left where the rows vanish: products and squares too small for float32."""
        return SMALLEST_SQUARE * (self.rows.shape[1] + 2)

    def rechecked(
        self, i: Int[Tensor, " pairs"], j: Int[Tensor, " pairs"], a: Float[Tensor, " pairs"]
    ) -> Float[Tensor, " pairs"]:
        """Squared distances in float64 of pairs whose approximate ones are `a`, each within its own radius.

        Raises:
            ArithmeticError: One is not: the radius is wrong, and so might be the tree.
        """
        found = self.distances(i, j)
        error, square_error = self.radius(i, j)
        outside = (found < lowest(a, error, square_error)) | (found > highest(a, error, square_error))
        if bool(outside.any()):
            at = int(outside.nonzero()[0, 0])
            raise ArithmeticError(
                f"points: rows {int(self.order[i[at]])} and {int(self.order[j[at]])} have squared distance "
                f"{float(found[at]):.9g} but {float(a[at]):.9g} in {self.rows.dtype} products (both times "
                f"{self.scale:g}^2); expected a difference within {float(error[at]):.3g} of the root and "
                f"{float(square_error[at]):.3g} of the square; use precision='float64' and report the device"
            )
        return found


def picked(values: Shaped[Tensor, " points"], at: Int[Tensor, "*shape"]) -> Shaped[Tensor, "*shape"]:
    """The values at these places; several times faster than an index, which copies 32-bit places to 64."""
    return values.index_select(0, at.reshape(-1)).view(at.shape)


def lowest(
    a: Float[Tensor, "*shape"], error: Float[Tensor, "*#shape"], square_error: Float[Tensor, "*#shape"]
) -> Float[Tensor, "*shape"]:
    """The smallest squared distance that an approximate one allows."""
    root = torch.clamp_(a * (1 - SLACK) - square_error, min=0.0).sqrt_().sub_(error).clamp_(min=0.0)
    return root.square_().mul_(1 - SLACK)


def highest(
    a: Float[Tensor, "*shape"], error: Float[Tensor, "*#shape"], square_error: Float[Tensor, "*#shape"]
) -> Float[Tensor, "*shape"]:
    """The largest squared distance that an approximate one allows."""
    root = (a * (1 + SLACK) + square_error).sqrt_().add_(error)
    return root.square_().mul_(1 + SLACK)


def cutoff(
    squared: Float[Tensor, "*shape"], error: Float[Tensor, "*#shape"], square_error: Float[Tensor, "*#shape"]
) -> Float[Tensor, "*shape"]:
    """The largest approximate value that a pair of at most this squared distance can have; `lowest` reversed."""
    root = (squared * (1 + 2 * SLACK)).sqrt().add_(error)
    return root.square_().add_(square_error).mul_(1 + 4 * SLACK)


def prepare(machine: Machine, precision: Precision) -> Working:
    """The working copy of the machine's points, calibrated."""
    points, device = machine.points, machine.points.device
    n, d = points.shape
    order = torch.from_numpy(np.random.default_rng(SEED).permutation(n)).to(device)
    offset, scale = placed(machine)
    dtype = {"float16": machine.half, "float32": torch.float32, "float64": torch.float64}[precision]
    rows = torch.empty((n, d), dtype=dtype, device=device)
    squares = torch.empty(n, dtype=torch.float64, device=device)
    errors = torch.empty(n, dtype=torch.float64, device=device)
    for piece in pieces(n, machine.chunk // d):
        y = (points[order[piece]].double() - offset) * scale
        rows[piece] = y.half().to(dtype) if precision == "float16" else y.to(dtype)
        h = rows[piece].double()
        squares[piece] = h.square().sum(1)
        errors[piece] = (y - h).square().sum(1).sqrt() * (1 + SLACK) + squares[piece].sqrt() * 2.0**-50
    wide = torch.float64 if precision == "float64" else torch.float32
    errors = errors.float() * (1 + SLACK) + SMALLEST_ROOT
    working = Working(machine, rows, squares.to(wide), errors, order, scale, 0.0, {})
    return calibrated(working, precision)


def placed(machine: Machine) -> tuple[Float[Tensor, " dimensions"], float]:
    """What is subtracted from the points, and the power of two that they are multiplied with.

    Distances do not see the offset, but the error of a product grows with the norms: the mean is subtracted when that
    at least halves the mean square, which contributions of norm 1 seldom need and data with a common offset do.
    """
    points = machine.points
    n, d = points.shape
    total = torch.zeros(d, dtype=torch.float64, device=points.device)
    square, largest = torch.zeros((2, 1), dtype=torch.float64, device=points.device)
    all_pieces = pieces(n, machine.chunk // d)
    for piece in all_pieces:
        x = points[piece].double()
        total += x.sum(0)
        square += x.square().sum()
    offset = total / n
    offset = torch.where(offset.square().sum() * 2 > square / n, offset, torch.zeros_like(offset))
    for piece in all_pieces:
        largest = torch.maximum(largest, (points[piece].double() - offset).abs().max())
    top = float(largest)
    return offset, 2.0 ** math.floor(math.log2(LARGEST / top)) if top > 0 else 1.0


def calibrated(working: Working, precision: Precision) -> Working:
    """The same with g set: 2 d units of rounding in float64, which no sum of d products exceeds.

    Below, four standard errors of a sum in that precision, or four times the worst product seen, whichever is larger:
    an estimate, not a bound. The worst is sought among real rows, a random sample and those of the largest norm, and
    so includes their products with themselves, where truncating hardware errs the most.
    """
    n, d = working.rows.shape
    unit = 2.0**-53 if precision == "float64" else 2.0**-24
    if precision == "float64":
        gamma, seen = 2.0 * d * unit, 0.0
    else:
        count = min(n, CALIBRATED_ROWS[working.rows.device.type])
        largest = torch.topk(working.squares, -(-count // 4)).indices
        some = torch.cat([working.rows[n - count :], working.rows[largest]])
        exact = some.double() @ some.double().T
        norms = exact.diagonal().sqrt().clamp(min=1e-150)
        off = (working.machine.products(some, some).double() - exact).abs() - working.floor / 2
        seen = float((off / norms[:, None] / norms).max().clamp(min=0.0))
        gamma = max(4 * math.sqrt(d) * unit, 4 * seen)
    facts: dict[str, float | int] = {
        "precision_bits": BITS[precision],
        "gamma": gamma,
        "largest_product_error": seen,
        "largest_row_error": float(working.errors.max()) / working.scale,
    }
    return Working(
        working.machine, working.rows, working.squares, working.errors, working.order, working.scale,
        gamma + 8 * unit, facts,
    )  # fmt: skip


def pieces(n: int, size: int) -> list[slice]:
    """Consecutive slices of 0 .. n-1 of at most `size`, at least 1."""
    size = max(1, size)
    return [slice(first, min(first + size, n)) for first in range(0, n, size)]
