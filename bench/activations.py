"""Activations on disk and in flight: what flows through a site for the images of the probing split.

An entry of the cache is what `bench.extraction` writes; it is read memory-mapped. Methods that need whole images get
them from the backbone, when they ask.
"""

import mmap
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError
from safetensors import torch as safetensors
from torch import Tensor

from bench.backbones import Report
from bench.datasets import Split
from bench.sites import Site
from methods.parts import KnownParts
from methods.protocol import Activations, ImageActivations, ImageSource

BLOCK_TOKENS = 256
"""Tokens of a large source that are read in one piece: a seek per token would be a disk's slowest way to be read."""
POOL_BYTES = 256 * 2**20
"""A source up to this size is shuffled whole; of a larger one, as many random blocks as fit are shuffled together."""


def quietly(what: str, done: int, total: int) -> None:
    """Report to nobody."""


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


@dataclass(frozen=True, eq=False)
class TensorSource:
    """An `ActivationSource` over tensors, which may be memory-mapped files.

    Attributes:
        inputs: What enters the site; None where the method does not read it.
        outputs: What leaves it.
        weight: The site's kernel; None where the method does not read it.
        bias: The site's bias; None where there is none or the method does not read the weight.
        report: Told how far a method is.
        images: The same split image by image; None where the method does not read it.
        keeps: Folder for what methods keep in case they are interrupted; None keeps nothing.
        n_threads: How many threads a method may use whose result does not depend on their number.
        maps: The memory maps behind the tensors, to let go of pages that have been read.
        truth: What the site's units were made of; None where nobody knows or the method does not read it.
    """

    inputs: Float[Tensor, "tokens d_in"] | None
    outputs: Float[Tensor, "tokens units"]
    weight: Float[Tensor, "units d_in"] | None = None
    bias: Float[Tensor, " units"] | None = None
    report: Report = quietly
    images: ImageSource | None = None
    keeps: Path | None = None
    n_threads: int = 1
    maps: tuple[mmap.mmap, ...] = field(default=(), repr=False)
    truth: KnownParts | None = None

    @property
    def n_tokens(self) -> int:
        """How many tokens there are."""
        return len(self.outputs)

    @property
    def token_bytes(self) -> int:
        """Size of one token."""
        width = self.outputs.shape[1] + (0 if self.inputs is None else self.inputs.shape[1])
        return width * self.outputs.element_size()

    def read(self, rows: Int[Tensor, " rows"] | slice) -> Activations:
        """The named tokens, in that order."""
        inputs = None if self.inputs is None else self.inputs[rows]
        return Activations(inputs, self.outputs[rows], self.weight, self.bias)

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
        room = blocks_a_pool * BLOCK_TOKENS + size
        inputs = None if self.inputs is None else self.inputs.new_empty(room, self.inputs.shape[1])
        pool = replace(self, inputs=inputs, outputs=self.outputs.new_empty(room, self.outputs.shape[1]), maps=())
        n = 0
        for blocks in torch.randperm(n_blocks, generator=generator).split(blocks_a_pool):
            for block in blocks.tolist():
                n += pool.put(n, self.read(slice(block * BLOCK_TOKENS, (block + 1) * BLOCK_TOKENS)))
                self.let_go()
            rows = torch.randperm(n, generator=generator)
            whole = n // size * size
            for batch in rows[:whole].split(size):
                yield pool.read(batch)
            n = pool.put(0, pool.read(rows[whole:]))
        if n:
            yield pool.read(slice(0, n))

    def put(self, at: int, tokens: Activations) -> int:
        """Write tokens into this source from a row on; gives how many they are."""
        n = len(tokens.outputs)
        self.outputs[at : at + n] = tokens.outputs
        if self.inputs is not None:
            self.inputs[at : at + n] = tokens.needed_inputs()
        return n

    def let_go(self) -> None:
        """Give back the pages of the files that have been read; reading them again brings them back."""
        for one in self.maps:
            if hasattr(mmap, "MADV_DONTNEED"):
                one.madvise(mmap.MADV_DONTNEED)

    def only(self, reads: frozenset[str]) -> "TensorSource":
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


def opened(folder: Path, site: Site, split: Split, report: Report) -> TensorSource:
    """What `extract` wrote, memory-mapped: nothing is read before it is used."""
    # "c" is copy on write: nothing is ever written, but torch takes it for a writable array and does not warn.
    paths = [sorted(folder.glob(f"{name}-*.npy")) for name in ("inputs", "outputs")]
    shards = [[np.load(path, mmap_mode="c") for path in some] for some in paths]
    inputs, outputs = (torch.from_numpy(np.concatenate(some) if some[1:] else some[0]).float() for some in shards)
    maps = tuple(some[0]._mmap for some in shards if not some[1:])
    images, truth = SiteImages(site, split), site.backbone.truth
    weight, bias = site.weight.cpu(), None if site.bias is None else site.bias.cpu()
    return TensorSource(inputs, outputs, weight, bias, report, images, maps=maps, truth=truth)
