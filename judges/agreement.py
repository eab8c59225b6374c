"""How each judge votes, and how far the judges of a panel agree.

Position bias is read from unit pairs with a valid vote in both orders: a judge that looks at the grids names A once and
B once; one that names the same letter twice follows the position. Agreement is on the letters as shown. Intervals are
percentile bootstraps over unit pairs, with both orders and all judges together, unless said otherwise.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final, Literal

import numpy as np
from jaxtyping import Float, Int8
from scipy.stats import binomtest

from judges.estimates import Estimate, difference_of_paired_shares, ratio, resampled, share
from judges.protocol import Presentation, Settings, Verdict
from judges.ranking import ranks_of
from judges.votes import Votes

RUNGS: Final = ("json", "embedded", "cut", "invalid", "unanswered")


@dataclass(frozen=True)
class Voter:
    """How one judge votes.

    Attributes:
        judge: Its name.
        n_presentations: Presentations of the run.
        invalid: Those on which it has no valid vote, in %; Wilson interval.
        n_pairs: Unit pairs with a valid vote in both orders.
        n_first: Those in which it named A twice.
        n_second: Those in which it named B twice.
        position_bias: Share of A among its votes on them less one half, in points; Bonett and Price's interval.
        position_p: Exact two-sided sign test of A twice against B twice; None where neither came.
        follows_position: Share of those unit pairs in which it named one letter twice, in %; Wilson interval.
        ranks_without: Ranks of the methods by the panel without it; None without a rate; empty on a panel of one.
    """

    judge: str
    n_presentations: int
    invalid: Estimate
    n_pairs: int
    n_first: int
    n_second: int
    position_bias: Estimate
    position_p: float | None
    follows_position: Estimate
    ranks_without: Mapping[str, int | None]


@dataclass(frozen=True)
class Agreement:
    """How far a panel agrees.

    Attributes:
        voters: Each judge by itself, in the order of the panel.
        kappas: Cohen's kappa of each two judges, on the presentations with a valid vote of both.
        alpha: Krippendorff's alpha of the panel for two letters, with missing votes.
        effective_judges: Independent judges that the panel is worth, from its votes; see `effective_number`.
    """

    voters: tuple[Voter, ...]
    kappas: Mapping[tuple[str, str], Estimate]
    alpha: Estimate
    effective_judges: Estimate


def agreement(votes: Votes, settings: Settings) -> Agreement:
    """How each judge of the panel votes, and how far they agree."""
    return Agreement(
        tuple(_voter(votes, place, settings.undecided) for place in range(len(votes.judges))), *_panel(votes, settings)
    )


def rungs(
    presentations: Sequence[Presentation], verdicts: Mapping[str, Mapping[str, Verdict]]
) -> dict[str, dict[str, int]]:
    """For each judge, how many real presentations each step of the reading ladder read; every step is there."""
    counts = {
        judge: Counter(said[one.id].rung if one.id in said else "unanswered" for one in presentations if not one.rung)
        for judge, said in verdicts.items()
    }
    return {judge: {rung: count[rung] for rung in RUNGS} for judge, count in counts.items()}


def effective_number(n_judges: int, correlation: Float[np.ndarray, "*batch"]) -> Float[np.ndarray, "*batch"]:
    """How many independent judges a panel is worth: K / (1 + (K - 1) r), between 1 and K.

    r is the mean correlation of two judges. This is Kish's effective sample size; Kohli 2026, arXiv:2605.29800, finds
    nine judges to be worth about two by it, from the correlation of their errors. From votes instead of errors it is a
    lower bound, because judges that are right agree too.
    """
    under = 1 + (n_judges - 1) * correlation
    return np.asarray(np.clip(n_judges / np.maximum(under, 1 / n_judges), 1.0, float(n_judges)))


def correlations(tables: Float[np.ndarray, "*more last 2 2"]) -> Float[np.ndarray, "*more last"]:
    """Pearson's correlation of two judges' letters from their table of counts; not a number if one never varies."""
    first, second = tables.sum(axis=-1), tables.sum(axis=-2)
    across = tables[..., 0, 0] * tables[..., 1, 1] - tables[..., 0, 1] * tables[..., 1, 0]
    return ratio(across, np.sqrt(first.prod(axis=-1)) * np.sqrt(second.prod(axis=-1)))


def kappas(tables: Float[np.ndarray, "*more last 2 2"]) -> Float[np.ndarray, "*more last"]:
    """Cohen's kappa from tables of counts; not a number where chance alone makes the judges agree always."""
    n = tables.sum(axis=(-1, -2))
    observed = ratio(tables[..., 0, 0] + tables[..., 1, 1], n)
    chance = ratio((tables.sum(axis=-1) * tables.sum(axis=-2)).sum(axis=-1), n * n)
    return ratio(observed - chance, 1 - chance)


