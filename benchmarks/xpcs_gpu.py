"""XPCS on a GPU beside our own on the CPU, in this run, on the same frames, every bit compared.

    python benchmarks/xpcs_gpu.py [--frames 2000] [--means 0.0101 0.116] [--rounds 3]

Frames and bins are those of `benchmarks/xpcs.py`: 516 x 1556 pixels, 27 dynamic and 270 static bins, 1 % and 10 % of
the pixels occupied. Times are those of the clock, the least of the rounds: of g2 from events in the host's memory to g2
there; of two times from the counts by pixel in the host's memory to all tiles there, with the means of their diagonals,
which the host takes. What is made ready once (source, memory) is told apart. `off_cpu` is how many sums, tiles
or g2 differ from the CPU's, and has to be 0.

Beside them stand the limits, measured here: the bytes that have to be copied over what copies to and from the device
reach.

Without a GPU, or without CuPy, it says so, and ends with 0.
"""

from __future__ import annotations

import argparse
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.xpcs import rings, said, speckle
from kernels.compiled import threads
from kernels.ranks import Ranks
from kernels.xpcs.multitau import multitau
from kernels.xpcs.partition import Partition
from kernels.xpcs.twotime import gather, twotime

_MEGABYTES = 256


def least_ms(work: Callable[[Any], Any], rounds: int, ready: Callable[[], Any]) -> float:
    """`work` with what `ready` makes, which is not counted; once more than counted, since the first compiles."""
    times = []
    for _ in range(rounds + 1):
        given = ready()
        begun = time.perf_counter()
        work(given)
        times.append(time.perf_counter() - begun)
    return 1e3 * min(times[1:])


def copies(cuda: Any) -> tuple[float, float]:
    """Bytes per second to the device, and from it."""
    size, finish = _MEGABYTES << 20, cuda.cupy.cuda.Device().synchronize
    host, there = cuda.cupyx.empty_pinned((size,), np.uint8), cuda.cupy.ndarray((size,), np.uint8)
    host[:] = 1
    found = []
    for copy in (there.data.copy_from_host_async, there.data.copy_to_host_async):
        begun = time.perf_counter()
        for _ in range(4):
            copy(host.ctypes.data, size)
        finish()
        found.append(4 * size / (time.perf_counter() - begun))
    return found[0], found[1]


def compare_multitau(frames: Any, bins: Partition, mean: float, rounds: int, up: float) -> None:
    from kernels.xpcs.cuda.multitau import multitau as on_gpu
    from kernels.xpcs.cuda.multitau import prepare

    ranks = Ranks()
    begun = time.perf_counter()
    made = on_gpu(frames, bins, prepare(frames, bins, per_level=4, ranks=ranks), ranks)
    first = time.perf_counter() - begun
    expected = multitau(frames, bins)
    ours = least_ms(
        lambda ready: on_gpu(frames, bins, ready, ranks),
        rounds,
        lambda: prepare(frames, bins, per_level=4, ranks=ranks),
    )
    cpu = least_ms(lambda _: multitau(frames, bins), rounds, lambda: None)
    moved = sum(events.pixels.nbytes + events.counts.nbytes + events.starts.nbytes for events in frames.blocks())
    print(f"g2 of {frames.count} frames, mean {mean:g}: GPU {ours:.1f} ms, {threads()} threads of CPU {cpu:.1f} ms")
    print(f"made ready and run for the first time in {first:.2f} s")
    print(f"limit by copies: {1e3 * moved / up:.1f} ms, {1e3 * moved / up / ours:.2f} of ours", flush=True)
    said(f"gpu_multitau_{mean:g}_ms", ours, cpu, 0)
    differing = int((made.sums != expected.sums).sum() + (made.g2 != expected.g2).sum())
    print(f"RESULT name=gpu_multitau_{mean:g}_off_cpu ours={differing} rival=0 ratio=- bar=0", flush=True)


def compare_twotime(frames: Any, bins: Partition, mean: float, rounds: int, down: float) -> None:
    from kernels.xpcs.cuda.twotime import prepare

    series = gather(frames, bins)
    begun = time.perf_counter()
    gpu = prepare(series)
    ready_s = time.perf_counter() - begun
    found: dict[tuple[int, ...], int] = {}
    differing = moved = 0

    def keep(number: int, row: int, column: int, tile: NDArray[np.float32]) -> None:
        found[number, row, column, *tile.shape] = zlib.adler32(tile.tobytes())

    def compare(number: int, row: int, column: int, tile: NDArray[np.float32]) -> None:
        nonlocal differing, moved
        differing += found.pop((number, row, column, *tile.shape), None) != zlib.adler32(tile.tobytes())
        moved += tile.nbytes

    expected, made = twotime(series, keep), twotime(series, compare, gpu=gpu)
    differing += len(found) + int((made.g2 != expected.g2).sum())
    ours = least_ms(lambda _: twotime(series, lambda *_: None, gpu=gpu), rounds, lambda: None)
    cpu = least_ms(lambda _: twotime(series, lambda *_: None), rounds, lambda: None)
    print(f"two times of {series.frames} frames, mean {mean:g}: GPU {ours:.1f} ms, {threads()} threads {cpu:.1f} ms")
    print(f"made ready in {ready_s:.2f} s")
    print(f"limit by copies: {1e3 * moved / down:.1f} ms, {1e3 * moved / down / ours:.2f} of ours", flush=True)
    said(f"gpu_twotime_{mean:g}_ms", ours, cpu, 0)
    print(f"RESULT name=gpu_twotime_{mean:g}_off_cpu ours={differing} rival=0 ratio=- bar=0", flush=True)


def main() -> int:
    from kernels.cuda.device import open_device
    from kernels.errors import KernelError

    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--frames", type=int, default=2000)
    options.add_argument("--means", type=float, nargs="+", default=[0.0101, 0.116])
    options.add_argument("--rounds", type=int, default=3)
    chosen = options.parse_args()
    try:
        cuda = open_device()
    except KernelError as error:
        print(f"There is nothing to measure on. {error.sentence}")
        for mean in chosen.means:
            for what in ("multitau", "twotime"):
                print(f"RESULT name=gpu_{what}_{mean:g}_ms skipped", flush=True)
        return 0
    up, down = copies(cuda)
    print(f"{cuda.name}: copies {up / 1e9:.1f} GB/s up, {down / 1e9:.1f} down", flush=True)
    bins = rings()
    for mean in chosen.means:
        frames = speckle(chosen.frames, mean, bins)
        compare_multitau(frames, bins, mean, chosen.rounds, up)
        compare_twotime(frames, bins, mean, chosen.rounds, down)
    return 0


if __name__ == "__main__":
    sys.exit(main())
