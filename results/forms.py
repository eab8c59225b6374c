"""How the paper lays out its tables, and what has to be known of their numbers, as data.

The forms hold no number: those stand in `results/published`. The remarks are corrections of how the paper reads its own
numbers, each with what it follows from.
"""

from typing import Final

from results.layout import PaperForm, Printed

METHODS: Final = {
    "backbone": "Backbone only",
    "vanilla_sae": "Vanilla SAE",
    "topk_sae": "TopK-SAE",
    "jumprelu_sae": "JumpReLU",
    "batchtopk_sae": "BatchTopK-SAE",
    "matryoshka_sae": "Matryoshka SAE",
    "archetypal_sae": "Archetypal SAE",
    "matching_pursuit_sae": "Matching Pursuit",
    "transcoder": "Transcoder",
    "elude": "ELUDe (ours)",
    "dnrwcv": "DNRwCV",
    "pure": "PURE",
    "dpcicnn": "DPCiCNN",
}
"""What the paper calls the rows of its tables."""
_BACKBONES: Final = {"augreg_vit_b16": "ImageNet-21k ViT-B/16", "dinov2_vit_b14": "DINOv2 ViT-B/14"}
_MODEL: Final = "DINOv2 ViT-B/14"
BASELINE: Final = "baseline (leaf; min_cluster_size 1000; default min_samples; L2-normalised; no UMAP)"
"""What the paper's Table 7 calls ELUDe as it is."""

_R2: Final = (
    "R2: the paper does not say which variant. With one mean over all elements, as overcomplete computes it, a "
    "reconstruction that is the mean vector throughout can still score 66 %; ours takes the mean vector and gives it 0."
)
_L0: Final = (
    "Active atoms a token are not printed, although most of these numbers follow from how many there are; nor is the "
    "share of units that the MS-Score leaves out, which flatters methods with dead ones."
)
_RANKS: Final = (
    "A rank is relative to the methods of its group, and neighbours may not be separable; an MS-Score can leave "
    "[0, 1], in which the paper has it: two opposite embeddings give -1."
)
TWO_SEEDS: Final = (
    "All ten DINOv2 rates are multiples of 1/1800 whose counts add up to 9,000: two token datasets were pooled, not "
    "the three of the text. Those of ViT-B/16 are multiples of 1/2700 and add up to 13,500, as three give."
)
_COLUMNS: Final = (
    Printed("LLM Rank", "llm_rank", "LLM Rank", "Interpretability", "down"),
    Printed("MS-Score", "ms_score", "MS-Score", "Interpretability", "up", "ms_score_std"),
    Printed("Accuracy", "accuracy", "accuracy", "Faithfulness", "up", "accuracy_std"),
    Printed("R²", "r2", "R2", "Faithfulness", "up", "r2_std", note="which R2, the paper does not say"),
)

TABLE1: Final = PaperForm(
    number=1,
    file="table1.csv",
    title="Properties of disentanglement methods",
    words=("Method",),
    key="method",
    columns=tuple(
        Printed(heading, column, heading.lower())
        for heading, column in (
            ("Stable", "stable"),
            ("Training-free", "training_free"),
            ("Explicit", "explicit"),
            ("Lossless", "lossless"),
            ("Unsupervised", "unsupervised"),
        )
    ),
    names={**METHODS, "topk_sae": "TopK SAE", "yes": "✓", "no": "✗"},
    remarks=(
        "DNRwCV and PURE are lossless because they leave the network as it is: their units are virtual.",
        "Archetypal SAE counts as stable; its runs share one k-means start (arXiv:2606.02061). In Table 4 its "
        "stability is 86.85 and ELUDe's 93.34, not 100.",
    ),
)

TABLE2: Final = PaperForm(
    number=2,
    file="table2.csv",
    title="Interpretability and faithfulness",
    words=("Model", "Method"),
    key="method",
    columns=_COLUMNS,
    by=("backbone",),
    names=METHODS | _BACKBONES,
    remarks=(_R2, _L0, _RANKS, f"The ranks follow from Table 3. {TWO_SEEDS}"),
)

TABLE3: Final = PaperForm(
    number=3,
    file="table3.csv",
    title="Consensus win rates",
    words=("Model", "Method"),
    key="method",
    columns=(
        Printed("Consensus win rate (%)", "win_rate", "win rate", direction="up"),
        Printed("95% CI", "ci_low", ends=("ci_low", "ci_high"), note="single presentations resampled"),
    ),
    by=("backbone",),
    names=METHODS | _BACKBONES,
    remarks=(
        "The intervals are as wide as resampling single presentations makes them. Both orders and all opponents of a "
        "unit pair hang together: in simulation such an interval covers 83 % where 95 % is claimed; resampling unit "
        "pairs covers 95 %.",
        TWO_SEEDS,
        "By the text, presentations without a majority are dropped. The counts imply that none was: 9,000 and 13,500 "
        "are all presentations of 45 pairs of methods, each with 50 unit pairs in both orders, of two and of three "
        "token datasets.",
    ),
)

