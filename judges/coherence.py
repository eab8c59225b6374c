"""How alike the nine cells of a grid are, computed from pixels in three ways: what proxy judges go by.

Each takes the mean over all 36 pairs of cells of a likeness that is 1 for equal cells. Nothing is learnt, from labels
or otherwise: constants are fixed, and the filters are drawn once and for all. They see colour, outline and texture, not
meaning, so they stand in for a judge where there is none and say nothing of what people would see.

- `pixels`: cosine of the colours, coarsely, each cell less most of its own mean grey.
- `texture`: distance of mean colours and of the energy of edges at three scales.
- `filters`: distance of the responses to random filters at two scales, and of colour histograms.

Objects fill the middle of most images, so the last two weigh pixels by a wide bell around it.
"""

import io
import math
from collections.abc import Callable, Mapping
from functools import cache
from typing import Final

import numpy as np
from jaxtyping import Float64

VERSION: Final = 1
"""Raised whenever the same grid would score otherwise than before."""

BLANK: Final = -1.0
"""The score of a grid of one colour: it shows no concept, however alike its cells are; no other grid scores as low."""

SIDE: Final = 24  # pixels a cell is reduced to

_BINS: Final = 6  # of the colour histogram, along each of red, green and blue
_PATCH, _STRIDE, _FILTERS = 4, 2, 16

Cells = Float64[np.ndarray, "9 channels side side"]
Features = Float64[np.ndarray, "9 features"]


def coherences(png: bytes) -> dict[str, float]:
    """How alike the cells of a grid are, in [-1, 1], by the names in `WAYS`; `BLANK` for a grid of one colour.

    All at once, since to read the picture takes a third of the time.

    Raises:
        ValueError: The bytes are no picture.
    """
    cells = cells_of(png)
    is_blank = bool(cells.min() == cells.max())
    return {name: BLANK if is_blank else way(cells) for name, way in WAYS.items()}


