"""From simulated frames to grains by the kernels as they are called, and what they say to what cannot be."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from scans import left_behind, run
from test_ranks import mpirun
from turning import GOLD, SMALL, Turned, simulated

from kernels.errors import Exit, KernelError
from kernels.hedm.conventions import hexrd
from kernels.hedm.conventions.midas_grains import read_midas_grains
from kernels.hedm.grains import new_grains, read_grains, write_grains
from kernels.hedm.jobs.scene import open_crystal
from kernels.hedm.matching import match_grains

RUBY = Path(os.environ.get("BEAMWAY_HEDM_DATA", Path(__file__).parents[6] / "shared" / "data" / "hedm"))


@pytest.fixture(scope="module")
def turned(tmp_path_factory: pytest.TempPathFactory) -> Turned:
    return simulated(tmp_path_factory.mktemp("turned"))


@pytest.fixture(scope="module")
def spots(turned: Turned) -> Path:
    path = turned.frames.with_name("spots.h5")
    run("hedm.peaks", input=turned.frames, geometry=turned.geometry, output=path)
    return path


def test_all_grains_are_found_and_no_other(turned: Turned, spots: Path, tmp_path: Path) -> None:
    out, csv, picture = tmp_path / "grains.nxs", tmp_path / "Grains.csv", tmp_path / "grains.png"
    made = run(
        "hedm.farfield", input=spots, geometry=turned.geometry, output=out, csv=csv, picture=picture, **GOLD, **SMALL
    )
    assert made.metrics["grains"] == 8
    assert made.metrics["indexed"] > 0.95
    assert not made.warnings
    said = run("hedm.compare", input=out, truth=turned.truth, minFound=1, maxFalse=0).metrics
    assert (said["found"], said["missed"], said["false"]) == (8, 0, 0)
    assert said["orientation_deg_p95"] < 0.15  # a frame is 1 degree
    assert said["position_um_p95"] < 40  # a pixel is 800 um
    table = read_grains(out)
    assert np.linalg.eigvalsh(table.covariance).min() > 0
    match = match_grains(read_midas_grains(csv), table, max_distance_um=1.0)
    assert len(match.found) == 8
    assert picture.read_bytes()[:4] == b"\x89PNG"
    assert json.loads((tmp_path / "grains.nxs.manifest.json").read_text())["kernel"] == "hedm.farfield"
    record = json.loads(Path(f"{spots}.manifest.json").read_text())
    assert {Path(one["path"]) for one in record["inputs"]} == {turned.frames, turned.geometry}


def test_radii_of_grains_where_it_is_told_what_they_fill(turned: Turned, spots: Path, tmp_path: Path) -> None:
    truth, out, csv = read_grains(turned.truth), tmp_path / "g.nxs", tmp_path / "Grains.csv"
    together = 4 / 3 * np.pi * float((truth.radius_um**3).sum())
    given = {"input": spots, "geometry": turned.geometry, "output": out, **SMALL}
    made = run("hedm.farfield", csv=csv, illuminatedVolume=f"{together}", **given, **GOLD)
    found = read_grains(out)
    match = match_grains(found, truth)
    np.testing.assert_allclose(found.radius_um[match.found], truth.radius_um[match.true], rtol=0.02)
    assert made.metrics["radius_um"] == pytest.approx(float(np.median(truth.radius_um)), rel=0.02)
    np.testing.assert_allclose(read_midas_grains(csv).radius_um, found.radius_um, rtol=1e-6)
    run("hedm.farfield", illuminatedVolume="sample", **given, **GOLD)
    cylinder = np.pi * SMALL["sampleRadius"] ** 2 * SMALL["sampleHeight"]
    np.testing.assert_allclose(read_grains(out).radius_um, found.radius_um * np.cbrt(cylinder / together), rtol=1e-9)
    assert "radius_um" not in run("hedm.farfield", **given, **GOLD).metrics
    plain = read_grains(out)
    assert np.isnan(plain.radius_um).all()
    np.testing.assert_allclose(plain.intensity / plain.intensity[0], (found.radius_um / found.radius_um[0]) ** 3)
    cif = tmp_path / "au.cif"
    cif.write_text(
        "data_au\n_space_group_IT_number 225\n"
        + "".join(f"_cell_length_{one} 4.0782\n" for one in "abc")
        + "".join(f"_cell_angle_{one} 90\n" for one in ("alpha", "beta", "gamma"))
        + "loop_\n_atom_site_label\n_atom_site_fract_x\n_atom_site_fract_y\n_atom_site_fract_z\nAu 0 0 0\n"
    )
    run("hedm.farfield", cif=cif, **given)
    factors = read_grains(out).intensity / plain.intensity
    assert np.ptp(factors) > 1e-3 * factors.mean()  # by |F|² of gold, and not by what the spots have


@pytest.mark.parametrize("told", ["all", "0", "-3", "inf"])
def test_a_volume_that_is_none_is_refused(told: str, turned: Turned, spots: Path, tmp_path: Path) -> None:
    with pytest.raises(KernelError, match="above 0, or `sample`") as error:
        run(
            "hedm.farfield", input=spots, geometry=turned.geometry, output=tmp_path / "g.nxs", illuminatedVolume=told,
            **GOLD,
        )  # fmt: skip
    assert error.value.exit_code == Exit.USAGE


def test_grains_outside_of_the_limits_are_told(turned: Turned, spots: Path, tmp_path: Path) -> None:
    truth = read_grains(turned.truth)
    away = np.hypot(*truth.position_um.T[:2])
    given = {**SMALL, "sampleRadius": float(np.sort(away)[4] + 20)}
    made = run("hedm.farfield", input=spots, geometry=turned.geometry, output=tmp_path / "g.nxs", **GOLD, **given)
    assert made.metrics["grains"] + made.metrics["outside"] == 8
    assert 1 <= made.metrics["outside"] <= 3
    said = {caution.code: caution.sentence for caution in made.warnings}
    assert "outside of the sample's limits" in said["outside"]
    assert "give a larger sampleRadius" in said["outside"]
    with pytest.raises(KernelError, match=r"No grain was found\. . grains? lies? outside of the sample's limits"):
        run(
            "hedm.farfield", input=spots, geometry=turned.geometry, output=tmp_path / "h.nxs", sampleRadius=100,
            **GOLD, **{name: value for name, value in SMALL.items() if name != "sampleRadius"} | {"sampleHeight": 0.01},
        )  # fmt: skip


def test_a_lattice_that_is_off_by_little_is_told(turned: Turned, spots: Path, tmp_path: Path) -> None:
    given = {**GOLD, "lattice": "4.0700"}
    made = run("hedm.farfield", input=spots, geometry=turned.geometry, output=tmp_path / "g.nxs", **given, **SMALL)
    assert made.metrics["grains"] == 8
    (said,) = made.warnings
    assert said.code == "strained"
    assert re.search(r"With a lattice 1\.00(1[789]|2.) times as large", said.sentence)
    with pytest.raises(KernelError, match="further out than expected: lattice, wavelength or distance"):
        run(
            "hedm.farfield", input=spots, geometry=turned.geometry, output=tmp_path / "h.nxs",
            **{**GOLD, "lattice": "4.13"}, **SMALL,
        )  # fmt: skip


def test_a_wrong_lattice_fails_and_says_which_would_fit(turned: Turned, spots: Path, tmp_path: Path) -> None:
    with pytest.raises(KernelError, match=r"lattice 1\.0[78]") as error:
        run(
            "hedm.farfield", input=spots, geometry=turned.geometry, output=tmp_path / "g.nxs", lattice="3.75",
            spaceGroup="Fm-3m", **SMALL,
        )  # fmt: skip
    assert error.value.exit_code == Exit.BAD_INPUT
    assert "rings were expected at" in error.value.sentence
    assert left_behind(tmp_path) == []


def test_what_is_missing_of_the_grains_fails_a_comparison(turned: Turned, tmp_path: Path) -> None:
    truth, less = read_grains(turned.truth), tmp_path / "less.nxs"
    told = {"title": "x", "program": "x", "version": "1", "parameters": {}}
    write_grains(less, truth.take(slice(0, 6)), **told)
    with pytest.raises(KernelError, match="6 of 8 grains") as error:
        run("hedm.compare", input=less, truth=turned.truth, minFound=0.9)
    assert error.value.exit_code == Exit.BAD_OUTPUT
    with pytest.raises(KernelError, match="2 grains are false"):
        run("hedm.compare", input=turned.truth, truth=less, maxFalse=1)
    other = tmp_path / "other.nxs"
    write_grains(other, new_grains(open_crystal(None, "3,3,5,90,90,120", "P 63/m m c"), truth.orientation), **told)
    with pytest.raises(KernelError, match="other crystals"):
        run("hedm.compare", input=other, truth=turned.truth)


def test_a_displaced_detector_is_found_from_the_grains(turned: Turned, spots: Path, tmp_path: Path) -> None:
    geometry = hexrd.read(turned.geometry).geometry
    panel = geometry.panels[0].moved(np.array([0.0, 300.0, 0.0]), np.eye(3))
    wrong, right = tmp_path / "wrong.yml", tmp_path / "right.yml"
    hexrd.write(wrong, type(geometry)(geometry.wavelength_A, (panel,)))
    made = run("hedm.calibrate", input=spots, geometry=wrong, output=right, refine="shift_y", **GOLD, **SMALL)
    assert made.metrics["shift_y"] == pytest.approx(-300, abs=5 * made.metrics["shift_y_sigma"] + 10)
    assert made.metrics["rms_px"] < made.metrics["rms_px_before"]
    assert hexrd.read(right).geometry.panels[0].centre_um[1] == pytest.approx(0, abs=25)


@pytest.mark.parametrize(
    ("given", "sentence", "exit_code"),
    [
        ({"lattice": "4.0782"}, "Tell the crystal", Exit.USAGE),
        ({"lattice": "a,b", "spaceGroup": "225"}, "is not a,b,c", Exit.USAGE),
        ({"lattice": "4.7", "spaceGroup": "167"}, "is not cubic", Exit.USAGE),
        ({"lattice": "3,4,5,90,90,90", "spaceGroup": "225"}, "does not fit the cubic", Exit.BAD_INPUT),
        ({"cif": "/none/a.cif"}, "a.cif", Exit.BAD_INPUT),
    ],
)
def test_a_crystal_that_cannot_be_is_refused(
    given: dict[str, str], sentence: str, exit_code: int, turned: Turned, spots: Path, tmp_path: Path
) -> None:
    with pytest.raises(KernelError, match=sentence) as error:
        run("hedm.farfield", input=spots, geometry=turned.geometry, output=tmp_path / "g.nxs", **given)
    assert error.value.exit_code == exit_code
    assert left_behind(tmp_path) == []


def test_spots_of_another_detector_are_refused(turned: Turned, spots: Path, tmp_path: Path) -> None:
    text = turned.geometry.read_text()
    other = tmp_path / "other.yml"
    other.write_text(text.replace("256", "512"))
    assert other.read_text() != text
    with pytest.raises(KernelError, match="256 x 256 pixels, and panel 'panel'"):
        run("hedm.farfield", input=spots, geometry=other, output=tmp_path / "g.nxs", **GOLD)
    with pytest.raises(KernelError, match="256 x 256 pixels, and panel 'panel'"):
        run("hedm.peaks", input=turned.frames, geometry=other, output=tmp_path / "s.h5")
    cut = tmp_path / "cut.h5"
    shutil.copy(spots, cut)
    with h5py.File(cut, "r+") as file:
        del file["entry/scan"]
    with pytest.raises(KernelError, match="/entry/scan/omega_ranges"):
        run("hedm.farfield", input=cut, geometry=turned.geometry, output=tmp_path / "g.nxs", **GOLD)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"dark": "20"}, "give a threshold"),
        ({"threshold": "60000"}, "No spot was found in 360 frames"),
        ({"omegaStart": "0"}, "together"),
        ({"dark": "/none/dark.h5"}, "/none/dark.h5"),
        ({"input": "panel="}, "NAME=FILE"),
        ({"input": "left=/none/a.h5"}, "left"),
    ],
)
def test_frames_that_cannot_be_searched_are_refused(
    given: dict[str, str], sentence: str, turned: Turned, tmp_path: Path
) -> None:
    said = {"input": str(turned.frames), **given}
    with pytest.raises(KernelError, match=sentence):
        run("hedm.peaks", geometry=turned.geometry, output=tmp_path / "s.h5", **said)
    assert left_behind(tmp_path) == []


@pytest.mark.skipif(not RUBY.is_dir(), reason=f"the ruby data are not in {RUBY} (BEAMWAY_HEDM_DATA)")
def test_real_frames_of_two_panels_give_the_three_rubies(tmp_path: Path) -> None:
    instrument = RUBY / "dexelas_id3a_20200130.yml"
    frames = ",".join(f"{name}={RUBY}/mruby-0129_000004_{name}_000012-cachefile.npz" for name in ("ff1", "ff2"))
    spots, out = tmp_path / "spots.h5", tmp_path / "grains.nxs"
    run("hedm.peaks", input=frames, geometry=instrument, dark="0", threshold="10", leastPixels=6, output=spots)
    made = run(
        "hedm.farfield", input=spots, geometry=instrument, output=out, lattice="4.7608,4.7608,12.99568,90,90,120",
        spaceGroup="167", sampleRadius=600, sampleHeight=800, spotNoise=0.3, omegaNoise=0.05, maxTwoTheta=19,
    )  # fmt: skip
    assert made.metrics["grains"] == 3
    assert [caution.code for caution in made.warnings] == ["unindexed"]  # the frames hold more than the spheres
    known = hexrd.read_calibration_grains(instrument)
    found = read_grains(out)
    true = new_grains(found.crystals, known.orientation, position_um=known.position_um, strain=known.strain)
    match = match_grains(found, true)
    assert len(match.missed) == len(match.false) == 0
    assert np.degrees(match.orientation).max() < 0.03
    assert match.distance_um.max() < 10
    assert np.abs(found.strain).max() < 5e-4
    assert found.completeness.min() > 0.6


def test_several_ranks_write_what_one_writes(turned: Turned, spots: Path, tmp_path: Path) -> None:
    if shutil.which("mpirun") is None:
        pytest.skip("mpirun is not installed")
    words = ["--input", str(spots), "--geometry", str(turned.geometry)]
    words += [word for name, value in {**GOLD, **SMALL}.items() for word in (f"--{name}", str(value))]
    tables = []
    for count in (1, 2, 4):
        out = tmp_path / f"{count}.nxs"
        said = mpirun(count, "hedm.farfield", *words, "--output", str(out))
        assert said.returncode == 0, said.stderr
        assert said.stdout.count("metric grains 8") == 1
        tables.append(read_grains(out))
    for other in tables[1:]:
        for name in ("orientation", "position_um", "strain", "covariance", "spots"):
            assert np.array_equal(getattr(other, name), getattr(tables[0], name)), name


def test_what_is_there_is_told_before_it_is_searched(turned: Turned, tmp_path: Path) -> None:
    told = run("hedm.inspect", input=turned.frames, geometry=turned.geometry, rings=4, **GOLD).metrics
    there = {"panels": 1, "frames": 360, "rings": 4, "reflections": 8 + 6 + 12 + 24}
    assert {name: told[name] for name in there} == there
    assert (told["omega_from"], told["omega_to"], told["omega_step"]) == pytest.approx((-180.0, 180.0, 1.0))
    geometry = hexrd.read(turned.geometry).geometry
    other = tmp_path / "other.yml"
    hexrd.write(other, type(geometry)(geometry.wavelength_A, (replace(geometry.panels[0], shape=(100, 256)),)))
    with pytest.raises(KernelError, match=r"256 x 256 pixels, and panel .* 100 x 256"):
        run("hedm.inspect", input=turned.frames, geometry=other, **GOLD)
    with pytest.raises(KernelError, match=r"No reflection of .* lies within"):
        run("hedm.inspect", input=turned.frames, geometry=turned.geometry, maxTwoTheta=0.2, **GOLD)
