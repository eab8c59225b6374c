"""Planted pairs: grids whose right answer is known, mixed among the real ones to see whether a judge can be trusted.

This project's own addition to Bağcı et al. 2026, appendix B.1. Grids are made of labelled images. The purity of a grid
is how many of its nine images are of one class; of any other class it has two at most. Null pairs have no right answer,
so what a judge prefers in them is a position.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Int

from judges.drawn import Drawn, Notes, Stream, bits_of, present, shuffled
from judges.protocol import Presentation, Settings

EASIEST: Final = "9 against random"
LADDER: Final[Mapping[str, tuple[int, int]]] = {
    EASIEST: (9, 0),
    "9 against 3": (9, 3),
    "9 against 6": (9, 6),
    "6 against 3": (6, 3),
}
"""Rungs with the purities of both grids, the purer one first; 0 is nine images at random."""

BLANK: Final = "one blank"
"""The rung of a grid of purity nine against a blank one."""

SAME: Final = "same grid"
EQUAL: Final = "equal purity"
SHUFFLED: Final = "shuffled cells"
NULLS: Final = (SAME, EQUAL, SHUFFLED)
"""Rungs with no right answer: one grid twice, two draws of one purity, one grid with its cells in two orders."""

RUNGS: Final = (*LADDER, BLANK, *NULLS)
"""Every kind of planted pair. The right answer is the purer grid, or the one that is not blank."""

_OF_ONE: Final[Mapping[int, str]] = {
    9: "nine of one class",
    6: "six of one class",
    3: "three of one class",
    0: "nine at random",
}
SIDES: Final[Mapping[str, tuple[str, str]]] = {
    **{rung: (_OF_ONE[purer], _OF_ONE[other]) for rung, (purer, other) in LADDER.items()},
    BLANK: (_OF_ONE[9], "blank"),
    SAME: ("a grid", "the same grid"),
    EQUAL: ("a grid", "a grid as pure"),
    SHUFFLED: ("a grid", "the same images in another order"),
}
"""What the two grids of each rung are, in the order in which a pair is drawn: where one is better, it comes first."""

_NINE: Final = 9
_MOST_OTHERS: Final = 2  # images of any class but the grid's own
_PURITIES: Final = (9, 6, 3, 0)

Images = tuple[int, ...]


def planted(
    labels: Int[np.ndarray, " images"] | None,
    *,
    site: str,
    settings: Settings,
    stream: Stream,
    digest: Callable[[Sequence[int]], str],
    n_images: int = 0,
) -> Drawn:
    """`Settings.planted` pairs of every rung, each in both orders; one grid twice is one request, shown once.

    The pairs of a rung do not depend on other rungs or on how many there are; null pairs take the purities in turn.
    Where a rung cannot be made, it is left out and the notes say why: without labels only null pairs of images at
    random are left.

    Args:
        labels: The class of each image; None where nobody has labelled them.
        site: Label of the site among whose presentations they are mixed.
        settings: How many, under which seed.
        stream: What else keys the draw: backbone, expansion.
        digest: Identity of the grid of some images; none for the blank grid.
        n_images: How many images there are; read where there are no labels, which tell it otherwise.
    """
    if not settings.planted:
        return Drawn()
    source = _Source.of(labels, n_images)
    presentations: list[Presentation] = []
    recipes: dict[str, Images] = {}
    reasons = []
    for rung in RUNGS:
        reason = source.lacks(rung)
        if reason:
            reasons.append(f"{site}: no planted pairs {rung!r}: {reason}")
            continue
        for ordinal in range(settings.planted):
            bits = bits_of("planted", dict(stream), site, settings.seed, rung, ordinal)
            pair = source.pair(rung, ordinal, bits)
            grids = digest(pair[0]), digest(pair[1])
            recipes |= zip(grids, pair, strict=True)
            both = present(
                methods=("", ""),
                units=(-1, -1),
                grids=grids,
                site=site,
                token_seed=-1,
                rung=rung,
                expected="none" if rung in NULLS else "A",
                ordinal=ordinal,
            )
            presentations += both[:1] if rung == SAME else both
    return Drawn(tuple(presentations), recipes, Notes(planted=tuple(reasons)))


@dataclass(frozen=True, eq=False)
class _Source:
    """Images to make grids of.

    Attributes:
        n_images: How many there are.
        labels: Their classes; None where nobody has labelled them.
        members: The images of each class.
    """

    n_images: int
    labels: Int[np.ndarray, " images"] | None
    members: Mapping[int, Int[np.ndarray, " some"]]

    @classmethod
    def of(cls, labels: Int[np.ndarray, " images"] | None, n_images: int) -> "_Source":
        """The images of these classes, or so many without any."""
        if labels is None:
            return cls(n_images, None, {})
        return cls(len(labels), labels, {int(one): np.flatnonzero(labels == one) for one in np.unique(labels)})

    def classes(self, purity: int) -> list[int]:
        """The classes that a grid of this purity can be made of."""
        room = sum(min(len(images), _MOST_OTHERS) for images in self.members.values())
        return [
            one
            for one, images in self.members.items()
            if len(images) >= purity and room - min(len(images), _MOST_OTHERS) >= _NINE - purity
        ]

    def cannot(self, purity: int) -> str:
        """Why there is no grid of this purity; empty where there is one."""
        if self.n_images < _NINE:
            return f"{self.n_images} images, fewer than {_NINE}"
        if self.labels is None:
            return "the images have no labels" if purity else ""
        room = sum(min(len(images), _MOST_OTHERS) for images in self.members.values())
        if self.classes(purity) if purity else room >= _NINE:
            return ""
        sizes = f"{len(self.members)} classes of up to {max(map(len, self.members.values()))} images"
        return f"{sizes} are too few for {purity or 'no'} images of one class and {_MOST_OTHERS} at most of any other"

    def lacks(self, rung: str) -> str:
        """Why a rung cannot be made; empty where it can."""
        if rung in NULLS:
            reasons = [self.cannot(purity) for purity in _PURITIES]
            return "" if "" in reasons else reasons[-1]
        purities = (9,) if rung == BLANK else LADDER[rung]
        return next(filter(None, map(self.cannot, purities)), "")

    def pair(self, rung: str, ordinal: int, bits: np.random.PCG64) -> tuple[Images, Images]:
        """The images of the two grids of a rung that can be made; the better grid first."""
        if rung in LADDER:
            purer, other = LADDER[rung]
            return self.grid(purer, bits), self.grid(other, bits)
        if rung == BLANK:
            return self.grid(9, bits), ()
        possible = [purity for purity in _PURITIES if not self.cannot(purity)]
        purity = possible[ordinal % len(possible)]
        first = self.grid(purity, bits)
        if rung == EQUAL:
            return first, self.grid(purity, bits)
        return first, first if rung == SAME else _rearranged(first, bits)

    def grid(self, purity: int, bits: np.random.PCG64) -> Images:
        """Nine distinct images at random in any order, so many of one class and two at most of any other."""
        images: list[int] = []
        seen: Counter[int] = Counter()
        if purity:
            classes = self.classes(purity)
            own = classes[bits.random_raw() % len(classes)]
            draws = _distinct(bits, len(self.members[own]))
            images = [int(self.members[own][next(draws)]) for _ in range(purity)]
            seen[own] = _NINE
        draws = _distinct(bits, self.n_images)
        while len(images) < _NINE:
            image = next(draws)
            if self.labels is not None:
                label = int(self.labels[image])
                seen[label] += 1
                if seen[label] > _MOST_OTHERS:
                    continue
            images.append(image)
        return tuple(images[i] for i in shuffled(bits, _NINE))


def _distinct(bits: np.random.PCG64, n: int) -> Iterator[int]:
    """The numbers below n in random order, drawn one by one: there may be many more than are wanted."""
    drawn: set[int] = set()
    while len(drawn) < n:
        number = int(bits.random_raw()) % n
        if number not in drawn:
            drawn.add(number)
            yield number


def _rearranged(images: Images, bits: np.random.PCG64) -> Images:
    """The same images in another order."""
    order = shuffled(bits, len(images))
    moved = tuple(images[i] for i in order)
    return moved if moved != images else images[::-1]
