"""A vision-language model behind an OpenAI-compatible server as a judge: `Endpoint`.

What can pass (no connection, timeouts, 408, 409, 429, 5xx, a broken body) is tried six times on the replicas in turn;
then all requests of this judge wait while the servers' health is polled. What cannot (any other 4xx, a dead engine on
every replica) ends this judge at once. Other judges go on either way. The key stands in one header and nowhere else.
"""

import asyncio
import hashlib
import os
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import urlsplit

from judges.pace import Pace, Replica, Turn, pause_before, retry_after
from judges.preflight import look_at_server, obvious_pair
from judges.protocol import PROMPT, Attempt, Choice, JudgeError, JudgeKind, Reply
from judges.reading import READER_VERSION, read
from judges.wire import Body, check_grids, parse, response_format, server_words

if TYPE_CHECKING:
    import httpx2

_LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})
_PASSING = frozenset({408, 409, 429})
_N_ROUNDS = 3
_ENGINE_GONE = "EngineCore encountered an issue"


@dataclass(frozen=True)
class Endpoint:
    """A judge of kind "vlm"; the decoding defaults are those of appendix B.1 and of the protocol.

    Attributes:
        name: What people call it; names its replies.
        model: The name that the server serves it under.
        urls: Base addresses of its replicas, each ending in /v1.
        key_variable: The environment variable that holds the key; empty where none is needed.
        n_at_once: Requests in flight, over all replicas.
        max_tokens: Tokens of a first reply; twice as many where it is asked again.
        temperature: 0 is greedy.
        seed: Sent with every request.
        reask: A reply that cannot be read is asked for once with more tokens, then once with a JSON schema.
        schema: Hold every reply to the JSON schema.
        timeout_seconds: The most that one request may take.
        n_tries: Tries of a request before the judge is paused.
        backoff_seconds: The longest pause before the second try; each further one may take twice as long.
        pause_seconds: Pauses between looks at the servers' health, once the tries are used up.
        accept_failing: Ask a judge that fails the obvious pair.
        revision: Revision of the weights, as the person who serves them says; servers do not tell.
        flags: Flags of the server, likewise.
        faults: How often each kind of fault was met and tried again.
    """

    name: str
    model: str
    urls: tuple[str, ...]
    key_variable: str = ""
    n_at_once: int = 64
    max_tokens: int = 256
    temperature: float = 0.0
    seed: int = 42
    reask: bool = True
    schema: bool = False
    timeout_seconds: float = 300.0
    n_tries: int = 6
    backoff_seconds: float = 1.0
    pause_seconds: tuple[float, ...] = (5.0, 10.0, 15.0, 30.0, 60.0, 60.0, 120.0, 120.0, 180.0)
    accept_failing: bool = False
    revision: str = ""
    flags: str = ""
    kind: JudgeKind = field(default="vlm", init=False)
    faults: Counter[str] = field(default_factory=Counter, init=False, compare=False, repr=False)
    _links: "list[_Link]" = field(default_factory=list, init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            ValueError: One is not usable; a user name in an address is not repeated.
        """
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", self.name):
            raise ValueError(f"name: got {self.name!r}; expected letters, digits, '_', '.', '-'; it names a file")
        for url in self.urls:
            parts = urlsplit(url)
            if parts.username is not None or parts.password is not None:
                raise ValueError("urls: got one with a user name; expected none; put the key into `key_variable`")
            if parts.scheme not in ("http", "https") or not parts.hostname or not url.endswith("/v1"):
                raise ValueError(f"urls: got {url!r}; expected http(s)://HOST:PORT/v1; write the base address so")
        for option in ("urls", "n_at_once", "max_tokens", "n_tries", "timeout_seconds"):
            if not getattr(self, option) or getattr(self, option) < type(getattr(self, option))():
                raise ValueError(f"{option}: got {getattr(self, option)}; expected at least one; raise it")

    async def prepare(self) -> dict[str, Any]:
        """The identity of the judge, after the preflight: the model, its context, two pictures, the obvious pair.

        Raises:
            JudgeError: It cannot be reached, is not what was asked for, refuses two pictures, or cannot judge.
        """
        try:
            link = self._link(is_preflight=True)
            told = await look_at_server(self.name, self.model, self.urls, link.get)
            coherent, mixed = await asyncio.to_thread(obvious_pair)
            try:
                choices = [await self._choice(*grids) for grids in ((coherent, mixed), (mixed, coherent))]
                if self.reask or self.schema:
                    await self._ask("schema", (coherent, mixed))
            except JudgeError as error:
                raise JudgeError(
                    f"{error}; the preflight asks with two pictures of 1008 x 1008 and, where `reask` or `schema` is "
                    "set, with a JSON schema: a vLLM server needs --limit-mm-per-prompt '{\"image\":2}'"
                ) from error
        finally:
            await self.close()
        if choices != ["A", "B"] and not self.accept_failing:
            raise JudgeError(
                f"judge {self.name}: got {choices[0]!r} and {choices[1]!r} for an obvious pair in its two orders; "
                "expected 'A' and 'B'; serve a model that sees, or set `accept_failing` and mind the calibration"
            )
        options = ("name", "kind", "model", "revision", "flags", "max_tokens", "temperature", "seed", "reask", "schema")
        return {
            **{option: getattr(self, option) for option in options},
            **told,
            "n_urls": len(self.urls),
            "prompt": hashlib.sha256(PROMPT.encode()).hexdigest()[:16],
            "reader_version": READER_VERSION,
        }

    async def compare(self, grid_a: bytes, grid_b: bytes) -> tuple[Reply, ...]:
        """The replies to one presentation; the last one counts.

        Raises:
            JudgeError: It cannot be asked any more; `close` and a new run may help.
            ValueError: A grid is no PNG.
        """
        check_grids(grid_a, grid_b)
        attempts: tuple[Attempt, ...] = ("first",)
        if self.reask:
            attempts = ("first", "longer") if self.schema else ("first", "longer", "schema")
        replies: list[Reply] = []
        for attempt in attempts:
            replies.append(await self._ask(attempt, (grid_a, grid_b)))
            if read(replies[-1].text).choice != "none":
                break
        return tuple(replies)

    async def close(self) -> None:
        """Let go of the connections; the next request opens new ones."""
        while self._links:
            await self._links.pop().client.aclose()

    async def _choice(self, grid_a: bytes, grid_b: bytes) -> Choice:
        """What it says of two grids."""
        return read((await self.compare(grid_a, grid_b))[-1].text).choice

    async def _ask(self, attempt: Attempt, grids: tuple[bytes, bytes]) -> Reply:
        """The reply to one request."""
        options: dict[str, Any] = {
            "model": self.model,
            "max_tokens": self.max_tokens * (1 if attempt == "first" else 2),
            "temperature": self.temperature,
            "seed": self.seed,
        }
        if self.schema or attempt == "schema":
            options["response_format"] = response_format()
        return await self._link().ask(Body(options, grids), attempt)

    def _link(self, is_preflight: bool = False) -> "_Link":
        """The connections of this sitting."""
        if not self._links:
            self._links.append(_Link(self, is_preflight))
        return self._links[0]


class _Link:
    """The connections of one judge during one sitting, and what they learn: pace, dead replicas, the last word."""

    def __init__(self, options: Endpoint, is_preflight: bool) -> None:
        import httpx2  # only where a judge is asked; `--help` has no need of it

        self.options = options
        self.pace = Pace(options.n_at_once)
        self.turn = Turn(options.urls)
        self._n_rounds = 1 if is_preflight else _N_ROUNDS
        self._is_open = asyncio.Event()
        self._is_open.set()
        self._n_pauses = 0
        self._pausing = asyncio.Lock()
        self._failure = ""
        self._model: str | None = None
        self._key = self._read_key()
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        self.client: httpx2.AsyncClient = httpx2.AsyncClient(
            headers=headers | ({"Authorization": f"Bearer {self._key}"} if self._key else {}),
            timeout=options.timeout_seconds,
            # A server closes idle connections after some seconds; to be earlier saves a try.
            limits=httpx2.Limits(
                max_connections=None, max_keepalive_connections=options.n_at_once, keepalive_expiry=3.0
            ),
            trust_env=not all(urlsplit(url).hostname in _LOCAL for url in options.urls),
        )

    def _read_key(self) -> str:
        """The key from the environment; nothing where none is needed."""
        name = self.options.key_variable
        key = os.environ.get(name, "").strip() if name else ""
        if name and not (key and key.isascii() and key.isprintable()):
            self._fail(f"got no usable key in the environment variable {name}; expected one; export it")
        return key

    def _fail(self, said: str) -> NoReturn:
        """End this judge; whoever asks it later hears the same."""
        self._failure = f"judge {self.options.name}: {said}"
        raise JudgeError(self._failure)

    async def get(self, url: str) -> dict[str, Any] | None:
        """The JSON object at an address; None where there is none.

        Raises:
            JudgeError: The server cannot be reached, or refuses the key.
        """
        import httpx2

        try:
            response = await self.client.get(url, timeout=min(30.0, self.options.timeout_seconds))
        except httpx2.RequestError as error:
            self._fail(f"{url} cannot be reached ({type(error).__name__}); expected a server; start it or mend `urls`")
        if response.status_code in (401, 403):
            self._refused(url, response.status_code, response.content)
        try:
            found = response.json()
        except ValueError:
            return None
        return found if isinstance(found, dict) and response.status_code == 200 else None

    async def ask(self, body: Body, attempt: Attempt) -> Reply:
        """The reply to one request, tried again and again as the module says.

        Raises:
            JudgeError: This judge has come to its end.
        """
        why = ""
        for _ in range(self._n_rounds):
            n_pauses = self._n_pauses
            for n_tried in range(self.options.n_tries):
                n_alive = max(1, len(self.turn.alive()))
                if n_tried and n_tried % n_alive == 0:
                    await asyncio.sleep(pause_before(n_tried // n_alive, self.options.backoff_seconds))
                answer = await self._try(body, attempt)
                if isinstance(answer, Reply):
                    return answer
                why = answer
                self.options.faults[why] += 1
            if self._n_rounds > 1:
                await self._pause(n_pauses, why)
        self._fail(
            f"got {why} {self._n_rounds} x {self.options.n_tries} times; expected an answer; look at the server's log, "
            "then run the same command again"
        )

    async def _try(self, body: Body, attempt: Attempt) -> Reply | str:
        """The reply, or why there is none yet."""
        import httpx2

        loop = asyncio.get_running_loop()
        async with self.pace.slot() as _:
            await self._is_open.wait()
            replica = await self.turn.take()
            if self._failure:
                raise JudgeError(self._failure)
            if replica is None:
                self._fail("the engines of all servers have died; expected one alive; restart them and run it again")
            sent_at = loop.time()
            try:
                async with asyncio.timeout(self.options.timeout_seconds):
                    response = await self.client.post(
                        f"{replica.url}/chat/completions", content=body, headers={"Content-Length": str(body.n_bytes)}
                    )
            except (TimeoutError, httpx2.TimeoutException):
                self.pace.shrink(sent_at)
                return self._failed(replica, "a timeout")
            except httpx2.RequestError as error:
                if isinstance(error, httpx2.ConnectError) and replica.is_dying:
                    replica.is_dead = True
                return self._failed(replica, f"no connection ({type(error).__name__})")
        return self._look(replica, response, attempt, sent_at, loop.time() - sent_at)

    def _look(
        self, replica: Replica, response: "httpx2.Response", attempt: Attempt, sent_at: float, seconds: float
    ) -> Reply | str:
        """The reply that a response holds, or why it has none yet."""
        status = response.status_code
        if status in _PASSING or status >= 500:
            self.pace.shrink(sent_at)
            words = server_words(response.content, self._key)
            replica.is_dying |= _ENGINE_GONE in words
            wait = retry_after(response.headers.get("retry-after"))
            replica.free_at = (
                max(replica.free_at, asyncio.get_running_loop().time() + wait) if wait else replica.free_at
            )
            return self._failed(replica, f"status {status}")
        if status != 200:
            self._refused(replica.url, status, response.content)
        try:
            reply, model = parse(response.content, attempt, seconds)
        except ValueError:
            return self._failed(replica, "a broken body")
        self._model = self._model or model
        if model != self._model:
            self._fail(f"{replica.url} answers as {model!r}; expected {self._model!r} as before; serve one model")
        replica.n_failed, replica.is_dying = 0, False
        self.pace.grow()
        return reply

    def _failed(self, replica: Replica, why: str) -> str:
        """Why, once the replica is left alone for a moment where there are others."""
        replica.n_failed += 1
        if len(self.turn.alive()) > 1:
            pause = min(30.0, self.options.backoff_seconds * 2.0 ** min(replica.n_failed, 8) / 2)
            replica.free_at = max(replica.free_at, asyncio.get_running_loop().time() + pause)
        return why

    def _refused(self, url: str, status: int, content: bytes) -> NoReturn:
        """End this judge with the server's words."""
        of_key = f"; check the key in {self.options.key_variable or '`key_variable`'}" if status in (401, 403) else ""
        said = server_words(content, self._key)
        self._fail(f"{url} refused with status {status}: {said}; expected 200; mend the judge's options{of_key}")

    async def _pause(self, n_pauses: int, why: str) -> None:
        """Keep all requests back until a server is healthy; whoever comes later waits for the same pause."""
        import httpx2

        async with self._pausing:
            if self._n_pauses > n_pauses:
                return
            self._is_open.clear()
            try:
                for seconds in self.options.pause_seconds:
                    await asyncio.sleep(seconds)
                    for replica in self.turn.alive():
                        try:
                            health = await self.client.get(replica.url.removesuffix("/v1") + "/health", timeout=10.0)
                        except httpx2.RequestError:
                            continue
                        if health.status_code < 500 and health.status_code not in _PASSING:
                            self._n_pauses += 1
                            return
                self._fail(f"got {why}, and no server healthy in {sum(self.options.pause_seconds):.0f} s; expected one; "
                           "restart it and run the same command again")  # fmt: skip
            finally:
                self._is_open.set()
