"""Activations on disk and in flight: what flows through a site for the images of the probing split.

An entry of the cache is what `bench.extraction` writes; it is read memory-mapped. Methods that need whole images get
them from the backbone, when they ask.
"""

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError
from safetensors import torch as safetensors
from torch import Tensor
from typing_extensions import TypeVar

from bench.datasets import Split
from bench.lanes import Report, quietly
from bench.rows import Rows
from bench.sites import Site
from methods.parts import KnownParts
from methods.protocol import Activations, ImageActivations, ImageSource

BLOCK_TOKENS = 256
"""Tokens of a large source that are read in one piece: a seek per token would be a disk's slowest way to be read."""
POOL_BYTES = 256 * 2**20
"""A source up to this size is shuffled whole; of a larger one, as many random blocks as fit are shuffled together."""


@dataclass(frozen=True, eq=False)
class SiteImages:
    """The probing split image by image, straight from the backbone; what methods are given is on the processor.

    Attributes:
        site: Where it is read.
        split: The images.
    """

    site: Site
    split: Split

    @property
    def n_images(self) -> int:
        """How many images there are."""
        return len(self.split)

    @property
    def labels(self) -> Int[Tensor, " images"] | None:
        """The class of each image, where there are any."""
        return self.split.labels

    def read(self, rows: Int[Tensor, " rows"]) -> ImageActivations:
        """All studied positions of the named images."""
        reading = self.site.read(self.split.images(rows))
        kept = self.site.kept(reading.outputs.shape[1])
        return ImageActivations(reading.inputs[:, kept].cpu(), reading.outputs[:, kept].cpu())

    def class_gradients(self, rows: Int[Tensor, " rows"]) -> Float[Tensor, "rows positions units"]:
        """Gradient of each image's own class logit with respect to the site's outputs.

        Raises:
            LookupError: There are no labels.
        """
        if self.labels is None:
            raise LookupError("labels: got none; expected the class of each image; choose a labelled data set")
        gradients = self.site.class_gradients(self.split.images(rows), self.labels[rows])
        return gradients[:, self.site.kept(gradients.shape[1])].cpu()


@dataclass(frozen=True, eq=False)
class Unlabelled:
    """The same images with their labels withheld, for methods that do not declare to read them.

    Attributes:
        images: Where the activations come from.
    """

    images: ImageSource

    @property
    def n_images(self) -> int:
        """How many images there are."""
        return self.images.n_images

    @property
    def labels(self) -> None:
        """Withheld."""
        return

    def read(self, rows: Int[Tensor, " rows"]) -> ImageActivations:
        """All studied positions of the named images."""
        return self.images.read(rows)

    def class_gradients(self, rows: Int[Tensor, " rows"]) -> Float[Tensor, "rows positions units"]:
        """Never.

        Raises:
            LookupError: Always.
        """
        raise LookupError('labels: got none; expected the class of each image; declare "labels" in reads')


Table = TypeVar("Table", Tensor, Rows, default=Tensor)
"""How a source holds its tokens: as one tensor or as rows of files."""


