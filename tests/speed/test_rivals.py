"""Exact clustering beside the others, each in a process of its own, one after the other in the same rounds.

`extra_info` has, per rival, the smallest seconds, the bytes held at the peak, and how many times ours that is. An
exact rival is left out where it would take minutes; fast_hdbscan is approximate in more than 30 dimensions.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

SCRIPT = Path(__file__).parent / "rivals.py"
ROUNDS = 3
LARGEST = {"hdbscan default": 5000, "fast_hdbscan": 20000, "hdbscan generic": 20000, "sklearn brute": 20000}


def measured(name: str, n: int, d: int) -> dict[str, Any] | None:
    """What one process says; None where it died, as hdbscan's does in OpenBLAS at 20,000 points of some builds."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, SCRIPT.parents[1:3]))}
    words = [sys.executable, str(SCRIPT), name, str(n), str(d)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        return None
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("d", [256, 3072])
@pytest.mark.parametrize("n", [2000, 5000, 10000, 20000])
def test_exact_clustering(benchmark: BenchmarkFixture, n: int, d: int) -> None:
    rounds = ROUNDS if n <= 5000 else 1
    rivals = ["exact", *(name for name, most in LARGEST.items() if n <= most)]
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in rivals}

    def one_round() -> None:
        for name in rivals:
            row = measured(name, n, d)
            found[name] += [] if row is None else [row]

    benchmark.pedantic(one_round, rounds=rounds)
    best = {
        name: {key: min(row[key] for row in rows) for key in ("seconds", "grown_bytes")}
        for name, rows in found.items()
        if rows
    }
    benchmark.extra_info["died"] = [name for name, rows in found.items() if not rows]
    for name, row in best.items():
        benchmark.extra_info[name] = {
            **row,
            "times_our_seconds": round(row["seconds"] / best["exact"]["seconds"], 2),
            "times_our_bytes": round(row["grown_bytes"] / best["exact"]["grown_bytes"], 2),
        }
    assert len({rows[0]["clusters"] for name, rows in found.items() if rows and name != "fast_hdbscan"}) == 1
