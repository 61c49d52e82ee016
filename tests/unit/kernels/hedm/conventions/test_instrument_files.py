"""Instrument files of other programs: by hand, there and back, against real data, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kernels.errors import KernelError
from kernels.hedm.conventions import hexrd, imaged11, midas_parameters
from kernels.hedm.conventions.told import Told
from kernels.hedm.distortion import DexelaDistortion, GeDistortion, MapDistortion
from kernels.hedm.forward import predict
from kernels.hedm.geometry import Geometry, Panel
from kernels.hedm.rotations import about_x, about_y, about_z, by_vector

ROOT = Path(__file__).resolve().parents[5]

HEXRD = """
beam:
  energy: 41.9906
  vector: {azimuth: 90.0, polar_angle: 90.0}
detectors:
  ff1:
    buffer: [2.0, 2.0]
    pixels: {rows: 3888, columns: 3072, size: [0.0748, 0.0748]}
    saturation_level: 15800.0
    transform:
      tilt: [0.010486950176001908, -0.006152055149709758, 0.0014922461489979366]
      translation: [123.3706062259476, 3.325955053634411, -670.7508650125019]
  ff2:
    pixels: {rows: 3888, columns: 3072, size: [0.0748, 0.0748]}
    transform:
      tilt: [0.00991389059922992, -0.01010540645355334, 0.00026733734489633163]
      translation: [-123.5603890819458, 3.186895450085356, -671.04758940985]
id: two_panels
oscillation_stage:
  chi: 0.0007535217427322955
  translation: [0.0, 0.0, 0.0]
"""

MIDAS = """
# far field
Lsd 1046929.02;
BC 1029.2 1027.4
tx 0.1
ty 0.24   # degrees
tz -0.3
px 200
NrPixels 2048
Wavelength 0.172979
Wedge 0.05
p0 1.2e-4
p1 -2e-4
p2 4e-4
p3 20.5
RhoD 204800
RingThresh 1 80
RingThresh 2 60
"""

IMAGED11 = """
cell__a 4.08
chi -0.4
distance 157239.96
fit_tolerance 0.05
o11 1
o12 0
o21 0
o22 -1
omegasign 1.0
tilt_x 0.001
tilt_y -0.007
tilt_z 0.004
wavelength 0.2858
wedge 0.3
y_center 1046.3
y_size 50.2
z_center 1116.4
z_size 49.8
"""


def told(tmp_path: Path, text: str, read: Callable[..., Told], **more: Any) -> Told:
    path = tmp_path / "told"
    path.write_text(text)
    return read(path, **more)


def same(one: Geometry, other: Geometry) -> None:
    """The same points of the lab for the same pixels, the same beam and axis."""
    assert one.names == other.names
    assert one.wavelength_A == pytest.approx(other.wavelength_A, rel=1e-14)
    assert np.allclose(one.axis_to_lab, other.axis_to_lab, atol=1e-15)
    assert np.allclose(one.beam, other.beam, atol=1e-15)
    for i, panel in enumerate(one.panels):
        assert panel.shape == other.panels[i].shape
        row, column = np.random.default_rng(0).uniform(0, 1, (2, 50)) * np.array(panel.shape)[:, None]
        at = np.full(50, i)
        assert np.abs(one.lab_points(at, row, column) - other.lab_points(at, row, column)).max() < 1e-6


def test_hexrd_by_hand(tmp_path: Path) -> None:
    """A pixel of the second panel through HEXRD's own formula, then into our axes."""
    geometry = told(tmp_path, HEXRD, hexrd.read).geometry
    assert geometry.names == ("ff1", "ff2")
    assert geometry.wavelength_A == pytest.approx(12.398419843320026 / 41.9906)
    assert np.array_equal(geometry.beam, [1.0, 0.0, 0.0])
    flat = np.array([(700.0 - 1535.5) * 0.0748, (1943.5 - 100.0) * 0.0748, 0.0])
    turn = by_vector(np.array([0.00991389059922992, -0.01010540645355334, 0.00026733734489633163]))
    x, y, z = turn @ flat + [-123.5603890819458, 3.186895450085356, -671.04758940985]
    found = geometry.lab_points(np.array([1]), np.array([100.0]), np.array([700.0]))
    assert np.allclose(found, np.array([[-z, -x, y]]) * 1e3)
    # Rx(chi) takes HEXRD's axis Y to (0, cos, sin); in our order that is (-sin, 0, cos).
    assert np.allclose(geometry.axis_to_lab[:, 2], [-math.sin(0.00075352174), 0.0, math.cos(0.00075352174)], atol=1e-12)


