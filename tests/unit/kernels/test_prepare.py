"""From counts to line integrals, one row at a time, with numbers worked out by hand."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from scans import run

from kernels.errors import KernelError
from kernels.io.dxchange import Scan
from kernels.tomography.prepare import Recipe, prepare_rows

ANGLES, ROWS, COLUMNS = 8, 4, 64


@pytest.fixture
def flat_scan(tmp_path: Path) -> Path:
    """Dark 100, open beam 1100, and everything absorbed to exp(-1)."""
    path = tmp_path / "scan.h5"
    with h5py.File(path, "w") as file:
        file["exchange/data"] = np.full((ANGLES, ROWS, COLUMNS), 100 + 1000 * np.exp(-1.0), np.float32)
        file["exchange/data_white"] = np.full((6, ROWS, COLUMNS), 1100, np.float32)
        file["exchange/data_dark"] = np.full((5, ROWS, COLUMNS), 100, np.float32)
        file["exchange/theta"] = np.arange(ANGLES) * 180.0 / ANGLES
    return path


def prepared(path: Path, **recipe: float) -> np.ndarray:
    with Scan(str(path)) as scan:
        return prepare_rows(scan, 0, scan.rows, Recipe(**recipe)).sinograms  # type: ignore[arg-type]


def test_minus_the_logarithm_of_the_transmission(flat_scan: Path) -> None:
    values = prepared(flat_scan)
    assert values.shape == (ROWS, ANGLES, COLUMNS)
    np.testing.assert_allclose(values, 1.0, atol=1e-5)


def test_bad_pixels_are_interpolated(flat_scan: Path) -> None:
    with h5py.File(flat_scan, "r+") as file:
        ramp = np.exp(-np.arange(COLUMNS, dtype=np.float32) / 64)
        file["exchange/data"][...] = 100 + 1000 * ramp
        for column, value in ((0, 0), (10, 0), (20, 65535), (21, 65535), (63, np.nan)):
            for name in ("data", "data_white", "data_dark"):
                file[f"exchange/{name}"][:, 1, column] = value
    with Scan(str(flat_scan)) as scan:
        made = prepare_rows(scan, 0, ROWS)
    assert made.changes.bad_pixels == 5
    np.testing.assert_allclose(made.sinograms[1, :, 1:63], made.sinograms[0, :, 1:63], atol=3e-4)
    np.testing.assert_allclose(made.sinograms[1, :, 0], made.sinograms[0, :, 1], atol=1e-5)


def test_a_few_counts_that_are_not_finite_are_replaced(flat_scan: Path) -> None:
    with h5py.File(flat_scan, "r+") as file:
        file["exchange/data"][2, 1, 30] = np.inf
        file["exchange/data"][2, 1, 0] = np.nan
    with Scan(str(flat_scan)) as scan:
        made = prepare_rows(scan, 0, ROWS)
    assert made.changes.lost_values == 2
    assert np.isfinite(made.sinograms).all()
    assert made.sinograms[1, 2, 30] == pytest.approx(1.0, abs=1e-5)


def test_a_cosmic_ray_in_a_flat_is_left_out(flat_scan: Path) -> None:
    with h5py.File(flat_scan, "r+") as file:
        file["exchange/data_white"][3, 1, 30] = 60000
        file["exchange/data_dark"][3, 1, 31] = 60000
    np.testing.assert_allclose(prepared(flat_scan), 1.0, atol=1e-5)


def test_the_floor(flat_scan: Path) -> None:
    with h5py.File(flat_scan, "r+") as file:
        file["exchange/data"][:, 0] = 90.0
    with Scan(str(flat_scan)) as scan:
        made = prepare_rows(scan, 0, ROWS, Recipe(floor=1e-3))
    assert made.changes.floored_values == ANGLES * COLUMNS
    np.testing.assert_allclose(made.sinograms[0], -np.log(1e-3), rtol=1e-5)


def test_binning_averages_the_transmission(flat_scan: Path) -> None:
    with h5py.File(flat_scan, "r+") as file:
        file["exchange/data"][:, :, ::2] = 1100.0
    values = prepared(flat_scan, binning=2)
    assert values.shape == (2, ANGLES, 32)
    np.testing.assert_allclose(values, -np.log((1 + np.exp(-1)) / 2), rtol=1e-5)


def test_air_columns_take_out_the_drift_of_the_beam(tmp_path: Path) -> None:
    scan = tmp_path / "scan.h5"
    how = {"columns": 128, "rows": 2, "angles": 180, "noise": False, "deadPixels": 0, "axisOffset": 0}
    errors = []
    for drift, air in ((0, 0), (0.2, 0), (0.2, 4)):
        run("tomography.simulate", output=scan, **how, beamDrift=drift)
        run("tomography.reconstruct", input=scan, output=tmp_path / "v.zarr", rotationAxis=63.5, airColumns=air)
        compared = run("tomography.compare", input=tmp_path / "v.zarr", truth=tmp_path / "scan_truth.h5")
        errors.append(float(compared.metrics["relative_rmse"]))
    steady, drifting, corrected = errors
    assert drifting > 1.1 * steady
    assert corrected == pytest.approx(steady, rel=0.01)
    with pytest.raises(KernelError, match="leave nothing"):
        run("tomography.reconstruct", input=scan, output=tmp_path / "v.zarr", rotationAxis=63.5, airColumns=64)


def test_a_row_without_light_is_empty_not_a_failure(flat_scan: Path) -> None:
    """Slits often cover the outermost rows."""
    with h5py.File(flat_scan, "r+") as file:
        for name in ("data", "data_white"):
            file[f"exchange/{name}"][:, 0] = 100
    values = prepared(flat_scan)
    assert not values[0].any()
    np.testing.assert_allclose(values[1:], 1.0, atol=1e-5)
