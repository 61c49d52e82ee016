"""Several processes run one kernel together, and the result is that of one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels import contract, devices
from kernels.ranks import Ranks, expected, share_of_cores

MPIRUN = ["mpirun", "--oversubscribe", "--bind-to", "none"]


@given(st.integers(0, 500), st.integers(1, 40), st.integers(1, 20))
def test_shares_are_all_of_it_and_keep_pieces_whole(count: int, step: int, size: int) -> None:
    shares = [Ranks(rank, size).share(count, step) for rank in range(size)]
    assert [n for share in shares for n in share] == list(range(count))
    assert all(share.start % step == 0 or not share for share in shares)
    pieces = [-(-len(share) // step) for share in shares]
    assert max(pieces) - min(pieces) <= 1


def test_one_process_alone_needs_nobody() -> None:
    alone = Ranks.here()
    assert (alone.rank, alone.size, alone.first) == (0, 1, True)
    alone.meet()
    assert alone.told(7) == 7
    assert alone.gathered(7) == [7]


@pytest.mark.parametrize(
    ("cpus_of", "cores"),
    [
        ([{0, 1, 2, 3}] * 2, [2, 2]),  # not bound: they share
        ([{0, 1}, {2, 3}], [2, 2]),  # bound
        ([{0}, {1, 2, 3}], [1, 2]),
        ([{0, 1}] * 3, [1, 1, 1]),  # more ranks than CPUs
    ],
)
def test_ranks_of_a_node_share_its_cores(cpus_of: list[set[int]], cores: list[int]) -> None:
    each = [frozenset(c) for c in cpus_of]
    assert [share_of_cores(each, which) for which in range(len(each))] == cores


@pytest.mark.parametrize(
    ("environment", "count"),
    [
        ({}, 1),
        ({"OMPI_COMM_WORLD_SIZE": "4"}, 4),
        ({"PMI_SIZE": "3"}, 3),
        ({"SLURM_STEP_NUM_TASKS": "2"}, 2),
        ({"BEAMWAY_RANKS": "1", "OMPI_COMM_WORLD_SIZE": "4"}, 1),
        ({"SLURM_NTASKS": "8", "SLURM_PROCID": "0"}, 1),  # a batch script, which is one process
        ({"BEAMWAY_RANKS": "many"}, 1),
    ],
)
def test_how_many_the_launcher_has_started(environment: dict[str, str], count: int) -> None:
    assert expected(environment) == count


def test_processes_that_do_not_find_each_other_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else each of them would do the whole work, into the same files, and all would end well."""
    program = (
        "from kernels import contract\n"
        "try: contract.run('tomography.inspect', {'input': 'x'})\n"
        "except contract.KernelError as error: print(error)"
    )
    environment = {**os.environ, "BEAMWAY_RANKS": "4", "OMPI_ALLOW_RUN_AS_ROOT": "1"}
    said = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60)
    assert "has started 4 processes, but MPI sees 1" in said.stdout or "mpi4py" in said.stdout


@pytest.mark.parametrize(
    ("environment", "seen"),
    [
        ({}, ()),
        ({"CUDA_VISIBLE_DEVICES": "0,3"}, ("0", "3")),
        ({"CUDA_VISIBLE_DEVICES": ""}, ()),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, ()),
        ({"ZE_AFFINITY_MASK": "0.1"}, ("0.1",)),
        ({"ROCR_VISIBLE_DEVICES": "GPU-1"}, ("GPU-1",)),
    ],
)
def test_devices(environment: dict[str, str], seen: tuple[str, ...]) -> None:
    assert devices.visible(environment) == seen


# ------------------------------------------------------------------------------------------------------- with real MPI


def mpirun(count: int, *words: str, timeout_s: float = 100.0) -> subprocess.CompletedProcess[str]:
    if shutil.which("mpirun") is None:
        pytest.skip("there is no mpirun here; see tests/install-system-parts")
    environment = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    environment |= {"NUMBA_NUM_THREADS": "1"}
    argv = [*MPIRUN, "-n", str(count), sys.executable, "-m", "kernels", *words]
    return subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=timeout_s)


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ranks") / "scan.h5"
    contract.run("tomography.simulate", {"output": str(path), "columns": "96", "rows": "70", "angles": "91"}, say=None)
    return path


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_the_volume_is_the_same_for_any_number_of_ranks(scan: Path, tmp_path: Path) -> None:
    made = {}
    for count in (1, 2, 4, 7):
        folder = tmp_path / str(count)
        words = ["--input", str(scan), "--output", str(folder / "v.zarr"), "--picture", str(folder / "v.png")]
        said = mpirun(count, "tomography.reconstruct", *words)
        assert said.returncode == 0, said.stderr
        assert said.stdout.count("product ") == 2  # one speaks for all
        made[count] = content(folder / "v.zarr") | {"png": (folder / "v.png").read_bytes()}
        assert not list(folder.rglob("*.part"))
    assert made[2] == made[1]
    assert made[4] == made[1]
    assert made[7] == made[1]  # two of them have nothing to do