def test_the_stage_of_hexrd_turns_as_ours(tmp_path: Path) -> None:
    """Its Rx(chi) Ry(omega), seen from our axes, is our turn of the axis after ours about it."""
    geometry = told(tmp_path, HEXRD.replace("chi: 0.00075", "chi: 0.3"), hexrd.read).geometry
    chi, omega = geometry.wedge, 0.7
    assert chi > 0.3
    theirs = about_x(chi) @ about_y(omega)
    assert np.allclose(hexrd.FRAME @ theirs @ hexrd.FRAME.T, geometry.axis_to_lab @ about_z(omega), atol=1e-15)


@pytest.mark.parametrize(
    "distortion",
    [None, GeDistortion((1e-3, -2e-3, 5e-4, 2.0, 2.0, 2.0)), DexelaDistortion((0.1, 0.2, -0.1, 0.05, 0.3, 0, 0, 0.02))],
)
def test_hexrd_there_and_back(tmp_path: Path, distortion: Any) -> None:
    first = told(tmp_path, HEXRD, hexrd.read)
    beam = np.array([1.0, 0.002, -0.001])
    geometry = replace(
        first.geometry,
        beam=beam,
        panels=tuple(replace(panel, distortion=distortion) for panel in first.geometry.panels),
    )
    hexrd.write(tmp_path / "again.yml", geometry, first.other)
    second = hexrd.read(tmp_path / "again.yml")
    same(geometry, second.geometry)
    assert second.other == first.other
    assert second.other["ff1.saturation_level"] == 15800.0


def test_a_stage_that_stands_aside_moves_the_panels(tmp_path: Path) -> None:
    """HEXRD adds the stage's translation (X, Y, Z) to turned positions: here panels move the other way, (z, x, -y)."""
    moved = told(tmp_path, HEXRD.replace("[0.0, 0.0, 0.0]", "[1.0, 2.0, 3.0]"), hexrd.read).geometry
    at = (np.array([0]), np.array([5.0]), np.array([6.0]))
    shift = moved.lab_points(*at) - told(tmp_path, HEXRD, hexrd.read).geometry.lab_points(*at)
    assert np.allclose(shift, [[3000.0, 1000.0, -2000.0]])


def test_a_beam_with_a_name_is_taken_and_two_are_refused(tmp_path: Path) -> None:
    beam = "  energy: 41.9906\n  vector: {azimuth: 90.0, polar_angle: 90.0}\n"
    named = "  XRS1:\n" + "".join(f"  {line}\n" for line in beam.splitlines())
    assert beam in HEXRD
    same(told(tmp_path, HEXRD.replace(beam, named), hexrd.read).geometry, told(tmp_path, HEXRD, hexrd.read).geometry)
    with pytest.raises(KernelError, match="2 beams, XRS1, XRS2"):
        told(tmp_path, HEXRD.replace(beam, named + named.replace("XRS1", "XRS2")), hexrd.read)


def test_midas_by_hand(tmp_path: Path) -> None:
    """Without tilts and distortion y = (BC - column) px, z = (row - BC) px."""
    plain = "\n".join(line for line in MIDAS.splitlines() if line[:1] not in "tp#" or line[:2] == "px")
    first = told(tmp_path, plain, midas_parameters.read)
    point = first.geometry.lab_points(np.array([0]), np.array([1000.0]), np.array([1100.0]))
    assert np.allclose(point, [[1046929.02, (1029.2 - 1100.0) * 200.0, (1000.0 - 1027.4) * 200.0]])
    assert first.other == {"RingThresh": ["1 80", "2 60"]}
    assert first.geometry.wedge == pytest.approx(math.radians(0.05))


