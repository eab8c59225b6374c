"""Tables of 20,000 records, and 40,500 stored replies to a ranking in the ledger; the aim is 2 s for all tables.

`python -m pytest tests/speed/test_tables_speed.py --benchmark-only`
"""

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from judges.reading import read as said
from results.layout import Layout, Site
from results.ledger import read
from results.records import Record, latest, to_line
from results.sweeps import SweepSpec
from results.tables import FORMATS, TABLES, render

METHODS = (*(f"m{index}" for index in range(17)), "backbone", "elude", "pure")
SEEDS = (42, 123, 999)
N_SITES = 8
COLUMNS = list(
    dict.fromkeys(column for spec in TABLES.values() if not isinstance(spec, SweepSpec) for column in spec.columns)
)
METRICS = {column.metric: column.unit for column in COLUMNS}
PROVENANCE: dict[str, Any] = {
    "suite": "speed", "dataset": "shapes", "backbone": "vit", "module": "fc", "commit": "c" * 40, "dirty": False,
    "versions": dict.fromkeys(("torch", "timm", "numpy", "hdbscan", "overcomplete", "python"), "1.0"),
    "device": "cpu", "time": "2025-11-21T05:35:00+00:00", "options": {f"option_{at}": at for at in range(10)},
    "notes": {f"note_{at}": "x" * 20 for at in range(10)},
}  # fmt: skip


def records_of(layout: Layout) -> Iterator[Record]:
    """A value of every metric in every cell, and what closes it."""
    rng = random.Random(0)
    for (site, label, token_seed, init_seed), cell in layout.cells.items():
        own: dict[str, Any] = {"cell": cell, "site": site, "label": label, "method": label}
        own |= {"token_seed": token_seed, "init_seed": init_seed, **PROVENANCE}
        status = Record(kind="cell", metric="status", text="complete", **own)
        for metric, unit in METRICS.items():
            value = 100 * rng.random()
            yield replace(
                status, kind="value", text=None, metric=metric, unit=unit, value=value, low=value - 1, high=value + 1,
                interval="bootstrap", n=100,
            )  # fmt: skip
        yield status


@pytest.fixture(scope="module")
def layout() -> Layout:
    sites = tuple(Site(f"s{index}", "shapes", "vit", "fc") for index in range(N_SITES))
    return Layout(
        sites=sites,
        labels=METHODS,
        token_seeds=SEEDS,
        init_seeds=(42,),
        cells={
            (site.label, label, seed, 42): f"{site.label} {label} {seed}"
            for site in sites
            for label in METHODS
            for seed in SEEDS
        },
        references=frozenset({"backbone"}),
    )


@pytest.fixture(scope="module")
def records(layout: Layout) -> list[Record]:
    """The first 20,000, cell by cell."""
    return list(records_of(layout))[:20_000]


def test_all_tables_of_20000_records(benchmark: BenchmarkFixture, layout: Layout, records: list[Record]) -> None:
    specs = [spec for spec in TABLES.values() if not isinstance(spec, SweepSpec)]
    benchmark.extra_info |= {"records": len(records), "tables": len(specs), "format": "md", "aim_seconds": 2}
    benchmark.pedantic(
        lambda: [render(spec, records, layout=layout, format="md") for spec in specs], rounds=3, iterations=1
    )


def test_reading_20000_records(benchmark: BenchmarkFixture, records: list[Record], tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text("".join(to_line(record) + "\n" for record in records), encoding="utf-8")
    benchmark.extra_info |= {"records": len(records), "megabytes": round(path.stat().st_size / 1e6, 1)}
    benchmark.pedantic(lambda: latest(read(path)), rounds=3, iterations=1)


@pytest.mark.parametrize("format", FORMATS)
def test_the_leaderboard_of_20000_records(
    benchmark: BenchmarkFixture, layout: Layout, records: list[Record], format: str
) -> None:
    benchmark.extra_info |= {"records": len(records), "format": format}
    benchmark.pedantic(
        lambda: render(TABLES["leaderboard"], records, layout=layout, format=format), rounds=3, iterations=1
    )


def test_reading_40500_replies(benchmark: BenchmarkFixture) -> None:
    """What stands before ranking and agreement, which `test_ranking_speed` times."""
    texts = [json.dumps({"reasoning_a": f"grid {at} " * 12, "reasoning_b": "dogs " * 40, "answer": "AB"[at % 2]})
             for at in range(40_500)]  # fmt: skip
    benchmark.extra_info |= {"replies": len(texts)}
    found = benchmark.pedantic(lambda: [said(text).choice for text in texts], rounds=3, iterations=1)
    assert found[:2] == ["A", "B"]
