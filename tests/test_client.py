"""The client against a server that misbehaves on purpose: no wrong vote, nothing lost, nothing asked twice."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from misbehaving import MODEL, Answer, Seen, Server, completion, good, grid, presentations, refused, tile, verdict

from judges.asking import Asked, ask, ask_panel
from judges.client import Endpoint
from judges.pace import Pace, pause_before, retry_after
from judges.protocol import PROMPT, Judge, JudgeError, Reply
from judges.reading import read
from judges.replies import Replies, RepliesError, read_replies

ROOT = Path(__file__).resolve().parent.parent
FAST = {"backoff_seconds": 0.002, "pause_seconds": (0.05, 0.05, 0.05, 0.1, 0.1), "timeout_seconds": 5.0}


def endpoint(*servers: Server, **options: Any) -> Endpoint:
    urls = tuple(server.url for server in servers)
    return Endpoint(**{"name": "tiny", "model": MODEL, "urls": urls, **FAST, **options})


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


def compare(judge: Endpoint, a: bytes = tile(2), b: bytes = tile(1)) -> tuple[Reply, ...]:
    async def once() -> tuple[Reply, ...]:
        try:
            return await judge.compare(a, b)
        finally:
            await judge.close()

    return asyncio.run(once())


def run(judge: Endpoint, folder: Path, n: int) -> Asked:
    async def sitting() -> Asked:
        with Replies(folder, judge.name) as replies:
            replies.identify({"model": judge.model})
            return await ask(judge, presentations(n), grid, replies, lambda done, of: None)

    return asyncio.run(sitting())


def stored(folder: Path, name: str = "tiny") -> dict[str, str]:
    """The choice of each presentation, each stored once."""
    last = [one for one in read_replies(folder / f"{name}.jsonl") if one.is_last]
    assert len(last) == len({one.presentation_id for one in last})
    return {one.presentation_id: read(one.reply.text).choice for one in last}


def right(presentation_id: str) -> str:
    a, b = presentation_id[1:].split("-")
    return "A" if int(a) > int(b) else "B"


def raw(text: str) -> Callable[[Seen], Answer]:
    return lambda seen: Answer(body=text.encode())


def cut(seen: Seen) -> Answer:
    return replace(good(seen), n_bytes=30)


PASSING: list[Callable[[Seen], Answer]] = [
    lambda seen: refused(429, "slow down", **{"Retry-After": "0"}),
    lambda seen: refused(500, "internal"),
    lambda seen: refused(503, "busy"),
    lambda seen: refused(408, "late"),
    lambda seen: refused(409, "conflict"),
    cut,
    raw('{"choices": [{"message": {"content": "{\\"answer\\": \\"A'),
    raw("<html>gateway</html>"),
    raw('{"choices": []}'),
    lambda seen: Answer(reset=True),
    lambda seen: completion(verdict("B" if seen.right == "A" else "A"), "abort"),
]
READABLE: list[Callable[[Seen], Answer]] = [
    lambda seen: completion(f"Sure! ```json\n{verdict(seen.right)}\n```"),
    lambda seen: completion(verdict(f"grid {seen.right.lower()}")),
    lambda seen: completion('{"reasoning_a": "two\nlines\x00\x07", "answer": "' + seen.right + '"}'),
    lambda seen: Answer(body=good(seen).body.replace(b"dogs", b"do\ngs\x01")),
    lambda seen: replace(good(seen), delay=0.02),
    lambda seen: completion(f'{{"reasoning_a": "\\alpha", "answer": "{seen.right}"', "length"),
]
UNREADABLE: list[Callable[[Seen], Answer]] = [
    lambda seen: completion(f"Grid {seen.right} is more coherent."),
    lambda seen: completion(None, refusal="I cannot help with that."),
    lambda seen: completion(""),
    lambda seen: completion(verdict("tie")),
    lambda seen: completion(verdict(seen.right)[:-4], "length"),
    lambda seen: completion('{"answer": "A", "answer": "B"}'),
    lambda seen: completion("\ud800 {" * 50),
]


def number(seen: Seen) -> int:
    a, b = seen.key.split("-")
    return 40 * int(a) + int(b)


def misbehave(seen: Seen) -> Answer:
    """One or two passing faults, or none, then a good, an odd or an unreadable answer, by the pair's number."""
    n = number(seen)
    if seen.n_before < n % 3:
        return PASSING[(n // 3 + seen.n_before) % len(PASSING)](seen)
    if n % 193 == 0 and seen.n_before == n % 3:
        return replace(good(seen), delay=3.0)  # a timeout
    kinds = [*READABLE, *UNREADABLE, *[good] * 10]
    return kinds[n % len(kinds)](seen)


def test_a_thousand_replies_over_faults(server: Server, tmp_path: Path) -> None:
    server.plan = misbehave
    asked = run(endpoint(server, reask=False, timeout_seconds=0.6), tmp_path, 1000)
    choices = stored(tmp_path)
    n_kinds = len(READABLE) + len(UNREADABLE) + 10
    unreadable = range(len(READABLE), len(READABLE) + len(UNREADABLE))
    expected = {}
    for one in presentations(1000):
        n = 40 * one.units[0] + one.units[1]
        expected[one.id] = "none" if n % n_kinds in unreadable else right(one.id)
    assert choices == expected
    assert asked.failed is None
    assert (asked.n_answered, asked.n_invalid) == (1000, sum(choice == "none" for choice in choices.values()))
    assert asked.faults["a timeout"] >= 5
    assert {"status 429", "status 500", "a broken body"} <= set(asked.faults)
    n_asked = sum(server.asked.values())
    assert 1000 < n_asked <= 1000 + sum(asked.faults.values())
    again = run(endpoint(server), tmp_path, 1000)
    assert (again.n_before, again.n_answered) == (1000, 0)
    assert sum(server.asked.values()) == n_asked


def test_a_request_is_as_the_protocol_says(server: Server) -> None:
    reply = compare(endpoint(server))[-1]
    (seen,) = server.seen
    assert seen.grids == (tile(2), tile(1))
    assert seen.options == {"model": MODEL, "max_tokens": 256, "temperature": 0.0, "seed": 42}
    assert not {"x", "y"} & set(seen.headers)
    assert (reply.finish_reason, reply.seconds > 0) == ("stop", True)
    assert (reply.prompt_tokens, reply.cached_tokens, reply.completion_tokens) == (100, 40, 20)
    assert server.texts == [PROMPT]


def test_what_cannot_be_read_is_asked_again(server: Server) -> None:
    texts = ["Hm.", "Hm, hm.", verdict("A")]
    server.plan = lambda seen: completion(texts[seen.n_before])
    replies = compare(endpoint(server))
    assert [reply.text for reply in replies] == texts
    assert [reply.attempt for reply in replies] == ["first", "longer", "schema"]
    assert [seen.options["max_tokens"] for seen in server.seen] == [256, 512, 512]
    assert ["response_format" in seen.options for seen in server.seen] == [False, False, True]
    server.asked.clear()
    assert [reply.text for reply in compare(endpoint(server, reask=False))] == ["Hm."]
    server.asked.clear()
    assert [reply.attempt for reply in compare(endpoint(server, schema=True))] == ["first", "longer"]
    schema = server.seen[-2].options["response_format"]["json_schema"]["schema"]
    assert schema["properties"]["answer"]["enum"] == ["A", "B"]


@pytest.mark.parametrize("bad", [b"", b"GIF89a", tile(1)[1:]])
def test_only_two_pngs_are_sent(server: Server, bad: bytes) -> None:
    with pytest.raises(ValueError, match=r"grid_b: got bytes .*; expected a PNG"):
        compare(endpoint(server), tile(1), bad)
    assert not server.seen


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_a_refusal_ends_the_judge_with_the_servers_words(server: Server, status: int, monkeypatch: Any) -> None:
    monkeypatch.setenv("JUDGE_KEY", "sk-very-secret")
    server.plan = lambda seen: refused(status, f"no good: {seen.headers['authorization']}")
    with pytest.raises(
        JudgeError, match=rf"judge tiny: .* refused with status {status}: no good: Bearer \[key\]"
    ) as told:
        compare(endpoint(server, key_variable="JUDGE_KEY"))
    assert "secret" not in str(told.value)
    assert ("JUDGE_KEY" in str(told.value)) == (status in (401, 403))
    assert len(server.seen) == 1


def test_a_key_that_is_missing_is_named(server: Server, monkeypatch: Any) -> None:
    for key in ("", "two\nlines"):
        monkeypatch.setenv("JUDGE_KEY", key)
        with pytest.raises(
            JudgeError, match="got no usable key in the environment variable JUDGE_KEY; expected one; export"
        ):
            compare(endpoint(server, key_variable="JUDGE_KEY"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"urls": ("http://me:secret@h/v1",)}, "got one with a user name"),
        ({"urls": ("http://h:1",)}, "expected http"),
        ({"urls": ("file:///v1",)}, "expected http"),
        ({"urls": ()}, "urls: got ()"),
        ({"name": "../x"}, "it names a file"),
        ({"n_at_once": 0}, "n_at_once: got 0"),
        ({"model": ""}, "model: got ''; expected the name that the server serves it under; set it"),
        ({"temperature": -0.1}, "temperature: got -0.1; expected 0 or more"),
        ({"temperature": float("nan")}, "temperature: got nan; expected 0 or more"),
        ({"backoff_seconds": -1.0}, "backoff_seconds: got -1.0; expected 0 or more"),
        ({"pause_seconds": ()}, "pause_seconds: got (); expected one or more pauses of 0 or more; set it so"),
        ({"pause_seconds": (1.0, -5.0)}, "pause_seconds: got (1.0, -5.0); expected one or more pauses of 0"),
    ],
)
def test_options_are_checked(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError) as told:  # noqa: PT011
        Endpoint(**{"name": "tiny", "model": MODEL, "urls": ("http://h/v1",), **options})
    assert words in str(told.value)
    assert "secret" not in str(told.value)


