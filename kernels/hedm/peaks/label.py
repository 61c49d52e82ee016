"""Spots in (row, column, frame) among the pixels above their limits: every pixel belongs to the maximum above it.

From each pixel one goes to the greatest of its 26 neighbours, and on, to a maximum: that is its spot. So spots go over
frames, and those that touch are parted along the valley between them, in one pass. (In two dimensions this is the
local-maximum labelling of ImageD11; J. P. Wright.) Counts scatter, which makes maxima of their own. Two things are done
about them: heights are smoothed, by (1, 2, 1) / 4 in each direction, and a maximum stands only if it rises over the
saddle to a higher one by enough: by the factor 1 / `saddle`, and by what a lone pixel at its threshold has, smoothed.

Pixels are in a list, by frame, row and column, with their numbers as keys in which rows are one column longer than they
are, so that numbers next to each other are pixels next to each other. Each frame has a slot; `before` and `after` name
the slots of its neighbours or are -1, which closes the circle of a full turn and parts what a gap in omega parts. What
comes out depends neither on threads nor on what else is in the list: sums go in the order of the list.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import prange
from numpy.typing import NDArray

from kernels.compiled import compiled
from kernels.hedm.frames.source import Floats

Ints = NDArray[np.int64]
Keys = NDArray[np.int32]

LONE = 0.125  # the weight of a pixel in its own smoothed height


class Slots(NamedTuple):
    """Pixels in a list, slot after slot.

    Attributes
    ----------
    starts : ndarray, shape (slots + 1,)
    before, after : ndarray, shape (slots,)
        Slots of the frames before and after, or -1.
    keys : ndarray, shape (n,), int32
        `row * stride + column`, ascending in a slot.
    values : ndarray, shape (n,), float32
    stride : int
        Columns and one more.
    """

    starts: Ints
    before: Ints
    after: Ints
    keys: Keys
    values: Floats
    stride: int


class Labels(NamedTuple):
    """Which pixel belongs to which spot.

    Attributes
    ----------
    spot : ndarray, shape (n,), int64
        From 0, by their maxima in the order of the list.
    maxima : ndarray, shape (spots,), int64
        Where in the list the maximum of each spot is.
    island : ndarray, shape (spots,), int64
        Spots that hang together have the same number.
    overlapped : ndarray, shape (spots,), bool
        Whether a spot touches another.
    """

    spot: Ints
    maxima: Ints
    island: Ints
    overlapped: NDArray[np.bool_]


def label(slots: Slots, threshold: Floats, *, saddle: float) -> Labels:
    """Part a list of pixels into spots.

    Parameters
    ----------
    slots : Slots
    threshold : ndarray, shape (n,)
        Of each pixel, in the units of its value.
    saddle : float
        Maxima are one when the saddle between them is higher than this part of the lower one.
    """
    starts, before, after, keys, values, stride = slots
    heights = np.empty_like(values)
    _smooth(starts, before, after, keys, values, stride, heights)
    roots = np.empty(len(keys), np.int64)
    _climb(starts, before, after, keys, heights, stride, roots)
    maxima = _follow(roots)
    counts = np.zeros(len(starts), np.int64)
    none = np.empty(0, np.int64)
    _valleys(starts, before, after, keys, heights, stride, roots, False, counts, none, none, np.empty(0, np.float32))
    ends = np.cumsum(counts)
    low, high = np.empty(ends[-1], np.int64), np.empty(ends[-1], np.int64)
    saddles = np.empty(ends[-1], np.float32)
    _valleys(starts, before, after, keys, heights, stride, roots, True, ends, low, high, saddles)
    order = np.lexsort((high, low, -saddles))
    lone = np.float32(LONE) * threshold[maxima]
    parent, island, overlapped = _merge(order, low, high, saddles, heights[maxima], lone, np.float32(saddle))
    whole = parent == np.arange(len(parent))
    number = np.cumsum(whole) - 1
    return Labels(number[parent][roots], maxima[whole], island[whole], overlapped[whole])


@compiled(parallel=True)
def _smooth(starts: Ints, before: Ints, after: Ints, keys: Keys, values: Floats, stride: int, heights: Floats) -> None:
    """Sums over the neighbours with weights 1, 2, 1 in each direction, over 64; pixels not in the list count as 0."""
    for slot in prange(starts.size - 1):
        at = np.empty(9, np.int64)
        end = np.empty(9, np.int64)
        for k in range(9):
            there = before[slot] if k < 3 else np.int64(slot) if k < 6 else after[slot]
            at[k] = starts[there] if there >= 0 else 0
            end[k] = starts[there + 1] if there >= 0 else 0
        for i in range(starts[slot], starts[slot + 1]):
            total = np.float32(0)
            for k in range(9):
                wanted = keys[i] + (k % 3 - 1) * stride
                q = at[k]
                while q < end[k] and keys[q] < wanted - 1:
                    q += 1
                at[k] = q
                line = np.float32(0)
                while q < end[k] and keys[q] <= wanted + 1:
                    line += values[q] * np.float32(2 if keys[q] == wanted else 1)
                    q += 1
                weight = (2 if k // 3 == 1 else 1) * (2 if k % 3 == 1 else 1)
                total += np.float32(weight) * line
            heights[i] = total / np.float32(64)


@compiled(parallel=True)
def _climb(starts: Ints, before: Ints, after: Ints, keys: Keys, heights: Floats, stride: int, up: Ints) -> None:
    """Of each pixel the greatest neighbour, itself where none is greater; of equal ones the first in the list."""
    for slot in prange(starts.size - 1):
        at = np.empty(9, np.int64)
        end = np.empty(9, np.int64)
        for k in range(9):
            there = before[slot] if k < 3 else np.int64(slot) if k < 6 else after[slot]
            at[k] = starts[there] if there >= 0 else 0
            end[k] = starts[there + 1] if there >= 0 else 0
        for i in range(starts[slot], starts[slot + 1]):
            best = i
            for k in range(9):
                wanted = keys[i] + (k % 3 - 1) * stride
                q = at[k]
                while q < end[k] and keys[q] < wanted - 1:
                    q += 1
                at[k] = q
                while q < end[k] and keys[q] <= wanted + 1:
                    if heights[q] > heights[best] or (heights[q] == heights[best] and q < best):
                        best = q
                    q += 1
            up[i] = best


@compiled()
def _follow(up: Ints) -> Ints:
    """Put the number of its maximum in the place of each pixel's neighbour; where the maxima are."""
    count = 0
    for i in range(up.size):
        count += up[i] == i
    maxima = np.empty(count, np.int64)
    number = np.full(up.size, -1, np.int64)
    count = 0
    for i in range(up.size):
        if up[i] == i:
            maxima[count] = i
            number[i] = count
            count += 1
    for i in range(up.size):
        top = i
        while number[top] < 0:
            top = up[top]
        found = number[top]
        k = i
        while number[k] < 0:
            number[k] = found
            k = up[k]
    up[:] = number
    return maxima


