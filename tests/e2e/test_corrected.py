"""A correction that is asked for stands for the scan in all stages that follow, at a site as at home."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from kernels import contract
from orchestrator.client import Client
from orchestrator.model import RunStatus, StageStatus
from tests.conftest import wait


@pytest.mark.parametrize("begins", ["", "site://local"])
def test_a_corrected_scan(shared_client: Client, tmp_path: Path, begins: str) -> None:
    scan, out = tmp_path / "a scan.h5", tmp_path / "the products"
    shape = {"columns": 96, "rows": 6, "angles": 120, "flats": 8, "axisOffset": 3.3}
    contract.run("tomography.simulate", {"output": str(scan), **shape}, say=None)
    with h5py.File(scan, "r+") as file:
        del file["exchange/theta"]  # so that angles has to be given, and only for this one
        file["exchange/data"][7] = 0  # a frame that was dropped
        file["exchange/data"][20, 3, 40] = 65535
    arguments = {"filePath": f"{begins}{scan}", "outputDir": f"{begins}{out}", "angles": "0:180", "zingers": "8"}
    plan = shared_client.plan(shared_client.definition("tomography"), arguments, directory=str(tmp_path))
    run = wait(shared_client, shared_client.submit(plan), 100)
    assert run.status is RunStatus.DONE, run.error
    assert run.stages["02-correct"].status is StageStatus.DONE
    assert run.variables["scanPath"] == str(out / "corrected.h5")
    assert run.variables["droppedFrames"] == "1"
    with h5py.File(out / "corrected.h5") as file:
        np.testing.assert_allclose(file["exchange/theta"][:], np.delete(np.arange(120) * 1.5, 7))
    for name in ("axis.nxs", "preview.png", "volume.zarr"):
        record = json.loads((out / f"{name}.manifest.json").read_text())
        assert [given["path"] for given in record["inputs"]] == [str(out / "corrected.h5")]
    assert float(run.variables["rotationAxis"]) == pytest.approx(50.8, abs=0.5)
