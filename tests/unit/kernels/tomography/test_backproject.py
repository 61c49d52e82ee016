"""`tomography.backproject` as it is run: from a file to a volume, within its memory, killed, shared, and refused."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from scans import left_behind, run

from kernels.errors import KernelError, Terminated
from kernels.io.omezarr import VolumeWriter, open_level
from kernels.tomography.oblique import plan
from kernels.tomography.oblique.geometry import Geometry
from kernels.tomography.oblique.plan import Extent

CONE = {"sourceDistance": 40, "detectorDistance": 120, "pixelSize": 500}


@pytest.fixture(scope="module")
def cone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cone") / "cone.h5"
    how = {"columns": 80, "rows": 56, "angles": 150, "turn": 360, "noise": False, "deadPixels": 0, "axisOffset": 1.5}
    run("tomography.simulate", output=path, photons=50000, flats=4, **how, **CONE)
    return path


@pytest.fixture(scope="module")
def tilted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tilted") / "tilted.h5"
    how = {"columns": 64, "rows": 48, "angles": 100, "turn": 360, "noise": False, "deadPixels": 0, "axisOffset": 0.0}
    run("tomography.simulate", output=path, tilt=-30, rotation="clockwise", flats=4, **how)
    return path


def backproject(scan: Path, output: Path, **how: Any) -> dict[str, Any]:
    how = {"rotationAxis": 41.0, **CONE} | how
    return dict(run("tomography.backproject", input=scan, output=output, **how).metrics)


def values(volume: Path, level: str = "0") -> Any:
    return np.asarray(open_level(str(volume), level)[...])


def test_a_cone_beam_scan_becomes_its_object(cone: Path, tmp_path: Path) -> None:
    how = {"picture": tmp_path / "v.png", "nexus": tmp_path / "v.nxs"}
    metrics = backproject(cone, tmp_path / "v.zarr", **how)
    found = run("tomography.compare", input=tmp_path / "v.zarr", truth=cone.with_name("cone_truth.h5")).metrics
    assert float(found["gain"]) == pytest.approx(1, abs=0.02)
    assert float(found["relative_rmse"]) < 0.12
    assert (metrics["slices"], metrics["size"], metrics["magnification"]) == (56, 80, 3.0)
    assert metrics["floored_fraction"] == metrics["bad_pixels"] == metrics["resumed_slices"] == 0
    ome = json.loads((tmp_path / "v.zarr" / "zarr.json").read_text())["attributes"]["ome"]
    transform = ome["multiscales"][0]["datasets"][0]["coordinateTransformations"][0]
    assert transform["scale"] == pytest.approx([500 / 3] * 3)  # a pixel as it is seen at the axis
    with h5py.File(tmp_path / "v.nxs") as file:
        assert file["entry/process/parameters/rotation_axis"][()] == 41.0
        np.testing.assert_array_equal(file["entry/horizontal/data"][...], values(tmp_path / "v.zarr")[28])
    assert (tmp_path / "v.png").stat().st_size > 1000


@pytest.mark.parametrize("short", [False, True], ids=["turn", "short"])
def test_the_axis_of_a_cone_beam_is_found(cone: Path, tmp_path: Path, short: bool) -> None:
    path = tmp_path / "short.h5"
    how = {
        "columns": 80,
        "rows": 8,
        "angles": 100,
        "turn": 215,
        "flats": 4,
        "axisOffset": -4.7,
        "rotation": "clockwise",
    }
    if short:
        run("tomography.simulate", output=path, **how, **CONE)
    more = {"rotation": "clockwise"} if short else {}
    metrics = backproject(path if short else cone, tmp_path / "v.zarr", rotationAxis=None, height=1, **more)
    assert metrics["rotation_axis"] == pytest.approx(34.8 if short else 41.0, abs=0.2)
    assert metrics["axis_confidence"] > 0.8


def test_the_axis_of_a_tilted_scan_is_found(tilted: Path, tmp_path: Path) -> None:
    found = run("tomography.backproject", input=tilted, output=tmp_path / "v.zarr", tilt=-30, height=1).metrics
    assert float(found["rotation_axis"]) == pytest.approx(31.5, abs=0.1)
    assert float(found["axis_confidence"]) > 0.8


def test_binned_it_is_the_same_object(cone: Path, tmp_path: Path) -> None:
    backproject(cone, tmp_path / "v.zarr", binning=2)
    with h5py.File(cone.with_name("cone_truth.h5")) as file:
        truth = file["truth/volume"][...].reshape(28, 2, 40, 2, 40, 2).mean((1, 3, 5))
    found = values(tmp_path / "v.zarr")
    assert found.shape == truth.shape
    assert np.polyfit(truth[6:22].ravel(), found[6:22].ravel(), 1)[0] == pytest.approx(1, abs=0.04)
    assert np.corrcoef(truth.ravel(), found.ravel())[0, 1] > 0.97


def test_a_tilted_scan_is_sharp_with_its_own_tilt_and_turn_alone(tilted: Path, tmp_path: Path) -> None:
    with h5py.File(tilted.with_name("tilted_truth.h5")) as file:
        truth = file["truth/volume"][18:30]
    likeness = {}
    for tilt, rotation in ((-30, "clockwise"), (30, "counterclockwise"), (30, "clockwise")):
        how = {"tilt": tilt, "rotation": rotation, "rotationAxis": 31.5, "height": 12}
        run("tomography.backproject", input=tilted, output=tmp_path / "v.zarr", **how)
        found = values(tmp_path / "v.zarr")
        assert found.shape == truth.shape
        likeness[tilt, rotation] = np.corrcoef(truth.ravel(), found.ravel())[0, 1]
    assert likeness[-30, "clockwise"] > 0.95
    # From the other side with the other tilt it is the same scan.
    assert likeness[30, "counterclockwise"] == pytest.approx(likeness[-30, "clockwise"], abs=1e-6)
    assert likeness[30, "clockwise"] < likeness[-30, "clockwise"] - 0.02


def test_part_of_the_height_is_that_part(tilted: Path, tmp_path: Path) -> None:
    how = {"tilt": -30, "rotation": "clockwise", "rotationAxis": 31.5}
    run("tomography.backproject", input=tilted, output=tmp_path / "all.zarr", **how)
    run("tomography.backproject", input=tilted, output=tmp_path / "v.zarr", height=10, heightOffset=5, **how)
    np.testing.assert_allclose(values(tmp_path / "v.zarr"), values(tmp_path / "all.zarr")[24:34], atol=1e-7)


def test_a_parallel_scan_is_as_by_fbp(scan: Path, tmp_path: Path) -> None:
    run("tomography.backproject", input=scan, output=tmp_path / "v.zarr")  # finds the axis, too
    run("tomography.reconstruct", input=scan, output=tmp_path / "w.zarr", algorithm="fbp")
    known = values(tmp_path / "w.zarr")
    np.testing.assert_allclose(values(tmp_path / "v.zarr"), known, atol=1e-5 * float(known.max()))


# -------------------------------------------------------------------------------------- memory, ends, ranks and threads


def test_it_goes_on_where_it_was_ended(cone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = backproject(cone, tmp_path / "whole.zarr")
    monkeypatch.setattr(plan, "_LEAST_LAYERS", 16)
    write = VolumeWriter.write

    def stopped(self: VolumeWriter, start: int, slab: Any) -> None:
        if start >= 32:
            raise Terminated
        write(self, start, slab)

    with monkeypatch.context() as patched:
        patched.setattr(VolumeWriter, "write", stopped)
        with pytest.raises(Terminated):
            backproject(cone, tmp_path / "v.zarr")
    resumed = backproject(cone, tmp_path / "v.zarr")
    assert resumed["resumed_slices"] == 32
    assert resumed | {"resumed_slices": 0} == whole
    for level in ("0", "1"):  # in slabs of 16 slices, or all at once
        np.testing.assert_array_equal(values(tmp_path / "v.zarr", level), values(tmp_path / "whole.zarr", level))
    assert left_behind(tmp_path, but={f"{n}.zarr{m}" for n in ("v", "whole") for m in ("", ".manifest.json")}) == []


def test_with_another_geometry_it_begins_anew(cone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(self: VolumeWriter, start: int, slab: Any) -> None:
        if start:
            raise Terminated
        write(self, start, slab)

    monkeypatch.setattr(plan, "_LEAST_LAYERS", 16)
    write = VolumeWriter.write
    with monkeypatch.context() as patched:
        patched.setattr(VolumeWriter, "write", stopped)
        with pytest.raises(Terminated):
            backproject(cone, tmp_path / "v.zarr")
    assert backproject(cone, tmp_path / "v.zarr", middleRow=27)["resumed_slices"] == 0


def test_the_volume_is_the_same_for_any_number_of_ranks(cone: Path, tmp_path: Path) -> None:
    if shutil.which("mpirun") is None:
        pytest.skip("there is no mpirun here; see tests/install-system-parts")
    backproject(cone, tmp_path / "alone" / "v.zarr")
    words = {"input": cone, "output": tmp_path / "ranks" / "v.zarr", "rotationAxis": 41, **CONE}
    argv = ["mpirun", "--oversubscribe", "--bind-to", "none", "-n", "2", sys.executable, "-m", "kernels"]
    argv += ["tomography.backproject", *(str(word) for name, value in words.items() for word in (f"--{name}", value))]
    environment = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    environment["NUMBA_NUM_THREADS"] = "1"
    said = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=100)
    assert said.returncode == 0, said.stderr
    assert said.stdout.count("product ") == 1
    one, two = (
        {str(p.relative_to(tmp_path / n)): p.read_bytes() for p in (tmp_path / n / "v.zarr").rglob("*") if p.is_file()}
        for n in ("alone", "ranks")
    )
    assert one == two


@pytest.mark.parametrize("how", [{"distance": 300.0}, {"tilt_deg": 30.0}], ids=["cone", "tilted"])
def test_a_plan_keeps_within_its_memory(how: dict[str, float]) -> None:
    geometry, extent = Geometry(127.5, 95.5, **how), Extent(192, 256, -95.5, 128.0)  # type: ignore[arg-type]
    scan = {"rows": 192, "columns": 256, "angles": 700, "padded": 512, "binning": 1, "dark_and_flat": 20}
    before = 0
    for limit in (int(70e6), int(200e6), int(10e9)):
        cut = plan.plan_passes(geometry, extent, **scan, itemsize=2, threads=2, limit=limit)
        assert cut.bytes <= limit
        assert cut.frames % plan.BLOCK == 0
        assert cut.layers % cut.chunk == 0
        assert cut.layers >= before
        before = cut.layers
        window = plan.window_of(geometry, extent, range(cut.layers), 192)
        assert cut.bytes > cut.frames * (window.stop - window.start) * 256 * (2 + 4 + 4)
    with pytest.raises(
        KernelError, match=r"16 slices of 256 x 256 with .* need 0\.0\d GB; memoryGB is 0\.015 for 2 ranks"
    ):
        plan.plan_passes(geometry, extent, **scan, itemsize=2, threads=2, limit=int(15e6), ranks=2)


# ----------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("how", "sentence", "code"),
    [
        ({"rotationAxis": 90}, "is off the detector of 80 columns", 2),
        ({"pixelSize": None}, "A cone beam needs pixelSize, too", 2),
        ({"pixelSize": None, "sourceDistance": None}, "needs sourceDistance and pixelSize, too", 2),
        ({"detectorDistance": 30}, "detectorDistance 30 is not beyond sourceDistance 40", 2),
        ({"sourceDistance": 3, "detectorDistance": 15}, "The source is 30 pixels from the axis", 2),
        ({"tilt": 20}, "cone beam with a tilted axis is not reconstructed", 2),
        ({"sourceDistance": None, "detectorDistance": None, "tilt": 90}, "tilt 90: the axis would lie along", 2),
        ({"angles": "0:180"}, "a cone beam needs a half turn and its fan", 65),
        ({"binning": 8, "height": -1}, "must be at least 1", 2),
        ({"rotation": "left"}, "must be one of counterclockwise, clockwise", 2),
        ({"input": "/nowhere.h5"}, "cannot be read", 66),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(
    cone: Path, tmp_path: Path, how: dict[str, Any], sentence: str, code: int
) -> None:
    with pytest.raises(KernelError, match=sentence) as caught:
        run(
            "tomography.backproject", **{"input": cone, "output": tmp_path / "v.zarr", "rotationAxis": 41, **CONE} | how
        )
    assert caught.value.exit_code == code
    assert str(caught.value).count("\n") == 0
    assert left_behind(tmp_path) == []


def test_a_simulated_object_is_seen_whole(cone: Path, tilted: Path) -> None:
    for path in (cone, tilted):
        with h5py.File(path) as file, h5py.File(path.with_name(f"{path.stem}_truth.h5")) as known:
            exchange = file["exchange"]
            counts = exchange["data"][...].astype(float) - 100
            lines = -np.log(counts / (exchange["data_white"][0].astype(float) - 100))
            assert np.abs(lines[:, [0, -1]]).max() < 0.01
            assert np.abs(lines[:, :, [0, -1]]).max() < 0.01
            assert math.isclose(np.ptp(exchange["theta"][...]), 360 * (1 - 1 / len(lines)))
            truth = known["truth/volume"][...]
            if path == tilted:  # as much in each projection
                assert lines.sum((1, 2)) == pytest.approx(truth.sum(), rel=0.01)
