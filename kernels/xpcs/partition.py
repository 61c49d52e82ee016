"""Which pixels are taken together: static bins, within which the scattering is alike, and dynamic bins of several of
those, which have one g2 each."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from kernels.errors import Exit, KernelError


@dataclass(frozen=True)
class Axis:
    """One of the two ways the bins are counted along, such as q or phi.

    Attributes
    ----------
    name, unit : str
        As viewers show them: `q`, `1/A`; `phi`, `deg`.
    static, dynamic : ndarray, float64
        Middle of each step along this axis, of static and of dynamic bins.
    """

    name: str
    unit: str
    static: NDArray[np.float64]
    dynamic: NDArray[np.float64]


@dataclass(frozen=True)
class Partition:
    """The bins of all pixels of a detector.

    Attributes
    ----------
    static, dynamic : ndarray, shape (rows, columns), int32
        Number of each pixel's bin, from 1 without gaps; 0 where it is in none, which both agree on.
    axes : tuple of Axis
        Along which the bins are counted: bins of two axes are counted along the second first. Empty: they are only
        numbers.
    static_index, dynamic_index : ndarray, int32
        Of bin 1, 2, …: its step along the axes, from 0, as one number (those that hold no pixel have no bin).
    geometry : dict
        `beam_center_x`, `beam_center_y` (pixels, from the middle of pixel 0), `detector_distance` and `pixel_size`
        (metres), `energy` (keV), as far as it is known.
    """

    static: NDArray[np.int32]
    dynamic: NDArray[np.int32]
    axes: tuple[Axis, ...] = ()
    static_index: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    dynamic_index: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    geometry: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.static.shape != self.dynamic.shape or self.static.ndim != 2:
            raise KernelError(
                f"The static bins are of {self.static.shape} pixels and the dynamic of {self.dynamic.shape}: both "
                "need the shape of the detector.",
                Exit.BAD_INPUT,
            )
        if not self.static.any() or not self.dynamic.any():
            raise KernelError("No pixel is in a bin: all are masked.", Exit.BAD_INPUT)
        for name, bins in (("static", self.static), ("dynamic", self.dynamic)):
            if bins.min() < 0 or np.bincount(bins.ravel())[1:].min() == 0:
                raise KernelError(f"The {name} bins are not numbered from 1 without gaps.", Exit.BAD_INPUT)
        if ((self.static > 0) != (self.dynamic > 0)).any():
            raise KernelError("Some pixels are in a static bin and in no dynamic one, or in reverse.", Exit.BAD_INPUT)
        owner = np.zeros(int(self.static.max()) + 1, np.int32)
        owner[self.static] = self.dynamic
        crossing = self.static[owner[self.static] != self.dynamic]
        if len(crossing):
            raise KernelError(f"Static bin {crossing.min()} lies in more than one dynamic bin.", Exit.BAD_INPUT)

    @cached_property
    def pixels(self) -> NDArray[np.uint32]:
        """Numbers of the pixels that are in a bin, by static bin, then ascending; shape (used,)."""
        flat = self.static.ravel()
        used = np.flatnonzero(flat)
        return used[np.argsort(flat[used], kind="stable")].astype(np.uint32)

    @cached_property
    def bounds(self) -> NDArray[np.int64]:
        """Where static bin 1, 2, … begins among `pixels`, and the end; shape (static bins + 1,)."""
        counts = np.bincount(self.static.ravel())[1:]
        return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)

    @cached_property
    def owner(self) -> NDArray[np.int32]:
        """The dynamic bin, from 1, of static bin 1, 2, …; shape (static bins,)."""
        return self.dynamic.ravel()[self.pixels[self.bounds[:-1]]]

    @property
    def static_bins(self) -> int:
        return len(self.bounds) - 1

    @cached_property
    def dynamic_bins(self) -> int:
        return int(self.dynamic.max())
