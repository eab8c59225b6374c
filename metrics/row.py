"""What a reader needs to know about one value, as data."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class MetricRow:
    """What a reader needs to know about one value.

    Attributes:
        name: Its name in suites, records and tables.
        unit: "%", "1", "units a token", ...; values are stored in this unit.
        direction: Whether more is better ("up"), less is better ("down"), or neither ("none").
        bounds: Smallest and largest possible value, None where there is no such bound.
        needs: What must exist for it: names of `EvaluationBatch` properties ("labels", "logits", ...); "init_seeds"
            where it is of several cells that differ in the init seed, and so of none of them.
        reference: Author, year, equation or section.
        summary: One line on what it says, extremes included.
        computed_by: "module:attribute" of the metric class.
        by_default: Whether a suite that names no metrics measures it; not where it costs a second decomposition.
    """

    name: str
    unit: str
    direction: Literal["up", "down", "none"]
    bounds: tuple[float | None, float | None]
    needs: tuple[str, ...]
    reference: str
    summary: str
    computed_by: str
    by_default: bool = True
