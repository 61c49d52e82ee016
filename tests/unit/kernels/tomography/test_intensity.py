"""Frames that were dropped and a beam that jumps, on exact projections."""

from __future__ import annotations

import numpy as np
import pytest
from simulated import noisy, off, transmission

from kernels.errors import KernelError
from kernels.tomography.corrections.intensity import (
    dropped_frames,
    frame_levels,
    intensity_from_air,
    intensity_from_mass,
    intensity_steps,
    steady,
)

FRAMES = 60
TRUTH = transmission(frames=FRAMES, rows=24, step_deg=3.0)
AIR = 2  # columns at each side


def beam() -> np.ndarray:
    """Two jumps: a bunch is lost, the ring is filled."""
    return np.where(np.arange(FRAMES) < 17, 1.0, np.where(np.arange(FRAMES) < 40, 0.8, 1.1))


def test_dropped_frames_are_found() -> None:
    given = noisy(TRUTH, 0.01)
    given[5] = 0
    given[20:28] = 0  # a run of them
    given[30] = np.nan
    given[41] *= 0.05
    given[50, :4] = np.nan  # a part of a frame is no dropped frame
    assert np.flatnonzero(dropped_frames(frame_levels(given))).tolist() == [5, *range(20, 28), 30, 41]


def test_at_the_ends_too() -> None:
    given = TRUTH.copy()
    given[0] = given[-1] = 0
    assert np.flatnonzero(dropped_frames(frame_levels(given))).tolist() == [0, FRAMES - 1]


def test_no_frame_of_a_good_scan_is_dropped() -> None:
    assert not dropped_frames(frame_levels(steady(TRUTH, 1 / beam()))).any()


def test_a_scan_without_beam_is_refused() -> None:
    with pytest.raises(KernelError, match="no usable beam"):
        dropped_frames(np.zeros(10))


@pytest.mark.parametrize("source", ["air", "mass", "steps"])
def test_the_beam_becomes_steady(source: str) -> None:
    given = noisy(steady(TRUTH, 1 / beam()), 0.002)
    before = off(given, TRUTH)
    if source == "air":
        intensity = intensity_from_air(given, AIR, AIR)
    elif source == "mass":
        intensity = intensity_from_mass(-np.log(given))
        intensity = intensity * np.median(beam())
    else:
        intensity = intensity_steps(frame_levels(given))
    np.testing.assert_allclose(intensity, beam(), rtol=5e-3)
    assert off(steady(given, intensity), TRUTH) < 0.1 * before


@pytest.mark.parametrize("source", ["air", "mass", "steps"])
def test_a_steady_beam_stays(source: str) -> None:
    given = noisy(TRUTH, 0.002)
    if source == "air":
        intensity = intensity_from_air(given, AIR, AIR)
    elif source == "mass":
        intensity = intensity_from_mass(-np.log(given))
    else:
        intensity = intensity_steps(frame_levels(given))
    np.testing.assert_allclose(intensity, 1, atol=2e-3)


def test_wrong_parameters() -> None:
    with pytest.raises(KernelError, match="columns of air"):
        intensity_from_air(TRUTH, 60, 60)
    with pytest.raises(KernelError, match="no light"):
        intensity_steps(np.array([1.0, 0.0, 1.0, 1.0, 1.0]))
