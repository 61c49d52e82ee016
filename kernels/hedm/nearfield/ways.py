"""What a map is made by: the three steps that take all the time, on the CPU or on a GPU with the same results."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from kernels.hedm.nearfield.refine import Fit, climb, spread
from kernels.hedm.nearfield.search import Found, screen
from kernels.hedm.nearfield.setup import Setup
from kernels.hedm.nearfield.spots import Spots
from kernels.hedm.nearfield.voxels import Voxels

Floats = NDArray[np.float64]
Whole = NDArray[np.int64]
Flags = NDArray[np.bool_]


class Way(Protocol):
    """As `search.screen`, `refine.climb` and `refine.spread`."""

    def screen(
        self,
        spots: Spots,
        setup: Setup,
        voxels: Voxels,
        orientations: Floats,
        g0: Floats,
        *,
        keep: int = 1,
        least: float = 0.0,
    ) -> Found: ...

    def climb(
        self,
        spots: Spots,
        setup: Setup,
        voxels: Voxels,
        starts: Floats,
        g0: Floats,
        *,
        step_deg: float,
        least_deg: float,
        centre: bool = True,
    ) -> Fit: ...

    def spread(
        self,
        spots: Spots,
        setup: Setup,
        voxels: Voxels,
        fit: Fit,
        g0: Floats,
        *,
        step_deg: float,
        least_deg: float,
        mine: Whole | None = None,
        changed: Flags | None = None,
    ) -> tuple[Fit, Flags]: ...


class Cpu:
    """By compiled code, in threads."""

    screen = staticmethod(screen)
    climb = staticmethod(climb)
    spread = staticmethod(spread)
