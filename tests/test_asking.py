"""What is asked in which order, what is kept of it, and the scripted judge whose errors are known."""

import asyncio
import json
import os
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from misbehaving import grid, presentations, quality_of, tile
from scipy.stats import binomtest

from judges.asking import Asked, ask, ask_panel, in_order
from judges.protocol import Judge, JudgeError, JudgeKind, Reply
from judges.reading import read
from judges.replies import Replies, RepliesError, read_replies
from judges.scripted import ScriptedJudge

IDENTITY = {"model": "m", "n_urls": 1, "reader_version": 1}


@dataclass(frozen=True)
class Watched:
    """A judge that waits a little and notes what it was shown."""

    name: str = "watched"
    n_at_once: int = 3
    fails_after: int | None = None
    unready: str = ""
    kind: JudgeKind = field(default="scripted", init=False)
    shown: list[tuple[bytes, bytes]] = field(default_factory=list)
    events: list[str] = field(default_factory=list)

    async def prepare(self) -> Mapping[str, Any]:
        self.events.append("prepare")
        if self.unready:
            raise JudgeError(self.unready)
        return IDENTITY

    async def compare(self, grid_a: bytes, grid_b: bytes) -> tuple[Reply, ...]:
        if self.fails_after is not None and len(self.shown) >= self.fails_after:
            raise JudgeError("the judge has left")
        self.shown.append((grid_a, grid_b))
        await asyncio.sleep(0.001)
        return (Reply("?"), Reply('{"answer": "B"}', "longer"))

    async def close(self) -> None:
        self.events.append("close")


def panel(judges: list[Judge], folder: Path, n: int = 100) -> list[Asked]:
    return asyncio.run(ask_panel(judges, presentations(n), grid, folder, lambda *told: None))


def opened(folder: Path, name: str = "j") -> Replies:
    replies = Replies(folder, name)
    replies.identify(IDENTITY)
    return replies


@settings(max_examples=50, deadline=None)
@given(st.permutations(range(60)), st.integers(0, 2**32))
def test_equal_first_grids_are_neighbours_in_an_order_that_only_the_seed_sets(places: list[int], seed: int) -> None:
    given_order = presentations(60, n_grids=9)
    ordered = in_order(given_order, seed)
    assert sorted(ordered, key=lambda one: one.id) == sorted(given_order, key=lambda one: one.id)
    firsts = [one.grids[0] for one in ordered]
    assert sum(a != b for a, b in pairwise(firsts)) == len(set(firsts)) - 1
    assert in_order([given_order[place] for place in places], seed) == ordered


def test_each_is_asked_once_and_never_more_at_once_than_may_be(tmp_path: Path) -> None:
    made: Counter[str] = Counter()
    threads = set()

    def watched_grid(digest: str) -> bytes:
        made[digest] += 1
        threads.add(threading.current_thread())
        return grid(digest)

    judge = Watched()
    told: list[tuple[int, int]] = []
    with opened(tmp_path, "watched") as replies:
        replies.add(presentations(1)[0].id, (Reply("?"),))
        sitting = ask(judge, presentations(200), watched_grid, replies, lambda *pair: told.append(pair))
        asked = asyncio.run(sitting)
    assert Counter(judge.shown) == Counter((grid(one.grids[0]), grid(one.grids[1])) for one in presentations(200)[1:])
    assert (asked.n_before, asked.n_answered, asked.n_invalid, asked.n_reasked) == (1, 199, 0, 199)
    assert (asked.most_in_flight, asked.prompt_tokens, asked.cached_tokens) == (3, None, None)
    assert told == [(n, 200) for n in range(2, 201)]
    assert threading.main_thread() not in threads
    assert made["0"] <= 3  # the first grid of 39, all side by side
    assert judge.events == ["close"]


