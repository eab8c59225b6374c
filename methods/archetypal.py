"""The relaxed archetypal autoencoder: every atom is nearly a convex combination of data points."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from methods.autoencoder import Autoencoder, Initial, Start
from methods.coding import Tensors
from methods.protocol import ActivationSource, Decomposition, Properties
from methods.sae import TopKSAE, linear_of, overcomplete_sae

LARGEST_SAMPLE = 200_000
"""Tokens that k-means looks at, at most."""


@dataclass(frozen=True)
class ArchetypalSAE(TopKSAE):
    """Relaxed archetypal TopK (Fel et al. 2025, arXiv:2502.12892): atoms = (convex weights x points + slack) x factor.

    The points are k-means centres of the tokens. The library starts the convex weights at the identity, so there have
    to be at least as many points as atoms.

    Attributes:
        k: Active atoms a token; 0 takes `active_share`.
        active_share: Share of the atoms that is active (the paper: 0.1).
        points_per_atom: Points the atoms are combined from, per atom.
        points_seed: Seed of k-means; -1 takes the seed of the run. The published stability has one k-means for all
            runs, which then start from the same dictionary (arXiv:2606.02061): a fixed seed gives that. The claim to be
            stable is the ELUDe paper's, Table 1.
        slack: Longest step that an atom may take away from its convex combination (delta in the paper).
    """

    k: int = 0
    active_share: float = 0.1
    points_per_atom: float = 1.0
    points_seed: int = -1
    slack: float = 1.0

    properties: ClassVar[Properties] = Properties(
        stable=True, training_free=False, explicit=True, lossless=False, unsupervised=True
    )
    positive_options: ClassVar[tuple[str, ...]] = Autoencoder.positive_options  # k may be 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.k < 0:
            raise ValueError(f"k: got {self.k}; expected 0 (active_share) or more; raise it")
        if not 0 < self.active_share < 1:
            raise ValueError(f"active_share: got {self.active_share}; expected a share between 0 and 1; change it")
        if self.points_per_atom < 1:
            raise ValueError(f"points_per_atom: got {self.points_per_atom}; expected at least 1; raise it")
        if self.slack < 0:
            raise ValueError(f"slack: got {self.slack}; expected 0 or more; raise it")

    def active(self, n_atoms: int) -> int:
        """How many atoms of a token are active."""
        return self.k or max(1, int(self.active_share * n_atoms))

    def unfit(self, n_tokens: int, units: int) -> str:
        """Why it cannot be applied to so many tokens at a site of so many units; empty where it can."""
        n_points = self.n_points(round(self.expansion_factor * units))
        return f"needs {n_points} tokens, a point each, and there are {n_tokens}" if n_tokens < n_points else ""

    def n_atoms(self, activations: ActivationSource, units: int) -> int:
        """As many as the expansion factor says.

        Raises:
            ValueError: There are fewer tokens than points.
        """
        n_atoms = super().n_atoms(activations, units)
        if activations.n_tokens < self.n_points(n_atoms):
            raise ValueError(
                f"points_per_atom: got {self.points_per_atom}, which asks for {self.n_points(n_atoms)} points; "
                f"expected at most the {activations.n_tokens} tokens; lower it or expansion_factor"
            )
        return n_atoms

    def n_points(self, n_atoms: int) -> int:
        """How many points there are."""
        return round(self.points_per_atom * n_atoms)

    def model(self, width: int, n_atoms: int) -> nn.Module:
        """The library's relaxed archetypal autoencoder; its points are put in afterwards."""
        points = torch.zeros(self.n_points(n_atoms), width)
        sae = overcomplete_sae()
        return sae.RATopKSAE(width, n_atoms, points, top_k=self.active(n_atoms), delta=self.slack)  # type: ignore[no-any-return]

    def initial(self, start: Start) -> Initial:
        """The encoder as the library draws it, the weights and slack it starts with, and the points."""
        model: Any = self.drawn(start, len(start.mean))
        linear, atoms = linear_of(model), model.dictionary
        seed = start.seed if self.points_seed < 0 else self.points_seed
        parameters = {
            "encoder_weight": linear.weight,
            "encoder_bias": linear.bias,
            "weights": atoms.W,
            "slack": atoms.Relax,
            "multiplier": atoms.multiplier,
        }
        return parameters, {"points": centres(start, self.n_points(start.n_atoms), seed)}

    def project(self, parameters: Tensors) -> None:
        """Weights non-negative with sum one, slack no longer than it may be."""
        weights, slack = parameters["weights"].data, parameters["slack"].data
        weights.relu_()
        weights /= weights.sum(dim=-1, keepdim=True) + 1e-8
        slack *= (self.slack / slack.norm(dim=-1, keepdim=True).clamp_min(1e-12)).clamp(max=1)

    def atoms(self, parameters: Tensors, buffers: Tensors) -> Float[Tensor, "*stack atoms width"]:
        """The dictionary that weights, points and slack make."""
        combined = parameters["weights"] @ buffers["points"] + parameters["slack"]
        return combined * torch.exp(parameters["multiplier"])[..., None, None]

    def library_model(self, decomposition: Decomposition) -> Any:
        """The library's model; weights, points and slack are not kept, so its fused dictionary is put in."""
        model = super().library_model(decomposition)
        model.dictionary._fused_dictionary = decomposition.tensors["dictionary"].clone()
        return model

    def fill(self, model: Any, state: Tensors) -> None:
        """The encoder."""
        linear = linear_of(model)
        linear.weight.copy_(state["encoder_weight"])
        linear.bias.copy_(state["encoder_bias"])

    def frozen(self, parameters: Tensors, buffers: Tensors) -> dict[str, Tensor]:
        """Encoder and dictionary; weights, points and slack are done with."""
        encoder = {name: parameters[name].detach().clone() for name in ("encoder_weight", "encoder_bias")}
        return {**encoder, "dictionary": self.atoms(parameters, buffers).detach()}


def centres(start: Start, n: int, seed: int) -> Float[Tensor, "points units"]:
    """k-means centres of the scaled tokens, of a random sample where there are very many."""
    from sklearn.cluster import MiniBatchKMeans
    from threadpoolctl import threadpool_limits

    generator = torch.Generator().manual_seed(seed)
    total = start.source.n_tokens
    rows = torch.randperm(total, generator=generator)[:LARGEST_SAMPLE].sort().values
    tokens = (start.source.read(rows).outputs.cpu().float() - start.mean) / start.scale
    means = MiniBatchKMeans(n, batch_size=max(4096, 2 * n), max_iter=10, init="random", n_init=1, random_state=seed)
    with threadpool_limits(torch.get_num_threads()):  # as many threads as the rest, not one per core
        found = means.fit(tokens.numpy())
    return torch.from_numpy(found.cluster_centers_.astype(np.float32))
