"""The reading ladder: what each rung finds, and laws on any text; ELUDEBENCH_FUZZ is how many texts are tried."""

import json
import os
import random
import re
import time

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from judges.protocol import Choice, Verdict
from judges.reading import read

N_EXAMPLES = int(os.environ.get("ELUDEBENCH_FUZZ", "400"))
FUZZ = settings(max_examples=N_EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
INVALID = Verdict("none", "invalid")

PIECES = [
    '{"reasoning_a": "dogs", "reasoning_b": "no idea", "answer": "B"}',
    '"answer": "A"', '"answer"', ": ", '"A"', '"b"', '"Grid B"', '"tie"', '"A or B"', "null", "[", "]", "{", "}", ",",
    '"', "\\", '\\"', "\\u00", "\\ud800", "\ud800", "\x00", "\n", "```json\n", "```", "1e999", "9" * 5000, "-", "NaN",
    '"reasoning_a": "', '{"answer": ', '{"answer": "A"', "answer: A", "Grid A", "\ufeff", "{" * 2000, "[" * 2000,
]  # fmt: skip
PROSE = st.text(st.characters(exclude_characters='{}"'), max_size=60)
REASON = st.text(st.one_of(st.characters(), st.sampled_from('{}",:[]\\AB')), max_size=60)
REASONS = st.one_of(REASON, st.sampled_from(PIECES), st.sampled_from([f"x {piece} y" for piece in PIECES[:12]]))

ANY = st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=5)), max_size=12).map("".join)
OTHERS = st.sampled_from(["tie", "neither", "both", "A or B", "", "Grid", "C", 1, None, True, ["A"], {"A": 1}])


@st.composite
def replies(draw: st.DrawFn) -> tuple[str, Choice]:
    """A reply in the form that is asked for, and what it chooses."""
    choice: Choice = draw(st.sampled_from(("A", "B")))
    answer = draw(st.sampled_from((choice, choice.lower(), f"Grid {choice}", f"grid {choice.lower()}")))
    reply = {"reasoning_a": draw(REASONS), "reasoning_b": draw(REASONS), "answer": answer}
    indent, ascii_only = draw(st.sampled_from((None, 2))), draw(st.booleans())
    return json.dumps(reply, indent=indent, ensure_ascii=ascii_only), choice


@pytest.mark.parametrize(
    ("text", "choice", "rung"),
    [
        ('{"reasoning_a": "x", "reasoning_b": "y", "answer": "A"}', "A", "json"),
        (' \n{"answer": "b"}\n', "B", "json"),
        ('{"answer": "Grid A"}', "A", "json"),
        ('{"answer": "GRID b"}', "B", "json"),
        ('{"reasoning_a": "two\nlines\x00\x1b", "answer": "B"}', "B", "json"),
        ('{"reasoning_a": "B is better, \\"answer\\": \\"B\\"", "answer": "A"}', "A", "json"),
        ('{"answer": "A", "answer": "A"}', "A", "json"),
        ('{"n": ' + "9" * 5000 + ', "answer": "A"}', "A", "json"),
        ('```json\n{"answer": "A"}\n```', "A", "embedded"),
        ('I think {"answer": "B"} fits. {"answer": "A"}', "B", "embedded"),
        ('Set {1, 2} and {}: {"answer": "B"}', "B", "embedded"),
        ('{"reasoning_a": "stripes"}\n{"answer": "A"}', "A", "embedded"),
        ('[{"answer": "A"}]', "A", "embedded"),
        ('{Note: {"answer": "A"}}', "A", "embedded"),
        ('{"reasoning_a": "x", "answer": "A"', "A", "cut"),
        ('{"reasoning_a": "a \\alpha wave", "answer": "Grid B"}', "B", "cut"),
        ('{"reasoning_a": "the "answer": "A" of all", "answer": "B"}', "B", "cut"),
        ('"reasoning_a": "x", "answer": "A"}', "A", "cut"),
        ('{"reasoning_a": "x"}, "answer": "B"}', "B", "cut"),
        ("A", "none", "invalid"),
        ("", "none", "invalid"),
        ("Grid A is more coherent.", "none", "invalid"),
        ('"A"', "none", "invalid"),
        ('{"answer": "tie", "reasoning_a": "x \\"answer\\": \\"A\\""}', "none", "invalid"),
        ('{"answer": null}', "none", "invalid"),
        ('{"answer": ["A"]}', "none", "invalid"),
        ('{"answer": {"answer": "A"}}', "none", "invalid"),
        ('{"result": {"answer": "A"}}', "none", "invalid"),
        ('{"answer": "A", "answer": "B"}', "none", "invalid"),
        ('{"answer": "A or B"}', "none", "invalid"),
        ('{"answer": "neither"} {"answer": "A"}', "none", "invalid"),
        ('{"answer": "A."}', "none", "invalid"),
        ('{"Answer": "A"}', "none", "invalid"),
        ('{"answer": "\u0130 A"}', "none", "invalid"),
        ('so: {"result": {"answer": "A"}}', "none", "invalid"),
        ('{"result": {"answer": "A"}, "answer', "none", "invalid"),
        ('{"reasoning_a": "x", "answer": "A', "none", "invalid"),
        ('{"reasoning_a": "an "answer": "A" here", "answer": "tie"}', "none", "invalid"),
        ('{"reasoning_a": "\\"answer\\": \\"A\\" is what', "none", "invalid"),
        ('"{\\"answer\\": \\"A\\"}"', "none", "invalid"),
    ],
)  # fmt: skip
def test_the_ladder_reads(text: str, choice: Choice, rung: str) -> None:
    verdict = read(text)
    assert (verdict.choice, verdict.rung) == (choice, rung)


