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


_reconstruction = partial(
    MetricRow,
    unit="%",
    direction="up",
    bounds=(None, 100.0),
    needs=("outputs", "reconstruction"),
    computed_by="metrics.reconstruction:Reconstruction",
)
_replacement = partial(
    MetricRow,
    needs=("logits", "replaced_logits"),
    unit="%",
    direction="up",
    bounds=(0.0, 100.0),
    reference="this project; printed beside Bağcı et al. 2026, Table 2",
    computed_by="metrics.replacement:Replacement",
)
_accuracy = partial(_replacement, needs=("labels", "logits", "replaced_logits"))
_sparsity = partial(
    MetricRow,
    direction="none",
    needs=("codes",),
    reference="this project; printed beside Bağcı et al. 2026, Table 2",
    computed_by="metrics.sparsity:Sparsity",
)
_ms_score = partial(
    MetricRow,
    unit="%",
    direction="up",
    bounds=(-100.0, 100.0),
    needs=("codes", "outputs"),
    reference="Bağcı et al. 2026, appendix B.2, eq. 7",
    computed_by="metrics.monosemanticity:MSScore",
)
_repeatability = partial(
    MetricRow,
    direction="up",
    needs=(),
    reference="Bağcı et al. 2026, Table 1",
    computed_by="metrics.properties:Repeatability",
    by_default=False,
)
_exactness = partial(
    MetricRow,
    unit="activations",
    direction="none",
    bounds=(0.0, None),
    reference="Bağcı et al. 2026, Table 1; the first 256 images of the split",
    computed_by="metrics.properties:Exactness",
    by_default=False,
)
_planted = partial(
    MetricRow,
    direction="up",
    reference="this project: images of known concepts, units of known parts",
    by_default=False,
)
_ground_truth = partial(_planted, needs=("codes", "concepts"), computed_by="metrics.ground_truth:GroundTruth")
_planted_parts = partial(_planted, needs=(), computed_by="metrics.ground_truth:PlantedParts")


def _geometry(kind: Literal["output", "input"]) -> tuple[MetricRow, ...]:
    """The rows of one kind of dictionary: atoms as directions in the space of the site's outputs, or of its inputs."""
    suffix = "" if kind == "output" else "_input"
    where = f"atoms as directions of the {kind}s"
    row = partial(
        MetricRow,
        unit="1",
        needs=(),
        reference="Bağcı et al. 2026, appendix B.3, Table 4",
        computed_by="metrics.geometry:Geometry",
    )
    coherence = partial(row, direction="down", bounds=(0.0, 1.0))
    return (
        row(
            name=f"effective_rank{suffix}",
            direction="up",
            bounds=(1.0, None),
            summary=f"Of the {where}, as they are: 1 all on one line, their number or the width if spread evenly.",
        ),
        row(
            name=f"effective_rank_unit_rows{suffix}",
            direction="up",
            bounds=(1.0, None),
            summary=f"Of the {where}, at unit length: 1 all on one line, their number or the width if spread evenly.",
        ),
        coherence(
            name=f"coherence_max{suffix}",
            summary=f"Largest absolute cosine of two {where}: 1 duplicates or opposites, 0 all orthogonal.",
        ),
        coherence(
            name=f"coherence_mean{suffix}",
            summary=f"Mean absolute cosine of two {where}: 1 all on one line, 0 all orthogonal.",
        ),
        coherence(
            name=f"coherence_p95{suffix}",
            summary=f"95th percentile of the absolute cosines of two {where}: 1 many duplicates, 0 most orthogonal.",
        ),
        coherence(
            name=f"welch_bound{suffix}",
            direction="none",
            reference="Welch 1974",
            summary=f"The least that the largest cosine can be for so many {where}: 0 where all could be orthogonal.",
        ),
        row(
            name=f"coherence_paper{suffix}",
            unit="%",
            direction="none",
            bounds=(0.0, 100.0),
            reference="overcomplete 0.3.0, metrics.dictionary_collinearity",
            summary=f"The paper's number for the {where}: 100 means duplicates, though its arrow there points up.",
        ),
    )


_stability = partial(
    MetricRow,
    unit="1",
    direction="up",
    bounds=(-2.0, 1.0),
    needs=("init_seeds",),
    reference="Bağcı et al. 2026, appendix B.3, Table 4",
    computed_by="metrics.similarity:Stability",
    by_default=False,
)

