"""CUDA C of ours: compiled where it runs, by the NVRTC that CuPy has found, for the GPU that is there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kernels.cuda.device import Cuda

_INCLUDED = re.compile(r'^#include "(\w+\.cuh)"$', re.MULTILINE)


def text(source: Path) -> str:
    """A source with those parts put in that it includes from its own folder, as the compiler looks in none."""
    return _INCLUDED.sub(
        lambda found: source.with_name(found[1]).read_text(encoding="utf-8"), source.read_text(encoding="utf-8")
    )


def defines(constants: Mapping[str, int | str]) -> tuple[str, ...]:
    """The options that give a source its constants."""
    return tuple(f"-D{name}={value}" for name, value in constants.items())


def functions(cuda: Cuda, source: Path, options: tuple[str, ...], names: tuple[str, ...]) -> dict[str, Any]:
    """The kernels of a source by name. Each is called with a grid, a block, and arguments of the very types that the
    source declares: arrays of CuPy, and numbers of NumPy.

    Raises
    ------
    RuntimeError
        When the compiler refuses the source, as one that does not know the GPU may.
    """
    try:
        module = cuda.cupy.RawModule(code=text(source), options=options)
        return {name: module.get_function(name) for name in names}
    except cuda.cupy.cuda.compiler.CompileException as error:
        raise RuntimeError(str(error)) from error
