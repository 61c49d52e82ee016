"""Corrected scans: what was wrong with the projections is gone, and what was right is as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from kernels import contract
from kernels.errors import KernelError
from kernels.io.dxchange import Scan

SHAPE = (90, 24, 64)  # angles, rows, columns


def run(name: str, **arguments: Any) -> dict[str, Any]:
    return dict(contract.run(name, arguments, say=None).metrics)


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Counts without noise."""
    path = tmp_path_factory.mktemp("clean") / "scan.h5"
    angles, rows, columns = SHAPE
    how = {"columns": columns, "rows": rows, "angles": angles, "flats": 10, "deadPixels": 0.0, "noise": False}
    run("tomography.simulate", output=path, photons=50000, axisOffset=1.5, **how)
    return path


def transmission(path: Path) -> np.ndarray[Any, np.dtype[np.float64]]:
    """What each pixel let through, from a scan's own flats and darks."""
    with Scan(str(path)) as scan:
        dark = scan.read_darks(0, scan.rows).astype(np.float64).mean(0)
        flat = scan.read_flats(0, scan.rows).astype(np.float64).mean(0)
        return (scan.read_rows(0, scan.rows) - dark) / (flat - dark)


def spoilt(clean: Path, path: Path, change: Any) -> Path:
    """A copy whose data sets of /exchange went through `change`, which gets them by name."""
    with h5py.File(clean) as source, h5py.File(path, "w") as target:
        values = {name: source["exchange"][name][...] for name in ("data", "data_white", "data_dark", "theta")}
        change(values)
        for name, value in values.items():
            target[f"exchange/{name}"] = value
        target["exchange/theta"].attrs["units"] = "degrees"
    return path


def test_a_clean_scan_stays_what_it_is(clean: Path, tmp_path: Path) -> None:
    metrics = run("tomography.correct", input=clean, output=tmp_path / "c.h5")
    assert (metrics["frames"], metrics["dropped_frames"], metrics["zingers"]) == (SHAPE[0], 0, 0)
    np.testing.assert_allclose(transmission(tmp_path / "c.h5"), transmission(clean), atol=2e-6)
    with Scan(str(clean)) as before, Scan(str(tmp_path / "c.h5")) as after:
        np.testing.assert_array_equal(before.theta_deg, after.theta_deg)
        assert after.dtype == np.float32


def test_lost_frames_go_with_their_angles(clean: Path, tmp_path: Path) -> None:
    def lose(values: dict[str, Any]) -> None:
        values["data"][[7, 40]] = 0
        values["data"][41] = values["data_dark"][0]

    run("tomography.correct", input=spoilt(clean, tmp_path / "s.h5", lose), output=tmp_path / "c.h5")
    kept = np.delete(np.arange(SHAPE[0]), [7, 40, 41])
    np.testing.assert_allclose(transmission(tmp_path / "c.h5"), transmission(clean)[kept], atol=2e-6)
    with Scan(str(clean)) as before, Scan(str(tmp_path / "c.h5")) as after:
        np.testing.assert_array_equal(before.theta_deg[kept], after.theta_deg)


