"""The matching pursuit autoencoder: a dictionary without an encoder, read greedily."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from methods.autoencoder import Initial, Start, Terms, mean_square
from methods.coding import Tensors, state_like
from methods.protocol import Activations, Codes, Decomposition
from methods.sae import LibraryAutoencoder, overcomplete_sae
from methods.sparse import Pursue


@dataclass(frozen=True)
class MatchingPursuitSAE(LibraryAutoencoder):
    """Matching pursuit (Costa et al. 2025, arXiv:2506.03093): k greedy steps on what is left; there is no encoder.

    Codes can be negative. The library returns the residual where others return pre-codes; the re-animation term takes
    the inner products with the token instead.

    Attributes:
        k: Steps a token (the paper: 20 at width 768).
    """

    k: int = 20

    codes_are_nonnegative: ClassVar[bool] = False
    positive_options: ClassVar[tuple[str, ...]] = (*LibraryAutoencoder.positive_options, "k")

    def model(self, width: int, n_atoms: int) -> nn.Module:
        """The library's matching pursuit autoencoder."""
        return overcomplete_sae().MpSAE(width, nb_concepts=n_atoms, k=self.k)  # type: ignore[no-any-return]

    def initial(self, start: Start) -> Initial:
        """The dictionary as the library draws it."""
        model: Any = self.drawn(start, len(start.mean))
        return {"dictionary": model.dictionary._weights}, {}

    def terms(self, parameters: Tensors, buffers: Tensors, x: Tensor, batch: Activations) -> Terms:
        """The residual after k steps."""
        dictionary = parameters["dictionary"]
        residual, _, atoms = Pursue.apply(dictionary, x, self.k)
        is_dormant = torch.ones(dictionary.shape[:2], dtype=torch.bool, device=x.device)
        is_dormant.view(-1)[atoms.flatten()] = False
        products = dictionary @ x.mean(dim=0)
        dormant = (products * is_dormant).sum(dim=1) / is_dormant.sum(dim=1).clamp_min(1)
        return Terms(mean_square(residual), dormant, torch.zeros_like(dormant))

    def frozen(self, parameters: Tensors, buffers: Tensors) -> dict[str, Tensor]:
        """The dictionary."""
        return {"dictionary": parameters["dictionary"].detach().clone()}

    def fill(self, model: Any, state: Tensors) -> None:
        """The dictionary; there is no encoder."""
        model.dictionary._weights.copy_(state["dictionary"])

    def encode(self, decomposition: Decomposition, activations: Activations) -> Codes:
        """The values that k steps of matching pursuit give each atom."""
        state = state_like(decomposition, activations.outputs)
        x = (activations.outputs - state["mean"]) / state["scale"]
        with torch.no_grad():
            _, values, atoms = Pursue.apply(state["dictionary"][None], x, self.k)
        codes = x.new_zeros(len(x), decomposition.n_atoms)
        return codes.scatter_add_(1, atoms[:, 0].T, values[:, 0].T)
