"""Ranking a whole backbone: 13,500 presentations, three judges, ten methods, 1,000 resamples; the aim is 2 s."""

import numpy as np
import pytest
from made_votes import Model
from pytest_benchmark.fixture import BenchmarkFixture

from judges.agreement import agreement
from judges.protocol import PAPER, Settings
from judges.ranking import rank

MODEL = Model(tuple(np.linspace(1, -1, 10).tolist()), invalid=0.02)


@pytest.mark.parametrize("settings", [Settings(), PAPER], ids=["unit_pair", "presentation"])
def test_ranking_of_40500_judgments(benchmark: BenchmarkFixture, settings: Settings) -> None:
    votes = MODEL.votes(np.random.default_rng(0), 50)
    benchmark.extra_info |= {"judgments": votes.choice.size, "methods": 10, "resamples": settings.n_resamples}
    benchmark(rank, votes, settings)


def test_agreement_of_40500_judgments(benchmark: BenchmarkFixture) -> None:
    votes = MODEL.votes(np.random.default_rng(0), 50)
    benchmark.extra_info |= {"judgments": votes.choice.size, "judges": 3, "resamples": 1000}
    benchmark(agreement, votes, Settings())
