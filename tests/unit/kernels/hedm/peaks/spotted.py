"""Stacks of frames with Gaussian spots whose places are known, and plain ways of finding them again."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf

from kernels.hedm.frames import Frames, MemorySource, Sweep, flat_dark
from kernels.hedm.peaks import Found, find_spots, limits

# Columns of a list of spots: row, column, frame, their widths (standard deviations), intensity.
Doubles = NDArray[np.float64]
QUARTERS = Sweep(0, 0.25)


def profile(count: int, centre: float, width: float, *, turn: bool = False) -> Doubles:
    """A normal distribution integrated over the pixels 0 to `count`, which may close into a circle."""
    edges = np.arange(-0.5, count)
    shifts = (-count, 0, count) if turn else (0,)
    return sum(np.diff(0.5 * erf((edges - centre - shift) / width / np.sqrt(2))) for shift in shifts)


def expected(shape: tuple[int, int, int], spots: Doubles, *, turn: bool = False) -> Doubles:
    """What a detector would count on average, (frame, row, column)."""
    stack = np.zeros(shape)
    for row, column, frame, row_width, column_width, frame_width, intensity in spots:
        along = profile(shape[0], frame, frame_width, turn=turn)
        across = np.outer(profile(shape[1], row, row_width), profile(shape[2], column, column_width))
        near = along > 1e-9
        stack[near] += intensity * along[near, None, None] * across
    return stack


def scattered(
    count: int, shape: tuple[int, int, int], rng: np.random.Generator, *, margin: float = 8, brightest: float = 2e4
) -> Doubles:
    """Spots on a loose grid, so that none touches another."""
    cells = [np.arange(margin, size - margin + 1, 2 * margin) for size in shape[1:]]
    frames = np.arange(6, shape[0] - 5, 12.0)
    places = np.array(list(product(cells[0], cells[1], frames)))
    places = places[rng.permutation(len(places))[:count]] + rng.uniform(-1, 1, (min(count, len(places)), 3))
    widths = rng.uniform([0.8, 0.8, 0.6], [1.5, 1.5, 1.4], (len(places), 3))
    return np.column_stack([places, widths, rng.uniform(0.2, 1, len(places)) * brightest])


def searched(
    stack: NDArray[Any], *, threshold: float = 10, dark: float = 0, sweep: Sweep = QUARTERS, **options: Any
) -> Found:
    frames = Frames(MemorySource(stack), omegas=sweep)
    return find_spots(frames, limits(frames, flat_dark(dark, frames), threshold=threshold), **options)


def matched(found: Doubles, truth: Doubles, reach: float = 1.5) -> NDArray[np.int64]:
    """For each of the true places (n, 3) the nearest that was found, which has to be near."""
    apart = np.abs(found[None] - truth[:, None]).max(axis=2)
    nearest = apart.argmin(axis=1)
    assert apart[np.arange(len(truth)), nearest].max() < reach
    assert len(set(nearest)) == len(truth)
    return nearest


def parted(values: Doubles, threshold: float, saddle: float) -> dict[tuple[int, int, int], set[tuple[int, int, int]]]:
    """Spots by their maxima, step after step over the pixels (frame, row, column), as `peaks.label` says."""
    pixels = {tuple(int(k) for k in at): float(values[tuple(at)]) for at in np.argwhere(values > threshold)}
    around = [step for step in product((-1, 0, 1), repeat=3) if any(step)]

    def near(at: tuple[int, ...]) -> list[tuple[int, ...]]:
        there = [tuple(a + b for a, b in zip(at, step, strict=True)) for step in around]
        return [pixel for pixel in there if pixel in pixels]

    def weight(a: tuple[int, ...], b: tuple[int, ...]) -> float:
        return float(np.prod([2 - abs(x - y) for x, y in zip(a, b, strict=True)]))

    height = {at: (8 * value + sum(weight(at, b) * pixels[b] for b in near(at))) / 64 for at, value in pixels.items()}

    def best(at: tuple[int, ...]) -> tuple[int, ...]:
        return min([at, *near(at)], key=lambda b: (-height[b], b))

    def top(at: tuple[int, ...]) -> tuple[int, ...]:
        while best(at) != at:
            at = best(at)
        return at

    root = {at: top(at) for at in pixels}
    passes = {(min(height[a], height[b]), a, b) for a in pixels for b in near(a) if root[a] != root[b] and a < b}
    joined = {at: at for at in root.values()}

    def end(at: tuple[int, ...]) -> tuple[int, ...]:
        while joined[at] != at:
            at = joined[at]
        return at

    for level, a, b in sorted(passes, key=lambda one: (-one[0], root[one[1]], root[one[2]])):
        low, high = sorted((end(root[a]), end(root[b])), key=lambda at: (height[at], [-k for k in at]))
        if low != high and (level > saddle * height[low] or height[low] - level < threshold / 8):
            joined[low] = high
    spots: dict[Any, set[Any]] = {}
    for at in pixels:
        spots.setdefault(end(root[at]), set()).add(at)
    return spots
