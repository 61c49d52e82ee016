"""The forward model against its definition, central differences and ImageD11."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from known_grains import face_centred, full, orientations, positions_um, strains
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from kernels.errors import KernelError
from kernels.hedm import forward
from kernels.hedm.forward import Spots, angle_of, differentiate, find, hit, predict, shrinking, solve
from kernels.hedm.geometry import Geometry, Panel
from kernels.hedm.rotations import about_z

ROOT = Path(__file__).resolve().parents[4]
G0 = face_centred(4.08, 24)
WAVELENGTH = 0.2229
TWO_PI = 2 * math.pi


def geometry(**changes: Any) -> Geometry:
    """A large panel with all of the parameters that ImageD11 knows."""
    tilted = {"tilts": (0.01, -0.02, 0.015), "beam_centre": (1010.0, 1036.0), "pixel_um": (200.0, 190.0)}
    panel = Panel.tilted("one", shape=(2048, 2048), distance_um=1e6, **tilted)
    return Geometry(**({"wavelength_A": WAVELENGTH, "panels": (panel,), "wedge": 0.02, "chi": -0.013} | changes))


def grains(count: int) -> dict[str, NDArray[np.float64]]:
    return {"orientation": orientations(count), "position_um": positions_um(count), "strain": strains(count)}


def reciprocal(spots: Spots, g0: NDArray[np.float64], told: dict[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    """g in the sample frame by the definition."""
    lattice = np.linalg.inv(np.eye(3) + full(told["strain"])) @ told["orientation"]
    return np.einsum("nij,nj->ni", lattice[spots.grain], g0[spots.reflection])


def test_each_spot_holds_braggs_law_and_lies_on_its_ray() -> None:
    told, instrument = grains(20), geometry()
    spots = predict(instrument, G0, **told)
    assert len(spots) > 2000
    g = reciprocal(spots, G0, told)
    measured = instrument.reciprocal(
        spots.panel, spots.row, spots.column, omega=spots.omega, position_um=told["position_um"][spots.grain]
    )
    assert np.abs(measured - g).max() < 1e-12


def test_all_spots_are_found() -> None:
    """Counted by turning each grain in small steps and watching Bragg's condition change its sign."""
    told, instrument = grains(3), geometry()
    found = predict(instrument, G0, **told, min_eta=0.0, omega_ranges=((0.0, TWO_PI),))
    steps = np.linspace(0.0, TWO_PI, 20001)
    beam = instrument.flat.source[:3]
    lattice = np.linalg.inv(np.eye(3) + full(told["strain"])) @ told["orientation"]
    g = np.einsum("nij,hj->nhi", lattice, G0)[:, :, :, None]
    along = beam[0] * (np.cos(steps) * g[:, :, 0] - np.sin(steps) * g[:, :, 1])
    along += beam[1] * (np.sin(steps) * g[:, :, 0] + np.cos(steps) * g[:, :, 1]) + beam[2] * g[:, :, 2]
    value = along + 0.5 * WAVELENGTH * (g**2).sum(axis=2)
    n, h, k = np.nonzero(value[:, :, 1:] * value[:, :, :-1] < 0)
    inside = 0
    for grain, reflection, step in zip(n, h, k, strict=True):
        omega = steps[step] + (steps[1] - steps[0]) / 2
        scattered = beam + WAVELENGTH * about_z(omega) @ g[grain, reflection, :, 0]
        start = about_z(omega) @ told["position_um"][grain]
        i, row, column, _, _ = find(*instrument.flat[1:], *start, *scattered)
        if i >= 0 and min(row, column, 2047 - row, 2047 - column) > 2:
            inside += 1
            same = (found.grain == grain) & (found.reflection == reflection)
            assert abs(found.omega[same] - omega).min() < 4e-4
    assert 0 <= len(found) - inside < 10


def test_the_two_solutions_by_hand() -> None:
    """g along the sample's x: Bragg's law asks cos omega = -lambda |g| / 2; the first lies at y > 0."""
    g, wavelength = 0.5, 0.2
    w, cos0, sin0, cos1, sin1 = solve(g, 0.0, 0.0, 1.0, 0.0, 0.0, wavelength)
    assert cos0 == pytest.approx(-0.05, abs=1e-15)
    assert cos1 == pytest.approx(-0.05, abs=1e-15)
    assert sin0 == pytest.approx(math.sqrt(1 - 0.05**2), abs=1e-15)
    assert sin1 == pytest.approx(-sin0, abs=1e-15)
    theta = math.asin(0.05)
    assert wavelength * w == pytest.approx(math.sin(2 * theta), abs=1e-15)
    assert solve(0.001, 0.0, 0.5, 1.0, 0.0, 0.0, wavelength)[0] == 0.0


