"""`hedm.peaks` by several ranks writes what one process writes, and fails as one."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray
from scans import left_behind
from test_ranks import mpirun
from turning import Turned, simulated

from kernels.errors import Exit
from kernels.hedm.conventions import hexrd


@pytest.fixture(scope="module")
def turned(tmp_path_factory: pytest.TempPathFactory) -> Turned:
    if shutil.which("mpirun") is None:
        pytest.skip("there is no mpirun here; see tests/install-system-parts")
    return simulated(tmp_path_factory.mktemp("turned"))


def content(path: Path) -> dict[str, NDArray[Any]]:
    """All data sets but those that say how the file was made."""
    found: dict[str, NDArray[Any]] = {}

    def take(name: str, data: object) -> None:
        if isinstance(data, h5py.Dataset) and name.startswith(("entry/spots/", "entry/scan/", "entry/map/")):
            found[name] = data[()]

    with h5py.File(path) as file:
        file.visititems(take)
    return found


def said(out: str, word: str) -> list[str]:
    return [line for line in out.splitlines() if line.startswith(f"{word} ")]


def test_two_panels_by_one_two_and_four_ranks(turned: Turned, tmp_path: Path) -> None:
    """The dark is of the first frames, and its noise the threshold: both go into every number."""
    geometry, other = hexrd.read(turned.geometry).geometry, tmp_path / "right.h5"
    panel = geometry.panels[0]
    pair = tuple(
        replace(panel, name=name).moved(np.array([0.0, shift, 0.0]), np.eye(3))
        for name, shift in (("left", 0.0), ("right", 3e5))
    )
    hexrd.write(tmp_path / "two.yml", type(geometry)(geometry.wavelength_A, pair))
    shutil.copy(turned.frames, other)
    with h5py.File(other, "r+") as file:
        frames = file["entry/data/data"][()][:, ::-1]
        file["entry/data/data"][...] = frames
    words = ["--input", f"left={turned.frames},right={other}", "--geometry", str(tmp_path / "two.yml")]
    made = {}
    for count in (1, 2, 4):
        out = tmp_path / f"{count}.h5"
        done = mpirun(count, "hedm.peaks", *words, "--gaussians", "true", "--output", str(out))
        assert done.returncode == 0, done.stderr
        made[count] = content(out), said(done.stdout, "metric")
        assert len(said(done.stdout, "product")) == 1
        fractions = [float(line.split()[1]) for line in said(done.stdout, "progress")]
        assert fractions == sorted(fractions)
        assert json.loads(Path(f"{out}.manifest.json").read_text())["provenance"]["ranks"] == count
    tables, metrics = made[1]
    assert set(tables["entry/spots/panel"]) == {0, 1}
    assert len(tables["entry/spots/panel"]) > 200
    for count in (2, 4):
        theirs, told = made[count]
        assert told == metrics
        assert theirs.keys() == tables.keys()
        for name, values in tables.items():
            np.testing.assert_array_equal(theirs[name], values, err_msg=name)


def test_a_damaged_frame_of_one_rank_ends_all_with_one_sentence(turned: Turned, tmp_path: Path) -> None:
    frames = tmp_path / "damaged.h5"
    shutil.copy(turned.frames, frames)
    with h5py.File(frames) as file:
        where = file["entry/data/data"].id.get_chunk_info(300).byte_offset
    with open(frames, "r+b") as raw:
        raw.seek(where + 12)
        raw.write(b"\xff" * 8)
    words = ["--input", str(frames), "--geometry", str(turned.geometry), "--output", str(tmp_path / "s.h5")]
    one, four = (mpirun(count, "hedm.peaks", *words) for count in (1, 4))
    assert one.returncode == four.returncode == Exit.BAD_INPUT
    assert "frame 300 of /entry/data/data is damaged" in one.stderr
    for done in (one, four):
        assert said(done.stderr, "error") == said(one.stderr, "error")
        assert "Traceback" not in done.stderr
    assert left_behind(tmp_path, but=["damaged.h5"]) == []


@pytest.mark.parametrize(
    ("given", "sentence"),
    [(["--threshold", "60000"], "No spot was found in 360 frames"), (["--dark", "/none/dark.h5"], "/none/dark.h5")],
)
def test_what_all_ranks_meet_is_told_once(given: list[str], sentence: str, turned: Turned, tmp_path: Path) -> None:
    words = ["--input", str(turned.frames), "--geometry", str(turned.geometry), "--output", str(tmp_path / "s.h5")]
    done = mpirun(3, "hedm.peaks", *words, *given)
    assert done.returncode in (Exit.BAD_INPUT, Exit.NO_INPUT)
    assert len(said(done.stderr, "error")) == 1
    assert sentence in done.stderr
    assert left_behind(tmp_path) == []
