"""`hedm.farfield` with a GPU, which is emulated, and without; and the benchmark."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from scans import left_behind, run
from turning import GOLD, SMALL, Turned, simulated

from benchmarks import hedm_gpu
from kernels.errors import KernelError
from tests.unit.kernels.cuda.emulated import Device

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")


@pytest.fixture(scope="module")
def turned(tmp_path_factory: pytest.TempPathFactory) -> Turned:
    return simulated(tmp_path_factory.mktemp("turned"))


@pytest.fixture(scope="module")
def spots(turned: Turned) -> Path:
    path = turned.frames.with_name("spots.h5")
    run("hedm.peaks", input=turned.frames, geometry=turned.geometry, output=path)
    return path


def found(turned: Turned, spots: Path, output: Path, **how: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """All arrays of the table, and the metrics."""
    made = run("hedm.farfield", input=spots, geometry=turned.geometry, output=output, **GOLD, **SMALL, **how)
    arrays: dict[str, Any] = {}
    with h5py.File(output) as file:
        grains = file["entry"]
        grains.visititems(lambda name, item: arrays.update({name: item[()]} if isinstance(item, h5py.Dataset) else {}))
    return arrays, made.metrics


@needs_compiler
def test_the_grains_are_those_of_the_cpu(
    turned: Turned, spots: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, cpu = found(turned, spots, tmp_path / "cpu.nxs", device="cpu")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    device = Device().install(monkeypatch)
    made, gpu = found(turned, spots, tmp_path / "gpu.nxs")
    assert (cpu.pop("device"), gpu.pop("device")) == ("cpu", "gpu")
    assert device.peak > 0
    assert cpu == gpu
    assert gpu["grains"] == 8
    assert wanted.keys() == made.keys()
    for name, values in wanted.items():
        if not name.startswith("process/"):
            np.testing.assert_array_equal(made[name], values, err_msg=name)
    assert (wanted["process/parameters/device"], made["process/parameters/device"]) == (b"cpu", b"gpu")
    assert json.loads((tmp_path / "gpu.nxs.manifest.json").read_text())["metrics"]["device"] == "gpu"


def test_auto_goes_on_with_the_cpu_and_says_why(
    turned: Turned, spots: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setitem(sys.modules, "cupy", None)
    _, metrics = found(turned, spots, tmp_path / "a.nxs")
    assert metrics["device"] == "cpu"
    assert "needs CuPy" in metrics["device_reason"]
    assert metrics["grains"] == 8


def test_a_gpu_that_is_not_there_is_one_sentence(
    turned: Turned, spots: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(KernelError, match=r"The GPU needs CuPy .*, or take device cpu") as caught:
        found(turned, spots, tmp_path / "a.nxs", device="gpu")
    assert caught.value.exit_code == 2
    assert left_behind(tmp_path) == []


def test_what_does_not_run_on_a_gpu_is_refused(turned: Turned, spots: Path, tmp_path: Path) -> None:
    with pytest.raises(KernelError, match="imaged11 does not run on a GPU here: take backend own, or device cpu"):
        found(turned, spots, tmp_path / "a.nxs", device="gpu", backend="imaged11")


def test_without_a_gpu_the_benchmark_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.setattr(sys, "argv", ["hedm_gpu.py", "--grains", "20", "30"])
    assert hedm_gpu.main() == 0
    said = capsys.readouterr().out
    assert "nothing to measure on. The GPU needs CuPy" in said
    assert said.count("skipped") == 4


@needs_compiler
def test_the_benchmark_compares_the_grains(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    Device().install(monkeypatch)
    arguments = ["--grains", "12", "--part", "6", "--rounds", "1", "--near-voxels", "0"]
    monkeypatch.setattr(sys, "argv", ["hedm_gpu.py", *arguments])
    assert hedm_gpu.main() == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("RESULT")]
    results = {line.split("name=")[1].split()[0]: line for line in lines}
    for name in ("gpu_farfield_12", "gpu_farfield_part_6"):
        assert "ours=0 " in results[f"{name}_off_cpu"]
        assert float(results[f"{name}_ms"].split("ours=")[1].split()[0]) > 0
