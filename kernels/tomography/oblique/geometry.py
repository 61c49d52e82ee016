r"""Where voxels are seen: one mapping for parallel beams, cone beams, and axes that are tilted against the beam.

Lengths are in voxels: a voxel is a detector pixel as it is seen at the axis (source at infinity: a pixel). Pixel `i`
has its middle at `i`. Voxel (X, Y, Z) is counted from the axis and from the plane that the middle row sees, X and Y
growing with the column and row of a slice and Z with its number, as the detector's rows do. At angle t it lies

    q = X cos t + Y sin t               to the side, along the detector's columns, and
    w = side (Y cos t - X sin t)        nearer to the source than the axis,

and is seen at

    column = axis' + (q + shift) m,   row = middle_row + (w sin(tilt) + Z cos(tilt)) m,   m = 1 / (1 - w / distance)

where axis' is the column of the ray that is perpendicular to the detector, and `shift` from there to the axis.

What makes both fast: a column of voxels along the axis is seen along one detector column, in even steps of m cos(tilt).
(A cone beam with a tilted axis would not be, and is refused.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kernels.compiled import compiled
from kernels.errors import KernelError

Doubles = NDArray[np.float64]

MOST_TILT_DEG = 85.0


class Mapping(NamedTuple):
    """What compiled code needs of a geometry, besides the angles."""

    perpendicular: float
    shift: float
    middle_row: float
    curve: float  # 1 / distance
    sine: float
    cosine: float
    side: float


class Sight(NamedTuple):
    """Of a column of voxels: its detector column, the row of Z = 0, rows for each voxel, and the magnification, which
    is 1 at the axis."""

    column: float
    row: float
    step: float
    magnified: float


@dataclass(frozen=True, slots=True)
class Geometry:
    """How a scan was taken.

    Parameters
    ----------
    axis
        Column at which the axis is seen.
    middle_row
        Row of the rays that are perpendicular to the axis (cone), or of the axis' point Z = 0 (parallel).
    distance
        From the source to the axis, voxels; infinite: the beam is parallel. It is that from the source to the detector
        in detector pixels.
    tilt_deg
        How far the axis leans from upright to the beam; positive when its upper end, at low rows, leans to the source.
    perpendicular
        Column of the ray that is perpendicular to the detector; None: that of the axis.
    clockwise
        Turn of the object with growing angles, seen from above and in projections as the source sees them. Only the
        side changes from which the beam comes: voxels stay where a parallel beam shows them.

    Raises
    ------
    KernelError
        Exit 2 for a tilt along the beam, a distance that is none, or a tilted axis in a cone beam.
    """

    axis: float
    middle_row: float
    distance: float = math.inf
    tilt_deg: float = 0.0
    perpendicular: float | None = None
    clockwise: bool = False

    def __post_init__(self) -> None:
        if abs(self.tilt_deg) > MOST_TILT_DEG:
            raise KernelError(
                f"tilt {self.tilt_deg:g}: the axis would lie along the beam, where a turn shows nothing new; it may "
                f"lean up to {MOST_TILT_DEG:g} degrees. An axis that is upright to the beam has tilt 0."
            )
        if not self.distance > 0:
            raise KernelError(f"A source {self.distance:g} pixels before the axis cannot be.")
        if self.cone and self.tilt_deg:
            raise KernelError(
                "A cone beam with a tilted axis is not reconstructed: leave tilt out, or the distances where the beam "
                "is as good as parallel."
            )

    @property
    def cone(self) -> bool:
        return math.isfinite(self.distance)

    @property
    def upright(self) -> bool:
        """Whether rays lie in planes across the axis, or would if the source were far: opposite views show the same."""
        return not self.tilt_deg

    @property
    def mapping(self) -> Mapping:
        tilt = math.radians(self.tilt_deg)
        perpendicular = self.axis if self.perpendicular is None or not self.cone else self.perpendicular
        return Mapping(
            perpendicular,
            self.axis - perpendicular,
            self.middle_row,
            1.0 / self.distance,
            math.sin(tilt),
            math.cos(tilt),
            -1.0 if self.clockwise else 1.0,
        )

    def moved(self, columns: int) -> Geometry:
        """The same on a detector that begins so many columns before."""
        perpendicular = None if self.perpendicular is None else self.perpendicular + columns
        return replace(self, axis=self.axis + columns, perpendicular=perpendicular)

    def binned(self, binning: int) -> Geometry:
        """The same with voxels and pixels `binning` times as wide."""

        def at(position: float) -> float:
            return (position + 0.5) / binning - 0.5

        perpendicular = None if self.perpendicular is None else at(self.perpendicular)
        return replace(
            self,
            axis=at(self.axis),
            middle_row=at(self.middle_row),
            distance=self.distance / binning,
            perpendicular=perpendicular,
        )

    def angles_across(self, columns: int) -> Doubles:
        """Angle of each column's ray in the middle plane to that through the axis, radians; 0 for parallel beams."""
        across = np.arange(columns) - self.mapping.perpendicular
        return np.asarray(np.arctan(across / self.distance) - math.atan(self.mapping.shift / self.distance))

    def from_axis(self, columns: int) -> Doubles:
        """Distance at which each column's ray in the middle plane passes the axis, voxels."""
        if not self.cone:
            return np.arange(columns, dtype=np.float64) - self.axis
        return np.asarray(math.hypot(self.distance, self.mapping.shift) * np.sin(self.angles_across(columns)))

    def rows_seen(self, first: float, last: float, reach: float) -> tuple[float, float]:
        """Least and greatest row at which voxels are seen whose Z is from first to last and that are up to `reach` from
        the axis.

        Raises
        ------
        KernelError
            Exit 2 when the source would be among them.
        """
        if reach >= self.distance:
            raise KernelError(
                f"The source is {self.distance:.0f} pixels from the axis, and the volume reaches {reach:.0f}: it would "
                "be inside. Look at sourceDistance, detectorDistance and pixelSize."
            )
        # Both parts of a row go one way with w and with Z, so the extremes lie at the corners.
        rows = [at.row + z * at.step for w in (-reach, reach) for z in (first, last) for at in (self._at_depth(w),)]
        return min(rows), max(rows)

    def magnified(self, reach: float) -> tuple[float, float]:
        """Least and greatest rows for each voxel up to `reach` from the axis."""
        return self._at_depth(-reach).step, self._at_depth(reach).step

    def _at_depth(self, w: float) -> Sight:
        return Sight(*look(self.mapping, 0.0, self.mapping.side * w, 1.0, 0.0))


