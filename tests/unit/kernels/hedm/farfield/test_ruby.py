"""Real frames of three ruby spheres: the grains are those that the instrument was calibrated with."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from kernels.hedm.conventions import hexrd
from kernels.hedm.crystals import Crystal
from kernels.hedm.farfield.find import find_grains
from kernels.hedm.farfield.lattice import Lattice
from kernels.hedm.farfield.limits import Limits
from kernels.hedm.farfield.spots import Spots
from kernels.hedm.orientations import misorientation_table
from kernels.hedm.reflections import list_reflections

FOLDER = Path(os.environ.get("BEAMWAY_HEDM_DATA", Path(__file__).parents[6] / "shared" / "data" / "hedm"))

pytestmark = pytest.mark.skipif(
    not (FOLDER / "dexelas_id3a_20200130.yml").exists(), reason=f"the ruby data are not in {FOLDER} (BEAMWAY_HEDM_DATA)"
)


def blobs(path: Path) -> np.ndarray:
    """(n, 5): row, column, omega in degrees, intensity and pixels of what hangs together in a frame cache."""
    with np.load(path) as cache:
        frames = int(cache["nframes"])
        rows, columns = (int(n) for n in cache["shape"])
        parts = [(cache[f"{n}_row"], cache[f"{n}_col"], cache[f"{n}_data"]) for n in range(frames)]
        omega = cache["omega"].mean(1)
    frame = np.repeat(np.arange(frames), [len(part[0]) for part in parts]).astype(np.int64)
    row, column, counts = (np.concatenate([part[k] for part in parts]).astype(np.int64) for k in range(3))
    key = (frame * rows + row) * columns + column
    order = np.argsort(key)
    frame, row, column, counts, key = (each[order] for each in (frame, row, column, counts, key))
    edges = []
    for step in (1, columns - 1, columns, columns + 1, *(rows * columns + n for n in (-columns, -1, 0, 1, columns))):
        at = np.minimum(np.searchsorted(key, key + step), len(key) - 1)
        hit = np.flatnonzero(key[at] == key + step)
        edges.append(np.stack([hit, at[hit]]))
    first, second = np.concatenate(edges, axis=1)
    graph = coo_matrix((np.ones(len(first), bool), (first, second)), shape=(len(key), len(key)))
    count, label = connected_components(graph, directed=False)
    total = np.bincount(label, counts, count)
    centres = [np.bincount(label, counts * each, count) / total for each in (row, column, omega[frame])]
    return np.column_stack([*centres, total, np.bincount(label)])


def test_three_rubies_and_nothing_else():
    told = hexrd.read(FOLDER / "dexelas_id3a_20200130.yml")
    geometry = told.geometry
    parts = []
    for number, name in enumerate(geometry.names):
        found = blobs(FOLDER / f"mruby-0129_000004_{name}_000012-cachefile.npz")
        found = found[(found[:, 4] >= 6) & (found[:, 3] > 100)]
        parts.append(np.column_stack([np.full(len(found), number), found]))
    table = np.concatenate(parts)
    spots = Spots.of_pixels(
        geometry,
        table[:, 0].astype(int),
        table[:, 1],
        table[:, 2],
        omega=np.radians(table[:, 3]),
        intensity=table[:, 4],
    )
    crystal = Crystal.of((4.7608, 4.7608, 12.99568, 90, 90, 120), 167)
    listed = list_reflections(crystal, geometry.wavelength_A, max_two_theta=math.radians(19.0))
    lattice = Lattice(crystal.b0, listed.hkl, listed.ring, crystal.rotations)
    limits = Limits(spot_um=30.0, omega=math.radians(0.05), radius_um=600.0, height_um=600.0, strain=2e-3)
    found = find_grains(spots, geometry, lattice, limits=limits)
    assert len(found) == 3
    true = hexrd.calibration_grains(told)
    assert true is not None
    angles = np.degrees(misorientation_table(found.orientation, true.orientation, crystal.rotations))
    partner = angles.argmin(1)
    assert sorted(partner) == [0, 1, 2]
    assert angles.min(1).max() < 0.03
    away = np.linalg.norm(found.position_um - true.position_um[partner], axis=1)
    assert away.max() < 10.0
    assert np.abs(found.strain).max() < 5e-4
    assert (found.completeness > 0.6).all()
