"""Multi-tau sums of an emulated GPU are those of the CPU to the last bit, in any batches, in any order that streams
allow; and what cannot be is one sentence."""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np
import pytest
from counted import Counted, partition
from numpy.typing import NDArray

from kernels.cuda.device import choose
from kernels.errors import Exit, KernelError
from kernels.ranks import Ranks
from kernels.xpcs.cuda import multitau as cuda
from kernels.xpcs.events import Events
from kernels.xpcs.multitau import MultiTau, multitau
from kernels.xpcs.partition import Partition
from tests.unit.kernels.cuda.emulated import Device

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")

ROWS, COLUMNS = 5, 13
BINS = partition(3, ROWS, COLUMNS, 6, 2)


def light(frames: int, mean: float, seed: int = 0) -> NDArray[np.int64]:
    """Counts that are bunched, and brighter here than there: some pixels have none."""
    random = np.random.default_rng(seed)
    rate = mean * random.exponential(size=(frames, 1, 1)) * random.uniform(-0.2, 2, (ROWS, COLUMNS)).clip(0)
    return random.poisson(rate)


def on_gpu(frames: Any, bins: Partition = BINS, *, per_level: int = 4, ranks: Ranks | None = None) -> MultiTau:
    ranks = ranks or Ranks()
    return cuda.multitau(frames, bins, cuda.prepare(frames, bins, per_level=per_level, ranks=ranks), ranks)


def check(made: MultiTau, expected: MultiTau) -> None:
    np.testing.assert_array_equal(made.sums, expected.sums)
    for name in ("g2", "g2_err", "partial", "partial_err"):
        np.testing.assert_array_equal(getattr(made, name), getattr(expected, name))


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Device:
    return Device().install(monkeypatch)


@pytest.mark.parametrize(
    ("frames", "mean", "per_level"),
    [
        (2, 0.5, 4),
        (3, 2, 4),
        (9, 0.3, 4),
        (333, 0.01, 4),
        (700, 0.3, 4),
        (130, 5, 3),
        (100, 300, 4),  # two bytes
        (64, 70000, 5),  # four
        (65, 0.1, 1),
        (77, 0.1, 2),
        (90, 0.5, 9),
        (300, 0.05, 64),
    ],
)
def test_sums_are_those_of_the_cpu(gpu: Device, frames: int, mean: float, per_level: int) -> None:
    counts = light(frames, mean)
    check(on_gpu(Counted(counts), per_level=per_level), multitau(Counted(counts), BINS, per_level=per_level))


@pytest.mark.parametrize("cost", [1, 3, 64])  # of an event: lists alone, both, frames alone
@pytest.mark.parametrize(("tile", "frames"), [(32, 31), (32, 33), (32, 100), (64, 300)])
def test_batches_and_ways_change_nothing(
    gpu: Device, monkeypatch: pytest.MonkeyPatch, cost: int, tile: int, frames: int
) -> None:
    """Batches end in the middle of pairs of frames at any level, and a level may get no frame of a batch."""
    monkeypatch.setattr(cuda, "TILE", tile)
    monkeypatch.setattr(cuda, "_COST", cost)
    counts = light(frames, 0.15, seed=cost)
    check(on_gpu(Counted(counts)), multitau(Counted(counts), BINS))


