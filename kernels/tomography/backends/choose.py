"""A method of another package, with the arguments of ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kernels.errors import KernelError
from kernels.tomography.backends.astra import Astra
from kernels.tomography.backends.packages import PACKAGES, own_name
from kernels.tomography.backends.task import Task
from kernels.tomography.backends.tomopy import TomoPy, TomoPyGridrec

if TYPE_CHECKING:
    from kernels.tomography.methods import Method


def foreign_method(
    backend: str,
    algorithm: str,
    theta_deg: NDArray[np.float64],
    columns: int,
    *,
    axis: float,
    circle: bool,
    iterations: int | None,
    nonnegative: bool,
    window: str = "ramp",
    padding: str = "zero",
    scale: float = 1.0,
) -> Method:
    """That of this package and name; arguments as `kernels.tomography.methods.method` has them.

    Raises
    ------
    KernelError
        Exit 2 for a package that is not there, an algorithm that it does not have, or what that cannot do.
    """
    package, name = PACKAGES[backend], own_name(backend, algorithm)
    if name in package.direct and (iterations is not None or nonnegative):
        raise KernelError(f"{name} of {backend} is not iterative: leave iterations and nonNegative out.")
    if nonnegative and name not in package.nonnegative:
        raise KernelError(
            f"{name} of {backend} cannot hold values at 0 or above. Leave nonNegative out, or choose one of "
            f"{', '.join(package.nonnegative)}."
        )
    task = Task(name, theta_deg, columns, axis, circle, iterations, nonnegative, window, padding, scale)
    if backend == "astra":
        return Astra(task)
    return TomoPyGridrec(task) if name == "gridrec" else TomoPy(task)
