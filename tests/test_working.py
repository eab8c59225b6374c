"""The working copy's radius holds: against distances in float64, for values of any range."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from methods.clustering.gpu import Torch
from methods.clustering.host import Host
from methods.clustering.working import CALIBRATED_ROWS, Working, highest, lowest, prepare


def assert_within_radius(working: Working) -> None:
    n = len(working.rows)
    a = working.approximate(slice(0, n), slice(0, n)).float()
    rows, columns = torch.meshgrid(torch.arange(n), torch.arange(n), indexing="ij")
    exact = working.distances(rows.flatten(), columns.flatten()).view(n, n)
    error, square_error = working.radius(rows, columns)
    assert (lowest(a, error, square_error) <= exact).all()
    assert (highest(a, error, square_error) >= exact).all()


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    tail=st.floats(0.0, 4.0),
    offset=st.floats(0.0, 100.0),
    d=st.integers(1, 200),
    power=st.integers(-60, 0),
    way=st.sampled_from(["float16", "float32", "float64"]),
)
def test_true_distances_are_within_their_radius(
    seed: int, tail: float, offset: float, d: int, power: int, way: Any
) -> None:
    rng = np.random.default_rng(seed)
    points = rng.lognormal(0, tail, size=(60, d)) * rng.normal(size=(60, d)) + offset * rng.normal(size=d)
    points[1] = points[0]
    points[30:] *= 10.0**power
    points = points.astype(np.float32) if way != "float64" else points
    for machine in (Host(points, 1), Torch(torch.from_numpy(points), triton=False)):
        assert_within_radius(prepare(machine, way))


class Blunt(Host):
    """A processor that loses a part in ten thousand of large products."""

    def products(self, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        tile = super().products(rows, columns)
        return tile.mul_(torch.where(tile > 1e8, 1 - 1e-4, 1.0))


@pytest.mark.parametrize("way", ["float16", "float32"])
def test_the_largest_rows_are_calibrated_on(way: Any) -> None:
    """Also where the random sample has none of them."""
    points = np.random.default_rng(0).normal(size=(1000, 8)).astype(np.float32)
    sampled = prepare(Host(points, 1), way).order[-CALIBRATED_ROWS["cpu"] :]
    few = np.setdiff1d(np.arange(1000), sampled.numpy())[:5]
    points[few] = 300 + points[few]
    assert_within_radius(prepare(Blunt(points, 1), way))


def test_a_wrong_radius_is_an_error() -> None:
    working = prepare(Host(np.random.default_rng(0).normal(size=(50, 16)).astype(np.float32), 1), "float16")
    wrong = replace(working, errors=torch.zeros(50), relative=0.0)
    i, j = torch.triu_indices(50, 50, 1)
    a = wrong.approximate(slice(0, 50), slice(0, 50))[i, j]
    with pytest.raises(ArithmeticError, match=r"points: rows \d+ and \d+ have squared distance .* expected a differ"):
        wrong.rechecked(i, j, a)
    working.rechecked(i, j, a)
