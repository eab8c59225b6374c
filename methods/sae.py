"""Sparse autoencoders of the overcomplete library (Fel et al. 2025): its models start them, and check them.

The library builds each model and draws its first weights; training runs on stacks of the same tensors
(`methods.autoencoder`), and what is kept is tensors, so reading a dictionary back needs no library. `library_model`
goes the other way. Its import is slow and, beside matplotlib 3.9 or later, fails unless a name that it looks for is
put back first; both stay in this file.
"""

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from methods.autoencoder import (
    Autoencoder,
    Initial,
    KeptBy,
    Start,
    Terms,
    dormant_mean,
    mean_square,
    pre_codes_of,
)
from methods.coding import Tensors, at_least, k_largest
from methods.protocol import Activations, Codes, Decomposition
from methods.sparse import Combine, Encode, Jump, Pairs, pairs_of_indices, pairs_of_mask

MOMENTUM = 0.9
"""Of BatchTopK's running threshold, as in the library."""


def overcomplete_sae() -> ModuleType:
    """The library's `sae` module; `matplotlib.cm.get_cmap`, gone since 3.9, is there while it is imported."""
    import matplotlib as mpl
    from matplotlib import cm

    if not hasattr(cm, "get_cmap"):
        cm.get_cmap = mpl.colormaps.get_cmap  # type: ignore[attr-defined]
    from overcomplete import sae

    return sae  # type: ignore[no-any-return]


@contextmanager
def drawing(seed: int) -> Iterator[None]:
    """The global generator of the CPU at a seed; what it was comes back afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would move the GPUs' too
        yield


@dataclass(frozen=True)
class LibraryAutoencoder(Autoencoder):
    """A family whose model the library has."""

    @abstractmethod
    def model(self, width: int, n_atoms: int) -> nn.Module:
        """The library's model of this shape, with weights drawn from the global generator."""

    def drawn(self, start: Start, width: int) -> nn.Module:
        """The library's model with weights drawn from the seed."""
        with drawing(start.seed):
            return self.model(width, start.n_atoms)

    def initial(self, start: Start) -> Initial:
        """Encoder and dictionary as the library draws them."""
        model: Any = self.drawn(start, len(start.mean))
        linear = linear_of(model)
        parameters = {"encoder_weight": linear.weight, "encoder_bias": linear.bias}
        return {**parameters, "dictionary": model.dictionary._weights}, {}

    def library_model(self, decomposition: Decomposition) -> Any:
        """The library's own model with these weights, ready to be used on scaled outputs: its forward is ours."""
        state = decomposition.tensors
        with drawing(0):
            model: Any = self.model(len(state["mean"]), decomposition.n_atoms)
        with torch.no_grad():
            self.fill(model, state)
            # The dictionary is fused when a model goes from training to evaluation, not when weights are loaded.
            model.train()
            model.eval()
        return model

    def fill(self, model: Any, state: Tensors) -> None:
        """Put our tensors into the library's model."""
        model.dictionary._weights.copy_(state["dictionary"])
        linear = linear_of(model)
        linear.weight.copy_(state["encoder_weight"])
        linear.bias.copy_(state["encoder_bias"])


def linear_of(model: Any) -> nn.Linear:
    """The linear layer of a library model's encoder."""
    return next(layer for layer in model.encoder.modules() if isinstance(layer, nn.Linear))


@dataclass(frozen=True)
class VanillaSAE(LibraryAutoencoder):
    """Sparse autoencoder with an L1 penalty (Bricken et al. 2023; Cunningham et al. 2023, arXiv:2309.08600).

    Attributes:
        l1_weight: Weight of the penalty, the mean over tokens of the codes' sum (the paper sweeps 1e-3, 5e-3, 2e-2).
    """

    l1_weight: float = 5e-3

    activation: ClassVar[KeptBy | None] = "relu"
    penalty_option: ClassVar[str | None] = "l1_weight"

    def model(self, width: int, n_atoms: int) -> nn.Module:
        """The library's plain autoencoder."""
        return overcomplete_sae().SAE(width, nb_concepts=n_atoms)  # type: ignore[no-any-return]

    def terms(self, parameters: Tensors, buffers: Tensors, x: Tensor, batch: Activations) -> Terms:
        """Dense: before the penalty has worked, most atoms are active."""
        pre_codes = pre_codes_of(parameters, x)
        codes = functional.relu(pre_codes)
        residual = x - torch.bmm(codes, parameters["dictionary"])
        penalty = codes.sum(dim=2).mean(dim=1)
        return Terms(mean_square(residual), dormant_mean(pre_codes, codes), penalty)


