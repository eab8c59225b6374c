"""What a page about a run shows beside its numbers, within a budget: units, parts, exemplars, and judged pairs.

What does not fit is left out by a draw that follows from the run's content: in each round one unit of every method at
every site, so that all are shown alike. Units come in one order for all methods of a site, those first that most
methods split, so that what they make of one unit stands side by side. A unit is shown whole or not at all.
"""

import base64
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from random import Random
from typing import Any

from bench import UsageError
from bench.cache import NotCachedError, digest
from bench.folder import read_plan
from bench.looked import Looked, LookedRun, LookedSite
from bench.pictured import bare, captions_of, encoded, images_of
from bench.presented import heard_in
from results.explored import Atom, Explored, Judged, Pictures, Unit

SIDE = 96
"""Pixels of a side of an embedded image, at most."""
SHARE_OF_PAIRS = 0.2
"""Of the budget that judged pairs may take."""
MOST_UNITS, MOST_PAIRS = 200, 100
"""Units of one method, and pairs of one panel at one site, that are shown at most: nobody looks at more."""
Report = Callable[[str, int, int], None]


@dataclass
class Album:
    """The images of one site that are shown so far.

    Attributes:
        site: The site.
        files: By index into the evaluation split.
        waiting: Encoded to see what they take, and not shown so far.
    """

    site: LookedSite
    files: dict[int, bytes] = field(default_factory=dict)
    waiting: dict[int, bytes] = field(default_factory=dict)

    def bytes_for(self, rows: Iterable[int]) -> int:
        """What it takes to show these, beyond those that are shown."""
        new = sorted(set(rows) - self.files.keys())
        unknown = [row for row in new if row not in self.waiting]
        for row, image in zip(unknown, images_of(self.site, unknown, SIDE), strict=True):
            self.waiting[row] = encoded(image)
        return sum(len(base64.b64encode(self.waiting[row])) + 24 for row in new)

    def show(self, rows: Iterable[int]) -> None:
        """Show these, whose bytes were asked for."""
        for row in sorted(set(rows) - self.files.keys()):
            self.files[row] = self.waiting.pop(row)

    def pictures(self) -> Pictures:
        """All that are shown."""
        rows = sorted(self.files)
        return replace(bare(self.site), files={i: self.files[i] for i in rows}, captions=captions_of(self.site, rows))


@dataclass
class Budget:
    """Bytes that are left.

    Attributes:
        left: Of them.
    """

    left: int

    def take(self, album: Album, rows: Sequence[int], said: Any) -> bool:
        """Show these images and this text, if both fit."""
        n_bytes = len(json.dumps(said, default=vars))
        if n_bytes <= self.left:
            n_bytes += album.bytes_for(rows)
        if n_bytes > self.left:
            return False
        self.left -= n_bytes
        album.show(rows)
        return True


def explored(
    folder: Path,
    *,
    plugins: Sequence[Path] = (),
    cache: Path | None = None,
    max_bytes: int,
    report: Report = lambda what, done, total: None,
    suite: str = "",
) -> tuple[list[Pictures], list[Explored], list[Judged], list[str]]:
    """What there is to look at in a run: images, units by site and method, judged pairs, and what is left out and why.

    Args:
        folder: Of the run.
        plugins: Its plugin files.
        cache: Its cache, if not the default one; nothing is written to it.
        max_bytes: What images in base64 and all text may take together.
        report: Told how far it is.
        suite: Its suite's file, where that is not shipped.

    Raises:
        UsageError: The folder holds no run.
    """
    plan = read_plan(folder)
    try:
        run = LookedRun.at(folder, plugins, cache, suite, report)
        sites, left_out = run.sites()
    except UsageError:
        return [], [], [], ["units and images: the run's suite, plugins, data or weights are not found on this machine"]
    except NotCachedError:
        return [], [], [], ["units and images: the cache of the run is not on this machine"]
    left_out += [line for one in sites for line in one.left_out]
    random = Random(digest({"cells": sorted(cell["id"] for cell in plan["cells"])}))
    albums, budget = {one.spec.label: Album(one) for one in sites}, Budget(max_bytes)
    report("judged pairs", 0, 0)
    pairs, said = pairs_within(folder, albums, budget, round(SHARE_OF_PAIRS * max_bytes), random)
    left_out += said
    shown = units_within(sites, albums, budget, random, report)
    found = [
        told(one, looked, units, max_bytes)
        for one in sites
        for label, looked in one.cells.items()
        for units in [shown[one.spec.label, label]]
    ]
    left_out += [f"{one.site}/{one.label}: {one.left_out}" for one in found if one.left_out]
    return [albums[one.spec.label].pictures() for one in sites], found, pairs, left_out


