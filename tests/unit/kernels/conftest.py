"""Small scans that many tests of the kernels share."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import pytest
from scans import SMALL, run


@pytest.fixture(scope="session")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small simulated scan with noise; its truth lies beside it. Not to be changed."""
    path = tmp_path_factory.mktemp("scan") / "scan.h5"
    run("tomography.simulate", output=path, **SMALL)
    return path


@pytest.fixture
def broken(scan: Path, tmp_path: Path) -> Callable[[Callable[[h5py.Group], None]], Path]:
    """A copy of the scan, changed by a function of its /exchange group."""

    def change(how: Callable[[h5py.Group], None]) -> Path:
        path = tmp_path / "broken.h5"
        shutil.copy(scan, path)
        with h5py.File(path, "r+") as file:
            how(file["exchange"])
        return path

    return change
