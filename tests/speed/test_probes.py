"""Linear heads: L-BFGS beside scikit-learn's on the same numbers; a grid of SGD heads side by side or one by one."""

import time
from typing import Any

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from metrics.heads import fit_head, moments, predict
from metrics.solvers import LBFGS, SGD


def features_of(n: int, width: int, n_classes: int) -> tuple[Tensor, Tensor]:
    """Overlapping classes in 40 directions, rectified, with noise of every scale."""
    generator = torch.Generator().manual_seed(0)
    centres = 0.5 * torch.randn(n_classes, 40, generator=generator)
    labels = torch.randint(n_classes, (n,), generator=generator)
    x = (centres[labels] + torch.randn(n, 40, generator=generator)) @ torch.randn(40, width, generator=generator)
    return torch.relu(x + 10 * torch.randn(n, width, generator=generator) * torch.logspace(0, -2, width)), labels


def loss_of(logits: Tensor, labels: Tensor, weight: Tensor, penalty: float) -> float:
    own = torch.nn.functional.cross_entropy(logits.double(), labels)
    return float(own + penalty / 2 * weight.double().square().sum())


@pytest.mark.parametrize("penalty", [1e-1, 1e-3, 1e-5])
def test_lbfgs(benchmark: BenchmarkFixture, penalty: float) -> None:
    """6,000 x 768, 48 classes, one thread, one tolerance; `extra_info` has the peer's seconds and both losses."""
    torch.set_num_threads(1)
    x, labels = features_of(6000, 768, 48)
    head = benchmark.pedantic(lambda: fit_head(x, labels, 48, options=LBFGS((penalty,))), rounds=3)
    mean, scale = moments(x)
    z = ((x - mean) / scale).numpy()
    tolerance, seconds = LBFGS().tolerance, []
    for _ in range(3):
        start = time.perf_counter()
        peer = LogisticRegression(C=1 / (penalty * len(z)), tol=tolerance, max_iter=1000).fit(z, labels.numpy())
        seconds.append(time.perf_counter() - start)
    stats: Any = benchmark.stats
    theirs = torch.from_numpy(peer.decision_function(z))
    benchmark.extra_info.update(
        peer_seconds=round(min(seconds), 2),
        times_faster=round(min(seconds) / stats.stats.min, 2),
        loss=loss_of(predict(head, x), labels, head.weight, penalty),
        peer_loss=loss_of(theirs, labels, torch.from_numpy(peer.coef_), penalty),
    )


def test_whole_grid(benchmark: BenchmarkFixture) -> None:
    """What one probe costs: five penalties on four fifths of 6,000 x 768, and the best again on all of them."""
    torch.set_num_threads(1)
    x, labels = features_of(6000, 768, 48)
    head = benchmark.pedantic(lambda: fit_head(x, labels, 48), rounds=2)
    benchmark.extra_info.update(penalty=head.setting, held_out_accuracy=head.held_out_accuracy[head.setting])


def test_sgd_side_by_side(benchmark: BenchmarkFixture) -> None:
    """Thirteen learning rates in one stacked product; `extra_info` has the seconds of thirteen runs of one each."""
    torch.set_num_threads(1)
    x, labels = features_of(6000, 768, 48)
    options = SGD(epochs=2)
    benchmark.pedantic(lambda: fit_head(x, labels, 48, options=options), rounds=2)
    start = time.perf_counter()
    for rate in options.learning_rates:
        fit_head(x, labels, 48, options=SGD((rate,), epochs=2))
    peer = time.perf_counter() - start
    stats: Any = benchmark.stats
    benchmark.extra_info.update(one_by_one_seconds=round(peer, 2), times_faster=round(peer / stats.stats.min, 2))
