"""How vLLM serves the paper's three judges: what each is, and the exact command.

Bağcı et al. 2026, appendix B.1: Qwen3-VL-30B-A3B-Instruct, Gemma-3-27B and InternVL3-14B, each behind vLLM with
`tensor_parallel_size` 1, `max_model_len` 32768 and two images a prompt. vLLM is never imported: it lives in an
environment of its own (`make judge-env`), because its pins exclude cuML's. What fits on a GPU and how long a tournament
takes stands in `judges.costs`.
"""

import os
import re
import shlex
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import FrameType

VLLM = "0.32.0"
"""The version the flags below are of; `judges/serving-requirements.txt` installs it."""
COMMIT = "COMMIT"
"""Stands in a printed command where the revision of the weights has to be filled in."""

MAX_MODEL_LEN = 32_768
MAX_TOKENS = 256
TEXT_TOKENS = 180
"""The prompt's words and the chat frame, an estimate; the images come on top."""


@dataclass(frozen=True)
class Flag:
    """Words of the command line, and why they are there."""

    words: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class Served:
    """One of the paper's judges.

    Attributes:
        name: What it is called here and what the server answers to.
        model: Its id on Hugging Face.
        licence: As the paper names it; the model's page is what counts.
        weights_gb: Weights in bfloat16, an estimate.
        active_billions: Parameters that work on one token, in 1e9.
        grid_tokens: Tokens that a grid of 1008 x 1008 pixels becomes.
        grid_teraflops: To encode one grid: 2 x parameters of the vision tower x its patches.
        cache_bytes: KV cache of one token: layers x 2 x KV heads x head size x 2 bytes; for Gemma-3 an upper bound,
            since most of its layers keep a window of 1,024 tokens only.
        flags: What its server needs beyond `SHARED`.
    """

    name: str
    model: str
    licence: str
    weights_gb: float
    active_billions: float
    grid_tokens: int
    grid_teraflops: float
    cache_bytes: int
    flags: tuple[Flag, ...] = ()

    @property
    def prompt_tokens(self) -> int:
        """Tokens of one request: two grids and the text."""
        return 2 * self.grid_tokens + TEXT_TOKENS

    def cache_gb(self, n_requests: int) -> float:
        """KV cache of so many requests, each with a reply of full length."""
        return n_requests * (self.prompt_tokens + MAX_TOKENS) * self.cache_bytes / 1e9


SHARED = (
    Flag(("--dtype", "bfloat16"), "the precision the weights were published in; Gemma-3 takes no float16"),
    Flag(("--max-model-len", str(MAX_MODEL_LEN)), "the paper's"),
    Flag(("--limit-mm-per-prompt", '{"image":2,"video":0}'), "the paper's: two grids a prompt; no memory for video"),
    Flag(("--seed", "42"), "the paper's"),
    Flag(("--generation-config", "vllm"), "else the model's own sampling defaults fill what a request leaves out"),
    Flag(
        ("--structured-outputs-config", '{"backend":"guidance","disable_any_whitespace":true}'),
        "else a judge held to a schema may write blanks until its tokens are used up",
    ),
    Flag(("--enable-prompt-tokens-details",), "replies then say how many prompt tokens came from the cache"),
    Flag(("--mm-processor-cache-gb", "16"), "grids recur: room for some 1,300 of 1008 pixels instead of 340"),
)
"""The flags of every judge."""

SERVED: Mapping[str, Served] = {
    served.name: served
    for served in (
        Served(
            name="qwen3_vl_30b_a3b",
            model="Qwen/Qwen3-VL-30B-A3B-Instruct",
            licence="Tongyi Qianwen",
            weights_gb=62.0,
            active_billions=3.3,
            grid_tokens=1024,
            grid_teraflops=2 * 0.54e9 * 4096 / 1e12,
            cache_bytes=48 * 2 * 4 * 128 * 2,
        ),
        Served(
            name="gemma3_27b",
            model="google/gemma-3-27b-it",
            licence="Gemma terms of use",
            weights_gb=55.0,
            active_billions=27.0,
            grid_tokens=256,
            grid_teraflops=2 * 0.42e9 * 4096 / 1e12,
            cache_bytes=62 * 2 * 16 * 128 * 2,
        ),
        Served(
            name="internvl3_14b",
            model="OpenGVLab/InternVL3-14B",
            licence="MIT",
            weights_gb=30.0,
            active_billions=14.8,
            grid_tokens=2560,
            grid_teraflops=2 * 0.3e9 * 10 * 1025 / 1e12,
            cache_bytes=48 * 2 * 8 * 128 * 2,
            flags=(Flag(("--trust-remote-code",), "this checkpoint brings code of its own; its -hf port does not"),),
        ),
    )
}
"""The paper's three judges by name."""


