"""Where the near-field detector stands at each distance, and which turn of the sample each frame saw.

Lab frame: x along the beam, z up along the rotation axis, y = z x x, in µm; `v_lab = Rz(omega) v_sample`. A pixel is
(row, column), its centre at integers. All that is measured lies in one layer of the sample, a plane of constant z.

Pixels are those of an ideal detector. Where the real one bends space, `Setup` knows how, and
`kernels.hedm.nearfield.ideal` takes it out of the images before anything is searched in them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kernels.errors import Exit, KernelError
from kernels.hedm.distortion import NONE, Distortion

Floats = NDArray[np.float64]


class Optics(NamedTuple):
    """What compiled code needs of a `Setup`.

    `panels` has per distance the position of pixel (0, 0), the dual vectors of a row and of a column, and the normal;
    `period` is how many frames a full turn would have.
    """

    wavelength: float
    beam: Floats
    panels: Floats
    rows: int
    columns: int
    start: float
    step: float
    period: float
    frames: int
    z: float
    eta: Floats  # cosine and sine of the least, then of the largest folded angle


class Plane(NamedTuple):
    """The ideal detector at one distance, as a distortion wants to know it."""

    shape: tuple[int, int]
    pixel_um: tuple[float, float]
    centre_um: Floats
    row: Floats
    column: Floats


class Bending(NamedTuple):
    """What compiled code needs of the distortion at each distance: its kind, and where in `tables` its own begins.
    Points of the plane are µm from its middle: (pixel - `half`) times `pixel_um`, for rows and columns."""

    kinds: NDArray[np.int64]
    begins: NDArray[np.int64]
    tables: Floats
    half: Floats  # (2,)
    pixel_um: Floats  # (distances, 2)


@dataclass(frozen=True, eq=False)
class Setup:
    """A near-field scan: one flat detector, tilted in any way, at one or more distances.

    Attributes
    ----------
    wavelength_A : float
    origin_um, row_um, column_um : ndarray, shape (distances, 3)
        Where the centre of pixel (0, 0) is in the lab, and the steps from one row, and from one column, to the next.
    rows, columns : int
        Shape of a frame.
    frames : int
        How many frames a distance has. Frame 0 covers omega from `omega_start_deg` to `omega_start_deg +
        omega_step_deg`, and so on; the step may be negative.
    beam : ndarray, shape (3,)
        Unit vector along the beam, in the lab.
    z_um : float
        Height of the layer in the sample frame.
    eta_deg : (float, float)
        Range that is used of the angle between a reflection's azimuth and the rotation axis, folded to 0 to 90°:
        reflections close to the axis stay long in reflection, and are smeared over frames.
    distortion : tuple of Distortion or None
        How the detector bends space at each distance; empty where it nowhere does.
    """

    wavelength_A: float
    origin_um: Floats
    row_um: Floats
    column_um: Floats
    rows: int
    columns: int
    omega_start_deg: float
    omega_step_deg: float
    frames: int
    beam: Floats = field(default_factory=lambda: np.array([1.0, 0.0, 0.0]))
    z_um: float = 0.0
    eta_deg: tuple[float, float] = (6.0, 90.0)
    distortion: tuple[Distortion | None, ...] = ()

    def __post_init__(self) -> None:
        for name in ("origin_um", "row_um", "column_um"):
            value = np.array(np.atleast_2d(getattr(self, name)), np.float64)
            if value.shape != (len(np.atleast_2d(self.origin_um)), 3) or not np.isfinite(value).all():
                raise KernelError(f"{name} has to be one finite lab vector per detector distance.")
            object.__setattr__(self, name, value)
        beam = np.array(self.beam, np.float64)
        if beam.shape != (3,) or not abs(float(beam @ beam) - 1) < 1e-6:
            raise KernelError(f"The beam's direction {beam.tolist()} is not a unit vector.")
        object.__setattr__(self, "beam", beam)
        if not self.wavelength_A > 0:
            raise KernelError(f"The wavelength {self.wavelength_A:g} Å is not above 0.")
        if min(self.rows, self.columns, self.frames) < 1:
            raise KernelError(f"A scan of {self.frames} frames of {self.rows} x {self.columns} pixels holds nothing.")
        if self.omega_step_deg == 0 or abs(self.omega_step_deg) * self.frames > 360.0001:
            raise KernelError(
                f"{self.frames} frames of {self.omega_step_deg:g}° are not a scan of up to one turn: check the step."
            )
        self._check_places()
        bent = any(one is not None for one in self.distortion)
        object.__setattr__(self, "distortion", tuple(self.distortion) if bent else ())
        if bent and len(self.distortion) != len(self.origin_um):
            raise KernelError(
                f"{len(self.distortion)} distortions for {len(self.origin_um)} distances: give one for each."
            )

    def _check_places(self) -> None:
        distances = self.distances_um
        if not (distances > 0).all():
            raise KernelError(
                f"Detector distances {_listed(distances)} µm: the detector has to stand behind the sample.", Exit.USAGE
            )
        if not (np.diff(distances) > 0).all():
            raise KernelError(
                f"Detector distances {_listed(distances)} µm do not grow: give distances, and their images, in the "
                "order from near to far."
            )

    @property
    def distances_um(self) -> Floats:
        """How far along the beam from the rotation axis the detector's plane is, shape (distances,)."""
        normal = np.cross(self.row_um, self.column_um)
        return np.asarray((normal * self.origin_um).sum(axis=1) / (normal @ self.beam))

    @property
    def pixel_um(self) -> float:
        """The length of a pixel's shorter side."""
        steps = np.linalg.norm(np.concatenate([self.row_um, self.column_um]), axis=1)
        return float(steps.min())

    @property
    def full_turn(self) -> bool:
        return abs(abs(self.omega_step_deg) * self.frames - 360) < 1e-3 * abs(self.omega_step_deg)

    def mirrored(self) -> Setup:
        """The same with the detector mirrored at the plane y = 0: one that no crystal at all can fit but by chance."""
        flip = np.array([1.0, -1.0, 1.0])
        return replace(
            self, origin_um=self.origin_um * flip, row_um=self.row_um * flip, column_um=self.column_um * flip
        )

    def plane(self, distance: int) -> Plane:
        """The ideal detector at one of the distances."""
        origin, row, column = (each[distance] for each in (self.origin_um, self.row_um, self.column_um))
        high, wide = float(np.linalg.norm(row)), float(np.linalg.norm(column))
        centre = origin + 0.5 * (self.rows - 1) * row + 0.5 * (self.columns - 1) * column
        return Plane((self.rows, self.columns), (high, wide), centre, row / high, column / wide)

    @cached_property
    def bending(self) -> Bending:
        every = self.distortion or (None,) * len(self.origin_um)
        planes = [self.plane(d) for d in range(len(every))]
        tables = [np.zeros(1) if one is None else one.table(plane) for one, plane in zip(every, planes, strict=True)]
        return Bending(
            np.array([NONE if one is None else one.kind for one in every], np.int64),
            np.cumsum([0, *(len(table) for table in tables[:-1])]).astype(np.int64),
            np.concatenate(tables),
            np.array([0.5 * (self.rows - 1), 0.5 * (self.columns - 1)]),
            np.array([plane.pixel_um for plane in planes]),
        )

    @cached_property
    def optics(self) -> Optics:
        panels = np.empty((len(self.origin_um), 12))
        for panel, origin, row, column in zip(panels, self.origin_um, self.row_um, self.column_um, strict=True):
            dual = np.linalg.pinv(np.stack([row, column], axis=1))
            normal = np.cross(column, row)
            panel[:] = np.concatenate([origin, dual[0], dual[1], normal / np.linalg.norm(normal)])
        low, high = np.deg2rad(self.eta_deg)
        return Optics(
            float(self.wavelength_A),
            self.beam,
            panels,
            int(self.rows),
            int(self.columns),
            float(np.deg2rad(self.omega_start_deg)),
            float(np.deg2rad(self.omega_step_deg)),
            float(360 / abs(self.omega_step_deg)),
            int(self.frames),
            float(self.z_um),
            np.array([np.cos(low), np.sin(low), np.cos(high), np.sin(high)]),
        )


