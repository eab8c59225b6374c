"""Votes and consensus: every rule of the protocol, against a loop that reads like it."""

from itertools import product

import numpy as np
import pytest
from made_votes import presentation, said

from judges.votes import NO_VOTE, ONE_VOTE, TIED, Votes, consensus, undecided


def panel(rows: list[tuple[int, ...]]) -> Votes:
    """One row of votes for each presentation."""
    n = len(rows)
    zeros = np.zeros(n, dtype=np.int64)
    choice = np.array(rows, dtype=np.int8).reshape(n, -1)
    judges = tuple(map(str, range(choice.shape[1])))
    return Votes(judges, ("x", "y"), zeros, zeros + 1, np.arange(n), zeros, zeros, choice)


def slow(row: tuple[int, ...]) -> tuple[int, str]:
    """The winner and, without one, why."""
    for_a, for_b = row.count(1), row.count(-1)
    if for_a + for_b == 0:
        return 0, NO_VOTE
    if for_a + for_b == 1 and len(row) > 1:
        return 0, ONE_VOTE
    return (1, "") if for_a > for_b else (-1, "") if for_b > for_a else (0, TIED)


@pytest.mark.parametrize("n_judges", [1, 2, 3, 4, 5])
def test_consensus_of_every_pattern(n_judges: int) -> None:
    rows = list(product((-1, 0, 1), repeat=n_judges))
    votes = panel(rows)
    assert consensus(votes).tolist() == [slow(row)[0] for row in rows]
    reasons = undecided(votes)
    for place, row in enumerate(rows):
        assert [why for why, where in reasons.items() if where[place]] == [slow(row)[1]] * (slow(row)[0] == 0)


def test_the_protocol_by_name() -> None:
    votes = panel([(1, 1, 0), (1, -1, 0), (1, 0, 0), (1, 1, -1), (-1, -1, -1)])
    assert consensus(votes).tolist() == [1, 0, 0, 1, -1]
    assert consensus(votes.by(["0"])).tolist() == [1, 1, 1, 1, -1]


PAIR = [presentation("p0", "c", 0), presentation("p1", "c", 1)]


def test_votes_of_presentations() -> None:
    planted = presentation("q", "d", 0, methods=("", ""), rung="null", site="elsewhere")
    later = presentation("r", "a", 1, token_seed=1, methods=("z", "x"))
    verdicts = {"one": said({"p0": "A", "p1": "B", "q": "A"}), "two": said({"p0": "none", "r": "A"})}
    votes = Votes.of([later, planted, *PAIR[::-1]], verdicts)
    assert votes.judges == ("one", "two")
    assert votes.methods == ("x", "y", "z")
    assert votes.method_a.tolist() == [0, 1, 2]
    assert votes.method_b.tolist() == [1, 0, 0]
    assert votes.unit_pair.tolist() == [0, 0, 1]
    assert votes.token_seed.tolist() == [0, 0, 1]
    assert votes.order.tolist() == [0, 1, 1]
    assert votes.choice.tolist() == [[1, 0], [-1, 0], [0, 1]]


def test_votes_do_not_depend_on_the_order_of_presentations() -> None:
    presentations = [*PAIR, presentation("r", "a", 1, token_seed=1, methods=("z", "x"))]
    verdicts = {"one": said({"p0": "A", "p1": "B", "r": "A"})}
    forth, back = Votes.of(presentations, verdicts), Votes.of(presentations[::-1], verdicts)
    assert forth.methods == back.methods
    for name in ("method_a", "method_b", "unit_pair", "token_seed", "order", "choice"):
        assert np.array_equal(getattr(forth, name), getattr(back, name))


def test_no_presentations_are_no_votes() -> None:
    votes = Votes.of([], {"one": {}, "two": {}})
    assert votes.choice.shape == (0, 2)
    assert votes.methods == ()


@pytest.mark.parametrize(
    ("presentations", "text"),
    [
        ([*PAIR, PAIR[0]], "got order 0 of comparison c twice; expected each order once; pass every"),
        ([PAIR[0], presentation("s", "c", 1, site="other", methods=("y", "x"))], "got 2 sites \\(other, site\\)"),
        ([PAIR[0], presentation("s", "c", 1, methods=("x", "y"))], "expected the same two methods and token seed"),
        ([PAIR[0], presentation("s", "c", 1, token_seed=1)], "expected the same two methods and token seed"),
        ([presentation("s", "c", 0, methods=("x", "x"))], "got methods \\('x', 'x'\\)"),
    ],
)
def test_presentations_that_do_not_fit(presentations: list[object], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Votes.of(presentations, {"one": {}})  # type: ignore[arg-type]


def test_judges_that_are_not_there() -> None:
    with pytest.raises(ValueError, match="got no judge; expected one entry for each judge; ask a judge first"):
        Votes.of(PAIR, {})
    with pytest.raises(ValueError, match="got nobody; expected some of one; name judges of the panel"):
        Votes.of(PAIR, {"one": {}}).by(["nobody"])
