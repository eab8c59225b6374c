"""The loops over all distances, in machine code: filling the matrix, core distances, lightest edges.

Each does one task on one thread; `dense` cuts the work into tasks.
"""

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from methods.clustering.compiled import compiled, compiled_numbers
from methods.clustering.distances import squared_distance, squared_norm

N_SAMPLED = 256


@compiled
def centre(
    points: Float[ndarray, "points dimensions"],
    mean: Float[ndarray, " dimensions"],
    start: int,
    stop: int,
    rows: Float[ndarray, "points dimensions"],
    squares: Float[ndarray, " points"],
) -> None:
    """Write some of the points less their mean, rounded, and the squared norm of what was written."""
    for i in range(start, stop):
        for at in range(points.shape[1]):
            rows[i, at] = points[i, at] - mean[at]
        squares[i] = squared_norm(rows, i)


@compiled_numbers
def turn_to_distances(
    products: Float[ndarray, "rows width"], own: Float[ndarray, " rows"], other: Float[ndarray, " columns"]
) -> None:
    """Turn inner products, in place, into squared distances, none below 0; what lies beyond the columns stays."""
    zero, two = products.dtype.type(0), products.dtype.type(2)
    for r in range(len(own)):
        row, square = products[r], own[r]
        for c in range(len(other)):
            squared = square + other[c] - two * row[c]
            row[c] = squared if squared > zero else zero


@compiled
def core_distances(
    points: Float[ndarray, "points dimensions"],
    squared: Float[ndarray, "points width"],
    min_samples: int,
    radius: float,
    start: int,
    stop: int,
    cores: Float[ndarray, " points"],
) -> tuple[int, bool]:
    """Write the squared core distances of some rows; gives the entries in doubt, and whether all kept to the radius.

    A row's k-th entry is t, so its true one is within one radius of t: entries more than two radii away from t keep
    their side, and the others are computed again.
    """
    n = len(cores)
    near, where, doubtful = np.empty(n, squared.dtype), np.empty(n, np.int32), np.empty(n)
    n_doubts, is_right = 0, True
    for i in range(start, stop):
        row = squared[i, :n]
        limit = near_limit(row, min_samples, near)
        count = gathered(row, limit, near, where)
        if count <= min_samples:
            limit = np.inf
            count = gathered(row, limit, near, where)
        middle = selected(near, count, min_samples)
        low, high = middle - 2 * radius, middle + 2 * radius
        if high > limit:
            count = gathered(row, high, near, where)
        n_below, n_here = 0, 0
        for at in range(count):
            j = where[at]
            if row[j] < low:
                n_below += 1
            elif row[j] <= high:
                true = squared_distance(points, i, j) if i != j else 0.0
                is_right &= abs(true - row[j]) <= radius
                doubtful[n_here] = true
                n_here += 1
        cores[i] = selected(doubtful, n_here, min_samples - n_below)
        n_doubts += n_here
    return n_doubts, is_right


