"""Colours of orientations: one for what symmetry makes equal and for nothing else, without jumps where that can be."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from test_grids import CRYSTALS

from kernels.hedm.colours import colour_key, colour_orientations
from kernels.hedm.crystals import Crystal
from kernels.hedm.orientations import from_rotation_vectors, random_orientations

Floats = NDArray[np.float64]

CUBE, HEXAGON = CRYSTALS["m-3m"], CRYSTALS["6/mmm"]
SETTINGS = CRYSTALS | {
    "2/m about c": Crystal(4, 5, 6, 90, 90, 95, "P 1 1 2/m"),
    "-31m": Crystal(4, 4, 6, 90, 90, 120, "P -3 1 m"),
}
NO_JUMP = [name for name in SETTINGS if name not in ("-1", "-3")]


def directions(count: int, seed: int = 1) -> Floats:
    found = np.random.default_rng(seed).normal(size=(count, 3))
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True))


@pytest.mark.parametrize("name", SETTINGS)
def test_equivalent_directions_have_one_colour(name: str) -> None:
    crystal = SETTINGS[name]
    key, some = colour_key(crystal), directions(300)
    first = key.colours(some).astype(int)
    for turn in crystal.rotations:
        for sign in (1, -1):
            assert np.abs(key.colours(sign * some @ turn.T).astype(int) - first).max() <= 1


@pytest.mark.parametrize("name", SETTINGS)
def test_other_directions_have_other_colours(name: str) -> None:
    """Whose colours are the same are the same, or neighbours: colours are of 8 bits. Many lie on planes of mirrors."""
    crystal = SETTINGS[name]
    key = colour_key(crystal)
    normals = np.concatenate([np.eye(3), np.cross(key.corners, key.corners[[1, 2, 0]])])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    flat = directions(150, 6)
    some = np.concatenate([directions(800, 2), *(flat - np.outer(flat @ normal, normal) for normal in normals)])
    some /= np.linalg.norm(some, axis=1, keepdims=True)
    shades = key.colours(some).astype(float)
    closest = np.full((len(some), len(some)), -1.0)
    for turn in crystal.rotations:
        np.maximum(closest, np.abs(some @ turn @ some.T), out=closest)
    away = np.degrees(np.arccos(np.clip(closest, -1, 1)))
    alike = np.abs(shades[:, None] - shades[None]).max(-1) <= 1
    assert away[alike].max() < 5


@pytest.mark.parametrize("name", NO_JUMP)
def test_colours_do_not_jump(name: str) -> None:
    key, some = colour_key(SETTINGS[name]), directions(4000, 3)
    moved = some + 1e-3 * directions(4000, 4)
    assert np.abs(key.colours(some).astype(int) - key.colours(moved).astype(int)).max() <= 6


@pytest.mark.parametrize(
    ("crystal", "plane", "colour"),
    [
        (CUBE, (0, 0, 1), (255, 0, 0)),
        (CUBE, (0, -3, 0), (255, 0, 0)),
        (CUBE, (1, 0, 1), (0, 255, 0)),
        (CUBE, (-1, 1, 1), (0, 0, 255)),
        (HEXAGON, (0, 0, 2), (255, 0, 0)),
        (HEXAGON, (2, -1, 0), (0, 255, 0)),
        (HEXAGON, (1, 0, 0), (0, 0, 255)),
        (CRYSTALS["m-3"], (0, 1, 0), (255, 0, 0)),
        (CRYSTALS["m-3"], (1, -1, 1), (255, 255, 255)),
        (CRYSTALS["m-3"], (0, 1, 1), (0, 255, 255)),
        (CRYSTALS["6/m"], (0, 0, 1), (255, 255, 255)),
        (CRYSTALS["4/mmm"], (0, 0, 1), (255, 0, 0)),
        (CRYSTALS["4/mmm"], (1, 0, 0), (0, 255, 0)),
        (CRYSTALS["4/mmm"], (1, 1, 0), (0, 0, 255)),
        (CRYSTALS["-3m"], (0, 0, 1), (255, 0, 0)),
        (CRYSTALS["-3m"], (1, 1, 0), (255, 255, 255)),
        (CRYSTALS["-3m"], (1, 0, 0), (0, 255, 255)),
        (CRYSTALS["mmm"], (0, 1, 0), (0, 0, 255)),
    ],
)
def test_corners_have_the_usual_colours(
    crystal: Crystal, plane: tuple[int, int, int], colour: tuple[int, int, int]
) -> None:
    assert tuple(colour_key(crystal).colours(crystal.b0 @ plane).tolist()) == colour


def test_mirror_images_differ_where_there_is_no_mirror() -> None:
    middle = np.array([[0.35, 0.15, 1.0], [0.15, 0.35, 1.0]])
    light = colour_key(CUBE).colours(middle).astype(int)
    assert (light[0] == light[1]).all()
    assert light.min() > 80
    other = colour_key(CRYSTALS["m-3"]).colours(middle).astype(int)
    assert np.abs(other[0] - other[1]).max() > 50


@pytest.mark.parametrize(
    ("crystal", "says"),
    [
        (CUBE, "red (001), green (101), blue (111)"),
        (HEXAGON, "red (001), green (2-10), blue (100)"),
        (CRYSTALS["m-3"], "red (001), white (111), cyan (101)"),
        (CRYSTALS["-3m"], "red (001), white (2-10), cyan (100)"),
        (CRYSTALS["2/m"], "white (010), hues about it"),
    ],
)
def test_the_legend_names_planes(crystal: Crystal, says: str) -> None:
    assert colour_key(crystal).legend(crystal) == says


def test_orientations_are_coloured_by_what_points_along_the_sample() -> None:
    tilted = from_rotation_vectors(np.radians([45.0, 0, 0]))  # brings (011) of the crystal up
    assert colour_orientations(np.eye(3), CUBE, (0, 0, 1)).tolist() == [255, 0, 0]
    assert colour_orientations(tilted, CUBE, (0, 0, 1)).tolist() == [0, 255, 0]
    assert colour_orientations(tilted, CUBE, (1, 0, 0)).tolist() == [255, 0, 0]
    some = random_orientations(50, np.random.default_rng(5))
    np.testing.assert_array_equal(
        colour_orientations(some @ CUBE.rotations[7], CUBE, (0, 0, 1)), colour_orientations(some, CUBE, (0, 0, 1))
    )


@pytest.mark.parametrize("name", SETTINGS)
def test_the_key_has_its_main_axis_in_the_middle(name: str) -> None:
    key = colour_key(SETTINGS[name])
    shown = key.image(101)
    assert shown.shape == (101, 101, 3)
    assert np.abs(shown[50, 50].astype(int) - key.colours(key.corners[0])).max() <= 2
    assert (shown[0, 0] == 255).all()
