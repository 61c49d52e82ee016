"""The ASTRA toolbox (van Aarle et al., Opt. Express 24 (2016) 25129), on the CPU, behind our conventions.

Its rays are given one by one as vectors, so that the axis may lie anywhere and angles anyhow; y of its slices goes up
where our rows go down, which the vectors allow for. Its own filtered back projection takes only a centred axis and
counts all angles alike, so `fbp` has the filter, the windows and the weights of angles of `kernels.tomography.fbp`, and
ASTRA's back projection, with areas for weights (`strip`), so that the gain is 1 in each voxel. The iterative methods
have its `linear` weights, which take a third of the time.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.compiled import threads
from kernels.errors import Exit, KernelError
from kernels.tomography.backends.packages import load
from kernels.tomography.backends.task import Task, circle
from kernels.tomography.fbp import Reconstructor

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

_GROUP = 8
_ITERATIONS = {"sirt": 100, "cgls": 20, "sart": 5}
_RELAXATION = 0.3  # of sart, which goes round the solution at 1
_IN_WORK = 5  # sinograms, and slices, that an algorithm holds


class Astra:
    """Reconstructs slices as `Task` says, as many at a time as there are threads; slices do not know of each other."""

    def __init__(self, task: Task) -> None:
        self.size, self.group, self.unsettled = task.columns, _GROUP, 0
        self._task, self._astra, self._threads = task, load("astra"), threads()
        self._filter = (
            Reconstructor(
                task.theta_deg, task.columns, axis=task.axis, window=task.window, padding=task.padding, circle=False
            )
            if task.algorithm == "fbp"
            else None
        )
        self._rays = self._astra.create_proj_geom("parallel_vec", task.columns, rays(task))
        self._square = self._astra.create_vol_geom(task.columns, task.columns)
        # Of sart: neighbouring projections hardly differ, so each comes far from the last, in the golden ratio.
        self._order = np.argsort(np.arange(len(task.theta_deg)) * 0.5 * (math.sqrt(5) - 1) % 1)

    @property
    def fixed_bytes(self) -> int:
        """Memory in work besides the sinograms and the slices."""
        sinogram, image = 4 * len(self._task.theta_deg) * self.size, 4 * self.size**2
        filtering = self._filter.fixed_bytes + self.group * sinogram if self._filter else 0
        return filtering + self._threads * _IN_WORK * (sinogram + image)

    def slices(self, sinograms: Floats, out: Floats | None = None) -> Floats:
        """From (slices, angles, columns) line integrals to (slices, size, size) attenuation per detector pixel.

        Raises
        ------
        KernelError
            Exit 2 when ASTRA refuses, with its words.
        """
        if out is None:
            out = np.empty((len(sinograms), self.size, self.size), np.float32)
        if self._filter:
            sinograms = np.stack([self._filter.filtered(sinogram) for sinogram in sinograms])
        with ThreadPoolExecutor(self._threads) as pool:
            for _ in pool.map(self._one, sinograms, out):
                pass
        return self._task.finished(out)

    def _one(self, sinogram: Floats, out: Floats) -> None:
        astra, task = self._astra, self._task
        held: list[tuple[Any, int]] = []

        def hold(kind: Any, number: int) -> int:
            held.append((kind, number))
            return number

        try:
            config = astra.astra_dict("BP" if self._filter else task.algorithm.upper())
            config["ProjectorId"] = hold(
                astra.projector, astra.create_projector("strip" if self._filter else "linear", self._rays, self._square)
            )
            config["ProjectionDataId"] = hold(astra.data2d, astra.data2d.create("-sino", self._rays, sinogram))
            made = config["ReconstructionDataId"] = hold(astra.data2d, astra.data2d.create("-vol", self._square))
            options: dict[str, Any] = {"MinConstraint": 0} if task.nonnegative else {}
            if task.algorithm == "sart":
                options |= {"Relaxation": _RELAXATION, "ProjectionOrder": "custom", "ProjectionOrderList": self._order}
            if task.circle and not self._filter:
                mask = circle(self.size).astype(np.float32)
                options["ReconstructionMaskId"] = hold(astra.data2d, astra.data2d.create("-vol", self._square, mask))
            config["option"] = options
            astra.algorithm.run(hold(astra.algorithm, astra.algorithm.create(config)), self._rounds)
            out[:] = astra.data2d.get(made)
        except (astra.log.AstraError, ValueError) as error:
            raise KernelError(f"The ASTRA toolbox refuses {task.algorithm}: {error}.", Exit.USAGE) from error
        finally:
            for kind, number in reversed(held):
                kind.delete(number)

    @property
    def _rounds(self) -> int:
        if self._filter:
            return 1
        rounds = self._task.iterations or _ITERATIONS[self._task.algorithm]
        return rounds * len(self._task.theta_deg) if self._task.algorithm == "sart" else rounds  # there, one angle each


def rays(task: Task) -> Doubles:
    """For each projection where its rays go, the detector's middle, and the step to the next column: (angles, 6)."""
    theta = np.deg2rad(task.theta_deg)
    cosines, sines = np.cos(theta), np.sin(theta)
    middle = 0.5 * (task.columns - 1) - task.axis
    return np.stack((sines, cosines, middle * cosines, -middle * sines, cosines, -sines), axis=1)