def test_angles_are_those_of_the_library() -> None:
    edges = [0.0, 1e-300, 1e-9, 0.41421356, 0.41421357, 1.0, 1e9]
    random = np.random.default_rng(0).normal(size=(2000, 2))
    for y, x in [(s * a, t * b) for a in edges for b in edges for s in (1, -1) for t in (1, -1)] + list(random):
        if y == 0.0:
            y = 0.0  # the sign of zero is not kept
        assert angle_of(y, x + 0.0) == pytest.approx(math.atan2(y, x + 0.0), abs=5e-16)


def test_friedel_pairs() -> None:
    """At omega + 180 degrees and with -g the spot is mirrored, and what pairs say of g does not know the position."""
    flat = geometry(
        wedge=0.0,
        chi=0.0,
        panels=(
            Panel.tilted(
                "one", shape=(2048, 2048), pixel_um=(200.0, 200.0), distance_um=1e6, beam_centre=(1023.5, 1023.5)
            ),
        ),
    )
    distance = 1e6
    told = grains(10)
    spots = predict(flat, np.concatenate([G0, -G0]), **told, min_eta=0.0)
    first = spots.take(spots.reflection < len(G0))
    second = spots.take(spots.reflection >= len(G0))
    y = {id(s): -(s.column - 1023.5) * 200.0 for s in (first, second)}
    z = {id(s): (s.row - 1023.5) * 200.0 for s in (first, second)}
    pairs = 0
    for n in range(len(first)):
        mate = np.nonzero(
            (second.grain == first.grain[n])
            & (second.reflection == first.reflection[n] + len(G0))
            & (abs(abs(second.omega - first.omega[n]) - math.pi) < 1e-9)
        )[0]
        if len(mate) != 1:
            continue
        m, pairs = mate[0], pairs + 1
        omega = first.omega[n]
        g = about_z(omega) @ reciprocal(first.take(np.array([n])), G0, told)[0]
        k = np.array([1.0, 0.0, 0.0]) + WAVELENGTH * g
        lx, ly, lz = about_z(omega) @ told["position_um"][first.grain[n]]
        y1, y2, z1, z2 = y[id(first)][n], y[id(second)][m], z[id(first)][n], z[id(second)][m]
        assert (y1 + y2) / 2 == pytest.approx(distance * k[1] / k[0], abs=1e-8)
        assert (z1 - z2) / 2 == pytest.approx(distance * k[2] / k[0], abs=1e-8)
        assert (y1 - y2) / 2 == pytest.approx(ly - lx * k[1] / k[0], abs=1e-8)
        assert (z1 + z2) / 2 == pytest.approx(lz - lx * k[2] / k[0], abs=1e-8)
    assert pairs > 500