def test_midas_distortion_by_hand(tmp_path: Path) -> None:
    """Radius and angle on the plane across the beam, worked out as MIDAS's formula reads."""
    geometry = told(tmp_path, MIDAS + "p4 1e-4\np5 -3e-4\np6 -15\n", midas_parameters.read).geometry
    bare = replace(geometry, panels=(replace(geometry.panels[0], distortion=None),))
    row, column = np.array([100.0, 1500.0, 2000.0]), np.array([300.0, 1900.0, 40.0])
    at = np.zeros(3, int)
    x, y, z = bare.lab_points(at, row, column).T
    radius, eta = 1046929.02 / x * np.hypot(y, z), np.degrees(np.arctan2(-y, z))
    t, q = 90 - eta, radius / 204800.0
    f = 1.2e-4 * q**2 * np.cos(np.radians(2 * t - 15)) - 2e-4 * q**4 * np.cos(np.radians(4 * t + 20.5)) + 4e-4 * q**2
    expected = radius * (1 + f + 1e-4 * q**6 - 3e-4 * q**4)
    x, y, z = geometry.lab_points(at, row, column).T
    assert np.allclose(1046929.02 / x * np.hypot(y, z), expected, rtol=1e-12)
    assert np.allclose(np.degrees(np.arctan2(-y, z)), eta, atol=1e-10)


@pytest.mark.parametrize("changes", [[], [0], [1], [2], [3], [1, 2], [3, 1], [1, 3], [3, 2], [2, 1, 3]])
def test_midas_there_and_back_with_images_changed(tmp_path: Path, changes: list[int]) -> None:
    text = MIDAS.replace("NrPixels 2048", "NrPixelsY 2048\nNrPixelsZ 1500") + "".join(
        f"ImTransOpt {c}\n" for c in changes
    )
    first = told(tmp_path, text, midas_parameters.read)
    # An image as stored, changed as MIDAS changes it: where a pixel comes to lie is where the file counts it.
    shape = first.geometry.panels[0].shape
    image = np.zeros(shape)
    image[400, 900] = 1
    for change in changes:
        image = {0: image, 1: image[:, ::-1], 2: image[::-1], 3: image.T}[change]
    assert image.shape == (1500, 2048)
    row, column = np.argwhere(image)[0]
    plain = told(tmp_path, MIDAS.replace("NrPixels 2048", "NrPixelsY 2048\nNrPixelsZ 1500"), midas_parameters.read)
    here = first.geometry.lab_points(np.array([0]), np.array([400.0]), np.array([900.0]))
    assert np.allclose(here, plain.geometry.lab_points(np.array([0]), np.array([row]), np.array([column])))
    midas_parameters.write(tmp_path / "again", first.geometry, first.other)
    second = midas_parameters.read(tmp_path / "again")
    same(first.geometry, second.geometry)
    assert second.other == first.other


def test_imaged11_there_and_back(tmp_path: Path) -> None:
    for orientation in ((1, 0, 0, -1), (0, 1, 1, 0), (-1, 0, 0, 1)):
        text = IMAGED11
        for key, value in zip(("o11", "o12", "o21", "o22"), orientation, strict=True):
            text = "\n".join(f"{key} {value}" if line.startswith(key) else line for line in text.splitlines())
        first = told(tmp_path, text, imaged11.read, shape=(2000, 2100))
        assert first.other == {"cell__a": "4.08", "fit_tolerance": "0.05", "omegasign": "1.0"}
        imaged11.write(tmp_path / "again.par", first.geometry, first.other)
        second = imaged11.read(tmp_path / "again.par", shape=(2000, 2100))
        same(first.geometry, second.geometry)
        assert second.other == first.other


@pytest.fixture
def transform(monkeypatch: pytest.MonkeyPatch) -> Any:
    folder = ROOT / ".venv" / "imaged11"
    if not (folder / "ImageD11").is_dir():
        pytest.skip(f"ImageD11 is not installed in {folder}")
    monkeypatch.syspath_prepend(str(folder))
    return pytest.importorskip("ImageD11.transform", reason="ImageD11 cannot be imported")