def facing(
    wavelength_A: float,
    distances_um: ArrayLike,
    centres: ArrayLike,
    *,
    pixel_um: float,
    rows: int,
    columns: int,
    omega_start_deg: float,
    omega_step_deg: float,
    frames: int,
    tilts_deg: Sequence[float] = (0.0, 0.0, 0.0),
    columns_along_y: int = -1,
    rows_along_z: int = -1,
    **more: Any,
) -> Setup:
    """A detector that faces the beam at each distance.

    Parameters
    ----------
    centres : array_like, shape (distances, 2)
        Pixel (row, column) that the beam through the rotation axis would hit.
    tilts_deg : (float, float, float)
        Turns about the lab's x, then y, then z, around the centre.
    columns_along_y, rows_along_z : {1, -1}
        Whether columns count along y or against it, and rows along z or against it.
    more
        Other fields of `Setup`.
    """
    distance = np.atleast_1d(np.asarray(distances_um, np.float64))
    centre = np.asarray(centres, np.float64).reshape(-1, 2)
    if len(centre) != len(distance):
        raise KernelError(f"{len(distance)} distances, but {len(centre)} beam centres: give one for each.")
    turn = _turn(2, tilts_deg[2]) @ _turn(1, tilts_deg[1]) @ _turn(0, tilts_deg[0])
    row = turn @ np.array([0.0, 0.0, rows_along_z * pixel_um])
    column = turn @ np.array([0.0, columns_along_y * pixel_um, 0.0])
    origin = np.stack([distance, 0 * distance, 0 * distance], axis=1) - centre[:, :1] * row - centre[:, 1:] * column
    same = np.ones((len(distance), 1))
    return Setup(
        wavelength_A,
        origin,
        same * row,
        same * column,
        rows,
        columns,
        omega_start_deg,
        omega_step_deg,
        frames,
        **more,
    )


