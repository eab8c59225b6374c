"""A vLLM server on this machine's processor, started and stopped by the tests.

The environment is one of its own (`make test-vllm`); what runs in it is vLLM's OpenAI server as published.
"""

import contextlib
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
NAME = "tiny-judge"
N_BLOCKS = {"gemma3": 240, "qwen3_vl_moe": 160}
"""The families, and a KV cache of some ten requests in blocks of 32 tokens: small beside a tournament, as real ones.

Gemma-3 keeps two, one for its layers with a window.
"""
START_SECONDS = 600


def environment() -> dict[str, str]:
    """The variables that a process of the vLLM environment needs."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("VLLM_", "PYTHON"))}
    return kept | {
        "PYTHONPATH": str(HERE / "shim"),
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "OMP_NUM_THREADS": "1",
    }


def make_judge(python: Path, family: str, folder: Path) -> Path:
    """The folder of a tiny judge with random weights."""
    done = subprocess.run(
        [str(python), str(HERE / "tiny_judges.py"), family, str(folder)],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def free_port() -> int:
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        return int(asked.getsockname()[1])


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def metric(url: str, name: str) -> float:
    """A counter of the server, summed over its labels."""
    with urllib.request.urlopen(url.replace("/v1", "/metrics"), timeout=30) as reply:
        lines = reply.read().decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))


def flags(family: str, images: int) -> list[str]:
    return [
        *("--host", "127.0.0.1", "--served-model-name", NAME, "--dtype", "bfloat16", "--max-model-len", "4096"),
        *("--limit-mm-per-prompt", f'{{"image":{images},"video":0}}', "--seed", "42", "--generation-config", "vllm"),
        *("--structured-outputs-config", '{"backend":"guidance","disable_any_whitespace":true}'),
        *("--enable-prompt-tokens-details", "--mm-processor-cache-gb", "1", "--enforce-eager"),
        *("--max-num-batched-tokens", "2048", "--block-size", "32"),
        *("--num-gpu-blocks-override", str(N_BLOCKS[family])),
    ]


@contextlib.contextmanager
def running(python: Path, family: str, model: Path, log: Path, images: int = 2) -> Iterator[str]:
    """The base URL of a server that answers; it is gone when the block is left."""
    port = free_port()
    argv = [str(python), "-m", "vllm.entrypoints.openai.api_server", "--model", str(model), "--port", str(port)]
    with log.open("w", encoding="utf-8") as stream:
        server = subprocess.Popen(
            [*argv, *flags(family, images)], env=environment(), stdout=stream, stderr=stream, start_new_session=True
        )
    try:
        end = time.monotonic() + START_SECONDS
        while not answers(f"http://127.0.0.1:{port}/health"):
            tail = log.read_text(encoding="utf-8", errors="replace")[-3000:]
            assert server.poll() is None, f"vLLM ended while starting:\n{tail}"
            assert time.monotonic() < end, f"vLLM did not answer within {START_SECONDS} s:\n{tail}"
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(30)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)  # what is left of its group, which is its own
        server.wait()
