"""Arrays on a GPU by their names, which keep their room from call to call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from kernels.cuda.device import Cuda

Size = tuple[int, DTypeLike]


def bytes_of(sizes: Mapping[str, Size]) -> int:
    """Of arrays of so many numbers of a kind."""
    return sum(count * np.dtype(kind).itemsize for count, kind in sizes.values())


class Arrays:
    """Room for `sizes` from the beginning, and for more when it is asked for.

    All is done in one stream, in order. What is sent has to stay as it is until something is fetched.
    """

    def __init__(self, cuda: Cuda, sizes: Mapping[str, Size]) -> None:
        self._cuda = cuda
        self._held: dict[str, Any] = {}
        self._sent: list[NDArray[Any]] = []
        for name, (count, kind) in sizes.items():
            self.room(name, count, kind)

    def room(self, name: str, count: int, kind: DTypeLike) -> Any:
        """Room for `count` numbers, of which nothing is known."""
        held = self._held.get(name)
        if held is None or held.shape[0] < count:
            self._held.pop(name, None)
            held = self._held[name] = self._cuda.cupy.ndarray((max(count, 1),), np.dtype(kind))
        return held

    def send(self, name: str, values: NDArray[Any], kind: DTypeLike) -> Any:
        """The values, in the order in which they lie, as numbers of this kind."""
        host = np.ascontiguousarray(values, kind)
        there = self.room(name, host.size, kind)
        if host.size:
            self._sent.append(host)
            there.data.copy_from_host_async(host.ctypes.data, host.nbytes)
        return there

    def fetch(self, name: str, shape: tuple[int, ...], kind: DTypeLike) -> NDArray[Any]:
        """The first numbers of an array, when all that was to be done has been done."""
        host = np.empty(shape, kind)
        if host.size:
            self._held[name].data.copy_to_host_async(host.ctypes.data, host.nbytes)
        self._cuda.cupy.cuda.Device().synchronize()
        self._sent.clear()
        return host
