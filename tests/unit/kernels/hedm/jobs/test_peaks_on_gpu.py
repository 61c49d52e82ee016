"""`hedm.peaks` with a GPU, which is emulated, and without."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import pytest
from scans import left_behind, run
from test_peaks_by_ranks import content
from turning import GOLD

from benchmarks import hedm_peaks
from kernels.errors import Exit, KernelError
from kernels.hedm.frames.cuda import scan
from tests.unit.kernels.cuda.emulated import Device

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")


class Small(NamedTuple):
    packed: Path
    plain: Path
    geometry: Path


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    """The same frames twice: packed by bitshuffle, and as they are."""
    folder = tmp_path_factory.mktemp("small")
    run(
        "hedm.simulate", output=folder / "a.h5", grains=8, rows=96, columns=96, pixelSize=2000, frames=40, omegaStep=1,
        sampleRadius=300, sampleHeight=150, mosaicity=0.4, **GOLD,
    )  # fmt: skip
    shutil.copy(folder / "a.h5", folder / "plain.h5")
    with h5py.File(folder / "plain.h5", "r+") as file:
        frames = file["entry/data/data"][()]
        del file["entry/data/data"]
        file["entry/data/data"] = frames
    return Small(folder / "a.h5", folder / "plain.h5", folder / "a_geometry.yml")


def searched(frames: Path, small: Small, output: Path, **how: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """All arrays of the table, and the metrics."""
    made = run("hedm.peaks", input=frames, geometry=small.geometry, output=output, gaussians=True, **how)
    return content(output), made.metrics


def worthwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU that was given, a single core, and frames that count as many."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setattr(scan, "threads", lambda: 1)
    monkeypatch.setattr(scan, "_LEAST_BYTES", 1)


def check(made: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert made.keys() == wanted.keys()
    for name, values in wanted.items():
        np.testing.assert_array_equal(made[name], values, err_msg=name)


@needs_compiler
def test_the_spots_are_those_of_the_cpu(small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted, cpu = searched(small.packed, small, tmp_path / "cpu.h5", device="cpu")
    assert cpu["spots"] > 20
    Device().install(monkeypatch)
    for frames in (small.plain, small.packed):
        made, gpu = searched(frames, small, tmp_path / "gpu.h5", device="gpu")
        assert gpu == {**cpu, "device": "gpu"}
        check(made, wanted)


@needs_compiler
def test_auto_takes_the_gpu_that_was_given_where_that_pays(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Device().install(monkeypatch)
    worthwhile(monkeypatch)
    _, plain = searched(small.plain, small, tmp_path / "a.h5")
    assert plain["device"] == "gpu"
    assert json.loads((tmp_path / "a.h5.manifest.json").read_text())["metrics"]["device"] == "gpu"
    _, packed = searched(small.packed, small, tmp_path / "b.h5")
    assert (packed["device"], packed["device_reason"]) == ("cpu", "packed frames are compared as they are")


def test_auto_is_the_cpu_where_the_gpu_cannot_be_used(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Device(count=0).install(monkeypatch)
    worthwhile(monkeypatch)
    _, found = searched(small.plain, small, tmp_path / "a.h5")
    assert found["device"] == "cpu"
    assert "cannot be opened (cudaErrorNoDevice" in found["device_reason"]


def test_a_gpu_that_is_wanted_and_not_there_is_one_sentence(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Device(count=0).install(monkeypatch)
    with pytest.raises(KernelError, match=r"The GPU cannot be opened .*: take device cpu\.") as error:
        searched(small.plain, small, tmp_path / "a.h5", device="gpu")
    assert error.value.exit_code == Exit.USAGE
    assert left_behind(tmp_path) == []


@needs_compiler
def test_a_gpu_that_fails_leaves_nothing_half(small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Device().install(monkeypatch)

    def fails(*_: object) -> None:
        raise RuntimeError("cudaErrorIllegalAddress")

    monkeypatch.setattr(scan.CudaScan, "_seen", fails)
    with pytest.raises(KernelError, match="The GPU failed") as error:
        searched(small.plain, small, tmp_path / "a.h5", device="gpu")
    assert error.value.exit_code == Exit.TRANSIENT
    assert left_behind(tmp_path) == []


@needs_compiler
def test_the_benchmark_compares_both(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Device().install(monkeypatch)
    monkeypatch.setattr(hedm_peaks, "SIZE", 64)
    monkeypatch.setattr(
        "sys.argv", ["x", "--frames", "48", "--spots", "1", "--rounds", "1", "--gpu", "--place", str(tmp_path)]
    )
    assert hedm_peaks.main() == 0
    said = capsys.readouterr().out
    assert "from memory, by the GPU: " in said
    assert said.count("RESULT name=hedm_peaks_") == 3
    stack = hedm_peaks.pool(1, np.random.default_rng(1))
    found = hedm_peaks.search(hedm_peaks.Frames(hedm_peaks.MemorySource(stack), omegas=hedm_peaks.Sweep(0, 0.25)))
    other = hedm_peaks.Found(found.spots[1:], {}, ())
    with pytest.raises(SystemExit, match="other spots"):
        hedm_peaks.compare(found, other)
