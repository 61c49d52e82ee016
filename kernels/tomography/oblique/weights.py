r"""What each measured value counts, before it is filtered.

Of a cone beam, the cosine of a ray to the one through the axis (Feldkamp, Davis & Kress, J. Opt. Soc. Am. A 1 (1984)
612), and where the axis lies beside the perpendicular ray, the factor that comes with it (Gullberg, Crawford & Tsui,
IEEE Trans. Med. Imaging 5 (1986) 23).

Of a tilted axis, cos(tilt): the projections fill Fourier space with the density 1 / (|k| cos(tilt)) along the columns,
k being the frequency across the axis, so the ramp stays one along rows (Lauritsch & Härer, Proc. SPIE 3338 (1998) 1127;
Helfen et al., Rev. Sci. Instrum. 82 (2011) 063702, where the angle between axis and beam has the sine). Frequencies
within `tilt` of the axis are in no projection.

For views that show a ray twice, their share:

* upright axis, parallel beam: views half a turn apart are the same, and all share the half turn;
* full turn: a half each, also with a tilted axis, where a full turn shows all frequencies twice; with an upright axis
  far off the detector's middle, a smooth slope over what both sides see;
* cone beam, at least a half turn and the fan: weights of Parker (Med. Phys. 9 (1982) 254), with the fan widened to what
  was turned beyond the half (Silver, Med. Phys. 27 (2000) 773).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from kernels.errors import Exit, KernelError
from kernels.tomography.direct.halves import Halves, is_half_acquisition, join
from kernels.tomography.fbp import angle_weights
from kernels.tomography.oblique.geometry import Geometry

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

_WIDE_GAP = 3.0  # median gaps


def joined(geometry: Geometry, theta_deg: Doubles, columns: int) -> Halves | None:
    """How to join the two sides of a full turn with the axis far off the middle; None for other scans."""
    if not geometry.upright or not is_half_acquisition(theta_deg, columns, geometry.axis):
        return None
    return join(geometry.from_axis(columns))


def view_weights(geometry: Geometry, theta_deg: Doubles, columns: int) -> Floats:
    """What each column of each projection counts, (angles, columns): pi in all for a ray that all angles see.

    Raises
    ------
    KernelError
        Exit 65 when a cone beam went less than a half turn and its fan.
    """
    turned, shares, covered = angles_turned(theta_deg)
    if not geometry.upright:
        return _alike(shares * min(1.0, 180.0 / covered), columns)
    if sides := joined(geometry, theta_deg, columns):
        return np.asarray(0.5 * shares[:, None] * sides.weights, np.float32)
    if not geometry.cone:
        return _alike(angle_weights(theta_deg), columns)
    if covered >= 360.0:
        return _alike(0.5 * shares, columns)
    fan = geometry.angles_across(columns) * geometry.mapping.side
    needed = 180.0 + 2 * math.degrees(float(np.abs(fan).max()))
    if covered < needed - 1.0:
        raise KernelError(
            f"The scan covers {covered:.1f} degrees, and a cone beam needs a half turn and its fan: {needed:.1f}.",
            Exit.BAD_INPUT,
        )
    beyond = 0.5 * math.radians(max(covered, needed) - 180.0)
    parker = _parker(np.deg2rad(turned)[:, None], fan[None], beyond)
    return np.asarray(shares[:, None] * parker, np.float32)


def frame_weights(geometry: Geometry, columns: int, rows: Doubles) -> Floats:
    """What each pixel of these detector rows counts, (rows, columns)."""
    mapping = geometry.mapping
    if not geometry.cone:
        return np.full((len(rows), columns), mapping.cosine, np.float32)
    across = (np.arange(columns) - mapping.perpendicular) * mapping.curve
    along = (rows[:, None] - mapping.middle_row) * mapping.curve
    beside = 1 + mapping.shift * mapping.curve * across
    return np.asarray(beside / np.sqrt(1 + across**2 + along**2), np.float32)


def _alike(weights: Doubles, columns: int) -> Floats:
    return np.repeat(weights.astype(np.float32)[:, None], columns, axis=1)


def angles_turned(theta_deg: Doubles) -> tuple[Doubles, Doubles, float]:
    """How far each projection is from the first, degrees, its share of what is covered, radians, and how much that is.

    The scan begins after the widest gap, whatever the order of its angles; equal angles share.
    """
    folded = np.mod(theta_deg, 360.0)
    distinct, which, counts = np.unique(np.round(folded, 7), return_inverse=True, return_counts=True)
    gaps = np.diff(distinct, append=distinct[0] + 360.0)
    widest, typical = int(gaps.argmax()), float(np.median(gaps))
    covered = 360.0
    if gaps[widest] > _WIDE_GAP * typical:
        covered += typical - float(gaps[widest])
        gaps[widest] = typical
    shares = np.deg2rad(0.5 * (gaps + np.roll(gaps, 1)) / counts)[which.ravel()]
    begun = distinct[(widest + 1) % len(distinct)]
    # each projection stands in the middle of its share
    return np.mod(folded - begun + 1e-6, 360.0) + 0.5 * typical, shares, covered


def _parker(turned: Doubles, fan: Doubles, beyond: float) -> Doubles:
    """For the ray at `fan` (radians) of the view that has `turned` so far of pi + 2 `beyond`.

    It is seen again half a turn and twice its angle later; the two count 1 together, and go smoothly to 0 at both ends.
    """
    rising = np.sin(0.25 * np.pi * turned / np.maximum(beyond - fan, 1e-9)) ** 2
    falling = np.sin(0.25 * np.pi * (np.pi + 2 * beyond - turned) / np.maximum(beyond + fan, 1e-9)) ** 2
    weights = np.where(turned < 2 * (beyond - fan), rising, np.where(turned > np.pi - 2 * fan, falling, 1.0))
    return np.asarray(np.where((turned < 0) | (turned > np.pi + 2 * beyond), 0.0, weights))