# What each rank does in the place of writing its slices, and what it says of its end.
PROGRAM = """
import os, signal, sys, time
from kernels import contract, ranks
from kernels.io import omezarr
real = omezarr.VolumeWriter.write
def write(self, start, slab):
    rank = self._ranks.rank
    {instead}
    real(self, start, slab)
omezarr.VolumeWriter.write = write
try:
    contract.run("tomography.reconstruct", dict(input={scan!r}, output={output!r}), say=None)
except Exception as error:
    print(f"{{type(error).__name__}} {{error}}\\n", end="", flush=True)
    ranks.leave(getattr(error, "exit_code", 70))
"""


def fail(scan: Path, output: Path, instead: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("mpirun") is None:
        pytest.skip("there is no mpirun here; see tests/install-system-parts")
    environment = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    program = PROGRAM.format(instead=instead, scan=str(scan), output=str(output))
    argv = [*MPIRUN, "-n", "3", sys.executable, "-c", program]
    return subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=60)


def test_when_one_fails_the_others_say_so_and_nothing_half_is_left(scan: Path, tmp_path: Path) -> None:
    said = fail(scan, tmp_path / "v.zarr", "if rank == 1: raise OSError(28, 'No space left on device')")
    assert said.returncode == 74
    full = "tomography.reconstruct could not read or write: No space left on device."
    assert sorted(said.stdout.split("\n")) == ["", *[f"KernelError {full}"], *[f"PeerFailed rank 1 failed: {full}"] * 2]
    assert not list(tmp_path.iterdir())


def test_when_several_fail_one_speaks(scan: Path, tmp_path: Path) -> None:
    """The lowest of them, or the one that the others have heard of before they came to it."""
    said = fail(scan, tmp_path / "v.zarr", "if rank: raise ValueError(f'bug {rank}')")
    assert said.returncode == 70
    which = said.stdout.partition("ValueError bug ")[2][:1]
    heard = ["", *[f"PeerFailed rank {which} failed: ValueError: bug {which}"] * 2, f"ValueError bug {which}"]
    assert sorted(said.stdout.split("\n")) == heard
    assert not list(tmp_path.iterdir())


def test_a_rank_at_work_stops_soon_when_another_fails(scan: Path, tmp_path: Path) -> None:
    at_work = (
        "if rank == 2: raise ValueError('early')\n"
        "    for _ in range(3000): time.sleep(0.01); self._ranks.look()  # as each word of progress does"
    )
    begun = time.monotonic()
    said = fail(scan, tmp_path / "v.zarr", at_work)
    assert time.monotonic() - begun < 20
    assert said.stdout.count("PeerFailed rank 2 failed: ValueError: early") == 2
    assert not list(tmp_path.iterdir())


def test_a_rank_that_dies_takes_the_others_with_it(scan: Path, tmp_path: Path) -> None:
    said = fail(scan, tmp_path / "v.zarr", "if rank == 1: os.kill(os.getpid(), signal.SIGKILL)")
    assert said.returncode == 137
    assert not (tmp_path / "v.zarr").exists()
    assert not (tmp_path / "v.zarr.manifest.json").exists()


def test_the_program_says_what_is_wrong_once(tmp_path: Path) -> None:
    words = ["--input", str(tmp_path / "no.h5"), "--output", str(tmp_path / "v.zarr")]
    said = mpirun(3, "tomography.reconstruct", *words)
    assert said.returncode == 66
    assert said.stderr.count("error bad input: The input") == 1


def test_a_kernel_for_one_process_is_refused_on_several(scan: Path) -> None:
    said = mpirun(2, "tomography.inspect", "--input", str(scan))
    assert said.returncode == 2
    assert "runs as one process, and 2 ranks were started" in said.stderr


def test_memory_is_that_of_a_node(scan: Path, tmp_path: Path) -> None:
    words = ["--input", str(scan), "--output", str(tmp_path / "v.zarr"), "--memoryGB", "0.015"]
    assert mpirun(1, "tomography.reconstruct", *words).returncode == 0
    said = mpirun(4, "tomography.reconstruct", *words)
    assert said.returncode == 2
    assert "memoryGB 0.015 is too little for 4 ranks" in said.stderr


def test_a_corrected_scan_is_the_same_for_any_number_of_ranks(scan: Path, tmp_path: Path) -> None:
    made = []
    for count in (1, 3):
        output = tmp_path / f"{count}.h5"
        words = ["--input", str(scan), "--output", str(output), "--zingers", "8", "--beam", "steps"]
        done = mpirun(count, "tomography.correct", *words)
        assert done.returncode == 0, done.stderr
        with h5py.File(output) as file:
            data = file["exchange/data"][...]
        made.append((data, sorted(line for line in done.stdout.splitlines() if line.startswith("metric"))))
    np.testing.assert_array_equal(made[0][0], made[1][0])
    assert made[0][1] == made[1][1]
