"""A picture that is known at every point, seen through a lens that bends it."""

from __future__ import annotations

import numpy as np
import pytest
from simulated import Floats, noisy, off

from kernels.errors import KernelError
from kernels.tomography.corrections.distortion import Lens, rows_needed, undistort

ROWS, COLUMNS = 120, 160
LENS = Lens(66.3, 74.8, (1.0, -2e-4, -2e-6))


def picture(y: np.ndarray, x: np.ndarray) -> np.ndarray:
    return np.asarray(1 + 0.4 * np.sin(0.15 * x + 0.03 * y) * np.cos(0.11 * y) + 0.002 * x)


def seen(lens: Lens) -> Floats:
    """What the camera shows at each pixel: the picture at the distance whose backward model is the pixel's."""
    y, x = np.mgrid[:ROWS, :COLUMNS].astype(np.float64)
    away, aside = y - lens.row, x - lens.column
    found = np.hypot(away, aside)
    belongs = found.copy()
    for _ in range(50):  # the model is close to 1, so this converges
        belongs = found / np.polyval(lens.coefficients[::-1], belongs)
    share = np.divide(belongs, found, out=np.ones_like(found), where=found > 0)
    return picture(lens.row + away * share, lens.column + aside * share).astype(np.float32)[None]


TRUE = picture(*np.mgrid[:ROWS, :COLUMNS].astype(np.float64))


def test_the_picture_is_straight_again() -> None:
    given = seen(LENS)
    inner = (slice(None), slice(12, -12), slice(12, -12))
    made = undistort(given, LENS)
    assert off(given[inner], TRUE[inner[1:]]) > 0.02
    assert off(made[inner], TRUE[inner[1:]]) < 2e-3


def test_a_perfect_lens_changes_nothing() -> None:
    frames = noisy(np.zeros((2, 31, 40), np.float32), 1.0)
    np.testing.assert_array_equal(undistort(frames, Lens(10.2, 50.0, (1.0,))), frames)


@pytest.mark.parametrize("lens", [LENS, Lens(-20.0, 300.0, (1.0, -1e-4)), Lens(60.0, 80.0, (1.03, 0.0, 2e-6))])
def test_rows_by_themselves_are_those_of_the_whole(lens: Lens) -> None:
    frames = noisy(np.zeros((3, ROWS, COLUMNS), np.float32), 1.0)
    whole = undistort(frames, lens)
    for start, stop in ((0, 7), (60, 61), (113, 120)):
        first, beyond = rows_needed(lens, (ROWS, COLUMNS), start, stop)
        part = undistort(frames[:, first:beyond], lens, rows=(start, stop), first=first, height=ROWS)
        np.testing.assert_array_equal(part, whole[:, start:stop])
        assert beyond - first < ROWS


def test_wrong_parameters() -> None:
    frames = np.zeros((1, ROWS, COLUMNS), np.float32)
    with pytest.raises(KernelError, match="folds over itself"):
        undistort(frames, Lens(60, 80, (1.0, -0.01)))
    with pytest.raises(KernelError, match="not a part of the 120 rows"):
        undistort(frames, LENS, rows=(100, 130))
