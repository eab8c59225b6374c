"""From core distances and lists to components around density peaks, and a tree that spans these.

Round one needs no distances: where a denser row lies within the core distance of row i, the edge between them weighs
exactly that core distance, which is the least that any edge at i can weigh (Boruvka's first round). What is left are a
few components; the lightest listed edge between each two, and Kruskal's algorithm, span them.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from methods.clustering.machines import Lists
from methods.clustering.neighbours import unused
from methods.clustering.trees import united
from methods.clustering.working import Working, highest, lowest, picked, pieces

SEARCHES, SEARCHED = 3, 256
"""How often nearer edges between the parts of a forest are looked for, and from how many rows."""


@dataclass(frozen=True, eq=False)
class Edges:
    """Pairs of rows with their squared mutual reachability distances, in float64."""

    i: Int[Tensor, " edges"]
    j: Int[Tensor, " edges"]
    weights: Float[Tensor, " edges"]

    def __len__(self) -> int:
        return len(self.i)

    def taken(self, which: Tensor | slice) -> "Edges":
        """Those of them."""
        return Edges(self.i[which], self.j[which], self.weights[which])


@dataclass(frozen=True, eq=False)
class State:
    """What the stages share.

    Attributes:
        working: The working copy.
        cores: Squared core distances.
        reach: What is not listed at a row is no nearer than this (squared).
    """

    working: Working
    cores: Float[Tensor, " points"]
    reach: Float[Tensor, " points"]

    @property
    def floor(self) -> Float[Tensor, " points"]:
        """Nothing unlisted at a row weighs less than this (squared)."""
        return torch.maximum(self.cores, self.reach)

    def weighed(
        self, i: Int[Tensor, " pairs"], j: Int[Tensor, " pairs"], values: Float[Tensor, " pairs"]
    ) -> tuple[Float[Tensor, " pairs"], Float[Tensor, " pairs"]]:
        """The least and the most that listed pairs can weigh; the same where a core distance decides."""
        core = torch.maximum(self.cores[i], self.cores[j])
        radius = self.working.radius(i, j)
        low, high = lowest(values, *radius).double(), highest(values, *radius).double()
        inside = values < 0
        return torch.where(inside, core, core.maximum(low)), torch.where(inside, core, core.maximum(high))

    def measured(
        self, i: Int[Tensor, " pairs"], j: Int[Tensor, " pairs"], values: Float[Tensor, " pairs"]
    ) -> tuple[Edges, int]:
        """The exact weights of pairs, and how many had to be measured."""
        low, high = self.weighed(i, j, values)
        open_ = (low < high).nonzero()[:, 0]
        weights = low.clone()
        exact = self.working.rechecked(i[open_], j[open_], values[open_])
        weights[open_] = torch.maximum(torch.maximum(self.cores[i[open_]], self.cores[j[open_]]), exact)
        return Edges(i, j, weights), len(open_)


def merged(*parts: Edges) -> Edges:
    """All of them."""
    return Edges(
        torch.cat([p.i for p in parts]), torch.cat([p.j for p in parts]), torch.cat([p.weights for p in parts])
    )


def numbered(parents: Int[Tensor, " points"]) -> tuple[Int[Tensor, " points"], int]:
    """The component of each row under pointers that end in rows pointing at themselves, and how many there are."""
    for _ in range(max(1, len(parents)).bit_length()):
        parents = parents[parents]
    own = parents == torch.arange(len(parents), device=parents.device)
    numbers = own.cumsum(0) - 1
    return numbers[parents], int(own.sum())


def first_round(lists: Lists, cores: Float[Tensor, " points"], chunk: int) -> tuple[Edges, Int[Tensor, " points"]]:
    """An edge from every row to the densest in its list that is denser and proved within its core distance.

    Returns:
        The edges, each with the weight of its first row's core, and the pointers; a density peak points at itself.
    """
    n, capacity = lists.values.shape
    ranks = densities(cores).int()
    parents = torch.arange(n, device=cores.device)
    for piece in pieces(n, chunk // capacity):
        beyond = (lists.values[piece] >= 0) | unused(lists, piece)
        found = picked(ranks, lists.entries[piece]).masked_fill_(beyond, n)
        best, place = found.min(dim=1)
        nearest = lists.entries[piece].gather(1, place[:, None])[:, 0].long()
        parents[piece] = torch.where(best < ranks[piece], nearest, parents[piece])
    rows = (parents != torch.arange(n, device=cores.device)).nonzero()[:, 0]
    return Edges(rows, parents[rows], cores[rows]), parents


def densities(cores: Float[Tensor, " points"]) -> Int[Tensor, " points"]:
    """The place of each row in the order of core distance, then number."""
    ranks = torch.empty(len(cores), dtype=torch.int64, device=cores.device)
    ranks[torch.argsort(cores, stable=True)] = torch.arange(len(cores), device=cores.device)
    return ranks


def lightest(
    state: State, lists: Lists, component: Int[Tensor, " points"], n_components: int, by_pair: bool
) -> tuple[Edges, int]:
    """Listed edges among which are the lightest between each two components, or those that leave each one.

    A running table of the least upper end drops most edges at once; what is left in the end within the radius of a
    least one is measured.
    """
    n, capacity = lists.values.shape
    size = n_components**2 if by_pair else n_components
    table = torch.full((size,), torch.inf, dtype=torch.float64, device=component.device)
    kept, owner = [], component.int()
    for piece in pieces(n, state.working.machine.chunk // capacity):
        away = picked(owner, lists.entries[piece]) != owner[piece][:, None]
        row, place = (away & ~unused(lists, piece)).nonzero(as_tuple=True)
        i, j, values = row + piece.start, lists.entries[piece][row, place].long(), lists.values[piece][row, place]
        low, high = state.weighed(i, j, values)
        found = Pairs(i, j, values, low, keys(component, i, j, n_components, by_pair))
        for key in found.keys:
            table.scatter_reduce_(0, key, high, "amin")
        kept.append(found.still_open(table))
    return state.measured(*together([found.still_open(table) for found in kept]))


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of rows that may be the lightest of those with a key in common.

    Attributes:
        i: One row.
        j: The other.
        values: Approximate squared distances.
        low: The least that they can weigh.
        keys: What they compete for; one number or two for each.
    """

    i: Int[Tensor, " pairs"]
    j: Int[Tensor, " pairs"]
    values: Float[Tensor, " pairs"]
    low: Float[Tensor, " pairs"]
    keys: tuple[Int[Tensor, " pairs"], ...]

    def taken(self, which: Bool[Tensor, " pairs"]) -> "Pairs":
        """Those of them."""
        return Pairs(
            self.i[which], self.j[which], self.values[which], self.low[which], tuple(key[which] for key in self.keys)
        )

    def still_open(self, table: Float[Tensor, " keys"]) -> "Pairs":
        """Those that can weigh as little as the table says that one of their keys needs."""
        return self.taken(torch.stack([self.low <= table[key] for key in self.keys]).any(0))


