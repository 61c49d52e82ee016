"""How a volume is cut into slabs, so that what is in work fits into the memory that may be used."""

from __future__ import annotations

from typing import NamedTuple

from kernels.errors import KernelError
from kernels.tomography.direct.cells import LANES

_SLAB_LAYERS = 4 * LANES


class Slabs(NamedTuple):
    """How the slices are cut up: `layers` slices at a time, in chunks of `chunk` layers; what that needs in bytes."""

    layers: int
    chunk: int
    bytes: int


def plan_slabs(
    *,
    slices: int,
    angles: int,
    columns: int,
    size: int,
    binning: int,
    frames: int,
    itemsize: int,
    fixed: int,
    limit: int,
    ranks: int = 1,
    few: bool = False,
    copies: int = 1,
) -> Slabs:
    """The largest slabs that fit into `limit` bytes, in whole chunks where possible.

    A slab is read and another one written while one is worked on.

    Parameters
    ----------
    slices, angles, columns, size
        Of the binned scan; slices are size x size.
    binning, frames, itemsize
        Rows and columns of the detector per binned one; flat and dark fields; bytes of a stored count.
    fixed
        Bytes needed whatever the slab.
    limit, ranks
        Bytes of a node, and the ranks there that share them.
    few
        As few slabs as possible, since each costs as much to read as the whole; else so many that reading and
        writing go on beside the work.
    copies
        Of the sinograms, while they are prepared.

    Raises
    ------
    KernelError
        Exit 2 when not even one slice fits; the sentence says how much would.
    """
    stored = angles * columns * binning**2
    whole = stored * 4 if binning > 1 else 0
    each = (
        2 * stored * itemsize
        + whole
        + frames * columns * binning**2 * 16
        + copies * angles * columns * 4
        + 2 * size**2 * 4
    )
    group = min(LANES, slices) * size**2 * 4
    fits = (limit // ranks - fixed - group) // each
    if fits < 1:
        need = (fixed + group + each) / 1e9
        raise KernelError(
            f"tomography.reconstruct: one slice of {size} x {size} from {angles} angles needs {need:.2f} GB; "
            f"memoryGB is {limit / 1e9:g}{f' for {ranks} ranks' if ranks > 1 else ''}. Raise memoryGB or binning."
        )
    chunk = int(min(LANES, fits, slices))
    layers = int(min(fits, slices if few else _SLAB_LAYERS, slices))
    layers = layers if layers == slices else layers // chunk * chunk
    return Slabs(layers, chunk, int(fixed + group + layers * each))
