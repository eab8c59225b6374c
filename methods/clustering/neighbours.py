"""Core distances from one pass over half the pairs: every row lists what is near, and float64 decides what is close.

A row's threshold comes from a random sample of the rows, high enough that the k-th neighbour is almost surely below
it. Whatever it misses is found when the lists are read: such a row is done again, against all others. The pass goes
from the last rows to the first, so that a block's columns have their thresholds before the block meets them.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from methods.clustering.machines import Lists
from methods.clustering.working import Working, cutoff, highest, lowest, pieces

FULL = 0.8
"""A list that is fuller than this is shortened to what its k-th smallest so far leaves possible."""
FEWEST_ENTRIES = 16


@dataclass(frozen=True)
class Sizes:
    """What bounds the memory, and how the work is cut; none of it changes the tree.

    Attributes:
        tile_rows: Rows of a tile of products.
        tile_columns: Columns of a tile.
        list_bytes: What the lists may take; where the pass over half the pairs needs more, each row is done against
            all others instead, at twice the products.
        sample: Rows that thresholds are taken from; None for what puts 40 neighbours into the sample.
        rank: Which smallest of the sample is the threshold; None for six standard deviations above the k-th's.
        capacity: Entries of a list; None for half more than the threshold lets through.
        tiles_between_checks: Tiles after which lists that are nearly full are shortened.
        few_components: Above this many, components are first joined by edges that nothing unlisted can beat.
        components: Components whose pairs have a table, at most.
        candidates: Pairs of the second pass that are kept before the tree is made again.
    """

    tile_rows: int = 1024
    tile_columns: int = 4096
    list_bytes: int = 4 * 1024**3
    sample: int | None = None
    rank: int | None = None
    capacity: int | None = None
    tiles_between_checks: int = 1
    few_components: int = 256
    components: int = 8192
    candidates: int = 1 << 20


GPU_SIZES = Sizes(8192, 8192, list_bytes=12 * 1024**3, tiles_between_checks=8, candidates=1 << 24)


@dataclass(frozen=True)
class Plan:
    """Sample, rank and capacity for these points; `by_rows` where lists of that length do not fit."""

    sample: int
    rank: int
    capacity: int
    by_rows: bool


def planned(n: int, k: int, sizes: Sizes) -> Plan:
    """What a sample and a list must hold for n points and their k-th neighbours.

    Raises:
        ValueError: Not even short lists fit.
    """
    sample = min(n, sizes.sample or min(16384, max(256, 40 * n // (k + 1))))
    expected = (k + 1) * sample / n
    rank = min(sample, sizes.rank or math.ceil(expected + 6 * math.sqrt(expected) + 6))
    needed = min(n - 1, sizes.capacity or int(1.5 * rank * n / sample) + 64)
    fits = sizes.list_bytes // (8 * n)
    if fits < min(FEWEST_ENTRIES, n - 1):
        raise ValueError(
            f"list_bytes: got {sizes.list_bytes}, {fits} entries for each of {n} points; expected at least "
            f"{FEWEST_ENTRIES * 8 * n}; raise it, or cluster fewer points (a smaller top_k)"
        )
    return Plan(sample, rank, min(needed, fits), fits < needed)


def empty_lists(working: Working, capacity: int) -> Lists:
    """Lists of that capacity, with nothing in them."""
    n, device = len(working.rows), working.rows.device
    return Lists(
        torch.zeros((n, capacity), dtype=torch.float32, device=device),
        torch.zeros((n, capacity), dtype=torch.int32, device=device),
        torch.zeros(n, dtype=torch.int32, device=device),
        torch.full((n,), math.inf, dtype=torch.float32, device=device),
    )


def thresholds(working: Working, rows: slice, plan: Plan, products: Tensor | None = None) -> Float[Tensor, " rows"]:
    """For each row, the approximate squared distance within which `plan.rank` of the sample's rows are.

    Args:
        working: The working copy.
        rows: Which rows.
        plan: The rank, and the sample: the last rows. A row of the sample counts itself.
        products: Their products with the sample, where they are there already; they stay as they are.
    """
    n = len(working.rows)
    sample = slice(n - plan.sample, n)
    if products is None:
        products = working.machine.products(working.rows[rows], working.rows[sample])
    reduced = torch.sub(working.squares[sample][None, :], products, alpha=2)
    found = working.machine.smallest(reduced, plan.rank) + working.squares[rows]
    return found.clamp_(min=0.0).float()


def sample_thresholds(working: Working, plan: Plan, sizes: Sizes) -> Float[Tensor, " sample"]:
    """Thresholds of the sample's own rows, which the pass needs before it starts."""
    n = len(working.rows)
    parts = [slice(n - plan.sample + p.start, n - plan.sample + p.stop) for p in pieces(plan.sample, sizes.tile_rows)]
    return torch.cat([thresholds(working, rows, plan) for rows in parts])


