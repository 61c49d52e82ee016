"""Zingers on exact projections, and what becomes of projections without any."""

from __future__ import annotations

import numpy as np
import pytest
from simulated import Floats, off, transmission

from kernels.errors import KernelError
from kernels.tomography.corrections.outliers import frame_noise, remove_zingers

TRUTH = transmission()
NOISE = 0.01


def exposed(seed: int = 0) -> Floats:
    """With noise that goes with the square root of the brightness."""
    random = np.random.default_rng(seed)
    return (TRUTH + NOISE * np.sqrt(TRUTH) * random.standard_normal(TRUTH.shape)).astype(np.float32)


CLEAN = exposed()


def spotted(sign: float = 1.0) -> tuple[Floats, int]:
    random = np.random.default_rng(1)
    where = random.random(CLEAN.shape) < 1e-3
    values = CLEAN.copy()
    values[where] += (sign * random.uniform(0.4, 3, int(where.sum()))).astype(np.float32)
    return values, int(where.sum())


@pytest.mark.parametrize("over_angles", [False, True])
def test_zingers_go(over_angles: bool) -> None:
    given, number = spotted()
    made = remove_zingers(given, over_angles=over_angles)
    assert off(given, TRUTH) > 5 * off(CLEAN, TRUTH)
    assert off(made.frames, TRUTH) < 1.03 * off(CLEAN, TRUTH)
    assert made.replaced == pytest.approx(number, abs=2)


def test_dark_spots_go_when_asked() -> None:
    given, _ = spotted(-1.0)
    assert off(remove_zingers(given).frames, TRUTH) > 5 * off(CLEAN, TRUTH)
    assert off(remove_zingers(given, dark=True).frames, TRUTH) < 1.03 * off(CLEAN, TRUTH)


def test_values_that_are_not_finite_go() -> None:
    given = CLEAN.copy()
    given[2, 10, 0], given[0, 0, 95], given[5, 63, 40] = np.nan, np.inf, -np.inf
    made = remove_zingers(given)
    assert made.replaced == 3
    assert off(made.frames, TRUTH) < 1.03 * off(CLEAN, TRUTH)


def test_spots_of_several_pixels_go_over_angles() -> None:
    given = CLEAN.copy()
    given[3, 20:24, 30:34] += 2
    assert off(remove_zingers(given).frames, TRUTH) > 1.5 * off(CLEAN, TRUTH)
    assert off(remove_zingers(given, over_angles=True).frames, TRUTH) < 1.05 * off(CLEAN, TRUTH)


def test_what_is_dim_has_less_noise() -> None:
    """A spot behind a thick part that would be lost in the noise of the bright part."""
    random = np.random.default_rng(4)
    true = np.ones((1, 64, 96), np.float32)
    true[:, :, :40] = 1e-3
    given = (true + NOISE * np.sqrt(true) * random.standard_normal(true.shape)).astype(np.float32)
    given[0, 30, 20] += 0.012
    given[0, 30, 70] += 0.012
    assert frame_noise(given).spread[0] == pytest.approx(NOISE, rel=0.05)
    made = remove_zingers(given)
    assert made.replaced == 1
    assert made.frames[0, 30, 20] < 0.003


def test_against_a_plain_median() -> None:
    """Every pixel by its definition, slowly."""
    given, _ = spotted()
    given = given[:1, :40, :40]
    threshold, relative = 6.0, 0.1
    bend = np.abs(given[:, :, :-2] - 2 * given[:, :, 1:-1] + given[:, :, 2:])
    level = np.median(given)
    mean = (given[:, :, :-2] + 2 * given[:, :, 1:-1] + given[:, :, 2:]) / 4
    noise = np.median(bend / np.sqrt(mean / level)) / (0.6745 * np.sqrt(6))
    padded = np.pad(given[0], 2, mode="reflect")
    expected = given[0].copy()
    for y in range(40):
        for x in range(40):
            around = np.delete(padded[y : y + 5, x : x + 5].ravel(), 12)
            middle = np.median(around)
            spread = 1.4826 * np.median(np.abs(around - middle))
            here = noise * max(np.sqrt(max(middle, 0) / level), 0.1)
            if given[0, y, x] - middle > max(4 * spread, threshold * here, relative * abs(middle)):
                expected[y, x] = middle
    made = remove_zingers(given, threshold=threshold, relative=relative)
    np.testing.assert_allclose(made.frames[0], expected, atol=1e-6)


@pytest.mark.parametrize("over_angles", [False, True])
def test_without_zingers_nothing_changes(over_angles: bool) -> None:
    for given in (CLEAN, TRUTH):
        made = remove_zingers(given, over_angles=over_angles)
        assert off(made.frames, given) < 2e-4
        assert made.replaced <= 2


@pytest.mark.parametrize("over_angles", [False, True])
def test_slabs_give_what_the_whole_gives(over_angles: bool) -> None:
    """With two rows more on each side, and the noise of the same rows."""
    given, _ = spotted()
    noise = frame_noise(given[:, 20:30])
    whole = remove_zingers(given, noise=noise, over_angles=over_angles).frames
    slab = remove_zingers(given[:, 28:44], noise=noise, over_angles=over_angles).frames
    np.testing.assert_array_equal(slab[:, 2:-2], whole[:, 30:42])


def test_wrong_parameters() -> None:
    with pytest.raises(KernelError, match="above 0"):
        remove_zingers(CLEAN, threshold=0)
    with pytest.raises(KernelError, match="3 frames are too few"):
        remove_zingers(CLEAN[:3], over_angles=True)