def test_preflight_gives_the_identity(server: Server) -> None:
    judge = endpoint(server, server, revision="abc")
    assert isinstance(judge, Judge)
    identity = asyncio.run(judge.prepare())
    assert identity == json.loads(json.dumps(identity))
    told = {"model": MODEL, "root": "tiny", "server_version": "0.32.0", "max_model_len": 32768, "n_urls": 2, "seed": 42}
    assert identity.items() >= {**told, "revision": "abc", "answers_as": MODEL, "temperature": 0.0}.items()
    assert [seen.right for seen in server.seen] == ["A", "B", "A"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"models": [{"id": "tiny-judges"}]}, "expected 'tiny-judge'; did you mean 'tiny-judges'"),
        ({"lists": 503}, "models refused with status 503"),
        ({"models": []}, r"serves \[\]; expected 'tiny-judge'; serve it"),
        ({"models": [{"id": MODEL, "max_model_len": 2048}]}, "max_model_len 2048 tokens; expected at least 4096"),
        ({"plan": lambda seen: completion(verdict("A"))}, "got 'A' and 'A' for an obvious pair"),
        ({"plan": lambda seen: completion("Hm.")}, "got 'none' and 'none' for an obvious pair"),
        ({"plan": lambda seen: refused(400, "At most 1 image(s)")}, r"At most 1 image\(s\).*limit-mm-per-prompt"),
        ({"plan": lambda seen: refused(400, "no") if "response_format" in seen.options else good(seen)}, "JSON schema"),
        ({"plan": lambda seen: refused(503, "loading")}, "got status 503 1 x 6 times"),
    ],
)  # fmt: skip
def test_preflight_refuses(server: Server, change: dict[str, Any], words: str) -> None:
    for name, value in change.items():
        setattr(server, name, value)
    with pytest.raises(JudgeError, match=words):
        asyncio.run(endpoint(server).prepare())


