"""Whether a judge can be trusted, from planted pairs whose right answer is known.

A planted pair that has an answer tests whether the judge sees it; a null pair, on which neither grid is more coherent,
tests whether it names A as often as B. A judge passes the gate with at least 95 % right on the easiest rung and a share
of A on null pairs within 5 points of one half. Of the bias, the 95 % interval is judged, not the number: it fails only
where the interval lies wholly beyond 5 points, because a fair judge is often farther off than that on a hundred pairs
by chance alone. Tables made from a judge that does not pass carry a warning.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final

import numpy as np

from judges.agreement import correlations, effective_number
from judges.estimates import Estimate, share
from judges.protocol import Presentation, Verdict

LEAST_RIGHT: Final = 95.0
LARGEST_BIAS: Final = 5.0


@dataclass(frozen=True)
class Rung:
    """A judge on one kind of planted pair that has an answer.

    Attributes:
        name: Which kind.
        n: Presentations that it answered.
        n_invalid: Those of them that could not be read; they count as not right.
        right: Share that it answered right, in %; Wilson interval.
        right_in_both: Of the pairs answered in both orders, the share that is right in both, in %; Wilson interval.
    """

    name: str
    n: int
    n_invalid: int
    right: Estimate
    right_in_both: Estimate


@dataclass(frozen=True)
class Gate:
    """Whether a judge passes.

    Attributes:
        passed: None where there is nothing to tell it by.
        reason: What was found, in words.
    """

    passed: bool | None
    reason: str


@dataclass(frozen=True)
class Calibration:
    """One judge on the planted pairs.

    Attributes:
        judge: Its name.
        rungs: The kinds that have an answer, in the order in which they are presented first.
        n_null: Null presentations with a valid vote.
        null_bias: Share of A among them less one half, in points; Wilson interval.
        gate: Whether it passes.
    """

    judge: str
    rungs: tuple[Rung, ...]
    n_null: int
    null_bias: Estimate
    gate: Gate


def calibrate(
    presentations: Sequence[Presentation], verdicts: Mapping[str, Mapping[str, Verdict]], easiest: str
) -> tuple[Calibration, ...]:
    """Each judge on the planted pairs among the presentations; real ones are left out.

    Args:
        presentations: All that were to be asked.
        verdicts: Of each judge, by presentation id; what is missing there was not answered and does not count.
        easiest: Name of the rung of the gate.
    """
    planted = [one for one in presentations if one.rung]
    return tuple(_calibration(judge, planted, said, easiest) for judge, said in verdicts.items())


def effective_judges(presentations: Sequence[Presentation], verdicts: Mapping[str, Mapping[str, Verdict]]) -> Estimate:
    """Independent judges that the panel is worth, from the correlation of the judges' errors on planted pairs.

    Null where there is one judge, or where no two judges both have answers right and wrong; without an interval.
    """
    planted = [one for one in presentations if one.expected != "none"]
    if len(verdicts) < 2:
        return Estimate(None, reason="one judge")
    tables = []
    for first, second in combinations(verdicts.values(), 2):
        table = np.zeros((2, 2))
        for one in planted:
            if one.id in first and one.id in second:
                table[int(_is_right(one, first)), int(_is_right(one, second))] += 1
        tables.append(table)
    found = correlations(np.stack(tables))
    known = found[np.isfinite(found)]
    if len(known) == 0:
        return Estimate(None, reason="no two judges with right and wrong answers on planted pairs")
    reason = "" if len(known) == len(found) else f"from {len(known)} of {len(found)} pairs of judges"
    return Estimate(float(effective_number(len(verdicts), np.array(known.mean()))), reason=reason)


def _calibration(judge: str, planted: Sequence[Presentation], said: Mapping[str, Verdict], easiest: str) -> Calibration:
    """One judge."""
    answered = [one for one in planted if one.id in said]
    names = list(dict.fromkeys(one.rung for one in planted if one.expected != "none"))
    found = tuple(_rung(name, [one for one in answered if one.rung == name], said) for name in names)
    letters = [said[one.id].choice for one in answered if one.expected == "none"]
    n_null, n_a = len(letters) - letters.count("none"), letters.count("A")
    of_a = share(n_a, n_null, "answered null pair")
    bias = of_a.on_line(1.0, -50.0)
    return Calibration(judge, found, n_null, bias, _gate(found, bias, easiest, n_planted=len(planted), n_null=n_null))


def _rung(name: str, presentations: Sequence[Presentation], said: Mapping[str, Verdict]) -> Rung:
    """One judge on one rung."""
    right = [_is_right(one, said) for one in presentations]
    orders: dict[str, list[bool]] = {}
    for one, is_right in zip(presentations, right, strict=True):
        orders.setdefault(one.comparison, []).append(is_right)
    pairs = [all(both) for both in orders.values() if len(both) == 2]
    return Rung(
        name,
        len(presentations),
        sum(said[one.id].choice == "none" for one in presentations),
        share(sum(right), len(right), "answered planted pair"),
        share(sum(pairs), len(pairs), "planted pair answered in both orders"),
    )


def _is_right(presentation: Presentation, said: Mapping[str, Verdict]) -> bool:
    return said[presentation.id].choice == presentation.expected


def _gate(found: Sequence[Rung], bias: Estimate, easiest: str, *, n_planted: int, n_null: int) -> Gate:
    """Whether these pass, and by what."""
    rung = next((rung for rung in found if rung.name == easiest), None)
    right = None if rung is None else rung.right.value
    if n_planted == 0:
        return Gate(None, "no planted pairs")
    missing = [what for what, value in ((f"rung '{easiest}'", right), ("null pairs", bias.value)) if value is None]
    if rung is None or right is None or bias.value is None or bias.low is None or bias.high is None:
        return Gate(None, f"no answers on {' and '.join(missing)}")
    sees, is_fair = right >= LEAST_RIGHT, bias.low <= LARGEST_BIAS and bias.high >= -LARGEST_BIAS
    return Gate(
        sees and is_fair,
        f"{right:.1f} % of {rung.n} right on '{easiest}' ({'at least' if sees else 'less than'} {LEAST_RIGHT:g} %); "
        f"null bias {bias.value:+.1f} points on {n_null}, interval {bias.low:+.1f} to {bias.high:+.1f} "
        f"({'reaches within' if is_fair else 'wholly beyond'} {LARGEST_BIAS:g})",
    )
