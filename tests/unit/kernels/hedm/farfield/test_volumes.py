"""Volumes of grains from the intensities of their spots: relative ones, with atoms and without, and radii."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from synthetic_grains import Sample, lattice_of, make, wider

from kernels.hedm.farfield.find import Found, find_grains
from kernels.hedm.farfield.spots import Spots
from kernels.hedm.farfield.volumes import families, radii, relative_volumes
from kernels.hedm.forward import predict

Floats = NDArray[np.float64]


def shining(
    count: int, system: str, *, scatter: float = 0.1, wrong: float = 0.1
) -> tuple[Sample, Found, Floats, Floats]:
    """Grains of volumes that scatter, found from spots of such intensities; their true volumes, and |F|².

    Intensities scatter by `scatter`; a share `wrong` of them is what the edge of a scan leaves of them, or has
    another's added.
    """
    sample = make(count, system, seed=7)
    random = np.random.default_rng(8)
    geometry, lattice = sample.geometry, sample.lattice
    volume = random.lognormal(0.0, 1.0, count)
    family = families(lattice)
    strength = random.uniform(1.0, 10.0, int(family.max()) + 1)[family]
    spots = predict(
        geometry, lattice.g0, orientation=sample.orientation, position_um=sample.position_um, strain=sample.strain
    )
    two_theta, eta = geometry.angles(spots.panel.astype(np.int64), spots.row, spots.column)
    intensity = strength[spots.reflection] * spots.lorentz * (1.0 - (np.sin(two_theta) * np.sin(eta)) ** 2)
    intensity *= 1e4 * volume[spots.grain] * random.lognormal(0.0, scatter, len(spots))
    bad = random.uniform(size=len(spots)) < wrong
    intensity[bad] *= random.choice([0.4, 3.0], int(bad.sum()))
    placed = Spots.of_pixels(
        geometry,
        spots.panel.astype(np.int64),
        spots.row + random.normal(0, 0.1, len(spots)),
        spots.column + random.normal(0, 0.1, len(spots)),
        omega=spots.omega + random.normal(0, math.radians(0.03), len(spots)),
        intensity=intensity,
    )
    found = find_grains(placed, geometry, lattice, limits=sample.limits)
    assert len(found) == count
    order = np.linalg.norm(found.position_um[:, None] - sample.position_um, axis=-1).argmin(1)
    assert sorted(order.tolist()) == list(range(count))
    return Sample(**{**sample.__dict__, "spots": placed}), found, volume[order], strength


@pytest.mark.parametrize("system", ["cubic", "trigonal"])
@pytest.mark.parametrize("atoms", [True, False])
def test_relative_volumes(system: str, atoms: bool) -> None:
    sample, found, volume, strength = shining(60, system)
    got = relative_volumes(found, sample.spots, sample.geometry, sample.lattice, strength=strength if atoms else None)
    error = np.log(radii(got, 1.0) / radii(volume, 1.0))
    assert np.abs(np.median(error)) < 0.005
    assert np.sqrt(np.mean(error**2)) < 0.01
    assert np.abs(error).max() < 0.03


def test_volumes_are_counts_of_the_median_spot() -> None:
    sample, found, _, _ = shining(30, "cubic")
    got = relative_volumes(found, sample.spots, sample.geometry, sample.lattice)
    owned = sample.spots.intensity[found.owner >= 0]
    assert 0.5 < np.median(got) / np.median(owned) < 2.0


def test_two_grains_of_few_spots_and_no_grains() -> None:
    sample, found, volume, _ = shining(2, "cubic", scatter=0.0, wrong=0.0)
    got = relative_volumes(found, sample.spots, sample.geometry, sample.lattice)
    assert got[0] / got[1] == pytest.approx(volume[0] / volume[1], rel=0.01)
    nothing = wider(sample, min_completeness=0.98)
    none = find_grains(sample.spots.take(np.arange(6)), nothing.geometry, nothing.lattice, limits=nothing.limits)
    assert len(none) == 0
    assert relative_volumes(none, sample.spots.take(np.arange(6)), sample.geometry, sample.lattice).shape == (0,)


def test_a_grain_whose_spots_are_too_weak_has_no_volume() -> None:
    sample, found, _, strength = shining(3, "cubic")
    dark = Spots(sample.spots.point_um, sample.spots.omega, np.where(found.owner == 1, 0.0, sample.spots.intensity))
    got = relative_volumes(found, dark, sample.geometry, sample.lattice, strength=strength)
    assert np.isnan(got).tolist() == [False, True, False]
    assert np.isnan(radii(got, 1.0)).tolist() == [False, True, False]


def test_radii_fill_what_they_are_told() -> None:
    got = radii(np.array([1.0, 8.0, np.nan]), 4 / 3 * math.pi * 9 * 1000)
    np.testing.assert_allclose(got[:2], [10, 20])


def test_families_are_what_symmetry_makes_equal() -> None:
    cubic = lattice_of("cubic")
    assert np.array_equal(families(cubic), cubic.ring)
    ruby = lattice_of("trigonal")
    of_ring = [len(set(families(ruby)[ruby.ring == ring].tolist())) for ring in range(int(ruby.ring.max()) + 1)]
    assert max(of_ring) <= 2
    family = families(ruby)
    sizes = np.bincount(family)
    assert set(sizes.tolist()) <= {2, 6, 12}
