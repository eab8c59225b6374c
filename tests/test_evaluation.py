"""One pass for all decompositions of a site: the same values as each by itself, failures that stay where they are."""

import dataclasses
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from test_sites import ChannelsLast, Conv, InPlace, backbone_of, split_of, vit
from torch import Tensor, nn

from bench import evaluation
from bench.activations import TensorSource
from bench.batches import LaterBatch
from bench.datasets import InMemory
from bench.evaluation import Answer, Question, evaluate
from bench.lanes import quietly
from bench.replay import Replay
from bench.sites import Site
from bench.spool import Spool
from bench.subject import Subject
from methods.controls import PCA, Backbone, RandomDirections
from methods.protocol import Activations, Codes, Decomposition, Method
from metrics.catalogue import MetricRow, Value
from metrics.monosemanticity import MSScore
from metrics.protocol import EvaluationBatch, EvaluationFacts
from metrics.reconstruction import Reconstruction
from metrics.replacement import Replacement
from metrics.sparsity import Sparsity

METRICS = (MSScore, Reconstruction, Replacement, Sparsity)


class Pairs(Conv):
    """Hands tuples from module to module, and runs one module before and after the site."""

    class Split(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor], None]:
            return x * 2, [x + 1, torch.ones_like(x)], None

    def __init__(self) -> None:
        super().__init__()
        self.split = Pairs.Split()
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        first, (second, third), _ = self.split(self.act(self.stem(x)))
        maps: Tensor = self.act(self.mix(first) + second.mean() * third.amax())
        logits: Tensor = self.head(maps.mean(dim=(2, 3)))
        return logits


class Strange(Conv):
    """A module before the site gives something that is no tensor."""

    class Named(nn.Module):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"x": x}

    def __init__(self) -> None:
        super().__init__()
        self.named = Strange.Named()

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.named(x)["x"])


class Counting(Conv):
    """Adds, to its logits, how often its stem has run."""

    class Stem(nn.Conv2d):
        n_runs = 0

        def forward(self, x: Tensor) -> Tensor:
            self.n_runs += 1
            return super().forward(x)

    def __init__(self) -> None:
        super().__init__()
        self.stem = Counting.Stem(3, 10, 4, stride=4)


# --- the rest of a forward pass --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "path", "read_later"),
    [
        (Conv(), "mix", set()),
        (ChannelsLast(), "mix", set()),
        (Conv(), "head", set()),
        (InPlace(), "mix", {("stem", 0)}),
        (Pairs(), "mix", {("split", 0)}),
        (vit(), "blocks.1.mlp.fc2", {("blocks.0", 0), ("blocks.1.drop_path1", 0)}),
        (vit(registers=2, pool="avg"), "blocks.0.mlp.fc1", {("norm_pre", 0), ("blocks.0.drop_path1", 0)}),
    ],
)
def test_the_rest_alone_gives_the_logits_of_the_whole_network(
    module: nn.Module, path: str, read_later: set[tuple[str, int]]
) -> None:
    site = Site(backbone_of(module), path)
    replay, split = Replay(site), split_of(7)
    for rows in (slice(0, 4), slice(4, 7)):  # batches of two sizes
        images = split.images(rows)
        reading = replay.read(images)
        other = reading.outputs + torch.randn(reading.outputs.shape, generator=torch.Generator().manual_seed(1))
        assert torch.equal(replay.logits_with(images, reading.outputs), reading.logits)
        for _ in range(2):  # nothing is used up
            assert torch.equal(replay.logits_with(images, other), site.logits_with(images, other))
        assert not torch.equal(replay.logits_with(images, other), reading.logits)
    assert replay.is_exact
    assert set(replay.read_later or ()) == read_later
    assert "forward" not in site.module.__dict__


def test_what_stands_before_the_site_does_not_run_again() -> None:
    module = Counting()
    replay, images = Replay(Site(backbone_of(module), "mix")), split_of(5).images(slice(None))
    reading = replay.read(images)
    before = module.stem.n_runs
    for _ in range(3):
        replay.logits_with(images, reading.outputs * 2)
    assert module.stem.n_runs == before


def test_where_the_rest_cannot_run_alone_the_whole_network_does() -> None:
    site = Site(backbone_of(Strange()), "mix")
    replay, images = Replay(site), split_of(5).images(slice(None))
    reading = replay.read(images)
    assert replay.is_exact is False
    assert torch.equal(replay.logits_with(images, reading.outputs * 2), site.logits_with(images, reading.outputs * 2))


