"""Who gets which input dimension of a unit: the group rule and the rho search (ELUDe paper, section 3.3, eq. 3, 4).

Per dimension j the K subunits are ranked by |r_j|; a winning set is a prefix of that ranking, so only the K-1 gaps
need looking at, for all dimensions and all margins at once.
"""

from dataclasses import dataclass
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
OWNERS_BYTES = 9 * len(RHOS) + 14 * 8
"""What `best_rho` and what it is given hold for one dimension of one subunit: every margin, and some float64."""


@dataclass(frozen=True, eq=False)
class Ranking:
    """The subunits of one unit in the order of their scores |r_j|, per dimension.

    Attributes:
        order: The subunit at each rank; equal scores keep the subunits' order.
        rank: The rank of each subunit.
        scores: The score at each rank, descending.
    """

    order: Int[ndarray, "k d_in"]
    rank: Int[ndarray, "k d_in"]
    scores: Float[ndarray, "k d_in"]

    def owners(self, sizes: Int[ndarray, " d_in"]) -> UInt8[ndarray, "k d_in"]:
        """Which subunits share each dimension, 0 or 1: the first `sizes` of its ranking."""
        return (self.rank < sizes).astype(np.uint8)


def ranked(representatives: Float[ndarray, "k d_in"]) -> Ranking:
    """The ranking of the subunits in every dimension."""
    scores = np.abs(representatives)
    order = np.argsort(-scores, axis=0, kind="stable")
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.arange(len(scores))[:, None], axis=0)
    return Ranking(order, rank, np.take_along_axis(scores, order, axis=0))


def owners(
    representatives: Float[ndarray, "k d_in"], rho: float, rule: GroupRule = "exactly_one"
) -> UInt8[ndarray, "k d_in"]:
    """Which subunits share each dimension at one margin, 0 or 1; see `sizes`."""
    ranking = ranked(representatives)
    return ranking.owners(sizes(ranking, (rho,), rule)[0])


def sizes(ranking: Ranking, rhos: tuple[float, ...], rule: GroupRule) -> Int[ndarray, "rhos d_in"]:
    """How many subunits share each dimension, at each margin.

    A gap m qualifies where rho * s_(m) > s_(m+1), s the scores in descending order; equal scores never win. Under
    "exactly_one" (the paper's text) a dimension is exclusive where exactly one gap qualifies; the other rules are
    ablations that choose one of several qualifying sets: the smallest, the largest, or the one with the best ratio. A
    dimension without a winner belongs to all K.
    """
    above, below = ranking.scores[:-1], ranking.scores[1:]
    qualifies = np.asarray(rhos)[:, None, None] * above > below
    found = winning_size(qualifies, above, below, rule)
    return np.where(found == 0, len(ranking.scores), found)


def winning_size(
    qualifies: Bool[ndarray, "rhos gaps d_in"],
    above: Float[ndarray, "gaps d_in"],
    below: Float[ndarray, "gaps d_in"],
    rule: GroupRule,
) -> Int[ndarray, "rhos d_in"]:
    """Size of the winning set per margin and dimension, 0 where nobody wins."""
    count = qualifies.sum(axis=1)
    if rule == "largest":
        chosen = qualifies.shape[1] - 1 - np.argmax(qualifies[:, ::-1], axis=1)
    elif rule == "best_ratio":
        # A ratio s_(m+1) / s_(m) below rho qualifies; s_(m) > 0 there, and elsewhere the gap is out of the running.
        ratio = np.divide(below, above, out=np.full_like(below, np.inf), where=above > 0)
        chosen = np.argmin(np.where(qualifies, ratio, np.inf), axis=1)
    else:
        chosen = np.argmax(qualifies, axis=1)
    wins = count == 1 if rule == "exactly_one" else count >= 1
    return np.where(wins, chosen + 1, 0)


def best_rho(
    representatives: Float[ndarray, "k d_in"],
    means: Float[ndarray, "k d_in"],
    objective: Objective = "margin",
    rule: GroupRule = "exactly_one",
    rhos: tuple[float, ...] = RHOS,
    members: tuple[Float[ndarray, "members d_in"], Int[ndarray, " members"]] | None = None,
) -> tuple[float, UInt8[ndarray, "k d_in"]]:
    """The margin that separates the subunits best on their own clusters, and the owners it gives.

    Activations are taken without the bias: "margin" is a difference in which a subunit's share of it cancels, and the
    ablations ignore it. All but "accuracy" are of the mean activation on a cluster, which the clusters' means give.

    Args:
        representatives: One unit-norm direction per cluster (eq. 2).
        means: The mean contribution W_u * q of each cluster, not normalised.
        objective: What is maximised; ties go to the smallest rho.
        rule: See `sizes`.
        rhos: The values to try, ascending.
        members: For "accuracy", the contributions of the clustered instances and the cluster of each.
    """
    ranking = ranked(representatives)
    candidates = sizes(ranking, rhos, rule)
    if objective == "margin":
        scores = margins(ranking, candidates, means)
    else:
        scores = np.array([separation(ranking.owners(one), means, objective, members) for one in candidates])
    best = int(np.argmax(scores))
    return rhos[best], ranking.owners(candidates[best])


def margins(
    ranking: Ranking, candidates: Int[ndarray, "rhos d_in"], means: Float[ndarray, "k d_in"]
) -> Float[ndarray, " rhos"]:
    """How much more a subunit activates on its own cluster than on the others, on average, at each margin.

    The average is a sum over dimensions of what the owners of each have there, divided by their number: running sums
    down the ranking hold it for every number of owners.
    """
    k = len(means)
    gain = (k * means - means.sum(axis=0)) / (k * (k - 1))
    running = np.cumsum(np.take_along_axis(gain, ranking.order, axis=0), axis=0)
    shares = running / np.arange(1, k + 1)[:, None]
    found: Float[ndarray, " rhos"] = np.take_along_axis(shares, candidates - 1, axis=0).sum(axis=1)
    return found


def separation(
    owns: UInt8[ndarray, "k d_in"],
    means: Float[ndarray, "k d_in"],
    objective: Objective,
    members: tuple[Float[ndarray, "members d_in"], Int[ndarray, " members"]] | None,
) -> float:
    """How well subunits with these owners tell their clusters apart, by one of the ablations' objectives."""
    fractions = owns / owns.sum(axis=0)
    if objective == "accuracy":
        if members is None:
            raise ValueError('members: got None; "accuracy" looks at every instance; hand them over')
        contributions, labels = members
        return float((np.argmax(fractions @ contributions.T, axis=0) == labels).mean())
    activation = fractions @ means.T
    own = np.diagonal(activation)
    other = (activation.sum(axis=1) - own) / (len(own) - 1)
    if objective == "ratio":
        return float(np.mean(own / (np.abs(own) + np.abs(other) + 1e-12)))
    return float(np.mean((own - other) / (np.abs(activation).mean(axis=1) + 1e-12)))
