"""From spots to grains: all found, none false, as exact as the noise allows; any crystal system, any scan."""

from __future__ import annotations

import math
from dataclasses import replace

import numba
import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from synthetic_grains import CRYSTALS, Sample, compare, flat_panel, make

from kernels.errors import KernelError
from kernels.hedm.farfield.find import Found, find_grains
from kernels.hedm.farfield.limits import Limits
from kernels.hedm.geometry import Geometry, Panel
from kernels.hedm.orientations import random_orientations


def find(sample: Sample) -> Found:
    return find_grains(sample.spots, sample.geometry, sample.lattice, limits=sample.limits)


@pytest.fixture(scope="module")
def usual() -> tuple[Sample, Found]:
    sample = make(500)
    return sample, find(sample)


def test_five_hundred_grains(usual):
    sample, found = usual
    score = compare(found, sample)
    assert (score.found, score.false) == (500, 0)
    assert score.orientation_deg < 0.0028
    assert score.position_um < 4.1
    assert score.strain < 1.5e-5
    assert score.pulls == pytest.approx(1.0, abs=0.1)
    assert np.median(found.completeness) > 0.93
    assert found.log_false.max() < -10


def test_each_spot_has_the_grain_that_made_it(usual):
    sample, found = usual
    owned = found.owner >= 0
    assert owned.mean() > 0.93
    partner = np.array([int(np.bincount(sample.grain[found.owner == n] + 1).argmax()) - 1 for n in range(len(found))])
    assert sorted(partner) == list(range(500))
    assert (partner[found.owner[owned]] == sample.grain[owned]).mean() > 0.995
    assert (found.owner[sample.grain < 0] < 0).mean() > 0.9
    assert np.array_equal(np.bincount(found.owner[owned], minlength=len(found)), found.unique)
    length = np.linalg.norm(sample.spots.point_um, axis=1)
    cosine = sample.spots.point_um[:, 0] / length
    seen = np.sqrt(2 - 2 * cosine) / sample.geometry.wavelength_A
    assert np.allclose(sample.lattice.length[found.reflection[owned]], seen[owned], rtol=0.01)


def test_a_noisy_scan_with_many_lost_and_false_spots():
    sample = make(250, noise_px=0.4, noise_deg=0.12, missing=0.2, spurious=0.3, seed=1)
    score = compare(find(sample), sample, within_deg=0.5)
    assert score.found >= 0.98 * 250
    assert score.false == 0
    assert score.orientation_deg < 0.013
    assert score.position_um < 20


@pytest.mark.parametrize("system", CRYSTALS)
def test_every_crystal_system(system):
    sample = make(60, system, seed=2)
    score = compare(find(sample), sample)
    assert score.found == 60
    assert score.false == 0
    assert score.orientation_deg < 0.004
    assert score.position_um < 6


def test_a_tilted_panel_and_a_wedge():
    sample = make(60, geometry=flat_panel((0.01, -0.02, 0.015), math.radians(0.4)), seed=3)
    score = compare(find(sample), sample)
    assert (score.found, score.false) == (60, 0)
    assert score.position_um < 5


def test_two_panels_with_a_gap_between_them():
    panels = tuple(
        Panel.tilted(
            name,
            shape=(3888, 3072),
            pixel_um=(74.8, 74.8),
            distance_um=distance,
            beam_centre=(1943.5, column),
            tilts=tilts,
        )
        for name, distance, column, tilts in (
            ("left", 6.7e5, -100.0, (0.003, -0.01, 0.006)),
            ("right", 6.71e5, 3172.0, (-0.001, 0.01, -0.004)),
        )
    )
    geometry = Geometry(0.2952, panels, wedge=7.5e-4)
    sample = make(40, "trigonal", geometry=geometry, height_um=400.0, seed=9)
    score = compare(find(sample), sample)
    assert (score.found, score.false) == (40, 0)
    assert score.position_um < 5


@pytest.mark.parametrize("apart_deg", [60.0, 0.3])
def test_twins_and_subgrains_are_two(apart_deg):
    random = np.random.default_rng(10)
    first = random_orientations(30, random)
    turn = Rotation.from_rotvec(np.radians(apart_deg) * np.ones(3) / math.sqrt(3)).as_matrix()
    place = random.uniform(-300, 300, (30, 3)) * [1, 1, 0.1]
    near = place + random.normal(0, 20, (30, 3)) * [1, 1, 0.3]
    sample = make(
        60, orientation=np.concatenate([first, first @ turn]), position_um=np.concatenate([place, near]), seed=10
    )
    score = compare(find(sample), sample, within_deg=0.05, within_um=60)
    assert (score.found, score.false) == (60, 0)


