"""Correlations by delay and time are the diagonals of two-time correlations of summed frames."""

from __future__ import annotations

import numpy as np
import pytest
from counted import Counted, partition, twotime_plainly

from kernels.xpcs.twotime.multitau import multitau_twotime
from kernels.xpcs.twotime.series import gather

BINS = partition(2, 17, 29, 8)


@pytest.mark.parametrize(("frames", "largest", "per_level"), [(2, 3, 4), (101, 5, 4), (64, 900, 3)])
def test_each_delay_is_a_diagonal_of_the_summed_frames(frames: int, largest: int, per_level: int) -> None:
    rng = np.random.default_rng(frames)
    counts = rng.integers(1, largest + 1, (frames, 17, 29)) * (rng.random((frames, 17, 29)) < 0.15)
    counts[frames // 3] = 0
    found = multitau_twotime(gather(Counted(counts), BINS), per_level)
    for values, delay, level in zip(found.values, found.lags.frames, found.lags.level, strict=True):
        length = frames >> level
        summed = counts[: length << level].reshape(length, 1 << level, 17, 29).sum(axis=1)
        truth = np.diagonal(twotime_plainly(summed, BINS), delay >> level, axis1=1, axis2=2)
        np.testing.assert_allclose(values, truth, rtol=1e-7)
    assert found.g2.shape == (len(found.lags.frames), BINS.dynamic_bins)


def test_work_and_results_grow_with_the_frames_and_not_with_their_square() -> None:
    rng = np.random.default_rng(0)
    sizes = []
    for frames in (200, 400, 800):
        counts = (rng.random((frames, 17, 29)) < 0.01).astype(int)
        sizes.append(sum(values.size for values in multitau_twotime(gather(Counted(counts), BINS)).values))
    assert sizes[2] < 2.2 * sizes[1] < 2.2**2 * sizes[0]
