"""Two-time correlations of an emulated GPU are those of the CPU to the last bit, in tiles and panels of any size."""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np
import pytest
from counted import Counted, partition, twotime_plainly
from numpy.typing import NDArray

from kernels.cuda.device import choose
from kernels.errors import Exit, KernelError
from kernels.xpcs.cuda import twotime as cuda
from kernels.xpcs.partition import Partition
from kernels.xpcs.twotime import Series, gather, segments, series, twotime
from kernels.xpcs.twotime.correlate import OneTime
from kernels.xpcs.twotime.pairs import Pairs
from kernels.xpcs.twotime.sums import Span
from tests.unit.kernels.cuda.emulated import Device

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")

BINS = partition(1, 11, 17, 7)


def counts(largest: int, frames: int = 83, occupied: float = 0.2) -> NDArray[np.int64]:
    """Counts of up to `largest`; nothing in one frame, and in one more nothing in bin 4."""
    random = np.random.default_rng(largest)
    shape = (frames, *BINS.static.shape)
    made = random.integers(1, largest + 1, shape) * (random.random(shape) < occupied)
    made[frames // 2] = 0
    made[frames // 3, BINS.static == 4] = 0
    made[-1, 0, :] = largest
    return np.asarray(made)


def whole(of: Series, **how: Any) -> tuple[NDArray[np.float32], OneTime]:
    """All of C2, shape (bins, frames, frames), NaN where no tile came."""
    made = np.full((int(of.bins.max()), of.frames, of.frames), np.nan, np.float32)

    def write(number: int, row: int, column: int, tile: NDArray[np.float32]) -> None:
        place = made[number - 1, row : row + tile.shape[0], column : column + tile.shape[1]]
        assert np.isnan(place).all(), "a tile came twice"
        place[...] = tile

    return made, twotime(of, write, slices=segments(of.frames, 2), **how)


def check(of: Series, tile: int, ready: cuda.CudaTwoTime | None = None) -> None:
    made, means = whole(of, gpu=ready or cuda.prepare(of, tile=tile), tile=tile)
    expected, expected_means = whole(of, way="pairs", tile=tile)
    np.testing.assert_array_equal(made, expected)
    np.testing.assert_array_equal(means.g2, expected_means.g2)
    np.testing.assert_array_equal(means.slices, expected_means.slices)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Device:
    return Device().install(monkeypatch)


@pytest.mark.parametrize("largest", [1, 127, 255, 256, 65535])
@pytest.mark.parametrize("tile", [2048, 32, 70])
def test_tiles_are_those_of_the_cpu(gpu: Device, largest: int, tile: int) -> None:
    check(gather(Counted(counts(largest)), BINS), tile)


def test_the_definition_is_met(gpu: Device) -> None:
    frames = counts(9)
    found = gather(Counted(frames), BINS)
    made, _ = whole(found, gpu=cuda.prepare(found))
    expected = twotime_plainly(frames, BINS)
    upper = np.triu_indices(len(frames))
    np.testing.assert_allclose(made[:, *upper], expected[:, *upper], rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("frames", [2, 63, 64, 65, 129])
def test_any_number_of_frames(gpu: Device, frames: int) -> None:
    check(gather(Counted(counts(3, frames, 0.9)), BINS, [2]), 64)


def test_groups_of_few_pixels_are_weighted_in_their_order(gpu: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(series, "GROUP", 7)
    check(gather(Counted(counts(200, 30)), BINS), 2048)


@pytest.mark.parametrize("largest", [255, 65535])
def test_sums_of_the_largest_group_fit(gpu: Device, largest: int) -> None:
    """All pixels of a whole group count as much as they can."""
    one = Partition(np.ones((128, 128), np.int32), np.ones((128, 128), np.int32))
    assert one.static.size == series.GROUP
    frames = np.full((2, 128, 128), largest)
    frames[1, ::2] -= 1
    check(gather(Counted(frames), one), 2048)


@pytest.mark.parametrize("seed", range(4))
def test_streams_may_run_as_they_like(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    of = gather(Counted(counts(5, 50)), BINS)
    Device(seed=seed).install(monkeypatch)
    check(of, 16)


@pytest.mark.parametrize("seed", range(3))
def test_tiles_may_be_left_out(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Some are worked on already when another is asked for, or another bin."""
    of = gather(Counted(counts(5, 80)), BINS)
    Device(seed=seed).install(monkeypatch)
    gpu = cuda.prepare(of, tile=16)
    for which in (0, 1):
        cpu = Pairs(of, which)
        gpu.bin(which)
        for first in (0, 16, 64):
            for way in (gpu, cpu):
                way.take(Span(first, first + 16))
            for column in range(first, 80, 32):
                columns = Span(column, column + 16)
                np.testing.assert_array_equal(gpu.tile(columns), cpu.tile(columns))


@pytest.mark.parametrize("gone", ["made", "back"])
def test_a_wait_that_is_left_out_shows(monkeypatch: pytest.MonkeyPatch, gone: str) -> None:
    of, wrong = gather(Counted(counts(5, 50)), BINS), 0
    expected, _ = whole(of, way="pairs", tile=16)
    for seed in range(4):
        Device(seed=seed).install(monkeypatch)
        ready = cuda.prepare(of, tile=16)
        for slot in ready._buffers.slots:
            monkeypatch.setattr(getattr(slot, gone), "record", lambda _: None)
        made, _ = whole(of, gpu=ready, tile=16)
        wrong += not np.array_equal(made, expected)
    assert wrong


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("__syncthreads();\n      for (int item", "for (int item"),
        ("      __syncthreads();\n      for (int n", "      for (int n"),
        ("sums[a + b]", "sums[a]"),
        ("left + column + SIDE > top + row", "left + column > top + row"),
        ("frame >= last", "frame > last"),
    ],
)
def test_a_mistake_in_the_source_shows(monkeypatch: pytest.MonkeyPatch, tmp_path: Any, right: str, wrong: str) -> None:
    text = cuda.SOURCE.read_text(encoding="utf-8")
    assert right in text
    (tmp_path / "twotime.cu").write_text(text.replace(right, wrong))
    monkeypatch.setattr(cuda, "SOURCE", tmp_path / "twotime.cu")
    monkeypatch.setattr(cuda, "_QUADS", 4)
    of = gather(Counted(counts(300, 70)), BINS, [1, 2])
    expected, _ = whole(of, way="pairs", tile=64)

    def shows(seed: int) -> bool:
        Device(seed=seed).install(monkeypatch)
        try:
            return not np.array_equal(whole(of, gpu=cuda.prepare(of, tile=64), tile=64)[0], expected)
        except AssertionError:  # it wrote beyond an array
            return True

    assert any(shows(seed) for seed in range(3))


def test_panels_are_as_long_as_the_memory_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    of = gather(Counted(counts(3, 200)), BINS)
    roomy = Device().install(monkeypatch)
    ready = cuda.prepare(of)
    each = 2 * 4 * ready._most.quads  # of a frame, in both panels
    rest, found = roomy.used - 256 * each, {}
    assert ready._buffers.span == 256
    for fitting in (260, 200, 70):
        device = Device(rest + fitting * each).install(monkeypatch)
        ready = cuda.prepare(of)
        found[fitting] = ready._buffers.span
        check(of, cuda.TILE, ready)
        assert device.peak <= device.memory
    assert found == {260: 256, 200: 128, 70: 64}


def test_what_does_not_fit_is_the_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    of = gather(Counted(counts(3)), BINS)
    Device(20_000).install(monkeypatch)
    choice = choose("auto", lambda: cuda.prepare(of))
    assert (choice.kind, choice.ready) == ("cpu", None)
    assert "pixels of a bin" in choice.reason
    assert choice.reason.endswith("has 2e-05 GB: take device cpu.")


def test_counts_of_more_than_two_bytes_are_the_cpus(gpu: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    of = gather(Counted(counts(65536)), BINS)
    assert choose("auto", lambda: cuda.prepare(of)).reason == (
        "Counts of 65536 are too large for the GPU, which takes 65535: take device cpu."
    )
    with pytest.raises(KernelError, match="Counts of 65536") as caught:
        choose("gpu", lambda: cuda.prepare(of))
    assert caught.value.exit_code == Exit.USAGE


def test_a_device_that_fails_is_one_sentence(gpu: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    of = gather(Counted(counts(3)), BINS)
    ready = cuda.prepare(of)

    def fail(*_: object) -> None:
        raise RuntimeError("cudaErrorLaunchFailure: unspecified launch failure\nand more")

    monkeypatch.setitem(ready._kernels, "correlate", fail)
    with pytest.raises(KernelError, match=r"unspecified launch failure\): try again"):
        whole(of, gpu=ready)
