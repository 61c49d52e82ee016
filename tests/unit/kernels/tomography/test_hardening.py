"""A spectrum through a sample of one material."""

from __future__ import annotations

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from scans import run
from simulated import line_integrals, off

from kernels.errors import KernelError
from kernels.tomography.corrections.hardening import Linearisation, curve_of, from_spectrum, linearise
from kernels.tomography.prepare import Recipe

ENERGIES = np.linspace(15, 60, 46)
WEIGHTS = np.exp(-(((ENERGIES - 32) / 11) ** 2))
ATTENUATION = 4.0 * (20 / ENERGIES) ** 3 + 0.15  # per mm, as a photoelectric and a Compton part go
MEAN = float(WEIGHTS @ ATTENUATION / WEIGHTS.sum())

THICKNESS = line_integrals(rows=1)  # mm


def measured(thickness: np.ndarray) -> np.ndarray:
    passed = np.exp(-thickness[..., None] * ATTENUATION) @ WEIGHTS / WEIGHTS.sum()
    return (-np.log(passed)).astype(np.float32)


def test_line_integrals_become_proportional_to_thickness() -> None:
    given, true = measured(THICKNESS), MEAN * THICKNESS
    curve = from_spectrum(WEIGHTS, ATTENUATION, float(THICKNESS.max()))
    assert off(given, true) > 0.1
    assert off(linearise(given, curve), true) < 5e-3


def test_one_energy_needs_nothing() -> None:
    lines = (2.0 * THICKNESS).astype(np.float32)
    curve = from_spectrum(np.ones(1), np.full(1, 2.0), float(THICKNESS.max()))
    np.testing.assert_allclose(linearise(lines, curve), lines, atol=2e-5)


def test_the_reference_scales() -> None:
    curve = from_spectrum(WEIGHTS, ATTENUATION, 1.5, reference=1.0)
    np.testing.assert_allclose(linearise(measured(np.array([0.5, 1.2])), curve), [0.5, 1.2], rtol=0.01)


def test_a_polynomial_goes_on_as_a_line() -> None:
    curve = Linearisation((1.0, 0.5), 2.0)
    values = np.array([[-0.5, 0.0, 1.0, 2.0, 3.0]], np.float32)
    np.testing.assert_allclose(linearise(values, curve), [[-0.5, 0, 1.5, 4, 7]], rtol=1e-6)


@pytest.mark.parametrize("curve", [Linearisation((1.0, -0.5), 2.0), Linearisation((1.0,), 0.0), Linearisation((), 1.0)])
def test_a_curve_that_does_not_grow_is_refused(curve: Linearisation) -> None:
    with pytest.raises(KernelError, match="does not grow"):
        linearise(np.zeros((2, 2), np.float32), curve)


def test_wrong_spectra() -> None:
    with pytest.raises(KernelError, match="3 weights and 2 attenuation"):
        from_spectrum(np.ones(3), np.ones(2), 1.0)
    with pytest.raises(KernelError, match="must not be negative"):
        from_spectrum(-np.ones(2), np.ones(2), 1.0)


@pytest.mark.parametrize("words", ["", "3", "3,x", "3,1,inf"])
def test_a_curve_in_words_that_is_none(words: str) -> None:
    with pytest.raises(KernelError, match="it has to be MOST,C1,C2") as caught:
        curve_of(words)
    assert caught.value.exit_code == 2


def test_it_is_more_than_transmission_and_logarithm() -> None:
    """So counts do not go to a device that does no more."""
    assert Recipe().plain
    assert not Recipe(hardening=curve_of("2,1,0.5")).plain


def test_a_curve_in_words() -> None:
    assert curve_of("2,1,0.5") == Linearisation((1.0, 0.5), 2.0)
    with pytest.raises(KernelError, match="does not grow"):
        curve_of("2,1,-0.5")


def test_the_volume_is_flat_again(scan: Path, tmp_path: Path) -> None:
    """A scan whose line integrals have become p - p^2 / 10, and what is made of it with and without the curve."""
    hard = tmp_path / "hard.h5"
    shutil.copy(scan, hard)
    with h5py.File(hard, "r+") as file:
        counts, white, dark = (
            file[f"exchange/{name}"][:].astype(float) for name in ("data", "data_white", "data_dark")
        )
        lines = -np.log(np.clip((counts - dark.mean(0)) / np.maximum(white.mean(0) - dark.mean(0), 1), 1e-3, None))
        softer = np.where(lines > 0, lines - 0.1 * lines**2, lines)
        file["exchange/data"][...] = np.round(dark.mean(0) + np.exp(-softer) * (white.mean(0) - dark.mean(0)))
    p = np.linspace(0, 2.2, 200)
    c2, c3 = np.linalg.lstsq(np.stack([(p - 0.1 * p**2) ** n for n in (2, 3)], 1), 0.1 * p**2, rcond=None)[0]
    truth, gains = scan.with_name("scan_truth.h5"), []
    for how in ({}, {"hardening": f"{p[-1] - 0.1 * p[-1] ** 2},1,{c2},{c3}"}):
        run("tomography.reconstruct", input=hard, output=tmp_path / "v.zarr", rotationAxis=50.8, **how)
        gains.append(float(run("tomography.compare", input=tmp_path / "v.zarr", truth=truth).metrics["gain"]))
    assert gains[0] < 0.93
    assert gains[1] == pytest.approx(1, abs=0.02)
