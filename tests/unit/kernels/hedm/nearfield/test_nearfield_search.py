"""The search that leaves out what cannot win finds, bit by bit, what trying everything finds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numba
import numpy as np
import pytest
from gold_layers import cubic, layer, random_orientations, scan
from numpy.typing import NDArray

from kernels.errors import KernelError
from kernels.hedm.nearfield import search
from kernels.hedm.nearfield.rays import spots as spots_of
from kernels.hedm.nearfield.search import Found, scores, screen
from kernels.hedm.nearfield.setup import Setup
from kernels.hedm.nearfield.simulate import Layer, simulate, voronoi
from kernels.hedm.nearfield.spots import Spots
from kernels.hedm.nearfield.voxels import GRIDS, HEXAGONS, SQUARES, TRIANGLES, Voxels

Floats = NDArray[np.float64]
G0 = cubic(0.75)


@pytest.fixture
def three_threads() -> Iterator[None]:
    before = numba.get_num_threads()
    numba.set_num_threads(min(3, numba.config.NUMBA_NUM_THREADS))
    yield
    numba.set_num_threads(before)


def case(*, shape: str = SQUARES, missing_frames: bool = False) -> tuple[Spots, Setup, Layer, Floats]:
    """Images of five grains; the candidates are these, near ones, doubles, and others."""
    setup = scan()
    voxels = layer(9.0, 150.0) if shape == SQUARES else GRIDS[shape](150.0, 14.0, pixel_um=4.0)
    grains = voronoi(voxels, random_orientations(5, seed=1), seed=2)
    images = simulate(grains, setup, G0, noise=2e-3, missing=0.1, seed=3)
    if missing_frames:
        present = np.ones_like(images.present)
        present[0, 10:40] = present[1, 30:60] = False
        bits = images.bits.copy()
        bits[~present] = 0
        images = Spots(bits, images.rows, images.columns, present)
    wrong = random_orientations(60, seed=4)
    return images, setup, grains, np.concatenate([wrong[:30], grains.orientations, grains.orientations, wrong[30:]])


def everything(images: Spots, setup: Setup, voxels: Voxels, candidates: Floats, keep: int) -> Found:
    """Every orientation at every voxel."""
    count = len(voxels.places_um)
    pairs = [scores(images, setup, voxels, np.repeat(u[None], count, axis=0), G0) for u in candidates]
    index, hits, counted = (np.full((count, keep), fill) for fill in (-1, 0, 0))
    for n in range(count):
        ranked = sorted(
            ((-Fraction(int(h[n]), int(c[n])), k) for k, (h, c) in enumerate(pairs) if h[n] > 0), key=lambda one: one
        )
        for place, (_, k) in enumerate(ranked[:keep]):
            index[n, place], hits[n, place], counted[n, place] = k, pairs[k][0][n], pairs[k][1][n]
    return Found(index, hits, counted)


@pytest.mark.parametrize("keep", [1, 4])
@pytest.mark.parametrize("options", [{}, {"shape": TRIANGLES}, {"shape": HEXAGONS}, {"missing_frames": True}])
def test_nothing_better_is_lost(options: dict[str, Any], keep: int) -> None:
    images, setup, grains, candidates = case(**options)
    found = screen(images, setup, grains.voxels, candidates, G0, keep=keep)
    true = everything(images, setup, grains.voxels, candidates, keep)
    np.testing.assert_array_equal(found.best, true.best)
    np.testing.assert_array_equal(found.hits, true.hits)
    np.testing.assert_array_equal(found.counted, true.counted)
    assert (found.best[:, 0] < 35).mean() > 0.9  # of a pair of doubles the first


def test_a_score_counts_what_is_there() -> None:
    """Hits and reflections of one voxel, pixel by pixel, at the voxel's middle."""
    images, setup, grains, candidates = case(missing_frames=True)
    voxels = replace(grains.voxels, samples=1)
    lit = np.unpackbits(images.bits.view(np.uint8), axis=-1, bitorder="little").astype(bool)
    hits, counted = scores(images, setup, voxels, candidates[30 + grains.grain], G0)
    for n in range(0, len(voxels.places_um), 7):
        rows = spots_of(candidates[30 + grains.grain[n]], G0, setup.optics, voxels.places_um[n])
        seen = []
        for frame, *at in rows:
            pixels = np.rint(at).astype(int).reshape(-1, 2)
            there = [lit[d, int(frame), r, c] or not images.present[d, int(frame)] for d, (r, c) in enumerate(pixels)]
            seen.append(all(there))
        assert abs(len(seen) - counted[n]) <= 1  # a spot on the very edge
        assert abs(sum(seen) - hits[n]) <= 1
        assert hits[n] > 0.5 * counted[n]


