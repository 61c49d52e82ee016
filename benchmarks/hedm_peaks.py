"""Peak search: CPU seconds for a far-field scan, from memory and from a compressed file; midas-peakfit beside it.

    python benchmarks/hedm_peaks.py [--frames 1440] [--spots 30] [--rounds 2] [--gpu] [--place DIR]
        [--rival-python PYTHON]

Frames are 2048 x 2048 of 16 bits: a level of 100 counts, noise of 4, and `--spots` spots a frame, 1 to 1.5 pixels and
0.8 to 1.4 frames wide. So that they need not all be in memory or be made anew, 48 of them, which close into a circle,
come again and again, 400 MB that no cache holds. The file has every frame in it, a chunk each, packed by bitshuffle and
LZ4, and is in the page cache when it is read. Searched is with a dark from the first 16 frames and a threshold of 30
counts, which is part of the time; compiling is not. `sums` says what only reading these frames takes: NumPy's sum of
each. With `--gpu` the frames in memory are searched by a GPU, too, and its spots are compared bit by bit.

The rival, in its own environment (see `hedm_peaks_rival.py`), has the first `--rival-frames` of the same frames in its
own archive, with the same threshold and a dark that is given; its time is scaled to as many frames as ours. It finds
peaks in each frame, and joins them over frames in a later step, which is not counted; ours are spots over frames.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests/unit/kernels/hedm/peaks")]

from spotted import profile  # noqa: E402

from kernels.compiled import threads  # noqa: E402
from kernels.hedm.frames import Frames, MemorySource, Sweep, dark_of_first, open_frames  # noqa: E402
from kernels.hedm.frames.cuda.scan import prepare  # noqa: E402
from kernels.hedm.peaks import Found, find_spots, limits  # noqa: E402

SIZE, POOL = 2048, 48
LEVEL, NOISE, THRESHOLD = 100, 4, 30.0
BAR = 20  # how many times the CPU seconds midas-peakfit takes


class Repeated(MemorySource):
    """Frames in memory that come again and again."""

    def __init__(self, stack: NDArray[np.uint16], count: int) -> None:
        super().__init__(stack)
        self.count = count

    def frames(self, first: int, beyond: int) -> NDArray[Any]:
        begin = first % len(self._stack)
        if begin + beyond - first <= len(self._stack):
            return self._stack[begin : begin + beyond - first]
        return self._stack[np.arange(first, beyond) % len(self._stack)]


def pool(spots: int, rng: np.random.Generator) -> NDArray[np.uint16]:
    """Frames that close into a circle."""
    noise = rng.normal(LEVEL, NOISE, (4, SIZE, SIZE)).astype(np.float32)
    stack = np.empty((POOL, SIZE, SIZE), np.uint16)
    light = np.zeros((POOL, SIZE, SIZE), np.float32)
    for _ in range(spots * POOL):
        row, column = rng.uniform(20, SIZE - 20, 2)
        along = profile(POOL, rng.uniform(0, POOL), rng.uniform(0.8, 1.4), turn=True)
        at, beside = int(row) - 8, int(column) - 8
        across = np.outer(*(profile(17, place, rng.uniform(1, 1.5)) for place in (row - at, column - beside)))
        near = np.flatnonzero(along > 1e-6)
        bright = rng.lognormal(9, 1)
        light[near, at : at + 17, beside : beside + 17] += bright * along[near, None, None] * across
    for n in range(POOL):
        shifted = np.roll(noise[n % 4], tuple(rng.integers(0, SIZE, 2)), axis=(0, 1))
        stack[n] = np.clip(np.rint(shifted + light[n]), 0, 65535)
    return stack


def write(path: Path, stack: NDArray[np.uint16], count: int) -> None:
    """The frames, each packed once and written as often as it comes."""
    how = {**hdf5plugin.Bitshuffle(cname="lz4"), "chunks": (1, SIZE, SIZE)}
    with h5py.File(path, "w") as file:
        once = file.create_dataset("once", data=stack, **how)
        data = file.create_dataset("entry/data/data", (count, SIZE, SIZE), np.uint16, **how)
        for n in range(count):
            _, packed = once.id.read_direct_chunk((n % POOL, 0, 0))
            data.id.write_direct_chunk((n, 0, 0), packed)
        file["entry/sample/goniometer/omega"] = np.arange(count) * 0.25


def search(frames: Frames, *, gaussians: bool = False, gpu: bool = False) -> Found:
    chosen, scanner = limits(frames, dark_of_first(frames), threshold=THRESHOLD), prepare(frames) if gpu else None
    return find_spots(frames, chosen, gaussians=gaussians, scanner=scanner)


def compare(found: Found, other: Found) -> None:
    for field in fields(found.spots):
        if not np.array_equal(getattr(found.spots, field.name), getattr(other.spots, field.name), equal_nan=True):
            raise SystemExit(f"the GPU finds other spots: their {field.name} differ")


def timed(name: str, work: Callable[[], Any], rounds: int) -> tuple[Any, float]:
    """What comes out, and the least CPU seconds."""
    cpu = wall = np.inf
    for _ in range(rounds):
        begun, on_wall = time.process_time(), time.perf_counter()
        found = work()
        cpu, wall = min(cpu, time.process_time() - begun), min(wall, time.perf_counter() - on_wall)
    print(f"{name}: {cpu:.2f} CPU s, {wall:.2f} s", flush=True)
    return found, float(cpu)


def rival(python: str, stack: NDArray[np.uint16], count: int, *, gaussians: bool, folder: Path) -> float | None:
    """Its CPU seconds for the first frames; None where it is absent or fails."""
    if not python:
        return None
    frames = folder / "frames.npy"
    if not frames.exists():
        np.save(frames, stack)
    said = [str(frames), str(count), str(LEVEL), str(THRESHOLD), str(int(gaussians)), str(folder)]
    line = [python, str(ROOT / "benchmarks" / "hedm_peaks_rival.py"), *said]
    environment = {**os.environ, "PYTHONPATH": "", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"the rival failed: {done.stderr[-500:]}", flush=True)
        return None
    return float(done.stdout.split()[-1])


def told(name: str, ours: float, theirs: float | None) -> None:
    other, ratio = ("-", "-") if theirs is None else (f"{theirs:.0f}", f"{theirs / ours:.0f}")
    print(f"RESULT name={name} ours={ours:.2f} rival={other} ratio={ratio} bar={BAR}", flush=True)


def measure(place: Path, chosen: argparse.Namespace) -> None:
    count, spots, rounds = chosen.frames, chosen.spots, chosen.rounds
    stack = pool(spots, np.random.default_rng(1))
    omegas = Sweep(0, 0.25)
    search(Frames(MemorySource(stack[:20]), omegas=omegas), gaussians=True)  # compiled
    in_memory = Frames(Repeated(stack, count), omegas=omegas)
    print(f"{count} frames of {SIZE} x {SIZE}, {spots} spots a frame, {threads()} threads", flush=True)
    timed("sums", lambda: [int(stack[n % POOL].sum()) for n in range(count)], rounds)
    found, from_memory = timed("from memory", lambda: search(in_memory), rounds)
    print(f"{len(found.spots)} spots of {int(found.spots.pixels.sum())} pixels; {found.met}", flush=True)
    _, with_fits = timed("from memory, with Gaussians", lambda: search(in_memory, gaussians=True), rounds)
    if chosen.gpu:
        by_gpu, _ = timed("from memory, by the GPU", lambda: search(in_memory, gpu=True), rounds)
        compare(found, by_gpu)
    path = place / "scan.h5"
    write(path, stack, count)
    print(f"file of {path.stat().st_size / 1e9:.2f} GB", flush=True)
    search(open_frames(str(path), beyond=20))
    packed, from_file = timed("from the file", lambda: search(open_frames(str(path))), rounds)
    if len(packed.spots) != len(found.spots):
        raise SystemExit(f"{len(packed.spots)} spots from the file, {len(found.spots)} from memory")
    path.unlink()
    theirs: list[float | None] = []
    for gaussians in (False, True):
        spent = rival(chosen.rival_python, stack, chosen.rival_frames, gaussians=gaussians, folder=place)
        theirs.append(None if spent is None else spent * count / chosen.rival_frames)
    told("hedm_peaks_memory_cpu_s", from_memory, theirs[0])
    told("hedm_peaks_file_cpu_s", from_file, theirs[0])
    told("hedm_peaks_gaussians_cpu_s", with_fits, theirs[1])


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--frames", type=int, default=1440)
    options.add_argument("--spots", type=int, default=30)
    options.add_argument("--rounds", type=int, default=2)
    options.add_argument("--rival-python", default="")
    options.add_argument("--rival-frames", type=int, default=24)
    options.add_argument("--gpu", action="store_true")
    options.add_argument("--place", default=tempfile.gettempdir())
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="bw-peaks-", dir=chosen.place) as name:
        measure(Path(name), chosen)
    return 0


if __name__ == "__main__":
    sys.exit(main())
