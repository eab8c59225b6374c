"""The minimum spanning tree of the mutual reachability graph from all distances at once: n^2 numbers in memory.

Distances come from one matrix product in float32 and only sort pairs into "surely below", "surely above" and "in
doubt": every number that decides is computed again in float64 from the points. Most edges of the tree weigh exactly a
core distance, so that a pointer to a denser neighbour inside the own ball settles them without any arithmetic; the few
components that are left are joined by Boruvka's rounds (Boruvka 1926).

Work is cut into tasks that do not depend on how many threads do them, each with matrix products of one thread.
"""

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from threadpoolctl import ThreadpoolController

from methods.clustering.distances import squared_distances
from methods.clustering.reach import centre, core_distances, lightest_edges, pointers, turn_to_distances
from methods.clustering.trees import SpanningTree, united

TILE = 512
"""Rows and columns multiplied at a time: the products stay in the cache until they are distances, here and mirrored."""
PADDING = 16
"""Numbers between one row and the next: rows a power of two apart would fight for the same places in the cache."""
MOST_TASKS = 32
ENTRIES_OF_A_TASK = 2**20
DOUBTS_PER_ROW = 256
"""More entries in doubt than this, on average, and float32 is too coarse for the data: float64 is used."""
N_CHECKED = 1024
CONTROLLERS: list[ThreadpoolController] = []
"""Found when first needed: looking for a process's libraries takes longer than a small unit."""


@dataclass(frozen=True, eq=False)
class Working:
    """The points as the matrix product sees them.

    Attributes:
        rows: The points, centred, in the working precision.
        squares: Squared norm of each row.
        radius: How far a squared distance made from them may be from the true one.
    """

    rows: Float[ndarray, "points dimensions"]
    squares: Float[ndarray, " points"]
    radius: float


