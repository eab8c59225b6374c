"""The instances of a unit: the tokens that drive it most, in an order that is nobody's choice (ELUDe paper, eq. 1)."""

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor
from torch.nn import functional

KEY_WIDTH = 64
"""Inputs by which tied tokens are told apart; those that agree in all of these are told apart by the others."""


def top_instances(
    values: Float[Tensor, " tokens"],
    k: int,
    inputs: Float[ndarray, "tokens d_in"] | Float[Tensor, "tokens d_in"] | None = None,
) -> Int[Tensor, " k"]:
    """The k largest activations, the largest first; equal ones in the order of what enters the site there.

    Where no inputs are given, equal ones stay in the order of tokens.

    So the instances do not depend on the order of images, also where activations are coarse (16 bit) and often equal;
    tokens that agree in their inputs too are one and the same to what follows. Signed: the largest, not the largest in
    size. `torch.topk` promises no order among equal values and gives the k-th value only.
    """
    lowest = torch.topk(values, k).values[-1]
    rows = descending(values, torch.nonzero(values >= lowest).squeeze(1))
    is_tied = equal_neighbours(values[rows][1:] == values[rows][:-1])
    tied = rows[is_tied]
    if inputs is not None and len(tied):
        rows[is_tied] = descending(values, tied[by_content(inputs, tied)])
    return rows[:k]


def descending(values: Float[Tensor, " tokens"], rows: Int[Tensor, " rows"]) -> Int[Tensor, " rows"]:
    """The rows by value, the largest first; equal ones stay in their order."""
    return rows[torch.sort(values[rows], descending=True, stable=True).indices]


def equal_neighbours(same: Bool[Tensor, " pairs"]) -> Bool[Tensor, " rows"]:
    """Which of some rows equal the one before or the one after."""
    return functional.pad(same, (1, 0)) | functional.pad(same, (0, 1))


def by_content(
    inputs: Float[ndarray, "tokens d_in"] | Float[Tensor, "tokens d_in"], rows: Int[Tensor, " rows"]
) -> Int[Tensor, " rows"]:
    """The places of these rows in the order of their inputs' bytes; equal ones stay in their order."""
    order = by_bytes(gathered(inputs, rows, KEY_WIDTH))
    prefix = gathered(inputs, rows[order], KEY_WIDTH)
    changed = np.concatenate([[True], (prefix[1:] != prefix[:-1]).any(axis=1)])
    is_tied = equal_neighbours(torch.from_numpy(~changed[1:]))
    if inputs.shape[1] > KEY_WIDTH and bool(is_tied.any()):
        group = torch.from_numpy(np.cumsum(changed))[is_tied]
        within = by_bytes(gathered(inputs, rows[order[is_tied]], inputs.shape[1]))
        order[is_tied] = order[is_tied][within][torch.sort(group[within], stable=True).indices]
    return order.to(rows.device)


def gathered(
    inputs: Float[ndarray, "tokens d_in"] | Float[Tensor, "tokens d_in"], rows: Int[Tensor, " rows"], width: int
) -> Float[ndarray, "rows width"]:
    """The first inputs of these tokens."""
    if isinstance(inputs, Tensor):
        return inputs[rows.to(inputs.device), :width].cpu().numpy()
    found: Float[ndarray, "rows width"] = inputs[rows.cpu().numpy(), :width]
    return found


def by_bytes(keys: Float[ndarray, "rows width"]) -> Int[Tensor, " rows"]:
    """The order of the rows by their bytes."""
    whole = np.ascontiguousarray(keys).view(np.dtype((np.void, keys.shape[1] * keys.itemsize))).ravel()
    return torch.from_numpy(np.argsort(whole, kind="stable"))
