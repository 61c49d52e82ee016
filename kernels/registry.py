"""The list of kernels. Imports in milliseconds: no NumPy, no Numba, no HDF5 until a kernel runs."""

from __future__ import annotations

from kernels.errors import KernelError, UnknownKernel, nearest, printable
from kernels.hedm.specs import KERNELS as _HEDM
from kernels.products.specs import KERNELS as _PRODUCTS
from kernels.spec import KernelArgument, KernelSpec
from kernels.tomography.specs import KERNELS as _TOMOGRAPHY
from kernels.xpcs.specs import KERNELS as _XPCS

__all__ = ["ALIASES", "KernelArgument", "KernelError", "KernelSpec", "UnknownKernel", "get", "names", "summary"]

# Other names for what is there, as people look for it: the same kernel, under its own name in all that it writes.
ALIASES = {
    "tomography.find-center": "tomography.axis",
    "tomography.phase-retrieve": "tomography.correct",
}
_ALL = {spec.name: spec for spec in (*_HEDM, *_PRODUCTS, *_TOMOGRAPHY, *_XPCS)}


def names() -> list[str]:
    """The names of all kernels, and their other ones, sorted."""
    return sorted({*_ALL, *ALIASES})


def get(name: str) -> KernelSpec:
    """The kernel called `name`, which may be another name of it.

    Raises
    ------
    UnknownKernel
        A `KeyError` and a `KernelError` with exit code 2; the sentence suggests the nearest name.
    """
    try:
        return _ALL[ALIASES.get(name, name)]
    except KeyError:
        raise UnknownKernel(
            f"There is no kernel {printable(name)!r}.{nearest(name, names())} Known: {', '.join(names())}."
        ) from None


def summary(name: str) -> str:
    """What the kernel does, or of another name whose it is."""
    spec = get(name)
    return spec.summary if name == spec.name else f"another name of {spec.name}"
