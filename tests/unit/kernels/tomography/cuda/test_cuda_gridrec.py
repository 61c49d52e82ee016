"""The GPU's way to a slice, on an emulated GPU: as the CPU's, in any chunks, in any order that streams allow."""

from __future__ import annotations

import shutil
import sys
from typing import Any

import numpy as np
import pytest

from kernels.cuda.device import Choice
from kernels.errors import KernelError
from kernels.tomography.cuda import gridrec
from kernels.tomography.cuda.choice import choose
from kernels.tomography.cuda.gridrec import CudaGridrec
from kernels.tomography.direct.gridrec import Gridrec
from kernels.tomography.direct.halves import halves
from tests.unit.kernels.cuda.emulated import Device

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")

SIZE, ANGLES = 56, 61
THETA = np.arange(ANGLES) * 180.0 / ANGLES
AXIS = 0.5 * (SIZE - 1) + 1.3

Array = np.ndarray[Any, np.dtype[np.float32]]


def sinograms(count: int, columns: int = SIZE, theta: Any = THETA, axis: float = AXIS) -> Array:
    """Of two smooth blobs each, other ones in each slice."""
    random, turned = np.random.default_rng(count), np.deg2rad(theta)[:, None]
    made = np.zeros((count, len(theta), columns))
    for slice_ in made:
        for _ in range(2):
            (x, y), width = random.uniform(-0.25, 0.25, 2) * columns, random.uniform(2.5, 5)
            distance = np.arange(columns) - axis - x * np.cos(turned) - y * np.sin(turned)
            slice_ += width * np.sqrt(2 * np.pi) * np.exp(-0.5 * (distance / width) ** 2)
    return made.astype(np.float32)


def off(made: Array, wanted: Array) -> float:
    return float(np.abs(made - wanted).max() / np.abs(wanted).max())


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Device:
    return Device().install(monkeypatch)


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"taps": 4},
        {"taps": 6, "window": "hann", "scale": 2.0},
        {"padding": "edge", "circle": False},
    ],
    ids=str,
)
@pytest.mark.parametrize("columns", [56, 75])
def test_slices_are_those_of_the_cpu(gpu: Device, how: dict[str, Any], columns: int) -> None:
    axis = 0.5 * (columns - 1) - 2.75
    # A window of even width has cells on one side only of a sample that lies on a cell, so that the two slices of a
    # pair mix a little: with other partners (here the next, there the ninth) that differs.
    given = sinograms(1 if "taps" in how else 3, columns, axis=axis)
    if "padding" in how:
        given += 1  # wider than the view
    wanted = Gridrec(THETA, columns, axis=axis, **how).slices(given)
    assert off(CudaGridrec(THETA, columns, axis=axis, **how).slices(given), wanted) < 5e-6


def test_slices_too_small_for_two_tiles_have_a_longer_grid(gpu: Device) -> None:
    axis, columns = 5.75, 12
    given = sinograms(2, columns, axis=axis)
    wanted = Gridrec(THETA, columns, axis=axis).slices(given)
    assert off(CudaGridrec(THETA, columns, axis=axis).slices(given), wanted) < 2e-3


def test_a_full_turn_is_joined_as_on_the_cpu(gpu: Device) -> None:
    theta, axis = np.arange(130) * 360.0 / 130, 12.0
    size, weights = halves(SIZE, axis)
    how: dict[str, Any] = {"axis": axis, "size": size, "column_weights": weights}
    given = sinograms(2, theta=theta, axis=axis)
    made = CudaGridrec(theta, SIZE, **how).slices(given)
    assert off(made, Gridrec(theta, SIZE, **how).slices(given)) < 1e-5


