"""GE detectors as APS 1-ID writes them: a header of 8192 bytes, then frame after frame of 16-bit counts."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.hedm.frames import scan
from kernels.hedm.frames.source import Buffers, Doubles, Limits, Seen, bad, frames_at_once, plausible
from kernels.io.hdf5 import regular

HEADER = 8192
SHAPE = (2048, 2048)


class GeSource:
    """The frames of a GE file (see `Source`); it says nothing of their shape or omegas.

    Raises
    ------
    KernelError
        Exit 66 when the file is missing or empty, 65 when it does not hold whole frames of this shape.
    """

    omega_deg: Doubles | None = None
    masked: NDArray[np.bool_] | None = None
    held = "frames"
    deep = 1

    def __init__(self, path: str, *, shape: tuple[int, int] = SHAPE) -> None:
        self.path = self.name = path
        self.rows, self.columns = shape
        self.kind: np.dtype[Any] = np.dtype(np.uint16)
        size = regular(path).st_size - HEADER
        frame = self.rows * self.columns * 2
        self.count, left = divmod(max(size, 0), frame)
        if size < 0 or (left and not self.count):
            raise bad(path, f"it has {size + HEADER} bytes, less than a header and a frame of {shape}. Copy it again.")
        if left:
            raise bad(
                path,
                f"{left} bytes follow {self.count} frames of {shape}: it is truncated, or of another shape. "
                "Copy it again, or give the shape.",
            )
        plausible(path, self.count, self.rows, self.columns)
        self.at_once = frames_at_once(self.rows, self.columns, self.kind)
        self._room, self._buffers = scan.Room(), Buffers()

    def frames(self, first: int, beyond: int) -> NDArray[Any]:
        return self._read(first, np.empty((beyond - first) * self.rows * self.columns * 2, np.uint8))

    def fill(self, first: int, beyond: int, into: NDArray[Any]) -> None:
        self._read(first, into.reshape(-1).view(np.uint8))  # whose bytes are in the order of the file's

    def read(self, first: int, beyond: int) -> NDArray[Any]:
        return self._read(first, self._buffers.next((beyond - first) * self.rows * self.columns * 2))

    def look(self, block: Any, limits: Limits, above: NDArray[Any]) -> Seen:
        return scan.look(block, limits, above, self._room)

    def _read(self, first: int, into: NDArray[np.uint8]) -> NDArray[Any]:
        with open(self.path, "rb", buffering=0) as file:
            file.seek(HEADER + 2 * first * self.rows * self.columns)
            done = 0
            while done < len(into):
                got = file.readinto(into[done:].data)
                if not got:
                    raise bad(self.path, "the file has become shorter while it was read.")
                done += got
        return into.view("<u2").astype(np.uint16, copy=False).reshape(-1, self.rows, self.columns)