def coarseness(working: Working, known: Float[Tensor, " sample"]) -> float:
    """How wide the radius is at the sample's thresholds, relative to them: the median row."""
    rows = slice(len(working.rows) - len(known), len(working.rows))
    error = working.errors[rows] + working.errors.median()
    square_error = working.relative * (working.squares[rows] + working.squares.median()).float()
    width = (highest(known, error, square_error) - lowest(known, error, square_error)) / known
    return float(torch.where(known > 0, width, torch.zeros_like(width)).median())


def fill(working: Working, lists: Lists, k: int, plan: Plan, sizes: Sizes, known: Float[Tensor, " sample"]) -> None:
    """The pass over all pairs row < column: each goes to the list of either end within whose threshold it is."""
    n = len(working.rows)
    first_of_sample = n - plan.sample
    lists.thresholds[first_of_sample:] = known
    for done, (rows, columns) in enumerate(tiles(n, first_of_sample, sizes), 1):
        products = working.machine.products(working.rows[rows], working.rows[columns])
        if columns.start == first_of_sample and rows.stop <= first_of_sample:
            lists.thresholds[rows] = thresholds(working, rows, plan, products)
        working.machine.append(products, working.squares, lists, rows.start, columns.start)
        if done % sizes.tiles_between_checks == 0:
            shorten(working, lists, k)


def tiles(n: int, first_of_sample: int, sizes: Sizes) -> Iterator[tuple[slice, slice]]:
    """Blocks of rows from the last to the first; for each, its tile against the sample and then the columns before."""
    for block in reversed(pieces(n - first_of_sample, sizes.tile_rows)):
        rows = slice(first_of_sample + block.start, first_of_sample + block.stop)
        for part in pieces(n - rows.start, sizes.tile_columns):
            yield rows, slice(rows.start + part.start, rows.start + part.stop)
    for rows in reversed(pieces(first_of_sample, sizes.tile_rows)):
        yield rows, slice(first_of_sample, n)
        for part in pieces(first_of_sample - rows.start, sizes.tile_columns):
            yield rows, slice(rows.start + part.start, rows.start + part.stop)


