"""The MS-Score, variant `pach`: are the images that drive an atom alike to another network?

Pach et al. 2025 (arXiv:2504.02821), section 3.2, where the score comes from. It differs from the variant `elude` in
three ways, so that the two never stand in one column: an image is embedded as a whole by another network than the one
under study; its score is min-max normalised with the atom's extremes over images, not over tokens; and all pairs of
the split count, not those of the top images.

The weighted mean cosine of all pairs is (||sum r e||^2 - sum r^2 ||e||^2) / ((sum r)^2 - sum r^2) for r = (s - min) /
(max - min): the extremes are known only at the end, but each sum is linear in s, so that one pass over the split adds
up sum s e, sum e, sum s and sum s^2. Scores are taken relative to the atom's smallest of the first batch, so that large
offsets do not cancel. As in `elude`, a zero embedding is orthogonal to everything, itself included.
"""

from collections.abc import Mapping
from typing import ClassVar, Final

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from metrics.catalogue import MetricRow, Value, rows_of
from metrics.monosemanticity import AtomScores
from metrics.protocol import EvaluationBatch, EvaluationFacts, Scores

ROUNDING: Final = 1e-9  # of the largest pair: where all pairs together weigh less, rounding is as large


class PachScore:
    """`ms_score_pach` in one pass, with an interval over atoms."""

    rows: ClassVar[tuple[MetricRow, ...]] = rows_of("metrics.pach:PachScore")
    version: ClassVar[int] = 1
    passes: ClassVar[int] = 1

    def __init__(self, facts: EvaluationFacts) -> None:
        self._codes_are_nonnegative = facts.codes_are_nonnegative
        self._sums: _Sums | None = None

    def update(self, batch: EvaluationBatch, *, pass_index: int) -> None:
        """Add up the embeddings of the batch, weighted by each atom's scores."""
        scores, e = batch.summary.largest.double(), batch.of_site(_unit_embeddings)
        if len(scores) == 0:
            return
        if self._sums is None:
            self._sums = _Sums(scores, width=e.shape[1])
        self._sums.add(scores, e.to(scores.device))

    def per_atom(self) -> AtomScores:
        """The score of every atom, after the pass.

        Raises:
            RuntimeError: There was none.
        """
        if self._sums is None:
            raise RuntimeError("PachScore has seen no images; stream the split through update(pass_index=0) first")
        return self._sums.per_atom(codes_are_nonnegative=self._codes_are_nonnegative)

    def compute(self) -> Mapping[str, Value]:
        """The value in %; null with fewer than two images or without a scored atom."""
        n_images = 0 if self._sums is None else self._sums.n_images
        if n_images < 2:
            return {"ms_score_pach": Value.null(f"{n_images} of the at least 2 images that a pair takes")}
        return {"ms_score_pach": self.per_atom().value()}

    def atom_scores(self) -> Mapping[str, Scores]:
        """The score of every atom in %; none with fewer than two images."""
        if self._sums is None or self._sums.n_images < 2:
            return {}
        return {"ms_score_pach": self.per_atom().each()}


def _unit_embeddings(batch: EvaluationBatch) -> Float64[Tensor, "images width"]:
    """Each image's embedding at unit length, or zero."""
    e = batch.embeddings.double()
    norm: Float64[Tensor, "images one"] = e.norm(dim=1, keepdim=True)
    return e / norm.clamp(min=torch.finfo(torch.float64).tiny)


class _Sums:
    """What is added up over images, t being an atom's score less its origin and e the image's embedding.

    Args:
        scores: Of the first images, whose smallest is the origin.
        width: Of the embeddings.
    """

    def __init__(self, scores: Float64[Tensor, "images atoms"], width: int) -> None:
        self._origin = scores.amin(dim=0).nan_to_num(0, 0, 0)
        self.n_images = 0
        self._smallest: Float64[Tensor, " atoms"] = torch.full_like(self._origin, torch.inf)
        self._largest: Float64[Tensor, " atoms"] = torch.full_like(self._origin, -torch.inf)
        self._n_smallest: Float64[Tensor, " atoms"] = torch.zeros_like(self._origin)
        self._te: Float64[Tensor, "atoms width"] = scores.new_zeros(scores.shape[1], width)
        self._e: Float64[Tensor, " width"] = scores.new_zeros(width)
        # The moments of t of all images, and those of images with a nonzero embedding.
        self._moments: Float64[Tensor, "order atoms"] = scores.new_zeros(3, scores.shape[1])
        self._moments_embedded: Float64[Tensor, "order atoms"] = scores.new_zeros(3, scores.shape[1])

    def add(self, scores: Float64[Tensor, "images atoms"], e: Float64[Tensor, "images width"]) -> None:
        t = scores - self._origin
        smallest = torch.minimum(self._smallest, t.amin(dim=0))
        self._n_smallest = self._n_smallest.where(smallest == self._smallest, 0) + (t == smallest).sum(dim=0)
        self._smallest, self._largest = smallest, torch.maximum(self._largest, t.amax(dim=0))
        self._te.addmm_(t.T, e)
        self._e += e.sum(dim=0)
        is_embedded = (e != 0).any(dim=1).double()
        powers = torch.stack([torch.ones_like(t), t, t.square()])
        self._moments += powers.sum(dim=1)
        self._moments_embedded += (powers * is_embedded[:, None]).sum(dim=1)
        self.n_images += len(t)

    def per_atom(self, *, codes_are_nonnegative: bool) -> AtomScores:
        """The weighted mean cosine of all pairs."""
        low, span = self._smallest, self._largest - self._smallest
        re = (self._te - low[:, None] * self._e) / span[:, None]
        r, r2 = self._relative(self._moments)
        pair_weights = r.square() - r2
        scores = (re.square().sum(dim=1) - self._relative(self._moments_embedded)[1]) / pair_weights
        never_active: Bool[Tensor, " atoms"] = span == 0
        if codes_are_nonnegative:
            never_active |= self._largest + self._origin <= 0
        not_finite = ~(self._largest.isfinite() & low.isfinite() & re.isfinite().all(dim=1)) & (span != 0)
        single = (self.n_images - self._n_smallest < 2) | (pair_weights < ROUNDING)
        return AtomScores.of(scores, never_active, single, not_finite)

    def _relative(
        self, moments: Float64[Tensor, "order atoms"]
    ) -> tuple[Float64[Tensor, " atoms"], Float64[Tensor, " atoms"]]:
        """Sum r and sum r^2 of those images of which the moments of t are given."""
        n, t, t2 = moments
        low, span = self._smallest, self._largest - self._smallest
        return (t - n * low) / span, (t2 - 2 * low * t + n * low.square()) / span.square()
