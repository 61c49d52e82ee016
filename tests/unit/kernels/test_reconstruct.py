"""The whole way, from a simulated scan to a volume that is compared with the truth, and what is written."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr
from ome_zarr_models.v05.image import Image
from PIL import Image as Picture
from scans import run

from kernels.errors import KernelError
from kernels.io.dxchange import Scan
from kernels.io.omezarr import VolumeWriter, check_volume, open_level
from kernels.io.picture import window, write_slices
from kernels.tomography import phantom
from kernels.tomography.slabs import plan_slabs


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scan without noise; the truth lies beside it."""
    path = tmp_path_factory.mktemp("clean") / "scan.h5"
    run("tomography.simulate", output=path, columns=192, rows=20, angles=301, noise=False, axisOffset=-5.75)
    return path


def test_error_and_gain_without_noise(clean: Path, tmp_path: Path) -> None:
    made = run("tomography.reconstruct", input=clean, output=tmp_path / "v.zarr")
    bars = {"maxError": 0.06, "maxGainError": 0.01, "maxAxisError": 0.1}
    axis = made.metrics["rotation_axis"]
    truth = clean.with_name("scan_truth.h5")
    compared = run("tomography.compare", input=tmp_path / "v.zarr", truth=truth, rotationAxis=axis, **bars).metrics
    assert float(compared["relative_rmse"]) < 0.06
    assert float(compared["gain"]) == pytest.approx(1.0, abs=0.01)
    assert abs(float(compared["axis_error"])) < 0.1


def test_error_with_noise_and_dead_pixels(scan: Path, tmp_path: Path) -> None:
    run("tomography.reconstruct", input=scan, output=tmp_path / "v.zarr", filter="hann")
    truth = scan.with_name("scan_truth.h5")
    compared = run("tomography.compare", input=tmp_path / "v.zarr", truth=truth, output=tmp_path / "e.json").metrics
    assert float(compared["relative_rmse"]) < 0.2
    assert float(compared["gain"]) == pytest.approx(1.0, abs=0.05)
    with pytest.raises(KernelError, match=r"above the bar of 0\.01") as caught:
        run("tomography.compare", input=tmp_path / "v.zarr", truth=truth, output=tmp_path / "f.json", maxError=0.01)
    assert caught.value.failure == "bad output"
    assert not (tmp_path / "f.json").exists()


def test_slabs_do_not_show(clean: Path, tmp_path: Path) -> None:
    """Any memory limit gives the same volume."""
    volumes = []
    for name, limit in (("one", 2.0), ("many", 0.02)):
        run("tomography.reconstruct", input=clean, output=tmp_path / name, rotationAxis=89.75, memoryGB=limit)
        array = open_level(str(tmp_path / name), "0")
        volumes.append(np.asarray(array[...]))
    assert array.chunks[0] < 16
    np.testing.assert_allclose(volumes[0], volumes[1], atol=5e-7)


