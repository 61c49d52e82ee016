"""Fits of g2: how fast, and in which way, the sample forgets how it was.

All models are `g2(t) = baseline + contrast · f(t)²` with the field correlation f (Siegert):

    simple      f = exp(-t/tau)
    stretched   f = exp(-(t/tau)^stretch)                                        Kohlrausch
    double      f = fraction · exp(-t/tau) + (1 - fraction) · exp(-t/tau2)       tau < tau2

B. J. Berne and R. Pecora, Dynamic Light Scattering (1976); O. Shpyrko, J. Synchrotron Rad. 21 (2014) 1057.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

Floats = NDArray[np.float64]

PARAMETERS = {
    "simple": ("baseline", "contrast", "tau"),
    "stretched": ("baseline", "contrast", "tau", "stretch"),
    "double": ("baseline", "contrast", "tau", "tau2", "fraction"),
}
MODELS = tuple(PARAMETERS)

_CONTRAST, _STRETCH = (0.0, 4.0), (0.1, 4.0)
_BASELINE = (0.0, 4.0)
_BEYOND = 30.0  # a tau so many times shorter or longer than all delays would not have been seen
_SEEN = 3.0  # a contrast of less than so many of its uncertainties is none
_GAIN = (
    30.0  # so much a decay must lower the squares of what a flat line leaves: noise, tried with many times, gives less
)
_GRID = 24
_STRETCHES = (0.5, 1.0, 1.7)


class Relaxation(NamedTuple):
    """One g2, fitted.

    Attributes
    ----------
    model : str
        One of `MODELS`.
    values, errors : ndarray, shape (parameters,)
        In the order of `PARAMETERS[model]`, times in seconds; NaN where it was not fitted. The errors are standard
        deviations, from the covariance at the best fit and the uncertainties of g2 as they were given.
    chi2 : float
        Reduced: the weighted squares of what the fit leaves, for each degree of freedom. Near 1 when model and
        uncertainties are right.
    points : int
        How many delays were used.
    why : str
        Why there is no fit; empty when there is one.
    """

    model: str
    values: Floats
    errors: Floats
    chi2: float
    points: int
    why: str = ""

    @property
    def fitted(self) -> bool:
        return not self.why

    def parameter(self, name: str) -> tuple[float, float]:
        """Value and error of a parameter."""
        place = PARAMETERS[self.model].index(name)
        return float(self.values[place]), float(self.errors[place])

    def curve(self, delay_s: Floats) -> Floats:
        """g2 of the fit at these delays."""
        return model(self.model, delay_s, self.values)


def fit(delay_s: Floats, g2: Floats, g2_err: Floats, kind: str = "stretched") -> Relaxation:
    """Fit a model to one g2 by least squares, weighted by 1/err², within bounds.

    Parameters
    ----------
    delay_s, g2, g2_err : ndarray, shape (delays,)
        Delays in seconds, ascending; the correlation and its standard deviation. Delays at which g2 is not finite, or
        its deviation not above 0, are left out.
    kind
        One of `MODELS`.

    Returns
    -------
    Relaxation
        `why` says, in words, why there is none: too few delays, no decay, a decay outside the delays.

    Notes
    -----
    The start is the best of a grid of times (and stretches), at each of which baseline and contrast follow linearly, so
    that no guess is asked for. Times are fitted as logarithms. Delays of one g2 are treated as independent; they are
    not quite, so that errors are somewhat too small where frames are few.
    """
    good = np.isfinite(g2) & np.isfinite(g2_err) & (g2_err > 0) & (delay_s > 0)
    t, y, weight = delay_s[good], g2[good], 1.0 / g2_err[good]
    names = PARAMETERS[kind]
    if len(t) <= len(names):
        return _none(kind, len(t), f"{len(t)} delays with a known uncertainty are too few for {len(names)} parameters")
    low, high = _bounds(kind, t)
    best = None
    for start in _starts(kind, t, y, weight):
        found = least_squares(
            lambda p: (model(kind, t, _times(kind, p)) - y) * weight,
            np.clip(start, low + 1e-9, high - 1e-9),
            jac=lambda p: gradient(kind, t, _times(kind, p), logarithmic=True) * weight[:, None],
            bounds=(low, high),
            x_scale="jac",
            max_nfev=400,
        )
        if best is None or found.cost < best.cost:
            best = found
    assert best is not None
    values = _times(kind, best.x)
    jacobian = gradient(kind, t, values) * weight[:, None]
    chi2 = float(2 * best.cost / (len(t) - len(names)))
    flat = float((((y - np.average(y, weights=weight**2)) * weight) ** 2).sum())
    if flat - 2 * best.cost < _GAIN * max(1.0, chi2):
        return _none(kind, len(t), "there is no decay that stands out of the noise")
    why, errors = _judge(kind, t, values, jacobian, success=bool(best.status > 0))
    if why:
        return _none(kind, len(t), why)
    if kind == "double" and values[2] > values[3]:
        values[[2, 3]], errors[[2, 3]], values[4] = values[[3, 2]], errors[[3, 2]], 1 - values[4]
    return Relaxation(kind, values, errors, chi2, len(t))


def model(kind: str, t: Floats, p: Floats) -> Floats:
    """g2 at the delays `t` (seconds), of parameters in the order of `PARAMETERS`."""
    return np.asarray(p[0] + p[1] * _field(kind, t, p) ** 2)


def gradient(kind: str, t: Floats, p: Floats, *, logarithmic: bool = False) -> Floats:
    """Derivatives of `model` by its parameters, or by the logarithms of the times: shape (delays, parameters)."""
    field = _field(kind, t, p)
    by_field = 2 * p[1] * field
    columns = [np.ones_like(t), field**2]
    if kind == "double":
        for tau, part in ((p[2], p[4]), (p[3], 1 - p[4])):
            by_log = part * np.exp(-t / tau) * (t / tau)
            columns.append(by_field * by_log / (1 if logarithmic else tau))
        columns.append(by_field * (np.exp(-t / p[2]) - np.exp(-t / p[3])))
    else:
        stretch = p[3] if kind == "stretched" else 1.0
        power = (t / p[2]) ** stretch
        columns.append(by_field * field * power * stretch / (1 if logarithmic else p[2]))
        if kind == "stretched":
            columns.append(-by_field * field * power * np.log(t / p[2]))
    return np.stack(columns, axis=1)


def _field(kind: str, t: Floats, p: Floats) -> Floats:
    if kind == "double":
        return np.asarray(p[4] * np.exp(-t / p[2]) + (1 - p[4]) * np.exp(-t / p[3]))
    return np.asarray(np.exp(-((t / p[2]) ** (p[3] if kind == "stretched" else 1.0))))


def _times(kind: str, logarithmic: Floats) -> Floats:
    """Parameters with times, of those with logarithms of times."""
    values = logarithmic.copy()
    last = 4 if kind == "double" else 3
    values[2:last] = np.exp(values[2:last])
    return values


def _bounds(kind: str, t: Floats) -> tuple[Floats, Floats]:
    time = (np.log(t[0] / _BEYOND), np.log(t[-1] * _BEYOND))
    bounds = [_BASELINE, _CONTRAST, time]
    bounds += {"simple": [], "stretched": [_STRETCH], "double": [time, (0.0, 1.0)]}[kind]
    low, high = np.array(bounds).T
    return low, high


def _starts(kind: str, t: Floats, y: Floats, weight: Floats) -> list[Floats]:
    """Where to begin, the best first; with logarithms of times."""
    times = np.geomspace(t[0] / 2, t[-1] * 2, _GRID)
    tried = []
    for stretch in _STRETCHES if kind == "stretched" else (1.0,):
        for tau in times:
            field = np.exp(-((t / tau) ** stretch)) ** 2
            terms = np.stack([weight, field * weight], axis=1)
            (baseline, contrast), *_ = np.linalg.lstsq(terms, y * weight, rcond=None)
            cost = float((((baseline + contrast * field - y) * weight) ** 2).sum())
            if contrast > 0:
                tried.append((cost, baseline, contrast, np.log(tau), stretch))
    if not tried:  # it only rises: a flat start, and the fit will say so
        tried.append((0.0, float(y.mean()), 1e-3, np.log(np.sqrt(t[0] * t[-1])), 1.0))
    tried.sort()
    _, baseline, contrast, tau, stretch = tried[0]
    if kind == "simple":
        return [np.array([baseline, contrast, tau])]
    if kind == "stretched":
        return [np.array([baseline, contrast, tau, stretch])]
    return [
        np.array([baseline, contrast, tau - apart, tau + apart, fraction])
        for apart in (0.5, 1.5, 3.0)
        for fraction in (0.3, 0.7)
    ]


def _judge(kind: str, t: Floats, values: Floats, jacobian: Floats, *, success: bool) -> tuple[str, Floats]:
    """Why the best fit is none, if it is none, and the errors of its parameters."""
    none = np.full(len(values), np.nan)
    if not success:
        return "the fit did not converge", none
    if values[1] <= 0:
        return "there is no decay: the contrast is 0", none
    # Singular, up to rounding, when some parameter changes nothing.
    scale = np.sqrt((jacobian**2).sum(0))
    if not (scale > 0).all():
        return "the delays say nothing about " + PARAMETERS[kind][int(np.argmin(scale))], none
    scaled = jacobian / scale
    if np.linalg.cond(scaled) > 1e7:
        return f"the delays do not tell the parameters of the {kind} model apart", none
    errors = np.sqrt(np.diag(np.linalg.inv(scaled.T @ scaled))) / scale
    if values[1] < _SEEN * errors[1] or values[1] > 0.99 * _CONTRAST[1]:
        return f"the delays do not tell the contrast: {values[1]:.3g} ± {errors[1]:.2g}", none
    last = 4 if kind == "double" else 3
    if (values[2:last] < t[0] / 3).any():
        return f"the decay is over before the first delay, {t[0]:.4g} s", none
    if (values[2:last] > 3 * t[-1]).any():
        return f"the decay goes on beyond the last delay, {t[-1]:.4g} s", none
    if (errors[2:last] > values[2:last]).any():
        return "the delays do not tell how long the decay takes", none
    if kind == "double" and not 0.01 < values[4] < 0.99:
        return "there is one decay, not two", none
    return "", errors


def _none(kind: str, points: int, why: str) -> Relaxation:
    nothing = np.full(len(PARAMETERS[kind]), np.nan)
    return Relaxation(kind, nothing, nothing, float("nan"), points, why)
