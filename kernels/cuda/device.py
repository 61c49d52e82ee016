"""Whether there is a GPU to compute on, and CuPy by which it is reached."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

from kernels import devices
from kernels.errors import Exit, KernelError
from kernels.job import Job

DEVICES = ("auto", "cpu", "gpu")


class Cuda(NamedTuple):
    """CuPy's modules (`fft` where transforms were asked for), and the device's name and memory, bytes."""

    cupy: Any
    cupyx: Any
    fft: Any
    name: str
    memory: int

    @property
    def free(self) -> int:
        """Bytes of the device's memory that nobody has."""
        return int(self.cupy.cuda.Device().mem_info[0])


class Choice(NamedTuple):
    """What computes, `cpu` or `gpu`; why a GPU that this process was given does not, else empty; and what has been
    made ready on the GPU."""

    kind: str
    reason: str = ""
    ready: Any = None


def open_device(*, transforms: bool = False) -> Cuda:
    """The GPU that this process sees first; with `transforms`, those of cuFFT too.

    Raises
    ------
    KernelError
        Exit 2 when CuPy or one of the CUDA libraries is missing, or no device can be opened.
    """
    try:
        cupy, cupyx = importlib.import_module("cupy"), importlib.import_module("cupyx")
        # Both look for a library that is part of CUDA and not of CuPy.
        cupy.cuda.nvrtc.getVersion()
        if transforms:
            cupy.cuda.cufft.__name__  # noqa: B018
        fft = importlib.import_module("cupyx.scipy.fft") if transforms else None
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


def choose(wanted: str, prepare: Callable[[], Any]) -> Choice:
    """What computes where the user wants `auto`, `cpu` or `gpu`; `auto` is a GPU that this process was given.

    `prepare` makes ready on the GPU what is needed, and raises `KernelError` where that cannot be.

    Raises
    ------
    KernelError
        What `prepare` raises, where a GPU is wanted.
    """
    if wanted == "cpu" or (wanted == "auto" and not devices.visible()):
        return Choice("cpu")
    try:
        return Choice("gpu", ready=prepare())
    except KernelError as error:
        if wanted == "gpu":
            raise
        return Choice("cpu", error.sentence)


def agreed(job: Job, choice: Choice) -> Choice:
    """The choice of all ranks: the GPU where each has one that it can use. Reports `device`, and `device_reason` where
    a GPU that was given is not used."""
    ranks = job.ranks
    kind = ranks.told("gpu" if all(kind == "gpu" for kind in ranks.gathered(choice.kind)) else "cpu")
    if choice.kind != kind:
        choice = Choice(kind, "another rank has no GPU that it can use")
    job.metric("device", kind)
    if choice.reason:
        job.metric("device_reason", choice.reason)
    return choice


def failed(error: BaseException) -> KernelError:
    """What to say when a GPU fails at work."""
    return KernelError(f"The GPU failed ({_first_line(error)}): try again, or take device cpu.", Exit.TRANSIENT)


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
