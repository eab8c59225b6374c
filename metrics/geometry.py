"""The geometry of one dictionary: effective rank and coherence (ELUDe paper, appendix B.3; Table 4).

The paper's coherence is the largest absolute cosine of two atoms, with an arrow that points up: but 1 means duplicate
atoms. Here its arrow points down, the mean, the 95th percentile and the Welch bound stand beside it, and the paper's
number is kept under a name of its own. Rows of zeros (dead atoms) are dropped and counted first.

Cosines are made in float32, block by block, and the largest taken again in float64. 24,576 x 768 took 21 s of CPU time
on one thread, and 0.5 GiB beside the dictionary (`tests/speed/test_dictionary.py`).
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Float32, Float64, Int64
from torch import Tensor

from metrics.catalogue import MetricRow, Value, rows_of
from metrics.protocol import EvaluationBatch, EvaluationFacts
from metrics.similarity import Dictionary, zeros

BLOCK_ROWS = 256
"""Rows whose cosines with all later rows are made at a time."""
EPSILON = 1e-6
"""What overcomplete 0.3.0 adds to the length of a row before it divides by it."""
LOW_BITS = 15
"""Of a float32, those that are counted in the second pass; all above it in the first."""
ONE = 0x3F800000
"""The bits of 1.0, the largest absolute cosine."""
QUANTILE = 0.95

Rows = Float64[Tensor, "atoms width"]


class Geometry:
    """Effective rank and coherence of the dictionary of the outputs, and of that of the inputs (`..._input`).

    Null where the method has no such dictionary or it holds numbers that are not finite; coherence needs two atoms.
    """

    rows: ClassVar[tuple[MetricRow, ...]] = rows_of("metrics.geometry:Geometry")
    version: ClassVar[int] = 1
    passes: ClassVar[int] = 0

    def __init__(self, facts: EvaluationFacts) -> None:
        self._facts = facts  # the dictionaries are dense: they are made when they are looked at

    def update(self, batch: EvaluationBatch, *, pass_index: int) -> None:
        """Nothing to take in."""

    def compute(self) -> Mapping[str, Value]:
        """All values, exact; `n` counts the atoms whose row is not zero."""
        dictionaries = self._facts.dictionaries
        return {
            f"{name}{suffix}": value
            for kind, suffix in (("output", ""), ("input", "_input"))
            for name, value in described(dictionaries.get(kind), kind).items()
        }


def described(rows: Float[Tensor, "atoms width"] | None, kind: str) -> dict[str, Value]:
    """Every value of one dictionary, by name."""
    if rows is None:
        return nothing(f"the method gives no dictionary in the space of the site's {kind}s")
    if not torch.isfinite(rows).all():
        return nothing("the dictionary has values that are not finite", len(rows))
    unit = Dictionary(rows).alive().rows
    n, width, n_zero = len(unit), unit.shape[1], len(rows) - len(unit)
    if n == 0:
        return nothing(zeros(n_zero) or "the dictionary is empty", n_zero)
    own = rows[(rows != 0).any(dim=1)].double()
    numbers = {"effective_rank": effective_rank(own), "effective_rank_unit_rows": effective_rank(unit)}
    numbers["welch_bound"] = welch_bound(n, width)
    if n > 1:
        numbers |= coherence(unit, own.norm(dim=1))
    values = {name: Value(number, None, None, "exact", n, n_zero, zeros(n_zero)) for name, number in numbers.items()}
    return {**nothing("one atom: coherence is between two", n_zero), **values}


NAMES = (
    "effective_rank",
    "effective_rank_unit_rows",
    "coherence_max",
    "coherence_mean",
    "coherence_p95",
    "welch_bound",
    "coherence_paper",
)


def nothing(reason: str, n_excluded: int = 0) -> dict[str, Value]:
    """No values, and why."""
    return dict.fromkeys(NAMES, Value.null(reason, n_excluded=n_excluded))


def effective_rank(rows: Rows) -> float:
    """1 where all atoms lie on one line, the smaller of atoms and width where they spread evenly.

    Roy and Vetterli 2007: exp of the entropy of the singular values, not squared, as shares of their sum.
    """
    # The largest entry goes first, so that nothing overflows or vanishes.
    values = torch.linalg.svdvals(rows / rows.abs().max())
    shares = values / values.sum()
    return max(1.0, math.exp(-float(torch.xlogy(shares, shares).sum())))


def welch_bound(n_atoms: int, width: int) -> float:
    """The least that `coherence_max` can be for this many atoms; 0 where they could all be orthogonal (Welch 1974)."""
    return math.sqrt((n_atoms - width) / (width * (n_atoms - 1))) if n_atoms > width else 0.0


def coherence(unit: Rows, lengths: Float64[Tensor, " atoms"]) -> dict[str, float]:
    """Largest, mean and 95th percentile of the absolute cosines of all pairs of rows; the paper's number in %.

    Args:
        unit: The rows at unit length, at least two.
        lengths: Their own lengths.
    """
    rows, shares = unit.float(), lengths / (lengths + EPSILON)
    n_pairs = len(rows) * (len(rows) - 1) // 2
    total, largest, paper = 0.0, Largest(), Largest()
    high = rows.new_zeros((ONE >> LOW_BITS) + 1, dtype=torch.int64)
    for first, block in blocks_of_pairs(rows):
        total += float(block.sum(dim=1).double().sum())
        largest.see(block, first)
        high += torch.bincount((block.view(torch.int32) >> LOW_BITS).flatten(), minlength=len(high))
        block *= shares[first : first + len(block), None].float()
        block *= shares[first + 1 :].float()
        paper.see(block, first)
    high[0] += n_pairs - high.sum()  # zeros that are no pairs
    return {
        "coherence_max": cosine(unit, largest),
        "coherence_mean": total / n_pairs,
        "coherence_p95": quantile(rows, high),
        "coherence_paper": 100 * cosine(unit, paper) * float(shares[[paper.row, paper.column]].prod()),
    }


def blocks_of_pairs(rows: Float32[Tensor, "atoms width"]) -> Iterator[tuple[int, Float32[Tensor, "some later"]]]:
    """The absolute cosines of some rows, from the first named, with all behind it; 0 where that is no new pair."""
    for first in range(0, len(rows) - 1, BLOCK_ROWS):
        block = rows[first : first + BLOCK_ROWS] @ rows[first + 1 :].T
        yield first, block.abs_().clamp_(max=1).triu_()


@dataclass
class Largest:
    """The pair of rows with the largest number so far; the first two where all are 0."""

    value: float = 0.0
    row: int = 0
    column: int = 1

    def see(self, block: Float32[Tensor, "some later"], first: int) -> None:
        """Take in the numbers of a block of pairs."""
        value, place = block.flatten().max(dim=0)
        if float(value) > self.value:
            row, column = divmod(int(place), block.shape[1])
            self.value, self.row, self.column = float(value), first + row, first + 1 + column


def cosine(unit: Rows, pair: Largest) -> float:
    """The absolute cosine of the pair, in float64."""
    return min(1.0, abs(float(unit[pair.row] @ unit[pair.column])))


def quantile(rows: Float32[Tensor, "atoms width"], high: Int64[Tensor, " bins"]) -> float:
    """The `QUANTILE` of the absolute cosines of all pairs, between two of them where it falls there; exact.

    The bits of floats that are not negative are ordered as they are. How often each value of the high ones occurs says
    which values the wanted cosines have there; how often each of the low ones occurs among those, which cosines.

    Args:
        rows: Rows of unit length.
        high: How many pairs have each value of the high bits.
    """
    ends = high.cumsum(dim=0)
    position = QUANTILE * (int(ends[-1]) - 1)
    ranks = [math.floor(position), math.ceil(position)]
    bins = [int((ends <= rank).sum()) for rank in ranks]
    low = {one: high.new_zeros(1 << LOW_BITS) for one in bins}
    for _, block in blocks_of_pairs(rows):
        whole = block.view(torch.int32)
        for one, counts in low.items():
            chosen = whole[(whole >> LOW_BITS) == one]
            counts += torch.bincount(chosen & (1 << LOW_BITS) - 1, minlength=len(counts))
    found = []
    for rank, one in zip(ranks, bins, strict=True):
        rest = int(((ends[one] - high[one] + low[one].cumsum(dim=0)) <= rank).sum())
        found.append(float(torch.tensor((one << LOW_BITS) + rest, dtype=torch.int32).view(torch.float32)))
    return found[0] + (found[1] - found[0]) * (position - ranks[0])
