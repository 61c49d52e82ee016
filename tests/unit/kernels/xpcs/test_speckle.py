"""Simulated speckle has the g2, the size and the statistics that it is said to have."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import pytest
from numpy.typing import NDArray

from kernels.errors import KernelError
from kernels.xpcs.speckle import Speckle, simulate
from kernels.xpcs.writers import laid_out

SHAPE = (48, 64)
TAU = 9.0
DELAYS = np.array([1, 2, 4, 8, 16])


def frames_of(speckle: Speckle, frames: int, seed: int = 1) -> NDArray[np.float64]:
    pixels = speckle.rate.size
    return np.concatenate([laid_out(e, pixels, np.float64) for e in simulate(speckle, frames, seed)])


def flat(rate: float = 0.8, **how: Any) -> Speckle:
    return Speckle(np.full(SHAPE, rate), np.full(SHAPE, TAU), **how)


def g2_of(shown: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """g2 by its definition, and its error from eight parts of the detector, which know nothing of each other."""
    parts = np.array_split(shown, 8, axis=1)
    each = np.array([[(p[:-d] * p[d:]).mean() / (p[:-d].mean() * p[d:].mean()) for d in DELAYS] for p in parts])
    return each.mean(0), each.std(0, ddof=1) / np.sqrt(len(parts))


@pytest.mark.parametrize("how", [{}, {"contrast": 0.3}, {"rate": 0.05}, {"size": 0.8}])
def test_g2_is_as_expected(how: dict[str, Any]) -> None:
    speckle = flat(**how)
    measured, error = g2_of(frames_of(speckle, 800))
    assert (np.abs(measured - speckle.g2(DELAYS, TAU)) < 5 * error + 1e-3).all()
    assert error.max() < 0.1


def test_mean_and_spread_of_counts() -> None:
    """Photons of fully developed speckle, frame by frame: variance m + m² contrast (Goodman)."""
    shown = frames_of(flat(2.0, contrast=0.5), 400)
    assert shown.mean() == pytest.approx(2.0, rel=0.02)
    assert shown.var() == pytest.approx(2.0 + 0.5 * 4.0, rel=0.05)


def test_bright_pixels() -> None:
    """Means far beyond 16, of which Poisson numbers are put together of parts."""
    shown = frames_of(Speckle(np.full(SHAPE, 150.0), np.full(SHAPE, TAU), contrast=0.0), 20)
    assert shown.mean() == pytest.approx(150.0, rel=0.005)
    assert shown.var() == pytest.approx(150.0, rel=0.05)


def test_speckle_size() -> None:
    """Correlation of neighbours: of fields smoothed by a Gaussian of deviation s, exp(-k² / (2 s²)) at k pixels."""
    shown = frames_of(flat(size=1.5), 400).reshape(-1, *SHAPE)
    for k in (1, 2, 3):
        measured = (shown[:, :, :-k] * shown[:, :, k:]).mean() / shown.mean() ** 2 - 1
        assert measured == pytest.approx(np.exp(-(k**2) / (2 * 1.5**2)), abs=0.05)


def test_drift_and_ageing() -> None:
    shown = frames_of(flat(drift=0.5), 400)
    middle, edges = shown[180:220].mean(), np.concatenate([shown[:20], shown[-20:]]).mean()
    assert middle / edges == pytest.approx(1.5 / 1.04, rel=0.05)
    shown = frames_of(flat(ageing=8.0), 1200)
    early, late = g2_of(shown[:200])[0], g2_of(shown[-200:])[0]
    assert early[3] - 1 < 0.5 < late[3] - 1


@pytest.mark.parametrize("size", [0.0, 1.0])
def test_the_same_for_any_number_of_threads(size: float) -> None:
    speckle = flat(size=size)
    before = numba.get_num_threads()
    shown = frames_of(speckle, 30)
    try:
        numba.set_num_threads(1)
        np.testing.assert_array_equal(frames_of(speckle, 30), shown)
    finally:
        numba.set_num_threads(before)
    assert (frames_of(speckle, 30, seed=2) != shown).any()


def test_hot_and_dark_pixels() -> None:
    rate = np.full(SHAPE, 0.5)
    rate[3] = 0
    shown = frames_of(Speckle(rate, np.full(SHAPE, TAU), hot=np.array([7, 200]), hot_photons=55), 40)
    assert (shown[:, [7, 200]] == 55).all()
    dark = shown.reshape(-1, *SHAPE)[:, 3].copy()
    dark[:, 200 - 3 * SHAPE[1]] = 0
    assert not dark.any()


def test_what_cannot_be() -> None:
    for how in ({"contrast": 1.5}, {"rate": -1.0}, {"rate": np.inf}):
        with pytest.raises(KernelError):
            next(simulate(flat(**how), 3, 1))
    with pytest.raises(KernelError, match="more than files hold"):
        next(simulate(flat(10000.0), 3, 1))
