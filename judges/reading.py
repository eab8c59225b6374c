"""Raw replies to verdicts: a ladder of three steps, each tried only where the one before it found no object.

1. "json": the reply is a JSON object, raw control characters allowed.
2. "embedded": the first JSON object with an answer, inside fences or prose.
3. "cut": the last `"answer": "A"` of a reply that is cut off or malformed. The answer is the last key that is asked
   for, so a reply cut before it has none.

The answer is A or B in any case, with or without "Grid "; all else is "none", on the rung "invalid". An object that
says something else ("tie", null, a list) is that, and nothing further down is looked for. The reasoning never counts.
Every step takes time in proportion to the text.
"""

import json
import re
from typing import Any

from judges.protocol import Choice, Verdict

READER_VERSION = 1
"""Raised whenever a text may be read differently; stored replies can then be read again."""

_INVALID = Verdict("none", "invalid")
_BLANK = r"[ \t\r\n]*+"
_OPENING = re.compile(rf'\{{(?={_BLANK}")')
_MAX_BROKEN = 100
_FORM = re.compile(r"(?:grid )?([ab])", re.IGNORECASE | re.ASCII)
_KEY = re.compile(rf'(?<!\\)"answer"{_BLANK}:{_BLANK}')
_VALUE = re.compile(r'"((?:grid )?[ab])"', re.IGNORECASE | re.ASCII)
_STRING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)


def read(text: str) -> Verdict:
    """The verdict of one reply; any text has one, and equal texts have equal ones."""
    try:
        whole = _DECODER.decode(text)
    except (ValueError, RecursionError):
        whole = None
    if isinstance(whole, dict):
        return _verdict(whole.get("answer"), "json")
    answers, rest = _embedded(text)
    if answers:
        return _verdict(answers[0], "embedded")
    return _cut(text, rest)


def _verdict(answer: Any, rung: Any) -> Verdict:
    """The verdict of the value under `answer`."""
    form = _FORM.fullmatch(answer) if isinstance(answer, str) else None
    return _INVALID if form is None else Verdict(_letter(form[1]), rung)


def _letter(text: str) -> Choice:
    """The grid that a letter of either case names."""
    return "A" if text in "Aa" else "B"


def _embedded(text: str) -> tuple[list[Any], int]:
    """The answer of the first object that has one, as a list of one; else none, and where the rest begins.

    The rest is what no whole object covers, from the first that is broken. Where an object breaks off, the search goes
    on behind that place: what stands inside a broken object is no object of its own. Python counts the lines before
    each error, so that errors without bound would take quadratic time; after a hundred the search is over.
    """
    rest: int | None = None
    covered = n_broken = 0
    opening = _OPENING.search(text)
    while opening is not None and n_broken < _MAX_BROKEN:
        begin = opening.start()
        try:
            found, end = _DECODER.raw_decode(text, begin)
        except (ValueError, RecursionError) as error:
            n_broken += 1
            rest = begin if rest is None else rest
            end = max(error.pos, begin + 1) if isinstance(error, json.JSONDecodeError) else len(text)
        else:
            if "answer" in found:
                return [found["answer"]], end
            if rest is None:
                covered = end
        opening = _OPENING.search(text, end)
    return [], covered if rest is None else rest


def _cut(text: str, rest: int) -> Verdict:
    """The verdict of the last answer key from `rest` on, where its value is whole and no deeper object holds it."""
    key = None
    for key in _KEY.finditer(text, rest):  # noqa: B007
        pass
    value = None if key is None else _VALUE.match(text, key.end())
    if key is None or value is None:
        return _INVALID
    before = _STRING.sub("", text[rest : key.start()])
    return _INVALID if before.count("{") - before.count("}") > 1 else _verdict(value[1], "cut")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of these pairs; its answer is None where it gives two that differ, for neither is the right one."""
    found = dict(pairs)
    answers = [value for key, value in pairs if key == "answer"]
    if any(answer != answers[0] for answer in answers):
        found["answer"] = None
    return found


# Numbers stay text: some thousands of digits are an error otherwise, and no number is an answer.
_DECODER = json.JSONDecoder(strict=False, object_pairs_hook=_object, parse_int=str, parse_float=str)