@dataclass(frozen=True)
class TopKSAE(LibraryAutoencoder):
    """TopK sparse autoencoder (Gao et al. 2024, arXiv:2406.04093): the k largest codes of a token stay.

    Attributes:
        k: Active atoms a token (the paper: 20 at width 768).
    """

    k: int = 20

    activation: ClassVar[KeptBy | None] = "topk"
    positive_options: ClassVar[tuple[str, ...]] = (*Autoencoder.positive_options, "k")

    def model(self, width: int, n_atoms: int) -> nn.Module:
        """The library's TopK autoencoder."""
        return overcomplete_sae().TopKSAE(width, nb_concepts=n_atoms, top_k=self.k)  # type: ignore[no-any-return]

    def terms(self, parameters: Tensors, buffers: Tensors, x: Tensor, batch: Activations) -> Terms:
        """Only the k chosen atoms of each token are computed with."""
        weight, bias = parameters["encoder_weight"], parameters["encoder_bias"]
        with torch.no_grad():
            pre_codes = pre_codes_of(parameters, x)
            pairs = self.chosen(pre_codes, buffers)
        codes, dormant = Encode.apply(weight, bias, x, pre_codes, pairs)
        error = self.error(codes, self.atoms(parameters, buffers), x, pairs)
        return Terms(error, dormant, torch.zeros_like(dormant))

    def active(self, n_atoms: int) -> int:
        """How many atoms of a token are active."""
        return self.k

    def chosen(self, pre_codes: Float[Tensor, "stack tokens atoms"], buffers: Tensors) -> Pairs:
        """The k largest of each token."""
        n_atoms = pre_codes.shape[2]
        return pairs_of_indices(torch.topk(pre_codes, self.active(n_atoms), dim=2, sorted=False).indices, n_atoms)

    def error(
        self, pre_codes: Float[Tensor, " pairs"], dictionary: Tensor, x: Tensor, pairs: Pairs
    ) -> Float[Tensor, " stack"]:
        """Mean squared error of the reconstruction from the chosen pairs."""
        x_hat = Combine.apply(functional.relu(pre_codes), dictionary, pairs)
        return mean_square(x - x_hat.view(-1, *x.shape))

    def atoms(self, parameters: Tensors, buffers: Tensors) -> Float[Tensor, "*stack atoms width"]:
        """The dictionary."""
        return parameters["dictionary"]

    def activate(self, pre_codes: Codes, state: Tensors) -> Codes:
        """The k largest rectified pre-codes of each token, zero elsewhere."""
        return k_largest(pre_codes, self.active(pre_codes.shape[-1]))


