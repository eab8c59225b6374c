"""What an endpoint must show before it is asked anything: the model is served, two pictures fit, and it can see.

The obvious pair is nine discs of one color against nine unlike patterns, shown in both orders: a judge that answers by
position, or cannot tell these, has no say in a ranking.
"""

import io
from collections.abc import Awaitable, Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np
from jaxtyping import UInt8

from judges.protocol import JudgeError

MIN_CONTEXT = 4096
"""Tokens that two grids, the prompt and a reply take with the leanest of the judges, rounded up."""

_CELL_PX = 336


async def look_at_server(
    name: str, model: str, urls: Sequence[str], get: Callable[[str], Awaitable[Mapping[str, Any] | None]]
) -> dict[str, Any]:
    """What the servers say of the model: `root` (its weights), `max_model_len`, `server_version`; None where untold.

    Args:
        name: The judge.
        model: The name it is served under.
        urls: Its replicas.
        get: The JSON at an address; None where nothing is there.

    Raises:
        JudgeError: A replica does not serve the model, holds too few tokens, or differs from the first one.
    """
    told: list[dict[str, Any]] = []
    for url in urls:
        models, version_of = addresses(url)
        rows = ((await get(models)) or {}).get("data") or []
        served = {str(row.get("id")): row for row in rows if isinstance(row, dict)}
        if model not in served:
            near = get_close_matches(model, served, 1)
            meant = f"did you mean {near[0]!r}? Set the model to that" if near else "serve it, or name one of these"
            raise JudgeError(f"judge {name}: {url} serves {sorted(served)}; expected {model!r}; {meant}")
        row = served[model]
        length = row.get("max_model_len")
        if isinstance(length, int) and length < MIN_CONTEXT:
            raise JudgeError(
                f"judge {name}: {url} holds max_model_len {length} tokens; expected at least {MIN_CONTEXT}; serve it "
                "with --max-model-len 32768"
            )
        version = ((await get(version_of)) or {}).get("version")
        told.append({"root": row.get("root"), "max_model_len": length, "server_version": version})
        if told[-1] != told[0]:
            raise JudgeError(
                f"judge {name}: {url} is {told[-1]} and {urls[0]} is {told[0]}; expected equal replicas; serve the "
                "same model with the same version and flags, or make them two judges"
            )
    return told[0]


def addresses(url: str) -> tuple[str, str]:
    """Where a server with this base address lists its models and says its version."""
    return f"{url}/models", url.removesuffix("/v1") + "/version"


def obvious_pair() -> tuple[bytes, bytes]:
    """Two PNGs of 1008 x 1008 pixels: nine discs of one color, which is the coherent one, and nine unlike patterns."""
    discs = [_disc(radius, 30 * (place % 3)) for place, radius in enumerate((70, 90, 110, 80, 100, 120, 75, 95, 115))]
    return _grid(discs), _grid(_patterns())


def _disc(radius: int, shift: int) -> UInt8[np.ndarray, "side side rgb"]:
    """A red disc on white."""
    y, x = np.mgrid[:_CELL_PX, :_CELL_PX] - _CELL_PX // 2
    inside = (x - shift + 30) ** 2 + y**2 < radius**2
    return np.where(inside[..., None], (200, 30, 30), (255, 255, 255)).astype(np.uint8)


def _patterns() -> list[UInt8[np.ndarray, "side side rgb"]]:
    """Nine pictures that share no color, texture or shape."""
    y, x = np.mgrid[:_CELL_PX, :_CELL_PX]
    noise = np.random.default_rng(0).integers(0, 2, (21, 21)).repeat(16, axis=0).repeat(16, axis=1)
    shapes = [
        (x // 24 % 2, (10, 10, 10), (250, 220, 0)),  # stripes
        ((x // 42 + y // 42) % 2, (0, 90, 200), (255, 255, 255)),  # chessboard
        (noise, (90, 60, 30), (150, 200, 120)),
        (x < y, (120, 0, 140), (250, 160, 200)),  # triangle
        (np.hypot(x - 168, y - 168) // 20 % 2, (0, 120, 60), (240, 240, 200)),  # rings
        (y > 200 + 40 * np.sin(x / 30), (120, 190, 250), (20, 50, 120)),  # waves
        (abs(x - 168) + abs(y - 168) < 90, (60, 60, 60), (255, 130, 0)),  # diamond
        (abs(x - 168) < 30, (230, 230, 240), (0, 160, 160)),  # bar
        (((x % 56 - 28) ** 2 + (y % 56 - 28) ** 2) < 90, (30, 0, 60), (190, 255, 60)),  # dots
    ]
    return [np.where(np.asarray(where, bool)[..., None], b, a).astype(np.uint8) for where, a, b in shapes]


def _grid(cells: Sequence[UInt8[np.ndarray, "side side rgb"]]) -> bytes:
    """The PNG of nine cells, row by row."""
    from PIL import Image  # only where it is drawn

    rows = [np.concatenate(cells[start : start + 3], axis=1) for start in (0, 3, 6)]
    file = io.BytesIO()
    Image.fromarray(np.concatenate(rows, axis=0)).save(file, "png")
    return file.getvalue()
