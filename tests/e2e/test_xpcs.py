"""Simulated speckle through `beamway run xpcs`: both routes, a fit that finds what was simulated, and pictures."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import h5py
import pytest

from kernels import contract
from orchestrator.client import Client
from tests.e2e.test_bad_input import beamway

pytestmark = pytest.mark.timeout(300)  # the first run of these kernels compiles for half a minute


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("frames") / "a.h5"
    size = {"rows": 40, "columns": 64, "frames": 256, "photons": 0.4, "staticQ": 12, "dynamicQ": 4}
    how = {"tau": 0.08, "contrast": 0.8, "frameTime": 0.01}
    contract.run("xpcs.simulate", {"output": str(path), **size, **how}, say=None)
    for kernel in ("xpcs.multitau", "xpcs.twotime"):  # compiled here, not while a command is waited for
        said = {"input": path, "qmap": path.with_name("a_qmap.hdf"), "output": path.with_name("compiled.hdf")}
        contract.run(kernel, said, say=None)
    return path


def _run(client: Client, here: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return beamway(client.settings.home, "run", "xpcs", *words, "--wait", "--json", cwd=here)


def test_from_frames_to_pictures(shared_client: Client, frames: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    said = [f"filePath:{frames}", f"outputDir:{out}", "route:both", "bins:1,3", "model:simple"]
    result = _run(shared_client, tmp_path, *said, "staticQ:12", "dynamicQ:4")
    assert result.returncode == 0, result.stderr
    answer = json.loads(result.stdout)
    assert answer["status"] == "done"
    made = {Path(output["path"]).name for output in answer["outputs"]}
    assert made >= {"multitau_results.hdf", "twotime_results.hdf", "fit.nxs", "scattering.png", "twotime.png", "g2.png"}
    variables = answer["variables"]
    assert variables["qmapPath"] == str(out / "qmap.hdf")
    assert (variables["fitted"], variables["badFrames"]) == ("4", "0")
    exponent, error = float(variables["tauExponent"]), float(variables["tauExponentError"])
    assert abs(exponent + 2) < 5 * error + 0.1
    with h5py.File(out / "twotime_results.hdf") as file:
        assert list(file["xpcs/twotime/correlation_map"]) == ["c2_00001", "c2_00002"]
        assert file["xpcs/twotime/processed_bins"][()].tolist() == [1, 3]


def test_frames_that_are_too_few_are_refused_before_anything_is_computed(
    shared_client: Client, frames: Path, tmp_path: Path
) -> None:
    qmap = frames.with_name("a_qmap.hdf")
    result = _run(
        shared_client, tmp_path, f"filePath:{frames}", f"qmapPath:{qmap}", f"outputDir:{tmp_path}", "lastFrame:2"
    )
    assert result.returncode != 0
    answer = json.loads(result.stdout)
    assert answer["status"] == "failed"
    assert "3 frames are too few for 4 delays a level" in json.dumps(answer)
    assert not (tmp_path / "multitau_results.hdf").exists()
