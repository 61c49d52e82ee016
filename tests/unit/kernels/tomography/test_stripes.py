"""Stripes on exact sinograms: how much is left of each kind, and what becomes of a sinogram without any."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import scipy.ndimage
from simulated import Floats, line_integrals, noisy, off

from kernels.errors import KernelError
from kernels.tomography.corrections import stripes
from kernels.tomography.corrections.ranks import median_of_columns, put_back, sort_columns
from kernels.tomography.corrections.wavelets import daubechies, smooth_part

NOISE = 0.01
TRUTH = line_integrals()
CLEAN = noisy(TRUTH, NOISE)
ROWS, ANGLES, COLUMNS = TRUTH.shape


def constant() -> Floats:
    random = np.random.default_rng(1)
    gains = np.where(random.random(COLUMNS) < 0.3, 0.05 * random.standard_normal(COLUMNS), 0)
    return (CLEAN + gains).astype(np.float32)


def partial() -> Floats:
    result = CLEAN.copy()
    for column in range(9, COLUMNS, 23):
        result[:, column : column + ANGLES // 3, column] += 0.15
    return result


def short() -> Floats:
    result = CLEAN.copy()
    for column in range(9, COLUMNS, 23):
        result[:, column : column + ANGLES // 10, column] -= 0.15
    return result


def drifting() -> Floats:
    """Gains that change over the scan, in steps of half a period."""
    result = CLEAN.copy()
    for column in range(9, COLUMNS, 23):
        result[:, :, column] *= (1 + 0.1 * np.sin(np.linspace(0, 3, ANGLES) + column)).astype(np.float32)
    return result


def large() -> Floats:
    result = CLEAN.copy()
    for column in (COLUMNS // 4, COLUMNS // 2 + 10):
        result[:, :, column : column + 6] = 0.75 * result[:, :, column : column + 6] + 0.2
    return result


def dead() -> Floats:
    result = CLEAN.copy()
    result[:, :, 80:82] = 0.8
    result[:, :, 150] += 0.5 * np.random.default_rng(2).standard_normal((ROWS, ANGLES)).astype(np.float32)
    return result


@pytest.mark.parametrize(
    ("correct", "striped", "left"),
    [
        (stripes.remove_constant_stripes, constant, 0.6),
        (stripes.remove_slow_stripes, constant, 0.6),
        (stripes.remove_partial_stripes, constant, 0.6),
        (stripes.remove_partial_stripes, partial, 0.35),
        (stripes.remove_partial_stripes, short, 0.5),
        (stripes.remove_partial_stripes, drifting, 0.35),
        (stripes.remove_large_stripes, large, 0.55),
        (stripes.remove_dead_stripes, dead, 0.2),
        (stripes.remove_all_stripes, large, 0.55),
        (stripes.remove_all_stripes, dead, 0.25),
        (stripes.remove_all_stripes, partial, 0.75),
    ],
)
def test_what_is_left_of_stripes(
    correct: Callable[[Floats], Floats], striped: Callable[[], Floats], left: float
) -> None:
    """Of the error that the stripes add to the noise."""
    given = striped()
    kept = given.copy()
    before, after, noise = off(given, TRUTH), off(correct(given), TRUTH), off(CLEAN, TRUTH)
    assert np.sqrt(max(after**2 - noise**2, 0)) < left * np.sqrt(before**2 - noise**2)
    np.testing.assert_array_equal(given, kept)


@pytest.mark.parametrize(
    ("correct", "bound"),
    [
        (stripes.remove_constant_stripes, 0.012),
        (stripes.remove_slow_stripes, 0.012),
        (stripes.remove_partial_stripes, 0.003),
        (stripes.remove_large_stripes, 0.0),
        (stripes.remove_dead_stripes, 0.0),
        (stripes.remove_all_stripes, 0.003),
    ],
)
def test_without_stripes_there_is_little_harm(correct: Callable[[Floats], Floats], bound: float) -> None:
    assert off(correct(CLEAN), CLEAN) <= bound


def test_rows_are_corrected_by_themselves() -> None:
    given = np.concatenate((large(), dead()))
    for correct in (stripes.remove_all_stripes, stripes.remove_slow_stripes, stripes.remove_constant_stripes):
        np.testing.assert_allclose(correct(given)[2:3], correct(given[2:3].copy()), atol=2e-6)


def test_constant_stripes_by_the_plain_equations() -> None:
    """The least squares problem of each block, solved as a linear system."""
    given, width, blocks = constant()[:1], 12.0, 3
    difference = np.diff(np.eye(COLUMNS), axis=0)
    normal = difference.T @ difference
    parts = []
    for part in np.array_split(given[0].astype(np.float64), blocks):
        offsets = np.linalg.solve(normal + (2 * np.pi / width) ** 2 * np.eye(COLUMNS), normal @ part.mean(0))
        parts.append(part - offsets)
    made = stripes.remove_constant_stripes(given, width=width, blocks=blocks)
    np.testing.assert_allclose(made[0], np.concatenate(parts), atol=1e-5)


def test_slow_stripes_by_the_full_transform() -> None:
    """Munch's filter written out: every level's details of all columns, damped over all of the angles' frequencies."""
    given, levels, order, sigma = constant()[:1], 3, 4, 1.5
    rest, stripe = given[0], np.zeros((ANGLES, COLUMNS))
    for level in range(1, levels + 1):
        smoother = smooth_part(given[0], level, order)
        spectrum = np.fft.fft((rest - smoother).astype(np.float64), axis=0)
        spectrum *= np.exp(-0.5 * (np.fft.fftfreq(ANGLES, 1 / ANGLES) / sigma) ** 2)[:, None]
        stripe += np.fft.ifft(spectrum, axis=0).real
        rest = smoother
    made = stripes.remove_slow_stripes(given, levels=levels, order=order, sigma=sigma)
    np.testing.assert_allclose(made[0], given[0] - stripe, atol=1e-4)


