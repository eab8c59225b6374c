"""Probes: scikit-learn's regressions on the same numbers, a plain loop of torch's SGD, and laws."""

import re
from typing import Any

import numpy as np
import pytest
import torch
from references import Evaluation, evaluation, interval, number, stream, teach, wilson
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from metrics import probes
from metrics.heads import Head, check_head, fit_head, moments, predict, stratified
from metrics.probes import Probes, Sample
from metrics.solvers import LBFGS, SGD, loss_and_gradient
from metrics.sparse_probes import fit_sparse

NAMES = [row.name for row in Probes.rows]


def clusters(n: int = 400, width: int = 12, n_classes: int = 5, noise: float = 1.5, seed: int = 0) -> tuple[Any, Any]:
    """Overlapping classes in float64, features of all scales and offsets, the last one constant."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(n_classes, width))
    labels = rng.integers(n_classes, size=n)
    x = (centres[labels] + noise * rng.normal(size=(n, width))) * 10.0 ** np.linspace(-2, 2, width) + 3
    x[:, -1] = 0.1
    return torch.from_numpy(x), torch.from_numpy(labels)


def standardised(x: Tensor) -> Any:
    numbers = x.double().numpy()
    deviation = numbers.std(axis=0)
    return (numbers - numbers.mean(axis=0)) / np.where(deviation > 1e-12, deviation, 1)


@pytest.fixture(autouse=True)
def no_kept_heads() -> None:
    probes._kept_heads.clear()


@pytest.mark.parametrize("penalty", [1e-1, 1e-2, 1e-3])
def test_lbfgs_is_the_solution_of_scikit_learn(penalty: float) -> None:
    x, labels = clusters()
    head = fit_head(x, labels, 5, options=LBFGS((penalty,), tolerance=1e-8))
    z = standardised(x)
    peer = LogisticRegression(C=1 / (penalty * len(z)), tol=1e-10, max_iter=10000).fit(z, labels.numpy())
    assert head.has_converged
    assert head.held_out_accuracy == {}
    assert np.abs(head.weight.numpy() - peer.coef_).max() < 1e-5
    ours, theirs = predict(head, x).log_softmax(1).numpy(), peer.predict_log_proba(z)
    assert np.abs(ours - theirs).max() < 1e-5
    rows = np.arange(len(z))
    losses = [
        -logs[rows, labels].mean() + penalty / 2 * (weight**2).sum()
        for logs, weight in ((ours, head.weight.numpy()), (theirs, peer.coef_))
    ]
    assert losses[0] == pytest.approx(losses[1], abs=1e-9)


def test_float32_reaches_the_same_loss() -> None:
    x, labels = clusters()
    one = fit_head(x, labels, 5, options=LBFGS((1e-3,), tolerance=1e-8))
    other = fit_head(x.float(), labels, 5, options=LBFGS((1e-3,), tolerance=1e-5))
    assert other.weight.dtype == torch.float32
    losses = []
    for head in (one, other):
        theta = torch.cat([head.weight.T, head.bias[None]]).double()
        losses.append(float(loss_and_gradient(torch.from_numpy(standardised(x)), labels, theta, 1e-3)[0]))
    assert losses[1] == pytest.approx(losses[0], abs=1e-6)


def test_loss_and_gradient_equal_autograd_in_blocks_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    x, labels = torch.from_numpy(standardised(clusters()[0])), clusters()[1]
    theta = torch.randn(13, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    expected = nn.functional.cross_entropy(x @ theta[:-1] + theta[-1], labels) + 0.05 * theta[:-1].square().sum()
    (gradient,) = torch.autograd.grad(expected, theta)
    for at_once in (2**26, 35):
        monkeypatch.setattr("metrics.solvers.N_LOGITS_AT_ONCE", at_once)
        loss, ours = loss_and_gradient(x, labels, theta.detach(), 0.1)
        assert float(loss) == pytest.approx(float(expected.detach()), abs=1e-12)
        assert torch.allclose(ours, gradient, atol=1e-12)


def test_the_penalty_is_chosen_on_the_held_out_part_and_all_images_are_fitted_again() -> None:
    x, labels = clusters(n=300, noise=3.0)
    head = fit_head(x, labels, 5, options=LBFGS(tolerance=1e-8), seed=3)
    out = stratified(labels, 5, 0.2, 3).numpy()
    mean, deviation = x[~out].numpy().mean(0), x[~out].numpy().std(0)
    z = (x.numpy() - mean) / np.where(deviation > 1e-12, deviation, 1)
    accuracies = {}
    for penalty in LBFGS().penalties:
        peer = LogisticRegression(C=1 / (penalty * int((~out).sum())), tol=1e-8, max_iter=10000)
        accuracies[penalty] = peer.fit(z[~out], labels[~out].numpy()).score(z[out], labels[out].numpy())
    assert head.held_out_accuracy == pytest.approx(accuracies, abs=1e-12)
    assert accuracies[head.setting] == max(accuracies.values())
    assert len(set(accuracies.values())) > 1
    again = fit_head(x, labels, 5, options=LBFGS((head.setting,), tolerance=1e-8))
    assert torch.allclose(head.weight, again.weight, atol=1e-5)


def test_held_out_images_are_a_share_of_each_class() -> None:
    labels = torch.tensor([0] * 10 + [1] * 3 + [2] * 2 + [3] + [5] * 100)
    is_out = stratified(labels, 6, 0.2, 0)
    assert torch.bincount(labels[is_out], minlength=6).tolist() == [2, 1, 1, 0, 0, 20]
    assert not torch.equal(is_out, stratified(labels, 6, 0.2, 1))
    assert torch.bincount(labels[stratified(labels, 6, 0.99, 0)], minlength=6).tolist() == [9, 2, 1, 0, 0, 99]


def descended_one_by_one(x: Tensor, labels: Tensor, rate: float, options: SGD, seed: int) -> tuple[Tensor, Tensor]:
    """A head of torch's own modules, optimizer and schedule."""
    generator = torch.Generator().manual_seed(seed)
    layer = nn.Linear(x.shape[1], 5).double()
    with torch.no_grad():
        layer.weight.copy_((0.01 * torch.randn(x.shape[1], 5, generator=generator)).T)
        layer.bias.zero_()
    optimizer = torch.optim.SGD(layer.parameters(), rate * options.batch_size / 256, momentum=options.momentum)
    n_steps = options.epochs * -(-len(x) // options.batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_steps)
    for _ in range(options.epochs):
        for rows in torch.randperm(len(x), generator=generator).split(options.batch_size):
            loss = nn.functional.cross_entropy(layer(x[rows]), labels[rows])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
    return layer.weight.detach(), layer.bias.detach()


def test_sgd_side_by_side_is_sgd_one_by_one() -> None:
    x, labels = clusters(n=300)
    options = SGD(learning_rates=(1e-3, 1e-2, 0.5), epochs=3, batch_size=64)
    head = fit_head(x, labels, 5, options=options, seed=1)
    out = stratified(labels, 5, 0.2, 1)
    mean, scale = moments(x[~out])
    z = (x - mean) / scale
    accuracies = {}
    for rate in options.learning_rates:
        weight, bias = descended_one_by_one(z[~out], labels[~out], rate, options, 1)
        accuracies[rate] = float(((z[out] @ weight.T + bias).argmax(1) == labels[out]).double().mean())
        if rate == head.setting:
            assert torch.allclose(head.weight, weight, atol=1e-9)
            assert torch.allclose(head.bias, bias, atol=1e-9)
    assert head.held_out_accuracy == pytest.approx(accuracies, abs=1e-12)
    assert head.setting == max(accuracies, key=accuracies.__getitem__)


def test_a_learning_rate_that_diverges_is_not_chosen() -> None:
    x, labels = clusters(n=200)
    head = fit_head(x, labels, 5, options=SGD(learning_rates=(1e300, 1e-2), epochs=2, batch_size=50))
    assert head.held_out_accuracy[1e300] == 0
    assert head.setting == 1e-2
    assert head.weight.isfinite().all()


@pytest.mark.parametrize("options", [LBFGS(), SGD(epochs=2)], ids=["lbfgs", "sgd"])
def test_twice_gives_the_same_bits_also_in_inference_mode(options: LBFGS | SGD) -> None:
    x, labels = clusters()
    x = x.float()
    torch.rand(3)
    one = fit_head(x, labels, 5, options=options)
    with torch.inference_mode():
        other = fit_head(x.clone(), labels.clone(), 5, options=options)
    assert torch.equal(one.weight.view(torch.int32), other.weight.view(torch.int32))
    assert torch.equal(one.bias.view(torch.int32), other.bias.view(torch.int32))


def test_scaling_and_shifting_features_changes_no_logit() -> None:
    x, labels = clusters()
    scaled = x * torch.logspace(-3, 3, 12, dtype=torch.float64) - 7
    one, other = (fit_head(features, labels, 5, options=LBFGS((1e-3,), 1e-8)) for features in (x, scaled))
    assert torch.allclose(predict(one, x), predict(other, scaled), atol=1e-5)
    weight, bias = one.folded
    assert torch.allclose(x @ weight.T + bias, predict(one, x), atol=1e-9)


def test_constant_features_and_their_rounding_weigh_nothing() -> None:
    x, labels = clusters()
    noisy = x.clone()
    noisy[:, -1] += 1e-9 * torch.randn(len(x), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert moments(noisy)[1][-1] == 1
    head = fit_head(x, labels, 5)
    assert head.weight[:, -1].abs().max() < 1e-12


def test_a_class_without_images_is_not_predicted_and_one_image_a_class_needs_no_choice() -> None:
    x, labels = clusters(n=60)
    assert not (predict(fit_head(x, labels, 9), x).argmax(1) > 4).any()
    head = fit_head(x[:2], torch.tensor([0, 1]), 2)
    assert (head.setting, head.held_out_accuracy) == (0.1, {})
    assert predict(head, x[:2]).argmax(1).tolist() == [0, 1]


X, Y = torch.zeros(4, 3), torch.tensor([0, 1, 0, 1])
WRONG: dict[str, tuple[Any, Any, int, float, str]] = {
    "one class": (X, Y, 1, 0.2, r"n_classes: received 1; expected at least 2"),
    "all held out": (X, Y, 2, 1.0, r"held_out: received 1\.0; expected a share between 0 and 1"),
    "lengths": (X, Y[:3], 2, 0.2, r"labels: received 3 for 4 images; expected one for each"),
    "equal labels": (X, Y * 0, 2, 0.2, r"labels: received 1 different ones; expected at least 2"),
    "no images": (X[:0], Y[:0], 2, 0.2, r"labels: received 0 different ones; expected at least 2"),
    "too large": (X, Y * 2, 2, 0.2, r"labels: received 0 to 2; expected 0 to 1; raise n_classes"),
    "negative": (X, Y - 1, 2, 0.2, r"labels: received -1 to 0; expected 0 to 1"),
    "not finite": (X / Y[:, None], Y, 2, 0.2, r"features: received numbers that are not finite, for 2 of 4 images"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_fitted_is_said(name: str) -> None:
    features, labels, n_classes, held_out, message = WRONG[name]
    with pytest.raises(ValueError, match=message):
        check_head(features, labels, n_classes, held_out)


def sparse_by_scikit_learn(raw: Any, x: Any, labels: Any, k: int, n_classes: int) -> tuple[Any, list[list[int]]]:
    """Log-odds of each class, and the atoms it reads, chosen on the raw codes: one regression after the other."""
    odds, chosen = np.full((len(x), n_classes), -np.inf), []
    for c in range(n_classes):
        difference = [abs(raw[labels == c, j].mean() - raw[labels != c, j].mean()) for j in range(raw.shape[1])]
        atoms = sorted(range(x.shape[1]), key=lambda j: (-difference[j], j))[:k]
        peer = LogisticRegression(tol=1e-12, max_iter=10000).fit(x[:, atoms], labels == c)
        odds[:, c] = peer.decision_function(x[:, atoms])
        chosen.append(atoms)
    return odds, chosen


@pytest.mark.parametrize("at_once", [2**25, 1])
def test_sparse_probes_are_the_regressions_of_scikit_learn(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metrics.sparse_probes.N_NUMBERS_AT_ONCE", at_once)
    x, labels = clusters()
    for k, probe in fit_sparse(x, labels, 5, (1, 2, 5, 30)).items():
        odds, atoms = sparse_by_scikit_learn(x.numpy(), standardised(x), labels.numpy(), k, 5)
        assert probe.atoms[:, : len(atoms[0])].tolist() == atoms
        assert np.abs(probe.log_odds(x).numpy() - odds).max() < 1e-6


def test_sparse_probes_of_separable_classes_are_finite_and_right() -> None:
    labels = torch.arange(60) % 4
    codes = torch.nn.functional.one_hot(labels, 4).double() * 50
    probe = fit_sparse(codes, labels, 5, (1,))[1]
    assert probe.atoms[:4, 0].tolist() == [0, 1, 2, 3]
    assert probe.weight.isfinite().all()
    assert (probe.log_odds(codes).argmax(1) == labels).all()
    assert probe.bias[4] == -torch.inf


def separated(n_images: int, seed: int, n_atoms: int = 9) -> Evaluation:
    """Classes 0 to 3 in overlapping codes; outputs know less of them."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(4, (n_images,), generator=generator)
    centres = torch.randn(4, n_atoms, generator=torch.Generator().manual_seed(7))
    codes = centres[labels][:, None] + torch.randn(n_images, 3, n_atoms, generator=generator)
    outputs = codes[:, :, :3] + torch.randn(n_images, 3, 3, generator=generator)
    return evaluation(codes=codes, outputs=outputs, labels=labels, reconstruction=outputs + 0.1, n_images=n_images)


def by_scikit_learn(train: Tensor, labels: Tensor, test: Tensor, head: Head) -> Any:
    mean, deviation = train.numpy().mean(0), train.numpy().std(0)
    peer = LogisticRegression(C=1 / (head.setting * len(train)), tol=1e-8, max_iter=10000)
    peer.fit((train.numpy() - mean) / deviation, labels.numpy())
    return peer.predict((test.numpy() - mean) / deviation)


def test_the_metric_trains_on_one_split_and_counts_hits_on_the_other() -> None:
    training, split = separated(300, 1), separated(200, 2)
    metric = Probes(split)
    values = stream(metric, split, training=training)
    for kind in ("outputs", "codes", "reconstruction"):
        pooled = [getattr(part, kind).double().mean(1) for part in (training, split)]
        head = fit_head(pooled[0].float(), training.labels, 4)
        hits = int((by_scikit_learn(pooled[0], training.labels, pooled[1], head) == split.labels.numpy()).sum())
        value = values[f"probe_{kind}"]
        assert number(value) == pytest.approx(hits / 2, abs=0.51)  # one image on the border may fall to either side
        assert (value.n, value.n_excluded, value.interval, value.reason) == (200, 0, "wilson over images", None)
        low, high = wilson(round(2 * number(value)), 200)
        assert interval(value) == pytest.approx((100 * low, 100 * high), abs=2e-4)
    pooled = [standardised(part.codes.mean(1)) for part in (training,)]
    scale = training.codes.double().mean(1).std(0, correction=0)
    test = ((split.codes.double().mean(1) - training.codes.double().mean(1).mean(0)) / scale).numpy()
    for k in (1, 2, 5):
        both = np.concatenate([pooled[0], test])
        labels = training.labels.numpy()
        hits = 0
        odds = np.zeros((200, 4))
        for c in range(4):
            raw = training.codes.double().mean(1).numpy()
            difference = abs(raw[labels == c].mean(0) - raw[labels != c].mean(0))
            atoms = np.argsort(-difference)[:k]
            peer = LogisticRegression(tol=1e-12).fit(both[:300, atoms], labels == c)
            odds[:, c] = peer.decision_function(both[300:, atoms])
        hits = int((odds.argmax(1) == split.labels.numpy()).sum())
        assert number(values[f"probe_codes_k{k}"]) == pytest.approx(hits / 2)
    assert number(values["probe_codes"]) > number(values["probe_outputs"]) > 40


def test_label_noise_brings_every_probe_to_chance() -> None:
    training, split = separated(2000, 1), separated(1000, 2)
    for part in (training, split):
        part.labels = part.labels[torch.randperm(len(part.labels), generator=torch.Generator().manual_seed(0))]
    for value in stream(Probes(split), split, training=training).values():
        assert 18 < number(value) < 32


def test_sparse_probes_take_the_atoms_of_large_codes_first() -> None:
    labels = torch.arange(80) % 2
    sign = 2.0 * labels - 1
    noise = torch.randn(80, 2, generator=torch.Generator().manual_seed(0))
    x = torch.stack([0.1 * sign + 0.01 * noise[:, 0], 5 * sign + 20 * noise[:, 1]], dim=1).double()
    assert fit_sparse(x, labels, 2, (1,))[1].atoms[:, 0].tolist() == [1, 1]


def test_permuting_atoms_changes_nothing_nor_does_scaling_for_dense_probes() -> None:
    training, split = separated(300, 1), separated(200, 2)
    before = stream(Probes(split), split, training=training)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(1))
    for part in (training, split):
        part.codes = part.codes[:, :, order]
    after = stream(Probes(split), split, training=training)
    for name in NAMES:
        assert number(after[name]) == pytest.approx(number(before[name]), abs=0.51)  # one image on the border
    for part in (training, split):
        part.codes = part.codes * torch.logspace(-2, 2, 9)
    scaled = stream(Probes(split), split, training=training)
    assert number(scaled["probe_codes"]) == pytest.approx(number(before["probe_codes"]), abs=0.51)
    assert after["probe_outputs"] == before["probe_outputs"]


def test_the_order_of_learning_and_the_size_of_batches_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    training, split = separated(300, 1), separated(200, 2)
    monkeypatch.setattr("metrics.probes.MAX_FEATURE_BYTES", 4 * (9 + 2 * 3) * 120)
    found = []
    for size in (7, 64, 300):
        probes._kept_heads.clear()
        metric = Probes(split)
        teach(metric, training, size)
        found.append(stream(metric, split, size, training=evaluation(n_images=0, n_units=3, n_atoms=9)))
    assert found[0] == found[1] == found[2]
    assert found[0]["probe_codes"].reason == "fitted on 120 of 300 images, whose features fit in 2 GiB"


@pytest.mark.parametrize("size", [1, 9, 100])
def test_a_sample_keeps_what_fits_evenly_over_the_indices(size: int) -> None:
    sample = Sample(100)
    for rows in torch.arange(1000).split(size):
        sample.add(rows, labels=rows // 100, codes=rows[:, None].float())
        assert len(sample) <= 225
    taken = sample.taken()
    assert len(sample) == 0
    assert len(taken["images"]) == 100
    assert torch.equal(taken["codes"].squeeze(1).long(), taken["images"])
    assert taken["images"].tolist() == sorted(taken["images"].tolist())
    assert set(torch.bincount(taken["labels"]).tolist()) <= {9, 10, 11}


def test_virtual_units_have_no_reconstruction_to_probe() -> None:
    split = separated(80, 1)
    split.is_explicit = False
    metric = Probes(split)
    values = stream(metric, split)
    assert values["probe_reconstruction"].reason == "virtual units: nothing is rebuilt from the codes"
    assert all(number(values[name]) > 30 for name in NAMES if name != "probe_reconstruction")


def test_features_that_are_not_finite_are_left_out_and_are_misses() -> None:
    training, split = separated(300, 1), separated(200, 2)
    clean = stream(Probes(split), split, training=training)
    training.codes[[3, 77]] = torch.nan
    split.codes[5:15] = torch.inf
    values = stream(Probes(split), split, training=training)
    left_out = "2 training images with features that are not finite left out"
    assert values["probe_outputs"].reason == left_out
    assert values["probe_codes"].reason == f"{left_out}; 10 images with features that are not finite, counted as misses"
    assert number(values["probe_codes"]) < number(clean["probe_codes"])


def test_without_two_classes_or_labels_there_is_nothing() -> None:
    split = separated(50, 1)
    one = evaluation(n_images=30, n_units=3, n_atoms=9, labels=torch.zeros(30).long())
    for training, n in ((one, 1), (evaluation(n_images=0, n_units=3, n_atoms=9), 0)):
        values = stream(Probes(split), split, training=training)
        assert {value.reason for value in values.values()} == {
            f"the probing split showed images of {n} classes; probes need at least 2"
        }


def test_fewer_atoms_than_a_probe_reads_are_said() -> None:
    split = separated(60, 1, n_atoms=3)
    values = stream(Probes(split), split)
    assert values["probe_codes_k5"].reason == "only 3 atoms"
    assert values["probe_codes_k2"].reason is None


def test_equal_features_are_fitted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    fitted: list[str] = []

    def counted(features: Tensor, labels: Tensor, n_classes: int) -> Head:
        fitted.append(str(tuple(features.shape)))
        return fit_head(features, labels, n_classes)

    monkeypatch.setattr("metrics.probes.fit_head", counted)
    split = separated(80, 1)
    first = stream(Probes(split), split)
    assert stream(Probes(split), split) == first
    assert len(fitted) == 3
    split.labels = split.labels.flip(0)
    stream(Probes(split), split)
    assert len(fitted) == 6
    assert all(re.fullmatch(r"\(80, [39]\)", shape) for shape in fitted)
