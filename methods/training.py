"""The training loop of every learned baseline: seeded, streamed, and loud when it diverges.

overcomplete's own loop takes the inputs as targets, has no seed and prints; so this is the one we use.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from methods.protocol import Activations, ActivationSource


@dataclass(frozen=True)
class Training:
    """How long and how fast.

    Attributes:
        epochs: Passes over the probing tokens.
        batch_size: Tokens a step.
        learning_rate: Adam's, constant.
    """

    epochs: int
    batch_size: int
    learning_rate: float


def train(
    model: nn.Module,
    activations: ActivationSource,
    loss_of: Callable[[Activations], Float[Tensor, ""]],
    training: Training,
    *,
    seed: int,
) -> dict[str, float | int | str | bool]:
    """Minimise `loss_of` over the model's parameters with Adam; returns steps taken and the last epoch's mean loss.

    Raises:
        FloatingPointError: The loss is not finite; the message names epoch, step and batch.
    """
    optimizer = torch.optim.Adam(model.parameters(), lr=training.learning_rate)
    steps, mean_loss = 0, 0.0
    model.train()
    for epoch in range(training.epochs):
        activations.report("epochs", epoch, training.epochs)
        losses = []
        for index, batch in enumerate(activations.batches(training.batch_size, seed=seed * 100_003 + epoch)):
            loss = loss_of(batch)
            if not torch.isfinite(loss):
                raise FloatingPointError(
                    f"loss: got {loss.item()} at epoch {epoch}, step {steps}, batch {index} of it; "
                    f"expected a finite number; lower learning_rate ({training.learning_rate})"
                )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
            steps += 1
        mean_loss = float(torch.stack(losses).mean())
    activations.report("epochs", training.epochs, training.epochs)
    return {"steps": steps, "final_loss": mean_loss}


def reanimation(pre_codes: Float[Tensor, "tokens atoms"], codes: Float[Tensor, "tokens atoms"]) -> Float[Tensor, ""]:
    """Mean pre-activation of the atoms that no token of the batch activates; 0 where there are none.

    Subtracted from the loss, it pulls dormant atoms up (ELUDe paper, E.1). overcomplete's version sums over the batch
    and so changes its scale with it; this one divides by it, as the paper writes.
    """
    dead = ~(codes != 0).any(dim=0)
    return pre_codes[:, dead].mean() if bool(dead.any()) else pre_codes.new_zeros(())
