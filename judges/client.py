"""A vision-language model behind an OpenAI-compatible server as a judge: `Endpoint`.

A presentation is one request; where `reask` is set, up to two more while the reply cannot be read. `judges.link` deals
with the faults on the way. The preflight (`prepare`) refuses what would otherwise cost a night: a wrong model, one
picture a prompt, too short a context, a judge that answers by position.
"""

import asyncio
import hashlib
import json
import math
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from judges.protocol import PROMPT, Attempt, Choice, JudgeError, JudgeKind, Reply
from judges.reading import READER_VERSION, read
from judges.wire import SCHEMA, Body, check_grids, response_format


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
        faults: How often each kind of fault was met and tried again, over all sittings.
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
    _met: dict[str, Any] = field(default_factory=dict, init=False, compare=False, repr=False)
    _links: list[Any] = field(default_factory=list, init=False, compare=False, repr=False)

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
        if not self.model:
            raise ValueError("model: got ''; expected the name that the server serves it under; set it")
        for option, values in (
            ("temperature", (self.temperature,)),
            ("backoff_seconds", (self.backoff_seconds,)),
            ("pause_seconds", self.pause_seconds),
        ):
            if not values or not all(math.isfinite(value) and value >= 0 for value in values):
                got = getattr(self, option)
                one = "one or more pauses of " if isinstance(got, tuple) else ""
                raise ValueError(f"{option}: got {got}; expected {one}0 or more; set it so")
        for option in ("urls", "n_at_once", "max_tokens", "n_tries", "timeout_seconds"):
            if not getattr(self, option) or getattr(self, option) < type(getattr(self, option))():
                raise ValueError(f"{option}: got {getattr(self, option)}; expected at least one; raise it")

    def claims(self) -> dict[str, Any]:
        """What of its identity stands in its options, and a hash of what it is asked."""
        options = ("name", "kind", "model", "revision", "flags", "max_tokens", "temperature", "seed", "reask", "schema")
        return {
            **{option: getattr(self, option) for option in options},
            "prompt": hashlib.sha256(json.dumps([PROMPT, SCHEMA]).encode()).hexdigest()[:16],
        }

    async def prepare(self) -> dict[str, Any]:
        """The identity of the judge, after the preflight: the model, its context, two pictures, the obvious pair.

        Raises:
            JudgeError: It cannot be reached, is not what was asked for, refuses two pictures, or cannot judge.
        """
        from judges.preflight import look_at_server, obvious_pair  # numpy, which `--help` has no need of

        try:
            link = self._link(is_preflight=True)
            told = await look_at_server(self.name, self.model, self.urls, link.get)
            self._met.clear()
            self._met.update(told)
            coherent, mixed = await asyncio.to_thread(obvious_pair)
            choices = [await self._choice(*grids) for grids in ((coherent, mixed), (mixed, coherent))]
            if self.reask or self.schema:
                await self._ask("schema", (coherent, mixed))
            told["answers_as"] = link.answers_as
        except JudgeError as error:
            if "status 400" not in str(error):
                raise
            raise JudgeError(
                f"{error}; the preflight asks with two pictures of 1008 x 1008 pixels (vLLM needs "
                "--limit-mm-per-prompt '{\"image\":2}') and, where `reask` or `schema` is set, with a JSON schema "
                "(unset them for a server that has none)"
            ) from error
        finally:
            await self.close()
        if choices != ["A", "B"] and not self.accept_failing:
            raise JudgeError(
                f"judge {self.name}: got {choices[0]!r} and {choices[1]!r} for an obvious pair in its two orders; "
                "expected 'A' and 'B'; serve a model that sees, or set `accept_failing` and mind the calibration"
            )
        return {**self.claims(), **told, "n_urls": len(self.urls), "reader_version": READER_VERSION}

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
        reply: Reply = await self._link().ask(Body(options, grids), attempt)
        return reply

    def _link(self, is_preflight: bool = False) -> Any:
        """The connections of this sitting."""
        from judges.link import Link  # it imports the HTTP client, which `--help` has no need of

        if not self._links:
            self._links.append(Link(self, is_preflight, {} if is_preflight else self._met))
        return self._links[0]