def served(name: str) -> Served:
    """The judge of that name.

    Raises:
        LookupError: There is none; the nearest name is suggested.
    """
    if name in SERVED:
        return SERVED[name]
    near = get_close_matches(name, SERVED, n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise LookupError(
        f"judge: got {name!r}; expected one of {', '.join(SERVED)}{hint}; "
        "any other model is served by hand and named in the suite by its address"
    )


def serve_command(
    name: str,
    *,
    port: int = 8000,
    revision: str | None = None,
    tensor_parallel: int = 1,
    gpu_memory_utilization: float | None = None,
    extra: Sequence[str] = (),
) -> list[str]:
    """The `vllm serve` command of a judge, word by word.

    Args:
        name: A key of `SERVED`.
        port: Where it listens, on this machine only.
        revision: Commit of the weights; without one `COMMIT` stands in its place and `start` refuses the command.
        tensor_parallel: GPUs that share the weights; the paper's is 1.
        gpu_memory_utilization: Share of the GPU's memory; None leaves it to vLLM, which takes 0.92.
        extra: Words put behind all others, where vLLM lets the last one win.

    Raises:
        LookupError: No such judge.
        ValueError: An argument is out of its range.
    """
    judge = served(name)
    if not 0 < port < 65_536:
        raise ValueError(f"port: got {port}; expected 1 to 65535; choose one above 1023")
    if revision is not None and not re.fullmatch("[0-9a-f]{40}", revision):
        raise ValueError(
            f"revision: got {revision!r}; expected a commit of 40 hexadecimal digits, since branches move; "
            f"take it from the page of {judge.model} on Hugging Face, under Files and versions"
        )
    if tensor_parallel < 1:
        raise ValueError(f"tensor_parallel: got {tensor_parallel}; expected 1 or more; give the number of GPUs")
    share = gpu_memory_utilization
    if share is not None and not 0 < share <= 1:
        raise ValueError(f"gpu_memory_utilization: got {share}; expected a share above 0, at most 1; see side_by_side")
    return [
        *("vllm", "serve", judge.model, "--revision", revision or COMMIT),
        *("--host", "127.0.0.1", "--port", str(port), "--served-model-name", name),
        *("--tensor-parallel-size", str(tensor_parallel)),
        *(word for flag in (*SHARED, *judge.flags) for word in flag.words),
        *([] if share is None else ["--gpu-memory-utilization", f"{share:.2f}"]),
        *extra,
    ]


def shell_line(argv: Sequence[str]) -> str:
    """The command as one line to paste into a shell; where the revision is missing, a comment above it says so."""
    line = shlex.join(argv)
    if COMMIT not in argv:
        return line
    where = "the model's page on Hugging Face, Files and versions"
    return f"# replace {COMMIT} by the commit of the weights (40 hexadecimal digits; {where})\n{line}"


def start(argv: Sequence[str], environment: Path) -> int:
    """Runs the command with the `vllm` of another environment until the server ends; returns its exit status.

    Ctrl-C and SIGTERM reach the server, and this returns once it has gone.

    Raises:
        LookupError: The folder has no vLLM in it.
        ValueError: The revision of the weights is not filled in.
    """
    program = environment / "bin" / "vllm"
    if not program.is_file():
        raise LookupError(
            f"env: got {environment}; expected the folder of an environment with bin/vllm in it; make one with "
            "`make judge-env` (.venv-judges), on the machine with the GPU"
        )
    if COMMIT in argv:
        raise ValueError(f"revision: got {COMMIT}; expected a commit of 40 hexadecimal digits; give --revision")
    foreign = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    variables = {key: value for key, value in os.environ.items() if key not in foreign}
    variables["PATH"] = os.pathsep.join([str(program.parent.absolute()), variables.get("PATH", os.defpath)])
    server = subprocess.Popen([str(program.absolute()), *argv[1:]], env=variables)
    with _passed_on(server):
        return server.wait()


@contextmanager
def _passed_on(server: "subprocess.Popen[bytes]") -> Iterator[None]:
    """Hands SIGTERM to the server, and leaves Ctrl-C, which reaches it by itself, to the server too."""

    def hand_on(number: int, frame: FrameType | None) -> None:
        server.send_signal(number)

    before = {signal.SIGTERM: signal.signal(signal.SIGTERM, hand_on), signal.SIGINT: signal.getsignal(signal.SIGINT)}
    signal.signal(signal.SIGINT, lambda number, frame: None)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
