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

EPSILON = 1e-12
"""Added to norms (eq. 2) so that a contribution of zero stays zero."""

CHUNK_ROWS = 16384


@dataclass(frozen=True, eq=False)
class OnProcessor:
    """In machine code, on the calling thread.

    Attributes:
        inputs: What enters the site; may be a memory-mapped file.
        weight: The site's kernel.
    """

    inputs: Float[ndarray, "tokens d_in"]
    weight: Float[ndarray, "units d_in"]

    def contributions(self, unit: int, rows: Int[ndarray, " instances"], normalize: bool) -> ndarray:
        """W_u * q of each instance (instances x d_in)."""
        return contributions(self.inputs, rows, self.weight[unit], normalize)

    def sums(
        self, points: ndarray | Tensor, labels: Int[ndarray, " instances"], shares: Float[ndarray, " instances"], k: int
    ) -> Float[ndarray, "k d_in"]:
        """The sum over each cluster of its points, each times its share, in float64; noise (-1) is left out."""
        return cluster_sums(np.asarray(points), np.arange(len(points)), labels, shares, k)

    def means(
        self, unit: int, rows: Int[ndarray, " instances"], labels: Int[ndarray, " instances"], k: int
    ) -> Float[ndarray, "k d_in"]:
        """The mean contribution of each cluster's instances: by the mean input, since the weight is one for all."""
        sums = cluster_sums(self.inputs, rows, labels, np.ones(len(rows)), k)
        found: Float[ndarray, "k d_in"] = self.weight[unit].astype(np.float64) * sums / counts(labels, k)[:, None]
        return found


@dataclass(frozen=True, eq=False)
class OnDevice:
    """In torch, where the tensors are: on a GPU, with the site's inputs resident for all units.

    Attributes:
        inputs: What enters the site.
        weight: The site's kernel.
    """

    inputs: Float[Tensor, "tokens d_in"]
    weight: Float[Tensor, "units d_in"]

    def contributions(self, unit: int, rows: Int[ndarray, " instances"], normalize: bool) -> Tensor:
        """W_u * q of each instance (instances x d_in)."""
        index = torch.from_numpy(rows).to(self.inputs.device)
        found = self.inputs.new_empty(len(rows), self.inputs.shape[1])
        for start in range(0, len(rows), CHUNK_ROWS):
            products = self.inputs[index[start : start + CHUNK_ROWS]] * self.weight[unit]
            if normalize:
                wide = products.double()
                products = (wide * (1.0 / (wide.square().sum(dim=1, keepdim=True).sqrt() + EPSILON))).to(found.dtype)
            found[start : start + CHUNK_ROWS] = products
        return found

    def sums(
        self, points: ndarray | Tensor, labels: Int[ndarray, " instances"], shares: Float[ndarray, " instances"], k: int
    ) -> Float[ndarray, "k d_in"]:
        """The sum over each cluster of its points, each times its share, by matrix products in chunks."""
        held = torch.as_tensor(points, device=self.inputs.device)
        return self.weighed(lambda start, stop: held[start:stop], labels, shares, k)

    def means(
        self, unit: int, rows: Int[ndarray, " instances"], labels: Int[ndarray, " instances"], k: int
    ) -> Float[ndarray, "k d_in"]:
        """The mean contribution of each cluster's instances."""
        index = torch.from_numpy(rows).to(self.inputs.device)
        sums = self.weighed(lambda start, stop: self.inputs[index[start:stop]], labels, np.ones(len(rows)), k)
        found: Float[ndarray, "k d_in"] = self.weight[unit].double().cpu().numpy() * sums / counts(labels, k)[:, None]
        return found

    def weighed(
        self,
        read: Callable[[int, int], Tensor],
        labels: Int[ndarray, " instances"],
        shares: Float[ndarray, " instances"],
        k: int,
    ) -> Float[ndarray, "k d_in"]:
        """Sums over clusters of what is read, chunk after chunk."""
        device = self.inputs.device
        own, share = torch.from_numpy(labels).to(device), torch.from_numpy(shares).to(device)
        total = torch.zeros(k, self.inputs.shape[1], dtype=torch.float64, device=device)
        for start in range(0, len(labels), CHUNK_ROWS):
            stop = start + CHUNK_ROWS
            belongs = own[start:stop] == torch.arange(k, device=device)[:, None]
            total += (belongs * share[start:stop]) @ read(start, stop).double()
        found: Float[ndarray, "k d_in"] = total.cpu().numpy()
        return found


Arithmetic = OnProcessor | OnDevice
"""Where the contributions of a site's units are made and summed up; it holds the site's inputs and weight."""


def counts(labels: Int[ndarray, " instances"], k: int) -> Int[ndarray, " k"]:
    """Instances in each cluster."""
    return np.bincount(labels[labels >= 0], minlength=k)


@compiled
def contributions(
    inputs: Float[ndarray, "tokens d_in"],
    rows: Int[ndarray, " instances"],
    weight: Float[ndarray, " d_in"],
    normalize: bool,
) -> Float[ndarray, "instances d_in"]:
    """W_u * q of each instance, in the precision of the inputs; at unit length where it is to be normalised."""
    found = np.empty((len(rows), len(weight)), inputs.dtype)
    for at in range(len(rows)):
        source, row, square = inputs[rows[at]], found[at], 0.0
        for j in range(len(weight)):
            row[j] = source[j] * weight[j]
            square += np.float64(row[j]) * np.float64(row[j])
        if normalize:
            scale = 1.0 / (np.sqrt(square) + EPSILON)
            for j in range(len(weight)):
                row[j] *= scale
    return found


@compiled
def cluster_sums(
    vectors: Float[ndarray, "vectors d_in"],
    rows: Int[ndarray, " instances"],
    labels: Int[ndarray, " instances"],
    shares: Float[ndarray, " instances"],
    n_clusters: int,
) -> Float[ndarray, "k d_in"]:
    """The sum over each cluster's instances of the vector in their row, times their share, in float64; noise is out."""
    sums = np.zeros((n_clusters, vectors.shape[1]))
    for at in range(len(rows)):
        if labels[at] >= 0:
            row, total, share = vectors[rows[at]], sums[labels[at]], shares[at]
            for j in range(len(row)):
                total[j] += share * np.float64(row[j])
    return sums
