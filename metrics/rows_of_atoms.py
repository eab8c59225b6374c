"""The values that say something of a method's atoms."""

from functools import partial
from typing import Final, Literal

from metrics.row import MetricRow

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

MONOSEMANTICITY: Final = (
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
)
"""How monosemantic the atoms are."""


SPARSITY: Final = (
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
)
"""What it costs in atoms."""


GEOMETRY: Final = (
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
)
"""How the atoms lie among each other, and whether other init seeds give the same."""


PLANTED: Final = (
    _ground_truth(
        name="concept_auc",
        unit="1",
        bounds=(0.0, 1.0),
        summary="ROC AUC of each concept's own atom, matched one to one: 1 all told apart, 0.5 one atom at random.",
    ),
    _ground_truth(
        name="concept_auc_unmatched",
        unit="1",
        bounds=(0.0, 1.0),
        summary="ROC AUC of each concept's best atom, another's too maybe: 1 told apart, 0.5 one atom at random.",
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
)
"""What was planted against what was found."""
