"""Write large pieces straight to the disk, past the page cache: no copy of them, and nothing left to be synced later.

A buffered write takes a core a second for two gigabytes, which the work beside it wants, and a sync that waits for all
of it in the end. Where a file system has no direct writes, or a piece does not suit them, it is written as usual and
synced.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_ALIGNED = 4096
_NONE = {errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP}


def room(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Room for little-endian float32 numbers that begins where a direct write may."""
    count = int(np.prod(shape)) * 4
    raw = np.empty(count + _ALIGNED, np.uint8)
    first = -raw.ctypes.data % _ALIGNED
    return raw[first : first + count].view("<f4").reshape(shape)


def write(path: Path, values: NDArray[Any]) -> None:
    """Make the file `path` of a contiguous array, on the disk when this ends."""
    piece = values.data.cast("B")
    if not len(piece) % _ALIGNED and not values.ctypes.data % _ALIGNED:
        try:
            _written(path, piece, os.O_DIRECT)
            return
        except OSError as error:
            if error.errno not in _NONE:
                raise
    _written(path, piece, 0)


def _written(path: Path, piece: memoryview, how: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | how, 0o666)
    try:
        while piece:
            piece = piece[os.write(descriptor, piece) :]
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)
