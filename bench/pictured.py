"""The images of a site for people: what the backbone sees of each, in enough pixels, as small files."""

import io
from collections.abc import Iterable

import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from bench.geometry import Seen
from bench.looked import LookedSite, grid_of, shape_at
from bench.pictures import FileOptions
from results.explored import Pictures

QUALITY = 85
"""Of JPEG files: above it they grow much and people see little of it."""


def images_of(one: LookedSite, rows: Iterable[int], side: int) -> list[Image.Image]:
    """What the backbone sees of some images of the evaluation split.

    Args:
        one: The site.
        rows: Which images.
        side: Pixels of a side, at most; as many where the stored image has them. Smaller ones stay as they are.
    """
    split = one.dataset.test
    split = split.at_least(side) if isinstance(split, Seen) else split
    wanted = list(rows)
    if not wanted:
        return []
    return [reduced(pixels, side) for pixels in split.images(torch.tensor(wanted))]


def reduced(pixels: UInt8[Tensor, "3 height width"], side: int) -> Image.Image:
    """An image of at most so many pixels a side."""
    image = Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return image


def encoded(image: Image.Image) -> bytes:
    """The image as PNG or JPEG, whichever is smaller."""
    png, jpeg = io.BytesIO(), io.BytesIO()
    image.save(png, "PNG", optimize=True)
    image.save(jpeg, "JPEG", quality=QUALITY)
    return min(png.getvalue(), jpeg.getvalue(), key=len)


def bare(one: LookedSite) -> Pictures:
    """The pictures of a site without any picture: where tokens are, the licence."""
    shape, is_channels_first = shape_at(one.site, one.dataset.test.images(torch.arange(1)))
    grid, n_prefix = grid_of(shape, is_channels_first, one.site.backbone.prefix)
    component = one.spec.dataset
    is_embedded = component.entry.owner == "eludebench" and not isinstance(component.built, FileOptions)
    return Pictures(one.spec.label, {}, {}, grid, n_prefix, one.dataset.licence, is_embedded)


def captions_of(one: LookedSite, rows: Iterable[int]) -> dict[int, str]:
    """The class of each image, by index; none without labels."""
    labels, classes = one.dataset.test.labels, one.dataset.classes
    if labels is None:
        return {}
    named = ((row, int(labels[row])) for row in rows)
    return {row: classes[label] for row, label in named if 0 <= label < len(classes)}
