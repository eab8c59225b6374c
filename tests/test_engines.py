"""Engines: the same records wherever a suite is worked, workers that die, and a run that is killed and goes on."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench import UsageError, evaluation
from bench.clusters import begin, compare, connected, room_of
from bench.estimate import makespan, shared_out
from bench.executors import Cluster, library
from bench.lanes import Came, Failure, Report, Task
from bench.manifest import read_manifest
from bench.measuring import LEAST_UNITS, Found, Measurement, Skipped, share_of
from bench.outcomes import Outcomes, evaluated
from bench.processes import VISIBLE, run_tasks
from bench.registry import Registry
from bench.runner import run
from bench.stages import StartWorkshop
from bench.suites import load_suite
from bench.sweeps import Trial
from bench.tasks import tasks_for
from metrics.catalogue import Value
from results.ledger import read
from results.records import without_times

ROOT = Path(__file__).resolve().parent.parent

SIX = """
description = "plumbing test: six cells"
token_seeds = [42]
init_seeds = [42]

[[sites]]
label = "shapes"
dataset = { name = "shapes", n_train = 300, n_test = 100 }
backbone = { name = "embedded_vit", width = 32, depth = 2, epochs = 1 }
module = "blocks.1.mlp.fc2"

[[methods]]
name = "backbone"

[[methods]]
name = "random_partition"

[[methods]]
name = "pca"

[[methods]]
name = "random_directions"

[[methods]]
name = "topk_sae"
k = 4
epochs = 1

[[methods]]
name = "elude"
min_cluster_size = 4
"""

DYING = '''
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from methods.elude import ELUDe

HERE = Path(__file__).resolve().parent

@dataclass(frozen=True)
class Dying(ELUDe):
    """ELUDe, whose process is killed the first time that it comes to unit 20."""

    def found_in(self, arithmetic, unit, values, k, scratch):
        with (HERE / "units.log").open("a") as log:
            log.write(f"{unit}\\\\n")
        if unit == 20 and not (HERE / "died").exists():
            (HERE / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().found_in(arithmetic, unit, values, k, scratch)

METHODS = {"dying": Dying}
'''.replace("\\\\n", "\\n")

KILLED = """
import os, signal, sys
from pathlib import Path
from results.ledger import Ledger

def main():
    from bench.registry import Registry
    from bench.runner import run
    from bench.stages import StartWorkshop
    from bench.suites import load_suite

    whole, n = Ledger.append_cell, []

    def append_cell(ledger, rows):
        if len(n) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        n.append(rows)
        whole(ledger, rows)

    Ledger.append_cell = append_cell
    suite, folder, cache = sys.argv[1:]
    run(load_suite(suite, Registry()), Path(folder), StartWorkshop((), Path(cache)), n_lanes=1, is_quiet=True)

if __name__ == "__main__":
    main()
"""


@pytest.fixture(name="suite", scope="module")
def suite_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("suite") / "six.toml"
    path.write_text(SIX)
    return path


@pytest.fixture(name="alone", scope="module")
def run_in_this_process(suite: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without lanes, nothing shared out."""
    return worked(suite, tmp_path_factory.mktemp("alone"), n_lanes=0)


@pytest.fixture(name="ray", scope="module")
def two_workers() -> Iterator[Any]:
    """A cluster of two workers on this machine, which all tests share."""
    ray = library()
    begin(ray, Cluster(n_workers=2))
    yield ray
    ray.shutdown()


def worked(suite: Path, folder: Path, *, plugins: tuple[Path, ...] = (), **how: Any) -> Path:
    """A run of a suite with a cache of its own, quiet."""
    start = StartWorkshop(plugins, folder / "cache")
    states = run(load_suite(str(suite), Registry(plugins)), folder / "run", start, is_quiet=True, **how)
    assert set(states.values()) == {"complete"}
    assert not (folder / "run" / "outcomes").exists()
    return folder


