"""What grains say against what was given: none is lost silently outside of the limits."""

from __future__ import annotations

import re

import numpy as np
import pytest
from synthetic_grains import Sample, make, wider

from kernels.hedm.farfield import doubts
from kernels.hedm.farfield.find import Found, find_grains


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