def together(parts: list[Pairs]) -> tuple[Tensor, Tensor, Tensor]:
    """Both rows and the approximate squared distance of all of them."""
    return torch.cat([p.i for p in parts]), torch.cat([p.j for p in parts]), torch.cat([p.values for p in parts])


def keys(
    component: Int[Tensor, " points"], i: Int[Tensor, " pairs"], j: Int[Tensor, " pairs"], n: int, by_pair: bool
) -> tuple[Int[Tensor, " pairs"], ...]:
    """What each pair competes for: one number for its two components, or both of them."""
    a, b = component[i], component[j]
    return (torch.minimum(a, b) * n + torch.maximum(a, b),) if by_pair else (a, b)


def kruskal(edges: Edges, component: Int[Tensor, " points"], n_components: int) -> Edges:
    """A minimum spanning forest of the components, lightest edge first; equal weights by the rows' numbers."""
    i, j, weights = edges.i.cpu().numpy(), edges.j.cpu().numpy(), edges.weights.cpu().numpy()
    order = np.lexsort((np.maximum(i, j), np.minimum(i, j), weights))
    ends = (component[end].cpu().numpy()[order] for end in (edges.i, edges.j))
    chosen = order[united(np.arange(n_components), *ends)]
    return edges.taken(torch.from_numpy(chosen).to(edges.i.device))


