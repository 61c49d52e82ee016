"""The axis from centres of mass: that of an object goes round the axis, so that of its projections follows a sine.

    centre(theta) = axis + x cos(theta) + y sin(theta)

(Helgason-Ludwig condition of first order; used for alignment by Azevedo et al., IEEE Trans. Nucl. Sci. 37 (1990)
1525.) It asks for few angles and for no half turn, but for all of the object within the view, which shows in a mass
that is the same in all projections. Each row is fitted by itself; outlying angles are left out once.
"""

from __future__ import annotations

import numpy as np

from kernels.tomography.axis.estimate import Doubles, Estimate, Floats, weighted_median

_MASS_SPREAD = 0.05  # relative; more, and the object leaves the view or the beam drifts
_RIM = 0.02  # of the width
_EDGE = 0.1  # line integral at the rim relative to the largest


def centre_of_mass(sinograms: Floats, theta_deg: Doubles) -> Estimate | None:
    """The axis from the centres of mass of sinograms (rows, angles, columns); None where they do not apply."""
    angles, columns = sinograms.shape[1:]
    if angles < 6:
        return None
    profile = np.abs(sinograms.mean(1, dtype=np.float64))
    rim = max(2, round(_RIM * columns))
    edge = np.maximum(profile[:, :rim].mean(1), profile[:, -rim:].mean(1)) / np.maximum(profile.max(1), 1e-12)
    x = np.arange(columns) - 0.5 * (columns - 1)
    mass = sinograms.sum(2, dtype=np.float64)
    first = sinograms @ x.astype(np.float32)
    level = np.median(mass, axis=1, keepdims=True)
    varies = mass.std(1) / np.maximum(np.abs(level[:, 0]), 1e-12)
    usable = (edge < _EDGE) & (varies < _MASS_SPREAD) & (level[:, 0] > 0)
    if not usable.any():
        return None
    theta = np.deg2rad(theta_deg)
    model = np.stack((np.ones(angles), np.cos(theta), np.sin(theta)), axis=1)
    fits = [_fit(model, first[row] / mass[row]) for row in np.flatnonzero(usable)]
    found, errors = (np.array(values) for values in zip(*fits, strict=True))
    position = weighted_median(found, 1 / np.maximum(errors, 1e-3) ** 2)
    # what varies in the mass, such as the level of the air, moves the centre as well
    bias = float(np.median(varies[usable])) * 0.1 * columns
    uncertainty = float(np.hypot(np.median(errors) + bias, np.median(np.abs(found - position)))) + 0.05
    quality = float(np.clip(1 - np.median(varies[usable]) / _MASS_SPREAD, 0, 1) / (1 + (uncertainty / 2) ** 2))
    reason = f"centres of mass follow a sine within {np.median(errors) * np.sqrt(angles):.2g} pixels"
    return Estimate("moment", position + 0.5 * (columns - 1), uncertainty, quality, reason)


def _fit(model: Doubles, centres: Doubles) -> tuple[float, float]:
    """The constant of a linear fit and its standard error, once without outliers."""
    keep = np.ones(len(centres), bool)
    for _ in range(2):
        solution = np.linalg.lstsq(model[keep], centres[keep], rcond=None)[0]
        residual = centres - model @ solution
        spread = 1.4826 * np.median(np.abs(residual[keep]))
        keep = np.abs(residual) <= 4 * spread + 1e-9
    free = max(1, int(keep.sum()) - 3)
    variance = float((residual[keep] ** 2).sum()) / free
    covariance = np.linalg.pinv(model[keep].T @ model[keep]) * variance
    return float(solution[0]), float(np.sqrt(max(covariance[0, 0], 0)))