@compiled()
def look(mapping: Mapping, x: float, y: float, cosine: float, sine: float) -> tuple[float, float, float, float]:
    """The `Sight` of the column of voxels at (x, y), at the angle with this cosine and sine."""
    w = mapping.side * (y * cosine - x * sine)
    magnified = 1.0 / (1.0 - w * mapping.curve)
    column = mapping.perpendicular + (x * cosine + y * sine + mapping.shift) * magnified
    row = mapping.middle_row + w * mapping.sine * magnified
    return column, row, mapping.cosine * magnified, magnified


def distance_of(source_mm: float | None, detector_mm: float | None, pixel_um: float | None) -> tuple[float, float]:
    """From the source to the axis in voxels, and how many times the axis is magnified; parallel without distances.

    Raises
    ------
    KernelError
        Exit 2 when one of the three that a cone beam needs is missing, or the detector is not behind the axis.
    """
    if source_mm is None and detector_mm is None:
        return math.inf, 1.0
    if source_mm is None or detector_mm is None or pixel_um is None:
        given = {"sourceDistance": source_mm, "detectorDistance": detector_mm, "pixelSize": pixel_um}
        missing = " and ".join(word for word, value in given.items() if value is None)
        raise KernelError(
            f"A cone beam needs {missing}, too; for a parallel beam leave sourceDistance and detectorDistance out."
        )
    if detector_mm <= source_mm:
        raise KernelError(
            f"detectorDistance {detector_mm:g} is not beyond sourceDistance {source_mm:g}: both count from the source, "
            "to the detector and to the axis."
        )
    return detector_mm * 1000 / pixel_um, detector_mm / source_mm