TABLE4: Final = PaperForm(
    number=4,
    file="table4.csv",
    title="Stability and dictionary geometry",
    words=("Model", "Method"),
    key="method",
    columns=(
        Printed("Cross-Init Sim.", "stability", "stability", "Stability", "up", "stability_std"),
        Printed("Eff. Rank", "effective_rank", "eff. rank", "Dict. Geometry", "up", "effective_rank_std"),
        Printed(
            "Coherence",
            "coherence",
            "coherence, paper's",
            "Dict. Geometry",
            "up",
            "coherence_std",
            note="the paper's arrow is the wrong way round: this is the largest cosine of two atoms, and 100 means "
            "duplicate atoms, so less is better; the marks of the column follow the arrow",
        ),
    ),
    model=_MODEL,
    names=METHODS,
    remarks=(
        "Similarity and coherence are in %, their deviations as printed, which seems to be in shares of 1.",
        "ELUDe's numbers look like those of its merger, whose rows repeat, and not of its weights in input space.",
        "Whether rows were normalised for the effective rank is not said.",
        "Archetypal SAE's runs share one k-means start; how much of their similarity is that start's is contested "
        "(arXiv:2606.02061).",
    ),
)

TABLE5: Final = PaperForm(
    number=5,
    file="table5.csv",
    title="Computational efficiency, 256 images a batch on one H100, compiled",
    words=("Model", "Method"),
    key="method",
    columns=(
        Printed("Input dim", "input_dim"),
        Printed("ms/batch", "ms_per_batch", "ms a batch", "Comp. Efficiency", "down", "ms_per_batch_std"),
        Printed("Peak mem MB", "peak_mem_mb", "peak MB", "Comp. Efficiency", "down", "peak_mem_mb_std"),
    ),
    model=_MODEL,
    names={**METHODS, "transcoder_d_in": "Transcoder (inputs' width)"},
    remarks=(
        "ELUDe's 577 MB are less than its subunits' activations alone would take (808 MB in bfloat16 for 256 images of "
        "257 tokens and 6,144 subunits): what was kept of them is unclear. Ours is measured with no codes asked, with "
        "all of them, and with codes that are merged and not kept.",
        "The transcoder's time suggests that its expansion is relative to the width of its inputs (24,576 atoms), "
        "where the other rows have 6,144.",
    ),
)

TABLE6: Final = PaperForm(
    number=6,
    file="table6.csv",
    title="Other layers, sizes, families and expansion factors",
    words=("Axis", "Method"),
    key="method",
    columns=_COLUMNS,
    by=("axis", "setting"),
    names={
        **METHODS,
        "layer": "Layer",
        "size": "Size",
        "family": "Family",
        "expansion_factor": "Expansion Factor",
    },
    remarks=(
        _R2,
        _L0,
        _RANKS,
        "Expansion factors are not equal within a group: by Table 9 ELUDe's is 5.91 at layer 11 beside baselines' 8, "
        "and 11.41 in the group EF16.",
    ),
)

TABLE7: Final = PaperForm(
    number=7,
    file="table7.csv",
    title="ELUDe with one choice changed at a time, at expansion factor 4",
    words=("Model", "Ablation axis"),
    key="ablation",
    columns=(Printed("MS-Score", "ms_score", "MS-Score", "Interpretability", "up", "ms_score_std"),),
    model=_MODEL,
    names={BASELINE: "ELUDe (ours)"},
    remarks=(
        "The baseline lies within one standard deviation of Min Cluster Size = 500 and of Min Samples = 500, by the "
        "deviations of these two rows: three token seeds do not settle their order.",
        _L0,
    ),
)

TABLE9: Final = PaperForm(
    number=9,
    file="table9.csv",
    title="ELUDe's configuration at each backbone",
    words=("Backbone",),
    key="backbone",
    columns=(
        Printed("Layer", "layer_1indexed"),
        Printed("TopK", "top_k", "top k"),
        Printed("Clustering", "min_cluster_size", "clustering"),
        Printed("Eff. EF", "effective_expansion_factor", "expansion"),
    ),
    names={
        **{f"{thousands}000": f"{thousands}k" for thousands in (60, 100, 200, 400, 500)},
        "1000": "default",
        "500": "min_cluster_size = 500",
        "750": "min_cluster_size = 750",
    },
    remarks=(
        "Default clustering is min_cluster_size = 1000. The effective factor is a mean over three token seeds, printed "
        "without its spread; a unit that is not split counts as one.",
    ),
)

FORMS: Final = (TABLE1, TABLE2, TABLE3, TABLE4, TABLE5, TABLE6, TABLE7, TABLE9)