def test_imaged11_reads_what_we_write(tmp_path: Path, transform: Any) -> None:
    from ImageD11.parameters import parameters

    first = told(tmp_path, IMAGED11, imaged11.read, shape=(2000, 2100)).geometry
    imaged11.write(tmp_path / "ours.par", first)
    theirs = parameters()
    theirs.loadparameters(str(tmp_path / "ours.par"))
    pixels = np.random.default_rng(0).uniform(0, 2000, (2, 30))
    xyz = transform.compute_xyz_lab(pixels, **theirs.get_parameters())
    assert np.allclose(first.lab_points(np.zeros(30, int), *pixels), xyz.T, atol=1e-7)


def test_imaged11_maps_there_and_back(tmp_path: Path) -> None:
    pytest.importorskip("fabio", reason="fabio is not installed")
    shifts = np.random.default_rng(0).normal(0, 2, (2, 40, 50))
    first = told(tmp_path, IMAGED11, imaged11.read, shape=(40, 50)).geometry
    bent = replace(first, panels=(replace(first.panels[0], distortion=MapDistortion(*shifts)),))
    imaged11.write(tmp_path / "bent.par", bent)
    again = imaged11.read(tmp_path / "bent.par", shape=(40, 50)).geometry
    same(bent, again)
    # A pixel's own value: rows by dyfile, columns by dxfile.
    at = (np.array([0]), np.array([7.0]), np.array([9.0]))
    moved = (np.array([0]), 7 + shifts[0, 7:8, 9], 9 + shifts[1, 7:8, 9])
    assert np.allclose(bent.lab_points(*at), first.lab_points(*moved))
    with pytest.raises(KernelError, match="of \\(40, 50\\) and \\(40, 50\\) pixels, the panel of \\(50, 40\\)"):
        imaged11.read(tmp_path / "bent.par", shape=(50, 40))


def test_a_spline_of_fit2d_is_that_of_imaged11(tmp_path: Path, transform: Any) -> None:
    from scipy.interpolate import RectBivariateSpline

    random = np.random.default_rng(0)
    along, across = np.linspace(0, 256, 17), np.linspace(0, 200, 14)
    x, y = np.meshgrid(along, across, indexing="ij")
    lines = ["SPATIAL DISTORTION SPLINE INTERPOLATION COEFFICIENTS", "", "  VALID REGION"]
    lines += [_five([0.0, 0.0, 256.0, 200.0]), "", "  GRID SPACING", _five([16.0, 50.0, 50.0])]
    for title in ("X-DISTORTION", "Y-DISTORTION"):
        bend = random.normal(0, 1e-4, 3)
        shift = bend[0] * (x - 100) ** 2 + bend[1] * (y - 90) ** 2 + bend[2] * x * y
        spline = RectBivariateSpline(along, across, shift)
        tx, ty, c = *spline.get_knots(), spline.get_coeffs()
        lines += ["", title, f"{len(tx)} {len(ty)}", _five(tx), _five(ty), _five(c)]
    path = tmp_path / "detector.spline"
    path.write_text("\n".join(lines) + "\n")
    ours = imaged11.read_spline(path, (200, 256), step=4)
    from ImageD11.blobcorrector import correctorclass

    with pytest.warns(DeprecationWarning, match="dx,dy"):
        theirs = correctorclass(str(path))
    panel = Panel.tilted("p", shape=(200, 256), pixel_um=(50.0, 50.0), distance_um=1e5, beam_centre=(0.0, 0.0))
    flat, bent = Geometry(0.2, (panel,)), Geometry(0.2, (replace(panel, distortion=ours),))
    for row, column in random.uniform(0, 199, (20, 2)):
        ideal = [np.array([value]) for value in theirs.correct(row, column)]
        found = bent.lab_points(np.array([0]), np.array([row]), np.array([column]))
        assert np.abs(found - flat.lab_points(np.array([0]), *ideal)).max() < 0.01 * 50.0


def _five(values: Any) -> str:
    words = [f"{value:14.7E}" for value in values]
    return "\n".join("".join(words[i : i + 5]) for i in range(0, len(words), 5))


