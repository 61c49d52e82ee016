"""A partition made from the geometry: rings in q, cut into sectors of phi.

Of a pixel at the distance r from the beam on a flat detector that the beam meets at a right angle, the scattering angle
is atan(r / distance) and q = 4 pi / wavelength sin(angle / 2); phi is counted from the columns' direction, against the
rows', as pySimpleMask does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kernels.errors import Exit, KernelError
from kernels.xpcs.partition import Axis, Partition
from kernels.xpcs.qmap import Qmap, numbered

Doubles = NDArray[np.float64]
_HC_KEV_A = 12.39841984


@dataclass(frozen=True)
class Geometry:
    """Where the detector is: the beam's centre in pixels from the middle of the first (x, y), metres and keV."""

    beam_center: tuple[float, float]
    pixel_size_m: float
    distance_m: float
    energy_kev: float

    def __post_init__(self) -> None:
        for name, value in (
            ("pixel size", self.pixel_size_m),
            ("distance", self.distance_m),
            ("energy", self.energy_kev),
        ):
            if not 0 < value < float("inf"):
                raise KernelError(f"The {name} must be more than 0, not {value:g}.")
        if not np.isfinite(self.beam_center).all():
            raise KernelError(f"The centre of the beam must be two finite numbers, not {self.beam_center}.")

    def q(self, shape: tuple[int, int]) -> Doubles:
        """Of each pixel, in 1/angstrom."""
        angle = np.arctan(self.radius(shape) * (self.pixel_size_m / self.distance_m))
        return np.asarray(4 * np.pi * self.energy_kev / _HC_KEV_A * np.sin(0.5 * angle))

    def phi(self, shape: tuple[int, int]) -> Doubles:
        """Of each pixel, in degrees from -180 to 180."""
        y, x = self._from_beam(shape)
        return np.asarray(np.rad2deg(-np.arctan2(y, x)))

    def radius(self, shape: tuple[int, int]) -> Doubles:
        """Of each pixel from the beam, in pixels."""
        return np.asarray(np.hypot(*self._from_beam(shape)))

    def _from_beam(self, shape: tuple[int, int]) -> tuple[Doubles, Doubles]:
        x, y = self.beam_center
        rows, columns = (np.arange(n, dtype=np.float64) for n in shape)
        return rows[:, None] - y, columns[None, :] - x


def make_qmap(
    shape: tuple[int, int],
    geometry: Geometry,
    *,
    static_q: int = 270,
    dynamic_q: int = 27,
    static_phi: int = 1,
    dynamic_phi: int = 1,
    q_range: tuple[float | None, float | None] = (None, None),
    scale: Literal["linear", "log"] = "linear",
    mask: NDArray[np.bool_] | None = None,
    blemish: NDArray[np.bool_] | None = None,
    beam_stop: float = 0.0,
) -> Qmap:
    """Rings and sectors of a detector; steps that hold no pixel have no bin.

    Parameters
    ----------
    shape : tuple
        Rows and columns.
    geometry : Geometry
    static_q, dynamic_q, static_phi, dynamic_phi : int
        Steps in q, evenly spaced or by a constant factor (`scale`), and in phi, over the full turn. Static steps are
        parts of dynamic ones, so their number is a multiple.
    q_range : tuple
        First and last q in 1/angstrom; not given: of the pixels that count.
    mask, blemish : ndarray of bool, shape (rows, columns), optional
        False: the pixel does not count.
    beam_stop : float
        Radius, in pixels about the beam, of what does not count.

    Raises
    ------
    KernelError
        Exit 2 for numbers of steps that do not fit or a range that holds nothing, 65 for masks of another shape or
        that leave no pixel.
    """
    for name, static, dynamic in (("q", static_q, dynamic_q), ("phi", static_phi, dynamic_phi)):
        if min(static, dynamic) < 1 or static % dynamic:
            raise KernelError(f"The static steps in {name} ({static}) must be a multiple of the dynamic ({dynamic}).")
    flags = {}
    for name, given in (("mask", mask), ("blemish", blemish)):
        flags[name] = np.ones(shape, bool) if given is None else given.astype(bool)
        if flags[name].shape != shape:
            raise KernelError(f"The {name} is of {flags[name].shape} pixels, the detector of {shape}.", Exit.BAD_INPUT)
    used = flags["mask"] & flags["blemish"] & (geometry.radius(shape) >= beam_stop)
    q = geometry.q(shape)
    if scale == "log":
        used &= q > 0
    if not used.any():
        raise KernelError("No pixel is left for the rings: all are masked.", Exit.BAD_INPUT)
    low = float(q[used].min()) if q_range[0] is None else q_range[0]
    high = float(q[used].max()) if q_range[1] is None else q_range[1]
    if not low < high or (scale == "log" and low <= 0):
        raise KernelError(f"There are no rings between q = {low:g} and {high:g} 1/A ({scale}).")
    used &= (q >= low) & (q <= high)
    if not used.any():
        raise KernelError(f"No pixel has a q between {low:g} and {high:g} 1/A.")
    if scale == "log":
        place = np.log(np.where(used, q, low) / low) / np.log(high / low)
    else:
        place = (q - low) / (high - low)
    ring = np.clip(np.floor(place * static_q), 0, static_q - 1).astype(np.int64)
    sector = np.floor((geometry.phi(shape) + 180) / 360 * static_phi).astype(np.int64) % static_phi
    steps = {
        "static": ring * static_phi + sector,
        "dynamic": ring // (static_q // dynamic_q) * dynamic_phi + sector // (static_phi // dynamic_phi),
    }
    bins = {kind: numbered(np.where(used, step + 1, 0)) for kind, step in steps.items()}
    x, y = geometry.beam_center
    partition = Partition(
        bins["static"][0],
        bins["dynamic"][0],
        (
            Axis("q", "1/A", _middles(low, high, static_q, scale), _middles(low, high, dynamic_q, scale)),
            Axis("phi", "deg", _middles(-180, 180, static_phi), _middles(-180, 180, dynamic_phi)),
        ),
        (bins["static"][1] - 1).astype(np.int32),
        (bins["dynamic"][1] - 1).astype(np.int32),
        {
            "beam_center_x": x,
            "beam_center_y": y,
            "detector_distance": geometry.distance_m,
            "pixel_size": geometry.pixel_size_m,
            "energy": geometry.energy_kev,
        },
    )
    left_out = {"empty static bins": static_q * static_phi - partition.static_bins}
    left_out["empty dynamic bins"] = dynamic_q * dynamic_phi - partition.dynamic_bins
    told = {name: count for name, count in left_out.items() if count}
    return Qmap(partition, used, flags["blemish"], told)


def _middles(low: float, high: float, steps: int, scale: str = "linear") -> Doubles:
    if scale == "log":
        edges = np.geomspace(low, high, steps + 1)
        return np.asarray(np.sqrt(edges[1:] * edges[:-1]))
    edges = np.linspace(low, high, steps + 1)
    return np.asarray(0.5 * (edges[1:] + edges[:-1]))
