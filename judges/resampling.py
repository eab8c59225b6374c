"""Win matrices of the pool, as counted and as resampled.

What a resample draws is counted by kind: unit pairs of one method pair and token seed with the same outcome cannot be
told apart, so drawing them with replacement is one multinomial draw of how often each kind comes. A thousand resamples
are then one product of matrices, and every method's numbers come from the same resample.

- `unit_pair` draws unit pairs inside each (method pair, token seed), with both orders and all judges together: of the n
  there it draws n - 1, each of weight n / (n - 1), because n draws make variances too small by 1/n (Rao and Wu 1988,
  "Resampling inference with complex survey data").
- `presentation` draws single presentations from all of them, as the paper's intervals do: its widths are those of
  independent presentations, which the two orders of one unit pair are not.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from jaxtyping import Float, Int, Int8

from judges.estimates import ratio
from judges.votes import Votes


@dataclass(frozen=True, eq=False)
class Outcomes:
    """How each unit pair ended; `first` < `second`.

    Attributes:
        first: One of the two methods.
        second: The other.
        token_seed: Seed of the token data set.
        wins_first: Presentations that the first method won, of at most two.
        wins_second: Those that the second one won.
        undecided: Those without a winner.
    """

    first: Int[np.ndarray, " pairs"]
    second: Int[np.ndarray, " pairs"]
    token_seed: Int[np.ndarray, " pairs"]
    wins_first: Int[np.ndarray, " pairs"]
    wins_second: Int[np.ndarray, " pairs"]
    undecided: Int[np.ndarray, " pairs"]


@dataclass(frozen=True, eq=False)
class Tally:
    """Counts of the method of the row against that of the column; leading axes are resamples.

    Attributes:
        wins: Presentations that it won.
        undecided: Presentations without a winner; symmetric.
        both: Unit pairs that it won in both orders.
        flips: Unit pairs whose winner changes with the order; symmetric.
    """

    wins: Float[np.ndarray, "*batch methods methods"]
    undecided: Float[np.ndarray, "*batch methods methods"]
    both: Float[np.ndarray, "*batch methods methods"]
    flips: Float[np.ndarray, "*batch methods methods"]

    def scored(self, undecided: Literal["drop", "half"]) -> Float[np.ndarray, "*batch methods methods"]:
        """Wins, with half a win for each side of an undecided presentation if so asked."""
        return self.wins if undecided == "drop" else self.wins + self.undecided / 2

    def rates(self, undecided: Literal["drop", "half"]) -> Float[np.ndarray, "*batch methods"]:
        """Win rates in %; not a number for a method with nothing to count."""
        return _share(self.scored(undecided), self.scored(undecided).swapaxes(-1, -2))

    def consistent_rates(self) -> Float[np.ndarray, "*batch methods"]:
        """Of the unit pairs that one method won in both orders, the share that is the method's, in %."""
        return _share(self.both, self.both.swapaxes(-1, -2))

    def flip_rates(self) -> Float[np.ndarray, "*batch methods"]:
        """Of a method's unit pairs with both orders decided, the share whose winner changes with the order, in %."""
        return _share(self.flips, self.both + self.both.swapaxes(-1, -2))


def outcomes(votes: Votes, decided: Int8[np.ndarray, " n"]) -> Outcomes:
    """How each unit pair ended, given the consensus on each presentation."""
    low, high = np.minimum(votes.method_a, votes.method_b), np.maximum(votes.method_a, votes.method_b)
    winner = np.where(decided > 0, votes.method_a, votes.method_b)
    _, at, pair = np.unique(votes.unit_pair, return_index=True, return_inverse=True)

    def count(chosen: np.ndarray) -> Int[np.ndarray, " pairs"]:
        return np.bincount(pair[chosen], minlength=len(at))

    return Outcomes(
        low[at],
        high[at],
        votes.token_seed[at],
        count((decided != 0) & (winner == low)),
        count((decided != 0) & (winner == high)),
        count(decided == 0),
    )


def tally(ended: Outcomes, n_methods: int) -> Tally:
    """The counts themselves."""
    kinds, counts = _kinds(ended)
    return _tallies(kinds, counts[None].astype(np.float64), n_methods, first_only=True)


