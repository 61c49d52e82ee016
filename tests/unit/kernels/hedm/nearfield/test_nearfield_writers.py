"""Maps that are written are read again, by this program and as MIDAS's columns say."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from gold_layers import cubic_rotations, misorientation_deg, random_orientations
from PIL import Image

from kernels.errors import Exit, KernelError
from kernels.hedm.nearfield.grains import segment
from kernels.hedm.nearfield.pictures import write_colours, write_confidence
from kernels.hedm.nearfield.reconstruct import OrientationMap
from kernels.hedm.nearfield.voxels import SQUARES, Voxels, enough_samples, squares, triangles
from kernels.hedm.nearfield.writers import raster, read_map, read_mic, write_map, write_mic
from kernels.hedm.orientations import from_rotation_vectors
from kernels.io.nexus import check_nexus

ROTATIONS = cubic_rotations()


def example(voxels: Voxels) -> OrientationMap:
    """Two halves of different orientation, each voxel in another symmetric equivalent, and a corner of nothing."""
    rng = np.random.default_rng(0)
    x = voxels.places_um[:, 0]
    grain = (x > 10).astype(int)
    small = from_rotation_vectors(rng.normal(0, 1e-3, (len(x), 3)))
    orientations = small @ random_orientations(2, seed=3)[grain] @ ROTATIONS[rng.integers(0, 24, len(x))]
    confidence = np.where(voxels.places_um.sum(axis=1) > 45, 0.1, 0.9)
    segments = segment(voxels, orientations, ROTATIONS, angle_deg=1.0, used=confidence >= 0.3)
    return OrientationMap(voxels, orientations, confidence, np.full(len(x), 80.5), segments, 0.25, 0.3)


@pytest.fixture(params=["squares", "triangles"])
def made(request: pytest.FixtureRequest) -> OrientationMap:
    grid = squares if request.param == "squares" else triangles
    return example(grid(80.0, 5.0, pixel_um=2.0))


def test_grains(made: OrientationMap) -> None:
    segments, x = made.segments, made.voxels.places_um[:, 0]
    assert len(segments.voxels) == 2
    assert segments.voxels[0] > segments.voxels[1]
    left = made.accepted & (x < 5)
    assert (segments.grain[left] == 1).all()
    assert (segments.grain[~made.accepted] == 0).all()
    assert segments.voxels.tolist() == [(segments.grain == 1).sum(), (segments.grain == 2).sum()]
    assert misorientation_deg(segments.orientations, random_orientations(2, seed=3)).max() < 0.02
    np.testing.assert_allclose(segments.places_um[0], made.voxels.places_um[segments.grain == 1].mean(axis=0))


def test_nexus(made: OrientationMap, tmp_path: Path) -> None:
    path = tmp_path / "map.h5"
    colours = np.random.default_rng(1).integers(0, 255, (len(made.confidence), 3)).astype(np.uint8)
    write_map(path, made, colours=colours, parameters={"threshold": 3})
    check_nexus(path)
    again = read_map(path)
    for name in ("orientations", "confidence", "expected"):
        np.testing.assert_array_equal(getattr(again, name), getattr(made, name))
    for one, other in zip(again.segments, made.segments, strict=True):
        np.testing.assert_array_equal(one, other)
    assert again.chance == 0.25
    assert again.threshold == 0.3
    assert again.voxels.shape == made.voxels.shape
    np.testing.assert_array_equal(again.voxels.points[1], made.voxels.points[1])
    with h5py.File(path) as file:
        entry = file["entry"]
        image = entry["confidence/data"][()]
        place, x, y = raster(made.voxels)
        assert image.shape == place.shape == (len(y), len(x))
        assert np.isnan(image[place < 0]).all()
        np.testing.assert_array_equal(image[place >= 0], made.confidence[place[place >= 0]].astype(np.float32))
        assert entry["orientation/data"].attrs["interpretation"] == "rgb-image"
        np.testing.assert_allclose(entry["grains/confidence"][()], 0.9)


def test_every_voxel_is_shown(made: OrientationMap) -> None:
    place, x, y = raster(made.voxels)
    assert set(range(len(made.confidence))) - set(place.ravel().tolist()) == set()
    shown = place[place >= 0]
    plane = np.stack(np.meshgrid(x, y), axis=-1)[place >= 0]
    assert np.linalg.norm(made.voxels.places_um[shown] - plane, axis=1).max() < made.voxels.size_um


def test_mic(made: OrientationMap, tmp_path: Path) -> None:
    path = tmp_path / "map.mic"
    write_mic(path, made, z_um=7.0)
    lines = path.read_text().splitlines()
    assert lines[:3] == ["%TriEdgeSize 5.000000", "%NumPhases 1", "%GlobalPosition 7.000000"]
    names = lines[3].removeprefix("%").split("\t")
    rows = np.loadtxt(path, comments="%")
    table = dict(zip(names, rows.T, strict=True))
    np.testing.assert_allclose(table["X"], made.voxels.places_um[:, 0], atol=1e-6)
    np.testing.assert_allclose(table["Confidence"], made.confidence)
    np.testing.assert_array_equal(table["UpDown"], np.where(made.voxels.up, 1, -1))
    # MIDAS's own formula, from row-major matrices that take the crystal to the sample
    u = made.orientations
    np.testing.assert_allclose(np.cos(table["Eul2"]), u[:, 2, 2], atol=2e-6)
    np.testing.assert_allclose(np.tan(table["Eul1"]) * -u[:, 1, 2], u[:, 0, 2], atol=2e-3)
    places, orientations, confidence = read_mic(path)
    np.testing.assert_allclose(orientations, u, atol=1e-5)
    np.testing.assert_allclose(places, made.voxels.places_um, atol=1e-6)
    np.testing.assert_allclose(confidence, made.confidence)


def test_files_that_are_none(tmp_path: Path) -> None:
    for read in (read_map, read_mic):
        with pytest.raises(KernelError, match="There is no file") as error:
            read(tmp_path / "none")
        assert error.value.exit_code == Exit.NO_INPUT
    (tmp_path / "text").write_text("1 2 3\n4 5 6\n")
    with pytest.raises(KernelError, match="3 columns"):
        read_mic(tmp_path / "text")
    with pytest.raises(KernelError, match="is not an orientation map"):
        read_map(tmp_path / "text")


def test_figures(made: OrientationMap, tmp_path: Path) -> None:
    colours = np.where(made.voxels.places_um[:, :1] > 10, (255, 0, 0), (0, 0, 255)).astype(np.uint8)
    write_confidence(tmp_path / "confidence.png", made)
    write_colours(tmp_path / "colours.png", made, colours)
    with Image.open(tmp_path / "colours.png") as image:
        seen = np.asarray(image)
    assert min(seen.shape[:2]) >= 400
    middle = seen[len(seen) // 2]
    assert middle[len(middle) // 4].tolist() == [0, 0, 255]
    assert middle[3 * len(middle) // 4].tolist() == [255, 0, 0]
    assert seen[0, 0].tolist() == [255, 255, 255]
    with Image.open(tmp_path / "confidence.png") as image:
        assert image.size[0] > image.size[1] > 200


def test_sample_points() -> None:
    """They fill a voxel evenly: their mean is its middle, their second moment that of its area."""
    for voxels in (
        squares(40.0, 10.0, pixel_um=1.0, margin_um=0.0),
        triangles(60.0, 12.0, pixel_um=1.5, margin_um=0.0),
    ):
        x, y = (values[np.argsort(voxels.order)] for values in voxels.points)
        assert x.shape[1] == voxels.samples**2
        np.testing.assert_allclose(x.mean(axis=1), voxels.places_um[:, 0], atol=1e-5)
        np.testing.assert_allclose(y.mean(axis=1), voxels.places_um[:, 1], atol=1e-5)
        moment = voxels.size_um**2 * (1 / 12 if voxels.shape == SQUARES else 1 / 24)
        np.testing.assert_allclose(x.var(axis=1), moment, rtol=0.05)
        np.testing.assert_allclose(y.var(axis=1), moment, rtol=0.05)


def test_triangles_fill_the_plane() -> None:
    """Any place is in one triangle, and each has three neighbours across its edges, pointing the other way."""
    voxels = triangles(60.0, 6.0, pixel_um=6.0, disc=False)
    inner = (np.abs(voxels.places_um) < 20).all(axis=1)
    near = voxels.neighbours[inner][:, :3]
    assert (near >= 0).all()
    assert (voxels.up[near] != voxels.up[inner][:, None]).all()
    distance = np.linalg.norm(voxels.places_um[near] - voxels.places_um[inner][:, None], axis=2)
    np.testing.assert_allclose(distance, 6 / np.sqrt(3), rtol=1e-9)
    assert (voxels.neighbours[inner] >= 0).sum(axis=1).tolist() == [12] * inner.sum()


def test_grids_that_are_none() -> None:
    for width, size in ((10.0, 20.0), (10.0, 0.0), (10.0, -1.0)):
        with pytest.raises(KernelError, match="do not fill a grid"):
            squares(width, size, pixel_um=1.0)
    assert enough_samples(5.0, 1.48) == 4
    assert enough_samples(1.0, 1.48) == 1
