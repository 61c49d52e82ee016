"""What grains say against what was given: none is lost silently outside of the limits, or by a lattice that is off."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from synthetic_grains import Sample, make, wider

from kernels.hedm.farfield import doubts
from kernels.hedm.farfield.find import Found, find_grains
from kernels.hedm.farfield.lattice import Lattice


def find(sample: Sample) -> Found:
    return find_grains(sample.spots, sample.geometry, sample.lattice, limits=sample.limits)


@pytest.mark.parametrize(
    ("limits", "omega_ranges", "says"),
    [
        ({"radius_um": 250.0}, ((-np.pi, np.pi),), r"larger sampleRadius \(at least 5[01]0\)\.$"),
        ({"height_um": 100.0}, ((-np.pi, np.pi),), r"larger sampleHeight \(at least (290|300|310)\)\.$"),
        ({"radius_um": 250.0, "height_um": 100.0}, ((-1.0, 1.0),), r"Radius \(at least 5[01]0\) and sampleHeight"),
    ],
)
def test_grains_outside_of_the_limits_are_counted(limits, omega_ranges, says):
    sample = wider(make(60, seed=5, omega_ranges=omega_ranges, height_um=300.0), **limits)
    given = sample.limits
    x, y, z = sample.position_um.T
    out = (np.hypot(x, y) > given.radius_um) | (np.abs(z) > given.height_um / 2)
    near = np.minimum(np.abs(np.hypot(x, y) - given.radius_um), np.abs(np.abs(z) - given.height_um / 2)) < 60
    found = find(sample)
    assert len(found) + len(found.outside_um) == 60
    assert abs(len(found.outside_um) - out.sum()) <= near.sum()
    assert len(found.outside_um) > 5
    sentence = doubts.outside(found.outside_um, given)
    assert sentence.startswith(f"{len(found.outside_um)} grains lie outside of the sample's limits")
    assert re.search(says, sentence), sentence


def test_where_all_lie_inside_nothing_is_said():
    found = find(make(60, seed=5, spurious=0.3))
    assert (len(found), len(found.outside_um)) == (60, 0)
    assert doubts.outside(found.outside_um, found.limits) == ""


def test_a_single_grain_outside():
    sample = make(1, seed=3, position_um=np.array([[700.0, 0.0, 10.0]]))
    found = find(sample)
    assert (len(found), len(found.outside_um)) == (0, 1)
    assert doubts.outside(found.outside_um, sample.limits).startswith(
        "1 grain lies outside of the sample's limits and is"
    )


def off(sample: Sample, by: float) -> Sample:
    """The same with a lattice that is smaller by this, relatively, than that of the grains."""
    given = sample.lattice
    return replace(sample, lattice=Lattice(given.b0 * (1 + by), given.hkl, given.ring, given.rotations))


@pytest.mark.parametrize("by", [1.5e-3, -1.5e-3])
def test_a_strain_that_all_grains_share_is_told(by):
    sample = off(make(40, seed=6, strain=2e-4), by)
    found = find(sample)
    assert len(found) == 40
    said = doubts.strained(found.strain, sample.limits)
    assert f"share a strain of {100 * by:+.2f}% in all directions" in said
    assert f"{1 + by:.4f} times as large" in said


def test_strains_that_differ_are_not_said_to_be_shared():
    sample = make(40, seed=6, strain=1e-3)
    assert doubts.strained(find(sample).strain, sample.limits) == ""
    loaded = np.tile([-3e-4, -3e-4, 1e-3, 0, 0, 0], (40, 1))  # along one direction
    assert doubts.strained(loaded, sample.limits) == ""
    assert doubts.strained(np.zeros((0, 6)), sample.limits) == ""


def test_a_lattice_off_by_more_than_the_largest_strain_is_told_by_its_rings():
    found = find(off(make(40, seed=6), 6e-3))
    assert len(found) < 4
    assert "lie 0.60% further in than expected: lattice, wavelength or distance" in found.verdict.sentence