class Flat(Protocol):
    """A flat panel in the lab, as `kernels.hedm.geometry.Panel` is one."""

    @property
    def shape(self) -> tuple[int, int]: ...
    @property
    def pixel_um(self) -> tuple[float, float]: ...
    @property
    def centre_um(self) -> Floats: ...
    @property
    def row(self) -> Floats: ...
    @property
    def column(self) -> Floats: ...
    @property
    def distortion(self) -> Distortion | None: ...


def from_panels(
    wavelength_A: float,
    panels: Sequence[Flat],
    *,
    omega_start_deg: float,
    omega_step_deg: float,
    frames: int,
    **more: Any,
) -> Setup:
    """A setup from the panels of a geometry, one for each distance, from near to far, with their distortion."""
    if not panels or len({tuple(panel.shape) for panel in panels}) > 1:
        raise KernelError("Give a panel for each distance, all of one shape.")
    rows, columns = panels[0].shape
    row = np.stack([panel.row * panel.pixel_um[0] for panel in panels])
    column = np.stack([panel.column * panel.pixel_um[1] for panel in panels])
    origin = np.stack([panel.centre_um for panel in panels]) - 0.5 * ((rows - 1) * row + (columns - 1) * column)
    return Setup(
        wavelength_A, origin, row, column, rows, columns, omega_start_deg, omega_step_deg, frames,
        distortion=tuple(panel.distortion for panel in panels), **more,
    )  # fmt: skip


def from_hexomap(
    energy_keV: float,
    distances_mm: ArrayLike,
    centres: ArrayLike,
    euler_deg: ArrayLike,
    *,
    pixel_mm: float,
    rows: int,
    columns: int,
    omega_start_deg: float,
    omega_step_deg: float,
    frames: int,
    **more: Any,
) -> Setup:
    """A setup from the numbers that HEXOMAP keeps (`detL`, `detJ` and `detK`, `detRot`).

    Its J counts columns along y and its K rows against z where `detRot` is (90, 90, 0)°; angles are those of an active
    turn about z, x and z; a pixel covers [J, J + 1), so that its centre is half a pixel further.

    Parameters
    ----------
    centres : array_like, shape (distances, 2)
        (K, J) of the rotation axis in the beam.
    euler_deg : array_like, shape (distances, 3)
    """
    distance = np.atleast_1d(np.asarray(distances_mm, np.float64)) * 1000
    angles = np.asarray(euler_deg, np.float64).reshape(-1, 3)
    centre = np.asarray(centres, np.float64).reshape(-1, 2)
    if not len(distance) == len(angles) == len(centre):
        raise KernelError(f"{len(distance)} distances, {len(centre)} centres and {len(angles)} tilts do not agree.")
    pixel = pixel_mm * 1000
    turns = [_turn(2, a) @ _turn(0, b) @ _turn(2, c) for a, b, c in angles]
    row = np.stack([turn @ np.array([0.0, -pixel, 0.0]) for turn in turns])
    column = np.stack([turn @ np.array([pixel, 0.0, 0.0]) for turn in turns])
    along = np.stack([distance, 0 * distance, 0 * distance], axis=1)
    origin = along - (centre[:, :1] - 0.5) * row - (centre[:, 1:] - 0.5) * column
    return Setup(
        12.398419843 / energy_keV,
        origin,
        row,
        column,
        rows,
        columns,
        omega_start_deg,
        omega_step_deg,
        frames,
        **more,
    )


def _turn(axis: int, angle_deg: float) -> Floats:
    """A right-handed turn about an axis of the lab."""
    c, s = np.cos(np.deg2rad(angle_deg)), np.sin(np.deg2rad(angle_deg))
    made = np.eye(3)
    first, second = (axis + 1) % 3, (axis + 2) % 3
    made[first, first] = made[second, second] = c
    made[first, second], made[second, first] = -s, s
    return made


def _listed(values: Floats) -> str:
    return ", ".join(f"{value:g}" for value in values)
