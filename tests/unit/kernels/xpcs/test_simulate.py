"""`xpcs.simulate` and `xpcs.qmap` as kernels: files that belong together, in every format."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from recorded import SHAPES, read
from scans import left_behind, run

from kernels import registry
from kernels.errors import KernelError
from kernels.xpcs import specs_io
from kernels.xpcs.metadata import read_metadata
from kernels.xpcs.qmap import read_qmap
from kernels.xpcs.readers import open_frames
from kernels.xpcs.writers import FORMATS

SMALL: dict[str, Any] = {"frames": 40, "staticQ": 12, "dynamicQ": 3, "photons": 0.05, "seed": 3}


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    for spec in specs_io.KERNELS:
        monkeypatch.setitem(registry._ALL, spec.name, spec)


def simulated(folder: Path, form: str = "hdf5", **how: Any) -> Path:
    rows, columns = SHAPES.get(form, (64, 96))
    path = folder / f"run{FORMATS[form]}"
    run("xpcs.simulate", output=path, form=form, **({"rows": rows, "columns": columns} | SMALL | how))
    return path


def test_the_choices_are_the_formats() -> None:
    assert specs_io.KERNELS[0].arguments["form"].choices == tuple(FORMATS)


@pytest.mark.parametrize("form", ["hdf5", "rigaku-500k", "imm", "imm-dense", "timepix4"])
def test_files_belong_together(form: str, tmp_path: Path) -> None:
    """Frames are found to be of the metadata's time and the qmap's shape, and as bright as was asked."""
    path = simulated(tmp_path, form, frameTime=1e-4, frames=12)
    frames = open_frames(str(path))
    known = read_metadata(str(tmp_path / "run_metadata.hdf"))
    assert frames.frame_time_s == known.frame_time_s == 1e-4
    qmap = read_qmap(str(tmp_path / "run_qmap.hdf"), (frames.rows, frames.columns))
    assert (qmap.partition.static_bins, qmap.partition.dynamic_bins) == (12, 3)
    assert qmap.partition.geometry["energy"] == known.energy_kev
    shown = read(frames)
    used = qmap.partition.static.ravel() > 0
    assert shown[:, used].mean() == pytest.approx(0.05, rel=0.1)
    assert not shown[:, ~used].any()
    there = {path.name, "run_qmap.hdf", "run_metadata.hdf", "run_truth.h5"}
    assert {name for name in left_behind(tmp_path) if not name.endswith(".json")} == there


def test_all_modules_of_the_3m(tmp_path: Path) -> None:
    path = simulated(tmp_path, "rigaku-3m", frames=3, photons=0.01)
    frames = open_frames(str(path))
    qmap = read_qmap(str(tmp_path / "run_qmap.hdf"), (frames.rows, frames.columns))
    laid = qmap.partition.static
    assert not laid[512:582].any()
    assert not laid[:, 1024:1076].any()
    assert read(frames).sum() > 0


def test_the_same_seed_gives_the_same_files(tmp_path: Path) -> None:
    digests = []
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        (tmp_path / name).mkdir()
        path = simulated(tmp_path / name, "imm", seed=seed)
        digests.append(hashlib.sha256(path.read_bytes()).hexdigest())
    assert digests[0] == digests[1] != digests[2]


def test_g2_of_each_ring(tmp_path: Path) -> None:
    """Relaxation as the truth says, from the file: g2 of each dynamic bin by its definition."""
    path = simulated(tmp_path, frames=600, photons=0.4, contrast=0.5, tau=0.01, tauPower=1.0)
    shown = read(open_frames(str(path))).astype(np.float64)
    qmap = read_qmap(str(tmp_path / "run_qmap.hdf"))
    with h5py.File(tmp_path / "run_truth.h5") as file:
        tau_s = file["truth/tau_s"][()]
        contrast = file["truth"].attrs["contrast"]
    assert (np.diff(tau_s) < 0).all()
    static, owner = qmap.partition.static.ravel(), qmap.partition.owner
    for delay in (1, 3, 9):
        each = []
        for number in range(1, qmap.partition.static_bins + 1):
            ring = shown[:, static == number]
            each.append((ring[:-delay] * ring[delay:]).mean() / (ring[:-delay].mean() * ring[delay:].mean()))
        for number in range(1, 4):
            expected = 1 + contrast * np.exp(-2 * delay * 1e-3 / tau_s[number - 1])
            assert np.mean(np.array(each)[owner == number]) == pytest.approx(expected, abs=0.05)


def test_bad_pixels_of_the_truth_are_found(tmp_path: Path) -> None:
    """The kernel marks what the truth names, and what is left has the same rings otherwise."""
    path = simulated(tmp_path, frames=300, photons=2.0, deadPixels=0.01, hotPixels=0.01, tau=2e-3, tauPower=0)
    bins = tmp_path / "bins.hdf"
    result = run("xpcs.qmap", output=bins, input=path, staticQ=12, dynamicQ=3, beamStop=1.248, findBadPixels=True)
    with h5py.File(tmp_path / "run_truth.h5") as file:
        dead, hot = file["truth/dead"][()], file["truth/hot"][()]
    used = read_qmap(str(tmp_path / "run_qmap.hdf")).partition.static.ravel() > 0
    blemish = read_qmap(str(bins)).blemish.ravel()
    np.testing.assert_array_equal(np.flatnonzero(~blemish & used), np.sort([*dead[used[dead]], *hot[used[hot]]]))
    assert result.metrics["dead_pixels"] >= used[dead].sum() > 5
    assert result.metrics["hot_pixels"] >= used[hot].sum() > 5


def test_a_qmap_of_given_geometry_and_mask(tmp_path: Path) -> None:
    """The mask of one qmap is taken over into another; the geometry may be given in full."""
    path = simulated(tmp_path)
    again = tmp_path / "again.hdf"
    run("xpcs.qmap", output=again, input=path, mask=tmp_path / "run_qmap.hdf", staticQ=12, dynamicQ=3)
    first, second = read_qmap(str(tmp_path / "run_qmap.hdf")), read_qmap(str(again))
    np.testing.assert_array_equal(first.partition.static, second.partition.static)
    given = {"beamCenterX": 12.4, "beamCenterY": 30.2, "pixelSize": 7.6e-5, "distance": 4.0, "energy": 10.9}
    run("xpcs.qmap", output=again, rows=64, columns=96, staticQ=4, dynamicQ=2, staticPhi=8, scale="log", **given)
    assert read_qmap(str(again), (64, 96)).partition.dynamic_bins == 2


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ({}, "give input, or rows and columns"),
        ({"rows": 64, "columns": 96}, "beamCenterX is neither given nor in the metadata"),
        ({"input": "run.h5", "rows": 65}, "not 65 x None"),
        ({"input": "run.h5", "mask": "run_truth.h5"}, "has neither /qmap/mask nor /qmap/blemish"),
        ({"input": "run.h5", "metadata": "run_truth.h5"}, "schema_version is missing"),
        ({"input": "run.h5", "staticQ": 10, "dynamicQ": 4}, "must be a multiple"),
    ],
)
def test_a_qmap_that_cannot_be(
    how: dict[str, Any], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulated(tmp_path, frames=2)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(KernelError, match=sentence):
        run("xpcs.qmap", output="bins.hdf", **how)
    assert not list(tmp_path.glob("bins*"))


def test_names_and_detectors_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(KernelError, match=r"ends in \.imm"):
        run("xpcs.simulate", output=tmp_path / "run.h5", form="imm")
    with pytest.raises(KernelError, match="512 x 1024 pixels, not 516 x 1556"):
        run("xpcs.simulate", output=tmp_path / "run.bin", form="rigaku-500k")
    assert left_behind(tmp_path) == []
