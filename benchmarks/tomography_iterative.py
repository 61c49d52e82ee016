"""Iterative reconstruction: CPU time of a slice and iteration, and the error against an exactly known object.

    python benchmarks/tomography_iterative.py [--size 512] [--angles 721] [--few 60] [--noise 0.02] [--rounds 5]

Projections are exact means over detector pixels (`kernels.tomography.phantom`), so the error holds everything: voxels,
projectors, noise and stopping. CPU milliseconds are medians of `--rounds` for one of the `LANES` slices of a group, on
one thread (`--threads`): threads of OpenMP spin while they wait for one that a busy machine has put aside. The rival is
ASTRA's SIRT and CGLS on the CPU, where ASTRA is importable: the same angles, the same number of iterations; one slice
at a time, as it works.

The limit beside the projectors is what this machine takes for their arithmetic alone, in cache and with positions for
nothing: forward three vector multiply-adds from memory for each ray and row, back two and a load and store for each
voxel and angle. What is above it is working out where a ray meets the voxels, once for `LANES` slices.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from kernels.compiled import compiled, use_at_most
from kernels.tomography import fbp
from kernels.tomography.iterative.projector import Projector
from kernels.tomography.iterative.reconstructor import ALGORITHMS, IterativeReconstructor, Method
from kernels.tomography.lanes import LANES, load, plus, scaled, store, zeros
from kernels.tomography.phantom import project_rows, sample_object, truth_rows

Floats = NDArray[np.float32]


@compiled(fastmath=True)
def multiply_adds(cells: Floats, factor: np.float32, repeats: int, out: Floats) -> None:
    """`repeats` times over the cells, eight independent vector multiply-adds from memory at a time."""
    for _ in range(repeats):
        a = b = c = d = e = f = g = h = zeros()
        for i in range(0, len(cells), 8):
            a = plus(a, scaled(factor, load(cells, (i + 0) * LANES)))
            b = plus(b, scaled(factor, load(cells, (i + 1) * LANES)))
            c = plus(c, scaled(factor, load(cells, (i + 2) * LANES)))
            d = plus(d, scaled(factor, load(cells, (i + 3) * LANES)))
            e = plus(e, scaled(factor, load(cells, (i + 4) * LANES)))
            f = plus(f, scaled(factor, load(cells, (i + 5) * LANES)))
            g = plus(g, scaled(factor, load(cells, (i + 6) * LANES)))
            h = plus(h, scaled(factor, load(cells, (i + 7) * LANES)))
        total = plus(plus(plus(a, b), plus(c, d)), plus(plus(e, f), plus(g, h)))
        store(out, 0, plus(total, load(out, 0)))


@compiled(fastmath=True)
def loads_and_stores(cells: Floats, repeats: int) -> None:
    """`repeats` times over the cells, one load, addition and store each."""
    for _ in range(repeats):
        for i in range(len(cells)):
            store(cells, i * LANES, plus(load(cells, i * LANES), load(cells, i * LANES)))


def cpu_ms(work: Callable[[], object], rounds: int) -> float:
    """Median CPU milliseconds of all threads."""
    work()
    taken = []
    for _ in range(rounds):
        begun = time.process_time()
        work()
        taken.append((time.process_time() - begun) * 1e3)
    return statistics.median(taken)


def result(name: str, ours: float, rival: float | None = None, *, absent: str = "-") -> None:
    compared = f"rival={rival:.4g} ratio={rival / ours:.2f}" if rival is not None else f"rival={absent} ratio=-"
    print(f"RESULT name={name} ours={ours:.4g} {compared} bar=-", flush=True)


def astra_solution(algorithm: str, sinogram: Floats, theta: NDArray[np.float64], axis: float, steps: int) -> Floats:
    """One slice by ASTRA on the CPU, distances in pixels and the axis as in `kernels.tomography.fbp`."""
    import astra  # type: ignore[import-not-found]

    size = sinogram.shape[1]
    geometry = astra.create_proj_geom("parallel", 1.0, size, np.deg2rad(theta))
    geometry = astra.functions.geom_postalignment(geometry, 0.5 * (size - 1) - axis)
    projector = astra.create_projector("linear", geometry, astra.create_vol_geom(size, size))
    data = astra.data2d.create("-sino", geometry, sinogram)
    volume = astra.data2d.create("-vol", astra.create_vol_geom(size, size), 0)
    settings = astra.astra_dict(algorithm)
    settings |= {"ProjectorId": projector, "ProjectionDataId": data, "ReconstructionDataId": volume}
    run = astra.algorithm.create(settings)
    astra.algorithm.run(run, steps)
    made = np.asarray(astra.data2d.get(volume), np.float32)[::-1]
    for kind, item in (("algorithm", run), ("data2d", data), ("data2d", volume), ("projector", projector)):
        getattr(astra, kind).delete(item)
    return made


def projectors(size: int, angles: int, rounds: int) -> None:
    """CPU time of the pair, and of their arithmetic alone."""
    theta = np.arange(angles) * 180.0 / angles
    projector = Projector(theta, size, axis=0.5 * (size - 1))
    image, rows = projector.ones(), projector.sinogram()
    forward = cpu_ms(lambda: projector.forward(image, rows), rounds) / LANES
    back = cpu_ms(lambda: projector.back(rows, image), rounds) / LANES
    cells, repeats = np.ones((256, LANES), np.float32), 20_000
    adds = cpu_ms(lambda: multiply_adds(cells, np.float32(0.5), repeats, cells[:1]), rounds) / repeats / len(cells)
    sums = cpu_ms(lambda: loads_and_stores(np.zeros_like(cells), repeats), rounds) / repeats / len(cells)
    voxels = float((projector.bounds[:, 1] - projector.bounds[:, 0]).sum())
    turned = np.deg2rad(theta)
    met = np.maximum(np.abs(np.cos(turned)), np.abs(np.sin(turned))).sum() * voxels
    limits = {"forward": 3 * adds * met / LANES, "back": (2 * adds + sums) * angles * voxels / LANES}
    for name, taken in (("forward", forward), ("back", back)):
        result(f"{name}_cpu_ms_per_slice", taken)
        result(f"{name}_arithmetic_limit_ms", limits[name])
        result(f"{name}_share_of_limit", limits[name] / taken)
        result(f"{name}_ns_per_voxel_and_angle_of_{LANES}", taken * 1e6 * LANES / voxels / angles)


def methods(size: int, angles: int, noise: float, rounds: int, *, timed: bool) -> None:
    theta, axis = np.arange(angles) * 180.0 / angles, 0.5 * (size - 1) - 1.2
    parts = sample_object(size, LANES, margin=0.46 * size, absorption=2.0, seed=1)
    truth = truth_rows(parts, size, LANES, 0, LANES)
    exact = project_rows(parts, theta, size, LANES, axis, 0, LANES)
    sinograms = exact + np.float32(noise) * np.random.default_rng(0).standard_normal(exact.shape, np.float32)

    def error(volume: Floats) -> float:
        return float(np.linalg.norm(volume - truth[: len(volume)]) / np.linalg.norm(truth[: len(volume)]))

    case = f"{size}_{angles}_noise{noise:g}"
    for window in ("ramp", "hann"):
        made = fbp.Reconstructor(theta, size, axis=axis, window=window).slices(sinograms)
        result(f"fbp_{window}_{case}_error", error(made))
    for algorithm in ALGORITHMS:
        reconstructor = IterativeReconstructor(theta, size, axis=axis, method=Method(algorithm))
        solution = reconstructor.solve(sinograms)
        steps = max(solution.iterations)
        rival = rival_ms = None
        if algorithm in ("sirt", "cgls") and importlib.util.find_spec("astra"):
            begun = time.process_time()
            rival = error(astra_solution(algorithm.upper(), sinograms[0], theta, axis, steps)[None])
            rival_ms = (time.process_time() - begun) * 1e3 / steps
        absent = "absent" if algorithm in ("sirt", "cgls") else "-"
        result(f"{algorithm}_{case}_error_after_{steps}", error(solution.volume), rival, absent=absent)
        if timed:
            one, four = (iterations_ms(algorithm, count, theta, axis, sinograms, rounds) for count in (1, 4))
            name = f"{algorithm}_{case}_cpu_ms_per_slice_and_iteration"
            result(name, (four - one) / 3 / LANES, rival_ms, absent=absent)


def iterations_ms(
    algorithm: str, count: int, theta: NDArray[np.float64], axis: float, sinograms: Floats, rounds: int
) -> float:
    """CPU time of a group with so many iterations, from a start that costs nothing."""
    size = sinograms.shape[2]
    method = Method(algorithm, iterations=count, noise=0.0, tolerance=0.0, start="zero")
    reconstructor = IterativeReconstructor(theta, size, axis=axis, method=method)
    return cpu_ms(lambda: reconstructor.solve(sinograms), rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--angles", type=int, default=721)
    parser.add_argument("--few", type=int, default=60, help="angles of the few-view case")
    parser.add_argument("--noise", type=float, default=0.02, help="standard deviation of the line integrals")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    use_at_most(given.threads)
    projectors(given.size, given.angles, given.rounds)
    methods(given.size, given.angles, given.noise, given.rounds, timed=True)
    methods(given.size, given.few, 0.5 * given.noise, given.rounds, timed=False)


if __name__ == "__main__":
    main()
