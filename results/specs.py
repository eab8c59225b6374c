"""The tables that are one number per row and metric, as data; the paper's Tables 2 to 5 and 7, and three of our own."""

from decimal import Decimal
from functools import partial
from typing import Final

from results.layout import Column, Figure, Published, Seeds, TableSpec

_percent = partial(Column, decimals=2, interval_decimals=1, unit="%")
_share = partial(Column, direction="none", decimals=1, interval_decimals=1, unit="%")
_milliseconds = partial(Column, direction="down", decimals=1, interval_decimals=1, unit="ms a batch")
_megabytes = partial(Column, direction="down", decimals=0, interval_decimals=0, unit="MB")
_by_init = partial(Column, decimals=3, interval_decimals=3, unit="1", seeds="init_seeds")
_compared = partial(Column, decimals=3, interval_decimals=3, unit="1", seeds="comparison")
_cosine = partial(Column, direction="up", decimals=3, interval_decimals=3, unit="1")

_MS_SCORE = _percent("ms_score", "MS-Score", "up")
_R2 = _percent("r2", "R2", "up")
_TOP1 = _percent("top1", "top-1", "up")
_AGREEMENT = _percent("agreement", "agreement", "up")
_EXCLUDED = _share("ms_excluded_share", "excluded")
_EXPANSION = Column("expansion_factor", "expansion", "none", 2, 2, "1")
_L0 = Column("l0", "L0", "none", 1, 1, "atoms a token")

LLM_RANK: Final = Column("llm_rank", "LLM Rank", "down", 0, 0, "1", seeds="llm_panel")
PROXY_RANK: Final = Column("proxy_rank", "proxy panel rank", "down", 0, 0, "1", seeds="proxy_panel")


def _judged(prefix: str, seeds: Seeds, rank: Column) -> tuple[Column, ...]:
    """What is said of each method that a panel of judges has compared, the rank first."""
    percent = partial(Column, decimals=2, interval_decimals=1, unit="%", seeds=seeds)
    return (
        rank,
        percent(f"{prefix}_win_rate", "win rate", "up"),
        percent(f"{prefix}_win_rate_consistent", "both orders alike", "up"),
        percent(f"{prefix}_flip_rate", "flipped", "none", decimals=1),
        percent(f"{prefix}_win_rate_half", "undecided as half", "up", csv_only=True),
        percent(f"{prefix}_p_best", "P(best)", "none", decimals=1),
        Column(f"{prefix}_strength", "Bradley-Terry", "up", 2, 2, "logits", seeds=seeds),
        percent(f"{prefix}_ineligible_share", "ineligible", "none", decimals=1),
    )


LEADERBOARD: Final = TableSpec(
    name="leaderboard",
    title="Interpretability and faithfulness of every method",
    columns=(
        LLM_RANK,
        PROXY_RANK,
        _MS_SCORE,
        _percent("ms_score_permuted", "permuted", "none"),
        _percent("ms_score_pach", "MS-Score, pach", "up"),
        _EXCLUDED,
        _R2,
        _TOP1,
        _percent("top5", "top-5", "up"),
        _AGREEMENT,
        Column("kl", "KL", "none", 1, 1, "nats", is_scientific=True),
        Column("max_logit_difference", "max logit diff.", "none", 1, 1, "logits", is_scientific=True),
        _L0,
        _share("density", "density"),
        _EXPANSION,
    ),
    published=Published(
        file="table2.csv",
        says="Table 2 of Bağcı et al. 2026, DINOv2 ViT-B/14 / AugReg ViT-B/16 on ImageNet-1k: other backbones and data "
        "than here, so that it is the order of the methods and their distance to the backbone that can be compared",
        key="method",
        figures={
            "LLM Rank": Figure("llm_rank"),
            "MS-Score": Figure("ms_score"),
            "R2": Figure("r2", csv_only=True),
            "top-1": Figure("accuracy", csv_only=True),
        },
        where=({"backbone": "dinov2_vit_b14"}, {"backbone": "augreg_vit_b16"}),
    ),
    takes_others=True,
)

