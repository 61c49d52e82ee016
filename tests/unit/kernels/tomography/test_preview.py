"""A preview shows what the whole reconstruction shows, from a fraction of the data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image

from kernels import contract
from kernels.errors import KernelError
from kernels.io.dxchange import Scan


def run(name: str, **arguments: Any) -> dict[str, Any]:
    return dict(contract.run(name, arguments, say=None).metrics)


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scan") / "scan.h5"
    run("tomography.simulate", output=path, columns=192, rows=48, angles=360, flats=4, axisOffset=3.0, noise=False)
    return path


def test_its_slices_are_those_of_the_truth_averaged(scan: Path, tmp_path: Path) -> None:
    how = {"width": 64, "filter": "ramp", "padding": "zero", "rotationAxis": 98.5}
    metrics = run("tomography.preview", input=scan, picture=tmp_path / "p.png", nexus=tmp_path / "p.nxs", **how)
    assert (metrics["binning"], metrics["frames"]) == (3, 120)
    with h5py.File(scan.with_name("scan_truth.h5")) as file:
        truth = file["truth/volume"][...].reshape(16, 3, 64, 3, 64, 3).mean((1, 3, 5))
    with h5py.File(tmp_path / "p.nxs") as file:
        for name, wanted in (("horizontal", truth[8]), ("front", truth[:, 32, :]), ("side", truth[:, :, 32])):
            found = file[f"entry/{name}/data"][...]
            assert np.sqrt(((found - wanted) ** 2).mean() / (wanted**2).mean()) < 0.2
            assert np.polyfit(wanted.ravel(), found.ravel(), 1)[0] == pytest.approx(1, abs=0.06)
        assert file["entry/histogram/value"].shape == (256,)
        assert file["entry/process/parameters/rotation_axis"][()] == 98.5
    manifest = json.loads((tmp_path / "p.png.manifest.json").read_text())
    assert [Path(made["path"]).name for made in manifest["outputs"]] == ["p.png", "p.nxs"]
    with Image.open(tmp_path / "p.png") as image:
        assert np.ptp(np.asarray(image)) == 255


def test_it_reads_only_what_it_needs(scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    real = Scan.read_frames
    monkeypatch.setattr(Scan, "read_frames", lambda self, numbers: (asked.extend(numbers), real(self, numbers))[1])
    run("tomography.preview", input=scan, picture=tmp_path / "p.png", width=64)
    assert asked == list(range(0, 360, 3))


def test_the_axis_is_found_where_it_is_not_given(scan: Path, tmp_path: Path) -> None:
    metrics = run("tomography.preview", input=scan, picture=tmp_path / "p.png", width=64)
    assert float(metrics["rotation_axis"]) == pytest.approx(98.5, abs=0.25)
    with pytest.raises(KernelError, match="off the detector"):
        run("tomography.preview", input=scan, picture=tmp_path / "q.png", rotationAxis=500)
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith("q")] == []


def test_memory_decides_how_many_frames_are_in_work(
    scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing else: the slices are the same, bit by bit."""
    asked: list[int] = []
    real = Scan.read_frames
    monkeypatch.setattr(Scan, "read_frames", lambda self, numbers: (asked.append(len(numbers)), real(self, numbers))[1])
    made = []
    for memory, most in ((1.0, 16), (0.0368, 3)):  # 36.3 MB for the line integrals and the slices
        asked.clear()
        run("tomography.preview", input=scan, picture=tmp_path / "p.png", rotationAxis=98.5, memoryGB=memory)
        made.append((tmp_path / "p.png").read_bytes())
        assert max(asked) == most
    assert made[0] == made[1]
    with pytest.raises(KernelError, match=r"need 0\.036 GB; memoryGB is 0\.03\. Raise memoryGB, or lower width"):
        run("tomography.preview", input=scan, picture=tmp_path / "q.png", rotationAxis=98.5, memoryGB=0.03)
    run("tomography.preview", input=scan, picture=tmp_path / "q.png", rotationAxis=98.5, memoryGB=0.03, width=96)