_probe = partial(
    MetricRow,
    unit="%",
    bounds=(0.0, 100.0),
    computed_by="metrics.probes:Probes",
    by_default=False,
)
_sparse_probe = partial(
    _probe,
    direction="up",
    needs=("labels", "codes"),
    reference="Gurnee et al. 2023, arXiv:2305.01610; one class against the rest, top-1 of the log-odds",
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
        summary="Mean over scored atoms: 100 where an atom's top images have one embedding, 0 where orthogonal ones.",
    ),
    _ms_score(
        name="ms_score_median",
        summary="Median over scored atoms: 100 one embedding, 0 orthogonal ones, -100 two opposite ones.",
    ),
    _ms_score(
        name="ms_score_alive",
        summary="Mean over all atoms, unscored ones as 0, so that dead atoms cost: 100 all alive and monosemantic.",
    ),
    _ms_score(
        name="ms_score_permuted",
        direction="none",
        reference="this project: the null baseline of Bağcı et al. 2026, appendix B.2, eq. 7",
        summary="The MS-Score with the images shuffled: what the same weights and positions score without any meaning.",
    ),
    _ms_score(
        name="ms_excluded_share",
        direction="down",
        bounds=(0.0, 100.0),
        summary="Share of atoms without an MS-Score: 0 all scored, 100 none; the reasons are counted in `reason`.",
    ),
    _ms_score(
        name="ms_score_pach",
        needs=("codes", "embeddings"),
        reference="Pach et al. 2025, section 3.2, arXiv:2504.02821",
        summary="Mean over scored atoms of the weighted mean cosine of all pairs of images in another network's eyes.",
        computed_by="metrics.pach:PachScore",
        by_default=False,
    ),
    # How well the codes rebuild the site.
    _reconstruction(
        name="r2",
        reference="Bağcı et al. 2026, section 4.1; the baseline is the mean vector",
        summary="100 a perfect reconstruction, 0 as good as predicting the mean vector, negative worse than that.",
    ),
    _reconstruction(
        name="r2_scalar_mean",
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
    _accuracy(
        name="top1",
        reference="Bağcı et al. 2026, section 4.1",
        summary="Top-1 accuracy with the site's outputs replaced: 100 every image right, 0 none.",
    ),
    _accuracy(
        name="top1_untouched",
        direction="none",
        reference="Bağcı et al. 2026, section 4.1",
        summary="Top-1 accuracy of the untouched backbone on the same images: what a lossless method reaches.",
    ),
    _accuracy(
        name="top5",
        summary="Share of images whose class is among the five largest logits after replacement: 100 all, 0 none.",
    ),
    _accuracy(
        name="top5_untouched",
        direction="none",
        summary="The same of the untouched backbone on the same images: what a lossless method reaches.",
    ),
    _replacement(
        name="agreement",
        summary="Share of images whose predicted class is the untouched one, right or wrong: 100 all, 0 none.",
    ),
    _replacement(
        name="kl",
        unit="nats",
        direction="down",
        bounds=(0.0, None),
        summary="Mean over images of KL(untouched || replaced) of the predicted classes: 0 where they are the same.",
    ),
    _replacement(
        name="max_logit_difference",
        unit="logits",
        direction="down",
        bounds=(0.0, None),
        summary="Largest absolute change of any logit of any image: 0 where the outputs are exactly the same.",
    ),
    # What it costs in atoms.
    _sparsity(
        name="l0",
        unit="atoms a token",
        bounds=(0.0, None),
        summary="Mean number of atoms with a nonzero code: 0 none, the number of atoms where every code is nonzero.",
    ),
    _sparsity(
        name="density",
        unit="%",
        bounds=(0.0, 100.0),
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
        direction="down",
        needs=("outputs", "reconstruction"),
        summary="Largest absolute error of any rebuilt output in the working dtype: 0 where they are exactly the same.",
    ),
    _exactness(
        name="output_difference_float64",
        direction="down",
        needs=("outputs", "reconstruction", "in_float64"),
        summary="The same with backbone and method in float64: what is left of it is no rounding.",
    ),
    _exactness(
        name="logit_difference",
        unit="logits",
        direction="down",
        needs=("logits", "in_place_logits"),
        summary="Largest absolute change of any logit in the working dtype: 0 where the logits are exactly the same.",
    ),
    _exactness(
        name="logit_difference_float64",
        unit="logits",
        direction="down",
        needs=("logits", "in_place_logits", "in_float64"),
        summary="The same with backbone and method in float64: what is left of it is no rounding.",
    ),
    _exactness(
        name="largest_output",
        needs=("outputs",),
        summary="Largest absolute output of the untouched site: what the errors of the outputs are small against.",
    ),
    _exactness(
        name="largest_logit",
        unit="logits",
        needs=("logits",),
        summary="Largest absolute logit of the untouched backbone: what the changes of logits are small against.",
    ),
    # How the atoms lie among each other, and whether other init seeds give the same.
    *_geometry("output"),
    *_geometry("input"),
    _stability(
        name="stability",
        summary="Mean cosine of matched atoms of runs with different init seeds: 1 the same atoms, 0 orthogonal ones.",
    ),
    _stability(
        name="stability_input",
        summary="The same for atoms as directions of the inputs: 1 the same atoms, 0 orthogonal ones.",
    ),
    _stability(
        name="stability_start",
        direction="none",
        reference="this project; arXiv:2606.02061",
        summary="The same before the first training step: what of the stability is the start's, 1 all of it.",
    ),
    _stability(
        name="stability_gain",
        bounds=(-3.0, 3.0),
        reference="this project; arXiv:2606.02061",
        summary="Stability less what it was before the first step: 0 training makes runs no more alike.",
    ),
    # What was planted against what was found.
    _ground_truth(
        name="concept_auc",
        unit="1",
        bounds=(0.0, 1.0),
        summary="ROC AUC of each concept's own atom, matched one to one: 1 every concept told apart, 0.5 at random.",
    ),
    _ground_truth(
        name="concept_auc_unmatched",
        unit="1",
        bounds=(0.0, 1.0),
        summary="ROC AUC of each concept's best atom, which may be another's too: 1 told apart, 0.5 at random.",
    ),
    _ground_truth(
        name="exemplar_purity",
        unit="%",
        bounds=(0.0, 100.0),
        summary="Share of an atom's top images that show its commonest concept where it fires: 100 all, 0 none.",
    ),
    _ground_truth(
        name="exemplar_purity_chance",
        unit="%",
        direction="none",
        bounds=(0.0, 100.0),
        summary="The exemplar purity of an atom whose top images are tokens at random.",
    ),
    _ground_truth(
        name="concept_cosine",
        unit="1",
        bounds=(-1.0, 1.0),
        needs=("outputs", "concepts"),
        summary="Largest cosine of an atom with how a concept moves the outputs: 1 the same direction, 0 orthogonal.",
    ),
    _planted_parts(
        name="part_cosine",
        unit="1",
        bounds=(-1.0, 1.0),
        summary="Largest cosine of an atom of the unit with a planted part: 1 every part found, 0 orthogonal.",
    ),
    _planted_parts(
        name="parts_found_ratio",
        unit="1",
        direction="none",
        bounds=(0.0, None),
        summary="Atoms of a unit over its planted parts: 1 as many, 2 twice as many.",
    ),
    _planted_parts(
        name="parts_exact_share",
        unit="%",
        bounds=(0.0, 100.0),
        summary="Share of units with exactly as many atoms as planted parts: 100 all, 0 none.",
    ),
    # What a linear probe reads out of an image; chance is one over the number of classes where these are balanced.
    _probe(
        name="probe_outputs",
        direction="none",
        needs=("labels", "outputs"),
        reference="Oquab et al. 2023, arXiv:2304.07193; features are the means over tokens",
        summary="Accuracy of a linear probe on the untouched outputs, the yardstick of the others: 100 all right.",
    ),
    _probe(
        name="probe_codes",
        direction="up",
        needs=("labels", "codes"),
        reference="Oquab et al. 2023, arXiv:2304.07193; features are the means over tokens",
        summary="Accuracy of a linear probe on the codes: 100 every image right.",
    ),
    _probe(
        name="probe_reconstruction",
        direction="up",
        needs=("labels", "reconstruction"),
        reference="Oquab et al. 2023, arXiv:2304.07193; features are the means over tokens",
        summary="Accuracy of a linear probe on the reconstruction: that of the untouched outputs where it is exact.",
    ),
    _sparse_probe(
        name="probe_codes_k1",
        summary="Accuracy of probes that read one atom a class: 100 where each class has an atom of its own.",
    ),
    _sparse_probe(
        name="probe_codes_k2",
        summary="Accuracy of probes that read two atoms a class: 100 every image right.",
    ),
    _sparse_probe(
        name="probe_codes_k5",
        summary="Accuracy of probes that read five atoms a class: 100 every image right.",
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
