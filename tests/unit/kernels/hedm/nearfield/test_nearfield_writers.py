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
from kernels.hedm.nearfield.voxels import (
    GRIDS,
    HEXAGONS,
    SQUARES,
    TRIANGLES,
    Voxels,
    enough_samples,
    hexagons,
    sample_points,
    squares,
    triangles,
)
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
    return OrientationMap(voxels, orientations, confidence, np.full(len(x), 80.5), segments, 0.25, 0.3, 0.6)


@pytest.fixture(params=[SQUARES, TRIANGLES, HEXAGONS])
def made(request: pytest.FixtureRequest) -> OrientationMap:
    return example(GRIDS[request.param](80.0, 5.0, pixel_um=2.0))


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
    assert again.explained == 0.6
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
    edge = {SQUARES: 5 * 2 / 3**0.25, TRIANGLES: 5.0, HEXAGONS: 5 / 3**0.5}[made.voxels.shape]
    assert lines[:3] == [f"%TriEdgeSize {edge:.6f}", "%NumPhases 1", "%GlobalPosition 7.000000"]
    names = lines[3].removeprefix("%").split("\t")
    rows = np.loadtxt(path, comments="%")
    table = dict(zip(names, rows.T, strict=True))
    each = 6 if made.voxels.shape == HEXAGONS else 1
    assert table["X"].reshape(-1, each).mean(axis=1) == pytest.approx(made.voxels.places_um[:, 0], abs=1e-6)
    np.testing.assert_allclose(table["Confidence"], made.confidence.repeat(each))
    assert (3**0.5 / 4 * table["TriEdgeSize"] ** 2).sum() == pytest.approx(
        len(made.confidence) * made.voxels.area_um2, rel=1e-5
    )
    if each == 1:
        np.testing.assert_array_equal(table["UpDown"], np.where(made.voxels.up, 1, -1))
    # MIDAS's own formula, from row-major matrices that take the crystal to the sample
    u = made.orientations.repeat(each, axis=0)
    np.testing.assert_allclose(np.cos(table["Eul2"]), u[:, 2, 2], atol=2e-6)
    np.testing.assert_allclose(np.tan(table["Eul1"]) * -u[:, 1, 2], u[:, 0, 2], atol=2e-3)
    places, orientations, confidence = read_mic(path)
    np.testing.assert_allclose(orientations, u, atol=1e-5)
    np.testing.assert_allclose(places.reshape(-1, each, 2).mean(axis=1), made.voxels.places_um, atol=1e-6)
    np.testing.assert_allclose(confidence, made.confidence.repeat(each))


def test_the_triangles_of_a_mic_are_the_hexagons(tmp_path: Path) -> None:
    """At any place the file has one triangle, as MIDAS draws it, and it is of the hexagon whose middle is nearest."""
    made = example(hexagons(80.0, 8.0, pixel_um=2.0, disc=False))
    write_mic(tmp_path / "map.mic", made)
    rows = np.loadtxt(tmp_path / "map.mic", comments="%")
    spots = np.random.default_rng(4).uniform(-30, 30, (2000, 2))
    x, y = np.moveaxis(spots[:, None] - rows[:, 3:5], 2, 0)
    edge, y = rows[:, 5], y * rows[:, 6]
    height = edge * 3**0.5 / 2
    inside = (y > -height / 3) & (abs(x) < (2 * height / 3 - y) / 3**0.5)
    assert (inside.sum(axis=1) == 1).all()
    nearest = np.linalg.norm(spots[:, None] - made.voxels.places_um, axis=2).argmin(axis=1)
    np.testing.assert_array_equal(inside.argmax(axis=1) // 6, nearest)


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
        hexagons(60.0, 12.0, pixel_um=1.5, margin_um=0.0),
    ):
        x, y = (values[np.argsort(voxels.order)] for values in voxels.points)
        assert x.shape[1] == (61 if voxels.shape == HEXAGONS else voxels.samples**2)
        np.testing.assert_allclose(x.mean(axis=1), voxels.places_um[:, 0], atol=1e-5)
        np.testing.assert_allclose(y.mean(axis=1), voxels.places_um[:, 1], atol=1e-5)
        moment = voxels.size_um**2 * {SQUARES: 1 / 12, TRIANGLES: 1 / 24, HEXAGONS: 5 / 72}[voxels.shape]
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


def test_sample_points_of_a_hexagon_lie_in_it_and_reach_beyond_it() -> None:
    across = np.deg2rad([30.0, 90.0, 150.0])
    normals = np.stack([np.cos(across), np.sin(across)])
    for pixel in (0.9, 1.5, 4.0):
        for margin in (0.0, pixel):
            count = enough_samples(5.0 + 2 * margin, pixel, HEXAGONS)
            points = sample_points(HEXAGONS, 5.0, count, margin)
            farthest = abs(points @ normals).max()
            assert farthest < 2.5 + margin
            assert farthest > 2.5 + margin - pixel
            apart = np.linalg.norm(points[:, None] - points, axis=2)[~np.eye(len(points), dtype=bool)]
            assert len(points) == 1 or apart.min() <= pixel
    assert sample_points(HEXAGONS, 5.0, 1).tolist() == [[0.0, 0.0]]


def test_hexagons_fill_the_plane() -> None:
    """Each has six neighbours, all as far, and their areas together are that of the plane; a disc is filled, too."""
    voxels = hexagons(100.0, 6.0, pixel_um=6.0, disc=False)
    inner = (np.abs(voxels.places_um) < 40).all(axis=1)
    near = voxels.neighbours[inner]
    assert near.shape[1] == 6
    assert (near >= 0).all()
    distance = np.linalg.norm(voxels.places_um[near] - voxels.places_um[inner][:, None], axis=2)
    np.testing.assert_allclose(distance, 6.0, rtol=1e-9)
    assert len(voxels.places_um) * voxels.area_um2 == pytest.approx(100.0**2, rel=0.1)
    disc = hexagons(100.0, 2.0, pixel_um=6.0, centre_um=(7.0, -3.0))
    assert len(disc.places_um) * disc.area_um2 == pytest.approx(np.pi * 50**2, rel=0.02)
    np.testing.assert_allclose(disc.places_um.mean(axis=0), (7.0, -3.0), atol=1e-9)


def test_a_shape_that_is_none() -> None:
    with pytest.raises(KernelError, match=r"no voxels of the shape 'hexagon'.*hexagons"):
        Voxels(np.zeros((1, 2)), 1.0, "hexagon", np.ones(1, np.bool_))


def test_grids_that_are_none() -> None:
    for grid in (squares, triangles, hexagons):
        for width, size in ((10.0, 20.0), (10.0, 0.0), (10.0, -1.0)):
            with pytest.raises(KernelError, match="do not fill a grid"):
                grid(width, size, pixel_um=1.0)
    assert enough_samples(5.0, 1.48) == 4
    assert enough_samples(1.0, 1.48) == 1
