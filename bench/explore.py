"""What a page about a run shows beside its numbers, within a budget: units, parts, exemplars, and judged pairs.

What does not fit is left out by a draw that follows from the run's content: in each round one unit of every method at
every site, so that all are shown alike. Units come in one order for all methods of a site, those first that most
methods split, so that what they make of one unit stands side by side. A unit is shown whole or not at all.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from random import Random

from bench import UsageError
from bench.cache import digest
from bench.folder import read_plan
from bench.lanes import Report, quietly
from bench.looked import Looked, LookedRun, LookedSite
from bench.pictured import Encoder, bare, captions_of, images_of
from bench.presented import Heard, heard_in
from results.explored import Atom, Explored, Judged, Pictures, Unit
from results.report import Views, size_of, size_of_metrics, size_of_picture

SIDE = 96
"""Pixels of a side of an embedded image, at most."""
SHARE_OF_PAIRS = 0.2
"""Of the budget that judged pairs may take."""
MOST_UNITS, MOST_PAIRS = 200, 100
"""Units of one method, and pairs of one panel at one site, that are shown at most: nobody looks at more."""
BYTES_OF_WORDS = 300
"""What is said of one method's units, at most."""


@dataclass
class Album:
    """The images of one site that are shown so far.

    Attributes:
        site: The site.
        bare: Its pictures, without any.
        is_open: Whether images are shown at all.
        files: By index into the evaluation split.
        waiting: Encoded to see what they take, and not shown so far.
        encoder: Makes the files.
    """

    site: LookedSite
    bare: Pictures
    is_open: bool
    files: dict[int, bytes] = field(default_factory=dict)
    waiting: dict[int, bytes] = field(default_factory=dict)
    encoder: Encoder = field(default_factory=Encoder)

    @classmethod
    def of(cls, site: LookedSite, with_images: bool | None) -> "Album":
        """The album of a site, whose images are shown if that is said, or if they ship with the program."""
        pictures = bare(site)
        return cls(site, pictures, pictures.is_embedded if with_images is None else with_images)

    def bytes_for(self, rows: Iterable[int]) -> int:
        """What it takes to show these, beyond those that are shown."""
        new = self.unseen(rows)
        unknown = [row for row in new if row not in self.waiting]
        for row, image in zip(unknown, images_of(self.site, unknown, SIDE), strict=True):
            self.waiting[row] = self.encoder(image)
        captions = captions_of(self.site, new)
        return sum(size_of_picture(row, self.waiting[row], captions.get(row, "")) for row in new)

    def show(self, rows: Iterable[int]) -> None:
        """Show these, whose bytes were asked for."""
        for row in self.unseen(rows):
            self.files[row] = self.waiting.pop(row)

    def unseen(self, rows: Iterable[int]) -> list[int]:
        """Those that are to be shown and are not so far."""
        return sorted({row for row in rows if row not in self.files}) if self.is_open else []

    def pictures(self) -> Pictures:
        """All that are shown."""
        rows = sorted(self.files)
        return replace(self.bare, files={i: self.files[i] for i in rows}, captions=captions_of(self.site, rows))


@dataclass
class Budget:
    """Bytes that are left.

    Attributes:
        left: Of them.
    """

    left: int

    def take(self, album: Album, rows: Sequence[int], n_bytes: int) -> bool:
        """Show these images beside a text of so many bytes, if both fit."""
        if n_bytes <= self.left:
            n_bytes += album.bytes_for(rows)
        if n_bytes > self.left:
            return False
        self.left -= n_bytes
        album.show(rows)
        return True


