"""The scan of frames on an emulated GPU is that of the CPU to the last bit, in any order that streams allow; and what
cannot be is one sentence."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import pytest
from numpy.typing import NDArray

from kernels.errors import Exit, KernelError
from kernels.hedm.frames import Dark, Frames, GeSource, Hdf5Source, MemorySource, SeriesSource, Sweep, flat_dark
from kernels.hedm.frames.cache import CacheSource
from kernels.hedm.frames.cuda import scan as cuda
from kernels.hedm.frames.source import Limits, Source
from kernels.hedm.peaks import limits
from kernels.ranks import Ranks
from tests.unit.kernels.cuda.emulated import Device

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")

SHAPE = (9, 43, 101)  # four pieces and a part of one, on more than one warp of a block


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Device:
    return Device().install(monkeypatch)


def stack_of(kind: str, shape: tuple[int, int, int] = SHAPE, seed: int = 0) -> NDArray[Any]:
    """A level, noise, and bright pixels; frames that are empty, full, or too bright."""
    rng = np.random.default_rng(seed)
    stack = rng.integers(90, 110, shape)
    bright = rng.uniform(size=shape) < 0.01
    stack[bright] = rng.integers(110, 200 if kind == "uint8" else 65536, int(bright.sum()))
    stack[1::5] = 0
    made = stack.astype(kind)
    if kind == "uint32":
        made[:, 7] = 0xFFFFFFFF
        made[0, 8, :5] = 0xFFFFFFF0
        made[2, 9] = 16777217 + np.arange(shape[2])  # no float of 32 bits
    if kind == "int32":
        made[:, 7] = -2
        made[0, 8, :5] = 2**31 - 1
    if kind == "float32":
        made[:, 7] = np.nan
        made[2, 9] += np.float32(0.1)
    return made


def limits_of(frames: Frames, saturation: float | None = 50_000) -> Limits:
    """Of pixels that have a dark and a threshold of their own, or none."""
    rng = np.random.default_rng(3)
    level = rng.uniform(95, 105, (frames.rows, frames.columns)).astype(np.float32)
    level[:, 20] = np.nan
    return limits(frames, Dark(level, np.full_like(level, 2)), threshold=6.5, saturation=saturation)


def scanned(frames: Frames, chosen: Limits, gpu: cuda.CudaScan | None, **how: Any) -> tuple[list[Any], Counter[str]]:
    tally: Counter[str] = Counter()
    return list(frames.blocks(chosen, tally, scanner=gpu, **how)), tally


def check(source: Source, chosen: Limits | None = None, **how: Any) -> int:
    """How many pixels both find, which have to be the same."""
    frames = Frames(source, omegas=Sweep(0, 0.25))
    chosen = chosen or limits_of(frames)
    ours, met = scanned(frames, chosen, cuda.prepare(frames), **how)
    theirs, wanted = scanned(frames, chosen, None, **how)
    assert met == wanted
    assert len(ours) == len(theirs)
    for block, other in zip(ours, theirs, strict=True):
        for name, mine, his in zip(block._fields, block, other, strict=True):
            np.testing.assert_array_equal(mine, his, err_msg=name)
            assert getattr(mine, "dtype", None) == getattr(his, "dtype", None)
    return sum(len(block.pixels) for block in ours)


@pytest.mark.parametrize("kind", ["uint8", "uint16", "int16", "uint32", "int32", "uint64", "float32", "float64"])
def test_pixels_are_those_of_the_cpu(gpu: Device, kind: str) -> None:
    assert check(MemorySource(stack_of(kind))) > 200
    frames = Frames(MemorySource(stack_of(kind)), omegas=Sweep(0, 1))
    check(frames.source, limits(frames, flat_dark(-3, frames), threshold=120), at_once=4)


@pytest.mark.parametrize("shape", [(1, 2, 2), (3, 1, 1023), (2, 32, 32), (2, 5, 205), (5, 90, 100)])
def test_frames_of_any_size(gpu: Device, shape: tuple[int, int, int]) -> None:
    bright = np.random.default_rng(1).uniform(size=shape) < 0.1
    bright.flat[-1] = True
    frames = Frames(MemorySource(np.where(bright, 999, 5).astype(np.uint16)), omegas=Sweep(0, 1))
    assert check(frames.source, limits(frames, flat_dark(0, frames), threshold=880), at_once=2) == bright.sum()


@pytest.mark.parametrize("part", [range(9), range(2, 7), range(8, 9), range(4, 4)])
@pytest.mark.parametrize("at_once", [1, 2, 3, None])
def test_blocks_and_parts(gpu: Device, part: range, at_once: int | None) -> None:
    check(MemorySource(stack_of("uint16")), part=part, at_once=at_once)


def test_full_frames_are_counted_and_crowded_ones_refused(gpu: Device) -> None:
    stack = stack_of("uint16")
    stack[3] = 65535
    check(MemorySource(stack), at_once=2)
    stack[6, :20] = 2000
    frames = Frames(MemorySource(stack), omegas=Sweep(0, 0.25))
    with pytest.raises(KernelError, match="more than a quarter of the pixels of frame 6"):
        scanned(frames, limits_of(frames), cuda.prepare(frames), at_once=2)


def test_sources_read_into_memory_that_is_given(gpu: Device, tmp_path: Path) -> None:
    stack = stack_of("uint16")
    ge = tmp_path / "a.ge3"
    ge.write_bytes(bytes(8192) + stack.tobytes())
    check(GeSource(str(ge), shape=SHAPE[1:]), at_once=4)
    for name, kind, how in (
        ("plain", "uint16", {}),
        ("bytes", "uint8", {"chunks": (2, 10, 20), "compression": "gzip"}),
        ("large", "uint64", {"chunks": (4, *SHAPE[1:])}),
        ("packed", "uint16", {**hdf5plugin.Bitshuffle(cname="lz4"), "chunks": (1, *SHAPE[1:])}),
    ):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file.create_dataset("entry/data/data", data=stack_of(kind), **how)
        check(Hdf5Source(str(tmp_path / f"{name}.h5")), at_once=4)
    fabio = pytest.importorskip("fabio")
    paths = [str(tmp_path / f"s_{n:03}.tif") for n in range(len(stack))]
    for frame, path in zip(stack, paths, strict=True):
        fabio.tifimage.TifImage(data=frame).write(path)
    check(SeriesSource(paths), at_once=4)


@pytest.mark.parametrize("seed", range(4))
def test_streams_may_run_as_they_like(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    Device(seed=seed).install(monkeypatch)
    assert check(MemorySource(stack_of("uint16", (12, 30, 40), seed)), at_once=1 + seed % 3)


@pytest.mark.parametrize("gone", ["arrived", "marked", "fetched"])
def test_a_wait_that_is_left_out_shows(monkeypatch: pytest.MonkeyPatch, gone: str) -> None:
    frames = Frames(MemorySource(stack_of("uint16", (12, 30, 40))), omegas=Sweep(0, 1))
    chosen = limits_of(frames)
    wanted, _ = scanned(frames, chosen, None, at_once=2)
    wrong = 0
    for seed in range(6):
        Device(seed=seed).install(monkeypatch)
        ready = cuda.prepare(frames)
        for each in (ready._room, *ready._room.slots):
            if hasattr(each, gone):
                monkeypatch.setattr(getattr(each, gone), "record", lambda _: None)
        try:
            made, _ = scanned(frames, chosen, ready, at_once=2)
            wrong += any(
                not np.array_equal(a, b) for m, w in zip(made, wanted, strict=True) for a, b in zip(m, w, strict=True)
            )
        except (KernelError, IndexError, AssertionError, ValueError):
            wrong += 1
    assert wrong


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("value > above[pixel]", "value >= above[pixel]"),
        ("value >= saturation", "value > saturation"),
        ("(1u << lane) - 1", "(2u << lane) - 1"),
        ("out += __popc(word);", ";"),
        ("atomicAdd(&told[3 * frame], full)", "told[3 * frame] = full"),
        ("- dark[pixel]", "- dark[0]"),
        ("word >> lane & 1", "word >> (lane ^ 1) & 1"),
        ("if (out < 0)", "if (out < -1)"),
        ("if (piece >= pieces)", "if (piece > pieces)"),
    ],
)
def test_a_mistake_in_the_source_shows(
    gpu: Device, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, right: str, wrong: str
) -> None:
    text = cuda.SOURCE.read_text(encoding="utf-8")
    assert right in text
    stack = stack_of("uint16")
    stack[0, ::30, :50] = 50_000  # in two pieces
    stack[0, 1, :50] = 112
    stack[6] = 65535  # of which nothing is wanted
    level = 80 + np.arange(stack[0].size, dtype=np.float32).reshape(SHAPE[1:]) % 8
    frames = Frames(MemorySource(stack), omegas=Sweep(0, 1))
    chosen = limits(frames, Dark(level, None), threshold=30, saturation=50_000)
    check(frames.source, chosen)
    (tmp_path / "scan.cu").write_text(text.replace(right, wrong))
    monkeypatch.setattr(cuda, "SOURCE", tmp_path / "scan.cu")
    with pytest.raises((AssertionError, KernelError)):
        check(frames.source, chosen)


def test_fewer_frames_at_once_where_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    source = MemorySource(stack_of("uint16", (64, 32, 64)))
    Device(memory=100_000).install(monkeypatch)
    ready = cuda.prepare(Frames(source, omegas=Sweep(0, 1)))
    assert 1 < ready.at_once < 64
    at_once = ready.at_once
    del ready
    assert check(source, at_once=at_once)


@pytest.mark.parametrize(
    ("device", "sentence", "code"),
    [
        (
            lambda: Device(memory=10_000),
            r"Frames of 4343 pixels need about .* GB of the GPU, and Emulated GPU has",
            Exit.USAGE,
        ),
        (lambda: Device(count=0), "sees no GPU|cannot be opened", Exit.USAGE),
    ],
)
def test_what_cannot_be_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, device: Callable[[], Device], sentence: str, code: int
) -> None:
    device().install(monkeypatch)
    frames = Frames(MemorySource(stack_of("uint16")), omegas=Sweep(0, 1))
    with pytest.raises(KernelError, match=sentence) as error:
        cuda.prepare(frames)
    assert error.value.exit_code == code


def test_a_device_that_fails_at_work_is_told(gpu: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = Frames(MemorySource(stack_of("uint16")), omegas=Sweep(0, 1))
    ready = cuda.prepare(frames)

    def fails(*_: object) -> None:
        raise RuntimeError("cudaErrorLaunchFailure: unspecified\nmore")

    monkeypatch.setitem(ready._kernels, "gather", fails)
    with pytest.raises(KernelError, match=r"The GPU failed \(cudaErrorLaunchFailure: unspecified\)") as error:
        scanned(frames, limits_of(frames), ready)
    assert error.value.exit_code == Exit.TRANSIENT


def test_nothing_is_under_way_when_the_frames_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a frame that is refused: the memory goes to others."""
    frames = Frames(MemorySource(stack_of("uint16")), omegas=Sweep(0, 1))
    chosen = limits_of(frames)
    some = 0
    for seed in range(4):
        device = Device(seed=seed).install(monkeypatch)
        looks = cuda.prepare(frames).look(frames.source, [0, 2, 4, 6], chosen, chosen.above(frames.kind))
        next(looks)
        some += any(stream.queue for stream in device.streams)
        looks.close()
        assert not any(stream.queue for stream in device.streams)
    assert some