@pytest.mark.parametrize("count", [1, 2, 5, 8, 13])
def test_any_number_of_slices_in_small_chunks(gpu: Device, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Chunks of 4 slices, of which the last may be part of one, and end in the middle of a pair."""
    whole = CudaGridrec(THETA, SIZE, axis=AXIS)
    monkeypatch.setattr(gridrec, "_PINNED", 2 * 4 * 4 * (ANGLES * SIZE + SIZE**2))
    chunked = CudaGridrec(THETA, SIZE, axis=AXIS)
    assert chunked.chunk == 4 < whole.chunk
    given = sinograms(count)
    out = np.full((count, SIZE, SIZE), np.nan, np.float32)
    assert chunked.slices(given, out) is out
    np.testing.assert_array_equal(out, whole.slices(given))
    np.testing.assert_array_equal(out, chunked.slices(given))  # the buffers may be full of the last ones


@pytest.mark.parametrize("seed", range(6))
def test_streams_may_run_as_they_like(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    monkeypatch.setattr(gridrec, "_PINNED", 2 * 2 * 4 * (ANGLES * SIZE + SIZE**2))
    given, made = sinograms(9), []
    for lot in (1000, seed):
        Device(seed=lot).install(monkeypatch)
        method = CudaGridrec(THETA, SIZE, axis=AXIS)
        assert method.chunk == 2
        made.append(method.slices(given))
    np.testing.assert_array_equal(*made)


@pytest.mark.parametrize("gone", ["arrived", "made"])
def test_a_wait_that_is_left_out_shows(monkeypatch: pytest.MonkeyPatch, gone: str) -> None:
    """The emulated streams are as strict as they claim to be."""
    monkeypatch.setattr(gridrec, "_PINNED", 2 * 2 * 4 * (ANGLES * SIZE + SIZE**2))
    given, wrong = sinograms(9), 0
    wanted = Gridrec(THETA, SIZE, axis=AXIS).slices(given)
    for seed in range(4):
        Device(seed=seed).install(monkeypatch)
        method = CudaGridrec(THETA, SIZE, axis=AXIS)
        for slot in method._buffers.slots:
            monkeypatch.setattr(getattr(slot, gone), "record", lambda _: None)  # nobody waits for what is not recorded
        made = method.slices(given)
        wrong += not off(made, wanted) < 1e-5
    assert wrong


def test_chunks_are_as_large_as_the_free_memory_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    roomy = Device().install(monkeypatch)
    largest = CudaGridrec(THETA, SIZE, axis=AXIS)
    tables = roomy.used - 32 * (pair := _pair(largest))
    chunks = {}
    for pairs in (1.2, 4.7, 9.2):
        small = Device(int(tables + pairs * pair / 0.9)).install(monkeypatch)
        method = CudaGridrec(THETA, SIZE, axis=AXIS)
        chunks[pairs] = method.chunk
        assert small.peak <= small.memory
        np.testing.assert_array_equal(method.slices(sinograms(3)), largest.slices(sinograms(3)))
    assert chunks == {1.2: 2, 4.7: 8, 9.2: 18}
    assert largest.chunk == largest.group == 64


def _pair(method: CudaGridrec) -> int:
    """Bytes on the device of two slices, with the plans, whose work areas are as large as their data here."""
    of = method.tables
    return method._pair_bytes() + 8 * (of.angles * of.padded + of.length**2)


def test_half_as_much_is_tried_when_memory_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The device has less than it says: others take some between the question and the answer."""
    roomy = Device().install(monkeypatch)
    method = CudaGridrec(THETA, SIZE, axis=AXIS)
    given, wanted = sinograms(5), method.slices(sinograms(5))
    tables = roomy.used - 32 * (pair := _pair(method))
    device = Device(tables + 3 * pair)
    modules = device.modules()
    real = modules["cupy"].cuda.Device
    modules["cupy"].cuda.Device = lambda: _boasting(real())
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    method = CudaGridrec(THETA, SIZE, axis=AXIS)
    assert method.chunk == 4  # 32 pairs, 16, 8, 4, 2
    np.testing.assert_array_equal(method.slices(given), wanted)


def _boasting(device: Any) -> Any:
    device.mem_info = (1 << 34, device.mem_info[1])
    return device


@pytest.mark.parametrize(("memory", "exit_code", "said"), [(20_000, 2, "has 2e-05 GB"), (1_000_000, 75, "others use")])
def test_too_little_memory_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, memory: int, exit_code: int, said: str
) -> None:
    device = Device(memory).install(monkeypatch)
    if exit_code == 75:
        device.used = 900_000
    with pytest.raises(KernelError, match=said) as caught:
        CudaGridrec(THETA, SIZE, axis=AXIS)
    assert caught.value.exit_code == exit_code
    assert "device cpu" in caught.value.sentence


