"""TomoPy (Gürsoy et al., J. Synchrotron Rad. 21 (2014) 1188) behind our conventions.

What differs there, and is made up for here:

* Rows of its slices go up where ours go down.
* Its iterative methods and `fbp` count the axis from the edge of pixel 0, half a pixel more than we do.
* `gridrec` counts it as we do, but has it in voxel ceil(N / 2) rather than in the slice's middle. Line integrals
  are shifted by that, each angle by its own part, in Fourier space, where the shift is exact.
* `gridrec` pads to the next power of two only and wraps around, so projections are padded first, to twice their
  length and with the axis at any place. Its windows are others than ours or repeat within the band, so it is given
  ours as a custom filter. It drops the mean of each projection, which is put back.
* Gain and roll-off of `gridrec`'s interpolation are those of another kernel than the one that it spreads with: 12 % in
  the middle, 20 % towards the rim. They are measured on an object that is known and divided out.
* `fbp` does not filter: it is given filtered projections, those of `kernels.tomography.fbp`.
* All angles count alike, so projections are weighted by their shares of the half turn.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from kernels.compiled import threads
from kernels.errors import KernelError
from kernels.tomography.backends.packages import load
from kernels.tomography.backends.task import Task
from kernels.tomography.fbp import Reconstructor, angle_weights, continued, filter_response

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

_GROUP = 8
_SUBSETS = ("bart", "osem", "ospml_hybrid", "ospml_quad")
_ITERATIONS = {"art": 10, "bart": 10, "osem": 10, "ospml_hybrid": 10, "ospml_quad": 10}
_MOST = 100  # iterations of the other methods
_KNOWN_ANGLES = 90  # of the object by which the gain is measured, which is smooth


class TomoPy:
    """The iterative methods, and the back projection of `fbp`."""

    def __init__(self, task: Task) -> None:
        self.size, self.group, self.unsettled = task.columns, _GROUP, 0
        self._task, self._package = task, load("tomopy")
        self._filter = (
            Reconstructor(
                task.theta_deg, task.columns, axis=task.axis, window=task.window, padding=task.padding, circle=False
            )
            if task.algorithm == "fbp"
            else None
        )

    @property
    def fixed_bytes(self) -> int:
        """Memory in work besides the sinograms and the slices."""
        sinogram, image = 4 * len(self._task.theta_deg) * self.size, 4 * self.size**2
        filtering = self._filter.fixed_bytes + self.group * sinogram if self._filter else 0
        return filtering + self.group * (2 * sinogram + image) + threads() * 4 * image

    def slices(self, sinograms: Floats, out: Floats | None = None) -> Floats:
        """From (slices, angles, columns) line integrals to (slices, size, size) attenuation per detector pixel."""
        task, how = self._task, self._how(len(sinograms))
        if self._filter:
            sinograms = np.stack([self._filter.filtered(sinogram) for sinogram in sinograms])
        made = reconstructed(self._package, task.algorithm, sinograms, task.theta_deg, task.axis + 0.5, **how)
        if out is None:
            out = np.empty_like(made)
        out[:] = made[:, ::-1]
        return task.finished(out)

    def _how(self, count: int) -> dict[str, Any]:
        task = self._task
        if self._filter:
            return {"init_recon": np.zeros((count, self.size, self.size), np.float32)}
        how = {"num_iter": task.iterations or _ITERATIONS.get(task.algorithm, _MOST)}
        if task.algorithm in _SUBSETS:
            how["num_block"] = math.isqrt(len(task.theta_deg))
        return how


class TomoPyGridrec:
    """`gridrec`, padded, with our windows, and with its gain and roll-off divided out."""

    def __init__(self, task: Task) -> None:
        self.size, self.group, self.unsettled = task.columns, _GROUP, 0
        self._task, self._package = task, load("tomopy")
        farthest = max(task.axis, task.columns - 1 - task.axis, 0.5 * task.columns) + 0.5 * task.columns
        self._padded = 1 << math.ceil(math.log2(max(16.0, 2 * farthest)))
        self._response = filter_response(self._padded, task.window)
        self._shares = angle_weights(task.theta_deg)
        self._gain = self._measured_gain()

    @property
    def fixed_bytes(self) -> int:
        """Memory in work besides the sinograms and the slices."""
        angles = len(self._task.theta_deg)
        lines, images = 4 * self.group * angles * self._padded, 4 * self.group * self.size**2
        return 4 * lines + images + threads() * 8 * (self._padded**2 + 3 * angles * self._padded)

    def slices(self, sinograms: Floats, out: Floats | None = None) -> Floats:
        """From (slices, angles, columns) line integrals to (slices, size, size) attenuation per detector pixel."""
        task = self._task
        count, angles, columns = sinograms.shape
        lines = np.zeros((count, angles, self._padded), np.float32)
        lines[:, :, :columns] = sinograms
        if task.padding == "edge":
            for line, sinogram in zip(lines, sinograms, strict=True):
                line[:] = continued(sinogram, self._padded)
        if out is None:
            out = np.empty((count, self.size, self.size), np.float32)
        out[:] = self._raw(lines, task.theta_deg, self._shares, task.axis)
        out /= self._gain
        out += self._means(lines, self._shares)[:, None, None]
        return task.finished(out)

    def _raw(self, lines: Floats, theta_deg: Doubles, shares: Doubles, axis: float) -> Floats:
        """What gridrec makes of padded projections, with our rows and middle: (slices, size, size)."""
        theta = np.deg2rad(theta_deg)
        frequencies = np.arange(self._padded // 2 + 1) / self._padded
        off = math.ceil(0.5 * self.size) - 0.5 * (self.size - 1)  # of its middle voxel from the slice's middle
        shift = np.exp(2j * np.pi * off * (np.cos(theta) + np.sin(theta))[:, None] * frequencies)
        spectrum = scipy.fft.rfft(lines, axis=2, workers=threads())
        spectrum *= (shift * (shares * len(shares) / np.pi)[:, None]).astype(np.complex64)
        shifted = scipy.fft.irfft(spectrum, self._padded, axis=2, workers=threads(), overwrite_x=True)
        how = {
            "filter_name": "custom",
            "filter_par": self._response[: self._padded // 2].astype(np.float32),
            "num_gridx": self.size,
            "num_gridy": self.size,
        }
        made = reconstructed(self._package, "gridrec", shifted, theta_deg, axis, **how)
        return made[:, ::-1]

    def _means(self, lines: Floats, shares: Doubles) -> Floats:
        """What the mean of the projections, which gridrec drops, adds to each voxel of a slice."""
        return np.asarray(lines.mean(2, dtype=np.float64) @ shares * self._response[0], np.float32)

    def _measured_gain(self) -> Floats:
        """For each voxel what gridrec makes of 1: a smooth object, seen by few angles, compared with itself.

        Interpolation in two dimensions is one in each after the other, so two lines through the middle say it all; even
        polynomials take away what is left of the object's tails.
        """
        places = np.arange(self.size) - 0.5 * (self.size - 1)
        theta_deg = np.arange(_KNOWN_ANGLES) * 180.0 / _KNOWN_ANGLES
        shares, axis, width = angle_weights(theta_deg), 0.5 * self._padded, 0.22 * self.size
        profile = math.sqrt(2 * np.pi) * width * np.exp(-0.5 * ((np.arange(self._padded) - axis) / width) ** 2)
        lines = np.broadcast_to(profile.astype(np.float32), (1, _KNOWN_ANGLES, self._padded))
        made = self._raw(lines, theta_deg, shares, axis)[0].astype(np.float64)
        truth = np.exp(-0.5 * (places / width) ** 2)
        truth = truth * truth[:, None] - float(self._means(lines, shares)[0])
        here = np.abs(places) <= 1.0  # the middle rows, or columns
        along = [made[here].sum(0) / truth[here].sum(0), made[:, here].sum(1) / truth[:, here].sum(1)]
        middle = made[np.ix_(here, here)].sum() / truth[np.ix_(here, here)].sum()
        if not (np.isfinite(along).all() and middle > 0):
            raise KernelError("TomoPy's gridrec does not reconstruct an object that is known; choose another backend.")
        powers = np.stack([(2 * places / self.size) ** n for n in (0, 2, 4, 6)], axis=1)
        weights = np.exp(-0.5 * (places / width) ** 2)[:, None]
        across, down = (
            powers @ np.linalg.lstsq(weights * powers, weights[:, 0] * line, rcond=None)[0] for line in along
        )
        return np.asarray(down[:, None] * across / middle, np.float32)


def reconstructed(
    package: Any, algorithm: str, sinograms: Floats, theta_deg: Doubles, center: float, **how: Any
) -> Floats:
    """`tomopy.recon` of (slices, angles, columns).

    Raises
    ------
    KernelError
        Exit 2 when TomoPy refuses, with its words.
    """
    theta = np.deg2rad(theta_deg).astype(np.float32)
    try:
        made = package.recon(
            np.ascontiguousarray(sinograms, np.float32),
            theta,
            center=center,
            sinogram_order=True,
            algorithm=algorithm,
            ncore=threads(),
            **how,
        )
    except (ValueError, TypeError, RuntimeError) as error:
        raise KernelError(f"TomoPy refuses {algorithm}: {error}.") from error
    return np.asarray(made, np.float32)