def test_what_fits_into_memory_is_read_once(clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when it is no whole number of chunks: a compressed scan is unpacked anew for each slab."""
    read: list[tuple[int, int]] = []
    real = Scan.read_rows
    monkeypatch.setattr(Scan, "read_rows", lambda self, a, b: (read.append((a, b)), real(self, a, b))[1])
    run("tomography.reconstruct", input=clean, output=tmp_path / "v.zarr", rotationAxis=89.75)
    assert read == [(0, 20)]


def test_binning_keeps_the_gain(clean: Path, tmp_path: Path) -> None:
    run("tomography.reconstruct", input=clean, output=tmp_path / "v.zarr", rotationAxis=89.75, binning=2)
    volume = np.asarray(open_level(str(tmp_path / "v.zarr"), "0")[...])
    with h5py.File(clean.with_name("scan_truth.h5")) as file:
        truth = file["truth/volume"][...].reshape(10, 2, 96, 2, 96, 2).mean((1, 3, 5))
    assert volume.sum() / truth.sum() == pytest.approx(1.0, abs=0.01)
    assert np.sqrt(((volume - truth) ** 2).sum() / (truth**2).sum()) < 0.1


def test_wrong_requests(clean: Path, tmp_path: Path) -> None:
    for arguments, sentence in (
        ({"rotationAxis": 192}, "off the detector of 192 columns"),
        ({"rotationAxis": 90, "binning": "x"}, "must be a whole number"),
    ):
        with pytest.raises(KernelError, match=sentence) as caught:
            run("tomography.reconstruct", input=clean, output=tmp_path / "v.zarr", **arguments)
        assert caught.value.exit_code == 2
    assert not list(tmp_path.iterdir())


def test_plan_slabs() -> None:
    plan = {"angles": 1501, "columns": 2048, "size": 2048, "binning": 1, "frames": 40, "itemsize": 2, "fixed": 10**9}
    small = plan_slabs(slices=2048, limit=4 * 10**9, **plan)
    large = plan_slabs(slices=2048, limit=20 * 10**9, **plan)
    assert small.bytes <= 4 * 10**9
    assert small.layers % small.chunk == 0
    assert large.layers == 64
    assert plan_slabs(slices=2048, limit=20 * 10**9, few=True, **plan).layers > 5 * small.layers
    assert plan_slabs(slices=3, limit=20 * 10**9, **plan).layers == 3
    with pytest.raises(KernelError, match=r"one slice of 2048 x 2048 from 1501 angles needs 1\.\d+ GB"):
        plan_slabs(slices=2048, limit=10**9, **plan)
    with pytest.raises(KernelError, match=r"memoryGB is 4 for 4 ranks\."):
        plan_slabs(slices=2048, limit=4 * 10**9, ranks=4, **plan)


def test_the_volume_is_an_ome_zarr_that_readers_accept(clean: Path, tmp_path: Path) -> None:
    run("tomography.reconstruct", input=clean, output=tmp_path / "v.zarr", rotationAxis=89.75, pixelSize=1.3)
    group = zarr.open_group(tmp_path / "v.zarr", mode="r")
    image = Image.from_zarr(group)
    scales = image.attributes.ome.multiscales[0]
    assert [axis.unit for axis in scales.axes] == ["micrometer"] * 3
    assert [d.path for d in scales.datasets] == ["0", "1", "2"]
    assert scales.datasets[1].coordinateTransformations[0].scale == [2.6, 2.6, 2.6]
    shown = image.attributes.ome.omero["channels"][0]["window"]
    assert shown["min"] <= shown["start"] < shown["end"] <= shown["max"]
    fine, coarse = group["0"][...], group["1"][...]
    np.testing.assert_allclose(coarse, fine.reshape(10, 2, 96, 2, 96, 2).mean((1, 3, 5)), atol=1e-6)


def test_chunks_of_nothing_but_zeros_are_written(tmp_path: Path) -> None:
    """As in the corners of a wide volume, outside the circle: a chunk that is not there could be a lost one."""
    (tmp_path / "v").mkdir()
    values = np.zeros((2, 512, 512), np.float32)
    values[:, :256, :256] = 1
    writer = VolumeWriter(tmp_path / "v", values.shape, chunk_layers=2)
    writer.write(0, values)
    writer.finish((0.0, 1.0))
    check_volume(tmp_path / "v", values.shape)


def test_a_pyramid_of_odd_and_thin_volumes(tmp_path: Path) -> None:
    (tmp_path / "v").mkdir()
    writer = VolumeWriter(tmp_path / "v", (3, 201, 201), chunk_layers=2)
    values = np.random.default_rng(1).random((3, 201, 201), np.float32)
    writer.write(0, values[:2])
    writer.write(2, values[2:])
    writer.finish((0.0, 1.0))
    group = zarr.open_group(tmp_path / "v", mode="r")
    Image.from_zarr(group)
    assert [a.shape for _, a in sorted(group.arrays())] == [(3, 201, 201), (2, 101, 101), (1, 51, 51)]
    np.testing.assert_allclose(group["1"][1, 100, 100], values[2, 200, 200], atol=1e-6)
    transform = group.attrs["ome"]["multiscales"][0]["datasets"][2]["coordinateTransformations"]
    assert transform[0]["scale"] == [4.0, 4.0, 4.0]
    assert transform[1]["translation"] == [1.5, 1.5, 1.5]


def test_the_pictures_and_the_nexus_file(clean: Path, tmp_path: Path) -> None:
    run(
        "tomography.reconstruct",
        input=clean,
        output=tmp_path / "v.zarr",
        picture=tmp_path / "a.png",
        nexus=tmp_path / "a.nxs",
        rotationAxis=89.75,
    )
    with Picture.open(tmp_path / "a.png") as image:
        grey = np.asarray(image)
    assert grey.shape[0] >= 256
    assert np.ptp(grey) == 255
    volume = open_level(str(tmp_path / "v.zarr"), "0")
    with h5py.File(tmp_path / "a.nxs") as file:
        entry = file[file.attrs["default"]]
        plot = entry[entry.attrs["default"]]
        assert plot.attrs["NX_class"] == "NXdata"
        np.testing.assert_array_equal(plot[plot.attrs["signal"]][...], volume[10])
        np.testing.assert_array_equal(entry["front/data"][...], volume[:, 96, :])
        np.testing.assert_array_equal(entry["side/data"][...], volume[:, :, 96])
        assert [plot[a].shape for a in plot.attrs["axes"]] == [(192,), (192,)]
        assert entry["process/parameters/rotation_axis"][()] == 89.75


def test_a_thin_volume_is_legible(tmp_path: Path) -> None:
    slices = [np.eye(64, dtype=np.float32), np.ones((2, 64), np.float32), np.zeros((2, 64), np.float32)]
    write_slices(tmp_path / "a.png", slices, *window(slices))
    with Picture.open(tmp_path / "a.png") as image:
        assert image.width >= 512
        assert np.asarray(image)[:32, -256:].any()


def test_the_projections_of_the_phantom_are_exact() -> None:
    """Against sums over the voxels of the truth, along rows and columns, where these are rays."""
    parts = phantom.sample_object(128, 8, margin=64, absorption=1.5, seed=5)
    truth = phantom.truth_rows(parts, 128, 8, 0, 8).astype(np.float64)
    lines = phantom.project_rows(parts, np.array([0.0, 90.0]), 128, 8, 63.5, 0, 8)
    np.testing.assert_allclose(lines[:, 0], truth.sum(1), atol=0.02)
    np.testing.assert_allclose(lines[:, 1], truth.sum(2), atol=0.02)
    assert np.abs(lines[:, 0] - truth.sum(1)).mean() < 1e-3


def test_a_simulation_depends_only_on_its_arguments(tmp_path: Path) -> None:
    how = {"columns": 48, "rows": 10, "angles": 20, "stripes": 0.01, "beamDrift": 0.1}
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run("tomography.simulate", output=tmp_path / f"{name}.h5", seed=seed, **how)
    data = [h5py.File(tmp_path / f"{name}.h5")["exchange/data"][...] for name in "abc"]
    np.testing.assert_array_equal(data[0], data[1])
    assert (data[0] != data[2]).any()


def test_compare_says_what_is_wrong(clean: Path, scan: Path, tmp_path: Path) -> None:
    run("tomography.reconstruct", input=scan, output=tmp_path / "v.zarr", rotationAxis=50)
    for volume, truth, sentence, code in (
        (tmp_path / "none", clean, "is missing", 66),
        (clean, clean, "is not an OME-Zarr", 65),
        (tmp_path / "v.zarr", tmp_path / "none", "is missing", 66),
        (tmp_path / "v.zarr", clean, "no /truth/volume", 65),
        (tmp_path / "v.zarr", clean.with_name("scan_truth.h5"), "compare without binning", 65),
    ):
        with pytest.raises(KernelError, match=sentence) as caught:
            run("tomography.compare", input=volume, truth=truth)
        assert caught.value.exit_code == code