def test_ruby_spots_lie_where_the_calibrated_instrument_says(data: Path) -> None:
    """Real frames of three ruby spheres: most predicted strong spots have counts within 3 pixels and a frame."""
    folder = data / "hedm"
    instrument = hexrd.read(folder / "dexelas_id3a_20200130.yml")
    crystals = hexrd.read_calibration_grains(folder / "dexelas_id3a_20200130.yml")
    a, c = 4.7608, 12.99568
    b0 = np.array([[1 / a, 0, 0], [1 / (a * math.sqrt(3)), 2 / (a * math.sqrt(3)), 0], [0, 0, 1 / c]])
    # Strong reflections of corundum: 012, 104, 110, 113, 024, 116.
    strong = {(0, 1, 2), (1, 0, 4), (1, 1, 0), (1, 1, 3), (0, 2, 4), (1, 1, 6)}
    length = {round(float(np.linalg.norm(b0 @ hkl)), 9) for hkl in strong}
    hkl = np.array(
        [(h, k, m) for h in range(-2, 3) for k in range(-2, 3) for m in range(-6, 7) if (-h + k + m) % 3 == 0]
    )
    g0 = hkl @ b0.T
    g0 = g0[[round(float(np.linalg.norm(g)), 9) in length for g in g0]]
    for i, name in enumerate(instrument.geometry.names):
        with np.load(folder / f"mruby-0129_000004_{name}_000012-cachefile.npz", allow_pickle=True) as frames:
            edges = np.radians(frames["omega"])
            spots = predict(
                instrument.geometry,
                g0,
                orientation=crystals.orientation,
                position_um=crystals.position_um,
                strain=crystals.strain,
                omega_ranges=((float(edges[0, 0]), float(edges[-1, 1])),),
                min_eta=0.2,
            )
            spots = spots.take(spots.panel == i)
            assert len(spots) > 100
            found = 0
            for row, column, omega in zip(spots.row, spots.column, spots.omega, strict=True):
                middle = int((omega - edges[0, 0]) / (edges[0, 1] - edges[0, 0]))
                for frame in range(max(0, middle - 1), min(len(edges), middle + 2)):
                    near = (abs(frames[f"{frame}_row"] - row) < 3) & (abs(frames[f"{frame}_col"] - column) < 3)
                    if near.any():
                        found += 1
                        break
            assert found > 0.97 * len(spots)


@pytest.mark.parametrize(
    ("read", "text", "said"),
    [
        (hexrd.read, "a: [", "no YAML"),
        (hexrd.read, "5", "no instrument of HEXRD"),
        (hexrd.read, HEXRD.replace("beam:", "baem:"), "Did you mean 'beam'"),
        (hexrd.read, HEXRD.replace("energy:", "enregy:"), "Did you mean 'energy'"),
        (hexrd.read, HEXRD.replace("      tilt:", "      tlit:", 1), "in detectors.ff1.transform. Did you mean 'tilt'"),
        (hexrd.read, HEXRD.replace("oscillation_stage:", "stage:"), "'oscillation_stage' is missing"),
        (hexrd.read, HEXRD.replace("41.9906", "blue"), "beam.energy is 'blue'"),
        (hexrd.read, HEXRD.replace("41.9906", "-3.0"), "must be above 0"),
        (hexrd.read, HEXRD.replace("-670.7508650125019", "670.7508650125019"), "'ff1' reaches behind the sample"),
        (hexrd.read, HEXRD.replace("123.3706062259476,", "-100.0,"), "'ff1' and 'ff2' overlap"),
        (hexrd.read, HEXRD.replace("size: [0.0748, 0.0748]", "size: 0.0748", 1), "2 numbers are wanted"),
        (hexrd.read, HEXRD.replace("    buffer", "    detector_type: cylindrical\n    buffer"), "only planar"),
        (
            hexrd.read,
            HEXRD.replace("    buffer", "    distortion: {function_name: GE_41RD, parameters: [0]}\n    buffer"),
            "Did you mean 'GE_41RT'",
        ),
        (hexrd.read, HEXRD.replace("rows: 3888", "rows: 38.5", 1), "whole number above 0"),
        (midas_parameters.read, "", "no parameters"),
        (midas_parameters.read, MIDAS.replace("Lsd", "Lds"), "Did you mean 'Lsd'"),
        (midas_parameters.read, MIDAS.replace("Wavelength", "Wavelenght"), "Did you mean 'Wavelength'"),
        (midas_parameters.read, MIDAS.replace("Lsd 1046929.02;", ""), "'Lsd' is missing"),
        (midas_parameters.read, MIDAS.replace("1046929.02", "0"), "must be above 0"),
        (midas_parameters.read, MIDAS.replace("1029.2 1027.4", "1029.2"), "BC has 1 values where 2"),
        (midas_parameters.read, MIDAS + "p7 0.1\n", "only p0 … p6"),
        (midas_parameters.read, MIDAS + "ImTransOpt 7\n", "0, 1, 2 or 3"),
        (midas_parameters.read, MIDAS.replace("RhoD 204800", ""), "'RhoD' is missing"),
        (imaged11.read, IMAGED11.replace("distance", "distanse"), "Did you mean 'distance'"),
        (imaged11.read, IMAGED11.replace("tilt_x", "titl_x"), "Did you mean 'tilt_x'"),
        (imaged11.read, IMAGED11.replace("wavelength 0.2858", "wavelength nan"), "finite number"),
        (imaged11.read, IMAGED11.replace("o11 1", "o11 0.5"), "only 1, 0 and -1"),
        (imaged11.read, IMAGED11.replace("distance 1", "distance -1"), "must be above 0"),
        (imaged11.read, IMAGED11 + "dxfile a.edf\n", "dxfile alone"),
        (imaged11.read, IMAGED11 + "spline gone.spline\n", "Cannot read"),
    ],
)
def test_bad_files_are_refused_in_one_sentence(tmp_path: Path, read: Callable[..., Told], text: str, said: str) -> None:
    more = {"shape": (2000, 2100)} if read is imaged11.read else {}
    with pytest.raises(KernelError, match=said) as caught:
        told(tmp_path, text, read, **more)
    assert caught.value.exit_code == (66 if "Cannot read" in said else 65)
    assert str(tmp_path) in str(caught.value)


