"""Votes for the tests of the statistics: made from wins that are asked for, or from a model of judges."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_flow

from judges.protocol import Choice, Presentation, Verdict
from judges.votes import Votes


@dataclass(frozen=True)
class Model:
    """Judges that see which of two grids is better with some noise, and sometimes name A whatever they see.

    strength: of each method, in log odds.
    spread: standard deviation of what a unit pair adds to the difference of two strengths, the same in both orders.
    noise: standard deviation of what a single judge adds, presentation by presentation.
    to_a: how often each judge names A without looking.
    invalid: how often each judge's reply cannot be read.
    """

    strength: Sequence[float]
    spread: float = 2.0
    noise: float = 0.5
    to_a: Sequence[float] = (0.0, 0.0, 0.0)
    invalid: float = 0.0

    def votes(self, rng: np.random.Generator, n_unit_pairs: int, seeds: Sequence[int] = (0, 1, 2)) -> Votes:
        """One tournament."""
        first, second, seed = drawn_pairs(len(self.strength), n_unit_pairs, seeds)
        strength = np.array(self.strength)
        better = strength[first] - strength[second] + self.spread * rng.standard_normal(len(first))
        n_judges = len(self.to_a)
        seen = np.stack([better, -better])[:, :, None] + self.noise * rng.standard_normal((2, len(first), n_judges))
        choice = np.where(seen > 0, 1, -1)
        choice[rng.random(choice.shape) < np.array(self.to_a)] = 1
        choice[rng.random(choice.shape) < self.invalid] = 0
        return in_both_orders(first, second, seed, choice.astype(np.int8), len(self.strength))

    def rates(self, rng: np.random.Generator, n_unit_pairs: int) -> np.ndarray:
        """The win rates of a tournament without end, in %, decided presentations only; by an obvious loop."""
        votes = self.votes(rng, n_unit_pairs, (0,))
        total = votes.choice.sum(axis=1)
        total[(votes.choice != 0).sum(axis=1) < 2] = 0
        rates = []
        for m in range(len(self.strength)):
            wins = ((votes.method_a == m) & (total > 0)) | ((votes.method_b == m) & (total < 0))
            met = ((votes.method_a == m) | (votes.method_b == m)) & (total != 0)
            rates.append(100 * wins.sum() / met.sum())
        return np.array(rates)


def drawn_pairs(n_methods: int, n_unit_pairs: int, seeds: Sequence[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First and second method and token seed of every unit pair."""
    first, second = np.triu_indices(n_methods, 1)
    one_seed = len(first) * n_unit_pairs
    return (
        np.tile(np.repeat(first, n_unit_pairs), len(seeds)),
        np.tile(np.repeat(second, n_unit_pairs), len(seeds)),
        np.repeat(np.array(seeds), one_seed),
    )


def in_both_orders(
    first: np.ndarray, second: np.ndarray, seed: np.ndarray, choice: np.ndarray, n_methods: int
) -> Votes:
    """Votes from choices by order, unit pair and judge."""
    n = len(first)
    return Votes(
        tuple(f"judge {k}" for k in range(choice.shape[2])),
        tuple(f"method {m:02d}" for m in range(n_methods)),
        np.concatenate([first, second]),
        np.concatenate([second, first]),
        np.tile(np.arange(n), 2),
        np.tile(seed, 2),
        np.repeat([0, 1], n),
        np.concatenate([choice[0], choice[1]]),
    )


def allocated(wins: Sequence[int], n_meetings: int) -> np.ndarray:
    """How often each method beats each other with the wins as row sums: a maximum flow from pairs to methods."""
    n = len(wins)
    first, second = np.triu_indices(n, 1)
    n_pairs = len(first)
    source, sink = n_pairs + n, n_pairs + n + 1
    graph = np.zeros((sink + 1, sink + 1), dtype=np.int32)
    graph[source, :n_pairs] = n_meetings
    graph[np.arange(n_pairs), n_pairs + first] = n_meetings
    graph[np.arange(n_pairs), n_pairs + second] = n_meetings
    graph[n_pairs + np.arange(n), sink] = wins
    flow = maximum_flow(csr_array(graph), source, sink).flow.toarray()
    found = np.zeros((n, n), dtype=np.int64)
    found[first, second] = flow[np.arange(n_pairs), n_pairs + first]
    found[second, first] = flow[np.arange(n_pairs), n_pairs + second]
    assert found.sum(axis=1).tolist() == list(wins)
    assert (found + found.T == n_meetings * (1 - np.eye(n, dtype=np.int64))).all()
    return found


def with_wins(methods: Sequence[str], wins: Sequence[int], n_seeds: int) -> Votes:
    """Fifty unit pairs of each two methods and seed, in both orders, with exactly these wins by a panel of three.

    Majorities take turns: three votes, two against one, and two with one missing.
    """
    rng = np.random.default_rng(0)
    beats = allocated(wins, 100 * n_seeds)
    first, second, seed = drawn_pairs(len(methods), 50, range(n_seeds))
    is_won = np.zeros((2, len(first)), dtype=bool)
    for i in range(len(methods)):
        for j in range(i + 1, len(methods)):
            won = np.arange(100 * n_seeds) < beats[i, j]
            is_won[:, (first == i) & (second == j)] = rng.permutation(won).reshape(2, -1)
    patterns = np.array([[1, 1, 1], [1, 1, -1], [1, -1, 1], [1, 0, 1], [0, 1, 1]], dtype=np.int8)
    majority = np.where(is_won, 1, -1) * np.array([[1], [-1]])
    choice = majority[:, :, None] * patterns[rng.integers(len(patterns), size=is_won.shape)]
    votes = in_both_orders(first, second, seed, choice.astype(np.int8), len(methods))
    return Votes(
        votes.judges,
        tuple(methods),
        votes.method_a,
        votes.method_b,
        votes.unit_pair,
        votes.token_seed,
        votes.order,
        votes.choice,
    )


def presentation(name: str, comparison: str, order: int, **changes: object) -> Presentation:
    """A presentation of methods x and y, or with changes."""
    fields = {
        "methods": ("x", "y") if order == 0 else ("y", "x"),
        "units": (0, 0),
        "grids": ("", ""),
        "site": "site",
        "token_seed": 0,
        **changes,
    }
    return Presentation(id=name, comparison=comparison, order=order, **fields)  # type: ignore[arg-type]


def said(choices: Mapping[str, Choice]) -> dict[str, Verdict]:
    """Verdicts of one judge."""
    return {name: Verdict(choice, "invalid" if choice == "none" else "json") for name, choice in choices.items()}
