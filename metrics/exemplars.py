"""Exemplars: the images, and the token in each, that drive every atom most.

An image's score for an atom is the atom's largest code over the image's tokens (Bağcı et al. 2026, appendix B.2). Ties
are decided, not left to the sort: the lowest token within an image, the lowest image among images. So the answer does
not depend on how the split is cut into batches.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor


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

    @classmethod
    def of(cls, images: Int[Tensor, " images"], codes: Float[Tensor, "images tokens atoms"], k: int) -> "Exemplars":
        """The k best of a few images, given in ascending order; all of them where there are fewer than k."""
        scores, positions = codes.max(dim=1)  # torch promises the first of equal maxima
        smallest = codes.amin(dim=1).amin(dim=0)
        return cls(scores.T, images.to(codes.device).expand(len(smallest), -1), positions.T, smallest)._best(k)

    def followed_by(self, other: "Exemplars", k: int) -> "Exemplars":
        """The k best of both, where every image of `other` comes after every image of these."""
        return Exemplars(
            torch.cat([self.scores, other.scores], dim=1),
            torch.cat([self.images, other.images], dim=1),
            torch.cat([self.positions, other.positions], dim=1),
            torch.minimum(self.smallest, other.smallest),
        )._best(k)

    def _best(self, k: int) -> "Exemplars":
        # A stable sort, since torch.topk leaves the order of equal scores open; images that are in ascending order
        # wherever scores are equal stay so.
        scores, order = self.scores.sort(dim=1, descending=True, stable=True)
        order = order[:, :k]
        # The clone lets go of the sorted rest.
        return Exemplars(
            scores[:, :k].clone(), self.images.gather(1, order), self.positions.gather(1, order), self.smallest
        )

    def weights(self) -> Float64[Tensor, "atoms kept"]:
        """Scores min-max normalised to [0, 1] with the atom's extremes over all tokens; all 0 where these are equal.

        The best image weighs 1. Source: Bağcı et al. 2026, appendix B.2, "Weight construction".
        """
        scores, low = self.scores.double(), self.smallest.double()[:, None]
        span = scores[:, :1] - low
        return ((scores - low) / span).clamp(0, 1).where(span > 0, 0)
