"""Whether a GPU reconstructs."""

from __future__ import annotations

from functools import partial

from kernels.cuda import device
from kernels.cuda.device import Choice, open_device
from kernels.errors import KernelError

ALGORITHMS = ("gridrec",)  # that run on a GPU


def choose(wanted: str, algorithm: str) -> Choice:
    """What computes `algorithm` where the user wants `auto`, `cpu` or `gpu`.

    Raises
    ------
    KernelError
        Exit 2 when a GPU is wanted and there is none, or the algorithm does not run on one.
    """
    if algorithm in ALGORITHMS:
        return device.choose(wanted, partial(open_device, transforms=True))
    if wanted == "gpu":
        raise KernelError(f"{algorithm} does not run on a GPU: take {', '.join(ALGORITHMS)}, or device cpu.")
    return Choice("cpu")
