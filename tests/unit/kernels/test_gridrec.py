"""Gridding against objects whose slices and projections both are known exactly, and against back projection."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import pytest

from kernels.tomography.direct.cells import LANES
from kernels.tomography.direct.gridrec import Gridrec
from kernels.tomography.direct.halves import halves, is_half_acquisition
from kernels.tomography.fbp import FILTERS, Reconstructor

SIZE, ANGLES = 128, 201
MIDDLE = 0.5 * (SIZE - 1)
THETA = np.arange(ANGLES) * 180.0 / ANGLES
BLOBS = ((1.0, 20.0, -11.0, 6.0), (0.6, -14.0, 17.5, 3.0), (-0.3, 2.0, 3.0, 12.0))  # value, x, y, width

Array = np.ndarray[Any, np.dtype[np.float32]]


def blobs(
    columns: int, axis: float, theta: Any = THETA, size: int | None = None, scale: float = 1.0, more: Any = ()
) -> tuple[Array, Array]:
    """Sinogram and slice of smooth blobs."""
    turned = np.deg2rad(theta)[:, None]
    across = np.arange(size or columns) - 0.5 * ((size or columns) - 1)
    sinogram, slice_ = np.zeros((len(theta), columns)), np.zeros((len(across), len(across)))
    for value, *where in (*BLOBS, *more):
        x, y, width = scale * np.array(where)
        distance = np.arange(columns) - axis - x * np.cos(turned) - y * np.sin(turned)
        sinogram += value * width * np.sqrt(2 * np.pi) * np.exp(-0.5 * (distance / width) ** 2)
        slice_ += value * np.exp(-0.5 * ((across - x) ** 2 + (across[:, None] - y) ** 2) / width**2)
    return sinogram.astype(np.float32), slice_.astype(np.float32)


def error(made: Array, truth: Array) -> float:
    from_middle = np.arange(len(truth)) - 0.5 * (len(truth) - 1)
    inside = from_middle**2 + from_middle[:, None] ** 2 <= (0.475 * len(truth)) ** 2
    return float(np.sqrt(((made - truth)[inside] ** 2).mean() / (truth[inside] ** 2).mean()))


@pytest.mark.parametrize("columns", [128, 127, 97])
@pytest.mark.parametrize("off", [0.0, -3.25, 9.5])
def test_slices_are_exact_wherever_the_axis_is(columns: int, off: float) -> None:
    axis = 0.5 * (columns - 1) + off
    sinogram, truth = blobs(columns, axis, scale=0.7)
    assert error(Gridrec(THETA, columns, axis=axis).slices(sinogram[None])[0], truth) < 2e-4


@pytest.mark.parametrize(("taps", "bar"), [(4, 8e-4), (5, 2e-4), (6, 5e-5)])
def test_wider_kernels_are_more_exact(taps: int, bar: float) -> None:
    sinogram, truth = blobs(SIZE, MIDDLE)
    found = error(Gridrec(THETA, SIZE, axis=MIDDLE, taps=taps).slices(sinogram[None])[0], truth)
    assert 0.02 * bar < found < bar


@pytest.mark.parametrize("window", FILTERS)
def test_a_window_does_what_it_does_in_back_projection(window: str) -> None:
    sinogram, _ = blobs(SIZE, MIDDLE)
    made = Gridrec(THETA, SIZE, axis=MIDDLE, window=window).slices(sinogram[None])[0]
    plain = Reconstructor(THETA, SIZE, axis=MIDDLE, window=window).slices(sinogram[None])[0]
    assert error(made, plain) < 6e-3  # the linear interpolation of back projection


def test_angles_may_come_in_any_order_and_spacing() -> None:
    random = np.random.default_rng(3)
    theta = np.sort(np.arange(400) * 0.9 + random.uniform(-0.2, 0.2, 400))
    sinogram, truth = blobs(SIZE, MIDDLE, theta)
    shuffled = random.permutation(len(theta))
    ordered = Gridrec(theta, SIZE, axis=MIDDLE).slices(sinogram[None])[0]
    mixed = Gridrec(theta[shuffled], SIZE, axis=MIDDLE).slices(sinogram[None, shuffled])[0]
    assert error(ordered, truth) < 3e-3
    assert error(mixed, ordered) < 1e-5


@pytest.mark.parametrize("count", [1, 3, 8, 9, LANES])
def test_slices_of_a_group_do_not_mix(count: int) -> None:
    sinogram, _ = blobs(SIZE, MIDDLE)
    gridrec = Gridrec(THETA, SIZE, axis=MIDDLE)
    sinograms = np.stack([np.roll(sinogram, n, 0) * (1 + 0.1 * n) for n in range(count)])
    together = gridrec.slices(sinograms)
    assert together.shape == (count, SIZE, SIZE)
    for n in range(count):
        np.testing.assert_allclose(together[n], gridrec.slices(sinograms[n : n + 1])[0], atol=1e-5)


def test_the_bits_are_the_same_for_any_number_of_threads() -> None:
    sinogram, _ = blobs(SIZE, MIDDLE)
    gridrec, most = Gridrec(THETA, SIZE, axis=MIDDLE), numba.get_num_threads()
    made = []
    try:
        for threads in (1, most):
            numba.set_num_threads(threads)
            made.append(gridrec.slices(sinogram[None]).tobytes())
    finally:
        numba.set_num_threads(most)
    assert made[0] == made[-1]
    assert len(made[0]) == 4 * SIZE * SIZE


def test_slices_go_where_they_are_wanted() -> None:
    sinogram, _ = blobs(SIZE, MIDDLE)
    gridrec = Gridrec(THETA, SIZE, axis=MIDDLE)
    for count in (2, LANES):
        sinograms = np.repeat(sinogram[None], count, 0)
        out = np.full((count, SIZE, SIZE), np.nan, np.float32)
        assert gridrec.slices(sinograms, out) is out
        np.testing.assert_array_equal(out, gridrec.slices(sinograms))


def test_what_lies_outside_the_circle_is_0_unless_it_is_wanted() -> None:
    sinogram, truth = blobs(SIZE, MIDDLE)
    from_middle = np.hypot(*(np.mgrid[:SIZE, :SIZE] - MIDDLE))
    made = Gridrec(THETA, SIZE, axis=MIDDLE).slices(sinogram[None])[0]
    assert not made[from_middle > 0.5 * SIZE].any()
    whole = Gridrec(THETA, SIZE, axis=MIDDLE, circle=False).slices(sinogram[None])[0]
    np.testing.assert_allclose(whole, truth, atol=2e-3)
    assert whole[0, 0] != 0


def test_wider_than_the_view_is_flatter_with_edge_padding() -> None:
    """A disc of value 1 that is wider than the detector: without padding its rim is bright."""
    radius, columns = 90.0, SIZE
    distance = np.arange(columns) - 0.5 * (columns - 1)
    line = 2 * np.sqrt(radius**2 - distance**2)
    sinogram = np.repeat(line[None].astype(np.float32), ANGLES, 0)
    spread = {}
    for padding in ("zero", "edge"):
        made = Gridrec(THETA, columns, axis=MIDDLE, padding=padding).slices(sinogram[None])[0]
        plain = Reconstructor(THETA, columns, axis=MIDDLE, padding=padding).slices(sinogram[None])[0]
        inside = np.hypot(*(np.mgrid[:columns, :columns] - MIDDLE)) < 0.45 * columns
        spread[padding] = float(made[inside].std())
        if padding == "edge":  # a step at the edge would ring through an exact interpolation
            assert error(made, plain) < 0.02
    assert spread["edge"] < 0.5 * spread["zero"]


@pytest.mark.parametrize("axis", [30.0, 95.25])
def test_a_full_turn_with_the_axis_near_an_edge_sees_nearly_twice_as_much(axis: float) -> None:
    theta = np.arange(402) * 360.0 / 402
    assert is_half_acquisition(theta, SIZE, axis)
    size, weights = halves(SIZE, axis)
    assert size > 1.4 * SIZE
    sinogram, truth = blobs(SIZE, axis, theta, size, more=[(1.0, 60.0, -40.0, 5.0)])
    joined = Gridrec(theta, SIZE, axis=axis, size=size, column_weights=weights)
    assert error(joined.slices(sinogram[None])[0], truth) < 2e-3


def test_half_turns_and_axes_in_the_middle_are_no_half_acquisitions() -> None:
    full = np.arange(402) * 360.0 / 402
    assert not is_half_acquisition(THETA, SIZE, 30.0)
    assert not is_half_acquisition(full, SIZE, MIDDLE + 4)


def test_weights_of_opposite_rays_add_up() -> None:
    for axis in (30.0, 95.25):
        weights = halves(SIZE, axis).weights.astype(np.float64)
        for column in range(SIZE):
            opposite = 2 * axis - column
            if 0 <= opposite <= SIZE - 1:
                other = np.interp(opposite, np.arange(SIZE), weights)
                assert weights[column] + other == pytest.approx(2, abs=2e-3)


def test_memory_is_what_it_says() -> None:
    gridrec = Gridrec(THETA, SIZE, axis=MIDDLE)
    gridrec.slices(blobs(SIZE, MIDDLE)[0][None])
    held = sum(each.nbytes for each in vars(gridrec).values() if isinstance(each, np.ndarray))
    assert gridrec.fixed_bytes <= held <= 1.02 * gridrec.fixed_bytes + 1e5
