"""Flat and dark fields: how each pixel of the detector responds, and which are bad.

`dark` is the median over the dark frames; `flat` the mean over the flat frames, after frames with a cosmic ray were
left out of each pixel (values farther than 6 robust standard deviations from the pixel's median; at least 4 frames).
The mean of n frames has 1.57 times less variance than their median, and its noise is a ring in every slice. Values that
are not finite do not count.

A pixel is bad when its response (flat - dark) is not finite, below a fifth or above five times the median of the
pixels around it in its row (dead, hot, stuck: full scale in flat and dark has no response).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray

from kernels.errors import Exit, KernelError
from kernels.io.dxchange import Scan

Floats = NDArray[np.float32]

_NEIGHBOURHOOD = 51
_BAND = 64  # rows
_LEAST_RESPONSE, _MOST_RESPONSE = 0.2, 5.0
_LEAST_GOOD = 0.5  # fraction of pixels; fewer means that the flats are not flats


@dataclass(frozen=True, slots=True)
class Field:
    """What the flats and darks say about some detector rows.

    Attributes
    ----------
    dark, response : ndarray, shape (rows, columns), float32
        Counts without beam, and what the open beam adds.
    left, right : ndarray, shape (rows, columns), int32
        Nearest good columns at or beside each pixel; both are the pixel itself where it is good, -1 where there is
        none on that side.
    inverted
        Number of pixels that are brighter in the darks than in the flats.
    not_finite
        Number of values of flats and darks that are not finite.
    """

    dark: Floats
    response: Floats
    left: NDArray[np.int32]
    right: NDArray[np.int32]
    inverted: int
    not_finite: int

    @property
    def bad(self) -> int:
        """Number of bad pixels."""
        here = np.arange(self.left.shape[1], dtype=np.int32)
        return int((self.left != here).sum())

    def rows(self, start: int, stop: int) -> Field:
        """That of rows start to stop; what is counted stays with the whole."""
        here = slice(start, stop)
        return Field(self.dark[here], self.response[here], self.left[here], self.right[here], 0, 0)


def read_field(scan: Scan, start: int, stop: int) -> Field:
    """Flats and darks of detector rows start to stop.

    Raises
    ------
    KernelError
        Exit 65 when the flats are not brighter than the darks for at least half of the pixels.
    """
    darks, flats = scan.read_darks(start, stop), scan.read_flats(start, stop)
    dark = _median(darks).astype(np.float32)
    response = _robust_mean(flats) - dark
    finite = np.isfinite(response)
    width = min(_NEIGHBOURHOOD, response.shape[1])
    # "mirror", since "nearest" would repeat a bad pixel at the edge until it looks typical
    typical = scipy.ndimage.median_filter(np.where(finite, response, 0), size=(1, width), mode="mirror")
    good = finite & (response > 0) & (response >= _LEAST_RESPONSE * typical)
    good &= response <= _MOST_RESPONSE * np.maximum(typical, 0)
    if good.mean() < _LEAST_GOOD:
        raise KernelError(
            f"The scan {scan.path!r} is not usable: in rows {start} to {stop - 1} the flat fields are brighter than "
            f"the dark fields in only {100 * good.mean():.0f} % of the pixels. See whether the shutter was open for "
            "/exchange/data_white, and closed for /exchange/data_dark.",
            Exit.BAD_INPUT,
        )
    here = np.arange(response.shape[1], dtype=np.int32)
    left = np.maximum.accumulate(np.where(good, here, np.int32(-1)), axis=1)
    none = np.int32(response.shape[1])
    right = np.minimum.accumulate(np.where(good, here, none)[:, ::-1], axis=1)[:, ::-1]
    return Field(
        dark,
        np.where(good, response, 1).astype(np.float32),
        left,
        np.where(right == none, -1, right).astype(np.int32),
        int((response < 0).sum()),
        sum(int((~np.isfinite(frames)).sum()) for frames in (darks, flats) if frames.dtype.kind == "f"),
    )


def whole_field(scan: Scan) -> Field:
    """Flats and darks of all rows, worked out some rows at a time: that takes several copies of the flats."""
    bands = [read_field(scan, row, min(row + _BAND, scan.rows)) for row in range(0, scan.rows, _BAND)]
    dark, response, left, right = zip(
        *((band.dark, band.response, band.left, band.right) for band in bands), strict=True
    )
    return Field(
        np.concatenate(dark),
        np.concatenate(response),
        np.concatenate(left),
        np.concatenate(right),
        sum(band.inverted for band in bands),
        sum(band.not_finite for band in bands),
    )


def _median(frames: NDArray[Any]) -> NDArray[Any]:
    """Of the finite values of each pixel over the frames; NaN where there is none."""
    if frames.dtype.kind != "f" or np.isfinite(frames).all():
        return np.asarray(np.median(frames, axis=0))
    ordered = np.sort(np.where(np.isfinite(frames), frames, np.nan), axis=0)
    count = np.isfinite(ordered).sum(0)[None]
    below = np.take_along_axis(ordered, np.maximum(count - 1, 0) // 2, axis=0)
    above = np.take_along_axis(ordered, np.minimum(count // 2, len(ordered) - 1), axis=0)
    return np.asarray(0.5 * (below + above)[0])


def _robust_mean(frames: NDArray[Any]) -> Floats:
    finite = frames.dtype.kind != "f" or bool(np.isfinite(frames).all())
    if frames.shape[0] < 4 and finite:
        return np.asarray(np.mean(frames, axis=0, dtype=np.float64), np.float32)
    values = frames.astype(np.float32)
    middle = _median(values)
    if not finite:
        values = np.where(np.isfinite(values), values, middle)
    distance = np.abs(values - middle)
    spread = 1.4826 * np.median(distance, axis=0)
    keep = distance <= 6 * spread + 1e-6 * np.abs(middle)
    return np.asarray(np.where(keep, values, 0).sum(0) / np.maximum(keep.sum(0), 1), np.float32)