@pytest.mark.parametrize("count", [1, 3])
def test_jacobians_are_central_differences(count: int) -> None:
    told, instrument = grains(5), geometry()
    if count == 3:
        side = [
            Panel.tilted(
                f"p{i}",
                shape=(600, 600),
                pixel_um=(200.0, 200.0),
                distance_um=9e5,
                beam_centre=(row, at),
                tilts=(0.3, 0.1 * i, -0.2),
            )
            for i, (row, at) in enumerate(((300.0, -700.0), (-500.0, 300.0), (300.0, 1300.0)))
        ]
        instrument = geometry(panels=side)
    spots = predict(instrument, G0, **told)
    assert len(np.unique(spots.panel)) == count
    out, shrink = np.empty((3, 12)), np.empty((3, 3))
    for n in range(0, len(spots), 7):
        grain, g0, panel = spots.grain[n], G0[spots.reflection[n]], int(spots.panel[n])
        u, p, e = (told[name][grain] for name in ("orientation", "position_um", "strain"))
        near = spots.omega[n]
        shrinking(e, shrink)
        differentiate(
            instrument.flat.source,
            instrument.flat.panels,
            panel,
            *(u @ g0),
            shrink,
            *p,
            math.cos(near),
            math.sin(near),
            out,
        )

        def measured(x: NDArray[np.float64]) -> NDArray[np.float64]:
            turned = Rotation.from_rotvec(x[:3]).as_matrix() @ u  # noqa: B023
            g = np.linalg.inv(np.eye(3) + full(e + x[6:])) @ turned @ g0  # noqa: B023
            _, *omegas = solve(*g, *instrument.flat.source[:4])
            c, s = omegas[:2] if spots.solution[n] == 0 else omegas[2:]  # noqa: B023
            turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
            k = instrument.flat.source[:3] + WAVELENGTH * turn @ g
            _, a, b = hit(instrument.flat.panels, panel, *(turn @ (p + x[3:6])), *k)  # noqa: B023
            return np.array([a, b, near + math.remainder(math.atan2(s, c) - near, TWO_PI)])  # noqa: B023

        size = np.array([1e-5] * 3 + [1.0] * 3 + [1e-5] * 6)
        numeric = np.empty((3, 12))
        for i, step in enumerate(np.diag(size)):
            f = [measured(m * step) for m in (-2, -1, 1, 2)]
            numeric[:, i] = (f[0] - 8 * f[1] + 8 * f[2] - f[3]) / (12 * size[i])
        scale = np.abs(numeric).max(axis=1, keepdims=True)
        assert (np.abs(out - numeric) / scale).max() < 1e-6
        # Each kind of parameter by its own size: a micrometre moves a spot far less than a radian.
        for kind in (slice(0, 3), slice(3, 6), slice(6, 12)):
            scale = np.abs(numeric[:, kind]).max(axis=1, keepdims=True) + 1e-9
            assert (np.abs(out - numeric)[:, kind] / scale).max() < 1e-6


def test_omega_ranges_count_as_they_say() -> None:
    told, instrument = grains(4), geometry()
    every = predict(instrument, G0, **told)
    some = predict(instrument, G0, **told, omega_ranges=((-1.0, 0.5), (2.0, 4.0)))
    folded = np.mod(every.omega, TWO_PI)
    assert len(some) == ((every.omega >= -1.0) & (every.omega < 0.5)).sum() + ((folded >= 2.0) & (folded < 4.0)).sum()
    assert (((some.omega >= -1) & (some.omega < 0.5)) | ((some.omega >= 2) & (some.omega < 4))).all()
    twice = predict(instrument, G0, **told, omega_ranges=((0.0, 2 * TWO_PI),))
    assert len(twice) == 2 * len(every)
    assert np.allclose(np.sort(np.mod(twice.omega, TWO_PI))[::2], np.sort(folded))


def test_spots_near_the_axis_are_left_out() -> None:
    told, instrument = grains(4), geometry()
    every = predict(instrument, G0, **told, min_eta=0.0)
    few = predict(instrument, G0, **told, min_eta=0.2)
    assert len(few) == (np.abs(np.sin(every.eta)) >= math.sin(0.2)).sum() < len(every)


def test_eta_and_lorentz_are_those_of_the_textbook_when_the_beam_is_across() -> None:
    told = grains(4)
    spots = predict(geometry(wedge=0.0, chi=0.0), G0, **told)
    length = np.linalg.norm(reciprocal(spots, G0, told), axis=1)
    two_theta = 2 * np.arcsin(WAVELENGTH * length / 2)
    assert np.allclose(spots.lorentz, 1 / (np.sin(two_theta) * abs(np.sin(spots.eta))), rtol=1e-9)


def test_the_nearer_of_two_panels_takes_the_ray() -> None:
    """`Geometry` refuses panels behind each other; compiled code is asked with rays that see both."""
    near, far = (
        geometry(),
        geometry(
            panels=(
                Panel.tilted(
                    "far", shape=(2048, 2048), pixel_um=(200.0, 200.0), distance_um=2e6, beam_centre=(1023.5, 1023.5)
                ),
            )
        ),
    )
    both = np.concatenate([far.flat.panels, near.flat.panels])
    assert find(both, near.flat.tables, 0.0, 0.0, 0.0, 1.0, 0.01, 0.01)[0] == 1
    assert find(far.flat.panels, near.flat.tables, 0.0, 0.0, 0.0, -1.0, 0.01, 0.01)[0] == -1


