"""What flows into one unit: contributions of its instances, and what is summed over them (ELUDe paper, section 3.2).

Contributions are made from the site's inputs when they are needed and never stored. Sums run over the rows in their
order, so that they do not depend on how many threads there are.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from methods.clustering.compiled import compiled
from methods.instances import Inputs

EPSILON = 1e-12
"""Added to norms (eq. 2) so that a contribution of zero stays zero."""

CHUNK_BYTES = 32 * 2**20
"""Inputs that are gathered at a time on a processor."""
DEVICE_CHUNK_BYTES = 192 * 2**20
"""Inputs that are gathered at a time on a GPU."""


@dataclass(frozen=True, eq=False)
class OnProcessor:
    """In machine code, on the calling thread.

    Attributes:
        inputs: What enters the site, by token.
        weight: The site's kernel.
    """

    inputs: Inputs
    weight: Float[ndarray, "units d_in"]

    def contributions(self, unit: int, rows: Int[ndarray, " instances"], normalize: bool) -> ndarray:
        """W_u * q of each instance (instances x d_in); tokens are gathered in their order, as files are best read."""
        found, d_in = np.empty(0), self.weight.shape[1]
        for part in np.array_split(np.argsort(rows), n_chunks(len(rows), d_in, CHUNK_BYTES)):
            chunk = self.inputs(torch.from_numpy(rows[part]), slice(None)).numpy()
            if not len(found):
                found = np.empty((len(rows), d_in), chunk.dtype)
            contribute(chunk, self.weight[unit], normalize, found, part)
        return found

    def sums(
        self, points: ndarray | Tensor, labels: Int[ndarray, " instances"], shares: Float[ndarray, " instances"], k: int
    ) -> Float[ndarray, "k d_in"]:
        """The sum over each cluster of its points, each times its share, in float64; noise (-1) is left out."""
        sums = np.zeros((k, points.shape[1]))
        add_to_clusters(sums, np.asarray(points), labels, shares)
        return sums

    def means(
        self, unit: int, rows: Int[ndarray, " instances"], labels: Int[ndarray, " instances"], k: int
    ) -> Float[ndarray, "k d_in"]:
        """The mean contribution of each cluster's instances: by the mean input, since the weight is one for all."""
        sums = np.zeros((k, self.weight.shape[1]))
        members = np.flatnonzero(labels >= 0)
        for part in np.array_split(members, n_chunks(len(members), sums.shape[1], CHUNK_BYTES)):
            chunk = self.inputs(torch.from_numpy(rows[part]), slice(None)).numpy()
            add_to_clusters(sums, chunk, labels[part], np.ones(len(part)))
        found: Float[ndarray, "k d_in"] = self.weight[unit].astype(np.float64) * sums / counts(labels, k)[:, None]
        return found


@dataclass(frozen=True, eq=False)
class OnDevice:
    """In torch, where the weight is: on a GPU.

    Attributes:
        inputs: What enters the site, by token, there and in float32.
        weight: The site's kernel.
    """

    inputs: Inputs
    weight: Float[Tensor, "units d_in"]

    def contributions(self, unit: int, rows: Int[ndarray, " instances"], normalize: bool) -> Tensor:
        """W_u * q of each instance (instances x d_in)."""
        found, order = self.weight.new_empty(len(rows), self.weight.shape[1]), np.argsort(rows)
        for part in np.array_split(order, n_chunks(len(rows), found.shape[1], DEVICE_CHUNK_BYTES)):
            products = self.inputs(torch.from_numpy(rows[part]), slice(None)) * self.weight[unit]
            if normalize:
                wide = products.double()
                products = (wide * (1.0 / (wide.square().sum(dim=1, keepdim=True).sqrt() + EPSILON))).to(found.dtype)
            found[torch.from_numpy(part).to(found.device)] = products
        return found

    def sums(
        self, points: ndarray | Tensor, labels: Int[ndarray, " instances"], shares: Float[ndarray, " instances"], k: int
    ) -> Float[ndarray, "k d_in"]:
        """The sum over each cluster of its points, each times its share, by matrix products in chunks."""
        held = torch.as_tensor(points, device=self.weight.device)
        return self.weighed(lambda part: held[torch.from_numpy(part).to(held.device)], labels, shares, k)

    def means(
        self, unit: int, rows: Int[ndarray, " instances"], labels: Int[ndarray, " instances"], k: int
    ) -> Float[ndarray, "k d_in"]:
        """The mean contribution of each cluster's instances."""

        def read(part: Int[ndarray, " part"]) -> Tensor:
            return self.inputs(torch.from_numpy(rows[part]), slice(None))

        sums = self.weighed(read, labels, np.ones(len(rows)), k)
        found: Float[ndarray, "k d_in"] = self.weight[unit].double().cpu().numpy() * sums / counts(labels, k)[:, None]
        return found

    def weighed(
        self,
        read: Callable[[Int[ndarray, " part"]], Tensor],
        labels: Int[ndarray, " instances"],
        shares: Float[ndarray, " instances"],
        k: int,
    ) -> Float[ndarray, "k d_in"]:
        """Sums over clusters of what is read for their instances, chunk after chunk."""
        device, members = self.weight.device, np.flatnonzero(labels >= 0)
        total = torch.zeros(k, self.weight.shape[1], dtype=torch.float64, device=device)
        for part in np.array_split(members, n_chunks(len(members), total.shape[1], DEVICE_CHUNK_BYTES)):
            own, share = (torch.from_numpy(values[part]).to(device) for values in (labels, shares))
            total += ((own == torch.arange(k, device=device)[:, None]) * share) @ read(part).double()
        found: Float[ndarray, "k d_in"] = total.cpu().numpy()
        return found