def test_a_failing_judge_can_be_accepted(server: Server) -> None:
    server.plan = lambda seen: completion(verdict("A"))
    assert asyncio.run(endpoint(server, accept_failing=True).prepare())["model"] == MODEL


def test_replicas_must_be_equal_and_a_missing_server_is_named(server: Server) -> None:
    with Server() as other:
        other.version = "0.33.0"
        with pytest.raises(JudgeError, match=r"0\.33\.0.*expected equal replicas"):
            asyncio.run(endpoint(server, other).prepare())
    with pytest.raises(JudgeError, match=r"cannot be reached .*start it or mend `urls`"):
        asyncio.run(endpoint(server, other).prepare())


def test_death_and_return_lose_nothing(server: Server, tmp_path: Path) -> None:
    def plan(seen: Seen) -> Answer:
        if len(server.seen) == 60:
            server.die()
            threading.Timer(0.4, server.revive).start()
        return replace(good(seen), delay=0.002)

    server.plan = plan
    asked = run(endpoint(server, n_at_once=8, pause_seconds=(0.1,) * 50), tmp_path, 200)
    assert (asked.failed, asked.n_answered) == (None, 200)
    assert stored(tmp_path) == {one.id: right(one.id) for one in presentations(200)}


def test_a_server_that_stays_away_ends_its_judge_only(tmp_path: Path) -> None:
    with Server() as one, Server() as two:
        judges = [endpoint(one, name="one", n_at_once=4), endpoint(two, name="two")]

        def plan(seen: Seen) -> Answer:
            if len(one.seen) > 40:
                one.die()
            return good(seen)

        one.plan = plan
        told: Counter[str] = Counter()

        def report(name: str, n_done: int, n_all: int) -> None:
            told[name] += 1
            assert (n_done, n_all) == (told[name], 150)

        first, second = asyncio.run(ask_panel(judges, presentations(150), grid, tmp_path, report))
    assert "then no server healthy in 0 s" in str(first.failed)
    assert (second.failed, second.n_answered, second.prompt_tokens, second.cached_tokens) == (None, 150, 15000, 6000)
    assert set(stored(tmp_path, "one")) < set(stored(tmp_path, "two"))
    assert first.n_answered == len(stored(tmp_path, "one")) == told["one"]


