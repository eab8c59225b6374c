"""All figures of the run `full`: two sites, sixteen methods, five seeds."""

from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.figure_commands import figures_of, material_of
from results.figures import FORMATS, drawn

FULL = Path(__file__).resolve().parent.parent.parent / "results" / "full"


@pytest.mark.parametrize("format", FORMATS)
def test_all_figures_of_full(benchmark: BenchmarkFixture, format: str) -> None:
    names, material = figures_of(FULL), material_of(FULL)

    def all_of_them() -> int:
        return sum(len(drawn(name, **material, format=format)) for name in names)

    size = benchmark.pedantic(all_of_them, rounds=3, warmup_rounds=1)
    benchmark.extra_info |= {"figures": len(names), "records": len(material["records"]), "bytes": size}
