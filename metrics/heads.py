"""Linear heads on frozen features: multinomial logistic regression, its setting chosen on held-out training images.

What is notable: one function, two solvers. `LBFGS` solves the penalised problem to its one solution, penalty by
penalty, each started from the one before, and then once more on all images under the best. `SGD` is the protocol of
Oquab et al. 2023 (DINOv2, arXiv:2304.07193, appendix B.3): momentum, cosine schedule, no weight decay, a head per
learning rate, all of them trained side by side as one stacked product. There the best head is chosen on the very
images that are reported; here never: a part of the training images is held out for that, and no test image is seen.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from metrics.solvers import LBFGS, SGD, descended, minimised

N_NUMBERS_IN_DOUBLE = 2**24
"""Features that are held in float64 at a time, for their means: 128 MiB."""


@dataclass(frozen=True)
class Head:
    """A fitted linear head.

    Attributes:
        weight: Of standardised features.
        bias: One per class.
        mean: What is taken off each feature: its mean over the images it was fitted on.
        scale: What each feature is then divided by: its standard deviation there, 1 for a constant one.
        setting: The penalty (`LBFGS`) or learning rate (`SGD`) that was chosen.
        held_out_accuracy: Accuracy of each setting on the held-out part, 0 to 1; empty where there was no choice.
        has_converged: Whether the solver reached its tolerance; always true for `SGD`, which has none.
    """

    weight: Float[Tensor, "classes features"]
    bias: Float[Tensor, " classes"]
    mean: Float[Tensor, " features"]
    scale: Float[Tensor, " features"]
    setting: float
    held_out_accuracy: Mapping[float, float]
    has_converged: bool

    @property
    def folded(self) -> tuple[Float[Tensor, "classes features"], Float[Tensor, " classes"]]:
        """Weight and bias that give the same logits from features as they are."""
        weight = self.weight.double() / self.scale.double()
        bias = self.bias.double() - weight @ self.mean.double()
        return weight.to(self.weight.dtype), bias.to(self.bias.dtype)


def predict(head: Head, features: Float[Tensor, "images features"]) -> Float[Tensor, "images classes"]:
    """The head's logits."""
    standardised = (features.to(head.weight.dtype) - head.mean) / head.scale
    return torch.addmm(head.bias, standardised, head.weight.T)


def fit_head(
    features: Float[Tensor, "images features"],
    labels: Int[Tensor, " images"],
    n_classes: int,
    *,
    options: LBFGS | SGD | None = None,
    held_out: float = 0.2,
    seed: int = 0,
) -> Head:
    """A head that tells the classes apart; the same bits each time on the same machine.

    Features are standardised by the images that a head is fitted on. A constant feature tells nothing and does no
    harm; so does a class without images. Peak memory is about twice the features.

    Args:
        features: Of the training images.
        labels: Class of each, 0 to `n_classes` - 1.
        n_classes: How many classes the head has.
        options: The solver, with its grid; `LBFGS()` if none is given.
        held_out: Share of each class that is held out to choose from the grid, at least one image of each class that
            has two. Where no class has two, the grid's first setting is taken.
        seed: Draws what is held out, and for `SGD` the first weights and the order of images.

    Raises:
        ValueError: Fewer than two classes, labels out of range, features that are not finite, unequal lengths.
    """
    options = options or LBFGS()
    check_head(features, labels, n_classes, held_out)
    features = features if features.dtype == torch.float64 else features.float()
    labels = labels.to(features.device).long()
    is_held_out = stratified(labels, n_classes, held_out, seed).to(features.device)
    if isinstance(options, SGD):
        return _by_sgd(features, labels, n_classes, options, is_held_out, seed)
    return _by_lbfgs(features, labels, n_classes, options, is_held_out)


def check_head(features: Tensor, labels: Tensor, n_classes: int, held_out: float) -> None:
    """Nothing, where a head can be fitted.

    Raises:
        ValueError: It cannot; the message names what is wrong.
    """
    if n_classes < 2:
        raise ValueError(f"n_classes: received {n_classes}; expected at least 2; there is nothing to tell apart")
    if not 0 < held_out < 1:
        raise ValueError(f"held_out: received {held_out}; expected a share between 0 and 1; hold out 0.2, say")
    if len(features) != len(labels):
        raise ValueError(
            f"labels: received {len(labels)} for {len(features)} images; expected one for each; hand on both in pairs"
        )
    present = labels.unique()
    if len(present) < 2:
        raise ValueError(
            f"labels: received {len(present)} different ones; expected at least 2; add images of another class"
        )
    if int(present[0]) < 0 or int(present[-1]) >= n_classes:
        raise ValueError(
            f"labels: received {int(present[0])} to {int(present[-1])}; expected 0 to {n_classes - 1}; "
            "raise n_classes or number the classes anew"
        )
    n_bad = int((~features.isfinite().all(dim=1)).sum())
    if n_bad:
        raise ValueError(
            f"features: received numbers that are not finite, for {n_bad} of {len(features)} images; "
            "expected finite ones; leave these images out and count them"
        )


