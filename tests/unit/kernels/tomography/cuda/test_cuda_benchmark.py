"""The benchmark of the GPU runs, on an emulated one, and says so where there is none."""

from __future__ import annotations

import shutil
import sys

import pytest

from benchmarks import tomography_gpu
from kernels.tomography.cuda import gridrec
from tests.unit.kernels.cuda.emulated import Device


def test_without_a_gpu_all_is_skipped(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.setattr(sys, "argv", ["tomography_gpu.py", "--sizes", "64", "128"])
    assert tomography_gpu.main() == 0
    said = capsys.readouterr().out
    assert "nothing to measure on. The GPU needs CuPy" in said
    assert said.count("skipped") == 2


@pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")
def test_errors_stand_beside_times(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    Device().install(monkeypatch)
    fast = tomography_gpu.Ceilings(1e10, 1e10, 1e12, 1e13)
    monkeypatch.setattr(gridrec, "_PINNED", 1 << 18)
    monkeypatch.setattr(tomography_gpu, "ceilings", lambda _: fast)
    monkeypatch.setattr(sys, "argv", ["tomography_gpu.py", "--sizes", "64", "--slices", "2", "--rounds", "1"])
    assert tomography_gpu.main() == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("RESULT")]
    results = {line.split("name=")[1].split()[0]: float(line.split("ours=")[1].split()[0]) for line in lines}
    assert 0 < results["gpu_64_error"] < 5e-4
    assert results["gpu_64_off_cpu"] < tomography_gpu.BAR_AGREEMENT
    assert results["gpu_64_ms_per_slice"] > 0
