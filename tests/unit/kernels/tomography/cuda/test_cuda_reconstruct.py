"""`tomography.reconstruct` with a GPU, which is emulated, and without."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scans import run

from kernels.errors import KernelError
from kernels.io.omezarr import open_level
from kernels.tomography.cuda import gridrec
from tests.unit.kernels.cuda.emulated import Device

AXIS = 50.8

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")


def reconstructed(scan: Path, output: Path, **how: Any) -> tuple[np.ndarray[Any, Any], dict[str, Any]]:
    made = run("tomography.reconstruct", input=scan, output=output, rotationAxis=AXIS, **how)
    return np.asarray(open_level(str(output), "0")[...]), made.metrics


@needs_compiler
@pytest.mark.parametrize("how", [{}, {"binning": 2}, {"stripes": "constant", "padding": "edge"}], ids=str)
def test_the_volume_is_that_of_the_cpu(
    scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: dict[str, Any]
) -> None:
    """From counts where there is no more to prepare, else from sinograms; the same is counted."""
    monkeypatch.setattr(gridrec, "_PINNED", 1 << 19)  # several chunks
    wanted, cpu = reconstructed(scan, tmp_path / "cpu", device="cpu", transmissionFloor=0.3, **how)
    Device().install(monkeypatch)
    made, gpu = reconstructed(scan, tmp_path / "gpu", device="gpu", transmissionFloor=0.3, **how)
    assert np.abs(made - wanted).max() < 2e-5 * np.abs(wanted).max()
    assert (cpu.pop("device"), gpu.pop("device")) == ("cpu", "gpu")
    assert gpu["floored_values"] > 0
    assert gpu.keys() == cpu.keys()
    for name in ("bad_pixels", "floored_values", "slices", "size"):
        assert gpu[name] == cpu[name]


@needs_compiler
def test_auto_takes_the_gpu_that_was_given_and_the_manifest_says_so(
    scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    device = Device().install(monkeypatch)
    _, metrics = reconstructed(scan, tmp_path / "v.zarr")
    assert metrics["device"] == "gpu"
    assert device.transforms
    manifest = json.loads((tmp_path / "v.zarr.manifest.json").read_text())
    assert manifest["metrics"]["device"] == "gpu"


def test_auto_goes_on_with_the_cpu_and_says_why(scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setitem(sys.modules, "cupy", None)
    _, metrics = reconstructed(scan, tmp_path / "v.zarr")
    assert metrics["device"] == "cpu"
    assert "needs CuPy" in metrics["device_reason"]


def test_a_gpu_that_is_not_there_is_one_sentence(scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(KernelError, match=r"The GPU needs CuPy .*, or take device cpu") as caught:
        reconstructed(scan, tmp_path / "v.zarr", device="gpu")
    assert caught.value.exit_code == 2
    assert not list(tmp_path.iterdir())
