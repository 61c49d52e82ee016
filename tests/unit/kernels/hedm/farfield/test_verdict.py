"""Where nothing can be indexed, the two thetas tell what is wrong."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from synthetic_grains import Sample, make

from kernels.hedm.farfield.lattice import Lattice
from kernels.hedm.farfield.verdict import judge


@pytest.fixture(scope="module")
def sample() -> Sample:
    return make(60, seed=21)


def test_a_right_lattice_fits(sample):
    verdict = judge(sample.spots, sample.geometry.flat, sample.lattice, sample.limits)
    assert verdict.on_rings > 0.98 * verdict.spots
    assert verdict.scale == pytest.approx(1.0, abs=2e-3)
    assert np.allclose(verdict.found_two_theta, verdict.ring_two_theta, atol=2e-3)
    assert (verdict.ring_spots > 100).all()


@pytest.mark.parametrize("factor", [0.93, 1.08])
def test_a_wrong_lattice_is_told_its_scale(sample, factor):
    given = sample.lattice
    wrong = Lattice(given.b0 * factor, given.hkl, given.ring, given.rotations)  # a lattice 1 / factor as large
    verdict = judge(sample.spots, sample.geometry.flat, wrong, sample.limits)
    assert verdict.scale == pytest.approx(factor, rel=3e-3)
    assert f"{verdict.scale:.4f} times as large" in verdict.sentence


def test_a_wrong_wavelength_is_told_too(sample):
    geometry = replace(sample.geometry, wavelength_A=sample.geometry.wavelength_A * 1.05)
    verdict = judge(sample.spots, geometry.flat, sample.lattice, sample.limits)
    assert "wavelength" in verdict.sentence
    assert verdict.scale == pytest.approx(1.05, rel=5e-3)


@pytest.mark.parametrize("off", [(2000.0, 0.0), (-1500.0, 2500.0)])
def test_a_wrong_beam_centre_is_told_too(sample, off):
    points = sample.spots.point_um + np.array([0.0, *off])
    spots = type(sample.spots)(points, sample.spots.omega, sample.spots.intensity)
    verdict = judge(spots, sample.geometry.flat, sample.lattice, sample.limits)
    assert "The beam centre is likely wrong" in verdict.sentence
    assert np.allclose(verdict.centre_um, off, atol=600.0)


def test_spots_everywhere_are_told_from_rings(sample):
    random = np.random.default_rng(0)
    points = sample.spots.point_um.copy()
    points[:, 1:] = random.uniform(-2e5, 2e5, (len(points), 2))
    spots = type(sample.spots)(points, sample.spots.omega, sample.spots.intensity)
    verdict = judge(spots, sample.geometry.flat, sample.lattice, sample.limits)
    assert "as by chance" in verdict.sentence
