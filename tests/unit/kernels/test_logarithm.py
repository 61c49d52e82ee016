"""The logarithm in vector instructions against that of the library, in double precision."""

from __future__ import annotations

import numpy as np
import pytest

from kernels.tomography.logarithm import minus_log


@pytest.mark.parametrize("count", [1, 7, 1024, 1025, 5000])
def test_it_is_that_of_the_library_to_the_last_place(count: int) -> None:
    for values in (np.geomspace(1e-30, 1e30, count), np.linspace(0.5, 2, count)):
        transmissions = values.astype(np.float32)
        found, wanted = transmissions.copy(), -np.log(transmissions.astype(np.float64))
        assert minus_log(found, np.float32(1e-35)) == 0
        assert (np.abs(found - wanted) <= 2 * np.spacing(np.abs(wanted).astype(np.float32))).all()


def test_what_lies_below_the_floor_is_raised_and_counted() -> None:
    values = np.array([[0.0, -3.0, 1e-5], [1e-4, 0.5, 1.0]], np.float32)
    assert minus_log(values, np.float32(1e-4)) == 3
    np.testing.assert_allclose(values, -np.log([[1e-4, 1e-4, 1e-4], [1e-4, 0.5, 1.0]]), rtol=1e-6)
