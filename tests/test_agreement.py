"""Position bias and agreement: against scikit-learn, against slow loops, and recovered from a model of judges."""

from dataclasses import replace
from fractions import Fraction
from itertools import permutations

import numpy as np
import pytest
from made_votes import Model, in_both_orders, presentation, said
from scipy.stats import binom
from sklearn.metrics import cohen_kappa_score

from judges.agreement import Agreement, agreement, correlations, effective_number, rungs
from judges.estimates import Estimate
from judges.protocol import Settings
from judges.ranking import ranks_of
from judges.votes import Votes

QUICK = Settings(n_resamples=200)


@pytest.fixture(scope="module")
def votes() -> Votes:
    return Model((0.5, 0.0, -0.5), noise=1.5, to_a=(0.0, 0.1, 0.3), invalid=0.1).votes(np.random.default_rng(0), 60)


@pytest.fixture(scope="module")
def found(votes: Votes) -> Agreement:
    return agreement(votes, QUICK)


def test_kappas_against_scikit_learn(votes: Votes, found: Agreement) -> None:
    assert len(found.kappas) == 3
    for (one, two), kappa in found.kappas.items():
        a, b = votes.choice[:, votes.judges.index(one)], votes.choice[:, votes.judges.index(two)]
        valid = (a != 0) & (b != 0)
        assert kappa.value == pytest.approx(cohen_kappa_score(a[valid], b[valid]))
        assert is_inside(kappa)


def is_inside(number: Estimate) -> bool:
    assert number.value is not None
    assert number.low is not None
    assert number.high is not None
    return number.low < number.value < number.high


def slow_alpha(rows: list[list[int]]) -> float:
    """Krippendorff's alpha by its coincidence matrix, value by value; 0 is a missing vote."""
    coincidences: dict[tuple[int, int], float] = {}
    for row in rows:
        values = [value for value in row if value]
        if len(values) > 1:
            for pair in permutations(values, 2):
                coincidences[pair] = coincidences.get(pair, 0.0) + 1 / (len(values) - 1)
    n = sum(coincidences.values())
    of = {value: sum(count for (first, _), count in coincidences.items() if first == value) for value in (1, -1)}
    observed = sum(count for (a, b), count in coincidences.items() if a != b)
    expected = sum(of[a] * of[b] for a in of for b in of if a != b) / (n - 1)
    return 1 - observed / expected


def test_alpha_against_a_loop(votes: Votes, found: Agreement) -> None:
    assert found.alpha.value == pytest.approx(slow_alpha(votes.choice.tolist()))
    assert is_inside(found.alpha)


def test_alpha_of_krippendorffs_own_example() -> None:
    """Krippendorff 2011, "Computing Krippendorff's alpha-reliability", A: two observers, binary, no missing data."""
    meg, owen = [0, 1, 0, 0, 0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]
    choice = 2 * np.array([meg, owen]).T.reshape(2, 5, 2) - 1
    zeros = np.zeros(5, dtype=np.int64)
    alpha = agreement(in_both_orders(zeros, zeros + 1, zeros, choice.astype(np.int8), 2), QUICK).alpha.value
    assert alpha == pytest.approx(0.095, abs=5e-4)


def test_position_bias_against_a_loop(votes: Votes, found: Agreement) -> None:
    for place, voter in enumerate(found.voters):
        orders: dict[int, list[int]] = {}
        for pair, choice in zip(votes.unit_pair.tolist(), votes.choice[:, place].tolist(), strict=True):
            orders.setdefault(pair, []).append(choice)
        both = [pair for pair in orders.values() if 0 not in pair]
        n_first, n_second = both.count([1, 1]), both.count([-1, -1])
        assert (voter.n_pairs, voter.n_first, voter.n_second) == (len(both), n_first, n_second)
        of_a = np.mean([choice == 1 for pair in both for choice in pair])
        assert voter.position_bias.value == pytest.approx(100 * of_a - 50)
        fewer = min(n_first, n_second)
        assert voter.position_p == pytest.approx(min(1, 2 * binom.cdf(fewer, n_first + n_second, 0.5)))
        assert voter.invalid.value == pytest.approx(100 * np.mean(votes.choice[:, place] == 0))


def test_known_position_bias_is_recovered() -> None:
    """A judge that names A without looking with chance b is biased by b / 2; 95 % of intervals have it."""
    hits, n = np.zeros(3), 50
    biases = (0.0, 0.1, 0.4)
    model = Model((0.3, -0.3), noise=1.0, to_a=biases)
    for number in range(n):
        for place, voter in enumerate(agreement(model.votes(np.random.default_rng([1, number]), 100), FEW).voters):
            low, high = voter.position_bias.low, voter.position_bias.high
            assert low is not None
            assert high is not None
            hits[place] += low <= 50 * biases[place] <= high
    assert (hits >= 43).all()  # binomial(50, 0.95) is below 43 once in 250 times


FEW = Settings(n_resamples=2)


