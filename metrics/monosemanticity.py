"""The MS-Score, variant `elude`: are the images that drive an atom alike to the backbone itself?

Bağcı et al. 2026, appendix B.2, eq. 7, after Pach et al. 2025 (`metrics.pach`). For one atom:

    1. rank   images by the largest code over their tokens, and keep the top K = 100
    2. embed  each by the untouched site's outputs at that token, to unit length
    3. weigh  each by its score, min-max normalised with the atom's extremes over all tokens of the split
    4. score  (||sum w e||^2 - sum w^2) / ((sum w)^2 - sum w^2), the weighted mean cosine of all pairs of images

The first pass ranks, the second embeds and adds up `sum w e`: embeddings are never held, and eq. 7 is linear in K.
Two statements of the source are read more exactly here. The score is not confined to [0, 1]: two opposite embeddings
give -1, and nothing is clipped. And where outputs are all zero there is no direction: such a token counts as
orthogonal to everything, itself included.

Beside it stands its null baseline: the same atoms, weights and positions with the images shuffled, so that exemplar i
is embedded by image pi(i) for one permutation pi of the split. It is what the site's embeddings score by being alike.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from metrics.catalogue import MetricRow, Value, rows_of
from metrics.exemplars import Exemplars, Ranking
from metrics.intervals import SEED, bootstrapped, proportion
from metrics.protocol import EvaluationBatch, EvaluationFacts, Scores

TOP_K: Final = 100
POSITIVE: Final = 1e-9  # of the largest weight; a pair of 1 and less than this is lost in the rounding of eq. 7
MAX_ELEMENTS: Final = 2**22  # float64 numbers of embeddings held at a time: 32 MiB


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

    @classmethod
    def of(
        cls,
        scores: Float64[Tensor, " atoms"],
        never_active: Bool[Tensor, " atoms"],
        single: Bool[Tensor, " atoms"],
        not_finite: Bool[Tensor, " atoms"],
    ) -> "AtomScores":
        """Each excluded atom under one reason: not finite before never active before single; on the CPU."""
        never_active = never_active & ~not_finite
        single = single & ~never_active & ~not_finite
        scores = scores.masked_fill(never_active | single | not_finite, torch.nan)
        return cls(scores.cpu(), never_active.cpu(), single.cpu(), not_finite.cpu())

    def exclusions(self) -> str | None:
        """How many atoms are excluded for which reason, None where none is."""
        parts = (
            (int(self.never_active.sum()), "never active"),
            (int(self.single.sum()), "with fewer than two positive weights"),
            (int(self.not_finite.sum()), "with values that are not finite"),
        )
        return ", ".join(f"{n} {why}" for n, why in parts if n) or None

    def percent(self) -> Float64[np.ndarray, " atoms"]:
        """The scores in %, NaN for the excluded atoms."""
        percent: Float64[np.ndarray, " atoms"] = 100 * self.scores.numpy()
        return percent

    def each(self) -> Scores:
        """The scores in %, and which atoms have one."""
        return Scores(100 * self.scores.nan_to_num(0.0), ~self.scores.isnan())

    def value(self, statistic: Literal["mean", "median"] = "mean") -> Value:
        """The mean or median of the scored atoms in %; null where none is."""
        percent, why = self.percent(), self.exclusions()
        scored = percent[~np.isnan(percent)]
        n_excluded = len(percent) - len(scored)
        if len(scored) == 0:
            return Value.null(f"no atom has a score: {why}", n_excluded=n_excluded)
        return bootstrapped(scored, "atoms", statistic=statistic, n_excluded=n_excluded, reason=why)


class MSScore:
    """`ms_score`, its median, its product with the scored share, its null baseline and the excluded share.

    Args:
        facts: What is known before the first batch.
        top_k: Images kept for each atom; all of them where the split has fewer.
    """

    rows: ClassVar[tuple[MetricRow, ...]] = rows_of("metrics.monosemanticity:MSScore")
    version: ClassVar[int] = 1
    passes: ClassVar[int] = 2

    def __init__(self, facts: EvaluationFacts, *, top_k: int = TOP_K) -> None:
        self._facts = facts
        self._n_images = 0
        self._ranking: Ranking = Ranking(top_k)
        self._exemplars: Exemplars | None = None
        self._sums: _Sums | None = None

    def update(self, batch: EvaluationBatch, *, pass_index: int) -> None:
        """Rank the images of the batch (pass 0), then add up the embeddings of those that were kept (pass 1)."""
        if pass_index == 0:
            self._ranking.add(batch.images, batch.summary)
            self._n_images += len(batch.images)
            return
        if self._sums is None:
            exemplars = self._ranked()
            shuffled = torch.randperm(self._facts.n_images, generator=torch.Generator().manual_seed(SEED))
            images = exemplars.images.long()
            both = torch.stack([images, shuffled.to(images.device)[images]])
            self._sums = _Sums(exemplars, both, batch.outputs.shape[2])
        self._sums.add(batch.images, batch.outputs)

    def _ranked(self) -> Exemplars:
        if self._exemplars is None:
            self._exemplars = self._ranking.exemplars()
        if self._exemplars is None:
            raise RuntimeError("MSScore has ranked no images; stream the split through update(pass_index=0) first")
        return self._exemplars

    def per_atom(self) -> tuple[AtomScores, AtomScores]:
        """The score of every atom and its null baseline, after both passes.

        Raises:
            RuntimeError: A pass is missing.
        """
        exemplars = self._ranked()
        if self._sums is None:
            raise RuntimeError("MSScore has embedded no images; stream the split through update(pass_index=1) too")
        (scores, scores_shuffled), (is_finite, is_finite_shuffled) = self._sums.scores(), self._sums.are_finite()
        largest = exemplars.scores[:, 0]
        never_active = largest == exemplars.smallest
        if self._facts.codes_are_nonnegative:
            never_active |= largest <= 0
        single = (exemplars.weights() > POSITIVE).sum(dim=1) < 2
        not_finite = ~(largest.isfinite() & exemplars.smallest.isfinite() & is_finite)
        own = AtomScores.of(scores, never_active, single, not_finite)
        not_finite = not_finite | ~is_finite_shuffled
        return own, AtomScores.of(scores_shuffled, never_active, single, not_finite)

    def atom_scores(self) -> Mapping[str, Scores]:
        """The score of every atom and its null baseline in %; none with fewer than two images."""
        if self._n_images < 2:
            return {}
        own, shuffled = self.per_atom()
        return {"ms_score": own.each(), "ms_score_permuted": shuffled.each()}

    def compute(self) -> Mapping[str, Value]:
        """The five values in %; null with fewer than two images or without a scored atom."""
        if self._n_images < 2:
            reason = f"{self._n_images} of the at least 2 images that a pair takes"
            return {row.name: Value.null(reason) for row in self.rows}
        own, shuffled = self.per_atom()
        percent, why = own.percent(), own.exclusions()
        n_excluded = int(np.isnan(percent).sum())
        # Mean times scored share is the mean with the unscored as 0, which makes one interval of both.
        alive = bootstrapped(np.nan_to_num(percent), "atoms", reason=why)
        return {
            "ms_score": own.value(),
            "ms_score_median": own.value("median"),
            "ms_score_alive": alive if n_excluded < len(percent) else own.value(),
            "ms_score_permuted": shuffled.value(),
            "ms_excluded_share": proportion(n_excluded, len(percent), "atoms", reason=why),
        }


class _Sums:
    """The sums of eq. 7 for every atom, once for each of several ways to embed its exemplars.

    Exemplars lie in the order of the images that embed them, so that a batch costs what its own exemplars cost.

    Args:
        exemplars: The images of each atom, which give weights and positions.
        images: The image that embeds each of them in each way; all different within an atom.
        n_units: Width of the embeddings.
    """

    def __init__(self, exemplars: Exemplars, images: Int[Tensor, "ways atoms kept"], n_units: int) -> None:
        weights = exemplars.weights()
        self._pair_weights = weights.sum(dim=1).square() - weights.square().sum(dim=1)
        self._n_ways, n_atoms = images.shape[:2]
        # sum w e over the exemplars seen so far, e being of unit length; the ways one below the other.
        self._embeddings: Float64[Tensor, "rows units"] = weights.new_zeros(self._n_ways * n_atoms, n_units)
        # sum w^2 ||e||^2 over them, which is sum w^2 but for embeddings that are zero.
        self._self_similarity: Float64[Tensor, " rows"] = weights.new_zeros(self._n_ways * n_atoms)
        ways, atoms, ranks = (weights > 0).expand(images.shape).nonzero(as_tuple=True)
        self._images, order = images[ways, atoms, ranks].int().sort(stable=True)
        ways, atoms, ranks = ways[order], atoms[order], ranks[order]
        self._rows = (ways * n_atoms + atoms).int()
        self._weights, self._positions = weights[atoms, ranks], exemplars.positions[atoms, ranks].int()

    def add(self, images: Int[Tensor, " images"], outputs: Float[Tensor, "images tokens units"]) -> None:
        """Add the outputs at the exemplars among some images."""
        n_tokens, n_units = outputs.shape[1:]
        images = images.to(self._images)
        first, end = (torch.searchsorted(self._images, images, right=right) for right in (False, True))
        n_at_once = max(1, MAX_ELEMENTS // max(1, n_tokens * n_units))
        for start in range(0, len(images), n_at_once):
            some = slice(start, start + n_at_once)
            n_each = end[some] - first[some]
            offset = first[some] - n_each.cumsum(dim=0) + n_each
            exemplars = offset.repeat_interleave(n_each)
            exemplars += torch.arange(len(exemplars), device=exemplars.device)
            image = torch.arange(len(n_each), device=exemplars.device).repeat_interleave(n_each)
            self._add(exemplars, image * n_tokens + self._positions[exemplars], outputs[some].flatten(0, 1))

    def _add(
        self, exemplars: Int[Tensor, " some"], tokens: Int[Tensor, " some"], outputs: Float[Tensor, "tokens units"]
    ) -> None:
        """Add the outputs of one token for each of some exemplars."""
        used, columns = tokens.unique(return_inverse=True)
        e = outputs[used].to(torch.float64, copy=True)
        norm = e.norm(dim=1, keepdim=True)
        e.div_(norm.clamp(min=torch.finfo(torch.float64).tiny))
        order = (self._rows[exemplars].long() * len(used) + columns).argsort()  # as a sparse matrix wants it
        exemplars, columns = exemplars[order], columns[order]
        rows, weights = self._rows[exemplars].long(), self._weights[exemplars]
        shape, indices = (len(self._embeddings), len(used)), torch.stack([rows, columns])
        sparse = torch.sparse_coo_tensor(indices, weights, shape, is_coalesced=True, check_invariants=False)
        torch.addmm(self._embeddings, sparse, e, out=self._embeddings)
        self._self_similarity.index_add_(0, rows, weights.square().where(norm[columns, 0] > 0, 0))

    def scores(self) -> Float64[Tensor, "ways atoms"]:
        """Eq. 7; of no meaning where fewer than two weights are positive."""
        pairs = self._embeddings.square().sum(dim=1) - self._self_similarity
        return pairs.reshape(self._n_ways, -1) / self._pair_weights

    def are_finite(self) -> Bool[Tensor, "ways atoms"]:
        """Whether every embedding of the atom was."""
        return self._embeddings.isfinite().all(dim=1).reshape(self._n_ways, -1)
