"""Whole runs through the command line: what a user types, what is printed, what is left on disk."""

import contextlib
import dataclasses
import importlib.metadata
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import pytest

from bench import template
from bench.cli import main
from bench.registry import Registry
from results.ledger import Ledger, read
from results.records import without_times

ROOT = Path(__file__).resolve().parent.parent

FOUR = str(ROOT / "tests" / "four.toml")

FAILING = '''
from dataclasses import dataclass, replace
from methods.controls import Backbone

@dataclass(frozen=True)
class Breaks(Backbone):
    """Fails while it decomposes."""

    def decompose(self, activations, *, seed):
        raise RuntimeError("this method always breaks")

@dataclass(frozen=True)
class NaNs(Backbone):
    """Notes something that no record can hold."""

    def decompose(self, activations, *, seed):
        found = super().decompose(activations, seed=seed)
        return replace(found, notes={"loss": float("nan")})

@dataclass(frozen=True)
class Overflows(Backbone):
    """Rebuilds nothing that is finite."""

    def decode(self, decomposition, codes):
        return codes * float("inf")

METHODS = {"breaks": Breaks, "nans": NaNs, "overflows": Overflows}
'''


@dataclasses.dataclass(frozen=True)
class Shell:
    """Runs the program with a cache of its own."""

    cache: Path
    folder: Path

    def __call__(self, *words: str, code: int = 0) -> tuple[str, str]:
        done = subprocess.run(self.command(*words), capture_output=True, text=True, cwd=self.folder, env=self.env())
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout, done.stderr

    def here(self, *words: str, code: int = 0) -> tuple[str, str]:
        """The same in this process, which has imported everything already: for what needs no process of its own."""
        out, err = io.StringIO(), io.StringIO()
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            contextlib.chdir(self.folder),
            mock.patch.dict(os.environ, self.env()),
            mock.patch.object(sys, "argv", ["eludebench", *words]),
            pytest.raises(SystemExit) as done,
        ):
            main()
        assert (done.value.code or 0) == code, out.getvalue() + err.getvalue()
        return out.getvalue(), err.getvalue()

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "bench", *words]

    def env(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(ROOT), "ELUDEBENCH_CACHE": str(self.cache), "COLUMNS": "200"}


@pytest.fixture(name="cache", scope="module")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(name="shell")
def some_shell(cache: Path, tmp_path: Path) -> Shell:
    return Shell(cache, tmp_path)


