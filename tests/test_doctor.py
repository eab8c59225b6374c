"""What `doctor` says of a machine; whole calls of it are in `test_run`."""

from pathlib import Path

import pytest

from bench import doctor


@pytest.mark.parametrize(
    ("flags", "kernels", "hint"),
    [("avx2 avx512f fma", "Zen", True), ("avx2 fma", "Zen", False), ("avx512f", "SkylakeX", False)],
)
def test_wide_vectors_that_are_left_unused_are_told(
    flags: str, kernels: str, hint: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "threadpoolctl.threadpool_info", lambda: [{"user_api": "blas", "architecture": kernels}, {"user_api": "openmp"}]
    )
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"flags : fpu {flags} ssse3\n")
    found = doctor.products_finding(cpuinfo)
    assert found.is_fine
    assert found.found.startswith(f"kernels for {kernels}")
    assert ("OPENBLAS_CORETYPE=SkylakeX" in found.found) is hint
