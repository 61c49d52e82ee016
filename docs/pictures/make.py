"""Make the pictures of `docs/tomography.md`: what each correction does, on an object that is known exactly.

    python docs/pictures/make.py [NAME …]

Each picture is a row of panels of one grey scale; under each the page says what it is. The relative error of each panel
against the truth is printed, so that the page can say it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from kernels.tomography.corrections import stripes
from kernels.tomography.corrections.outliers import remove_zingers
from kernels.tomography.corrections.phase import paganin
from kernels.tomography.direct.gridrec import Gridrec
from kernels.tomography.iterative.reconstructor import IterativeReconstructor, Method
from kernels.tomography.oblique.geometry import Geometry
from kernels.tomography.oblique.passes import BackProjector
from kernels.tomography.oblique.plan import Extent
from kernels.tomography.oblique.rays import project
from kernels.tomography.phantom import project_rows, sample_object, truth_rows

Floats = NDArray[np.float32]
Panels = list[tuple[str, Floats]]

SIZE, ANGLES, GAP = 256, 401, 6
MIDDLE = 0.5 * (SIZE - 1)
THETA = np.arange(ANGLES) * 180.0 / ANGLES
PARTS = sample_object(SIZE, 4, margin=0.5 * SIZE, absorption=1.5, seed=4)
TRUTH = truth_rows(PARTS, SIZE, 4, 1, 2)[0]


def lines(theta: NDArray[np.float64] = THETA, axis: float = MIDDLE) -> Floats:
    """Line integrals of one row, (1, angles, columns)."""
    return project_rows(PARTS, theta, SIZE, 4, axis, 1, 2)


def noisy(integrals: Floats, photons: float, seed: int = 0) -> Floats:
    light = np.random.default_rng(seed).poisson(photons * np.exp(-integrals.astype(np.float64)))
    return np.asarray(-np.log(np.maximum(light, 1) / photons), np.float32)


def slice_of(integrals: Floats, theta: NDArray[np.float64] = THETA, **how: Any) -> Floats:
    return Gridrec(theta, SIZE, **{"axis": MIDDLE, **how}).slices(integrals)[0]


def axis() -> Panels:
    """A wrong axis makes of each edge two."""
    seen = noisy(lines(), 20000)
    return [(f"{off:+g} pixels", slice_of(seen, axis=MIDDLE + off)) for off in (0.0, 1.0, 3.0)]


def rings() -> Panels:
    """Pixels whose gain has changed, some a lot, some only for a part of the scan."""
    random = np.random.default_rng(3)
    change = 0.03 * random.standard_normal(SIZE)
    change[random.integers(0, SIZE, 6)] += 0.3
    seen = noisy(lines(), 20000) + change.astype(np.float32)
    for column in random.integers(30, SIZE - 30, 8):
        start = random.integers(0, ANGLES - 150)
        seen[0, start : start + 150, column : column + 2] += np.float32(0.12)
    ways = {"constant": stripes.remove_constant_stripes, "all": stripes.remove_all_stripes}
    return [("none", slice_of(seen)), *((name, slice_of(way(seen))) for name, way in ways.items())]


def zingers() -> Panels:
    """Cosmic rays and scattered X-rays that hit single pixels of single frames."""
    random = np.random.default_rng(5)
    rows = 24
    integrals = project_rows(PARTS, THETA, SIZE, rows, MIDDLE, 0, rows)
    frames = np.exp(-noisy(integrals, 20000)).swapaxes(0, 1).copy()
    where = tuple(random.integers(0, n, 6000) for n in frames.shape)
    frames[where] += random.uniform(0.5, 6, 6000).astype(np.float32)
    cleaned = remove_zingers(frames).frames
    pictures = (-np.log(np.maximum(each[:, rows // 2], 1e-4))[None] for each in (frames, cleaned))
    return [(name, slice_of(np.ascontiguousarray(each))) for name, each in zip(("none", "8"), pictures, strict=True)]


def padding() -> Panels:
    """A detector that sees only the middle of the object."""
    wide = sample_object(2 * SIZE, 4, margin=0.95 * SIZE, absorption=3, seed=4)
    seen = noisy(project_rows(wide, THETA, SIZE, 4, MIDDLE, 1, 2), 20000)
    return [(how, slice_of(seen, padding=how)) for how in ("zero", "edge")]


def windows() -> Panels:
    """A short exposure: what a window takes of noise, and of detail."""
    seen = noisy(lines(), 1000)
    return [(how, slice_of(seen, window=how)) for how in ("ramp", "cosine", "parzen")]


def few() -> Panels:
    """41 projections."""
    theta = np.arange(41) * 180.0 / 41
    seen = noisy(lines(theta), 20000)
    found = [("gridrec, hann", slice_of(seen, theta, window="hann"))]
    for name in ("cgls", "tv"):
        method = Method(name, nonnegative=name == "tv")
        found.append((name, IterativeReconstructor(theta, SIZE, axis=MIDDLE, method=method).slices(seen)[0]))
    return found


def phase() -> Panels:
    """A weakly absorbing object of one material, two centimetres behind it: edges shine, and areas are noise."""
    rows = 64
    integrals = 0.1 * project_rows(PARTS, THETA, SIZE, rows, MIDDLE, 0, rows)
    setting = {"energy_kev": 20.0, "distance_mm": 20.0, "pixel_um": 1.0, "delta_beta": 200.0}
    frequency = [np.fft.fftfreq(n) for n in (rows, SIZE)]
    squares = frequency[0][:, None] ** 2 + frequency[1] ** 2
    fringes = np.exp(-1j * np.pi * 1.239841984e-3 / 20 * 20e3 * squares)
    waves = np.exp(-0.5 * integrals.swapaxes(0, 1) * (1 + 200j))
    light = np.abs(np.fft.ifft2(np.fft.fft2(waves) * fringes)) ** 2
    frames = np.asarray(np.random.default_rng(1).poisson(2000 * light) / 2000, np.float32)
    retrieved = paganin(frames, **setting)
    pictures = (-np.log(np.maximum(each[:, rows // 2], 1e-3))[None] * 10 for each in (frames, retrieved))
    names = ("as it was seen", "phase retrieved")
    return [(name, slice_of(np.ascontiguousarray(each))) for name, each in zip(names, pictures, strict=True)]


def tilt() -> Panels:
    """Laminography, the axis 30 degrees off upright: the right tilt, and that of an axis that leans the other way."""
    rows, theta = 192, np.arange(240) * 1.5
    middle = 0.5 * (rows - 1)
    parts = sample_object(SIZE, rows, margin=0.45 * SIZE, absorption=1.5, seed=4, tall=0.35 * rows)
    seen = noisy(project(parts, Geometry(MIDDLE, middle, tilt_deg=30.0), theta, SIZE, 0, rows), 20000)

    def leaning(deg: float) -> Floats:
        geometry, extent = Geometry(MIDDLE, middle, tilt_deg=deg), Extent(8, SIZE, -3.5, 0.5 * SIZE)
        return BackProjector(geometry, extent, theta, rows=rows, columns=SIZE).volume(seen)[4]

    return [(f"tilt {deg:g}", leaning(deg)) for deg in (30.0, -30.0)]


PICTURES: dict[str, Callable[[], Panels]] = {
    each.__name__: each for each in (axis, rings, zingers, padding, windows, few, phase, tilt)
}


def write(name: str, panels: Panels, low: float, high: float) -> None:
    grey = [np.clip((values - low) * (255 / (high - low)), 0, 255).astype(np.uint8) for _, values in panels]
    gap = np.full((SIZE, GAP), 255, np.uint8)
    row = [each for panel in grey for each in (panel, gap)][:-1]
    Image.fromarray(np.concatenate(row, axis=1)).save(Path(__file__).with_name(f"{name}.png"), optimize=True)


def main() -> int:
    low, high = -0.2 * float(TRUTH.max()), 1.05 * float(TRUTH.max())
    for name in sys.argv[1:] or PICTURES:
        panels = PICTURES[name]()
        for title, values in panels:
            error = np.sqrt(((values - TRUTH) ** 2).mean() / (TRUTH**2).mean())
            print(f"{name}: {title}: error {error:.3f}")
        write(name, panels, low, high)
    return 0


if __name__ == "__main__":
    sys.exit(main())