def test_partial_stripes_by_plain_medians() -> None:
    """What is taken from each of 90 pieces of 4 angles is a median of medians where that stands out, else nothing."""
    given = partial()[:1]
    means = given[0].reshape(90, ANGLES // 90, COLUMNS).mean(1)
    beyond = means - scipy.ndimage.median_filter(means, (1, 5), mode="nearest")
    stays = scipy.ndimage.median_filter(beyond, (11, 1), mode="nearest")
    taken = given[0] - stripes.remove_partial_stripes(given, width=5)[0]
    assert (taken.reshape(90, -1, COLUMNS).std(1) < 1e-6).all()
    pieces = taken.reshape(90, -1, COLUMNS).mean(1)
    found = np.abs(pieces) > 1e-6
    np.testing.assert_allclose(pieces[found], stays[found], atol=1e-6)
    assert np.abs(stays[~found]).max() < NOISE
    assert found.mean() < 0.5


@pytest.mark.parametrize("order", [1, 2, 5, 8, 12])
def test_wavelet_filters(order: int) -> None:
    """Orthonormal to their shifts by two, and blind to polynomials: what Daubechies' filters are defined by."""
    low = daubechies(order)
    assert len(low) == 2 * order
    for shift in range(order):
        product = low[: len(low) - 2 * shift] @ low[2 * shift :]
        assert product == pytest.approx(float(shift == 0), abs=1e-7)
    high = low[::-1] * (-1.0) ** np.arange(2 * order)
    moments = np.vander(np.linspace(-1, 1, 2 * order), order, increasing=True).T @ high
    np.testing.assert_allclose(moments, 0, atol=1e-6)


def test_the_smooth_part_is_a_projection_that_keeps_lines() -> None:
    line = np.linspace(0, 3, 90, dtype=np.float32)[None]
    inner = slice(40, 50)
    smooth = smooth_part(line, 2, 4)
    np.testing.assert_allclose(smooth[:, inner], line[:, inner], atol=1e-4)
    np.testing.assert_allclose(smooth, line, atol=0.15)  # mirrored at its ends, and not joined there
    random = np.random.default_rng(0).standard_normal((2, 64)).astype(np.float32)
    assert off(smooth_part(random, 3, 3), random) > 0.5


@pytest.mark.parametrize(("angles", "columns", "size"), [(37, 50, 5), (300, 40, 21), (130, 9, 11)])
def test_ranks(angles: int, columns: int, size: int) -> None:
    """Sorted, smoothed and put back as NumPy and SciPy do it, negative, equal and zero values among them."""
    random = np.random.default_rng(3)
    given = np.round(random.normal(size=(angles, columns)), 1).astype(np.float32)
    ordered, smooth = np.empty((columns, angles), np.float32), np.empty((columns, angles), np.float32)
    order = np.empty((columns, angles), np.int32)
    sort_columns(given, ordered, order)
    np.testing.assert_array_equal(ordered, np.sort(given, axis=0).T)
    np.testing.assert_array_equal(np.take_along_axis(given.T, order, axis=1), ordered)
    median_of_columns(ordered, size, smooth)
    np.testing.assert_array_equal(smooth, scipy.ndimage.median_filter(ordered, (size, 1), mode="nearest"))
    back = np.full_like(given, 7)
    chosen = random.random(columns) < 0.5
    put_back(ordered, order, chosen, back)
    np.testing.assert_array_equal(back[:, chosen], given[:, chosen])
    assert (back[:, ~chosen] == 7).all()


@pytest.mark.parametrize(
    ("correct", "wrong", "sentence"),
    [
        (stripes.remove_partial_stripes, {"width": 4}, "odd number"),
        (stripes.remove_large_stripes, {"snr": 0}, "snr is 0"),
        (stripes.remove_constant_stripes, {"blocks": 1000}, "number of angles"),
        (stripes.remove_constant_stripes, {"width": 1}, "2 columns at least"),
        (stripes.remove_slow_stripes, {"levels": 9}, "from 1 to 8"),
    ],
)
def test_wrong_parameters(correct: Callable[..., Floats], wrong: dict[str, float], sentence: str) -> None:
    with pytest.raises(KernelError, match=sentence):
        correct(CLEAN, **wrong)