def test_a_dead_engine_leaves_the_other_replica_the_work(tmp_path: Path) -> None:
    with Server() as sound, Server() as sick:

        def plan(seen: Seen) -> Answer:
            if len(sick.seen) < 20:
                return good(seen)
            asyncio.get_running_loop().call_later(0.02, sick.die)
            return refused(500, "EngineCore encountered an issue. See stack trace")

        sick.plan = plan
        judge = endpoint(sound, sick, n_at_once=4)
        asked = run(judge, tmp_path / "both", 200)
        assert (asked.failed, asked.n_answered) == (None, 200)
        assert stored(tmp_path / "both") == {one.id: right(one.id) for one in presentations(200)}
        sick.seen.clear()
        sick.revive()
        asked = run(endpoint(sick, n_at_once=4), tmp_path / "sick", 50)
    assert "the engines of all servers have died" in str(asked.failed)
    assert asked.n_answered == len(stored(tmp_path / "sick"))


def test_another_model_in_the_middle_ends_the_judge(server: Server, tmp_path: Path) -> None:
    server.plan = lambda seen: completion(verdict(seen.right), model=MODEL if len(server.seen) < 50 else "other")
    asked = run(endpoint(server, n_at_once=2), tmp_path, 100)
    assert "answers as 'other'; expected 'tiny-judge' as before" in str(asked.failed)
    assert 45 <= asked.n_answered == len(stored(tmp_path)) < 50


def test_retry_after_is_waited_for(server: Server) -> None:
    server.plan = lambda seen: good(seen) if seen.n_before else refused(429, "later", **{"Retry-After": "0.5"})
    began = time.monotonic()
    compare(endpoint(server))
    assert time.monotonic() - began >= 0.5