@dataclass(eq=False)
class Scratch:
    """Memory and threads that one unit after another uses: touching fresh memory costs more than filling it.

    Attributes:
        n_threads: How many threads work.
    """

    n_threads: int = 1
    flat: ndarray = field(default_factory=lambda: np.empty(0, np.uint8), repr=False)

    def matrix(self, n: int, dtype: Any) -> Float[ndarray, "points width"]:
        """An n x n matrix with anything in it, its rows padded."""
        row = -(-n // 32) * 32 + PADDING
        n_bytes = n * row * np.dtype(dtype).itemsize
        if self.flat.nbytes < n_bytes:
            self.flat = np.empty(0, np.uint8)  # the old one goes before the new one comes
            self.flat = np.empty(n_bytes, np.uint8)
        matrix: Float[ndarray, "points width"] = self.flat[:n_bytes].view(dtype).reshape(n, row)
        return matrix

    def each(self, do: Callable[[Any], Any], tasks: Iterable[Any]) -> list[Any]:
        """What each task gives, in their order, with matrix products of one thread."""
        with one_blas_thread():
            if self.n_threads == 1:
                return [do(task) for task in tasks]
            with ThreadPoolExecutor(self.n_threads) as pool:
                return list(pool.map(do, tasks))


def one_blas_thread() -> AbstractContextManager[object]:
    """Within this, matrix products take one thread each; for the whole process."""
    if not CONTROLLERS:
        CONTROLLERS.append(ThreadpoolController())
    limit: AbstractContextManager[object] = CONTROLLERS[0].limit(limits=1, user_api="blas")
    return limit


def spanning_tree(
    points: Float[ndarray, "points dimensions"], min_samples: int, scratch: Scratch, n_bytes: int = 2**63
) -> SpanningTree:
    """The minimum spanning tree of these points, by float32 products where they are fine enough, else by float64.

    Args:
        points: At least two, finite, float32 or float64; these very numbers are what distances are of.
        min_samples: Which neighbour's distance is the core distance, the point itself not counted; below their number.
        scratch: Memory and threads.
        n_bytes: What all distances together may take.

    Raises:
        MemoryError: The distances do not fit; float64's take twice the memory of float32's.
        ArithmeticError: Even float64 is further off than it can be.
    """
    for dtype in (np.float32, np.float64):
        if len(points) ** 2 * np.dtype(dtype).itemsize > n_bytes:
            raise MemoryError(f"points: the distances of {len(points)} take more than {n_bytes} bytes")
        found = attempt(points, min_samples, scratch, dtype)
        if found is not None:
            return found
    raise ArithmeticError(
        f"points: squared distances of {points.shape} {points.dtype} values are off by more than float64 rounds; "
        "expected values of one order of size; scale the dimensions alike"
    )


def attempt(
    points: Float[ndarray, "points dimensions"], min_samples: int, scratch: Scratch, dtype: type
) -> SpanningTree | None:
    """The tree by products in one precision; None where it is too coarse for these points."""
    is_last = dtype is np.float64
    start = time.perf_counter()
    working = prepared(points, dtype, scratch)
    if not is_within_radius(points, working):
        return None
    squared = distances(working, scratch)
    distances_done = time.perf_counter()
    cores, doubts, is_right = cores_of(points, squared, min_samples, working.radius, scratch)
    if not is_right or (doubts > DOUBTS_PER_ROW * len(points) and not is_last):
        return None
    cores_done = time.perf_counter()
    heads, tails, weights, facts = joined(points, squared, cores, working.radius, scratch)
    facts |= {
        "radius": working.radius,
        "rechecked": doubts,
        "float64": int(is_last),
        "distances_seconds": distances_done - start,
        "cores_seconds": cores_done - distances_done,
        "tree_seconds": time.perf_counter() - cores_done,
    }
    return SpanningTree(np.sqrt(cores), heads, tails, np.sqrt(weights), facts)


def prepared(points: Float[ndarray, "points dimensions"], dtype: type, scratch: Scratch) -> Working:
    """The points as the matrix product sees them, with a bound on what that costs.

    Distances do not change where the mean is taken off, and what they are computed from gets smaller. The bound is
    2 (4 sqrt(d) + 24) units in the last place of the largest squared norm: sums of d products err like a random walk,
    four standard deviations of it, and the rest is for the rounding of rows, norms and sums.
    """
    n, d = points.shape
    mean = points.mean(axis=0, dtype=np.float64)
    rows: ndarray = np.empty((n, d), dtype)
    squares = np.empty(n)
    scratch.each(lambda start: centre(points, mean, start, min(start + TILE, n), rows, squares), tiles(n))
    unit = float(np.finfo(dtype).eps) / 2
    radius = 2 * (4 * float(np.sqrt(d)) + 24) * unit * float(squares.max())
    with np.errstate(over="ignore"):  # what is beyond this precision is found to be so in `is_within_radius`
        return Working(rows, squares.astype(dtype), radius)


def is_within_radius(points: Float[ndarray, "points dimensions"], working: Working) -> bool:
    """Whether the distances of some pairs are at most half as far off as they may be."""
    if not np.isfinite(working.squares).all():
        return False
    pairs = np.random.default_rng(0).integers(len(points), size=(N_CHECKED // 64, 2, 64))
    worst = np.float64(0)
    for i, j in pairs:  # few at a time: so many rows copied at once would be the most memory that small sets take
        product = np.einsum("ij,ij->i", working.rows[i], working.rows[j])
        approximate = working.squares[i] + working.squares[j] - 2 * product
        worst = np.maximum(worst, np.abs(approximate - squared_distances(points, i, j)).max())
    return bool(worst <= working.radius / 2)


def distances(working: Working, scratch: Scratch) -> Float[ndarray, "points width"]:
    """All squared distances in the working precision, none below 0, with a zero diagonal; its rows are padded."""
    rows, squares = working.rows, working.squares
    n = len(rows)
    matrix = scratch.matrix(n, rows.dtype)

    def fill(top: int) -> None:
        bottom = min(top + TILE, n)
        tile = np.empty((TILE, TILE + PADDING), rows.dtype)
        for left in range(top, n, TILE):
            right = min(left + TILE, n)
            part = tile[: bottom - top, : right - left]
            np.matmul(rows[top:bottom], rows[left:right].T, out=part)
            turn_to_distances(tile, squares[top:bottom], squares[left:right])
            matrix[top:bottom, left:right] = part
            if left > top:
                matrix[left:right, top:bottom] = part.T

    scratch.each(fill, tiles(n))
    np.fill_diagonal(matrix[:, :n], 0)
    return matrix


def tiles(n: int) -> range:
    """First rows of the tiles."""
    return range(0, n, TILE)


def n_tasks(n: int) -> int:
    """How many tasks the rows of an n x n matrix are cut into; the number of threads has no say in it."""
    return min(MOST_TASKS, 1 + n * n // ENTRIES_OF_A_TASK)


def cores_of(
    points: Float[ndarray, "points dimensions"],
    squared: Float[ndarray, "points width"],
    min_samples: int,
    radius: float,
    scratch: Scratch,
) -> tuple[Float[ndarray, " points"], int, bool]:
    """Squared core distances, how many entries were in doubt, and whether all of those were within the radius."""
    cores = np.empty(len(points))
    bounds = np.linspace(0, len(points), n_tasks(len(points)) + 1).astype(np.int64)

    def do(task: int) -> tuple[int, bool]:
        return core_distances(points, squared, min_samples, radius, bounds[task], bounds[task + 1], cores)

    doubts, right = zip(*scratch.each(do, range(len(bounds) - 1)), strict=True)
    return cores, sum(doubts), all(right)


def joined(
    points: Float[ndarray, "points dimensions"],
    squared: Float[ndarray, "points width"],
    cores: Float[ndarray, " points"],
    radius: float,
    scratch: Scratch,
) -> tuple[ndarray, ndarray, ndarray, dict[str, float | int]]:
    """The edges of the tree and their squared weights."""
    n = len(points)
    ends = pointers(squared, cores, radius)
    heads = np.flatnonzero(ends >= 0)
    tails, weights = ends[heads], cores[heads]
    above = np.arange(n)
    united(above, heads, tails)
    facts: dict[str, float | int] = {"components": n - len(heads), "rounds": 0, "edges_rechecked": 0}
    bounds = cores.copy()
    while len(heads) < n - 1:
        component = np.unique(above, return_inverse=True)[1].astype(np.int32)
        i, j, weight, n_checked = lightest(points, squared, cores, component, bounds, radius, scratch)
        kept = united(above, i, j)
        heads, tails, weights = np.append(heads, i[kept]), np.append(tails, j[kept]), np.append(weights, weight[kept])
        facts["rounds"] += 1
        facts["edges_rechecked"] += n_checked
    return heads, tails, weights, facts


def lightest(
    points: Float[ndarray, "points dimensions"],
    squared: Float[ndarray, "points width"],
    cores: Float[ndarray, " points"],
    component: Int[ndarray, " points"],
    bounds: Float[ndarray, " points"],
    radius: float,
    scratch: Scratch,
) -> tuple[ndarray, ndarray, ndarray, int]:
    """The lightest edge out of every component but the largest, and how many distances were computed again.

    `bounds` holds what no edge of a point to another component can weigh less than. It stays true as components grow,
    and is raised here for the points that are looked at; the others are passed over in the next round too.
    """
    integer = np.dtype(f"i{squared.itemsize}")
    rounded = cores.astype(squared.dtype)
    floors = np.where(rounded > cores, np.nextafter(rounded, squared.dtype.type(0)), rounded).view(integer)
    bits = squared.view(integer)
    sizes = np.bincount(component)
    rest = np.flatnonzero(component != sizes.argmax())
    rest = rest[np.argsort(bounds[rest], kind="stable")]
    count = min(n_tasks(len(points)), len(rest))

    def do(task: int) -> tuple[ndarray, ndarray, ndarray, int]:
        mine = rest[task::count]
        return lightest_edges(points, squared, bits, cores, floors, component, len(sizes), mine, bounds, radius)

    found = scratch.each(do, range(count))
    heads, tails, best = (np.stack([one[part] for one in found]) for part in range(3))
    here = (best.argmin(axis=0), np.arange(len(sizes)))
    has_edge = np.isfinite(best[here])
    return heads[here][has_edge], tails[here][has_edge], best[here][has_edge], sum(one[3] for one in found)
