"""Judging through a real vLLM: tiny judges with random weights on a processor, made and served by `make test-vllm`.

What they say means nothing. What is tested is all that lies between a presentation and a vote: requests with two
pictures, schema, errors as the server words them, replies on disk, cached prompt tokens, and the statistics of judges
that do depend on position.
"""

import asyncio
import base64
import json
import os
import random
import subprocess
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jaxtyping import UInt8
from server import N_BLOCKS, NAME, environment, make_judge, metric, running

from judges.agreement import agreement
from judges.asking import Asked, ask
from judges.client import Endpoint
from judges.drawn import Drawn
from judges.grids import Grids, grid_digest
from judges.pairing import Contestant, tournament
from judges.protocol import PROMPT, JudgeError, Presentation, Reply, Settings, Verdict
from judges.ranking import rank
from judges.reading import read
from judges.replies import Replies, read_replies
from judges.serving import SERVED, serve_command
from judges.votes import Votes

FOLDER = os.environ.get("ELUDEBENCH_VLLM", "")
pytestmark = pytest.mark.skipif(
    not FOLDER, reason="ELUDEBENCH_VLLM names no environment with vLLM; `make test-vllm` makes one and runs this"
)
PYTHON = Path(FOLDER) / "bin" / "python"
CELL_PX = 112
N_IMAGES = 96
PROMPT_TOKENS = {"gemma3": 312, "qwen3_vl_moe": 388}
SETTINGS = Settings(unit_pairs=5, cell_px=CELL_PX, planted=0)
SCHEMA = {
    "type": "object",
    "properties": {"reasoning_a": {"type": "string", "maxLength": 30}, "answer": {"enum": ["A", "B"]}},
    "required": ["reasoning_a", "answer"],
    "additionalProperties": False,
}


