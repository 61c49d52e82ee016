"""The ways to reconstruct, by name: one shape, one geometry, one gain."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from kernels.errors import KernelError
from kernels.tomography.backends.choose import foreign_method
from kernels.tomography.backends.packages import NATIVE
from kernels.tomography.cuda.gridrec import CudaGridrec
from kernels.tomography.direct.gridrec import Gridrec
from kernels.tomography.direct.halves import halves, is_half_acquisition
from kernels.tomography.fbp import Reconstructor
from kernels.tomography.field import Field
from kernels.tomography.iterative.reconstructor import ALGORITHMS as ITERATIVE
from kernels.tomography.iterative.reconstructor import IterativeReconstructor
from kernels.tomography.iterative.reconstructor import Method as IterativeMethod

Floats = NDArray[np.float32]

ALGORITHMS = ("gridrec", "fbp", *ITERATIVE)


class Method(Protocol):
    """Reconstructs `group` slices of size x size at a time, in `fixed_bytes` of memory besides them and their
    sinograms; `unsettled` of all slices so far, where it is iterative, ended before they had settled."""

    size: int
    group: int
    unsettled: int

    @property
    def fixed_bytes(self) -> int: ...

    def slices(self, sinograms: Floats, out: Floats | None = None) -> Floats:
        """From (slices, angles, columns) to (slices, size, size)."""


@runtime_checkable
class TakesCounts(Protocol):
    """A method that can do what `prepare.prepare` does, too, where that is no more than transmission and logarithm."""

    def slices_of_counts(self, counts: NDArray[np.uint16], field: Field, floor: float, out: Floats) -> int:
        """From (angles, slices, columns); how many transmissions lay below the floor."""


def method(
    algorithm: str,
    theta_deg: NDArray[np.float64],
    columns: int,
    *,
    axis: float,
    circle: bool,
    iterations: int | None = None,
    nonnegative: bool = False,
    device: str = "cpu",
    backend: str = "native",
    **how: Any,
) -> Method:
    """That of this name, for one geometry; `how` are window, padding and scale, as `fbp.Reconstructor` has them;
    `device` as `cuda.choice.choose` has chosen.

    `backend` says whose it is: ours, or that of a package (`kernels.tomography.backends`).

    A full turn with the axis far off the middle is joined to slices that are wider than the detector.

    Raises
    ------
    KernelError
        Exit 2 for an unknown name, what a method does not have, or a geometry that it cannot reconstruct; those of
        `CudaGridrec`.
    """
    foreign = backend != NATIVE
    if not foreign and algorithm not in ALGORITHMS:
        raise KernelError(f"There is no algorithm {algorithm!r}; there are {', '.join(ALGORITHMS)}.")
    joined = halves(columns, axis) if is_half_acquisition(theta_deg, columns, axis) else None
    if joined and (foreign or algorithm != "gridrec"):
        raise KernelError(
            f"The scan is a full turn with its axis at {axis:.1f} of {columns} columns; {algorithm} cannot join its "
            "two halves: take gridrec, and no other backend than native."
        )
    if foreign:
        asked = {"axis": axis, "circle": circle, "iterations": iterations, "nonnegative": nonnegative, **how}
        return foreign_method(backend, algorithm, theta_deg, columns, **asked)
    if algorithm in ITERATIVE:
        wanted = IterativeMethod(algorithm, iterations=iterations, nonnegative=nonnegative)
        return IterativeReconstructor(theta_deg, columns, axis=axis, circle=circle, method=wanted, **how)
    if iterations is not None or nonnegative:
        raise KernelError(f"{algorithm} is not iterative: leave iterations and nonNegative out.")
    if algorithm == "fbp":
        return Reconstructor(theta_deg, columns, axis=axis, circle=circle, **how)
    size, weights = joined or (None, None)
    gridrec = CudaGridrec if device == "gpu" else Gridrec
    return gridrec(theta_deg, columns, axis=axis, circle=circle, size=size, column_weights=weights, **how)
