"""Spots fall where Bragg's law and straight rays say, worked out here one by one in another way."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
from gold_layers import cubic, random_orientations, scan
from numpy.typing import NDArray

from kernels.errors import KernelError
from kernels.hedm.distortion import Distortion, GeDistortion
from kernels.hedm.nearfield.arcs import TANGENTS, angle_of
from kernels.hedm.nearfield.rays import spots
from kernels.hedm.nearfield.setup import Setup, facing, from_hexomap, from_panels

Floats = NDArray[np.float64]


def plainly(u: Floats, g0: Floats, setup: Setup, place: tuple[float, float]) -> Floats:
    """Rows (frame, row and column at each distance): omega by bisection of Bragg's law, and rays met with planes."""
    made = []
    turns = np.deg2rad(np.linspace(-180, 180, 721))

    def excess(g: Floats, omega: Floats) -> Floats:
        c, s = np.cos(omega), np.sin(omega)
        lab = np.stack([g[0] * c - g[1] * s, g[0] * s + g[1] * c, g[2] + 0 * c], axis=-1)
        return np.asarray((lab @ setup.beam) + setup.wavelength_A * (g @ g) / 2)

    for h in g0:
        g = u @ h
        values = excess(g, turns)
        for n in np.flatnonzero(np.sign(values[:-1]) != np.sign(values[1:])):
            low, high = turns[n], turns[n + 1]
            for _ in range(60):
                middle = 0.5 * (low + high)
                same = np.sign(excess(g, np.array(middle))) == np.sign(values[n])
                low, high = (middle, high) if same else (low, middle)
            c, s = np.cos(low), np.sin(low)
            about = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
            k = setup.beam + setup.wavelength_A * about @ g
            eta = np.rad2deg(np.arctan2(abs(k[1]), abs(k[2])))
            if not setup.eta_deg[0] < eta < setup.eta_deg[1]:
                continue
            start = about @ np.array([*place, setup.z_um])
            frame = np.floor((np.rad2deg(low) - setup.omega_start_deg) / setup.omega_step_deg)
            frame %= round(360 / abs(setup.omega_step_deg))
            hits = []
            for origin, row, column in zip(setup.origin_um, setup.row_um, setup.column_um, strict=True):
                far, down, across = np.linalg.solve(np.stack([k, -row, -column], axis=1), origin - start)
                hits += [down, across] if far > 0 else [np.inf, np.inf]
            inside = all(-0.5 <= r < setup.rows - 0.5 for r in hits[::2])
            inside &= all(-0.5 <= c < setup.columns - 0.5 for c in hits[1::2])
            if inside and frame < setup.frames:
                made.append([frame, *hits])
    return np.array(made)


@pytest.mark.parametrize("place", [(0.0, 0.0), (60.0, -35.0)])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"omega_start_deg": 90.0, "omega_step_deg": -1.0},
        {"beam": np.array([np.cos(0.01), 0.004, 0.0]) / np.hypot(np.cos(0.01), 0.004), "z_um": 12.0},
        {"eta_deg": (10.0, 70.0)},
    ],
)
def test_spots_of_a_voxel(place: tuple[float, float], changes: dict[str, object]) -> None:
    setup = replace(scan(), **changes)  # type: ignore[arg-type]
    g0 = cubic(0.8)
    for u in random_orientations(3, seed=5):
        found, true = spots(u, g0, setup.optics, np.array(place)), plainly(u, g0, setup, place)
        assert len(true) > 10
        found, true = (rows[np.lexsort(rows.T[::-1].round(2))] for rows in (found, true))
        np.testing.assert_allclose(found, true, atol=2e-3)  # single precision of a pixel


def test_places_are_affine() -> None:
    """Half way between two voxels the image is half way between theirs, on a tilted detector, too."""
    setup, g0, u = scan(tilts_deg=(2.0, 5.0, -4.0)), cubic(0.5), random_orientations(1, seed=2)[0]
    a, b, c = (spots(u, g0, setup.optics, np.array(place)) for place in ((0, 0), (20.0, 8.0), (10.0, 4.0)))
    assert len(a) == len(b) == len(c) > 10
    np.testing.assert_allclose(c[:, 1:], 0.5 * (a[:, 1:] + b[:, 1:]), atol=1e-3)


def test_a_beam_centre_is_hit_by_the_beam() -> None:
    setup = scan()
    for n, (row, column) in enumerate([(370.0, 383.3), (371.0, 384.1)]):
        place = setup.origin_um[n] + row * setup.row_um[n] + column * setup.column_um[n]
        np.testing.assert_allclose(place, [setup.distances_um[n], 0, 0], atol=1e-9)


