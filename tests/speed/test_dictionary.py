"""Dictionaries of 768 units on one thread: what matching two of them takes, and the geometry of one.

`extra_info` has the most memory the process held; each case has a process of its own.
By default up to 6,144 atoms; ELUDEBENCH_ATOMS=24576 asks for that many (minutes, and 12 GB for the dense solver).
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

ROOT = Path(__file__).resolve().parent.parent.parent
ATOMS = [int(text) for text in os.environ.get("ELUDEBENCH_ATOMS", "3072,6144").split(",")]
SCRIPT = """
import json, resource, sys, time
import torch
from metrics import geometry, matching
n, kind, what = int(sys.argv[1]), sys.argv[2], sys.argv[3]
torch.set_num_threads(1)
torch.manual_seed(0)
a, b = torch.randn(n, 768), torch.randn(n, 768)
if kind == "noisy":
    b += a[torch.randperm(n)]
a, b = (torch.nn.functional.normalize(rows, dim=1) for rows in (a, b))
torch.mm(a[:64], b.T)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
begin, begin_cpu = time.perf_counter(), time.process_time()
if what == "geometry":
    got = {name: value.value for name, value in geometry.described(a, "output").items()}
else:
    matching.LARGE = 1 if what == "proven" else n + 1
    rows, columns = matching.best_matching(a, b)
    got = float((a[torch.from_numpy(rows)] * b[torch.from_numpy(columns)]).double().sum(dim=1).mean())
seconds = {"seconds": round(time.perf_counter() - begin, 1), "cpu_seconds": round(time.process_time() - begin_cpu, 1)}
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({**seconds, "gib_before": before / 2**20, "gib": after / 2**20, "got": got}))
"""


@pytest.mark.parametrize("n_atoms", ATOMS)
@pytest.mark.parametrize("what", ["random dense", "random proven", "noisy dense", "noisy proven", "random geometry"])
def test_dictionary(benchmark: BenchmarkFixture, what: str, n_atoms: int) -> None:
    """`extra_info["seconds"]` leaves out the start of the process; `cpu_seconds` what others took of the machine."""
    command = [sys.executable, "-c", SCRIPT, str(n_atoms), *what.split()]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def run() -> str:
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env=environment)
        return done.stdout

    benchmark.extra_info.update(json.loads(benchmark.pedantic(run, rounds=1)))
    assert benchmark.extra_info["seconds"] >= 0
