"""The MS-Score as it is streamed beside its definition, pair by pair; what the metrics add to an encode.

Reported and never pass or fail. `extra_info` has how many times as long the definition takes, in the same run: as a
plain loop over atoms and pairs, timed on a few atoms and scaled to all, and vectorised over the pairs of each atom.
"""

import time
from collections.abc import Callable
from functools import cached_property

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from references import Batch, Evaluation, evaluation, ms_score, ms_score_pach, stream

from metrics.codes import CodeSummary
from metrics.exemplars import Ranking
from metrics.monosemanticity import MSScore
from metrics.pach import PachScore
from metrics.sparsity import Sparsity

N_LOOPED = 3  # atoms that the plain loop is timed on


def seconds(run: Callable[[], object], rounds: int = 1) -> float:
    """The shortest of a few rounds."""
    taken = []
    for _ in range(rounds):
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
    return min(taken)


def vectorised(split: Evaluation, k: int = 100) -> list[float]:
    """The definition with the cosines of all pairs of an atom's top images in one product."""
    scores = []
    for atom in range(split.n_atoms):
        codes = split.codes[:, :, atom].double()
        best, positions = codes.max(dim=1)
        images = best.sort(descending=True, stable=True).indices[:k]
        e = torch.nn.functional.normalize(split.outputs[images, positions[images]].double(), dim=1)
        w = ((best[images] - codes.min()) / (codes.max() - codes.min())).clamp(0, 1)
        weights = (w[:, None] * w).triu(diagonal=1)
        scores.append(float((weights * (e @ e.T)).sum() / weights.sum()))
    return scores


def test_ms_score_beside_its_definition(benchmark: BenchmarkFixture) -> None:
    """2,000 images of 4 tokens, 300 atoms, 768 units, K = 100.

    What is streamed has the null baseline in it, and four values with their intervals at the end; `scored` leaves these
    out, as the definition does.
    """
    split = evaluation(n_images=2000, n_tokens=4, n_units=768, n_atoms=300)
    metrics: list[MSScore] = []

    def streamed() -> None:
        metrics.append(MSScore(split))
        stream(metrics[-1], split, 100)

    def scored() -> None:
        metric = MSScore(split)
        for index in range(2):
            for batch in split.batches(100):
                metric.update(batch, pass_index=index)
        metric.per_atom()

    benchmark.pedantic(streamed, rounds=3, warmup_rounds=1)
    codes, outputs = split.codes.double().numpy(), split.outputs.double().numpy()
    looped: list[float | None] = []

    def loop() -> None:
        looped.extend(ms_score(codes[:, :, atom], outputs) for atom in range(N_LOOPED))

    by_loop, ours = seconds(loop) * 300 / N_LOOPED, seconds(streamed, rounds=3)
    scoring = seconds(scored, rounds=3)
    by_pairs = seconds(lambda: vectorised(split))
    found = metrics[-1].per_atom()[0].scores.numpy()
    assert found[:N_LOOPED] == pytest.approx(np.array(looped, dtype=float), abs=1e-9)
    assert found == pytest.approx(np.array(vectorised(split)), abs=1e-9)
    benchmark.extra_info["streamed_seconds"] = round(ours, 4)
    benchmark.extra_info["scored_seconds"] = round(scoring, 4)
    benchmark.extra_info["plain_loop_seconds"] = round(by_loop, 2)
    benchmark.extra_info["plain_loop_times_scored"] = round(by_loop / scoring, 1)
    benchmark.extra_info["plain_loop_times_streamed"] = round(by_loop / ours, 1)
    benchmark.extra_info["vectorised_seconds"] = round(by_pairs, 2)
    benchmark.extra_info["vectorised_times_scored"] = round(by_pairs / scoring, 1)
    benchmark.extra_info["vectorised_times_streamed"] = round(by_pairs / ours, 1)


def test_pach_beside_its_definition(benchmark: BenchmarkFixture) -> None:
    """2,000 images, 300 atoms, embeddings of width 768: all pairs of the split; the loop is timed on 4,950 of one."""
    split = evaluation(n_images=2000, n_tokens=4, n_atoms=300)
    split.embeddings = torch.randn(2000, 768, generator=torch.Generator().manual_seed(0))
    benchmark.pedantic(lambda: stream(PachScore(split), split, 100), rounds=3, warmup_rounds=1)
    best, e = split.codes.amax(dim=1).double(), torch.nn.functional.normalize(split.embeddings.double(), dim=1)

    def by_products() -> list[float]:
        """The cosines of all pairs in one product, then their weighted mean atom by atom."""
        cosines = (e @ e.T).triu_(diagonal=1)
        scores = []
        for s in best.T:
            r = (s - s.min()) / (s.max() - s.min())
            scores.append(float(r @ cosines @ r / ((r.sum() ** 2 - (r**2).sum()) / 2)))
        return scores

    metric = PachScore(split)
    ours = seconds(lambda: stream(metric, split, 100))
    by_pairs = seconds(by_products)
    assert metric.per_atom().scores.numpy() == pytest.approx(np.array(by_products()), abs=1e-9)
    some = seconds(lambda: ms_score_pach(best[:100, 0].numpy(), e[:100].numpy()))
    by_loop = some * (2000 * 1999) / (100 * 99) * 300
    benchmark.extra_info["streamed_seconds"] = round(ours, 4)
    benchmark.extra_info["plain_loop_seconds_scaled"] = round(by_loop, 1)
    benchmark.extra_info["plain_loop_times_streamed"] = round(by_loop / ours)
    benchmark.extra_info["vectorised_seconds"] = round(by_pairs, 2)
    benchmark.extra_info["vectorised_times_streamed"] = round(by_pairs / ours, 1)


@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_codes_are_looked_at_beside_an_encode(benchmark: BenchmarkFixture, kind: str) -> None:
    """40 images of 257 tokens, 768 units, 6,144 atoms: summary, ranking and sparsity against one product x @ W."""
    generator = torch.Generator().manual_seed(0)
    x, w = torch.randn(40 * 257, 768, generator=generator), torch.randn(768, 6144, generator=generator)
    codes = (x @ w).unflatten(0, (40, 257))
    if kind == "sparse":
        codes.sub_(75).relu_()  # 2.7 standard deviations: 20 atoms a token
    split = evaluation(n_images=4000, n_tokens=1, n_atoms=1)
    split.codes = torch.empty(4000, 1, 6144)  # only its width is looked at
    ranking, sparsity, starts = Ranking(100), Sparsity(split), iter(range(0, 4000, 40))

    class Encoded(Batch):
        @cached_property
        def summary(self) -> CodeSummary:
            return CodeSummary.of(codes)

    def look() -> None:
        """Take in the batch once more, as images that come later."""
        batch = Encoded(split, torch.arange(40) + next(starts))
        ranking.add(batch.images, batch.summary)
        sparsity.update(batch, pass_index=0)

    benchmark.pedantic(look, rounds=6, warmup_rounds=3)
    encode = seconds(lambda: x @ w, rounds=3)
    summary = seconds(lambda: CodeSummary.of(codes), rounds=3)
    benchmark.extra_info["encode_seconds"] = round(encode, 3)
    benchmark.extra_info["share_of_encode"] = round(seconds(look, rounds=3) / encode, 3)
    benchmark.extra_info["summary_share_of_encode"] = round(summary / encode, 3)
