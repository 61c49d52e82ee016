"""The list of kernels. Imports in milliseconds: no NumPy, no Numba, no HDF5 until a kernel runs."""

from __future__ import annotations

from kernels.errors import KernelError, UnknownKernel, nearest, printable
from kernels.products.specs import KERNELS as _PRODUCTS
from kernels.spec import KernelArgument, KernelSpec
from kernels.tomography.specs import KERNELS as _TOMOGRAPHY
from kernels.xpcs.specs import KERNELS as _XPCS

__all__ = ["KernelArgument", "KernelError", "KernelSpec", "UnknownKernel", "get", "names"]

_ALL = {spec.name: spec for spec in (*_PRODUCTS, *_TOMOGRAPHY, *_XPCS)}


def names() -> list[str]:
    """The names of all kernels, sorted."""
    return sorted(_ALL)


def get(name: str) -> KernelSpec:
    """The kernel called `name`.

    Raises
    ------
    UnknownKernel
        A `KeyError` and a `KernelError` with exit code 2; the sentence suggests the nearest name.
    """
    try:
        return _ALL[name]
    except KeyError:
        raise UnknownKernel(
            f"There is no kernel {printable(name)!r}.{nearest(name, _ALL)} Known: {', '.join(names())}."
        ) from None
