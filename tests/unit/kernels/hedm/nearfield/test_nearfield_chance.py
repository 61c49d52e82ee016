"""What is found is above chance, however few reflections are seen, and what is not there is not found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from gold_layers import GOLD_A, cubic, cubic_rotations, layer, random_orientations, scan
from test_nearfield_reconstruct import near, right

from kernels.errors import Exit, KernelError
from kernels.hedm.nearfield.chance import Chance, chance_of, distinct
from kernels.hedm.nearfield.explained import explained
from kernels.hedm.nearfield.reconstruct import OrientationMap, reconstruct
from kernels.hedm.nearfield.search import scores
from kernels.hedm.nearfield.simulate import Layer, simulate, voronoi
from kernels.hedm.nearfield.spots import Spots

ROTATIONS = cubic_rotations()
FIVE_RINGS = cubic(0.85)


def case(*, seen: float = 0.85, noise: float = 1e-3, missing: float = 0.0) -> tuple[Spots, Layer]:
    """Images in which reflections are seen up to a length in 1/Å."""
    grains = voronoi(layer(10.0), random_orientations(5, seed=1), seed=2)
    return simulate(grains, scan(), cubic(seen), spread=1, noise=noise, missing=missing, seed=3), grains


def mapped(images: Spots, grains: Layer, a_A: float = GOLD_A) -> OrientationMap:
    seeds = near(grains.orientations, 0.4, seed=9)
    return reconstruct(images, scan(), grains.voxels, cubic(0.85, a_A), ROTATIONS, seeds=seeds)


@pytest.mark.parametrize("chance", [Chance(0.02, 60, 300), Chance(0.005, 15, 300), Chance(0.2, 100, 30)])
def test_the_level_is_exceeded_as_often_as_it_says(chance: Chance) -> None:
    tried = np.random.default_rng(0).binomial(
        int(chance.reflections), chance.share, (1000, int(chance.orientations) * 10)
    )
    above = (tried.max(axis=1) / chance.reflections >= chance.level(10, odds=0.2)).mean()
    assert 0.02 < above < 0.25  # whole reflections: at most as often
    assert chance.level(10) > chance.level(10, odds=0.2)
    assert chance.level(1000) > chance.level(10)


def test_few_reflections_are_more_often_all_hit_by_chance() -> None:
    levels = [Chance(0.01, count, 1e6).level(1000) for count in (2, 4, 8, 16, 64, 256)]
    assert levels == sorted(levels, reverse=True)
    assert levels[0] == levels[1] == 1.0
    assert levels[-1] < 0.1


def test_hits_of_wrong_orientations_are_binomial() -> None:
    images, grains = case()
    pairs = grains.voxels.chosen(np.repeat(np.arange(0, len(grains.grain), 10), 64))
    u = random_orientations(len(pairs.places_um), seed=7)
    hits, counted = scores(images, scan().mirrored(), pairs, u, FIVE_RINGS)
    share, count = hits.sum() / counted.sum(), counted.mean() / pairs.points[0].shape[1]
    assert (hits / counted).std() == pytest.approx(np.sqrt(share * (1 - share) / count), rel=0.15)
    measured = chance_of(images, scan().mirrored(), grains.voxels, FIVE_RINGS, orientations=1e5, measured=np.zeros(8))
    assert measured.share == pytest.approx(share, rel=0.15)
    assert measured.reflections == pytest.approx(count, rel=0.05)
    crowded = chance_of(
        images, scan().mirrored(), grains.voxels, FIVE_RINGS, orientations=1e5, measured=np.full(8, 0.4)
    )
    assert crowded.share > 5 * share
    assert crowded.level(len(grains.grain)) > 0.4


def test_orientations_that_can_be_told_apart() -> None:
    setup = scan()
    whole = distinct(setup, ROTATIONS, None, 1.0)
    assert distinct(setup, ROTATIONS[:1], None, 1.0) == pytest.approx(24 * whole)
    assert distinct(setup, ROTATIONS, random_orientations(5, seed=1), 1.0) < 1e-2 * whole
    assert distinct(setup, ROTATIONS, random_orientations(5, seed=1), 90.0) == whole
    assert distinct(replace(setup, omega_step_deg=0.02, frames=180), ROTATIONS, None, 1.0) > 8 * whole


@pytest.mark.parametrize("how", [{"missing": 0.8}, {"seen": 0.5}])
def test_a_fifth_of_the_reflections_is_enough(how: dict[str, float]) -> None:
    """Weak reflections are not seen: the confidence is below 0.3, but above chance, and the map explains the spots."""
    images, grains = case(**how)
    made = mapped(images, grains)
    assert made.chance < 0.15
    assert np.percentile(made.confidence, 95) < 0.3
    assert made.explained > 0.3
    assert right(made, grains, 1.0).mean() > 0.65
    assert made.accepted.mean() > 0.95


@pytest.mark.parametrize("noise", [0.0, 1e-3])
def test_what_is_explained(noise: float) -> None:
    """All of the spots but what falls on one of the distances alone, whatever noise there is; of two thirds less."""
    images, grains = case(noise=noise)
    u = grains.orientations[grains.grain]
    every = explained(images, scan(), grains.voxels, u, FIVE_RINGS)
    some = np.flatnonzero(grains.voxels.places_um[:, 0] < 0)
    half = explained(images, scan(), grains.voxels.chosen(some), u[some], FIVE_RINGS)
    wrong = explained(images, scan(), grains.voxels, random_orientations(len(u), seed=5), FIVE_RINGS)
    assert every > 0.4
    assert half == pytest.approx(0.5 * every, abs=0.1)
    assert wrong < 0.05 * every


@pytest.mark.parametrize("a_A", [3.6, 4.6])
def test_a_wrong_lattice_above_chance_is_no_map(a_A: float) -> None:
    """Some of its rings lie near true ones, so that it has more than by chance; it explains next to nothing."""
    images, grains = case(noise=0.0)
    with pytest.raises(KernelError, match=r"have a confidence of 0\.[12]., and what was found explains 0\.0") as error:
        mapped(images, grains, a_A)
    assert error.value.exit_code == Exit.BAD_INPUT


@pytest.mark.parametrize("longest", [0.45, 0.5, 0.85])
def test_where_no_crystal_is_none_is_found(longest: float) -> None:
    """The frames are shuffled: spots are as many and of the same rings, and no orientation is more than chance."""
    images, grains = case(seen=longest)
    order = np.random.default_rng(2).permutation(images.frames)
    shuffled = Spots(images.bits[:, order].copy(), images.rows, images.columns, images.present)
    with pytest.raises(KernelError, match=r"confidence is (0\.\d+), and chance alone reaches (0\.\d+)") as error:
        reconstruct(shuffled, scan(), grains.voxels, cubic(longest), ROTATIONS, seeds=random_orientations(200, seed=8))
    assert error.value.exit_code == Exit.BAD_INPUT


def test_of_too_few_reflections_nothing_is_believed() -> None:
    images, grains = case(seen=0.43, noise=0.3)
    with pytest.raises(KernelError, match=r"chance alone reaches 1\.00 with .* number of rings"):
        reconstruct(images, scan(), grains.voxels, cubic(0.43)[:4], ROTATIONS, seeds=grains.orientations)
