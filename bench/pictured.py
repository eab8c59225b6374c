"""The images of a site for people: what the backbone sees of each, in enough pixels, as small files; where tokens are.

One image goes through the network for the shape of the map; nothing else is computed.
"""

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from bench.geometry import Seen
from bench.looked import LookedSite
from bench.pictures import FileOptions
from bench.sites import Site
from results.explored import Pictures

OPTIONS: Final[Mapping[str, Mapping[str, Any]]] = {"PNG": {"optimize": True}, "JPEG": {"quality": 85}}
"""Above that quality JPEG files grow much and people see little of it."""
N_TRIED: Final = 16
"""Images of a data set that are written in both formats."""


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


@dataclass
class Encoder:
    """Makes files of the images of one data set: of the first ones PNG and JPEG, then what was the smaller in all.

    Attributes:
        n_bytes: Of the files of each format so far.
        n_tried: How many images were written in both.
    """

    n_bytes: dict[str, int] = field(default_factory=lambda: {"PNG": 0, "JPEG": 0})
    n_tried: int = 0

    def __call__(self, image: Image.Image) -> bytes:
        """The image as a file."""
        if self.n_tried == N_TRIED:
            return written(image, min(self.n_bytes, key=self.n_bytes.__getitem__))
        files = {name: written(image, name) for name in self.n_bytes}
        self.n_tried += 1
        for name, file in files.items():
            self.n_bytes[name] += len(file)
        return min(files.values(), key=len)


def written(image: Image.Image, name: str) -> bytes:
    """The image in a format."""
    file = io.BytesIO()
    image.save(file, name, **OPTIONS[name])
    return file.getvalue()


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


def shape_at(site: Site, pixels: Tensor) -> tuple[torch.Size, bool]:
    """The shape of what the layer gives for one image, and whether channels come first in it."""
    seen: list[torch.Size] = []
    handle = site.module.register_forward_hook(lambda _module, _args, output: seen.append(output.shape))
    try:
        with torch.inference_mode():
            site.backbone.module(site.backbone.transform(pixels))
    finally:
        handle.remove()
    return seen[0], isinstance(site.module, torch.nn.Conv2d)


def grid_of(shape: Sequence[int], is_channels_first: bool, prefix: Sequence[str]) -> tuple[tuple[int, int] | None, int]:
    """Patches from top to bottom and from left to right, and tokens before them that are studied.

    Args:
        shape: Of what a layer gives for one image.
        is_channels_first: Whether it is (1, units, height, width); else units come last.
        prefix: Kinds of the tokens before the patches in a sequence.

    Returns:
        No grid where there is one position, or so many that they make no square: nobody knows where they are.
    """
    if len(shape) == 4:
        height, width = (shape[2], shape[3]) if is_channels_first else (shape[1], shape[2])
        return ((height, width) if height * width > 1 else None), 0
    n_tokens = shape[1] if len(shape) == 3 else 1
    n_patches = n_tokens - len(prefix)
    side = round(max(n_patches, 0) ** 0.5)
    if n_tokens == 1 or side < 1 or side * side != n_patches:
        return None, 0
    return (side, side), sum(kind != "register" for kind in prefix)