def test_crystals_of_a_calibration_by_hand(tmp_path: Path) -> None:
    """HEXRD's Y is our z; a lattice longer by 1e-3 along Y has the inverse stretch 1 / 1.001 there."""
    path = tmp_path / "told"
    text = """
calibration_crystal:
  0:
    orientation: [0.0, 1.5707963267948966, 0.0]
    position: [0.001, 0.002, 0.003]
    inv_stretch: [1.0, 0.999000999000999, 1.0, 0.0, 0.0, 0.0]
"""
    path.write_text(HEXRD + text)
    found = hexrd.read_calibration_grains(path)
    assert np.allclose(found.position_um, [[-3.0, -1.0, 2.0]])
    assert np.allclose(found.strain, [[0, 0, 1e-3, 0, 0, 0]], atol=1e-12)
    # A quarter turn about Y takes X to -Z, which is our x.
    assert np.allclose(found.orientation[0] @ [1.0, 0.0, 0.0], [1.0, 0.0, 0.0])
    path.write_text(HEXRD + text.replace("orientation", "orient"))
    with pytest.raises(KernelError, match=r"'orientation' is missing in calibration_crystal\.0"):
        hexrd.read_calibration_grains(path)


def test_a_missing_file_is_no_input(tmp_path: Path) -> None:
    for read in (hexrd.read, midas_parameters.read):
        with pytest.raises(KernelError, match="Cannot read") as caught:
            read(tmp_path / "gone")
        assert caught.value.exit_code == 66


def test_what_a_format_cannot_say_is_refused(tmp_path: Path) -> None:
    two = told(tmp_path, HEXRD, hexrd.read).geometry
    one = told(tmp_path, MIDAS, midas_parameters.read).geometry
    leaning = replace(one, chi=0.01)
    turned = replace(one, beam=np.array([1.0, 0.01, 0.0]))
    path = tmp_path / "never"
    for write, geometry, said in [
        (midas_parameters.write, two, "one file a panel"),
        (imaged11.write, two, "one file a panel"),
        (midas_parameters.write, leaning, "no chi"),
        (hexrd.write, leaning, "lean of its axis"),
        (imaged11.write, turned, "beam along x"),
        (imaged11.write, one, "MidasDistortion"),
        (hexrd.write, one, "HEXRD has no distortion"),
    ]:
        with pytest.raises(KernelError, match=said):
            write(path, geometry)
    assert not path.exists()
