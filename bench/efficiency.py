"""What a method costs inside a running network: milliseconds a batch and peak memory (ELUDe, B.4).

The network is timed as it is, then in every way in which the method can run in it, then once more as it is, which says
how much the machine drifted meanwhile. The ways are the variant construction of B.4:

- "hooked": the site is left untouched and what the method makes of it is computed after it, by output capture: codes
  and reconstruction, of virtual units the codes alone. The network goes on with the site's own outputs; what was
  captured is let go after each batch. A transcoder reads the site's inputs, as it was trained to. It is held until the
  batch is over, or a compiler would find that nobody needs it and leave it out.
- "unasked", "codes", "merged": the method's own layer stands in the site's place. Nobody asks for codes; all codes are
  given; the outputs are the sums of the parts and the codes are not kept, which is the paper's construction. Our layer
  stores a mask and makes the weights of the parts in every batch in which they are needed; the paper's stores them.

Preprocessing is not timed. Rows of different machines are never compared. In a network that computes in 16 bit a layer
in the site's place does too; what is computed after the site is computed in float32, as in an evaluation.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bench.backbones import widened
from bench.sites import Images
from bench.subject import Subject
from methods.layer import DisentangledLayer, Merge
from methods.protocol import Activations, Explicit

BACKBONE, AGAIN = "backbone", "backbone again"
HOOKED = "hooked"
SPLIT: Final[dict[str, tuple[Merge, bool]]] = {
    "unasked": ("exact", False),
    "codes": ("exact", True),
    "merged": ("sum", False),
}
"""The ways of a layer that knows the parts of its units: the merge, and whether all codes are asked for."""


@dataclass(frozen=True)
class Protocol:
    """How often, and how: the paper's is the default.

    Attributes:
        warm_ups: Untimed passes before.
        runs: Timed passes.
        is_compiled: Whether `torch.compile` is on.
    """

    warm_ups: int = 100
    runs: int = 500
    is_compiled: bool = True


ON_CPU: Final = Protocol(warm_ups=3, runs=15, is_compiled=False)
"""A batch takes a hundred times as long there, and the compiler needs another compiler."""
IMAGES: Final = 256
"""Images in the timed batch, as in the paper."""


@dataclass(frozen=True)
class Timing:
    """How long one way of running the network took (`metrics.protocol.Timing`).

    Attributes:
        milliseconds: Of each timed batch, in their order.
        peak_bytes: Most memory that was allocated on the GPU meanwhile, weights included; None on a CPU.
    """

    milliseconds: tuple[float, ...]
    peak_bytes: int | None


LetGo = Callable[[], None]
Way = Callable[[], AbstractContextManager[LetGo]]
"""Puts something into the network, and gives what lets go of what a pass left behind."""


def timings_of(subject: Subject, images: Images, protocol: Protocol | None = None) -> dict[str, Timing]:
    """How long the backbone takes as it is, and in every way that there is with the method in it.

    Args:
        subject: The decomposition at its site.
        images: One batch, as the data set gives it.
        protocol: How often to run; None takes the paper's on a GPU and `ON_CPU` elsewhere.
    """
    backbone = subject.site.backbone
    pixels = backbone.transform(images)
    return timed(backbone.module, pixels, ways_of(subject), protocol or (Protocol() if pixels.is_cuda else ON_CPU))


def ways_of(subject: Subject) -> dict[str, Way]:
    """The ways in which the method can run in the network."""
    layer = subject.layer
    if layer is None:
        return {HOOKED: partial(hooked, subject)}
    if isinstance(layer, DisentangledLayer):
        own = layer
        return {name: partial(standing, subject, own, name) for name in SPLIT}
    return {"merged": partial(swapped, subject, layer)}


def timed(
    network: nn.Module,
    pixels: Float[Tensor, "images 3 height width"],
    ways: Mapping[str, Way],
    protocol: Protocol,
) -> dict[str, Timing]:
    """How long a batch takes: as the network is, in each of the ways, and as it is once more."""
    found = {}
    for name, way in {BACKBONE: untouched, **ways, AGAIN: untouched}.items():
        with way() as let_go:
            if protocol.is_compiled:
                torch.compiler.reset()
            forward = torch.compile(network) if protocol.is_compiled else network
            found[name] = passes(forward, pixels, let_go, protocol)
    return found


@torch.inference_mode()
def passes(forward: Callable[[Tensor], Any], pixels: Tensor, let_go: LetGo, protocol: Protocol) -> Timing:
    """The time of each pass after the warm-ups, and the most memory that was allocated meanwhile.

    What a pass leaves is let go after it, as by a reader who is done with it: kept until the next one's is there, it
    would count twice.
    """

    def once() -> None:
        forward(pixels)
        let_go()

    for _ in range(protocol.warm_ups):
        once()
    if not pixels.is_cuda:
        milliseconds = []
        for _ in range(protocol.runs):
            start = time.perf_counter()
            once()
            milliseconds.append(1e3 * (time.perf_counter() - start))
        return Timing(tuple(milliseconds), None)
    torch.cuda.synchronize(pixels.device)
    torch.cuda.reset_peak_memory_stats(pixels.device)
    pairs = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(protocol.runs)]
    for start_event, end_event in pairs:
        start_event.record()
        once()
        end_event.record()
    torch.cuda.synchronize(pixels.device)
    peak = torch.cuda.max_memory_allocated(pixels.device)
    return Timing(tuple(a.elapsed_time(b) for a, b in pairs), peak)


def nothing() -> None:
    """Let go of nothing."""


@contextmanager
def untouched() -> Iterator[LetGo]:
    """Within, the network is as it is."""
    yield nothing


@dataclass(eq=False)
class Captured:
    """What a method made of a pass, until it is let go."""

    values: Tensor | None = None

    def let_go(self) -> None:
        """Forget it."""
        self.values = None


@contextmanager
def hooked(subject: Subject) -> Iterator[LetGo]:
    """Within, the method runs after the untouched site in every pass, and what it makes is captured."""
    method, decomposition, site = subject.method, subject.decomposition, subject.site
    captured = Captured()

    def capture(_module: nn.Module, args: tuple[Tensor, ...], own: Tensor) -> None:
        inputs, outputs = (widened(site.tokens_of(values)) for values in (args[0], own))
        codes = method.encode(decomposition, activations_of(subject, inputs, outputs))
        captured.values = method.decode(decomposition, codes) if isinstance(method, Explicit) else codes

    handle = site.module.register_forward_hook(capture)
    try:
        yield captured.let_go
    finally:
        handle.remove()


def activations_of(
    subject: Subject,
    inputs: Float[Tensor, "images positions d_in"],
    outputs: Float[Tensor, "images positions units"],
) -> Activations:
    """What the method looks at, not copied; methods that sum over an image are given no registers."""
    site, reads = subject.site, subject.method.reads
    image_of_token = None
    if "images" in reads:
        kept = site.kept(outputs.shape[1])
        if len(kept) < outputs.shape[1]:
            inputs, outputs = inputs[:, kept], outputs[:, kept]
        images = torch.arange(len(outputs), device=outputs.device)
        image_of_token = images.repeat_interleave(outputs.shape[1])
    return Activations(
        inputs.flatten(0, 1) if "inputs" in reads else None,
        outputs.flatten(0, 1),
        site.weight if "weight" in reads else None,
        site.bias if "weight" in reads else None,
        image_of_token,
    )


@contextmanager
def swapped(subject: Subject, layer: nn.Module) -> Iterator[LetGo]:
    """Within, the method's layer stands in the site's place."""
    with subject.site.swapped(layer):
        yield nothing


@contextmanager
def standing(subject: Subject, layer: DisentangledLayer, name: str) -> Iterator[LetGo]:
    """The same for a layer that knows the parts of its units, in one of the ways of `SPLIT`."""
    with subject.site.swapped(layer), in_way(layer, name) as let_go:
        yield let_go


@contextmanager
def in_way(layer: DisentangledLayer, name: str) -> Iterator[LetGo]:
    """Within, the layer runs in that way of `SPLIT`; after it as before."""
    before = layer.merge
    layer.merge, is_asked = SPLIT[name]
    try:
        with layer.asking() if is_asked else nullcontext() as asked:
            yield nothing if asked is None else lambda: setattr(asked, "codes", None)
    finally:
        layer.merge = before
