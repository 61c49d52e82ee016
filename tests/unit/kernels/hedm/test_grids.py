"""Grids of orientations leave no gap above what they say, and waste little."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import ConvexHull

from kernels.errors import KernelError
from kernels.hedm.crystals import Crystal
from kernels.hedm.grids import grid_ball, grid_zone, healpix, healpix_radius
from kernels.hedm.orientations import (
    from_rotation_vectors,
    misorientation_table,
    random_orientations,
    to_rotation_vectors,
)

CRYSTALS = {
    "-1": Crystal(4, 5, 6, 80, 95, 100, 2),
    "2/m": Crystal(4, 5, 6, 90, 95, 90, 14),
    "mmm": Crystal(4, 5, 6, 90, 90, 90, 62),
    "4/m": Crystal(4, 4, 6, 90, 90, 90, 87),
    "4/mmm": Crystal(4, 4, 6, 90, 90, 90, 136),
    "-3": Crystal(4, 4, 6, 90, 90, 120, 148),
    "-3m": Crystal(4.7608, 4.7608, 12.99568, 90, 90, 120, 167),
    "-3m of rhombohedral axes": Crystal(5.13, 5.13, 5.13, 55.3, 55.3, 55.3, 167),
    "6/m": Crystal(4, 4, 6, 90, 90, 120, 176),
    "6/mmm": Crystal(4, 4, 6, 90, 90, 120, 194),
    "m-3": Crystal(4, 4, 4, 90, 90, 90, 205),
    "m-3m": Crystal(4, 4, 4, 90, 90, 90, 225),
}


@pytest.mark.parametrize("name", CRYSTALS)
def test_no_orientation_is_farther_away_than_the_gap(name: str) -> None:
    turns = CRYSTALS[name].rotations
    wanted = np.radians(14)
    grid = grid_zone(turns, wanted)
    assert grid.gap_rad <= wanted
    points = grid.orientations()
    assert len(points) == len(grid)
    np.testing.assert_allclose(points @ points.transpose(0, 2, 1), np.broadcast_to(np.eye(3), points.shape), atol=1e-12)
    away = misorientation_table(random_orientations(1500, np.random.default_rng(1)), points, turns).min(1)
    assert away.max() <= grid.gap_rad
    assert away.max() > 0.7 * grid.gap_rad, "the gap that is told is far above the real one"


@pytest.mark.parametrize("name", ["-1", "-3m", "m-3m"])
def test_a_grid_over_the_zone_has_its_share_of_the_points(name: str) -> None:
    """The volume is 8 pi² over the order of the class; about the edges there are some more."""
    turns = CRYSTALS[name].rotations
    grid = grid_zone(turns, np.radians(3))
    assert len(grid) < 1.35 * 8 * np.pi**2 / len(turns) / grid.gap_rad**3


def test_a_grid_is_made_in_parts() -> None:
    grid = grid_zone(CRYSTALS["m-3m"].rotations, np.radians(12))
    parts = list(grid.parts(100))
    assert max(len(part) for part in parts) == 100
    np.testing.assert_array_equal(np.concatenate(parts), grid.orientations())


@pytest.mark.parametrize("side", [1, 2, 3, 4, 7, 16])
def test_centres_of_healpix_leave_the_gap_that_is_said(side: int) -> None:
    """The largest circle without a centre in it is that about a triangle of the hull."""
    centres = healpix(side)
    assert centres.shape == (12 * side**2, 3)
    np.testing.assert_allclose(np.linalg.norm(centres, axis=1), 1, atol=1e-12)
    np.testing.assert_allclose(centres.mean(0), 0, atol=1e-12)
    largest = np.arccos(-ConvexHull(centres).equations[:, 3]).max()
    assert healpix_radius(side) == pytest.approx(largest, rel=1e-9)


def test_the_first_cells_of_healpix() -> None:
    """Górski et al., Astrophys. J. 622, 759: four cells about the pole at z = 2/3, four at the equator from x on."""
    first = healpix(1)
    np.testing.assert_allclose(first[:, 2], np.repeat([2 / 3, 0, -2 / 3], 4), atol=1e-15)
    np.testing.assert_allclose(first[4], [1, 0, 0], atol=1e-15)
    np.testing.assert_allclose(np.arctan2(first[0, 1], first[0, 0]), np.pi / 4)


@pytest.mark.parametrize(("radius", "gap"), [(0.05, 0.01), (0.2, 0.06), (0.01, 0.02)])
def test_a_ball_about_an_orientation_has_no_gap_above_what_it_says(radius: float, gap: float) -> None:
    around = grid_ball(radius, gap)
    np.testing.assert_allclose(around[0], np.eye(3), atol=1e-15)
    middle = random_orientations(1, np.random.default_rng(3))[0]
    vectors = np.random.default_rng(4).normal(size=(1500, 3))
    vectors *= (
        radius
        * np.random.default_rng(5).uniform(size=(1500, 1)) ** (1 / 3)
        / np.linalg.norm(vectors, axis=1, keepdims=True)
    )
    away = misorientation_table(from_rotation_vectors(vectors) @ middle, around @ middle, np.eye(3)[None]).min(1)
    assert away.max() <= gap
    assert np.linalg.norm(to_rotation_vectors(around), axis=1).max() <= radius + gap + 1e-12


def test_a_ball_of_no_radius_is_the_orientation_itself() -> None:
    np.testing.assert_allclose(grid_ball(0.0, 0.01), np.eye(3)[None], atol=1e-15)


@pytest.mark.parametrize("gap", [0.0, -1.0, 2.0])
def test_gaps_that_are_none(gap: float) -> None:
    with pytest.raises(KernelError, match="gap"):
        grid_zone(np.eye(3)[None], gap)
    if gap <= 0:
        with pytest.raises(KernelError, match="gap"):
            grid_ball(0.1, gap)