@compiled
def near_limit(row: Float[ndarray, " points"], min_samples: int, sample: Float[ndarray, " points"]) -> float:
    """A value that the row's k-th smallest is almost surely below, from an even sample: four deviations to spare."""
    n = len(row)
    size = min(N_SAMPLED, n // 4)
    expected = (min_samples + 1) * size / n
    rank = int(expected + 4 * np.sqrt(expected) + 4)
    if rank >= size:
        return np.inf
    for at in range(size):
        sample[at] = row[at * n // size]
    return float(selected(sample, size, rank))


@compiled_numbers
def gathered(
    row: Float[ndarray, " points"], limit: float, into: Float[ndarray, " points"], where: Int[ndarray, " points"]
) -> int:
    """Write the entries up to a limit side by side, and their places; gives how many they are.

    There is no branch to be mispredicted.
    """
    count = 0
    bound = row.dtype.type(limit)
    for at in range(len(row)):
        into[count], where[count] = row[at], at
        count += row[at] <= bound
    return count


@compiled
def selected(values: Float[ndarray, " values"], count: int, rank: int) -> float:
    """The value of a rank (from 0) among the first `count`, which are reordered (Hoare's selection)."""
    low, high = 0, count - 1
    while low < high:
        pivot = values[(low + high) // 2]
        left, right = low, high
        while left <= right:
            while values[left] < pivot:
                left += 1
            while values[right] > pivot:
                right -= 1
            if left <= right:
                values[left], values[right] = values[right], values[left]
                left += 1
                right -= 1
        if rank <= right:
            high = right
        elif rank >= left:
            low = left
        else:
            break
    return float(values[rank])


@compiled
def pointers(
    squared: Float[ndarray, "points width"], cores: Float[ndarray, " points"], radius: float
) -> Int[ndarray, " points"]:
    """For each point a denser one within its core distance, the first there is; -1 for the peaks.

    Denser is by (core distance, index), so that the pointers cannot make a circle. No edge at a point weighs less than
    its core distance, so each of these belongs to a minimum spanning tree.
    """
    n = len(cores)
    found = np.full(n, -1)
    for i in range(n):
        row, core = squared[i], cores[i]
        bound = core - radius
        for j in range(n):
            if row[j] <= bound and (cores[j] < core or (cores[j] == core and j < i)):
                found[i] = j
                break
    return found


@compiled
def lightest_edges(
    points: Float[ndarray, "points dimensions"],
    squared: Float[ndarray, "points width"],
    bits: Int[ndarray, "points width"],
    cores: Float[ndarray, " points"],
    floors: Int[ndarray, " points"],
    component: Int[ndarray, " points"],
    n_components: int,
    rows: Int[ndarray, " rows"],
    bounds: Float[ndarray, " points"],
    radius: float,
) -> tuple[Int[ndarray, " components"], Int[ndarray, " components"], Float[ndarray, " components"], int]:
    """The lightest edge from these rows to another component, for each component; infinite where there is none.

    Args:
        points: The points themselves.
        squared: Their approximate squared distances.
        bits: The bits of these.
        cores: Squared core distances.
        floors: The bits of these, rounded down to the same precision.
        component: Number of each point's component.
        n_components: How many there are.
        rows: Whose edges are looked at; those with the least bounds first make the others needless.
        bounds: What no edge of a row to another component can weigh less than; raised where a row is looked at.
        radius: Of the approximate distances.

    Returns:
        Ends and squared weight, and how many distances were computed again.
    """
    heads, tails = np.full(n_components, -1), np.full(n_components, -1)
    best = np.full(n_components, np.inf)
    n_checked = 0
    lowest = np.empty(1, bits.dtype)
    for i in rows:
        own, core = component[i], cores[i]
        if bounds[i] >= best[own]:
            continue
        row = squared[i]
        lowest[0] = lowest_outside(bits[i], floors, component, own)
        bounds[i] = max(core, lowest.view(squared.dtype)[0] - radius)
        if bounds[i] >= best[own]:
            continue
        for j in range(len(cores)):
            if component[j] == own or max(cores[j], row[j] - radius) >= best[own]:
                continue
            weight = max(core, cores[j])
            if row[j] + radius > weight:
                weight = max(weight, squared_distance(points, i, j))
                n_checked += 1
            if weight < best[own]:
                heads[own], tails[own], best[own] = i, j, weight
                if weight == core:
                    break
    return heads, tails, best, n_checked


@compiled
def lowest_outside(
    row: Int[ndarray, " width"], floors: Int[ndarray, " points"], component: Int[ndarray, " points"], own: int
) -> int:
    """The smallest of max(entry, floor) over the points of other components.

    All are the bits of numbers that are not negative, which have their numbers' order and are compared faster.
    """
    highest = row.dtype.type(np.iinfo(row.dtype).max)
    lowest = highest
    for j in range(len(floors)):
        weight = max(row[j], floors[j])
        weight = weight if component[j] != own else highest
        lowest = min(lowest, weight)
    return int(lowest)
