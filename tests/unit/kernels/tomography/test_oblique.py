"""Cone beams and tilted axes, against ellipsoids whose projections are exact and against parallel beams."""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
import pytest
from numpy.typing import NDArray
from simulated import off

from kernels.errors import KernelError
from kernels.tomography import phantom
from kernels.tomography.fbp import Reconstructor
from kernels.tomography.oblique.axis import parallel
from kernels.tomography.oblique.geometry import Geometry, look
from kernels.tomography.oblique.passes import BackProjector
from kernels.tomography.oblique.plan import Extent
from kernels.tomography.oblique.rays import project
from kernels.tomography.oblique.weights import joined, view_weights

COLUMNS, ROWS, ANGLES = 64, 48, 160
AXIS, MIDDLE_ROW = 32.3, 23.5
DISTANCE = 200.0
TURN = np.arange(ANGLES) * 360.0 / ANGLES
#                   density   x      y     z     a    b     c   phi
PARTS = np.array(
    [
        (1.0, 0.0, 0.0, 0.0, 20.0, 17.0, 17.0, 0.3),
        (0.5, 8.0, -5.0, 0.0, 4.5, 4.5, 4.5, 0.0),
        (0.5, -8.0, 5.0, 9.0, 4.0, 4.0, 4.0, 0.0),
    ]
)


def extent(size: int = COLUMNS, slices: int = ROWS) -> Extent:
    return Extent(slices, size, -0.5 * (slices - 1), 0.5 * size)


def made(geometry: Geometry, theta: NDArray[np.float64], parts: Any = PARTS, size: int = COLUMNS) -> Any:
    lines = project(parts, geometry, theta, COLUMNS, 0, ROWS)
    return BackProjector(geometry, extent(size), theta, rows=ROWS, columns=COLUMNS).volume(lines)


def within(part: NDArray[np.float64], share: float, size: int = COLUMNS) -> NDArray[np.bool_]:
    z, y, x = np.mgrid[:ROWS, :size, :size].astype(float)
    middle = 0.5 * (size - 1)
    _, x0, y0, z0, a, b, c, _ = part
    from_middle = ((x - middle - x0) / a) ** 2 + ((y - middle - y0) / b) ** 2 + ((z - MIDDLE_ROW - z0) / c) ** 2
    return np.asarray(from_middle < share**2)


# ------------------------------------------------------------------------------------------------------------ geometry

GEOMETRIES = [
    Geometry(AXIS, MIDDLE_ROW),
    Geometry(AXIS, MIDDLE_ROW, clockwise=True),
    Geometry(AXIS, MIDDLE_ROW, tilt_deg=30),
    Geometry(AXIS, 20.0, tilt_deg=-25, clockwise=True),
    Geometry(AXIS, MIDDLE_ROW, distance=DISTANCE),
    Geometry(AXIS, 26.0, distance=DISTANCE, perpendicular=28.0, clockwise=True),
]


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_a_voxel_is_seen_where_a_camera_sees_it(geometry: Geometry) -> None:
    """Turned and tilted in space (x along columns, y to the source, z along rows) and seen from the source."""
    x, y, z, turned = 7.0, -11.0, 5.0, math.radians(40.0)
    if geometry.clockwise:  # seen in a mirror, as slices show it
        y, turned = -y, -turned
    seen_from_above = complex(x, -y) * np.exp(1j * turned)  # to the right, and away from the source
    tilt = math.radians(geometry.tilt_deg)
    point = np.array([seen_from_above.real, -seen_from_above.imag, z])
    turn = np.array([[1, 0, 0], [0, math.cos(tilt), -math.sin(tilt)], [0, math.sin(tilt), math.cos(tilt)]])
    point = turn @ point
    perpendicular = geometry.axis if geometry.perpendicular is None else geometry.perpendicular
    point[0] += geometry.axis - perpendicular
    magnified = 1 / (1 - point[1] / geometry.distance)
    x, y = 7.0, -11.0
    column, row, step, _ = look(geometry.mapping, x, y, math.cos(math.radians(40)), math.sin(math.radians(40)))
    assert column == pytest.approx(perpendicular + point[0] * magnified)
    assert row + step * z == pytest.approx(geometry.middle_row + point[2] * magnified)


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_rays_meet_what_voxels_show(geometry: Geometry) -> None:
    ball = np.array([(1.0, 6.0, -4.0, 3.0, 3.0, 3.0, 3.0, 0.0)])
    frame = project(ball, geometry, np.array([70.0]), COLUMNS, 0, ROWS)[:, 0].astype(np.float64)
    column, row, step, magnified = look(
        geometry.mapping, 6.0, -4.0, math.cos(math.radians(70)), math.sin(math.radians(70))
    )
    rows, columns = np.mgrid[:ROWS, :COLUMNS]
    assert (frame * columns).sum() / frame.sum() == pytest.approx(column, abs=0.02)
    assert (frame * rows).sum() / frame.sum() == pytest.approx(row + 3.0 * step, abs=0.02)
    assert frame.sum() / magnified**2 == pytest.approx(4 / 3 * np.pi * 27, rel=0.01)
    assert frame.max() == pytest.approx(6.0, rel=0.05)