def test_retry_after_is_read() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    date = format_datetime(now + timedelta(seconds=90), usegmt=True)
    texts = ["7", "0.5", date, format_datetime(now, usegmt=True), "-3", "soon", "nan", "1e9", None]
    assert [retry_after(text, now) for text in texts] == [7.0, 0.5, 90.0, 0.0, 0.0, 0.0, 0.0, 3600.0, 0.0]


def test_pauses_are_jittered_below_a_limit_that_doubles() -> None:
    for attempt, most in ((1, 1.0), (2, 2.0), (5, 16.0), (9, 30.0)):
        pauses = [pause_before(attempt, 1.0) for _ in range(300)]
        assert 0 <= min(pauses) < most / 4 < 3 * most / 4 < max(pauses) <= most


def test_requests_in_flight_shrink_and_grow_back(server: Server, tmp_path: Path) -> None:
    async def paced() -> list[int]:
        pace, limits = Pace(64), []
        async with pace.slot() as sent_at:
            pace.shrink(sent_at + 1e-3)
            pace.shrink(sent_at)  # sent before the halving
            limits.append(int(pace.limit))
            for _ in range(32 * 33):
                pace.grow()
            limits.append(int(pace.limit))
            for _ in range(64 * 32):
                pace.grow()
            limits.append(int(pace.limit))
        return limits

    small, mended, full = asyncio.run(paced())
    assert small == 32 < mended <= full == 64
    server.plan = lambda seen: replace(good(seen), delay=0.01)
    asked = run(endpoint(server, n_at_once=16), tmp_path, 200)
    assert asked.most_in_flight == server.most_open == 16


SCRIPT = """
import asyncio, sys
from pathlib import Path
from misbehaving import MODEL, grid, presentations
from judges.asking import ask_panel
from judges.client import Endpoint
judge = Endpoint("tiny", MODEL, (sys.argv[1],), n_at_once=4)
asyncio.run(ask_panel([judge], presentations(300), grid, Path(sys.argv[2]), lambda *told: print(*told, flush=True)))
"""


def test_killed_it_continues_and_two_never_ask_at_once(server: Server, tmp_path: Path) -> None:
    server.plan = lambda seen: replace(good(seen), delay=0.01)
    paths = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    command = [sys.executable, "-c", SCRIPT, server.url, str(tmp_path)]
    with subprocess.Popen(command, env=paths, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(60):
            assert process.stdout.readline().startswith("tiny ")
        n_asked = len(server.seen)
        with pytest.raises(
            RepliesError, match=f"process {process.pid} on .* is asking this judge; expected to be alone"
        ):
            Replies(tmp_path, "tiny")
        process.send_signal(signal.SIGKILL)
    assert n_asked >= 60
    time.sleep(0.1)
    before = stored(tmp_path)
    asked = asyncio.run(ask_panel([endpoint(server)], presentations(300), grid, tmp_path, lambda *told: None))[0]
    assert asked.n_before == len(before) >= 60
    assert stored(tmp_path) == {one.id: right(one.id) for one in presentations(300)}
    assert {server.asked[key[1:]] for key in before} == {1}
    assert sum(server.asked[one.id[1:]] for one in presentations(300)) <= 304


def test_cancelling_leaves_whole_replies(server: Server, tmp_path: Path) -> None:
    server.plan = lambda seen: replace(good(seen), delay=0.01)

    async def cancelled() -> None:
        panel = ask_panel([endpoint(server, n_at_once=4)], presentations(300), grid, tmp_path, lambda *told: None)
        task = asyncio.create_task(panel)
        while len(server.seen) < 50:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    before = stored(tmp_path)
    asked = asyncio.run(ask_panel([endpoint(server)], presentations(300), grid, tmp_path, lambda *told: None))[0]
    assert 30 < len(before) == asked.n_before
    assert len(stored(tmp_path)) == 300
