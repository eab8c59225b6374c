"""k-sparse probes: what k atoms a class know of it (Gurnee et al. 2023, arXiv:2305.01610).

Each class has a logistic regression of its own against the rest, on the k atoms whose means inside and outside the
class differ most. Where the source reports F1 of binary features, the classes here exclude each other, so the
prediction is the class with the largest probability and what is reported is top-1 accuracy. For the same reason
classes are not weighted: a probability that ignores how frequent its class is cannot be compared with another's.
"""

import math
from dataclasses import dataclass
from typing import Final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from metrics.heads import moments

N_NUMBERS_AT_ONCE: Final = 2**25
"""Codes that are held in float64 at a time: 256 MiB."""


@dataclass(frozen=True)
class SparseProbe:
    """A logistic regression per class, of that class against the rest, on k atoms of its own.

    Attributes:
        atoms: Which atoms each class reads.
        weight: Of their standardised codes.
        bias: One per class; minus infinity for a class that had no image, which is then never predicted.
        mean: What is taken off each feature.
        scale: What each feature is then divided by.
    """

    atoms: Int[Tensor, "classes k"]
    weight: Float[Tensor, "classes k"]
    bias: Float[Tensor, " classes"]
    mean: Float[Tensor, " features"]
    scale: Float[Tensor, " features"]

    def log_odds(self, features: Float[Tensor, "images features"]) -> Float[Tensor, "images classes"]:
        """Of each class against the rest; the class with the largest is the prediction."""
        standardised = (features - self.mean) / self.scale
        parts = [standardised[:, own] * weight for own, weight in zip(self.atoms.T, self.weight.T, strict=True)]
        return torch.stack(parts).sum(dim=0) + self.bias


def fit_sparse(
    features: Float[Tensor, "images features"], labels: Int[Tensor, " images"], n_classes: int, sizes: tuple[int, ...]
) -> dict[int, SparseProbe]:
    """The probes with so many atoms a class, by that number; with all atoms where there are fewer.

    A class reads the atoms with the largest |mean over its images - mean over the others|, of equal ones the one with
    the lower index; so an atom of large codes is taken before one of small codes that tells as much. The regressions
    read standardised codes, have scikit-learn's default penalty (`C` = 1, so 1 / images here), and are solved by Newton
    steps in float64, all classes stacked.
    """
    mean, scale = moments(features)
    x = (features - mean) / scale
    is_class = labels[:, None] == torch.arange(n_classes, device=labels.device)
    sizes_of = is_class.sum(dim=0)
    # Of centred codes (standardised ones times their scale) the sums inside and outside a class cancel: all its
    # differences are its sums, times one factor.
    ranked = torch.sort((is_class.to(x).T @ x * scale).abs(), dim=1, descending=True, stable=True).indices
    probes = {}
    for k in sizes:
        atoms = ranked[:, :k].contiguous()
        theta = torch.empty(n_classes, atoms.shape[1] + 1, dtype=torch.float64, device=x.device)
        step = max(1, N_NUMBERS_AT_ONCE // (theta.shape[1] * max(1, len(x))))
        for classes in torch.arange(n_classes, device=x.device).split(step):
            theta[classes] = logistic(x.T[atoms[classes]], is_class.T[classes], 1 / len(x))
        theta[sizes_of == 0, -1] = -math.inf
        probes[k] = SparseProbe(atoms, theta[:, :-1].to(x), theta[:, -1].to(x), mean, scale)
    return probes


def logistic(
    x: Float[Tensor, "problems k images"], is_own: Bool[Tensor, "problems images"], penalty: float
) -> Float[Tensor, "problems k_and_one"]:
    """Weights and, last, bias of each logistic regression, in float64; biases carry no penalty.

    Newton's method; a problem whose loss a whole step does not lower takes half of it, and so on.
    """
    ones = torch.ones_like(x[:, :1])
    x = torch.cat([x, ones], dim=1).double()
    y = is_own.double()
    n_problems, width, n_images = x.shape
    ridge = torch.full((width,), penalty, dtype=torch.float64, device=x.device)
    ridge[-1] = 0

    def loss(theta: Tensor) -> Tensor:
        logits = torch.einsum("pk,pkn->pn", theta, x)
        entropy = functional.softplus(logits) - y * logits
        return entropy.mean(dim=1) + (ridge * theta.square()).sum(dim=1) / 2

    theta = torch.zeros(n_problems, width, dtype=torch.float64, device=x.device)
    before = loss(theta)
    for _ in range(100):
        p = torch.einsum("pk,pkn->pn", theta, x).sigmoid()
        gradient = torch.einsum("pkn,pn->pk", x, p - y) / n_images + ridge * theta
        if bool(gradient.abs().amax() < 1e-9):
            break
        curvature = (x * (p * (1 - p))[:, None]) @ x.transpose(1, 2) / n_images + torch.diag(ridge + 1e-12)
        step = torch.linalg.solve(curvature, gradient)
        length = torch.ones_like(before)[:, None]
        for _ in range(40):
            after = loss(theta - length * step)
            is_worse = after > before + 1e-15
            if not bool(is_worse.any()):
                break
            length[is_worse] /= 2
        is_better = after <= before
        theta = torch.where(is_better[:, None], theta - length * step, theta)
        if bool((before - after < 1e-15).all()):
            break
        before = torch.where(is_better, after, before)
    return theta