def test_what_the_source_says_is_not_blamed_on_the_device(gpu: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    source = MemorySource(stack_of("uint16"))
    frames = Frames(source, omegas=Sweep(0, 1))

    def fill(first: int, beyond: int, into: NDArray[Any]) -> None:
        raise KernelError("frame 5 is damaged", Exit.BAD_INPUT)

    monkeypatch.setattr(source, "fill", fill)
    with pytest.raises(KernelError, match="frame 5 is damaged"):
        scanned(frames, limits_of(frames), cuda.prepare(frames))


def test_who_scans(gpu: Device, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stack = stack_of("uint16")
    with h5py.File(tmp_path / "packed.h5", "w") as file:
        how = {**hdf5plugin.Bitshuffle(cname="lz4"), "chunks": (1, *SHAPE[1:])}
        file.create_dataset("entry/data/data", data=stack, **how)
    np.savez(tmp_path / "c.npz", **{"0_row": [1], "0_col": [2], "0_data": [9], "shape": SHAPE[1:], "nframes": 1})
    laid, packed, sparse = (
        Frames(source, omegas=Sweep(0, 1))
        for source in (
            MemorySource(stack),
            Hdf5Source(str(tmp_path / "packed.h5")),
            CacheSource(str(tmp_path / "c.npz")),
        )
    )
    alone = Ranks()
    monkeypatch.setattr(cuda, "threads", lambda: 1)
    monkeypatch.setattr(cuda, "_LEAST_BYTES", 2 * stack[0].nbytes)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert cuda.choose_for(laid, "auto", alone)[:2] == ("cpu", "")
    assert cuda.choose_for(packed, "auto", alone)[:2] == ("cpu", "")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert cuda.choose_for(laid, "auto", alone).kind == "gpu"
    assert cuda.choose_for(laid, "cpu", alone).kind == "cpu"
    assert cuda.choose_for(packed, "gpu", alone).kind == "gpu"
    with pytest.raises(KernelError, match="sparse: there is nothing to scan on a GPU"):
        cuda.choose_for(sparse, "gpu", alone)
    assert cuda.choose_for(laid, "auto", Ranks(0, 4)).kind == "gpu"
    assert "less time than a GPU needs to begin" in cuda.choose_for(laid, "auto", Ranks(0, 5)).reason
    monkeypatch.setattr(cuda, "threads", lambda: 2)
    for frames, reason in ((packed, "packed"), (sparse, "sparse"), (laid, "as fast as they are read")):
        kind, why, _ = cuda.choose_for(frames, "auto", alone)
        assert kind == "cpu"
        assert reason in why
    assert cuda.choose_for(laid, "gpu", alone).kind == "gpu"
