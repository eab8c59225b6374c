"""Verdicts become votes, and the votes on a presentation its consensus (Bağcı et al. 2026, appendix B.1).

Every order of every unit pair is a presentation of its own, with a majority of its own. A judge that was not asked,
could not be read or named neither grid has no vote: a missing vote is never A, B, a tie, or drawn at random.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Bool, Int, Int8

from judges.protocol import Choice, Presentation, Verdict

SIGN: Final[Mapping[Choice, int]] = {"A": 1, "B": -1, "none": 0}
NO_VOTE: Final = "no valid vote"
ONE_VOTE: Final = "a single valid vote"
TIED: Final = "as many votes for A as for B"


@dataclass(frozen=True, eq=False)
class Votes:
    """What every judge said on every real presentation of one pool at one site.

    Attributes:
        judges: Names of the judges, the whole panel.
        methods: Ids of the methods of the pool.
        method_a: The method of the grid that is shown first, an index into `methods`.
        method_b: The method of the second grid.
        unit_pair: Number of the comparison; both orders of it share one.
        token_seed: Seed of the token data set.
        order: 0 for the order in which the pair was drawn, 1 for the swapped one.
        choice: +1 for A, -1 for B, 0 where the judge has no valid vote.
    """

    judges: tuple[str, ...]
    methods: tuple[str, ...]
    method_a: Int[np.ndarray, " n"]
    method_b: Int[np.ndarray, " n"]
    unit_pair: Int[np.ndarray, " n"]
    token_seed: Int[np.ndarray, " n"]
    order: Int[np.ndarray, " n"]
    choice: Int8[np.ndarray, "n judges"]

    @classmethod
    def of(cls, presentations: Sequence[Presentation], verdicts: Mapping[str, Mapping[str, Verdict]]) -> "Votes":
        """The votes on the real presentations; planted ones are left out.

        The order of the presentations does not matter: votes stand by token seed, comparison and order, methods by id.

        Args:
            presentations: All that were to be asked, of one site.
            verdicts: Of each judge, by presentation id; what is missing there is a missing vote.

        Raises:
            ValueError: No judge, several sites, an order that is there twice, or two orders that do not fit.
        """
        if not verdicts:
            raise ValueError("verdicts: got no judge; expected one entry for each judge; ask a judge first")
        real = sorted(
            (one for one in presentations if not one.rung),
            key=lambda one: (one.token_seed, one.comparison, one.order, one.id),
        )
        _check(real)
        methods = tuple(sorted({method for one in real for method in one.methods}))
        index = {method: number for number, method in enumerate(methods)}
        numbers: dict[str, int] = {}
        for one in real:
            numbers.setdefault(one.comparison, len(numbers))
        return cls(
            tuple(verdicts),
            methods,
            _column([index[one.methods[0]] for one in real]),
            _column([index[one.methods[1]] for one in real]),
            _column([numbers[one.comparison] for one in real]),
            _column([one.token_seed for one in real]),
            _column([one.order for one in real]),
            np.stack([_signs(real, said) for said in verdicts.values()], axis=1),
        )

    def by(self, judges: Sequence[str]) -> "Votes":
        """The same presentations, with the votes of some of the judges only: a panel of those.

        Raises:
            ValueError: A judge that is not on the panel.
        """
        unknown = sorted(set(judges) - set(self.judges))
        if unknown:
            raise ValueError(
                f"judges: got {', '.join(unknown)}; expected some of {', '.join(self.judges)}; name judges of the panel"
            )
        chosen = [self.judges.index(judge) for judge in judges]
        return Votes(
            tuple(judges),
            self.methods,
            self.method_a,
            self.method_b,
            self.unit_pair,
            self.token_seed,
            self.order,
            self.choice[:, chosen],
        )


def consensus(votes: Votes) -> Int8[np.ndarray, " n"]:
    """+1 where A wins, -1 where B does, 0 where the presentation is undecided.

    A side wins with a strict majority of the valid votes, of which there must be at least two: 2:0 decides, 1:1 and a
    single vote do not. On a panel of one judge, its vote decides.
    """
    total = votes.choice.sum(axis=1, dtype=np.int64)
    return np.where(_valid(votes) >= _quorum(votes), np.sign(total), 0).astype(np.int8)


def undecided(votes: Votes) -> dict[str, Bool[np.ndarray, " n"]]:
    """For each reason for which a presentation can be undecided, where that is so; no two at one presentation."""
    valid = _valid(votes)
    none, few = valid == 0, (valid > 0) & (valid < _quorum(votes))
    return {NO_VOTE: none, ONE_VOTE: few, TIED: (consensus(votes) == 0) & ~none & ~few}


def _valid(votes: Votes) -> Int[np.ndarray, " n"]:
    """Valid votes on each presentation."""
    return np.asarray(np.count_nonzero(votes.choice, axis=1))


def _quorum(votes: Votes) -> int:
    """Valid votes that a decision takes."""
    return min(2, len(votes.judges))


def _column(numbers: Sequence[int]) -> Int[np.ndarray, " n"]:
    return np.array(numbers, dtype=np.int64)


def _signs(presentations: Sequence[Presentation], said: Mapping[str, Verdict]) -> Int8[np.ndarray, " n"]:
    """One judge's votes."""
    return np.array([SIGN[said[one.id].choice] if one.id in said else 0 for one in presentations], dtype=np.int8)


def _check(presentations: Sequence[Presentation]) -> None:
    """Whether these are presentations of one site, with each order of a comparison once.

    Raises:
        ValueError: They are not.
    """
    sites = sorted({one.site for one in presentations})
    if len(sites) > 1:
        raise ValueError(f"presentations: got {len(sites)} sites ({', '.join(sites)}); expected one; rank each apart")
    seen: dict[str, dict[int, Presentation]] = {}
    for one in presentations:
        orders = seen.setdefault(one.comparison, {})
        if one.order in orders:
            raise ValueError(
                f"presentations: got order {one.order} of comparison {one.comparison} twice; expected each order once; "
                "pass every presentation once"
            )
        orders[one.order] = one
        other = orders.get(1 - one.order, one)
        fits = other is one or (one.methods == other.methods[::-1] and one.token_seed == other.token_seed)
        if not fits or len(set(one.methods)) < 2:
            raise ValueError(
                f"presentations: got methods {one.methods} and {other.methods} in comparison {one.comparison}; "
                "expected the same two methods and token seed in both orders; draw the pairs again"
            )
