"""The transcoder: the site's outputs from its inputs, through sparse codes."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from methods.autoencoder import Autoencoder, Initial, Start, Terms, dormant_mean, mean_square, pre_codes_of
from methods.coding import Tensors, state_like
from methods.protocol import Activations, ActivationSource, Codes, Decomposition, Dictionaries
from methods.sae import VanillaSAE, drawing, linear_of
from methods.training import centre_and_scale


@dataclass(frozen=True)
class Transcoder(Autoencoder):
    """Transcoder (Dunefsky et al. 2024, arXiv:2406.11944): z = relu(W q + b), outputs = z D + b_out, L1 penalty.

    Nothing is taken off the inputs; they are divided by one scalar, and the outputs are centred and scaled as for the
    autoencoders, so that one grid of options suits all. Not in overcomplete; it starts as that library's plain
    autoencoder does, with a dictionary of the outputs' width.

    Attributes:
        l1_weight: Weight of the penalty, the mean over tokens of the codes' sum (the paper sweeps 1e-3, 5e-3, 2e-2).
        expansion_base: What `expansion_factor` multiplies: the units ("d_out", as for every other method), or the
            width of the inputs ("d_in", which the published latency suggests).
    """

    l1_weight: float = 5e-3
    expansion_base: Literal["d_out", "d_in"] = "d_out"

    reads: ClassVar[frozenset[str]] = frozenset({"inputs", "outputs"})
    penalty_option: ClassVar[str | None] = "l1_weight"

    def flops(self, n_tokens: int, d_in: int, units: int) -> float:
        """As of an autoencoder, with an encoder of the site's inputs."""
        n_atoms = round(self.expansion_factor * (d_in if self.expansion_base == "d_in" else units))
        return 6.0 * n_tokens * self.epochs * (d_in + units) * n_atoms

    def n_atoms(self, activations: ActivationSource, units: int) -> int:
        """The expansion factor times its base."""
        width = units if self.expansion_base == "d_out" else activations.read(slice(0, 1)).needed_inputs().shape[1]
        return super().n_atoms(activations, width)

    def initial(self, start: Start) -> Initial:
        """The encoder for the inputs, the dictionary for the outputs, an output bias of zero, and the inputs' scale."""
        _, scale = centre_and_scale(start.source, "inputs")
        width = start.source.read(slice(0, 1)).needed_inputs().shape[1]
        with drawing(start.seed):
            linear = linear_of(VanillaSAE().model(width, start.n_atoms))
            # In one stream with the encoder: from the seed again, it would be the encoder's own numbers.
            dictionary = nn.init.xavier_uniform_(torch.empty(start.n_atoms, len(start.mean)))
        parameters = {"encoder_weight": linear.weight, "encoder_bias": linear.bias, "dictionary": dictionary}
        return {**parameters, "output_bias": torch.zeros_like(start.mean)}, {"input_scale": scale}

    def terms(self, parameters: Tensors, buffers: Tensors, x: Tensor, batch: Activations) -> Terms:
        """The error is that of the outputs x."""
        pre_codes = pre_codes_of(parameters, batch.needed_inputs() / buffers["input_scale"][0])
        codes = functional.relu(pre_codes)
        x_hat = torch.bmm(codes, parameters["dictionary"]) + parameters["output_bias"][:, None]
        penalty = codes.sum(dim=2).mean(dim=1)
        return Terms(mean_square(x - x_hat), dormant_mean(pre_codes, codes), penalty)

    def frozen(self, parameters: Tensors, buffers: Tensors) -> dict[str, Tensor]:
        """The output bias and the inputs' scale too."""
        more = {"output_bias": parameters["output_bias"].detach().clone()}
        return {**super().frozen(parameters, buffers), **more, "input_scale": buffers["input_scale"].reshape(1).clone()}

    def directions(self, state: Tensors) -> Dictionaries:
        """The encoder's rows, which read the inputs, are "input", and the decoder's "output"."""
        return {"output": state["dictionary"], "input": state["encoder_weight"]}

    def encode(self, decomposition: Decomposition, activations: Activations) -> Codes:
        """The codes of these tokens' inputs."""
        state = state_like(decomposition, activations.outputs)
        q = activations.needed_inputs() / state["input_scale"]
        return functional.relu(functional.linear(q, state["encoder_weight"], state["encoder_bias"]))

    def decode(self, decomposition: Decomposition, codes: Codes) -> Tensor:
        """The outputs that the codes stand for."""
        state = state_like(decomposition, codes)
        return (codes @ state["dictionary"] + state["output_bias"]) * state["scale"] + state["mean"]
