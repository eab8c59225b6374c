"""How much memory this process held."""

import resource
import sys
from pathlib import Path


def forget_peak() -> None:
    """Let the process's peak memory start again from what it holds now, where the system can."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return


def peak_bytes() -> int | None:
    """Most memory that this process held: since `forget_peak` on Linux, since its start elsewhere."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
    except (OSError, StopIteration):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
