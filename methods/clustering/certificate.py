"""The proof that nothing unlisted belongs to the minimum spanning tree, or what of it does.

A pair that is in no list can replace an edge of a spanning tree of the components only if it is lighter than the
heaviest edge on the path between its two components, and it is no lighter than what the lists of both rows reach. The
rows for which these leave room are multiplied again, the pairs of different components that come out light enough are
measured, and Kruskal's algorithm decides. It is needed: two dense groups of more than k rows have no short edge
between them in any list, and the tree of the lists alone joins them later, through a third.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from methods.clustering.components import Edges, Pairs, State, keys, kruskal, merged, together
from methods.clustering.neighbours import Sizes
from methods.clustering.working import Working, cutoff, highest, lowest, pieces


def path_bounds(edges: Edges, component: Int[Tensor, " points"], n_components: int) -> Float[ndarray, "c c"]:
    """The heaviest edge on the tree's path between each two components; 0 on the diagonal."""
    bounds = np.zeros((n_components, n_components))
    heads, tails = component[edges.i].cpu().numpy(), component[edges.j].cpu().numpy()
    weights = edges.weights.cpu().numpy()
    owner = np.arange(n_components)
    members = {one: np.array([one]) for one in range(n_components)}
    for at in np.argsort(weights, kind="stable"):
        a, b = owner[heads[at]], owner[tails[at]]
        left, right = members.pop(a), members.pop(b)
        bounds[np.ix_(left, right)] = bounds[np.ix_(right, left)] = weights[at]
        members[a] = np.concatenate([left, right])
        owner[right] = a
    return bounds


@dataclass(eq=False)
class Open:
    """What is still open between the components while the second pass runs.

    Attributes:
        component: The component of each row.
        n_components: How many there are.
        tree: A spanning tree of them.
        bounds: Below which weight a pair of rows matters, for each two components, in both orders.
        kept: Pairs that do.
        n_kept: How many they are.
        measured: How many pairs were measured.
        survivors: How many of these were lighter than the first tree's path.
    """

    component: Int[Tensor, " points"]
    n_components: int
    tree: Edges
    bounds: Float[Tensor, "components components"]
    kept: list[Pairs]
    n_kept: int = 0
    measured: int = 0
    survivors: int = 0


def second_pass(
    state: State, tree: Edges, component: Int[Tensor, " points"], n_components: int, sizes: Sizes
) -> tuple[Edges, dict[str, float | int]]:
    """The minimum spanning tree of the components, from a spanning tree of them and whatever no list has."""
    n, working, floor = len(component), state.working, state.floor
    now = Open(component, n_components, tree, opened(state, tree, component, n_components), [])
    first = now.bounds.clone()
    rows = (floor < now.bounds.amax(1)[component]).nonzero()[:, 0]
    rows = rows[torch.argsort(floor[rows], stable=True)]
    rows = rows[torch.argsort(component[rows], stable=True)]
    owners, floors = component[rows].cpu().numpy(), floor[rows].cpu().numpy()
    pairs = 0
    bounds, limit = limits(working, now, rows)
    for block in pieces(len(rows), sizes.tile_rows):
        for part in pieces(len(rows) - block.start, sizes.tile_columns):
            other = slice(block.start + part.start, block.start + part.stop)
            if settled(bounds, owners, floors, block, other):
                continue
            pairs += (block.stop - block.start) * (other.stop - other.start)
            tile = working.approximate(rows[block], rows[other])
            near = (tile <= limit[block][:, None]) & (tile <= limit[other][None, :])
            near[:, : max(0, block.stop - other.start)].triu_(1 + block.start - other.start)
            r, c = near.nonzero(as_tuple=True)
            consider(state, now, rows[block][r], rows[other][c], tile[r, c].float())
            if now.n_kept > sizes.candidates:
                decide(state, now, first)
                bounds, limit = limits(working, now, rows)
    decide(state, now, first)
    before = set(zip(tree.i.tolist(), tree.j.tolist(), strict=True))
    changed = len(set(zip(now.tree.i.tolist(), now.tree.j.tolist(), strict=True)) - before)
    return now.tree, {
        "second_pass_rows": len(rows),
        "second_pass_share": pairs / (n * (n - 1) / 2),
        "second_pass_measured": now.measured,
        "survivors": now.survivors,
        "edges_changed": changed,
    }