VERDICTS: Final = TableSpec(
    name="verdicts",
    title="What a panel of vision-language judges prefers",
    columns=_judged("llm", "llm_panel", LLM_RANK),
    published=Published(
        file="table3.csv",
        says="Table 3 of Bağcı et al. 2026, DINOv2 ViT-B/14 / AugReg ViT-B/16: a rate is relative to the methods that "
        "it was measured against, which are others here",
        key="method",
        figures={"win rate": Figure("win_rate")},
        where=({"backbone": "dinov2_vit_b14"}, {"backbone": "augreg_vit_b16"}),
    ),
)

PROXY_VERDICTS: Final = TableSpec(
    name="proxy_verdicts",
    title="What a proxy panel prefers, which is no panel of vision-language judges",
    columns=_judged("proxy", "proxy_panel", PROXY_RANK),
)

STRUCTURE: Final = TableSpec(
    name="structure",
    title="Stability and dictionary geometry",
    columns=(
        _compared("stability", "stability", "up"),
        _compared("stability_start", "at init", "none"),
        _compared("stability_gain", "gain", "up"),
        _compared("stability_input", "stability, input", "up"),
        _by_init("effective_rank", "eff. rank", "up", decimals=1, interval_decimals=1),
        _by_init("effective_rank_unit_rows", "eff. rank, unit rows", "up", decimals=1, interval_decimals=1),
        _by_init("effective_rank_input", "eff. rank, input", "up", decimals=1, interval_decimals=1),
        _by_init("coherence_max", "coherence", "down"),
        _by_init("coherence_mean", "mean", "down"),
        _by_init("coherence_p95", "p95", "down"),
        _by_init("welch_bound", "Welch bound", "none"),
        _by_init("coherence_paper", "coherence, paper's", "none", decimals=2, interval_decimals=1, unit="%"),
        _by_init("effective_rank_unit_rows_input", "eff. rank, unit rows, input", "up", csv_only=True),
        _by_init("coherence_max_input", "coherence, input", "down", csv_only=True),
        _by_init("coherence_mean_input", "mean, input", "down", csv_only=True),
        _by_init("coherence_p95_input", "p95, input", "down", csv_only=True),
        _by_init("welch_bound_input", "Welch bound, input", "none", csv_only=True),
        _by_init("coherence_paper_input", "coherence, paper's, input", "none", unit="%", csv_only=True),
    ),
    published=Published(
        file="table4.csv",
        says="Table 4 of Bağcı et al. 2026, DINOv2 ViT-B/14, 768 units, 6,144 atoms; its coherence has the arrow up, "
        "although 100 means duplicate atoms. Deviations as printed, which seems to be in shares of 1. ELUDe's "
        "dictionary is its merger (output) unless a column says input",
        key="method",
        figures={
            "stability": Figure("stability", scale=Decimal("0.01"), spread="stability_std"),
            "eff. rank": Figure("effective_rank", spread="effective_rank_std"),
            "coherence, paper's": Figure("coherence", spread="coherence_std"),
        },
    ),
)