@pytest.fixture(name="finished", scope="module")
def finished_run(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed run."""
    folder = tmp_path_factory.mktemp("finished")
    Shell(cache, folder)("run", FOUR, "--out", "run", "--quiet")
    return folder / "run"


def table_of(folder: Path) -> str:
    return (folder / "leaderboard.md").read_text(encoding="utf-8")


def rows_of(folder: Path) -> list[str]:
    return sorted(json.dumps(without_times(record), sort_keys=True) for record in read(folder / "records.jsonl"))


def test_every_method_has_its_row(tmp_path: Path) -> None:
    out, _ = Shell(tmp_path / "cache", tmp_path)("run", "smoke", "--out", "run")
    assert "16 of 16 cells complete" in out
    rows = [line.split("|")[2].strip(" *") for line in table_of(tmp_path / "run").splitlines() if line.startswith("|")]
    assert sorted(rows[2:]) == sorted(set(Registry().tables["methods"]) - {"checkpoint", "planted_truth"})
    out, _ = Shell(tmp_path / "cache", tmp_path).here("table", "sweep", "--run", "run")
    assert "vanilla_sae" in out


def test_a_run_prints_its_table_and_where_it_is(shell: Shell, finished: Path) -> None:
    out, err = shell.here("run", FOUR, "--out", str(finished), "--workers", "0")
    assert table_of(finished) in out
    assert f"4 of 4 cells complete; table: {finished / 'leaderboard.md'}" in out
    assert "complete already: 4" in err
    table, _ = shell.here("table", "leaderboard", "--run", str(finished))
    assert table == table_of(finished)
    lines = [line for line in table.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 4
    assert "—" not in "".join(lines)


def test_every_record_says_where_it_comes_from(finished: Path) -> None:
    records = read(finished / "records.jsonl")
    assert {record.label for record in records} == {"backbone", "random_partition", "topk_sae", "elude"}
    for record in records:
        assert record.versions["torch"]
        assert record.device
        assert record.seconds is not None
        assert record.site_options["backbone"]["width"] == 32
        assert record.site_options["tokens_per_image"] == 2
        assert record.notes["backbone_fingerprint"]
        assert record.notes["decomposition_device"] == record.device
        assert record.kind == "cell" or record.value is not None or record.reason
    elude = {record.metric: record for record in records if record.label == "elude"}
    assert elude["r2"].value == pytest.approx(100, abs=1e-8)
    assert elude["agreement"].value == 100
    assert elude["max_logit_difference"].value is not None
    assert 0 < elude["max_logit_difference"].value < 1e-4
    assert elude["ms_score"].low is not None
    assert elude["ms_score"].low < float(elude["ms_score"].value or 0) < float(elude["ms_score"].high or 0)


def test_the_same_seeds_give_the_same_records(shell: Shell, finished: Path, tmp_path: Path) -> None:
    fresh = Shell(tmp_path / "another cache", tmp_path)
    fresh.here("run", FOUR, "--out", "again", "--quiet", "--workers", "0")
    assert rows_of(tmp_path / "again") == rows_of(finished)
    assert table_of(tmp_path / "again") == table_of(finished)


@pytest.mark.parametrize("after", ["cache/backbones", "cache/decompositions", "run/records.jsonl"])
def test_a_killed_run_goes_on_to_the_same_table(after: str, finished: Path, tmp_path: Path) -> None:
    shell = Shell(tmp_path / "cache", tmp_path)
    process = subprocess.Popen(
        shell.command("run", FOUR, "--out", "run", "--quiet"), cwd=tmp_path, env=shell.env(), start_new_session=True
    )
    deadline = time.monotonic() + 120
    while not filled(tmp_path / after) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)
    assert process.poll() is None
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    shell.here("run", FOUR, "--out", "run", "--quiet", "--workers", "0")
    assert table_of(tmp_path / "run") == table_of(finished)
    assert rows_of(tmp_path / "run") == rows_of(finished)


def filled(path: Path) -> bool:
    """Whether a folder has an entry, or a file a byte."""
    return any(path.iterdir()) if path.is_dir() else path.exists() and path.stat().st_size > 0


def test_control_c_ends_with_130_and_leaves_no_worker(tmp_path: Path) -> None:
    shell = Shell(tmp_path / "cache", tmp_path)
    process = subprocess.Popen(
        shell.command("run", FOUR, "--out", "run"),
        cwd=tmp_path, env=shell.env(), stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not (tmp_path / "run" / "run.json").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "error: interrupted; finished cells are kept" in err
    assert "Traceback" not in err
    deadline = time.monotonic() + 10
    while alive(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert alive(process.pid) == []


def alive(group: int) -> list[str]:
    """What still runs of a process group; zombies that nobody has collected do not."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            name, _, rest = path.read_text().rpartition(")")
            state, _, pgrp = rest.split()[:3]
            if pgrp == str(group) and state not in "ZX":
                found.append(name)
    return found


def test_a_failing_cell_is_a_record_and_the_others_go_on(shell: Shell, tmp_path: Path) -> None:
    plugin = tmp_path / "breaks.py"
    plugin.write_text(FAILING)
    words = ("run", FOUR, "--out", "run", "--plugin", str(plugin), "--workers", "0")
    out, err = shell.here(*words, code=3)
    assert "4 of 7 cells complete" in out
    assert "error: failed: shapes/breaks/t42/i42, shapes/nans/t42/i42, shapes/overflows/t42/i42" in err
    assert "failed: ValueError: notes.loss: got nan; expected a finite number" in out
    assert "failed: UsageError: method: Overflows gave outputs that are not finite, for " in out
    closing = next(record for record in read(tmp_path / "run" / "records.jsonl") if record.label == "breaks")
    assert (closing.text, closing.reason) == ("failed", "RuntimeError: this method always breaks")
    assert "raise RuntimeError" in str(closing.traceback)
    assert "failed: RuntimeError: this method always breaks" in out
    status, _ = shell.here("status", "--run", "run")
    assert "four: 4 complete, 3 failed" in status
    _, err = shell.here(*words, code=3)
    assert "complete already: 4" in err
    out, _ = shell.here("run", FOUR, "--out", "run", "--workers", "0")
    assert "4 of 4 cells complete" in out
    assert "breaks" not in out