def stratified(labels: Int[Tensor, " images"], n_classes: int, share: float, seed: int) -> Bool[Tensor, " images"]:
    """Which images are held out: this share of each class, at least one of each class that has two."""
    labels = labels.cpu()
    drawn = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    by_class = drawn[torch.sort(labels[drawn], stable=True).indices]
    sizes = torch.bincount(labels, minlength=n_classes)
    rank = torch.arange(len(labels)) - (sizes.cumsum(0) - sizes)[labels[by_class]]
    n_out = torch.where(sizes >= 2, (sizes * share).round().long().clamp(min=1), 0)
    is_held_out = torch.zeros(len(labels), dtype=torch.bool)
    is_held_out[by_class] = rank < torch.minimum(n_out, (sizes - 1).clamp(min=0))[labels[by_class]]
    return is_held_out


def moments(features: Float[Tensor, "images features"]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each feature, 1 where it varies by less than a millionth of its mean.

    What varies less is rounding, which must not be blown up to the size of a feature.
    """
    width = max(1, N_NUMBERS_IN_DOUBLE // max(1, len(features)))
    blocks = [torch.var_mean(block.double(), dim=0, correction=0) for block in features.split(width, dim=1)]
    variance, mean = (torch.cat(parts) for parts in zip(*blocks, strict=True))
    deviation = variance.sqrt()
    scale = torch.where(deviation > 1e-6 * mean.abs(), deviation, 1.0)
    return mean.to(features.dtype), scale.to(features.dtype)


def _by_lbfgs(features: Tensor, labels: Tensor, n_classes: int, options: LBFGS, is_held_out: Tensor) -> Head:
    accuracies: dict[float, float] = {}
    chosen, start = options.penalties[0], torch.zeros(features.shape[1] + 1, n_classes).to(features)
    if len(options.penalties) > 1 and bool(is_held_out.any()):
        fitted_on, own = features[~is_held_out], labels[~is_held_out]
        mean, scale = moments(fitted_on)
        fitted_on.sub_(mean).div_(scale)
        tried, tried_labels = (features[is_held_out] - mean) / scale, labels[is_held_out]
        theta = start
        for penalty in options.penalties:
            theta, _ = minimised(fitted_on, own, theta, penalty, options)
            found = accuracy(torch.addmm(theta[-1], tried, theta[:-1]), tried_labels)
            if not accuracies or found > max(accuracies.values()):  # the strongest among equals
                chosen, start = penalty, theta
            accuracies[penalty] = found
        del fitted_on, tried
    mean, scale = moments(features)
    x = (features - mean).div_(scale)
    theta, has_converged = minimised(x, labels, start, chosen, options)
    weight, bias = theta[:-1].T.contiguous(), theta[-1].clone()
    return Head(weight, bias, mean, scale, chosen, accuracies, has_converged)


def _by_sgd(features: Tensor, labels: Tensor, n_classes: int, options: SGD, is_held_out: Tensor, seed: int) -> Head:
    fitted_on, own = features[~is_held_out], labels[~is_held_out]
    mean, scale = moments(fitted_on)
    weight, bias = descended(fitted_on.sub_(mean).div_(scale), own, n_classes, options, seed)
    accuracies: dict[float, float] = {}
    if bool(is_held_out.any()):
        tried, tried_labels = (features[is_held_out] - mean) / scale, labels[is_held_out]
        for rate, one, offset in zip(options.learning_rates, weight, bias, strict=True):
            accuracies[rate] = accuracy(torch.addmm(offset, tried, one), tried_labels)
    chosen = max(accuracies, key=accuracies.__getitem__) if accuracies else options.learning_rates[0]
    index = options.learning_rates.index(chosen)
    return Head(weight[index].T.contiguous(), bias[index].clone(), mean, scale, chosen, accuracies, True)


def accuracy(logits: Float[Tensor, "images classes"], labels: Int[Tensor, " images"]) -> float:
    """Share of images whose largest logit is their own class's; one with a logit that is not finite is a miss."""
    is_hit = (logits.argmax(dim=1) == labels) & logits.isfinite().all(dim=1)
    return float(is_hit.double().mean())
