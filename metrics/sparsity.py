"""How many atoms are active: L0, density and dead atoms.

The ELUDe paper omits them, and most other metrics follow sparsity, so they stand beside every row. An atom is active
for a token where its code is not exactly zero; a method that yields dense codes (ELUDe, the untouched backbone) has a
density near 100 %.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from jaxtyping import Int
from torch import Tensor

from metrics.catalogue import MetricRow, Value, rows_of
from metrics.intervals import ImageMean, proportion
from metrics.protocol import EvaluationBatch, EvaluationFacts, Scores


class Sparsity:
    """`l0`, `density` and `dead_share` in one pass; the first two with intervals over images."""

    rows: ClassVar[tuple[MetricRow, ...]] = rows_of("metrics.sparsity:Sparsity")
    version: ClassVar[int] = 2
    passes: ClassVar[int] = 1

    def __init__(self, facts: EvaluationFacts) -> None:
        self._n_atoms = facts.n_atoms
        self._l0, self._density = ImageMean(facts.n_images), ImageMean(facts.n_images)
        self._n_active: Int[Tensor, " atoms"] | None = None
        self._n_tokens = 0

    def update(self, batch: EvaluationBatch, *, pass_index: int) -> None:
        """Count the nonzero codes of each image and of each atom."""
        summary = batch.summary
        l0 = summary.n_active.sum(dim=1).double() / summary.n_tokens
        self._l0.add(batch.images, l0)
        self._density.add(batch.images, 100 * l0 / self._n_atoms)
        n_active = summary.n_active.sum(dim=0)
        self._n_active = n_active if self._n_active is None else self._n_active + n_active
        self._n_tokens += summary.n_tokens * len(batch.images)

    def compute(self) -> Mapping[str, Value]:
        """The three values; null where the split is empty."""
        if self._n_active is None:
            return {row.name: Value.null("no images") for row in self.rows}
        n_dead = int((self._n_active == 0).sum())
        return {
            "l0": self._l0.value(),
            "density": self._density.value(),
            "dead_share": proportion(n_dead, self._n_atoms, "atoms"),
        }

    def atom_scores(self) -> Mapping[str, Scores]:
        """The share of tokens, in %, for which each atom is active; none where the split is empty."""
        if self._n_active is None or not self._n_tokens:
            return {}
        percent = 100 * self._n_active.cpu().double() / self._n_tokens
        return {"density": Scores(percent, torch.ones_like(percent, dtype=torch.bool))}
