"""What `plan` expects of a suite, against what it then takes; the aim is within 30 %."""

import dataclasses
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.estimate import Collected, estimated
from bench.lanes import Came, Report, threads_of_a_lane
from bench.processes import run_tasks
from bench.registry import Registry
from bench.stages import StartWorkshop
from bench.suites import load_suite
from bench.tasks import tasks_for


@dataclass(frozen=True)
class StartTimed(StartWorkshop):
    """A workshop whose tasks come with their id; it writes down the wall and the CPU seconds of each."""

    log: Path = Path()

    def __call__(self, report: Report, say: Callable[[str], None]) -> Callable[[Any, Came], Any]:
        work = super().__call__(report, say)

        def timed(payload: tuple[str, Any], came: Came) -> Any:
            wall, cpu = time.perf_counter(), time.process_time()
            outcome = work(payload[1], came)
            row = [payload[0], time.perf_counter() - wall, time.process_time() - cpu]
            with self.log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            return outcome

        return timed


@pytest.mark.parametrize("name", ["smoke", "quick"])
def test_plan(benchmark: BenchmarkFixture, tmp_path: Path, name: str) -> None:
    """A run in a fresh cache with two workers; `extra_info` has what was expected, by the wall's clock and the CPU's.

    On a machine that other programs use too, the wall's clock compares two moments of theirs; the CPU's does not.
    """
    cells = load_suite(name, Registry(())).cells
    by_wall = estimated(cells, 2, (), tmp_path / "cache")
    by_cpu = estimated(cells, 2, (), tmp_path / "cache", time.process_time)
    log = tmp_path / "log"
    tasks = [dataclasses.replace(task, payload=(task.id, task.payload)) for task in tasks_for(cells)]
    start = StartTimed((), tmp_path / "cache", threads_of_a_lane(2), log)
    begin = time.perf_counter()
    benchmark.pedantic(lambda: run_tasks(tasks, 2, start, Collected()), rounds=1)
    taken = time.perf_counter() - begin
    took = {key: (wall, cpu) for key, wall, cpu in map(json.loads, log.read_text(encoding="utf-8").splitlines())}
    wall_ratios = {task.name: by_wall.seconds[task.id] / took[task.id][0] for task in tasks}
    cpu_ratios = {task.name: by_cpu.seconds[task.id] / took[task.id][1] for task in tasks}
    for task in tasks:
        print(f"{task.name:45} {wall_ratios[task.name]:6.2f} {cpu_ratios[task.name]:6.2f}")
    benchmark.extra_info.update(
        calibration_seconds=round(by_wall.calibration_seconds, 1),
        expected_seconds=round(by_wall.total_seconds, 1),
        taken_seconds=round(taken, 1),
        ratio=round(by_wall.total_seconds / taken, 3),
        expected_cpu_seconds=round(sum(by_cpu.seconds.values()), 1),
        taken_cpu_seconds=round(sum(cpu for _, cpu in took.values()), 1),
        cpu_ratio=round(sum(by_cpu.seconds.values()) / sum(cpu for _, cpu in took.values()), 3),
        median_cpu_ratio_of_a_task=round(statistics.median(cpu_ratios.values()), 3),
        load_before=by_wall.load,
    )
    assert not by_wall.reasons