def test_rays_of_a_parallel_beam_are_those_of_the_phantom() -> None:
    lines = project(PARTS, Geometry(AXIS, MIDDLE_ROW), TURN[:20], COLUMNS, 10, 14)
    exact = phantom.project_rows(PARTS, TURN[:20], COLUMNS, ROWS, AXIS, 10, 14)
    assert off(lines, exact) < 5e-3


def test_binning_keeps_things_where_they_are() -> None:
    geometry = Geometry(AXIS, 26.0, distance=DISTANCE, perpendicular=28.0)
    fine = look(geometry.mapping, 8.0, -6.0, 0.6, 0.8)
    coarse = look(geometry.binned(2).mapping, 4.0, -3.0, 0.6, 0.8)
    assert coarse[0] == pytest.approx((fine[0] + 0.5) / 2 - 0.5)
    assert coarse[1:] == pytest.approx(((fine[1] + 0.5) / 2 - 0.5, *fine[2:]))


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_the_rows_of_a_slab_are_all_that_it_needs(geometry: Geometry) -> None:
    reach, turned = 20.0, np.deg2rad(np.arange(0, 360, 3.0))
    least, most = geometry.rows_seen(-4.0, 9.0, reach)
    sights = [
        look(geometry.mapping, reach * math.cos(a), reach * math.sin(a), math.cos(0.3), math.sin(0.3)) for a in turned
    ]
    rows = [row + step * z for _, row, step, _ in sights for z in (-4.0, 9.0)]
    assert (min(rows), max(rows)) == pytest.approx((least, most), abs=0.02)


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ({"tilt_deg": 90.0}, "the axis would lie along the beam"),
        ({"distance": 0.0}, "cannot be"),
        ({"distance": 500.0, "tilt_deg": 10.0}, "cone beam with a tilted axis is not reconstructed"),
    ],
)
def test_what_cannot_be_is_refused(how: dict[str, float], sentence: str) -> None:
    with pytest.raises(KernelError, match=sentence):
        Geometry(AXIS, MIDDLE_ROW, **how)  # type: ignore[arg-type]


def test_a_source_within_the_volume_is_refused() -> None:
    with pytest.raises(KernelError, match="The source is 30 pixels from the axis, and the volume reaches 32"):
        BackProjector(Geometry(AXIS, 23.5, distance=30.0), extent(), TURN, rows=ROWS, columns=COLUMNS)


# -------------------------------------------------------------------------------------------------------------- limits


@pytest.mark.parametrize("turn", [180.0, 360.0])
@pytest.mark.parametrize(
    ("how", "tolerance"),
    [({}, 1e-6), ({"distance": 1e8}, 1e-4), ({"distance": 1e8, "clockwise": True}, 1e-4), ({"tilt_deg": 1e-4}, 1e-4)],
)
def test_in_the_limits_it_is_parallel_beam_reconstruction(turn: float, how: Any, tolerance: float) -> None:
    theta = np.arange(90) * turn / 90
    lines = phantom.project_rows(PARTS, theta, COLUMNS, 8, AXIS, 0, 8)
    known = Reconstructor(theta, COLUMNS, axis=AXIS).slices(lines)
    volume = extent(slices=8)
    found = BackProjector(Geometry(AXIS, 3.5, **how), volume, theta, rows=8, columns=COLUMNS).volume(lines)
    np.testing.assert_allclose(found, known, atol=tolerance * float(known.max()))


# ----------------------------------------------------------------------------------------------------------- cone beam


