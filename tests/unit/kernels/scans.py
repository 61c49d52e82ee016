"""What the tests of the kernels share: a quiet way to run one, and small objects that are known exactly."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from kernels import contract

SMALL = {"columns": 96, "rows": 6, "angles": 120, "flats": 8, "axisOffset": 3.3}


def run(name: str, **arguments: Any) -> contract.KernelResult:
    """Run a kernel in process, quietly."""
    return contract.run(name, arguments, say=None)


def replace(group: h5py.Group, name: str, **how: Any) -> None:
    """Put another data set in the place of one."""
    del group[name]
    group.create_dataset(name, **how)


def left_behind(folder: Path, *, but: Collection[str] = ()) -> list[str]:
    """What lies in a folder besides what belongs there."""
    return sorted(p.name for p in folder.iterdir() if p.name not in but)


def disc(size: int, radius: float, samples: int = 8) -> np.ndarray[Any, np.dtype[np.float64]]:
    """A disc of value 1 about the middle of a square, area-averaged."""
    fine = (np.arange(size * samples) + 0.5) / samples - 0.5 * size
    inside = fine**2 + fine[:, None] ** 2 <= radius**2
    return inside.reshape(size, samples, size, samples).mean((1, 3))
