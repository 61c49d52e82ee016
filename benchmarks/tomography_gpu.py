"""Direct reconstruction on a GPU beside our own on the CPU, in this run, on the same projections.

    python benchmarks/tomography_gpu.py [--slices 64] [--sizes 512 1024 2048] [--rounds 5]

The object is that of `benchmarks/tomography.py`, whose slice is known exactly, so that an error stands beside each
time. Times are those of the clock, the least of the rounds, from arrays in the host's memory to arrays in the host's
memory: from sinograms, and from counts of 16 bit with flat and dark field. `device` is the arithmetic alone, with
everything there already. The bar for 2048 columns is 3.4 ms per slice: TomocuPy's authors tell of 7 s for 2048 slices
on one A100, reading and writing included.

Beside them stand the limits, measured here: the bytes of a slice over what copies to and from the device reach (both
ways at once); what each step must read and write on the device over what a copy there reaches; and the operations over
what a product of large matrices reaches, in float32.

Without a GPU, or without CuPy, it says so, and ends with 0.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.tomography import ANGLES, BAR_ERROR, blobs, errors, said

Floats = NDArray[np.float32]

BARS_MS = {2048: 3.4}
BAR_AGREEMENT = 2e-5
_MEGABYTES = 256
_SIDE = 8192
_FULL, _DARK = 40000.0, 100.0


class Ceilings(NamedTuple):
    """Per second: bytes to the device and from it, bytes read and written there, float32 operations."""

    up: float
    down: float
    memory: float
    operations: float


def least_s(work: Callable[[], Any], synchronize: Callable[[], Any], rounds: int) -> float:
    times = []
    for _ in range(rounds + 1):
        synchronize()
        begun = time.perf_counter()
        work()
        synchronize()
        times.append(time.perf_counter() - begun)
    return min(times[1:])


def ceilings(cuda: Any) -> Ceilings:
    cupy, finish = cuda.cupy, cuda.cupy.cuda.Device().synchronize
    size = _MEGABYTES << 20
    host = cuda.cupyx.empty_pinned(size // 4, np.float32)
    host[:] = np.random.default_rng(1).random(size // 4, np.float32)
    here, there = cupy.empty(size // 4, np.float32), cupy.empty(size // 4, np.float32)
    up = least_s(lambda: here.data.copy_from_host_async(host.ctypes.data, size), finish, 5)
    down = least_s(lambda: here.data.copy_to_host_async(host.ctypes.data, size), finish, 5)
    copy = least_s(lambda: cupy.copyto(there, here), finish, 20)
    a = cupy.random.random((_SIDE, _SIDE), dtype=np.float32)
    product = least_s(lambda: cupy.matmul(a, a), finish, 5)
    return Ceilings(size / up, size / down, 2 * size / copy, 2 * _SIDE**3 / product)


def limits_ms(method: Any, ceiling: Ceilings) -> dict[str, float]:
    """What one slice takes at least, by each of the ceilings."""
    of = method.tables
    lines, cells, grid = of.angles * (of.padded + 1), of.angles * of.padded, of.length**2  # of a pair
    sinogram, slice_ = of.angles * of.columns, of.size**2
    # Each transform reads and writes once for each direction; so do the steps between.
    moved = 4 * sinogram + 4 * slice_ + 0.5 * 8 * (4 * cells + 2 * lines + 6 * grid)
    spread = lines * (4 * of.taps**2 + 2 * 2 * of.taps * 8 / 4)
    transforms = 5 * (cells * math.log2(of.padded) + grid * math.log2(grid))
    return {
        "copies": 1e3 * max(4 * sinogram / ceiling.up, 4 * slice_ / ceiling.down),
        "memory": 1e3 * moved / ceiling.memory,
        "operations": 1e3 * 0.5 * (spread + transforms + 14 * lines) / ceiling.operations,
    }


def field_of(rows: int, columns: int) -> Any:
    from kernels.tomography.field import Field

    here = np.repeat(np.arange(columns, dtype=np.int32)[None], rows, 0)
    dark, response = (np.full((rows, columns), value, np.float32) for value in (_DARK, _FULL))
    return Field(dark, response, here, here, 0, 0)


def work_on_one_chunk(gpu: Any) -> None:
    """Enqueue the arithmetic on whatever lies on the device."""
    buffers = gpu._buffers
    slot = buffers.slots[0]
    gpu._steps.run(buffers.room, ("take_lines", (slot.device_in,)), gpu.chunk, slot.device_out)


def measure(size: int, slices: int, rounds: int, cuda: Any, ceiling: Ceilings) -> None:
    from kernels.tomography.cuda.gridrec import CudaGridrec
    from kernels.tomography.direct.gridrec import Gridrec

    angles = ANGLES.get(size, 3 * size // 2 | 1)
    theta = np.arange(angles) * np.pi / angles
    sinogram, truth = blobs(size, theta)
    strength = 2 / sinogram.max()  # so that counts still say something
    sinogram, truth = strength * sinogram, strength * truth
    how: dict[str, Any] = {"axis": 0.5 * (size - 1)}
    finish = cuda.cupy.cuda.Device().synchronize
    whole = np.repeat(sinogram[None], slices, 0)
    out = np.empty((slices, size, size), np.float32)

    begun = time.perf_counter()
    gpu = CudaGridrec(np.rad2deg(theta), size, **how)
    print(f"\n{size} columns, {angles} angles: planned in {time.perf_counter() - begun:.2f} s, chunks of {gpu.chunk}")
    ms = 1e3 / slices * least_s(lambda: gpu.slices(whole, out), finish, rounds)
    error = errors(out[-1], truth)[0]
    device_ms = 1e3 / gpu.chunk * least_s(lambda: work_on_one_chunk(gpu), finish, rounds)

    counts = np.rint(_FULL * np.exp(-whole) + _DARK).astype(np.uint16).swapaxes(0, 1)
    field, counted = field_of(slices, size), np.empty_like(out)
    counts_ms = 1e3 / slices * least_s(lambda: gpu.slices_of_counts(counts, field, 1e-4, counted), finish, rounds)
    counts_error = errors(counted[-1], truth)[0]

    cpu = Gridrec(np.rad2deg(theta), size, **how)
    some = whole[: cpu.group]
    made = cpu.slices(some)
    cpu_s = least_s(lambda: cpu.slices(some, made), lambda: None, rounds)
    cpu_ms = 1e3 * cpu_s / len(some)
    apart = float(np.abs(out[0] - made[0]).max() / np.abs(made[0]).max())

    print(f"from sinograms {ms:.3f} ms per slice, error {error:.1e}")
    print(f"from counts {counts_ms:.3f} ms per slice, error {counts_error:.1e} (with the counts' rounding)")
    print(f"device alone {device_ms:.3f} ms per slice")
    print(f"CPU {cpu_ms:.2f} ms per slice, error {errors(made[0], truth)[0]:.1e}; the two differ by {apart:.1e}")
    for name, limit in limits_ms(gpu, ceiling).items():
        of = ms if name == "copies" else device_ms
        print(f"limit by {name}: {limit:.3f} ms per slice, {limit / of:.2f} of ours", flush=True)
    said(f"gpu_{size}_ms_per_slice", ms, cpu_ms, BARS_MS.get(size, 0), cpu_ms / ms)
    said(f"gpu_{size}_counts_ms_per_slice", counts_ms, None, BARS_MS.get(size, 0))
    said(f"gpu_{size}_device_ms_per_slice", device_ms, None, 0)
    said(f"gpu_{size}_error", error, errors(made[0], truth)[0], BAR_ERROR)
    said(f"gpu_{size}_off_cpu", apart, None, BAR_AGREEMENT)


def main() -> int:
    from kernels.cuda.device import open_device
    from kernels.errors import KernelError

    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--slices", type=int, default=64)
    options.add_argument("--sizes", type=int, nargs="+", default=[512, 1024, 2048])
    options.add_argument("--rounds", type=int, default=5)
    chosen = options.parse_args()
    try:
        cuda = open_device(transforms=True)
    except KernelError as error:
        print(f"There is nothing to measure on. {error.sentence}")
        for size in chosen.sizes:
            print(f"RESULT name=gpu_{size}_ms_per_slice skipped", flush=True)
        return 0
    ceiling = ceilings(cuda)
    print(f"{cuda.name}: copies {ceiling.up / 1e9:.1f} GB/s up, {ceiling.down / 1e9:.1f} down")
    print(f"there {ceiling.memory / 1e9:.0f} GB/s, {ceiling.operations / 1e12:.1f} Tflop/s in float32", flush=True)
    for size in chosen.sizes:
        measure(size, chosen.slices, chosen.rounds, cuda, ceiling)
    return 0


if __name__ == "__main__":
    sys.exit(main())
