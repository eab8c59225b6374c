"""Exemplars: the images, and the token in each, that drive every atom most.

An image's score for an atom is the atom's largest code over the image's tokens (Bağcı et al. 2026, appendix B.2). Ties
are decided, not left to the sort: the lowest token within an image, the lowest image among images. So the answer does
not depend on how the split is cut into batches.

Once k images are kept, another enters only with a score above the k-th best, which soon is rare: of the n-th image, the
share k / n of all atoms. Such candidates wait in a narrow buffer until it is full, and only then is anything sorted.
"""

from dataclasses import dataclass
from typing import Final

import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from metrics.codes import CodeSummary

MAX_WAITING: Final = 64  # candidates of an atom that wait to be sorted in


@dataclass(frozen=True)
class Exemplars:
    """The best images of each atom, best first; equal scores by ascending image.

    Attributes:
        scores: The atom's largest code in each image; the first is its largest over the split.
        images: Index of each image in the evaluation split.
        positions: The token where that code is found, the lowest of equal ones.
        smallest: The atom's smallest code over all tokens of all images, kept or not.
    """

    scores: Float[Tensor, "atoms kept"]
    images: Int[Tensor, "atoms kept"]
    positions: Int[Tensor, "atoms kept"]
    smallest: Float[Tensor, " atoms"]

    def weights(self) -> Float64[Tensor, "atoms kept"]:
        """Scores min-max normalised to [0, 1] with the atom's extremes over all tokens; all 0 where these are equal.

        The best image weighs 1. Source: Bağcı et al. 2026, appendix B.2, "Weight construction".
        """
        scores, low = self.scores.double(), self.smallest.double()[:, None]
        span = scores[:, :1] - low
        return ((scores - low) / span).clamp(0, 1).where(span > 0, 0)


@dataclass(frozen=True)
class _Scored:
    """Images with their scores and positions, several for each atom; columns beyond those in use score -inf."""

    scores: Float[Tensor, "atoms several"]
    images: Int[Tensor, "atoms several"]
    positions: Int[Tensor, "atoms several"]

    @classmethod
    def none(cls, n: int, like: Float[Tensor, "images atoms"]) -> "_Scored":
        """Room for n images of each atom."""
        shape = like.shape[1], n
        images, positions = (like.new_zeros(shape, dtype=torch.int32) for _ in range(2))
        return cls(like.new_full(shape, -torch.inf), images, positions)

    def rows(self, atoms: Int[Tensor, " some"], n: int) -> "_Scored":
        """The first n images of some atoms."""
        return _Scored(self.scores[atoms, :n], self.images[atoms, :n], self.positions[atoms, :n])

    def best(self, k: int, *, after: "_Scored") -> "_Scored":
        """The k best of both, where every image of these comes after every one of the others."""
        # A stable sort, since torch.topk leaves the order of equal scores open; images that are in ascending order
        # wherever scores are equal stay so. NaN comes first.
        both = torch.cat([after.scores, self.scores], dim=1).sort(dim=1, descending=True, stable=True)
        order = both.indices[:, :k]
        images = torch.cat([after.images, self.images], dim=1).gather(1, order)
        positions = torch.cat([after.positions, self.positions], dim=1).gather(1, order)
        return _Scored(both.values[:, :k].clone(), images, positions)  # the clone lets go of the sorted rest


class Ranking:
    """The exemplars of every atom among the images so far; what it holds does not grow with their number.

    Args:
        k: Images kept for each atom; all of them where there are fewer.
    """

    def __init__(self, k: int) -> None:
        self._k = k
        self._kept: _Scored | None = None
        self._waiting: _Scored | None = None
        self._n_waiting: Int[Tensor, " atoms"] | None = None
        self._smallest: Float[Tensor, " atoms"] | None = None

    def add(self, images: Int[Tensor, " images"], summary: CodeSummary) -> None:
        """Take in a few images, in ascending order and each after all before."""
        if len(images) == 0:
            return
        smallest = summary.smallest.amin(dim=0)
        self._smallest = smallest if self._smallest is None else torch.minimum(self._smallest, smallest)
        images = images.to(smallest.device, torch.int32)
        kept = self._kept
        if kept is None or kept.scores.shape[1] < self._k:
            some = _Scored(summary.largest.T, images.expand(len(smallest), -1), summary.position.int().T)
            self._kept = some.best(self._k, after=_Scored.none(0, summary.largest) if kept is None else kept)
            return
        for start in range(0, len(images), MAX_WAITING):
            part = slice(start, start + MAX_WAITING)
            self._add_candidates(images[part], summary.largest[part], summary.position[part])

    def _add_candidates(
        self, images: Int[Tensor, " images"], scores: Float[Tensor, "images atoms"], positions: Int[Tensor, "..."]
    ) -> None:
        enters, n_entering = self._entering(scores)
        if self._waiting is None or self._n_waiting is None:
            self._waiting = _Scored.none(MAX_WAITING, scores)
            self._n_waiting = torch.zeros_like(scores[0], dtype=torch.int64)
        elif int((self._n_waiting + n_entering).max()) > MAX_WAITING:
            self._sort_in()
            enters, n_entering = self._entering(scores)
        rows, atoms = enters.nonzero(as_tuple=True)  # by ascending image, so that an atom's candidates are
        slots = (enters.cumsum(dim=0) + (self._n_waiting - 1))[rows, atoms]
        self._waiting.scores[atoms, slots] = scores[rows, atoms]
        self._waiting.images[atoms, slots] = images[rows]
        self._waiting.positions[atoms, slots] = positions[rows, atoms].int()
        self._n_waiting += n_entering

    def _entering(
        self, scores: Float[Tensor, "images atoms"]
    ) -> tuple[Bool[Tensor, "images atoms"], Int[Tensor, " atoms"]]:
        """Which images may be among the k best, and how many: no equal score displaces an earlier image's."""
        assert self._kept is not None
        enters = ~(scores <= self._kept.scores[:, -1])  # NaN ranks first, and is neither above nor below
        return enters, enters.sum(dim=0)

    def _sort_in(self) -> None:
        kept, waiting, n_waiting = self._kept, self._waiting, self._n_waiting
        if kept is None or waiting is None or n_waiting is None:
            return
        atoms = n_waiting.nonzero()[:, 0]
        if len(atoms) == 0:
            return
        n = int(n_waiting.max())
        best = waiting.rows(atoms, n).best(self._k, after=kept.rows(atoms, self._k))
        kept.scores[atoms], kept.images[atoms], kept.positions[atoms] = best.scores, best.images, best.positions
        waiting.scores[atoms] = -torch.inf
        n_waiting.zero_()

    def exemplars(self) -> Exemplars | None:
        """The best so far; None where there were no images."""
        self._sort_in()
        if self._kept is None or self._smallest is None:
            return None
        kept = self._kept
        return Exemplars(kept.scores.clone(), kept.images.clone(), kept.positions.clone(), self._smallest)
