"""What people look at first: the three slices through the middle, as a picture and as a NeXus file."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from kernels.io import nexus, picture
from kernels.job import Job
from kernels.ranks import Ranks

Floats = NDArray[np.float32]

_TITLES = (("horizontal", ("y", "x")), ("front", ("z", "x")), ("side", ("z", "y")))


class Middle:
    """The slices through the middle of a volume (z, y, x), gathered while it is made slab by slab.

    Attributes
    ----------
    slices : list of ndarray, float32
        Horizontal (y, x), front (z, x) and side (z, y).
    """

    def __init__(self, shape: tuple[int, int, int]) -> None:
        layers, size, _ = shape
        self._layer, self._centre = layers // 2, size // 2
        self.slices = [np.zeros(s, np.float32) for s in ((size, size), (layers, size), (layers, size))]

    def take(self, start: int, slab: Floats) -> None:
        """Keep what is needed of `slab` (layers, y, x), which begins at layer `start`."""
        stop = start + len(slab)
        if start <= self._layer < stop:
            self.slices[0] = slab[self._layer - start].copy()
        self.slices[1][start:stop] = slab[:, self._centre, :]
        self.slices[2][start:stop] = slab[:, :, self._centre]

    def gather(self, ranks: Ranks, mine: range) -> None:
        """Give rank 0 what the others have of their layers."""
        for layers, parts in ranks.gathered(
            (mine, [self.slices[0], *(s[mine.start : mine.stop] for s in self.slices[1:])])
        ):
            if self._layer in layers:
                self.slices[0] = parts[0]
            for whole, part in zip(self.slices[1:], parts[1:], strict=True):
                whole[layers.start : layers.stop] = part


def write_picture(job: Job, path: str, middle: Middle, window: tuple[float, float]) -> None:
    """The slices as PNG, `window` the values shown black and white."""
    part = job.stage(path, check=picture.check_picture, description="three slices through the middle")
    picture.write_slices(part, middle.slices, *window)


def write_nexus(
    job: Job,
    path: str,
    middle: Middle,
    *,
    title: str,
    voxel_um: float | None,
    parameters: Mapping[str, object],
    kernel: str = "tomography.reconstruct",
) -> None:
    """The slices as NeXus, axes in micrometres where the voxel size is known, and how they were made."""
    part = job.stage(path, check=nexus.check_nexus, description="three slices and parameters (NeXus)")
    step, unit = (voxel_um, "um") if voxel_um else (1.0, "pixel")
    with nexus.new_file(part) as file:
        entry = nexus.add_entry(file, title, "horizontal")
        for values, (name, axes) in zip(middle.slices, _TITLES, strict=True):
            nexus.add_image(entry, name, values, axes, f"{name} slice through the middle", step, unit)
        nexus.add_process(entry, kernel, "1.0", parameters, job.warnings)
