"""The fibres of a seed: the orientations that have a reflection of its ring along its reciprocal vector."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kernels.compiled import compiled
from kernels.hedm.farfield.lattice import Lattice
from kernels.hedm.farfield.refinement import turn_by

Floats = NDArray[np.float64]
Ints = NDArray[np.int32]

STEP = math.radians(0.5)
KEPT = 4  # orientations of a seed that are refined


class Fibres(NamedTuple):
    """The orientations that are judged for each seed of a ring, those of a family after those of another.

    Attributes
    ----------
    head : (f, 3) of each family of the ring one unit vector in crystal cartesian
    family : (t,) whose vector lies along the seed's
    sine, versine : (t,) of the angle by which the orientation is turned about it from the first of its family; the
        versine is one less the cosine
    """

    head: Floats
    family: Ints
    sine: Floats
    versine: Floats


def list_fibres(lattice: Lattice, ring: int) -> Fibres:
    """The fibres of a ring: each as long as the part of a turn after which the crystal looks the same, one a family."""
    heads, families, angles = [], [], []
    for number, head in enumerate(lattice.heads(ring)):
        own = sum(bool(np.abs(turn @ lattice.g0[head] - lattice.g0[head]).max() < 1e-6) for turn in lattice.rotations)
        part = 2.0 * math.pi / own
        count = math.ceil(part / STEP)
        heads.append(lattice.g0[head] / lattice.length[head])
        families.append(np.full(count, number, np.int32))
        angles.append(np.arange(count) * (part / count))
    angle = np.concatenate(angles)
    return Fibres(np.array(heads), np.concatenate(families), np.sin(angle), 2.0 * np.sin(0.5 * angle) ** 2)


@compiled()
def begin(spot: Floats, source: Floats, length: float, head: Floats, axis: Floats, starts: Floats) -> None:
    """What the fibres of a seed begin with: its unit reciprocal vector `axis`, and (f, 3, 3) of each family an
    orientation that takes its vector there."""
    _direction(source, spot[0], spot[1], spot[2], spot[3], spot[4], length, axis)
    for family in range(head.shape[0]):
        _onto(head[family, 0], head[family, 1], head[family, 2], axis, starts[family])


@compiled()
def turned(start: Floats, axis: Floats, sine: float, versine: float, out: Floats) -> None:
    """The matrix `start` turned from the left about a unit vector."""
    x, y, z = axis[0], axis[1], axis[2]
    for k in range(3):
        a, b, d = start[0, k], start[1, k], start[2, k]
        p, q, r = y * d - z * b, z * a - x * d, x * b - y * a
        out[0, k] = a + sine * p + versine * (y * r - z * q)
        out[1, k] = b + sine * q + versine * (z * p - x * r)
        out[2, k] = d + sine * r + versine * (x * q - y * p)


@compiled()
def best_of(scores: Floats, family: Ints, least: float, kept: NDArray[np.int64]) -> None:
    """Which orientations are refined into `kept`, -1 for none; neighbours on a fibre are one candidate."""
    best = np.zeros(KEPT)
    kept[:] = -1
    before, slot = -10, 0
    for n in range(scores.size):
        if n == 0 or family[n] != family[n - 1]:
            before, slot = n - 10, 0
        if scores[n] < least:
            continue
        if n - before > 2:
            slot = 0
            for i in range(1, KEPT):
                if best[i] < best[slot]:
                    slot = i
        before = n
        if scores[n] > best[slot]:
            best[slot], kept[slot] = scores[n], n


@compiled()
def _direction(
    source: Floats, x: float, y: float, z: float, cos: float, sin: float, length: float, out: Floats
) -> None:
    """The unit reciprocal vector of a spot in the sample, at its eta and omega and at the two theta of its ring."""
    far = 1.0 / math.sqrt(x * x + y * y + z * z)
    bx, by, bz, wavelength = source[0], source[1], source[2], source[3]
    along = (x * bx + y * by + z * bz) * far
    ax, ay, az = x * far - along * bx, y * far - along * by, z * far - along * bz
    across = 1.0 / math.sqrt(ax * ax + ay * ay + az * az)
    half = 0.5 * wavelength * length  # the sine of theta
    c = math.sqrt(1.0 - half * half)
    hx, hy, hz = c * ax * across - half * bx, c * ay * across - half * by, c * az * across - half * bz
    out[0], out[1], out[2] = cos * hx + sin * hy, cos * hy - sin * hx, hz


@compiled()
def _onto(ax: float, ay: float, az: float, target: Floats, out: Floats) -> None:
    """The shortest rotation that takes the unit vector a to `target`."""
    out[:, :] = 0.0
    out[0, 0] = out[1, 1] = out[2, 2] = 1.0
    cx, cy, cz = ay * target[2] - az * target[1], az * target[0] - ax * target[2], ax * target[1] - ay * target[0]
    sine = math.sqrt(cx * cx + cy * cy + cz * cz)
    angle = math.atan2(sine, ax * target[0] + ay * target[1] + az * target[2])
    if sine < 1e-9:
        # Any axis across will do for half a turn.
        cx, cy, cz = (0.0, -az, ay) if abs(ax) < 0.9 else (az, 0.0, -ax)
        sine = math.sqrt(cx * cx + cy * cy + cz * cz)
    turn_by(out, cx * angle / sine, cy * angle / sine, cz * angle / sine)
