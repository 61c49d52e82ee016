"""The far field by packages of others: the real ImageD11 finds known grains, MIDAS's programs are called as they must
be, and what is missing or fails is one sentence."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from elsewhere import imaged11 as real_imaged11
from midas_stand_in import stand_in
from scans import left_behind, run
from synthetic_grains import CRYSTALS, Sample, compare, flat_panel, make
from turning import GOLD, SMALL, simulated

from kernels.errors import Exit, KernelError
from kernels.hedm.backends.imaged11 import imaged11
from kernels.hedm.backends.midas import midas
from kernels.hedm.backends.packages import BACKENDS, described
from kernels.hedm.backends.task import Task, judged, straight
from kernels.hedm.conventions.midas_grains import write_midas_grains
from kernels.hedm.crystals import Crystal
from kernels.hedm.geometry import Geometry
from kernels.hedm.grains import new_grains, read_grains
from kernels.hedm.reflections import list_reflections
from kernels.hedm.rotations import about_z
from kernels.hedm.specs import KERNELS

COPPERLIKE = Crystal.of([4.08] * 3 + [90] * 3, "Fm-3m")


def task_of(sample: Sample, folder: Path, tell: object = None, crystal: Crystal = COPPERLIKE) -> Task:
    rings = int(sample.lattice.ring.max()) + 1
    reflections = list_reflections(crystal, sample.geometry.wavelength_A, rings=rings)
    assert len(reflections) == len(sample.lattice.hkl)
    say = tell if callable(tell) else lambda phase, grains: None
    return Task(sample.spots, sample.geometry, reflections, sample.limits, folder, say)


@pytest.fixture(scope="module")
def spots(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Spots, instrument and true grains of a small sample."""
    turned = simulated(tmp_path_factory.mktemp("turned"))
    path = turned.frames.with_name("spots.h5")
    run("hedm.peaks", input=turned.frames, geometry=turned.geometry, output=path)
    return path, turned.geometry, turned.truth


def test_the_schema_names_all_backends() -> None:
    (spec,) = (one for one in KERNELS if one.name == "hedm.farfield")
    argument = spec.arguments["backend"]
    assert argument.choices == BACKENDS
    assert argument.default == BACKENDS[0] == "own"
    assert described("own") == ""


@pytest.mark.parametrize("lean", [0.0, 0.03])
def test_imaged11_finds_known_grains_on_an_instrument_that_leans(lean: float, tmp_path: Path) -> None:
    real_imaged11("refinegrains")
    flat = flat_panel()
    beam = np.array([1.0, 0.4 * lean, -0.2 * lean])
    sample = make(12, geometry=Geometry(flat.wavelength_A, flat.panels, wedge=lean, chi=-0.5 * lean, beam=beam), seed=4)
    task = task_of(sample, tmp_path / "never")
    answer = imaged11(task)
    score = compare(judged(task, answer), sample)
    assert (score.found, score.false) == (12, 0)
    assert score.orientation_deg < 0.006
    assert score.position_um < 10
    assert score.strain < 5e-5
    assert not task.folder.exists()


def test_imaged11_finds_grains_that_are_not_cubic_in_our_axes(tmp_path: Path) -> None:
    real_imaged11("refinegrains")
    sample = make(8, "hexagonal", seed=2)
    task = task_of(sample, tmp_path, crystal=Crystal.of(*CRYSTALS["hexagonal"][:2]))
    score = compare(judged(task, imaged11(task)), sample)
    assert (score.found, score.false) == (8, 0)
    assert score.orientation_deg < 0.006
    assert score.strain < 5e-5


def test_spots_of_a_leaning_instrument_are_turned_without_a_change_of_what_they_mean(tmp_path: Path) -> None:
    flat = flat_panel()
    geometry = Geometry(flat.wavelength_A, flat.panels, wedge=0.1, chi=-0.05, beam=np.array([1.0, 0.05, -0.08]))
    sample = make(1, geometry=geometry)
    spots = straight(task_of(sample, tmp_path))
    lean = Geometry(flat.wavelength_A, flat.panels, wedge=spots.wedge, chi=spots.chi).axis_to_lab
    away = spots.point_um / np.linalg.norm(spots.point_um, axis=1)[:, None] - [1.0, 0.0, 0.0]
    g = np.array([about_z(-omega) @ lean.T @ one for omega, one in zip(spots.omega, away, strict=True)])
    ours = sample.spots.point_um / np.linalg.norm(sample.spots.point_um, axis=1)[:, None] - geometry.flat.source[:3]
    expected = np.array([about_z(-omega) @ one for omega, one in zip(sample.spots.omega, ours, strict=True)])
    np.testing.assert_allclose(g, expected, atol=1e-12)


def test_the_kernel_writes_the_same_table_with_imaged11(spots: tuple[Path, Path, Path], tmp_path: Path) -> None:
    real_imaged11("refinegrains")
    path, geometry, truth = spots
    out = tmp_path / "grains.nxs"
    made = run("hedm.farfield", input=path, geometry=geometry, output=out, backend="imaged11", **GOLD, **SMALL)
    assert str(made.metrics["backend"]).startswith("ImageD11 2")
    assert "position_error_um" not in made.metrics
    said = run("hedm.compare", input=out, truth=truth, minFound=1, maxFalse=0).metrics
    assert (said["found"], said["false"]) == (8, 0)
    table = read_grains(out)
    assert table.covariance is None
    assert table.completeness.min() > 0.8
    assert np.abs(table.strain).max() < 5e-3
    assert left_behind(tmp_path, but=("grains.nxs", "grains.nxs.manifest.json")) == []