def test_swapping_the_letters_turns_the_bias(votes: Votes, found: Agreement) -> None:
    turned = agreement(replace(votes, choice=-votes.choice), QUICK)
    for one, other in zip(found.voters, turned.voters, strict=True):
        assert one.position_bias.value == pytest.approx(-(other.position_bias.value or 0))
        assert one.position_p == other.position_p
        assert one.invalid == other.invalid
    assert found.alpha.value == pytest.approx(turned.alpha.value)
    assert found.effective_judges.value == pytest.approx(turned.effective_judges.value)


def test_the_order_of_the_judges_does_not_matter(votes: Votes, found: Agreement) -> None:
    other = agreement(votes.by(votes.judges[::-1]), QUICK)
    assert other.voters == found.voters[::-1]
    assert (other.kappas, other.alpha, other.effective_judges) == (
        found.kappas,
        found.alpha,
        found.effective_judges,
    )


def test_ranks_without_one_judge() -> None:
    """The two that are left decide where they agree; a rank is one and the methods with a higher share of wins."""
    differ = 0
    for number in range(5):
        votes = Model((0.0, 0.0, 0.0), noise=3.0, invalid=0.1).votes(np.random.default_rng(number), 10)
        of_all = ranks_of(votes, "drop")
        for place, voter in enumerate(agreement(votes, QUICK).voters):
            wins, decided = [0, 0, 0], [0, 0, 0]
            for a, b, row in zip(votes.method_a.tolist(), votes.method_b.tolist(), votes.choice.tolist(), strict=True):
                one, other = row[:place] + row[place + 1 :]
                if one == other != 0:
                    wins[a if one == 1 else b] += 1
                    decided[a] += 1
                    decided[b] += 1
            rates = [Fraction(won, of) for won, of in zip(wins, decided, strict=True)]
            ranks = {
                name: 1 + sum(rate > own for rate in rates) for name, own in zip(votes.methods, rates, strict=True)
            }
            assert voter.ranks_without == ranks
            differ += ranks != of_all
    assert differ


def test_correlations_against_numpy(votes: Votes) -> None:
    a, b = votes.choice[:, 0], votes.choice[:, 1]
    valid = (a != 0) & (b != 0)
    table = np.array([[((a == x) & (b == y)).sum() for y in (1, -1)] for x in (1, -1)], dtype=np.float64)
    assert correlations(table[None])[0] == pytest.approx(np.corrcoef(a[valid], b[valid])[0, 1])


def test_effective_number_of_independent_and_of_equal_judges() -> None:
    assert effective_number(3, np.array([0.0, 1.0, 0.5, -0.4])) == pytest.approx([3.0, 1.0, 1.5, 3.0])
    rng = np.random.default_rng(0)
    coins = rng.choice(np.array([-1, 1], dtype=np.int8), size=(2, 4000, 1))
    ones = np.ones(4000, dtype=np.int64)
    same = agreement(in_both_orders(0 * ones, ones, 0 * ones, np.repeat(coins, 3, axis=2), 2), QUICK)
    assert same.effective_judges.value == pytest.approx(1)
    free = rng.choice(np.array([-1, 1], dtype=np.int8), size=(2, 4000, 3))
    independent = agreement(in_both_orders(0 * ones, ones, 0 * ones, free, 2), QUICK).effective_judges
    assert independent.low is not None
    assert 2.8 < independent.low <= 3 == pytest.approx(independent.high, abs=0.2)


def test_nulls_have_reasons(votes: Votes) -> None:
    silent = agreement(replace(votes, choice=0 * votes.choice), QUICK)
    for voter in silent.voters:
        assert (voter.position_bias.value, voter.position_p) == (None, None)
        assert voter.position_bias.reason == "no unit pair with a valid vote in both orders"
        assert voter.invalid.value == 100.0
    for number in (*silent.kappas.values(), silent.alpha, silent.effective_judges):
        assert number.value is None
        assert number.reason
    stubborn = agreement(replace(votes, choice=np.ones_like(votes.choice)), QUICK)
    assert {kappa.reason for kappa in stubborn.kappas.values()} == {"both judges always name one letter"}
    assert stubborn.voters[0].position_bias.value == 50.0
    alone = agreement(votes.by(votes.judges[:1]), QUICK)
    assert (alone.kappas, alone.alpha.value, alone.effective_judges.value) == ({}, None, 1.0)
    assert alone.voters[0].ranks_without == {}
    none = agreement(Votes.of([], {"one": {}, "two": {}}), QUICK)
    assert none.voters[0].invalid.reason == "no presentation"


def test_rungs_are_counted() -> None:
    planted = presentation("q", "d", 0, methods=("", ""), rung="null")
    presentations = [presentation("p0", "c", 0), presentation("p1", "c", 1), planted]
    counts = rungs(presentations, {"one": said({"p0": "none", "q": "A"})})
    assert counts == {"one": {"json": 0, "embedded": 0, "cut": 0, "invalid": 1, "unanswered": 1}}
