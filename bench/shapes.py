"""The renderer of the embedded `shapes` set: one coloured shape on a textured background, 32x32, three known factors.

The task is made so that a unit cannot be right by looking at one thing: the class is shape x colour, neighbouring
colours are jittered and lit differently, objects vary in size, tilt (15 degrees each way) and place (2 pixels each
way), the backgrounds carry edges and tints of their own, and a small muted distractor lies anywhere. The factors are
drawn independently and are known exactly, which is what lets a score of interpretability be checked against
something. Place is what makes it hard for the small ViT with its 8x8 patches: with objects anywhere in the image,
8 epochs over 6,000 images taught it colour (97 % of test images right) but hardly shape (30 %).

Everything is vectorised over blocks of 250 images. Block b of a stream has a random generator of its own, so image i
depends on (seed, stream, i) alone: a longer stream begins with the shorter one.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

SHAPES = ("circle", "square", "triangle", "cross", "ring", "star")
COLOURS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink")
TEXTURES = ("plain", "stripes", "checks", "dots", "gradient", "blotches")

SIDE = 32
_BLOCK = 250
_RGB = torch.tensor(
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
    dtype=torch.float32,
)

_Plane = Float[Tensor, "images side side"]
_Column = Float[Tensor, "images 1 1"]


@dataclass(frozen=True, eq=False)
class Rendered:
    """Images and the factors that they were drawn from.

    Attributes:
        images: RGB pixels.
        shape: Index into `SHAPES` per image.
        colour: Index into `COLOURS` per image.
        texture: Index into `TEXTURES` per image.
    """

    images: UInt8[Tensor, "images 3 32 32"]
    shape: Int[Tensor, " images"]
    colour: Int[Tensor, " images"]
    texture: Int[Tensor, " images"]


def render(n: int, *, seed: int, stream: int) -> Rendered:
    """The first `n` images of a stream; streams of one seed, and seeds, share no random numbers."""
    blocks = [_block(np.random.default_rng((seed, stream, block))) for block in range(-(-n // _BLOCK))]
    return Rendered(
        images=torch.cat([block.images for block in blocks])[:n],
        shape=torch.cat([block.shape for block in blocks])[:n],
        colour=torch.cat([block.colour for block in blocks])[:n],
        texture=torch.cat([block.texture for block in blocks])[:n],
    )


def _block(rng: np.random.Generator) -> Rendered:
    shape, colour, texture = (_kinds(rng, len(names)) for names in (SHAPES, COLOURS, TEXTURES))
    mix = _per_kind(texture, (_plain, _stripes, _checks, _dots, _gradient, _blotches), _texture_frame(rng))
    dark, light = (_tint(rng, low, high) for low, high in ((40.0, 120.0), (90.0, 190.0)))
    picture = dark + (light - dark) * mix[:, None]

    picture = _paint(picture, _tint(rng, 40.0, 210.0), _anywhere(rng))
    paint = _RGB[colour] + 18 * _normal(rng, _BLOCK, 3)
    picture = _paint(picture, paint[:, :, None, None], _about_the_middle(shape, rng))

    lighting = _uniform(rng, 0.65, 1.15)[:, None]
    noise = _normal(rng, *picture.shape) * _uniform(rng, 3.0, 12.0)[:, None]
    return Rendered((picture * lighting + noise).clamp(0, 255).round().byte(), shape, colour, texture)


def _kinds(rng: np.random.Generator, n: int) -> Int[Tensor, " images"]:
    return torch.from_numpy(rng.integers(n, size=_BLOCK))


def _normal(rng: np.random.Generator, *size: int) -> Float[Tensor, "..."]:
    return torch.from_numpy(rng.standard_normal(size, dtype=np.float32))


def _uniform(
    rng: np.random.Generator, low: float, high: float, *, channels: tuple[int, ...] = ()
) -> Float[Tensor, "..."]:
    """One number per image, or per image and channel, with two axes of 1 for the plane."""
    return low + (high - low) * torch.from_numpy(rng.random((_BLOCK, *channels, 1, 1), dtype=np.float32))


def _tint(rng: np.random.Generator, low: float, high: float) -> Float[Tensor, "images 3 1 1"]:
    """A muted colour per image: a grey level in [low, high], and up to 25 off it per channel."""
    return _uniform(rng, low, high, channels=(1,)) + _uniform(rng, -25.0, 25.0, channels=(3,))


def _paint(
    picture: Float[Tensor, "images 3 side side"],
    paint: Float[Tensor, "images 3 1 1"],
    coverage: _Plane,
) -> Float[Tensor, "images 3 side side"]:
    return picture + (paint - picture) * coverage[:, None]


def _per_kind(
    kind: Int[Tensor, " images"],
    drawers: tuple[Callable[..., _Plane], ...],
    arguments: tuple[Float[Tensor, "images _ _"], ...],
) -> _Plane:
    """Each image drawn by the drawer of its kind, with its rows of the arguments."""
    out = torch.empty(len(kind), SIDE, SIDE)
    for index, draw in enumerate(drawers):
        rows = kind == index
        out[rows] = draw(*(argument[rows] for argument in arguments))
    return out


def _turned(angle: _Column, x0: _Column, y0: _Column) -> tuple[_Plane, _Plane]:
    """Pixel coordinates about (x0, y0), turned by the angle."""
    pixels = torch.arange(SIDE) + 0.5
    x, y = pixels[None, None, :] - x0, pixels[None, :, None] - y0
    return x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()


# Shapes: signed distances in pixels, negative inside; u, v are turned coordinates and r is the radius.


def _about_the_middle(shape: Int[Tensor, " images"], rng: np.random.Generator) -> _Plane:
    """The object: large, nearly upright, nearly central."""
    x0, y0 = (SIDE / 2 + _uniform(rng, -2.0, 2.0) for _ in range(2))
    return _coverage(shape, _uniform(rng, 6.5, 10.0), _uniform(rng, -math.pi / 12, math.pi / 12), x0, y0)


def _anywhere(rng: np.random.Generator) -> _Plane:
    """The distractor: a small shape of any kind, at any angle, wholly inside the image."""
    radius = _uniform(rng, 1.5, 3.0)
    x0, y0 = (radius + _uniform(rng, 0.0, 1.0) * (SIDE - 2 * radius) for _ in range(2))
    return _coverage(_kinds(rng, len(SHAPES)), radius, _uniform(rng, 0.0, 2 * math.pi), x0, y0)


def _coverage(shape: Int[Tensor, " images"], radius: _Column, angle: _Column, x0: _Column, y0: _Column) -> _Plane:
    """How much of each pixel the shape covers: its signed distance, ramped over one pixel, so edges are smooth."""
    u, v = _turned(angle, x0, y0)
    distance = _per_kind(shape, (_circle, _square, _triangle, _cross, _ring, _star), (u, v, radius))
    return (0.5 - distance).clamp(0, 1)


def _circle(u: _Plane, v: _Plane, r: _Column) -> _Plane:
    return torch.hypot(u, v) - 0.9 * r


def _square(u: _Plane, v: _Plane, r: _Column) -> _Plane:
    return torch.maximum(u.abs(), v.abs()) - 0.78 * r


def _triangle(u: _Plane, v: _Plane, r: _Column) -> _Plane:
    sides = [u * math.cos(angle) + v * math.sin(angle) for angle in (0, 2 * math.pi / 3, 4 * math.pi / 3)]
    return torch.stack(sides).amax(0) - 0.55 * r


def _cross(u: _Plane, v: _Plane, r: _Column) -> _Plane:
    long, short = torch.maximum(u.abs(), v.abs()), torch.minimum(u.abs(), v.abs())
    return torch.maximum(long - r, short - 0.3 * r)


def _ring(u: _Plane, v: _Plane, r: _Column) -> _Plane:
    return (torch.hypot(u, v) - 0.72 * r).abs() - 0.24 * r


def _star(u: _Plane, v: _Plane, r: _Column) -> _Plane:
    """Five points: the plane folded into one tenth, where the edge is the line from a notch, at 0.45 r, to a tip."""
    tenth = math.pi / 5
    angle = (torch.atan2(v, u).remainder(2 * tenth) - tenth).abs()
    along, across = torch.hypot(u, v) * angle.cos(), torch.hypot(u, v) * angle.sin()
    # The fold puts the notch at angle 0 and the tip at one tenth; the normal of the line between them points outwards.
    normal = (math.sin(tenth), 0.45 - math.cos(tenth))
    return ((along - 0.45 * r) * normal[0] + across * normal[1]) / math.hypot(*normal)


# Textures: the share in [0, 1] of the lighter tint; s, t are turned coordinates, p the period and f, g phases.


def _texture_frame(rng: np.random.Generator) -> tuple[Float[Tensor, "images _ _"], ...]:
    centre = torch.full((_BLOCK, 1, 1), SIDE / 2)
    phases = (_uniform(rng, 0.0, 2 * math.pi) for _ in range(2))
    return (*_turned(_uniform(rng, 0.0, 2 * math.pi), centre, centre), _uniform(rng, 5.0, 11.0), *phases)


def _wave(s: _Plane, p: _Column, f: _Column) -> _Plane:
    return (s * (2 * math.pi / p) + f).sin()


def _plain(s: _Plane, t: _Plane, p: _Column, f: _Column, g: _Column) -> _Plane:
    return (0.5 + 0.5 * f.sin()).expand_as(s)


def _stripes(s: _Plane, t: _Plane, p: _Column, f: _Column, g: _Column) -> _Plane:
    return (0.5 + 1.5 * _wave(s, p, f)).clamp(0, 1)


def _checks(s: _Plane, t: _Plane, p: _Column, f: _Column, g: _Column) -> _Plane:
    return (0.5 + 3 * _wave(s, p * 1.4, f) * _wave(t, p * 1.4, g)).clamp(0, 1)


def _dots(s: _Plane, t: _Plane, p: _Column, f: _Column, g: _Column) -> _Plane:
    return (1.5 * (_wave(s, p, f) + _wave(t, p, g)) - 1).clamp(0, 1)


def _gradient(s: _Plane, t: _Plane, p: _Column, f: _Column, g: _Column) -> _Plane:
    return (0.5 + s / SIDE).clamp(0, 1)


def _blotches(s: _Plane, t: _Plane, p: _Column, f: _Column, g: _Column) -> _Plane:
    waves = _wave(s, p * 2.1, f) + _wave(t, p * 1.7, g) + _wave(0.7 * s - 0.7 * t, p * 2.6, f + g)
    return (0.5 + 0.35 * waves).clamp(0, 1)