EFFICIENCY: Final = TableSpec(
    name="efficiency",
    title="What a method costs inside the running network",
    columns=(
        _milliseconds("latency", "ms a batch"),
        Column("latency_ratio", "times the backbone", "down", 3, 3, "1"),
        _milliseconds("latency_unasked", "no codes asked"),
        _milliseconds("latency_codes", "all codes"),
        _milliseconds("latency_backbone", "backbone", direction="none"),
        _share("latency_drift", "drift"),
        _megabytes("peak_memory", "peak MB"),
        _megabytes("peak_memory_unasked", "peak MB, no codes asked"),
        _megabytes("peak_memory_codes", "peak MB, all codes"),
        _megabytes("peak_memory_backbone", "peak MB, backbone", direction="none"),
    ),
    published=Published(
        file="table5.csv",
        says="Table 5 of Bağcı et al. 2026, DINOv2 ViT-B/14, 256 images a batch on an H100, compiled; the ratio is to "
        "the backbone of the same table; its transcoder seems to be of the kind of transcoder_d_in",
        key="method",
        figures={
            "ms a batch": Figure("ms_per_batch", spread="ms_per_batch_std"),
            "times the backbone": Figure("ms_per_batch", over="backbone"),
            "peak MB": Figure("peak_mem_mb", spread="peak_mem_mb_std"),
        },
        keys={"transcoder_d_in": "transcoder"},
    ),
    by_machine=True,
)

_PAPERS_BASELINE = "baseline (leaf; min_cluster_size 1000; default min_samples; L2-normalised; no UMAP)"

ABLATIONS: Final = TableSpec(
    name="ablations",
    title="ELUDe with one choice changed at a time; `elude` is the baseline",
    columns=(
        _MS_SCORE,
        _percent("ms_score", "against baseline", "none", less="elude"),
        _EXCLUDED,
        _EXPANSION,
        _AGREEMENT,
        _percent("r2", "R2", "up", csv_only=True),
        _L0,
        _share("density", "density"),
    ),
    published=Published(
        file="table7.csv",
        says="Table 7 of Bağcı et al. 2026, DINOv2 ViT-B/14 at expansion factor 4; its sizes of 250 and 500 are taken "
        "as shares of its 1,000, and stand beside a quarter and a half of the baseline's here",
        key="ablation",
        figures={
            "MS-Score": Figure("ms_score"),
            "against baseline": Figure("ms_score", less=_PAPERS_BASELINE),
        },
        keys={
            "random_partition": "Random Baseline",
            "eom": "EOM",
            "min_cluster_size_2": "Min Cluster Size = 250",
            "min_cluster_size_4": "Min Cluster Size = 500",
            "min_samples_1": "Min Samples = 1",
            "min_samples_4": "Min Samples = 500",
            "umap": "UMAP",
            "elude": _PAPERS_BASELINE,
        },
    ),
    about=("ms_score",),
)

GROUND_TRUTH: Final = TableSpec(
    name="ground_truth",
    title="What was planted, and what was found of it",
    columns=(
        _cosine("concept_auc", "concept AUC"),
        _cosine("concept_auc_unmatched", "AUC, best atom"),
        _cosine("part_cosine", "part cosine"),
        _cosine("concept_cosine", "concept cosine"),
        _percent("exemplar_purity", "purity", "up"),
        _percent("exemplar_purity_chance", "by chance", "none"),
        Column("parts_found_ratio", "parts found", "none", 2, 2, "1"),
        _percent("parts_exact_share", "units exact", "up"),
        _MS_SCORE,
        _L0,
        _share("density", "density"),
    ),
    about=(
        "concept_auc",
        "concept_auc_unmatched",
        "part_cosine",
        "concept_cosine",
        "exemplar_purity",
        "parts_found_ratio",
        "parts_exact_share",
    ),
)

PROBES: Final = TableSpec(
    name="probes",
    title="What a linear probe reads",
    columns=(
        _percent("probe_outputs", "outputs", "none"),
        _percent("probe_codes", "codes", "up"),
        _percent("probe_reconstruction", "reconstruction", "up"),
        _percent("probe_codes_k1", "1 atom a class", "up"),
        _percent("probe_codes_k2", "2 atoms", "up"),
        _percent("probe_codes_k5", "5 atoms", "up"),
        _TOP1,
        _L0,
        _share("density", "density"),
    ),
    about=(
        "probe_outputs",
        "probe_codes",
        "probe_reconstruction",
        "probe_codes_k1",
        "probe_codes_k2",
        "probe_codes_k5",
    ),
)
