"""A server that answers like vLLM's, or not, as it is told to: in a thread of its own, on a free port.

What a test plans is a function from what was asked (`Seen`) to what comes back (`Answer`). Small PNGs of one pixel
carry a hidden quality, so that there is a right answer for every pair.
"""

import asyncio
import hashlib
import json
import struct
import threading
import zlib
from base64 import b64decode
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any

from judges.preflight import obvious_pair
from judges.protocol import Presentation

MODEL = "tiny-judge"


def tile(quality: int) -> bytes:
    """A PNG of one pixel that holds a quality below 65,536."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 1, 1, 16, 0, 0, 0, 0)
    pixel = zlib.compress(b"\0" + struct.pack(">H", quality))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixel) + chunk(b"IEND", b"")


def quality_of(png: bytes) -> float:
    """The quality that a tile holds; of the obvious pair 60,001 and 60,000."""
    if len(png) > 200:
        return 60_001.0 - OBVIOUS.index(hashlib.sha256(png).digest())
    place = png.index(b"IDAT")
    size = struct.unpack(">I", png[place - 4 : place])[0]
    return float(struct.unpack(">H", zlib.decompress(png[place + 4 : place + 4 + size])[1:])[0])


OBVIOUS = [hashlib.sha256(png).digest() for png in obvious_pair()]


def grid(digest: str) -> bytes:
    """The tile that a presentation means by this digest."""
    return tile(int(digest))


def presentations(n: int, n_grids: int = 40) -> list[Presentation]:
    """Presentations of tiles of distinct qualities."""
    pairs = [(a, b) for a in range(n_grids) for b in range(n_grids) if a != b][:n]
    assert len(pairs) == n
    return [
        Presentation(
            id=f"p{a}-{b}",
            comparison=f"c{min(a, b)}-{max(a, b)}",
            methods=("x", "y"),
            units=(a, b),
            grids=(str(a), str(b)),
            site="site",
            token_seed=0,
            order=1 if a > b else 0,
        )
        for a, b in pairs
    ]


@dataclass(frozen=True)
class Seen:
    """One request for a completion: the grids, the options, and how often the same grids were asked before."""

    grids: tuple[bytes, bytes]
    options: dict[str, Any]
    headers: dict[str, str]
    n_before: int
    n_images: int

    @property
    def right(self) -> str:
        return "A" if quality_of(self.grids[0]) > quality_of(self.grids[1]) else "B"

    @property
    def key(self) -> str:
        return "-".join(str(int(quality_of(png))) for png in self.grids)


@dataclass(frozen=True)
class Answer:
    """What comes back: after `delay`, a status and a body, of which only the first `n_bytes` arrive where it is set."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    n_bytes: int | None = None
    reset: bool = False


def completion(text: str | None, finish: str = "stop", model: str = MODEL, **message: Any) -> Answer:
    """A chat completion of this text."""
    usage = {"prompt_tokens": 100, "completion_tokens": 20, "prompt_tokens_details": {"cached_tokens": 40}}
    choice = {"message": {"role": "assistant", "content": text, **message}, "finish_reason": finish}
    return Answer(body=json.dumps({"model": model, "choices": [choice], "usage": usage}).encode())


def verdict(answer: str) -> str:
    """A reply as the prompt asks for it."""
    return json.dumps({"reasoning_a": "dogs", "reasoning_b": 'no idea, "answer": "?"', "answer": answer})


def good(seen: Seen) -> Answer:
    """The right answer."""
    return completion(verdict(seen.right))


def refused(status: int, message: str, **headers: str) -> Answer:
    """An error as vLLM words it."""
    return Answer(status, json.dumps({"error": {"message": message, "code": status}}).encode(), headers)


class Server:
    """Serves while it is entered; `die` and `revive` close and open it again on the same port.

    Attributes:
        plan: What comes back.
        asked: How often each pair of grids was asked.
        seen: All requests for completions.
        texts: The last part of each.
        models: What /v1/models lists.
        version: What /version says.
        healthy: Whether /health answers 200.
        most_open: The most completions that were under way at one time.
    """

    def __init__(self, plan: Callable[[Seen], Answer] = good) -> None:
        self.plan = plan
        self.asked: Counter[str] = Counter()
        self.seen: list[Seen] = []
        self.texts: list[str] = []
        self.models: list[dict[str, Any]] = [{"id": MODEL, "root": "tiny", "max_model_len": 32768}]
        self.version = "0.32.0"
        self.healthy = True
        self.n_health = self.n_open = self.most_open = 0
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> "Server":
        self._thread.start()
        self.revive()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.die()

        async def end() -> None:
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def revive(self) -> None:
        async def start() -> asyncio.Server:
            return await asyncio.start_server(self._serve, "127.0.0.1", self.port, limit=2**26)

        self._server = asyncio.run_coroutine_threadsafe(start(), self._loop).result(10)
        self.port = self._server.sockets[0].getsockname()[1]

    def die(self) -> None:
        def stop() -> None:
            if self._server is not None:
                self._server.close()
            for writer in self._writers:
                writer.transport.abort()

        self._loop.call_soon_threadsafe(stop)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while True:
                first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                pairs = (line.split(": ", 1) for line in lines if line)
                headers = {name.lower(): value for name, value in pairs}
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                self.n_open += first.startswith("POST")
                self.most_open = max(self.most_open, self.n_open)
                try:
                    answer = self._answer(first.split(" ")[1], headers, body)
                    await asyncio.sleep(answer.delay)
                finally:
                    self.n_open -= first.startswith("POST")
                if answer.reset:
                    return
                head = "".join(f"{name}: {value}\r\n" for name, value in answer.headers.items())
                head = f"HTTP/1.1 {answer.status} x\r\nContent-Length: {len(answer.body)}\r\n{head}\r\n"
                writer.write(head.encode() + answer.body[: answer.n_bytes])
                await writer.drain()
                if answer.n_bytes is not None:
                    return
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            return
        finally:
            self._writers.discard(writer)
            writer.close()

    def _answer(self, path: str, headers: dict[str, str], body: bytes) -> Answer:
        if path == "/health":
            self.n_health += 1
            return Answer(200 if self.healthy else 503)
        if path == "/version":
            return Answer(body=json.dumps({"version": self.version}).encode())
        if path == "/v1/models":
            return Answer(body=json.dumps({"data": self.models}).encode())
        options = json.loads(body)
        content = options.pop("messages")[0]["content"]
        pictures = [part["image_url"]["url"] for part in content if part["type"] == "image_url"]
        a, b = (b64decode(url.removeprefix("data:image/png;base64,"), validate=True) for url in pictures)
        self.texts.append(content[-1]["text"])
        seen = Seen((a, b), options, headers, 0, len(pictures))
        seen = replace(seen, n_before=self.asked[seen.key])
        self.asked[seen.key] += 1
        self.seen.append(seen)
        return self.plan(seen)