def test_blocks_of_grains_are_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    told, instrument = grains(9), geometry()
    whole = predict(instrument, G0, **told)
    monkeypatch.setattr(forward, "_SLOTS", 4 * len(G0) + 10)
    blocks = predict(instrument, G0, **told)
    assert (np.diff(whole.grain) >= 0).all()
    for name in ("grain", "reflection", "panel", "row", "omega", "lorentz"):
        assert np.array_equal(getattr(whole, name), getattr(blocks, name))


def test_no_grains_give_no_spots() -> None:
    assert len(predict(geometry(), G0, orientation=np.empty((0, 3, 3)))) == 0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"orientation": np.eye(3)}, r"orientation has the shape \(n, 3, 3\), not \(3, 3\)"),
        ({"position_um": np.zeros((2, 3))}, r"position_um has the shape \(1, 3\)"),
        ({"strain": np.full((1, 6), np.nan)}, "strain holds numbers that are not finite"),
        ({"omega_ranges": ((1.0, 0.0),)}, "ends after its start"),
    ],
)
def test_wrong_arrays_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(KernelError, match=said):
        predict(geometry(), G0, **({"orientation": np.eye(3)[None]} | changes))


@pytest.fixture
def transform(monkeypatch: pytest.MonkeyPatch) -> Any:
    """ImageD11's forward model, from its own folder."""
    folder = ROOT / ".venv" / "imaged11"
    if not (folder / "ImageD11").is_dir():
        pytest.skip(f"ImageD11 is not installed in {folder}")
    monkeypatch.syspath_prepend(str(folder))
    return pytest.importorskip("ImageD11.transform", reason="ImageD11 cannot be imported")


@pytest.mark.parametrize("orientation", [(1, 0, 0, -1), (-1, 0, 0, -1), (0, 1, -1, 0)])
def test_pixels_and_omegas_are_those_of_imaged11(transform: Any, orientation: tuple[int, int, int, int]) -> None:
    """With tilts, wedge, chi, pixels that are not square, images turned, and grains off the axis."""
    tilts, centre, pixel, distance = (0.01, -0.02, 0.015), (1010.0, 1036.0), (200.0, 190.0), 1e6
    panel = Panel.tilted(
        "one",
        shape=(2048, 2048),
        pixel_um=pixel,
        distance_um=distance,
        beam_centre=centre,
        tilts=tilts,
        orientation=orientation,
    )
    wedge, chi = 1.3, -2.1
    instrument = Geometry(WAVELENGTH, (panel,), wedge=math.radians(wedge), chi=math.radians(chi))
    told = grains(6)
    spots = predict(instrument, G0, **told)
    assert len(spots) > 500
    pars = dict(
        zip(("o11", "o12", "o21", "o22"), map(float, orientation), strict=True),
        distance=distance, z_center=centre[0], y_center=centre[1], z_size=pixel[0], y_size=pixel[1],
        tilt_x=tilts[0], tilt_y=tilts[1], tilt_z=tilts[2],
    )  # fmt: skip
    g = reciprocal(spots, G0, told).T
    two_theta, etas, omegas = transform.uncompute_g_vectors(g, WAVELENGTH, wedge=wedge, chi=chi)
    ours = np.degrees(spots.omega)
    which = np.argmin([np.abs(np.mod(o - ours + 180, 360) - 180) for o in omegas], axis=0)
    omega, eta = np.choose(which, omegas), np.choose(which, etas)
    assert np.abs(np.mod(omega - ours + 180, 360) - 180).max() < 1e-9
    assert np.abs(np.mod(eta - np.degrees(spots.eta) + 180, 360) - 180).max() < 1e-9
    for n in range(6):
        of = spots.grain == n
        t_x, t_y, t_z = told["position_um"][n]
        column, row = transform.compute_xyz_from_tth_eta(
            two_theta[of], eta[of], omega[of], t_x=t_x, t_y=t_y, t_z=t_z, wedge=wedge, chi=chi, **pars
        )
        assert np.abs(row - spots.row[of]).max() < 1e-6
        assert np.abs(column - spots.column[of]).max() < 1e-6
    pks = np.array([spots.row, spots.column])
    assert np.allclose(transform.compute_xyz_lab(pks, **pars).T, instrument.lab_points(spots.panel, *pks), atol=1e-6)