def test_a_new_method_file_passes_and_gets_its_row(shell: Shell, tmp_path: Path) -> None:
    out, _ = shell.here("new-method", "my_method")
    assert "next: eludebench check-method my_method --plugin my_method.py" in out
    text = (tmp_path / "my_method.py").read_text()
    assert len(text.splitlines()) <= 40
    assert text == template.method_file("my_method", "my_method.py")
    out, _ = shell.here("check-method", "my_method", "--plugin", "my_method.py")
    assert "BROKEN" not in out
    assert "holds      seed_decides" in out
    out, err = shell.here("run", FOUR, "--out", "run", "--plugin", "my_method.py", "--workers", "0")
    assert "| my_method" in out
    assert "5 of 5 cells complete" in out
    before = read(tmp_path / "run" / "records.jsonl")
    shell.here("run", FOUR, "--out", "run", "--workers", "0")
    assert read(tmp_path / "run" / "records.jsonl") == before
    _, err = shell.here("new-method", "my_method", code=2)
    assert "error: --file: my_method.py exists already" in err
    _, err = shell.here("new-method", "elude", code=2)
    assert "error: NAME: got 'elude', which is a method already" in err
    _, err = shell.here("new-method", "mine", "--file", "/nowhere/mine.py", code=2)
    assert "error: --file: cannot write /nowhere/mine.py (No such file or directory)" in err
    _, err = shell.here("new-method", "My-Method", code=2)
    assert "error: NAME: got 'My-Method'; expected a lower-case Python name" in err


def test_only_runs_a_part_and_the_rest_waits(shell: Shell, tmp_path: Path) -> None:
    out, _ = shell.here("run", FOUR, "--out", "run", "--only", "method=backbone", "--workers", "0")
    assert "1 of 1 cells complete" in out
    assert "not run yet" in out
    status, _ = shell.here("status", "--run", "run", "--json")
    assert json.loads(status)["counts"] == {"complete": 1, "to do": 3}
    plan, _ = shell.here("plan", FOUR, "--out", "run", "--no-estimate")
    assert "four: 1 complete, 3 to do" in plan


def test_scripts_get_json_and_quiet(shell: Shell, finished: Path) -> None:
    out, err = shell.here("run", FOUR, "--out", str(finished), "--json", "--workers", "0")
    assert set(json.loads(out)["cells"].values()) == {"complete"}
    assert err == ""
    assert shell.here("run", FOUR, "--out", str(finished), "--quiet", "--workers", "0") == ("", "")
    methods = json.loads(shell.here("list", "methods", "--json")[0])
    assert "elude" in {row["name"] for row in methods}
    csv, _ = shell.here("table", "leaderboard", "--run", str(finished), "--format", "csv")
    assert csv == (finished / "leaderboard.csv").read_text()


def test_a_damaged_cache_is_said_and_mended(finished: Path, tmp_path: Path) -> None:
    shell = Shell(tmp_path / "cache", tmp_path)
    shell.here("run", FOUR, "--out", "one", "--only", "method=backbone", "--quiet", "--workers", "0")
    entry = next((tmp_path / "cache" / "activations").iterdir()) / "outputs-00000.npy"
    entry.write_bytes(entry.read_bytes()[:-4] + b"\0\0\0\1")
    _, err = shell.here("run", FOUR, "--out", "run", "--workers", "0")
    assert "outputs-00000.npy does not match its SHA-256; it is thrown away and built again" in err
    assert table_of(tmp_path / "run") == table_of(finished)


def test_a_second_run_in_the_folder_is_refused_and_changes_nothing(shell: Shell, finished: Path) -> None:
    plan = (finished / "run.json").read_bytes()
    with Ledger(finished / "records.jsonl"):
        _, err = shell.here("run", FOUR, "--out", str(finished), "--only", "method=elude", "--workers", "0", code=1)
    assert err.startswith("error: ")
    assert "records.jsonl" in err
    assert len(err.splitlines()) == 1
    assert (finished / "run.json").read_bytes() == plan


