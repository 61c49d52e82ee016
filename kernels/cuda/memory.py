"""How much fits into the memory of a GPU, which is known for certain only when it has been tried."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from kernels.cuda.device import Cuda
from kernels.errors import Exit, KernelError

T = TypeVar("T")

SAFE = 0.9  # of the device's free memory may be used


def as_many(cuda: Cuda, most: int, make: Callable[[int], T], *, least: int = 1) -> T:
    """What `make` makes of the largest number, halved from `most` down to `least` while memory runs out.

    Raises
    ------
    MemoryError
        When even the least does not fit.
    """
    pool = cuda.cupy.get_default_memory_pool()
    count = most
    while True:
        try:
            return make(count)
        except MemoryError:
            if count <= least:
                raise
        pool.free_all_blocks()  # here, where no error holds any more what had been made before it
        count = max(least, count // 2)


def too_small(cuda: Cuda, what: str, need: int, otherwise: str) -> KernelError:
    """What to say when `what` does not fit, which needs so many bytes; `otherwise` is what else there is to do."""
    said = f"{what} need about {need / 1e9:.2g} GB of the GPU"
    if need > SAFE * cuda.memory:
        return KernelError(f"{said}, and {cuda.name} has {cuda.memory / 1e9:.2g} GB: {otherwise}.")
    return KernelError(f"{said}, whose memory others use: try again, or take device cpu.", Exit.TRANSIENT)
