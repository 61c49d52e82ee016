"""A spectrum through a sample of one material."""

from __future__ import annotations

import numpy as np
import pytest
from simulated import line_integrals, off

from kernels.errors import KernelError
from kernels.tomography.corrections.hardening import Linearisation, from_spectrum, linearise

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
