"""What other programs say: xfab and ImageD11, where `make` has put them beside the environment."""

from __future__ import annotations

import sys
import warnings
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

PLACE = Path(sys.prefix, "imaged11")


def xfab_tools() -> ModuleType:
    """`xfab.tools`, or the test is skipped."""
    return xfab_module("tools")


def xfab_module(name: str) -> ModuleType:
    """A module of xfab, or the test is skipped."""
    return _module(f"xfab.{name}")


def imaged11(name: str) -> ModuleType:
    """A module of ImageD11 that needs nothing but NumPy, or the test is skipped."""
    return _module(f"ImageD11.{name}")


def _module(name: str) -> ModuleType:
    if not PLACE.is_dir():
        pytest.skip(f"{name} is not installed in {PLACE}; make test puts it there")
    if str(PLACE) not in sys.path:
        sys.path.append(str(PLACE))
    try:
        with warnings.catch_warnings():  # ImageD11 warns where processes could be forked
            warnings.simplefilter("ignore", UserWarning)
            return import_module(name)
    except ImportError as error:
        pytest.skip(f"{name} cannot be imported: {error}")
