"""From a spanning tree to clusters: union-find, the condensed tree, its leaves or its excess of mass.

A binary dendrogram orders equal weights arbitrarily, and with HDBSCAN's core distances many are equal: a saddle point
touches both sides at its own core distance. So merges at one weight are taken together ("all"): the result then
follows from the graph alone, not from which minimum spanning tree was found or how its rows were ordered.
Campello et al. 2013, section 3; the condensed tree is McInnes & Healy 2017 (arXiv:1705.07321), section 2.3.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from methods.clustering.compiled import compiled

Selection = Literal["leaf", "eom"]
Ties = Literal["all", "binary"]


@dataclass(frozen=True, eq=False)
class Clusters:
    """A partition of some points, with noise.

    Attributes:
        labels: Cluster of each point, numbered by smallest member; -1 for noise.
        probabilities: Membership in [0, 1]; 0 for noise.
        n_clusters: How many clusters there are; 0 where nothing splits.
    """

    labels: Int[ndarray, " points"]
    probabilities: Float[ndarray, " points"]
    n_clusters: int


@dataclass(frozen=True, eq=False)
class SpanningTree:
    """A minimum spanning tree of the mutual reachability graph.

    Attributes:
        cores: Core distance of each point: to its min_samples-th neighbour, the point itself not counted.
        heads: One end of each edge.
        tails: The other end.
        weights: max(core of one end, core of the other, distance), in the order of the edges; not sorted. Where a
            core distance decides, it is that very number, so that ties are ties.
        facts: What was counted on the way (entries checked again, components, survivors, seconds of the phases).
    """

    cores: Float[ndarray, " points"]
    heads: Int[ndarray, " edges"]
    tails: Int[ndarray, " edges"]
    weights: Float[ndarray, " edges"]
    facts: Mapping[str, float | int] = field(default_factory=dict)


def condense(tree: SpanningTree, min_cluster_size: int, selection: Selection = "leaf", ties: Ties = "all") -> Clusters:
    """The clusters of a spanning tree.

    Args:
        tree: What spans the points.
        min_cluster_size: Fewest points that make a cluster.
        selection: "leaf" for the condensed tree's leaves, "eom" for the clusters of greatest excess of mass; the root
            is never one, so where nothing splits all points are noise.
        ties: "all" takes the merges of one weight together; "binary" takes them one by one, by the smaller and then
            the larger end, as a dendrogram does: only to compare with libraries that do.
    """
    n = len(tree.cores)
    small, large = np.minimum(tree.heads, tree.tails), np.maximum(tree.heads, tree.tails)
    order = np.lexsort((large, small, tree.weights))
    weights = tree.weights[order]
    left, right, size = dendrogram(n, tree.heads[order], tree.tails[order])
    parents, births, cluster_of, lambdas = condensed(left, right, size, weights, min_cluster_size, ties == "all")
    if selection not in get_args(Selection):
        raise ValueError(f"selection: got {selection!r}; expected one of {', '.join(get_args(Selection))}; change it")
    chosen = leaves(parents) if selection == "leaf" else greatest_mass(parents, births, cluster_of, lambdas)
    owners = owner_of_each(parents, chosen)[cluster_of]
    labels = numbered_by_smallest_member(owners)
    probabilities = memberships(owners, parents, births, cluster_of, lambdas)
    return Clusters(labels, probabilities, int(labels.max(initial=-1)) + 1)


@compiled
def united(
    above: Int[ndarray, " points"], heads: Int[ndarray, " edges"], tails: Int[ndarray, " edges"]
) -> Bool[ndarray, " edges"]:
    """Join what the edges join, one after another (Kruskal 1956, where they come lightest first).

    Gives which of them joined anything. `above` is a union-find forest; every path in it ends flat.
    """
    kept = np.zeros(len(heads), np.bool_)
    for edge in range(len(heads)):
        a, b = root(above, heads[edge]), root(above, tails[edge])
        if a != b:
            above[a] = b
            kept[edge] = True
    for one in range(len(above)):
        above[one] = root(above, one)
    return kept


@compiled
def root(above: Int[ndarray, " nodes"], node: int) -> int:
    """The representative of a node's set in a union-find forest; the path to it is halved on the way."""
    while above[node] != node:
        above[node] = above[above[node]]
        node = above[node]
    return node


@compiled
def dendrogram(
    n: int, heads: Int[ndarray, " edges"], tails: Int[ndarray, " edges"]
) -> tuple[Int[ndarray, " edges"], Int[ndarray, " edges"], Int[ndarray, " nodes"]]:
    """The two nodes that each edge joins, lightest edge first, and the points under every node.

    Nodes 0 .. n-1 are the points; edge t makes node n + t.
    """
    above = np.arange(2 * n - 1)
    size = np.ones(2 * n - 1, np.int64)
    left, right = np.empty(n - 1, np.int64), np.empty(n - 1, np.int64)
    for t in range(n - 1):
        a, b = root(above, heads[t]), root(above, tails[t])
        left[t], right[t] = a, b
        above[a] = above[b] = n + t
        size[n + t] = size[a] + size[b]
    return left, right, size


