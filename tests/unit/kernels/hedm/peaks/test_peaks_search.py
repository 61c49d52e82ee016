"""Positions against known spots and the Cramér-Rao bound; block sizes, threads, turns, flags."""

from __future__ import annotations

from dataclasses import fields
from itertools import pairwise

import numba
import numpy as np
import pytest
from spotted import expected, matched, scattered, searched

from kernels.errors import KernelError
from kernels.hedm.frames import Frames, MemorySource, Sweep, dark_of_first, flat_dark, turned
from kernels.hedm.peaks import (
    CUT,
    EDGE,
    FITTED,
    MASKED,
    OVERLAPPED,
    SATURATED,
    Spots,
    find_spots,
    joined,
    limits,
    search,
)

SHAPE = (40, 90, 120)


def same(some: Spots, others: Spots) -> None:
    """Equal bit by bit."""
    for field in fields(Spots):
        np.testing.assert_array_equal(getattr(some, field.name), getattr(others, field.name), err_msg=field.name)


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    return scattered(60, SHAPE, np.random.default_rng(1))


@pytest.fixture(scope="module")
def noisy(truth: np.ndarray) -> np.ndarray:
    return np.random.default_rng(2).poisson(expected(SHAPE, truth)).astype(np.uint16)


def test_without_noise_the_centres_are_found(truth: np.ndarray) -> None:
    stack = expected(SHAPE, truth).astype(np.float32)
    spots = searched(stack, threshold=0.5, gaussians=True).spots
    assert len(spots) == len(truth)
    pairs = matched(np.column_stack([spots.row, spots.column, spots.frame]), truth[:, :3])
    found = np.column_stack([spots.row, spots.column, spots.frame])[pairs]
    assert np.abs(found - truth[:, :3]).max() < 0.02
    np.testing.assert_allclose(spots.omega[pairs], np.deg2rad(0.25 * (truth[:, 2] + 0.5)), atol=np.deg2rad(0.005))
    np.testing.assert_allclose(spots.intensity[pairs], truth[:, 6], rtol=0.02)
    fit = spots.fit[pairs]
    deep = np.isfinite(fit[:, 3])
    assert deep.sum() > len(truth) // 2
    assert np.abs(fit[deep, 1:3] - truth[deep, :2]).max() < 1e-4
    assert np.abs(fit[deep, 3] - np.deg2rad(0.25 * (truth[deep, 2] + 0.5))).max() < np.deg2rad(1e-4)
    np.testing.assert_allclose(fit[deep, 0], truth[deep, 6], rtol=1e-4)
    np.testing.assert_allclose(fit[deep, 4:6], truth[deep, 3:5], rtol=1e-3)
    np.testing.assert_allclose(fit[deep, 6], np.deg2rad(0.25) * truth[deep, 5], rtol=1e-3)


def test_gaussians_reach_the_bound() -> None:
    """The scatter of fitted positions is the least that counting allows: sigma / sqrt(photons) for a narrow pixel."""
    rng = np.random.default_rng(3)
    truth = scattered(400, (40, 260, 260), rng)
    truth[:, 3:6] = 1.4
    truth[:, 6] = 4000
    stack = rng.poisson(expected((40, 260, 260), truth)).astype(np.uint16)
    spots = searched(stack, threshold=0.5, gaussians=True).spots
    spots = spots[spots.pixels > 40]
    pairs = matched(np.column_stack([spots.row, spots.column, spots.frame]), truth[:, :3])
    good = (spots.flags[pairs] & FITTED) != 0
    assert good.mean() > 0.98
    bound = np.sqrt((1.4**2 + 1 / 12) / 4000)
    best = spots.best()
    away = np.column_stack([best.row, best.column, np.rad2deg(best.omega) / 0.25 - 0.5])[pairs][good] - truth[good, :3]
    scatter = np.sqrt((away**2).mean(axis=0))
    assert (scatter < 1.25 * bound).all(), scatter / bound
    assert (scatter > 0.8 * bound).all(), scatter / bound
    assert np.abs(away.mean(axis=0)).max() < 4 * bound / np.sqrt(len(away))
    told = np.column_stack([spots.errors[pairs, 1], spots.errors[pairs, 2], spots.errors[pairs, 3] / np.deg2rad(0.25)])
    pulls = away / told[good]
    assert ((pulls.std(axis=0) > 0.8) & (pulls.std(axis=0) < 1.3)).all(), pulls.std(axis=0)
    centres = np.column_stack([spots.row, spots.column, spots.frame])[pairs] - truth[:, :3]
    assert (np.sqrt((centres**2).mean(axis=0)) < 1.6 * bound).all()


