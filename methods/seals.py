"""Seals: which kernel a decomposition was made from, so that no other is split with it unnoticed.

A decomposition of weights says nothing about another network's, or about the same one's after a training step: it
would still add up, and mean nothing. Its note `weight_sha256` names the kernel. A network is often cast for
inference, so the note has one hash for the kernel's own dtype and one for each narrower: the kernel as decomposed, the
same cast down, and either of them cast up again are told from every other.
"""

import hashlib
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

NOTE = "weight_sha256"
"""The note's name; its text is `DTYPE:HASH` for each dtype, with spaces between."""

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
"""The dtypes of a kernel that are known here."""


def sha256_of(weight: Float[Tensor, "units d_in"], bias: Float[Tensor, " units"] | None, dtype: torch.dtype) -> str:
    """SHA-256, in hex, of kernel and bias in that dtype: dtype, shape, and bytes."""
    digest = hashlib.sha256(f"{dtype} {tuple(weight.shape)} {'no bias' if bias is None else 'bias'}".encode())
    for tensor in (weight, bias):
        if tensor is not None:
            data = tensor.detach().to(dtype).cpu().contiguous().reshape(-1)
            digest.update(data.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def seal(weight: Float[Tensor, "units d_in"], bias: Float[Tensor, " units"] | None) -> dict[str, str]:
    """The note for a decomposition made from this kernel and bias."""
    own = weight.dtype
    narrower = [dtype for dtype in DTYPES if dtype.itemsize < own.itemsize]
    return {NOTE: " ".join(f"{name_of(d)}:{sha256_of(weight, bias, d)}" for d in (own, *narrower))}


def check_seal(
    notes: Mapping[str, object],
    weight: Float[Tensor, "units d_in"],
    bias: Float[Tensor, " units"] | None,
    where: str,
) -> None:
    """Nothing, where kernel and bias are those of the note, in any of its dtypes, or where there is no note.

    A kernel of another dtype than the note's is one of the note's where a cast to that loses nothing. Decompositions
    made before there were seals have no note; tensors without data (meta) cannot be told.

    Args:
        notes: The decomposition's.
        weight: The kernel that is to be split.
        bias: Its bias.
        where: What the error calls the place.

    Raises:
        ValueError: They are others.
    """
    note = notes.get(NOTE)
    if not isinstance(note, str) or weight.is_meta:
        return
    noted = dict(entry.split(":", 1) for entry in note.split())
    for dtype in DTYPES:
        candidate = noted.get(name_of(dtype))
        if candidate and is_kept_by(dtype, weight, bias) and sha256_of(weight, bias, dtype) == candidate:
            return
    got = sha256_of(weight, bias, weight.dtype)
    made_from = ", ".join(f"{value[:12]} in {name}" for name, value in noted.items())
    raise ValueError(
        f"weight: {where} has kernel and bias of SHA-256 {got[:12]} in {name_of(weight.dtype)}; expected those that "
        f"the decomposition was made from ({made_from}); load that checkpoint, or decompose this network"
    )


def is_kept_by(dtype: torch.dtype, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether kernel and bias survive a cast to that dtype and back."""
    return all(t is None or torch.equal(t.detach().to(dtype).to(t.dtype), t.detach()) for t in (weight, bias))


def name_of(dtype: torch.dtype) -> str:
    """float32, for one."""
    return str(dtype).removeprefix("torch.")
