"""The paper's tables as data: its rows and columns, each number with the paper's own beside it, site by site.

They are tables of runs of the suites `paper-table2` to `paper-table7`, whose sites are the paper's. The paper's number
stands beside ours where the site is one of its own; nothing of it is ranked. Where a column of ours means something
else than the paper's of that name, the note below the table says so.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Final

from results.layout import Column, Figure, Published
from results.layout import TableSpec as Spec
from results.specs import ABLATIONS, EFFICIENCY, LLM_RANK, PROXY_RANK, STRUCTURE, VERDICTS

_percent = partial(Column, decimals=2, interval_decimals=1, unit="%")
_COLUMNS: Final = (
    LLM_RANK,
    PROXY_RANK,
    _percent("ms_score", "MS-Score", "up"),
    _percent("top1", "accuracy", "up"),
    _percent("r2", "R2", "up"),
    Column("expansion_factor", "expansion", "none", 2, 2, "1"),
    Column("l0", "L0", "none", 1, 1, "atoms a token"),
)
_FIGURES: Final[Mapping[str, Figure]] = {
    "LLM Rank": Figure("llm_rank"),
    "MS-Score": Figure("ms_score", spread="ms_score_std"),
    "accuracy": Figure("accuracy", spread="accuracy_std"),
    "R2": Figure("r2", spread="r2_std"),
}
_BACKBONES: Final = {
    "augreg_vit_b16": {"backbone": "augreg_vit_b16"},
    "dinov2_vitb14": {"backbone": "dinov2_vit_b14"},
}
_SETTINGS: Final = {
    "b14_layer10": "DINOv2 ViT-B/14 layer 10",
    "b14_layer11": "DINOv2 ViT-B/14 layer 11",
    "s14": "DINOv2 ViT-S/14",
    "l14": "DINOv2 ViT-L/14",
    "siglip2_b16": "SigLIP2-B/16",
    "convnextv2_base": "ConvNeXtV2-Base",
    "b14_ef4": "DINOv2 ViT-B/14 layer 12 EF4",
    "b14_ef16": "DINOv2 ViT-B/14 layer 12 EF16",
}


def _of_methods(number: int, title: str, sites: Mapping[str, Mapping[str, str]]) -> Spec:
    """A table of methods site by site, with the paper's numbers of that table beside them."""
    return Spec(
        name=f"paper-table{number}",
        title=f"{title}, as the paper's Table {number}",
        columns=_COLUMNS,
        published=Published(
            file=f"table{number}.csv",
            says=f"Table {number} of Bağcı et al. 2026, ImageNet-1k, mean ± standard deviation of three token seeds; "
            "the paper does not say which variant its R2 is; ours is over the mean vector",
            key="method",
            figures=_FIGURES,
            sites=sites,
        ),
        takes_others=True,
    )


PAPER_TABLE2: Final = _of_methods(2, "Interpretability and faithfulness", _BACKBONES)

PAPER_TABLE3: Final = replace(
    VERDICTS,
    name="paper-table3",
    title="What the panel prefers, as the paper's Table 3",
    published=Published(
        file="table3.csv",
        says="Table 3 of Bağcı et al. 2026; its intervals resample single presentations. At DINOv2, two of its rates "
        "can only come from two token seeds",
        key="method",
        figures={"win rate": Figure("win_rate")},
        sites=_BACKBONES,
    ),
)

PAPER_TABLE4: Final = replace(
    STRUCTURE, name="paper-table4", title="Stability and dictionary geometry, as the paper's Table 4"
)

PAPER_TABLE5: Final = replace(
    EFFICIENCY, name="paper-table5", title="What a method costs inside the running network, as the paper's Table 5"
)

PAPER_TABLE6: Final = _of_methods(
    6,
    "Other layers, sizes, families and expansion factors",
    {label: {"setting": setting} for label, setting in _SETTINGS.items()},
)

_BASELINE = "baseline (leaf; min_cluster_size 1000; default min_samples; L2-normalised; no UMAP)"

PAPER_TABLE7: Final = replace(
    ABLATIONS,
    name="paper-table7",
    title="ELUDe with one choice changed at a time, as the paper's Table 7; `elude` is the baseline",
    published=Published(
        file="table7.csv",
        says="Table 7 of Bağcı et al. 2026, DINOv2 ViT-B/14 at expansion factor 4",
        key="ablation",
        figures={
            "MS-Score": Figure("ms_score", spread="ms_score_std"),
            "against baseline": Figure("ms_score", less=_BASELINE),
        },
        keys={
            "random_partition": "Random Baseline",
            "eom": "EOM",
            "min_cluster_size_100": "Min Cluster Size = 100",
            "min_cluster_size_250": "Min Cluster Size = 250",
            "min_cluster_size_500": "Min Cluster Size = 500",
            "min_samples_1": "Min Samples = 1",
            "min_samples_100": "Min Samples = 100",
            "min_samples_500": "Min Samples = 500",
            "umap": "UMAP",
            "elude": _BASELINE,
        },
    ),
)

PAPER_TABLES: Final = (PAPER_TABLE2, PAPER_TABLE3, PAPER_TABLE4, PAPER_TABLE5, PAPER_TABLE6, PAPER_TABLE7)
