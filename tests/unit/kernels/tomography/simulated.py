"""Exact sinograms and projections of a small object, and how far something is from them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.tomography.phantom import project_rows, sample_object

Floats = NDArray[np.float32]


def line_integrals(*, columns: int = 256, rows: int = 2, angles: int = 360, step_deg: float | None = None) -> Floats:
    """(rows, angles, columns) over half a turn, or by steps."""
    parts = sample_object(columns, rows, margin=0.5 * columns, absorption=1.5, seed=1)
    theta = np.arange(angles) * (180 / angles if step_deg is None else step_deg)
    return project_rows(parts, theta, columns, rows, 0.5 * (columns - 1), 0, rows)


def transmission(*, columns: int = 96, rows: int = 64, frames: int = 6, step_deg: float = 0.3) -> Floats:
    """(frames, rows, columns), neighbouring angles."""
    lines = line_integrals(columns=columns, rows=rows, angles=frames, step_deg=step_deg)
    return np.ascontiguousarray(np.exp(-lines).transpose(1, 0, 2))


def noisy(values: Floats, spread: float, seed: int = 0) -> Floats:
    return (values + spread * np.random.default_rng(seed).standard_normal(values.shape)).astype(np.float32)


def off(values: NDArray[Any], truth: NDArray[Any]) -> float:
    """Relative root mean square error."""
    return float(np.sqrt(np.mean((values.astype(np.float64) - truth) ** 2) / np.mean(truth.astype(np.float64) ** 2)))
