"""The instances of a unit: the tokens that drive it most, in an order that is nobody's choice (ELUDe paper, eq. 1)."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor
from torch.nn import functional

from methods.sources import ActivationSource

Inputs = Callable[[Int[Tensor, " rows"], slice], Float[Tensor, "rows dimensions"]]
"""What enters the site at some tokens, in their order, or some of its dimensions; a copy."""

KEY_WIDTH = 64
"""Inputs by which tied tokens are told apart; those that agree in all of these are told apart by the others."""
KEY_BYTES = 16 * 2**20
"""Of so many tied tokens that their inputs would take more than this, fewer inputs are looked at together."""
UNITS_PER_READ = 64
"""Units whose activations are read together: they lie side by side, so one at a time would read the file as often."""
READ_BYTES = 256 * 2**20
"""Most that these activations take; where there are so many tokens, fewer units are read together."""


def each_unit(activations: ActivationSource, units: list[int]) -> Iterator[tuple[int, Float[Tensor, " tokens"]]]:
    """The activations of each unit over all tokens, read a block of units at a time.

    Raises:
        ValueError: One is not finite.
    """
    for block in blocks_of(units, max(1, READ_BYTES // (4 * activations.n_tokens))):
        values = activations.outputs_of(slice(block[0], block[-1] + 1)).T.contiguous()
        for unit in block:
            own = values[unit - block[0]]
            if not torch.isfinite(own).all():
                token = int(torch.nonzero(~torch.isfinite(own))[0])
                raise ValueError(
                    f"outputs: got {float(own[token])} for unit {unit} on token {token}; expected finite activations; "
                    "check the site"
                )
            yield unit, own.clone()  # so that the block can go while the last of its units are worked
        del values, own


def blocks_of(units: list[int], most: int) -> Iterator[list[int]]:
    """Units that follow each other, as many as are read together: `UNITS_PER_READ`, or fewer."""
    block: list[int] = []
    for unit in units:
        if block and (unit != block[-1] + 1 or len(block) >= min(most, UNITS_PER_READ)):
            yield block
            block = []
        block.append(unit)
    if block:
        yield block


def top_instances(values: Float[Tensor, " tokens"], k: int, inputs: Inputs | None = None) -> Int[Tensor, " k"]:
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


def chosen_bytes(n_tokens: int) -> int:
    """What is held while the instances of a unit are chosen, at most: where every token is tied."""
    return 100 * n_tokens + 3 * max(KEY_BYTES, 4 * n_tokens)


def descending(values: Float[Tensor, " tokens"], rows: Int[Tensor, " rows"]) -> Int[Tensor, " rows"]:
    """The rows by value, the largest first; equal ones stay in their order."""
    return rows[torch.sort(values[rows], descending=True, stable=True).indices]


def equal_neighbours(same: Bool[Tensor, " pairs"]) -> Bool[Tensor, " rows"]:
    """Which of some rows equal the one before or the one after."""
    return functional.pad(same, (1, 0)) | functional.pad(same, (0, 1))


def by_content(inputs: Inputs, rows: Int[Tensor, " rows"]) -> Int[Tensor, " rows"]:
    """The places of these rows in the order of their inputs' bytes; equal ones stay in their order.

    Some inputs at a time are looked at, and after the first of them only for the rows that are equal so far.
    """
    own = rows.cpu()
    order = torch.arange(len(own))
    open_, group = order.clone(), torch.zeros_like(order)  # the places in doubt, and which of them are equal so far
    start, width = 0, min(KEY_WIDTH, room_for(len(own)))
    while len(open_):
        keys = inputs(own[order[open_]], slice(start, start + width)).cpu().numpy()
        if not keys.shape[1]:
            break
        within = by_bytes(keys)
        within = within[torch.sort(group[within], stable=True).indices]
        order[open_], group = order[open_[within]], group[within]
        is_same = alike(keys, within.numpy()) & (group[1:] == group[:-1])
        is_tied = equal_neighbours(is_same)
        open_, group = open_[is_tied], functional.pad(~is_same, (1, 0)).cumsum(0)[is_tied]
        start, width = start + width, room_for(len(open_))
    return order.to(rows.device)


def room_for(n_rows: int) -> int:
    """How many inputs of so many rows are looked at together, at most."""
    return max(1, KEY_BYTES // (4 * max(1, n_rows)))


def alike(keys: Float[ndarray, "rows width"], order: Int[ndarray, " rows"]) -> Bool[Tensor, " pairs"]:
    """Which of the rows, in this order, have the same bytes as the one before."""
    bits = keys.view(np.dtype(f"i{keys.itemsize}"))[order]
    return torch.from_numpy((bits[1:] == bits[:-1]).all(axis=1))


def by_bytes(keys: Float[ndarray, "rows width"]) -> Int[Tensor, " rows"]:
    """The order of the rows by their bytes."""
    whole = np.ascontiguousarray(keys).view(np.dtype((np.void, keys.shape[1] * keys.itemsize))).ravel()
    return torch.from_numpy(np.argsort(whole, kind="stable"))
