"""Scans that are no even half turn, through the kernels: full turns with the axis near an edge, missing wedges, angles
in any order and spacing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from simulated import off

from kernels import contract
from kernels.errors import KernelError
from kernels.io.omezarr import open_level

FULL = {"columns": 96, "rows": 2, "angles": 480, "turn": 360, "flats": 6, "photons": 60000, "deadPixels": 0}


def run(name: str, **arguments: Any) -> contract.KernelResult:
    return contract.run(f"tomography.{name}", arguments, say=None)


def compared(scan: Path, volume: Path) -> dict[str, float]:
    found = run("compare", input=volume, truth=scan.with_name(f"{scan.stem}_truth.h5")).metrics
    return {name: float(value) for name, value in found.items()}


@pytest.mark.parametrize(("offset", "size"), [(-36.3, 170), (40.0, 176), (-47.5, 192)])
def test_half_acquisition(tmp_path: Path, offset: float, size: int) -> None:
    """The axis 12, 8 and 0 pixels from an edge: all of an object nearly twice as wide as the detector."""
    scan, volume = tmp_path / "scan.h5", tmp_path / "v.zarr"
    axis = float(run("simulate", output=scan, axisOffset=offset, **FULL).metrics["rotation_axis_true"])
    made = run("reconstruct", input=scan, output=volume, rotationAxis=axis, filter="hann")
    assert made.metrics["size"] == size
    assert made.warnings == ()
    found = compared(scan, volume)
    assert found["relative_rmse"] < 0.2
    assert found["gain"] == pytest.approx(1, abs=0.03)


def test_the_axis_of_a_half_acquisition_is_found(tmp_path: Path) -> None:
    scan, volume = tmp_path / "scan.h5", tmp_path / "v.zarr"
    axis = run("simulate", output=scan, axisOffset=30.6, **FULL).metrics["rotation_axis_true"]
    assert run("reconstruct", input=scan, output=volume).metrics["rotation_axis"] == pytest.approx(axis, abs=0.3)
    run("preview", input=scan, picture=tmp_path / "p.png", nexus=tmp_path / "p.nxs")
    with h5py.File(tmp_path / "p.nxs") as file, Image.open(tmp_path / "p.png") as image:
        assert file["entry/horizontal/data"].shape == (158, 158)
        assert np.ptp(np.asarray(image)) == 255
    with pytest.raises(KernelError, match="take gridrec") as caught:
        run("reconstruct", input=scan, output=tmp_path / "w.zarr", rotationAxis=axis, algorithm="fbp")
    assert caught.value.exit_code == 2


def test_a_full_turn_about_the_middle_is_as_wide_as_the_detector(tmp_path: Path) -> None:
    scan, volume = tmp_path / "scan.h5", tmp_path / "v.zarr"
    run("simulate", output=scan, axisOffset=2.2, **FULL)
    assert run("reconstruct", input=scan, output=volume, filter="hann").metrics["size"] == 96
    assert compared(scan, volume)["relative_rmse"] < 0.2
    with pytest.raises(KernelError, match="too far out for 96 columns over 360 degrees"):
        run("simulate", output=tmp_path / "s.h5", axisOffset=60, **FULL)


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A half turn, without noise."""
    path = tmp_path_factory.mktemp("half") / "scan.h5"
    how = {"columns": 96, "rows": 2, "angles": 300, "axisOffset": 3.3, "noise": False, "deadPixels": 0, "flats": 6}
    run("simulate", output=path, **how)
    return path


def chosen(scan: Path, path: Path, frames: NDArray[np.intp]) -> Path:
    with h5py.File(scan) as source, h5py.File(path, "w") as file:
        for name in ("data", "theta"):
            file[f"exchange/{name}"] = source["exchange"][name][...][frames]
        for name in ("data_white", "data_dark"):
            file[f"exchange/{name}"] = source["exchange"][name][...]
    return path


def slices(scan: Path, folder: Path, algorithm: str) -> NDArray[np.float32]:
    volume = folder / f"{algorithm}.zarr"
    how = {"rotationAxis": 50.8, "filter": "hann", "algorithm": algorithm}
    run("reconstruct", input=scan, output=volume, **how)
    return np.asarray(open_level(str(volume), "0")[...], np.float32)


WEDGE = np.arange(240)  # 0 to 144 degrees
RANDOM = np.random.default_rng(5).permutation(300)[:230]
OUT_OF_ORDER = np.concatenate([np.arange(n, 300, 7) for n in range(7)])


@pytest.mark.parametrize("frames", [WEDGE, RANDOM, OUT_OF_ORDER], ids=["wedge", "random", "interlaced"])
def test_gridding_is_as_back_projection(scan: Path, tmp_path: Path, frames: NDArray[np.intp]) -> None:
    """Whatever the angles, as near as its linear interpolation allows; and what is no wedge is near to the truth."""
    part = chosen(scan, tmp_path / "part.h5", frames)
    gridded, projected = (slices(part, tmp_path, algorithm) for algorithm in ("gridrec", "fbp"))
    assert off(gridded, projected) < 0.045
    with h5py.File(scan.with_name("scan_truth.h5")) as file:
        error = off(gridded, file["truth/volume"][...])
    assert error < 0.16 if frames is not WEDGE else 0.16 < error < 0.5
