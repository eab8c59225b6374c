"""Codes of a linear encoder and outputs of a dictionary, around one centre and one scale.

What every autoencoder of the outputs does once it is trained, whoever trained it: x' = (x - mean) / scale, codes from
x' encoder_weight^T + encoder_bias, outputs = (codes @ dictionary) * scale + mean. Which codes stay is the method's own.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from methods.protocol import Activations, Codes, Decomposition, Dictionaries

Tensors = Mapping[str, Tensor]


class LinearCoding:
    """The verbs `encode` and `decode`, and `dictionaries`, of every method whose decomposition holds such tensors."""

    def activate(self, pre_codes: Codes, state: Tensors) -> Codes:
        """The codes that stay: all that are positive."""
        return functional.relu(pre_codes)

    def encode(self, decomposition: Decomposition, activations: Activations) -> Codes:
        """The codes of these tokens, in the dtype and on the device of the outputs."""
        state = state_like(decomposition, activations.outputs)
        x = (activations.outputs - state["mean"]) / state["scale"]
        return self.activate(functional.linear(x, state["encoder_weight"], state["encoder_bias"]), state)

    def decode(self, decomposition: Decomposition, codes: Codes) -> Float[Tensor, "tokens units"]:
        """The codes' combination of dictionary rows, scaled and moved back."""
        state = state_like(decomposition, codes)
        return (codes @ state["dictionary"]) * state["scale"] + state["mean"]

    def dictionaries(self, decomposition: Decomposition, weight: Float[Tensor, "units d_in"]) -> Dictionaries:
        """The decoder's rows, and whatever else are directions."""
        return self.directions(decomposition.tensors)

    def directions(self, state: Tensors) -> Dictionaries:
        """The decoder's rows are "output"; the encoder reads the outputs too, so that there is no "input"."""
        return {"output": state["dictionary"]}


def state_like(decomposition: Decomposition, x: Tensor) -> dict[str, Tensor]:
    """The decomposition's tensors on the device of x, its floating-point ones in that dtype."""
    return {
        name: tensor.to(x.device, x.dtype if tensor.is_floating_point() else tensor.dtype)
        for name, tensor in decomposition.tensors.items()
    }


def k_largest(pre_codes: Float[Tensor, "*tokens atoms"], k: int) -> Float[Tensor, "*tokens atoms"]:
    """The k largest rectified pre-codes of each token, zero elsewhere."""
    codes = functional.relu(pre_codes)
    top = torch.topk(codes, k, dim=-1)
    return torch.zeros_like(codes).scatter(-1, top.indices, top.values)


def at_least(pre_codes: Codes, threshold: Float[Tensor, " #atoms"]) -> Codes:
    """The rectified pre-codes that reach a threshold, of all atoms or of each, zero elsewhere."""
    codes = functional.relu(pre_codes)
    return codes * (codes >= threshold)
