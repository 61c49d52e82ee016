"""Figures of XPCS: g2 with its fits, relaxation times, two-time correlations, scattering."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kernels.io.plot import Curve, Map, Plot, write_figure
from kernels.xpcs.analysis.dispersion import PowerLaw
from kernels.xpcs.analysis.relaxation import Relaxation
from kernels.xpcs.analysis.scattering import Scattering
from kernels.xpcs.curves import Curves
from kernels.xpcs.partition import Partition
from kernels.xpcs.twotime.multitau import MultiTau as ByDelay

Floats = NDArray[np.float64]

_MOST = 9  # panels of bins; of more, as many evenly spaced
_ACROSS = 3
_THUMBNAIL = 300  # elements along a side of a two-time correlation as it is shown
_LINE = 200


def draw_scattering(path: Path, scattering: Scattering, partition: Partition, frame_time_s: float) -> None:
    """Mean scattering of the pixels, of the static bins in parts of the series, and of the frames."""
    rows, columns = scattering.image.shape
    image = Map(
        "mean counts per pixel and frame",
        "column",
        "row",
        scattering.image,
        (0, columns),
        (0, rows),
        log=True,
        image=True,
    )
    along, label, order = _static(partition)
    segments = len(scattering.segments)
    shown = sorted({0, segments // 2, segments - 1})
    curves = [
        Curve(
            along[order], scattering.segments[n][order], line=True, colour=colour, label=f"part {n + 1} of {segments}"
        )
        for colour, n in enumerate(shown)
    ]
    one = Plot("scattering, of parts of the series", label, "counts", curves, y_log=True)
    times = np.arange(len(scattering.intensity)) * frame_time_s
    every = -(-len(times) // 2000)
    whole = len(times) // every * every
    averaged = [values[:whole].reshape(-1, every).mean(1) for values in (times, scattering.intensity)]
    intensity = Plot("intensity", "time (s)", "counts per pixel", [Curve(averaged[0], averaged[1], line=True)])
    write_figure(path, [image, one, intensity], _ACROSS)


def draw_g2(path: Path, curves: Curves, fits: Sequence[Relaxation], laws: Sequence[PowerLaw]) -> None:
    """g2 of the bins with its fits, and the relaxation times over q where there are two or more."""
    panels: list[Plot | Map] = []
    for n in _evenly(len(curves.bins)):
        fit = fits[n]
        drawn = [Curve(curves.delay_s, curves.g2[:, n], curves.g2_err[:, n])]
        if fit.fitted:
            t = np.geomspace(curves.delay_s[0], curves.delay_s[-1], _LINE)
            tau, err = fit.parameter("tau")
            drawn.append(Curve(t, fit.curve(t), line=True, colour=1, label=f"tau = {tau:.4g} ± {err:.2g} s"))
        else:
            drawn.append(Curve(np.zeros(0), np.zeros(0), line=True, colour=1, label="not fitted"))
        panels.append(Plot(curves.labels[n], "delay (s)", "g2", drawn, x_log=True))
    panels += _dispersion(curves, fits, laws)
    write_figure(path, panels, _ACROSS)


def draw_maps(path: Path, maps: Sequence[tuple[str, Floats]], duration_s: float) -> None:
    """Two-time correlations by name."""
    ends = (0.0, duration_s)
    panels = [Map(name, "t1 (s)", "t2 (s)", values, ends, ends) for name, values in maps]
    write_figure(path, panels, _ACROSS)


def draw_by_delay(path: Path, found: ByDelay, labels: Sequence[str], duration_s: float) -> None:
    """How the correlation at each delay changes with time; `labels` are of all dynamic bins."""
    delays = np.geomspace(found.lags.frames[0], found.lags.frames[-1], _LINE)
    nearest = [int(n) for n in np.abs(np.log(found.lags.frames[:, None] / delays)).argmin(0)]
    frame_time_s = duration_s / (len(found.values[0][0]) + int(found.lags.frames[0]))
    ends = np.log10(delays[[0, -1]] * frame_time_s)
    panels = []
    for which in _evenly(len(found.bins)):
        rows = [
            _in_time(values[which], int(level), len(found.values[0][0]))
            for values, level in zip(found.values, found.lags.level, strict=True)
        ]
        values = np.stack([rows[n] for n in nearest])
        label = labels[int(found.bins[which]) - 1]
        panels.append(Map(label, "time (s)", "log10 of delay (s)", values, (0.0, duration_s), (ends[0], ends[1])))
    write_figure(path, panels, _ACROSS)


def _in_time(values: NDArray[np.float32], level: int, frames: int) -> Floats:
    """A row of equal times: means where there are more values, NaN after the last."""
    edges = np.linspace(0, frames / 2**level, _THUMBNAIL + 1)
    first = np.minimum(edges[:-1].astype(int), len(values) - 1)
    last = np.minimum(np.maximum(np.ceil(edges[1:]).astype(int), first + 1), len(values))
    sums = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    return np.where(edges[:-1] < len(values), (sums[last] - sums[first]) / (last - first), np.nan)


def shown_bins(bins: NDArray[np.int64]) -> list[int]:
    """The dynamic bins of which there is room for a picture."""
    return [int(bins[n]) for n in _evenly(len(bins))]


class Thumbnail:
    """A two-time correlation made small while its tiles come; both halves, without the diagonal, which holds noise."""

    def __init__(self, frames: int) -> None:
        self._every = -(-frames // _THUMBNAIL)
        size = -(-frames // self._every)
        self._sums, self._counts = np.zeros((size, size)), np.zeros((size, size))

    def add(self, row: int, column: int, tile: NDArray[np.float32]) -> None:
        """Take a tile of the upper triangle."""
        values = tile.astype(float)
        valid = np.ones(tile.shape)
        if row == column:
            valid = np.triu(valid, 1)
            values *= valid
        across, down = (
            (start + np.arange(n)) // self._every for start, n in ((column, tile.shape[1]), (row, tile.shape[0]))
        )
        rows, columns = (np.flatnonzero(np.diff(where, prepend=-1)) for where in (down, across))
        place = np.ix_(down[rows], across[columns])
        for sums, what in ((self._sums, values), (self._counts, valid)):
            sums[place] += np.add.reduceat(np.add.reduceat(what, rows, axis=0), columns, axis=1)

    @property
    def values(self) -> Floats:
        """Means of what is shown as one element; NaN where there are none."""
        sums, counts = self._sums + self._sums.T, self._counts + self._counts.T
        return np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)


def _dispersion(curves: Curves, fits: Sequence[Relaxation], laws: Sequence[PowerLaw]) -> list[Plot]:
    tau = np.array([fit.parameter("tau") for fit in fits])
    drawn = []
    for n, law in enumerate(laws):
        mine = (curves.other == n) & np.isfinite(tau[:, 0])
        drawn.append(Curve(curves.q[mine], tau[mine, 0], tau[mine, 1], colour=n))
        if law.fitted:
            q = np.geomspace(curves.q[mine].min(), curves.q[mine].max(), 50)
            said = f"q^({law.exponent:.3g} ± {law.exponent_err:.1g})"
            drawn.append(Curve(q, law.curve(q), line=True, colour=n, label=said if n < 6 else ""))
    if not any(law.fitted for law in laws):
        return []
    return [Plot("relaxation time", f"q ({curves.q_unit})", "tau (s)", drawn, x_log=True, y_log=True)]


def _static(partition: Partition) -> tuple[Floats, str, NDArray[np.intp]]:
    """Where static bins lie along the first axis, what that is, and their order along it."""
    if not partition.axes or len(partition.static_index) != partition.static_bins:
        along, label = np.arange(1.0, partition.static_bins + 1), "static bin"
    else:
        first = partition.axes[0]
        per_step = len(partition.axes[1].static) if len(partition.axes) > 1 else 1
        along, label = first.static[partition.static_index // per_step], f"{first.name} ({first.unit})"
    return along, label, np.argsort(along, kind="stable")


def _evenly(count: int) -> list[int]:
    return sorted({round(n) for n in np.linspace(0, count - 1, min(count, _MOST))})
