"""Dead and hot pixels are found, and speckle is not taken for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from recorded import written

from kernels.errors import KernelError
from kernels.xpcs.badpixels import find_bad, judged
from kernels.xpcs.partition import Partition
from kernels.xpcs.readers import open_frames

ROWS, COLUMNS = 200, 250


def partition(bins: int = 10) -> Partition:
    static = (np.arange(ROWS * COLUMNS).reshape(ROWS, COLUMNS) * bins // (ROWS * COLUMNS) + 1).astype(np.int32)
    return Partition(static, static)


def sums(mean: float, modes: float, seed: int = 1) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """What pixels count in all: photons of intensities that are sums of so many speckles."""
    random = np.random.default_rng(seed)
    return random.poisson(random.gamma(modes, mean / modes, ROWS * COLUMNS)).astype(np.int64)


@pytest.mark.parametrize("modes", [1.0, 5.0, 100.0, 1e7])
@pytest.mark.parametrize("mean", [0.002, 0.1, 3.0, 40.0, 2000.0])
def test_good_pixels_are_left_alone(mean: float, modes: float) -> None:
    """From static speckle to none, and from next to no photons to many."""
    bad = judged(sums(mean, modes), partition())
    assert len(bad.dead) == len(bad.hot) == 0


def test_bad_pixels_are_found() -> None:
    counts = sums(200.0, 20.0)
    random = np.random.default_rng(2)
    dead, hot = np.split(random.choice(counts.size, 120, replace=False), [50])
    counts[dead] = 0
    counts[hot] = random.integers(3000, 10**9, len(hot))
    bad = judged(counts, partition())
    np.testing.assert_array_equal(bad.dead, np.sort(dead))
    np.testing.assert_array_equal(bad.hot, np.sort(hot))
    np.testing.assert_array_equal(bad.all, np.sort([*dead, *hot]))


def test_zeros_say_nothing_where_light_is_weak() -> None:
    counts = sums(3.0, 20.0)
    assert (counts == 0).sum() > 1000
    assert len(judged(counts, partition()).dead) == 0


def test_frames_are_read_once_for_it(tmp_path: Path) -> None:
    shown = np.random.default_rng(3).poisson(2.0, (20, 63))
    shown[:, 10], shown[:, 11] = 0, 90
    frames = open_frames(written(tmp_path, "hdf5", shown), frame_time_s=1.0)
    one = np.ones((7, 9), np.int32)
    bad = find_bad(frames, Partition(one, one))
    assert (bad.dead.tolist(), bad.hot.tolist()) == ([10], [11])
    with pytest.raises(KernelError, match="bins are of"):
        find_bad(frames, partition())
