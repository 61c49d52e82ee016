"""What is done with each slab of a reconstruction: it is read, worked on and written, or, if an earlier run has done
that, only looked at."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.io.dxchange import Scan
from kernels.io.omezarr import VolumeWriter
from kernels.job import Job
from kernels.resume import Journal
from kernels.tomography.methods import Method, TakesCounts
from kernels.tomography.prepare import Changes, Raw, Recipe, changed, prepare, read_raw
from kernels.tomography.views import Middle

Floats = NDArray[np.float32]

_END = 0.9  # of the progress, when all slabs are done


class Stations:
    """The stations that the slabs of `mine` pass, but how they are read and worked on, and what is counted on the way.

    Attributes
    ----------
    done
        First slice of the slabs that an earlier run has written: what it noted of them.
    counts
        First slice of all slabs: `layers`, and what else is counted.
    middle
        The slices through the middle of the volume.
    """

    def __init__(
        self,
        job: Job,
        scan: Scan,
        recipe: Recipe,
        writer: VolumeWriter,
        journal: Journal,
        mine: range,
        *,
        shape: tuple[int, int, int],
        begun: float,
    ) -> None:
        self._job, self._scan, self._recipe = job, scan, recipe
        self._writer, self._journal, self._mine = writer, journal, mine
        self._shape, self._begun = shape, begun
        noted = journal.done().items()
        self.done = {n: of for n, of in noted if n in mine and n + of["layers"] <= mine.stop}
        self.counts: dict[int, dict[str, int]] = {}
        self.middle = Middle(shape)
        self._free: deque[Floats] = deque()

    def parts(self, layers: int) -> Iterator[range]:
        """The slabs: those that are done, as they were noted; between them, new ones of up to `layers`."""
        start = self._mine.start
        while start < self._mine.stop:
            if start in self.done:
                stop = start + self.done[start]["layers"]
            else:
                stop = min(self._mine.stop, start + layers, *(other for other in self.done if other > start))
            yield range(start, stop)
            start = stop

    def write(self, here: range, slab: Floats) -> None:
        with self._job.phase("write"):
            if here.start in self.done:
                self._writer.count(here.start, slab)
            else:
                self._writer.write(here.start, slab)
                self._journal.note(here.start, **self.counts[here.start])
        self.middle.take(here.start, slab)
        self._free.append(slab)

    def _room(self, layers: int) -> Floats:
        """A slab that is written by now, or a new one: fresh memory costs as much as half of the work on it."""
        slab = self._free.popleft() if self._free else None
        fits = slab is not None and len(slab) == layers
        return slab if slab is not None and fits else np.empty((layers, *self._shape[1:]), np.float32)

    def _tell(self, ended: int) -> None:
        """Of this rank's share, as if all were as far."""
        slices = self._shape[0]
        done = (ended - self._mine.start) * slices // len(self._mine)
        self._job.progress(self._begun + (_END - self._begun) * done / slices, "reconstruct", f"{done}/{slices} slices")


class Sinograms(Stations):
    """Those of slices that their own detector rows make. `counts` has what `Changes` has, and `unsettled` slices."""

    def __init__(self, *stations: Any, method: Method, **how: Any) -> None:
        super().__init__(*stations, **how)
        self._method = method

    def read(self, here: range) -> Raw | Floats:
        with self._job.phase("read"):
            if here.start in self.done:
                return self._writer.read(here.start, here.stop)
            binning = self._recipe.binning
            return read_raw(self._scan, here.start * binning, here.stop * binning)

    def work(self, here: range, raw: Raw | Floats) -> Floats:
        if not isinstance(raw, Raw):
            self.counts[here.start] = self.done[here.start]
            return raw
        slab, method = self._room(len(here)), self._method
        unsettled = method.unsettled
        if isinstance(method, TakesCounts) and self._recipe.plain and raw.counts.dtype == np.uint16:
            changes = self._from_counts(method, here, raw, slab)
        else:
            changes = self._from_sinograms(here, raw, slab)
        self.counts[here.start] = {
            "layers": len(here),
            "unsettled": method.unsettled - unsettled,
            **changes._asdict(),
        }
        return slab

    def _from_counts(self, method: TakesCounts, here: range, raw: Raw, slab: Floats) -> Changes:
        with self._job.phase("reconstruct"):
            floored = method.slices_of_counts(raw.counts, raw.field, self._recipe.floor, slab)
        self._tell(here.stop)
        return changed(raw.field, raw.counts.size, floored)

    def _from_sinograms(self, here: range, raw: Raw, slab: Floats) -> Changes:
        with self._job.phase("prepare"):
            prepared = prepare(self._scan, raw, self._recipe)
        with self._job.phase("reconstruct"):
            for first in range(0, len(slab), self._method.group):
                group = slice(first, first + self._method.group)
                self._method.slices(prepared.sinograms[group], slab[group])
                self._tell(min(here.start + group.stop, here.stop))
        return prepared.changes
