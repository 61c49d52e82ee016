"""Twelve numbers a grain come out exact without noise, and as exact as the noise allows with it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from synthetic_grains import Sample, flat_panel, make

from kernels.hedm.farfield.find import Scene
from kernels.hedm.farfield.refinement import Refined, refine, steps_far


def refined(sample: Sample, off_deg: float = 0.02, off_um: float = 20.0, **options: object) -> Refined:
    """Refined from starts that are off by so much."""
    random = np.random.default_rng(5)
    n = len(sample.orientation)
    turn = Rotation.from_rotvec(np.radians(random.normal(0, off_deg, (n, 3)))).as_matrix()
    scene = Scene(sample.spots, sample.geometry.flat, sample.lattice, sample.limits)
    return refine(
        scene.cells, sample.geometry.flat, sample.lattice.g0, scene.shell_of, orientation=turn @ sample.orientation,
        position_um=sample.position_um + random.normal(0, off_um, (n, 3)), limits=sample.limits, **options,
    )  # fmt: skip


def errors(sample: Sample, grains: Refined) -> np.ndarray:
    """(n, 12): refined less true."""
    turn = Rotation.from_matrix(grains.orientation @ sample.orientation.transpose(0, 2, 1)).as_rotvec()
    return np.concatenate([turn, grains.position_um - sample.position_um, grains.strain - sample.strain], axis=1)


@pytest.mark.parametrize("wedge", [0.0, 0.01])
def test_without_noise_it_is_exact(wedge):
    sample = make(
        20, geometry=flat_panel((0.01, -0.02, 0.015), wedge), noise_px=1e-3, noise_deg=3e-4, missing=0, spurious=0
    )
    near = Sample(**{**sample.__dict__, "limits": type(sample.limits)()})
    grains = refined(near)
    off = np.abs(errors(sample, grains))
    assert off[:, :3].max() < 2e-6
    assert off[:, 3:6].max() < 0.2
    assert off[:, 6:].max() < 2e-6
    assert (grains.completeness > 0.995).all()


def test_errors_are_those_that_the_covariance_says():
    sample = make(150, seed=3)
    grains = refined(sample)
    sigma = np.sqrt(np.diagonal(grains.covariance, axis1=1, axis2=2))
    pulls = errors(sample, grains) / sigma
    assert np.abs(np.sqrt((pulls**2).mean(0)) - 1).max() < 0.2
    assert abs(np.sqrt((pulls**2).mean()) - 1) < 0.05
    assert np.median(grains.spot_um) == pytest.approx(20.0, rel=0.06)
    assert np.degrees(np.median(grains.omega)) == pytest.approx(0.03, rel=0.08)
    assert np.median(grains.spread) == pytest.approx(1.0, abs=0.1)


def test_double_noise_makes_double_errors():
    once, twice = (
        np.sqrt((errors(sample, refined(sample)) ** 2).mean(0))
        for sample in (make(100, noise_px=0.1 * k, noise_deg=0.03 * k, seed=4) for k in (1, 2))
    )
    assert np.allclose(twice / once, 2.0, rtol=0.2)


def test_a_far_start_finds_its_way():
    sample = make(40, seed=6)
    grains = refined(sample, off_deg=0.15, off_um=200.0, steps=steps_far(sample.limits, np.radians(0.5)))
    off = np.linalg.norm(errors(sample, grains)[:, 3:6], axis=1)
    assert (off < 30.0).mean() > 0.95


def test_a_grain_without_spots_fails_quietly():
    sample = make(5, seed=7)
    away = Sample(**{**sample.__dict__, "position_um": sample.position_um + 5000.0})
    grains = refined(away)
    assert np.isnan(grains.covariance).all()
    assert (grains.matched < 10).all()
