"""The values that say something of what the network computes with a method's atoms."""

from functools import partial
from typing import Final

from metrics.row import MetricRow

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

RECONSTRUCTION: Final = (
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
)
"""How well the codes rebuild the site."""


REPLACEMENT: Final = (
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
)
"""What the backbone does with the reconstruction."""


PROPERTIES: Final = (
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
)
"""Whether a method has the properties that it claims."""


PROBES: Final = (
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
)
"""What a linear probe reads out of an image; chance is one over the number of classes where these are balanced."""
