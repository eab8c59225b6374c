"""The outputs of a site, put by on disk in one pass over a split and read again in the next.

So the backbone runs once. Batches are read in the order in which they came, and memory does not grow with the number of
images; the file does: images x tokens x units numbers, 39 GB for ImageNet's 50,000 at 257 tokens of 768 units. It has
no name, so that nothing is left of it whatever happens.
"""

import tempfile
from collections.abc import Iterator
from contextlib import suppress
from io import FileIO
from pathlib import Path
from types import TracebackType

import torch
from jaxtyping import Float, Int
from torch import Tensor


class Spool:
    """Batches of outputs in a file; a context.

    Args:
        folder: On which disk; None for the one of temporary files.

    Attributes:
        is_whole: The disk took everything so far.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.is_whole = True
        self.batches: list[tuple[Int[Tensor, " images"], torch.Size, torch.dtype, torch.device]] = []
        # Unbuffered, so that what the disk does not take is known at once; closed in __exit__.
        self.file: FileIO = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115

    def __enter__(self) -> "Spool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.file.close()

    def add(self, images: Int[Tensor, " images"], outputs: Float[Tensor, "images tokens units"]) -> None:
        """Put one batch by; a disk that does not take it loses all."""
        if not self.is_whole:
            return
        try:
            raw = outputs.contiguous().flatten().view(torch.uint8).cpu().numpy().data
            while raw:  # the system may take less than it is given
                raw = raw[self.file.write(raw) :]
        except OSError:
            self.is_whole = False
            self.batches = []
            with suppress(OSError):
                self.file.truncate(0)
            return
        self.batches.append((images, outputs.shape, outputs.dtype, outputs.device))

    def again(self) -> Iterator[tuple[Int[Tensor, " images"], Float[Tensor, "images tokens units"]]]:
        """Every batch, in the order in which they came."""
        self.file.seek(0)
        for images, shape, dtype, device in self.batches:
            raw = bytearray(shape.numel() * dtype.itemsize)
            left = memoryview(raw)
            while left:
                n_read = self.file.readinto(left)
                if not n_read:
                    raise OSError(f"a file of {len(self.batches)} batches ended within one of them")
                left = left[n_read:]
            yield images, torch.frombuffer(raw, dtype=dtype).view(shape).to(device)
