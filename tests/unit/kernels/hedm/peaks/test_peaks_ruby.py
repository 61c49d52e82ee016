"""Three ruby spheres, measured at CHESS (the example data of HEXRD): spots lie on the rings of ruby."""

from __future__ import annotations

import os
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from kernels.hedm.frames import flat_dark, open_panels
from kernels.hedm.peaks import Spots, find_spots, joined, limits

FOLDER = Path(os.environ.get("BEAMWAY_HEDM_DATA", Path(__file__).parents[5] / "shared" / "data" / "hedm"))
pytestmark = pytest.mark.skipif(
    not (FOLDER / "dexelas_id3a_20200130.yml").exists(), reason=f"the ruby data are not in {FOLDER} (BEAMWAY_HEDM_DATA)"
)
A, C = 4.7608, 12.99568  # Å


@pytest.fixture(scope="module")
def geometry() -> dict:
    return yaml.safe_load((FOLDER / "dexelas_id3a_20200130.yml").read_text())


@pytest.fixture(scope="module")
def spots(geometry: dict) -> Spots:
    paths = {panel: str(FOLDER / f"mruby-0129_000004_{panel}_000012-cachefile.npz") for panel in ("ff1", "ff2")}
    pixels = {panel: geometry["detectors"][panel]["pixels"] for panel in paths}
    shapes = {panel: (pixels[panel]["rows"], pixels[panel]["columns"]) for panel in paths}
    tables = []
    for number, frames in enumerate(open_panels(paths, shapes=shapes).values()):
        assert frames.omegas.full_turn
        level = geometry["detectors"]["ff1"]["saturation_level"]
        chosen = limits(frames, flat_dark(0, frames), threshold=30, saturation=level)
        tables.append(find_spots(frames, chosen, panel=number, least_pixels=6).spots)
    return joined(tables)


def two_theta(geometry: dict, spots: Spots) -> NDArray[np.float64]:
    """Degrees; the beam goes along -Z."""
    found = np.empty(len(spots))
    for number, panel in enumerate(("ff1", "ff2")):
        said = geometry["detectors"][panel]
        rows, columns, size = said["pixels"]["rows"], said["pixels"]["columns"], said["pixels"]["size"]
        here = spots.panel == number
        flat = np.zeros((int(here.sum()), 3))
        flat[:, 0] = (spots.column[here] - (columns - 1) / 2) * size[1]
        flat[:, 1] = ((rows - 1) / 2 - spots.row[here]) * size[0]
        tilt = Rotation.from_rotvec(said["transform"]["tilt"]).as_matrix()
        lab = flat @ tilt.T + said["transform"]["translation"]
        found[here] = np.rad2deg(np.arctan2(np.hypot(lab[:, 0], lab[:, 1]), -lab[:, 2]))
    return found


def rings(geometry: dict) -> NDArray[np.float64]:
    """Two theta of the reflections of R -3 c, degrees."""
    wavelength = 12.398419843 / geometry["beam"]["energy"]
    lengths = set()
    for h, k, m in product(range(-5, 6), range(-5, 6), range(-14, 15)):
        absent = (-h + k + m) % 3 or (h == -k and m % 2) or (h, k, m) == (0, 0, 0)
        if not absent:
            lengths.add(round(float(np.sqrt(4 / 3 * (h * h + h * k + k * k) / A**2 + m * m / C**2)), 9))
    lengths = np.array(sorted(lengths))
    return np.rad2deg(2 * np.arcsin(wavelength * lengths[lengths < 1.2] / 2))


def test_spots_lie_on_rings(spots: Spots, geometry: dict) -> None:
    known, measured = rings(geometry), two_theta(geometry, spots)
    bright = (spots.largest > 200) & (measured < 11) & (measured > 4)
    apart = np.abs(measured[:, None] - known).min(axis=1)
    assert bright.sum() > 100
    assert (apart[bright] < 0.05).mean() > 0.97
    assert np.median(apart[bright]) < 0.02
    shown = {int(k) for k in np.abs(measured[bright, None] - known).argmin(axis=1)}
    assert len(shown) >= 5
