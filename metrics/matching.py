"""The best one-to-one matching of two sets of directions, proven: for 24,576 atoms too.

Small sets go to scipy's dense solver. For large ones that would copy all cosines to float64 (4.8 GB at 24,576) and take
the cube of their number in time, so only promising pairs are solved for (scipy's sparse solver), prices are read off
that solution, and every pair there is is held against them, in blocks. Pairs that could improve the matching join the
promising ones until the sum of what they could add is below `TOLERANCE` per atom: linear programming's duality says
that no matching is better than that. Where it does not come to an end, the dense solver has the last word.

Two sets of 24,576 x 768 on one thread of a 2.5 GHz Xeon, dense against proven, by a prototype of this file: 277 s and
106 s for random ones, 62 s and 40 s for noisy copies, the process holding 12 GiB and 2 GiB. Below `LARGE` the dense
solver was the faster. `ELUDEBENCH_ATOMS=24576` with `tests/speed/test_dictionary.py` measures what is here.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int64
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_array
from scipy.sparse.csgraph import min_weight_full_bipartite_matching
from torch import Tensor

BLOCK_ROWS = 1024
"""Rows whose cosines are made at a time."""
LARGE = 16_384
"""Atoms of the smaller set from which promising pairs are tried first."""
CANDIDATES = 16
"""Pairs that each atom of either set proposes."""
ADDED = 8
"""Pairs that each atom may add in a round, those that promise most."""
ROUNDS = 20
"""Rounds after which the dense solver takes over; random sets need 3."""
TOLERANCE = 1e-7
"""What a better matching could add to the mean cosine, at most."""
ROUNDING = 1e-6
"""No float32 cosine of unit rows is off by as much."""
SETTLED = 1e-12
"""Change of a price that is none."""
SHIFT = 2.0
"""Cost of a pair = this - cosine: positive, since the sparse solver takes a zero for no pair."""

Indices = Int64[np.ndarray, " pairs"]


def best_matching(a: Float[Tensor, "atoms_a width"], b: Float[Tensor, "atoms_b width"]) -> tuple[Indices, Indices]:
    """Rows of `a`, ascending, and the row of `b` that each is matched with: the largest sum of cosines.

    As many pairs as the smaller set has rows. Cosines are taken in float32.

    Args:
        a: Rows of unit length.
        b: The same.
    """
    a, b = a.float().cpu(), b.float().cpu()
    if len(a) > len(b):
        columns, rows = best_matching(b, a)
        order = np.argsort(rows)
        return rows[order], columns[order]
    matched = proven(a, b) if len(a) >= LARGE else None
    if matched is None:
        rows, columns = linear_sum_assignment(cosines(a, b), maximize=True)
        return rows.astype(np.int64), columns.astype(np.int64)
    return np.arange(len(a)), matched


def cosines(a: Float[Tensor, "atoms_a width"], b: Float[Tensor, "atoms_b width"]) -> Float32[np.ndarray, "_ _"]:
    """Cosine of every pair of unit rows."""
    return torch.cat([block @ b.T for block in a.split(BLOCK_ROWS)]).numpy()


@dataclass(frozen=True)
class Pairs:
    """Some pairs of rows, by first row and then by second, each once.

    Attributes:
        keys: First row x number of second rows + second row, ascending.
        rows: The first row.
        columns: The second.
        costs: `SHIFT` less their cosine.
    """

    keys: Int64[Tensor, " pairs"]
    rows: Indices
    columns: Indices
    costs: Float64[np.ndarray, " pairs"]

    @classmethod
    def of(cls, keys: Int64[Tensor, " keys"], a: Float[Tensor, "few width"], b: Float[Tensor, "many width"]) -> "Pairs":
        """These pairs; the same key may come twice."""
        keys = keys.unique()
        rows, columns = keys // len(b), keys % len(b)
        blocks = zip(rows.split(2**16), columns.split(2**16), strict=True)
        products = torch.cat([(a[row].double() * b[column].double()).sum(dim=1) for row, column in blocks])
        return cls(keys, rows.numpy(), columns.numpy(), SHIFT - products.numpy())


def proven(a: Float[Tensor, "few width"], b: Float[Tensor, "many width"]) -> Indices | None:
    """The row of `b` for each of `a` in the best matching; None where no proof is found in `ROUNDS` rounds."""
    keys = proposed(a, b)
    for _ in range(ROUNDS):
        pairs = Pairs.of(keys, a, b)
        matrix = csr_array((pairs.costs, (pairs.rows, pairs.columns)), shape=(len(a), len(b)))
        matched: Indices = min_weight_full_bipartite_matching(matrix)[1].astype(np.int64)
        better, could_add = improving(a, b, *prices(pairs, matched, len(b)))
        if could_add <= TOLERANCE * len(a):
            return matched
        keys = torch.cat([pairs.keys, better])
    return None


def proposed(a: Float[Tensor, "few width"], b: Float[Tensor, "many width"]) -> Int64[Tensor, " keys"]:
    """Each row's pairs of the largest cosines, of either set, and one pair for each of `a` so that all can be matched.

    A key may come twice.
    """
    k = min(CANDIDATES, len(a))
    columns = torch.arange(len(b))
    cosine, row = torch.full((k, len(b)), -torch.inf), torch.zeros((k, len(b)), dtype=torch.int64)
    keys = [torch.arange(len(a)) * (len(b) + 1)]
    for rows in torch.arange(len(a)).split(BLOCK_ROWS):
        block = a[rows] @ b.T
        keys.append((rows[:, None] * len(b) + block.topk(k, dim=1).indices).flatten())
        cosine, place = torch.cat([cosine, block]).topk(k, dim=0)
        row = torch.cat([row, rows[:, None].expand(-1, len(b))]).gather(0, place)
    return torch.cat([*keys, (row * len(b) + columns).flatten()])


def prices(
    pairs: Pairs, matched: Indices, n_columns: int
) -> tuple[Float64[np.ndarray, " few"], Float64[np.ndarray, " many"]]:
    """A price for every row of either set: they sum to the cost of each matched pair, and to no more for the others.

    That of an unmatched row is 0, and no column's is above 0. A column's price is the length of the shortest way to it,
    where a step leads from the column that a row has to one that it could have, and is as long as that would cost more
    (Bellman and Ford); shortest ways exist since the matching is the best of these pairs.
    """
    order = np.argsort(pairs.columns, kind="stable")
    rows, columns, costs = pairs.rows[order], pairs.columns[order], pairs.costs[order]
    cost_of_row = np.empty(len(matched))
    is_matched = columns == matched[rows]
    cost_of_row[rows[is_matched]] = costs[is_matched]
    steps, sources = costs - cost_of_row[rows], matched[rows]
    starts = np.flatnonzero(np.diff(columns, prepend=-1))
    reached = columns[starts]
    of_column = np.zeros(n_columns)
    for _ in range(len(matched)):
        shorter = np.minimum(of_column[reached], np.minimum.reduceat(of_column[sources] + steps, starts))
        change = (of_column[reached] - shorter).max()
        of_column[reached] = shorter
        if change <= SETTLED:
            break
    return cost_of_row - of_column[matched], of_column


def improving(
    a: Float[Tensor, "few width"],
    b: Float[Tensor, "many width"],
    of_row: Float64[np.ndarray, " few"],
    of_column: Float64[np.ndarray, " many"],
) -> tuple[Int64[Tensor, " keys"], float]:
    """The pairs that cost less than their prices, up to `ADDED` a row, and the sum of what each row's best could add.

    All pairs are looked at in float32; those that may be such are taken again in float64.
    """
    own, other = torch.from_numpy(of_row), torch.from_numpy(of_column)
    keys, could_add = [], 0.0
    for rows in torch.arange(len(a)).split(BLOCK_ROWS):
        excess = (a[rows] @ b.T).add_(other.float()).add_(own[rows, None].float() - SHIFT)
        value, column = excess.topk(min(ADDED, len(b)), dim=1)
        place, which = (value > -ROUNDING).nonzero(as_tuple=True)
        row, column = rows[place], column[place, which]
        precise = (a[row].double() * b[column].double()).sum(dim=1) - SHIFT + own[row] + other[column]
        largest = precise.new_zeros(len(rows)).scatter_reduce_(0, place, precise, "amax")
        could_add += float(largest.sum())
        keys.append((row * len(b) + column)[precise > 0])
    return torch.cat(keys), could_add
