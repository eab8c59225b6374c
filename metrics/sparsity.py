"""How many atoms are active: L0, density and dead atoms.

The ELUDe paper omits them, and most other metrics follow sparsity, so they stand beside every row. An atom is active
for a token where its code is not exactly zero; a method that yields dense codes (ELUDe, the untouched backbone) has a
density near 100 %.
"""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from metrics.catalogue import MetricRow, Value, rows_of
from metrics.intervals import bootstrapped, proportion
from metrics.protocol import EvaluationBatch, EvaluationFacts


class Sparsity:
    """`l0`, `density` and `dead_share` in one pass; the first two with intervals over images."""

    rows: ClassVar[tuple[MetricRow, ...]] = rows_of("metrics.sparsity:Sparsity")
    version: ClassVar[int] = 1
    passes: ClassVar[int] = 1

    def __init__(self, facts: EvaluationFacts) -> None:
        self._n_atoms = facts.n_atoms
        self._active_a_token: list[Float64[Tensor, " images"]] = []
        self._alive: Bool[Tensor, " atoms"] | None = None

    def update(self, batch: EvaluationBatch, *, pass_index: int) -> None:
        """Count the nonzero codes of each image and mark the atoms that have one."""
        codes = batch.codes
        n_active = (codes != 0).sum(dim=1, dtype=torch.int32)  # images x atoms
        self._active_a_token.append(n_active.sum(dim=1).double().cpu() / codes.shape[1])
        alive = n_active.any(dim=0)
        self._alive = alive if self._alive is None else self._alive | alive

    def compute(self) -> Mapping[str, Value]:
        """The three values; null where the split is empty."""
        if self._alive is None:
            return {row.name: Value.null("no images") for row in self.rows}
        active: Float64[np.ndarray, " images"] = torch.cat(self._active_a_token).numpy()
        n_dead = self._n_atoms - int(self._alive.sum())
        return {
            "l0": bootstrapped(active, "images"),
            "density": bootstrapped(100 * active / self._n_atoms, "images"),
            "dead_share": proportion(n_dead, self._n_atoms, "atoms"),
        }
