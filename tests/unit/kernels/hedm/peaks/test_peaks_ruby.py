"""Three ruby spheres, measured at CHESS (the example data of HEXRD): spots lie on the rings of ruby."""

from __future__ import annotations

import os
from dataclasses import fields
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from kernels.hedm.frames import flat_dark, open_panels
from kernels.hedm.peaks import Spots, find_spots, joined, limits

FOLDER = Path(os.environ.get("BEAMWAY_HEDM_DATA", Path(__file__).parents[6] / "shared" / "data" / "hedm"))
pytestmark = pytest.mark.skipif(
    not (FOLDER / "dexelas_id3a_20200130.yml").exists(), reason=f"the ruby data are not in {FOLDER} (BEAMWAY_HEDM_DATA)"
)
A, C = 4.7608, 12.99568  # Å


@pytest.fixture(scope="module")
def geometry() -> dict:
    return yaml.safe_load((FOLDER / "dexelas_id3a_20200130.yml").read_text())


def search(geometry: dict, at_once: int | None = None) -> Spots:
    paths = {panel: str(FOLDER / f"mruby-0129_000004_{panel}_000012-cachefile.npz") for panel in ("ff1", "ff2")}
    said = [geometry["detectors"][panel] for panel in paths]
    shapes = {panel: (one["pixels"]["rows"], one["pixels"]["columns"]) for panel, one in zip(paths, said, strict=True)}
    tables = []
    for number, frames in enumerate(open_panels(paths, shapes=shapes).values()):
        assert frames.omegas.full_turn
        chosen = limits(frames, flat_dark(0, frames), threshold=30, saturation=said[number]["saturation_level"])
        tables.append(find_spots(frames, chosen, panel=number, least_pixels=6, at_once=at_once).spots)
    return joined(tables)


@pytest.fixture(scope="module")
def spots(geometry: dict) -> Spots:
    return search(geometry)


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


def of_spheres(spots: Spots, measured: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Spots of the spheres: hot pixels last for many frames, and sharp spots of other things have few pixels."""
    return (spots.largest > 500) & (spots.pixels > 60) & (spots.frames < 12) & (measured > 4) & (measured < 11.3)


def test_spots_lie_on_rings(spots: Spots, geometry: dict) -> None:
    known, measured = rings(geometry), two_theta(geometry, spots)
    chosen = of_spheres(spots, measured)
    assert 280 <= chosen.sum() <= 300
    apart = np.abs(measured[chosen, None] - known)
    assert apart.min(axis=1).max() < 0.05  # 0.03 degrees are 0.35 mm, as far as the spheres are from the middle
    assert np.median(apart.min(axis=1)) < 0.015
    assert len(set(apart.argmin(axis=1))) == 7


def test_blocks_change_nothing(spots: Spots, geometry: dict) -> None:
    other = search(geometry, at_once=97)
    for field in fields(Spots):
        np.testing.assert_array_equal(getattr(spots, field.name), getattr(other, field.name))