@pytest.mark.parametrize(
    ("how", "theta", "streaks"),
    [
        ({}, TURN, 0.0),
        ({"clockwise": True}, TURN[::-1], 0.0),
        ({"perpendicular": 27.0}, TURN, 0.0),
        ({}, np.arange(ANGLES) * 137.508, 0.0),  # golden angles, not in order
        ({"perpendicular": 29.0}, 37 + np.arange(ANGLES) * 204.0 / ANGLES, 0.02),  # half a turn and the fan
        ({"perpendicular": 29.0, "clockwise": True}, 37 + np.arange(ANGLES) * 204.0 / ANGLES, 0.02),
        ({}, 50 - np.arange(ANGLES) * 270.0 / ANGLES, 0.02),
    ],
    ids=["turn", "clockwise", "displaced", "golden", "short", "short clockwise", "three quarters"],
)
def test_a_cone_beam_is_exact_in_its_middle_plane(how: Any, theta: NDArray[np.float64], streaks: float) -> None:
    """And nearly so above and below: the object is up to 5 degrees off the plane."""
    volume = made(Geometry(AXIS, MIDDLE_ROW, distance=DISTANCE, **how), theta)
    truth = phantom.truth_rows(PARTS, COLUMNS, ROWS, 0, ROWS)
    body, ball, above = PARTS
    only_body = within(body, 0.8) & ~within(ball, 1.4) & ~within(above, 1.4)
    middle = slice(23, 25)
    assert volume[middle][only_body[middle]].mean() == pytest.approx(1.0, abs=2e-3)
    assert volume[middle][within(ball, 0.6)[middle]].mean() == pytest.approx(1.5, abs=5e-3)
    assert volume[within(above, 0.6)].mean() == pytest.approx(1.5, abs=0.02)
    assert off(volume[middle], truth[middle]) < 0.07 + streaks
    for part in (ball, above):
        bright = np.where(within(part, 1.5), np.maximum(volume - 1.2, 0), 0).astype(np.float64)
        place = [(bright * axis).sum() / bright.sum() for axis in np.mgrid[:ROWS, :COLUMNS, :COLUMNS]]
        wanted = part[3] + 23.5, part[2] + 31.5, part[1] + 31.5
        assert place == pytest.approx(wanted, abs=0.1)


def test_a_short_scan_is_as_a_full_turn() -> None:
    geometry = Geometry(AXIS, MIDDLE_ROW, distance=DISTANCE)
    whole, short = made(geometry, TURN), made(geometry, np.arange(ANGLES) * 200.0 / ANGLES)
    assert off(short[20:28], whole[20:28]) < 0.03


def test_rays_that_are_seen_twice_count_once() -> None:
    """The weights of a ray and of the same from the other side, half a turn and twice its angle to the axis later."""
    geometry = Geometry(AXIS, MIDDLE_ROW, distance=80.0, perpendicular=30.0)
    theta = np.arange(0, 250, 0.25)
    weights = view_weights(geometry, theta, COLUMNS) / math.radians(0.25)
    fan = np.rad2deg(geometry.angles_across(COLUMNS))
    for column in (0, 20, 40, 63):
        for k in (10, 100, 250):
            other, later = -fan[column], theta[k] + 180 + 2 * fan[column]
            across = np.interp(later, theta, np.arange(len(theta)), right=np.nan)
            if np.isnan(across) or not fan[0] <= other <= fan[-1]:
                continue
            there = np.array([np.interp(other, fan, weights[n]) for n in (int(across), int(across) + 1)])
            again = there[0] + (across % 1) * (there[1] - there[0])
            assert weights[k, column] + again == pytest.approx(1.0, abs=0.01)


def test_too_few_angles_for_a_cone_are_refused() -> None:
    with pytest.raises(KernelError, match=r"covers 180\.0 degrees, and a cone beam needs a half turn and its fan: 198"):
        view_weights(Geometry(AXIS, MIDDLE_ROW, distance=DISTANCE), np.arange(ANGLES) * 180 / ANGLES, COLUMNS)


@pytest.mark.parametrize(("axis", "distance"), [(12.0, DISTANCE), (51.0, DISTANCE), (12.0, math.inf)])
def test_a_full_turn_with_the_axis_at_the_side_shows_a_wider_object(axis: float, distance: float) -> None:
    geometry = Geometry(axis, MIDDLE_ROW, distance=distance)
    wide = np.array([(1.0, 0.0, 0.0, 0.0, 40.0, 36.0, 19.0, 0.2), (0.5, -24.0, 8.0, 0.0, 6.0, 6.0, 6.0, 0.0)])
    sides = joined(geometry, TURN, COLUMNS)
    assert sides is not None
    assert sides.size > 1.5 * COLUMNS
    volume = made(geometry, TURN, wide, sides.size)
    layer = slice(23, 25)
    ball = within(wide[1], 0.6, sides.size)
    body = within(wide[0], 0.8, sides.size) & ~within(wide[1], 1.5, sides.size)
    assert volume[layer][body[layer]].mean() == pytest.approx(1.0, abs=0.01)
    assert volume[layer][ball[layer]].mean() == pytest.approx(1.5, abs=0.02)
    assert volume[layer][body[layer]].std() < 0.05


