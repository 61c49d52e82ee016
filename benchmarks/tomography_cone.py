"""Back projection of cone beams and of tilted axes, beside a plain one and beside what the processor could do at most.

    python benchmarks/tomography_cone.py [--size 256] [--angles 64] [--rounds 3]

The rival is the loop as it is usually written down, compiled by Numba with leave to reorder (`fastmath`): for each
voxel and angle a division, a position and the four pixels about it. ASTRA has cone beams on GPUs alone, and nothing
else that can be installed for a CPU was found to compare with. Both get the same filtered frames; how far their volumes
are apart is told.

Figures are voxels times angles per second of CPU time, in units of 10^9 (GUPS), the best of the rounds. The limit is
the arithmetic: an update is three linear interpolations and a sum, seven vector operations, and how many of those the
processor does in a second is measured in this run, with numbers that stay in registers.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from kernels.tomography.lanes import LANES, plus, ramp, store, times
from kernels.tomography.oblique.columns import back_project, by_columns
from kernels.tomography.oblique.geometry import Geometry, Mapping
from kernels.tomography.oblique.plan import Extent, window_of

Floats = NDArray[np.float32]

OPERATIONS = 7  # of an update: (difference, multiply-add) for each of three interpolations, and the sum's
BAR_RATIO, BAR_SHARE = 3.0, 0.15


@numba.njit(parallel=True, fastmath=True)
def plain(
    frames: Floats, cosines: Any, sines: Any, mapping: Mapping, radius: float, first: float, volume: Floats
) -> None:
    """The rival: `frames` are (angles, rows, columns)."""
    layers, size, _ = volume.shape
    angles, rows, columns = frames.shape
    middle = 0.5 * (size - 1)
    for z in numba.prange(layers):
        for k in range(angles):
            for row in range(size):
                for column in range(size):
                    x, y = column - middle, row - middle
                    if x * x + y * y > radius * radius:
                        continue
                    w = mapping.side * (y * cosines[k] - x * sines[k])
                    m = 1.0 / (1.0 - w * mapping.curve)
                    u = mapping.perpendicular + (x * cosines[k] + y * sines[k] + mapping.shift) * m
                    v = mapping.middle_row + (w * mapping.sine + (z + first) * mapping.cosine) * m
                    if 0 <= u < columns - 1 and 0 <= v < rows - 1:
                        i, j = int(u), int(v)
                        f, g = np.float32(u - i), np.float32(v - j)
                        here = frames[k, j, i] + f * (frames[k, j, i + 1] - frames[k, j, i])
                        below = frames[k, j + 1, i] + f * (frames[k, j + 1, i + 1] - frames[k, j + 1, i])
                        volume[z, row, column] += np.float32(m * m) * (here + g * (below - here))


@numba.njit
def in_registers(count: int, factor: np.float32, kept: Floats) -> None:
    """Sixteen chains of multiply-adds, which do not wait for one another."""
    by = ramp(factor, np.float32(0.0))
    a, b, c, d = ramp(factor, factor), ramp(factor, factor), ramp(factor, factor), ramp(factor, factor)
    e, f, g, h = a, b, c, d
    i, j, k, m = plus(a, by), plus(b, by), plus(c, by), plus(d, by)
    n, o, p, q = plus(i, by), plus(j, by), plus(k, by), plus(m, by)
    for _ in range(count):
        a, b, c, d = plus(by, times(a, by)), plus(a, times(b, by)), plus(b, times(c, by)), plus(c, times(d, by))
        e, f, g, h = plus(by, times(e, by)), plus(by, times(f, by)), plus(by, times(g, by)), plus(by, times(h, by))
        i, j, k, m = plus(by, times(i, by)), plus(by, times(j, by)), plus(by, times(k, by)), plus(by, times(m, by))
        n, o, p, q = plus(by, times(n, by)), plus(by, times(o, by)), plus(by, times(p, by)), plus(by, times(q, by))
    every = plus(plus(plus(a, b), plus(c, d)), plus(plus(e, f), plus(g, h)))
    store(kept, 0, plus(every, plus(plus(plus(i, j), plus(k, m)), plus(plus(n, o), plus(p, q)))))


def cpu_s(work: Callable[[], Any], rounds: int) -> float:
    work()  # compiles
    least = math.inf
    for _ in range(rounds):
        begun = time.process_time()
        work()
        least = min(least, time.process_time() - begun)
    return least


def most_gups(rounds: int) -> float:
    """What the arithmetic alone would allow."""
    count, kept = 2_000_000, np.zeros(LANES, np.float32)
    seconds = cpu_s(lambda: in_registers(count, np.float32(0.5), kept), rounds)
    return 16 * count * LANES / OPERATIONS / seconds / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--angles", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    size, angles = given.size, given.angles
    theta = np.arange(angles) * 2 * np.pi / angles
    cosines, sines = np.cos(theta), np.sin(theta)
    frames = np.random.default_rng(1).random((angles, size, size), np.float32)
    middle, layers = 0.5 * (size - 1), min(size, 128)
    extent = Extent(layers, size, -0.5 * (layers - 1), 0.5 * size)
    inside = np.hypot(*(np.mgrid[:size, :size] - middle)) <= extent.reach
    updates = int(inside.sum()) * layers * angles
    limit = most_gups(given.rounds)
    print(f"{numba.get_num_threads()} threads; the arithmetic would allow {limit:.2f} GUPS a core", flush=True)
    for name, geometry in (
        ("cone", Geometry(middle, middle, distance=4.0 * size)),
        ("tilted", Geometry(middle, middle, tilt_deg=30.0)),
        ("parallel", Geometry(middle, middle)),
    ):
        window = window_of(geometry, extent, range(layers), size)
        rows = np.ascontiguousarray(frames.transpose(1, 0, 2)[window.start : window.stop])
        turned = by_columns(rows, window)
        made, known = np.zeros((2, layers, size, size), np.float32)
        arguments = geometry.mapping, extent.reach, extent.first
        back_project(turned, window, cosines, sines, *arguments, 0, made)
        plain(frames, cosines, sines, *arguments, known)
        seen = inside & (np.hypot(*(np.mgrid[:size, :size] - middle)) < 0.4 * size)  # by all, away from the edges
        apart = float(np.abs(made - known)[:, seen].max() / known[:, seen].max())
        ours, theirs = (
            updates / 1e9 / cpu_s(work, given.rounds)
            for work in (
                partial(back_project, turned, window, cosines, sines, *arguments, 0, made),
                partial(plain, frames, cosines, sines, *arguments, known),
            )
        )
        print(f"{name}: {ours:.2f} GUPS, plain {theirs:.2f}, {apart:.1e} apart", flush=True)
        ratio, what = ours / theirs, f"RESULT name=backproject_{name}"
        print(f"{what}_gups ours={ours:.3g} rival={theirs:.3g} ratio={ratio:.2f} bar={BAR_RATIO:g}")
        print(
            f"{what}_share ours={ours / limit:.2f} rival=1 ratio=- bar={BAR_SHARE:g}",
            flush=True,
        )


if __name__ == "__main__":
    main()
