"""Sparse autoencoders that others trained, measured like our own.

A checkpoint is a folder of SAELens 6 (`methods.saelens`), sparsify or dictionary_learning (`methods.formats`). Its
codes and outputs are those of the project's own forward pass, up to rounding. Nothing in a folder is executed.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import ClassVar, Literal

import torch

from methods import formats, saelens
from methods.coding import LinearCoding, Tensors, at_least, k_largest
from methods.protocol import ActivationSource, Codes, Decomposition, Properties

SAMPLE_TOKENS = 16_384
"""How many tokens, evenly spread, say whether a checkpoint belongs to a site."""
BATCH_TOKENS = 1_024

FORMATS: Mapping[str, tuple[str, Callable[[Path], Decomposition]]] = {
    "saelens": (saelens.WEIGHTS, saelens.read_saelens),
    "sparsify": (formats.SPARSIFY_WEIGHTS, formats.read_sparsify),
    "dictionary_learning": (formats.DICTIONARY_LEARNING_WEIGHTS, formats.read_dictionary_learning),
}
"""The weights' file of each format, by which a folder is recognised, and its reader."""


@dataclass(frozen=True)
class Checkpoint(LinearCoding):
    """A sparse autoencoder from a folder.

    Decomposing takes no gradient step and draws nothing, so the same folder gives the same atoms whatever the seed:
    `stable` is a fact about the file, not about the training behind it. That training did take gradient steps, so
    `training_free` is not claimed.

    Attributes:
        path: The checkpoint's folder.
        format: Which project wrote it; "auto" recognises it by the name of the weights' file.
    """

    path: str = ""
    format: Literal["auto", "saelens", "sparsify", "dictionary_learning"] = "auto"

    reads: ClassVar[frozenset[str]] = frozenset({"outputs"})
    properties: ClassVar[Properties] = Properties(
        stable=True, training_free=False, explicit=True, lossless=False, unsupervised=True
    )
    version: ClassVar[int] = 1
    codes_are_nonnegative: ClassVar[bool] = True

    @property
    def content(self) -> str:
        """SHA-256 over the folder's files: what stands behind the path, and so part of a cell's identity."""
        return content_of(Path(self.path)) if self.path and Path(self.path).is_dir() else ""

    def decompose(self, activations: ActivationSource, *, seed: int) -> Decomposition:
        """What the folder holds, once it is seen to fit the site.

        Raises:
            LookupError: There is no such folder, or a file of it is missing.
            ValueError: A file is not as it must be, the width is another, or R2 at this site is negative.
        """
        if not self.path or not Path(self.path).is_dir():
            step = "check it; a relative one starts at the working directory" if self.path else "set it"
            raise LookupError(f"path: got {self.path!r}; expected the folder of a checkpoint; {step}")
        found = read(Path(self.path), self.format)
        hint = " ".join(str(found.notes[name]) for name in ("claimed_backbone", "claimed_site") if name in found.notes)
        claim = f" (it says {hint})" if hint else ""
        width, units = len(found.tensors["mean"]), activations.read(slice(0, 1)).outputs.shape[1]
        if width != units:
            raise ValueError(
                f"path: got width {width} at a site of {units} units; expected the same width; "
                f"choose the site that the checkpoint was trained at{claim}"
            )
        notes: dict[str, float | int | str | bool] = dict(found.notes)
        r2, n_tokens = self.sampled_r2(found, activations)
        if r2 is not None:
            if not r2 >= 0:
                raise ValueError(
                    f"path: got R2 {r2:.4g} on {n_tokens} tokens of this site; expected 0 or more; a negative R2 means "
                    f"a wrong site, layer or normalisation: choose the one that it was trained at{claim}"
                )
            notes |= {"sample_r2": r2, "sample_tokens": n_tokens}
        return Decomposition(n_atoms=found.n_atoms, tensors=found.tensors, notes=notes)

    def sampled_r2(self, found: Decomposition, activations: ActivationSource) -> tuple[float | None, int]:
        """R2 against the mean vector on a sample, None where it does not vary, and the sample's size."""
        n_tokens = min(activations.n_tokens, SAMPLE_TOKENS)
        rows = torch.arange(n_tokens) * activations.n_tokens // n_tokens
        error, squares, size, total = 0.0, 0.0, 0.0, torch.zeros(())
        centre = activations.read(rows[:BATCH_TOKENS]).outputs.double().mean(dim=0)
        for part in rows.split(BATCH_TOKENS):
            tokens = activations.read(part)
            x = tokens.outputs.double()
            error += float((x - self.decode(found, self.encode(found, tokens)).double()).square().sum())
            # Relative to a centre near the mean, so that no large sums of squares are subtracted from each other.
            squares += float((x - centre).square().sum())
            size += float(x.square().sum())
            total = total + (x - centre).sum(dim=0)
        variation = squares - float(total.square().sum()) / n_tokens
        # What rounding leaves of a constant is no variation.
        return (None if variation <= 1e-28 * size else 1 - error / variation), n_tokens

    def activate(self, pre_codes: Codes, state: Tensors) -> Codes:
        """The codes that stay, as told by which tensor is there (`methods.formats`)."""
        if "threshold" in state:
            return at_least(pre_codes, state["threshold"])
        if "k" in state:
            return k_largest(pre_codes, int(state["k"]))
        if "groups" in state:
            return k_largest(pre_codes.unflatten(-1, (int(state["groups"]), -1)), 1).flatten(-2)
        return super().activate(pre_codes, state)


def content_of(folder: Path) -> str:
    """SHA-256, in hexadecimal, over names and bytes of a folder's files; computed once for each state of them."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return _content_of(folder, tuple((path, path.stat().st_size, path.stat().st_mtime_ns) for path in files))


@cache
def _content_of(folder: Path, files: tuple[tuple[Path, int, int], ...]) -> str:
    whole = hashlib.sha256()
    for path, _, _ in files:
        with path.open("rb") as file:
            part = hashlib.file_digest(file, "sha256").hexdigest()
        whole.update(f"{path.relative_to(folder)} {part}\n".encode())
    return whole.hexdigest()


def read(folder: Path, source_format: str) -> Decomposition:
    """The autoencoder in a folder; "auto" recognises the format by the name of the weights' file.

    Raises:
        LookupError: A file is missing.
        ValueError: The folder holds several formats, or something that is not read here.
    """
    if source_format == "auto":
        found = [name for name, (file, _) in FORMATS.items() if (folder / file).is_file()]
        listed = ", ".join(f"{file} ({name})" for name, (file, _) in FORMATS.items())
        if not found:
            raise LookupError(f"path: got {folder}, which has none of {listed}; expected one; name its folder")
        if len(found) > 1:
            raise ValueError(f"path: got {folder}, which has files of {' and '.join(found)}; expected one; set format")
        source_format = found[0]
    return FORMATS[source_format][1](folder)
