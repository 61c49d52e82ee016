"""The matched pair of projectors against exact projections, a slow plain matrix, and each other."""

from __future__ import annotations

import numba
import numpy as np
import pytest

from kernels.errors import KernelError
from kernels.tomography.iterative.projector import MARGIN, Projector
from kernels.tomography.lanes import LANES
from kernels.tomography.phantom import project_rows, sample_object, truth_rows

RANDOM = np.random.default_rng(5)
GEOMETRIES = [  # theta, columns, axis, circle
    (np.arange(90) * 2.0, 64, 31.5, True),
    (np.arange(33) * 5.5 + 0.3, 61, 27.3, False),
    (np.array([0.0, 45.0, 90.0, 135.0, 180.0, 225.0, 270.0, -45.0]), 32, 0.0, False),
    (RANDOM.uniform(-400, 400, 25), 37, 36.0, True),
    (np.array([10.0]), 2, 0.5, False),
]


def matrix(theta_deg: np.ndarray, columns: int, axis: float) -> np.ndarray:
    """A as a dense array (angles, columns, N, N), written down shadow by shadow."""
    y, x = np.mgrid[:columns, :columns] - 0.5 * (columns - 1)
    full = np.zeros((len(theta_deg), columns, columns, columns))
    for k, theta in enumerate(np.deg2rad(theta_deg)):
        middle = axis + x * np.cos(theta) + y * np.sin(theta)
        width = max(abs(np.cos(theta)), abs(np.sin(theta)))
        for i in range(columns):
            overlap = np.minimum(middle + width / 2, i + 0.5) - np.maximum(middle - width / 2, i - 0.5)
            full[k, i] = np.maximum(overlap, 0.0) / width
    return full


@pytest.mark.parametrize(("theta", "columns", "axis", "circle"), GEOMETRIES)
def test_one_is_the_transpose_of_the_other(theta: np.ndarray, columns: int, axis: float, circle: bool) -> None:
    projector = Projector(theta, columns, axis=axis, circle=circle)
    image = projector.lanes_of(RANDOM.standard_normal((LANES, columns, columns), np.float32))
    rows = RANDOM.standard_normal((len(theta), columns, LANES), np.float32)
    cast = projector.forward(image, projector.sinogram())
    returned = projector.back(rows, projector.image())
    one = (cast.astype(float) * rows).sum((0, 1))
    other = (image.astype(float) * returned).sum((0, 1))
    size = np.linalg.norm(cast, axis=(0, 1)) * np.linalg.norm(rows, axis=(0, 1))
    assert (np.abs(one - other) < 1e-5 * size).all()


@pytest.mark.parametrize(("theta", "columns", "axis", "circle"), GEOMETRIES)
def test_both_are_the_matrix_that_the_method_says(theta: np.ndarray, columns: int, axis: float, circle: bool) -> None:
    projector, plain = Projector(theta, columns, axis=axis, circle=circle), matrix(theta, columns, axis)
    slices = RANDOM.standard_normal((3, columns, columns), np.float32)
    image = projector.lanes_of(slices)
    inside = projector.slices_of(image, 3)
    cast = projector.forward(image, projector.sinogram())
    expected = np.einsum("kiyx,nyx->kin", plain, inside)
    np.testing.assert_allclose(cast[..., :3], expected, atol=2e-4 * np.abs(plain).sum((2, 3)).max() / columns)
    rows = RANDOM.standard_normal(cast.shape, np.float32)
    returned = projector.slices_of(projector.back(rows, projector.image()), 2)
    expected = np.einsum("kiyx,kin->nyx", plain, rows[..., :2])
    outside = np.hypot(*(np.mgrid[:columns, :columns] - 0.5 * (columns - 1))) > projector.radius
    expected[:, outside] = 0
    np.testing.assert_allclose(returned, expected, atol=1e-5 * len(theta))


