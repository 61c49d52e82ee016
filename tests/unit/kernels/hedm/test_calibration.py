"""An instrument found again from spots of grains: the truth, the errors it states, and what it refuses."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from known_grains import face_centred, orientations, positions_um, strains
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from kernels.errors import KernelError
from kernels.hedm.calibration import Calibration, Measured, calibrate, parameters
from kernels.hedm.calibration.parameters import changed
from kernels.hedm.distortion import GeDistortion, MidasDistortion
from kernels.hedm.forward import predict
from kernels.hedm.geometry import Geometry, Panel

G0 = face_centred(4.08, 12)
Vector = NDArray[np.float64]


def one_panel(**changes: Any) -> Geometry:
    panel = Panel.tilted(
        "ge",
        shape=(2048, 2048),
        pixel_um=(200.0, 200.0),
        distance_um=1e6,
        beam_centre=(1020.0, 1030.0),
        tilts=(0.002, -0.004, 0.001),
        **changes,
    )
    return Geometry(0.2229, (panel,), wedge=0.001)


def two_panels() -> Geometry:
    sides = [
        Panel.tilted(name, shape=(2048, 1000), pixel_um=(200.0, 200.0), distance_um=1e6, beam_centre=(1020.0, at))
        for name, at in (("left", 1020.0), ("right", -30.0))
    ]
    return Geometry(0.2229, tuple(sides))


def grains(count: int = 12, strain: float = 5e-4) -> dict[str, Vector]:
    return {
        "orientation": orientations(count, 3),
        "position_um": positions_um(count, 400.0, 3),
        "strain": strains(count, strain, 3),
    }


def seen(truth: Geometry, told: dict[str, Vector], *, noise: float = 1.0, seed: int = 0) -> Measured:
    """Spots with 0.1 px and 0.03 degrees of noise."""
    spots = predict(truth, G0, **told)
    random = np.random.default_rng(seed)
    n = len(spots)
    return Measured(
        spots.grain,
        spots.reflection,
        spots.panel,
        spots.row + noise * random.normal(0, 0.1, n),
        spots.column + noise * random.normal(0, 0.1, n),
        spots.omega + noise * random.normal(0, math.radians(0.03), n),
    )


def displaced(told: dict[str, Vector]) -> dict[str, Vector]:
    """Grains as an indexing would give them."""
    random = np.random.default_rng(9)
    n = len(told["orientation"])
    turn = Rotation.from_rotvec(random.normal(0, 5e-4, (n, 3))).as_matrix()
    return {
        "orientation": turn @ told["orientation"],
        "position_um": told["position_um"] + random.normal(0, 30.0, (n, 3)),
        "strain": np.zeros((n, 6)),
    }


def misfit(found: Calibration, truth: Geometry) -> float:
    """How far the two put the same pixels, in µm."""
    random = np.random.default_rng(0)
    panel = random.integers(0, len(truth.panels), 200)
    row, column = random.uniform(0, 1000, (2, 200))
    apart = found.geometry.lab_points(panel, row, column) - truth.lab_points(panel, row, column)
    return float(np.sqrt((apart**2).sum(axis=1).mean()))


def test_an_instrument_is_found_to_its_last_digits_without_noise() -> None:
    names = ("distance", "shift_y", "tilt_x", "tilt_y", "tilt_z", "wedge")
    start, told = one_panel(), grains()
    truth = changed(start, names, np.array([800.0, 150.0, 0.001, -0.002, 0.0015, 0.0008]))
    measured = seen(truth, told, noise=0.0)
    found = calibrate(start, measured, g0=G0, refine=names, **displaced(told))
    assert found.rms_before_px > 1.0
    assert found.rms_px < 1e-6
    assert np.allclose(found.values, [800.0, 150.0, 0.001, -0.002, 0.0015, 0.0008], rtol=1e-4, atol=1e-8)
    assert misfit(found, truth) < 1e-2
    assert np.abs(found.position_um - told["position_um"]).max() < 0.01
    assert np.abs(found.strain - told["strain"]).max() < 1e-7


def test_errors_are_as_large_as_they_are_stated() -> None:
    """Deviations over their standard deviations scatter by one, of the instrument and of grains."""
    names = ("distance", "shift_y", "tilt_y", "tilt_z", "wedge")
    start, told = one_panel(), grains(8)
    pulls, own = [], []
    for seed in range(12):
        found = calibrate(start, seen(start, told, seed=seed), g0=G0, refine=names, **displaced(told))
        pulls.append(found.values / found.sigmas)
        own.append((found.position_um - told["position_um"]) / found.grain_sigmas[:, 3:6])
        assert found.rms_px == pytest.approx(0.1, rel=0.1)
        assert found.rms_omega == pytest.approx(math.radians(0.03), rel=0.1)
    assert 0.7 < np.std(pulls) < 1.35
    assert 0.85 < np.std(own) < 1.15
    assert np.allclose(found.sigmas**2, np.diag(found.covariance))


def test_known_grains_tell_of_the_instrument_alone() -> None:
    """With grains held the height of the detector is determined."""
    start, told = one_panel(), grains(5)
    truth = changed(start, ("shift_z", "wavelength"), np.array([40.0, 1e-4]))
    found = calibrate(start, seen(truth, told, noise=0.0), g0=G0, refine=("shift_z", "wavelength"), grains=(), **told)
    assert np.allclose(found.values, [40.0, 1e-4], rtol=1e-6)
    assert found.settled
    assert np.array_equal(found.position_um, told["position_um"])
    assert np.isnan(found.grain_sigmas).all()


def test_spots_that_push_panels_into_each_other_are_refused() -> None:
    """Of two panels that touch, spots are moved as if one lay 10 mm further in: they would overlap."""
    sides = [
        Panel.tilted(name, shape=(2048, 1000), pixel_um=(200.0, 200.0), distance_um=1e6, beam_centre=(1020.0, at))
        for name, at in (("left", 1000.0), ("right", 0.0))
    ]
    start, told = Geometry(0.2229, tuple(sides)), grains(8)
    measured = seen(start, told)
    column = np.where(measured.panel == 0, measured.column - 50.0, measured.column)
    with pytest.raises(KernelError, match=r"an instrument that cannot be.*overlap.*right panels"):
        calibrate(start, replace(measured, column=column), g0=G0, refine=("left.shift_y",), **told)


def test_each_panel_has_its_own_shift_and_turn() -> None:
    start, told = two_panels(), grains(15)
    names = ("distance", "shift_y", "right.shift_y", "right.shift_z", "right.tilt_x")
    truth = changed(start, names, np.array([500.0, 80.0, 120.0, -90.0, 0.001]))
    found = calibrate(start, seen(truth, told, noise=0.0), g0=G0, refine=names, **displaced(told))
    assert np.allclose(found.values, [500.0, 80.0, 120.0, -90.0, 0.001], rtol=1e-4)


@pytest.mark.parametrize(
    ("distortion", "which"),
    [
        (GeDistortion((2e-4, -3e-4, 5e-4, 2.0, 2.0, 2.0)), (0, 1, 2)),
        (MidasDistortion((3e-4, 2e-4, -5e-4, 20.0, 1e-4, -2e-4, 5.0), 2e5), (0, 1, 2, 3)),
    ],
)
def test_coefficients_of_a_distortion_are_found(distortion: Any, which: tuple[int, ...]) -> None:
    told = grains(strain=0.0)
    truth = one_panel(distortion=distortion)
    kept = tuple(0.0 if i in which and i != 3 else c for i, c in enumerate(distortion.coefficients))
    start = one_panel(distortion=distortion.with_coefficients(kept))
    names = tuple(f"ge.distortion_{i}" for i in which if i != 3)
    found = calibrate(
        start, seen(truth, told, noise=0.0), g0=G0, refine=names, grains=("rotation", "position"), **displaced(told)
    )
    expected = [distortion.coefficients[i] for i in which if i != 3]
    assert np.allclose(found.values, expected, rtol=1e-3)


def test_the_wavelength_is_found_where_strains_are_known_or_small() -> None:
    start, told = one_panel(), grains(strain=0.0)
    truth = changed(start, ("wavelength",), np.array([3e-4]))
    measured = seen(truth, told)
    held = calibrate(start, measured, g0=G0, refine=("wavelength", "distance"), grains=("rotation", "position"), **told)
    assert abs(held.values[0] - 3e-4) < 4 * held.sigmas[0] < 6e-4
    with pytest.raises(KernelError, match=r"do not tell wavelength.*strain apart.*strain_sigma"):
        calibrate(start, measured, g0=G0, refine=("wavelength",), **told)
    expected = calibrate(start, measured, g0=G0, refine=("wavelength",), strain_sigma=1e-4, **told)
    assert abs(expected.values[0] - 3e-4) < 4 * expected.sigmas[0]


@pytest.mark.parametrize(
    ("refine", "said"),
    [
        (("shift_z",), "do not tell shift_z and the grains' position apart"),
        (("distance", "ge.shift_x"), "do not tell distance and ge.shift_x apart"),
        (("tilt_x", "chi", "shift_z"), "do not tell"),
        (("distanse",), "Did you mean 'distance'"),
        (("distance", "distance"), "named twice"),
        ((), "at least one"),
        (("ge.distortion_0",), "no parameter"),
    ],
)
def test_what_is_not_determined_is_refused(refine: tuple[str, ...], said: str) -> None:
    told, start = grains(6), one_panel()
    with pytest.raises(KernelError, match=said):
        calibrate(start, seen(start, told), g0=G0, refine=refine, **told)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"panel": 1}, "panels from 1 to 1, and there are 1"),
        ({"reflection": 100000}, "reflections from 100000"),
        ({"grain": -1}, "grains from -1"),
    ],
)
def test_numbers_that_point_nowhere_are_refused(changes: dict[str, int], said: str) -> None:
    told, start = grains(3), one_panel()
    measured = seen(start, told)
    wrong = {name: np.full(len(measured.row), value) for name, value in changes.items()}
    with pytest.raises(KernelError, match=said):
        calibrate(start, replace(measured, **wrong), g0=G0, refine=("distance",), **told)
    with pytest.raises(KernelError, match=r"strain has the shape \(3, 6\)"):
        calibrate(start, measured, g0=G0, refine=("distance",), **(told | {"strain": np.zeros((2, 6))}))
    with pytest.raises(KernelError, match="strain_sigma"):
        calibrate(start, measured, g0=G0, refine=("distance",), strain_sigma=0.0, **told)
    with pytest.raises(KernelError, match="standard deviations"):
        replace(measured, sigma_px=0.0)


def test_a_panel_without_spots_is_refused() -> None:
    told, start = grains(6), two_panels()
    measured = seen(start, told)
    left = measured.panel == 0
    only = replace(
        measured, **{n: getattr(measured, n)[left] for n in ("grain", "reflection", "panel", "row", "column", "omega")}
    )
    with pytest.raises(KernelError, match=r"say nothing of right\.shift_x"):
        calibrate(start, only, g0=G0, refine=("distance", "right.shift_x"), **told)


def test_grains_with_few_spots_are_left_out() -> None:
    told, start = grains(6), one_panel()
    measured = seen(start, told)
    kept = (measured.grain != 2) | (np.cumsum(measured.grain == 2) <= 5)
    few = replace(
        measured, **{n: getattr(measured, n)[kept] for n in ("grain", "reflection", "panel", "row", "column", "omega")}
    )
    found = calibrate(start, few, g0=G0, refine=("distance", "shift_y"), **told)
    assert found.left_out == (2,)
    assert np.array_equal(found.position_um[2], told["position_um"][2])
    assert np.isnan(found.grain_sigmas[2]).all()
    with pytest.raises(KernelError, match="No grain has 10000 spots"):
        calibrate(start, few, g0=G0, refine=("distance",), min_spots=10000, **told)


def test_some_false_spots_do_little() -> None:
    told, start = grains(10), one_panel()
    names = ("distance", "shift_y")
    truth = changed(start, names, np.array([300.0, 50.0]))
    measured = seen(truth, told)
    row = measured.row.copy()
    row[::25] += 4.0
    found = calibrate(start, replace(measured, row=row), g0=G0, refine=names, **displaced(told))
    assert (np.abs(found.values - [300.0, 50.0]) < 6 * found.sigmas).all()


def test_names_cover_the_instrument() -> None:
    assert "right.tilt_z" in parameters(two_panels())
    assert "ge.distortion_5" in parameters(one_panel(distortion=GeDistortion((0.0,) * 6)))
