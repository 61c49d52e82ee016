"""All corrections of a scan, one after the other."""

from __future__ import annotations

import numpy as np
import pytest
from simulated import Floats, off, transmission

from kernels.errors import KernelError
from kernels.tomography.corrections.chain import STRIPES, Chain, Propagation, Zingers, correct_projections
from kernels.tomography.corrections.chain import correct_sinograms as to_lines
from kernels.tomography.corrections.distortion import Lens
from kernels.tomography.corrections.hardening import Linearisation

TRUTH = transmission(columns=128, rows=12, frames=180, step_deg=0.5)
DARK, FLAT = 50.0, np.random.default_rng(0).uniform(900, 1100, TRUTH.shape[1:]).astype(np.float32)


def divided(counts: Floats) -> Floats:
    return np.asarray((counts - DARK) / FLAT, np.float32)


def sinograms(frames: Floats) -> Floats:
    return np.ascontiguousarray(frames.transpose(1, 0, 2))


def made(counts: Floats, chain: Chain) -> Floats:
    projections = correct_projections(counts, chain, transmission=divided)
    return to_lines(sinograms(projections.transmission), chain).line_integrals


def test_an_empty_chain_is_dark_flat_and_logarithm() -> None:
    counts = DARK + FLAT * TRUTH
    result = to_lines(sinograms(divided(counts)), Chain(), floor=0.5)
    expected = -np.log(np.maximum(sinograms(divided(counts)), 0.5))
    np.testing.assert_allclose(result.line_integrals, expected, atol=1e-6)
    assert result.floored == int((divided(counts) < 0.5).sum())
    np.testing.assert_allclose(made(counts, Chain()), sinograms(-np.log(TRUTH)), atol=1e-4)


def test_each_flaw_needs_its_correction() -> None:
    """Zingers, a lens, a curve of the spectrum and dead columns, all at once: each one left out is seen."""
    random = np.random.default_rng(1)
    lens, curve = Lens(6.0, 64.0, (1.02,)), Linearisation((1.0, 0.1), 4.0)
    lines = -np.log(TRUTH)
    soft = (np.sqrt(1 + 0.4 * lines) - 1) / 0.2  # what becomes `lines` on that curve
    columns = np.arange(128)
    bent = np.empty_like(TRUTH)
    for frame, row in np.ndindex(TRUTH.shape[:2]):
        bent[frame, row] = np.interp(64 + (columns - 64) / 1.02, columns, np.exp(-soft[frame, row]))
    light = bent + 0.01 * random.standard_normal(bent.shape)
    light[:, :, 13] = 0.3  # which the lens puts at column 14, and not between two
    counts = (DARK + FLAT * light).astype(np.float32)
    counts[random.random(counts.shape) < 1e-3] += 3000
    chain = Chain(Zingers(threshold=12, relative=0.5), lens, None, curve, "dead")
    true = sinograms(lines)
    whole = off(made(counts, chain), true)
    assert whole < 0.06
    for without in ("zingers", "lens", "hardening", "stripes"):
        kept = {name: getattr(chain, name) for name in ("zingers", "lens", "hardening", "stripes") if name != without}
        assert off(made(counts, Chain(**kept)), true) > 1.15 * whole, without


def test_phase_is_a_part_of_it() -> None:
    chain = Chain(propagation=Propagation(20.0, 100.0, 1.0, 100.0))
    rough = made(DARK + FLAT * TRUTH, Chain())
    assert np.abs(np.diff(made(DARK + FLAT * TRUTH, chain))).max() < 0.5 * np.abs(np.diff(rough)).max()
    assert chain.whole_frames
    assert not Chain(Zingers()).whole_frames


@pytest.mark.parametrize("name", sorted(STRIPES))
def test_stripes_by_name(name: str) -> None:
    given = sinograms(TRUTH)
    plain = to_lines(given, Chain()).line_integrals
    np.testing.assert_array_equal(to_lines(given, Chain(stripes=name)).line_integrals, STRIPES[name](plain))


def test_an_unknown_name() -> None:
    with pytest.raises(KernelError, match="Did you mean 'slow'"):
        Chain(stripes="slwo")