@dataclass(frozen=True, eq=False)
class Resident:
    """Inputs that stay where they are computed with.

    Attributes:
        values: All of them, as narrow as loses nothing.
    """

    values: Float[Tensor, "tokens d_in"]

    def __call__(self, rows: Int[Tensor, " rows"], dimensions: slice) -> Float[Tensor, "rows dimensions"]:
        """Those of some tokens, in float32."""
        return self.values[:, dimensions].index_select(0, rows.to(self.values.device)).float()


@dataclass(frozen=True, eq=False)
class Fetched:
    """Inputs that are sent over whenever they are asked for.

    Attributes:
        inputs: Where they are.
        device: Where they are computed with.
    """

    inputs: Inputs
    device: torch.device

    def __call__(self, rows: Int[Tensor, " rows"], dimensions: slice) -> Float[Tensor, "rows dimensions"]:
        """Those of some tokens, in float32."""
        return self.inputs(rows.cpu(), dimensions).to(self.device, torch.float32)


def on_device(
    inputs: Inputs, n_tokens: int, weight: Float[Tensor, "units d_in"], device: torch.device, room: int
) -> OnDevice:
    """Arithmetic on a device: with all inputs there where they fit into `room` bytes, else they are fetched in chunks.

    They are kept in 16 bits where that loses nothing, as it does where they were stored so.
    """
    there, fetched = weight.to(device, torch.float32), Fetched(inputs, device)
    for dtype in (torch.float16, torch.float32):
        if n_tokens * weight.shape[1] * dtype.itemsize <= room:
            values = sent(fetched, n_tokens, weight.shape[1], dtype)
            if values is not None:
                return OnDevice(Resident(values), there)
    return OnDevice(fetched, there)


def sent(fetched: Fetched, n_tokens: int, d_in: int, dtype: torch.dtype) -> Float[Tensor, "tokens d_in"] | None:
    """All inputs on the device, in this dtype; None where it would lose something."""
    values = torch.empty(n_tokens, d_in, dtype=dtype, device=fetched.device)
    for rows in torch.arange(n_tokens).chunk(n_chunks(n_tokens, d_in, DEVICE_CHUNK_BYTES)):
        some, here = fetched(rows, slice(None)), slice(int(rows[0]), int(rows[-1]) + 1)
        values[here] = some.to(dtype)
        if not torch.equal(values[here].float(), some):
            return None
    return values


def gathered_bytes(n_rows: int, d_in: int) -> int:
    """What is held while the inputs of so many rows are gathered on a processor.

    That is a chunk, and of a part of it what was stored and what is read.
    """
    return 3 * min(CHUNK_BYTES, 4 * n_rows * d_in)


def n_chunks(n_rows: int, width: int, n_bytes: int) -> int:
    """In how many parts so many rows of float32 are gathered, where one may take so many bytes."""
    return max(1, -(-n_rows // max(1, n_bytes // (4 * width))))


Arithmetic = OnProcessor | OnDevice
"""Where the contributions of a site's units are made and summed up; it knows the site's inputs and weight."""


def counts(labels: Int[ndarray, " instances"], k: int) -> Int[ndarray, " k"]:
    """Instances in each cluster."""
    return np.bincount(labels[labels >= 0], minlength=k)


@compiled
def contribute(
    inputs: Float[ndarray, "rows d_in"],
    weight: Float[ndarray, " d_in"],
    normalize: bool,
    found: Float[ndarray, "instances d_in"],
    places: Int[ndarray, " rows"],
) -> None:
    """Write W_u * q of some rows to their places, in the precision of the inputs; at unit length where asked for."""
    for at in range(len(inputs)):
        source, row, square = inputs[at], found[places[at]], 0.0
        for j in range(len(weight)):
            row[j] = source[j] * weight[j]
            square += np.float64(row[j]) * np.float64(row[j])
        if normalize:
            scale = 1.0 / (np.sqrt(square) + EPSILON)
            for j in range(len(weight)):
                row[j] *= scale


@compiled
def add_to_clusters(
    sums: Float[ndarray, "k d_in"],
    vectors: Float[ndarray, "rows d_in"],
    labels: Int[ndarray, " rows"],
    shares: Float[ndarray, " rows"],
) -> None:
    """Add each vector, times its share, to the sum of its cluster, in float64; noise is left out."""
    for at in range(len(vectors)):
        if labels[at] >= 0:
            row, total, share = vectors[at], sums[labels[at]], shares[at]
            for j in range(len(row)):
                total[j] += share * np.float64(row[j])
