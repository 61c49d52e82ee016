"""Whether there is a GPU to compute on, and CuPy by which it is reached."""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple

from kernels import devices
from kernels.errors import KernelError

ALGORITHMS = ("gridrec",)  # that run on a GPU
DEVICES = ("auto", "cpu", "gpu")


class Cuda(NamedTuple):
    """CuPy's modules, and the device's name and memory, bytes."""

    cupy: Any
    cupyx: Any
    fft: Any
    name: str
    memory: int


class Choice(NamedTuple):
    """What computes, `cpu` or `gpu`, and why a GPU that this process was given does not; else empty."""

    kind: str
    reason: str = ""


def open_device() -> Cuda:
    """The GPU that this process sees first.

    Raises
    ------
    KernelError
        Exit 2 when CuPy or one of the CUDA libraries is missing, or no device can be opened.
    """
    try:
        cupy, cupyx = importlib.import_module("cupy"), importlib.import_module("cupyx")
        # Both look for a library that is part of CUDA and not of CuPy.
        cupy.cuda.nvrtc.getVersion()
        cupy.cuda.cufft.__name__  # noqa: B018
        fft = importlib.import_module("cupyx.scipy.fft")
    except (ImportError, OSError, RuntimeError) as error:
        raise KernelError(
            f"The GPU needs CuPy and CUDA's libraries, which cannot be loaded ({_first_line(error)}): "
            "pip install 'beamway[gpu]', or take device cpu."
        ) from error
    try:
        count = cupy.cuda.runtime.getDeviceCount()
        if count:
            device = cupy.cuda.Device()
            properties = cupy.cuda.runtime.getDeviceProperties(device.id)
            return Cuda(cupy, cupyx, fft, properties["name"].decode(), int(device.mem_info[1]))
    except RuntimeError as error:
        raise KernelError(f"The GPU cannot be opened ({_first_line(error)}): take device cpu.") from error
    raise KernelError("This process sees no GPU: ask for one (gpusPerRank), or take device cpu.")


def choose(wanted: str, algorithm: str) -> Choice:
    """What computes `algorithm` where the user wants `auto`, `cpu` or `gpu`.

    Raises
    ------
    KernelError
        Exit 2 when a GPU is wanted and there is none, or the algorithm does not run on one.
    """
    if wanted == "gpu" and algorithm not in ALGORITHMS:
        raise KernelError(f"{algorithm} does not run on a GPU: take {', '.join(ALGORITHMS)}, or device cpu.")
    if wanted == "cpu" or algorithm not in ALGORITHMS or (wanted == "auto" and not devices.visible()):
        return Choice("cpu")
    try:
        open_device()
    except KernelError as error:
        if wanted == "gpu":
            raise
        return Choice("cpu", error.sentence)
    return Choice("gpu")


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
