"""The packages that can find grains, and how each is had. None is imported before it is asked for."""

from __future__ import annotations

import importlib
import warnings
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from types import ModuleType
from typing import NamedTuple

from kernels.errors import KernelError

OWN = "own"


class Package(NamedTuple):
    """One package: what it is called, by which name it is distributed, which module is looked for, how it is had."""

    title: str
    distribution: str
    module: str
    install: str


PACKAGES = {
    "imaged11": Package("ImageD11", "ImageD11", "ImageD11", "pip install ImageD11==2.1.3"),
    "midas": Package(
        "MIDAS",
        "midas-suite",
        "midas_pipeline",
        "pip install torch, then CMAKE_ARGS=-DCMAKE_CUDA_COMPILER=NOTFOUND pip install midas-suite==0.12.0 numba parsl",
    ),
}
BACKENDS = (OWN, *PACKAGES)


def load(backend: str, module: str = "") -> ModuleType:
    """The package, or a module of it, imported.

    Raises
    ------
    KernelError
        Exit 2 when it cannot be; the sentence says why and how it is installed.
    """
    package = PACKAGES[backend]
    try:
        with warnings.catch_warnings():  # of threads beside processes that are forked, which ours are not
            warnings.simplefilter("ignore")
            return importlib.import_module(module or package.module)
    except ImportError as error:
        name = (error.name or "").partition(".")[0]
        missing = isinstance(error, ModuleNotFoundError) and name == package.module
        why = "it is not installed" if missing else f"it does not load ({error})"
        raise KernelError(
            f"backend {backend} needs {package.title}, and {why} for this Python. "
            f"Install it ({package.install}), or leave backend out."
        ) from error


def described(backend: str) -> str:
    """What will find the grains, in words with a version: `ImageD11 2.1.3`; ours is empty.

    Raises
    ------
    KernelError
        Exit 2 for a package that is not there.
    """
    if backend == OWN:
        return ""
    package = PACKAGES[backend]
    if find_spec(package.module) is None:
        load(backend)
    try:
        return f"{package.title} {version(package.distribution)}"
    except PackageNotFoundError:
        return f"{package.title} of unknown version"
