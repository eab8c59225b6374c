"""What is kept of every atom for people: its exemplars, and what metrics say of it alone.

The exemplars are what judges are shown, and galleries show.

An image's score is the atom's largest code over the image's tokens (Bağcı et al. 2026, appendices B.1 and B.2), equal
ones by ascending image (`metrics.exemplars`). They are found while cells are evaluated. Where the cache has lost some,
those of a site are found again in one pass of the backbone over the evaluation split, whatever their seeds.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

import torch
from jaxtyping import Bool, Float, Int
from safetensors import torch as safetensors
from torch import Tensor

from bench.cells import Cell
from metrics.catalogue import MetricRow, Value
from metrics.exemplars import Ranking
from metrics.protocol import EvaluationBatch, EvaluationFacts, Scores

if TYPE_CHECKING:
    from bench.stages import Workshop

VERSION = 1
"""Part of the cache's key; raised when exemplars are found differently."""
N_KEPT: Final = 16
"""Images kept for each atom: as many as the paper shows of a parent unit (Figure 3)."""
N_SHOWN: Final = 9
"""Images of a grid."""
FILE = "exemplars.safetensors"
SCORES = "scores.safetensors"
SHARE = "ineligible_share"


@dataclass(frozen=True, eq=False)
class Shown:
    """The best images of each atom of one decomposition, best first.

    Attributes:
        images: Index into the evaluation split; as many as there are where the split has fewer than `N_KEPT`.
        positions: The token of the largest code, CLS first, registers left out.
        scores: That code.
        is_eligible: Whether nine images drive it: with a code above zero where codes are never negative, and above the
            atom's own smallest one where they are signed.
    """

    images: Int[Tensor, "atoms kept"]
    positions: Int[Tensor, "atoms kept"]
    scores: Float[Tensor, "atoms kept"]
    is_eligible: Bool[Tensor, " atoms"]

    def save(self, folder: Path) -> None:
        """Write it into a folder."""
        (folder / FILE).write_bytes(safetensors.save(vars(self)))

    def keep(self, workshop: "Workshop", cell: Cell) -> None:
        """Put it into the cache, as what the cell's atoms show."""
        workshop.cache.get("exemplars", key_of(workshop, cell), self.save)

    @classmethod
    def load(cls, folder: Path) -> "Shown":
        """What `save` wrote."""
        return cls(**safetensors.load_file(folder / FILE))


class Showing:
    """Collects the exemplars of one decomposition while the split is streamed.

    Args:
        found: Where to put them at the end.
        facts: What is known before the first batch.
    """

    rows: ClassVar[tuple[MetricRow, ...]] = (
        MetricRow(
            name=SHARE, unit="%", direction="none", bounds=(0.0, 100.0), needs=("codes",),
            reference="Bağcı et al. 2026, appendix B.1", summary="atoms that fewer than nine images drive",
            computed_by="bench.exemplars:Showing", by_default=False,
        ),
    )  # fmt: skip
    version: ClassVar[int] = VERSION
    passes: ClassVar[int] = 1

    def __init__(self, found: list[Shown], facts: EvaluationFacts) -> None:
        self.found = found
        self.facts = facts
        self.ranking = Ranking(N_KEPT)

    def update(self, batch: EvaluationBatch, *, pass_index: int) -> None:
        """Rank the images of a batch."""
        self.ranking.add(batch.images, batch.summary)

    def compute(self) -> Mapping[str, Value]:
        """Nothing to record; the exemplars are put where they were asked for."""
        best = self.ranking.exemplars()
        if best is None:
            return {}
        least = torch.zeros_like(best.smallest) if self.facts.codes_are_nonnegative else best.smallest
        is_eligible = torch.zeros_like(least, dtype=torch.bool)
        if best.scores.shape[1] >= N_SHOWN:
            shown = best.scores[:, :N_SHOWN]
            is_eligible = (shown[:, -1] > least) & shown.isfinite().all(dim=1)
        tensors = (best.images, best.positions, best.scores, is_eligible)
        self.found.append(Shown(*(tensor.contiguous().cpu() for tensor in tensors)))
        return {}


@dataclass(frozen=True)
class Asked:
    """The class of a metric, as an evaluation wants it, that puts what it finds into a list."""

    found: list[Shown]

    rows: ClassVar[tuple[MetricRow, ...]] = Showing.rows
    passes: ClassVar[int] = 1

    def __call__(self, facts: EvaluationFacts) -> Showing:
        """The metric, for one decomposition."""
        return Showing(self.found, facts)


def key_of(workshop: "Workshop", cell: Cell) -> dict[str, Any]:
    """What the exemplars of a cell follow from."""
    return {"version": VERSION, "kept": N_KEPT, "decomposition": workshop.decomposition_key(cell)}


def scores_key(workshop: "Workshop", cell: Cell, name: str, identity: str) -> dict[str, Any]:
    """What the scores follow from that a metric gives the atoms of a cell."""
    encoder = {} if cell.site.encoder is None else {"encoder": cell.site.encoder.identity}
    key = {"version": VERSION, "metric": [name, identity], "decomposition": workshop.decomposition_key(cell)}
    return {**key, **encoder}


def keep_scores(workshop: "Workshop", cell: Cell, scores: Mapping[str, Scores]) -> None:
    """Put what metrics say of a cell's atoms into the cache, each by itself."""
    for name, identity in cell.metrics:
        if name in scores:
            tensors = {one: tensor.contiguous() for one, tensor in vars(scores[name]).items()}
            written = partial(_write, safetensors.save(tensors))
            workshop.cache.get("scores", scores_key(workshop, cell, name, identity), written)


def scores_of(workshop: "Workshop", cell: Cell) -> dict[str, Scores]:
    """What the cache holds of what metrics say of a cell's atoms, by the name of the metric's value."""
    found = {}
    for name, identity in cell.metrics:
        folder = workshop.cache.folder("scores", scores_key(workshop, cell, name, identity))
        if workshop.cache.is_whole(folder):
            found[name] = Scores(**safetensors.load_file(folder / SCORES))
    return found


def _write(data: bytes, folder: Path) -> None:
    (folder / SCORES).write_bytes(data)
