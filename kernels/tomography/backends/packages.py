"""The packages that can reconstruct, what each can do, and how it is had. None is imported before it is asked for."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import NamedTuple

from kernels.errors import KernelError, nearest, printable

NATIVE = "native"


class Package(NamedTuple):
    """One package.

    Attributes
    ----------
    title, module, install
        What it is called, what is imported, and how it is installed, as a command.
    direct, iterative
        Its algorithms; the latter know iterations.
    nonnegative
        Those that can hold values at 0 or above.
    equals
        Names of ours that it has under another name, since both work out the same.
    """

    title: str
    module: str
    install: str
    direct: tuple[str, ...]
    iterative: tuple[str, ...]
    nonnegative: tuple[str, ...]
    equals: dict[str, str]

    @property
    def algorithms(self) -> tuple[str, ...]:
        return self.direct + self.iterative


PACKAGES = {
    "tomopy": Package(
        "TomoPy",
        "tomopy",
        "conda install -c conda-forge tomopy",
        ("gridrec", "fbp"),
        (
            *("art", "bart", "grad", "mlem", "osem", "ospml_hybrid", "ospml_quad"),
            *("pml_hybrid", "pml_quad", "sirt", "tikh", "tv"),
        ),
        ("mlem", "osem", "ospml_hybrid", "ospml_quad", "pml_hybrid", "pml_quad"),
        {},
    ),
    "astra": Package(
        "the ASTRA toolbox",
        "astra",
        "pip install beamway[astra]",
        ("fbp",),
        ("sirt", "cgls", "sart"),
        ("sirt", "sart"),
        {"gridrec": "fbp"},  # two ways to work out one sum
    ),
}
BACKENDS = (NATIVE, *PACKAGES)


def load(backend: str) -> ModuleType:
    """The package, imported.

    Raises
    ------
    KernelError
        Exit 2 when it cannot be; the sentence says why and how it is installed.
    """
    package = PACKAGES[backend]
    try:
        return importlib.import_module(package.module)
    except ImportError as error:
        why = "it is not installed" if isinstance(error, ModuleNotFoundError) else f"it does not load ({error})"
        raise KernelError(
            f"backend {backend} needs {package.title}, and {why} for this Python. "
            f"Install it ({package.install}), or leave backend out."
        ) from error


def described(backend: str, algorithm: str) -> str:
    """What will reconstruct, in words with a version: `ASTRA toolbox 2.5.0, fbp`; ours is empty.

    Raises
    ------
    KernelError
        Exit 2 for a package that is not there, or that does not have the algorithm.
    """
    if backend == NATIVE:
        return ""
    name = own_name(backend, algorithm)
    version = getattr(load(backend), "__version__", "of unknown version")
    return f"{PACKAGES[backend].title.removeprefix('the ')} {version}, {name}"


def own_name(backend: str, algorithm: str) -> str:
    """What the package calls the algorithm.

    Raises
    ------
    KernelError
        Exit 2 when it has no such one; the sentence says what it has.
    """
    package = PACKAGES[backend]
    name = package.equals.get(algorithm, algorithm)
    if name not in package.algorithms:
        raise KernelError(
            f"backend {backend} has no algorithm {printable(algorithm)!r}; it has {', '.join(package.algorithms)}."
            f"{nearest(algorithm, package.algorithms)}"
        )
    return name
