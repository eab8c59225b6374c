"""Sparse autoencoders through the overcomplete library (Fel et al. 2025).

The library trains; what we keep is tensors, and reading them back needs no library. Its import is slow and, beside
matplotlib 3.9 or later, fails unless a name that it looks for is put back first; both stay in this file.
"""

from dataclasses import dataclass
from types import ModuleType
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from methods.protocol import Activations, ActivationSource, Codes, Decomposition, Properties
from methods.training import Training, reanimation, train


def overcomplete_sae() -> ModuleType:
    """The library's `sae` module; `matplotlib.cm.get_cmap`, gone since 3.9, is there while it is imported."""
    import matplotlib as mpl
    from matplotlib import cm

    if not hasattr(cm, "get_cmap"):
        cm.get_cmap = mpl.colormaps.get_cmap  # type: ignore[attr-defined]
    from overcomplete import sae

    return sae  # type: ignore[no-any-return]


@dataclass(frozen=True)
class TopKSAE:
    """TopK sparse autoencoder (Gao et al. 2024, arXiv:2406.04093): the k largest codes of a token stay.

    The library's SAE has no pre-bias and no decoder bias; the outputs are centred and divided by one scalar before
    it and put back after it.

    Attributes:
        expansion_factor: Atoms per unit of the site.
        k: Active atoms a token (the paper: 20 at width 768).
        epochs: Passes over the probing tokens (the paper: 50).
        batch_size: Tokens a step.
        learning_rate: Adam's (the paper sweeps 1e-4, 5e-4, 1e-3).
        dead_weight: Weight of the re-animation term (the paper sweeps 1e-5, 1e-4, 1e-3).
    """

    expansion_factor: float = 8.0
    k: int = 20
    epochs: int = 50
    batch_size: int = 256
    learning_rate: float = 1e-3
    dead_weight: float = 1e-4

    reads: ClassVar[frozenset[str]] = frozenset({"outputs"})
    properties: ClassVar[Properties] = Properties(
        stable=False, training_free=False, explicit=True, lossless=False, unsupervised=True
    )
    version: ClassVar[int] = 1
    codes_are_nonnegative: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in ("expansion_factor", "k", "epochs", "batch_size", "learning_rate"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}: got {getattr(self, name)}; expected a positive number; raise it")
        if self.dead_weight < 0:
            raise ValueError(f"dead_weight: got {self.dead_weight}; expected 0 or more; raise it")

    def decompose(self, activations: ActivationSource, *, seed: int) -> Decomposition:
        """A trained autoencoder: encoder, unit-norm dictionary, and the scaling around them."""
        mean, scale = centre_and_scale(activations)
        units = len(mean)
        n_atoms = round(self.expansion_factor * units)
        if self.k > n_atoms:
            raise ValueError(f"k: got {self.k}; expected at most the {n_atoms} atoms; lower it")
        sae = overcomplete_sae()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = sae.TopKSAE(units, nb_concepts=n_atoms, top_k=self.k)

        def loss_of(batch: Activations) -> Float[Tensor, ""]:
            x = (batch.outputs - mean) / scale
            pre_codes, codes, x_hat = model(x)
            return functional.mse_loss(x_hat, x) - self.dead_weight * reanimation(pre_codes, codes)

        notes = train(
            model, activations, loss_of, Training(self.epochs, self.batch_size, self.learning_rate), seed=seed
        )
        model.eval()
        linear = next(layer for layer in model.encoder.modules() if isinstance(layer, torch.nn.Linear))
        return Decomposition(
            n_atoms=n_atoms,
            tensors={
                "encoder_weight": linear.weight.detach().clone(),
                "encoder_bias": linear.bias.detach().clone(),
                "dictionary": model.get_dictionary().detach().clone(),
                "mean": mean,
                "scale": scale.reshape(1),
            },
            notes=notes,
        )

    def encode(self, decomposition: Decomposition, activations: Activations) -> Codes:
        """The k largest rectified pre-codes of each token, zero elsewhere."""
        state = decomposition.tensors
        x = (activations.outputs - state["mean"]) / state["scale"]
        codes = functional.relu(functional.linear(x, state["encoder_weight"], state["encoder_bias"]))
        top = torch.topk(codes, self.k, dim=-1)
        return torch.zeros_like(codes).scatter(-1, top.indices, top.values)

    def decode(self, decomposition: Decomposition, codes: Codes) -> Float[Tensor, "tokens units"]:
        """The codes' combination of dictionary rows, scaled and moved back."""
        state = decomposition.tensors
        return (codes @ state["dictionary"]) * state["scale"] + state["mean"]


def centre_and_scale(activations: ActivationSource) -> tuple[Float[Tensor, " units"], Float[Tensor, ""]]:
    """The outputs' mean vector, and the root mean square of what is left after taking it off (1 where that is 0)."""
    total, squares, n = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64), 0
    for batch in activations.batches(65_536):
        x = batch.outputs.double()
        total = total + x.sum(dim=0)
        squares = squares + x.square().sum()
        n += len(x)
    mean = total / n
    variance = (squares / n - mean.square().sum()) / len(mean)
    scale = torch.sqrt(variance.clamp_min(0))
    return mean.float(), torch.where(scale > 0, scale, torch.ones_like(scale)).float()
