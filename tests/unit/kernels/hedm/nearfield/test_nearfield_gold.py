"""A gold crystal, measured at the Advanced Photon Source, against the map that HEXOMAP made of the same images.

The data are HEXOMAP's example (BSD-3-Clause): 180 frames of 1° at two distances as lists of pixels, and a map of 15 x
15 voxels of 5 µm, most of which lie in one grain, whose confidence falls off towards the edge of the crystal.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from gold_layers import cubic, cubic_rotations, misorientation_deg

from kernels.hedm.nearfield.reconstruct import reconstruct
from kernels.hedm.nearfield.setup import Setup, from_hexomap
from kernels.hedm.nearfield.spots import Spots, from_lists
from kernels.hedm.nearfield.voxels import at
from kernels.hedm.orientations import from_bunge, from_rotation_vectors

FOLDER = Path(os.environ.get("BEAMWAY_HEDM_DATA", Path(__file__).parents[6] / "shared" / "data" / "hedm"))

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"the gold data are not in {FOLDER} (BEAMWAY_HEDM_DATA)")

X, Y, PHI_1, CONFIDENCE = 0, 1, 3, 6  # columns of the reference: mm, mm, Bunge's angles in degrees, hit ratio


def measured() -> tuple[Spots, Setup]:
    setup = from_hexomap(
        65.351,
        [4.528609907276982, 6.528609907276983],
        [(2015.949271581813, 1013.0990643703981), (2013.1589306792268, 1030.3874892973176)],
        [
            (89.03599584725269, 89.41272026006261, -0.3623582568580403),
            (88.95109388470058, 89.29458544511468, -0.30202439493453814),
        ],
        pixel_mm=0.00148, rows=2048, columns=2048, omega_start_deg=90.0, omega_step_deg=-1.0, frames=180,
        eta_deg=(0.0, 81.0),
    )  # fmt: skip
    with np.load(FOLDER / "hexomap_au_1deg_2dist.npz") as file:
        lists = [[(file[f"{f:06d}.bin{d}_y"], file[f"{f:06d}.bin{d}_x"]) for f in range(180)] for d in range(2)]
    return from_lists(2048, 2048, lists), setup


@pytest.fixture(scope="module")
def scan() -> tuple[Spots, Setup]:
    return measured()


def test_the_map_of_the_reference(scan: tuple[Spots, Setup]) -> None:
    """From nothing but the lattice: the same orientation, and the same crystal in the plane."""
    spots, setup = scan
    reference = np.load(FOLDER / "hexomap_au_reference_15x15.npy").reshape(-1, 10)
    voxels = at(1000 * reference[:, [X, Y]], 5.0, pixel_um=1.48)
    made = reconstruct(spots, setup, voxels, cubic(9 / (2 * np.pi), 4.08), cubic_rotations())
    crystal = reference[:, CONFIDENCE] > 0.5
    assert ((made.confidence > 0.5) == crystal).mean() >= 0.9
    theirs = from_bunge(np.deg2rad(reference[:, PHI_1 : PHI_1 + 3]))
    apart = misorientation_deg(made.orientations, theirs)[crystal]
    assert np.median(apart) < 1.0  # a frame
    # HEXOMAP counts frames of 180/179°, so that its orientations are turned about z, by half a frame in the middle
    half = from_rotation_vectors(np.deg2rad([0.0, 0.0, 0.5])) @ theirs
    turned = np.median(misorientation_deg(made.orientations, half)[crystal])
    assert turned < 0.3
    assert turned < np.median(apart)
    assert made.chance < 0.4
    assert np.median(made.confidence[crystal]) > np.median(reference[crystal, CONFIDENCE])
