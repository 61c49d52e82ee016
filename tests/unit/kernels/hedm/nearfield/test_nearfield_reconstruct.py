"""Maps of layers whose grains are known: found with and without seeds, by any number of threads and ranks alike."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numba
import numpy as np
import pytest
from gold_layers import cubic, cubic_rotations, layer, misorientation_deg, random_orientations, scan
from numpy.typing import NDArray
from test_nearfield_reduction import frames

from kernels.errors import Exit, KernelError
from kernels.hedm.distortion import GeDistortion
from kernels.hedm.nearfield.ideal import ideal_images
from kernels.hedm.nearfield.reconstruct import OrientationMap, reconstruct
from kernels.hedm.nearfield.reduction import reduce
from kernels.hedm.nearfield.setup import Setup
from kernels.hedm.nearfield.simulate import Layer, simulate, voronoi
from kernels.hedm.nearfield.spots import Spots

G0 = cubic(0.85)
ROTATIONS = cubic_rotations()


def case(seed: int = 1, **how: float) -> tuple[Spots, Setup, Layer]:
    setup = scan()
    grains = voronoi(layer(8.0), random_orientations(5, seed=seed), seed=seed + 1)
    return simulate(grains, setup, G0, seed=seed + 2, **how), setup, grains  # type: ignore[arg-type]


def near(orientations: NDArray[np.float64], angle_deg: float, seed: int) -> NDArray[np.float64]:
    """Others at that angle."""
    from kernels.hedm.orientations import from_rotation_vectors

    axes = np.random.default_rng(seed).normal(size=(len(orientations), 3))
    axes *= np.deg2rad(angle_deg) / np.linalg.norm(axes, axis=1, keepdims=True)
    return from_rotation_vectors(axes) @ orientations


def away_from_boundaries(grains: Layer) -> NDArray[np.bool_]:
    around = grains.voxels.neighbours
    same = grains.grain[np.maximum(around, 0)] == grains.grain[:, None]
    return np.asarray((same | (around < 0)).all(axis=1))


def right(made: OrientationMap, grains: Layer, within_deg: float) -> NDArray[np.bool_]:
    return misorientation_deg(made.orientations, grains.orientations[grains.grain]) < within_deg


def test_with_seeds() -> None:
    """A far-field table that is off by 0.4°, with noise, and a tenth of all reflections unseen."""
    images, setup, grains = case(noise=1e-3, missing=0.1)
    made = reconstruct(images, setup, grains.voxels, G0, ROTATIONS, seeds=near(grains.orientations, 0.4, seed=9))
    inner = away_from_boundaries(grains)
    assert right(made, grains, 0.5)[inner].mean() > 0.97
    assert right(made, grains, 0.5).mean() > 0.9
    assert made.accepted[inner].all()
    assert made.chance < 0.5 < np.median(made.confidence[inner])
    off = misorientation_deg(made.orientations, grains.orientations[grains.grain])
    assert np.median(off) < 0.15  # the images have 2° frames and pixels of 0.05°
    assert len(made.segments.voxels) >= 5
    assert made.segments.voxels[:5].sum() > 0.9 * len(grains.grain)


def test_without_seeds() -> None:
    images, setup, grains = case()
    made = reconstruct(images, setup, grains.voxels, G0, ROTATIONS)
    inner = away_from_boundaries(grains)
    assert right(made, grains, 0.5)[inner].mean() > 0.95
    assert made.accepted.mean() > 0.95


def test_threads_are_of_no_account() -> None:
    images, setup, grains = case()
    seeds = near(grains.orientations, 0.4, seed=9)
    before, made = numba.get_num_threads(), []
    for count in (1, min(2, before)):
        numba.set_num_threads(count)
        made.append(reconstruct(images, setup, grains.voxels, G0, ROTATIONS, seeds=seeds))
    numba.set_num_threads(before)
    np.testing.assert_array_equal(made[0].orientations, made[1].orientations)
    np.testing.assert_array_equal(made[0].confidence, made[1].confidence)


def test_a_frame_missing_at_one_distance() -> None:
    images, setup, grains = case()
    present = np.ones_like(images.present)
    present[0, 20:60] = False
    bits = images.bits.copy()
    bits[~present] = 0
    less = Spots(bits, images.rows, images.columns, present)
    made = reconstruct(less, setup, grains.voxels, G0, ROTATIONS, seeds=near(grains.orientations, 0.4, seed=9))
    assert right(made, grains, 0.5)[away_from_boundaries(grains)].mean() > 0.95
    assert np.median(made.confidence) > 0.8


def refused(images: Spots, setup: Setup, grains: Layer, a_A: float = 4.0782) -> str:
    with pytest.raises(KernelError) as error:
        reconstruct(
            images, setup, grains.voxels, cubic(0.85, a_A), ROTATIONS, seeds=near(grains.orientations, 0.3, seed=9)
        )
    assert error.value.exit_code == Exit.BAD_INPUT
    return error.value.sentence


def test_a_wrong_lattice_is_told() -> None:
    images, setup, grains = case()
    said = refused(images, setup, grains, a_A=4.6)
    assert "No grain was found near any of the seeds" in said
    assert "and what was found explains 0.0" in said
    assert "Check the lattice" in said


def test_images_of_the_distances_exchanged() -> None:
    images, setup, grains = case()
    swapped = Spots(images.bits[::-1].copy(), images.rows, images.columns, images.present)
    assert "With the distances in the opposite order" in refused(swapped, setup, grains)


def test_omega_the_other_way() -> None:
    images, setup, grains = case()
    said = refused(images, replace(setup, omega_start_deg=180.0, omega_step_deg=-2.0), grains)
    assert "With omega running the other way" in said


BENT = GeDistortion((0.0, 0.0, 300.0, 2.0, 2.0, 2.0))

_PROGRAM = """
import sys
from dataclasses import replace
import numpy as np
from test_nearfield_reconstruct import BENT, G0, ROTATIONS, case, near
from kernels.hedm.nearfield.ideal import ideal_images
from kernels.hedm.nearfield.reconstruct import reconstruct
from kernels.hedm.nearfield.reduction import reduce
from kernels.ranks import Ranks
from test_nearfield_reduction import frames
images, setup, grains = case()
ranks = Ranks.here()
values = [frames(seed=1), frames(seed=2)]
bits = reduce(values, threshold=50, missing=[[], [3]], block_bytes=100_000, ranks=ranks)
seeds = near(grains.orientations, 0.4, seed=9)
made = reconstruct(images, setup, grains.voxels, G0, ROTATIONS, seeds=seeds, ranks=ranks)
ideal, _ = ideal_images(images, replace(setup, distortion=(BENT, None)), ranks)
found = {"u": made.orientations, "c": made.confidence, "g": made.segments.grain, "bits": bits.bits, "ideal": ideal.bits}
np.savez(f"{sys.argv[1]}.{ranks.rank}.npz", **found)
"""


def test_ranks_are_of_no_account(tmp_path: Path) -> None:
    if shutil.which("mpirun") is None:
        pytest.skip("there is no mpirun here; see tests/install-system-parts")
    environment = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    environment |= {"NUMBA_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    images, setup, grains = case()
    alone = reconstruct(images, setup, grains.voxels, G0, ROTATIONS, seeds=near(grains.orientations, 0.4, seed=9))
    bits = reduce([frames(seed=1), frames(seed=2)], threshold=50, missing=[[], [3]])
    ideal, _ = ideal_images(images, replace(setup, distortion=(BENT, None)))
    for size in (1, 2, 4):
        line = ["mpirun", "-n", str(size), "--oversubscribe", "--bind-to", "none", sys.executable, "-c", _PROGRAM]
        subprocess.run([*line, str(tmp_path / str(size))], env=environment, check=True, timeout=100)
        for rank in range(size):
            with np.load(tmp_path / f"{size}.{rank}.npz") as made:
                np.testing.assert_array_equal(made["u"], alone.orientations)
                np.testing.assert_array_equal(made["c"], alone.confidence)
                np.testing.assert_array_equal(made["g"], alone.segments.grain)
                np.testing.assert_array_equal(made["bits"], bits.bits)
                np.testing.assert_array_equal(made["ideal"], ideal.bits)