def rows_of(folder: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """The records of a run by cell and metric, each of which is there once; times and what the checkout is aside."""
    records = read(folder / "run" / "records.jsonl")
    assert set(Counter((one.cell, one.metric) for one in records).values()) == {1}
    rows = {}
    for record in records:
        row = without_times(record) | {"dirty": None}
        row["notes"] = {name: value for name, value in record.notes.items() if name != "decomposition_dirty"}
        rows[record.cell, record.metric] = row
    return rows


def found_in(folder: Path) -> set[str]:
    """The content hashes of the tensors of all decompositions."""
    entries = (folder / "cache" / "decompositions").iterdir()
    files = [read_manifest(entry)["files"] for entry in entries]
    return {facts["sha256"] for one in files for name, facts in one.items() if name.endswith(".safetensors")}


def test_local_lanes_and_ray_give_the_records_of_one_process(
    suite: Path, alone: Path, tmp_path: Path, ray: Any
) -> None:
    local = worked(suite, tmp_path / "local", n_lanes=2)
    there = worked(suite, tmp_path / "ray", cluster=Cluster(n_workers=2))
    assert len(load_suite(str(suite), Registry()).cells) == 6
    assert rows_of(local) == rows_of(alone)
    assert rows_of(there) == rows_of(alone)
    assert found_in(local) == found_in(there) == found_in(alone)
    for folder in (local, there):
        took = json.loads((folder / "run" / "run.json").read_text())["took"]
        assert (took["workers"], took["tasks"]) == (2, 1 + 1 + 6 + 2 + 1)


def test_a_worker_killed_in_a_share_of_the_units_goes_on_at_the_next(
    suite: Path, alone: Path, tmp_path: Path, ray: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    plugin = tmp_path / "dying.py"
    plugin.write_text(DYING)
    text = SIX[: SIX.index("[[methods]]")] + '[[methods]]\nname = "dying"\nmin_cluster_size = 4\n'
    (tmp_path / "dying.toml").write_text(text)
    start = StartWorkshop((plugin,), tmp_path / "cache")
    dying = load_suite(str(tmp_path / "dying.toml"), Registry((plugin,)))
    states = run(dying, tmp_path / "run", start, cluster=Cluster(n_workers=2))
    assert states == {"shapes/dying/t42/i42": "complete"}
    said = capsys.readouterr().err
    assert "share 2 of 2: the worker process died (" in said
    assert said.count("it is done again") == 1
    looked_at = Counter((tmp_path / "units.log").read_text().split())
    assert looked_at == {str(unit): 2 if unit == 20 else 1 for unit in range(32)}
    assert found_in(tmp_path) < found_in(alone)
    names = {metric for _, metric in rows_of(tmp_path)}
    assert names == {metric for _, metric in rows_of(alone)}


def test_a_run_killed_among_its_records_loses_and_doubles_nothing(
    suite: Path, alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "killed.py").write_text(KILLED)
    words = [sys.executable, *map(str, (tmp_path / "killed.py", suite, tmp_path / "run", alone / "cache"))]
    done = subprocess.run(words, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)
    assert done.returncode == -signal.SIGKILL
    recorded = {record.cell for record in read(tmp_path / "run" / "records.jsonl")}
    assert len(recorded) == 2
    left = {path.name for path in (tmp_path / "run" / "outcomes").glob("evaluated *.json")}
    cells = load_suite(str(suite), Registry()).cells
    assert left == {f"{evaluated(cell.id)}.json" for cell in cells if cell.id not in recorded}
    monkeypatch.setattr(evaluation, "evaluate", lambda *_, **__: pytest.fail("what was measured is measured again"))
    start = StartWorkshop((), alone / "cache")
    states = run(load_suite(str(suite), Registry()), tmp_path / "run", start, n_lanes=1)
    assert set(states.values()) == {"complete"}
    assert "taken up: 4 cells that were measured when the last command was gone" in capsys.readouterr().err
    assert rows_of(tmp_path) == rows_of(alone)


def test_a_decomposition_that_was_found_keeps_its_seconds_when_the_run_is_killed(
    suite: Path, alone: Path, tmp_path: Path
) -> None:
    """The cell's time is that of its decomposition and its evaluation, whoever asked for which."""
    loaded = load_suite(str(suite), Registry())
    (cell,) = [one for one in loaded.cells if one.label == "elude"]
    Outcomes(tmp_path / "run").put(cell.id, Found(1234.0, 2**50))
    (tmp_path / "run" / "run.json").write_text(json.dumps({"schema": 1, "suite": loaded.name}))
    run(loaded, tmp_path / "run", StartWorkshop((), alone / "cache"), only=["label=elude"], n_lanes=0, is_quiet=True)
    record = read(tmp_path / "run" / "records.jsonl")[-1]
    assert record.seconds is not None
    assert record.seconds > 1234
    assert record.peak_bytes == 2**50
    assert not (tmp_path / "run" / "outcomes").exists()


TRIAL = Trial({"k": 4, "rate": 0.1}, 0.25, 3.5, None, 1 / 3, True, 100, None)
MEASURED = Measurement(
    {"r2": Value(1 / 3, 0.1, 0.5, "wilson over images", 7, 2, "few"), "ms": Value.null("no labels")},
    {"k": 4, "mode": "leaf", "deep": {"a": [1, 2.5]}},
    {"loss": 0.1 + 0.2, "clusters": 7, "whole": True, "is": "found"},
    12.5,
    None,
    {"commit": None, "dirty": False, "device": "a processor"},
)


@pytest.mark.parametrize("outcome", [Found(0.1, 2**40), Found(1.0, None), Skipped("no labels"), MEASURED, [TRIAL] * 2])
def test_outcomes_come_back_as_they_were_put(outcome: Any, tmp_path: Path) -> None:
    kept = Outcomes(tmp_path)
    kept.put("sweep 0123", outcome)
    assert kept.get("sweep 0123") == outcome
    assert kept.get("sweep 01234") is None
    kept.end(["sweep 0123"])
    assert list(tmp_path.iterdir()) == []


def test_of_an_evaluation_each_cell_is_put_by_apart_and_failures_are_not(tmp_path: Path) -> None:
    kept = Outcomes(tmp_path)
    kept.put("evaluation abc", {"a": MEASURED, "b": Failure("no"), "c": Skipped("none")})
    kept.put("find", Failure("no"))
    kept.put("backbone", None)
    kept.put("what no record holds", [object()])
    assert {path.stem for path in (tmp_path / "outcomes").iterdir()} == {"evaluated a", "evaluated c"}
    assert kept.get(evaluated("a")) == MEASURED


def test_what_other_versions_found_or_is_torn_is_not_taken_up(tmp_path: Path) -> None:
    kept = Outcomes(tmp_path)
    kept.put("a", Found(1.0, None))
    path = kept.path("a")
    whole = json.loads(path.read_text())
    for change in ({"versions": whole["versions"] | {"torch": "0.1"}}, {"of": "b"}, {"outcome": {"is": "no"}}):
        path.write_text(json.dumps(whole | change))
        assert kept.get("a") is None
    path.write_text(json.dumps(whole)[:-9])
    assert kept.get("a") is None
    path.write_text(json.dumps(whole))
    assert kept.get("a") == Found(1.0, None)


@pytest.mark.parametrize("n_units", [1, 31, 32, 33, 100, 768])
@pytest.mark.parametrize("n_shares", [2, 3, 7])
def test_shares_are_all_units_once_or_none_where_they_would_be_small(n_units: int, n_shares: int) -> None:
    shares = [share_of(n_units, index, n_shares) for index in range(n_shares)]
    units = [unit for share in shares for unit in share]
    assert units == (list(range(n_units)) if n_units >= 2 * LEAST_UNITS else [])
    assert all(len(share) >= LEAST_UNITS for share in shares if share)


def test_a_decomposition_in_shares_is_expected_to_take_its_seconds_over_all_workers(suite: Path) -> None:
    cells = load_suite(str(suite), Registry()).cells
    (elude,) = [cell for cell in cells if cell.label == "elude"]
    seconds = {elude.id: 60.0}
    for n_workers, expected in ((1, 60.0), (2, 30.0), (4, 15.0)):
        tasks = tasks_for(cells, (), n_workers)
        assert sum(shared_out(tasks, seconds).values()) == pytest.approx(60)
        assert makespan(tasks, shared_out(tasks, seconds), n_workers) == pytest.approx(expected)


def start_that_looks(report: Report, say: Callable[[str], None]) -> Callable[[Any, Came], Any]:
    """A worker that tells what its process was started with."""
    first = Path("/proc/self/environ").read_bytes().split(b"\0")
    seen = [one.decode() for one in first if one.startswith(VISIBLE.encode())]
    return lambda payload, came: (os.getpid(), seen, os.environ[VISIBLE])


class Heard:
    """Keeps what comes of tasks."""

    def __init__(self) -> None:
        self.outcomes: dict[str, Any] = {}

    def progressed(self, task: Task, what: str, done: int, total: int) -> None: ...

    def said(self, text: str) -> None: ...

    def waited(self) -> None: ...

    def finished(self, task: Task, outcome: Any) -> None:
        self.outcomes[task.id] = outcome

    def divided(self, task: Task, reason: str) -> None: ...


def test_a_lane_sees_its_own_gpu_before_anything_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VISIBLE, "7")
    run_tasks([Task("a", "a", 0), Task("b", "b", 0)], 1, start_that_looks, heard := Heard(), gpus=("2", "GPU-5f"))
    assert os.environ[VISIBLE] == "7"
    places = {pid: (seen, now) for pid, seen, now in heard.outcomes.values()}
    assert sorted(now for _, now in places.values()) == ["2", "GPU-5f"]
    assert all(seen == [f"{VISIBLE}={now}"] for seen, now in places.values())


def test_a_cluster_that_does_not_fit_is_told_before_anything_is_done(ray: Any, tmp_path: Path) -> None:
    with connected(Cluster(n_workers=2), (tmp_path,), print) as n_workers:
        assert n_workers == 2
    assert list(tmp_path.iterdir()) == []
    said: list[str] = []
    with connected(Cluster(n_workers=5), (tmp_path,), said.append) as n_workers:
        assert n_workers == 2
    assert said == ["the cluster has room for 2 workers of 5"]
    crowded = Cluster(n_threads=64, gpus_per_worker=1.0)
    with (
        pytest.raises(UsageError, match="no node has 64 processors and 1 GPUs for a worker"),
        connected(crowded, (tmp_path,), print),
    ):
        pass
    versions = {"torch": "0.1"}
    for answer, message in (
        (({"/a/mark": None}, {}), "node n does not see /a; expected a folder that all nodes share"),
        (({"/a/mark": "text"}, versions), "node n has torch 0.1; expected .*, as here"),
    ):
        with pytest.raises(UsageError, match=message):
            compare(ray, "n", ray.put(answer), {"/a/mark": "text"})
    with pytest.raises(UsageError, match="--workers: got 0; expected at least 1"):
        Cluster(n_workers=0)


def test_room_is_counted_node_by_node() -> None:
    nodes = [
        {"Alive": True, "Resources": {"CPU": 15.0, "GPU": 2.0}},
        {"Alive": True, "Resources": {"CPU": 3.0, "GPU": 8.0}},
        {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}},
        {"Alive": True, "Resources": {}},
    ]
    assert room_of(nodes, Cluster()) == 18
    assert room_of(nodes, Cluster(n_threads=4)) == 3
    assert room_of(nodes, Cluster(n_threads=2, gpus_per_worker=1.0)) == 3
    assert room_of(nodes, Cluster(gpus_per_worker=0.5)) == 4 + 3


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"--engine: got ray, which is not installed; .*install eludebench\[ray\]"):
        library()
