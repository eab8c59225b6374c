"""What judging costs: calls, tokens and expected hours of each judge, and which judges fit on one GPU together.

Counts follow from the protocol (Bağcı et al. 2026, B.1). Memory and hours are computed from the sizes in
`judges.serving` and from stated shares of what a GPU can do. They are estimates: no judge was timed for them. Hours
count every prompt token as new, so what a server finds in its caches makes them less.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb, floor

from judges.serving import MAX_MODEL_LEN, MAX_TOKENS, SERVED, Served, served

IN_FLIGHT = 64
"""Requests that the client keeps going at a judge, the paper's."""
PAPER_PRESENTATIONS = 63_000
"""What each judge of the paper was asked: Table 2 for two backbones, Table 6 for eight settings."""
RESERVE_GB = 8.0
"""What a server needs beside weights and KV cache: activations, encoder output, CUDA graphs. An assumption."""
USABLE = 0.95
"""Share of the GPU's memory that servers take together."""


@dataclass(frozen=True)
class Gpu:
    """What a GPU has by its data sheet, and the shares of it that a server is assumed to reach.

    Attributes:
        name: What it is called.
        memory_gb: Memory, in 1e9 bytes.
        teraflops: Dense bfloat16 operations in a second, in 1e12.
        terabytes_a_second: Bandwidth of its memory.
        compute_share: Share of `teraflops` that reading prompts reaches.
        bandwidth_share: Share of the bandwidth that writing replies reaches.
    """

    name: str
    memory_gb: float
    teraflops: float
    terabytes_a_second: float
    compute_share: float = 0.3
    bandwidth_share: float = 0.5


H200 = Gpu("H200", memory_gb=139.0, teraflops=989.0, terabytes_a_second=4.8)


@dataclass(frozen=True)
class Place:
    """One judge on a GPU.

    Attributes:
        judge: Its name.
        memory_share: What to give as `gpu_memory_utilization`.
        n_in_flight: Requests whose KV cache fits, at most `IN_FLIGHT`; more wait inside the server.
    """

    judge: str
    memory_share: float
    n_in_flight: int


@dataclass(frozen=True)
class Cost:
    """What one judge is asked and how long it takes alone on a GPU.

    Attributes:
        judge: Its name.
        n_calls: Requests; reading errors that are asked again come on top.
        prompt_tokens: Of all requests.
        reply_tokens: Of all replies, each of full length.
        requests_a_second: Assumed or measured.
        hours: Expected.
    """

    judge: str
    n_calls: int
    prompt_tokens: int
    reply_tokens: int
    requests_a_second: float
    hours: float


def n_presentations(n_methods: int, *, unit_pairs: int = 50, token_seeds: int = 3) -> int:
    """Presentations of a tournament at one site: method pairs x unit pairs x two orders x token seeds."""
    return comb(n_methods, 2) * unit_pairs * 2 * token_seeds


def least_gb(judge: Served) -> float:
    """The least that its server starts with: vLLM wants room for one request of `MAX_MODEL_LEN` in the KV cache."""
    return judge.weights_gb + RESERVE_GB + MAX_MODEL_LEN * judge.cache_bytes / 1e9


def side_by_side(names: Sequence[str], gpu: Gpu = H200) -> tuple[Place, ...]:
    """The share of the GPU's memory that each judge gets, or nothing where they do not fit together.

    Every server gets `least_gb`. What is left is divided so that all hold the same number of requests, `IN_FLIGHT`
    at most.

    Raises:
        LookupError: No such judge.
        ValueError: A judge is named twice.
    """
    if len(set(names)) < len(names):
        raise ValueError(f"judges: got {', '.join(names)}; expected each once; leave out the repeated name")
    chosen = [served(name) for name in names]
    room = gpu.memory_gb * USABLE

    def needs(n_requests: int) -> list[float]:
        """GB of each judge with so many requests in flight; shares are given in hundredths."""
        asked = (max(least_gb(one), one.weights_gb + RESERVE_GB + one.cache_gb(n_requests)) for one in chosen)
        return [-floor(-100 * need / gpu.memory_gb) / 100 * gpu.memory_gb for need in asked]

    fitting = [n for n in range(1, IN_FLIGHT + 1) if sum(needs(n)) <= room]
    if not fitting:
        return ()
    n_in_flight = fitting[-1]
    return tuple(
        Place(one.name, round(need / gpu.memory_gb, 2), min(IN_FLIGHT, _held(one, need)))
        for one, need in zip(chosen, needs(n_in_flight), strict=True)
    )


