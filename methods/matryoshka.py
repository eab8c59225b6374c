"""The Matryoshka autoencoder: nested dictionaries, each of which has to rebuild the outputs alone."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from methods.autoencoder import mean_square
from methods.coding import Tensors
from methods.sae import BatchTopKSAE
from methods.sparse import Combine, Pairs, pairs_of_mask


@dataclass(frozen=True)
class MatryoshkaSAE(BatchTopKSAE):
    """Matryoshka BatchTopK (Bussmann et al. 2025, arXiv:2503.17547): the loss is the mean over nested prefixes.

    One BatchTopK over all atoms; the outputs are rebuilt from the first 1/16, 3/16, 7/16 and all of the atoms, and
    each rebuilding has its squared error. Not in overcomplete; it starts as that library's BatchTopK does. (MSAE nests
    over k, and is another method.)
    """

    GROUPS: ClassVar[tuple[int, ...]] = (1, 2, 4, 9)
    """Sixteenths of the atoms that each prefix adds."""

    def prefixes(self, n_atoms: int) -> list[int]:
        """Where each prefix ends; the last is all atoms."""
        shares, total = [], 0
        for group in self.GROUPS:
            total += group
            shares.append(max(1, n_atoms * total // sum(self.GROUPS)))
        return sorted(set(shares))

    def chosen(self, pre_codes: Float[Tensor, "stack tokens atoms"], buffers: Tensors) -> Pairs:
        """All that reach the batch's threshold, in one bag per token and group."""
        ends = torch.tensor(self.prefixes(pre_codes.shape[2]), device=pre_codes.device)
        return pairs_of_mask(self.reaching(pre_codes, buffers), ends)

    def error(
        self, pre_codes: Float[Tensor, " pairs"], dictionary: Tensor, x: Tensor, pairs: Pairs
    ) -> Float[Tensor, " stack"]:
        """Mean over the prefixes of the squared error."""
        parts = Combine.apply(functional.relu(pre_codes), dictionary, pairs)
        nested = parts.view(-1, len(x), len(self.prefixes(dictionary.shape[1])), x.shape[1]).cumsum(dim=2)
        errors = [mean_square(x - x_hat) for x_hat in nested.unbind(dim=2)]
        return torch.stack(errors).mean(dim=0)
