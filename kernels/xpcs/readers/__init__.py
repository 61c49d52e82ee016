"""Frames of area detectors, in the formats in which XPCS is measured."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from kernels.errors import Exit, KernelError
from kernels.io.hdf5 import is_hdf5, regular
from kernels.xpcs.metadata import find_metadata, read_metadata
from kernels.xpcs.readers.frames import Chosen, Selection
from kernels.xpcs.readers.hdf5 import Hdf5Source
from kernels.xpcs.readers.imm import ImmSource
from kernels.xpcs.readers.rigaku import open_rigaku
from kernels.xpcs.readers.source import Source
from kernels.xpcs.readers.timepix import open_timepix

__all__ = ["Chosen", "Selection", "open_frames", "open_source"]

_EVERY = Selection()


def open_frames(
    path: str,
    *,
    frame_time_s: float | None = None,
    selection: Selection = _EVERY,
    mask: NDArray[np.bool_] | None = None,
) -> Chosen:
    """The chosen frames of the file at `path`, whatever its format.

    An HDF5 file is known by its content; Rigaku's `.bin` and `.bin.000` to `.005`, Timepix4's `.tpx` and `.imm` by
    their names. Memory is bounded by some 10^8 bytes, whatever the size of the file.

    Parameters
    ----------
    path : str
    frame_time_s : float, optional
        From one frame to the next; for Timepix4, into which time photons are put together. Not given: that of the
        `*_metadata.hdf` beside the file.
    selection : Selection
    mask : ndarray of bool, shape (rows, columns), optional
        False: the pixel does not count.

    Raises
    ------
    KernelError
        Exit 66 when the file is missing, empty or no file, 65 when it is of no known format or damaged, 2 when the
        selection does not fit it.
    """
    if frame_time_s is None:
        regular(path)
        try:
            frame_time_s = read_metadata(find_metadata(path)).frame_time_s
        except KernelError as error:
            raise error.with_hint(" Or give the time of a frame.") from error
    if not 0 < frame_time_s < float("inf"):
        raise KernelError(f"The time of a frame must be more than 0 s, not {frame_time_s:g}.")
    source = open_source(path, frame_time_s)
    return Chosen(source, name=path, frame_time_s=frame_time_s, selection=selection, mask=mask)


def open_source(path: str, frame_time_s: float) -> Source:
    """All frames of the file at `path`; errors as `open_frames`."""
    regular(path)
    if is_hdf5(path):
        return Hdf5Source(path)
    if re.search(r"\.bin(\.00[0-5])?$", path):
        return open_rigaku(path)
    if path.endswith(".tpx"):
        return open_timepix(path, frame_time_s)
    if path.endswith(".imm"):
        return ImmSource(path)
    raise KernelError(
        f"The format of {path!r} is not known: it is not HDF5, and does not end in .bin, .bin.000, .imm or .tpx.",
        Exit.BAD_INPUT,
    )