def cells_of(png: bytes) -> Float64[np.ndarray, "9 3 side side"]:
    """The cells of a grid in RGB, 0 to 1, row by row, averaged down to `SIDE` pixels.

    Raises:
        ValueError: The bytes are no picture.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(png)) as image:
            small = image.convert("RGB").resize((3 * SIDE, 3 * SIDE), Image.Resampling.BOX)
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise ValueError(
            f"grid: got {len(png)} bytes that are no picture ({error}); expected a PNG; make it again"
        ) from error
    pixels = np.asarray(small, np.float64).reshape(3, SIDE, 3, SIDE, 3) / 255
    return np.ascontiguousarray(pixels.transpose(0, 2, 4, 1, 3).reshape(9, 3, SIDE, SIDE))


def pixels(cells: Cells) -> float:
    """Mean cosine of the cells as 6 x 6 colours.

    Of a cell's mean grey, three tenths are kept: all of it, and any two bright images would be alike; none, and flat
    areas would have no brightness at all.
    """
    coarse = halved(halved(cells)).reshape(9, -1)
    mean = coarse.mean(1, keepdims=True)
    return _cosine(coarse - mean + 0.3 * (mean - 0.5))


def texture(cells: Cells) -> float:
    """Mean likeness of mean colours and of log energies of edges, by direction and channel, at three scales."""
    image = _opponent(cells)
    found = [_weighted_mean(image) * np.array([2.0, 4.0, 4.0])]
    for _ in range(3):
        across = np.diff(image, axis=3)[:, :, 1:]
        down = np.diff(image, axis=2)[:, :, :, 1:]
        found += [np.log(np.sqrt(_weighted_mean(edges**2)) + 0.01) for edges in (across, down)]
        image = halved(image)
    return likeness(np.concatenate(found, axis=1), 2.0)


def filters(cells: Cells) -> float:
    """Mean likeness of means and log deviations of 16 filter responses at two scales, and of colour histograms."""
    image = _opponent(cells)
    found = []
    for scale in range(2):
        responses = _responses(image, scale)
        weight = _bell(math.isqrt(responses.shape[1])).ravel()
        mean = weight @ responses
        variance = weight @ (responses - mean[:, None]) ** 2
        found += [8 * mean, np.log(np.sqrt(variance) + 0.01)]
        image = halved(image)
    return (likeness(np.concatenate(found, axis=1), 3.0) + likeness(histogram(halved(cells)), 0.7)) / 2


WAYS: Final[Mapping[str, Callable[[Cells], float]]] = {"pixels": pixels, "texture": texture, "filters": filters}
"""The three ways by name."""


def _cosine(features: Features) -> float:
    """Mean cosine of two rows; one without length is like no other."""
    length = np.linalg.norm(features, axis=1, keepdims=True)
    unit = np.divide(features, length, out=np.zeros_like(features), where=length > 0)
    return _mean_pair(unit @ unit.T)


def likeness(features: Features, scale: float) -> float:
    """Mean exp(-d^2 / (2 scale^2)) of the distance d of two rows."""
    squares = ((features[:, None] - features) ** 2).sum(2)
    return _mean_pair(np.exp(-squares / (2 * scale**2)))


def _mean_pair(matrix: Float64[np.ndarray, "9 9"]) -> float:
    """The mean of the entries off the diagonal of a symmetric matrix."""
    return float(matrix[np.triu_indices(9, 1)].mean())


def _opponent(cells: Float64[np.ndarray, "9 3 side side"]) -> Float64[np.ndarray, "9 3 side side"]:
    """Grey, red against green, and yellow against blue."""
    red, green, blue = cells[:, 0], cells[:, 1], cells[:, 2]
    return np.stack([(red + green + blue) / 3, red - green, (red + green) / 2 - blue], axis=1)


def halved(image: Cells) -> Float64[np.ndarray, "9 channels half half"]:
    """Blocks of 2 x 2 pixels averaged."""
    rows = image[:, :, ::2] + image[:, :, 1::2]
    halved: Float64[np.ndarray, "9 channels half half"] = (rows[..., ::2] + rows[..., 1::2]) / 4
    return halved


@cache
def _bell(side: int) -> Float64[np.ndarray, "side side"]:
    """Weights of pixels that add up to one: a Gaussian whose deviation is 0.35 sides."""
    at = (np.arange(side) + 0.5) / side * 2 - 1
    along = np.exp(-(at**2) / (2 * 0.7**2))
    weights: Float64[np.ndarray, "side side"] = along[:, None] * along
    weights /= weights.sum()
    return weights


def _weighted_mean(image: Cells) -> Float64[np.ndarray, "9 channels"]:
    """The mean of each channel, weighted towards the middle."""
    mean: Float64[np.ndarray, "9 channels"] = (image * _bell(image.shape[-1])).sum((2, 3))
    return mean


@cache
def _bank(scale: int) -> Float64[np.ndarray, "inputs filters"]:
    """Filters of opponent patches with weights in [-0.25, 0.25], half of each channel's mean taken off.

    Drawn as whole words of the bit generator, which NumPy promises never to change.
    """
    words = np.random.PCG64(scale).random_raw(3 * _PATCH**2 * _FILTERS)
    weights: Float64[np.ndarray, "3 patch filters"] = (words / 2.0**64 - 0.5).reshape(3, _PATCH**2, _FILTERS)
    weights -= weights.mean(1, keepdims=True) / 2
    return weights.reshape(-1, _FILTERS) / 2


def _responses(image: Cells, scale: int) -> Float64[np.ndarray, "9 places filters"]:
    """What the filters give at every second place, both ways."""
    windows = np.lib.stride_tricks.sliding_window_view(image, (_PATCH, _PATCH), axis=(2, 3))[:, :, ::_STRIDE, ::_STRIDE]
    patches = windows.transpose(0, 2, 3, 1, 4, 5).reshape(9, windows.shape[2] * windows.shape[3], -1)
    responses: Float64[np.ndarray, "9 places filters"] = patches @ _bank(scale)
    return responses


def histogram(cells: Float64[np.ndarray, "9 3 side side"]) -> Features:
    """Square roots of the shares of colours; a pixel is shared between its neighbouring bins.

    So the distance of two rows is Hellinger's, times the square root of two.
    """
    at = cells.transpose(1, 0, 2, 3).reshape(3, 9, -1) * (_BINS - 1)
    low = np.minimum(at.astype(np.int64), _BINS - 2)
    high_share = at - low
    weight = _bell(cells.shape[-1]).ravel()
    first = np.arange(9)[:, None] * _BINS**3
    counts = np.zeros(9 * _BINS**3)
    for corner in np.ndindex(2, 2, 2):
        bins, share = first, weight
        for channel, step in enumerate(corner):
            bins = bins + (low[channel] + step) * _BINS ** (2 - channel)
            share = share * (high_share[channel] if step else 1 - high_share[channel])
        counts += np.bincount(bins.ravel(), share.ravel(), len(counts))
    return np.sqrt(counts).reshape(9, -1)