@pytest.mark.parametrize(("backend", "module"), [("imaged11", "ImageD11"), ("midas", "midas_pipeline")])
def test_a_package_that_is_missing_is_refused_with_how_to_have_it(
    backend: str, module: str, spots: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(KernelError, match=r"it is not installed .*pip install .* leave backend out") as error:
        run(
            "hedm.farfield", input=spots[0], geometry=spots[1], output=tmp_path / "g.nxs", backend=backend,
            **GOLD, **SMALL,
        )  # fmt: skip
    assert error.value.exit_code == Exit.USAGE
    assert left_behind(tmp_path) == []


def test_what_imaged11_fails_with_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    indexing = real_imaged11("indexing")
    real_imaged11("refinegrains")

    def fail(self: object) -> None:
        raise ValueError("no\nrings")

    monkeypatch.setattr(indexing.indexer, "assigntorings", fail)
    with pytest.raises(KernelError, match=r"ImageD11 failed: no rings\. ") as error:
        imaged11(task_of(make(1), tmp_path))
    assert error.value.exit_code == Exit.BAD_INPUT


def test_midas_is_called_as_its_programs_want_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sample = make(6, strain=0.0)
    csv = tmp_path / "answer.csv"
    write_midas_grains(csv, new_grains(COPPERLIKE, sample.orientation, position_um=sample.position_um))
    stand_in(tmp_path / "packages", csv, monkeypatch)
    phases: list[str] = []
    task = task_of(sample, tmp_path / "work", lambda phase, grains: phases.append(phase))
    answer = midas(task)
    score = compare(judged(task, answer), sample)
    assert (score.found, score.false) == (6, 0)
    assert score.position_um < 1e-5
    assert score.orientation_deg < 1e-4
    assert list(dict.fromkeys(phases)) == ["bin", "index", "refine", "grains"]


def test_midas_is_given_parts_of_a_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ranges = ((math.radians(-70), math.radians(60)), (math.radians(110), math.radians(250)))
    sample = make(4, strain=0.0, omega_ranges=ranges)
    csv = tmp_path / "answer.csv"
    write_midas_grains(csv, new_grains(COPPERLIKE, sample.orientation, position_um=sample.position_um))
    stand_in(tmp_path / "packages", csv, monkeypatch)
    assert len(midas(task_of(sample, tmp_path / "work")).orientation) == 4
    lines = (tmp_path / "work/paramstest.txt").read_text().splitlines()
    told = [[float(word) for word in line.split()[1:]] for line in lines if line.startswith("OmegaRange")]
    np.testing.assert_allclose(told, [[-70, 60], [110, 180], [-180, -110]], atol=1e-5)
    assert "UseFriedelPairs 0" in lines


def test_the_kernel_with_midas_leaves_nothing_behind(
    spots: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, geometry, truth = spots
    csv, out = tmp_path / "answer.csv", tmp_path / "made" / "grains.nxs"
    write_midas_grains(csv, read_grains(truth))
    stand_in(tmp_path / "packages", csv, monkeypatch)
    made = run("hedm.farfield", input=path, geometry=geometry, output=out, backend="midas", **GOLD, **SMALL)
    assert str(made.metrics["backend"]).startswith("MIDAS of unknown version: orientation, position and strain")
    assert run("hedm.compare", input=out, truth=truth).metrics["found"] == 8
    assert left_behind(out.parent, but=("grains.nxs", "grains.nxs.manifest.json")) == []


def test_a_program_of_midas_that_fails_is_a_sentence(
    spots: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(tmp_path / "packages", tmp_path, monkeypatch, indexer="sys.exit('Error: too many HKLs')")
    (tmp_path / "made").mkdir()
    with pytest.raises(KernelError, match=r"MIDAS failed: midas_indexer \(index\): Error: too many HKLs\. ") as error:
        run(
            "hedm.farfield", input=spots[0], geometry=spots[1], output=tmp_path / "made/g.nxs", backend="midas",
            **GOLD, **SMALL,
        )  # fmt: skip
    assert error.value.exit_code == Exit.BAD_INPUT
    assert left_behind(tmp_path / "made") == []


def test_a_program_of_midas_that_hangs_ends_with_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hang = "import os, time\nPath('pid').write_text(str(os.getpid()))\ntime.sleep(100)"
    stand_in(tmp_path / "packages", tmp_path, monkeypatch, indexer=hang)
    pid = tmp_path / "work/pid"

    def tell(phase: str, grains: int) -> None:
        if pid.exists() and pid.read_text():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        midas(task_of(make(3), tmp_path / "work", tell))
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_midas_without_its_compiled_programs_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(tmp_path / "packages", tmp_path, monkeypatch)
    (tmp_path / "packages/midas_fit_grain/bin/midas_fitgrain").unlink()
    with pytest.raises(KernelError, match="midas_fitgrain of midas_fit_grain, which is not built"):
        midas(task_of(make(1), tmp_path / "work"))


def test_midas_refuses_an_axis_that_leans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(tmp_path / "packages", tmp_path, monkeypatch)
    flat = flat_panel()
    leaning = make(1, geometry=Geometry(flat.wavelength_A, flat.panels, wedge=math.radians(0.5)))
    with pytest.raises(KernelError, match=r"leans by 0\.5 degrees along and 0 across"):
        midas(task_of(leaning, tmp_path / "work"))