def test_a_judge_that_fails_keeps_what_is_done_and_stops_nobody(tmp_path: Path) -> None:
    judges: list[Judge] = [Watched(name="leaves", fails_after=40), Watched(name="stays")]
    left, stayed = panel(judges, tmp_path)
    assert (left.failed, left.n_answered) == ("the judge has left", 40)
    assert (stayed.failed, stayed.n_answered) == (None, 100)
    assert sum(one.is_last for one in read_replies(tmp_path / "leaves.jsonl")) == 40
    back, again = panel([Watched(name="leaves"), Watched(name="stays", unready="off")], tmp_path)
    assert (back.n_before, back.n_answered, back.failed) == (40, 60, None)
    assert (again.n_before, again.n_answered, again.failed) == (100, 0, None)  # done, so its server may be off


def test_all_that_are_not_ready_are_told_before_anything_is_asked(tmp_path: Path) -> None:
    judges = [Watched(name="a", unready="a is off"), Watched(name="b"), Watched(name="c", unready="c is off")]
    with pytest.raises(JudgeError, match="a is off\nc is off"):
        panel([*judges], tmp_path)
    assert [judge.shown for judge in judges] == [[], [], []]
    with pytest.raises(ValueError, match="expected distinct ones"):
        panel([Watched(), Watched()], tmp_path)


def test_a_grid_that_cannot_be_made_is_an_error_and_loses_nothing(tmp_path: Path) -> None:
    def missing(digest: str) -> bytes:
        if digest == "3":
            raise LookupError("grid 3 is gone")
        return grid(digest)

    with pytest.raises(LookupError, match="grid 3 is gone"):
        asyncio.run(ask_panel([Watched()], presentations(100), missing, tmp_path, lambda *told: None))
    assert panel([Watched()], tmp_path)[0].failed is None


def test_a_torn_tail_is_cut_wherever_it_is_torn(tmp_path: Path) -> None:
    with opened(tmp_path) as replies:
        replies.add("one", (Reply("a\ud800\x00\n\u2028"), Reply("b", "longer", "stop", 1, 2, 3, 0.5)))
        whole = replies.path.stat().st_size
        replies.add("two", (Reply("c"), Reply("d", "longer")))
    data = (tmp_path / "j.jsonl").read_bytes()
    first = [one.reply for one in read_replies(tmp_path / "j.jsonl")][:2]
    assert first == [Reply("a\ud800\x00\n\u2028"), Reply("b", "longer", "stop", 1, 2, 3, 0.5)]
    for end in range(whole, len(data), 7):
        (tmp_path / "j.jsonl").write_bytes(data[:end])
        assert [one.reply for one in read_replies(tmp_path / "j.jsonl")] == first
        with opened(tmp_path) as replies:
            assert replies.answered == {"one"}
            assert replies.n_dropped == data[whole:end].count(b"\n") + (not data[:end].endswith(b"\n"))
            replies.add("two", (Reply("e"),))
        assert [one.reply.text for one in read_replies(tmp_path / "j.jsonl")][2:] == ["e"]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(st.text(), min_size=1, max_size=3), max_size=5))
def test_what_is_added_is_read_back(tmp_path: Path, texts: list[list[str]]) -> None:
    folder = tmp_path / os.urandom(8).hex()
    with opened(folder) as replies:
        for number, group in enumerate(texts):
            replies.add(str(number), [Reply(text) for text in group])
    found = list(read_replies(folder / "j.jsonl"))
    assert [(one.presentation_id, one.reply.text) for one in found] == [
        (str(number), text) for number, group in enumerate(texts) for text in group
    ]
    assert all(one.judge == "j" and one.time.endswith("Z") for one in found)


