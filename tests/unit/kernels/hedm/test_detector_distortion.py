"""Distortions against their formulas written down once more, in NumPy and by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from known_grains import face_centred, full, orientations, positions_um, strains
from numpy.typing import NDArray

from kernels.hedm.distortion import DexelaDistortion, Distortion, GeDistortion, MapDistortion, MidasDistortion
from kernels.hedm.forward import predict
from kernels.hedm.geometry import Geometry, Panel

SHAPE, PIXEL = (400, 600), (150.0, 100.0)


def moved(distortion: Distortion, row: NDArray[np.float64], column: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ideal (xp, yp) in mm, HEXRD's way: right along columns, up against rows, from the middle."""
    panel = Panel.tilted(
        "p", shape=SHAPE, pixel_um=PIXEL, distance_um=1e6, beam_centre=(199.5, 299.5), orientation=(-1, 0, 0, -1),
        distortion=distortion,
    )  # fmt: skip
    points = Geometry(0.2, (panel,)).lab_points(np.zeros(len(row), int), row, column)
    return np.column_stack([-points[:, 1], points[:, 2]]) * 1e-3


def test_ge_is_the_formula_of_hexrd() -> None:
    p0, p1, p2, n0, n1, n2 = 0.011, -0.02, 0.013, 2.0, 3.0, 1.5
    random = np.random.default_rng(0)
    row, column = random.uniform(0, 399, 50), random.uniform(0, 599, 50)
    x, y = (column - 299.5) * 0.1, (199.5 - row) * 0.15
    r, t = np.hypot(x, y), np.arctan2(y, x)
    q = r / 204.8
    f = p0 * q**n0 * np.cos(2 * t) + p1 * q**n1 * np.cos(4 * t) + p2 * q**n2 + 1
    found = moved(GeDistortion((p0, p1, p2, n0, n1, n2)), row, column)
    assert np.allclose(found, np.column_stack([f * x, f * y]), atol=1e-12)


def test_dexela_moves_each_quadrant_by_its_own() -> None:
    shifts = np.arange(1.0, 9.0).reshape(4, 2) / 10
    row, column = np.array([50.0, 50.0, 350.0, 350.0]), np.array([500.0, 100.0, 100.0, 500.0])
    plain = np.column_stack([(column - 299.5) * 0.1, (199.5 - row) * 0.15])
    found = moved(DexelaDistortion(tuple(shifts.ravel())), row, column)
    assert np.allclose(found - plain, shifts)


def test_a_map_is_linear_between_its_nodes() -> None:
    rows, columns = np.arange(0, 401, 100) * 0.01, np.arange(0, 601, 100) * 0.02
    bent = MapDistortion(np.add.outer(rows, columns), np.multiply.outer(rows, columns), step=100)
    row, column = np.array([30.0, 250.0, 399.0]), np.array([570.0, 120.0, 0.0])
    plain = np.column_stack([(column - 299.5) * 0.1, (199.5 - row) * 0.15])
    in_rows, in_columns = 0.01 * row + 0.02 * column, 0.01 * row * 0.02 * column
    found = moved(bent, row, column)
    assert np.allclose(found - plain, np.column_stack([0.1 * in_columns, -0.15 * in_rows]))


@pytest.mark.parametrize(
    "distortion",
    [
        GeDistortion((1e-3, -2e-3, 5e-4, 2.0, 2.0, 2.0)),
        MidasDistortion((1e-3, 8e-4, -1.2e-3, 30.0, 2e-4, -3e-4, 10.0), 2e5),
        MapDistortion(*np.random.default_rng(1).normal(0.0, 0.3, (2, 33, 33)), step=64),
    ],
)
def test_spots_are_predicted_where_a_bent_detector_measures_them(distortion: Distortion) -> None:
    panel = Panel.tilted(
        "p", shape=(2048, 2048), pixel_um=(200.0, 200.0), distance_um=1e6, beam_centre=(1010.0, 1030.0),
        tilts=(0.01, 0.02, 0.03), distortion=distortion,
    )  # fmt: skip
    geometry, g0 = Geometry(0.2229, (panel,), wedge=0.01), face_centred(4.08, 12)
    told = {"orientation": orientations(4), "position_um": positions_um(4), "strain": strains(4)}
    spots = predict(geometry, g0, **told)
    straight = predict(replace(geometry, panels=(replace(panel, distortion=None),)), g0, **told)
    assert len(spots) == len(straight)
    assert 0.1 < np.abs(spots.row - straight.row).max() < 5
    g = geometry.reciprocal(
        spots.panel, spots.row, spots.column, omega=spots.omega, position_um=told["position_um"][spots.grain]
    )
    lattice = np.linalg.inv(np.eye(3) + full(told["strain"])) @ told["orientation"]
    expected = np.einsum("nij,nj->ni", lattice[spots.grain], g0[spots.reflection])
    assert np.abs(g - expected).max() < 1e-12
