"""Forms of orientations, misorientations and means, against SciPy, xfab, brute force and what is known by heart."""

from __future__ import annotations

import numpy as np
import pytest
from elsewhere import xfab_module, xfab_tools
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from kernels.hedm.crystals import Crystal
from kernels.hedm.orientations import (
    from_bunge,
    from_quaternions,
    from_rotation_vectors,
    mean_orientation,
    misorientation_table,
    misorientations,
    nearest_equivalents,
    random_orientations,
    symmetric_equivalents,
    to_bunge,
    to_quaternions,
    to_rotation_vectors,
)

Floats = NDArray[np.float64]

CUBE = Crystal(4, 4, 4, 90, 90, 90, 225).rotations
RUBY = Crystal(4.7608, 4.7608, 12.99568, 90, 90, 120, 167).rotations
HEXAGON = Crystal(3, 3, 5, 90, 90, 120, 194).rotations
NONE = Crystal(4, 5, 6, 80, 95, 100, 1).rotations
CLASSES = pytest.mark.parametrize("turns", [CUBE, RUBY, HEXAGON, NONE], ids=["cubic", "ruby", "hexagonal", "triclinic"])


def some(count: int = 200, seed: int = 1) -> Floats:
    """Random orientations, with those at which formulas break."""
    special = [np.eye(3), np.diag([1.0, -1, -1]), np.diag([-1.0, 1, -1]), np.diag([-1.0, -1, 1])]
    small = from_rotation_vectors(np.array([[1e-9, 0, 0], [0, 0, 1e-9], [np.pi - 1e-9, 0, 0]]))
    return np.concatenate([special, small, CUBE, random_orientations(count, np.random.default_rng(seed))])


def test_quaternions_are_those_of_scipy() -> None:
    there = to_quaternions(some())
    assert (there[:, 0] >= 0).all()
    theirs = Rotation.from_matrix(some()).as_quat(scalar_first=True)
    np.testing.assert_allclose(np.abs((there * theirs).sum(1)), 1, atol=1e-12)
    np.testing.assert_allclose(from_quaternions(there), some(), atol=1e-12)
    np.testing.assert_allclose(from_quaternions(3 * there), some(), atol=1e-12)


def test_rotation_vectors_are_those_of_scipy() -> None:
    vectors = np.concatenate([np.random.default_rng(2).normal(size=(50, 3)), np.zeros((1, 3)), [[1e-10, 0, 0]]])
    np.testing.assert_allclose(from_rotation_vectors(vectors), Rotation.from_rotvec(vectors).as_matrix(), atol=1e-14)
    np.testing.assert_allclose(from_rotation_vectors(to_rotation_vectors(some())), some(), atol=1e-7)
    inside = 3 * vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 3)
    np.testing.assert_allclose(to_rotation_vectors(from_rotation_vectors(inside)), inside, atol=1e-12)
    assert np.linalg.norm(to_rotation_vectors(some()), axis=1).max() <= np.pi + 1e-12


def test_euler_angles_are_those_of_xfab() -> None:
    tools = xfab_tools()
    angles = np.random.default_rng(3).uniform([0, 0, 0], [2 * np.pi, np.pi, 2 * np.pi], (50, 3))
    np.testing.assert_allclose(from_bunge(angles), [tools.euler_to_u(*one) for one in angles], atol=1e-14)
    np.testing.assert_allclose(to_bunge(from_bunge(angles)), angles, atol=1e-9)


def test_euler_angles_where_only_a_sum_is_defined() -> None:
    angles = np.array([[0.4, 0.0, 0.9], [0.4, np.pi, 0.9], [0.0, 0.0, 0.0]])
    found = to_bunge(from_bunge(angles))
    np.testing.assert_allclose(from_bunge(found), from_bunge(angles), atol=1e-12)
    np.testing.assert_allclose(found[:, 0], 0)
    np.testing.assert_allclose(found[0], [0, 0, 1.3], atol=1e-12)
    found = to_bunge(some())
    np.testing.assert_allclose(from_bunge(found), some(), atol=2e-9)
    assert (found >= 0).all()
    assert (found[:, 1] <= np.pi).all()
    assert (found < 2 * np.pi).all()


def test_the_first_angle_of_bunge_turns_about_z_of_the_sample() -> None:
    turned = from_bunge(np.radians([30.0, 0, 0]))
    np.testing.assert_allclose(turned @ [1, 0, 0], [np.sqrt(3) / 2, 0.5, 0], atol=1e-15)


def test_random_orientations_are_uniform() -> None:
    """The density of the angle of a uniform rotation is (1 - cos angle) / pi; directions have no mean."""
    turned = random_orientations(20000, np.random.default_rng(4))
    np.testing.assert_allclose(np.linalg.det(turned), 1, atol=1e-12)
    angles = np.sort(np.linalg.norm(to_rotation_vectors(turned), axis=1))
    expected = (angles - np.sin(angles)) / np.pi
    assert np.abs(expected - np.linspace(0, 1, len(angles))).max() < 1.6 / np.sqrt(len(angles))
    assert np.abs(turned.mean(0)).max() < 0.02
    again = random_orientations(5, np.random.default_rng(4))
    np.testing.assert_array_equal(turned[:5], again)


