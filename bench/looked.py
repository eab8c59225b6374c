"""What the cache still holds of a run to look at: of each finished cell its atoms, of each site its images.

Nothing is computed but what takes no time: the weights of a part are rebuilt from the site's own. What the cache has
lost is told and not made again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from bench.cache import NotCachedError, default_cache
from bench.cells import Cell, SiteSpec, Suite
from bench.datasets import Dataset
from bench.exemplars import Shown, key_of, scores_of
from bench.folder import outcomes, read_plan
from bench.lanes import Report, quietly
from bench.opened import StartLooking
from bench.registry import Registry
from bench.sites import Site
from bench.stages import Workshop
from bench.suites import suite_of
from methods.partition import SplitUnits
from methods.parts import Parts, part_weights
from methods.protocol import Decomposition
from metrics.protocol import Scores
from results.explored import Atom, Unit
from results.records import COMPLETE

WHOLE = "backbone"
"""The method whose atoms are the units themselves."""
N_WHOLE, N_PART, N_INPUTS = 16, 9, 16
"""Images of a whole unit (Figure 3 of the paper) and of any other atom, and input dimensions of a part, at most."""


@dataclass(frozen=True, eq=False)
class Looked:
    """A finished cell, as far as one can look at it.

    Attributes:
        cell: The cell, with its method chosen where it is swept.
        decomposition: What was found.
        shown: The exemplars of its atoms.
        scores: What metrics say of each atom, by name.
        weight: The site's kernel.
        made: The atoms that were asked for so far, by index.
    """

    cell: Cell
    decomposition: Decomposition
    shown: Shown
    scores: Mapping[str, Scores]
    weight: Float[Tensor, "units d_in"]
    made: dict[int, Atom] = field(default_factory=dict)

    @property
    def is_whole(self) -> bool:
        """Whether its atoms are the units themselves."""
        return self.cell.method.entry.name == WHOLE

    @property
    def splits(self) -> bool:
        """Whether its atoms are parts of units."""
        return self.decomposition.unit_of_atom is not None and not self.is_whole

    @cached_property
    def atoms_of_unit(self) -> dict[int, list[int]]:
        """The atoms of each unit that has some; of a method that splits none, each atom by itself."""
        found: dict[int, list[int]] = {}
        units = self.decomposition.unit_of_atom if self.splits else None
        for atom, unit in enumerate(range(self.decomposition.n_atoms) if units is None else units.tolist()):
            found.setdefault(unit, []).append(atom)
        return found

    @cached_property
    def parts(self) -> Parts | None:
        """How it splits the weights; None of methods that split none."""
        method = self.cell.method.built
        return method.parts(self.decomposition) if isinstance(method, SplitUnits) else None

    @cached_property
    def rounded(self) -> tuple[list[list[int]], list[list[int]], list[list[float]]]:
        """Images, positions and codes of all atoms as numbers of Python, which are faster one by one."""
        shown = self.shown
        return shown.images.tolist(), shown.positions.tolist(), shown.scores.tolist()

    @cached_property
    def told(self) -> dict[str, list[float | None]]:
        """The scores of all atoms, None where a metric leaves one out."""
        return {
            name: [
                float(f"{value:.6g}") if is_scored else None
                for value, is_scored in zip(one.values.tolist(), one.is_scored.tolist(), strict=True)
            ]
            for name, one in sorted(self.scores.items())
        }

    @cached_property
    def n_members(self) -> list[int] | None:
        """Instances in the cluster behind each atom, 0 where there is none."""
        sizes = self.decomposition.tensors.get("cluster_sizes")
        return None if sizes is None or len(sizes) != self.decomposition.n_atoms else sizes.tolist()

    def inputs_of(self, atoms: Sequence[int]) -> list[tuple[tuple[tuple[int, float], ...], int | None]]:
        """The input dimensions of largest weight in each part, with that weight, and how many it has weight on."""
        if self.parts is None:
            return [((), None) for _ in atoms]
        parts, chosen = self.parts, torch.tensor(atoms)
        held = (parts.holds[chosen], parts.unit_of_atom[chosen], parts.divisors, parts.bias_shares[chosen])
        rows = part_weights(*held, self.weight, None)[0]
        order = rows.abs().argsort(dim=1, descending=True, stable=True)[:, :N_INPUTS]
        largest = zip(order.tolist(), rows.gather(1, order).tolist(), strict=True)
        inputs = [tuple((i, float(f"{one:.6g}")) for i, one in zip(*both, strict=True) if one) for both in largest]
        return list(zip(inputs, (rows != 0).sum(dim=1).tolist(), strict=True))

    def atom(self, index: int) -> Atom:
        """One of its atoms."""
        return self.atoms([index])[0]

    def atoms(self, chosen: Sequence[int]) -> list[Atom]:
        """Some of its atoms, in this order; each is made once."""
        new = [index for index in chosen if index not in self.made]
        for index, (inputs, n_inputs) in zip(new, self.inputs_of(new) if new else (), strict=True):
            n = N_WHOLE if self.is_whole else N_PART
            images, positions, codes = (values[index][:n] for values in self.rounded)
            self.made[index] = Atom(
                index=index,
                images=tuple(int(one) for one in images),
                positions=tuple(int(one) for one in positions),
                codes=tuple(float(f"{one:.6g}") for one in codes),
                scores={name: values[index] for name, values in self.told.items()},
                n_members=(self.n_members[index] or None) if self.n_members else None,
                inputs=inputs,
                n_inputs=n_inputs,
            )
        return [self.made[index] for index in chosen]

    def unit(self, index: int, whole: "Looked | None") -> Unit:
        """One of its units with its parts; of a method that splits none, the atom of that index.

        Args:
            index: As in `atoms_of_unit`.
            whole: The cell of the units themselves, where there is one.
        """
        if self.is_whole:
            return Unit(index, self.atom(index), ())
        parts = tuple(self.atoms(self.atoms_of_unit[index]))
        if not self.splits:
            return Unit(None, None, parts)
        return Unit(index, None if whole is None else whole.atom(index), parts)


@dataclass(frozen=True, eq=False)
class LookedSite:
    """A site with what there is to look at.

    Attributes:
        spec: The site in the suite.
        site: In its backbone.
        dataset: Its images.
        cells: What is there of each method, by label, in the order of the suite.
        left_out: What is not, and why.
    """

    spec: SiteSpec
    site: Site
    dataset: Dataset
    cells: Mapping[str, Looked]
    left_out: Sequence[str] = field(default_factory=tuple)

    @property
    def whole(self) -> Looked | None:
        """The cell of the units themselves."""
        return next((one for one in self.cells.values() if one.is_whole), None)


@dataclass(frozen=True, eq=False)
class LookedRun:
    """A run with its cache.

    Attributes:
        folder: Of the run.
        suite: Its suite, with the changes of its command line.
        workshop: Over the cache, which nothing is written to.
    """

    folder: Path
    suite: Suite
    workshop: Workshop

    @classmethod
    def at(
        cls,
        folder: Path,
        plugins: Sequence[Path] = (),
        cache: Path | None = None,
        report: Report = quietly,
    ) -> "LookedRun":
        """The run in a folder.

        Raises:
            UsageError: There is none, or something that its suite names is not here.
        """
        suite = suite_of(read_plan(folder), Registry(tuple(plugins)))
        start = StartLooking(tuple(plugins), cache or default_cache())
        return cls(folder, suite, start.workshop(report, lambda text: None))

    def sites(self) -> tuple[list[LookedSite], list[str]]:
        """What there is of each site under the run's first seeds, and why there is nothing of others."""
        plan, groups = read_plan(self.folder), outcomes(self.folder)
        seeds, planned = (plan["token_seeds"][0], plan["init_seeds"][0]), {cell["id"] for cell in plan["cells"]}
        done = {identity for identity, group in groups.items() if identity in planned and group[-1].text == COMPLETE}
        found, lost = [], []
        for spec in self.suite.sites:
            own = [c for c in self.suite.cells if c.site == spec and (c.token_seed, c.init_seed) == seeds]
            finished = [cell for cell in own if cell.id in done]
            if not finished:
                why = "no cell is finished" if any(cell.id in planned for cell in own) else "not part of this run"
                lost.append(f"{spec.label}: {why}" if own else f"{spec.label}: no cell under the run's first seeds")
                continue
            try:
                found.append(self.site(spec, finished))
            except NotCachedError:
                lost.append(f"{spec.label}: the cache no longer holds its backbone")
        return found, lost

    def site(self, spec: SiteSpec, cells: Sequence[Cell]) -> LookedSite:
        """One site with these finished cells.

        Raises:
            NotCachedError: The cache has lost the backbone.
        """
        dataset, site = self.workshop.dataset(spec), self.workshop.site(spec)
        found, lost = {}, []
        for cell in cells:
            one = self.cell(cell, site)
            if isinstance(one, str):
                lost.append(f"{spec.label}/{cell.label}: {one}")
            else:
                found[cell.label] = one
                lost += [f"{spec.label}/{cell.label}: the cache holds no scores of its atoms"] if not one.scores else []
        return LookedSite(spec, site, dataset, found, tuple(lost))

    def cell(self, cell: Cell, site: Site) -> Looked | str:
        """What there is of one cell, or why there is nothing."""
        workshop = self.workshop
        try:
            settled = workshop.settled(cell)
        except NotCachedError:
            return "the cache no longer holds the sweep that chose its options"
        try:
            decomposition = workshop.decomposition(settled)
        except NotCachedError:
            return "the cache no longer holds its decomposition"
        folder = workshop.cache.folder("exemplars", key_of(workshop, settled))
        if not workshop.cache.is_whole(folder):
            return "the cache no longer holds its exemplars"
        weight = site.weight.cpu()
        return Looked(settled, decomposition, Shown.load(folder), scores_of(workshop, settled), weight)
