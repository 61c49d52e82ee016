"""How a volume and its projections are cut up, so that what is in work fits into the memory that may be used."""

from __future__ import annotations

import math
from typing import NamedTuple

from kernels.errors import KernelError
from kernels.tomography.direct.cells import LANES as CHUNK
from kernels.tomography.oblique.columns import Window, margin_of
from kernels.tomography.oblique.geometry import Geometry

BLOCK = 16  # projections filtered together; their company never changes, nor do their bits
_BLOCKS = (4, 2, 1)  # at once
_LEAST_LAYERS, _SHARE = (
    64,
    4,
)  # a slab is at most so many layers, or this share of the volume: what a killed run may lose


class Extent(NamedTuple):
    """The volume: slices of size x size, Z of the first, and how far from the axis voxels are wanted."""

    slices: int
    size: int
    first: float
    reach: float


class Plan(NamedTuple):
    """`layers` at a time, in chunks of `chunk`, from `frames` projections at a time; what that needs in bytes."""

    layers: int
    chunk: int
    frames: int
    bytes: int


def window_of(geometry: Geometry, extent: Extent, slab: range, rows: int) -> Window:
    """The detector rows, of `rows`, that these slices need."""
    least, most = geometry.rows_seen(extent.first + slab.start, extent.first + slab.stop - 1, extent.reach)
    start = min(max(math.floor(least) - 1, 0), rows - 1)
    stop = max(min(math.floor(most) + 3, rows), start + 1)
    return Window(start, stop, margin_of(geometry.magnified(extent.reach)[1]), rows)


def plan_passes(
    geometry: Geometry,
    extent: Extent,
    *,
    rows: int,
    columns: int,
    angles: int,
    padded: int,
    binning: int,
    dark_and_flat: int,
    itemsize: int,
    threads: int,
    limit: int,
    ranks: int = 1,
) -> Plan:
    """The largest slabs that fit into `limit` bytes of a node that `ranks` share.

    Each slab reads its rows of all projections, block by block: one is read while one is worked on. A slab is written
    while the next one is worked on.

    Parameters
    ----------
    rows, columns, angles
        Of the binned scan.
    padded
        Length at which rows are filtered.
    binning, dark_and_flat, itemsize
        Rows and columns of the detector per binned one; dark and flat fields; bytes of a stored count.

    Raises
    ------
    KernelError
        Exit 2 when not even the thinnest slab fits; the sentence says how much would.
    """
    chunk = min(CHUNK, extent.slices)
    row = columns * binning**2
    field = rows * row * 16 + dark_and_flat * min(64, rows * binning) * columns * binning * 16

    def bytes_of(layers: int, frames: int) -> int:
        held = max(
            (w.stop - w.start, w.length)
            for start in range(0, extent.slices, layers)
            for w in (window_of(geometry, extent, range(start, min(start + layers, extent.slices)), rows),)
        )
        counts = 3 * frames * held[0] * row * itemsize
        lines = frames * held[0] * (row * 4 + (columns * 4 if binning > 1 else 0))
        turned = frames * (columns + 2) * held[1] * 4
        filtering = threads * BLOCK * padded * 4 * 5
        weights = (angles + held[0]) * columns * 4
        return field + counts + lines + turned + filtering + weights + 2 * layers * extent.size**2 * 4

    share = limit // ranks
    most = max(_LEAST_LAYERS, -(-extent.slices // _SHARE))
    most = extent.slices if most >= extent.slices else most // chunk * chunk
    wanted = dict.fromkeys((most, *range(most // chunk * chunk, 0, -chunk)))
    frames = BLOCK
    for blocks in _BLOCKS:
        frames = min(blocks * BLOCK, -(-angles // BLOCK) * BLOCK)
        for layers in wanted:
            if (need := bytes_of(layers, frames)) <= share:
                return Plan(layers, chunk, frames, need)
    raise KernelError(
        f"tomography.backproject: {chunk} slices of {extent.size} x {extent.size} with the detector rows that see them "
        f"need {bytes_of(chunk, frames) / 1e9:.2f} GB; memoryGB is {limit / 1e9:g}"
        f"{f' for {ranks} ranks' if ranks > 1 else ''}. Raise memoryGB or binning, or take fewer ranks."
    )
