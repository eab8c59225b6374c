"""The data set `concepts`: images of 4x4 patches, each of which shows none, one or two of a few dozen known glyphs.

The ground truth of the planted track starts here: which concept is where is drawn first, and the pixels follow. A
concept is a glyph of one colour (12 glyphs x 3 colours); its light is added to a grey ground, at a strength of its
own in every patch, under pixel noise. Where two concepts share a patch both are seen, one through the other. Every
image has a theme, its class: a concept that stands in about a third of the patches that show anything.

What makes it easy or hard: glyphs are never moved or turned, so a linear filter can find one, which is what lets
`bench.planted_network` be built instead of trained. Alike glyphs (the same one in another colour, stripes and bars),
two in a patch, the range of strengths and the noise are what such a filter has to cope with.

Everything is vectorised over blocks of 250 images. Block b of a stream has a random generator of its own, so image i
depends on (seed, stream, i) alone: a longer stream begins with the shorter one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from bench.datasets import Dataset, InMemory, fingerprint_of
from bench.options import check_at_least

GRID: Final = 4
PATCH: Final = 8
TOKENS: Final = GRID * GRID
_BLOCK: Final = 250

COLOURS: Final[dict[str, tuple[int, int, int]]] = {
    "amber": (190, 120, 20),
    "teal": (20, 150, 150),
    "violet": (120, 60, 190),
}
"""Light at full strength; three that no two others make, so that each can be told from any mixture of the rest."""

_Plane = Float[Tensor, "8 8"]
GLYPHS: Final[dict[str, Callable[[_Plane, _Plane], Tensor]]] = {
    "disc": lambda x, y: x.hypot(y) < 2.6,
    "ring": lambda x, y: (x.hypot(y) - 3.1).abs() < 0.8,
    "frame": lambda x, y: torch.maximum(x.abs(), y.abs()) > 2.9,
    "plus": lambda x, y: torch.minimum(x.abs(), y.abs()) < 1,
    "cross": lambda x, y: (x.abs() - y.abs()).abs() < 1,
    "triangle": lambda x, y: (x.abs() < (y + 4) / 2) & (y < 3),
    "stripes": lambda x, y: (y + 4) % 4 < 2,
    "bars": lambda x, y: (x + 4) % 4 < 2,
    "slash": lambda x, y: (x + y) % 4 < 2,
    "backslash": lambda x, y: (x - y) % 4 < 2,
    "checks": lambda x, y: ((x + 4) % 8 < 4) ^ ((y + 4) % 8 < 4),
    "dots": lambda x, y: ((x + 3) % 4 < 2) & ((y + 3) % 4 < 2),
}
"""Where a glyph has light: true in those of 8x8 pixels, whose coordinates are measured from the middle."""


def names(n_concepts: int) -> tuple[str, ...]:
    """The first concepts by name: every glyph in the first colour, then in the second, then in the third."""
    return tuple(f"{colour} {glyph}" for colour in COLOURS for glyph in GLYPHS)[:n_concepts]


def templates(n_concepts: int) -> Float[Tensor, "concepts 3 8 8"]:
    """The light of each concept at full strength, in grey levels; linearly independent of each other and of grey."""
    y, x = torch.meshgrid(*(torch.arange(PATCH) - (PATCH - 1) / 2,) * 2, indexing="ij")
    masks = torch.stack([glyph(x, y) for glyph in GLYPHS.values()]).float()
    colours = torch.tensor(list(COLOURS.values()), dtype=torch.float32)
    return (colours[:, None, :, None, None] * masks[None, :, None]).flatten(0, 1)[:n_concepts]


@dataclass(frozen=True, eq=False)
class Rendered:
    """Images and what they were drawn from.

    Attributes:
        images: RGB pixels.
        theme: The concept that each image is about, its class.
        concepts: Which concepts each patch shows, patches row by row.
    """

    images: UInt8[Tensor, "images 3 32 32"]
    theme: Int[Tensor, " images"]
    concepts: Bool[Tensor, "images 16 concepts"]


@dataclass(frozen=True)
class Concepts:
    """`concepts`: 36 glyphs in colour on a 4x4 grid, known for every patch; the class is the image's theme.

    A set with more images begins with the images of a smaller one.

    Attributes:
        n_concepts: How many there are, at most 12 glyphs x 3 colours.
        n_train: Images in the probing split.
        n_test: Images in the evaluation split.
        empty: Share of patches that show nothing.
        double: Share of patches that show two concepts.
        theme: Chance that the (first) concept of a patch is the image's theme; otherwise it is any.
        noise: Standard deviation of the pixel noise, in grey levels.
        seed: Seed of everything drawn.
    """

    n_concepts: int = 36
    n_train: int = 4000
    n_test: int = 2000
    empty: float = 0.4
    double: float = 0.15
    theme: float = 0.35
    noise: float = 12.0
    seed: int = 0

    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_at_least("n_concepts", self.n_concepts, 2)
        most = len(GLYPHS) * len(COLOURS)
        if self.n_concepts > most:
            raise ValueError(f"n_concepts: received {self.n_concepts}; expected at most {most}; lower it")
        for option in ("n_train", "n_test"):
            check_at_least(option, getattr(self, option), 1)
        check_at_least("seed", self.seed, 0)
        for option in ("empty", "double", "theme"):
            if not 0 <= getattr(self, option) <= 1:
                raise ValueError(f"{option}: received {getattr(self, option)}; expected a share in [0, 1]; change it")
        if self.empty + self.double > 1:
            raise ValueError(f"empty + double: received {self.empty + self.double}; expected at most 1; lower either")
        if self.noise < 0:
            raise ValueError(f"noise: received {self.noise}; expected 0 or more grey levels; raise it")

    def load(self) -> Dataset:
        """The images, drawn anew each time (about 0.1 ms each)."""
        train, test = (self._split(n, stream) for stream, n in enumerate((self.n_train, self.n_test)))
        return Dataset(
            name="concepts",
            classes=names(self.n_concepts),
            train=train,
            test=test,
            fingerprint=fingerprint_of(train, test),
            licence="none needed: drawn by this program",
            summary=f"{self.n_concepts} coloured glyphs on a 4x4 grid; which of them each patch shows is known.",
        )

    def render(self, n: int, *, stream: int) -> Rendered:
        """The first `n` images of a stream; streams of one seed, and seeds, share no random numbers."""
        blocks = [self._block(np.random.default_rng((self.seed, stream, block))) for block in range(-(-n // _BLOCK))]
        return Rendered(
            images=torch.cat([block.images for block in blocks])[:n],
            theme=torch.cat([block.theme for block in blocks])[:n],
            concepts=torch.cat([block.concepts for block in blocks])[:n],
        )

    def _split(self, n: int, stream: int) -> InMemory:
        drawn = self.render(n, stream=stream)
        return InMemory(drawn.images, drawn.theme, {"theme": drawn.theme}, drawn.concepts)

    def _block(self, rng: np.random.Generator) -> Rendered:
        theme, concepts = self._drawn(rng)
        strength = torch.from_numpy(rng.uniform(0.6, 1.0, concepts.shape).astype(np.float32)) * concepts
        light = (strength.flatten(0, 1) @ templates(self.n_concepts).flatten(1)).view(_BLOCK, TOKENS, 3, PATCH, PATCH)
        ground = rng.uniform(25, 75, (_BLOCK, 1, 1, 1)) + rng.uniform(-12, 12, (_BLOCK, 3, 1, 1))
        noise = self.noise * rng.standard_normal((_BLOCK, 3, GRID * PATCH, GRID * PATCH), dtype=np.float32)
        pixels = joined(light) + torch.from_numpy(ground).float() + torch.from_numpy(noise)
        return Rendered(pixels.clamp(0, 255).round().byte(), theme, concepts)

    def _drawn(self, rng: np.random.Generator) -> tuple[Int[Tensor, " images"], Bool[Tensor, "images 16 concepts"]]:
        """The theme of each image and what each patch shows; the second concept of a patch is never its first."""
        shape = (_BLOCK, TOKENS)
        theme = rng.integers(self.n_concepts, size=_BLOCK)
        first = np.where(rng.random(shape) < self.theme, theme[:, None], rng.integers(self.n_concepts, size=shape))
        second = (first + rng.integers(1, self.n_concepts, size=shape)) % self.n_concepts
        kind = rng.random(shape)
        which = np.arange(self.n_concepts)
        shown = (first[..., None] == which) & (kind >= self.empty)[..., None]
        shown |= (second[..., None] == which) & (kind >= 1 - self.double)[..., None]
        return torch.from_numpy(theme), torch.from_numpy(shown)


def joined(patches: Float[Tensor, "images 16 3 8 8"]) -> Float[Tensor, "images 3 32 32"]:
    """The images that patches make, row by row."""
    grid = patches.view(-1, GRID, GRID, 3, PATCH, PATCH)
    return grid.permute(0, 3, 1, 4, 2, 5).reshape(len(patches), 3, GRID * PATCH, GRID * PATCH)
