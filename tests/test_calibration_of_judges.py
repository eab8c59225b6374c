"""Planted pairs: known accuracy is recovered, and the gate closes where it should."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import pytest
from made_votes import presentation
from scipy.stats import norm

from judges.calibration import Calibration, calibrate, effective_judges
from judges.estimates import difference_of_paired_shares, share
from judges.grids import grid_digest
from judges.planted import NULLS
from judges.planted import planted as draw_planted
from judges.protocol import Choice, Presentation, Settings, Verdict

EASY, HARD, NULL = "easy", "hard", "same grid"


def planted(rung: str, n: int) -> list[Presentation]:
    """Pairs in both orders; the first grid of order 0 is the better one, except for null pairs."""
    answers: list[Choice] = ["none", "none"] if rung == NULL else ["A", "B"]
    return [
        presentation(f"{rung} {k} {order}", f"{rung} {k}", order, methods=("", ""), rung=rung, expected=answers[order])
        for k in range(n)
        for order in (0, 1)
    ]


def answered(
    presentations: Sequence[Presentation], rng: np.random.Generator, right: dict[str, float], to_a: float
) -> dict[str, Verdict]:
    """A judge that is right as often as said for each rung, and names A on null pairs as often as said."""
    found = {}
    for one in presentations:
        if one.expected == "none":
            choice: Choice = "A" if rng.random() < to_a else "B"
        else:
            choice = one.expected if rng.random() < right[one.rung] else ("B" if one.expected == "A" else "A")
        found[one.id] = Verdict(choice, "json")
    return found


ALL = [*planted(EASY, 50), *planted(HARD, 50), *planted(NULL, 50)]


def one_judge(verdicts: dict[str, Verdict]) -> Calibration:
    (found,) = calibrate([presentation("p", "c", 0), *ALL], {"judge": verdicts}, EASY)
    return found


def test_known_accuracy_and_bias_are_recovered() -> None:
    """Of 200 judges, 95 % have the truth in their intervals; below 91 % has a chance of 1 %."""
    hits = np.zeros(3)
    for number in range(200):
        found = one_judge(answered(ALL, np.random.default_rng(number), {EASY: 0.95, HARD: 0.7}, 0.6))
        truths = (95.0, 70.0, 10.0)
        for place, number_ in enumerate((found.rungs[0].right, found.rungs[1].right, found.null_bias)):
            assert number_.low is not None
            assert number_.high is not None
            hits[place] += number_.low <= truths[place] <= number_.high
    assert (hits >= 182).all()
    assert (hits < 200).any()


def test_counts_of_one_judge() -> None:
    verdicts = {one.id: Verdict(one.expected if one.expected != "none" else "A", "json") for one in ALL}
    verdicts[f"{EASY} 0 0"] = Verdict("none", "invalid")
    verdicts[f"{EASY} 1 0"] = Verdict("B", "json")
    verdicts[f"{EASY} 1 1"] = Verdict("A", "json")
    del verdicts[f"{EASY} 2 0"]
    verdicts[f"{NULL} 0 0"] = Verdict("none", "invalid")
    found = one_judge(verdicts)
    easy = found.rungs[0]
    assert (easy.name, easy.n, easy.n_invalid) == (EASY, 99, 1)
    assert easy.right.value == pytest.approx(100 * 96 / 99)
    assert easy.right_in_both.value == pytest.approx(100 * 47 / 49)
    assert (found.n_null, found.null_bias.value) == (99, 50.0)


@pytest.mark.parametrize(
    ("n_right", "n_to_a", "passed", "sees", "leans"),
    [
        (95, 64, True, "95.0 % of 100 right on 'easy' (at least 95 %)", "+14.0 points on 100, interval +4.2 to +22.7"),
        (94, 50, False, "94.0 % of 100 right on 'easy' (less than 95 %)", "+0.0 points on 100, interval -9.6 to +9.6"),
        (99, 34, False, "99.0 % of 100 right on 'easy' (at least 95 %)", "-16.0 points on 100, interval -24.5 to -6.3"),
    ],
)
def test_the_gate(n_right: int, n_to_a: int, passed: bool, sees: str, leans: str) -> None:
    verdicts: dict[str, Verdict] = {}
    for rung, n_hits in ((EASY, n_right), (NULL, n_to_a)):
        for k, one in enumerate(planted(rung, 50)):
            hit, miss = ("A", "B") if one.expected != "B" else ("B", "A")
            verdicts[one.id] = Verdict(hit if k < n_hits else miss, "json")  # type: ignore[arg-type]
    gate = one_judge(verdicts).gate
    ending = "wholly beyond 5" if n_to_a == 34 else "reaches within 5"
    assert (gate.passed, gate.reason) == (passed, f"{sees}; null bias {leans} ({ending})")


def nulls_of_a_run() -> list[Presentation]:
    """The null pairs that a run plants, on labelled images, and an easy rung."""
    labels = np.random.default_rng(0).integers(0, 48, 2000)
    digest = partial(grid_digest, "data", cell_px=48)
    drawn = draw_planted(labels, site="site", settings=Settings(), stream={}, digest=digest)
    return [*planted(EASY, 20), *(one for one in drawn.presentations if one.rung in NULLS)]


def test_a_fair_coin_passes_and_a_judge_of_one_letter_does_not() -> None:
    """The coin gives one answer to one request, however often it is asked, as a model at temperature 0 does."""
    shown = nulls_of_a_run()
    right = {one.id: Verdict(one.expected, "json") for one in shown if one.rung == EASY}
    nulls = [one for one in shown if one.rung != EASY]
    rng = np.random.default_rng(0)
    letters: tuple[Choice, ...] = ("A", "B")
    coins = {}
    for number in range(500):
        tossed = {grids: Verdict(letters[rng.integers(2)], "json") for grids in {one.grids: None for one in nulls}}
        coins[f"coin {number}"] = right | {one.id: tossed[one.grids] for one in nulls}
    failed = sum(one.gate.passed is False for one in calibrate(shown, coins, EASY))
    assert failed < 15
    for letter in letters:
        said = {"stuck": right | {one.id: Verdict(letter, "json") for one in nulls}}
        assert [one.gate.passed for one in calibrate(shown, said, EASY)] == [False]


def test_what_is_missing_is_said() -> None:
    (found,) = calibrate([presentation("p", "c", 0)], {"judge": {}}, EASY)
    assert (found.gate.passed, found.gate.reason) == (None, "no planted pairs")
    silent = one_judge({})
    assert (silent.gate.passed, silent.gate.reason) == (None, "no answers on rung 'easy' and null pairs")
    assert silent.null_bias.value is None
    assert silent.null_bias.reason == "no answered null pair"
    assert [rung.right.reason for rung in silent.rungs] == ["no answered planted pair"] * 2


def test_effective_judges_by_their_errors() -> None:
    """Judges that err together are worth one, judges that err by themselves as many as they are."""
    pairs = planted(HARD, 2000)
    rng = np.random.default_rng(0)
    one = answered(pairs, rng, {HARD: 0.7}, 0.5)
    free = {name: answered(pairs, rng, {HARD: 0.7}, 0.5) for name in "abc"}
    assert effective_judges(pairs, {"a": one, "b": one, "c": one}).value == pytest.approx(1)
    assert effective_judges(pairs, free).value == pytest.approx(3, abs=0.15)
    perfect = {one.id: Verdict(one.expected, "json") for one in pairs}
    assert effective_judges(pairs, {"a": perfect, "b": perfect}).value is None
    assert effective_judges(pairs, {"a": one}).reason == "one judge"
    assert effective_judges(pairs, {"a": one, "b": one, "c": perfect}).reason == "from 1 of 3 pairs of judges"


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (10, 10), (37, 120), (1, 2)])
def test_wilson_against_its_equation(hits: int, n: int) -> None:
    """Wilson 1927: the ends are the shares p from which the observed one is 1.96 standard errors away."""
    found = share(hits, n, "thing")
    z = norm.isf(0.025)
    for end in (found.low, found.high):
        assert end is not None
        p = end / 100
        assert (hits / n - p) ** 2 == pytest.approx(z**2 * p * (1 - p) / n, abs=1e-12)


def test_the_paired_difference_covers() -> None:
    """Bonett and Price's interval over 4,000 draws: near 95 %, also where both kinds are rare."""
    rng = np.random.default_rng(0)
    for first, second in ((0.1, 0.05), (0.02, 0.0), (0.4, 0.3)):
        draws = rng.multinomial(80, [first, second, 1 - first - second], size=4000)
        kinds, times = np.unique(draws, axis=0, return_counts=True)
        hits = 0
        for (a, b, _), count in zip(kinds.tolist(), times.tolist(), strict=True):
            found = difference_of_paired_shares(a, b, 80, "thing")
            assert found.low is not None
            assert found.high is not None
            hits += count * (found.low <= 100 * (first - second) <= found.high)
        assert hits / 4000 > 0.935
