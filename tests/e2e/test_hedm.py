"""Simulated polycrystals through `beamway run hedm_ff` and `hedm_nf`: grains, maps, pictures; and a wrong lattice."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from kernels import contract
from kernels.hedm.grains import read_grains
from kernels.hedm.matching import match_grains
from orchestrator.client import Client
from orchestrator.store.lineage import Role
from tests.e2e.test_bad_input import beamway
from tests.e2e.test_provenance import used

pytestmark = pytest.mark.timeout(300)  # the first run of these kernels compiles for a minute

GOLD = {"lattice": "4.0782", "spaceGroup": "Fm-3m"}
SAMPLE = {"sampleRadius": "300", "sampleHeight": "150"}


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("frames") / "layer.h5"
    size = {"grains": 8, "rows": 256, "columns": 256, "pixelSize": 800, "frames": 360, "omegaStep": 1, "mosaicity": 0.4}
    contract.run("hedm.simulate", {"output": str(path), **size, **GOLD, **SAMPLE}, say=None)
    spots, geometry = path.with_name("compiled.h5"), path.with_name("layer_geometry.yml")
    contract.run("hedm.peaks", {"input": path, "geometry": geometry, "output": spots}, say=None)
    said = {"input": spots, "geometry": geometry, "output": path.with_name("compiled.nxs")}
    contract.run("hedm.farfield", {**said, **GOLD, **SAMPLE}, say=None)  # compiled here, not while a command waits
    return path


def _run(client: Client, here: Path, frames: Path, *words: str) -> subprocess.CompletedProcess[str]:
    said = [f"filePath:{frames}", f"geometryPath:{frames.with_name('layer_geometry.yml')}"]
    said += [f"{name}:{value}" for name, value in SAMPLE.items()]
    return beamway(client.settings.home, "run", "hedm_ff", *said, *words, "--wait", "--json", cwd=here)


def test_from_frames_to_grains(shared_client: Client, frames: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = _run(shared_client, tmp_path, frames, f"outputDir:{out}", *(f"{n}:{v}" for n, v in GOLD.items()))
    assert result.returncode == 0, result.stderr
    answer = json.loads(result.stdout)
    assert answer["status"] == "done"
    made = {Path(output["path"]).name for output in answer["outputs"]}
    assert made >= {"spots.h5", "grains.nxs", "Grains.csv", "grains.png"}
    assert answer["variables"]["grains"] == "8"
    match = match_grains(read_grains(out / "grains.nxs"), read_grains(frames.with_name("layer_truth.h5")))
    assert (len(match.found), len(match.missed), len(match.false)) == (8, 0, 0)


def test_a_wrong_lattice_is_no_empty_success(shared_client: Client, frames: Path, tmp_path: Path) -> None:
    result = _run(shared_client, tmp_path, frames, f"outputDir:{tmp_path}", "lattice:3.75", "spaceGroup:Fm-3m")
    assert result.returncode != 0
    answer = json.loads(result.stdout)
    assert answer["status"] == "failed"
    assert "rings were expected at" in json.dumps(answer)
    assert not (tmp_path / "grains.nxs").exists()


def test_from_images_to_a_map(shared_client: Client, tmp_path: Path) -> None:
    layer = {"rings": 5, "width": 120, "voxelSize": 6, **GOLD}
    made = {"output": str(tmp_path / "l.h5"), "grains": 3, "rows": 320, "columns": 448, **layer}
    contract.run("hedm.simulate-layer", made, say=None)
    frames, geometry = (",".join(f"{tmp_path}/l_{name}.{end}" for name in ("near", "far")) for end in ("h5", "yml"))
    said = {"input": frames, "geometry": geometry, "output": str(tmp_path / "compiled.nxs"), "threshold": 50, **layer}
    contract.run("hedm.nearfield", {**said, "seeds": str(tmp_path / "l.h5")}, say=None)
    paths = {"filePath": "near.h5", "farPaths": "far.h5", "geometryPath": "near.yml", "farGeometryPaths": "far.yml"}
    words = [f"outputDir:{tmp_path}/out", "threshold:50", *(f"{k}:{tmp_path}/l_{v}" for k, v in paths.items())]
    words += [f"seedsPath:{tmp_path}/l.h5", *(f"{name}:{value}" for name, value in layer.items())]
    home = shared_client.settings.home
    result = beamway(home, "run", "hedm_nf", *words, "--wait", "--json", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    answer = json.loads(result.stdout)
    assert answer["status"] == "done"
    assert answer["variables"]["grains"] == "3"
    made_files = {Path(output["path"]).name for output in answer["outputs"]}
    assert made_files >= {"map.nxs", "map.mic", "orientations.png", "confidence.png"}
    read = {Path(name).name for role, name in used(shared_client, answer["id"]) if role is not Role.PRODUCT}
    assert read >= {"l_near.h5", "l_far.h5", "l_near.yml", "l_far.yml", "l.h5"}
