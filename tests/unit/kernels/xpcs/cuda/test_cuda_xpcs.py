"""`xpcs.multitau` and `xpcs.twotime` with a GPU, which is emulated, and without; and the benchmark of both."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from counted import Counted, partition
from scans import run
from series import Measured

from benchmarks import xpcs_gpu
from kernels.errors import KernelError
from kernels.xpcs.cuda import multitau, twotime
from tests.unit.kernels.cuda.emulated import Device

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")

KERNELS = {"xpcs.multitau": {}, "xpcs.twotime": {"bins": "2-3"}}


def correlated(measured: Measured, output: Path, kernel: str, **how: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """All arrays of the result, and the metrics."""
    how = {"lastFrame": 99, **KERNELS[kernel], **how}
    made = run(kernel, input=measured.frames, qmap=measured.qmap, output=output, **how)
    found: dict[str, Any] = {}
    with h5py.File(output) as file:
        group = file["xpcs"]["twotime" if kernel == "xpcs.twotime" else "multitau"]
        group.visititems(lambda name, item: found.update({name: item[()]} if isinstance(item, h5py.Dataset) else {}))
    return found, made.metrics


@needs_compiler
@pytest.mark.parametrize("kernel", KERNELS)
def test_the_result_is_that_of_the_cpu(
    measured: Measured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernel: str
) -> None:
    wanted, cpu = correlated(measured, tmp_path / "cpu.hdf", kernel, device="cpu")
    monkeypatch.setattr(multitau, "TILE", 64)
    Device().install(monkeypatch)
    made, gpu = correlated(measured, tmp_path / "gpu.hdf", kernel, device="gpu")
    assert (cpu.pop("device"), gpu.pop("device")) == ("cpu", "gpu")
    assert cpu == gpu
    assert (wanted.pop("config/device"), made.pop("config/device")) == (b"cpu", b"gpu")
    assert wanted.keys() == made.keys()
    for name, values in wanted.items():
        np.testing.assert_array_equal(made[name], values, err_msg=name)


@needs_compiler
@pytest.mark.parametrize("kernel", KERNELS)
def test_auto_takes_the_gpu_that_was_given_and_the_manifest_says_so(
    measured: Measured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernel: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    device = Device().install(monkeypatch)
    _, metrics = correlated(measured, tmp_path / "a.hdf", kernel, lastFrame=19)
    assert metrics["device"] == "gpu"
    assert device.peak > 0
    manifest = json.loads((tmp_path / "a.hdf.manifest.json").read_text())
    assert manifest["metrics"]["device"] == "gpu"


@pytest.mark.parametrize("kernel", KERNELS)
def test_auto_goes_on_with_the_cpu_and_says_why(
    measured: Measured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernel: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setitem(sys.modules, "cupy", None)
    _, metrics = correlated(measured, tmp_path / "a.hdf", kernel)
    assert metrics["device"] == "cpu"
    assert "needs CuPy" in metrics["device_reason"]


def test_auto_goes_on_with_the_cpu_where_counts_are_too_large(
    measured: Measured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setattr(twotime, "LARGEST", 0)
    Device().install(monkeypatch)
    _, metrics = correlated(measured, tmp_path / "a.hdf", "xpcs.twotime")
    assert metrics["device"] == "cpu"
    assert "too large for the GPU" in metrics["device_reason"]


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_gpu_that_is_not_there_is_one_sentence(
    measured: Measured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernel: str
) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(KernelError, match=r"The GPU needs CuPy .*, or take device cpu") as caught:
        correlated(measured, tmp_path / "a.hdf", kernel, device="gpu")
    assert caught.value.exit_code == 2
    assert not list(tmp_path.iterdir())


def test_what_does_not_run_on_a_gpu_is_refused(measured: Measured, tmp_path: Path) -> None:
    with pytest.raises(KernelError, match="scheme multitau does not run on a GPU"):
        correlated(measured, tmp_path / "a.hdf", "xpcs.twotime", device="gpu", scheme="multitau")
    with pytest.raises(KernelError, match="takes a GPU by itself"):
        correlated(measured, tmp_path / "a.hdf", "xpcs.multitau", device="gpu", backend="boost-corr")


def test_without_a_gpu_the_benchmark_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.setattr(sys, "argv", ["xpcs_gpu.py", "--means", "0.01", "0.1"])
    assert xpcs_gpu.main() == 0
    said = capsys.readouterr().out
    assert "nothing to measure on. The GPU needs CuPy" in said
    assert said.count("skipped") == 4


@needs_compiler
def test_the_benchmark_compares_every_bit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    Device().install(monkeypatch)
    monkeypatch.setattr(xpcs_gpu, "_MEGABYTES", 1)
    monkeypatch.setattr(xpcs_gpu, "rings", lambda: partition(1, 5, 9, 3, 2))
    light = np.random.default_rng(1)
    monkeypatch.setattr(xpcs_gpu, "speckle", lambda frames, mean, _: Counted(light.poisson(mean, (frames, 5, 9))))
    monkeypatch.setattr(sys, "argv", ["xpcs_gpu.py", "--means", "0.1", "--frames", "70", "--rounds", "1"])
    assert xpcs_gpu.main() == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("RESULT")]
    results = {line.split("name=")[1].split()[0]: float(line.split("ours=")[1].split()[0]) for line in lines}
    assert results["gpu_multitau_0.1_off_cpu"] == results["gpu_twotime_0.1_off_cpu"] == 0
    assert results["gpu_multitau_0.1_ms"] > 0