@pytest.mark.parametrize("seed", range(4))
def test_streams_may_run_as_they_like(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Pieces of fewer events than a frame has, and blocks of more frames than a batch."""
    monkeypatch.setattr(cuda, "TILE", 32)
    monkeypatch.setattr(cuda, "_STAGED", 23)
    counts = light(90, 0.5)
    Device(seed=seed).install(monkeypatch)
    check(on_gpu(Counted(counts, 1 + 20 * seed)), multitau(Counted(counts), BINS))


@pytest.mark.parametrize("gone", ["arrived", "placed"])
def test_a_wait_that_is_left_out_shows(monkeypatch: pytest.MonkeyPatch, gone: str) -> None:
    monkeypatch.setattr(cuda, "TILE", 32)
    monkeypatch.setattr(cuda, "_STAGED", 23)
    counts, ranks, wrong = light(90, 0.5), Ranks(), 0
    expected = multitau(Counted(counts), BINS)
    for seed in range(4):
        Device(seed=seed).install(monkeypatch)
        ready = cuda.prepare(Counted(counts), BINS, per_level=4, ranks=ranks)
        for slot in ready._staged:
            monkeypatch.setattr(getattr(slot, gone), "record", lambda _: None)
        made = cuda.multitau(Counted(counts), BINS, ready, ranks)
        wrong += not np.array_equal(made.sums, expected.sums)
    assert wrong


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("__syncwarp(); // the last places that were read", "// the last places that were read"),
        ("atomicAdd(&tallies[", "tallies[0] += 0; atomicMax(&tallies["),
        ("whole -= last[EDGE - 1];", "whole -= 0 * last[EDGE - 1];"),
        ("kept + n < before ?", "false ?"),
        ("- lag - k]", "- lag]"),
        ("(both ? list.counts[j + 1] : 0)", "(both ? 1 : 0)"),
    ],
)
def test_a_mistake_in_the_source_shows(
    gpu: Device, monkeypatch: pytest.MonkeyPatch, tmp_path: Any, right: str, wrong: str
) -> None:
    text = cuda.SOURCE.read_text(encoding="utf-8")
    assert right in text
    (tmp_path / "multitau.cu").write_text(text.replace(right, wrong))
    monkeypatch.setattr(cuda, "SOURCE", tmp_path / "multitau.cu")
    monkeypatch.setattr(cuda, "TILE", 64)
    monkeypatch.setattr(cuda, "_PIXELS", 5)
    counts = light(170, 0.1)
    expected = multitau(Counted(counts), BINS)

    def shows(seed: int) -> bool:
        Device(seed=seed).install(monkeypatch)
        try:
            return not np.array_equal(on_gpu(Counted(counts)).sums, expected.sums)
        except AssertionError:  # it wrote beyond an array
            return True

    assert any(shows(seed) for seed in range(3))


def test_pixels_without_counts_and_a_single_event(gpu: Device) -> None:
    counts = np.zeros((40, ROWS, COLUMNS), np.int64)
    assert not on_gpu(Counted(counts)).sums.any()
    counts[[3, 11, 39], 2, 3] = 2
    check(on_gpu(Counted(counts)), multitau(Counted(counts), BINS))


def test_a_bin_of_more_pixels_than_a_block_settles(gpu: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "_PIXELS", 3)
    counts = light(50, 0.5)
    check(on_gpu(Counted(counts)), multitau(Counted(counts), BINS))


class Shares(Ranks):
    """One of several ranks, without the others: what it gathers is what it gave."""

    def gathered(self, value: Any) -> list[Any]:
        return [value]

    def told(self, value: Any) -> Any:
        return value


@pytest.mark.parametrize("size", [3, 80])
def test_shares_of_ranks_add_up(gpu: Device, size: int) -> None:
    """Each has the pixels that it has on the CPU. Of 80 ranks some have none, and need no GPU's memory for it."""
    counts = light(40, 0.3)
    parts = [on_gpu(Counted(counts), ranks=Shares(rank, size)).sums for rank in range(size)]
    for rank in (0, size - 1):
        wanted = multitau(Counted(counts), BINS, ranks=Shares(rank, size)).sums
        np.testing.assert_array_equal(parts[rank], wanted)
    np.testing.assert_array_equal(sum(parts), multitau(Counted(counts), BINS).sums)


def test_sums_beyond_32_bits_and_beyond_what_they_hold(gpu: Device) -> None:
    """A pixel with 2^31 - 1 photons is still exact; one photon more is refused, in the words of the CPU."""
    static = np.array([[1, 2]], np.int32)
    bins = Partition(static, static)
    counts = np.ones((2, 1, 2), np.int64)
    counts[:, 0, 0] = 2**30, 2**30 - 1
    check(on_gpu(Counted(counts), bins), multitau(Counted(counts), bins))
    counts[1, 0, 0] += 1
    said = []
    for way in (on_gpu, multitau):
        with pytest.raises(KernelError, match="2147483648 photons") as caught:
            way(Counted(counts), bins)  # type: ignore[operator]
        said.append((caught.value.sentence, caught.value.exit_code))
    assert said[0] == said[1]


@pytest.mark.parametrize("seed", range(4))
def test_products_of_bright_pixels_are_exact(gpu: Device, seed: int) -> None:
    """Values at high levels have 31 bits, sums of products 62."""
    counts = np.random.default_rng(seed).integers(0, 2**26, (31, ROWS, COLUMNS))
    check(on_gpu(Counted(counts)), multitau(Counted(counts), BINS))


def test_bad_input_is_said(gpu: Device) -> None:
    counts = light(20, 0.2)
    with pytest.raises(KernelError, match="has 1 frames; a delay needs two"):
        on_gpu(Counted(counts[:1]))
    with pytest.raises(KernelError, match="both need the shape of the detector"):
        on_gpu(Counted(counts[:, 1:]))
    with pytest.raises(KernelError, match="one at least"):
        on_gpu(Counted(counts), per_level=0)
    short = Counted(counts)
    short.count = 21
    with pytest.raises(KernelError, match="has 20 frames and said that they are 21"):
        on_gpu(short)
    first, second, *_ = Counted(counts).blocks()
    ready = cuda.prepare(Counted(counts), BINS, per_level=4, ranks=Ranks())
    with pytest.raises(KernelError, match="Frame 0 was to come, and frame 7 came"):
        ready.feed(second)
    ready.feed(first)
    with pytest.raises(KernelError, match="not where the frames say"):
        ready.feed(second._replace(pixels=second.pixels[:-1]))
    bright = second._replace(counts=np.full(len(second.counts), 300, np.uint32))
    with pytest.raises(KernelError, match="has counted 300 from frame 7 on, where no count was to be above 255"):
        ready.feed(bright)


def test_pixels_beyond_the_detector_are_in_no_bin(gpu: Device) -> None:
    """As on the CPU; and nothing is read where there is no pixel."""
    counts = light(20, 0.4)

    class Beyond(Counted):
        def blocks(self) -> Any:
            for events in super().blocks():
                ends = events.starts[1:]
                far = np.array([ROWS * COLUMNS, 2**32 - 1], np.uint32)
                yield Events(
                    events.first,
                    events.starts + 2 * np.arange(len(events.starts)),
                    np.insert(events.pixels, np.repeat(ends, 2), np.tile(far, len(ends))),
                    np.insert(events.counts, np.repeat(ends, 2), 9),
                )

    check(on_gpu(Beyond(counts)), multitau(Counted(counts), BINS))


def test_batches_are_as_long_as_the_memory_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "_STAGED", 1000)
    counts = light(200, 0.4)
    frames, expected = Counted(counts), multitau(Counted(counts), BINS)
    roomy = Device().install(monkeypatch)
    ready = cuda.prepare(frames, BINS, per_level=4, ranks=Ranks())
    rest = roomy.used - cuda.TILE * len(BINS.pixels)
    found = {}
    for frames_that_fit in (600, 511, 200, 40):
        device = Device(rest + frames_that_fit * len(BINS.pixels)).install(monkeypatch)
        ready = cuda.prepare(frames, BINS, per_level=4, ranks=Ranks())
        found[frames_that_fit] = ready._room
        check(cuda.multitau(frames, BINS, ready, Ranks()), expected)
        assert device.peak <= device.memory
    assert found == {600: 512, 511: 256, 200: 128, 40: 32}


