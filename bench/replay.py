"""The rest of a forward pass: the network from a site on, run again with other outputs of the site.

Every method's accuracy after replacement takes one run of what comes after the site, and none of what stands before.
Modules that came to their end before the site ran give again what they gave; the code between them runs as it is. Of
what they gave, only what the rest reads is held: which that is, is found out on two images, by putting NaN in its
place. That is no proof, since what is only compared swallows NaN: so every batch shows whether the logits come out the
same, bit for bit. Where once they do not, the whole network runs from then on.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bench.backbones import widened
from bench.sites import Images, Reading, Site

Call = tuple[str, int]
"""A module by its path, and which of its calls before the site ran."""
N_TRIED = 2
"""Images on which it is found out what the rest reads."""


@dataclass(frozen=True)
class Hollow:
    """A tensor that nothing reads, by shape and dtype."""

    shape: torch.Size
    dtype: torch.dtype
    device: torch.device

    def filled(self) -> Tensor:
        """NaN of that shape, without memory."""
        return torch.full((), torch.nan, dtype=self.dtype, device=self.device).expand(self.shape)


class Replay:
    """Reads a site, and runs the rest of the network again.

    Attributes:
        site: The site.
        read_later: The calls whose results the rest reads; None until the first batch.
        is_exact: Whether the rest alone gave the whole network's logits for every batch; None until the first.
    """

    def __init__(self, site: Site) -> None:
        self.site = site
        self.read_later: frozenset[Call] | None = None
        self.is_exact: bool | None = None
        self.images: Images | None = None
        self.pixels: Tensor | None = None
        self.given: dict[Call, Any] = {}
        self.shape, self.dtype = torch.Size(), torch.float32

    def read(self, images: Images) -> Reading:
        """One forward pass; what the rest reads of it is held until the next.

        Raises:
            UsageError: As in `Site.read`.
        """
        if self.is_exact is None:
            self.try_out(images)
        with self.recorded():
            reading = self.site.read(images)
        self.images, self.pixels = images, self.site.backbone.transform(images)
        if self.is_exact is not False:
            self.is_exact = torch.equal(self.rest(reading.outputs), reading.logits)
        if not self.is_exact:
            self.given = {}
        return reading

    def logits_with(
        self, images: Images, outputs: Float[Tensor, "images positions units"]
    ) -> Float[Tensor, "images classes"]:
        """The logits of these images with the site's outputs replaced; the rest alone runs if they were read last."""
        return self.rest(outputs) if self.is_exact and images is self.images else self.site.logits_with(images, outputs)

    @torch.inference_mode()
    def try_out(self, images: Images) -> None:
        """Find out what the rest reads, and whether it can run alone."""
        few = images[:N_TRIED]
        try:
            with self.recorded():
                reading = self.site.read(few)
        except TypeError:
            self.is_exact = False
            return
        self.pixels = self.site.backbone.transform(few)
        given, self.given = self.given, {}
        hollow = {call: hollowed(value) for call, value in given.items()}

        def is_same_with(values: Mapping[Call, Any]) -> bool:
            self.given = dict(values)
            try:
                return torch.equal(self.rest(reading.outputs), reading.logits)
            except Exception:  # whatever a network says of NaN, or of a place that cannot be written to
                return False

        if not is_same_with(given):
            self.is_exact = False
            return
        read = {call for call in given if not is_same_with(given | {call: hollow[call]})}
        needed = {call: given[call] if call in read else hollow[call] for call in given}
        self.read_later = frozenset(read if is_same_with(needed) else given)

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Within, what modules give before the site runs is kept; a module inside another such one is none."""
        self.given = {}
        if self.is_exact is False:
            yield
            return
        has_run: list[bool] = []
        counts: dict[str, int] = {}

        def keep(path: str) -> Callable[..., None]:
            def hook(_module: nn.Module, _args: tuple[Any, ...], value: Any) -> None:
                if has_run:
                    return
                call = (path, counts.get(path, 0))
                counts[path] = call[1] + 1
                is_read = self.read_later is None or call in self.read_later
                self.given[call] = mapped(Tensor.clone, value) if is_read else hollowed(value)

            return hook

        def at_site(_module: nn.Module, _args: tuple[Any, ...], value: Tensor) -> None:
            self.shape, self.dtype = value.shape, value.dtype
            has_run.append(True)

        handles = [module.register_forward_hook(keep(path)) for path, module in self.before()]
        handles.append(self.site.module.register_forward_hook(at_site))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def before(self) -> list[tuple[str, nn.Module]]:
        """The modules that may have ended before the site runs: children of those it is inside of."""
        parts = self.site.path.split(".")
        found: dict[nn.Module, str] = {}
        for n in range(len(parts)):
            path = ".".join(parts[:n])
            for name, child in self.site.backbone.module.get_submodule(path).named_children():
                if not any(module is self.site.module for module in child.modules()):
                    found.setdefault(child, f"{path}.{name}" if path else name)
        return [(path, module) for module, path in found.items()]

    @torch.inference_mode()
    def rest(self, outputs: Float[Tensor, "images positions units"]) -> Float[Tensor, "images classes"]:
        """The logits, from the site on."""
        site, root = self.site, self.site.backbone.module
        with ExitStack() as stack:
            for path in {path for path, _ in self.given}:
                module = root.get_submodule(path)
                values = [self.given[path, n] for n in range(len(self.given)) if (path, n) in self.given]
                stack.enter_context(running(module, giving(values, module.forward)))
            own = site.shaped_like(outputs, self.shape).to(self.dtype)
            stack.enter_context(running(site.module, lambda _values: own))
            return widened(root(self.pixels))


@contextmanager
def running(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Within, the module computes this instead; whatever hooks it has stay."""
    own = module.__dict__.get("forward")  # somebody may have put one there already
    module.__dict__["forward"] = forward
    try:
        yield
    finally:
        del module.__dict__["forward"]
        if own is not None:
            module.__dict__["forward"] = own


def giving(values: Sequence[Any], otherwise: Callable[..., Any]) -> Callable[..., Any]:
    """A forward that gives these, one a call, and then computes as before.

    What is given are copies: what comes after may work in place.
    """
    left = iter(values)

    def forward(*args: Any, **options: Any) -> Any:
        for value in left:
            return mapped(lambda one: one.filled() if isinstance(one, Hollow) else one.clone(), value)
        return otherwise(*args, **options)

    return forward


def hollowed(value: Any) -> Any:
    """The same without its numbers; whole ones stay, since nothing among them is NaN."""

    def hollow(one: Tensor) -> Tensor | Hollow:
        return Hollow(one.shape, one.dtype, one.device) if one.is_floating_point() else one.clone()

    return mapped(hollow, value)


def mapped(change: Callable[[Any], Any], value: Any) -> Any:
    """What a module gave, with every tensor in it changed.

    Raises:
        TypeError: There is something in it that is neither a tensor nor a tuple or list of them.
    """
    if value is None:
        return None
    if isinstance(value, Tensor | Hollow):
        return change(value)
    if isinstance(value, tuple | list) and type(value) in (tuple, list):
        return type(value)(mapped(change, one) for one in value)
    raise TypeError(f"value: got {type(value).__name__}; expected tensors; the whole network has to run")
