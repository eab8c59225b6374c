"""The values that say what a method costs while the network runs."""

from functools import partial
from typing import Final

from metrics.row import MetricRow

_efficiency = partial(
    MetricRow,
    needs=(),
    bounds=(0.0, None),
    reference="Bağcı et al. 2026, appendix B.4",
    computed_by="metrics.efficiency:Efficiency",
    by_default=False,
)

EFFICIENCY: Final = (
    _efficiency(
        name="latency",
        unit="ms a batch",
        direction="down",
        summary="Mean time of a batch with the method in the network: its layer swapped in, or hooked in after it.",
    ),
    _efficiency(
        name="latency_ratio",
        unit="1",
        direction="down",
        summary="The same over that of the untouched network in the same run: 1 costs nothing.",
    ),
    _efficiency(
        name="latency_unasked",
        unit="ms a batch",
        direction="down",
        summary="The same with the method's layer in the network and nobody asking for codes.",
    ),
    _efficiency(
        name="latency_codes",
        unit="ms a batch",
        direction="down",
        summary="The same with the method's layer in the network and all codes given with every batch.",
    ),
    _efficiency(
        name="latency_backbone",
        unit="ms a batch",
        direction="none",
        summary="Mean time of a batch in the untouched network, timed before and after the method.",
    ),
    _efficiency(
        name="latency_drift",
        unit="%",
        direction="none",
        bounds=(-100.0, None),
        summary="How much longer the untouched network took after the method than before: 0 a steady machine.",
    ),
    _efficiency(
        name="peak_memory",
        unit="MB",
        direction="down",
        summary="Most GPU memory allocated while `latency` was timed, in 10^6 bytes, weights included.",
    ),
    _efficiency(
        name="peak_memory_unasked",
        unit="MB",
        direction="down",
        summary="The same while `latency_unasked` was timed.",
    ),
    _efficiency(
        name="peak_memory_codes",
        unit="MB",
        direction="down",
        summary="The same while `latency_codes` was timed.",
    ),
    _efficiency(
        name="peak_memory_backbone",
        unit="MB",
        direction="none",
        summary="The same for the untouched network: what the others are large against.",
    ),
)
"""What it costs to run. Only rows of one machine can be compared."""
