"""The connections to the servers of one judge: what a request may meet on its way, and what is done about it.

What can pass (no connection, timeouts, 408, 409, 429, 5xx, a broken body) is tried six times on the replicas in turn;
then all requests of this judge wait while the servers' health is polled. What cannot (any other 4xx, a dead engine on
every replica) ends this judge at once. Other judges go on either way. A server that was away may come back as
another one, so before it is asked again it must be what the preflight met. The key stands in one header and nowhere
else.
"""

import asyncio
import os
from collections.abc import Mapping
from typing import Any, NoReturn
from urllib.parse import urlsplit

import httpx2

from judges.client import Endpoint
from judges.pace import Pace, Replica, Turn, pause_before, retry_after
from judges.preflight import addresses, look_at_server
from judges.protocol import Attempt, JudgeError, Reply
from judges.wire import Body, parse, server_words

_LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})
_PASSING = frozenset({408, 409, 429})
_BROKEN_OFF = frozenset({"abort", "error"})
"""What vLLM calls a reply that it gave up, as when it is shut down: status 200 and half a text."""

_N_ROUNDS = 3
_ENGINE_GONE = "EngineCore encountered an issue"


class Link:
    """The connections of one judge during one sitting, and what they learn.

    Attributes:
        options: Whose they are.
        client: The HTTP client.
        pace: How many requests may be in flight.
        turn: Its replicas.
        answers_as: The model that the servers say they are; None before the first reply.
    """

    def __init__(self, options: Endpoint, is_preflight: bool, met: Mapping[str, Any]) -> None:
        """Args: whose they are, whether this is its preflight, and what that found (empty before it)."""
        self.options = options
        self.pace = Pace(options.n_at_once)
        self.turn = Turn(options.urls)
        self._met = met
        self._suspect_all()  # the preflight may be hours ago
        self._n_rounds = 1 if is_preflight else _N_ROUNDS
        self._is_open = asyncio.Event()
        self._is_open.set()
        self._n_pauses = 0
        self._pausing = asyncio.Lock()
        self._failure = ""
        self.answers_as: str | None = None
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

        The list of models must be there; anything else some servers have and some have not.

        Raises:
            JudgeError: The server cannot be reached, or does not list its models.
        """
        try:
            response = await self._get(url)
        except httpx2.RequestError as error:
            self._fail(f"{url} cannot be reached ({type(error).__name__}); expected a server; start it or mend `urls`")
        if url.endswith("/models") and response.status_code != 200:
            self._refused(url, response.status_code, response.content)
        return _object_in(response)

    async def _get(self, url: str) -> httpx2.Response:
        """What stands at an address."""
        return await self.client.get(url, timeout=min(30.0, self.options.timeout_seconds))

    def _suspect_all(self) -> None:
        """Have all replicas looked at before they are asked again."""
        for replica in self.turn.replicas:
            replica.is_strange = bool(self._met)

    async def _look_again(self, replica: Replica) -> httpx2.Response | None:
        """See that a replica is what the preflight met; where it does not say yet, what it answered instead.

        Raises:
            JudgeError: It is another one.
            httpx2.RequestError: It cannot be reached.
        """
        async with replica.looking:
            if not replica.is_strange:
                return None
            found: dict[str, dict[str, Any] | None] = {}
            for url in addresses(replica.url)[: 1 if self._met["server_version"] is None else 2]:
                response = await self._get(url)
                if _may_pass(response.status_code) or (response.status_code != 200 and not found):
                    return response
                found[url] = _object_in(response)

            async def told(url: str) -> dict[str, Any] | None:
                return found.get(url)

            name = self.options.name
            try:
                now = await look_at_server(name, self.options.model, [replica.url], told)
            except JudgeError as error:
                self._failure = str(error)
                raise
            changed = [key for key, value in self._met.items() if value not in (None, now[key])]
            if changed:
                said = "; ".join(f"{key} is {now[key]!r} and was {self._met[key]!r}" for key in changed)
                self._fail(
                    f"{replica.url} came back as another server ({said}); expected the one that the preflight met; "
                    "serve that one and run the same command again, or give this judge another name"
                )
            replica.is_strange = False
            return None

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
        return self._fail(
            f"got {why} {self._n_rounds} x {self.options.n_tries} times; expected an answer; look at the server's log, "
            "then run the same command again"
        )

    async def _try(self, body: Body, attempt: Attempt) -> Reply | str:
        """The reply, or why there is none yet."""
        loop = asyncio.get_running_loop()
        async with self.pace.slot():
            await self._is_open.wait()
            replica = await self.turn.take()
            if self._failure:
                raise JudgeError(self._failure)
            if replica is None:
                self._fail("the engines of all servers have died; expected one alive; restart them and run it again")
            sent_at = loop.time()
            try:
                async with asyncio.timeout(self.options.timeout_seconds):
                    not_yet = await self._look_again(replica)
                    sent_at = loop.time()
                    response = not_yet or await self.client.post(
                        f"{replica.url}/chat/completions", content=body, headers={"Content-Length": str(body.n_bytes)}
                    )
            except (TimeoutError, httpx2.TimeoutException):
                self.pace.shrink(sent_at)
                return self._failed(replica, "a timeout")
            except httpx2.RequestError as error:
                if isinstance(error, httpx2.ConnectError) and replica.is_dying:
                    replica.is_dead = True
                replica.is_strange = bool(self._met)
                return self._failed(replica, f"no connection ({type(error).__name__})")
        return self._look(replica, response, attempt, sent_at, loop.time() - sent_at)

    def _look(
        self, replica: Replica, response: httpx2.Response, attempt: Attempt, sent_at: float, seconds: float
    ) -> Reply | str:
        """The reply that a response holds, or why it has none yet."""
        status = response.status_code
        if _may_pass(status):
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
        if reply.finish_reason in _BROKEN_OFF:
            return self._failed(replica, "a reply broken off")
        self.answers_as = self.answers_as or model
        if model != self.answers_as:
            self._fail(f"{replica.url} answers as {model!r}; expected {self.answers_as!r} as before; serve one model")
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
        async with self._pausing:
            if self._failure:
                raise JudgeError(self._failure)
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
                        if not _may_pass(health.status_code):
                            self._n_pauses += 1
                            self._suspect_all()
                            return
                seconds = sum(self.options.pause_seconds)
                self._fail(
                    f"got {why}, then no server healthy in {seconds:.0f} s; expected one; restart it and run the same "
                    "command again"
                )
            finally:
                self._is_open.set()


def _may_pass(status: int) -> bool:
    """Whether a request that met this status is worth another try."""
    return status in _PASSING or status >= 500


def _object_in(response: httpx2.Response) -> dict[str, Any] | None:
    """The JSON object that a response of status 200 holds; None where it holds none."""
    try:
        found = response.json()
    except ValueError:
        return None
    return found if isinstance(found, dict) and response.status_code == 200 else None
