"""The projection angles of a scan: read, checked, or made from a range."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.errors import Exit, KernelError

_LEAST_SPAN_DEG = 20.0  # less is no tomography, and 2 pi would be a scan in radians


def spaced(text: str, count: int) -> NDArray[np.float64]:
    """`count` equally spaced angles from `START:STOP` (degrees), STOP left out.

    Raises
    ------
    KernelError
        Exit 2 when the text is not two different finite numbers.
    """
    try:
        start, stop = (float(part) for part in text.split(":"))
        if not (np.isfinite(start) and np.isfinite(stop) and start != stop):
            raise ValueError
    except ValueError:
        raise KernelError(f"angles must be START:STOP in degrees, such as 0:180, not {text!r}.") from None
    return np.linspace(start, stop, count, endpoint=False)


def read_theta(dataset: Any, count: int, name: str) -> NDArray[np.float64]:
    """Angles in degrees from an HDF5 data set of shape (count,); `units` that begin with "rad" are converted.

    Raises
    ------
    KernelError
        Exit 65 when the number of angles differs, one is not finite, or they span less than 20 degrees.
    """
    said = f"The scan {name} is not usable: {dataset.name}"
    if dataset.shape != (count,):
        raise KernelError(f"{said} holds {dataset.size} angles for {count} projections.", Exit.BAD_INPUT)
    theta = np.asarray(dataset[()], np.float64)
    if not np.isfinite(theta).all():
        raise KernelError(
            f"{said} holds {int((~np.isfinite(theta)).sum())} angles that are not finite.", Exit.BAD_INPUT
        )
    units = dataset.attrs.get("units", "")
    units = units.decode("ascii", "replace") if isinstance(units, bytes) else str(units)
    if units.lower().startswith("rad"):
        theta = np.rad2deg(theta)
    span = float(np.ptp(theta))
    if span < _LEAST_SPAN_DEG:
        raise KernelError(
            f"{said} spans only {span:.4g} degrees. If it is in radians, or wrong, give `angles`, such as 0:180.",
            Exit.BAD_INPUT,
        )
    return theta
