"""Frames that are in memory already, such as simulated ones."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.hedm.frames import scan
from kernels.hedm.frames.source import Doubles, Limits, Seen, bad, frames_at_once, held_as, plausible


class MemorySource:
    """An array of frames (see `Source`), shape (frames, rows, columns), of whole numbers or of floats.

    Raises
    ------
    KernelError
        Exit 65 for an array of another rank or kind.
    """

    masked: NDArray[np.bool_] | None = None
    held = "frames"
    deep = 1

    def __init__(self, stack: NDArray[Any], *, omega_deg: Doubles | None = None, name: str = "in memory") -> None:
        if stack.ndim != 3 or stack.dtype.kind not in "iuf":
            raise bad(name, f"they are an array {stack.shape} of {stack.dtype}, not of numbers (frame, row, column).")
        self.name = name
        self.count, self.rows, self.columns = stack.shape
        plausible(name, self.count, self.rows, self.columns)
        self.kind = held_as(stack.dtype)
        self.omega_deg = omega_deg
        self.at_once = frames_at_once(self.rows, self.columns, self.kind)
        self._stack, self._room = stack, scan.Room()

    def frames(self, first: int, beyond: int) -> NDArray[Any]:
        return np.ascontiguousarray(self._stack[first:beyond], self.kind)

    def fill(self, first: int, beyond: int, into: NDArray[Any]) -> None:
        np.copyto(into, self.frames(first, beyond))

    def read(self, first: int, beyond: int) -> NDArray[Any]:
        return self.frames(first, beyond)

    def look(self, block: Any, limits: Limits, above: NDArray[Any]) -> Seen:
        return scan.look(block, limits, above, self._room)
