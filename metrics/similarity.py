"""How alike dictionaries are: the mean cosine of the best one-to-one matching of atoms (ELUDe paper, appendix B.3).

Cosines are signed, and rows of zeros are dropped and counted first: parts without weights, and, where the bench gives
them so, atoms that no probing token activates. Two dictionaries of different
sizes match as many atoms as the smaller one has, and lose the share of the larger one that is left over. Methods that
split units are matched unit by unit, block against block; the similarity is then the mean over units.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from metrics.catalogue import MetricRow, Value, rows_of
from metrics.intervals import bootstrapped
from metrics.matching import best_matching


@dataclass(frozen=True, eq=False)
class Dictionary:
    """The atoms of one decomposition as directions.

    Attributes:
        rows: One row an atom; a row of zeros is a dead atom.
        unit_of_atom: The unit that each atom is a part of; None for methods that do not split units.
    """

    rows: Float[Tensor, "atoms width"]
    unit_of_atom: Int[Tensor, " atoms"] | None = None

    def alive(self) -> "Dictionary":
        """The rows that are not zero, at unit length."""
        rows = self.rows.double()
        # Divided by the largest entry first, so that no length overflows or vanishes.
        largest = rows.abs().amax(dim=1) if rows.shape[1] else rows.new_zeros(len(rows))
        is_alive = largest > 0
        rows = rows[is_alive]
        rows /= largest[is_alive, None]
        rows /= rows.norm(dim=1, keepdim=True)
        return Dictionary(rows, None if self.unit_of_atom is None else self.unit_of_atom[is_alive])

    @property
    def units(self) -> set[int]:
        """The units that have an atom."""
        return set() if self.unit_of_atom is None else set(self.unit_of_atom.tolist())


@dataclass(frozen=True)
class Alike:
    """How alike two dictionaries are, thing by thing.

    Attributes:
        scores: One per matched pair of atoms, less what the rows that are left over cost; or one per unit. Their mean
            is the similarity.
        over: What they are of: "matched atoms" or "units".
        n_excluded: Rows of zeros in both, or units without an atom that is alive in either.
        n_zero: Rows of zeros in both.
    """

    scores: Float64[np.ndarray, " things"]
    over: str
    n_excluded: int
    n_zero: int

    @property
    def nothing(self) -> str:
        """Why there are no scores."""
        if self.over == "units":
            return "no unit with an atom that is alive"
        return f"no atoms to match; {zeros(self.n_zero) or 'a dictionary is empty'}"


def similarity(one: Dictionary, other: Dictionary) -> Value:
    """1 where the atoms are the same in any order, 0 where they are orthogonal; less where the sizes differ too.

    `n` counts the matched pairs of atoms, or the units where both dictionaries split units; `n_excluded` the zero rows
    of both, or the units without an atom that is alive in either. A unit that is alive in one of them only counts -1.

    Raises:
        ValueError: The two have rows of different widths.
    """
    if not_finite := unfit([one, other]):
        return Value.null(not_finite)
    alike = compared(one.alive(), other.alive(), one, other)
    if len(alike.scores) == 0:
        return Value.null(alike.nothing, n_excluded=alike.n_excluded)
    value, n = float(np.mean(alike.scores)), len(alike.scores)
    return Value(value, None, None, "exact", n, alike.n_excluded, zeros(alike.n_zero))


def unfit(dictionaries: Sequence[Dictionary]) -> str | None:
    """Why these cannot be compared; None where they can.

    Raises:
        ValueError: They have rows of different widths.
    """
    width = dictionaries[0].rows.shape[1]
    for one in dictionaries:
        if one.rows.shape[1] != width:
            raise ValueError(
                f"other: got rows of width {one.rows.shape[1]}; expected {width}; "
                "compare two decompositions of one site"
            )
    is_finite = all(bool(torch.isfinite(one.rows).all()) for one in dictionaries)
    return None if is_finite else "a dictionary has values that are not finite"


def zeros(n: int) -> str | None:
    """What is said of rows that were left out."""
    return f"{n} rows of zeros left out" if n else None


def compared(a: Dictionary, b: Dictionary, one: Dictionary, other: Dictionary) -> Alike:
    """The alive rows `a` of `one` against those, `b`, of `other`: unit by unit where both split units."""
    n_zero = len(one.rows) - len(a.rows) + len(other.rows) - len(b.rows)
    if a.unit_of_atom is None or b.unit_of_atom is None:
        if min(len(a.rows), len(b.rows)) == 0:
            return Alike(np.empty(0), "matched atoms", n_zero, n_zero)
        return Alike(matched(a.rows, b.rows), "matched atoms", n_zero, n_zero)
    blocks, more_blocks = blocks_of(a), blocks_of(b)
    units = sorted(blocks.keys() | more_blocks.keys())
    none = a.rows[:0]
    pairs = [(blocks.get(unit, none), more_blocks.get(unit, none)) for unit in units]
    # A unit that is alive in one run only has nothing matched and all of it left over.
    scores = [float(np.mean(matched(x, y))) if len(x) and len(y) else -1.0 for x, y in pairs]
    return Alike(np.array(scores), "units", len(one.units | other.units) - len(units), n_zero)


def blocks_of(dictionary: Dictionary) -> dict[int, Float[Tensor, "parts width"]]:
    """The rows of each unit, by unit, in the order of the atoms."""
    if dictionary.unit_of_atom is None:
        return {}
    order = torch.argsort(dictionary.unit_of_atom, stable=True)
    units, sizes = torch.unique_consecutive(dictionary.unit_of_atom[order], return_counts=True)
    blocks = dictionary.rows[order].split(sizes.tolist())
    return dict(zip(units.tolist(), blocks, strict=True))


def matched(a: Float[Tensor, "atoms_a width"], b: Float[Tensor, "atoms_b width"]) -> Float64[np.ndarray, " pairs"]:
    """The cosine of each pair of the best matching of unit rows, less the share of the larger side that is left over.

    The matching is found on float32 cosines; those of the matched pairs are then taken again in float64, so that equal
    rows give 1 to the last digits.
    """
    left_over = abs(len(a) - len(b)) / max(len(a), len(b))
    if torch.equal(a, b):
        return np.ones(len(a))  # each row matched with itself: no cosine is larger
    rows, columns = best_matching(a, b)
    pairs = (a[torch.from_numpy(rows)] * b[torch.from_numpy(columns)]).sum(dim=1)
    return pairs.clamp(-1, 1).cpu().numpy() - left_over


UNTRAINED = "no dictionary from before training: nothing is trained here, or the method has no `start`"


class Stability:
    """`stability`, `stability_input`, `stability_start` and `stability_gain`, over runs with different init seeds.

    The mean over all pairs of runs of their similarity. The interval resamples matched atoms (or units, for methods
    that split them), pooled over the pairs; it does not cover the draw of the seeds, whose spread is the sample
    standard deviation over pairs. `n` counts those atoms or units; `n_excluded` the rows of zeros of all runs, or the
    units that neither run of a pair has alive.

    Not a `Metric`: what it is computed from are several decompositions, and no batches.
    """

    rows: ClassVar[tuple[MetricRow, ...]] = rows_of("metrics.similarity:Stability")
    version: ClassVar[int] = 1
    passes: ClassVar[int] = 0

    def __init__(
        self, found: Sequence[Mapping[str, Dictionary]], starts: Sequence[Mapping[str, Dictionary]] | None
    ) -> None:
        """Compare the runs, in their order.

        Args:
            found: The dictionaries of each run, "output" and "input" as far as the method has them.
            starts: The same before the first training step; None for methods without.

        Raises:
            ValueError: Dictionaries of one kind have rows of different widths.
        """
        none = "the method gives no dictionary in the space of the site's {}"
        self._parts = {
            "stability": pooled([one.get("output") for one in found], none.format("outputs")),
            "stability_input": pooled([one.get("input") for one in found], none.format("inputs")),
            "stability_start": Pooled(UNTRAINED, [], 0)
            if starts is None
            else pooled([one.get("output") for one in starts], none.format("outputs")),
        }

    def compute(self) -> Mapping[str, Value]:
        """The four values; null with the reason where there is no such dictionary, or less than two runs."""
        values = {name: part.value() for name, part in self._parts.items()}
        return {**values, "stability_gain": gain(self._parts["stability"], self._parts["stability_start"])}

    def notes(self) -> dict[str, float]:
        """For each similarity its sample standard deviation over pairs of runs, and that of every pair."""
        noted: dict[str, float] = {}
        for name, part in self._parts.items():
            means = part.means
            noted |= {f"{name}_pair_{index}": mean for index, mean in enumerate(means, 1)}
            if len(means) > 1:
                noted[f"{name}_std"] = float(np.std(means, ddof=1))
        return noted


@dataclass(frozen=True)
class Pooled:
    """The similarities of all pairs of some runs.

    Attributes:
        reason: Why there are none; or what the reader should know of them, None where there is nothing.
        pairs: Each pair's; none where they cannot be compared.
        n_excluded: What is left out over all.
    """

    reason: str | None
    pairs: list[Alike]
    n_excluded: int

    @property
    def means(self) -> list[float]:
        """The similarity of each pair."""
        return [float(np.mean(pair.scores)) for pair in self.pairs]

    @property
    def over(self) -> str:
        """What the interval is over."""
        return f"{self.pairs[0].over}, pooled over {len(self.pairs)} pairs of runs"

    def scores(self) -> Float64[np.ndarray, " things"]:
        """All scores, weighted so that their mean is the mean over pairs whatever the number of scores in each."""
        total = sum(len(pair.scores) for pair in self.pairs)
        return np.concatenate([pair.scores * (total / len(self.pairs) / len(pair.scores)) for pair in self.pairs])

    def value(self) -> Value:
        """The mean over pairs; null where there are none."""
        if not self.pairs:
            return Value.null(self.reason or "", n_excluded=self.n_excluded)
        return bootstrapped(self.scores(), self.over, n_excluded=self.n_excluded, reason=self.reason)


def pooled(runs: Sequence[Dictionary | None], missing: str) -> Pooled:
    """Every pair of these runs compared; `missing` is the reason where a run has no dictionary."""
    present = [run for run in runs if run is not None]
    if len(runs) < 2:
        return Pooled(f"got {len(runs)} run; similarity is between runs of two init seeds at least", [], 0)
    if len(present) < len(runs):
        return Pooled(missing, [], 0)
    if not_finite := unfit(present):
        return Pooled(not_finite, [], 0)
    alive = [run.alive() for run in present]
    both = list(combinations(zip(alive, present, strict=True), 2))
    pairs = [compared(a, b, one, other) for (a, one), (b, other) in both]
    n_zero = sum(len(run.rows) - len(a.rows) for run, a in zip(present, alive, strict=True))
    for pair in pairs:
        if len(pair.scores) == 0:
            return Pooled(pair.nothing, [], n_zero)
    by_unit = pairs[0].over == "units"
    return Pooled(zeros(n_zero), pairs, sum(pair.n_excluded for pair in pairs) if by_unit else n_zero)


def gain(after: Pooled, before: Pooled) -> Value:
    """The mean over pairs of the similarity after training, less that before it; null where either is.

    Its interval resamples atoms of the first run of each pair, each with its change; there is none where rows of zeros
    leave other atoms before than after.
    """
    if not (after.pairs and before.pairs):
        return Value.null((after if not after.pairs else before).reason or "")
    sizes = [[len(pair.scores) for pair in part.pairs] for part in (after, before)]
    n_excluded = after.n_excluded + before.n_excluded
    if n_excluded or sizes[0] != sizes[1]:
        value = float(np.mean(after.means) - np.mean(before.means))
        reason = "other atoms before than after: rows of zeros left out"
        return Value(value, None, None, "none: no atom-wise change", sum(sizes[0]), n_excluded, reason)
    return bootstrapped(after.scores() - before.scores(), after.over)
