"""Activations on disk: what flowed through a site for the sampled tokens of the probing split.

An entry of the cache holds `inputs.npy`, `outputs.npy` (rows in order of image, then position) and `tokens.npy`
(image and position of each row). Arrays are written batch by batch and read memory-mapped, so neither side ever holds
all of them.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.lib.format import write_array_header_2_0
from torch import Tensor

from bench.backbones import Report
from bench.datasets import Split
from bench.sites import Site, sampled_positions
from methods.protocol import Activations

BATCH_IMAGES = 256
VERSION = 1


def extract(site: Site, split: Split, per_image: int, token_seed: int, folder: Path, report: Report) -> None:
    """Run the split through the backbone and write the sampled tokens of the site into `folder`."""
    n = len(split)
    positions: Int[Tensor, "images per_image"] | None = None
    with (folder / "inputs.npy").open("wb") as inputs_file, (folder / "outputs.npy").open("wb") as outputs_file:
        for start in range(0, n, BATCH_IMAGES):
            report("images", start, n)
            rows = torch.arange(start, min(start + BATCH_IMAGES, n))
            reading = site.read(split.images(rows))
            if positions is None:
                kept = site.kept(reading.outputs.shape[1])
                positions = sampled_positions(n, kept, per_image, token_seed)
                for file, width in ((inputs_file, site.d_in), (outputs_file, site.units)):
                    write_header(file, (positions.numel(), width))
            pick = (torch.arange(len(rows))[:, None], positions[rows])
            inputs_file.write(reading.inputs[pick].flatten(0, 1).float().numpy().tobytes())
            outputs_file.write(reading.outputs[pick].flatten(0, 1).float().numpy().tobytes())
    if positions is None:
        raise ValueError("dataset: its probing split is empty; expected at least one image; choose another")
    images = torch.arange(n)[:, None].expand_as(positions)
    np.save(folder / "tokens.npy", torch.stack([images, positions], dim=-1).flatten(0, 1).numpy())
    report("images", n, n)


def write_header(file: BinaryIO, shape: tuple[int, int]) -> None:
    """The head of a float32 `.npy` file whose rows follow."""
    write_array_header_2_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})


def quietly(what: str, done: int, total: int) -> None:
    """Report to nobody."""


@dataclass(frozen=True, eq=False)
class TensorSource:
    """An `ActivationSource` over tensors, which may be memory-mapped files.

    Attributes:
        inputs: What enters the site; None where the method does not read it.
        outputs: What leaves it.
        weight: The site's kernel; None where the method does not read it.
        bias: The site's bias; None where there is none or the method does not read the weight.
        report: Told how far a method is.
    """

    inputs: Float[Tensor, "tokens d_in"] | None
    outputs: Float[Tensor, "tokens units"]
    weight: Float[Tensor, "units d_in"] | None = None
    bias: Float[Tensor, " units"] | None = None
    report: Report = quietly

    @property
    def n_tokens(self) -> int:
        """How many tokens there are."""
        return len(self.outputs)

    def read(self, rows: Int[Tensor, " rows"] | slice) -> Activations:
        """The named tokens, in that order."""
        inputs = None if self.inputs is None else self.inputs[rows]
        return Activations(inputs, self.outputs[rows], self.weight, self.bias)

    def batches(self, size: int, *, seed: int | None = None) -> Iterator[Activations]:
        """Every token once, in order or in the order of a seed."""
        if seed is None:
            for start in range(0, self.n_tokens, size):
                yield self.read(slice(start, start + size))
            return
        order = torch.randperm(self.n_tokens, generator=torch.Generator().manual_seed(seed))
        for rows in order.split(size):
            yield self.read(rows)

    def only(self, reads: frozenset[str]) -> "TensorSource":
        """The same tokens with nothing but what a method declares to read."""
        return replace(
            self,
            inputs=self.inputs if "inputs" in reads else None,
            weight=self.weight if "weight" in reads else None,
            bias=self.bias if "weight" in reads else None,
        )


def opened(folder: Path, site: Site, report: Report) -> TensorSource:
    """What `extract` wrote, memory-mapped: nothing is read before it is used."""
    # "c" is copy on write: nothing is ever written, but torch takes it for a writable array and does not warn.
    inputs, outputs = (
        torch.from_numpy(np.load(folder / f"{name}.npy", mmap_mode="c")) for name in ("inputs", "outputs")
    )
    return TensorSource(inputs, outputs, site.weight, site.bias, report)
