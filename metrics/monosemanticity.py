"""The MS-Score, variant `elude`: are the images that drive an atom alike to the backbone itself?

Bağcı et al. 2026, appendix B.2, eq. 7, after Pach et al. 2025 (arXiv:2504.02821). For one atom:

    1. rank   images by the largest code over their tokens, and keep the top K = 100
    2. embed  each by the untouched site's outputs at that token, to unit length
    3. weigh  each by its score, min-max normalised with the atom's extremes over all tokens of the split
    4. score  (||sum w e||^2 - sum w^2) / ((sum w)^2 - sum w^2), the weighted mean cosine of all pairs of images

The first pass ranks, the second embeds and adds up `sum w e`: embeddings are never held, and eq. 7 is linear in K.
Two statements of the source are read more exactly here. The score is not confined to [0, 1]: two opposite embeddings
give -1, and nothing is clipped. And where outputs are all zero there is no direction: such a token counts as
orthogonal to everything, itself included.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from metrics.catalogue import MetricRow, Value, rows_of
from metrics.exemplars import Exemplars
from metrics.intervals import bootstrapped, proportion
from metrics.protocol import EvaluationBatch, EvaluationFacts

TOP_K: Final = 100
POSITIVE: Final = 1e-9  # of the largest weight; a pair of 1 and less than this is lost in the rounding of eq. 7
MAX_ELEMENTS: Final = 2**23  # float64 numbers of embeddings held at a time: 64 MiB


@dataclass(frozen=True)
class AtomScores:
    """The MS-Score of every atom, and why some have none.

    Attributes:
        scores: -1 to 1, NaN for the atoms that are excluded.
        never_active: Atoms with one code everywhere, or with no positive one where codes are non-negative.
        single: Atoms with fewer than two positive weights, so without a pair to compare.
        not_finite: Atoms with codes or embeddings that are not finite.
    """

    scores: Float64[Tensor, " atoms"]
    never_active: Bool[Tensor, " atoms"]
    single: Bool[Tensor, " atoms"]
    not_finite: Bool[Tensor, " atoms"]

    def exclusions(self) -> str | None:
        """How many atoms are excluded for which reason, None where none is."""
        parts = (
            (int(self.never_active.sum()), "never active"),
            (int(self.single.sum()), "with fewer than two positive weights"),
            (int(self.not_finite.sum()), "with values that are not finite"),
        )
        return ", ".join(f"{n} {why}" for n, why in parts if n) or None


class MSScore:
    """`ms_score`, its median, its product with the scored share, and the excluded share, in two passes.

    Args:
        facts: What is known before the first batch.
        top_k: Images kept for each atom; all of them where the split has fewer.
    """

    rows: ClassVar[tuple[MetricRow, ...]] = rows_of("metrics.monosemanticity:MSScore")
    version: ClassVar[int] = 1
    passes: ClassVar[int] = 2

    def __init__(self, facts: EvaluationFacts, *, top_k: int = TOP_K) -> None:
        self._facts = facts
        self._top_k = top_k
        self._n_images = 0
        self._exemplars: Exemplars | None = None
        self._sums: _Sums | None = None

    def update(self, batch: EvaluationBatch, *, pass_index: int) -> None:
        """Rank the images of the batch (pass 0), then add up the embeddings of those that were kept (pass 1)."""
        if pass_index == 0:
            exemplars = Exemplars.of(batch.images, batch.codes, self._top_k)
            kept = self._exemplars
            self._exemplars = exemplars if kept is None else kept.followed_by(exemplars, self._top_k)
            self._n_images += len(batch.images)
        else:
            self._embed(batch)

    def _embed(self, batch: EvaluationBatch) -> None:
        exemplars, outputs = self._ranked(), batch.outputs
        if self._sums is None:
            self._sums = _Sums.zeros(exemplars.weights(), n_units=outputs.shape[2])
        row_of_image = exemplars.images.new_full((self._facts.n_images,), -1)
        row_of_image[batch.images.to(row_of_image.device)] = torch.arange(len(outputs), device=row_of_image.device)
        rows = row_of_image[exemplars.images]
        pairs = ((rows >= 0) & (self._sums.weights > 0)).nonzero()
        for some_pairs in torch.split(pairs, max(1, MAX_ELEMENTS // outputs.shape[2])):
            atoms, ranks = some_pairs.unbind(dim=1)
            self._sums.add(atoms, ranks, outputs[rows[atoms, ranks], exemplars.positions[atoms, ranks]])

    def _ranked(self) -> Exemplars:
        if self._exemplars is None:
            raise RuntimeError("MSScore has ranked no images; stream the split through update(pass_index=0) first")
        return self._exemplars

    def per_atom(self) -> AtomScores:
        """The score of every atom, after both passes.

        Raises:
            RuntimeError: A pass is missing.
        """
        exemplars = self._ranked()
        if self._sums is None:
            raise RuntimeError("MSScore has embedded no images; stream the split through update(pass_index=1) too")
        largest = exemplars.scores[:, 0]
        scores = self._sums.scores()
        not_finite = ~(largest.isfinite() & exemplars.smallest.isfinite() & self._sums.are_finite())
        never_active = (largest == exemplars.smallest) & ~not_finite
        if self._facts.codes_are_nonnegative:
            never_active |= (largest <= 0) & ~not_finite
        n_positive = (self._sums.weights > POSITIVE).sum(dim=1)
        single = (n_positive < 2) & ~never_active & ~not_finite
        scores = scores.masked_fill(never_active | single | not_finite, torch.nan)
        return AtomScores(scores.cpu(), never_active.cpu(), single.cpu(), not_finite.cpu())

    def compute(self) -> Mapping[str, Value]:
        """The four values in %; null with fewer than two images or without a scored atom."""
        if self._n_images < 2:
            reason = f"{self._n_images} of the at least 2 images that a pair takes"
            return {row.name: Value.null(reason) for row in self.rows}
        per_atom = self.per_atom()
        percent: Float64[np.ndarray, " atoms"] = 100 * per_atom.scores.numpy()
        scored = percent[~np.isnan(percent)]
        n_excluded = len(percent) - len(scored)
        why = per_atom.exclusions()
        values = {"ms_excluded_share": proportion(n_excluded, len(percent), "atoms", reason=why)}
        if len(scored) == 0:
            null = Value.null(f"no atom has a score: {why}", n_excluded=n_excluded)
            return values | dict.fromkeys(("ms_score", "ms_score_median", "ms_score_alive"), null)
        return values | {
            "ms_score": bootstrapped(scored, "atoms", n_excluded=n_excluded, reason=why),
            "ms_score_median": bootstrapped(scored, "atoms", statistic="median", n_excluded=n_excluded, reason=why),
            # Mean times scored share is the mean with the unscored as 0, which makes one interval of both.
            "ms_score_alive": bootstrapped(np.nan_to_num(percent), "atoms", reason=why),
        }


@dataclass(frozen=True)
class _Sums:
    """The sums of eq. 7, for every atom; the tensors are added to in place.

    Attributes:
        weights: w, the weight of each exemplar.
        embeddings: sum w e over the exemplars seen so far, e being of unit length.
        self_similarity: sum w^2 ||e||^2 over them, which is sum w^2 but for embeddings that are zero.
    """

    weights: Float64[Tensor, "atoms kept"]
    embeddings: Float64[Tensor, "atoms units"]
    self_similarity: Float64[Tensor, " atoms"]

    @classmethod
    def zeros(cls, weights: Float64[Tensor, "atoms kept"], n_units: int) -> "_Sums":
        return cls(weights, weights.new_zeros(len(weights), n_units), weights.new_zeros(len(weights)))

    def add(
        self, atoms: Int[Tensor, " pairs"], ranks: Int[Tensor, " pairs"], outputs: Float[Tensor, "pairs units"]
    ) -> None:
        """Add the outputs at some exemplars, each given by its atom and its rank among the atom's exemplars."""
        e = outputs.double()
        norm = e.norm(dim=1).clamp(min=torch.finfo(torch.float64).tiny)
        we = e * (self.weights[atoms, ranks] / norm)[:, None]
        self.embeddings.index_add_(0, atoms, we)
        self.self_similarity.index_add_(0, atoms, we.square().sum(dim=1))

    def scores(self) -> Float64[Tensor, " atoms"]:
        """Eq. 7; of no meaning where fewer than two weights are positive."""
        pairs = self.embeddings.square().sum(dim=1) - self.self_similarity
        return pairs / (self.weights.sum(dim=1).square() - self.weights.square().sum(dim=1))

    def are_finite(self) -> Bool[Tensor, " atoms"]:
        """Whether every embedding of the atom was."""
        return self.embeddings.isfinite().all(dim=1)
