"""The volume that a reconstruction makes: begun or gone on with, and finished, by all ranks together."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from kernels import resume
from kernels.io.omezarr import VolumeWriter, check_volume
from kernels.io.picture import window
from kernels.job import Job
from kernels.tomography.stations import Stations
from kernels.tomography.views import write_nexus, write_picture

_PYRAMID = 1 + 1 / 8 + 1 / 64  # times the size of the volume, at least


class Volume:
    """An output that slabs are written into, with the notes of what is done.

    Parameters
    ----------
    shape, chunk
        (slices, size, size), and slices per chunk.
    name, voxel_um, compression
        As of `VolumeWriter`.
    facts
        All else that decides what is written: with the same, it is gone on with.
    """

    def __init__(
        self,
        job: Job,
        output: str,
        shape: tuple[int, int, int],
        *,
        chunk: int,
        name: str,
        voxel_um: float | None,
        compression: str,
        facts: Mapping[str, Any],
    ) -> None:
        ranks = job.ranks
        self._job, self._shape, self._name, self._voxel_um = job, shape, name, voxel_um
        run = resume.fingerprint(**facts, written=(voxel_um, compression), layout=(shape, chunk, name))
        needs = int(_PYRAMID * 4 * math.prod(shape)) if compression == "none" else 0
        check = partial(check_volume, shape=shape)
        self._part = job.stage_together(output, directory=True, check=check, run=run, needs=needs)
        self.writer = VolumeWriter(
            self._part,
            shape,
            chunk_layers=chunk,
            name=name,
            pixel_size_um=voxel_um,
            compression=compression,
            ranks=ranks,
        )
        journal = resume.Journal(self._part, run) if ranks.first else None
        ranks.meet()
        self.journal = journal or resume.Journal(self._part, run)

    def finish(
        self,
        stations: Stations,
        mine: range,
        *,
        picture: str | None,
        nexus: str | None,
        kernel: str,
        said: Mapping[str, object],
    ) -> None:
        """Report what was counted, and write pyramid, picture and NeXus file; `said` are parameters for the latter."""
        job, ranks = self._job, self._job.ranks
        if of_ranks := ranks.gathered(sum(noted["layers"] for noted in stations.done.values())):
            job.metric("resumed_slices", sum(of_ranks))
        self.writer.gather()
        middle = stations.middle
        middle.gather(ranks, mine)
        for metric, value in zip(("slices", "size"), self._shape, strict=False):
            job.metric(metric, value)
        job.metric("minimum", self.writer.minimum)
        job.metric("maximum", self.writer.maximum)
        shown = window(middle.slices) if ranks.first else (0.0, 1.0)
        with job.phase("pyramid"):
            self.writer.finish(shown, job.warnings)
            ranks.meet()
            if ranks.first:
                self.journal.forget()
        if not ranks.first:
            return
        finite = self.writer.finite / float(np.prod(self._shape))
        facts = {"shape": self._shape, "dtype": "float32", "finiteFraction": finite}
        job.describe(self._part, description="reconstructed volume", **facts)
        job.progress(0.95, "pyramid", "written")
        if picture:
            write_picture(job, picture, middle, shown)
        if nexus:
            said = {**job.metrics, **said}
            write_nexus(job, nexus, middle, title=self._name, voxel_um=self._voxel_um, parameters=said, kernel=kernel)