def test_a_broken_line_in_the_middle_is_named(tmp_path: Path) -> None:
    with opened(tmp_path) as replies:
        replies.add("one", (Reply("a"),))
        replies.add("two", (Reply("b"),))
    path = tmp_path / "j.jsonl"
    good = path.read_text().splitlines(keepends=True)
    for broken in ("{}\n", "[]\n", "nonsense\n", good[0].replace('"text"', '"words"')):
        path.write_text(broken + good[1])
        with pytest.raises(RepliesError, match=r"j\.jsonl, line 1: got no reply .*; expected JSON with the fields"):
            list(read_replies(path))
        with pytest.raises(RepliesError, match="line 1"):
            Replies(tmp_path, "j")
    path.write_text(good[0].replace("true", "false") + good[1])
    with pytest.raises(RepliesError, match="line 2: got a reply to another presentation"):
        Replies(tmp_path, "j")
    path.write_text("".join(good))
    Replies(tmp_path, "j").close()  # the lock of those that failed is free


def test_replies_of_another_judge_never_join(tmp_path: Path) -> None:
    with opened(tmp_path) as replies:
        replies.add("one", (Reply("a"),))
        with pytest.raises(ValueError, match="expected one not answered yet"):
            replies.add("one", (Reply("a"),))
        with pytest.raises(ValueError, match="with 0 replies"):
            replies.add("two", ())
    with Replies(tmp_path, "j") as replies:
        with pytest.raises(RepliesError, match=r"model is 'n' and was 'm'\); expected the one that gave the replies"):
            replies.identify({**IDENTITY, "model": "n"})
        with pytest.raises(ValueError, match="call `identify` first"):
            replies.add("two", (Reply("a"),))
        replies.identify({**IDENTITY, "n_urls": 2})
        replies.add("two", (Reply("a"),))
    assert json.loads((tmp_path / "j.identity.json").read_text()) == IDENTITY
    (tmp_path / "j.identity.json").unlink()
    with Replies(tmp_path, "j") as replies, pytest.raises(RepliesError, match="got none; expected what the replies"):
        replies.identify(IDENTITY)
    with Replies(tmp_path, "k"), pytest.raises(RepliesError, match=f"process {os.getpid()} on .* is asking this judge"):
        Replies(tmp_path, "k")


@pytest.mark.parametrize(("accuracy", "bias", "invalid"), [(0.8, 0.0, 0.0), (0.9, 0.3, 0.1), (0.7, -0.4, 0.05)])
def test_a_scripted_judge_errs_at_the_rates_that_were_set(accuracy: float, bias: float, invalid: float) -> None:
    judge = ScriptedJudge("s", accuracy, bias, invalid, seed=3, quality=quality_of)
    assert isinstance(judge, Judge)
    pairs = [(tile(a), tile(b)) for a in range(40) for b in range(40) if a != b]

    async def all_of_them() -> list[str]:
        return [read((await judge.compare(*pair))[-1].text).choice for pair in pairs]

    choices = asyncio.run(all_of_them())
    assert choices == asyncio.run(all_of_them())
    is_better = [quality_of(a) > quality_of(b) for a, b in pairs]
    valid = [(choice, better) for choice, better in zip(choices, is_better, strict=True) if choice != "none"]
    share = max(bias, 0.0) + (1 - abs(bias)) * accuracy, max(bias, 0.0) + (1 - abs(bias)) * (1 - accuracy)
    counts = [(sum(choice == "A" for choice, is_a in valid if is_a is better), better) for better in (True, False)]
    for (count, better), expected in zip(counts, share, strict=True):
        assert binomtest(count, sum(is_a is better for _, is_a in valid), expected).pvalue > 1e-3
    assert binomtest(choices.count("none"), len(choices), invalid).pvalue > 1e-3


def test_a_scripted_judge_tosses_a_coin_over_equal_grids() -> None:
    judge = ScriptedJudge("s", 1.0, quality=lambda png: 0.0)
    pairs = [(tile(a), tile(b)) for a in range(40) for b in range(40)]
    choices = [read(asyncio.run(judge.compare(*pair))[0].text).choice for pair in pairs[:400]]
    assert binomtest(choices.count("A"), len(choices), 0.5).pvalue > 1e-3
    with pytest.raises(ValueError, match=r"accuracy: got 1\.5; expected 0\.0 to 1"):
        ScriptedJudge("s", 1.5, quality=quality_of)