def _brute(first: Floats, second: Floats, turns: Floats) -> Floats:
    both = np.einsum("nji,mjk,skl->nmsil", first, second, turns, optimize=True)
    traces = np.trace(both, axis1=-2, axis2=-1).max(-1)
    return np.asarray(np.arccos(np.clip((traces - 1) / 2, -1, 1)))


@CLASSES
def test_misorientations_are_the_smallest_over_all_equivalents(turns: Floats) -> None:
    first, second = some(20, 5), some(25, 6)
    table = misorientation_table(first, second, turns)
    np.testing.assert_allclose(table, _brute(first, second, turns), atol=3e-8)
    np.testing.assert_allclose(misorientations(first, second[: len(first)], turns), np.diagonal(table), atol=1e-14)
    np.testing.assert_allclose(misorientations(first[8], second, turns), table[8], atol=1e-14)
    np.testing.assert_allclose(misorientation_table(second, first, turns), table.T, atol=1e-12)


@pytest.mark.parametrize(
    ("crystal", "system"),
    [
        (Crystal(4, 4, 4, 90, 90, 90, 225), 7),
        (Crystal(3, 3, 5, 90, 90, 120, 194), 6),
        (Crystal(4.7608, 4.7608, 12.99568, 90, 90, 120, 167), 5),
        (Crystal(4, 4, 5, 90, 90, 90, 136), 4),
        (Crystal(4, 5, 6, 90, 90, 90, 62), 3),
        (Crystal(4, 5, 6, 90, 100, 90, 14), 2),
    ],
)
def test_misorientations_are_those_of_xfab(crystal: Crystal, system: int) -> None:
    """Which has them in degrees, of crystals with x along a* and z along c."""
    symmetry = xfab_module("symmetry")
    first, second = some(8, 13)[-8:], some(8, 14)[-8:]
    found = misorientations(first, second, crystal.rotations)
    turn = crystal.busing_levy_rotation.T
    theirs = [
        symmetry.Umis(one @ turn, other @ turn, system)[:, 1].min() for one, other in zip(first, second, strict=True)
    ]
    np.testing.assert_allclose(np.degrees(found), theirs, atol=1e-5)


@CLASSES
def test_equivalents_are_not_apart(turns: Floats) -> None:
    turned = some(5, 7)
    every = symmetric_equivalents(turned, turns)
    assert every.shape == (len(turned), len(turns), 3, 3)
    for n in range(len(turns)):
        assert misorientations(turned, every[:, n], turns).max() < 1e-14


@pytest.mark.parametrize("angle", [1e-12, 1e-9, 1e-5, 0.01])
def test_small_angles_are_not_rounded_away(angle: float) -> None:
    turned = some(20, 8)
    moved = from_rotation_vectors(np.array([0.0, angle, 0])) @ turned @ CUBE[7]
    np.testing.assert_allclose(misorientations(turned, moved, CUBE), angle, rtol=1e-3)


def test_the_largest_misorientation_of_cubes() -> None:
    """62.8 degrees (Mackenzie, Biometrika 45, 229, 1958), and twins of copper at 60 degrees about 111."""
    table = misorientation_table(np.eye(3)[None], random_orientations(20000, np.random.default_rng(9)), CUBE)
    assert 62 < np.degrees(table.max()) <= 62.8
    twin = from_rotation_vectors(np.radians(60) * np.ones(3) / np.sqrt(3))
    assert misorientations(np.eye(3), twin[None], CUBE)[0] == pytest.approx(np.radians(60))


@CLASSES
def test_the_nearest_equivalent_lies_in_the_fundamental_zone(turns: Floats) -> None:
    turned = some(30, 10)
    reduced = nearest_equivalents(turned, np.eye(3), turns)
    angles = np.linalg.norm(to_rotation_vectors(reduced), axis=1)
    np.testing.assert_allclose(angles, misorientations(np.eye(3), turned, turns), atol=3e-8)
    assert misorientations(reduced, turned, turns).max() < 1e-12
    other = some(30, 11)
    paired = nearest_equivalents(turned, other, turns)
    directly = misorientations(paired, other, NONE)
    np.testing.assert_allclose(directly, misorientations(turned, other, turns), atol=1e-7)


@CLASSES
def test_the_mean_of_orientations_that_scatter(turns: Floats) -> None:
    random = np.random.default_rng(12)
    for middle in random_orientations(5, random):
        shifts = random.normal(0, 0.02, (400, 3))
        scattered = from_rotation_vectors(shifts - shifts.mean(0)) @ middle
        mixed = scattered @ turns[random.integers(len(turns), size=len(scattered))]
        found = mean_orientation(mixed, turns)
        assert misorientations(found[None], middle, turns)[0] < 1e-4
    weights = np.array([3.0, 1.0])
    two = np.stack([middle, from_rotation_vectors(np.array([0.04, 0, 0])) @ middle])
    found = mean_orientation(two, turns, weights)
    assert misorientations(found[None], middle, turns)[0] == pytest.approx(0.01, rel=1e-3)
