"""The paper's tables as data: its rows and columns, each number with the paper's own beside it, site by site.

They are tables of runs of the suites `paper-table2` to `paper-table7`, whose sites are the paper's. The paper's number
stands beside ours where the site is one of its own; nothing of it is ranked. Where a column of ours means something
else than the paper's of that name, the note below the table says so.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Final

from results import forms
from results.claims import PROPERTIES
from results.layout import Column, Figure, PaperForm, Published
from results.layout import TableSpec as Spec
from results.settings import SettingsSpec
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


def _of_methods(form: PaperForm, title: str, sites: Mapping[str, Mapping[str, str]]) -> Spec:
    """A table of methods site by site, with the paper's numbers of that table beside them."""
    number = form.number
    return Spec(
        name=f"paper-table{number}",
        title=f"{title}, as the paper's Table {number}",
        form=form,
        beside="cell",
        columns=_COLUMNS,
        published=Published(
            file=form.file,
            says=f"Table {number} of Bağcı et al. 2026, ImageNet-1k, mean ± standard deviation of three token seeds",
            key="method",
            figures=_FIGURES,
            sites=sites,
        ),
        takes_others=True,
    )


PAPER_TABLE2: Final = _of_methods(forms.TABLE2, "Interpretability and faithfulness", _BACKBONES)

PAPER_TABLE3: Final = replace(
    VERDICTS,
    name="paper-table3",
    form=forms.TABLE3,
    beside="cell",
    title="What the panel prefers, as the paper's Table 3",
    published=Published(
        file="table3.csv",
        says="Table 3 of Bağcı et al. 2026, ImageNet-1k",
        key="method",
        figures={"win rate": Figure("win_rate")},
        sites=_BACKBONES,
    ),
)

PAPER_TABLE4: Final = replace(
    STRUCTURE,
    name="paper-table4",
    title="Stability and dictionary geometry, as the paper's Table 4",
    form=forms.TABLE4,
    beside="cell",
)

PAPER_TABLE5: Final = replace(
    EFFICIENCY,
    name="paper-table5",
    title="What a method costs inside the running network, as the paper's Table 5",
    form=forms.TABLE5,
    beside="cell",
)

PAPER_TABLE6: Final = _of_methods(
    forms.TABLE6,
    "Other layers, sizes, families and expansion factors",
    {label: {"setting": setting} for label, setting in _SETTINGS.items()},
)

_ABLATIONS: Final = {
    "random_partition": "Random Baseline",
    "eom": "EOM",
    "min_cluster_size_100": "Min Cluster Size = 100",
    "min_cluster_size_250": "Min Cluster Size = 250",
    "min_cluster_size_500": "Min Cluster Size = 500",
    "min_samples_1": "Min Samples = 1",
    "min_samples_100": "Min Samples = 100",
    "min_samples_500": "Min Samples = 500",
    "umap": "UMAP",
    "elude": forms.BASELINE,
}

PAPER_TABLE7: Final = replace(
    ABLATIONS,
    name="paper-table7",
    form=forms.TABLE7,
    beside="cell",
    title="ELUDe with one choice changed at a time, as the paper's Table 7; `elude` is the baseline",
    published=Published(
        file="table7.csv",
        says="Table 7 of Bağcı et al. 2026, DINOv2 ViT-B/14 at expansion factor 4",
        key="ablation",
        figures={
            "MS-Score": Figure("ms_score", spread="ms_score_std"),
            "against baseline": Figure("ms_score", less=forms.BASELINE),
        },
        keys=_ABLATIONS,
    ),
)

PAPER_TABLE1: Final = replace(
    PROPERTIES,
    name="paper-table1",
    title="Properties of disentanglement methods as they were measured, as the paper's Table 1",
    form=forms.TABLE1,
    beside=(),
)

PAPER_TABLE9: Final = SettingsSpec(
    name="paper-table9",
    title="ELUDe's configuration at each site, as the paper's Table 9",
    form=forms.TABLE9,
    label="elude",
    sites={
        "augreg_vit_b16": {"backbone": "AugReg ViT-B/16"},
        "dinov2_vitb14": {"backbone": "DINOv2-B/14", "layer_1indexed": "12"},
        "b14_layer10": {"backbone": "DINOv2-B/14", "layer_1indexed": "10"},
        "b14_layer11": {"backbone": "DINOv2-B/14", "layer_1indexed": "11"},
        "s14": {"backbone": "DINOv2-S/14"},
        "l14": {"backbone": "DINOv2-L/14"},
        "siglip2_b16": {"backbone": "SigLIP2-B/16"},
        "convnextv2_base": {"backbone": "ConvNeXtV2-B"},
        "b14_ef4": {"backbone": "DINOv2-B/14 (EF4)"},
        "b14_ef16": {"backbone": "DINOv2-B/14 (EF16)"},
    },
)

PAPER_TABLES: Final = (
    PAPER_TABLE1, PAPER_TABLE2, PAPER_TABLE3, PAPER_TABLE4, PAPER_TABLE5, PAPER_TABLE6, PAPER_TABLE7, PAPER_TABLE9
)  # fmt: skip
