"""Values with 95 % intervals: Wilson for proportions, the percentile bootstrap for everything else.

Intervals are never optional (Agarwal et al. 2021, arXiv:2108.13264). The bootstrap is deterministic: a fixed seed, a
fixed number of resamples, and the same values in the same order give the same interval. What an interval is over
(images, atoms) is said in `Value.interval`; it covers the draw of those, not the seeds of the method.

Sums over images are kept in 64 blocks, so that nothing grows with the number of images and the bootstrap over images
resamples blocks. Images are dealt to blocks at random with a fixed seed: the interval depends on neither the batch size
nor the order of the split. Blocks of every 64th image would each hold a bit of everything where the split is sorted by
class, differ too little, and give intervals that are too narrow.
"""

from typing import Final, Literal

import numpy as np
import torch
from jaxtyping import Float, Float64, Int, UInt8
from torch import Tensor

from metrics.catalogue import Value

CONFIDENCE: Final = 0.95
N_RESAMPLES: Final = 1000
SEED: Final = 20260
N_BLOCKS: Final = 64
MAX_RESAMPLED_NUMBERS: Final = 2**21  # held at a time: 16 MiB of indices and as much of values


def proportion(n_hits: int, n: int, over: str, *, reason: str | None = None) -> Value:
    """The share of hits in %, with its Wilson interval.

    Args:
        n_hits: How many of them are hits, 0 to `n`; both extremes have an interval of positive width.
        n: How many there are; 0 gives a null.
        over: What they are ("images", "atoms").
        reason: What the reader should know about it.
    """
    if n == 0:
        return Value.null(f"no {over}")
    from scipy.stats import binomtest  # here, since importing it takes a second and many need no proportion

    interval = binomtest(n_hits, n).proportion_ci(confidence_level=CONFIDENCE, method="wilson")
    low, high = 100 * float(interval.low), 100 * float(interval.high)
    return Value(100 * n_hits / n, low, high, f"wilson over {over}", n, reason=reason)


def bootstrapped(
    numbers: Float64[np.ndarray, " things"],
    over: str,
    *,
    statistic: Literal["mean", "median"] = "mean",
    n_excluded: int = 0,
    reason: str | None = None,
) -> Value:
    """The mean or median, with its percentile bootstrap interval.

    Args:
        numbers: One finite number per thing, in the unit of the value; none gives a null, a single one a value without
            an interval, equal ones an interval of width 0.
        over: What the things are ("images", "atoms").
        statistic: What to take of them.
        n_excluded: How many things were left out beforehand.
        reason: Why they were, or what else the reader should know.
    """
    n = len(numbers)
    if n == 0:
        return Value.null(reason or f"no {over}", n_excluded=n_excluded)
    of = np.mean if statistic == "mean" else np.median
    value = float(of(numbers))
    if n == 1:
        return Value(value, None, None, f"none: one of {over}", 1, n_excluded, reason)
    rng = np.random.default_rng(SEED)
    n_at_once = max(1, MAX_RESAMPLED_NUMBERS // n)
    resampled = np.concatenate(
        [
            of(numbers[rng.integers(n, size=(min(n_at_once, N_RESAMPLES - start), n))], axis=1)
            for start in range(0, N_RESAMPLES, n_at_once)
        ]
    )
    low, high = percentiles(resampled)
    return Value(value, low, high, f"bootstrap over {over}", n, n_excluded, reason)


def dealt(n_images: int) -> UInt8[Tensor, " images"]:
    """The block of each image of the split; blocks differ in size by one image at most."""
    shuffled = torch.randperm(n_images, generator=torch.Generator().manual_seed(SEED))
    return (shuffled % N_BLOCKS).to(torch.uint8)


class ImageMean:
    """The mean of one number per image, with an interval over images; 64 sums, however many images there are.

    Args:
        n_images: Images of the evaluation split.
    """

    def __init__(self, n_images: int) -> None:
        self._block_of_image = dealt(n_images)
        self._n: Float64[Tensor, " blocks"] = torch.zeros(N_BLOCKS, dtype=torch.float64)
        self._sum: Float64[Tensor, " blocks"] = torch.zeros(N_BLOCKS, dtype=torch.float64)

    def add(self, images: Int[Tensor, " images"], numbers: Float64[Tensor, " images"]) -> None:
        """Take in the finite numbers of some images, each image once in all."""
        blocks = self._block_of_image[images.cpu()].long()
        self._sum.index_add_(0, blocks, numbers.cpu())
        self._n.index_add_(0, blocks, torch.ones_like(blocks, dtype=torch.float64))

    def value(self, *, n_excluded: int = 0, reason: str | None = None) -> Value:
        """The mean; null where no image was taken in, without an interval where one was.

        Args:
            n_excluded: How many images were left out.
            reason: Why they were.
        """
        n = int(self._n.sum())
        if n == 0:
            return Value.null(reason or "no images", n_excluded=n_excluded)
        value = float(self._sum.sum()) / n
        is_filled = self._n > 0
        sums, sizes = self._sum[is_filled].numpy(), self._n[is_filled].numpy()
        if len(sizes) == 1:
            return Value(value, None, None, "none: one block of images", n, n_excluded, reason)
        counts = block_counts(len(sizes))
        low, high = percentiles((counts @ sums) / (counts @ sizes))
        return Value(value, low, high, f"bootstrap over images in {N_BLOCKS} blocks", n, n_excluded, reason)


def block_counts(n_blocks: int) -> Int[np.ndarray, "resamples blocks"]:
    """How often each block is drawn in each resample: rows sum to the number of blocks.

    For statistics that merge, so that a resample costs one weighted sum instead of a pass over the data.
    """
    rng = np.random.default_rng(SEED)
    return rng.multinomial(n_blocks, np.full(n_blocks, 1 / n_blocks), size=N_RESAMPLES)


def percentiles(resampled: Float[np.ndarray, " resamples"]) -> tuple[float, float]:
    """Both ends of the percentile interval of resampled values, all finite and at least one."""
    low, high = np.quantile(resampled, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)