def test_memory_is_what_it_says(gpu: Device) -> None:
    method = CudaGridrec(THETA, SIZE, axis=AXIS)
    held = sum(each.nbytes for slot in method._buffers.slots for each in (slot.host_in, slot.host_out))
    assert method.fixed_bytes == held


def test_a_device_that_fails_is_one_sentence(gpu: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    method = CudaGridrec(THETA, SIZE, axis=AXIS)

    def fail(*_: object) -> None:
        raise RuntimeError("cudaErrorECCUncorrectable: uncorrectable ECC error\nand more")

    monkeypatch.setattr(method._steps, "run", fail)
    with pytest.raises(KernelError, match=r"uncorrectable ECC error\): try again") as caught:
        method.slices(sinograms(1))
    assert caught.value.failure == "transient"


def test_more_samples_than_can_be_counted_are_refused(gpu: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kernels.tomography.cuda.steps._MOST", 5000)
    with pytest.raises(KernelError, match="more than the GPU path can count"):
        CudaGridrec(THETA, SIZE, axis=AXIS)


@pytest.mark.parametrize(
    ("wanted", "algorithm", "environment", "kind"),
    [
        ("auto", "gridrec", "0", "gpu"),
        ("auto", "gridrec", "", "cpu"),
        ("auto", "sirt", "0", "cpu"),
        ("cpu", "gridrec", "0", "cpu"),
        ("gpu", "gridrec", "", "gpu"),
    ],
)
def test_which_device_is_taken(
    gpu: Device, monkeypatch: pytest.MonkeyPatch, wanted: str, algorithm: str, environment: str, kind: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", environment)
    assert choose(wanted, algorithm)._replace(ready=None) == Choice(kind)


def test_a_gpu_for_what_does_not_run_on_one(gpu: Device) -> None:
    with pytest.raises(KernelError, match="sirt does not run on a GPU: take gridrec, or device cpu"):
        choose("gpu", "sirt")


@pytest.mark.parametrize("missing", ["CuPy", "cuFFT", "a device", "the driver"])
def test_without_a_gpu_auto_is_the_cpu_and_says_why(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    device = Device(count=0 if missing == "the driver" else 1).install(monkeypatch)
    said = {
        "CuPy": r"needs CuPy and CUDA's libraries, .*pip install",
        "cuFFT": r"libcufft.so.11.*pip install",
        "a device": "sees no GPU",
        "the driver": r"cannot be opened \(cudaErrorNoDevice: no CUDA-capable device is detected\)",
    }[missing]
    cupy = sys.modules["cupy"]
    if missing == "CuPy":
        monkeypatch.setitem(sys.modules, "cupy", None)
    elif missing == "cuFFT":
        monkeypatch.setattr(cupy, "cuda", _WithoutTransforms(cupy.cuda))
    elif missing == "a device":
        monkeypatch.setattr(cupy.cuda.runtime, "getDeviceCount", lambda: 0)
    choice = choose("auto", "gridrec")
    assert choice.kind == "cpu"
    with pytest.raises(KernelError, match=said) as caught:
        choose("gpu", "gridrec")
    assert caught.value.exit_code == 2
    assert caught.value.sentence == choice.reason
    assert device.used == 0


class _WithoutTransforms:
    """`cupy.cuda` where a library is missing, which shows when it is asked for."""

    def __init__(self, cuda: Any) -> None:
        self._cuda = cuda

    def __getattr__(self, name: str) -> Any:
        if name == "cufft":
            raise ImportError("Failure finding libcufft.so.11")
        return getattr(self._cuda, name)