def _voter(votes: Votes, place: int, how: Literal["drop", "half"]) -> Voter:
    """How one judge votes."""
    judge, said = votes.judges[place], votes.choice[:, place]
    in_both = _patterns(votes)[:, :, place]
    in_both = in_both[(in_both != 0).all(axis=1)]
    total = in_both.sum(axis=1)
    n_pairs, n_first, n_second = len(total), int((total > 0).sum()), int((total < 0).sum())
    doubled = difference_of_paired_shares(n_first, n_second, n_pairs, "unit pair with a valid vote in both orders")
    others = [name for name in votes.judges if name != judge]
    return Voter(
        judge,
        len(said),
        share(int((said == 0).sum()), len(said), "presentation"),
        n_pairs,
        n_first,
        n_second,
        doubled.on_line(0.5),
        float(binomtest(n_first, n_first + n_second).pvalue) if n_first + n_second else None,
        share(n_first + n_second, n_pairs, "unit pair with a valid vote in both orders"),
        ranks_of(votes.by(others), how) if others else {},
    )


def _panel(votes: Votes, settings: Settings) -> tuple[dict[tuple[str, str], Estimate], Estimate, Estimate]:
    """Kappas, alpha and effective number of judges."""
    judges = votes.by(sorted(votes.judges))
    names = list(combinations(judges.judges, 2))
    if not names:
        alone = Estimate(None, reason="one judge")
        return {}, alone, Estimate(1.0, reason="one judge")
    kinds, counts = np.unique(_patterns(judges), axis=0, return_counts=True)
    drawn = np.zeros((0, len(counts)))
    if counts.sum() > 1:
        rng = np.random.default_rng(settings.seed)
        drawn = rng.multinomial(counts.sum(), counts / counts.sum(), size=settings.n_resamples).astype(np.float64)
    rows = np.concatenate([counts[None].astype(np.float64), drawn])
    tables = (rows @ _tables(kinds).reshape(len(kinds), 4 * len(names))).reshape(len(rows), len(names), 2, 2)
    of_pairs, correlation = kappas(tables), correlations(tables).mean(axis=-1)
    alpha, number = _alpha(rows @ _coincidences(kinds)), effective_number(len(judges.judges), correlation)
    return (
        {
            pair: resampled(float(column[0]), column[1:], "" if np.isfinite(column[0]) else _why_no_kappa(table))
            for pair, column, table in zip(names, of_pairs.T, tables[0], strict=True)
        },
        resampled(
            float(alpha[0]), alpha[1:], "" if np.isfinite(alpha[0]) else "every vote is for one letter, or alone"
        ),
        resampled(
            float(number[0]), number[1:], "" if np.isfinite(number[0]) else "two judges whose votes have no correlation"
        ),
    )


def _why_no_kappa(table: Float[np.ndarray, "2 2"]) -> str:
    return "both judges always name one letter" if table.any() else "no presentation with a valid vote of both"


def _patterns(votes: Votes) -> Int8[np.ndarray, "pairs 2 judges"]:
    """The votes of each unit pair, by order and judge; 0 too for an order that is not there."""
    pairs, pair = np.unique(votes.unit_pair, return_inverse=True)
    found = np.zeros((len(pairs), 2, len(votes.judges)), dtype=np.int8)
    found[pair, votes.order] = votes.choice
    return found


def _tables(kinds: Int8[np.ndarray, "kinds 2 judges"]) -> Float[np.ndarray, "kinds judge_pairs 2 2"]:
    """For each two judges, presentations by the letter of one and the letter of the other; both orders added."""
    first, second = np.triu_indices(kinds.shape[-1], 1)
    letters = np.stack([kinds == 1, kinds == -1], axis=-1).astype(np.float64)
    return np.asarray(np.einsum("kopx,kopy->kpxy", letters[:, :, first], letters[:, :, second]))


def _coincidences(kinds: Int8[np.ndarray, "kinds 2 judges"]) -> Float[np.ndarray, "kinds 3"]:
    """Krippendorff's coincidences of each kind: votes for A and for B that can be paired, and pairs that disagree."""
    n_a, n_b = (kinds == 1).sum(axis=-1), (kinds == -1).sum(axis=-1)
    n = n_a + n_b
    pairable = n > 1
    differ = ratio(n_a * n_b.astype(np.float64), np.maximum(n - 1, 1).astype(np.float64))
    return np.stack([(n_a * pairable).sum(axis=1), (n_b * pairable).sum(axis=1), differ.sum(axis=1)], axis=1)


def _alpha(sums: Float[np.ndarray, "batch 3"]) -> Float[np.ndarray, " batch"]:
    """Krippendorff's alpha for nominal data: 1 - observed over expected disagreement (Krippendorff 2011)."""
    n_a, n_b, differ = sums.T
    return np.asarray(1 - ratio((n_a + n_b - 1) * differ, n_a * n_b))
