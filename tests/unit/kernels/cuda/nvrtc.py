"""NVIDIA's run-time compiler, from its package for Python: it needs neither a GPU nor a driver."""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Sequence
from pathlib import Path


class CompileError(Exception):
    """The compiler's log."""


def library() -> Path | None:
    """Where it is; None where it is not installed."""
    try:
        found = importlib.util.find_spec("nvidia.cuda_nvrtc")
    except ModuleNotFoundError:
        return None
    folders = found.submodule_search_locations if found else None
    return next((path for folder in folders or () for path in Path(folder, "lib").glob("libnvrtc.so.*")), None)


def compiled(source: str, options: Sequence[str], architecture: str) -> bytes:
    """PTX for a virtual architecture (compute_80); for a real one (sm_90) what its assembler has made of that.

    Raises
    ------
    CompileError
        When the source is refused.
    """
    path = library()
    assert path
    nvrtc = ctypes.CDLL(str(path))
    program = ctypes.c_void_p()
    _check(nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernels.cu", 0, None, None))
    words = [f"--gpu-architecture={architecture}".encode(), *(option.encode() for option in options)]
    try:
        failed = nvrtc.nvrtcCompileProgram(program, len(words), (ctypes.c_char_p * len(words))(*words))
        if failed:
            raise CompileError(_text(nvrtc, program, "ProgramLog").decode())
        return _text(nvrtc, program, "PTX" if architecture.startswith("compute") else "CUBIN")
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def _text(nvrtc: ctypes.CDLL, program: ctypes.c_void_p, what: str) -> bytes:
    size = ctypes.c_size_t()
    _check(getattr(nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size)))
    text = ctypes.create_string_buffer(size.value)
    _check(getattr(nvrtc, f"nvrtcGet{what}")(program, text))
    return text.raw


def _check(status: int) -> None:
    assert status == 0, f"NVRTC says {status}"