@pytest.mark.parametrize(
    "ranges",
    [((-math.pi / 3, math.pi / 3),), ((-1.2, -0.2), (0.4, 1.3)), ((0.0, math.pi),)],
    ids=["120", "two", "180"],
)
def test_less_than_a_turn(ranges):
    sample = make(40, omega_ranges=ranges, seed=4)
    score = compare(find(sample), sample)
    assert score.found == 40
    assert score.false == 0
    assert score.position_um < 12


@pytest.mark.parametrize("system", ["hexagonal", "monoclinic"])
def test_less_than_a_turn_of_another_crystal(system):
    sample = make(15, system, omega_ranges=((-1.0, 1.0),), seed=5)
    score = compare(find(sample), sample)
    assert (score.found, score.false) == (15, 0)


@pytest.mark.parametrize("ranges", [((-math.pi, math.pi),), ((-1.0, 1.0),)], ids=["turn", "part"])
def test_any_number_of_threads_gives_the_same(ranges):
    sample = make(40, omega_ranges=ranges, seed=6)
    most = numba.get_num_threads()
    several = find(sample)
    try:
        numba.set_num_threads(1)
        one = find(sample)
    finally:
        numba.set_num_threads(most)
    assert np.array_equal(one.orientation, several.orientation)
    assert np.array_equal(one.position_um, several.position_um)
    assert np.array_equal(one.owner, several.owner)


@pytest.mark.parametrize("ranges", [((-math.pi, math.pi),), ((-1.0, 1.0),)], ids=["turn", "part"])
def test_spots_anywhere_on_the_rings_make_no_grains(ranges):
    sample = make(100, missing=0.0, spurious=1.0, omega_ranges=ranges, seed=7)
    noise = sample.spots.take(sample.grain < 0)
    found = find_grains(noise, sample.geometry, sample.lattice, limits=sample.limits)
    assert len(found) == 0
    assert found.indexed == 0.0
    assert "on rings as they should" in found.verdict.sentence


def test_the_noise_is_measured_where_it_is_not_what_was_said():
    sample = make(60, noise_px=0.25, noise_deg=0.06, seed=8)
    said = Sample(**{**sample.__dict__, "limits": Limits(spot_um=20.0, omega=math.radians(0.03), height_um=100.0)})
    found = find(said)
    assert compare(found, said).found == 60
    assert found.limits.spot_um == pytest.approx(50.0, rel=0.15)
    assert math.degrees(found.limits.omega) == pytest.approx(0.06, rel=0.15)


def test_no_spots_are_refused():
    sample = make(1)
    with pytest.raises(KernelError, match="empty"):
        find_grains(sample.spots.take(np.zeros(0, int)), sample.geometry, sample.lattice, limits=sample.limits)


@pytest.mark.parametrize(
    "wrong",
    [{"spot_um": 0.0}, {"omega": math.nan}, {"min_completeness": 1.0}, {"omega_ranges": ((1.0, 0.5),)}],
)
def test_limits_that_make_no_sense_are_refused(wrong):
    with pytest.raises(KernelError):
        Limits(**wrong)


@pytest.mark.parametrize("given", [(5.0, 0.03), (20.0, 0.03), (20.0, 0.15), (60.0, 0.15)])
def test_noise_may_be_other_than_was_said(given: tuple[float, float]):
    """Places to 1 µm and omegas to 0.08° only, as frames of half a degree give them."""
    sample = make(30, seed=5, noise_px=0.006, noise_deg=0.08, missing=0.0, spurious=0.0)
    limits = replace(sample.limits, spot_um=given[0], omega=math.radians(given[1]))
    found = find_grains(sample.spots, sample.geometry, sample.lattice, limits=limits)
    score = compare(found, sample)
    assert (score.found, score.false) == (30, 0)
    assert found.limits.spot_um == pytest.approx(1.2, rel=0.3)
    assert math.degrees(found.limits.omega) == pytest.approx(0.08, rel=0.3)
