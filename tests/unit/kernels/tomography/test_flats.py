"""Flat fields that change during a scan, on exact projections."""

from __future__ import annotations

import numpy as np
import pytest
from simulated import Floats, off, transmission

from kernels.errors import KernelError
from kernels.tomography.corrections.flats import drifting_transmission, dynamic_transmission, eigen_flats

TRUTH = transmission(columns=128, rows=96, frames=8, step_deg=5.0)
FRAMES, ROWS, COLUMNS = TRUTH.shape
DARK = np.full((ROWS, COLUMNS), 100, np.float32)


def pattern(shift: float, bend: float = 0.0) -> np.ndarray:
    """An open beam with stripes of a monochromator that move up and down, and a peak that moves sideways."""
    y, x = np.arange(ROWS)[:, None] - shift, np.arange(COLUMNS)[None] - bend
    stripes = 1 + 0.15 * np.sin(0.9 * y + 0.4 * np.sin(0.05 * x)) + 0.1 * np.sin(0.37 * y + 1)
    return np.asarray(20000 * stripes * np.exp(-(((x - 0.5 * COLUMNS) / COLUMNS) ** 2)))


def exposed(light: np.ndarray, seed: int) -> Floats:
    random = np.random.default_rng(seed)
    return (DARK + light + np.sqrt(light) * random.standard_normal(light.shape)).astype(np.float32)


def test_between_two_groups_of_flats() -> None:
    before, after = pattern(0), 0.8 * pattern(0.3, 4)
    progress = np.linspace(0.05, 0.95, FRAMES)
    flats = before + (after - before) * progress[:, None, None]
    counts = exposed(flats * TRUTH, 1)
    ends = [(DARK + end).astype(np.float32) for end in (before, after)]
    made = drifting_transmission(counts, DARK, *ends, progress)
    one = (counts - DARK) / (0.5 * (before + after))
    noise = off(exposed(flats * TRUTH, 2) - DARK, flats * TRUTH)
    assert off(one, TRUTH) > 5 * noise
    assert off(made, TRUTH) < 1.1 * noise


def test_a_pixel_without_light_shows_nothing() -> None:
    flat = DARK + 1000
    flat[3, 4] = DARK[3, 4]
    made = drifting_transmission(np.stack([flat]), DARK, flat, flat, np.zeros(1))
    np.testing.assert_allclose(made, 1)


def moving(seed: int, number: int) -> tuple[np.ndarray, Floats]:
    """What the beam was and what the camera saw, at places drawn by chance."""
    random = np.random.default_rng(seed)
    light = np.stack([pattern(*place) for place in random.normal(0, (0.25, 2.0), (number, 2))])
    return light, exposed(light, seed + 100)


def test_dynamic_flats() -> None:
    _, flats = moving(1, 30)
    beam, _ = moving(2, FRAMES)
    counts = exposed(beam * TRUTH, 3)
    known = eigen_flats(flats, DARK)
    assert 1 <= len(known.components) <= 5
    made, amounts = dynamic_transmission(counts, DARK, known)
    noise = off((counts - DARK) / beam, TRUTH)
    before = off((counts - DARK) / (flats.mean(0) - DARK), TRUTH)
    # brightness is not a matter of these flats: each frame is compared up to a factor
    scale = np.sum(made * TRUTH, axis=(1, 2)) / np.sum(made**2, axis=(1, 2))
    after = off(made * scale[:, None, None], TRUTH)
    assert np.sqrt(after**2 - noise**2) < 0.4 * np.sqrt(before**2 - noise**2)
    assert amounts.shape == (FRAMES, len(known.components))


def test_flats_that_differ_by_noise_and_brightness_have_no_components() -> None:
    light = pattern(0) * np.linspace(0.8, 1.2, 20)[:, None, None]
    assert len(eigen_flats(exposed(light, 5), DARK).components) == 0


def test_a_beam_that_did_not_move_is_left_alone() -> None:
    _, flats = moving(1, 30)
    known = eigen_flats(flats, DARK)
    counts = exposed(known.mean * TRUTH, 7)
    made, _ = dynamic_transmission(counts, DARK, known)
    plain = (counts - DARK) / known.mean
    assert off(made, plain) < 0.01


def test_wrong_parameters() -> None:
    with pytest.raises(KernelError, match="not brighter"):
        eigen_flats(np.stack([DARK, DARK, DARK]), DARK)
    _, flats = moving(1, 5)
    with pytest.raises(KernelError, match="binning 64"):
        dynamic_transmission(flats, DARK, eigen_flats(flats, DARK), binning=64)
