"""Every value that a suite can ask for, as data: name, unit, direction, bounds, needs and source.

Nothing heavy is imported here, so that listing the metrics is instant. A module that computes several values in one
pass appears once per value, under the same `computed_by`.
"""

from dataclasses import dataclass
from functools import partial
from typing import Final, Literal

from metrics.values import Value

__all__ = ["ROWS", "MetricRow", "Value", "rows_of"]


@dataclass(frozen=True)
class MetricRow:
    """What a reader needs to know about one value.

    Attributes:
        name: Its name in suites, records and tables.
        unit: "%", "1", "units a token", ...; values are stored in this unit.
        direction: Whether more is better ("up"), less is better ("down"), or neither ("none").
        bounds: Smallest and largest possible value, None where there is no such bound.
        needs: What must exist for it: names of `EvaluationBatch` properties ("labels", "logits", ...).
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


_reconstruction = partial(
    MetricRow, needs=("outputs", "reconstruction"), computed_by="metrics.reconstruction:Reconstruction"
)
_replacement = partial(MetricRow, computed_by="metrics.replacement:Replacement")
_sparsity = partial(MetricRow, needs=("codes",), computed_by="metrics.sparsity:Sparsity")
_ms_score = partial(
    MetricRow,
    unit="%",
    needs=("codes", "outputs"),
    reference="Bağcı et al. 2026, appendix B.2, eq. 7",
    computed_by="metrics.monosemanticity:MSScore",
)
_repeatability = partial(
    MetricRow,
    needs=(),
    reference="Bağcı et al. 2026, Table 1",
    computed_by="metrics.properties:Repeatability",
    by_default=False,
)
_exactness = partial(
    MetricRow,
    direction="none",
    bounds=(0.0, None),
    reference="Bağcı et al. 2026, Table 1; the first 256 images of the split",
    computed_by="metrics.properties:Exactness",
    by_default=False,
)
_efficiency = partial(
    MetricRow,
    needs=(),
    bounds=(0.0, None),
    reference="Bağcı et al. 2026, appendix B.4",
    computed_by="metrics.efficiency:Efficiency",
    by_default=False,
)

_TABLE: Final = (
    # How monosemantic the atoms are.
    _ms_score(
        name="ms_score",
        direction="up",
        bounds=(-100.0, 100.0),
        summary="Mean over scored atoms: 100 where an atom's top images have one embedding, 0 where orthogonal ones.",
    ),
    _ms_score(
        name="ms_score_median",
        direction="up",
        bounds=(-100.0, 100.0),
        summary="Median over scored atoms: 100 one embedding, 0 orthogonal ones, -100 two opposite ones.",
    ),
    _ms_score(
        name="ms_score_alive",
        direction="up",
        bounds=(-100.0, 100.0),
        summary="Mean over all atoms, unscored ones as 0, so that dead atoms cost: 100 all alive and monosemantic.",
    ),
    _ms_score(
        name="ms_excluded_share",
        direction="down",
        bounds=(0.0, 100.0),
        summary="Share of atoms without an MS-Score: 0 all scored, 100 none; the reasons are counted in `reason`.",
    ),
    # How well the codes rebuild the site.
    _reconstruction(
        name="r2",
        unit="%",
        direction="up",
        bounds=(None, 100.0),
        reference="Bağcı et al. 2026, section 4.1; the baseline is the mean vector",
        summary="100 a perfect reconstruction, 0 as good as predicting the mean vector, negative worse than that.",
    ),
    _reconstruction(
        name="r2_scalar_mean",
        unit="%",
        direction="up",
        bounds=(None, 100.0),
        reference="overcomplete 0.3.0, metrics.r2_score: the baseline is one mean over all elements",
        summary="100 a perfect reconstruction; flatters where units have offsets, which count as variation here.",
    ),
    _reconstruction(
        name="nmse_zero_baseline",
        unit="1",
        direction="down",
        bounds=(0.0, None),
        reference="normalised mean squared error; the baseline is zero",
        summary="0 a perfect reconstruction, 1 as good as predicting zero.",
    ),
    # What the backbone does with the reconstruction.
    _replacement(
        name="top1",
        needs=("labels", "logits", "replaced_logits"),
        unit="%",
        direction="up",
        bounds=(0.0, 100.0),
        reference="Bağcı et al. 2026, section 4.1",
        summary="Top-1 accuracy with the site's outputs replaced: 100 every image right, 0 none.",
    ),
    _replacement(
        name="top1_untouched",
        needs=("labels", "logits", "replaced_logits"),
        unit="%",
        direction="none",
        bounds=(0.0, 100.0),
        reference="Bağcı et al. 2026, section 4.1",
        summary="Top-1 accuracy of the untouched backbone on the same images: what a lossless method reaches.",
    ),
    _replacement(
        name="agreement",
        needs=("logits", "replaced_logits"),
        unit="%",
        direction="up",
        bounds=(0.0, 100.0),
        reference="this project; printed beside Bağcı et al. 2026, Table 2",
        summary="Share of images whose predicted class is the untouched one, right or wrong: 100 all, 0 none.",
    ),
    _replacement(
        name="max_logit_difference",
        needs=("logits", "replaced_logits"),
        unit="logits",
        direction="down",
        bounds=(0.0, None),
        reference="this project; printed beside Bağcı et al. 2026, Table 2",
        summary="Largest absolute change of any logit of any image: 0 where the outputs are exactly the same.",
    ),
    # What it costs in atoms.
    _sparsity(
        name="l0",
        unit="atoms a token",
        direction="none",
        bounds=(0.0, None),
        reference="this project; printed beside Bağcı et al. 2026, Table 2",
        summary="Mean number of atoms with a nonzero code: 0 none, the number of atoms where every code is nonzero.",
    ),
    _sparsity(
        name="density",
        unit="%",
        direction="none",
        bounds=(0.0, 100.0),
        reference="this project; printed beside Bağcı et al. 2026, Table 2",
        summary="L0 as a share of all atoms: 0 all codes zero, 100 none.",
    ),
    _sparsity(
        name="dead_share",
        unit="%",
        direction="down",
        bounds=(0.0, 100.0),
        reference="Bağcı et al. 2026, appendix B.2: units that never activate on the evaluation split",
        summary="Share of atoms whose code is zero for every token of the split: 0 all alive, 100 all dead.",
    ),
    MetricRow(
        name="expansion_factor",
        unit="1",
        direction="none",
        bounds=(0.0, None),
        needs=(),
        reference="Bağcı et al. 2026, section 4.1",
        summary="Atoms a unit: 1 as many atoms as units.",
        computed_by="metrics.expansion:Expansion",
    ),
    # Whether a method has the properties that it claims.
    _repeatability(
        name="seed_similarity",
        unit="1",
        direction="up",
        bounds=(-2.0, 1.0),
        reference="Bağcı et al. 2026, Table 1; appendix B.3",
        summary="Mean cosine of matched atoms of two runs with different seeds: 1 the same atoms, 0 orthogonal ones.",
    ),
    _repeatability(
        name="gradient_steps",
        unit="steps",
        direction="none",
        bounds=(0.0, None),
        summary="Steps that torch optimizers took in one decomposition: 0 where nothing is trained.",
    ),
    _repeatability(
        name="runs_without_labels",
        unit="1",
        direction="up",
        bounds=(0.0, 1.0),
        summary="1 where the method decomposes without any labels, 0 where it stops; `reason` is how.",
    ),
    _exactness(
        name="runs_in_place",
        unit="1",
        direction="up",
        bounds=(0.0, 1.0),
        needs=("logits",),
        summary="1 where the network runs with the atoms in place of the site, 0 where they stand beside it (virtual).",
    ),
    _exactness(
        name="output_difference",
        unit="activations",
        direction="down",
        needs=("outputs", "reconstruction"),
        summary="Largest absolute error of any rebuilt output in the working dtype: 0 where they are exactly the same.",
    ),
    _exactness(
        name="output_difference_float64",
        unit="activations",
        direction="down",
        needs=("outputs", "reconstruction", "in_float64"),
        summary="The same with backbone and method in float64: what is left of it is no rounding.",
    ),
    _exactness(
        name="logit_difference",
        unit="logits",
        direction="down",
        needs=("logits", "replaced_logits"),
        summary="Largest absolute change of any logit in the working dtype: 0 where the logits are exactly the same.",
    ),
    _exactness(
        name="logit_difference_float64",
        unit="logits",
        direction="down",
        needs=("logits", "replaced_logits", "in_float64"),
        summary="The same with backbone and method in float64: what is left of it is no rounding.",
    ),
    _exactness(
        name="largest_output",
        unit="activations",
        needs=("outputs",),
        summary="Largest absolute output of the untouched site: what the errors of the outputs are small against.",
    ),
    _exactness(
        name="largest_logit",
        unit="logits",
        needs=("logits",),
        summary="Largest absolute logit of the untouched backbone: what the changes of logits are small against.",
    ),
    # What it costs to run. Only rows of one machine can be compared.
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
