"""XPCS from a compressed file to the result: how fast frames are read, beside plain decoding, and how long all takes.

    python benchmarks/xpcs_file.py [--frames 2000] [--means 0.0101 0.116] [--rounds 3] [--place DIR] [--ranks 1 2 4]

The frames are those of `xpcs_speckle.py`, 516 x 1556 of 16 bits, a chunk each, compressed by bitshuffle and LZ4 as
detectors do. Plain decoding is h5py with hdf5plugin into an array that is used again, frame by frame: nothing is made
of it. Ours ends with events, to which selection and masks have been applied. The whole is the kernel `xpcs.multitau`:
from the file to the checked result on disk, with the scattering, on all cores. The file is in memory when it is read.

`--ranks` also runs the program under mpirun, with so many ranks: CPU seconds of all of them, without what a run of the
first 16 frames takes, and the seconds from the first frame to g2.

The limit of reading is decoding; that of the whole is reading and correlating on all cores, of which the shares are
told.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401 -- the filter
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.xpcs import BARS, cpu_s  # noqa: E402
from benchmarks.xpcs_speckle import COLUMNS, ROWS, rings, speckle  # noqa: E402
from kernels.compiled import threads  # noqa: E402
from kernels.contract import run  # noqa: E402
from kernels.xpcs.qmap import GROUP, Qmap, write_qmap  # noqa: E402
from kernels.xpcs.readers import open_frames  # noqa: E402
from kernels.xpcs.writers import write_frames  # noqa: E402

READING_BAR = 0.5
FRAME_TIME_S = 1e-3


def plainly(path: Path) -> int:
    """Decode every frame; the sum of the last keeps it from being left out."""
    with h5py.File(path) as file:
        data = file["entry/data/data"]
        frame = np.empty((1, *data.shape[1:]), data.dtype)
        for n in range(len(data)):
            data.read_direct(frame, np.s_[n : n + 1])
    return int(frame.sum())


def as_events(path: Path) -> int:
    return sum(len(events.pixels) for events in open_frames(str(path), frame_time_s=FRAME_TIME_S).blocks())


def timed(name: str, work: Callable[[], Any], rounds: int) -> tuple[float, float]:
    work()  # compiled, and the file in memory
    cpu, wall = cpu_s(work, rounds)
    print(f"{name}: {cpu:.2f} CPU s, {wall:.2f} s", flush=True)
    return cpu, wall


def measure(place: Path, mean: float, frames: int, rounds: int, ranks: list[int]) -> None:
    partition = rings()
    series = speckle(frames, mean, partition)
    occupancy = 100 * len(series.all.pixels) / frames / int(partition.bounds[-1])
    path, bins, output = place / "frames.h5", place / "bins.hdf", place / "a_results.hdf"
    write_frames([path], "hdf5", series.blocks(), rows=ROWS, columns=COLUMNS, frames=frames)
    used = partition.static > 0
    with h5py.File(bins, "w") as file:
        write_qmap(file.create_group(GROUP), Qmap(partition, used, np.ones_like(used)))
    size = path.stat().st_size / 1e6
    print(f"\n{frames} frames, {occupancy:.1f} % occupied, {size:.0f} MB, {threads()} threads", flush=True)
    plain_cpu, _ = timed("plain decoding", lambda: plainly(path), rounds)
    read_cpu, read_wall = timed("to events", lambda: as_events(path), rounds)
    given = {"input": path, "qmap": bins, "output": output, "frameTime": FRAME_TIME_S}
    arguments = {name: str(value) for name, value in given.items()}
    whole_cpu, whole_wall = timed("file to result", lambda: run("xpcs.multitau", arguments, say=None), rounds)
    name = f"{occupancy:.0f}_percent"
    print(f"of the whole, reading by itself is {read_wall / whole_wall:.2f}", flush=True)
    print(
        f"RESULT name=xpcs_read_{name}_frames_per_cpu_s ours={frames / read_cpu:.0f} rival={frames / plain_cpu:.0f} "
        f"ratio={plain_cpu / read_cpu:.2f} bar={READING_BAR}"
    )
    print(
        f"RESULT name=xpcs_file_to_result_{name}_s ours={whole_wall:.2f} rival=- ratio=- bar=- "
        f"cpu_s={whole_cpu:.2f} frames_per_s={frames / whole_wall:.0f}",
        flush=True,
    )
    for size in ranks:
        under_mpi(size, arguments, frames, rounds, name)
    output.unlink()


def under_mpi(size: int, arguments: dict[str, str], frames: int, rounds: int, name: str) -> None:
    """The program as several ranks, each with its share of the cores."""
    words = [word for argument, value in arguments.items() for word in (f"--{argument}", value)]
    launch = ["mpirun", "--oversubscribe", "--bind-to", "none", "-n", str(size), sys.executable, "-m", "kernels"]
    root = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "PYTHONPATH": str(ROOT)}

    def once(*more: str) -> tuple[float, float]:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        argv = [*launch, "xpcs.multitau", *words, *more]
        subprocess.run(argv, env={**os.environ, **root}, check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        manifest = json.loads(Path(arguments["output"] + ".manifest.json").read_text())
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, manifest["timings"]["correlate"]

    once()
    start_cpu = min(once("--lastFrame", "15")[0] for _ in range(rounds))
    cpu, wall = np.min([once() for _ in range(rounds)], axis=0)
    print(f"{size} ranks: {cpu - start_cpu:.2f} CPU s, {wall:.2f} s from the first frame to g2", flush=True)
    print(
        f"RESULT name=xpcs_{size}_ranks_{name}_cpu_s ours={cpu - start_cpu:.2f} rival=- ratio=- bar=- "
        f"frames_per_s={frames / wall:.0f}",
        flush=True,
    )


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--frames", type=int, default=2000)
    options.add_argument("--means", type=float, nargs="+", default=list(BARS))
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--ranks", type=int, nargs="+", default=[])
    options.add_argument("--place", default=tempfile.gettempdir())
    chosen = options.parse_args()
    for mean in chosen.means:
        with tempfile.TemporaryDirectory(prefix="bw-xpcs-", dir=chosen.place) as name:
            measure(Path(name), mean, chosen.frames, chosen.rounds, chosen.ranks)
    return 0


if __name__ == "__main__":
    sys.exit(main())
