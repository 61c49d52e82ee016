"""Transforms of cells against NumPy's."""

from __future__ import annotations

import numpy as np
import pytest

from kernels.tomography.direct.cells import LANES
from kernels.tomography.direct.fft import good_length, plan, transform


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("length", [2, 3, 4, 5, 8, 15, 48, 60, 144, 250, 640])
def test_a_transform_is_that_of_each_slice(length: int, inverse: bool) -> None:
    random = np.random.default_rng(length)
    values = random.standard_normal((length, 2, LANES // 2)).astype(np.float32)
    target, spare = np.zeros(values.size, np.float32), np.zeros(2 * values.size, np.float32)
    transform(length, *plan(length), values.ravel(), 0, LANES, target, 0, LANES, spare, inverse)
    numbers = values[:, 0] + 1j * values[:, 1]
    wanted = np.fft.ifft(numbers, axis=0) * length if inverse else np.fft.fft(numbers, axis=0)
    found = target.reshape(values.shape)
    np.testing.assert_allclose(found[:, 0] + 1j * found[:, 1], wanted, atol=2e-6 * np.abs(wanted).max())


def test_cells_that_lie_apart_are_transformed_in_their_place() -> None:
    """As the columns of a grid are."""
    length, row = 48, 7 * LANES
    grid = np.random.default_rng(0).standard_normal(length * row).astype(np.float32)
    before = grid.reshape(length, 7, 2, LANES // 2).copy()
    spare = np.zeros(2 * length * LANES, np.float32)
    transform(length, *plan(length), grid, 3 * LANES, row, grid, 3 * LANES, row, spare, True)
    after = grid.reshape(before.shape)
    wanted = np.fft.ifft(before[:, 3, 0] + 1j * before[:, 3, 1], axis=0) * length
    np.testing.assert_allclose(after[:, 3, 0] + 1j * after[:, 3, 1], wanted, atol=1e-4)
    np.testing.assert_array_equal(np.delete(after, 3, 1), np.delete(before, 3, 1))


def test_lengths_have_small_factors_only() -> None:
    for least in range(1, 3000, 37):
        length = good_length(least)
        assert length >= least
        assert length % 16 == 0
        assert int(np.prod(plan(length).radices)) == length
    with pytest.raises(ValueError, match="another factor"):
        plan(7)