@dataclass(frozen=True)
class Looking:
    """What there is to look at in a run, opened and not chosen from.

    Attributes:
        cells: Ids of the cells that were planned.
        sites: What the cache holds of each site.
        heard: What each panel judged.
        left_out: What is not there, and why.
    """

    cells: Sequence[str]
    sites: Sequence[LookedSite]
    heard: Sequence[Heard]
    left_out: Sequence[str]

    @classmethod
    def at(
        cls,
        folder: Path,
        *,
        plugins: Sequence[Path] = (),
        cache: Path | None = None,
        report: Report = quietly,
    ) -> "Looking":
        """What there is in a run's folder and its cache.

        Args:
            folder: Of the run.
            plugins: Its plugin files.
            cache: Its cache, if not the default one; nothing is written to it.
            report: Told how far it is.

        Raises:
            UsageError: The folder holds no run.
        """
        cells = sorted(cell["id"] for cell in read_plan(folder)["cells"])
        try:
            sites, lost = LookedRun.at(folder, plugins, cache, report).sites()
        except UsageError as error:  # its suite, plugins, data or weights are not all on this machine
            return cls(cells, (), (), [f"units, images and judged pairs: {str(error.args[0]).splitlines()[0]}"])
        heard, unread = heard_in(folder)
        there = {one.spec.label for one in sites}
        away = [one.context for one in heard if one.context.site not in there]
        lost += [line for one in sites for line in one.left_out] + unread
        lost += [f"pairs judged by {one.panel} at {one.site}: its images are not there" for one in away]
        return cls(cells, sites, [one for one in heard if one.context.site in there], lost)

    def within(
        self, max_bytes: int, with_images: bool | None = None, report: Report = quietly
    ) -> tuple[Views, list[str]]:
        """Images, units by site and method and judged pairs within a number of bytes, and what is left out and why.

        Args:
            max_bytes: What all of it may take on the page.
            with_images: Whether to show images; those that ship with the program alone, if None.
            report: Told how far it is.
        """
        random = Random(digest({"cells": self.cells}))
        albums = {one.spec.label: Album.of(one, with_images) for one in self.sites}
        headed = [told(one, looked, {}, max_bytes) for one in self.sites for looked in one.cells.values()]
        metrics = {name for one in self.sites for looked in one.cells.values() for name in looked.told}
        heads = len(Views([one.bare for one in albums.values()], headed).json()) + size_of_metrics(metrics)
        heads += BYTES_OF_WORDS * len(headed)
        left_out = [*self.left_out, *hidden(albums.values(), with_images)]
        if heads > max_bytes:
            said = f"units and judged pairs: {max_bytes / 1e6:.2f} MB are left for them; a larger --max-mb shows some"
            return Views(), [*left_out, said]
        budget = Budget(max_bytes - heads)
        report("judged pairs", 0, 0)
        pairs, lost = pairs_within(self.heard, albums, budget, round(SHARE_OF_PAIRS * max_bytes), random)
        shown = units_within(self.sites, albums, budget, random, report)
        found = [
            told(one, looked, shown[one.spec.label, label], max_bytes)
            for one in self.sites
            for label, looked in one.cells.items()
        ]
        n, n_all = sum(len(one.units) for one in found), sum(one.n_units for one in found)
        lost += [f"{n_all - n} of {n_all} units; each method says how those were chosen that are"] if n < n_all else []
        return Views([one.pictures() for one in albums.values()], found, pairs), left_out + lost


def hidden(albums: Iterable[Album], with_images: bool | None) -> list[str]:
    """Whose images are not shown, in words."""
    sites = [one.bare.site for one in albums if not one.is_open]
    if not sites:
        return []
    why = "--without-images" if with_images is False else "their data do not ship with this program"
    return [f"images of {', '.join(sites)}: {why}; --with-images shows them, if their licence lets you pass them on"]


def told(one: LookedSite, looked: Looked, units: dict[int, Unit], max_bytes: int) -> Explored:
    """The units of one method that are shown, in their order."""
    cell, n_units = looked.cell, len(looked.atoms_of_unit)
    what, said = "units" if looked.splits or looked.is_whole else "atoms", ""
    if len(units) < n_units:
        first = "that most methods split" if what == "units" else "that nine images drive"
        why = f"at most {MOST_UNITS}" if len(units) == MOST_UNITS else f"as many as fit into {max_bytes / 1e6:.2f} MB"
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
                n_bytes = size_of(unit, [*looked.told, *(one.whole.told if one.whole else ())])
                if budget.take(albums[one.spec.label], sorted(images_in(unit)), n_bytes):
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
    heard: Sequence[Heard], albums: dict[str, Album], budget: Budget, most: int, random: Random
) -> tuple[list[Judged], list[str]]:
    """Judged pairs in both orders that fit into so many bytes, as many of each panel and site; what is left out."""
    own = Budget(min(most, budget.left))
    before, found, n_shown = own.left, list[Judged](), dict.fromkeys(range(len(heard)), 0)
    queues = [random.sample(one.comparisons, len(one.comparisons)) for one in heard]
    for number, index in product(range(MOST_PAIRS), n_shown):
        if number < len(queues[index]):
            orders = [heard[index].judged(each) for each in queues[index][number]]
            images = sorted({image for one in orders for side in (one.first, one.second) for image in side.images})
            if own.take(albums[heard[index].context.site], images, sum(map(size_of, orders))):
                n_shown[index] += 1
                found += orders
            elif number:
                break
    budget.left -= before - own.left
    left_out = [
        f"pairs judged by {one.context.panel} at {one.context.site}: {n} of {len(queue)} are shown, drawn at random"
        for one, queue, n in zip(heard, queues, n_shown.values(), strict=True)
        if n < len(queue)
    ]
    return found, left_out
