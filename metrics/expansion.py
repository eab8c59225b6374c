"""The expansion factor: how much larger the codes are than the site (Bağcı et al. 2026, section 4.1)."""

from collections.abc import Mapping
from typing import ClassVar

from metrics.catalogue import MetricRow, Value, rows_of
from metrics.protocol import EvaluationBatch, EvaluationFacts


class Expansion:
    """`expansion_factor`: atoms a unit, read from the facts without a pass over the split.

    A unit that a method leaves whole counts as one atom; a dead atom counts too (see `dead_share`).
    """

    rows: ClassVar[tuple[MetricRow, ...]] = rows_of("metrics.expansion:Expansion")
    version: ClassVar[int] = 1
    passes: ClassVar[int] = 0

    def __init__(self, facts: EvaluationFacts) -> None:
        self._n_atoms = facts.n_atoms
        self._n_units = facts.n_units

    def update(self, batch: EvaluationBatch, *, pass_index: int) -> None:
        """Nothing to take in."""

    def compute(self) -> Mapping[str, Value]:
        """The factor, exact; its `n` is the number of atoms."""
        return {"expansion_factor": Value.exact(self._n_atoms / self._n_units, n=self._n_atoms)}
