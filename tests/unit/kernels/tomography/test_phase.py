"""A sample of one material in a coherent beam: its thickness from one picture at a distance."""

from __future__ import annotations

import numpy as np
import pytest
from simulated import Floats, noisy, off

from kernels.errors import KernelError
from kernels.tomography.corrections.phase import blur_px, paganin

ENERGY_KEV, DISTANCE_MM, PIXEL_UM, DELTA_BETA = 20.0, 60.0, 1.0, 40.0
SETTING = {"energy_kev": ENERGY_KEV, "distance_mm": DISTANCE_MM, "pixel_um": PIXEL_UM, "delta_beta": DELTA_BETA}
WAVELENGTH_UM = 1.239841984e-3 / ENERGY_KEV


def spheres(size: int = 160) -> np.ndarray:
    """Line integrals of the attenuation through four balls, up to 0.3, softened as by a camera."""
    y, x = np.mgrid[:size, :size].astype(np.float64)
    total = np.zeros((size, size))
    for row, column, radius in ((60, 50, 22), (100, 100, 30), (40, 110, 12), (120, 40, 16)):
        total += 2 * np.sqrt(np.maximum(radius**2 - (y - row) ** 2 - (x - column) ** 2, 0))
    f = np.fft.fftfreq(size)
    soft = np.exp(-2 * (np.pi * 1.5) ** 2 * (f[:, None] ** 2 + f**2))
    return np.asarray(0.3 * np.fft.ifft2(np.fft.fft2(total / total.max()) * soft).real)


def fresnel(lines: np.ndarray, distance_mm: float = DISTANCE_MM) -> Floats:
    """Intensity at a distance, by Fresnel's propagator; amplitude and phase by the line integrals."""
    wave = np.exp(-0.5 * lines * (1 + 1j * DELTA_BETA))
    f = np.fft.fftfreq(len(lines), PIXEL_UM)
    propagator = np.exp(-1j * np.pi * WAVELENGTH_UM * 1e3 * distance_mm * (f[:, None] ** 2 + f**2))
    return (np.abs(np.fft.ifft2(np.fft.fft2(wave) * propagator)) ** 2).astype(np.float32)[None]


LINES = spheres()
SEEN = fresnel(LINES)


def test_the_thickness_is_found() -> None:
    before = off(-np.log(SEEN[0]), LINES)
    after = off(-np.log(paganin(SEEN, **SETTING)[0]), LINES)
    assert before > 0.25
    assert after < 0.03


def test_noise_is_less_after_it() -> None:
    given = noisy(SEEN, 0.05)
    assert off(-np.log(paganin(given, **SETTING)[0]), LINES) < 0.1 * off(-np.log(given[0]), LINES)


def test_the_filter_inverts_its_own_equation() -> None:
    """The first-order forward model, 1 + pi lambda d (delta / beta) f^2, put on a mirrored frame."""
    true = np.exp(-LINES)
    mirrored = np.pad(true, ((0, len(true)), (0, len(true))), mode="symmetric")
    f = np.fft.fftfreq(len(mirrored), PIXEL_UM)
    forward = 1 + np.pi * WAVELENGTH_UM * 1e3 * DISTANCE_MM * DELTA_BETA * (f[:, None] ** 2 + f**2)
    seen = np.fft.ifft2(np.fft.fft2(mirrored) * forward).real[: len(true), : len(true)]
    made = paganin(seen.astype(np.float32)[None], **SETTING)
    np.testing.assert_allclose(made[0], true, atol=2e-4)


@pytest.mark.parametrize("shape", [(2, 61, 53), (1, 1, 64), (1, 97, 40)])
def test_lengths_that_transform_slowly(shape: tuple[int, ...]) -> None:
    """The mean stays, and an even frame stays even, whatever the shape."""
    np.testing.assert_allclose(paganin(np.full(shape, 0.7, np.float32), **SETTING), 0.7, rtol=1e-5)


def test_a_frame_that_is_made_longer_differs_only_far_from_its_middle() -> None:
    """Two frames are 157 wide, the one by itself and the other as a part of 160."""
    narrow = paganin(np.ascontiguousarray(SEEN[:, :, :157]), **SETTING)
    wide = paganin(SEEN, **SETTING)
    reach = int(8 * blur_px(**SETTING))
    assert reach < 157
    np.testing.assert_allclose(narrow[:, :, : 157 - reach], wide[:, :, : 157 - reach], atol=1e-3)


def test_without_phase_there_is_no_harm() -> None:
    """Nothing to retrieve: unchanged. A distance of a hundredth: the blur is a small part of a pixel."""
    contact = np.exp(-LINES).astype(np.float32)[None]
    np.testing.assert_array_equal(paganin(contact, **{**SETTING, "delta_beta": 0.0}), contact)
    near = fresnel(LINES, DISTANCE_MM / 1000)
    assert off(-np.log(paganin(near, **{**SETTING, "distance_mm": DISTANCE_MM / 1000})[0]), LINES) < 1e-3


@pytest.mark.parametrize("name", ["energy_kev", "distance_mm", "pixel_um", "delta_beta"])
def test_wrong_parameters(name: str) -> None:
    with pytest.raises(KernelError, match="must be above 0"):
        paganin(SEEN, **{**SETTING, name: -1.0})
