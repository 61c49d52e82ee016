"""Grains of an emulated GPU are those of the CPU to the last bit, whatever the crystal, the scan and the panels; and
what cannot be is one sentence."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic_grains import Sample, flat_panel, make

from kernels.cuda import sources
from kernels.cuda.device import choose
from kernels.errors import Exit, KernelError
from kernels.hedm.distortion import DexelaDistortion, Distortion, GeDistortion, MapDistortion, MidasDistortion
from kernels.hedm.farfield import fibreindex
from kernels.hedm.farfield.cuda import search
from kernels.hedm.farfield.fibres import turned
from kernels.hedm.farfield.find import Found, Scene, find_grains
from kernels.hedm.farfield.refinement import Refined, refine
from kernels.hedm.geometry import Geometry, Panel
from tests.unit.kernels.cuda.emulated import Device, Kernel

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")

TURN, PART, PARTS = ((-math.pi, math.pi),), ((-1.0, 1.0),), ((-2.9, -0.3), (0.2, 2.6))
ARRAYS = [name for name in Found.__dataclass_fields__ if name not in ("limits", "verdict")]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Device:
    return Device().install(monkeypatch)


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the kernels that have run."""
    names: list[str] = []
    launch = Kernel.__call__

    def call(self: Kernel, *arguments: Any) -> None:
        names.append(self._name)
        launch(self, *arguments)

    monkeypatch.setattr(Kernel, "__call__", call)
    return names


def found_by(sample: Sample, *, on_gpu: bool) -> Found:
    ready = search.prepare(len(sample.spots), sample.geometry, sample.lattice) if on_gpu else None
    return find_grains(sample.spots, sample.geometry, sample.lattice, limits=sample.limits, gpu=ready)


def check(sample: Sample, grains: int) -> None:
    made, expected = found_by(sample, on_gpu=True), found_by(sample, on_gpu=False)
    assert len(expected) == grains
    assert made.limits == expected.limits
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(made, name), getattr(expected, name), err_msg=name)


@pytest.mark.parametrize("system", ["cubic", "trigonal", "monoclinic"])
def test_grains_from_pairs_are_those_of_the_cpu(gpu: Device, launched: list[str], system: str) -> None:
    check(make(30, system, seed=3), 30)
    assert set(launched) == {"try_pairs", "refine_grains"}


@pytest.mark.parametrize("system", ["cubic", "hexagonal"])
def test_grains_from_single_spots_are_those_of_the_cpu(gpu: Device, launched: list[str], system: str) -> None:
    check(make(8, system, seed=3, omega_ranges=PART), 8)
    assert set(launched) == {"score_fibres", "refine_grains"}


def test_pairs_first_and_single_spots_after_them(gpu: Device, launched: list[str]) -> None:
    """Ranges with gaps; the noise that was given is too small, and is measured."""
    sample = make(12, seed=5, geometry=flat_panel((0.01, -0.02, 0.015), 0.007), omega_ranges=PARTS)
    check(replace(sample, limits=replace(sample.limits, spot_um=9.0, min_eta=0.2)), 12)
    assert set(launched) == {"try_pairs", "score_fibres", "refine_grains"}


