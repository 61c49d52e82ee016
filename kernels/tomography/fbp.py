r"""Filtered back projection of parallel-beam scans, exact in gain.

Conventions, the same in every module of this package:

* Pixel `i` of a detector has its middle at coordinate `i`. The rotation axis is a coordinate on the detector in the
  same units, so an axis in the middle of N columns is at (N - 1) / 2: 255.5 for N = 512. (TomoPy counts N / 2.)
* Voxel (y, x) of a slice of N x N lies at (x - (N - 1) / 2, y - (N - 1) / 2) from the axis, y growing with the row.
* A ray at angle theta meets the detector at `axis + x cos(theta) + y sin(theta)`.
* Line integrals are in units of detector pixels, so a slice is attenuation per detector pixel, with gain 1.

The ramp filter is the band-limited one, sampled in space and transformed (Kak & Slaney, Principles of Computerized
Tomographic Imaging, 1988, eq. 3.29; Crawford, Med. Phys. 18 (1991) 1045): sampling |f| in frequency instead would
lose the mean value. Projections are padded to at least twice their length, so the convolution does not wrap around.

Speed: the slices of a group lie innermost in memory, so that the weights of a ray are worked out once for
`LANES` slices and each interpolation is vector arithmetic (`kernels.tomography.lanes`), at positions in fixed point.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import scipy.fft
from numba import prange
from numpy.typing import NDArray

from kernels.compiled import compiled, threads
from kernels.tomography.lanes import FRACTION, LANES, ONE, load, one_plus_fraction, plus, scaled, store

_TILE = 16
FILTERS = ("ramp", "shepp-logan", "cosine", "hamming", "hann", "parzen")

Floats = NDArray[np.float32]


def filter_response(padded: int, window: str = "ramp") -> NDArray[np.float64]:
    """Frequency response of the ramp filter, for `numpy.fft.rfft` of length `padded` and unit sample distance.

    Parameters
    ----------
    padded
        Length of the padded projections, even.
    window
        One of `FILTERS`. Frequencies in cycles per pixel: shepp-logan sinc(f), cosine cos(pi f), hann
        (1 + cos(2 pi f)) / 2, hamming 0.54 + 0.46 cos(2 pi f), parzen the cubic spline with knots at f = 0, 1/4 and
        1/2: each 1 at f = 0, so none changes the gain.

    Returns
    -------
    ndarray, shape (padded // 2 + 1,)
    """
    distance = np.arange(padded)
    distance = np.minimum(distance, padded - distance)
    kernel = np.zeros(padded)
    kernel[0] = 0.25
    odd = distance % 2 == 1
    kernel[odd] = -1.0 / (np.pi * distance[odd]) ** 2
    frequency = np.arange(padded // 2 + 1) / padded
    windows = {
        "ramp": np.ones_like(frequency),
        "shepp-logan": np.sinc(frequency),
        "cosine": np.cos(np.pi * frequency),
        "hamming": 0.54 + 0.46 * np.cos(2 * np.pi * frequency),
        "hann": 0.5 + 0.5 * np.cos(2 * np.pi * frequency),
        "parzen": np.where(
            frequency <= 0.25,
            1 - 24 * frequency**2 * (1 - 2 * frequency),
            2 * np.maximum(1 - 2 * frequency, 0) ** 3,
        ),
    }
    return np.asarray(np.fft.rfft(kernel).real * windows[window])


def padded_length(columns: int) -> int:
    """An even length of at least twice `columns` that transforms fast."""
    length = scipy.fft.next_fast_len(2 * columns, real=True)
    while length % 2:
        length = scipy.fft.next_fast_len(length + 1, real=True)
    return int(length)


def angle_weights(theta_deg: NDArray[np.float64]) -> NDArray[np.float64]:
    """The share of the half turn that each projection stands for, radians; the sum is pi for a full scan.

    A projection at theta and one at theta + 180 see the same rays, so angles are taken modulo 180 and each gets half
    of the gaps to its neighbours: equal angles share, a last one at exactly 180 counts as one at 0. A gap is counted
    as at most three times the median one, so that the edges of a missing wedge are not blown up.
    """
    folded = np.mod(theta_deg, 180.0)
    folded[folded > 180.0 - 1e-7] = 0.0
    distinct, inverse, counts = np.unique(np.round(folded, 7), return_inverse=True, return_counts=True)
    gaps = np.diff(distinct, append=distinct[0] + 180.0)
    gaps = np.minimum(gaps, 3.0 * np.median(gaps))
    share = 0.5 * (gaps + np.roll(gaps, 1)) / counts
    return np.asarray(np.deg2rad(share[inverse.ravel()]))


def filtered(
    lines: Floats, response: NDArray[np.float32], padded: int, *, edge: bool = False, workers: int | None = None
) -> Floats:
    """Lines (…, columns) filtered with `response`, padded to `padded` with zeros, or with their ends where `edge`."""
    columns = lines.shape[-1]
    spectrum = scipy.fft.rfft(continued(lines, padded) if edge else lines, padded, axis=-1, workers=workers)
    spectrum *= response
    result = scipy.fft.irfft(spectrum, padded, axis=-1, workers=workers, overwrite_x=True)
    return np.asarray(result[..., :columns], np.float32)


def continued(lines: Floats, padded: int) -> Floats:
    """Lines of this length that go on with the mean of the outermost 4 columns and taper to 0."""
    columns = lines.shape[-1]
    extra, width = padded - columns, min(4, columns)
    right, left = lines[..., -width:].mean(-1, keepdims=True), lines[..., :width].mean(-1, keepdims=True)
    taper = (0.5 + 0.5 * np.cos(np.pi * (np.arange(extra) + 1) / (extra + 1))).astype(np.float32)
    whole = np.empty((*lines.shape[:-1], padded), np.float32)
    whole[..., :columns] = lines
    whole[..., columns:] = right * taper + left * taper[::-1]
    return whole


class Reconstructor:
    """Filtered back projection for one geometry.

    Parameters
    ----------
    theta_deg : ndarray, shape (angles,)
        Projection angles, degrees.
    columns
        Detector width N; slices are N x N.
    axis
        Rotation axis, detector pixels from the middle of pixel 0.
    window, padding
        See `filter_response`; padding "zero" or "edge" (the outermost value goes on, tapering to zero over the pad,
        which takes away the bright rim of objects wider than the view).
    circle
        Set voxels farther than N / 2 from the axis to 0.
    scale
        Size of a column in detector pixels (the binning), so that gain stays 1 per detector pixel.
    """

    def __init__(
        self,
        theta_deg: NDArray[np.float64],
        columns: int,
        *,
        axis: float,
        window: str = "ramp",
        padding: str = "zero",
        circle: bool = True,
        scale: float = 1.0,
    ) -> None:
        self.columns = self.size = columns
        self.group, self.unsettled = LANES, 0
        self.axis, self.edge = axis, padding == "edge"
        theta = np.deg2rad(theta_deg)
        self.cosines, self.sines = np.cos(theta), np.sin(theta)
        self.weights = (angle_weights(theta_deg) / scale).astype(np.float32)
        self.radius = 0.5 * columns if circle else math.inf
        self.padded = padded_length(columns)
        self.response = filter_response(self.padded, window).astype(np.float32)

    @property
    def fixed_bytes(self) -> int:
        """Memory in work besides the sinograms and the slices."""
        lanes = LANES * len(self.weights) * (self.columns + 3) * 4
        return lanes + 3 * len(self.weights) * self.padded * 4

    def slices(self, sinograms: Floats, out: Floats | None = None) -> Floats:
        """Reconstruct up to `LANES` slices.

        Parameters
        ----------
        sinograms : ndarray, shape (slices, angles, columns), float32
            Line integrals.
        out : ndarray, shape (slices, columns, columns), float32
            Where to; a new array when not given.

        Returns
        -------
        ndarray, shape (slices, columns, columns), float32
        """
        count, angles, columns = sinograms.shape
        lanes = np.zeros((angles, columns + 3, LANES), np.float32)
        for lane in range(count):
            lanes[:, 1 : columns + 1, lane] = self.filtered(sinograms[lane])
        volume = np.empty((count, columns, columns), np.float32) if out is None else out
        _back_project(lanes, self.cosines, self.sines, self.axis, self.radius, volume)
        return volume

    def filtered(self, sinogram: Floats) -> Floats:
        """What is to be summed along the rays: (angles, columns), filtered, each angle times its share."""
        lines = filtered(sinogram, self.response, self.padded, edge=self.edge, workers=threads())
        return lines * self.weights[:, None]


@compiled(parallel=True, fastmath=True)
def _back_project(
    lanes: Floats,
    cosines: NDArray[np.float64],
    sines: NDArray[np.float64],
    axis: float,
    radius: float,
    volume: Floats,
) -> None:
    """Sum, for each voxel, the filtered projections at its coordinate, interpolated linearly.

    `lanes` is (angles, columns + 3, LANES), detector column 0 at index 1, zeros at index 0 and at the last two: a
    coordinate off the detector is moved onto the zeros, which costs less than a branch. Works on tiles of `_TILE` x
    `_TILE` voxels, so that a tile's sums and the few detector columns it meets stay in cache.
    """
    size = volume.shape[1]
    middle = 0.5 * (size - 1)
    wide = lanes.shape[1] * LANES
    last = (lanes.shape[1] - 2) << FRACTION
    across = (size + _TILE - 1) // _TILE
    for tile in prange(across * across):
        top, left = tile // across * _TILE, tile % across * _TILE
        sums = np.zeros((_TILE * _TILE, LANES), np.float32)
        x = max(left - middle, middle - left - _TILE + 1, 0.0)
        y = max(top - middle, middle - top - _TILE + 1, 0.0)
        seen = lanes.shape[0] if x**2 + y**2 <= radius * radius else 0  # else all of it lies outside the circle
        for k in range(seen):
            step = np.int64(cosines[k] * ONE)
            for row in range(_TILE):
                start = 1.0 + axis + (left - middle) * cosines[k] + (top + row - middle) * sines[k]
                position = np.int64(start * ONE)
                beyond = position + _TILE * step
                if min(position, beyond) >= 0 and max(position, beyond) <= last:
                    for cell in range(row * _TILE, (row + 1) * _TILE):
                        _add(lanes, k * wide, position, sums, cell)
                        position += step
                else:
                    for cell in range(row * _TILE, (row + 1) * _TILE):
                        _add(lanes, k * wide, min(max(position, 0), last), sums, cell)
                        position += step
        for lane in range(volume.shape[0]):
            for row in range(top, min(top + _TILE, size)):
                for column in range(left, min(left + _TILE, size)):
                    inside = (column - middle) ** 2 + (row - middle) ** 2 <= radius * radius
                    value = sums[(row - top) * _TILE + column - left, lane]
                    volume[lane, row, column] = value if inside else np.float32(0.0)


@compiled(fastmath=True)
def _add(lanes: Floats, projection: int, position: Any, sums: Floats, cell: int) -> None:
    """To the sums of a voxel, what lies at a position of the projection that begins at this element."""
    at = projection + (position >> FRACTION) * LANES
    after = one_plus_fraction(position)
    interpolated = plus(
        scaled(np.float32(2.0) - after, load(lanes, at)), scaled(after - np.float32(1.0), load(lanes, at + LANES))
    )
    store(sums, cell * LANES, plus(load(sums, cell * LANES), interpolated))