def test_sums_that_do_not_fit_are_the_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setattr(cuda, "_STAGED", 1000)
    frames = Counted(light(200, 0.4))

    def prepare() -> Any:
        return cuda.prepare(frames, BINS, per_level=4, ranks=Ranks())

    Device(30_000).install(monkeypatch)
    choice = choose("auto", prepare)
    assert (choice.kind, choice.ready) == ("cpu", None)
    assert "pixels at 6 levels need about" in choice.reason
    assert choice.reason.endswith("has 3e-05 GB: take device cpu.")
    with pytest.raises(KernelError, match="take device cpu") as caught:
        choose("gpu", prepare)
    assert caught.value.exit_code == Exit.USAGE
    busy = Device(1_000_000).install(monkeypatch)
    busy.used = 990_000
    with pytest.raises(KernelError, match="others use") as caught:
        choose("gpu", prepare)
    assert caught.value.exit_code == Exit.TRANSIENT


def test_a_device_that_fails_is_one_sentence(gpu: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = Counted(light(20, 0.4))
    ready = cuda.prepare(frames, BINS, per_level=4, ranks=Ranks())

    def fail(*_: object) -> None:
        raise RuntimeError("cudaErrorIllegalAddress: an illegal memory access was encountered\nand more")

    monkeypatch.setitem(ready._kernels, "place_counts", fail)
    with pytest.raises(KernelError, match=r"illegal memory access was encountered\): try again"):
        ready.feed(next(iter(frames.blocks())))
