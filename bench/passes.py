"""One forward pass that serves several sites, left as soon as the last of them has run; and which tokens are taken."""

from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from weakref import ReferenceType, ref

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from bench.backbones import Backbone
from bench.sites import Images, Site


def sampled_positions(
    n_images: int, kept: Int[Tensor, " kept"], per_image: int, token_seed: int
) -> Int[Tensor, "images per_image"]:
    """Random positions of every image, without repetition, ascending; the same seed gives the same ones.

    Drawn for all images in index order from one generator, so that they depend on nothing but the arguments. Where an
    image has fewer positions than asked for, all are taken.
    """
    generator = torch.Generator().manual_seed(token_seed)
    per_image = min(per_image, len(kept))
    positions = torch.empty(n_images, per_image, dtype=torch.long)
    for block in positions.split(4096):
        order = torch.rand(len(block), len(kept), generator=generator).argsort(dim=1)
        block.copy_(kept[order[:, :per_image].sort(dim=1).values])
    return positions


class Enough(BaseException):
    """Every site has run; no exception that a network would take for a failure."""


@dataclass(frozen=True, eq=False)
class Taken:
    """What one forward pass showed of a site at the positions that were asked for."""

    inputs: Float[Tensor, "images taken d_in"]
    outputs: Float[Tensor, "images taken units"]


class Copies:
    """Copies of what layers take and give in one forward pass; what several of them share is copied once."""

    def __init__(self) -> None:
        self.made: list[tuple[ReferenceType[Tensor], object, Tensor]] = []

    def of(self, site: Site, values: Tensor, positions: Int[Tensor, "images taken"] | None) -> Tensor:
        """The values at these positions, all where there are none: later work in place changes nothing of them."""
        # An inference tensor counts no changes in place, so that nobody knows whether it still is what was copied.
        version = None if values.is_inference() else values._version
        how = (version, id(positions), isinstance(site.module, nn.Conv2d))
        for known, known_how, copied in self.made:
            if known() is values and known_how == how and version is not None:
                return copied
        tokens = site.tokens_of(values)
        if positions is None:
            copied = tokens.clone()
        else:
            copied = tokens[torch.arange(len(tokens), device=tokens.device)[:, None], positions.to(tokens.device)]
        self.made.append((ref(values), how, copied))
        return copied


@torch.no_grad()
def read_many(
    backbone: Backbone,
    sites: Sequence[Site],
    images: Images,
    positions: Sequence[Int[Tensor, "images _"]] | None = None,
    *,
    stop: bool = True,
) -> list[Taken]:
    """What goes through several sites of one backbone in one forward pass, in their order.

    Args:
        backbone: The network.
        sites: Different places in it.
        images: What it is shown.
        positions: Which positions of each image to take, site by site; None takes all of them.
        stop: Leave the forward pass as soon as the last of the sites has run. Then a site that would run once more is
            not noticed: the first images of many are run to the end.

    Raises:
        UsageError: A layer did not run exactly once, or its first axis is not the images.
    """
    copies, taken, n_runs = Copies(), dict[int, Taken](), [0] * len(sites)

    def keep(index: int, args: tuple[Tensor, ...], output: Tensor) -> None:
        n_runs[index] += 1
        if n_runs[index] == 1:
            site, where = sites[index], None if positions is None else positions[index]
            site.check_outputs(len(output), len(images))
            taken[index] = Taken(copies.of(site, args[0], where), copies.of(site, output, where))
        if stop and all(n_runs):
            raise Enough

    with ExitStack() as stack:
        for index, site in enumerate(sites):
            hook = site.module.register_forward_hook(lambda _module, args, out, index=index: keep(index, args, out))
            stack.callback(hook.remove)
        with suppress(Enough):
            backbone.module(backbone.transform(images))
    for site, n in zip(sites, n_runs, strict=True):
        site.check_runs(n)
    return [taken[index] for index in range(len(sites))]
