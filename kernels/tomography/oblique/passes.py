"""What is done with each slab of a back projection: the rows that it needs pass by, one block of frames at a time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.compiled import threads
from kernels.conveyor import convey
from kernels.tomography.fbp import filter_response, filtered, padded_length
from kernels.tomography.field import Field
from kernels.tomography.oblique.columns import Window, back_project, by_columns
from kernels.tomography.oblique.geometry import Geometry
from kernels.tomography.oblique.plan import BLOCK, Extent, window_of
from kernels.tomography.oblique.weights import frame_weights, joined, view_weights
from kernels.tomography.prepare import Raw, prepare, read_frames
from kernels.tomography.stations import Stations

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

COUNTED = ("values", "floored_values", "lost_values")  # of `prepare.Changes`, as often as rows are read


class BackProjector:
    """Filtered back projection of whole frames for one geometry.

    Parameters
    ----------
    geometry, extent
        Of the scan and of the volume.
    theta_deg : ndarray, shape (angles,)
        Projection angles, degrees, in any order.
    rows, columns
        Of the detector.
    window, padding, scale
        As of `fbp.Reconstructor`.

    Raises
    ------
    KernelError
        As `view_weights`, and exit 2 when the source is within the volume.
    """

    def __init__(
        self,
        geometry: Geometry,
        extent: Extent,
        theta_deg: Doubles,
        *,
        rows: int,
        columns: int,
        window: str = "ramp",
        padding: str = "zero",
        scale: float = 1.0,
    ) -> None:
        wide = joined(geometry, theta_deg, columns)
        # The short side of joined views goes on, as wide as the long one: what is filtered reaches out there.
        more = wide.size - columns if wide else 0
        self._added = (more, 0) if geometry.axis < 0.5 * (columns - 1) else (0, more)
        self.geometry, self.extent = geometry.moved(self._added[0]), extent
        self.rows, self.columns = rows, columns + more
        theta = np.deg2rad(theta_deg)
        self.cosines, self.sines = np.cos(theta), np.sin(theta)
        self.edge, self.padded = padding == "edge", padded_length(self.columns)
        self.response = filter_response(self.padded, window).astype(np.float32)
        self.window(range(extent.slices))
        weights = view_weights(geometry, theta_deg, columns) / np.float32(scale)
        self.weights = np.pad(weights, ((0, 0), self._added))

    def window(self, slab: range) -> Window:
        """The detector rows that these slices need."""
        return window_of(self.geometry, self.extent, slab, self.rows)

    def filter(self, lines: Floats, first_row: int, frames: range) -> Floats:
        """Weigh and filter line integrals (rows, frames, columns) from row `first_row` on, in their place if they fit.

        `frames` begin at a multiple of `BLOCK`: so many of a row are transformed together, by one thread, and their
        bits do not depend on how many threads and blocks there are.
        """
        if any(self._added):
            lines = np.pad(lines, ((0, 0), (0, 0), self._added))
        pixels = frame_weights(self.geometry, self.columns, np.arange(first_row, first_row + len(lines), dtype=float))
        views = self.weights[frames.start : frames.stop]

        def work(row: int) -> None:
            for k in range(0, len(frames), BLOCK):
                block = lines[row, k : k + BLOCK]
                block *= views[k : k + BLOCK] * pixels[row]
                block[:] = filtered(block, self.response, self.padded, edge=self.edge, workers=1)

        with ThreadPoolExecutor(threads()) as pool:
            list(pool.map(work, range(len(lines))))
        return lines

    def add(self, lines: Floats, window: Window, frames: range, begun: int, slab: Floats) -> None:
        """Add to `slab` (layers, size, size), which begins at layer `begun`, what its voxels see in filtered lines
        (window's rows, frames, columns)."""
        back_project(
            by_columns(lines, window),
            window,
            self.cosines[frames.start : frames.stop],
            self.sines[frames.start : frames.stop],
            self.geometry.mapping,
            self.extent.reach,
            self.extent.first,
            begun,
            slab,
        )

    def volume(self, lines: Floats) -> Floats:
        """All of it at once, from line integrals (rows, angles, columns).

        Returns
        -------
        ndarray, shape (slices, size, size), float32
        """
        everything, frames = range(self.extent.slices), range(len(self.cosines))
        made = np.zeros((self.extent.slices, self.extent.size, self.extent.size), np.float32)
        window = self.window(everything)
        part = self.filter(lines[window.start : window.stop].copy(), window.start, frames)
        self.add(part, window, frames, 0, made)
        return made


class Passes(Stations):
    """The stations of slabs that are made of blocks of `frames` projections."""

    def __init__(self, *stations: Any, projector: BackProjector, field: Field, frames: int, **how: Any) -> None:
        super().__init__(*stations, **how)
        self._projector, self._field, self._frames = projector, field, frames

    def read(self, here: range) -> Floats | None:
        """What an earlier run has made of a slab."""
        with self._job.phase("read"):
            return self._writer.read(here.start, here.stop) if here.start in self.done else None

    def work(self, here: range, written: Floats | None) -> Floats:
        if written is not None:
            self.counts[here.start] = self.done[here.start]
            return written
        window, binning = self._projector.window(here), self._recipe.binning
        slab, counts = self._room(len(here)), dict.fromkeys(("layers", *COUNTED), 0)
        slab[:], counts["layers"] = 0, len(here)

        def read(frames: range) -> Raw:
            with self._job.phase("read"):
                return read_frames(self._scan, window.start * binning, window.stop * binning, frames, self._field)

        def work(frames: range, raw: Raw) -> None:
            with self._job.phase("prepare"):
                prepared = prepare(self._scan, raw, self._recipe)
            for word in COUNTED:
                counts[word] += getattr(prepared.changes, word)
            with self._job.phase("filter"):
                lines = self._projector.filter(prepared.sinograms, window.start, frames)
            with self._job.phase("reconstruct"):
                self._projector.add(lines, window, frames, here.start, slab)
            self._tell(here.start + len(here) * frames.stop // self._scan.angles)

        angles = self._scan.angles
        blocks = [range(k, min(k + self._frames, angles)) for k in range(0, angles, self._frames)]
        convey(blocks, read=read, work=work, write=lambda frames, nothing: None)
        self.counts[here.start] = counts
        return slab
