"""Win rates, ranks and how sure they are (Bağcı et al. 2026, appendix B.1, Tables 2 and 3).

The win rate of a method is the share of its decided presentations that it wins, with counts summed over the token
seeds; its rank counts the methods with a higher one. The rate's interval is by `Settings.bootstrap`. All else that is
resampled here (ranks, groups, best, swap-consistent rates, strengths) draws unit pairs, whose two orders belong
together. Rates are relative to the methods of the pool.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from jaxtyping import Float, Int

from judges.bradley_terry import PRIOR, has_finite_strengths, linked, strengths
from judges.estimates import Estimate, resampled
from judges.groups import rank_groups
from judges.protocol import Settings
from judges.resampling import Outcomes, Tally, outcomes, resampled_presentations, resampled_unit_pairs, tally
from judges.votes import Votes, consensus, undecided

SEEDS_OF_THE_PROTOCOL: Final = 3


@dataclass(frozen=True)
class Standing:
    """One method in its pool; rates are in %.

    Attributes:
        method: Its id.
        wins: Presentations that it won.
        decided: Its presentations with a winner.
        undecided: Its presentations without.
        win_rate: The share that it won.
        rank: 1 and the methods with a higher rate; None without a rate.
        rank_low: Lower end of the 95 % interval of the rank.
        rank_high: Upper end.
        groups: Numbers of the rank groups that it is in, from the best; empty without a rate.
        p_best: In which share of the resamples no method has a higher rate, in %; ties are shared.
        swap_consistent: Of the unit pairs that one method won in both orders, the share that it won.
        n_won_in_both: Its unit pairs that one method, it or the other, won in both orders.
        flip_rate: Of its unit pairs with both orders decided, the share whose winner changes with the order.
        n_decided_in_both: Its unit pairs with both orders decided.
        strength: Bradley-Terry strength in natural-log odds; the mean over the pool is 0.
        rate_if_half: The win rate if an undecided presentation were half a win.
        rank_if_half: The rank by that rate.
        seed_rates: The win rate of each token seed by itself; None where it has no decided presentation.
    """

    method: str
    wins: int
    decided: int
    undecided: int
    win_rate: Estimate
    rank: int | None
    rank_low: int | None
    rank_high: int | None
    groups: tuple[int, ...]
    p_best: float | None
    swap_consistent: Estimate
    n_won_in_both: int
    flip_rate: Estimate
    n_decided_in_both: int
    strength: Estimate
    rate_if_half: float | None
    rank_if_half: int | None
    seed_rates: Mapping[int, float | None]


@dataclass(frozen=True, eq=False)
class Ranking:
    """A pool of methods, ranked.

    Attributes:
        standings: Best first; methods with one rate by id, methods without one last.
        wins: Presentations that the method of the row won against that of the column, in the order of the standings.
        met: Their presentations against each other, undecided ones included.
        n_presentations: All presentations.
        undecided: How many of them have no winner, by reason.
        token_seeds: Seeds of the token data sets that are in it.
        settings: How it was made.
    """

    standings: tuple[Standing, ...]
    wins: Int[np.ndarray, "methods methods"]
    met: Int[np.ndarray, "methods methods"]
    n_presentations: int
    undecided: Mapping[str, int]
    token_seeds: tuple[int, ...]
    settings: Settings

    @property
    def seeds(self) -> str:
        """How many of the protocol's three token seeds are in it, as tables say it."""
        return f"seeds {len(self.token_seeds)}/{SEEDS_OF_THE_PROTOCOL}"


def rank(votes: Votes, settings: Settings) -> Ranking:
    """The methods of the pool by win rate; the same to the last bit in whichever order judges and methods come."""
    votes = _by_id(votes)
    n = len(votes.methods)
    ended = outcomes(votes, consensus(votes))
    counted = tally(ended, n)
    drawn = resampled_unit_pairs(ended, n, settings.n_resamples, settings.seed)
    by_setting = drawn
    if settings.bootstrap == "presentation":
        by_setting = resampled_presentations(ended, n, settings.n_resamples, settings.seed, settings.undecided)
    rates, drawn_rates = counted.rates(settings.undecided), drawn.rates(settings.undecided)
    ranks, drawn_ranks = ranks_by(rates), ranks_by(drawn_rates)
    groups = rank_groups(rates, drawn_rates, n_unit_pairs=_per_method(ended, n))
    reasons = _reasons(ended, n)
    of_rates = reasons if by_setting is drawn else [""] * n
    rate_estimates = _estimates(rates, by_setting.rates(settings.undecided), of_rates)
    swapped = _estimates(counted.consistent_rates(), drawn.consistent_rates(), reasons, "unit pair won in both orders")
    flips = _estimates(counted.flip_rates(), drawn.flip_rates(), reasons, "unit pair with both orders decided")
    best, powers = _best(drawn_rates), _strengths(counted, drawn, settings.undecided, votes.methods)
    halves = counted.rates("half")
    ranks_if_half = ranks_by(halves)
    by_seed = _by_seed(ended, n, settings.undecided)
    standings = []
    for m, method in enumerate(votes.methods):
        has_rank = bool(np.isfinite(rates[m]))
        n_same = int(counted.both[m].sum() + counted.both[:, m].sum())
        low, high = np.quantile(drawn_ranks[:, m], [0.025, 0.975], method="inverted_cdf")
        standings.append(
            Standing(
                method,
                wins=int(counted.wins[m].sum()),
                decided=int(counted.wins[m].sum() + counted.wins[:, m].sum()),
                undecided=int(counted.undecided[m].sum()),
                win_rate=rate_estimates[m],
                rank=int(ranks[m]) if has_rank else None,
                rank_low=int(low) if has_rank else None,
                rank_high=int(high) if has_rank else None,
                groups=groups[m],
                p_best=float(best[m]) if has_rank else None,
                swap_consistent=swapped[m],
                n_won_in_both=n_same,
                flip_rate=flips[m],
                n_decided_in_both=n_same + int(counted.flips[m].sum()),
                strength=powers[m],
                rate_if_half=_or_none(halves[m]),
                rank_if_half=int(ranks_if_half[m]) if np.isfinite(halves[m]) else None,
                seed_rates={seed: _or_none(of_seed[m]) for seed, of_seed in by_seed.items()},
            )
        )
    order = sorted(range(n), key=lambda m: (not np.isfinite(rates[m]), ranks[m], votes.methods[m]))
    met = counted.wins + counted.wins.T + counted.undecided
    return Ranking(
        tuple(standings[m] for m in order),
        counted.wins[np.ix_(order, order)].astype(np.int64),
        met[np.ix_(order, order)].astype(np.int64),
        len(votes.choice),
        {reason: int(where.sum()) for reason, where in undecided(votes).items()},
        tuple(by_seed),
        settings,
    )


