"""Every value that a suite can ask for, as data: name, unit, direction, bounds, needs and source.

Nothing heavy is imported here, so that listing the metrics is instant. A module that computes several values in one
pass appears once per value, under the same `computed_by`.
"""

from typing import Final

from metrics import rows_of_atoms as atoms
from metrics import rows_of_costs as costs
from metrics import rows_of_outputs as outputs
from metrics.row import MetricRow
from metrics.values import Value

__all__ = ["ROWS", "MetricRow", "Value", "rows_of"]

_TABLE: Final = (
    *atoms.MONOSEMANTICITY,
    *outputs.RECONSTRUCTION,
    *outputs.REPLACEMENT,
    *atoms.SPARSITY,
    *outputs.PROPERTIES,
    *atoms.GEOMETRY,
    *atoms.PLANTED,
    *outputs.PROBES,
    *costs.EFFICIENCY,
)

ROWS: Final[dict[str, MetricRow]] = {row.name: row for row in _TABLE}
"""Every built-in value by name, in the order of the tables."""


def rows_of(computed_by: str) -> tuple[MetricRow, ...]:
    """The rows that one metric class fills, in the order of the tables.

    Raises:
        LookupError: No row names that class.
    """
    rows = tuple(row for row in _TABLE if row.computed_by == computed_by)
    if not rows:
        classes = ", ".join(dict.fromkeys(row.computed_by for row in _TABLE))
        raise LookupError(f"no row of metrics.catalogue is computed by {computed_by!r}; expected one of {classes}")
    return rows
