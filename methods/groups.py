"""Who gets which input dimension of a unit: the group rule and the rho search (ELUDe paper, section 3.3, eq. 3, 4).

Per dimension j the K subunits are sorted by |r_j|; a winning set is a prefix of that order, so only the K-1 gaps
need looking at, for all dimensions at once.
"""

from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from numpy import ndarray

GroupRule = Literal["exactly_one", "smallest", "largest", "best_ratio"]
Objective = Literal["margin", "normalized_margin", "ratio", "accuracy"]

GROUP_RULES: tuple[str, ...] = get_args(GroupRule)
OBJECTIVES: tuple[str, ...] = get_args(Objective)

RHOS: tuple[float, ...] = tuple(round(0.05 * step, 2) for step in range(1, 21))
"""The margins that the paper searches: 0.05, 0.10, ..., 1.00."""


def owners(
    representatives: Float[ndarray, "k d_in"], rho: float, rule: GroupRule = "exactly_one"
) -> UInt8[ndarray, "k d_in"]:
    """Which subunits share each dimension, 0 or 1.

    A gap m qualifies where rho * s_(m) > s_(m+1), s the scores |r_j| in descending order; equal scores never win.
    Under "exactly_one" (the paper's text) a dimension is exclusive where exactly one gap qualifies; the other rules
    are ablations that choose one of several qualifying sets: the smallest, the largest, or the one with the best
    ratio. A dimension without a winner belongs to all K.
    """
    scores = np.abs(representatives)
    k = len(scores)
    order = np.argsort(-scores, axis=0, kind="stable")
    ranked = np.take_along_axis(scores, order, axis=0)
    qualifies = rho * ranked[:-1] > ranked[1:]
    size = winning_size(qualifies, ranked, rule)
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.arange(k)[:, None], axis=0)
    return (rank < np.where(size == 0, k, size)).astype(np.uint8)


def winning_size(
    qualifies: Bool[ndarray, "gaps d_in"], ranked: Float[ndarray, "k d_in"], rule: GroupRule
) -> Int[ndarray, " d_in"]:
    """Size of the winning set per dimension, 0 where nobody wins."""
    count = qualifies.sum(axis=0)
    gaps = len(qualifies)
    if rule == "largest":
        chosen = gaps - 1 - np.argmax(qualifies[::-1], axis=0)
    elif rule == "best_ratio":
        # A ratio s_(m+1) / s_(m) below rho qualifies; s_(m) > 0 there, and elsewhere the gap is out of the running.
        ratio = np.divide(ranked[1:], ranked[:-1], out=np.full_like(ranked[1:], np.inf), where=qualifies)
        chosen = np.argmin(ratio, axis=0)
    else:
        chosen = np.argmax(qualifies, axis=0)
    wins = count == 1 if rule == "exactly_one" else count >= 1
    return np.where(wins, chosen + 1, 0)


def best_rho(
    representatives: Float[ndarray, "k d_in"],
    contributions: Float[ndarray, "members d_in"],
    labels: Int[ndarray, " members"],
    objective: Objective = "margin",
    rule: GroupRule = "exactly_one",
    rhos: tuple[float, ...] = RHOS,
) -> tuple[float, UInt8[ndarray, "k d_in"]]:
    """The margin that separates the subunits best on their own clusters, and the owners it gives.

    Activations are taken without the bias: "margin" is a difference in which a subunit's share of it cancels, and the
    ablations ignore it. "margin" is linear in the contributions, so the clusters' means are enough; only "accuracy"
    needs the members.

    Args:
        representatives: One unit-norm direction per cluster (eq. 2).
        contributions: W_u * q of the clustered instances, not normalised; noise is left out.
        labels: Cluster of each of them, 0 .. K-1, none empty.
        objective: What is maximised; ties go to the smallest rho.
        rule: See `owners`.
        rhos: The values to try, ascending.
    """
    k = len(representatives)
    members = labels[None, :] == np.arange(k)[:, None]
    means = (members @ contributions) / members.sum(axis=1, keepdims=True)
    best: tuple[float, float, UInt8[ndarray, "k d_in"]] | None = None
    for rho in rhos:
        owns = owners(representatives, rho, rule)
        fractions = owns / owns.sum(axis=0)
        score = (
            separation(fractions @ means.T, objective)
            if objective != "accuracy"
            else float((np.argmax(fractions @ contributions.T, axis=0) == labels).mean())
        )
        if best is None or score > best[0]:
            best = (score, rho, owns)
    if best is None:
        raise ValueError("rhos: got none; expected at least one value in (0, 1]; name them")
    return best[1], best[2]


def separation(activation: Float[ndarray, "k k"], objective: Objective) -> float:
    """How much more each subunit (row) activates on its own cluster (column) than on the others, on average."""
    k = len(activation)
    own = np.diagonal(activation)
    other = (activation.sum(axis=1) - own) / (k - 1)
    if objective == "ratio":
        return float(np.mean(own / (np.abs(own) + np.abs(other) + 1e-12)))
    if objective == "normalized_margin":
        return float(np.mean((own - other) / (np.abs(activation).mean(axis=1) + 1e-12)))
    return float(np.mean(own - other))
