"""The report of a run: gathered, drawn, looked at and written, in a process that has imported everything; aim: 10 s.

`REPORT_RUN=FOLDER REPORT_CACHE=FOLDER pytest tests/speed/test_report_speed.py --benchmark-only` takes a run of yours
with its cache, and the aim is that of the suite `quick`; without them the suite `smoke` is run first.
"""

import os
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.registry import Registry
from bench.report_commands import made_report
from bench.runner import run
from bench.stages import StartWorkshop
from bench.suites import load_suite
from results.report import page


@pytest.fixture(name="places", scope="module")
def run_and_cache(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    if "REPORT_RUN" in os.environ:
        return Path(os.environ["REPORT_RUN"]), Path(os.environ["REPORT_CACHE"])
    root = tmp_path_factory.mktemp("report")
    run(load_suite("smoke", Registry()), root / "run", StartWorkshop((), root / "cache"), n_lanes=0, is_quiet=True)
    return root / "run", root / "cache"


@pytest.mark.benchmark(max_time=0.1, min_rounds=2)
def test_report(benchmark: BenchmarkFixture, places: tuple[Path, Path]) -> None:
    folder, cache = places
    made = benchmark(lambda: made_report(folder, None, None, 20.0, (), cache, is_quiet=True))
    n_units, n_pairs = sum(len(one.units) for one in made.views.explored), len(made.views.judged)
    text = page(made)
    benchmark.extra_info |= {"run": made.suite, "bytes": len(text.encode()), "units": n_units, "pairs": n_pairs}
    assert len(text) <= 20e6
    assert n_units