def resampled_unit_pairs(ended: Outcomes, n_methods: int, n_resamples: int, seed: int) -> Tally:
    """The counts of each resample of unit pairs, inside each (method pair, token seed)."""
    kinds, counts = _kinds(ended)
    rng = np.random.default_rng(seed)
    draws = np.zeros((n_resamples, len(counts)))
    starts = np.flatnonzero(np.any(np.diff(kinds[:, :3], axis=0, prepend=-(2**62)) != 0, axis=1)).tolist()
    for start, stop in pairwise([*starts, len(counts)]):
        here = counts[start:stop]
        n = int(here.sum())
        n_drawn = max(n - 1, 1)
        draws[:, start:stop] = n / n_drawn * rng.multinomial(n_drawn, here / n, size=n_resamples)
    return _tallies(kinds, draws, n_methods)


def resampled_presentations(
    ended: Outcomes, n_methods: int, n_resamples: int, seed: int, undecided: Literal["drop", "half"]
) -> Tally:
    """The counts of each resample of single presentations; undecided ones are drawn only if they count.

    Unit pairs are taken apart, so `both` and `flips` are 0.
    """

    def singles(times: Int[np.ndarray, " pairs"], kind: tuple[int, int, int]) -> Int[np.ndarray, "presentations 6"]:
        at = np.repeat(np.arange(len(times)), times)
        return np.stack(
            [ended.first[at], ended.second[at], 0 * at, *(np.full_like(at, number) for number in kind)], axis=1
        )

    single = np.concatenate(
        [
            singles(ended.wins_first, (1, 0, 0)),
            singles(ended.wins_second, (0, 1, 0)),
            singles(ended.undecided if undecided == "half" else 0 * ended.undecided, (0, 0, 1)),
        ]
    )
    kinds, counts = np.unique(single, axis=0, return_counts=True)
    if len(counts) == 0:
        return _tallies(kinds, np.zeros((n_resamples, 0)), n_methods)
    draws = np.random.default_rng(seed).multinomial(counts.sum(), counts / counts.sum(), size=n_resamples)
    return _tallies(kinds, draws.astype(np.float64), n_methods)


def _kinds(ended: Outcomes) -> tuple[Int[np.ndarray, "kinds 6"], Int[np.ndarray, " kinds"]]:
    """The different rows of the outcomes, sorted, and how often each comes."""
    rows = np.stack(
        [ended.first, ended.second, ended.token_seed, ended.wins_first, ended.wins_second, ended.undecided], axis=1
    )
    kinds, counts = np.unique(rows, axis=0, return_counts=True)
    return kinds, counts


def _tallies(
    kinds: Int[np.ndarray, "kinds 6"],
    draws: Float[np.ndarray, "batch kinds"],
    n_methods: int,
    *,
    first_only: bool = False,
) -> Tally:
    """Counts of each resample, given how often it draws each kind; without the resamples' axis if there is one."""
    first, second, _, wins_first, wins_second, undecided = kinds.T

    def matrices(forth: Int[np.ndarray, " kinds"], back: Int[np.ndarray, " kinds"]) -> Float[np.ndarray, "..."]:
        per_kind = np.zeros((len(kinds), n_methods, n_methods))
        at = np.arange(len(kinds))
        per_kind[at, first, second], per_kind[at, second, first] = forth, back
        found = (draws @ per_kind.reshape(len(kinds), n_methods**2)).reshape(len(draws), n_methods, n_methods)
        return found[0] if first_only else found

    both_first, both_second = (wins_first == 2).astype(np.int64), (wins_second == 2).astype(np.int64)
    flips = ((wins_first == 1) & (wins_second == 1)).astype(np.int64)
    return Tally(
        matrices(wins_first, wins_second),
        matrices(undecided, undecided),
        matrices(both_first, both_second),
        matrices(flips, flips),
    )


def _share(
    hits: Float[np.ndarray, "*batch methods methods"], others: Float[np.ndarray, "*batch methods methods"]
) -> Float[np.ndarray, "*batch methods"]:
    """Hits over hits and others, summed over opponents, in %."""
    n_hits, n_others = hits.sum(axis=-1), others.sum(axis=-1)
    return ratio(100 * n_hits, n_hits + n_others)
