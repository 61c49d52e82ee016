"""The projection angles of a scan: read, checked, or made from a range."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.errors import Exit, KernelError

Doubles = NDArray[np.float64]

_LEAST_SPAN_DEG = 20.0  # less is no tomography, and 2 pi would be a scan in radians
_NEARLY = 0.02  # by which a scan in thousandths may miss a half or a whole turn
_MANY_TURNS = 3
_GAP_DEG, _GAP_STEPS = 5.0, 3  # larger gaps are a missing wedge


def spaced(text: str, count: int) -> Doubles:
    """`count` equally spaced angles from `START:STOP` (degrees), STOP left out.

    Raises
    ------
    KernelError
        Exit 2 when the text is not two different finite numbers, or they are no degrees of a scan.
    """
    try:
        start, stop = (float(part) for part in text.split(":"))
        if not (np.isfinite(start) and np.isfinite(stop) and start != stop):
            raise ValueError
    except ValueError:
        raise KernelError(f"angles must be START:STOP in degrees, such as 0:180, not {text!r}.") from None
    theta = np.linspace(start, stop, count, endpoint=False)
    if why := _no_degrees(theta):
        raise KernelError(f"angles {text!r} {why}; give them in degrees, such as 0:180.")
    return theta


def read_theta(dataset: Any, count: int, name: str) -> Doubles:
    """Angles in degrees from an HDF5 data set of shape (count,); `units` that begin with "rad" are converted.

    Raises
    ------
    KernelError
        Exit 65 when the number of angles differs, one is not finite, or they are no degrees of a scan: over less than
        20, or in another unit.
    """

    def bad(what: str) -> KernelError:
        hint = " Correct it in the file; or, if the angles are known, give `angles`, such as 0:180."
        return KernelError(f"The scan {name} is not usable: {dataset.name} {what}.{hint}", Exit.BAD_INPUT)

    if dataset.shape != (count,):
        raise bad(f"holds {dataset.size} angles for {count} projections")
    theta = np.asarray(dataset[()], np.float64)
    if not np.isfinite(theta).all():
        lost = int((~np.isfinite(theta)).sum())
        raise bad(f"holds {lost} angles that are not finite")
    units = dataset.attrs.get("units", "")
    units = units.decode("ascii", "replace") if isinstance(units, bytes) else str(units)
    if units.lower().startswith("rad"):
        theta = np.rad2deg(theta)
    if why := _no_degrees(theta):
        raise bad(why)
    return theta


def doubts(theta_deg: Doubles) -> Iterator[str]:
    """What is strange about angles that are used all the same, a phrase each."""
    steps = np.diff(theta_deg)
    back = int(min((steps < 0).sum(), (steps > 0).sum()))
    same = int((steps == 0).sum())
    turns = float(np.ptp(theta_deg)) / 360
    if back:
        yield f"{back} of {len(steps)} steps go back, which is right for interlaced scans only"
    if same:
        yield f"{same} of {len(theta_deg)} angles are that of the projection before"
    if turns > _MANY_TURNS:
        yield f"they go round {turns:.1f} times, which is right for scans of many turns only"
    lying = np.sort(theta_deg % 180)
    gaps = np.diff(np.append(lying, lying[0] + 180))
    widest = int(gaps.argmax())
    if gaps[widest] > max(_GAP_DEG, _GAP_STEPS * float(np.median(gaps))):
        first, last = lying[widest], lying[widest] + gaps[widest]
        yield f"none lies between {first:.4g} and {last:.4g} degrees: there is a missing wedge"


def _no_degrees(theta: Doubles) -> str:
    """What is wrong with angles that cannot be the degrees of a scan; empty for those that can."""
    span = float(np.ptp(theta))
    if not span:
        return f"is {theta[0]:.4g} for all {len(theta)} projections"
    if span < _LEAST_SPAN_DEG:
        radians = " (as radians would)" if span <= 2.01 * np.pi else ""
        return f"spans only {span:.4g} degrees{radians}"
    covered = span * len(theta) / (len(theta) - 1)
    if any(abs(covered / 1000 / whole - 1) < _NEARLY for whole in (180, 360)):
        return f"spans {span:.6g} degrees, as thousandths of a degree would"
    return ""