@compiled
def condensed(
    left: Int[ndarray, " edges"],
    right: Int[ndarray, " edges"],
    size: Int[ndarray, " nodes"],
    weights: Float[ndarray, " edges"],
    min_cluster_size: int,
    together: bool,
) -> tuple[Int[ndarray, " clusters"], Float[ndarray, " clusters"], Int[ndarray, " points"], Float[ndarray, " points"]]:
    """The condensed tree: parent and birth of each cluster, and the cluster and lambda at which each point falls out.

    Lambda is 1 / weight, infinite at 0. Cluster 0 is the root, born at 0; a child has a larger number than its parent.
    """
    n = len(weights) + 1
    parents, births = np.full(n, -1, np.int64), np.zeros(n)
    n_clusters = 1
    cluster = np.full(2 * n - 1, -1, np.int64)  # the cluster a node lives in or fell out of
    fell = np.full(2 * n - 1, -1.0)  # the lambda at which it fell; below 0 while it lives
    inner = np.zeros(2 * n - 1, np.bool_)  # opened already, with a node of the same weight above it
    cluster[2 * n - 2] = 0
    stack, front = np.empty(n, np.int64), np.empty(n, np.int64)
    for node in range(2 * n - 2, n - 1, -1):
        if inner[node]:
            continue
        t = node - n
        if fell[node] >= 0:
            for child in (left[t], right[t]):
                cluster[child], fell[child] = cluster[node], fell[node]
            continue
        weight = weights[t]
        birth = 1.0 / weight if weight > 0 else np.inf
        stack[0], depth, found, n_big = node, 1, 0, 0
        while depth:
            depth -= 1
            opened = stack[depth]
            inner[opened] = True
            for child in (left[opened - n], right[opened - n]):
                if together and child >= n and weights[child - n] == weight:
                    stack[depth] = child
                    depth += 1
                else:
                    front[found] = child
                    found += 1
                    n_big += size[child] >= min_cluster_size
        for child in front[:found]:
            cluster[child] = cluster[node]
            if size[child] < min_cluster_size:
                fell[child] = birth
            elif n_big > 1:
                parents[n_clusters], births[n_clusters] = cluster[node], birth
                cluster[child] = n_clusters
                n_clusters += 1
    return parents[:n_clusters], births[:n_clusters], cluster[:n], fell[:n]


def leaves(parents: Int[ndarray, " clusters"]) -> ndarray:
    """Which clusters have none below them; the root is never one."""
    chosen = np.ones(len(parents), dtype=bool)
    chosen[parents[1:]] = False
    chosen[0] = False
    return chosen


def greatest_mass(
    parents: Int[ndarray, " clusters"],
    births: Float[ndarray, " clusters"],
    cluster_of: Int[ndarray, " points"],
    lambdas: Float[ndarray, " points"],
) -> ndarray:
    """Which clusters have no less excess of mass than those below them together (Campello et al. 2013, eq. 3).

    Sums are exact before they are rounded, so that no order of points or clusters can tip a balance.
    """
    n = len(parents)
    sizes = np.bincount(cluster_of, minlength=n)
    order = np.argsort(cluster_of, kind="stable")
    ends = np.cumsum(sizes)
    terms = [
        (lambdas[order[end - size : end]] - births[one]).tolist()
        for one, end, size in zip(range(n), ends, sizes, strict=True)
    ]
    below: list[list[float]] = [[] for _ in range(n)]
    chosen = np.zeros(n, dtype=bool)
    for one in range(n - 1, 0, -1):
        mass, rest, above = math.fsum(terms[one]), math.fsum(below[one]), parents[one]
        chosen[one] = mass >= rest
        below[above].append(max(mass, rest))
        sizes[above] += sizes[one]
        terms[above].append(float((births[one] - births[above]) * sizes[one]))
    return chosen


def owner_of_each(parents: Int[ndarray, " clusters"], chosen: ndarray) -> Int[ndarray, " clusters"]:
    """The topmost chosen cluster that each cluster lies in; -1 for none."""
    owner = np.full(len(parents), -1, dtype=np.int64)
    for one in range(1, len(parents)):
        above = owner[parents[one]]
        owner[one] = above if above >= 0 else (one if chosen[one] else -1)
    return owner


def memberships(
    owners: Int[ndarray, " points"],
    parents: Int[ndarray, " clusters"],
    births: Float[ndarray, " clusters"],
    cluster_of: Int[ndarray, " points"],
    lambdas: Float[ndarray, " points"],
) -> Float[ndarray, " points"]:
    """Lambda of each point over the largest at which anything leaves its owner, at most 1; 0 for noise.

    Where a lambda is infinite (duplicates), it is 1 for the points that leave there and 0 for the others.
    """
    deaths = np.zeros(len(parents))
    np.maximum.at(deaths, cluster_of, lambdas)
    np.maximum.at(deaths, parents[1:], births[1:])
    death = deaths[owners]
    ratios = np.ones(len(owners))
    np.divide(np.minimum(lambdas, death), death, out=ratios, where=np.isfinite(lambdas) & (death > 0))
    return np.where(owners >= 0, ratios, 0.0)


def numbered_by_smallest_member(labels: Int[ndarray, " points"]) -> Int[ndarray, " points"]:
    """The same partition with clusters numbered in the order in which they first appear; noise stays -1."""
    labels = np.asarray(labels, dtype=np.int64)
    found, first = np.unique(labels, return_index=True)
    order = found[np.argsort(first)]
    order = order[order >= 0]
    number = np.full(int(labels.max(initial=-1)) + 2, -1, dtype=np.int64)
    number[order] = np.arange(len(order))
    numbered: Int[ndarray, " points"] = number[labels]
    return numbered