@compiled(parallel=True)
def _valleys(
    starts: Ints,
    before: Ints,
    after: Ints,
    keys: Keys,
    heights: Floats,
    stride: int,
    roots: Ints,
    write: bool,
    counts: Ints,
    low: Ints,
    high: Ints,
    saddles: Floats,
) -> None:
    """Pairs of neighbours that belong to different maxima, each once.

    First, how many each slot has, at `counts[slot + 1]`; then, with `write` and their sums in `counts`, the two maxima
    and the lower height of the two pixels.
    """
    for slot in prange(starts.size - 1):
        at = np.empty(5, np.int64)
        end = np.empty(5, np.int64)
        for k in range(5):  # this row and the next of the same frame, three rows of the frame after
            there = np.int64(slot) if k < 2 else after[slot]
            at[k] = starts[there] if there >= 0 else 0
            end[k] = starts[there + 1] if there >= 0 else 0
        out = counts[slot] if write else 0
        for i in range(starts[slot], starts[slot + 1]):
            for k in range(5):
                wanted = keys[i] + (k if k < 2 else k - 3) * stride
                first = wanted + 1 if k == 0 else wanted - 1
                q = at[k]
                while q < end[k] and keys[q] < first:
                    q += 1
                at[k] = q
                while q < end[k] and keys[q] <= wanted + 1:
                    if roots[q] != roots[i]:
                        if write:
                            low[out] = min(roots[q], roots[i])
                            high[out] = max(roots[q], roots[i])
                            saddles[out] = min(heights[q], heights[i])
                        out += 1
                    q += 1
        if not write:
            counts[slot + 1] = out


@compiled()
def _top(parent: Ints, k: int) -> int:
    while parent[k] != k:
        parent[k] = parent[parent[k]]
        k = parent[k]
    return k


@compiled()
def _merge(
    order: Ints, low: Ints, high: Ints, saddles: Floats, peaks: Floats, lone: Floats, saddle: np.float32
) -> tuple[Ints, Ints, NDArray[np.bool_]]:
    """Join maxima over their saddles, the highest saddle first: the spot and the island of each maximum, both as the
    number of a maximum, and whether a spot touches another.

    Saddles come down while peaks only grow, so that a pair that is not joined at its highest saddle never is.
    """
    parent = np.arange(peaks.size)
    island = np.arange(peaks.size)
    overlapped = np.zeros(peaks.size, np.bool_)
    for e in order:
        a, b = _top(island, low[e]), _top(island, high[e])
        island[max(a, b)] = min(a, b)
        a, b = _top(parent, low[e]), _top(parent, high[e])
        if a == b:
            continue
        lower, higher = (a, b) if peaks[a] < peaks[b] or (peaks[a] == peaks[b] and a > b) else (b, a)
        if saddles[e] > saddle * peaks[lower] or peaks[lower] - saddles[e] < lone[lower]:
            parent[lower] = higher
    for k in range(peaks.size):
        parent[k] = _top(parent, k)
        island[k] = _top(island, k)
    for e in order:
        a, b = parent[low[e]], parent[high[e]]
        if a != b:
            overlapped[a] = True
            overlapped[b] = True
    return parent, island, overlapped
