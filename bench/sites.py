"""A site: one linear layer or 1x1 convolution of a backbone, read and replaced while the backbone runs.

Whatever the layer's own shape (tokens of a ViT, a channels-last or channels-first map, one pooled vector), a site
speaks of images x positions x width. The positions of a ViT begin with its CLS and register tokens.

A backbone may compute on another device and in 16 bit. What is read is on its device, and in float32 at least; what is
put in the place of the site's outputs is rounded to the network's own dtype.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from bench import UnknownNameError, UsageError
from bench.backbones import Backbone, widened
from bench.registry import unknown
from methods.layer import Linear
from methods.surgery import linear_at, problem_of

Images = UInt8[Tensor, "images 3 height width"]


def find_layer(root: nn.Module, path: str) -> Linear:
    """The linear layer or 1x1 convolution at a module path.

    Raises:
        UnknownNameError: There is no such module; the message suggests the nearest of those that could be a site.
        UsageError: The module is something else.
    """
    modules = dict(root.named_modules())
    if path not in modules:
        usable = [name for name, module in modules.items() if not problem_of(module)]
        raise UnknownNameError(unknown("module", path, usable, "the list in this message"))
    try:
        return linear_at(root, path)
    except ValueError as error:
        raise UsageError(str(error)) from None


def paths_of(root: nn.Module, pattern: str) -> tuple[str, ...]:
    """The module paths that a pattern matches (`fnmatch`: *, ?, [...]), of what can be a site, in the network's order.

    Raises:
        UnknownNameError: There is none; the message suggests the nearest of those that could be a site.
    """
    usable = [name for name, module in root.named_modules() if not problem_of(module)]
    found = tuple(name for name in usable if fnmatchcase(name, pattern))
    if not found:
        raise UnknownNameError(unknown("module", pattern, usable, "the list in this message"))
    return found


@dataclass(frozen=True, eq=False)
class Reading:
    """What one forward pass showed of a site."""

    inputs: Float[Tensor, "images positions d_in"]
    outputs: Float[Tensor, "images positions units"]
    logits: Float[Tensor, "images classes"]


class Site:
    """One place in a backbone, by module path.

    Attributes:
        backbone: The frozen network.
        path: Module path of the layer.
        d_in: Width of what enters it.
        units: Width of what leaves it.
    """

    def __init__(self, backbone: Backbone, path: str) -> None:
        """Find the layer and read its widths off it; errors as in `find_layer`."""
        self.backbone = backbone
        self.path = path
        self.module = find_layer(backbone.module, path)
        self.units, self.d_in = self.weight.shape

    @cached_property
    def unrounded(self) -> Linear:
        """The layer with its weights as they were before the network was rounded to 16 bit, on the site's device."""
        whole = self.backbone.unrounded
        if whole is None:
            return self.module
        with torch.inference_mode(False):
            return copy.deepcopy(find_layer(whole.module, self.path)).to(self.device)

    @property
    def device(self) -> torch.device:
        """Where the network computes."""
        return self.module.weight.device

    @property
    def weight(self) -> Float[Tensor, "units d_in"]:
        """The layer's kernel as a matrix, as it was before any rounding to 16 bit."""
        return self.unrounded.weight.detach().flatten(1)

    @property
    def bias(self) -> Float[Tensor, " units"] | None:
        """The layer's bias likewise, None where it has none."""
        return None if self.unrounded.bias is None else self.unrounded.bias.detach()

    @cached_property
    def in_float64(self) -> "Site":
        """The same place in a copy of the backbone in float64, made of the weights as they were before any rounding."""
        own = self.backbone.unrounded or self.backbone
        return Site(own.copied(self.device, torch.float64), self.path)

    def tokens_of(self, values: Tensor) -> Float[Tensor, "images positions width"]:
        """What the layer takes or gives, as images x positions x width."""
        if isinstance(self.module, nn.Conv2d):
            return values.movedim(1, -1).flatten(1, 2)
        return values.flatten(1, -2) if values.ndim > 2 else values.unsqueeze(1)

    def shaped_like(self, tokens: Float[Tensor, "images positions width"], shape: torch.Size) -> Tensor:
        """The inverse of `tokens_of`, for something of this shape."""
        return (tokens.movedim(-1, 1) if isinstance(self.module, nn.Conv2d) else tokens).reshape(shape)

    @torch.inference_mode()
    def read(self, images: Images) -> Reading:
        """One forward pass, and what went through the site in it.

        Raises:
            UsageError: The layer did not run exactly once, or its first axis is not the images.
        """
        seen: list[tuple[Tensor, Tensor]] = []

        def keep(_module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            # Copies: what comes after may work in place (ReLU(inplace=True), x += ...) and would change what was read.
            seen.append((args[0].clone(), output.clone()))

        handle = self.module.register_forward_hook(keep)
        try:
            logits = self.backbone.module(self.backbone.transform(images))
        finally:
            handle.remove()
        self.check_runs(len(seen))
        inputs, outputs = seen[0]
        self.check_outputs(len(outputs), len(images))
        return Reading(widened(self.tokens_of(inputs)), widened(self.tokens_of(outputs)), widened(logits))

    def check_runs(self, n: int) -> None:
        """Refuse a layer that runs never or twice in a forward pass."""
        if n != 1:
            raise UsageError(f"module: {self.path!r} ran {n} times in one forward pass; expected once; choose another")

    def check_outputs(self, n: int, n_images: int) -> None:
        """Refuse a layer whose first axis is not the images."""
        if n != n_images:
            raise UsageError(
                f"module: {self.path!r} gave {n} outputs for {n_images} images "
                f"(windows in their place?); expected one per image; choose another"
            )

    @torch.inference_mode()
    def logits_with(
        self, images: Images, outputs: Float[Tensor, "images positions units"]
    ) -> Float[Tensor, "images classes"]:
        """The backbone's logits with the site's outputs replaced by these."""
        handle = self.module.register_forward_hook(
            lambda _module, _args, own: self.shaped_like(outputs, own.shape).to(own.dtype)
        )
        try:
            return widened(self.backbone.module(self.backbone.transform(images)))
        finally:
            handle.remove()

    def class_gradients(
        self, images: Images, labels: Int[Tensor, " images"]
    ) -> Float[Tensor, "images positions units"]:
        """Gradient of each image's logit of its own class with respect to the site's outputs."""
        leaves: list[Tensor] = []

        def stand_in(_module: nn.Module, _args: tuple[Tensor, ...], output: Tensor) -> Tensor:
            leaves.append(output.detach().requires_grad_())
            return leaves[-1].clone()  # a copy, so that what comes after may work in place

        handle = self.module.register_forward_hook(stand_in)
        try:
            with torch.enable_grad():
                logits = self.backbone.module(self.backbone.transform(images))
                own = logits.gather(1, labels[:, None].to(logits.device)).sum()
                (gradients,) = torch.autograd.grad(own, leaves)
        finally:
            handle.remove()
        return widened(self.tokens_of(gradients))

    @contextmanager
    def swapped(self, layer: nn.Module) -> Iterator[nn.Module]:
        """The backbone with another layer, from (..., d_in) to (..., units), standing where the site's own stood."""
        parent_path, _, name = self.path.rpartition(".")
        parent = self.backbone.module.get_submodule(parent_path)
        setattr(parent, name, ChannelsFirst(layer) if isinstance(self.module, nn.Conv2d) else layer)
        try:
            yield self.backbone.module
        finally:
            setattr(parent, name, self.module)

    def kinds(self, n_positions: int) -> tuple[str, ...]:
        """Kind of each position: "cls", "register" or "patch" ("pooled" where there is only one)."""
        if n_positions == 1:
            return ("pooled",)
        prefix = () if isinstance(self.module, nn.Conv2d) else self.backbone.prefix
        return (*prefix, *("patch",) * (n_positions - len(prefix)))

    def kept(self, n_positions: int) -> Int[Tensor, " kept"]:
        """The positions that are studied: all but registers."""
        return torch.tensor([i for i, kind in enumerate(self.kinds(n_positions)) if kind != "register"])


class ChannelsFirst(nn.Module):
    """A layer on the last dimension, applied to a map whose channels come first."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, values: Float[Tensor, "images d_in height width"]) -> Float[Tensor, "images units height width"]:
        """The layer at every position."""
        outputs: Tensor = self.layer(values.movedim(1, -1))
        return outputs.movedim(-1, 1)