def shorten(working: Working, lists: Lists, k: int) -> None:
    """Shortens the lists that are nearly full to half, but not below what the core distance may need.

    The k-th smallest so far bounds it from above; what a list reaches beyond spares work in the second pass.
    """
    capacity = lists.values.shape[1]
    nearly = (lists.counts > max(k, int(FULL * capacity))) & (lists.counts <= capacity)
    for piece in torch.split(nearly.nonzero()[:, 0], max(1, working.machine.chunk // capacity)):
        if not len(piece):
            return
        values, entries = lists.values[piece], lists.entries[piece]
        error, square_error = working.radius(piece[:, None], entries)
        empty = unused(lists, piece)
        upper = highest(values, error, square_error).masked_fill_(empty, math.inf)
        limit = cutoff(working.machine.smallest(upper, k), *working.radius(piece, None))
        half = working.machine.smallest(values.masked_fill(empty, math.inf), max(k, capacity // 2))
        limit = torch.minimum(torch.maximum(limit, half), lists.thresholds[piece])
        keep = (values <= limit[:, None]) & ~empty
        order = torch.argsort((~keep).byte(), dim=1, stable=True)
        lists.values[piece] = values.gather(1, order)
        lists.entries[piece] = entries.gather(1, order)
        lists.counts[piece] = keep.sum(1).int()
        lists.thresholds[piece] = limit


def unused(lists: Lists, rows: slice | Int[Tensor, " rows"]) -> Bool[Tensor, "rows capacity"]:
    """Which places of these lists hold nothing."""
    places = torch.arange(lists.values.shape[1], dtype=torch.int32, device=lists.values.device)
    return places >= lists.counts[rows][:, None]


def core_distances(
    working: Working, lists: Lists, k: int, sizes: Sizes
) -> tuple[Float[Tensor, " points"], dict[str, float | int]]:
    """Squared distance of every row to its k-th neighbour, in float64; the lists are marked by it (`Lists.values`)."""
    n, capacity = lists.values.shape
    cores = torch.zeros(n, dtype=torch.float64, device=lists.values.device)
    complete = (lists.counts >= k) & (lists.counts <= capacity)
    rechecked, again = 0, [(~complete).nonzero()[:, 0]]
    for rows in torch.split(complete.nonzero()[:, 0], max(1, working.machine.chunk // capacity)):
        if not len(rows):
            break
        values = lists.values[rows].masked_fill_(unused(lists, rows), math.inf)
        limit = lowest(lists.thresholds[rows], *working.radius(rows, None))
        found, inside, covered, checks = decided(working, k, rows, values, lists.entries[rows], limit)
        cores[rows] = found
        lists.values[rows] = values.masked_fill_(inside, -1.0)
        again.append(rows[~covered])
        rechecked += checks
    missed = torch.cat(again).sort().values
    for rows in torch.split(missed, max(1, sizes.tile_rows * sizes.tile_columns // n)) if len(missed) else ():
        cores[rows], checks = done_again(working, lists, k, rows)
        rechecked += checks
    return cores, {"rechecked_per_row": rechecked / n, "rows_done_again": len(missed)}


def decided(
    working: Working,
    k: int,
    rows: Int[Tensor, " rows"],
    values: Float[Tensor, "rows entries"],
    entries: Int[Tensor, "rows entries"],
    limit: Float[Tensor, " rows"],
) -> tuple[Float[Tensor, " rows"], Bool[Tensor, "rows entries"], Bool[Tensor, " rows"], int]:
    """Squared core distances; which entries are within them; which rows could be decided; how many pairs fp64 measured.

    With the k-th smallest of the lower ends and of the upper ends of what each entry can be, an entry is surely below,
    surely above, or measured.

    Args:
        working: The working copy.
        k: Which neighbour.
        rows: Which rows.
        values: Approximate squared distances, infinite where there is no entry.
        entries: To which rows.
        limit: Rows that are no entry are at least this far (squared): it must reach the k-th upper end.
    """
    error, square_error = working.radius(rows[:, None], entries)
    low, high = lowest(values, error, square_error), highest(values, error, square_error)
    bottom, top = working.machine.smallest(low, k), working.machine.smallest(high, k)
    covered = limit >= top
    sure = high < bottom[:, None]
    row, place = ((low <= top[:, None]) & ~sure & covered[:, None]).nonzero(as_tuple=True)
    exact = working.rechecked(rows[row], entries[row, place].long(), values[row, place])
    by_distance = torch.argsort(exact, stable=True)
    by_row = by_distance[torch.argsort(row[by_distance], stable=True)]
    doubtful = torch.bincount(row, minlength=len(rows))
    at = (doubtful.cumsum(0) - doubtful + k - 1 - sure.sum(1)).clamp_(min=0, max=max(0, len(row) - 1))
    found = torch.zeros(len(rows), dtype=torch.float64, device=rows.device)
    if len(row):
        found = torch.where(covered, exact[by_row[at]], found)
    inside = sure & covered[:, None]
    within = exact <= found[row]
    inside[row[within], place[within]] = True
    return found, inside, covered, len(row)


def done_again(
    working: Working, lists: Lists, k: int, rows: Int[Tensor, " rows"]
) -> tuple[Float[Tensor, " rows"], int]:
    """Squared core distances of rows measured against all others, whose nearest become their lists; and the checks."""
    n, capacity = lists.values.shape
    everything = torch.arange(n, device=rows.device)
    values = working.approximate(rows, slice(0, n)).float()
    values.masked_fill_(everything == rows[:, None], math.inf)
    entries = everything.int().expand(len(rows), n)
    found, inside, _, checks = decided(working, k, rows, values, entries, values.new_full((len(rows),), math.inf))
    nearest = torch.topk(values.masked_fill_(inside, -1.0), capacity, dim=1, largest=False)
    lists.values[rows], lists.entries[rows] = nearest.values, nearest.indices.int()
    lists.counts[rows] = capacity
    lists.thresholds[rows] = math.inf if capacity >= n - 1 else nearest.values[:, -1].clamp(min=0.0)
    return found, checks