@pytest.mark.parametrize("gaussians", [False, True])
def test_blocks_and_threads_change_nothing(noisy: np.ndarray, gaussians: bool) -> None:
    whole = searched(noisy, threshold=2, gaussians=gaussians, at_once=40)
    assert len(whole.spots) > 50
    for at_once in (1, 3, 7, 39):
        part = searched(noisy, threshold=2, gaussians=gaussians, at_once=at_once)
        same(whole.spots, part.spots)
        assert whole.met == part.met
    threads = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        same(whole.spots, searched(noisy, threshold=2, gaussians=gaussians, at_once=11).spots)
    finally:
        numba.set_num_threads(threads)


def test_blocks_change_nothing_in_a_full_turn() -> None:
    rng = np.random.default_rng(4)
    stack = rng.poisson(1.2, (24, 30, 40)).astype(np.uint16)
    options = {"threshold": 3, "sweep": Sweep(-180, 15), "least_pixels": 1, "gaussians": True}
    whole = searched(stack, at_once=24, **options)
    assert len(whole.spots) > 100
    for at_once in (1, 2, 5, 23):
        same(whole.spots, searched(stack, at_once=at_once, **options).spots)


def test_a_spot_over_the_seam_of_a_turn_is_one() -> None:
    spots = np.array([(15.0, 12.0, -0.3, 1.2, 1.2, 1.0, 2e4), (40.0, 31.0, 0.4, 1.0, 1.2, 0.9, 1e4)])
    stack = expected((36, 60, 50), spots, turn=True).astype(np.float32)
    found = searched(stack, threshold=0.5, sweep=Sweep(-180, 10), gaussians=True).spots
    assert len(found) == 2
    np.testing.assert_allclose(np.sort(found.row), [15, 40], atol=0.01)
    first = found.row < 20
    np.testing.assert_allclose(found.frame[first], -0.3, atol=0.02)
    np.testing.assert_allclose(found.frame[~first], 0.4, atol=0.02)
    np.testing.assert_allclose(np.rad2deg(found.omega), np.where(first, -178, -171), atol=0.2)
    np.testing.assert_allclose(np.rad2deg(found.fit[first, 3]), -178, atol=0.01)
    assert not (found.flags & CUT).any()
    half = searched(stack, threshold=0.5, sweep=Sweep(-180, 5)).spots
    assert len(half) == 4
    assert ((half.flags & CUT) != 0).all()


def test_a_gap_in_omega_parts_spots() -> None:
    spots = np.array([(15.0, 12.0, 9.5, 1.2, 1.2, 1.5, 2e4)])
    stack = expected((20, 30, 30), spots).astype(np.float32)
    starts = np.arange(20.0) + np.where(np.arange(20) >= 10, 5, 0)
    source = MemorySource(stack, omega_deg=np.column_stack([starts, starts + 1]))
    frames = Frames(source)
    found = find_spots(frames, limits(frames, flat_dark(0, frames), threshold=1))
    assert len(found.spots) == 2
    assert ((found.spots.flags & CUT) != 0).all()
    assert "jumps 1 times" in found.doubts[0]


def test_flags() -> None:
    spots = np.array([
        (0.2, 20.0, 6.0, 1.2, 1.2, 1.0, 2e4),
        (30.0, 20.0, 6.0, 1.2, 1.2, 1.0, 8e6),
        (30.0, 50.0, 6.0, 1.2, 1.2, 1.0, 2e4),
        (50.0, 50.0, 6.0, 1.2, 1.2, 1.0, 2e4),
        (50.0, 20.0, 0.0, 1.2, 1.2, 1.0, 2e4),
    ])  # fmt: skip
    stack = np.minimum(expected((13, 70, 70), spots), 65535).astype(np.uint16)
    mask = np.ones((70, 70), np.bool_)
    mask[30, 52] = False
    frames = Frames(MemorySource(stack), omegas=Sweep(0, 0.25), mask=mask)
    found = find_spots(frames, limits(frames, flat_dark(0, frames), threshold=10))
    by_place = {
        (round(r / 10), round(c / 10)): f
        for r, c, f in zip(found.spots.row, found.spots.column, found.spots.flags, strict=True)
    }
    assert by_place == {(0, 2): EDGE, (3, 2): SATURATED, (3, 5): MASKED, (5, 5): 0, (5, 2): CUT}
    assert found.met["saturated pixels"] > 3
    assert found.met["frames with saturated pixels"] >= 1
    assert OVERLAPPED not in by_place.values()


