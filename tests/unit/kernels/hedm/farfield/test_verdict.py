"""Where nothing can be indexed, the two thetas tell what is wrong."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from synthetic_grains import Sample, make

from kernels.hedm.crystals import Crystal
from kernels.hedm.farfield.lattice import Lattice
from kernels.hedm.farfield.verdict import judge
from kernels.hedm.reflections import list_reflections


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


@pytest.mark.parametrize("factor", [0.997, 1.003, 1.006])
@pytest.mark.parametrize("system", ["cubic", "trigonal", "monoclinic"])
def test_rings_that_are_shifted_alike_are_told_one_by_one(system, factor):
    sample = make(40, system, seed=22, strain=0.0)
    given = sample.lattice
    wrong = Lattice(given.b0 * factor, given.hkl, given.ring, given.rotations)  # rings are expected too far out
    verdict = judge(sample.spots, sample.geometry.flat, wrong, sample.limits)
    assert verdict.shift == pytest.approx(1 / factor - 1, abs=5 * verdict.shift_sigma)
    assert verdict.shift_sigma < 2e-4
    assert f"lie {abs(verdict.shift):.2%}" in verdict.shifted
    assert f"% further {'in' if factor > 1 else 'out'} than expected: lattice, wavelength or dist" in verdict.sentence
    first = np.degrees(verdict.ring_two_theta[0])
    assert f"expected at {first:.3f}" in verdict.sentence
    assert f"with a lattice {factor:.4f} times as large {verdict.at_scale} of {verdict.spots} spots" in verdict.sentence
    assert "another crystal" not in verdict.sentence
    assert np.degrees(verdict.ring_found[0]) == pytest.approx(first / factor, rel=3e-4)
    assert f"at two theta {np.degrees(verdict.ring_found[0]):.3f}" in verdict.sentence


def test_a_wrong_distance_shifts_rings_alike(sample):
    near = replace(sample.geometry, panels=(sample.geometry.panels[0].moved(np.array([-4e3, 0, 0]), np.eye(3)),))
    points = sample.spots.point_um - [4e3, 0, 0]
    spots = type(sample.spots)(points, sample.spots.omega, sample.spots.intensity)
    verdict = judge(spots, near.flat, sample.lattice, sample.limits)
    assert verdict.shift == pytest.approx(4e-3, abs=3e-4)
    assert re.search(r"lie 0\.(39|40)% further out", verdict.sentence)


def test_a_shift_that_fits_a_part_of_the_spots_says_so(sample):
    """The rings of iron are almost some of those of this crystal."""
    iron = Crystal.of((2.866, 2.866, 2.866, 90, 90, 90), 229)
    listed = list_reflections(iron, sample.geometry.wavelength_A, rings=5)
    lattice = Lattice(iron.b0, listed.hkl, listed.ring, iron.rotations)
    verdict = judge(sample.spots, sample.geometry.flat, lattice, sample.limits)
    assert "further in than expected" in verdict.sentence
    assert verdict.sentence.endswith("The others are of another crystal, or of none.")


def test_rings_where_they_should_be_are_not_shifted(sample):
    assert judge(sample.spots, sample.geometry.flat, sample.lattice, sample.limits).shifted == ""


def test_rings_that_are_shifted_by_a_length_are_not_shifted_by_a_factor(sample):
    """As a beam centre that is off does where only a part of each ring is seen."""
    points = sample.spots.point_um[sample.spots.point_um[:, 1] > 6e4] + [0, 600.0, 0]
    spots = type(sample.spots)(points, np.zeros(len(points)), np.ones(len(points)))
    verdict = judge(spots, sample.geometry.flat, sample.lattice, sample.limits)
    assert verdict.shifted == ""
