"""What goes over the wire: the request of one presentation, and what a server's answer to it holds. No network here.

One user turn: the first grid, the second grid, the prompt. Both grids come before the text because some chat templates
move them there anyway. Pictures travel as data URLs only; a server answers 500 where it cannot fetch another URL, and a
reused image id silently brings back an older picture.
"""

import json
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping
from typing import Any

from judges.protocol import PROMPT, Attempt, Reply

PNG = b"\x89PNG\r\n\x1a\n"
SCHEMA = {
    "type": "object",
    "properties": {
        "reasoning_a": {"type": "string", "maxLength": 600},  # both end well before 512 tokens do
        "reasoning_b": {"type": "string", "maxLength": 600},
        "answer": {"type": "string", "enum": ["A", "B"]},
    },
    "required": ["reasoning_a", "reasoning_b", "answer"],
    "additionalProperties": False,
}
_PLACES = ("<<first grid>>", "<<second grid>>")
_PIECE = 3 * 2**17


class Body:
    """The JSON of one request, made piece by piece while it is sent, because 64 whole ones would fill 300 MB.

    Iterating again begins anew, so that a request can be sent again.

    Attributes:
        n_bytes: Its length.
    """

    def __init__(self, options: Mapping[str, Any], grids: tuple[bytes, bytes]) -> None:
        """Args: what stands beside the messages (model, max_tokens, ...), and the PNGs in the order shown."""
        images = [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{place}"}} for place in _PLACES]
        content = [*images, {"type": "text", "text": PROMPT}]
        text = json.dumps({"messages": [{"role": "user", "content": content}], **options})
        before, rest = text.split(_PLACES[0], 1)
        between, after = rest.split(_PLACES[1], 1)
        self._texts = (before.encode(), between.encode(), after.encode())
        self._grids = grids
        self.n_bytes = sum(map(len, self._texts)) + sum(4 * ((len(grid) + 2) // 3) for grid in grids)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """The bytes, in pieces of half a megabyte."""
        for text, grid in zip(self._texts, (*self._grids, b""), strict=True):
            yield text
            for start in range(0, len(grid), _PIECE):
                yield b64encode(grid[start : start + _PIECE])


def check_grids(grid_a: bytes, grid_b: bytes) -> None:
    """Two PNGs, or else an error: servers answer requests with fewer pictures as if nothing were missing.

    Raises:
        ValueError: One is no PNG.
    """
    for name, grid in (("grid_a", grid_a), ("grid_b", grid_b)):
        if not grid.startswith(PNG):
            raise ValueError(f"{name}: got bytes that begin with {grid[:8]!r}; expected a PNG; encode the grid as one")


def response_format() -> dict[str, Any]:
    """What holds a server to the form that the prompt asks for; `guided_json` is ignored by vLLM since 0.12."""
    return {"type": "json_schema", "json_schema": {"name": "verdict", "strict": True, "schema": SCHEMA}}


def parse(content: bytes, attempt: Attempt, seconds: float) -> tuple[Reply, str | None]:
    """The reply in a server's answer, and the model that it says it is.

    A refusal beside an empty text is the text.

    Raises:
        ValueError: It is no answer of a chat completion: cut off, no JSON, or without a choice.
    """
    try:
        answer = json.loads(content, strict=False)
        choice = answer["choices"][0]
        message = choice["message"]
        text = message.get("content") or message.get("refusal") or ""
        usage = answer.get("usage") or {}
        details = usage.get("prompt_tokens_details") or {}
        reason, model = choice.get("finish_reason"), answer.get("model")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"no chat completion ({type(error).__name__})") from error
    if not isinstance(text, str):
        raise ValueError("a message whose content is no text")
    reply = Reply(
        text=text,
        attempt=attempt,
        finish_reason=reason if isinstance(reason, str) else None,
        prompt_tokens=_count(usage.get("prompt_tokens")),
        cached_tokens=_count(details.get("cached_tokens")),
        completion_tokens=_count(usage.get("completion_tokens")),
        seconds=seconds,
    )
    return reply, model if isinstance(model, str) else None


def _count(value: Any) -> int | None:
    """A number of tokens, None where the server gives none."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def server_words(content: bytes, secret: str) -> str:
    """What a server says of an error: one line, at most 300 characters, without the key should it repeat it."""
    text = content[:20_000].decode("utf-8", "replace")
    try:
        said = json.loads(text)
        said = said.get("error", said)
        text = str(said.get("message", said) if isinstance(said, dict) else said)
    except (ValueError, AttributeError, RecursionError):
        pass
    if secret:
        text = text.replace(secret, "[key]")
    text = " ".join(text.split())
    return text[:300] or "nothing"
