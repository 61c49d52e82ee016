"""What slices are made from, as it goes to the device: sinograms, or counts with what the flats and darks say."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from kernels.cuda.device import Cuda
from kernels.tomography.field import Field

Floats = NDArray[np.float32]
Shorts = NDArray[np.uint16]


class Source(Protocol):
    """`count` slices; `kernel` takes them from the device's memory."""

    count: int
    kernel: str

    def staged(self, part: slice, room: Floats) -> tuple[NDArray[Any], NDArray[Any]]:
        """These slices, and where they belong in `room`."""

    def arguments(self, part: slice, arrived: Any) -> tuple[Any, ...]:
        """Of the kernel, for these slices in the device's array `arrived`; those that are its own."""


class Sinograms:
    """Line integrals, (slices, angles, columns)."""

    kernel = "take_lines"

    def __init__(self, values: Floats) -> None:
        self.count, self._values = len(values), values

    def staged(self, part: slice, room: Floats) -> tuple[Floats, Floats]:
        given = self._values[part]
        return given, room[: len(given)]

    def arguments(self, part: slice, arrived: Any) -> tuple[Any, ...]:
        return (arrived,)


class Counts:
    """Counts, (angles, slices, columns), which the device turns into line integrals as `prepare.prepare` does."""

    kernel = "take_counts"

    def __init__(self, cuda: Cuda, counts: Shorts, field: Field, floor: float) -> None:
        self.count, self._counts, self._cuda = counts.shape[1], counts, cuda
        as_array = cuda.cupy.asarray
        self._field = [as_array(each) for each in (field.dark, field.response, field.left, field.right)]
        self._floor = np.float32(floor)
        self._floored = as_array(np.zeros(1, np.uint32))
        cuda.cupy.cuda.Device().synchronize()  # other streams use them

    def staged(self, part: slice, room: Floats) -> tuple[Shorts, Shorts]:
        given = self._counts[:, part]
        return given, room.reshape(-1).view(np.uint16)[: given.size].reshape(given.shape)

    def arguments(self, part: slice, arrived: Any) -> tuple[Any, ...]:
        counts = self._cuda.cupy.ndarray(arrived.shape, np.uint16, memptr=arrived.data)
        return (counts, *self._field, np.int32(part.start), self._floor, self._floored)

    def floored(self) -> int:
        """How many transmissions lay below the floor, when all slices are there."""
        return int(self._floored.get()[0])
