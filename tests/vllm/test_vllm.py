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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jaxtyping import UInt8
from server import FAMILIES, NAME, environment, make_judge, metric, running

from judges.agreement import agreement
from judges.asking import ask
from judges.client import Endpoint
from judges.drawn import Drawn
from judges.grids import Grids, grid_digest
from judges.pairing import Contestant, tournament
from judges.protocol import PROMPT, JudgeError, Presentation, Settings
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
        chosen: dict[str, Any] = {"schema": True, "reask": False, "accept_failing": True, "n_at_once": 4}
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


@pytest.fixture(scope="module", params=FAMILIES)
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tiny]:
    """Each family in turn, so that one server runs at a time."""
    folder = tmp_path_factory.mktemp(request.param)
    model = make_judge(PYTHON, request.param, folder / "model")
    began = time.monotonic()
    with running(PYTHON, model, folder / "server.log") as url:
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
        await endpoint.prepare()
        said = await asyncio.gather(*(endpoint.compare(one, other) for _ in range(3)))
        return {replies[-1].text for replies in said}

    assert len(asyncio.run(thrice())) == 1