@FUZZ
@given(
    st.one_of(st.text(), st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=5)), max_size=12).map("".join))
)
@example("\ud800")
@example('{"answer": "A"')
def test_any_text_has_a_verdict_that_it_bears_out(text: str) -> None:
    verdict = read(text)
    assert (verdict.choice == "none") == (verdict.rung == "invalid")
    if verdict.choice != "none" and "\\u" not in text:
        assert re.search(rf'"answer"\s*:\s*"(grid )?{verdict.choice}"', text, re.IGNORECASE)


@FUZZ
@given(replies())
def test_a_whole_reply_is_read(reply: tuple[str, Choice]) -> None:
    assert read(reply[0]) == Verdict(reply[1], "json")


@FUZZ
@given(PROSE, replies(), st.text(max_size=60))
def test_prose_around_a_reply_keeps_its_choice(before: str, reply: tuple[str, Choice], after: str) -> None:
    assert read(f"{before}:{reply[0]};{after}") == Verdict(reply[1], "embedded")


@FUZZ
@given(PROSE, replies(), PROSE, st.floats(0, 1))
def test_a_cut_never_turns_the_answer(before: str, reply: tuple[str, Choice], after: str, where: float) -> None:
    text = before + reply[0] + after
    assert read(text[: round(where * len(text))]).choice in ("none", reply[1])


@FUZZ
@given(
    replies(), st.sampled_from(["tie", "neither", "both", "A or B", "", "Grid", "C", 1, None, True, ["A"], {"A": 1}])
)
def test_another_answer_is_none_whatever_the_reasoning_says(reply: tuple[str, Choice], answer: object) -> None:
    changed = json.dumps({**json.loads(reply[0]), "answer": answer})
    assert read(changed) == read(f"```json\n{changed}\n```") == INVALID


def test_random_damage_never_crashes_the_reader() -> None:
    """Far more texts a second than hypothesis makes: pieces, shuffled, with characters dropped and doubled."""
    rng = random.Random(0)
    short = [piece for piece in PIECES if len(piece) < 100]
    for _ in range(10 * N_EXAMPLES):
        text = "".join(rng.choices(short, k=rng.randrange(1, 10)))
        place = rng.randrange(len(text))
        text = text[:place] + text[place : place + 1] * rng.randrange(3) + text[place + 1 :]
        verdict = read(text)
        assert (verdict.choice == "none") == (verdict.rung == "invalid")


@pytest.mark.parametrize(
    "piece",
    ["{", "[", '{"a":', '{"a":[', '"answer": ', '"answer"', " ", '\\"', '{"\\"', "{}", '"', "{ \"a\": 1, ", "9",
     '{"answer"  ', '{"a":[{"b":1},', '"answer": "A" {', '{"a": "\\'],
    ids=repr,
)  # fmt: skip
def test_long_texts_take_time_in_proportion(piece: str) -> None:
    """Quadratic work on three million characters would take hours; the limit is far from both."""
    text = piece * (3_000_000 // len(piece))
    begin = time.process_time()
    for whole in (text, '{"reasoning_a": "x' + text):
        read(whole)
    assert time.process_time() - begin < 20