def told(one: LookedSite, looked: Looked, units: dict[int, Unit], max_bytes: int) -> Explored:
    """The units of one method that are shown, in their order."""
    cell, n_units = looked.cell, len(looked.atoms_of_unit)
    what, said = "units" if looked.splits or looked.is_whole else "atoms", ""
    if len(units) < n_units:
        first = "that most methods split" if what == "units" else "that nine images drive"
        why = f"at most {MOST_UNITS}" if len(units) == MOST_UNITS else f"as many as fit into {max_bytes / 1e6:g} MB"
        said = f"{len(units)} of {n_units} {what} are shown, {why}, drawn at random, those first {first}"
    return Explored(
        site=one.spec.label,
        label=cell.label,
        method=cell.method.entry.name,
        token_seed=cell.token_seed,
        init_seed=cell.init_seed,
        units=tuple(units[index] for index in sorted(units)),
        n_units=n_units,
        n_atoms=looked.decomposition.n_atoms,
        left_out=said,
    )


def units_within(
    sites: Sequence[LookedSite], albums: dict[str, Album], budget: Budget, random: Random, report: Report
) -> dict[tuple[str, str], dict[int, Unit]]:
    """The units that fit, by site and label: a round after the other, until one does not fit.

    In the first round whatever fits is shown, so that one large unit hides no method.
    """
    orders = {(one.spec.label, label): order for one in sites for label, order in orders_of(one, random).items()}
    shown: dict[tuple[str, str], dict[int, Unit]] = {key: {} for key in orders}
    n_rounds = min(MOST_UNITS, max((len(order) for order in orders.values()), default=0))
    for number in range(n_rounds):
        report("units", number, n_rounds)
        for one in sites:
            for label, looked in one.cells.items():
                order = orders[one.spec.label, label]
                if number >= len(order):
                    continue
                unit = looked.unit(order[number], one.whole)
                if budget.take(albums[one.spec.label], sorted(images_in(unit)), unit):
                    shown[one.spec.label, label][order[number]] = unit
                elif number:
                    return shown
    return shown


def orders_of(one: LookedSite, random: Random) -> dict[str, list[int]]:
    """In which order the units of each method are shown, by label."""
    n_splitting: dict[int, int] = {}
    for looked in one.cells.values():
        for unit, atoms in looked.atoms_of_unit.items() if looked.splits else ():
            n_splitting[unit] = n_splitting.get(unit, 0) + (len(atoms) > 1)
    parents = list(range(len(one.site.weight)))
    drawn = sorted(random.sample(parents, len(parents)), key=lambda unit: -n_splitting.get(unit, 0))
    found = {}
    for label, looked in one.cells.items():
        if looked.splits or looked.is_whole:
            found[label] = [unit for unit in drawn if unit in looked.atoms_of_unit]
        else:
            every, is_eligible = range(looked.decomposition.n_atoms), looked.shown.is_eligible.tolist()
            found[label] = sorted(random.sample(every, len(every)), key=lambda atom: not is_eligible[atom])
    return found


def images_in(unit: Unit) -> Iterator[int]:
    """Every image that a unit shows."""
    atoms: list[Atom] = [*unit.parts, *([unit.whole] if unit.whole else [])]
    for atom in atoms:
        yield from atom.images


def pairs_within(
    folder: Path, albums: dict[str, Album], budget: Budget, most: int, random: Random
) -> tuple[list[Judged], list[str]]:
    """Judged pairs in both orders that fit into so many bytes, as many of each panel and site; what is left out."""
    heard, left_out = heard_in(folder)
    left_out += [
        f"pairs judged by {one.context.panel} at {one.context.site}: its images are not there"
        for one in heard
        if one.context.site not in albums
    ]
    heard = [one for one in heard if one.context.site in albums]
    own = Budget(min(most, budget.left))
    before, found, n_shown = own.left, list[Judged](), dict.fromkeys(range(len(heard)), 0)
    queues = [random.sample(one.comparisons, len(one.comparisons)) for one in heard]
    for number, index in product(range(MOST_PAIRS), n_shown):
        if number < len(queues[index]):
            both = Both(tuple(heard[index].judged(each) for each in queues[index][number]))
            if own.take(albums[heard[index].context.site], both.images, both):
                n_shown[index] += 1
                found += both.orders
            elif number:
                break
    budget.left -= before - own.left
    left_out += [
        f"pairs judged by {one.context.panel} at {one.context.site}: {n} of {len(queue)} are shown, drawn at random"
        for one, queue, n in zip(heard, queues, n_shown.values(), strict=True)
        if n < len(queue)
    ]
    return found, left_out


@dataclass(frozen=True)
class Both:
    """Both orders of one pair.

    Attributes:
        orders: Of them those that were answered.
    """

    orders: tuple[Judged, ...]

    @property
    def images(self) -> list[int]:
        """Every image of both grids."""
        return sorted({image for one in self.orders for side in (one.first, one.second) for image in side.images})
