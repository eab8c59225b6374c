"""Rehearsals: stages worked at their full size on a few tokens and images, to know what they will take.

A method is given a source of the right number of tokens that holds few and hands out few; `bench.stopwatch` adds what
it leaves out. So a method has nothing to do for it, whoever wrote it and whatever it reports.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bench.activations import TensorSource
from bench.backbones import Backbone
from bench.batches import SiteBatch
from bench.datasets import Split
from bench.evaluation import stream
from bench.lanes import Report, quietly
from bench.replay import Replay
from bench.rows import Rows
from bench.stopwatch import Stopwatch
from methods.parts import KnownParts
from methods.protocol import Activations, ImageActivations, ImageSource

WHOLE_BYTES = 2 * 2**30
"""Most tokens that are made up for a method that reads all of them at once."""
MIXED_TOKENS = 65_536
"""Tokens that are made up together where all of them are of a few units only."""
HURRIED_TOKENS = 32
"""Tokens of the one batch that a hurried pass has."""


@dataclass(frozen=True, eq=False)
class RehearsalSource:
    """An `ActivationSource` of any number of tokens, from a few.

    Beyond those that there are, tokens are mixtures of two of them: no two are equal, what enters a site and what
    leaves it still belong together, and none of them is held.

    Attributes:
        tokens: The tokens that there are, with what the method declares to read.
        n_tokens: How many there shall be.
        watch: Measures.
        images: The split image by image; None where the method does not read it.
        is_hurried: A pass is one small batch, and nothing of it is added: for what a method finds, not for its time.
        n_threads: How many threads a method may use whose result does not depend on their number.
    """

    tokens: TensorSource[Tensor] | TensorSource[Rows]
    n_tokens: int
    watch: Stopwatch
    images: ImageSource | None = None
    is_hurried: bool = False
    n_threads: int = 1

    @property
    def truth(self) -> KnownParts | None:
        """What the site's units were made of."""
        return self.tokens.truth

    def read(self, rows: Int[Tensor, " rows"] | slice) -> Activations:
        """The named tokens, in that order.

        Raises:
            ValueError: They are too many to be made up.
        """
        n = self.tokens.n_tokens
        if n >= self.n_tokens:
            return self.tokens.read(rows)
        if isinstance(rows, slice):
            rows = torch.arange(*rows.indices(self.n_tokens))
        if len(rows) * self.tokens.token_bytes > WHOLE_BYTES:
            raise ValueError(
                f"rows: got {len(rows)} tokens at once, more than a rehearsal makes up; expected at most "
                f"{WHOLE_BYTES} bytes of them; once the activations are in the cache they are read from there"
            )
        few = self.tokens
        inputs = None if few.inputs is None else self.inputs_at(rows)
        return Activations(inputs, self.mixed(rows, lambda at: few.outputs[at]), few.weight, few.bias)

    def inputs_at(
        self, rows: Int[Tensor, " rows"], dimensions: slice = slice(None)
    ) -> Float[Tensor, "rows dimensions"]:
        """What enters the site at the named tokens, in that order, or some of its dimensions; a copy."""
        return self.mixed(rows, lambda at: self.tokens.inputs_at(at, dimensions))

    def outputs_of(self, units: slice) -> Float[Tensor, "tokens units"]:
        """The outputs of a few units for all tokens."""
        few = self.tokens.outputs_of(units)
        blocks = torch.arange(self.n_tokens).split(MIXED_TOKENS)
        return torch.cat([self.mixed(rows, lambda at: few[at]).T for rows in blocks], dim=1).T

    def mixed(
        self, rows: Int[Tensor, " rows"], of: Callable[[Int[Tensor, " rows"]], Float[Tensor, "rows values"]]
    ) -> Float[Tensor, "rows values"]:
        """Mixtures of what is given for two of the tokens there are; these themselves come first."""
        n = self.tokens.n_tokens
        one, other = of(rows % n), of((rows * 31 + rows // n) % n)
        return other.lerp(one, torch.where(rows < n, 1.0, 0.7)[:, None].to(one))

    def batches(self, size: int, *, seed: int | None = None) -> Iterator[Activations]:
        """Batches as of all tokens; the pass ends early where it would be long."""
        if self.is_hurried:
            yield self.read(slice(0, min(size, HURRIED_TOKENS)))
            return
        draw = torch.Generator().manual_seed(seed or 0)
        for index in self.watch.handed_out(math.ceil(self.n_tokens / size), size, seed is not None):
            rows = slice(index * size, (index + 1) * size)
            n = len(range(*rows.indices(self.n_tokens)))
            yield self.read(rows if seed is None else torch.randint(self.n_tokens, (n,), generator=draw))

    def report(self, what: str, done: int, total: int) -> None:
        """Tell the stopwatch."""
        self.watch.report(what, done, total)

    def keep(self, name: str, tensors: object) -> None:
        """Put nothing by."""

    def kept(self, name: str) -> None:
        """Nothing was."""


@dataclass(frozen=True, eq=False)
class RehearsalImages:
    """An `ImageSource` that runs the backbone on a few images only and gives these again; the stopwatch adds the rest.

    Attributes:
        images: The split image by image.
        n_images: How many images there shall be.
        few: Images that are run at once, at most.
        watch: Measures.
        known: What was read, by verb: the values, and the seconds of an image.
    """

    images: ImageSource
    n_images: int
    few: int
    watch: Stopwatch
    known: dict[str, list[tuple[Any, float]]] = field(default_factory=dict)

    @property
    def labels(self) -> Int[Tensor, " images"] | None:
        """The class of each image, where there are any."""
        labels = self.images.labels
        return None if labels is None else labels[: self.n_images]

    def read(self, rows: Int[Tensor, " rows"]) -> ImageActivations:
        """All studied positions of so many images."""
        found = self.again("read", rows)
        return ImageActivations(found.inputs, found.outputs)

    def class_gradients(self, rows: Int[Tensor, " rows"]) -> Float[Tensor, "rows positions units"]:
        """Gradient of each image's own class logit with respect to the site's outputs."""
        gradients: Tensor = self.again("class_gradients", rows)
        return gradients

    def again(self, verb: str, rows: Int[Tensor, " rows"]) -> Any:
        """What the images give, from the backbone until its pace is known, then from what is known."""
        known = self.known.setdefault(verb, [])
        n = min(len(rows), self.few)
        if sum(seconds for _, seconds in known) * self.few < self.watch.patience:
            begin = self.watch.clock()
            found = getattr(self.images, verb)(rows[:n])
            seconds = (self.watch.clock() - begin) / n
            known.append((found, seconds))
            self.watch.leave_out(seconds * (len(rows) - n))
        else:
            found = known[int(rows[0]) // self.few % len(known)][0]
            self.watch.leave_out(sum(seconds for _, seconds in known) / len(known) * len(rows))
        if isinstance(found, Tensor):
            return tiled(found, len(rows))
        return ImageActivations(tiled(found.inputs, len(rows)), tiled(found.outputs, len(rows)))


def tiled(values: Tensor, n: int) -> Tensor:
    """As many rows as asked for, from the first on and over again; a copy."""
    return values[torch.arange(n) % len(values)]


class RehearsalStream:
    """Two batches of an evaluation's pass; the stopwatch adds the others, at the pace of the second.

    What a second pass does with the images that the first one kept is done in full, as all of them are in the two.
    """

    def __init__(self, watch: Stopwatch, few: int) -> None:
        self.watch = watch
        self.few = few

    def __call__(
        self,
        replay: Replay,
        split: Split,
        rows: Int[Tensor, " rows"],
        encoder: Backbone | None,
        report: Report,
        what: str,
    ) -> Iterator[SiteBatch]:
        """The batches of one pass; few images are handed out whole."""
        n = len(rows)
        if n < 4 * self.few:
            yield from stream(replay, split, rows, encoder, quietly, what)
            return
        for begin in (0, self.few):
            start, some = self.watch.seconds, rows[begin : begin + self.few]
            yield SiteBatch(replay, some, split.images(some), split, encoder)
        self.watch.leave_out((self.watch.seconds - start) * (n / self.few - 2))