@pytest.mark.parametrize(
    ("how", "theta"),
    [({}, TURN), ({"clockwise": True, "perpendicular": 25.0}, TURN[::-1]), ({"perpendicular": 29.0}, TURN[:96])],
)
def test_a_middle_plane_in_another_order_is_that_of_a_parallel_beam(how: Any, theta: NDArray[np.float64]) -> None:
    geometry = Geometry(AXIS, MIDDLE_ROW, distance=DISTANCE, **how)
    fan = project(PARTS, geometry, theta, COLUMNS, 23, 25).mean(0)
    lines, views = parallel(geometry, fan, theta)
    upright = Geometry(AXIS, MIDDLE_ROW)
    errors = []
    for begun in np.arange(0, 360, 0.75):  # views count from somewhere
        known = project(PARTS, upright, begun + views[::12], COLUMNS, 23, 25).mean(0)
        errors.append(off(lines[::12], known))
    assert min(errors) < 0.03
    assert np.median(errors) > 0.1


# --------------------------------------------------------------------------------------------------------- laminography


@pytest.mark.parametrize(("tilt", "clockwise"), [(25.0, False), (-25.0, True), (45.0, True)])
def test_a_tilted_axis_gives_what_is_in_its_projections(tilt: float, clockwise: bool) -> None:
    """The truth without the frequencies that are nearer than `tilt` to the axis, which no projection holds.

    The slope comes nearer to 1 with finer voxels and finer frequencies: the cone is coarse about the frequency 0.
    """
    parts = PARTS * 0.85 if tilt == 45.0 else PARTS.copy()
    parts[:, 0], parts[:, 7] = PARTS[:, 0], PARTS[:, 7]
    volume = made(Geometry(AXIS, MIDDLE_ROW, tilt_deg=tilt, clockwise=clockwise), TURN, parts)
    wide = np.zeros((192, 192, 192), np.float32)
    here = np.s_[72 : 72 + ROWS, 64 : 64 + COLUMNS, 64 : 64 + COLUMNS]
    wide[here] = phantom.truth_rows(parts, COLUMNS, ROWS, 0, ROWS)
    z, y, x = np.fft.fftfreq(192), np.fft.fftfreq(192), np.fft.rfftfreq(192)
    across = np.hypot(y[:, None], x)
    held = np.abs(z)[:, None, None] * math.tan(math.radians(abs(tilt))) <= across
    known = np.fft.irfftn(np.fft.rfftn(wide) * held, s=wide.shape, axes=(0, 1, 2))[here]
    inside = within(np.array([1, 0, 0, 0, 28.0, 28.0, 22.0, 0]), 1.0)
    assert off(volume[inside], known[inside]) < 0.12
    slope, level = np.polyfit(known[inside], volume[inside], 1)
    assert slope == pytest.approx(1.0, abs=0.04)
    assert level == pytest.approx(0.0, abs=0.02)


# ---------------------------------------------------------------------------------------------------------------- bits


@pytest.mark.parametrize("geometry", [GEOMETRIES[2], GEOMETRIES[5]], ids=["tilted", "cone"])
def test_the_bits_are_the_same_for_any_threads_slabs_and_blocks(geometry: Geometry) -> None:
    theta, angles, most = TURN[:100], 100, numba.get_num_threads()
    lines = project(PARTS, geometry, theta, COLUMNS, 0, ROWS)
    whole = BackProjector(geometry, extent(), theta, rows=ROWS, columns=COLUMNS, padding="edge", window="hann")
    known = whole.volume(lines)
    try:
        numba.set_num_threads(1)
        for layers, block in ((16, 48), (32, 16)):
            for start in range(0, ROWS, layers):
                slab = range(start, min(start + layers, ROWS))
                window, part = whole.window(slab), np.zeros((len(slab), COLUMNS, COLUMNS), np.float32)
                for k in range(0, angles, block):
                    frames = range(k, min(k + block, angles))
                    some = lines[window.start : window.stop, k : k + block].copy()
                    some = whole.filter(some, window.start, frames)
                    whole.add(some, window, frames, start, part)
                np.testing.assert_array_equal(part, known[slab.start : slab.stop])
    finally:
        numba.set_num_threads(most)