@pytest.mark.parametrize("axis", [63.5, 58.2])
def test_projections_of_the_truth_are_the_exact_ones(axis: float) -> None:
    theta, parts = np.arange(60) * 3.0 + 0.3, sample_object(128, 2, margin=55, absorption=2, seed=1)
    exact = project_rows(parts, theta, 128, 2, axis, 0, 2)
    projector = Projector(theta, 128, axis=axis)
    cast = projector.forward(projector.lanes_of(truth_rows(parts, 128, 2, 0, 2)), projector.sinogram())
    made = np.moveaxis(cast[..., :2], 2, 0)
    assert np.linalg.norm(made - exact) < 0.008 * np.linalg.norm(exact)
    assert (made * exact).sum() / (exact * exact).sum() == pytest.approx(1.0, abs=5e-4)  # the gain
    np.testing.assert_allclose(made.sum(2), exact.sum(2), rtol=1e-3)  # mass, at each angle


def test_chosen_angles_are_done_and_others_left() -> None:
    projector = Projector(np.arange(20) * 9.0, 32, axis=15.5)
    image = projector.lanes_of(RANDOM.random((LANES, 32, 32), np.float32))
    whole = projector.forward(image, projector.sinogram())
    chosen = np.array([3, 17, 4])
    part = projector.forward(image, np.full_like(whole, 7), chosen)
    np.testing.assert_array_equal(part[chosen], whole[chosen])
    assert (np.delete(part, chosen, 0) == 7).all()
    alone = np.zeros_like(whole)
    alone[chosen] = whole[chosen]
    np.testing.assert_allclose(
        projector.back(whole, projector.image(), chosen), projector.back(alone, projector.image()), rtol=1e-5, atol=1e-4
    )


def test_back_can_make_a_step() -> None:
    projector = Projector(np.arange(20) * 9.0, 33, axis=15.5)
    rows = RANDOM.standard_normal((20, 33, LANES), np.float32)
    before = projector.lanes_of(RANDOM.random((LANES, 33, 33), np.float32))
    scale = RANDOM.random((33, 33), np.float32)
    factor = np.arange(LANES, dtype=np.float32)
    returned = projector.slices_of(projector.back(rows, projector.image()), LANES)
    expected = 0.5 * projector.slices_of(before, LANES) + factor[:, None, None] * scale * returned
    after = projector.back(rows, before, keep=0.5, factor=factor, scale=scale, floor=0.0)
    np.testing.assert_allclose(projector.slices_of(after, LANES), np.maximum(expected, 0), rtol=1e-4, atol=1e-4)


def test_what_is_beyond_the_slice_stays_empty() -> None:
    projector = Projector(np.arange(20) * 9.0, 33, axis=20.0)
    rows = RANDOM.random((20, 33, LANES), np.float32)
    image = projector.back(rows, projector.image())
    assert not image[33:].any()
    assert not image[:, :MARGIN].any()
    assert not image[:, -MARGIN:].any()
    outside = np.hypot(*(np.mgrid[:33, :33] - 16.0)) > 16.5
    assert not projector.slices_of(image, LANES)[:, outside].any()


def test_the_same_for_any_number_of_threads() -> None:
    projector = Projector(np.arange(37) * 5.0, 50, axis=24.0)
    image = projector.lanes_of(RANDOM.random((LANES, 50, 50), np.float32))
    made = {}
    for count in (numba.config.NUMBA_NUM_THREADS, 1, numba.config.NUMBA_NUM_THREADS):
        numba.set_num_threads(count)
        rows = projector.forward(image, projector.sinogram())
        made[count] = rows, projector.back(rows, projector.image())
    for rows, returned in made.values():
        np.testing.assert_array_equal(rows, made[1][0])
        np.testing.assert_array_equal(returned, made[1][1])


@pytest.mark.parametrize(
    ("theta", "axis", "sentence"),
    [
        (np.array([]), 3.0, "at least one angle"),
        (np.array([0.0, np.nan]), 3.0, "finite"),
        (np.arange(5.0), 64.0, "off the detector of 64 columns"),
        (np.arange(5.0), np.nan, "off the detector"),
    ],
)
def test_a_geometry_that_cannot_be(theta: np.ndarray, axis: float, sentence: str) -> None:
    with pytest.raises(KernelError, match=sentence):
        Projector(theta, 64, axis=axis)
