"""Friedel pairs are found, and say exactly what the grain's reciprocal vector is and, across the ray, its position."""

from __future__ import annotations

import math

import numpy as np
import pytest
from synthetic_grains import Sample, flat_panel, make

from kernels.hedm.farfield.friedel import Pairs, pair_spots
from kernels.hedm.farfield.spots import sort_spots


def paired(sample: Sample) -> Pairs:
    length = np.linalg.norm(sample.spots.point_um, axis=1)
    cosine = sample.spots.point_um @ sample.geometry.flat.source[:3] / length
    g = np.sqrt(2 - 2 * cosine) / sample.geometry.wavelength_A
    ring = np.abs(g[:, None] - sample.lattice.ring_length).argmin(1)
    rings = len(sample.lattice.ring_length)
    cells = sort_spots(sample.spots, ring, rings, sample.geometry.flat.source)
    return pair_spots(
        sample.spots,
        cells,
        sample.geometry.flat,
        sample.lattice.ring_length,
        np.arange(rings),
        limits=sample.limits,
    )


def true_vectors(sample: Sample, pairs: Pairs) -> np.ndarray:
    """The nearest of the grain's strained reciprocal vectors to each pair's."""
    e = sample.strain[:, [0, 5, 4, 5, 1, 3, 4, 3, 2]].reshape(-1, 3, 3)
    matrix = np.linalg.inv(np.eye(3) + e) @ sample.orientation
    g = np.einsum("nij,hj->nhi", matrix, sample.lattice.g0)[sample.grain[pairs.first]]
    off = np.linalg.norm(g - pairs.g[:, None], axis=2)
    return np.take_along_axis(g, off.argmin(1)[:, None, None], 1)[:, 0]


@pytest.mark.parametrize(
    ("tilts", "wedge"),
    [((0.0, 0.0, 0.0), 0.0), ((0.01, -0.02, 0.015), 0.0), ((0.0, 0.0, 0.0), math.radians(0.4))],
    ids=["straight", "tilted", "wedge"],
)
@pytest.mark.parametrize(("radius_um", "allowed"), [(1e-6, 1e-8), (500.0, 3e-6)])
def test_without_noise_a_pair_is_exact(tilts, wedge, radius_um, allowed):
    sample = make(
        20, geometry=flat_panel(tilts, wedge), noise_px=1e-7, noise_deg=1e-7, missing=0, spurious=0,
        radius_um=radius_um, height_um=radius_um / 5,
    )  # fmt: skip
    wide = Sample(**{**sample.__dict__, "limits": type(sample.limits)(radius_um=600.0)})
    pairs = paired(wide)
    right = sample.grain[pairs.first] == sample.grain[pairs.second]
    assert right.mean() > 0.98
    assert len(pairs) > 0.47 * len(sample.spots)
    pairs = pairs.take(right)
    true = true_vectors(sample, pairs)
    error = np.linalg.norm(pairs.g - true, axis=1) / np.linalg.norm(true, axis=1)
    assert np.quantile(error, 0.95) < allowed + 20 * wedge * radius_um / 1e6
    p = sample.position_um[sample.grain[pairs.first]]
    across = p - (p * pairs.ray).sum(1)[:, None] * pairs.ray
    assert np.quantile(np.abs(across - pairs.offset_um), 0.95) < (2e-3 + 2 * wedge) * radius_um + 0.02


def test_with_noise_nearly_all_spots_are_paired():
    sample = make(200, seed=2)
    pairs = paired(sample)
    right = sample.grain[pairs.first] == sample.grain[pairs.second]
    true = np.sum(sample.grain >= 0)
    assert right.mean() > 0.98
    assert 2 * right.sum() > 0.88 * true  # 5 % are missing, so that 90 % have a mate
    assert len(np.unique(np.concatenate([pairs.first, pairs.second]))) == 2 * len(pairs)