class Gated(Conv):
    """Turns its maps around where something before the site is bright."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.AdaptiveAvgPool2d(1)

    def forward(self, x: Tensor) -> Tensor:
        bright = self.gate(x).mean(dim=1, keepdim=True) > 0.5
        maps = torch.relu(self.mix(torch.relu(self.stem(x))))
        logits: Tensor = self.head(torch.where(bright, -maps, maps).mean(dim=(2, 3)))
        return logits


def test_what_only_later_images_show_is_noticed() -> None:
    site = Site(backbone_of(Gated()), "mix")
    replay = Replay(site)
    dark, bright = (torch.full((3, 3, 16, 16), level, dtype=torch.uint8) for level in (10, 240))
    assert torch.equal(replay.logits_with(dark, replay.read(dark).outputs), site.read(dark).logits)
    seen = [replay.is_exact]  # NaN is not above 0.5 either
    outputs = replay.read(bright).outputs * 2
    assert [*seen, replay.is_exact] == [True, False]
    assert torch.equal(replay.logits_with(bright, outputs), site.logits_with(bright, outputs))
    assert torch.equal(replay.logits_with(dark, outputs), site.logits_with(dark, outputs))


# --- what is put by --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_what_is_put_by_comes_back_bit_for_bit(dtype: torch.dtype, tmp_path: Path) -> None:
    batches = [torch.randn(n, 3, 5).to(dtype)[:, 1:] for n in (4, 4, 1)]
    with Spool(tmp_path) as spool:
        for index, batch in enumerate(batches):
            spool.add(torch.full((len(batch),), index), batch)
        for _ in range(2):
            for (images, outputs), (index, batch) in zip(spool.again(), enumerate(batches), strict=True):
                assert images.tolist() == [index] * len(batch)
                assert outputs.dtype == dtype
                assert torch.equal(outputs, batch)
    assert list(tmp_path.iterdir()) == []


def test_a_later_batch_says_what_it_no_longer_has() -> None:
    batch = LaterBatch(torch.arange(2), None, torch.zeros(2, 1, 3))
    assert isinstance(batch, EvaluationBatch)
    with pytest.raises(RuntimeError, match="expected images, labels and outputs; keep the rest"):
        _ = batch.codes


# --- all decompositions of a site ------------------------------------------------------------------------------------


def site_and_split(n: int = 50) -> tuple[Site, InMemory]:
    return Site(backbone_of(vit(pool="avg")), "blocks.1.mlp.fc2"), split_of(n)


def question(site: Site, method: Method, metrics: Any = METRICS) -> Question:
    reading = site.read(split_of(20).images(slice(None)))
    source = TensorSource(None, reading.outputs.flatten(0, 1), site.weight, site.bias).only(method.reads)
    names = [row.name for metric in metrics for row in metric.rows]
    return Question(Subject(site, method, method.decompose(source, seed=0), 5), metrics, names)


def values_of(answers: list[Answer]) -> list[dict[str, Value] | None]:
    return [answer.values for answer in answers]


def test_together_gives_what_each_gives_by_itself_and_the_backbone_runs_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "BATCH_IMAGES", 16)
    site, split = site_and_split()
    questions = [question(site, method) for method in (Backbone(), PCA(), RandomDirections())]
    alone = [evaluate(site, split, [one], quietly)[0] for one in questions]
    n_images: list[int] = []
    handle = site.backbone.module.blocks[0].norm1.register_forward_hook(  # type: ignore[index,union-attr]
        lambda _module, args, _out: n_images.append(len(args[0]))
    )
    together = evaluate(site, split, questions, quietly)
    handle.remove()
    assert values_of(together) == values_of(alone)
    assert all(values and values["ms_score"].value is not None for values in values_of(together))
    # One image for its shape and two to find out what the rest reads; the two are also looked at once more each time.
    assert sum(n for n in n_images if n > 2) == len(split) - 2  # the last batch has two
    assert len({values["top1"].value for values in values_of(together) if values}) == 1


def test_batches_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    site, split = site_and_split()
    found = []
    for size in (7, 50):
        monkeypatch.setattr(evaluation, "BATCH_IMAGES", size)
        (answer,) = evaluate(site, split, [question(site, PCA())], quietly)
        assert answer.values is not None
        found.append({name: value.value for name, value in answer.values.items() if value.value is not None})
    assert found[0] == pytest.approx(found[1], rel=1e-5, abs=1e-6)


@dataclass(frozen=True)
class FailsLater(Backbone):
    """Works on the first batch only."""

    seen: list[int] = dataclasses.field(default_factory=list)

    def encode(self, decomposition: Decomposition, activations: Activations) -> Codes:
        self.seen.append(1)
        if len(self.seen) > 1:
            raise RuntimeError("no second batch")
        return super().encode(decomposition, activations)


def test_a_decomposition_that_fails_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "BATCH_IMAGES", 16)
    site, split = site_and_split()
    bad, good = question(site, FailsLater()), question(site, Backbone())
    answers = evaluate(site, split, [bad, good], quietly)
    assert answers[0].values is None
    assert answers[0].failure is not None
    assert answers[0].failure.reason == "RuntimeError: no second batch"
    assert answers[1].values == evaluate(site, split, [good], quietly)[0].values


def test_where_all_have_failed_the_rest_of_the_split_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "BATCH_IMAGES", 16)
    site, split = site_and_split()
    seen: list[int] = []
    (answer,) = evaluate(site, split, [question(site, FailsLater())], lambda _what, done, _total: seen.append(done))
    assert answer.failure is not None
    assert max(seen) == 16  # of 50, in the second batch of which it failed


def test_a_disk_that_is_full_costs_a_second_run_of_the_backbone_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(evaluation, "BATCH_IMAGES", 16)
    site, split = site_and_split()
    one = question(site, RandomDirections())
    whole = evaluate(site, split, [one], quietly)[0].values

    class Full(Spool):
        def __init__(self, folder: Path | None) -> None:
            super().__init__(folder)
            self.file.close()
            self.file = FileIO("/dev/full", "r+")

    monkeypatch.setattr(evaluation, "Spool", Full)
    assert evaluate(site, split, [one], quietly)[0].values == whole


class Learning:
    """Counts the probing images and the images that it sees."""

    rows: ClassVar[tuple[MetricRow, ...]] = (
        MetricRow("learned", "1", "none", (0.0, None), ("labels",), "a test", "probing images", "test:Learning"),
    )
    version: ClassVar[int] = 1
    passes: ClassVar[int] = 1
    n_training_images: ClassVar[int] = 30

    def __init__(self, facts: EvaluationFacts) -> None:
        self.learned: list[int] = []
        self.seen = 0

    def learn(self, batch: EvaluationBatch) -> None:
        assert batch.codes.shape[0] == len(batch.images)
        self.learned += batch.images.tolist()

    def update(self, batch: EvaluationBatch, *, pass_index: int) -> None:
        assert self.learned
        self.seen += len(batch.images)

    def compute(self) -> dict[str, Value]:
        assert self.learned == sorted(set(self.learned))
        return {"learned": Value.exact(float(len(self.learned)), n=self.seen)}


def test_metrics_that_learn_see_as_many_probing_images_as_they_want_first() -> None:
    site, split = site_and_split()
    one = question(site, PCA(), (Learning,))
    (answer,) = evaluate(site, split, [one], quietly, probing=split_of(40))
    assert answer.values == {"learned": Value.exact(30.0, n=50)}
    (answer,) = evaluate(site, split, [one], quietly, probing=split_of(12))
    assert answer.values == {"learned": Value.exact(12.0, n=50)}


def test_what_a_split_lacks_is_null_with_its_reason() -> None:
    site, split = site_and_split()
    (answer,) = evaluate(site, InMemory(split.pixels, None), [question(site, PCA())], quietly)
    assert answer.values is not None
    assert answer.values["top1"] == Value.null("the data set has no labels")
    assert answer.values["agreement"].value == 100


def test_codes_at_once_depend_on_the_site_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    site, split = site_and_split()
    assert evaluation.images_at_once(site, split) == 256
    monkeypatch.setattr(evaluation, "BATCH_BYTES", 8 * 5 * 5 * 12 * 4 + 1)  # five images of five positions
    assert evaluation.images_at_once(site, split) == 5
    monkeypatch.setattr(evaluation, "BATCH_BYTES", 1)
    assert evaluation.images_at_once(site, split) == 1
