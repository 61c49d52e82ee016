"""Frames that ranks read together: each gets of all frames what it needs, whoever has read them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from recorded import TIME_S, some_frames, written

from kernels.ranks import Ranks
from kernels.xpcs import exchange
from kernels.xpcs.analysis.scattering import Tally
from kernels.xpcs.exchange import Exchanged, sample, share_of_frames
from kernels.xpcs.partition import Partition
from kernels.xpcs.readers import Chosen, Selection, open_frames
from kernels.xpcs.writers import laid_out

FORMS = ["hdf5", "imm", "imm-dense", "rigaku-500k", "deep"]
SELECTIONS = [Selection(), Selection(2, 12, 1, 2), Selection(1, None, 3, 1)]


def recorded(folder: Path, form: str) -> str:
    """Frames in a file; `deep`: several in a chunk."""
    if form != "deep":
        return written(folder, form, some_frames(form))
    path = folder / "deep.h5"
    with h5py.File(path, "w") as file:
        shown = some_frames("hdf5").reshape(-1, 7, 9).astype(np.uint16)
        file.create_dataset("entry/data/data", data=shown, chunks=(4, 7, 9), compression="gzip")
    return str(path)


def takers(pixels: int, size: int) -> np.ndarray[tuple[int, int], np.dtype[np.int16]]:
    """Pixels in turn for one rank, for the next and the one after it, for none."""
    first = np.arange(pixels) % size
    beyond = np.minimum(first + np.arange(pixels) % 3, size)
    return np.stack([first, beyond], axis=1).astype(np.int16)


def all_of(frames: Chosen | Exchanged) -> np.ndarray[tuple[int, int], np.dtype[np.uint32]]:
    """Frames laid out; each comes once and in order."""
    shown = []
    for events in frames.blocks():
        assert events.first == sum(map(len, shown))
        shown.append(laid_out(events, frames.rows * frames.columns, np.dtype(np.uint32)))
    return np.concatenate(shown)


def check(folder: Path, ranks: Ranks) -> dict[str, object]:
    """What this rank gets of every file and selection; says of each whether it is right."""
    exchange.BLOCK_EVENTS = 200  # several rounds
    said: dict[str, object] = {}
    for form in FORMS:
        for n, selection in enumerate(SELECTIONS):
            path = str(folder / f"{form}.path")
            frames = open_frames(Path(path).read_text(), frame_time_s=TIME_S, selection=selection)
            truth, pixels = all_of(frames), frames.rows * frames.columns
            left_out = frames.left_out
            wanted = takers(pixels, ranks.size)
            ones = np.ones((frames.rows, frames.columns), np.int32)
            tally = Tally(frames, Partition(ones, ones))
            mine = Exchanged(frames, ranks, wanted, tally.add)
            own = (wanted[:, 0] <= ranks.rank) & (ranks.rank < wanted[:, 1])
            good = [bool((all_of(mine) == np.where(own, truth, 0)).all()) for _ in range(2)]
            tally.together(ranks)
            good.append(bool((tally.scattering().image.ravel() == truth.mean(axis=0)).all()))
            good.append(frames.left_out == left_out)
            seen = np.zeros(pixels, np.int64)
            for events in share_of_frames(frames, ranks):
                np.add.at(seen, events.pixels, events.counts)
            good.append(bool((ranks.summed(seen) == truth.sum(axis=0)).all()))
            said[f"{form} {n}"] = good
    return said


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("exchange")
    for form in FORMS:
        (made / form).mkdir()
        (made / f"{form}.path").write_text(recorded(made / form, form))
    return made


def test_one_rank_gets_what_it_asks_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "BLOCK_EVENTS", 200)
    said = check(folder, Ranks())
    assert said == {name: [True] * 5 for name in said}
    assert len(said) == len(FORMS) * len(SELECTIONS)


@pytest.mark.parametrize("size", [2, 5])
def test_ranks_get_what_they_need_and_nothing_else(folder: Path, size: int) -> None:
    if shutil.which("mpirun") is None:
        pytest.skip("there is no mpirun here; see tests/install-system-parts")
    path = os.pathsep.join([str(Path(__file__).parents[4]), os.environ.get("PYTHONPATH", "")])
    allowed = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "NUMBA_NUM_THREADS": "1"}
    argv = ["mpirun", "--oversubscribe", "--bind-to", "none", "-n", str(size), sys.executable, __file__, str(folder)]
    environment = {**os.environ, **allowed, "PYTHONPATH": path}
    ran = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert ran.returncode == 0, ran.stderr
    said = [json.loads(line) for line in ran.stdout.splitlines()]
    assert len(said) == size
    for each in said:
        assert each == {name: [True] * 5 for name in each}


def test_a_sample_is_from_all_over_the_series(folder: Path) -> None:
    for form in FORMS:
        frames = open_frames((folder / f"{form}.path").read_text(), frame_time_s=TIME_S)
        few = sample(frames, 4)
        truth = some_frames("hdf5" if form == "deep" else form)
        expected = truth[[0, 4, 8, 12]] if frames.anywhere else truth[: few.frames]
        np.testing.assert_array_equal(laid_out(few, truth.shape[1], np.dtype(np.uint32)), expected)


if __name__ == "__main__":
    line = json.dumps(check(Path(sys.argv[1]), Ranks.here()))
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