@dataclass(frozen=True, eq=False)
class TensorSource(Generic[Table]):
    """An `ActivationSource` over tensors, or over files that are never held whole.

    Attributes:
        inputs: What enters the site (tokens x d_in); None where the method does not read it.
        outputs: What leaves it (tokens x units).
        weight: The site's kernel; None where the method does not read it.
        bias: The site's bias; None where there is none or the method does not read the weight.
        report: Told how far a method is.
        images: The same split image by image; None where the method does not read it.
        keeps: Folder for what methods keep in case they are interrupted; None keeps nothing.
        n_threads: How many threads a method may use whose result does not depend on their number.
        truth: What the site's units were made of; None where nobody knows or the method does not read it.
    """

    inputs: Table | None
    outputs: Table
    weight: Float[Tensor, "units d_in"] | None = None
    bias: Float[Tensor, " units"] | None = None
    report: Report = quietly
    images: ImageSource | None = None
    keeps: Path | None = None
    n_threads: int = 1
    truth: KnownParts | None = None

    @property
    def n_tokens(self) -> int:
        """How many tokens there are."""
        return len(self.outputs)

    @property
    def token_bytes(self) -> int:
        """Size of one token, as it is read."""
        width = self.outputs.shape[1] + (0 if self.inputs is None else self.inputs.shape[1])
        return width * (self.outputs.element_size() if isinstance(self.outputs, Tensor) else torch.float32.itemsize)

    def read(self, rows: Int[Tensor, " rows"] | slice) -> Activations:
        """The named tokens, in that order."""
        inputs = None if self.inputs is None else self.inputs[rows]
        return Activations(inputs, self.outputs[rows], self.weight, self.bias)

    def inputs_at(
        self, rows: Int[Tensor, " rows"], dimensions: slice = slice(None)
    ) -> Float[Tensor, "rows dimensions"]:
        """What enters the site at the named tokens, in that order, or some of its dimensions; a copy.

        Raises:
            ValueError: The inputs were not read at this site.
        """
        if self.inputs is None:
            raise ValueError('inputs: not read at this site; expected them; declare "inputs" in the method\'s reads')
        if isinstance(self.inputs, Tensor):
            return self.inputs[:, dimensions].index_select(0, rows)  # several times faster than an index
        return self.inputs.taken(rows, dimensions)

    def outputs_of(self, units: slice) -> Float[Tensor, "tokens units"]:
        """The outputs of some units for all tokens."""
        if isinstance(self.outputs, Tensor):
            return self.outputs[:, units]
        start, stop, _ = units.indices(self.outputs.shape[1])
        return self.outputs.columns(start, stop)

    def batches(self, size: int, *, seed: int | None = None) -> Iterator[Activations]:
        """Every token once, in order or in the order of a seed.

        What is larger than `POOL_BYTES` is shuffled in pools of random blocks, each pool read once and let go of: the
        memory that is held does not grow with the source.
        """
        if seed is None:
            pool = max(1, POOL_BYTES // (self.token_bytes * size)) * size
            for start in range(0, self.n_tokens, size):
                yield self.read(slice(start, start + size))
                if (start + size) % pool == 0:
                    self.let_go()
            return
        generator = torch.Generator().manual_seed(seed)
        if self.n_tokens * self.token_bytes <= POOL_BYTES:
            for rows in torch.randperm(self.n_tokens, generator=generator).split(size):
                yield self.read(rows)
            return
        yield from self.pooled(size, generator)

    def pooled(self, size: int, generator: torch.Generator) -> Iterator[Activations]:
        """Every token once: random blocks, as many at a time as a pool holds, shuffled together.

        A pool is copied block by block, and the file's pages are let go of at once: a token that is looked at brings
        up to 2 MiB of its neighbours into memory, which would stay as long as the pool does.
        """
        n_blocks = -(-self.n_tokens // BLOCK_TOKENS)
        # A multiple of the batch, so that only the last batch of all is smaller.
        batches_a_pool = max(1, POOL_BYTES // (self.token_bytes * size))
        blocks_a_pool = max(1, batches_a_pool * size // BLOCK_TOKENS)
        pool, n = self.pool(blocks_a_pool * BLOCK_TOKENS + size), 0
        for blocks in torch.randperm(n_blocks, generator=generator).split(blocks_a_pool):
            for block in blocks.tolist():
                n += put(pool, n, self.read(slice(block * BLOCK_TOKENS, (block + 1) * BLOCK_TOKENS)))
                self.let_go()
            rows = torch.randperm(n, generator=generator)
            whole = n // size * size
            for batch in rows[:whole].split(size):
                yield pool.read(batch)
            n = put(pool, 0, pool.read(rows[whole:]))
        if n:
            yield pool.read(slice(0, n))

    def pool(self, room: int) -> "TensorSource":
        """Room for so many tokens of this source."""
        one = self.read(slice(0, 1))
        inputs = None if one.inputs is None else one.inputs.new_empty(room, one.inputs.shape[1])
        return TensorSource(inputs, one.outputs.new_empty(room, one.outputs.shape[1]), self.weight, self.bias)

    def let_go(self) -> None:
        """Give back the pages of the files that have been read; reading them again brings them back."""
        for table in (self.inputs, self.outputs):
            if isinstance(table, Rows):
                table.let_go()

    def only(self, reads: frozenset[str]) -> "TensorSource[Table]":
        """The same tokens with nothing but what a method declares to read."""
        images = self.images if {"images", "labels"} & reads else None
        if images and "labels" not in reads:
            images = Unlabelled(images)
        return replace(
            self,
            inputs=self.inputs if "inputs" in reads else None,
            weight=self.weight if "weight" in reads else None,
            bias=self.bias if "weight" in reads else None,
            images=images,
            truth=self.truth if "truth" in reads else None,
        )

    def keep(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Put tensors by, in case this very work is interrupted."""
        if self.keeps is None:
            return
        partial = self.keeps / f"{uuid.uuid4().hex}.partial"
        contiguous = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
        partial.write_bytes(safetensors.save(contiguous))
        partial.rename(self.keeps / f"{name}.safetensors")

    def kept(self, name: str) -> Mapping[str, Tensor] | None:
        """What an interrupted attempt last put by under that name."""
        if self.keeps is None:
            return None
        try:
            return safetensors.load((self.keeps / f"{name}.safetensors").read_bytes())
        except (FileNotFoundError, SafetensorError):
            return None


def put(pool: TensorSource, at: int, tokens: Activations) -> int:
    """Write tokens into a pool from a row on; gives how many they are."""
    n = len(tokens.outputs)
    pool.outputs[at : at + n] = tokens.outputs
    if pool.inputs is not None:
        pool.inputs[at : at + n] = tokens.needed_inputs()
    return n


def opened(folder: Path, site: Site, split: Split, report: Report) -> TensorSource[Rows]:
    """What `bench.extraction` wrote, memory-mapped: nothing is read before it is used.

    Raises:
        ValueError: The files do not belong together.
    """
    inputs, outputs = (Rows.of(sorted(folder.glob(f"{name}-*.npy"))) for name in ("inputs", "outputs"))
    if len(inputs) != len(outputs):
        raise ValueError(
            f"{folder}: got {len(inputs)} tokens of inputs and {len(outputs)} of outputs; expected as many; delete the "
            "folder, and they are extracted again"
        )
    images, truth = SiteImages(site, split), site.backbone.truth
    weight, bias = site.weight.cpu(), None if site.bias is None else site.bias.cpu()
    return TensorSource(inputs, outputs, weight, bias, report, images, truth=truth)