def test_scores_are_those_of_the_cpu(gpu: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each by itself, since the same grains may come of others."""
    given: list[Any] = []
    made: list[Any] = []
    try_fibres, best_of_all, begin_all = search.CudaSearch.try_fibres, search._best_of_all, search._begin_all

    def keep(into: list[Any], call: Any) -> Any:
        def kept(*arguments: Any) -> Any:
            into.append(arguments)
            return call(*arguments)

        return kept

    begun: list[Any] = []
    monkeypatch.setattr(search.CudaSearch, "try_fibres", keep(given, try_fibres))
    monkeypatch.setattr(search, "_best_of_all", keep(made, best_of_all))
    monkeypatch.setattr(search, "_begin_all", keep(begun, begin_all))
    found_by(make(5, "tetragonal", seed=3, omega_ranges=((-1.2, -0.1), (0.3, 1.5))), on_gpu=True)
    _, _, fibres, _, _, _, view, map_, g0, ring, shell, _, _, least, *_ = given[0]
    scores, (*_, axes, starts), turn = made[0][0], begun[0], np.empty((3, 3))
    assert scores.shape == (len(given[0][1]), len(fibres.family))
    expected = np.empty_like(scores)
    for n, k in np.ndindex(*scores.shape):
        turned(starts[n, fibres.family[k]], axes[n], fibres.sine[k], fibres.versine[k], turn)
        expected[n, k] = fibreindex._score(view, map_, turn, g0, ring, shell, least)
    np.testing.assert_array_equal(scores, expected)
    assert 0 < (scores > 0).mean() < 1


@pytest.mark.parametrize("seed", [1, 2])
def test_batches_change_nothing(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    Device(seed=seed).install(monkeypatch)
    monkeypatch.setattr(search, "MOST", 7)
    monkeypatch.setattr(search, "LEAST", 7)
    monkeypatch.setattr(search, "_SCORES", 500)
    check(make(15, seed=8), 15)
    check(make(4, seed=8, omega_ranges=PART), 4)


BENT: dict[str, Distortion] = {
    "ge": GeDistortion((2e-3, -1e-3, 3e-3, 2.0, 2.0, 2.0)),
    "dexela": DexelaDistortion((0.3, -0.2, 0.1, 0.4, -0.3, 0.2, 0.15, -0.1)),
    "midas": MidasDistortion((1e-3, 2e-3, 3e-3, 20.0, -1e-3, 5e-4, -40.0), 2e5),
    "map": MapDistortion(*np.random.default_rng(1).normal(0, 2, (2, 9, 5)), step=256),
}


@pytest.mark.parametrize("bent", BENT)
def test_panels_bend_as_on_the_cpu(gpu: Device, bent: str) -> None:
    """Refined on two small panels, so that many spots are near an edge, from starts of which some have no spots."""
    panels = [
        Panel.tilted(
            name, shape=(2048, 900), pixel_um=(200.0, 200.0), distance_um=1e6, beam_centre=(1023.5, column),
            tilts=(0.01, 0.02, -0.01), distortion=BENT[bent],
        )
        for name, column in (("left", 950.0), ("right", -60.0))
    ]  # fmt: skip
    sample = make(30, geometry=Geometry(0.22291, tuple(panels)), seed=4)
    made, expected = (refined(sample, on_gpu=on_gpu) for on_gpu in (True, False))
    assert 20 < np.isfinite(expected.covariance[:, 0, 0]).sum() < 30
    for name in Refined.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(made, name), getattr(expected, name), err_msg=name)


def refined(sample: Sample, *, on_gpu: bool) -> Refined:
    scene = Scene(sample.spots, sample.geometry.flat, sample.lattice, sample.limits)
    position = sample.position_um + np.where(np.arange(len(sample.position_um)) % 10, 5.0, 9000.0)[:, None]
    return refine(
        scene.cells, sample.geometry.flat, sample.lattice.g0, scene.shell_of, orientation=sample.orientation,
        position_um=position, limits=sample.limits,
        gpu=search.prepare(len(sample.spots), sample.geometry, sample.lattice) if on_gpu else None,
    )  # fmt: skip


MISTAKES = {
    "rows are read before they are there": (
        "refine.cu",
        "    __syncwarp();\n    for (int n = 0; n < count",
        "    for (int n = 0; n < count",
    ),
    "rows have another order": ("refine.cu", "__popc(there & ((1u << lane) - 1));", "__popc(there >> lane >> 1);"),
    "a sum has another order": (
        "refine.cu",
        "a[COLUMNS] * b[COLUMNS] + a[2 * COLUMNS] * b[2 * COLUMNS];",
        "(a[COLUMNS] * b[COLUMNS] + a[2 * COLUMNS] * b[2 * COLUMNS]);",
    ),
    "a pivot is gone before it is read": ("algebra.cuh", "__syncwarp(); // the diagonal has been read", ""),
    "a candidate is judged before it is told": ("pairs.cu", "__syncwarp();\n        candidates++;", "candidates++;"),
    "the last candidate goes first": ("pairs.cu", "there & (0 - there);", "1u << (31 - __builtin_clz(there));"),
    "a line has one pair": ("pairs.cu", "found[1] = other;", "found[1] = -1;"),
    "fibres go the other way": ("fibres.cu", "sine[at], versine[at]", "-sine[at], versine[at]"),
    "an octant is wrong": ("forward.cuh", "if (ay > ax)", "if (ay >= 0)"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_show(gpu: Device, monkeypatch: pytest.MonkeyPatch, mistake: str) -> None:
    file, right, wrong = MISTAKES[mistake]
    before = sources.text

    def mistaken(source: Path) -> str:
        return before(source).replace(right, wrong)

    assert right in search.PAIRS.with_name(file).read_text()
    monkeypatch.setattr(sources, "text", mistaken)
    sample = make(6, seed=3, omega_ranges=PART) if file == "fibres.cu" else make(12, seed=3)
    with pytest.raises(AssertionError):
        check(sample, len(sample.orientation))


def test_seeds_are_fewer_at_once_where_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    sample = make(10, seed=2)
    reflections, rings = len(sample.lattice.g0), len(sample.lattice.ring_length)
    need = {
        batch: search.bytes_of(search.sizes_of(len(sample.spots), reflections, rings, batch)) for batch in (64, 4096)
    }
    Device(need[64] + 1_000_000).install(monkeypatch)
    check(sample, 10)
    device = Device(need[64] - 1000).install(monkeypatch)
    with pytest.raises(KernelError, match=r"spots and .* reflections need about .* take device cpu") as caught:
        found_by(sample, on_gpu=True)
    assert caught.value.exit_code == Exit.USAGE
    assert need[4096] > need[64] > device.memory
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    choice = choose("auto", lambda: search.prepare(len(sample.spots), sample.geometry, sample.lattice))
    assert choice.kind == "cpu"
    assert "reflections need about" in choice.reason


def test_a_distortion_that_the_gpu_does_not_know_is_refused(gpu: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    sample = make(5, geometry=Geometry(0.22291, (replace(flat_panel().panels[0], distortion=BENT["midas"]),)))
    monkeypatch.setattr(search, "MAP", 2)
    with pytest.raises(KernelError, match="distortion of a panel is not one that the GPU path has: take device cpu"):
        search.prepare(len(sample.spots), sample.geometry, sample.lattice)


def test_a_gpu_that_fails_at_work_is_one_sentence(gpu: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("cudaErrorIllegalAddress: an illegal memory access\nand more")

    sample = make(5, seed=2)
    ready = search.prepare(len(sample.spots), sample.geometry, sample.lattice)
    monkeypatch.setattr(Kernel, "__call__", fail)
    with pytest.raises(KernelError, match=r"illegal memory access.*: try again, or take device cpu") as caught:
        find_grains(sample.spots, sample.geometry, sample.lattice, limits=sample.limits, gpu=ready)
    assert caught.value.exit_code == Exit.TRANSIENT