@pytest.mark.usefixtures("three_threads")
def test_threads_tiles_and_batches_are_of_no_account(monkeypatch: pytest.MonkeyPatch) -> None:
    images, setup, grains, candidates = case()
    monkeypatch.setattr(search, "_BATCH", 7)
    found = screen(images, setup, grains.voxels, candidates, G0, keep=2)
    numba.set_num_threads(1)
    monkeypatch.undo()
    alone = screen(images, setup, grains.voxels, candidates, G0, keep=2)
    part = screen(images, setup, grains.voxels.chosen(np.arange(0, 50, 3)), candidates, G0, keep=2)
    for a, b, c in zip(found, alone, part, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a[:50:3], c)


def test_only_what_is_above_the_least() -> None:
    images, setup, grains, candidates = case()
    every = screen(images, setup, grains.voxels, candidates, G0)
    least = round(float(np.median(every.confidence)), 4)
    some = screen(images, setup, grains.voxels, candidates, G0, least=least)
    above = every.confidence[:, 0] > least
    assert 0 < above.sum() < len(above)
    np.testing.assert_array_equal(some.best[:, 0], np.where(above, every.best[:, 0], -1))


def test_a_coarse_image_covers_the_fine_one() -> None:
    images, _, _, _ = case()
    coarse = images.coarse(3, reach=1, frames=2, wrap=True)
    fine = np.unpackbits(images.bits.view(np.uint8), axis=-1, bitorder="little").astype(bool)
    blocks = fine.reshape(*fine.shape[:2], 48, 8, 96, 8).any(axis=(3, 5))
    wide = np.zeros((2, 180, 50, 98), bool)
    for a in range(3):
        for b in range(3):
            wide[:, :, a : a + 48, b : b + 96] |= blocks
    wide = np.any([np.roll(wide, n, axis=1) for n in range(-2, 3)], axis=0)[:, :, 1:-1, 1:-1]
    made = np.unpackbits(coarse.bits.view(np.uint8), axis=-1, bitorder="little").astype(bool)
    np.testing.assert_array_equal(made[..., :96], wide)
    assert coarse.occupied() == pytest.approx(wide.mean(axis=(1, 2, 3)))


def test_an_orientation_that_hits_nothing_is_not_entered() -> None:
    """One none of whose reflections the detector sees is not as good as any other."""
    index, hits, counted = np.array([7, -1]), np.array([5, 0]), np.array([10, 10_000])
    for of in (0, 20):
        search._enter(index, hits, counted, 3, 0, of)
    np.testing.assert_array_equal(index, [7, -1])
    search._enter(index, hits, counted, 3, 10, 20)
    np.testing.assert_array_equal(index, [3, 7])


def test_images_of_another_scan() -> None:
    images, setup, grains, candidates = case()
    for other, sentence in (
        (replace(setup, frames=90), "180 frames at each distance, but the scan has 90"),
        (replace(setup, rows=300), "do not fit a detector of 300 x 768"),
        (replace(setup, **{n: getattr(setup, n)[:1] for n in ("origin_um", "row_um", "column_um")}), "geometry for 1"),
    ):
        with pytest.raises(KernelError, match=sentence):
            screen(images, other, grains.voxels, candidates, G0)
