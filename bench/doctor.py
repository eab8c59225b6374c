"""What `doctor` looks at: whether this machine can run the embedded default, and what the extras would add."""

import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from bench.cache import default_cache
from bench.provenance import PACKAGES, processor, version_of

ROOM_BYTES = 2 * 1024**3
"""What the `full` suite needs in the cache, with room to spare."""

EXTRAS = {"cuml": "cuml", "umap": "umap", "ray": "ray"}

WIDE_KERNELS = {"SkylakeX", "Cooperlake", "SapphireRapids"}
"""OpenBLAS's names of the kernels that use AVX-512."""

OPTIONAL = ("umap-learn", "cuml-cu13")
"""Packages of extras that results can follow from."""


@dataclass(frozen=True)
class Finding:
    """One thing looked at.

    Attributes:
        what: The thing.
        found: What is there, and the next step where it is in the way.
        is_fine: Whether the embedded default can run with it.
    """

    what: str
    found: str
    is_fine: bool = True


def examine(cache: Path | None = None) -> list[Finding]:
    """Everything worth knowing before a run."""
    python = sys.version_info[:2]
    findings = [
        Finding(
            "Python",
            ".".join(map(str, python)) + ("" if (3, 11) <= python < (3, 13) else "; expected 3.11 or 3.12"),
            (3, 11) <= python < (3, 13),
        ),
        Finding("processor", f"{processor()}, {os.cpu_count()} cores"),
    ]
    for name in PACKAGES:
        found = version_of(name)
        if name not in OPTIONAL:
            findings.append(Finding(name, found, found != "not installed"))
    findings += [torch_finding(), products_finding()]
    for extra, module in EXTRAS.items():
        there = find_spec(module) is not None
        found = "installed" if there else f"not installed: pip install -c constraints.txt -e '.[{extra}]'"
        findings.append(Finding(f"extra {extra}", found))
    return [*findings, folder_finding(cache or default_cache())]


def torch_finding() -> Finding:
    """Whether torch imports beside torchvision, and what it sees."""
    try:
        import torch
        import torchvision
    except Exception as error:
        return Finding("torch beside torchvision", f"does not import ({error}); install both from one source", False)
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU: everything runs on the processor"
    return Finding("torch beside torchvision", f"{torch.__version__} beside {torchvision.__version__}; {name}")


def products_finding(cpuinfo: Path = Path("/proc/cpuinfo")) -> Finding:
    """Whether numpy's matrix products, most of the time of clustering, use the widest vectors there are."""
    import numpy  # noqa: F401 - so that its libraries are loaded
    from threadpoolctl import threadpool_info

    kernels = sorted(
        {str(library.get("architecture")) for library in threadpool_info() if library["user_api"] == "blas"}
    )
    found = f"kernels for {', '.join(kernels) or 'an unknown processor'}"
    has_wide = cpuinfo.exists() and " avx512f " in cpuinfo.read_text(encoding="utf-8")
    if has_wide and not WIDE_KERNELS & set(kernels):
        found += "; the processor has AVX-512, which they leave unused: try OPENBLAS_CORETYPE=SkylakeX"
    return Finding("matrix products", found)


def folder_finding(cache: Path) -> Finding:
    """Whether the cache can be written and has room."""
    nearest = next(path for path in (cache, *cache.absolute().parents) if path.exists())
    free = shutil.disk_usage(nearest).free
    try:
        tempfile.TemporaryFile(dir=nearest).close()
    except OSError as error:
        return Finding("cache", f"{cache} cannot be written ({error.strerror}); give another with --cache", False)
    if free < ROOM_BYTES:
        return Finding("cache", f"{cache}: {free / 1e9:.1f} GB free; expected {ROOM_BYTES / 1e9:.1f}; make room", False)
    return Finding("cache", f"{cache}: {free / 1e9:.0f} GB free")