@pytest.mark.parametrize("codes", [(1,), (2,), (3,), (1, 3), (3, 1), (2, 3, 1)])
def test_turned_frames_give_turned_spots(noisy: np.ndarray, codes: tuple[int, ...]) -> None:
    """Turning the frames before, or the spots after, is the same."""
    turn = turned(codes)
    frames = Frames(MemorySource(noisy), omegas=Sweep(0, 0.25), turn=turn)
    left_out = np.arange(np.prod(frames.shape)).reshape(frames.shape) % 97 == 0
    chosen = {"rings": np.where(left_out, -1, 0), "threshold": 4.0}
    ours = find_spots(frames, limits(frames, flat_dark(0, frames), **chosen), gaussians=True).spots
    before = Frames(MemorySource(np.stack([turn.picture(frame) for frame in noisy])), omegas=Sweep(0, 0.25))
    theirs = find_spots(before, limits(before, flat_dark(0, before), **chosen), gaussians=True).spots
    assert frames.shape == (before.rows, before.columns)
    assert len(ours) == len(theirs) > 50
    theirs = theirs[np.lexsort((theirs.intensity,))]
    ours = ours[np.lexsort((ours.intensity,))]
    for name in ("row", "column", "frame", "omega", "intensity", "moments", "pixels", "flags", "fit", "errors"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-5, atol=1e-5, err_msg=name)


def test_thresholds_by_ring_and_noise() -> None:
    rng = np.random.default_rng(6)
    spots = np.array([(20.0, 20.0 + 30 * k, 26.0, 1.2, 1.2, 1.0, 3e3) for k in range(3)])
    level = rng.integers(80, 120, (40, 100))
    stack = (rng.normal(level, 3, (40, 40, 100)) + expected((40, 40, 100), spots)).round().astype(np.uint16)
    frames = Frames(MemorySource(stack), omegas=Sweep(0, 0.25))
    dark = dark_of_first(frames, 15)
    assert dark.noise is not None
    assert abs(float(dark.noise.mean()) - 3) < 0.4
    assert np.abs(dark.level - level).mean() < 1
    assert len(find_spots(frames, limits(frames, dark, sigmas=6)).spots) == 3
    rings = np.full((40, 100), -1)
    for k in range(3):
        rings[:, 5 + 30 * k : 35 + 30 * k] = k
    some = find_spots(frames, limits(frames, dark, rings=rings, of_ring={0: 20, 1: 1000, 2: 20})).spots
    np.testing.assert_allclose(np.sort(some.column), [20, 80], atol=0.3)
    one = find_spots(frames, limits(frames, dark, sigmas=6, rings=rings, of_ring={2: 1})).spots
    np.testing.assert_allclose(one.column, [80], atol=0.3)


def test_panels_are_joined() -> None:
    spots = np.array([(15.0, 12.0, 5.0, 1.2, 1.2, 1.5, 2e4)])
    stack = expected((12, 30, 30), spots).astype(np.float32)
    both = joined([searched(stack, panel=k).spots for k in (0, 1)])
    assert both.panel.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "threshold is needed"),
        ({"threshold": 0.0}, "above 0"),
        ({"threshold": float("nan")}, "above 0"),
        ({"sigmas": 3.0}, "noise of the dark is not known"),
        ({"of_ring": {1: 5.0}}, "map of the rings"),
        ({"of_ring": {1: 5.0}, "rings": np.zeros((3, 3), int)}, "of the rings is of"),
        ({"of_ring": {1: 5.0}, "rings": np.zeros((30, 30), int)}, "leave no pixel"),
    ],
)
def test_thresholds_that_cannot_be(options: dict[str, object], said: str) -> None:
    frames = Frames(MemorySource(np.zeros((4, 30, 30), np.uint16)), omegas=Sweep(0, 1))
    with pytest.raises(KernelError, match=said):
        limits(frames, flat_dark(0, frames), **options)


def test_too_much_above_the_threshold_is_told() -> None:
    stack = np.full((6, 40, 40), 100, np.uint16)
    with pytest.raises(KernelError, match="more than a quarter of the pixels of frame 0"):
        searched(stack)


def test_pixels_that_hang_together_without_end_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "_MOST_HELD", 100)
    stack = np.ones((30, 40, 40), np.uint16)
    stack[:, 5, 5:25] = 100
    with pytest.raises(KernelError, match="pixels up to frame 5 hang together"):
        searched(stack, at_once=2)


def test_saturated_frames_are_left_out_and_told() -> None:
    spots = np.array([(15.0, 12.0, 5.0, 1.2, 1.2, 0.8, 2e4)])
    stack = expected((20, 30, 30), spots).astype(np.uint16)
    stack[12:14] = 65535
    found = searched(stack)
    assert len(found.spots) == 1
    assert found.met["saturated frames"] == 2


def test_frames_without_spots_give_an_empty_table() -> None:
    stack = np.ones((6, 40, 40), np.uint16)
    assert len(searched(stack).spots) == 0


def test_spots_are_in_order(noisy: np.ndarray) -> None:
    frames = np.rint(searched(noisy).spots.frame)
    assert all(b - a > -3 for a, b in pairwise(frames))
