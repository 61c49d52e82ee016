"""Spots come from pixels or from a plane, and the nearest to a prediction is found wherever the angles begin anew."""

from __future__ import annotations

import math

import numpy as np
import pytest
from synthetic_grains import flat_panel, make

from kernels.errors import KernelError
from kernels.hedm.farfield.spots import Spots, arctangent, directions, measured, nearest, sort_spots


def test_a_plane_and_pixels_are_the_same():
    geometry = flat_panel(wedge=0.01)
    random = np.random.default_rng(1)
    row, column, omega = random.uniform(0, 2047, 50), random.uniform(0, 2047, 50), random.uniform(-3, 3, 50)
    one = Spots.of_pixels(geometry, np.zeros(50, int), row, column, omega=omega)
    y, z = -(column - 1023.5) * 200.0, (row - 1023.5) * 200.0
    other = Spots.of_plane(geometry, y, z, omega=omega)
    assert np.allclose(one.point_um, other.point_um, atol=1e-6)
    assert np.array_equal(one.intensity, np.ones(50))


@pytest.mark.parametrize("wrong", [{"omega": np.zeros(3)}, {"point_um": np.full((2, 3), np.nan)}])
def test_spots_that_are_none_are_refused(wrong):
    with pytest.raises(KernelError):
        Spots(**({"point_um": np.ones((2, 3)), "omega": np.zeros(2), "intensity": np.ones(2)} | wrong))


def test_the_fast_arctangent():
    for angle in np.linspace(-math.pi, math.pi, 1001):
        assert arctangent(3 * math.sin(angle), 3 * math.cos(angle)) == pytest.approx(
            math.atan2(math.sin(angle), math.cos(angle)), abs=2e-5
        )


def test_omega_ranges_go_around():
    ranges = np.array([[3.0, 0.5], [-1.0, 0.2]])
    assert [measured(ranges, omega) for omega in (3.1, -3.1, -2.7, -0.9, -0.7, 0.0)] == [
        True,
        True,
        False,
        True,
        False,
        False,
    ]


def test_the_nearest_is_that_of_a_search_through_all():
    sample = make(300, seed=2)
    geometry, spots = sample.geometry, sample.spots
    source, panels, _ = geometry.flat
    shell = np.zeros(len(spots), int)
    shell[::7] = -1  # on no ring
    cells = sort_spots(spots, shell, 1, source)
    _, distance, eta = directions(spots.point_um, source)
    radius = distance * np.sqrt(1 - (spots.point_um[:, 0] / distance) ** 2)
    random = np.random.default_rng(3)
    kept = np.flatnonzero(shell == 0)
    chosen = np.concatenate(
        [
            random.choice(kept, 100),
            kept[np.argsort(-np.abs(spots.omega[kept]))[:40]],
            kept[np.argsort(-np.abs(eta[kept]))[:40]],
        ]
    )
    gate, sigma_um, sigma = 5.0, 400.0, 0.004
    for n in chosen:
        x, y, z = spots.point_um[n] + [0.0, *random.normal(0, 500, 2)]
        omega = spots.omega[n] + random.normal(0, 0.005)
        here = math.atan2(-y, z)
        which, distance2, a, b, w = nearest(
            cells, 0, here, gate * sigma_um / radius[n], math.cos(omega), math.sin(omega), gate * sigma, panels, 0,
            x, y, z, 1 / sigma_um, 1 / sigma, gate**2,
        )  # fmt: skip
        dw = (spots.omega - omega + math.pi) % (2 * math.pi) - math.pi
        dy, dz = spots.point_um[:, 1] - y, spots.point_um[:, 2] - z
        away = (dy**2 + dz**2) / sigma_um**2 + dw**2 / sigma**2
        away[shell < 0] = np.inf
        best = int(away.argmin())
        assert (cells.place[which] if which >= 0 else -1) == (best if away[best] < gate**2 else -1)
        if which >= 0:
            assert distance2 == pytest.approx(away[best], rel=1e-3)
            assert (a, b) == pytest.approx((dz[best], -dy[best]), abs=1e-6)
            assert w == pytest.approx(dw[best], abs=1e-7)