def certified_round(
    state: State, lists: Lists, component: Int[Tensor, " points"], n_components: int
) -> tuple[Edges, int]:
    """Edges that join components for certain, and how many pairs were measured.

    They are the lightest listed ones that leave a component, where nothing unlisted that leaves it can be lighter.
    """
    edges, checks = lightest(state, lists, component, n_components, by_pair=False)
    bound = torch.full((n_components,), torch.inf, dtype=torch.float64, device=component.device)
    bound.scatter_reduce_(0, component, state.floor, "amin")
    i, j, weights = edges.i.cpu().numpy(), edges.j.cpu().numpy(), edges.weights.cpu().numpy()
    order = torch.from_numpy(np.lexsort((np.maximum(i, j), np.minimum(i, j), weights))).to(component.device)
    edges = edges.taken(order)
    place = torch.arange(len(edges), device=component.device)
    best = torch.full((n_components,), len(edges), device=component.device)
    for end in (edges.i, edges.j):
        best.scatter_reduce_(0, component[end], place, "amin")
    bound = bound[best < len(edges)]
    best = best[best < len(edges)]
    certain = torch.unique(best[edges.weights[best] <= bound])
    return kruskal(edges.taken(certain), component, n_components), checks


def joined(state: State, edges: Edges, component: Int[Tensor, " points"], n_components: int) -> Edges:
    """The forest of components made one tree by edges between its parts: real ones, if not the lightest.

    From the densest row of each part to the nearest rows of the others, and from these again, which soon comes near
    the lightest; the nearer, the less there is to do in the second pass.
    """
    part, n_parts = grouped(edges, component, n_components)
    if n_parts == 1:
        return edges
    part_of = part[component]
    ranks = densities(state.cores)
    best = torch.full((n_parts,), len(ranks), device=ranks.device).scatter_reduce_(0, part_of, ranks, "amin")
    rows = torch.argsort(ranks)[best]
    found = edges.taken(slice(0, 0))
    for _ in range(SEARCHES):
        found = kruskal(merged(found, to_each_part(state, rows[:SEARCHED], part_of, n_parts)), part_of, n_parts)
        rows = torch.unique(torch.cat([found.i, found.j]))
    return merged(edges, found)


def to_each_part(state: State, rows: Int[Tensor, " rows"], part_of: Int[Tensor, " points"], n_parts: int) -> Edges:
    """Edges from each row to about the nearest row of every other part."""
    n, targets = len(part_of), []
    for some in torch.split(rows, max(1, state.working.machine.chunk // n)):
        a = torch.maximum(state.working.approximate(some, slice(0, n)), state.cores.to(state.working.squares.dtype))
        parts = part_of.expand(len(some), n)
        least = a.new_full((len(some), n_parts), torch.inf).scatter_reduce_(1, parts, a, "amin")
        numbers = torch.arange(n, device=rows.device).expand(len(some), n)
        hits = torch.where(a == least.gather(1, parts), numbers, n)
        targets.append(torch.full_like(least, n, dtype=torch.int64).scatter_reduce_(1, parts, hits, "amin"))
    j = torch.cat(targets)
    i = rows[:, None].expand_as(j)
    other = part_of[j] != part_of[i]
    i, j = i[other], j[other]
    exact = state.working.distances(i, j)
    return Edges(i, j, torch.maximum(torch.maximum(state.cores[i], state.cores[j]), exact))


def grouped(
    edges: Edges, component: Int[Tensor, " points"], n_components: int
) -> tuple[Int[Tensor, " components"], int]:
    """For each component, which part of the forest it is in, and how many parts there are."""
    parents = np.arange(n_components)
    united(parents, component[edges.i].cpu().numpy(), component[edges.j].cpu().numpy())
    return numbered(torch.from_numpy(parents).to(component.device))
