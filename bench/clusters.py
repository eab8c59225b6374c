"""The cluster that a run works on: reached or started, and looked over before anything is done.

Nodes are started by Ray's own commands. The package is installed on each of them, in the same versions; the cache, the
folder of the run and plugin files lie where all of them see them.
"""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from bench import UsageError
from bench.cache import storage_error
from bench.executors import Cluster, last_line, library
from bench.lanes import one_line
from bench.provenance import provenance

LOOK_SECONDS = 120.0
"""How long a node may take to look for a file: its first Python has to start."""


@contextmanager
def connected(cluster: Cluster, folders: Sequence[Path], say: Callable[[str], None]) -> Iterator[int]:
    """The cluster, reached or started, and looked over; how many workers it has room for.

    Args:
        cluster: Which.
        folders: What every node has to see.
        say: Told where there is less room than asked for.

    Raises:
        UsageError: It cannot be reached, has no room, or has a node that does not fit.
        StorageError: A folder cannot be written.
    """
    ray = library()
    is_ours = not ray.is_initialized()
    if is_ours:
        begin(ray, cluster)
    try:
        look_over(ray, folders)
        room = room_of(ray.nodes(), cluster)
        if room < 1:
            raise UsageError(
                f"--engine: no node has {wanted(cluster)}; expected one that has; ask for less, or start such a node"
            )
        if cluster.n_workers is not None and room < cluster.n_workers:
            say(f"the cluster has room for {room} workers of {cluster.n_workers}")
        yield min(room, cluster.n_workers or room)
    finally:
        if is_ours:
            ray.shutdown()


def begin(ray: Any, cluster: Cluster) -> None:
    """Connect to the cluster, or start one on this machine, without a dashboard; nobody gets in without Ray's token.

    Raises:
        UsageError: There is none at the address.
    """
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    logging.getLogger("ray").setLevel(logging.ERROR)  # it speaks before it has read its options
    if cluster.address is not None:
        try:
            ray.init(address=cluster.address, **quiet)
        except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            raise UsageError(
                f"--address: {cluster.address} cannot be reached ({one_line(error)}); expected a cluster; start it "
                "with `ray start --head` and give the address that it prints"
            ) from error
        return
    n_workers = cluster.n_workers or max(1, (os.cpu_count() or 1) // cluster.n_threads)
    own: dict[str, Any] = {} if cluster.gpus_per_worker else {"num_gpus": 0}
    ray.init(num_cpus=n_workers * cluster.n_threads, include_dashboard=False, **own, **quiet)


def wanted(cluster: Cluster) -> str:
    """What a worker takes, in words."""
    gpus = f" and {cluster.gpus_per_worker:g} GPUs" if cluster.gpus_per_worker else ""
    return f"{cluster.n_threads} processors{gpus} for a worker"


def room_of(nodes: Sequence[Any], cluster: Cluster) -> int:
    """How many workers the living nodes have room for."""
    room = 0
    for node in nodes:
        has = node["Resources"] if node["Alive"] else {}
        many = [has.get("CPU", 0.0) // cluster.n_threads]
        many += [has.get("GPU", 0.0) / cluster.gpus_per_worker] if cluster.gpus_per_worker else []
        room += int(min(many))
    return room


def look_over(ray: Any, folders: Sequence[Path]) -> None:
    """Make sure that every node that works sees the folders and has the same packages.

    Raises:
        UsageError: One does not.
        StorageError: A folder cannot be written.
    """
    strategy = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
    marks = {folder.resolve() / f"seen-{uuid4().hex}": uuid4().hex for folder in folders}
    try:
        for path, text in marks.items():
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="ascii")
            except OSError as error:
                raise storage_error("--cache, --out", path.parent, error) from error
        remote = ray.remote(num_cpus=0, max_retries=0)(seen_from_here)
        working = [one for one in ray.nodes() if one["Alive"] and one["Resources"].get("CPU", 0) >= 1]
        asked = {
            str(node["NodeManagerAddress"]): remote.options(
                scheduling_strategy=strategy(node["NodeID"], soft=False)
            ).remote([str(path) for path in marks])
            for node in working
        }
        for node, answer in asked.items():
            compare(ray, node, answer, {str(path): text for path, text in marks.items()})
    finally:
        for path in marks:
            path.unlink(missing_ok=True)


def seen_from_here(paths: Sequence[str]) -> tuple[dict[str, str | None], dict[str, str]]:
    """What these files hold where this is called, None where they are not there; and the versions of the packages."""
    held = {path: Path(path).read_text(encoding="ascii") if Path(path).is_file() else None for path in paths}
    return held, provenance()["versions"]


def compare(ray: Any, node: str, answer: Any, marks: dict[str, str]) -> None:
    """Refuse a node that does not see what was written, or has other packages."""
    try:
        held, versions = ray.get(answer, timeout=LOOK_SECONDS)
    except ray.exceptions.RayError as error:
        raise UsageError(
            f"--engine: node {node} cannot work ({last_line(error)}); expected eludebench there; install it in the "
            "Python that `ray start` ran in"
        ) from error
    for path, text in marks.items():
        if held[path] != text:
            raise UsageError(
                f"--cache, --out: node {node} does not see {Path(path).parent}; expected a folder that all nodes "
                "share; give one on a shared file system"
            )
    here = provenance()["versions"]
    other = {name: version for name, version in versions.items() if version != here[name]}
    if other:
        name, version = next(iter(other.items()))
        raise UsageError(
            f"--engine: node {node} has {name} {version}; expected {here[name]}, as here, since results follow from "
            "it; install the same versions on every node"
        )