@dataclass(frozen=True)
class BatchTopKSAE(TopKSAE):
    """BatchTopK (Bussmann et al. 2024, arXiv:2412.06410): the k largest codes a token on average, over a batch.

    A batch keeps its k x tokens largest codes, so its smallest kept code is a threshold; a running mean of it stands
    in when codes are read, which makes a token's codes independent of the tokens beside it. The library counts its
    `top_k` over the whole batch and keeps the threshold outside the saved state; here k is per token.
    """

    activation: ClassVar[KeptBy | None] = "threshold"

    def model(self, width: int, n_atoms: int) -> nn.Module:
        """The library's BatchTopK autoencoder for batches of the training's size."""
        sae = overcomplete_sae()
        return sae.BatchTopKSAE(width, n_atoms, top_k=self.k * self.batch_size)  # type: ignore[no-any-return]

    def initial(self, start: Start) -> Initial:
        """As the library's, and a running threshold that nothing has set (below zero)."""
        parameters, _ = super().initial(start)
        return parameters, {"threshold": torch.tensor(-1.0)}

    def chosen(self, pre_codes: Float[Tensor, "stack tokens atoms"], buffers: Tensors) -> Pairs:
        """All that reach the batch's threshold."""
        return pairs_of_mask(self.reaching(pre_codes, buffers))

    def reaching(self, pre_codes: Float[Tensor, "stack tokens atoms"], buffers: Tensors) -> Tensor:
        """Whether each code is among the batch's k x tokens largest; the running threshold follows."""
        codes = functional.relu(pre_codes)
        largest = torch.topk(codes.flatten(1), self.k * pre_codes.shape[1], dim=1, sorted=True).values
        current, running = largest[:, -1], buffers["threshold"]
        running.copy_(torch.where(running < 0, current, MOMENTUM * running + (1 - MOMENTUM) * current))
        return (codes >= current[:, None, None]) & (codes > 0)

    def frozen(self, parameters: Tensors, buffers: Tensors) -> dict[str, Tensor]:
        """The threshold too."""
        return {**super().frozen(parameters, buffers), "threshold": buffers["threshold"].reshape(1).clone()}

    def fill(self, model: Any, state: Tensors) -> None:
        """The threshold too."""
        super().fill(model, state)
        model.running_threshold = state["threshold"][0].clone()

    def activate(self, pre_codes: Codes, state: Tensors) -> Codes:
        """The rectified pre-codes that reach the running threshold."""
        return at_least(pre_codes, state["threshold"])


@dataclass(frozen=True)
class JumpReLUSAE(LibraryAutoencoder):
    """JumpReLU (Rajamanoharan et al. 2024, arXiv:2407.14435): a learned threshold per atom, with an L0 penalty.

    The pseudo-gradients are the library's, with its Silverman kernel.

    Attributes:
        sparsity_weight: Weight of the penalty, the mean number of active atoms (the paper sweeps 1e-4, 1e-3, 1e-2).
        bandwidth: Of the kernel.
    """

    sparsity_weight: float = 1e-3
    bandwidth: float = 1e-3

    activation: ClassVar[KeptBy | None] = "threshold"
    penalty_option: ClassVar[str | None] = "sparsity_weight"
    positive_options: ClassVar[tuple[str, ...]] = (*Autoencoder.positive_options, "bandwidth")

    def model(self, width: int, n_atoms: int) -> nn.Module:
        """The library's JumpReLU autoencoder."""
        return overcomplete_sae().JumpSAE(width, n_atoms, bandwidth=self.bandwidth)  # type: ignore[no-any-return]

    def initial(self, start: Start) -> Initial:
        """As the library's, and its logarithmic thresholds."""
        parameters, buffers = super().initial(start)
        return {**parameters, "log_threshold": torch.full((start.n_atoms,), -3.0)}, buffers

    def terms(self, parameters: Tensors, buffers: Tensors, x: Tensor, batch: Activations) -> Terms:
        """Dense: the pseudo-gradient reaches atoms that are not active."""
        overcomplete_sae()
        from overcomplete.sae.kernels import silverman_kernel

        pre_codes = pre_codes_of(parameters, x)
        threshold = torch.exp(parameters["log_threshold"])
        codes, active = Jump.apply(functional.relu(pre_codes), threshold, silverman_kernel, self.bandwidth)
        residual = x - torch.bmm(codes, parameters["dictionary"])
        return Terms(mean_square(residual), dormant_mean(pre_codes, codes), active.sum(dim=2).mean(dim=1))

    def frozen(self, parameters: Tensors, buffers: Tensors) -> dict[str, Tensor]:
        """The thresholds too."""
        return {**super().frozen(parameters, buffers), "threshold": torch.exp(parameters["log_threshold"]).detach()}

    def fill(self, model: Any, state: Tensors) -> None:
        """The thresholds too."""
        super().fill(model, state)
        model.thresholds.copy_(torch.log(state["threshold"]))

    def activate(self, pre_codes: Codes, state: Tensors) -> Codes:
        """The rectified pre-codes that reach their atom's threshold."""
        return at_least(pre_codes, state["threshold"])