def test_hexomap_without_tilts() -> None:
    """Its detector at (90, 90, 0)° has J along y and K against z, and the beam hits where pixel J, K begins."""
    setup = from_hexomap(
        65.351, [4.5], [(2015.0, 1013.0)], [(90.0, 90.0, 0.0)], pixel_mm=0.00148, rows=2048, columns=2048,
        omega_start_deg=90.0, omega_step_deg=-1.0, frames=180,
    )  # fmt: skip
    np.testing.assert_allclose(setup.row_um, [[0, 0, -1.48]], atol=1e-12)
    np.testing.assert_allclose(setup.column_um, [[0, 1.48, 0]], atol=1e-12)
    np.testing.assert_allclose(setup.origin_um, [[4500, -1012.5 * 1.48, 2014.5 * 1.48]])
    assert setup.wavelength_A == pytest.approx(0.18972, abs=1e-5)


class Panel(NamedTuple):
    shape: tuple[int, int]
    pixel_um: tuple[float, float]
    centre_um: Floats
    row: Floats
    column: Floats
    distortion: Distortion | None = None


def test_panels_of_a_geometry() -> None:
    setup = scan()
    panels = [
        Panel((384, 768), (4.0, 4.0), origin + 191.5 * row + 383.5 * column, row / 4, column / 4)
        for origin, row, column in zip(setup.origin_um, setup.row_um, setup.column_um, strict=True)
    ]
    turn = {"omega_start_deg": -180.0, "omega_step_deg": 2.0}
    made = from_panels(0.18, panels, frames=180, **turn)
    for name in ("origin_um", "row_um", "column_um"):
        np.testing.assert_allclose(getattr(made, name), getattr(setup, name))
    assert made.distortion == ()
    bent = GeDistortion((0.0, 0.0, 1.0, 2.0, 2.0, 2.0))
    assert from_panels(0.18, [panels[0], panels[1]._replace(distortion=bent)], frames=180, **turn).distortion[1] is bent
    with pytest.raises(KernelError, match="all of one shape"):
        from_panels(0.18, [panels[0], panels[1]._replace(shape=(2, 2))], frames=180, **turn)


@pytest.mark.parametrize(
    ("distances", "sentence"),
    [([6500.0, 5000.0], "do not grow"), ([5000.0, 5000.0], "do not grow"), ([-5000.0, 100.0], "behind the sample")],
)
def test_distances_in_the_wrong_order(distances: list[float], sentence: str) -> None:
    with pytest.raises(KernelError, match=sentence):
        facing(
            0.18, distances, [(0, 0), (0, 0)], pixel_um=4.0, rows=10, columns=10, omega_start_deg=0.0,
            omega_step_deg=1.0, frames=10,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"frames": 0}, "holds nothing"),
        ({"omega_step_deg": 0.0}, "check the step"),
        ({"omega_step_deg": 3.0}, "check the step"),
        ({"wavelength_A": -1.0}, "not above 0"),
        ({"beam": np.array([1.0, 1.0, 0.0])}, "unit vector"),
        ({"row_um": np.full((2, 3), np.nan)}, "finite"),
        ({"distortion": (GeDistortion((0.0, 0.0, 1.0, 2.0, 2.0, 2.0)),)}, "1 distortions for 2 distances"),
    ],
)
def test_a_scan_that_is_none(changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(KernelError, match=sentence):
        replace(scan(), **changes)  # type: ignore[arg-type]


def test_angles_are_those_of_the_arc_tangent() -> None:
    """All around, on both sides of each sector's edge, and of directions of any length."""
    np.testing.assert_allclose(TANGENTS, np.tan(np.arange(5) * np.pi / 16), rtol=2e-16)
    angles = np.concatenate([np.linspace(-np.pi, np.pi, 4001), np.deg2rad(np.arange(-180, 181, 5.625)) + 1e-13])
    for length in (1.0, 1e-3, 7e5):
        sines, cosines = length * np.sin(angles), length * np.cos(angles)
        made = np.array([angle_of(*each) for each in zip(sines, cosines, strict=True)])
        np.testing.assert_allclose(made, np.arctan2(sines, cosines), rtol=0, atol=5e-16)
    axes = [(0.0, 1.0), (1.0, 0.0), (0.0, -1.0), (-1.0, 0.0)]
    assert [angle_of(*each) for each in axes] == [0.0, np.pi / 2, np.pi, -np.pi / 2]
    assert angle_of(3.0, 3.0) == np.pi / 4
