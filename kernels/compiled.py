"""Compile with Numba, keeping the machine code on disk where that is possible.

Numba writes its cache to a temporary file and renames it, so processes that compile at the same time do not disturb
each other. Where neither the package's folder nor the user's cache folder can be written, Numba refuses to decorate
at all; a kernel then compiles anew in each process instead of not running.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

# Threads that wait for work sleep: by default they spin for a while, which takes up to three quarters of the processor
# time from whatever runs beside. Read when the first compiled function loads its threads.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

F = TypeVar("F", bound=Callable[..., Any])


def compiled(*, parallel: bool = False, fastmath: bool = False) -> Callable[[F], F]:
    """Decorate a function to be compiled, without the GIL held and with division by zero as NumPy has it."""

    def decorate(function: F) -> F:
        def jit(*, cache: bool) -> Any:
            return numba.njit(cache=cache, nogil=True, parallel=parallel, fastmath=fastmath, error_model="numpy")

        try:
            return cast(F, jit(cache=True)(function))
        except RuntimeError:
            return cast(F, jit(cache=False)(function))

    return decorate


def use_at_most(cores: int) -> None:
    """Let the kernels of this process use no more than `cores` threads."""
    numba.set_num_threads(min(cores, threads()))


def threads() -> int:
    """How many threads a kernel uses: NUMBA_NUM_THREADS, or else the CPUs of this process; of several ranks on a node
    each at most its share."""
    return int(numba.get_num_threads())
