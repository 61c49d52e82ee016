"""Labelling against plain ways: connected components of SciPy, and the definition step after step."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from spotted import expected, parted, searched

from kernels.hedm.frames import Sweep
from kernels.hedm.peaks import OVERLAPPED

EVERYTHING = 1e-9  # a saddle below which nothing is parted


def speckled(shape: tuple[int, int, int], part: float, seed: int) -> np.ndarray:
    """Pixels here and there, which hang together in all sorts of ways."""
    rng = np.random.default_rng(seed)
    return (rng.integers(11, 1000, shape) * (rng.uniform(size=shape) < part)).astype(np.uint16)


@pytest.mark.parametrize("part", [0.02, 0.05, 0.1])
def test_islands_are_connected_components(part: float) -> None:
    stack = speckled((12, 20, 70), part, 1)
    numbered, count = ndimage.label(stack > 10, np.ones((3, 3, 3)))
    spots = searched(stack, saddle=EVERYTHING, least_pixels=1).spots
    assert len(spots) == count
    every = np.arange(1, count + 1)
    sums = ndimage.sum_labels(stack, numbered, every)
    centres = np.array(ndimage.center_of_mass(stack, numbered, every))
    largest = ndimage.maximum(stack, numbered, every)
    ours = np.column_stack([spots.intensity, spots.frame, spots.row, spots.column, spots.largest])
    theirs = np.column_stack([sums, centres, largest])
    by_sum = [np.lexsort(table.round(6).T) for table in (ours, theirs)]
    np.testing.assert_allclose(ours[by_sum[0]], theirs[by_sum[1]], rtol=1e-12, atol=1e-9)
    assert spots.pixels.sum() == (stack > 10).sum()


@pytest.mark.parametrize(("part", "saddle"), [(0.1, 0.8), (0.3, 0.8), (0.3, 0.5), (0.15, 1.0)])
def test_spots_are_as_defined(part: float, saddle: float) -> None:
    stack = np.pad(speckled((6, 9, 11), part, 2), ((0, 0), (3, 3), (5, 5)))
    truth = parted(stack.astype(float), 10, saddle)
    spots = searched(stack, saddle=saddle, least_pixels=1).spots
    assert len(spots) == len(truth)
    ours = sorted(zip(spots.intensity.tolist(), spots.pixels.tolist(), strict=True))
    theirs = sorted((sum(float(stack[at]) for at in spot), len(spot)) for spot in truth.values())
    assert ours == theirs
    assert part < 0.3 or saddle < 0.8 or ((spots.flags & OVERLAPPED) != 0).any()


def test_two_that_touch_are_two_and_noise_makes_none_more() -> None:
    rng = np.random.default_rng(3)
    pairs = [(16 + 24 * k, 16 + 24 * m, 6.0) for k in range(4) for m in range(4)]
    spots = [(r + side * 2.0, c + side * 2.0, f, 1.2, 1.2, 1.0, 2e4) for r, c, f in pairs for side in (-1, 1)]
    stack = rng.poisson(expected((12, 110, 110), np.array(spots))).astype(np.uint16)
    found = searched(stack).spots
    assert len(found) == len(spots)
    assert ((found.flags & OVERLAPPED) != 0).all()


def test_one_broad_spot_stays_one() -> None:
    rng = np.random.default_rng(4)
    spots = np.array([(30.0, 30.0, 8.0, 5.0, 4.0, 2.0, 3e5), (30.0, 80.0, 8.0, 3.0, 6.0, 2.0, 3e4)])
    for _ in range(5):
        stack = rng.poisson(expected((17, 60, 110), spots)).astype(np.uint16)
        assert len(searched(stack, threshold=8).spots) == 2


def test_flat_tops_are_one() -> None:
    stack = np.zeros((5, 20, 20), np.uint16)
    stack[1:4, 3:17, 4:8] = 65535
    stack[1:4, 3:7, 4:16] = 65535
    assert len(searched(stack).spots) == 1


@pytest.mark.parametrize("shift", [0, 1, 3, 7, 15])
def test_a_full_turn_is_a_circle(shift: int) -> None:
    """Where the circle is cut changes nothing but the numbers of the frames."""
    stack = speckled((16, 12, 30), 0.08, 5)
    sweep = Sweep(-180, 22.5)
    whole = searched(stack, sweep=sweep, least_pixels=1).spots
    cut = searched(np.roll(stack, shift, axis=0), sweep=sweep, least_pixels=1, at_once=3).spots
    ours, theirs = ([*zip(s.intensity, s.pixels, s.frames, s.flags, strict=True)] for s in (whole, cut))
    assert sorted(ours) == sorted(theirs)
    ours = np.sort(np.round((whole.frame + shift + 0.25) % 16, 6))
    np.testing.assert_allclose(ours, np.sort(np.round((cut.frame + 0.25) % 16, 6)), atol=1e-5)