def _held(judge: Served, memory_gb: float) -> int:
    """Requests whose KV cache fits into what the judge has."""
    return floor((memory_gb - judge.weights_gb - RESERVE_GB) / judge.cache_gb(1))


def expected_requests_a_second(name: str, gpu: Gpu = H200) -> float:
    """Requests that a judge answers in a second with the GPU to itself: reading the prompt, then writing the reply.

    Reading takes 2 x active parameters operations a token and the vision tower's own. Writing one token of each of
    `IN_FLIGHT` replies moves all weights and all KV caches through memory once. Every reply has `MAX_TOKENS` tokens.
    """
    judge = served(name)
    work = 2 * judge.active_billions * judge.prompt_tokens / 1e3 + 2 * judge.grid_teraflops
    reading_seconds = work / (gpu.teraflops * gpu.compute_share)
    moved_gb = judge.weights_gb + judge.cache_gb(IN_FLIGHT)
    step_seconds = moved_gb / (1e3 * gpu.terabytes_a_second * gpu.bandwidth_share)
    return 1 / (reading_seconds + MAX_TOKENS * step_seconds / IN_FLIGHT)


def cost(name: str, n_calls: int, *, requests_a_second: float | None = None, gpu: Gpu = H200) -> Cost:
    """What a judge is asked and how long it takes.

    Args:
        name: A key of `SERVED`.
        n_calls: Presentations to judge, planted ones included.
        requests_a_second: As measured; None takes `expected_requests_a_second`.
        gpu: What it runs on.

    Raises:
        LookupError: No such judge.
        ValueError: A negative count, or a throughput that is not above 0.
    """
    judge = served(name)
    if n_calls < 0:
        raise ValueError(f"n_calls: got {n_calls}; expected 0 or more; give the presentations to judge")
    rate = expected_requests_a_second(name, gpu) if requests_a_second is None else requests_a_second
    if rate <= 0:
        raise ValueError(f"requests_a_second: got {rate}; expected a number above 0; measure it or leave it out")
    return Cost(
        judge=name,
        n_calls=n_calls,
        prompt_tokens=n_calls * judge.prompt_tokens,
        reply_tokens=n_calls * MAX_TOKENS,
        requests_a_second=rate,
        hours=n_calls / rate / 3600,
    )


def cost_table(counts: Sequence[int], gpu: Gpu = H200) -> str:
    """A Markdown table: a row for each judge, expected hours for each number of calls, and their sum below."""
    names = ["judge", "weights (GB)", "tokens a request", "requests a second"]
    head = [*names, *(f"hours for {count:,} calls" for count in counts)]
    rows = []
    for name, judge in SERVED.items():
        costs = [cost(name, count, gpu=gpu) for count in counts]
        rate = expected_requests_a_second(name, gpu)
        cells = [f"`{name}`", f"{judge.weights_gb:.0f}", f"{judge.prompt_tokens:,}", f"{rate:.1f}"]
        rows.append([*cells, *(f"{one.hours:.1f}" for one in costs)])
    total = [sum(cost(name, count, gpu=gpu).hours for name in SERVED) for count in counts]
    rows.append(["all three, one after another", "", "", "", *(f"{hours:.1f}" for hours in total)])
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] + ["---:"] * (len(head) - 1), *rows)]
    return "\n".join(lines)
