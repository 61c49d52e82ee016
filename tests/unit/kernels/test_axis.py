"""The axis search on simulated scans that are hard in different ways, and on the real one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from scans import run

from kernels.errors import KernelError
from kernels.tomography.axis import find_axis, half_turn

FULL = {"columns": 256, "rows": 6, "angles": 241, "flats": 10}


@pytest.mark.parametrize(
    "how",
    [
        {"axisOffset": 0.0},
        {"axisOffset": -20.3, "photons": 2000},
        {"axisOffset": 13.25, "stripes": 0.02, "deadPixels": 0.01},
        {"axisOffset": 31.7, "beamDrift": 0.1},
        {"axisOffset": 5.5, "absorption": 6},
        {"axisOffset": -8.75, "angles": 61},
        {"axisOffset": 7.1, "angles": 19, "photons": 5000},
        {"axisOffset": -3.4, "columns": 255, "seed": 4},
        {"axisOffset": 21.9, "columns": 700, "rows": 2, "angles": 181, "seed": 9},
    ],
    ids=lambda how: " ".join(f"{k}={v}" for k, v in how.items()),
)
def test_axis_within_a_third_of_a_pixel(tmp_path: Path, how: dict[str, Any]) -> None:
    scan = tmp_path / "scan.h5"
    true = run("tomography.simulate", output=scan, **{**FULL, **how}).metrics["rotation_axis_true"]
    found = run("tomography.axis", input=scan, output=tmp_path / "axis.nxs").metrics
    assert found["rotation_axis"] == pytest.approx(true, abs=0.3)
    assert found["axis_mirror"] == pytest.approx(true, abs=1.0)
    assert found["axis_confidence"] >= 0.8
    with h5py.File(tmp_path / "axis.nxs") as file:
        plot = file["entry/axis_metric"]
        assert plot.attrs["signal"] == "value"
        assert plot["axis"][plot["value"][()].argmin()] == pytest.approx(true, abs=2.0)
        for way in ("pairs", "sharpness", "moment", "wedge"):
            if way in file["entry"]:
                group = file[f"entry/{way}"]
                assert group.attrs["result"] == pytest.approx(true, abs=1.0)
                assert group.attrs["reason"]


def test_a_full_turn_gives_the_same_axis(tmp_path: Path) -> None:
    scan = tmp_path / "scan.h5"
    true = run("tomography.simulate", output=scan, **FULL).metrics["rotation_axis_true"]
    with h5py.File(scan, "r+") as file:
        data = file["exchange/data"][()]
        mirrored = data[:, :, ::-1]  # half a turn later, about the detector's middle instead of the axis
        shift = round(2 * (float(true) - 0.5 * (FULL["columns"] - 1)))
        theta = file["exchange/theta"][()]
        del file["exchange/data"], file["exchange/theta"]
        file["exchange/data"] = np.concatenate((data, np.roll(mirrored, shift, axis=2)))
        file["exchange/theta"] = np.concatenate((theta, theta + 180))
    assert run("tomography.axis", input=scan).metrics["rotation_axis"] == pytest.approx(true, abs=0.3)


def test_half_turn_leaves_out_what_repeats() -> None:
    assert len(half_turn(np.arange(0.0, 181.0))) == 180
    assert len(half_turn(np.arange(0.0, 360.0, 0.5))) == 360
    assert list(half_turn(np.array([90.0, 0.0, 45.0, 135.0]))) == [1, 2, 0, 3]


def test_a_scan_of_nothing_has_no_axis(tmp_path: Path) -> None:
    scan = tmp_path / "scan.h5"
    run("tomography.simulate", output=scan, columns=64, rows=2, angles=40, noise=False, deadPixels=0, absorption=0.01)
    with h5py.File(scan, "r+") as file:
        file["exchange/data"][...] = file["exchange/data_white"][0]
    with pytest.raises(KernelError, match="shows no object") as caught:
        run("tomography.axis", input=scan)
    assert caught.value.exit_code == 65


def test_low_confidence_goes_into_the_record_of_the_product(tmp_path: Path) -> None:
    """Noise without an object: a position that nobody should believe, and a sentence that says so in the manifest."""
    scan, output = tmp_path / "scan.h5", tmp_path / "axis.nxs"
    run("tomography.simulate", output=scan, columns=96, rows=3, angles=120, photons=500, deadPixels=0, axisOffset=20.2)
    with h5py.File(scan, "r+") as file:
        shape = file["exchange/data"].shape
        light = 0.5 * file["exchange/data_white"][...].mean(0)
        file["exchange/data"][...] = np.random.default_rng(5).poisson(light, shape)
    made = run("tomography.axis", input=scan, output=output)
    assert float(made.metrics["axis_confidence"]) < 0.5
    (warning,) = made.warnings
    assert warning.code == "axis"
    assert "is not certain" in warning.sentence
    assert json.loads(Path(f"{output}.manifest.json").read_text())["warnings"] == [warning._asdict()]
    with h5py.File(output) as file:
        assert list(file["entry/process/warnings"].asstr()) == [str(warning)]


def test_rows_do_not_have_to_agree_about_noise() -> None:
    """One row of pure noise among good ones does not move the axis."""
    random = np.random.default_rng(3)
    theta = np.arange(180.0)
    t, s = np.deg2rad(theta)[:, None], np.arange(200.0)
    good = sum(
        np.exp(-((s - 104.25 - x * np.cos(t) - y * np.sin(t)) ** 2) / (2 * w * w))
        for x, y, w in ((30, 10, 4), (-20, 35, 3), (5, -40, 6), (0, 0, 20))
    )
    rows = np.stack([good, good * 0.5, random.normal(0, 0.3, good.shape)]).astype(np.float32)
    assert find_axis(rows, theta).position == pytest.approx(104.25, abs=0.1)


def test_the_real_tooth(data: Path, tmp_path: Path) -> None:
    """181 angles, strongly absorbing, axis far off: known to be about 295 to 296."""
    tooth = data / "tomography" / "tooth.h5"
    found = run("tomography.axis", input=tooth).metrics
    assert 295.0 < float(found["rotation_axis"]) < 296.5
    assert 294.5 < float(found["axis_mirror"]) < 297.0
    assert found["axis_confidence"] >= 0.8

    from kernels.io.omezarr import open_level

    run("tomography.reconstruct", input=tooth, output=tmp_path / "tooth.zarr")
    slices = np.asarray(open_level(str(tmp_path / "tooth.zarr"), "0")[...])
    assert slices.shape == (2, 640, 640)
    enamel = slices[0] > 0.006
    assert 0.04 < enamel.mean() < 0.2, "a tooth fills a part of the view"
    rows, columns = np.nonzero(enamel)
    assert np.ptp(rows) < 320, "and is in one place"
    assert np.ptp(columns) < 320
    air = np.hypot(*(np.mgrid[:640, :640] - 319.5)) > 260
    air &= np.hypot(*(np.mgrid[:640, :640] - 319.5)) < 310
    assert abs(float(slices[0][air].mean())) < 2e-4
    contrast = float(slices[0][enamel].mean() / slices[0][air].std())
    assert contrast > 8
    assert np.corrcoef(slices[0].ravel(), slices[1].ravel())[0, 1] > 0.9, "neighbouring slices are alike"
