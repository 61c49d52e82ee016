"""Filtered back projection against what is known exactly: gain, error, and where things lie."""

from __future__ import annotations

import numpy as np
import pytest
from scans import disc

from kernels.tomography.fbp import FILTERS, Reconstructor, angle_weights, filter_response, padded_length

SIZE, ANGLES = 128, 181
THETA = np.arange(ANGLES) * 180.0 / ANGLES


def disc_sinogram(axis: float, radius: float, x: float = 0.0, y: float = 0.0) -> np.ndarray:
    """Exact line integrals of a disc of value 1 at (x, y) from the axis, averaged over 16 points of each pixel."""
    theta = np.deg2rad(THETA)[:, None, None]
    fine = np.arange(SIZE)[:, None] + (np.arange(16) + 0.5) / 16 - 0.5
    distance = fine - axis - x * np.cos(theta) - y * np.sin(theta)
    return (2 * np.sqrt(np.maximum(radius**2 - distance**2, 0))).mean(2).astype(np.float32)


@pytest.mark.parametrize("window", FILTERS)
def test_gain_is_one(window: str) -> None:
    middle = 0.5 * (SIZE - 1)
    made = Reconstructor(THETA, SIZE, axis=middle, window=window).slices(disc_sinogram(middle, 40.0)[None])[0]
    from_middle = np.hypot(*(np.mgrid[:SIZE, :SIZE] - middle))
    assert made[from_middle < 35].mean() == pytest.approx(1.0, abs=0.004)
    assert made[(from_middle > 45) & (from_middle < 60)].mean() == pytest.approx(0.0, abs=0.004)


def test_error_against_the_truth() -> None:
    middle = 0.5 * (SIZE - 1)
    made = Reconstructor(THETA, SIZE, axis=middle).slices(disc_sinogram(middle, 40.0)[None])[0]
    truth = disc(SIZE, 40.0)
    error = np.sqrt(((made - truth) ** 2).mean() / (truth**2).mean())
    assert error < 0.05  # all of it at the edge of the disc
    inside = np.hypot(*(np.mgrid[:SIZE, :SIZE] - middle)) < 36
    assert np.abs(made[inside] - 1).max() < 0.02


@pytest.mark.parametrize("axis", [63.5, 60.0, 66.25])
@pytest.mark.parametrize(("x", "y"), [(0.0, 0.0), (20.0, -11.0), (-7.5, 18.5)])
def test_things_lie_where_the_convention_says(axis: float, x: float, y: float) -> None:
    """Voxel i is at i - (N - 1) / 2 from the axis, wherever the axis is on the detector."""
    made = Reconstructor(THETA, SIZE, axis=axis).slices(disc_sinogram(axis, 12.0, x, y)[None])[0].astype(np.float64)
    made[made < 0.5] = 0
    rows, columns = np.mgrid[:SIZE, :SIZE] - 0.5 * (SIZE - 1)
    assert (made * columns).sum() / made.sum() == pytest.approx(x, abs=0.05)
    assert (made * rows).sum() / made.sum() == pytest.approx(y, abs=0.05)


def test_slices_of_a_group_do_not_mix() -> None:
    middle = 0.5 * (SIZE - 1)
    sinograms = np.stack([disc_sinogram(middle, 10.0 + 4 * n) * (n + 1) for n in range(3)])
    reconstructor = Reconstructor(THETA, SIZE, axis=middle)
    together = reconstructor.slices(sinograms)
    for n in range(3):
        np.testing.assert_allclose(together[n], reconstructor.slices(sinograms[n : n + 1])[0], atol=1e-6)


def test_the_circle_is_empty_outside_and_optional() -> None:
    middle = 0.5 * (SIZE - 1)
    sinogram = disc_sinogram(middle, 40.0)[None]
    outside = np.hypot(*(np.mgrid[:SIZE, :SIZE] - middle)) > 0.5 * SIZE
    assert not Reconstructor(THETA, SIZE, axis=middle).slices(sinogram)[0][outside].any()
    assert Reconstructor(THETA, SIZE, axis=middle, circle=False).slices(sinogram)[0][outside].any()


def test_edge_padding_flattens_an_object_wider_than_the_view() -> None:
    middle = 0.5 * (SIZE - 1)
    sinogram = disc_sinogram(middle, 90.0)[None]
    from_middle = np.hypot(*(np.mgrid[:SIZE, :SIZE] - middle))
    rim, core = (from_middle > 58) & (from_middle < 62), from_middle < 20

    def cup(padding: str) -> float:
        made = Reconstructor(THETA, SIZE, axis=middle, padding=padding).slices(sinogram)[0]
        return abs(float(made[rim].mean() - made[core].mean()))

    assert cup("edge") < 0.5 * cup("zero")


def test_the_ramp_keeps_a_mean_value_that_the_sampled_frequency_would_lose() -> None:
    response = filter_response(1024)
    frequency = np.arange(513) / 1024
    assert response[0] > 0
    np.testing.assert_allclose(response[50:], frequency[50:], rtol=2e-3)
    assert all(filter_response(1024, w)[0] == pytest.approx(response[0]) for w in FILTERS)


@pytest.mark.parametrize("columns", [1, 7, 96, 511, 2048])
def test_padding_is_at_least_twice_and_even(columns: int) -> None:
    assert padded_length(columns) >= 2 * columns
    assert padded_length(columns) % 2 == 0


def test_angle_weights() -> None:
    full = angle_weights(THETA)
    np.testing.assert_allclose(full, np.pi / ANGLES)
    closed = angle_weights(np.linspace(0, 180, 91))
    assert closed.sum() == pytest.approx(np.pi)
    assert closed[0] == pytest.approx(closed[45] / 2)
    assert angle_weights(np.arange(0, 360, 0.5)).sum() == pytest.approx(np.pi)
    wedge = angle_weights(np.arange(0.0, 140.0))
    assert wedge.max() <= 2 * np.median(wedge) + 1e-12
