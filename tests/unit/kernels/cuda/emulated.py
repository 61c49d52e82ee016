"""A GPU that is none: the part of CuPy that our kernels use, on NumPy, with the CUDA source itself compiled by g++.

What is put on a stream runs later, in an order drawn by lot among all that streams and events allow: a wait that is
missing gives wrong results for some seed. Memory is counted, runs out, begins as NaN, and has a fence around each
allocation that a kernel must not touch. Arguments of kernels have to be of the very types that the source declares.
"""

from __future__ import annotations

import ctypes
import random
import re
import subprocess
import sys
import weakref
from collections import deque
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import scipy.fft

SHIM = Path(__file__).with_name("shim.h")
_FENCE = 256
_KERNEL = re.compile(r'extern "C" __global__ void (\w+)')
_UNSIGNED3 = ctypes.c_uint * 3


class OutOfMemoryError(MemoryError):
    pass


class CUDARuntimeError(RuntimeError):
    pass


class CompileException(Exception):
    pass


class NotCompiled(Exception):
    """The source is none: no mistake that a test of what kernels do could see."""


@cache
def build(source: str, options: tuple[str, ...]) -> ctypes.CDLL:
    """The kernels of a CUDA source for this processor."""
    exports = "\n".join(f"EXPORT({name})" for name in _KERNEL.findall(source))
    defines = [word for word in options if word.startswith("-D")]
    # Fibers jump between stacks, which fortified libraries take for an error.
    flags = ["-std=c++17", "-O1", "-U_FORTIFY_SOURCE", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror"]
    flags += ["-Wno-unknown-pragmas", "-Wl,-Bsymbolic"]  # a kernel may be called as a function of the C library is
    with TemporaryDirectory(prefix="beamway-cuda-") as folder:
        code, library = Path(folder, "kernels.cpp"), Path(folder, "kernels.so")
        code.write_text(f'#include "{SHIM}"\n#line 1 "source.cu"\n{source}\n{exports}\n')
        command = ["g++", *flags, *defines, "-shared", "-fPIC", "-o", str(library), str(code)]
        said = subprocess.run(command, capture_output=True, text=True, check=False)
        if said.returncode:
            raise NotCompiled(said.stderr)
        return ctypes.CDLL(str(library))


class Memory:
    """An allocation, of NaN or of what is no number one would want, between fences."""

    def __init__(self, device: Device, size: int) -> None:
        self.device, self.size = device, size
        if device.used + size > device.memory:
            raise OutOfMemoryError(f"Out of memory allocating {size} bytes")
        device.used += size
        device.peak = max(device.peak, device.used)
        self.whole = np.full(size + 2 * _FENCE, 0xFF, np.uint8)  # all bits set is NaN, of either width
        self.bytes = self.whole[_FENCE : _FENCE + size]
        weakref.finalize(self, device.freed, size)
        device.living.add(self)

    @property
    def ptr(self) -> int:
        return int(self.bytes.ctypes.data)

    def fenced(self) -> bool:
        return bool((self.whole[:_FENCE] == 0xFF).all() and (self.whole[_FENCE + self.size :] == 0xFF).all())

    def memset_async(self, value: int, size: int, stream: Stream | None = None) -> None:
        assert size <= self.size
        self.device.put(lambda: ctypes.memset(self.ptr, value, size), stream)

    def copy_from_host_async(self, host: int, size: int, stream: Stream | None = None) -> None:
        assert size <= self.size
        self.device.put(lambda: ctypes.memmove(self.ptr, host, size), stream)

    def copy_to_host_async(self, host: int, size: int, stream: Stream | None = None) -> None:
        assert size <= self.size
        self.device.put(lambda: ctypes.memmove(host, self.ptr, size), stream)


def _pinned(shape: Any, dtype: Any) -> Any:
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.full(size, 0xFF, np.uint8).view(dtype).reshape(shape)


class Array:
    """An array on the device."""

    def __init__(self, device: Device, shape: Any, dtype: Any, memptr: Memory | None = None) -> None:
        assert isinstance(shape, tuple)
        assert all(isinstance(length, int) for length in shape)
        self.shape = shape
        self.dtype = np.dtype(dtype)
        size = int(np.prod(self.shape)) * self.dtype.itemsize
        self.data = memptr or Memory(device, size)
        assert size <= self.data.size
        self.host = self.data.bytes[:size].view(self.dtype).reshape(self.shape)

    def get(self) -> Any:
        self.data.device.finish()
        return self.host.copy()


class Event:
    def __init__(self, device: Device) -> None:
        self._device = device
        self.recorded, self.fired = 0, 0

    def record(self, stream: Stream) -> None:
        self.recorded += 1
        number = self.recorded

        def fire() -> None:
            self.fired = number

        self._device.put(fire, stream)

    def synchronize(self) -> None:
        self._device.run_until(lambda number=self.recorded: self.fired >= number)  # type: ignore[misc]


class Stream:
    """A queue of what is to be done: work, or an event and the number of times that it must have been reached."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self.queue: deque[Callable[[], Any] | tuple[Event, int]] = deque()

    def wait_event(self, event: Event) -> None:
        self.queue.append((event, event.recorded))

    def __enter__(self) -> Stream:
        self._device.current.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._device.current.pop()


class Kernel:
    def __init__(self, device: Device, library: ctypes.CDLL, name: str) -> None:
        self._device, self._name = device, name
        self._launch = getattr(library, f"launch_{name}")
        signature = getattr(library, f"signature_{name}")
        signature.restype = ctypes.c_char_p
        self._types = signature().decode().split()

    def __call__(self, grid: tuple[int, ...], block: tuple[int, ...], arguments: tuple[Any, ...]) -> None:
        given = [f"*{a.dtype}" if isinstance(a, Array) else str(np.asarray(a).dtype) for a in arguments]
        assert given == self._types, f"{self._name} takes {self._types}, not {given}"
        assert all(isinstance(a, Array | np.generic) for a in arguments), "only NumPy's numbers say their width"
        assert np.prod(block) <= 1024
        assert 0 < grid[0] < 2**31
        assert 0 < grid[1] < 65536
        held = [np.array(a.data.ptr if isinstance(a, Array) else a) for a in arguments]
        pointers = (ctypes.c_void_p * len(held))(*(each.ctypes.data for each in held))

        def launch(alive: Any = (held, arguments)) -> None:
            backwards = self._device.lot.random() < 0.5
            assert not self._launch(_UNSIGNED3(*grid), _UNSIGNED3(*block), pointers, int(backwards)), self._name
            assert all(each.fenced() for each in self._device.living), f"{self._name} wrote beyond an array"

        self._device.put(launch)


class Device:
    """One device: its memory, its streams, and the modules through which programs see them.

    Attributes
    ----------
    memory, used, peak
        Bytes.
    """

    def __init__(self, memory: int = 1 << 30, *, seed: int = 0, count: int = 1) -> None:
        self.memory, self.used, self.peak = memory, 0, 0
        self.living: weakref.WeakSet[Memory] = weakref.WeakSet()
        self.lot = random.Random(seed)
        self.transforms = 0
        self._count = count
        self._null = Stream(self)
        self.streams = [self._null]
        self.current = [self._null]

    def put(self, work: Callable[[], Any], stream: Stream | None = None) -> None:
        (stream or self.current[-1]).queue.append(work)
        for _ in range(self.lot.choice((0, 0, 1, 3))):
            self._step()

    def run_until(self, done: Callable[[], bool]) -> None:
        while not done():
            assert self._step(), "the streams wait for each other"

    def finish(self) -> None:
        self.run_until(lambda: not any(stream.queue for stream in self.streams))

    def _step(self) -> bool:
        """Do one thing of a stream that need not wait."""
        ready = []
        for stream in self.streams:
            while stream.queue and isinstance(first := stream.queue[0], tuple) and first[0].fired >= first[1]:
                stream.queue.popleft()
            if stream.queue and not isinstance(stream.queue[0], tuple):
                ready.append(stream)
        if ready:
            work = self.lot.choice(ready).queue.popleft()
            assert not isinstance(work, tuple)
            work()
        return bool(ready)

    def freed(self, size: int) -> None:
        self.used -= size

    def _new_stream(self, non_blocking: bool) -> Stream:
        assert non_blocking, "would wait for the null stream"
        self.streams.append(stream := Stream(self))
        return stream

    def _as_array(self, values: Any) -> Array:
        values = np.array(values)
        made = Array(self, values.shape, values.dtype)
        self.put(lambda: np.copyto(made.host, values))
        return made

    def _plan(self, array: Array, axes: Any) -> SimpleNamespace:
        """A transform's plan, with a work area as large as the data."""
        axes = (axes,) if isinstance(axes, int) else axes
        return SimpleNamespace(shape=array.shape, axes=axes, area=Memory(self, array.host.nbytes))

    def _transform(self, array: Array, axes: tuple[int, ...], plan: SimpleNamespace, how: Callable[..., Any]) -> Array:
        assert (plan.shape, plan.axes) == (array.shape, axes)
        self.transforms += 1

        def work() -> None:
            with np.errstate(all="ignore"):  # what a chunk does not fill is NaN
                array.host[...] = how(array.host)

        self.put(work)
        return array

    def _fft(self, array: Array, *, axis: int, overwrite_x: bool, plan: SimpleNamespace) -> Array:
        assert overwrite_x
        return self._transform(array, (axis,), plan, lambda x: scipy.fft.fft(x, axis=axis))

    def _ifftn(self, array: Array, *, axes: Any, norm: str, overwrite_x: bool, plan: SimpleNamespace) -> Array:
        assert overwrite_x
        return self._transform(array, axes, plan, lambda x: scipy.fft.ifftn(x, axes=axes, norm=norm))

    def _count_devices(self) -> int:
        if not self._count:
            raise CUDARuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected\nand more")
        return self._count

    def modules(self) -> dict[str, Any]:
        """`sys.modules` of a process that has CuPy and sees this device."""
        runtime = SimpleNamespace(
            getDeviceCount=self._count_devices, getDeviceProperties=lambda _: {"name": b"Emulated GPU"}
        )
        this = lambda: SimpleNamespace(  # noqa: E731
            id=0, mem_info=(self.memory - self.used, self.memory), synchronize=self.finish
        )
        pool = SimpleNamespace(used_bytes=lambda: self.used, free_all_blocks=lambda: None)
        cupy, cupyx, fft = ModuleType("cupy"), ModuleType("cupyx"), ModuleType("cupyx.scipy.fft")
        vars(cupy).update(
            asarray=self._as_array,
            ndarray=lambda shape, dtype, memptr=None: Array(self, shape, dtype, memptr),
            get_default_memory_pool=lambda: pool,
            RawModule=lambda code, options: SimpleNamespace(
                get_function=lambda name: Kernel(self, build(code, options), name)
            ),
            cuda=SimpleNamespace(
                runtime=runtime,
                compiler=SimpleNamespace(CompileException=CompileException),
                nvrtc=SimpleNamespace(getVersion=lambda: (12, 9)),
                cufft=ModuleType("cupy.cuda.cufft"),
                Device=this,
                Stream=self._new_stream,
                Event=lambda disable_timing: Event(self),
                alloc=lambda size: Memory(self, size),
            ),
        )
        vars(cupyx).update(empty_pinned=_pinned)
        vars(fft).update(get_fft_plan=self._plan, fft=self._fft, ifftn=self._ifftn)
        return {"cupy": cupy, "cupyx": cupyx, "cupyx.scipy.fft": fft}

    def install(self, monkeypatch: Any) -> Device:
        for name, module in self.modules().items():
            monkeypatch.setitem(sys.modules, name, module)
        return self
