"""Images of a detector that bends space are mapped as those of one that does not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from gold_layers import cubic, cubic_rotations, layer, random_orientations, scan
from numpy.typing import NDArray
from scipy import ndimage
from test_nearfield_reconstruct import away_from_boundaries, near, right

from kernels.errors import Exit, KernelError
from kernels.hedm.distortion import DexelaDistortion, Distortion, GeDistortion, MapDistortion, MidasDistortion
from kernels.hedm.geometry import Geometry, Panel
from kernels.hedm.nearfield.ideal import ideal_images
from kernels.hedm.nearfield.reconstruct import reconstruct
from kernels.hedm.nearfield.search import screen
from kernels.hedm.nearfield.setup import Setup
from kernels.hedm.nearfield.simulate import _bent, simulate, voronoi
from kernels.hedm.nearfield.spots import Spots

G0 = cubic(0.75)
ROTATIONS = cubic_rotations()

BARREL = GeDistortion((2.0, -1.0, 6.0, 1.0, 1.0, 1.0))  # 3 pixels where spots are, 20 in the corners
WAVES = MapDistortion(*(5 * np.sin(np.add.outer(0.4 * np.arange(13), np.arange(25) * k)) for k in (0.15, 0.3)), step=32)
POLYNOMIAL = MidasDistortion((3e-3, 0.0, 1e-2, 0.0, 0.0, 0.0, 45.0), 500.0)
TILES = DexelaDistortion((0.012, 0.008, -0.012, 0.006, 0.004, -0.01, -0.008, -0.004))


def bent(*distortion: Distortion | None) -> Setup:
    return replace(scan(), distortion=distortion)


def lit(spots: Spots) -> NDArray[np.bool_]:
    bits = np.unpackbits(spots.bits.view(np.uint8), axis=-1, bitorder="little").astype(bool)
    return bits[..., : spots.columns]


def shift(setup: Setup, other: Setup) -> tuple[int, int]:
    """Rows and columns between the first pixels of two detectors in one plane."""
    step = other.origin_um[0] - setup.origin_um[0]
    steps = np.stack([setup.row_um[0], setup.column_um[0]], axis=1)
    row, column = np.rint(np.linalg.lstsq(steps, step, rcond=None)[0]).astype(int).tolist()
    return row, column


@pytest.mark.parametrize("distortion", [BARREL, WAVES, POLYNOMIAL, TILES])
def test_a_place_is_seen_where_the_geometry_says(distortion: Distortion) -> None:
    setup = bent(None, distortion)
    plane = setup.plane(1)
    panel = Panel("p", plane.shape, plane.pixel_um, plane.centre_um, plane.row, plane.column, distortion)
    random = np.random.default_rng(0)
    row, column = random.uniform(0, 383, 40), random.uniform(0, 767, 40)
    points = setup.origin_um[1] + row[:, None] * setup.row_um[1] + column[:, None] * setup.column_um[1]
    true = np.stack(Geometry(0.18, (panel,)).pixels(np.zeros(40, np.int64), points), axis=1)
    for d, expected in enumerate((np.stack([row, column], axis=1), true)):
        found = [_bent(r + 0.5, c + 0.5, d, setup.bending) for r, c in zip(row, column, strict=True)]
        np.testing.assert_allclose(np.array(found) - 0.5, expected, atol=1e-6)
    assert 2 < abs(true - np.stack([row, column], axis=1)).max() < 100


@pytest.mark.parametrize("distortion", [BARREL, WAVES, POLYNOMIAL, TILES])
def test_images_are_the_ideal_ones_within_a_pixel(distortion: Distortion) -> None:
    grains = voronoi(layer(8.0), random_orientations(4, seed=1), seed=2)
    setup = bent(distortion, None)
    images = simulate(grains, setup, G0)
    made, where = ideal_images(images, setup)
    assert where.distortion == ()
    assert made.present is images.present
    top, left = shift(setup, where)
    window = np.s_[:, :, top : top + where.rows, left : left + where.columns]
    ideal, found = lit(simulate(grains, scan(), G0))[window], lit(made)
    np.testing.assert_array_equal(ideal[1], found[1])
    wide = np.ones((1, 3, 3), bool)
    inner = np.s_[:, 2:-2, 2:-2]
    for one, other in ((ideal[0], found[0]), (found[0], ideal[0])):
        beside = one & ~ndimage.binary_dilation(other, wide)
        gaps = 0.01 if distortion is TILES else 0.0  # between tiles nothing is measured
        assert beside[inner].sum() <= gaps * one.sum()
    raw = lit(images)[window][0]
    assert (raw & ~ndimage.binary_dilation(ideal[0], wide)).sum() > 0.05 * ideal[0].sum()


def test_where_nothing_is_seen_nothing_is_looked_for() -> None:
    """All pixels of the ideal detector fall on the real one."""
    setup = bent(BARREL, WAVES)
    grains = voronoi(layer(8.0), random_orientations(2, seed=1), seed=2)
    images = simulate(grains, setup, G0)
    every = Spots(np.full_like(images.bits, 0xFFFFFFFF), images.rows, images.columns, images.present)
    made, where = ideal_images(every, setup)
    assert lit(made).all()
    assert (where.rows, where.columns) < (setup.rows, setup.columns)
    assert where.rows > setup.rows - 40
    np.testing.assert_allclose(where.row_um, setup.row_um)


@pytest.mark.parametrize("blur", [0, 1])
def test_a_map_with_and_without_it(blur: int) -> None:
    """As right as one of a straight detector. Spots a pixel high, as a plane throws them, lose some of their points to
    whole pixels; blurred by one pixel they lose none."""
    gentle = replace(BARREL, coefficients=(0.6, -0.3, 1.8, 1.0, 1.0, 1.0))
    setup = bent(gentle, MapDistortion(0.3 * WAVES.row_shift, 0.3 * WAVES.column_shift, 32))
    grains = voronoi(layer(6.0), random_orientations(12, seed=3), seed=4)
    seeds = near(grains.orientations, 0.3, seed=5)
    images = simulate(grains, setup, G0, spread=blur)
    made = reconstruct(images, setup, grains.voxels, G0, ROTATIONS, seeds=seeds)
    plain = reconstruct(images, replace(setup, distortion=()), grains.voxels, G0, ROTATIONS, seeds=seeds)
    alike = simulate(grains, scan(), G0, spread=blur)
    straight = reconstruct(alike, scan(), grains.voxels, G0, ROTATIONS, seeds=seeds)
    inner = away_from_boundaries(grains)
    assert right(made, grains, 0.5)[inner].mean() > 0.97
    assert right(made, grains, 0.5).mean() > right(straight, grains, 0.5).mean() - 0.03
    assert np.median(made.confidence) > np.median(straight.confidence) - (0.02 if blur else 0.2)
    assert right(plain, grains, 0.5).mean() < right(made, grains, 0.5).mean() - (0.03 if blur else 0.2)
    assert np.median(plain.confidence) < np.median(made.confidence) - (0.03 if blur else 0.4)


def test_without_any_nothing_is_done() -> None:
    setup = bent(None, None)
    assert setup.distortion == ()
    grains = voronoi(layer(20.0), random_orientations(2, seed=1), seed=2)
    images = simulate(grains, setup, G0)
    made, where = ideal_images(images, setup)
    assert made is images
    assert where is setup


def test_distortions_that_cannot_be() -> None:
    grains = voronoi(layer(20.0), random_orientations(2, seed=1), seed=2)
    images = simulate(grains, scan(), G0)
    with pytest.raises(KernelError, match=r"leaves .* of 384 x 768 pixels: check its coefficients") as error:
        ideal_images(images, bent(GeDistortion((0.0, 0.0, 3e5, 2.0, 2.0, 2.0)), None))
    assert error.value.exit_code == Exit.BAD_INPUT
    with pytest.raises(KernelError, match="does not cover a panel"):
        ideal_images(images, bent(replace(WAVES, step=16), None))
    with pytest.raises(KernelError, match="the scan has 90"):
        ideal_images(images, replace(bent(BARREL, None), frames=90))
    with pytest.raises(KernelError, match="distortion is still in the images"):
        screen(images, bent(BARREL, None), grains.voxels, grains.orientations, G0)
