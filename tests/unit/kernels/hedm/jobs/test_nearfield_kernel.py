"""From simulated near-field images to a map by the kernels as they are called, and through their workflow."""

from __future__ import annotations

import ast
import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from scans import left_behind, run
from turning import GOLD

from kernels import contract, registry
from kernels.errors import Exit, KernelError
from kernels.hedm.conventions import hexrd
from kernels.hedm.distortion import GeDistortion
from kernels.hedm.grains import read_grains
from kernels.hedm.nearfield.writers import read_map, read_mic
from kernels.hedm.orientations import misorientation_table
from tests.unit.kernels.cuda.emulated import Device

FILE = Path(__file__).resolve().parents[5] / "workflows" / "hedm_nf.py"
LAYER = {"rings": 5, "width": 120, "voxelSize": 6}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of a layer of four grains of gold, `l_near.h5` and `l_far.h5`, with `l.h5`, the truth."""
    path = tmp_path_factory.mktemp("layer")
    run("hedm.simulate-layer", output=path / "l.h5", grains=4, rows=320, columns=448, **GOLD, **LAYER)
    return path


def told(folder: Path) -> dict[str, Any]:
    return {
        "input": f"{folder}/l_near.h5,{folder}/l_far.h5",
        "geometry": f"{folder}/l_near.yml,{folder}/l_far.yml",
        "threshold": 50,
        **GOLD,
        **LAYER,
    }


@pytest.mark.timeout(300)  # the first to compile the whole of it, beside other tests
def test_the_map_has_the_grains_that_are_there(folder: Path, tmp_path: Path) -> None:
    out, mic, picture, confidence = (tmp_path / name for name in ("m.nxs", "m.mic", "m.png", "c.png"))
    made = run(
        "hedm.nearfield", output=out, mic=mic, picture=picture, confidencePicture=confidence, seeds=folder / "l.h5",
        **told(folder),
    )  # fmt: skip
    record = json.loads((tmp_path / "m.nxs.manifest.json").read_text())
    assert {Path(one["path"]).name for one in record["inputs"]} >= {"l_near.h5", "l_far.h5", "l_near.yml", "l_far.yml"}
    truth, found = read_grains(folder / "l.h5"), read_map(out)
    assert made.metrics["grains"] == len(truth) == 4
    assert made.metrics["accepted"] > 0.95
    angles = np.degrees(misorientation_table(found.orientations, truth.orientation, truth.crystals[0].rotations))
    assert (angles.min(axis=1) < 0.3).mean() > 0.95
    sizes = np.sort(np.bincount(angles.argmin(axis=1)) * 36.0)
    assert sizes == pytest.approx(np.sort(np.pi * truth.radius_um**2), rel=0.1, abs=200)
    places, orientations, _ = read_mic(mic)
    assert len(places) == len(found.orientations)
    assert np.allclose(orientations, found.orientations[: len(places)], atol=1e-4)  # of a cube the axes are the same
    assert picture.read_bytes()[:4] == confidence.read_bytes()[:4] == b"\x89PNG"


def bend(folder: Path, out: Path) -> dict[str, str]:
    """The images of both distances as detectors see them that bend space, and their instruments."""
    for name in ("near", "far"):
        straight = hexrd.read(folder / f"l_{name}.yml").geometry
        (panel,) = straight.panels
        curved = replace(straight, panels=(replace(panel, distortion=GeDistortion((0, 0, 500.0, 2, 2, 2))),))
        rows, columns = panel.shape
        row, column = (values.ravel() for values in np.mgrid[:rows, :columns])
        seen = straight.pixels(np.zeros(row.size, int), curved.lab_points(np.zeros(row.size, int), row, column))
        down, across = (np.rint(values).astype(int) for values in seen)
        there = (down >= 0) & (down < rows) & (across >= 0) & (across < columns)
        shutil.copy(folder / f"l_{name}.h5", out / f"b_{name}.h5")
        with h5py.File(out / f"b_{name}.h5", "r+") as file:
            data = file["entry/data/data"]
            for n in range(len(data)):
                image = data[n]
                moved = image[np.clip(down, 0, rows - 1), np.clip(across, 0, columns - 1)]
                data[n] = np.where(there, moved, np.median(image)).reshape(image.shape).astype(image.dtype)
        hexrd.write(out / f"b_{name}.yml", curved)
    return {"input": f"{out}/b_near.h5,{out}/b_far.h5", "geometry": f"{out}/b_near.yml,{out}/b_far.yml"}


def test_a_detector_that_bends_space(folder: Path, tmp_path: Path) -> None:
    given = {**told(folder), **bend(folder, tmp_path), "seeds": folder / "l.h5"}
    made = run("hedm.nearfield", output=tmp_path / "m.nxs", **given)
    left_out = {"geometry": told(folder)["geometry"]}
    plain = run("hedm.nearfield", output=tmp_path / "plain.nxs", **{**given, **left_out})
    assert made.metrics["grains"] == 4
    assert made.metrics["accepted"] > 0.95
    assert made.metrics["confidence"] > plain.metrics["confidence"] + 0.05


def test_hexagons(folder: Path, tmp_path: Path) -> None:
    made = run(
        "hedm.nearfield", output=tmp_path / "m.nxs", mic=tmp_path / "m.mic", picture=tmp_path / "m.png",
        seeds=folder / "l.h5", voxels="hexagons", **told(folder),
    )  # fmt: skip
    found = read_map(tmp_path / "m.nxs")
    assert found.voxels.shape == "hexagons"
    assert made.metrics["grains"] == 4
    truth = read_grains(folder / "l.h5")
    areas = np.sort(found.segments.voxels * found.voxels.area_um2)
    assert areas == pytest.approx(np.sort(np.pi * truth.radius_um**2), rel=0.1, abs=200)
    assert len(read_mic(tmp_path / "m.mic")[0]) == 6 * (found.confidence > 0).sum()


def test_a_wrong_lattice_is_no_map(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(KernelError, match=r"No grain was found .*best voxels have a confidence of 0\.[12]") as error:
        run("hedm.nearfield", output=tmp_path / "m.nxs", seeds=folder / "l.h5", **{**told(folder), "lattice": "3.6"})
    assert error.value.exit_code == Exit.BAD_INPUT
    assert left_behind(tmp_path) == []


@pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")
def test_the_map_of_a_gpu_is_that_of_the_cpu(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    how = {**told(folder), "seeds": folder / "l.h5", "seedRadius": 0.3, "rings": 3, "voxelSize": 12}
    cpu = run("hedm.nearfield", output=tmp_path / "cpu.nxs", device="cpu", **how).metrics
    Device().install(monkeypatch)
    gpu = run("hedm.nearfield", output=tmp_path / "gpu.nxs", device="gpu", **how).metrics
    assert (cpu.pop("device"), gpu.pop("device")) == ("cpu", "gpu")
    assert cpu == gpu
    wanted, made = read_map(tmp_path / "cpu.nxs"), read_map(tmp_path / "gpu.nxs")
    np.testing.assert_array_equal(made.orientations, wanted.orientations)
    np.testing.assert_array_equal(made.confidence, wanted.confidence)
    assert json.loads((tmp_path / "gpu.nxs.manifest.json").read_text())["metrics"]["device"] == "gpu"


def test_auto_goes_on_with_the_cpu_and_says_why(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setitem(sys.modules, "cupy", None)
    how = {**told(folder), "seeds": folder / "l.h5", "seedRadius": 0.3, "rings": 3, "voxelSize": 12}
    metrics = run("hedm.nearfield", output=tmp_path / "m.nxs", **how).metrics
    assert metrics["device"] == "cpu"
    assert "needs CuPy" in metrics["device_reason"]


def test_a_gpu_that_is_not_there_is_one_sentence(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(KernelError, match=r"The GPU needs CuPy .*, or take device cpu") as caught:
        run("hedm.nearfield", output=tmp_path / "m.nxs", device="gpu", **told(folder))
    assert caught.value.exit_code == Exit.USAGE
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"geometry": "l_near.yml"}, "2 distances, and geometries for 1"),
        ({"input": "l_far.h5,l_near.h5", "geometry": "l_far.yml,l_near.yml"}, "do not grow"),
        ({"input": "l_near.h5,,"}, "a file for each distance"),
        ({"input": "l_near.h5,none.h5"}, "none.h5"),
        ({"threshold": 60000}, "at distance 1 has a spot"),
        ({"seeds": "l_near.h5"}, "no table of grains"),
    ],
)
def test_what_does_not_fit_together_is_refused(
    given: dict[str, Any], sentence: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(KernelError, match=sentence):
        run("hedm.nearfield", output=tmp_path / "m.nxs", **{**told(folder), **given})
    assert left_behind(tmp_path) == []


def test_the_workflow_calls_the_kernels_as_they_want_to_be_called(folder: Path, tmp_path: Path) -> None:
    workflow = ast.literal_eval(FILE.read_text())
    values = {name: argument.get("default", "x") for name, argument in workflow["arguments"].items()}
    given = {**told(folder), "seeds": folder / "l.h5"}
    for stage in workflow["stages"].values():
        spec = registry.get(stage["kernel"])
        asked = stage["arguments"]
        names = re.findall(r"\$(\w+)", repr([asked, stage.get("expect")]))
        assert set(names) <= set(workflow["arguments"])
        spec.bind({name: re.sub(r"\$(\w+)", lambda m: str(values[m[1]]), value) for name, value in asked.items()})
        known = {argument.name for argument in spec.schema}
        outputs = {"output": tmp_path / "m.nxs"} if "output" in known else {}
        made = run(spec.name, **outputs, **{name: value for name, value in given.items() if name in known})
        said = "\n".join(contract.metric_line(*item) for item in made.metrics.items())
        assert all(re.search(expression, said) for expression in stage["outputVariableRegexList"])


def test_what_is_there_is_told_before_it_is_searched(folder: Path) -> None:
    given = {name: told(folder)[name] for name in ("input", "geometry", "lattice", "spaceGroup", "rings")}
    told_of = run("hedm.inspect-layer", seeds=folder / "l.h5", **given).metrics
    assert {name: told_of[name] for name in ("distances", "frames", "rings", "seeds")} == {
        "distances": 2, "frames": 180, "rings": 5, "seeds": 4,
    }  # fmt: skip
    assert (told_of["omega_from"], told_of["omega_to"]) == pytest.approx((-90.0, 90.0))
    with pytest.raises(KernelError, match="2 distances, and geometries for 1"):
        run("hedm.inspect-layer", **{**given, "geometry": f"{folder}/l_near.yml"})
