"""Mean scattering equals what NumPy says of the same frames, read once."""

from __future__ import annotations

import numpy as np
import pytest
from series import Dense, rings

from kernels.errors import KernelError
from kernels.xpcs.analysis.flags import bad_frames, beam_damage
from kernels.xpcs.analysis.scattering import Scattering, Tally
from kernels.xpcs.partition import Partition

ROWS, COLUMNS = 20, 26
PARTITION = Partition(*rings(ROWS, COLUMNS, 12, 4))


def _counts(frames: int, mean: float = 0.4) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    return np.random.default_rng(frames).poisson(mean, (frames, ROWS, COLUMNS))


@pytest.mark.parametrize("frames", [1, 7, 53])
def test_sums_of_events_are_the_means_of_frames(frames: int) -> None:
    counts = _counts(frames)
    found = Tally(Dense(counts), PARTITION, segments=5).scattering()
    np.testing.assert_allclose(found.image, counts.mean(0), rtol=1e-13)
    used = PARTITION.static > 0
    np.testing.assert_allclose(found.intensity, counts[:, used].mean(1), rtol=1e-13)
    parts = np.arange(frames) * min(5, frames) // frames
    for bin in range(PARTITION.static_bins):
        mine = counts[:, PARTITION.static == bin + 1]
        np.testing.assert_allclose(found.bins[bin], mine.mean(), rtol=1e-13)
        expected = [mine[parts == part].mean() for part in range(parts[-1] + 1)]
        np.testing.assert_allclose(found.segments[:, bin], expected, rtol=1e-13)


def test_whoever_reads_the_frames_has_them_summed_up_once() -> None:
    counts = _counts(20)
    tally = Tally(Dense(counts), PARTITION)
    next(tally.blocks())  # broken off
    for _ in range(2):
        seen = list(tally.blocks())
    assert sum(block.frames for block in seen) == 20
    np.testing.assert_allclose(tally.scattering().image, counts.mean(0))


def test_frames_that_are_sums_of_others_have_the_same_mean_scattering() -> None:
    counts = _counts(20)
    single = Tally(Dense(counts), PARTITION).scattering()
    sums = Tally(Dense(counts.reshape(10, 2, ROWS, COLUMNS).sum(1)), PARTITION, average=2).scattering()
    for name in ("image", "bins", "segments"):
        np.testing.assert_allclose(getattr(sums, name), getattr(single, name), rtol=1e-13)
    np.testing.assert_allclose(sums.intensity, single.intensity.reshape(10, 2).mean(1), rtol=1e-13)


def test_bins_of_another_detector_are_refused() -> None:
    with pytest.raises(KernelError, match="20 x 25 pixels and the qmap 20 x 26") as caught:
        Tally(Dense(_counts(3)[:, :, 1:]), PARTITION)
    assert caught.value.exit_code == 65
    with pytest.raises(KernelError, match="There are no frames"):
        Tally(Dense(_counts(3)[:0]), PARTITION)


def test_frames_unlike_their_neighbours_are_found_and_no_others() -> None:
    random = np.random.default_rng(1)
    pixels = 4000
    drift = 1 + 0.3 * np.sin(np.arange(3000) / 400)
    true = 0.05 * drift
    true[[100, 101]] = 0
    true[[700]] *= 0.4
    true[[1500, 2500]] *= 2
    found = bad_frames(random.poisson(true * pixels) / pixels, pixels)
    assert found.empty.tolist() == [100, 101]
    assert found.dark.tolist() == [700]
    assert found.bright.tolist() == [1500, 2500]
    assert [s.split(":")[1] for s in found.sentences()] == [" 2 (100, 101).", " 1 (700).", " 2 (1500, 2500)."]


def test_a_frame_without_counts_is_not_bad_where_counts_are_rare() -> None:
    few = np.random.default_rng(1).poisson(1.0, 500) / 4000
    assert bad_frames(few, 4000).total == 0


def _scattering(counts: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> Scattering:
    return Scattering(*(np.zeros(0) for _ in range(4)), counts)  # type: ignore[call-arg]


@pytest.mark.parametrize("seed", range(20))
def test_a_fading_beam_is_no_damage(seed: int) -> None:
    random = np.random.default_rng(seed)
    counts = random.poisson(np.linspace(3000, 1500, 10)[:, None] * np.linspace(1, 0.1, 100))
    found = beam_damage(_scattering(counts))
    assert not found.found
    assert found.sentences() == []
    assert found.trend == pytest.approx(-2 / 3, abs=0.01)


def test_a_change_of_shape_is_damage() -> None:
    counts = np.full((10, 100), 20000.0)
    counts[:, 30:40] *= np.linspace(0.9, 1.1, 10)[:, None]
    found = beam_damage(_scattering(np.random.default_rng(2).poisson(counts)))
    assert np.flatnonzero(found.significant).tolist() == list(range(30, 40))
    assert found.change[30:40] == pytest.approx(0.18, abs=0.03)  # of a share that the others have a part in
    assert "in 10 of 100 static bins" in found.sentences()[0]
