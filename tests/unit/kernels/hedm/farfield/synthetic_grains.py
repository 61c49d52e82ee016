"""Spot lists of grains that are known, with noise, lost spots and spurious ones; and how well they were found."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from kernels.hedm.crystals import Crystal
from kernels.hedm.farfield.find import Found
from kernels.hedm.farfield.lattice import Lattice
from kernels.hedm.farfield.limits import Limits
from kernels.hedm.farfield.spots import Spots
from kernels.hedm.forward import predict
from kernels.hedm.geometry import Geometry, Panel
from kernels.hedm.orientations import misorientation_table, random_orientations
from kernels.hedm.reflections import list_reflections

Floats = NDArray[np.float64]
PIXEL_UM = 200.0
WAVELENGTH_A = 0.22291

CRYSTALS = {
    "cubic": ((4.08, 4.08, 4.08, 90, 90, 90), 225, 5),
    "hexagonal": ((2.95, 2.95, 4.68, 90, 90, 120), 194, 7),
    "trigonal": ((4.7608, 4.7608, 12.99568, 90, 90, 120), 167, 8),
    "tetragonal": ((4.594, 4.594, 2.959, 90, 90, 90), 136, 7),
    "orthorhombic": ((4.756, 10.207, 5.98, 90, 90, 90), 62, 12),
    "monoclinic": ((5.15, 5.21, 5.32, 90, 99.2, 90), 14, 12),
    "triclinic": ((5.8, 6.4, 7.1, 80.0, 97.0, 105.0), 2, 28),
}


@dataclass(frozen=True, eq=False)
class Sample:
    """Spots, and the grains (n) that they come from."""

    spots: Spots
    geometry: Geometry
    lattice: Lattice
    limits: Limits
    orientation: Floats
    position_um: Floats
    strain: Floats
    grain: NDArray[np.int64]  # of each spot, or -1


@dataclass(frozen=True, eq=False)
class Score:
    """How many grains were found, how many are false, and the medians of the errors."""

    found: int
    false: int
    orientation_deg: float
    position_um: float
    strain: float
    pulls: float


def flat_panel(tilts: tuple[float, float, float] = (0.0, 0.0, 0.0), wedge: float = 0.0) -> Geometry:
    panel = Panel.tilted(
        "one",
        shape=(2048, 2048),
        pixel_um=(PIXEL_UM, PIXEL_UM),
        distance_um=1e6,
        beam_centre=(1023.5, 1023.5),
        tilts=tilts,
    )
    return Geometry(WAVELENGTH_A, (panel,), wedge=wedge)


def lattice_of(system: str, wavelength: float = WAVELENGTH_A) -> Lattice:
    parameters, group, rings = CRYSTALS[system]
    crystal = Crystal.of(parameters, group)
    listed = list_reflections(crystal, wavelength, rings=rings)
    return Lattice(crystal.b0, listed.hkl, listed.ring, crystal.rotations)


def make(
    grains: int,
    system: str = "cubic",
    *,
    geometry: Geometry | None = None,
    noise_px: float = 0.1,
    noise_deg: float = 0.03,
    missing: float = 0.05,
    spurious: float = 0.05,
    strain: float = 5e-4,
    radius_um: float = 500.0,
    height_um: float = 100.0,
    omega_ranges: tuple[tuple[float, float], ...] = ((-math.pi, math.pi),),
    seed: int = 0,
    orientation: Floats | None = None,
    position_um: Floats | None = None,
) -> Sample:
    """Grains in a cylinder with random orientations and strains, unless they are given, and their spots."""
    random = np.random.default_rng(seed)
    geometry = geometry or flat_panel()
    lattice = lattice_of(system, geometry.wavelength_A)
    limits = Limits(
        spot_um=noise_px * geometry.panels[0].pixel_um[0],
        omega=math.radians(noise_deg),
        radius_um=radius_um,
        height_um=height_um,
        omega_ranges=omega_ranges,
    )
    turned = random_orientations(grains, random)
    orientation = turned if orientation is None else orientation
    radius, angle = radius_um * np.sqrt(random.uniform(size=grains)), random.uniform(0, 2 * np.pi, grains)
    position = np.column_stack(
        [radius * np.cos(angle), radius * np.sin(angle), random.uniform(-height_um / 2, height_um / 2, grains)]
    )
    position = position if position_um is None else position_um
    tensor = random.normal(0, strain, (grains, 3, 3))
    tensor = 0.5 * (tensor + tensor.transpose(0, 2, 1))
    eps = tensor[:, [0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
    spots = predict(
        geometry, lattice.g0, orientation=orientation, position_um=position, strain=eps, omega_ranges=omega_ranges
    )
    spots = spots.take(random.uniform(size=len(spots)) > missing)
    n = len(spots)
    grain = spots.grain.astype(np.int64)
    size = random.lognormal(0, 0.5, grains)
    intensity = 1e4 * size[grain] * random.lognormal(0, 0.1, n)
    row, column = spots.row + random.normal(0, noise_px, n), spots.column + random.normal(0, noise_px, n)
    omega = spots.omega + random.normal(0, math.radians(noise_deg), n)
    # Spurious ones lie on rings, too, half a millimetre wide: places of true spots turned about the beam.
    extra = random.integers(0, n, int(spurious * n)) if n else np.zeros(0, int)
    points = geometry.axis_points(spots.panel.astype(np.int64), row, column)
    stray = _turned(points[extra], random.uniform(-np.pi, np.pi, len(extra)), random)
    starts = np.array(omega_ranges)[random.integers(0, len(omega_ranges), len(extra))]
    chosen = Spots(
        np.concatenate([points, stray]),
        np.concatenate([omega, random.uniform(starts[:, 0], starts[:, 1])]),
        np.concatenate([intensity, 1e4 * random.lognormal(0, 0.5, len(extra))]),
    )
    grain = np.concatenate([grain, np.full(len(extra), -1)])
    order = random.permutation(len(chosen))
    return Sample(chosen.take(order), geometry, lattice, limits, orientation, position, eps, grain[order])


def _turned(points: Floats, angle: Floats, random: np.random.Generator) -> Floats:
    c, s = np.cos(angle), np.sin(angle)
    spread = 1.0 + random.uniform(-3e-3, 3e-3, len(points))
    y, z = points[:, 1] * spread, points[:, 2] * spread
    return np.column_stack([points[:, 0], c * y - s * z, s * y + c * z])


def compare(found: Found, sample: Sample, *, within_deg: float = 0.3, within_um: float = 150.0) -> Score:
    """A grain is found where one lies within these limits of it; what belongs to no true grain is false."""
    count = len(sample.orientation)
    if not len(found):
        return Score(0, 0, math.nan, math.nan, math.nan, math.nan)
    near = cKDTree(sample.position_um).query_ball_point(found.position_um, within_um)
    best, partner = np.full(count, np.inf), np.full(count, -1)
    false = 0
    for n, those in enumerate(near):
        if those:
            angles = misorientation_table(
                found.orientation[n][None], sample.orientation[those], sample.lattice.rotations
            )
            k = int(angles[0].argmin())
        if not those or angles[0, k] > math.radians(within_deg):
            false += 1
        elif angles[0, k] < best[those[k]]:
            best[those[k]], partner[those[k]] = angles[0, k], n
    hit = np.flatnonzero(partner >= 0)
    mine = partner[hit]
    away = found.position_um[mine] - sample.position_um[hit]
    off = found.strain[mine] - sample.strain[hit]
    sigma = np.sqrt(np.diagonal(found.covariance[mine], axis1=1, axis2=2)[:, 3:])
    pulls = np.concatenate([away, off], axis=1) / sigma
    return Score(
        len(hit),
        false,
        float(np.degrees(np.median(best[hit]))),
        float(np.median(np.linalg.norm(away, axis=1))),
        float(np.median(np.abs(off))),
        float(np.sqrt(np.median(pulls**2) / 0.4549)),
    )


def wider(sample: Sample, **changes: float) -> Sample:
    return replace(sample, limits=replace(sample.limits, **changes))
