"""Where a number comes from: commit, package versions, machine and time; on every record."""

import hashlib
import platform
import subprocess
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = (
    "eludebench", "torch", "torchvision", "timm", "overcomplete", "hdbscan", "numba", "numpy", "scipy", "scikit-learn",
    "scikit-image", "pandas", "safetensors", "umap-learn", "cuml-cu13",
)  # fmt: skip
ROOT = Path(__file__).resolve().parent.parent


@cache
def provenance(device: str = "cpu") -> dict[str, Any]:
    """Commit, dirty flag, versions and device of this process, as record fields.

    Args:
        device: What it works on, as `bench.devices` names it.
    """
    commit = git("rev-parse", "HEAD")
    status = git("status", "--porcelain")
    return {
        "commit": commit or None,
        "dirty": None if commit is None or status is None else bool(status),
        "versions": {"python": platform.python_version(), **{name: version_of(name) for name in PACKAGES}},
        "device": device_in_words(device),
    }


def device_in_words(device: str) -> str:
    """The processor, or the GPU with its versions."""
    if device == "cpu":
        return f"cpu, one thread: {processor()}"
    from bench import devices  # here, since nothing else of this module needs torch

    return devices.described(device)


@cache
def machine() -> str:
    """A mark that tells this machine from others of its kind, and does not tell its name."""
    return hashlib.sha256(f"{platform.node()} {processor()}".encode()).hexdigest()[:8]


def git(*arguments: str) -> str | None:
    """What git says in the project's own checkout; None where there is none."""
    if not (ROOT / ".git").exists():
        return None
    try:
        done = subprocess.run(("git", "-C", str(ROOT), *arguments), capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def version_of(name: str) -> str:
    """The installed version, or that there is none."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def processor() -> str:
    """The processor's name for people."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def now() -> str:
    """The time, ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
