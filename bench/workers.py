"""Who works a run: the processes and devices that a command's options stand for."""

import os
import re
from dataclasses import dataclass

from bench import UsageError, devices
from bench.executors import Cluster
from bench.lanes import threads_of_a_lane
from bench.processes import VISIBLE

ENGINES = ("local", "ray")


@dataclass(frozen=True)
class Workers:
    """Who works.

    Attributes:
        device: What a worker computes on, as it sees it: one that has a GPU to itself calls it "cuda".
        gpus: The GPU of each process, an empty text for none.
        n_lanes: How many processes work here; 0 works in this one.
        n_threads: Threads of each.
        cluster: Ray's workers instead; None without Ray.
    """

    device: str
    gpus: tuple[str, ...]
    n_lanes: int
    n_threads: int
    cluster: Cluster | None


def workers_of(engine: str, address: str, device: str, n: int | None) -> Workers:
    """Who works where a command says so.

    Args:
        engine: "local", or "ray".
        address: Of a cluster that runs already; empty for none.
        device: "cpu"; "cuda" for every GPU that is seen here; or some of them, "cuda:0,cuda:2".
        n: How many processes; None for two on a processor, one a GPU, and as many as a cluster has room for.

    Raises:
        UsageError: One of them is none of these, or they do not go together.
    """
    if engine not in ENGINES:
        raise UsageError(f"--engine: got {engine!r}; expected one of {', '.join(ENGINES)}; choose one")
    if address and engine != "ray":
        raise UsageError(f"--address: got {address!r} with --engine {engine}; expected it with ray; add --engine ray")
    if engine == "ray":
        if device not in ("cpu", "cuda"):
            got = f"--device: got {device!r} with --engine ray"
            raise UsageError(f"{got}; expected cpu or cuda: Ray gives each worker its GPU; write cuda")
        n_threads = 1 if n is None else threads_of_a_lane(n)
        return Workers(device, (), 0, n_threads, Cluster(address or None, n, n_threads, float(device == "cuda")))
    if device == "cpu":
        n_lanes = min(2, os.cpu_count() or 1) if n is None else n
        return Workers("cpu", ("",) * n_lanes, n_lanes, threads_of_a_lane(n_lanes), None)  # "": they see no GPU
    if not re.fullmatch(r"cuda|cuda:\d+(,cuda:\d+)*", device):
        raise UsageError(
            f'--device: got {device!r}; expected "cpu", "cuda", or GPUs such as "cuda:0,cuda:2"; change it'
        )
    for one in device.split(","):
        devices.checked(one)
    gpus = gpus_of(device)
    if n == 0 and len(gpus) > 1:
        raise UsageError(f"--workers: got 0 with {len(gpus)} GPUs; expected a process for each; leave --workers out")
    if n not in (None, 0, len(gpus)):
        raise UsageError(f"--workers: got {n} with {len(gpus)} GPUs; expected a process for each; name fewer GPUs")
    if n == 0:
        return Workers(device, (), 0, threads_of_a_lane(1), None)
    return Workers("cuda", gpus, len(gpus), threads_of_a_lane(len(gpus)), None)


def gpus_of(device: str) -> tuple[str, ...]:
    """The GPUs of such a text, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    shown = os.environ.get(VISIBLE)
    names = shown.split(",") if shown else [str(index) for index in range(torch.cuda.device_count())]
    if device == "cuda":
        return tuple(names[: torch.cuda.device_count()])
    return tuple(dict.fromkeys(names[int(one.removeprefix("cuda:"))] for one in device.split(",")))
