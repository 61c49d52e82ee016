"""How relaxation times depend on q: `tau(q) = scale · q^exponent`. Diffusion has -2, ballistic motion -1."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class PowerLaw(NamedTuple):
    """`tau = scale · q^exponent`.

    Attributes
    ----------
    exponent, exponent_err : float
        With its standard deviation.
    scale, scale_err : float
        tau in seconds at q = 1 in the unit of q.
    chi2 : float
        Reduced; NaN for two points.
    points : int
        How many bins were used.
    why : str
        Why there is none; empty when there is one.
    """

    exponent: float
    exponent_err: float
    scale: float
    scale_err: float
    chi2: float
    points: int
    why: str = ""

    @property
    def fitted(self) -> bool:
        return not self.why

    def curve(self, q: Floats) -> Floats:
        return np.asarray(self.scale * q**self.exponent)


def power_law(q: Floats, tau_s: Floats, tau_err: Floats) -> PowerLaw:
    """Fit a power law to relaxation times, a straight line to their logarithms, each weighted by (tau/err)².

    Parameters
    ----------
    q, tau_s, tau_err : ndarray, shape (bins,)
        Bins whose tau is not finite or not above 0 are left out, as are those without q.

    Notes
    -----
    Errors are those of the covariance; where the points lie farther from the line than their errors say (reduced chi²
    above 1), they are larger by its root.
    """
    with np.errstate(invalid="ignore"):
        good = np.isfinite(q) & np.isfinite(tau_s) & np.isfinite(tau_err) & (q > 0) & (tau_s > 0) & (tau_err > 0)
    x, y, weight = np.log(q[good]), np.log(tau_s[good]), tau_s[good] / tau_err[good]
    points = len(x)
    if len(np.unique(x)) < 2:
        nan = float("nan")
        why = f"{points} bins with a relaxation time, at {len(np.unique(x))} values of q: two are the least"
        return PowerLaw(nan, nan, nan, nan, nan, points, why)
    # About the weighted middle slope and level are independent; the scale lies far from there.
    middle = float((weight**2 * x).sum() / (weight**2).sum())
    terms = np.stack([x - middle, np.ones(points)], axis=1) * weight[:, None]
    covariance = np.linalg.inv(terms.T @ terms)
    exponent, level = covariance @ (terms.T @ (y * weight))
    left = (y - exponent * (x - middle) - level) * weight
    chi2 = float((left**2).sum() / (points - 2)) if points > 2 else float("nan")
    covariance *= max(1.0, chi2) if points > 2 else 1.0
    scale = float(np.exp(level - exponent * middle))
    scale_err = scale * float(np.sqrt(covariance[1, 1] + middle**2 * covariance[0, 0]))
    return PowerLaw(float(exponent), float(np.sqrt(covariance[0, 0])), scale, scale_err, chi2, points)
