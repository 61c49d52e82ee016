"""The same grain is kept once, a shared spot has one owner, and what chance explains is known as such."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from synthetic_grains import make

from kernels.hedm.farfield.find import Scene, _joined
from kernels.hedm.farfield.ownership import chance_of_match, false_grains, share_out
from kernels.hedm.farfield.refinement import refine


@pytest.fixture(scope="module")
def scene():
    sample = make(30, seed=11)
    scene = Scene(sample.spots, sample.geometry.flat, sample.lattice, sample.limits)
    grains = refine(
        scene.cells, sample.geometry.flat, sample.lattice.g0, scene.shell_of, orientation=sample.orientation,
        position_um=sample.position_um, limits=sample.limits,
    )  # fmt: skip
    return sample, scene, grains


def test_a_grain_found_twice_is_kept_once(scene):
    sample, _, grains = scene
    turned = grains.take(np.arange(10))
    for turn in (np.eye(3), sample.lattice.rotations[5]):
        double = _joined(grains, replace(turned, orientation=turned.orientation @ turn))
        kept, owner, unique = share_out(double, len(sample.spots))
        assert len(kept) == 30
        assert len(set(kept % 30)) == 30
        assert np.array_equal(np.bincount(owner[owner >= 0], minlength=30), unique)


def test_a_spot_belongs_to_the_grain_it_lies_nearest_to(scene):
    sample, _, grains = scene
    _, owner, _ = share_out(grains, len(sample.spots))
    spot, away = grains.spot, grains.away
    for n in range(0, len(sample.spots), 97):
        grain, slot = np.nonzero(spot == n)
        if len(grain):
            assert owner[n] == grain[away[grain, slot].argmin()]
        else:
            assert owner[n] == -1


def test_chance_matches_are_as_many_as_predicted(scene):
    """Orientations that are nobody's, and never moved, meet as many spots as their density says."""
    sample = make(400, seed=12, noise_px=0.4, noise_deg=0.12)
    scene = Scene(sample.spots, sample.geometry.flat, sample.lattice, sample.limits)
    chance = chance_of_match(scene.cells, sample.lattice, scene.view, scene.ring_shell, sample.limits)
    other = make(200, seed=13)
    limits = replace(sample.limits, mosaicity=0.0)
    look = np.array([[limits.spot_um, limits.omega, 5.0, 12.0]])
    grains = refine(
        scene.cells, sample.geometry.flat, sample.lattice.g0, scene.shell_of, orientation=other.orientation,
        position_um=other.position_um, limits=limits, steps=look,
    )  # fmt: skip
    expected = ((grains.spot != -2) @ np.repeat(chance[scene.shell_of], 2)).sum()
    assert grains.matched.sum() == pytest.approx(expected, rel=0.25)


def test_true_grains_are_beyond_chance_and_random_ones_are_not(scene):
    sample, scene, grains = scene
    chance = chance_of_match(scene.cells, sample.lattice, scene.view, scene.ring_shell, sample.limits)
    assert (false_grains(grains, chance, scene.shell_of, 1000) < -50).all()
    poor = replace(grains, matched=np.full(len(grains), 5))
    assert (false_grains(poor, chance, scene.shell_of, 1000) > -3).all()