def opened(
    state: State, tree: Edges, component: Int[Tensor, " points"], n_components: int
) -> Float[Tensor, "components components"]:
    """Below which weight a pair of rows matters, for each two components: the tree's path, 0 where none can be lighter.

    An outlier's path is long, but nothing at it is light: that settles most components with it.
    """
    bounds = torch.from_numpy(path_bounds(tree, component, n_components)).to(component.device)
    least = torch.full((n_components,), torch.inf, dtype=torch.float64, device=component.device)
    least.scatter_reduce_(0, component, state.floor, "amin")
    return bounds.masked_fill_(bounds <= torch.maximum(least[:, None], least), 0.0)


def limits(
    working: Working, now: Open, rows: Int[Tensor, " rows"]
) -> tuple[Float[ndarray, "c c"], Float[Tensor, " rows"]]:
    """The bounds on the host, and the largest approximate value of a pair at each row that can matter.

    Bounds only fall, so that older ones rule out less and nothing wrongly; with thousands of components they are too
    many numbers to fetch for every block of rows.
    """
    highest_of_row = now.bounds.amax(1)[now.component[rows]]
    return now.bounds.cpu().numpy(), cutoff(highest_of_row, *working.radius(rows, None)).float()


def settled(
    bounds: Float[ndarray, "c c"],
    owners: Int[ndarray, " rows"],
    floors: Float[ndarray, " rows"],
    block: slice,
    other: slice,
) -> bool:
    """Whether no pair of two blocks of rows can matter; the rows are sorted by component."""
    between = bounds[owners[block.start] : owners[block.stop - 1] + 1, owners[other.start] : owners[other.stop - 1] + 1]
    return bool(between.max() <= max(floors[block].min(), floors[other].min()))


def consider(
    state: State, now: Open, i: Int[Tensor, " pairs"], j: Int[Tensor, " pairs"], values: Float[Tensor, " pairs"]
) -> None:
    """Keeps the pairs that may be the lightest between their components and are in no list for certain."""
    table = now.bounds.view(-1)
    (key,) = keys(now.component, i, j, now.n_components, by_pair=True)
    inside = lowest(values, *state.working.radius(i, j)) < table[key]
    i, j, values, key = i[inside], j[inside], values[inside], key[inside]
    unlisted = highest(values, *state.working.radius(i, j)) >= torch.maximum(state.reach[i], state.reach[j])
    low, high = state.weighed(i, j, values)
    lighter = unlisted & (low < table[key])
    if not bool(lighter.any()):
        return
    found = Pairs(i, j, values, low, (key,)).taken(lighter)
    for end in (found.keys[0], found.keys[0] % now.n_components * now.n_components + found.keys[0] // now.n_components):
        table.scatter_reduce_(0, end, high[lighter], "amin")
    now.kept.append(found.still_open(table))
    now.n_kept += len(now.kept[-1].i)


def decide(state: State, now: Open, first: Float[Tensor, "components components"]) -> None:
    """Measures the pairs kept so far, makes the tree again with them, and lowers the bounds to its paths."""
    if now.kept:
        i, j, values = together([pairs.still_open(now.bounds.view(-1)) for pairs in now.kept])
        edges, checks = state.measured(i, j, values)
        now.measured += checks
        now.survivors += int((edges.weights < first[now.component[i], now.component[j]]).sum())
        now.tree = kruskal(merged(now.tree, edges), now.component, now.n_components)
        now.bounds = torch.minimum(now.bounds, opened(state, now.tree, now.component, now.n_components))
    now.kept, now.n_kept = [], 0
