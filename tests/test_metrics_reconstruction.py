"""R2 and its variants: against the definition and scikit-learn; moments merge; each baseline scores 0 (NMSE: 1)."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from references import Batch, Evaluation, evaluation, interval, nmse_zero_baseline, number, r2, r2_scalar_mean, stream
from sklearn.metrics import r2_score
from torch import Tensor

from metrics import reconstruction
from metrics.catalogue import Value
from metrics.reconstruction import Moments, Reconstruction


def measured(split: Evaluation, batch_size: int = 16) -> dict[str, Value]:
    return dict(stream(Reconstruction(split), split, batch_size))


def flat(split: Evaluation) -> tuple[np.ndarray, np.ndarray]:
    return split.outputs.double().flatten(0, 1).numpy(), split.reconstruction.double().flatten(0, 1).numpy()


def columns(moments: Moments) -> tuple[Tensor, ...]:
    return moments.n_tokens, moments.mean, moments.variation, moments.error


def random_moments(seed: int, n_tokens: int, offset: float) -> Moments:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, n_tokens, 3, generator=generator, dtype=torch.float64) + offset
    return Moments.of(x, x + torch.randn(x.shape, generator=generator, dtype=torch.float64))


def test_known_answer() -> None:
    x = torch.tensor([[[2.0, 0.0], [0.0, 4.0]]])
    x_hat = torch.tensor([[[2.0, 1.0], [0.0, 3.0]]])
    assert Moments.of(x, x_hat).r2().tolist() == pytest.approx([0.8], abs=1e-15)
    values = measured(evaluation(outputs=x, reconstruction=x_hat))
    assert number(values["r2"]) == pytest.approx(80, abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_equals_the_definition(seed: int) -> None:
    split = evaluation(n_images=90, seed=seed)
    values, (x, x_hat) = measured(split), flat(split)
    assert number(values["r2"]) == pytest.approx(100 * r2(x, x_hat), abs=1e-9)
    assert number(values["r2_scalar_mean"]) == pytest.approx(100 * r2_scalar_mean(x, x_hat), abs=1e-9)
    assert number(values["nmse_zero_baseline"]) == pytest.approx(nmse_zero_baseline(x, x_hat), abs=1e-12)


def test_equals_scikit_learn_weighted_by_variance() -> None:
    split = evaluation(n_images=90, seed=9)
    x, x_hat = flat(split)
    expected = 100 * r2_score(x, x_hat, multioutput="variance_weighted")
    assert number(measured(split)["r2"]) == pytest.approx(expected, abs=1e-9)


def test_scalar_mean_equals_scikit_learn_on_all_elements() -> None:
    split = evaluation(n_images=90, seed=10)
    x, x_hat = flat(split)
    expected = 100 * r2_score(x.ravel(), x_hat.ravel())
    assert number(measured(split)["r2_scalar_mean"]) == pytest.approx(expected, abs=1e-9)


def test_an_exact_reconstruction_scores_100() -> None:
    split = evaluation(n_images=70)
    split.reconstruction = split.outputs
    values = measured(split)
    assert number(values["r2"]) == pytest.approx(100, abs=1e-10)
    assert interval(values["r2"]) == pytest.approx((100, 100), abs=1e-10)
    assert number(values["nmse_zero_baseline"]) == 0


def test_an_error_of_4e_14_of_the_variation_is_visible_despite_large_offsets() -> None:
    generator = torch.Generator().manual_seed(0)
    x = 1000 + torch.randn(70, 4, 6, generator=generator, dtype=torch.float64)
    error = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    error *= (4e-14 * (x - x.mean(dim=(0, 1))).square().sum()).sqrt() / error.norm()
    missing = 1 - number(measured(evaluation(outputs=x, reconstruction=x + error))["r2"]) / 100
    assert missing == pytest.approx(4e-14, rel=0.05)


def test_predicting_the_mean_vector_scores_0() -> None:
    outputs = torch.randn(70, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    outputs += torch.tensor([0.0, 10.0, -10.0, 3.0, 100.0], dtype=torch.float64)
    split = evaluation(outputs=outputs, reconstruction=outputs.mean(dim=(0, 1)).expand_as(outputs))
    values = measured(split)
    assert number(values["r2"]) == pytest.approx(0, abs=1e-10)
    assert values["r2"].reason is None
    assert number(values["r2_scalar_mean"]) > 99  # the flattery that makes r2 the primary variant


def test_predicting_the_scalar_mean_or_zero_scores_the_other_variants_baseline() -> None:
    outputs = torch.randn(70, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 1
    split = evaluation(outputs=outputs, reconstruction=outputs.mean().expand_as(outputs))
    assert number(measured(split)["r2_scalar_mean"]) == pytest.approx(0, abs=1e-10)
    split.reconstruction = torch.zeros_like(outputs)
    assert number(measured(split)["nmse_zero_baseline"]) == pytest.approx(1, abs=1e-12)


def test_worse_than_the_mean_is_negative_and_hints_why() -> None:
    split = evaluation(n_images=70)
    split.reconstruction = -split.outputs
    value = measured(split)["r2"]
    assert number(value) < 0
    assert value.reason == "negative: wrong site or normalisation?"


@pytest.mark.parametrize("constant", [0.0, 0.1, 1e4])
def test_zero_variance_is_null(constant: float) -> None:
    outputs = torch.full((70, 3, 5), constant)
    values = measured(evaluation(outputs=outputs, reconstruction=outputs + 1))
    assert (values["r2"].value, values["r2"].reason) == (None, "the outputs do not vary")
    assert values["r2_scalar_mean"].value is None
    assert (values["nmse_zero_baseline"].value is None) == (constant == 0)


def test_variation_that_is_only_rounding_is_zero_variance() -> None:
    constant = torch.randn(5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    outputs = constant.expand(101, 7, 5)  # sums of 7 and of 101 equal numbers are rounded
    value = measured(evaluation(outputs=outputs, reconstruction=outputs + 1))["r2"]
    assert (value.value, value.reason) == (None, "the outputs do not vary")


def test_units_that_differ_but_never_vary_have_a_scalar_mean_r2_only() -> None:
    outputs = torch.tensor([1.0, 2.0, 3.0]).expand(70, 2, 3)
    values = measured(evaluation(outputs=outputs, reconstruction=outputs))
    assert values["r2"].value is None
    assert number(values["r2_scalar_mean"]) == 100


@pytest.mark.parametrize("part", ["outputs", "reconstruction"])
def test_what_is_not_finite_is_null(part: str) -> None:
    split = evaluation()
    getattr(split, part)[5, 1, 2] = torch.nan
    values = measured(split)
    assert all(value.value is None and "not finite" in (value.reason or "") for value in values.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_measured_stays_as_it_is(dtype: torch.dtype) -> None:
    class Itself(Batch):
        """Hands out the tensors themselves; indexing would copy them."""

        @property
        def outputs(self) -> Tensor:
            return self.evaluation.outputs

        @property
        def reconstruction(self) -> Tensor:
            return self.evaluation.reconstruction

    split = evaluation(outputs=evaluation().outputs.to(dtype))
    x, x_hat = split.outputs.clone(), split.reconstruction.clone()
    Reconstruction(split).update(Itself(split, torch.arange(40)), pass_index=0)
    assert torch.equal(split.outputs, x)
    assert torch.equal(split.reconstruction, x_hat)


def test_a_few_images_at_a_time_are_all(monkeypatch: pytest.MonkeyPatch) -> None:
    split = evaluation(n_images=90)
    at_once = measured(split)
    monkeypatch.setattr(reconstruction, "MAX_ELEMENTS", 40)
    for name, value in measured(split).items():
        assert [number(value), *interval(value)] == pytest.approx(
            [number(at_once[name]), *interval(at_once[name])], abs=1e-12
        )


def test_what_concerns_the_outputs_alone_is_computed_once_for_all_methods() -> None:
    split = evaluation()
    computed: dict[object, object] = {}

    class Side(Batch):
        def of_site(self, make: Callable[[Any], Any]) -> Any:
            return computed.setdefault(make, make(self))

    for reconstruction_of_a_method in (split.outputs, split.reconstruction):
        split.reconstruction = reconstruction_of_a_method
        Reconstruction(split).update(Side(split, torch.arange(40)), pass_index=0)
    assert len(computed) == 1


def test_one_image_has_no_interval() -> None:
    value = measured(evaluation(n_images=1))["r2"]
    assert (value.low, value.high, value.interval, value.n) == (None, None, "none: one block of images", 1)
    assert value.value is not None


def test_interval_is_near_a_bootstrap_over_single_images_of_a_sorted_split() -> None:
    split = evaluation(n_images=640, seed=4)
    split.reconstruction = split.outputs + torch.linspace(0, 1, 640)[:, None, None]
    x, x_hat = split.outputs.double().numpy(), split.reconstruction.double().numpy()
    rng = np.random.default_rng(0)
    resampled = []
    for _ in range(300):
        drawn = rng.integers(640, size=640)
        resampled.append(100 * r2(x[drawn].reshape(-1, 5), x_hat[drawn].reshape(-1, 5)))
    low, high = np.quantile(resampled, [0.025, 0.975])
    assert np.subtract(*interval(measured(split)["r2"])[::-1]) == pytest.approx(high - low, rel=0.25)


def test_interval_shrinks_with_more_images() -> None:
    few, many = (interval(measured(evaluation(n_images=n, n_tokens=1))["r2"]) for n in (100, 6400))
    assert (few[1] - few[0]) / (many[1] - many[0]) == pytest.approx(8, rel=0.5)


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.tuples(*[st.integers(1, 6)] * 3),
    offsets=st.tuples(*[st.floats(-1e3, 1e3)] * 3),
    seed=st.integers(0, 1000),
)
def test_merging_moments_is_associative_and_commutative(
    sizes: tuple[int, int, int], offsets: tuple[float, float, float], seed: int
) -> None:
    a, b, c = (
        random_moments(seed + i, size, offset) for i, (size, offset) in enumerate(zip(sizes, offsets, strict=True))
    )
    for left, right in ((columns((a + b) + c), columns(a + (b + c))), (columns(a + b), columns(b + a))):
        for one, other in zip(left, right, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_merged_moments_are_the_moments_of_all_tokens() -> None:
    generator = torch.Generator().manual_seed(0)
    x, x_hat = (torch.randn(2, 9, 3, generator=generator, dtype=torch.float64) + 50 for _ in range(2))
    merged = Moments.of(x[:, :4], x_hat[:, :4]) + Moments.of(x[:, 4:], x_hat[:, 4:])
    for one, other in zip(columns(merged), columns(Moments.of(x, x_hat)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_an_empty_block_is_neutral() -> None:
    some = random_moments(0, 4, 10.0)
    empty = some.pooled(torch.zeros(2, 2, dtype=torch.float64))
    for merged in (some + empty, empty + some):
        for one, other in zip(columns(merged), columns(some), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_pooling_counts_a_block_as_often_as_it_is_drawn() -> None:
    generator = torch.Generator().manual_seed(0)
    x, x_hat = (torch.randn(3, 4, 2, generator=generator, dtype=torch.float64) * 3 + 7 for _ in range(2))
    pooled = Moments.of(x, x_hat).pooled(torch.tensor([[2.0, 0.0, 1.0]], dtype=torch.float64))
    drawn = [0, 0, 2]
    expected = Moments.of(x[drawn].reshape(1, -1, 2), x_hat[drawn].reshape(1, -1, 2))
    for one, other in zip(columns(pooled), columns(expected), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