def ranks_by(rates: Float[np.ndarray, "*batch methods"]) -> Int[np.ndarray, "*batch methods"]:
    """Competition ranks ("min"): 1 and how many have a higher rate; methods without a rate come last, together."""
    filled = np.where(np.isfinite(rates), rates, -1.0)
    return np.asarray(1 + (filled[..., None, :] > filled[..., :, None]).sum(axis=-1))


def ranks_of(votes: Votes, how: Literal["drop", "half"]) -> dict[str, int | None]:
    """The rank of each method, without intervals; None for a method without a rate."""
    rates = tally(outcomes(votes, consensus(votes)), len(votes.methods)).rates(how)
    return {
        method: int(one) if np.isfinite(rate) else None
        for method, one, rate in zip(votes.methods, ranks_by(rates), rates, strict=True)
    }


def _by_id(votes: Votes) -> Votes:
    """The same votes with the methods in the order of their ids, so that no draw depends on how they came."""
    order = sorted(range(len(votes.methods)), key=lambda m: votes.methods[m])
    place = np.argsort(np.array(order, dtype=np.int64))
    return Votes(
        votes.judges,
        tuple(votes.methods[m] for m in order),
        place[votes.method_a],
        place[votes.method_b],
        votes.unit_pair,
        votes.token_seed,
        votes.order,
        votes.choice,
    )


def _by_seed(ended: Outcomes, n_methods: int, how: Literal["drop", "half"]) -> dict[int, Float[np.ndarray, " methods"]]:
    """The win rates of each token seed by itself."""
    columns = (ended.first, ended.second, ended.token_seed, ended.wins_first, ended.wins_second, ended.undecided)
    found = {}
    for seed in np.unique(ended.token_seed).tolist():
        here = ended.token_seed == seed
        found[seed] = tally(Outcomes(*(column[here] for column in columns)), n_methods).rates(how)
    return found


def _per_method(ended: Outcomes, n_methods: int) -> Int[np.ndarray, " methods"]:
    """Unit pairs of each method with a decided presentation."""
    is_decided = ended.wins_first + ended.wins_second > 0
    both = np.concatenate([ended.first[is_decided], ended.second[is_decided]])
    return np.bincount(both, minlength=n_methods)


def _reasons(ended: Outcomes, n_methods: int) -> list[str]:
    """Why a method has no interval: no (method pair, token seed) of it has two unit pairs; empty where one has."""
    rows = np.stack([ended.first, ended.second, ended.token_seed], axis=1)
    strata, counts = np.unique(rows, axis=0, return_counts=True)
    several = set(strata[counts > 1, :2].ravel().tolist())
    return ["" if m in several else "one unit pair: nothing to resample" for m in range(n_methods)]


def _estimates(
    values: Float[np.ndarray, " methods"],
    draws: Float[np.ndarray, "resamples methods"],
    reasons: list[str],
    what: str = "decided presentation",
) -> list[Estimate]:
    """Each method's number with its interval."""
    found = []
    for value, column, reason in zip(values, draws.T, reasons, strict=True):
        one = resampled(float(value), column, "" if np.isfinite(value) else f"no {what}")
        if reason and one.value is not None:
            one = Estimate(one.value, reason=reason)
        elif one.low is not None and one.low == one.high:
            one = Estimate(one.value, one.low, one.high, "every resample gives the same")
        found.append(one)
    return found


def _best(drawn: Float[np.ndarray, "resamples methods"]) -> Float[np.ndarray, " methods"]:
    """How often each method has the highest rate, in %."""
    filled = np.where(np.isfinite(drawn), drawn, -1.0)
    is_best = filled == filled.max(axis=-1, keepdims=True, initial=-1.0)
    return np.asarray(100 * (is_best / is_best.sum(axis=-1, keepdims=True)).mean(axis=0))


def _strengths(counted: Tally, drawn: Tally, how: Literal["drop", "half"], methods: tuple[str, ...]) -> list[Estimate]:
    """Bradley-Terry strengths of the largest linked group; null outside it."""
    wins = counted.scored(how)
    inside = np.flatnonzero(linked(wins))
    found = [Estimate(None, reason="not linked by comparisons to most of the pool")] * len(methods)
    if len(inside) == 0:
        return found
    block = np.ix_(inside, inside)
    reason = "" if has_finite_strengths(wins[block]) else f"bounded by the prior of precision {PRIOR:g} alone"
    values = strengths(wins[block])
    draws = strengths(drawn.scored(how)[:, inside[:, None], inside])
    for place, m in enumerate(inside):
        found[m] = resampled(float(values[place]), draws[:, place], reason)
    return found


def _or_none(number: float) -> float | None:
    return float(number) if np.isfinite(number) else None