@dataclass(frozen=True)
class Tiny:
    """A tiny judge that is being served."""

    family: str
    url: str

    def endpoint(self, **options: Any) -> Endpoint:
        """Our client of it; a judge that answers at random cannot pass the obvious pair."""
        chosen: dict[str, Any] = {
            "schema": True,
            "reask": False,
            "accept_failing": True,
            "n_at_once": 4,
            "max_tokens": 512,
        }
        return Endpoint(name=self.family, model=NAME, urls=(self.url,), **chosen | options)

    def post(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Status and body of a chat request, past our client."""
        data = json.dumps({"model": NAME, "temperature": 0, "seed": 42, "max_tokens": 32} | body).encode()
        request = urllib.request.Request(f"{self.url}/chat/completions", data, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=300) as reply:
                return reply.status, json.load(reply)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)


@pytest.fixture(scope="module", params=N_BLOCKS)
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tiny]:
    """Each family in turn, so that one server runs at a time."""
    folder = tmp_path_factory.mktemp(request.param)
    model = make_judge(PYTHON, request.param, folder / "model")
    began = time.monotonic()
    with running(PYTHON, request.param, model, folder / "server.log") as url:
        print(f"\n{request.param}: served after {time.monotonic() - began:.0f} s")
        yield Tiny(request.param, url)


def images(seed: int) -> UInt8[np.ndarray, "n 3 8 8"]:
    """Small pictures of random colours."""
    return np.random.default_rng(seed).integers(0, 256, (N_IMAGES, 3, 8, 8), np.uint8)


def drawn_tournament(seed: int) -> tuple[Drawn, Grids]:
    """Four methods of eight units each: 6 pairs x 5 unit pairs x 2 orders, and the pictures."""
    pictures, draw = images(seed), np.random.default_rng(seed + 1)
    contestants = [
        Contestant(
            id=f"{number:016x}",
            label=f"method {number}",
            exemplars=np.stack([draw.permutation(N_IMAGES)[:9] for _ in range(8)]),
            eligible=np.ones(8, bool),
        )
        for number in range(4)
    ]
    drawn = tournament(
        contestants,
        site="noise",
        stream={"backbone": "none"},
        token_seed=seed,
        settings=SETTINGS,
        digest=lambda chosen: grid_digest(str(seed), chosen, CELL_PX),
    )
    return drawn, Grids(None, lambda chosen: pictures[list(chosen)], drawn.recipes, CELL_PX)


def test_vllm_reads_the_commands_that_we_print() -> None:
    """The parser of the version that we pin knows every flag and understands it as meant."""
    commands = [serve_command(name, revision="0" * 40, gpu_memory_utilization=0.4) for name in SERVED]
    done = subprocess.run(
        [str(PYTHON), str(Path(__file__).parent / "flags.py")],
        input=json.dumps(commands),
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for judge, got in zip(SERVED.values(), json.loads(done.stdout.splitlines()[-1]), strict=True):
        assert got == {
            "model_tag": judge.model,
            "revision": "0" * 40,
            "served_model_name": [judge.name],
            "max_model_len": 32768,
            "generation_config": "vllm",
            "trust_remote_code": judge.name == "internvl3_14b",
            "limit": {"image": 2, "video": 0},
        }


def test_the_preflight_refuses_a_server_of_one_picture(tmp_path: Path) -> None:
    model = make_judge(PYTHON, "gemma3", tmp_path / "model")
    limited = running(PYTHON, "gemma3", model, tmp_path / "server.log", images=1)
    with limited as url, pytest.raises(JudgeError, match=r"At most 1 image.*--limit-mm-per-prompt"):
        asyncio.run(Tiny("gemma3", url).endpoint().prepare())


def data_url(png: bytes) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": "data:image/png;base64," + base64.b64encode(png).decode()}}


def turn(pngs: Sequence[bytes]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [*map(data_url, pngs), {"type": "text", "text": PROMPT}]}]


def some_grids(n: int) -> list[bytes]:
    drawn, grids = drawn_tournament(seed=1)
    return [grids.png(digest) for digest in list(drawn.recipes)[:n]]


def test_errors_come_as_the_client_expects_them(tiny: Tiny) -> None:
    two, three = turn(some_grids(2)), turn(some_grids(3))
    status, body = tiny.post({"messages": three})
    assert (status, sorted(body["error"])) == (400, ["code", "message", "param", "type"])
    assert "at most 2 image" in body["error"]["message"].lower()
    assert tiny.post({"messages": two, "max_tokens": 100_000})[0] == 400
    assert tiny.post({"messages": turn([b"no picture", b"no picture"])})[0] == 400
    status, body = tiny.post({"messages": two, "model": "another"})
    assert (status, "another" in body["error"]["message"]) == (404, True)
    assert tiny.post({"messages": turn([])})[0] == 200
    status, body = tiny.post({"messages": two, "max_tokens": 8})
    assert (status, body["choices"][0]["finish_reason"]) == (200, "length")
    assert body["usage"]["completion_tokens"] == 8


def test_a_schema_is_honoured_and_the_old_option_is_not(tiny: Tiny) -> None:
    two = turn(some_grids(2))
    schema = {"type": "json_schema", "json_schema": {"name": "verdict", "schema": SCHEMA}}
    status, body = tiny.post({"messages": two, "response_format": schema, "max_tokens": 256})
    said = json.loads(body["choices"][0]["message"]["content"])
    assert (status, list(said), said["answer"] in "AB") == (200, ["reasoning_a", "answer"], True)
    _, body = tiny.post({"messages": two, "guided_json": SCHEMA})
    assert read(body["choices"][0]["message"]["content"]).choice == "none"


def test_equal_requests_have_equal_replies(tiny: Tiny) -> None:
    one, other = some_grids(2)

    async def thrice() -> set[str]:
        endpoint = tiny.endpoint()
        said = await asyncio.gather(*(endpoint.compare(one, other) for _ in range(3)))
        await endpoint.close()
        return {replies[-1].text for replies in said}

    assert len(asyncio.run(thrice())) == 1


async def in_given_order(endpoint: Endpoint, presentations: Sequence[Presentation], grids: Grids) -> list[Reply]:
    """Replies to presentations asked in the order given, four at a time."""
    queue = iter(presentations)
    replies: list[Reply] = []

    async def work() -> None:
        for one in queue:
            replies.extend(await endpoint.compare(grids.png(one.grids[0]), grids.png(one.grids[1])))

    await asyncio.gather(*(work() for _ in range(4)))
    await endpoint.close()
    return replies


def test_a_small_tournament(tiny: Tiny, tmp_path: Path) -> None:
    """Sixty presentations are asked once each, kept, read, counted and ranked."""
    drawn, grids = drawn_tournament(seed=2)
    assert len(drawn.presentations) == 60
    endpoint = tiny.endpoint()
    before = 0.0

    async def sit() -> Asked:
        nonlocal before
        with Replies(tmp_path, tiny.family) as replies:
            replies.identify(await endpoint.prepare())
            before = metric(tiny.url, "vllm:request_success_total")
            return await ask(endpoint, drawn.presentations, grids.png, replies, lambda done, of: None)

    first = asyncio.run(sit())
    assert (first.n_answered, first.failed, sum(first.faults.values())) == (60, None, 0)
    assert metric(tiny.url, "vllm:request_success_total") - before == 60
    again = asyncio.run(sit())
    assert (again.n_before, again.n_answered) == (60, 0)
    assert metric(tiny.url, "vllm:request_success_total") == before

    stored = list(read_replies(tmp_path / f"{tiny.family}.jsonl"))
    assert {one.presentation_id for one in stored} == {one.id for one in drawn.presentations}
    verdicts = {one.presentation_id: read(one.reply.text) for one in stored}
    assert first.n_invalid == sum(verdict.choice == "none" for verdict in verdicts.values())
    assert {one.reply.prompt_tokens for one in stored} == {PROMPT_TOKENS[tiny.family]}
    choices = Counter(verdict.choice for verdict in verdicts.values())
    assert min(choices["A"], choices["B"]) > 0
    assert choices["none"] <= 30  # replies cut at max_tokens

    votes = Votes.of(drawn.presentations, {tiny.family: verdicts})
    (voter,) = agreement(votes, SETTINGS).voters
    assert (voter.n_pairs, voter.n_first, voter.n_second) == by_hand(drawn.presentations, verdicts)
    standings = rank(votes, SETTINGS).standings
    assert sum(one.wins for one in standings) == choices["A"] + choices["B"]
    seconds = [one.reply.seconds for one in stored]
    print(f"\n{tiny.family}: {dict(choices)}; rungs {rungs(verdicts)}")
    print(f"  A twice {voter.n_first}, B twice {voter.n_second} of {voter.n_pairs}; bias {voter.position_bias}")
    lengths = [one.reply.completion_tokens or 0 for one in stored]
    print(f"  reply tokens {np.median(lengths):.0f} in the median, {max(lengths)} at most")
    print(f"  60 in {first.seconds:.0f} s; {np.median(seconds):.2f} s a request; {first.prompt_tokens} prompt tokens")


def rungs(verdicts: Mapping[str, Verdict]) -> dict[str, int]:
    return dict(Counter(verdict.rung for verdict in verdicts.values()))


def by_hand(presentations: Sequence[Presentation], verdicts: Mapping[str, Verdict]) -> tuple[int, int, int]:
    """Unit pairs with both orders valid, those with A in both, those with B in both; counted one by one."""
    said: dict[str, list[str]] = {}
    for one in presentations:
        said.setdefault(one.comparison, []).append(verdicts[one.id].choice)
    both = [sorted(pair) for pair in said.values() if "none" not in pair]
    return len(both), both.count(["A", "A"]), both.count(["B", "B"])


def test_asking_by_first_grid_saves_prompt_tokens(tiny: Tiny, tmp_path: Path) -> None:
    """The same draw with other pictures each time, so that neither order finds what the other left behind."""
    drawn, grids = drawn_tournament(seed=3)
    endpoint = tiny.endpoint(max_tokens=16)

    async def sit() -> Asked:
        with Replies(tmp_path, tiny.family) as replies:
            replies.identify(await endpoint.prepare())
            return await ask(endpoint, drawn.presentations, grids.png, replies, lambda done, of: None)

    ordered = asyncio.run(sit())
    drawn, grids = drawn_tournament(seed=4)
    shuffled = sorted(drawn.presentations, key=lambda one: one.id)
    random.Random(0).shuffle(shuffled)
    replies = asyncio.run(in_given_order(endpoint, shuffled, grids))
    without = sum(reply.cached_tokens or 0 for reply in replies)
    assert ordered.prompt_tokens == sum(reply.prompt_tokens or 0 for reply in replies)
    assert ordered.cached_tokens is not None
    n_first = len({one.grids[0] for one in shuffled})
    print(f"\n{tiny.family}: prompt tokens {ordered.prompt_tokens}, first grids {n_first} of 60; tokens cached")
    print(f"  {ordered.cached_tokens} by first grid, {without} shuffled")
    assert ordered.cached_tokens > without


def test_the_preflight_refuses_a_wrong_model(tiny: Tiny) -> None:
    wrong = Endpoint(name="wrong", model="tiny-jugde", urls=(tiny.url,), schema=True)
    with pytest.raises(JudgeError, match=r"serves \['tiny-judge'\]; expected 'tiny-jugde'; did you mean 'tiny-judge'"):
        asyncio.run(wrong.prepare())


def test_the_preflight_refuses_a_judge_that_answers_at_random(tiny: Tiny) -> None:
    with pytest.raises(JudgeError, match="for an obvious pair in its two orders; expected 'A' and 'B'"):
        asyncio.run(tiny.endpoint(accept_failing=False).prepare())