def test_a_folder_of_a_run_killed_in_its_first_second_is_taken_up(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json.partial").write_text("{")
    (tmp_path / "run" / "records.jsonl").write_text("")
    out, _ = shell.here("run", FOUR, "--out", "run", "--only", "method=backbone", "--workers", "0")
    assert "1 of 1 cells complete" in out


BAD = {
    "suite": (
        ["run", "smok"],
        "suite: got 'smok'; did you mean 'smoke'? expected one of ablations, efficiency, full, paper-table2, ",
    ),
    "method": (["check-method", "eludee"], "method: got 'eludee'; did you mean 'elude'?"),
    "kind": (["list", "method"], "KIND: got 'method'; did you mean 'methods'?"),
    "run": (
        ["status", "--run", "nowhere"],
        "--run: got nowhere, which holds no run.json; expected the folder of a run",
    ),
    "only": (["plan", FOUR, "--only", "method=pca"], "--only method: got 'pca'"),
    "plugin": (["list", "methods", "--plugin", "no.py"], "--plugin: got no.py, which is no file"),
    "file as folder": (["run", FOUR, "--out", "a file"], "--out: got a file, which is a file; expected a folder"),
    "strange folder": (["run", FOUR, "--out", "strange"], "--out: got strange, which is not empty and holds no run"),
    "other suite": (["run", FOUR, "--out", "other"], "--out: got other, which holds a run of suite 'quick'"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_one_line_and_exit_2(shell: Shell, tmp_path: Path, what: str) -> None:
    (tmp_path / "a file").write_text("x")
    (tmp_path / "strange").mkdir()
    (tmp_path / "strange" / "thesis.tex").write_text("x")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "run.json").write_text('{"schema": 1, "suite": "quick"}')
    words, message = BAD[what]
    out, err = shell.here(*words, code=2)
    assert out == ""
    assert err.startswith(f"error: {message}")
    assert len(err.splitlines()) == 1


def test_doctor_finds_what_is_there_and_what_is_in_the_way(shell: Shell, tmp_path: Path) -> None:
    out, _ = shell.here("doctor", "--json", "--cache", str(tmp_path))
    found = {finding["what"]: finding for finding in json.loads(out)}
    assert all(finding["is_fine"] for finding in found.values())
    assert found["hdbscan"]["found"] == importlib.metadata.version("hdbscan")
    out, _ = shell.here("doctor", "--cache", "/proc/cache", code=3)
    assert "PROBLEM  cache: /proc/cache cannot be written" in out


def test_unknown_tables_and_formats_are_named(shell: Shell, finished: Path) -> None:
    _, err = shell.here("table", "leaderbord", "--run", str(finished), code=2)
    assert "error: table: got 'leaderbord'; expected one of ablations, efficiency, ground_truth, leaderboard, " in err
    assert "; did you mean 'leaderboard'?" in err
    _, err = shell.here("table", "leaderboard", "--run", str(finished), "--format", "xls", code=2)
    assert "error: format: got 'xls'; expected one of csv, html, md, tex" in err


def test_a_folder_that_cannot_be_written_is_one_line(shell: Shell) -> None:
    # Not a permission bit: those do not bind root. Below a file that the kernel owns nobody can make a folder.
    _, err = shell.here("run", FOUR, "--out", "/proc/run", code=1)
    assert err.startswith("error: --out: cannot write /proc/run")
    assert len(err.splitlines()) == 1


def test_a_full_disk_stops_the_run_and_it_goes_on_elsewhere(shell: Shell, tmp_path: Path) -> None:
    """Every write of a cache entry fails with ENOSPC, as `sitecustomize` arranges for workers too."""
    fault = tmp_path / "fault"
    fault.mkdir()
    (fault / "sitecustomize.py").write_text(
        "import errno, os, pathlib\n"
        "whole = pathlib.Path.write_bytes\n"
        "def full(self, data):\n"
        "    if self.suffix == '.safetensors':\n"
        "        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))\n"
        "    return whole(self, data)\n"
        "pathlib.Path.write_bytes = full\n"
    )
    env = {**shell.env(), "PYTHONPATH": f"{fault}{os.pathsep}{ROOT}", "ELUDEBENCH_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        shell.command("run", FOUR, "--out", "run"), capture_output=True, text=True, cwd=tmp_path, env=env
    )
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"error: --cache: cannot write {tmp_path / 'cache'}: the disk is full")
    assert "give another with --cache, then run the same command again" in last
    assert "Traceback" not in done.stderr
    out, _ = shell.here("run", FOUR, "--out", "run", "--workers", "0")
    assert "4 of 4 cells complete" in out
