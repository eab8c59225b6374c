"""The two solvers of a linear head: L-BFGS to the one solution, and stochastic gradient descent for a grid at once.

Gradients are written out, so nothing here needs autograd and all of it runs under `torch.inference_mode`. Weights and
biases are one matrix `theta`, a row per feature and a last one for the biases, a column per class.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

N_LOGITS_AT_ONCE = 2**26
"""Logits that are held at a time: 256 MiB in float32."""


@dataclass(frozen=True)
class LBFGS:
    """Minimise mean cross-entropy + penalty / 2 x sum of squared weights; biases go free.

    Attributes:
        penalties: The grid, strongest first; scikit-learn's `C` is 1 / (penalty x images).
        tolerance: It ends where no element of the gradient is larger. The default is scikit-learn's; a tenth of it is
            below what float32 resolves on codes that are rarely active. Preconditioning by Böhning's bound of the
            curvature was tried and took more steps: where probabilities saturate, the bound is far from the curvature.
        max_steps: It ends there at the latest, per penalty.
    """

    penalties: tuple[float, ...] = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
    tolerance: float = 1e-4
    max_steps: int = 500


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent as in the linear evaluation of DINOv2, whose defaults these are.

    Attributes:
        learning_rates: The grid, smallest first, for a batch of 256; scaled by `batch_size` / 256.
        epochs: Passes over the images; DINOv2 makes 12,500 steps of 1,024 images.
        batch_size: Images a step; the last batch of an epoch may be smaller.
        momentum: Of the gradient.
    """

    learning_rates: tuple[float, ...] = (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1)
    epochs: int = 10
    batch_size: int = 256
    momentum: float = 0.9


def loss_and_gradient(
    x: Float[Tensor, "images features"],
    labels: Int[Tensor, " images"],
    theta: Float[Tensor, "features_and_one classes"],
    penalty: float,
) -> tuple[Float64[Tensor, ""], Float[Tensor, "features_and_one classes"]]:
    """What `LBFGS` minimises, and its gradient; the last row of `theta` is the bias.

    The mean over images is summed in float64, block by block, so that it is good to more digits than its parts.
    """
    gradient = torch.zeros_like(theta)
    loss = penalty / 2 * theta[:-1].square().sum(dtype=torch.float64)
    size = max(1, N_LOGITS_AT_ONCE // theta.shape[1])
    for block, own in zip(x.split(size), labels.split(size), strict=True):
        logits = torch.addmm(theta[-1], block, theta[:-1])
        log_sums = torch.logsumexp(logits, dim=1, keepdim=True)
        own = own[:, None]
        loss = loss + (log_sums - logits.gather(1, own)).sum(dtype=torch.float64) / len(x)
        residual = logits.sub_(log_sums).exp_()
        residual.scatter_(1, own, residual.gather(1, own) - 1).div_(len(x))
        gradient[:-1].addmm_(block.T, residual)
        gradient[-1] += residual.sum(dim=0)
    gradient[:-1] += penalty * theta[:-1]
    return loss, gradient


def minimised(x: Tensor, labels: Tensor, start: Tensor, penalty: float, options: LBFGS) -> tuple[Tensor, bool]:
    """The solution from there, and whether the tolerance was reached."""
    with torch.inference_mode(False), torch.no_grad():  # torch's optimizers refuse what is made in inference mode
        theta = torch.nn.Parameter(start.clone())
        optimizer = torch.optim.LBFGS(
            [theta],
            max_iter=options.max_steps,
            max_eval=2 * options.max_steps,
            tolerance_grad=options.tolerance,
            tolerance_change=0.0,
            history_size=10,
            line_search_fn="strong_wolfe",
        )

        def closure() -> Tensor:
            with torch.no_grad():
                loss, theta.grad = loss_and_gradient(x, labels, theta, penalty)
            return loss

        optimizer.step(closure)
        closure()
        is_small = theta.grad is not None and bool(theta.grad.abs().max() <= options.tolerance)
        return theta.detach(), is_small


def descended(
    x: Float[Tensor, "images features"], labels: Int[Tensor, " images"], n_classes: int, options: SGD, seed: int
) -> tuple[Float[Tensor, "rates features classes"], Float[Tensor, "rates classes"]]:
    """The heads of all learning rates after the last step; one that diverged holds numbers that are not finite."""
    generator = torch.Generator().manual_seed(seed)
    n_heads, (n_images, width) = len(options.learning_rates), x.shape
    first = 0.01 * torch.randn(width, n_classes, generator=generator)
    theta = torch.cat([first, torch.zeros(1, n_classes)]).repeat(1, n_heads).to(x)
    velocity = torch.zeros_like(theta)
    rates = torch.tensor(options.learning_rates).repeat_interleave(n_classes).to(x) * (options.batch_size / 256)
    n_steps = options.epochs * math.ceil(n_images / options.batch_size)
    step = 0
    for _ in range(options.epochs):
        for rows in torch.randperm(n_images, generator=generator).to(x.device).split(options.batch_size):
            batch, own = x[rows], labels[rows][:, None, None].expand(-1, n_heads, 1)
            logits = torch.addmm(theta[-1], batch, theta[:-1]).view(len(rows), n_heads, n_classes)
            residual = logits.softmax(dim=2)
            residual = residual.scatter_(2, own, residual.gather(2, own) - 1).div_(len(rows)).flatten(1)
            velocity.mul_(options.momentum)
            velocity[:-1].addmm_(batch.T, residual)
            velocity[-1] += residual.sum(dim=0)
            theta.addcmul_(velocity, rates * (0.5 * (1 + math.cos(math.pi * step / n_steps))), value=-1)
            step += 1
    stacked = theta.view(width + 1, n_heads, n_classes).transpose(0, 1)
    return stacked[:, :-1], stacked[:, -1]
