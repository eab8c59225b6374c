"""What a draw gives: presentations, the images of their grids, and what has to be said beside the ranks.

Everything is known by content: ids are hashes of what they name, so that replies are found again after a pool grew,
and nothing in an id tells a planted pair from a real one.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
from jaxtyping import Int

from judges.protocol import Choice, Presentation

Stream = Mapping[str, str | int]
"""What a random stream is keyed by: names and values."""

_SWAPPED: Final[dict[Choice, Choice]] = {"A": "B", "B": "A", "none": "none"}


@dataclass(frozen=True)
class PairNote:
    """What became of a pair of methods at one site and token seed.

    Attributes:
        site: Label of the site.
        token_seed: Seed of the token data set.
        methods: Ids of the two.
        asked: Unit pairs asked for.
        drawn: Unit pairs drawn.
        null: How many of these have equal grids.
        reason: Why fewer were drawn than asked for; empty where there were not.
    """

    site: str
    token_seed: int
    methods: tuple[str, str]
    asked: int
    drawn: int
    null: int
    reason: str


@dataclass(frozen=True)
class MethodNote:
    """How many units of a method take part at one site and token seed.

    Attributes:
        site: Label of the site.
        token_seed: Seed of the token data set.
        method: Id of the method.
        units: Its units.
        ineligible: How many of them fewer than nine images drive; they are drawn if `Settings.eligible` is "any".
    """

    site: str
    token_seed: int
    method: str
    units: int
    ineligible: int

    @property
    def ineligible_share(self) -> float:
        """The part of the units that fewer than nine images drive, in [0, 1]."""
        return self.ineligible / self.units


@dataclass(frozen=True)
class Notes:
    """What has to be said beside the ranks.

    Attributes:
        pairs: Each pair of methods.
        methods: Each method.
        planted: Why some kinds of planted pairs are missing, site by site.
    """

    pairs: tuple[PairNote, ...] = ()
    methods: tuple[MethodNote, ...] = ()
    planted: tuple[str, ...] = ()


@dataclass(frozen=True)
class Drawn:
    """Presentations, what their grids show, and what has to be said of them.

    Attributes:
        presentations: Both orders of every comparison, one after the other.
        recipes: The images of each grid by its digest, in the order of the cells; none for the blank grid.
        notes: Counts and reasons.
    """

    presentations: tuple[Presentation, ...] = ()
    recipes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    notes: Notes = field(default_factory=Notes)


def present(
    *,
    methods: tuple[str, str],
    units: tuple[int, int],
    grids: tuple[str, str],
    site: str,
    token_seed: int,
    rung: str = "",
    expected: Choice = "none",
    ordinal: int = 0,
) -> tuple[Presentation, Presentation]:
    """A pair of grids in both orders; ids follow from all that is given.

    Args:
        methods: Ids of the methods of the two grids; empty for planted pairs.
        units: The unit of each; -1 for planted pairs.
        grids: Digests of the grids.
        site: Label of the site.
        token_seed: Seed of the token data set; -1 for planted pairs.
        rung: Which kind of planted pair this is; empty for real ones.
        expected: The right answer in this order.
        ordinal: Tells planted pairs with equal grids apart.
    """
    comparison = hashed("comparison", methods, units, grids, site, token_seed, rung, expected, ordinal)
    first = Presentation("", comparison, methods, units, grids, site, token_seed, 0, rung, expected)
    second = replace(
        first,
        methods=(methods[1], methods[0]),
        units=(units[1], units[0]),
        grids=(grids[1], grids[0]),
        order=1,
        expected=_SWAPPED[expected],
    )
    return _named(first), _named(second)


def merged(parts: Iterable[Drawn]) -> Drawn:
    """Sites, token seeds and planted pairs as one.

    Raises:
        ValueError: Two parts have a presentation in common.
    """
    presentations: dict[str, Presentation] = {}
    recipes: dict[str, tuple[int, ...]] = {}
    notes = Notes()
    for part in parts:
        for one in part.presentations:
            if one.id in presentations:
                raise ValueError(
                    f"parts: got presentation {one.id} of site {one.site!r}, token seed {one.token_seed}, twice; "
                    f"expected each once; draw every site and token seed once"
                )
            presentations[one.id] = one
        recipes |= part.recipes
        notes = Notes(
            notes.pairs + part.notes.pairs, notes.methods + part.notes.methods, notes.planted + part.notes.planted
        )
    return Drawn(tuple(presentations.values()), recipes, notes)


def hashed(*what: Any) -> str:
    """32 hex digits that follow from these JSON values; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(what, sort_keys=True, allow_nan=False).encode()).hexdigest()[:32]


def shuffled(bits: np.random.PCG64, n: int) -> Int[np.ndarray, " n"]:
    """The numbers below n in random order."""
    return np.argsort(bits.random_raw(n), kind="stable")


def bits_of(*key: Any) -> np.random.PCG64:
    """The random stream that these JSON values name."""
    return np.random.PCG64(int(hashed(*key), 16))


def _named(presentation: Presentation) -> Presentation:
    """The presentation under its id."""
    return replace(presentation, id=hashed("presentation", vars(presentation)))
