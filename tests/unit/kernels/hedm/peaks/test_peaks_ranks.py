"""Several ranks find the spots that one process finds, bit by bit and in the same order."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage
from spotted import expected

from kernels.hedm.frames import Frames, MemorySource, Sweep, flat_dark
from kernels.hedm.peaks import Found, find_spots, limits
from kernels.ranks import Ranks

COUNT = 24
PART, TURN = Sweep(-30, 0.25), Sweep(-180, 15)
CASES = ("dense", "dense turn", "gaps", "smooth", "long", "one", "three turn", "strange", "nothing", "deep")
SIZES = (2, 3, 4, 7)
PROGRAM = """
import sys
import numpy as np
from test_peaks_ranks import CASES, case, columns
from kernels.ranks import Ranks
ranks = Ranks.here()
for name in CASES:
    found = case(name, ranks)
    if ranks.first:
        np.savez(f"{sys.argv[1]}/{name}.npz", met=str(found.met), **columns(found))
    else:
        assert not len(found.spots)
"""


def dense() -> NDArray[np.uint16]:
    """Pixels so many that they hang together in all sorts of ways over many frames."""
    rng = np.random.default_rng(5)
    return (rng.integers(11, 1000, (COUNT, 20, 30)) * (rng.uniform(size=(COUNT, 20, 30)) < 0.095)).astype(np.uint16)


def stack_of(name: str) -> tuple[MemorySource, Sweep | None]:
    stack = dense()
    if name == "gaps":
        starts = np.arange(COUNT) + np.select([np.arange(COUNT) >= 12, np.arange(COUNT) >= 7], [9, 4], 0)
        return MemorySource(stack, omega_deg=np.column_stack([starts, starts + 1.0])), None
    if name in ("smooth", "long"):
        deep = 7.0 if name == "long" else 1.3
        spots = [(9.0 + 16 * (k % 3), 9.0 + 16 * (k // 3), 2.6 * k, 1.2, 1.1, deep, 4e4) for k in range(9)]
        light = np.random.default_rng(8).poisson(expected((COUNT, 50, 50), np.array(spots)))
        light[:, 3, 44:46] = 300  # hot from the first frame to the last
        stack = light.astype(np.uint16)
    if name == "one":
        stack = stack[:1]
    if name == "three turn":
        return MemorySource(stack[:3], omega_deg=np.array([[-180.0, -60], [-60, 60], [60, 180]])), None
    if name == "strange":
        stack[[4, *range(18, 24)]] = 0  # all frames of one rank of four
        stack[[1, 13]] = 65535
        stack[17, 4:6, 5] = 65535
    if name == "nothing":
        stack = np.minimum(stack, 10)
    if name == "deep":
        source = MemorySource(stack)
        source.deep = 10  # some ranks have none
        return source, PART
    return MemorySource(stack), TURN if "turn" in name else PART


def case(name: str, ranks: Ranks | None = None) -> Found:
    source, omegas = stack_of(name)
    frames = Frames(source, omegas=omegas)
    chosen = limits(frames, flat_dark(0, frames), threshold=10)
    least = 2 if name == "strange" else 1
    return find_spots(frames, chosen, least_pixels=least, gaussians="turn" not in name, at_once=2, ranks=ranks)


def columns(found: Found) -> dict[str, NDArray[Any]]:
    return {field.name: getattr(found.spots, field.name) for field in fields(found.spots)}


@pytest.fixture(scope="module")
def alone() -> dict[str, Found]:
    return {name: case(name) for name in CASES}


def test_spots_go_over_several_blocks(alone: dict[str, Found]) -> None:
    """Else the test below would show little."""
    numbered, count = ndimage.label(dense() > 10, np.ones((3, 3, 3)))
    deep = np.array([one[0].stop - one[0].start for one in ndimage.find_objects(numbered)])
    assert count > 100
    assert (deep > 13).any()  # over three blocks of six
    assert alone["long"].spots.frames.max() == COUNT
    assert ((alone["long"].spots.frames > 12) & (alone["long"].spots.frames < COUNT)).any()
    assert np.isfinite(alone["smooth"].spots.chi2).sum() >= 8
    assert len(alone["one"].spots) > 5
    assert len(alone["three turn"].spots) > 10
    assert alone["strange"].met.keys() >= {"empty frames", "saturated frames", "spots of too few pixels"}
    assert not len(alone["nothing"].spots)


@pytest.mark.parametrize("size", SIZES)
def test_the_spots_are_the_same_for_any_number_of_ranks(alone: dict[str, Found], size: int, tmp_path: Path) -> None:
    if shutil.which("mpirun") is None:
        pytest.skip("there is no mpirun here; see tests/install-system-parts")
    environment = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    environment |= {"NUMBA_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    line = ["mpirun", "--oversubscribe", "--bind-to", "none", "-n", str(size), sys.executable, "-c", PROGRAM]
    done = subprocess.run([*line, str(tmp_path)], env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr[-2000:]
    for name, found in alone.items():
        with np.load(tmp_path / f"{name}.npz") as theirs:
            assert str(theirs["met"]) == str(found.met), name
            for key, values in columns(found).items():
                assert theirs[key].dtype == values.dtype
                np.testing.assert_array_equal(theirs[key], values, err_msg=f"{name}: {key}")
