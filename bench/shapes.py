"""The renderer of the embedded `shapes` set: one coloured shape on a textured background, 32x32, three known factors.

The task is made so that a unit cannot be right by looking at one thing: the class is shape x colour, objects are small
(radius 4.5 to 8 of 32 pixels) and lie anywhere at any angle, neighbouring colours differ by less than their jitter
plus the lighting, the backgrounds carry edges and tints of their own, and a grey distractor lies about. The factors
are drawn independently and are known exactly, which is what lets a score of interpretability be checked against
something.

Everything is vectorised over blocks of 250 images. Block b of a stream has a random generator of its own, so image i
depends on (seed, stream, i) alone: a longer stream begins with the shorter one.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int64, UInt8

SHAPES = ("circle", "square", "triangle", "cross", "ring", "star")
COLOURS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink")
TEXTURES = ("plain", "stripes", "checks", "dots", "gradient", "blotches")

SIDE = 32
_BLOCK = 250
_RGB = np.array(
    [
        (215, 45, 40),
        (235, 135, 35),
        (230, 215, 60),
        (60, 170, 70),
        (70, 195, 205),
        (55, 85, 210),
        (135, 65, 185),
        (235, 120, 180),
    ],
    dtype=np.float32,
)

_Plane = Float32[np.ndarray, "images side side"]
_Column = Float32[np.ndarray, "images 1 1"]


@dataclass(frozen=True, eq=False)
class Rendered:
    """Images and the factors that they were drawn from.

    Attributes:
        images: RGB pixels.
        shape: Index into `SHAPES` per image.
        colour: Index into `COLOURS` per image.
        texture: Index into `TEXTURES` per image.
    """

    images: UInt8[np.ndarray, "images 3 32 32"]
    shape: Int64[np.ndarray, " images"]
    colour: Int64[np.ndarray, " images"]
    texture: Int64[np.ndarray, " images"]


def render(n: int, *, seed: int, stream: int) -> Rendered:
    """The first `n` images of a stream; streams of one seed, and seeds, share no random numbers."""
    blocks = [_block(np.random.default_rng((seed, stream, block))) for block in range(-(-n // _BLOCK))]
    return Rendered(
        images=np.concatenate([block.images for block in blocks])[:n],
        shape=np.concatenate([block.shape for block in blocks])[:n],
        colour=np.concatenate([block.colour for block in blocks])[:n],
        texture=np.concatenate([block.texture for block in blocks])[:n],
    )


def _block(rng: np.random.Generator) -> Rendered:
    shape, colour, texture = (rng.integers(len(names), size=_BLOCK) for names in (SHAPES, COLOURS, TEXTURES))
    mix = _per_kind(texture, (_plain, _stripes, _checks, _dots, _gradient, _blotches), _texture_frame(rng))
    dark, light = (_tint(rng, low, high) for low, high in ((40, 120), (90, 190)))
    picture = dark + (light - dark) * mix[:, None]

    picture = _paint(picture, _tint(rng, 40, 210), _coverage(rng.integers(len(SHAPES), size=_BLOCK), rng, (1.5, 3.0)))
    jitter = rng.normal(0, 18, size=(_BLOCK, 3)).astype(np.float32)
    picture = _paint(picture, (_RGB[colour] + jitter)[:, :, None, None], _coverage(shape, rng, (4.5, 8.0)))

    lighting = _uniform(rng, 0.65, 1.15)[:, None]
    noise = rng.standard_normal(picture.shape, dtype=np.float32) * _uniform(rng, 4, 14)[:, None]
    images = np.clip(picture * lighting + noise, 0, 255).round().astype(np.uint8)
    return Rendered(images, shape, colour, texture)


def _uniform(rng: np.random.Generator, low: float, high: float) -> _Column:
    return rng.uniform(low, high, size=(_BLOCK, 1, 1)).astype(np.float32)


def _tint(rng: np.random.Generator, low: float, high: float) -> Float32[np.ndarray, "images 3 1 1"]:
    """A muted colour per image: a grey level in [low, high], and up to 25 off it per channel."""
    grey = rng.uniform(low, high, size=(_BLOCK, 1, 1, 1))
    return (grey + rng.uniform(-25, 25, size=(_BLOCK, 3, 1, 1))).astype(np.float32)


def _paint(
    picture: Float32[np.ndarray, "images 3 side side"],
    paint: Float32[np.ndarray, "images 3 1 1"],
    coverage: _Plane,
) -> Float32[np.ndarray, "images 3 side side"]:
    return picture + (paint - picture) * coverage[:, None]


def _per_kind(
    kind: Int64[np.ndarray, " images"],
    drawers: tuple[Callable[..., _Plane], ...],
    arguments: tuple[Float32[np.ndarray, "images _ _"], ...],
) -> _Plane:
    """Each image drawn by the drawer of its kind, with its rows of the arguments."""
    out = np.empty((len(kind), SIDE, SIDE), np.float32)
    for index, draw in enumerate(drawers):
        rows = kind == index
        out[rows] = draw(*(argument[rows] for argument in arguments))
    return out


def _turned(rng: np.random.Generator, x0: _Column, y0: _Column) -> tuple[_Plane, _Plane]:
    """Pixel coordinates about (x0, y0), turned by a random angle per image."""
    angle = _uniform(rng, 0, 2 * np.pi)
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32) + 0.5
    return (x - x0) * np.cos(angle) + (y - y0) * np.sin(angle), (y - y0) * np.cos(angle) - (x - x0) * np.sin(angle)


# Shapes: signed distances in pixels, negative inside; u, v are turned coordinates and r is the radius.


def _coverage(shape: Int64[np.ndarray, " images"], rng: np.random.Generator, radii: tuple[float, float]) -> _Plane:
    """How much of each pixel the shape covers: its signed distance, ramped over one pixel, so edges are smooth."""
    radius = _uniform(rng, *radii)
    x0, y0 = (radius + _uniform(rng, 0, 1) * (SIDE - 2 * radius) for _ in range(2))
    u, v = _turned(rng, x0, y0)
    distance = _per_kind(shape, (_circle, _square, _triangle, _cross, _ring, _star), (u, v, radius))
    return np.clip(0.5 - distance, 0, 1)


def _circle(u: _Plane, v: _Plane, r: _Column) -> _Plane:
    return np.hypot(u, v) - 0.9 * r


def _square(u: _Plane, v: _Plane, r: _Column) -> _Plane:
    return np.maximum(np.abs(u), np.abs(v)) - 0.78 * r


def _triangle(u: _Plane, v: _Plane, r: _Column) -> _Plane:
    sides = [u * np.float32(np.cos(a)) + v * np.float32(np.sin(a)) for a in (0, 2 * np.pi / 3, 4 * np.pi / 3)]
    return np.maximum(np.maximum(sides[0], sides[1]), sides[2]) - 0.55 * r


def _cross(u: _Plane, v: _Plane, r: _Column) -> _Plane:
    long, short = np.maximum(np.abs(u), np.abs(v)), np.minimum(np.abs(u), np.abs(v))
    return np.maximum(long - r, short - 0.3 * r)


def _ring(u: _Plane, v: _Plane, r: _Column) -> _Plane:
    return np.abs(np.hypot(u, v) - 0.72 * r) - 0.24 * r


def _star(u: _Plane, v: _Plane, r: _Column) -> _Plane:
    """Five points: the plane folded into one tenth, where the edge is the line from a tip to a notch at 0.45 r."""
    tenth = np.pi / 5
    angle = np.abs(np.mod(np.arctan2(v, u), 2 * tenth) - tenth)
    along, across = np.hypot(u, v) * np.cos(angle), np.hypot(u, v) * np.sin(angle)
    # The notch lies at angle 0 after the fold, the tip at one tenth; the normal of the line between them points out.
    normal = np.array([np.sin(tenth), 0.45 - np.cos(tenth)])
    normal /= np.hypot(*normal)
    return ((along - 0.45 * r) * normal[0] + across * normal[1]).astype(np.float32)


# Textures: the share in [0, 1] of the lighter tint; s, t are turned coordinates, p the period and f, g phases.


def _texture_frame(rng: np.random.Generator) -> tuple[Float32[np.ndarray, "images _ _"], ...]:
    centre = np.full((_BLOCK, 1, 1), SIDE / 2, np.float32)
    phases = (_uniform(rng, 0, 2 * np.pi) for _ in range(2))
    return (*_turned(rng, centre, centre), _uniform(rng, 5, 11), *phases)


def _wave(s: _Plane, p: _Column, f: _Column) -> _Plane:
    return np.sin(s * (2 * np.pi / p) + f)


def _plain(s: _Plane, t: _Plane, p: _Column, f: _Column, g: _Column) -> _Plane:
    return np.broadcast_to(0.5 + 0.5 * np.sin(f), s.shape)


def _stripes(s: _Plane, t: _Plane, p: _Column, f: _Column, g: _Column) -> _Plane:
    return np.clip(0.5 + 1.5 * _wave(s, p, f), 0, 1)


def _checks(s: _Plane, t: _Plane, p: _Column, f: _Column, g: _Column) -> _Plane:
    return np.clip(0.5 + 3 * _wave(s, p * 1.4, f) * _wave(t, p * 1.4, g), 0, 1)


def _dots(s: _Plane, t: _Plane, p: _Column, f: _Column, g: _Column) -> _Plane:
    return np.clip(1.5 * (_wave(s, p, f) + _wave(t, p, g)) - 1, 0, 1)


def _gradient(s: _Plane, t: _Plane, p: _Column, f: _Column, g: _Column) -> _Plane:
    return np.clip(0.5 + s / SIDE, 0, 1)


def _blotches(s: _Plane, t: _Plane, p: _Column, f: _Column, g: _Column) -> _Plane:
    waves = _wave(s, p * 2.1, f) + _wave(t, p * 1.7, g) + _wave(0.7 * s - 0.7 * t, p * 2.6, f + g)
    return np.clip(0.5 + 0.35 * waves, 0, 1)
