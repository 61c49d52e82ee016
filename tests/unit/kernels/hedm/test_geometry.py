"""Panels and frames against rotations worked out by hand and by SciPy, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from kernels.errors import KernelError
from kernels.hedm.distortion import DexelaDistortion, Distortion, GeDistortion, MapDistortion, MidasDistortion
from kernels.hedm.geometry import Geometry, Panel
from kernels.hedm.rotations import about_x, about_y, about_z, as_vector, by_vector, from_tilts, to_tilts

DEG = math.pi / 180.0


def facing(name: str = "one", **changes: object) -> Panel:
    told: dict[str, object] = {
        "shape": (2048, 2048),
        "pixel_um": (200.0, 200.0),
        "distance_um": 1e6,
        "beam_centre": (1020.0, 1030.0),
    }
    return Panel.tilted(name, **(told | changes))  # type: ignore[arg-type]


def test_a_quarter_turn_about_each_axis_by_hand() -> None:
    x, y, z = np.eye(3)
    quarter = math.pi / 2
    assert np.allclose(about_x(quarter) @ y, z)
    assert np.allclose(about_y(quarter) @ z, x)
    assert np.allclose(about_z(quarter) @ x, y)


def test_tilts_are_the_intrinsic_xyz_angles_of_scipy() -> None:
    tilts = (0.03, -0.2, 1.1)
    assert np.allclose(from_tilts(*tilts), Rotation.from_euler("XYZ", tilts).as_matrix(), atol=1e-15)
    assert np.allclose(to_tilts(from_tilts(*tilts)), tilts, atol=1e-15)


@pytest.mark.parametrize("length", [0.0, 1e-9, 1e-5, 1e-3, 1.0, 3.14, math.pi])
def test_rotation_vectors_are_those_of_scipy_and_come_back(length: float) -> None:
    vector = np.array([2.0, -1.0, 2.0]) / 3.0 * length
    matrix = by_vector(vector)
    assert np.allclose(matrix, Rotation.from_rotvec(vector).as_matrix(), atol=1e-15)
    back = as_vector(matrix)
    assert np.allclose(back, vector, atol=1e-12) or (np.allclose(back, -vector, atol=1e-12) and length == math.pi)


def test_pixels_of_an_untilted_panel_by_hand() -> None:
    """MIDAS: y = (yBC - column) px, z = (row - zBC) px; HEXRD: rows go down."""
    point = Geometry(0.2, (facing(),)).lab_points(np.array([0]), np.array([1025.0]), np.array([1000.0]))
    assert np.allclose(point, [[1e6, 30 * 200.0, 5 * 200.0]])
    down = facing(orientation=(-1, 0, 0, -1))
    point = Geometry(0.2, (down,)).lab_points(np.array([0]), np.array([1025.0]), np.array([1000.0]))
    assert np.allclose(point, [[1e6, 30 * 200.0, -5 * 200.0]])


def test_pixels_that_are_not_square_and_a_quarter_turn_of_the_image() -> None:
    """With o12 = 1, o21 = -1 columns go up by their own size and rows against y by theirs."""
    panel = facing(shape=(100, 300), pixel_um=(50.0, 70.0), beam_centre=(10.0, 20.0), orientation=(0, 1, -1, 0))
    point = Geometry(0.2, (panel,)).lab_points(np.array([0]), np.array([12.0]), np.array([23.0]))
    assert np.allclose(point, [[1e6, -2 * 50.0, 3 * 70.0]])


@pytest.mark.parametrize("orientation", [(1, 0, 0, -1), (-1, 0, 0, -1), (0, -1, 1, 0), (0, 1, 1, 0), (1, 0, 0, 1)])
def test_tilts_and_orientation_come_back(orientation: tuple[int, int, int, int]) -> None:
    panel = facing(tilts=(0.02, -0.03, 0.01), orientation=orientation)
    told = panel.as_tilted()
    assert told.orientation == orientation
    assert told.distance_um == pytest.approx(1e6, abs=1e-6)
    assert told.beam_centre == pytest.approx((1020.0, 1030.0), abs=1e-9)
    assert told.tilts == pytest.approx((0.02, -0.03, 0.01), abs=1e-14)


def test_wedge_and_chi_by_hand() -> None:
    """ImageD11: with a wedge the axis leans to -x, with chi to -y."""
    assert np.allclose(Geometry(0.2, (facing(),), wedge=0.1).axis_to_lab[:, 2], [-math.sin(0.1), 0, math.cos(0.1)])
    assert np.allclose(Geometry(0.2, (facing(),), chi=0.1).axis_to_lab[:, 2], [0, -math.sin(0.1), math.cos(0.1)])


def test_the_axis_frame_is_the_lab_turned() -> None:
    geometry = Geometry(0.2, (facing(tilts=(0.02, 0.01, -0.03)),), wedge=0.05, chi=-0.02)
    row, column = np.array([3.0, 1500.0]), np.array([2000.0, 4.0])
    lab = geometry.lab_points(np.array([0, 0]), row, column)
    axis = geometry.axis_points(np.array([0, 0]), row, column)
    assert np.allclose(axis @ (about_y(-0.05) @ about_x(-0.02)).T, lab, atol=1e-6)
    assert np.allclose(geometry.flat.source[:3], geometry.axis_to_lab.T @ [1, 0, 0])


DISTORTIONS: list[Distortion | None] = [
    None,
    GeDistortion((1e-3, -2e-3, 5e-4, 2.0, 2.0, 2.0)),
    DexelaDistortion((0.1, 0.2, -0.1, 0.05, 0.3, -0.2, 0.01, 0.02)),
    MidasDistortion((1e-3, 8e-4, -1.2e-3, 30.0, 2e-4, -3e-4, 10.0), 2e5),
    MapDistortion(*np.random.default_rng(1).normal(0.0, 0.3, (2, 33, 33)), step=64),
]


@pytest.mark.parametrize("distortion", DISTORTIONS)
def test_pixels_come_back_from_the_lab(distortion: Distortion | None) -> None:
    panels = (
        facing("left", beam_centre=(1020.0, 2150.0), tilts=(0.03, 0.02, -0.01), distortion=distortion),
        facing("right", beam_centre=(1020.0, -60.0), tilts=(0.0, -0.02, 0.01), distortion=distortion),
    )
    geometry = Geometry(0.2, panels, wedge=0.01, chi=0.02)
    random = np.random.default_rng(2)
    row, column, panel = random.uniform(0, 2047, 500), random.uniform(0, 2047, 500), random.integers(0, 2, 500)
    back = geometry.pixels(panel, geometry.lab_points(panel, row, column))
    near_a_seam = np.minimum(abs(row - 1023.5), abs(column - 1023.5)) < 2  # tiles of a Dexela have gaps
    assert np.abs(np.array(back) - [row, column])[:, ~near_a_seam].max() < 1e-8
    assert near_a_seam.sum() < 10


def test_angles_of_a_pixel_by_hand() -> None:
    """Straight up is eta 0; towards y is eta -90 degrees."""
    geometry = Geometry(0.2, (facing(),))
    two_theta, eta = geometry.angles(np.array([0, 0]), np.array([1520.0, 1020.0]), np.array([1030.0, 530.0]))
    assert np.allclose(two_theta, math.atan(0.1))
    assert np.allclose(eta, [0.0, -math.pi / 2])


def test_a_reciprocal_vector_by_hand() -> None:
    """A ray straight up at two theta: g = (cos - 1, 0, sin) / lambda; omega 90 degrees turns it into the sample."""
    geometry = Geometry(0.2, (facing(),))
    two_theta = math.atan(0.1)
    expected = np.array([0.0, 1.0 - math.cos(two_theta), math.sin(two_theta)]) / 0.2
    g = geometry.reciprocal(np.array([0]), np.array([1520.0]), np.array([1030.0]), omega=np.array([math.pi / 2]))
    assert np.allclose(g, expected)
    p = np.array([0.0, 0.0, 300.0])
    shifted = geometry.reciprocal(
        np.array([0]), np.array([1521.5]), np.array([1030.0]), omega=np.array([math.pi / 2]), position_um=p
    )
    assert np.allclose(shifted, expected)


def test_panels_by_name() -> None:
    geometry = Geometry(0.2, (facing("left", beam_centre=(0.0, 2100.0)), facing("right", beam_centre=(0.0, -50.0))))
    assert geometry.arranged(["right", "left"]).names == ("right", "left")
    with pytest.raises(KernelError, match="Did you mean 'right'"):
        geometry.index("rigth")
    with pytest.raises(KernelError, match="wanted once"):
        geometry.arranged(["left", "left"])
    with pytest.raises(KernelError, match="wanted once"):
        geometry.arranged(["left"])


def test_panels_may_touch_and_must_not_overlap() -> None:
    touching = facing("right", beam_centre=(1020.0, 1030.0 - 2048.0))
    Geometry(0.2, (facing("left"), touching))
    with pytest.raises(KernelError, match="'left' and 'right' overlap"):
        Geometry(0.2, (facing("left"), facing("right", beam_centre=(1020.0, 1040.0 - 2048.0))))
    with pytest.raises(KernelError, match="overlap"):
        Geometry(0.2, (facing("near", distance_um=5000.0), facing("far", distance_um=7000.0)))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: facing(distance_um=0.0), "must be above 0"),
        (lambda: facing(distance_um=-1e6), "must be above 0"),
        (lambda: facing(distance_um=math.nan), "must be above 0"),
        (lambda: facing(pixel_um=(200.0, 0.0)), "both sizes"),
        (lambda: facing(shape=(0, 5)), "needs a row"),
        (lambda: facing(orientation=(1, 1, 0, 0)), "orientation"),
        (lambda: Geometry(0.0, (facing(),)), "wavelength"),
        (lambda: Geometry(0.2, ()), "at least one panel"),
        (lambda: Geometry(0.2, (facing(), facing(beam_centre=(0.0, 9000.0)))), "Two panels are named 'one'"),
        (lambda: Geometry(0.2, (facing(tilts=(0.0, math.pi / 2, 0.0)),)), "edge-on"),
        (lambda: Geometry(0.2, (facing(),), wedge=2.0), "below 45 degrees"),
        (lambda: Geometry(0.2, (facing(),), beam=np.array([-1.0, 0, 0])), "x above 0"),
        (
            lambda: Panel("p", (5, 5), (1.0, 1.0), np.zeros(3), np.array([0, 1.0, 0]), np.array([0, 1.0, 0])),
            "right angles",
        ),
        (
            lambda: Geometry(0.2, (Panel("p", (9, 9), (9.0, 9.0), np.array([-1e6, 0, 0]), *np.eye(3)[:0:-1]),)),
            "behind the sample",
        ),
        (
            lambda: Geometry(0.2, (Panel("p", (9, 9), (9.0, 9.0), np.array([1e6, 0, 0]), *np.eye(3)[:2]),)),
            "edge-on",
        ),
        (lambda: GeDistortion((1.0, 2.0)), "6 finite"),
        (lambda: MidasDistortion((0.0,) * 7, 0.0), "RhoD"),
        (lambda: Geometry(0.2, (facing(distortion=MapDistortion(np.zeros((4, 5)), np.zeros((4, 5)))),)).flat, "cover"),
    ],
)
def test_what_cannot_be_is_refused(make: object, said: str) -> None:
    with pytest.raises(KernelError, match=said):
        make()  # type: ignore[operator]
