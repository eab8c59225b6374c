"""Which units of two methods meet, drawn so that no pair of methods knows of any other (Bağcı et al. 2026, B.1).

The draw of a pair of methods follows from a hash of the benchmark seed, the place and the ids of these two alone. So
a method that joins later adds its own presentations and leaves all others as they are, to the letter: replies to
them stay good. Only whole words of the bit generator are used, which NumPy promises never to change.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Final

import numpy as np
from jaxtyping import Bool, Int

from judges.drawn import Drawn, MethodNote, Notes, PairNote, Stream, bits_of, present, shuffled
from judges.protocol import Presentation, Settings

MAX_REDRAWS: Final = 20
"""How often two units with equal grids are drawn again before they are kept as a null pair."""

NINE: Final = 9


@dataclass(frozen=True, eq=False)
class Contestant:
    """A method as it takes part: its units and the nine images that drive each of them most.

    Attributes:
        id: Content identity of the method and its settings; free of seeds, so that its wins are pooled over them.
        label: What people call it.
        exemplars: Indices of the images, best first. What stands in rows that are not eligible does not matter unless
            `Settings.eligible` is "any".
        eligible: Whether nine images drive the unit at all.
    """

    id: str
    label: str
    exemplars: Int[np.ndarray, "units 9"]
    eligible: Bool[np.ndarray, " units"]


@dataclass(frozen=True)
class UnitPairs:
    """The units of two methods that meet.

    Attributes:
        methods: Ids of the two, in ascending order.
        units: The unit of each, pair by pair.
        null: Pairs whose grids are equal although they were drawn again.
        reason: Why there are fewer pairs than asked for; empty where there are not.
    """

    methods: tuple[str, str]
    units: tuple[tuple[int, int], ...]
    null: int
    reason: str


def draw(a: Contestant, b: Contestant, *, stream: Stream, n_pairs: int) -> UnitPairs:
    """Eligible units of two methods, all distinct, drawn apart and paired by position; (b, a) gives the same as (a, b).

    Where the grids of a pair are equal, each side takes its next unit that is not in use, up to `MAX_REDRAWS` times or
    until neither has any; then the pair stays and counts as null. With fewer eligible units than pairs on either side
    there are as many pairs as there are units.

    Args:
        a: One method.
        b: Another.
        stream: What the draw is keyed by besides the two ids.
        n_pairs: Unit pairs asked for.
    """
    first, second = sorted((a, b), key=lambda contestant: contestant.id)
    bits = bits_of("units", dict(stream), first.id, second.id)
    queues = []
    for contestant in (first, second):
        eligible = np.flatnonzero(contestant.eligible)
        queues.append(eligible[shuffled(bits, len(eligible))].tolist())
    n = min(n_pairs, *map(len, queues))
    units, spare = [queue[:n] for queue in queues], [queue[n:][::-1] for queue in queues]
    null = 0
    for i in range(n):
        for _ in range(MAX_REDRAWS):
            if not (_equal(first, second, units[0][i], units[1][i]) and any(spare)):
                break
            for side in (0, 1):
                if spare[side]:
                    units[side][i] = spare[side].pop()
        null += _equal(first, second, units[0][i], units[1][i])
    few = [
        f"{contestant.label}: {len(queue)} eligible units"
        for contestant, queue in zip((first, second), queues, strict=True)
        if len(queue) < n_pairs
    ]
    return UnitPairs((first.id, second.id), tuple(zip(*units, strict=True)), null, "; ".join(few))


def tournament(
    contestants: Sequence[Contestant],
    *,
    site: str,
    stream: Stream,
    token_seed: int,
    settings: Settings,
    digest: Callable[[Sequence[int]], str],
) -> Drawn:
    """Every two methods of one site and token seed, unit pair by unit pair, in both orders.

    Args:
        contestants: The methods; their order does not matter.
        site: Label of the site.
        stream: What else keys the draw: backbone, expansion.
        token_seed: Seed of the token data set.
        settings: How many pairs, of which units, under which seed.
        digest: Identity of the grid of nine images.

    Raises:
        ValueError: Contestants that cannot meet; all that is wrong with them, line by line.
    """
    problems = [line for contestant in contestants for line in _problems(contestant, settings)]
    problems += _clashes(contestants)
    if problems:
        raise ValueError("\n".join(problems))
    key: dict[str, str | int] = {"stream": json.dumps(dict(stream), sort_keys=True), "site": site}
    key |= {"token_seed": token_seed, "seed": settings.seed}
    pool = sorted(contestants, key=lambda contestant: contestant.id)
    notes = [MethodNote(site, token_seed, each.id, len(each.eligible), int((~each.eligible).sum())) for each in pool]
    if settings.eligible == "any":
        pool = [replace(each, eligible=np.ones_like(each.eligible)) for each in pool]
    presentations: list[Presentation] = []
    recipes: dict[str, tuple[int, ...]] = {}
    pairs = []
    for a, b in combinations(pool, 2):
        drawn = draw(a, b, stream=key, n_pairs=settings.unit_pairs)
        pairs.append(
            PairNote(site, token_seed, drawn.methods, settings.unit_pairs, len(drawn.units), drawn.null, drawn.reason)
        )
        for u, v in drawn.units:
            images = tuple(a.exemplars[u].tolist()), tuple(b.exemplars[v].tolist())
            grids = digest(images[0]), digest(images[1])
            recipes |= zip(grids, images, strict=True)
            presentations += present(methods=drawn.methods, units=(u, v), grids=grids, site=site, token_seed=token_seed)
    return Drawn(tuple(presentations), recipes, Notes(tuple(pairs), tuple(notes)))


def _equal(a: Contestant, b: Contestant, u: int, v: int) -> bool:
    """Whether two units have the same grid."""
    return bool(np.array_equal(a.exemplars[u], b.exemplars[v]))


def _clashes(contestants: Sequence[Contestant]) -> list[str]:
    """What is wrong with the pool as a whole."""
    problems = []
    if len(contestants) < 2:
        problems.append(f"contestants: got {len(contestants)}; expected two or more; add methods")
    ids = [contestant.id for contestant in contestants]
    for id_ in sorted({id_ for id_ in ids if ids.count(id_) > 1}):
        labels = ", ".join(contestant.label for contestant in contestants if contestant.id == id_)
        problems.append(f"contestants: got id {id_!r} of {labels}; expected an id each; leave out all but one")
    return problems


def _problems(contestant: Contestant, settings: Settings) -> list[str]:
    """What is wrong with a contestant."""
    exemplars, eligible = contestant.exemplars, contestant.eligible
    who = f"exemplars of {contestant.label!r}"
    if exemplars.ndim != 2 or exemplars.shape[1] != NINE:
        return [f"{who}: got shape {exemplars.shape}; expected (units, {NINE}); give nine images a unit"]
    if not np.issubdtype(exemplars.dtype, np.integer):
        nan = " with NaN" if exemplars.dtype.kind == "f" and np.isnan(exemplars).any() else ""
        return [f"{who}: got {exemplars.dtype}{nan}; expected integers; give the indices of the images"]
    if eligible.shape != exemplars.shape[:1] or eligible.dtype != bool:
        return [
            f"{who}: got {eligible.dtype} {eligible.shape} that says who is eligible; expected bool "
            f"{exemplars.shape[:1]}; give one value a unit"
        ]
    if not len(exemplars):
        return [f"{who}: got no unit; expected one or more; leave the method out"]
    used = np.sort(exemplars if settings.eligible == "any" else exemplars[eligible], axis=1)
    wrong = int(((used[:, 0] < 0) | (used[:, 1:] == used[:, :-1]).any(axis=1)).sum())
    if wrong:
        return [
            f"{who}: got {wrong} units with an image that is missing or there twice; expected {NINE} images each; "
            f"mark these units as not eligible"
        ]
    return []
