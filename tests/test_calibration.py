"""What `plan` expects: paces on a clock that is turned by hand, the order of lanes, and rehearsals of whole suites."""

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from test_run import FOUR, Shell
from torch import Tensor

from bench.activations import TensorSource
from bench.cells import Suite
from bench.estimate import Estimate, chunks_of, estimated, in_words, makespan
from bench.lanes import Task
from bench.planted import PlantedImages, planted
from bench.registry import Registry
from bench.rehearsal import RehearsalImages, RehearsalSource
from bench.runner import run
from bench.stages import StartWorkshop
from bench.stopwatch import Seen, Stopwatch, later, timed
from bench.suites import load_suite
from bench.tasks import tasks_for
from methods.protocol import ActivationSource, ImageActivations


class Clock:
    """A clock that stands still until it is turned."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def work(self, seconds: float) -> None:
        self.now += seconds


def steps(watch: Stopwatch, clock: Clock, n: int, seconds: float, *, first: float = 0.0, what: str = "steps") -> None:
    """A stage that reports every step."""
    for step in range(n):
        watch.report(what, step, n)
        clock.work(seconds if step or not first else first)
    watch.report(what, n, n)


def test_the_rest_follows_from_the_pace_without_the_first_step() -> None:
    clock = Clock()
    watch = Stopwatch(0.3, clock)
    seconds = timed(lambda: steps(watch, clock, 1000, 0.1, first=1.0), watch)
    assert seconds == pytest.approx(1.0 + 999 * 0.1)
    assert watch.has_ended
    assert clock.now == pytest.approx(1.0 + 0.3)


def test_a_first_step_of_many_times_the_patience_has_to_do() -> None:
    clock = Clock()
    watch = Stopwatch(0.3, clock)
    assert timed(lambda: steps(watch, clock, 10, 5.0), watch) == pytest.approx(50.0)
    assert clock.now == 5.0


def test_what_is_short_is_worked_to_its_end() -> None:
    clock = Clock()
    watch = Stopwatch(0.3, clock)

    def stage() -> None:
        steps(watch, clock, 5, 0.1)
        clock.work(7.0)
        steps(watch, clock, 100, 1.0, what="other steps")

    assert timed(stage, watch) == pytest.approx(107.5)
    assert clock.now == pytest.approx(0.5 + 7.0 + 2.0)


def test_phases_after_the_one_that_was_ended_come_from_a_hurried_rehearsal() -> None:
    def stage(watch: Stopwatch, clock: Clock, n_images: int) -> None:
        steps(watch, clock, n_images, 0.5, what="images")
        steps(watch, clock, 96, 0.25, what="units")
        steps(watch, clock, n_images, 0.125, what="images again")
        clock.work(3.0)

    clock = Clock()
    watch = Stopwatch(float("inf"), clock)
    stage(watch, clock, 10)
    hurried = [*watch.phases, ("", 0, watch.seconds)]
    clock = Clock()
    watch = Stopwatch(0.3, clock)
    seconds = timed(lambda: stage(watch, clock, 1000), watch) + later(watch, hurried, {10: 100.0})
    # What comes after the last report belongs to the last phase.
    assert seconds == pytest.approx(1000 * 0.5 + 96 * 0.25 + 100 * (10 * 0.125 + 3.0))
    assert clock.now < 2.0


def tokens(n: int = 600) -> TensorSource:
    source = planted(frozenset({"inputs", "outputs", "weight"}))
    return TensorSource(source.inputs, source.outputs[:n], source.weight, source.bias)


def trained(source: ActivationSource, clock: Clock, *, epochs: int, seconds: float, every: int | None) -> int:
    """A training on batches of 10 tokens that reports every so many steps, or never."""
    total, n = epochs * -(-source.n_tokens // 10), 0
    for epoch in range(epochs):
        for _ in source.batches(10, seed=epoch):
            if every and n % every == 0:
                source.report("steps", n, total)
            clock.work(seconds)
            n += 1
    return n


@pytest.mark.parametrize("every", [1, 100, None])
@pytest.mark.parametrize("seconds", [0.01, 0.125])
def test_a_training_is_measured_by_its_batches_whatever_it_reports(every: int | None, seconds: float) -> None:
    clock = Clock()
    watch = Stopwatch(0.3, clock)
    source = RehearsalSource(tokens(), 100_000, watch)
    found = timed(lambda: trained(source, clock, epochs=20, seconds=seconds, every=every), watch)
    assert found == pytest.approx(20 * 10_000 * seconds)
    assert clock.now < 0.3 + (3 if every else 23) * seconds


def test_phases_that_do_not_count_batches_are_not_taken_for_it() -> None:
    clock = Clock()
    watch = Stopwatch(0.3, clock)
    source = RehearsalSource(tokens(), 1000, watch)

    def stage() -> None:
        for unit in range(100):
            source.report("units", unit, 100)
            for _ in source.batches(10):
                clock.work(0.01)

    assert timed(stage, watch) == pytest.approx(100 * 100 * 0.01)
    assert clock.now < 3.0


def test_what_reports_nothing_and_takes_no_batches_takes_what_it_takes() -> None:
    clock = Clock()
    watch = Stopwatch(0.3, clock)
    source = RehearsalSource(tokens(), 1000, watch)

    def stage() -> None:
        clock.work(len(source.read(slice(None)).outputs) / 100)

    assert timed(stage, watch) == pytest.approx(10.0)


def test_made_up_tokens_are_distinct_and_go_through_the_site() -> None:
    few = tokens()
    found = RehearsalSource(few, 5000, Stopwatch()).read(slice(None))
    assert torch.equal(found.outputs[:600], few.outputs)
    assert len(found.outputs.unique(dim=0)) > 4900
    assert found.bias is not None
    expected = found.needed_inputs() @ found.needed_weight().T + found.bias
    assert torch.allclose(found.outputs, expected, atol=1e-4)
    hurried = RehearsalSource(few, 256, Stopwatch(), is_hurried=True)
    assert [len(batch.outputs) for batch in hurried.batches(64)] == [32]


def test_too_many_tokens_at_once_are_an_error_that_says_what_to_do() -> None:
    with pytest.raises(ValueError, match="once the activations are in the cache they are read from there"):
        RehearsalSource(tokens(), 10**9, Stopwatch()).read(torch.arange(1).expand(10**8))


def test_images_that_are_not_read_are_added() -> None:
    clock = Clock()
    found = planted().images
    assert isinstance(found, PlantedImages)
    images: PlantedImages = found

    class Slow:
        n_images, labels = 150, images.labels

        def read(self, rows: Tensor) -> ImageActivations:
            clock.work(0.1 * len(rows))
            return images.read(rows)

        def class_gradients(self, rows: Tensor) -> Tensor:
            clock.work(0.2 * len(rows))
            return images.class_gradients(rows)

    watch = Stopwatch(0.3, clock)
    seen = RehearsalImages(Slow(), 150, 8, watch)
    for rows in torch.arange(150).split(50):
        assert len(seen.read(rows).outputs) == len(seen.class_gradients(rows)) == 50
    assert watch.seconds == pytest.approx(150 * 0.3)
    assert clock.now == pytest.approx(8 * 0.3)


def test_lanes_take_the_first_task_that_may_begin() -> None:
    tasks = [
        Task("a", "a", None),
        Task("b", "b", None),
        Task("c", "c", None, needs=("a",)),
        Task("d", "d", None, needs=("a", "b")),
        Task("e", "e", None, needs=("elsewhere",)),
    ]
    seconds = {"a": 4.0, "b": 1.0, "c": 2.0, "d": 5.0, "e": 2.0}
    # a 0-4 beside b 0-1 and e 1-3; then c 4-6 beside d 4-9.
    assert makespan(tasks, seconds, 2) == 9.0
    assert makespan(tasks, seconds, 1) == 14.0
    assert makespan(tasks, seconds, 9) == 9.0
    assert makespan(tasks, {"a": 4.0}, 2) == 4.0
    assert makespan([], {}, 2) == 0.0


def test_durations_in_words() -> None:
    words = [in_words(seconds) for seconds in (0.04, 3.21, 42.4, 95.0, 700.0, 5400.0, 90_000.0)]
    expected = ["0.0 seconds", "3.2 seconds", "42 seconds", "1.6 minutes", "12 minutes", "1.5 hours", "25 hours"]
    assert words == expected


def small(path: Path, seeds: Sequence[int] = (42,), text: str = "", plugins: Sequence[Path] = ()) -> Suite:
    """Methods at one small site, under some token seeds."""
    methods = 'name = "backbone"', 'name = "topk_sae"\nk = 4\nepochs = 2', 'name = "pure"', *([text] if text else [])
    path.write_text(
        f"token_seeds = {list(seeds)}\ninit_seeds = [42]\n[[sites]]\n"
        'dataset = { name = "shapes", n_train = 600, n_test = 300 }\n'
        'backbone = { name = "embedded_vit", width = 32, depth = 2, epochs = 2 }\nmodule = "blocks.1.mlp.fc2"\n'
        + "".join(f"[[methods]]\n{method}\n" for method in methods),
        encoding="utf-8",
    )
    return load_suite(str(path), Registry(plugins))


def by_name(estimate: Estimate) -> dict[str, float]:
    return {task.name: estimate.seconds[task.id] for task in estimate.tasks if task.id in estimate.seconds}


def test_what_the_cache_holds_costs_nothing_and_a_rehearsal_leaves_it_alone(tmp_path: Path) -> None:
    suite, cache = small(tmp_path / "small.toml"), tmp_path / "cache"
    before = estimated(suite.cells, 0, (), cache)
    assert not cache.exists()
    assert not before.reasons
    assert min(by_name(before).values()) > 0
    assert "shapes: evaluation of 3 methods (t42/i42)" in by_name(before)
    assert before.total_seconds > sum(before.seconds.values())  # the data set is loaded too
    run(suite, tmp_path / "run", StartWorkshop((), cache), only=["label=topk_sae"], n_lanes=0, is_quiet=True)
    files = sorted(path for path in cache.rglob("*") if path.is_file())
    times = [path.stat().st_mtime_ns for path in files]
    after = by_name(estimated(suite.cells, 0, (), cache))
    assert after["shapes: backbone"] == after["shapes: activations of token seed 42"] == 0
    assert after["shapes/topk_sae/t42/i42"] == 0
    assert (
        after["shapes: evaluation of 3 methods (t42/i42)"] > 0
    )  # what was found is there, and would be measured again
    assert sorted(path for path in cache.rglob("*") if path.is_file()) == files
    assert [path.stat().st_mtime_ns for path in files] == times
    assert estimated([], 0, (), cache).total_seconds == 0


def test_seeds_are_rehearsed_once(tmp_path: Path) -> None:
    suite = small(tmp_path / "small.toml", (42, 123))
    tasks = [task for task in tasks_for(suite.cells) if task.payload[0] != "evaluate"]
    (chunk,) = chunks_of(tasks, 1)
    assert [len(group) for group in chunk.payload.groups] == [1, 1, 2, 2, 2]
    assert [len(chunk.payload.groups) for chunk in chunks_of(tasks, 3)] == [3, 1, 1]
    assert {task.id for group in chunk.payload.groups for task in group} == {task.id for task in tasks}


BREAKS = '''
from dataclasses import dataclass
from methods.controls import Backbone

@dataclass(frozen=True)
class Breaks(Backbone):
    """Fails while it decomposes."""

    def decompose(self, activations, *, seed):
        raise RuntimeError("this method always breaks")

METHODS = {"breaks": Breaks}
'''


def test_what_cannot_be_rehearsed_is_null_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getloadavg", lambda: (0.5, 0.5, 0.5))
    plugin = tmp_path / "breaks.py"
    plugin.write_text(BREAKS, encoding="utf-8")
    suite = small(tmp_path / "small.toml", text='name = "breaks"', plugins=[plugin])
    found = estimated(suite.cells, 0, (plugin,), tmp_path / "cache")
    (cell,) = [cell for cell in suite.cells if cell.label == "breaks"]
    assert found.of(cell.id) == {"expected_seconds": None, "reason": "RuntimeError: this method always breaks"}
    assert found.clause(cell.id) == "; not rehearsed: RuntimeError: this method always breaks"
    assert str(found).startswith("at least ")
    busy = str(dataclasses.replace(found, load=100.0))
    assert busy.startswith("very roughly at least ")
    assert busy.endswith(f"; other programs keep it busy (load 100.0 on {os.cpu_count()} cores)")
    assert "without 1 task not rehearsed" in str(found)
    assert found.as_json()["is_lower_bound"]


def test_a_lane_that_dies_leaves_its_tasks_without_a_number(tmp_path: Path) -> None:
    plugin = tmp_path / "breaks.py"
    plugin.write_text(
        BREAKS.replace('raise RuntimeError("this method always breaks")', "import os; os._exit(1)"), encoding="utf-8"
    )
    suite = small(tmp_path / "small.toml", text='name = "breaks"', plugins=[plugin])
    found = estimated(suite.cells[-1:], 1, (plugin,), tmp_path / "cache")
    assert not found.seconds
    assert set(found.reasons) == {task.id for task in found.tasks}
    assert "the worker process died" in found.reasons[suite.cells[-1].id]


def test_every_task_of_the_smoke_suite_is_rehearsed(tmp_path: Path) -> None:
    suite = load_suite("smoke", Registry(()))
    found = estimated(suite.cells, 0, (), tmp_path / "cache")
    assert not found.reasons
    assert set(found.seconds) == {task.id for task in found.tasks}


def test_the_properties_ask_for_a_second_decomposition(tmp_path: Path) -> None:
    metrics = 'metrics = ["gradient_steps", "ms_score"]\n'
    path = tmp_path / "small.toml"
    small(path)
    path.write_text(metrics + path.read_text(encoding="utf-8"), encoding="utf-8")
    suite = load_suite(str(path), Registry(()))
    found = estimated(suite.cells, 0, (), tmp_path / "cache")
    assert not found.reasons


def test_seen_is_no_exception_that_a_method_would_take_for_a_failure() -> None:
    assert not issubclass(Seen, Exception)


def test_plan_says_what_is_to_be_expected(tmp_path: Path) -> None:
    shell = Shell(tmp_path / "cache", tmp_path)
    out, err = shell("plan", FOUR, "--json", "--only", "label=backbone", "--workers", "0")
    plan = json.loads(out)
    (cell,) = plan["cells"]
    assert 0 < cell["expected_seconds"] < plan["estimate"]["expected_seconds"]
    assert next(one["task"] for one in plan["estimate"]["shared"]) == "shapes: backbone"
    assert "--no-estimate" in err
    out, err = shell("plan", FOUR, "--no-estimate")
    assert err == ""
    assert out.splitlines()[-1] == "four: 4 to do"
