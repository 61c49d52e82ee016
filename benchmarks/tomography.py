"""Direct reconstruction of ours beside ASTRA, algotom and TomoPy, in this run, on the same projections.

    python benchmarks/tomography.py [--slices 64] [--sizes 512 1024 2048] [--rounds 3]

The object is a sum of smooth blobs, whose projections and slice are known exactly, so that an error is that of the
method alone: the root of the mean square error inside 0.95 of the circle, relative to that of the object. A rival's is
told twice: as it comes, and after the best straight line through its values, which forgives it gain and offset. Times
are CPU seconds of the whole process over the slices, the least of the rounds: those of the clock depend on who else
computes.

Rivals are measured where they can be imported (`pip install algotom astra-toolbox`; TomoPy comes from conda-forge): one
slice of ASTRA's and algotom's, which take their time, and all of TomoPy's, as it is and padded to twice the width,
which is what its users need for values that can be trusted.

The limit is memory: lines and grid of large slices fit into no cache, so each of their numbers is written and read
once. The time of a plain copy of as many bytes is told beside ours.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

Floats = NDArray[np.float32]

ANGLES = {512: 721, 1024: 1501, 2048: 1501}
BARS_MS = {512: 4.5, 1024: 22.0, 2048: 70.0}
BAR_ERROR = 2e-4
OVER_TOMOPY, OVER_PADDED = 1.8, 4.0


def blobs(size: int, theta: NDArray[np.float64]) -> tuple[Floats, Floats]:
    """Sinogram (angles, size) and slice (size, size) of smooth blobs, none narrower than 2.5 pixels."""
    random = np.random.default_rng(size)
    sinogram, truth = np.zeros((len(theta), size)), np.zeros((size, size))
    across = np.arange(size) - 0.5 * (size - 1)
    for _ in range(16):
        x, y = random.uniform(-0.25, 0.25, 2) * size
        width, value = random.uniform(2.5, 0.06 * size), random.uniform(0.2, 1)
        distance = across - (x * np.cos(theta) + y * np.sin(theta))[:, None]
        sinogram += value * width * np.sqrt(2 * np.pi) * np.exp(-0.5 * (distance / width) ** 2)
        truth += value * np.exp(-0.5 * ((across - x) ** 2 + (across - y)[:, None] ** 2) / width**2)
    return sinogram.astype(np.float32), truth.astype(np.float32)


def errors(made: Floats, truth: Floats) -> tuple[float, float]:
    """As it comes, and after the best straight line."""
    from_middle = np.arange(len(truth)) - 0.5 * (len(truth) - 1)
    inside = from_middle**2 + from_middle[:, None] ** 2 <= (0.475 * len(truth)) ** 2
    v, t = made[inside].astype(np.float64), truth[inside].astype(np.float64)
    norm = np.sqrt((t**2).mean())
    gain, offset = np.polyfit(v, t, 1)
    return float(np.sqrt(((v - t) ** 2).mean()) / norm), float(np.sqrt(((gain * v + offset - t) ** 2).mean()) / norm)


def cpu_ms(work: Callable[[], Any], slices: int, rounds: int) -> float:
    least = np.inf
    for _ in range(rounds):
        begun = time.process_time()
        work()
        least = min(least, time.process_time() - begun)
    return float(least) * 1e3 / slices


def of_astra(sinogram: Floats, theta: NDArray[np.float64]) -> Callable[[], Floats]:
    import astra

    size = sinogram.shape[1]
    projections = astra.create_proj_geom("parallel", 1.0, size, theta)
    volume = astra.create_vol_geom(size, size)
    projector = astra.create_projector("linear", projections, volume)

    def work() -> Floats:
        data, made = astra.data2d.create("-sino", projections, sinogram), astra.data2d.create("-vol", volume)
        how = astra.astra_dict("FBP")
        how |= {"ProjectorId": projector, "ProjectionDataId": data, "ReconstructionDataId": made}
        algorithm = astra.algorithm.create(how)
        astra.algorithm.run(algorithm)
        # Its rows count downwards.
        result = astra.data2d.get(made)[::-1]
        astra.algorithm.delete(algorithm)
        astra.data2d.delete([data, made])
        return np.asarray(result, np.float32)

    return work


def of_algotom(sinogram: Floats, theta: NDArray[np.float64]) -> Callable[[], Floats]:
    from algotom.rec import reconstruction

    middle = 0.5 * (sinogram.shape[1] - 1)

    def work() -> Floats:
        made = reconstruction.fbp_reconstruction(
            sinogram, middle, angles=theta, ratio=1.0, filter_name=None, apply_log=False, gpu=False
        )
        return np.asarray(made[::-1], np.float32)  # its rows count downwards

    return work


def of_tomopy(sinograms: Floats, theta: NDArray[np.float64], *, padded: bool) -> Callable[[], Floats]:
    import tomopy

    size = sinograms.shape[2]
    extra = size // 2 if padded else 0

    def work() -> Floats:
        data = np.pad(sinograms, ((0, 0), (0, 0), (extra, extra)))
        made = tomopy.recon(
            data, theta, center=0.5 * size + extra, algorithm="gridrec", filter_name="ramlak", sinogram_order=True
        )
        return np.asarray(made[:, extra : extra + size, extra : extra + size])

    return work


def rival(name: str, make: Callable[[], Callable[[], Floats]], truth: Floats, slices: int, rounds: int) -> float | None:
    """Its CPU ms per slice; None where it is absent."""
    try:
        work = make()
        made = work()
    except ImportError:
        print(f"{name}: absent", flush=True)
        return None
    raw, fitted = errors(made if made.ndim == 2 else made[0], truth)
    ms = cpu_ms(work, slices, rounds)
    print(f"{name}: {ms:.2f} CPU ms per slice, error {raw:.1e}, {fitted:.1e} after the best fit", flush=True)
    return ms


def said(name: str, ours: float, theirs: float | None, bar: float, ratio: float | None = None) -> None:
    other = "absent" if theirs is None else f"{theirs:.3g}"
    times = "-" if ratio is None else f"{ratio:.2f}"
    print(f"RESULT name={name} ours={ours:.3g} rival={other} ratio={times} bar={bar:g}", flush=True)


def moved_ms(size: int, angles: int) -> float:
    """CPU ms for moving through memory once what each of the passes must read and write for one slice.

    The sinogram; the lines and the grid twice each (written, read), at the least lengths there may be; the columns of
    the grid that are left, and the slice.
    """
    source = np.ones(1 << 25, np.float32)
    target = np.ones_like(source)
    per_number = cpu_ms(lambda: np.copyto(target, source), 2 * len(source), 5)
    return per_number * (size * angles + 2 * 2 * size * angles + 2 * 2 * (1.25 * size) ** 2 + 2 * 1.25 * size**2)


def measure(size: int, slices: int, rounds: int) -> None:
    from kernels.tomography.direct.gridrec import Gridrec

    angles = ANGLES.get(size, 3 * size // 2 | 1)
    theta = np.arange(angles) * np.pi / angles
    sinogram, truth = blobs(size, theta)
    whole = np.repeat(sinogram[None], slices, 0)
    gridrec = Gridrec(np.rad2deg(theta), size, axis=0.5 * (size - 1))
    out = np.empty((gridrec.group, size, size), np.float32)

    def ours() -> None:
        for first in range(0, slices, gridrec.group):
            gridrec.slices(whole[first : first + gridrec.group], out)

    ours()
    error = errors(out[5], truth)[0]
    ms, limit = cpu_ms(ours, slices, rounds), moved_ms(size, angles)
    print(f"\n{size} columns, {angles} angles: ours {ms:.2f} CPU ms per slice, error {error:.1e}", flush=True)
    print(f"memory alone would take {limit:.1f} CPU ms per slice, {limit / ms:.2f} of ours", flush=True)
    said(f"direct_{size}_cpu_ms_per_slice", ms, None, BARS_MS.get(size, 0))
    said(f"direct_{size}_error", error, None, BAR_ERROR)
    for name, make, count, bar in (
        ("astra_fbp", lambda: of_astra(sinogram, theta), 1, 0.0),
        ("algotom_fbp", lambda: of_algotom(sinogram, theta), 1, 0.0),
        ("tomopy_gridrec", lambda: of_tomopy(whole, theta, padded=False), slices, OVER_TOMOPY),
        ("tomopy_gridrec_padded", lambda: of_tomopy(whole, theta, padded=True), slices, OVER_PADDED),
    ):
        theirs = rival(name, make, truth, count, 1 if count == 1 else rounds)
        said(f"direct_{size}_vs_{name}", ms, theirs, bar, None if theirs is None else theirs / ms)


def main() -> int:
    from kernels.compiled import threads

    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--slices", type=int, default=64)
    options.add_argument("--sizes", type=int, nargs="+", default=[512, 1024, 2048])
    options.add_argument("--rounds", type=int, default=3)
    chosen = options.parse_args()
    print(f"{chosen.slices} slices, {threads()} threads", flush=True)
    for size in chosen.sizes:
        measure(size, chosen.slices, chosen.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
