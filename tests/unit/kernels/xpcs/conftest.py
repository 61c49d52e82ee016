"""A small simulated measurement of speckle that diffuses; made once."""

from __future__ import annotations

import h5py
import pytest
from scans import run
from series import Measured

SIMULATED = {
    "rows": 40,
    "columns": 64,
    "frames": 256,
    "photons": 0.4,
    "tau": 0.08,
    "contrast": 0.8,
    "staticQ": 12,
    "dynamicQ": 4,
    "frameTime": 0.01,
}


@pytest.fixture(scope="session")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    folder = tmp_path_factory.mktemp("xpcs")
    run("xpcs.simulate", output=folder / "a.h5", **SIMULATED)
    with h5py.File(folder / "a_metadata.hdf", "r+") as file:
        file["entry/sample/name"] = "silica"
    return Measured(*(folder / f"a{end}" for end in (".h5", "_qmap.hdf", "_metadata.hdf", "_truth.h5")))
