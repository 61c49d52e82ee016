"""Beam hardening: line integrals of a spectrum made proportional to thickness.

The soft part of a spectrum is absorbed first, so the line integral grows less than the thickness does, and the middle
of a uniform body looks thinner than its rim (cupping). For a sample of one material a polynomial in the line integral
undoes that (Herman, Phys. Med. Biol. 24 (1979) 81).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import prange
from numpy.typing import NDArray

from kernels.compiled import compiled
from kernels.errors import Exit, KernelError

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

_SAMPLES = 400


class Linearisation(NamedTuple):
    """true = c1 p + c2 p^2 + ... for p from 0 to `most`; a straight line of the slope there beyond either end."""

    coefficients: tuple[float, ...]
    most: float


def curve_of(words: str) -> Linearisation:
    """From `MOST,C1,C2,…`, such as `3,1,0.05`.

    Raises
    ------
    KernelError
        Exit 2 for other words; 65 for a curve that does not grow.
    """
    try:
        most, *coefficients = (float(word) for word in words.split(","))
    except ValueError:
        coefficients = []
    if not coefficients or not np.isfinite([most, *coefficients]).all():
        raise KernelError(
            f"hardening is {words!r}; it has to be MOST,C1,C2,… of the curve: C1 p + C2 p^2 + … is the true line "
            "integral of a measured one p, up to MOST."
        )
    curve = Linearisation(tuple(coefficients), most)
    check_growing(curve)
    return curve


def linearise(line_integrals: Floats, curve: Linearisation) -> Floats:
    """Line integrals as one energy would have given them.

    Parameters
    ----------
    line_integrals : ndarray, float32, any shape
        -ln of the transmission.
    curve
        From `from_spectrum`, or measured: `Linearisation((c1, c2, ...), most)`.

    Returns
    -------
    ndarray, float32, the same shape

    Raises
    ------
    KernelError
        When the curve does not grow everywhere from 0 to `most`, so that two thicknesses would become one.

    Notes
    -----
    Harm: noise grows with the slope of the curve, most behind the thickest parts; other materials than the one of the
    curve become wrong by what they differ.
    """
    check_growing(curve)
    result = np.empty_like(line_integrals)
    coefficients = np.array((0.0, *curve.coefficients))
    slopes = coefficients[1:] * np.arange(1, len(coefficients))
    values, out = line_integrals.reshape(-1), result.reshape(-1)
    _apply(values, coefficients.astype(np.float32), curve.most, float(np.polyval(slopes[::-1], curve.most)), out)
    return result


def from_spectrum(
    weights: Doubles, attenuation: Doubles, thickness: float, *, degree: int = 4, reference: float | None = None
) -> Linearisation:
    """The curve of one material in a known spectrum.

    Parameters
    ----------
    weights : ndarray, shape (energies,), float64
        What each energy contributes to the counts of the open beam: the spectrum times the detector's response.
    attenuation : ndarray, shape (energies,), float64
        Attenuation coefficient of the material at these energies, 1 / length.
    thickness
        Of the thickest part, the same length.
    degree
        Of the polynomial.
    reference
        Attenuation coefficient that the result is to have; by default the mean one of the open beam, with which thin
        parts stay as they are.

    Raises
    ------
    KernelError
        For weights or coefficients that are not above 0, a thickness that is not, or a curve that does not grow.
    """
    if weights.shape != attenuation.shape or weights.ndim != 1 or not len(weights):
        raise KernelError(
            f"Beam hardening: {weights.size} weights and {attenuation.size} attenuation coefficients; one each is "
            "needed for every energy."
        )
    if not ((weights >= 0).all() and weights.sum() > 0 and (attenuation > 0).all() and thickness > 0 and degree >= 1):
        raise KernelError(
            "Beam hardening: weights must not be negative, and attenuation coefficients, thickness and degree must be "
            "above 0."
        )
    weights = weights / weights.sum()
    reference = float(weights @ attenuation) if reference is None else reference
    lengths = np.linspace(0, thickness, _SAMPLES)[1:]
    measured = -np.log(np.exp(-lengths[:, None] * attenuation) @ weights)
    powers = measured[:, None] ** np.arange(1, degree + 1)
    coefficients, *_ = np.linalg.lstsq(powers, reference * lengths, rcond=None)
    curve = Linearisation(tuple(float(c) for c in coefficients), float(measured[-1]))
    check_growing(curve)
    return curve


def check_growing(curve: Linearisation) -> None:
    """Raise a KernelError (exit 65) unless the curve grows from 0 to its end."""
    slopes = np.array(curve.coefficients) * np.arange(1, len(curve.coefficients) + 1)
    at = np.linspace(0, curve.most, _SAMPLES)
    values = np.polyval(slopes[::-1], at)
    if not (curve.most > 0 and np.isfinite(values).all() and (values > 0).all()):
        first = at[int(np.argmax(~(values > 0)))]
        raise KernelError(
            f"Beam hardening: the curve does not grow at the line integral {first:.3g}; it must from 0 to "
            f"{curve.most:.3g}. Take a lower degree, or measure it again.",
            Exit.BAD_INPUT,
        )


@compiled(parallel=True)
def _apply(values: Floats, coefficients: Floats, most: float, slope: float, out: Floats) -> None:
    degree = len(coefficients) - 1
    for i in prange(len(values)):
        value = values[i]
        inside = min(max(value, np.float32(0)), np.float32(most))
        result = coefficients[degree]
        for n in range(degree - 1, -1, -1):
            result = result * inside + coefficients[n]
        if value > most:
            result += np.float32(slope) * (value - np.float32(most))
        elif value < 0:
            result = coefficients[1] * value
        out[i] = result
