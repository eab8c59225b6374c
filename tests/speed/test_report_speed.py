"""The report of a run: gathered, drawn and written, as the command does it in a process that has imported everything.

`REPORT_RUN=FOLDER REPORT_CACHE=FOLDER pytest tests/speed/test_report_speed.py --benchmark-only` takes a run of yours
with its cache; without them it is the committed run `quick`, of which there is no cache, so no unit is looked at.
"""

import os
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.report_commands import made_report
from results.report import page

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.benchmark(max_time=0.1, min_rounds=2)
def test_report(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    run = Path(os.environ.get("REPORT_RUN", ROOT / "results/quick"))
    cache = Path(os.environ.get("REPORT_CACHE", tmp_path / "none"))

    def made() -> str:
        return page(made_report(run, None, None, 20.0, (), cache, is_quiet=True))

    text = benchmark(made)
    benchmark.extra_info |= {"run": run.name, "bytes": len(text.encode()), "has_cache": cache.exists()}
    assert len(text) <= 20e6
