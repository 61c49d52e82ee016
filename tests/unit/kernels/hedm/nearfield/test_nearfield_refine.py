"""The turns by which orientations are refined are those that they are said to be."""

from __future__ import annotations

import numpy as np
import pytest
from gold_layers import random_orientations

from kernels.hedm.nearfield.refine import FARTHEST, turned, turns
from kernels.hedm.rotations import by_vector


def test_turns_are_rotations_by_angles_that_are_halved() -> None:
    table, u, made = turns(0.4, 0.1), random_orientations(1, seed=1)[0], np.empty((3, 3))
    angles = np.rad2deg(np.linalg.norm(table.tried[..., :3], axis=-1))
    np.testing.assert_allclose(angles, np.repeat([[0.4], [0.2], [0.1]], 14, axis=1), rtol=1e-14)
    for turn in (*table.tried[0], *table.tried[-1], *table.aside[1, 7], *table.middles[16, 3]):
        turned(u, turn, made)
        np.testing.assert_allclose(made, by_vector(turn[:3]) @ u, rtol=0, atol=2e-15)


def test_no_turn_changes_nothing() -> None:
    table, u, made = turns(0.2, 0.1), random_orientations(1, seed=2)[0], np.empty((3, 3))
    for turn in (table.aside[0, 0, 1], table.middles[5, 5, 2]):
        turned(u, turn, made)
        np.testing.assert_array_equal(made, u)


def test_the_middle_lies_between_both_sides() -> None:
    table = turns(0.2, 0.05)
    assert table.middles.shape == (FARTHEST + 1, FARTHEST + 1, 3, 5)
    for up, down in ((4, 2), (0, 16), (16, 16)):
        wanted = 0.5 * (table.aside[0, up, 1] + table.aside[1, down, 1])
        np.testing.assert_allclose(table.middles[up, down, 1, :3], wanted[:3], rtol=1e-14)


@pytest.mark.parametrize(("step_deg", "count"), [(0.2, 4), (0.02, 1), (0.01, 0)])
def test_angles_end_with_the_least(step_deg: float, count: int) -> None:
    assert turns(step_deg, 0.02).tried.shape == (count, 14, 5)