def test_zingers_go(clean: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(2)
    where = tuple(random.integers(3, n - 3, 40) for n in SHAPE)

    def strike(values: dict[str, Any]) -> None:
        values["data"][where] = 65000

    scan = spoilt(clean, tmp_path / "s.h5", strike)
    metrics = run("tomography.correct", input=scan, output=tmp_path / "c.h5", zingers=8)
    assert metrics["zingers"] >= 35
    left = np.abs(transmission(tmp_path / "c.h5") - transmission(clean))[where]
    assert np.median(left) < 0.01
    assert (left < 0.1).mean() > 0.9


@pytest.mark.parametrize(("beam", "more"), [("steps", {}), ("mass", {}), ("air", {"airColumns": 2})])
def test_a_beam_that_jumps_is_made_steady(clean: Path, tmp_path: Path, beam: str, more: dict[str, Any]) -> None:
    def jump(values: dict[str, Any]) -> None:
        dark = values["data_dark"][0].astype(np.float64)
        light = values["data"] - dark
        light[30:] *= 0.9
        values["data"] = np.rint(light + dark).astype(np.uint16)

    scan = spoilt(clean, tmp_path / "s.h5", jump)
    run("tomography.correct", input=scan, output=tmp_path / "c.h5", beam=beam, **more)
    found, true = transmission(tmp_path / "c.h5"), transmission(clean)
    assert np.abs(transmission(scan)[30:] - true[30:]).mean() > 0.05
    assert np.abs(found / found.mean() - true / true.mean()).mean() < 0.005


def test_flats_that_drift(clean: Path, tmp_path: Path) -> None:
    def drift(values: dict[str, Any]) -> None:
        dark = values["data_dark"][0].astype(np.float64)
        pattern = 1 + 0.2 * np.linspace(-1, 1, SHAPE[2])
        course = np.linspace(0, 1, SHAPE[0])[:, None, None]
        values["data"] = np.rint((values["data"] - dark) * (1 + course * (pattern - 1)) + dark).astype(np.uint16)
        values["data_white"][5:] = np.rint((values["data_white"][5:] - dark) * pattern + dark).astype(np.uint16)

    scan = spoilt(clean, tmp_path / "s.h5", drift)
    errors = {}
    for flats in ("mean", "drifting"):
        run("tomography.correct", input=scan, output=tmp_path / f"{flats}.h5", flatFields=flats)
        errors[flats] = np.abs(transmission(tmp_path / f"{flats}.h5") - transmission(clean)).mean()
    assert errors["drifting"] < 0.05 * errors["mean"]


def test_phase_and_lens_are_those_of_the_corrections(clean: Path, tmp_path: Path) -> None:
    from kernels.tomography.corrections.distortion import Lens, undistort
    from kernels.tomography.corrections.phase import paganin

    how = {"energy": 20.0, "distance": 100.0, "pixelSize": 1.0, "deltaBeta": 500.0}
    metrics = run("tomography.correct", input=clean, output=tmp_path / "c.h5", lens="12,30,1,0,1e-6", **how)
    assert float(metrics["phase_blur_px"]) > 0
    frames = undistort(transmission(clean).astype(np.float32), Lens(12, 30, (1, 0, 1e-6)))
    wanted = paganin(frames, energy_kev=20, distance_mm=100, pixel_um=1, delta_beta=500)
    np.testing.assert_allclose(transmission(tmp_path / "c.h5"), wanted, atol=1e-5)


def test_it_is_reconstructed_like_any_other(clean: Path, tmp_path: Path) -> None:
    run("tomography.correct", input=clean, output=tmp_path / "c.h5")
    for name, scan in (("a", clean), ("b", tmp_path / "c.h5")):
        run("tomography.reconstruct", input=scan, output=tmp_path / f"{name}.zarr", rotationAxis=33.0)
    from kernels.io.omezarr import open_level

    one, other = (np.asarray(open_level(str(tmp_path / f"{n}.zarr"), "0")[...]) for n in "ab")
    np.testing.assert_allclose(one, other, atol=2e-6)


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ({"energy": 20}, "needs distance, pixelSize, deltaBeta as well"),
        ({"lens": "1,2"}, "ROW,COLUMN,K0"),
        ({"lens": "1,x,1"}, "ROW,COLUMN,K0"),
        ({"beam": "air"}, "0 columns of air"),
    ],
)
def test_wrong_requests(clean: Path, tmp_path: Path, how: dict[str, Any], sentence: str) -> None:
    with pytest.raises(KernelError, match=sentence) as caught:
        run("tomography.correct", input=clean, output=tmp_path / "c.h5", **how)
    assert caught.value.exit_code == 2
    assert not list(tmp_path.iterdir())


def test_more_than_one_piece(clean: Path, tmp_path: Path) -> None:
    """90 frames by at most 32, and by as many as little memory allows."""
    made = []
    for name, memory in (("a", 2.0), ("b", 0.01)):
        run("tomography.correct", input=clean, output=tmp_path / f"{name}.h5", memoryGB=memory)
        with h5py.File(tmp_path / f"{name}.h5") as file:
            made.append(file["exchange/data"][...])
    np.testing.assert_array_equal(made[0], made[1])
