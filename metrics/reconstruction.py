"""How well the codes rebuild the site's outputs: R2 and two named variants, from mergeable moments.

`1 - R2` of a lossless method is about 4e-14 in float32, so nothing here subtracts large sums of squares from each
other: means and centred sums of squares are merged as in Chan, Golub and LeVeque 1983 ("Algorithms for computing the
sample variance", eq. 2.1), in float64. Moments are kept per block of images (`metrics.intervals`). What concerns the
outputs alone is the same for every method and computed once for all; a method adds its error.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Final

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor
from torch.nn.functional import one_hot

from metrics.catalogue import MetricRow, Value, rows_of
from metrics.intervals import N_BLOCKS, block_counts, dealt, percentiles
from metrics.protocol import EvaluationBatch, EvaluationFacts

MAX_ELEMENTS: Final = 2**18  # converted to float64 at a time: 2 MiB, which stays in a cache
ROUNDING: Final = 1e-28  # of the sum of squares: variation below it is float64 rounding of a constant
ZERO: Final = 1e-6  # %: an R2 above minus this is not worth a warning


@dataclass(frozen=True)
class Moments:
    """Sufficient statistics of R2, for several blocks of tokens side by side.

    Attributes:
        n_tokens: Tokens in each block (with multiplicity, once resampled).
        mean: Their mean output vector; of no meaning in an empty block.
        variation: sum ||x - mean||^2 over them.
        error: sum ||x - x_hat||^2 over them.
    """

    n_tokens: Float64[Tensor, " blocks"]
    mean: Float64[Tensor, "blocks units"]
    variation: Float64[Tensor, " blocks"]
    error: Float64[Tensor, " blocks"]

    @classmethod
    def of(cls, x: Float[Tensor, "blocks tokens units"], x_hat: Float[Tensor, "blocks tokens units"]) -> "Moments":
        """Moments of outputs and their reconstruction, one block per entry of the first axis."""
        return cls.of_outputs(x).with_error(x, x_hat)

    @classmethod
    def of_outputs(cls, x: Float[Tensor, "blocks tokens units"]) -> "Moments":
        """Moments of outputs, without an error."""
        mean, variation = x.new_zeros(x.shape[::2], dtype=torch.float64), x.new_zeros(len(x), dtype=torch.float64)
        for some in _parts(x):
            precise = x[some].to(torch.float64, copy=True)
            torch.mean(precise, dim=1, out=mean[some])
            variation[some] = precise.sub_(mean[some, None]).square_().sum(dim=(1, 2))
        n_tokens = torch.full_like(variation, x.shape[1])
        return cls(n_tokens, mean, variation, torch.zeros_like(variation))

    def with_error(
        self, x: Float[Tensor, "blocks tokens units"], x_hat: Float[Tensor, "blocks tokens units"]
    ) -> "Moments":
        """The same, with the error of a reconstruction."""
        error = torch.zeros_like(self.error)
        for some in _parts(x):
            error[some] = x[some].to(torch.float64, copy=True).sub_(x_hat[some]).square_().sum(dim=(1, 2))
        return replace(self, error=error)

    def __add__(self, other: "Moments") -> "Moments":
        """Each block together with the same block of `other`; an empty block changes nothing."""
        n_tokens = self.n_tokens + other.n_tokens
        share = other.n_tokens / n_tokens.clamp(min=1)
        gap = other.mean - self.mean
        return Moments(
            n_tokens,
            self.mean + gap * share[:, None],
            self.variation + other.variation + gap.square().sum(dim=1) * self.n_tokens * share,
            self.error + other.error,
        )

    def pooled(self, counts: Float64[Tensor, "groups blocks"]) -> "Moments":
        """One block per group, made of every block as often as `counts` says.

        Ones pool everything, one-hot columns sort the blocks into groups, multinomial draws are bootstrap resamples.
        """
        tokens = counts * self.n_tokens
        n_tokens = tokens.sum(dim=1)
        # Relative to the mean of all, so that what is subtracted below is of the size of the variation itself.
        centre = self.n_tokens @ self.mean / self.n_tokens.sum()
        offset = self.mean - centre
        group_offset = tokens @ offset / n_tokens.clamp(min=1)[:, None]
        between = tokens @ offset.square().sum(dim=1) - n_tokens * group_offset.square().sum(dim=1)
        variation = counts @ self.variation + between.clamp(min=0)
        return Moments(n_tokens, centre + group_offset, variation, counts @ self.error)

    def r2(self) -> Float64[Tensor, " blocks"]:
        """1 - sum ||x - x_hat||^2 / sum ||x - mean vector||^2: 1 perfect, 0 the mean vector, NaN without variation."""
        return 1 - self._error_relative_to(self.variation)

    def r2_scalar_mean(self) -> Float64[Tensor, " blocks"]:
        """R2 against one mean over all elements: 1 perfect, 0 that mean, NaN without variation.

        Computed by overcomplete 0.3.0 (`metrics.r2_score`). Predicting the mean vector can score far above 0 on it.
        """
        offset = self.mean - self.mean.mean(dim=1, keepdim=True)
        return 1 - self._error_relative_to(self.variation + self.n_tokens * offset.square().sum(dim=1))

    def nmse_zero_baseline(self) -> Float64[Tensor, " blocks"]:
        """Squared error over sum ||x||^2: 0 perfect, 1 predicting zero, NaN where every output is zero."""
        return self._error_relative_to(self._sum_of_squares())

    def _sum_of_squares(self) -> Float64[Tensor, " blocks"]:
        return self.variation + self.n_tokens * self.mean.square().sum(dim=1)

    def _error_relative_to(self, baseline: Float64[Tensor, " blocks"]) -> Float64[Tensor, " blocks"]:
        has_variation = baseline > ROUNDING * self._sum_of_squares()
        return torch.where(has_variation, self.error / baseline, torch.nan)


class Reconstruction:
    """`r2`, `r2_scalar_mean` and `nmse_zero_baseline` in one pass, with intervals over blocks of images."""

    rows: ClassVar[tuple[MetricRow, ...]] = rows_of("metrics.reconstruction:Reconstruction")
    version: ClassVar[int] = 1
    passes: ClassVar[int] = 1

    def __init__(self, facts: EvaluationFacts) -> None:
        self._block_of_image = dealt(facts.n_images)
        self._n_images = 0
        self._blocks: Moments | None = None

    def update(self, batch: EvaluationBatch, *, pass_index: int) -> None:
        """Add each image's moments to its block."""
        images = batch.of_site(_outputs_alone).with_error(batch.outputs, batch.reconstruction)
        block_of_image = one_hot(self._block_of_image[batch.images.cpu()].long(), N_BLOCKS).double()
        blocks = images.pooled(block_of_image.T.to(images.mean.device))
        self._blocks = blocks if self._blocks is None else self._blocks + blocks
        self._n_images += len(batch.images)

    def compute(self) -> Mapping[str, Value]:
        """The three values; null without images, without variation, or where something is not finite."""
        if self._blocks is None:
            return {row.name: Value.null("no images") for row in self.rows}
        blocks = _filled(self._blocks)
        pooled = blocks.pooled(torch.ones_like(blocks.n_tokens)[None])
        if not (torch.isfinite(pooled.variation).all() and torch.isfinite(pooled.error).all()):
            reason = "the outputs or their reconstruction are not finite"
            return {row.name: Value.null(reason, n=self._n_images) for row in self.rows}
        n_blocks = len(blocks.n_tokens)
        counts = torch.from_numpy(block_counts(n_blocks)).double()
        resampled = blocks.pooled(counts if n_blocks > 1 else counts[:0])
        return {
            "r2": self._value(100 * pooled.r2(), 100 * resampled.r2()),
            "r2_scalar_mean": self._value(100 * pooled.r2_scalar_mean(), 100 * resampled.r2_scalar_mean()),
            "nmse_zero_baseline": self._value(pooled.nmse_zero_baseline(), resampled.nmse_zero_baseline()),
        }

    def _value(self, point: Float64[Tensor, " one"], resampled: Float64[Tensor, " resamples"]) -> Value:
        value = float(point)
        if np.isnan(value):
            return Value.null("the outputs do not vary", n=self._n_images)
        reason = "negative: wrong site or normalisation?" if value < -ZERO else None
        if len(resampled) == 0:
            return Value(value, None, None, "none: one block of images", self._n_images, reason=reason)
        low, high = percentiles(resampled[~resampled.isnan()].numpy())
        return Value(value, low, high, f"bootstrap over images in {N_BLOCKS} blocks", self._n_images, reason=reason)


def _outputs_alone(batch: EvaluationBatch) -> Moments:
    """Moments of each image's outputs."""
    return Moments.of_outputs(batch.outputs)


def _parts(x: Float[Tensor, "blocks tokens units"]) -> Iterator[slice]:
    """The blocks, a few at a time."""
    n_at_once = max(1, MAX_ELEMENTS // max(1, x.shape[1] * x.shape[2]))
    for start in range(0, len(x), n_at_once):
        yield slice(start, start + n_at_once)


def _filled(blocks: Moments) -> Moments:
    """The blocks that hold images, on the CPU."""
    kept = blocks.n_tokens > 0
    return Moments(*(column[kept].cpu() for column in (blocks.n_tokens, blocks.mean, blocks.variation, blocks.error)))
