"""Strain as six numbers, and with the orientation as UBI, against xfab."""

from __future__ import annotations

import numpy as np
import pytest
from elsewhere import xfab_tools

from kernels.hedm.crystals import Crystal, lattice_of
from kernels.hedm.orientations import random_orientations
from kernels.hedm.strains import from_matrices, from_ubi, to_crystal_axes, to_matrices, to_ubi

CRYSTALS = [Crystal(4.0782, 4.0782, 4.0782, 90, 90, 90, 225), Crystal(5.1, 6.2, 7.3, 81, 95, 107, 1)]
EVERY = pytest.mark.parametrize("crystal", CRYSTALS, ids=["gold", "triclinic"])


def some(n: int = 20) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    random = np.random.default_rng(1)
    return random_orientations(n, random), random.normal(0, 1e-3, (n, 6))


def test_the_order_is_11_22_33_23_13_12() -> None:
    expected = [[1, 6, 5], [6, 2, 4], [5, 4, 3]]
    np.testing.assert_array_equal(to_matrices(np.arange(1.0, 7)), expected)
    np.testing.assert_array_equal(from_matrices(np.array(expected, float)), np.arange(1.0, 7))


@EVERY
def test_reciprocal_vectors_are_those_of_the_definition(crystal: Crystal) -> None:
    orientation, strain = some()
    there = np.linalg.inv(to_ubi(crystal, orientation, strain))
    stretch = np.eye(3) + to_matrices(strain)
    expected = np.linalg.inv(stretch).transpose(0, 2, 1) @ orientation @ crystal.b0
    np.testing.assert_allclose(there, expected, atol=1e-15)


@EVERY
def test_orientation_and_strain_come_back(crystal: Crystal) -> None:
    orientation, strain = some()
    for size in (1, 100):
        back, again = from_ubi(crystal, to_ubi(crystal, orientation, size * strain))
        np.testing.assert_allclose(back, orientation, atol=1e-12)
        np.testing.assert_allclose(again, size * strain, atol=1e-12)


@EVERY
def test_ubi_is_that_of_xfab(crystal: Crystal) -> None:
    tools = xfab_tools()
    orientation, strain = some(5)
    for turned, small in zip(orientation, strain, strict=True):
        ubi = to_ubi(crystal, turned, np.zeros(6))
        np.testing.assert_allclose(tools.ubi_to_cell(ubi), crystal.lattice, rtol=1e-9)
        theirs = tools.ubi_to_u(ubi)
        np.testing.assert_allclose(theirs, turned @ crystal.busing_levy_rotation.T, atol=1e-9)
        strained = to_ubi(crystal, turned, small)
        np.testing.assert_allclose(tools.ubi_to_cell(strained), lattice_of(strained.T), rtol=1e-9)


def test_stretching_a_cube_along_x_makes_its_axis_there_longer() -> None:
    cube, along = CRYSTALS[0], np.array([1e-3, 0, 0, 0, 0, 0])
    np.testing.assert_allclose(lattice_of(to_ubi(cube, np.eye(3), along).T)[:3], 4.0782 * np.array([1.001, 1, 1]))


def test_strain_in_the_axes_of_the_crystal() -> None:
    quarter = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])  # x of the crystal lies along y of the sample
    np.testing.assert_allclose(to_crystal_axes(np.array([1.0, 2, 3, 4, 5, 6]), quarter), [2, 1, 3, -5, 4, -6])
