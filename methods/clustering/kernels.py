"""Triton kernels of the list path: near pairs of a tile into lists, and squared distances of pairs in float64.

Imported only where Triton is. Their twins, `gpu.append_lines` and `gpu.folded_distances`, say the same in torch; the
tests compare them. Nothing is atomic: a program owns its lines and goes along them in one order.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"
# ruff: noqa: ANN001

import inspect
from collections.abc import Callable
from typing import Any

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from methods.clustering.machines import Lists

ALONG_ROWS = (4, 512)
"""Lines of a program, and others it looks at together, where neighbours in memory are those of one line."""
ALONG_COLUMNS = (64, 64)
"""The same where neighbours in memory are of different lines."""
DIMENSIONS = 1024


def kernel(function: Callable[..., None]) -> Any:
    """The function as a Triton kernel; what a type checker has put around it is taken off."""
    return triton.jit(inspect.unwrap(function))


@kernel
def append_kernel(
    products,
    squares,
    thresholds,
    values,
    entries,
    counts,
    first_line,
    first_other,
    n_lines,
    n_others,
    capacity,
    stride_line,
    stride_other,
    later: tl.constexpr,
    lines_at_once: tl.constexpr,
    others_at_once: tl.constexpr,
) -> None:
    """Appends to the lists of some lines of a tile what is near to them, in the order of the others."""
    lines = tl.program_id(0) * lines_at_once + tl.arange(0, lines_at_once)
    alive = lines < n_lines
    line = first_line + lines
    square = tl.load(squares + line, mask=alive, other=0.0)
    limit = tl.load(thresholds + line, mask=alive, other=-1.0)
    count = tl.load(counts + line, mask=alive, other=0)
    into = line.to(tl.int64) * capacity
    row = products + lines.to(tl.int64)[:, None] * stride_line
    for start in range(0, n_others, others_at_once):
        others = start + tl.arange(0, others_at_once)
        here = others < n_others
        other = first_other + others
        product = tl.load(
            row + others.to(tl.int64)[None, :] * stride_other, mask=alive[:, None] & here[None, :], other=0.0
        )
        other_square = tl.load(squares + other, mask=here, other=0.0)
        a = (square[:, None] + other_square[None, :]) - 2.0 * product
        a = tl.maximum(a, 0.0)
        order = other[None, :] > line[:, None] if later else other[None, :] < line[:, None]
        near = order & (a <= limit[:, None]) & alive[:, None] & here[None, :]
        one = near.to(tl.int32)
        place = count[:, None] + tl.cumsum(one, axis=1) - one
        fits = near & (place < capacity)
        tl.store(values + into[:, None] + place, a.to(tl.float32), mask=fits)
        tl.store(entries + into[:, None] + place, (other[None, :] + tl.zeros_like(place)).to(tl.int32), mask=fits)
        count += tl.sum(one, axis=1)
    tl.store(counts + line, count, mask=alive)


@kernel
def distance_kernel(points, first, second, found, dimensions, at_once: tl.constexpr) -> None:
    """The squared distance of one pair: differences squared in float64, then one tree sum."""
    pair = tl.program_id(0).to(tl.int64)
    left = points + tl.load(first + pair) * dimensions
    right = points + tl.load(second + pair) * dimensions
    total = tl.zeros([at_once], dtype=tl.float64)
    for start in range(0, dimensions, at_once):
        at = start + tl.arange(0, at_once)
        here = at < dimensions
        difference = tl.load(left + at, mask=here, other=0.0).to(tl.float64) - tl.load(
            right + at, mask=here, other=0.0
        ).to(tl.float64)
        total += difference * difference
    tl.store(found + pair, tl.sum(total, axis=0))


def append(
    products: Float[Tensor, "lines others"],
    squares: Float[Tensor, " points"],
    lists: Lists,
    first_line: int,
    first_other: int,
    later: bool,
) -> None:
    """As `gpu.append_lines`."""
    along_rows = products.stride(1) == 1
    lines_at_once, others_at_once = ALONG_ROWS if along_rows else ALONG_COLUMNS
    append_kernel[(triton.cdiv(products.shape[0], lines_at_once),)](
        products,
        squares,
        lists.thresholds,
        lists.values,
        lists.entries,
        lists.counts,
        first_line,
        first_other,
        products.shape[0],
        products.shape[1],
        lists.values.shape[1],
        products.stride(0),
        products.stride(1),
        later=later,
        lines_at_once=lines_at_once,
        others_at_once=others_at_once,
        enable_fp_fusion=False,
    )


def distances(
    points: Float[Tensor, "points dimensions"], i: Int[Tensor, " pairs"], j: Int[Tensor, " pairs"]
) -> Float[Tensor, " pairs"]:
    """As `gpu.folded_distances`, to the last bits."""
    found = torch.empty(len(i), dtype=torch.float64, device=points.device)
    if len(i):
        dimensions = points.shape[1]
        at_once = min(DIMENSIONS, triton.next_power_of_2(dimensions))
        first, second = i.contiguous(), j.contiguous()
        distance_kernel[(len(i),)](points, first, second, found, dimensions, at_once=at_once, enable_fp_fusion=False)
    return found
