"""Functions that the tests have called in workers."""

from __future__ import annotations

import os
import time
from pathlib import Path


def make(path: str, fault: str) -> None:
    """Write an HDF5 file of 4 × 8 float32, or one with a fault, and say nothing of it."""
    import h5py
    import numpy as np

    if fault in ("missing", "stale"):
        return
    if fault in ("empty", "not_hdf5"):
        Path(path).write_bytes(b"" if fault == "empty" else b"not what it says" * 100)
        return
    data = np.arange(32, dtype="f8" if fault == "wrong_type" else "f4").reshape(4, 8)
    if fault == "nan":
        data[0, 0] = np.nan
    with h5py.File(path, "w") as file:
        file["data"] = data[:3] if fault == "short" else data


def wait(seconds: float) -> None:
    time.sleep(float(seconds))


def measure() -> dict[str, int]:
    print("value is 7")
    return {"answer": 42}


def fail() -> None:
    raise ValueError("the detector was covered")


def echo(value: str) -> dict[str, str]:
    return {"value": value}


def size(path: str) -> dict[str, int]:
    return {"bytes": os.stat(path).st_size}


def leave() -> None:
    raise SystemExit(3)


def surroundings(path: str) -> None:
    """Write the environment that a worker has."""
    Path(path).write_text("\n".join(f"{name}={value}" for name, value in os.environ.items()))


def tell(done: int, total: int, rate: float, until: str) -> None:
    """Say how far a copy would be, then wait for a file."""
    from orchestrator.transfer import progress

    print(progress.line(done, total, rate), flush=True)
    while not os.path.exists(until):
        time.sleep(0.1)
