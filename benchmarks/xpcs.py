"""Multi-tau g2 of ours beside boost-corr and xpcs-correlator, in this run, on the same frames.

    python benchmarks/xpcs.py [--rival-python VENV/bin/python] [--frames 2000] [--means 0.0101 0.116] [--live] [--costs]

The frames are those of `xpcs_speckle.py`; 0.0101 photons in a pixel and frame are 1 % of occupied pixels, 0.116 are
10 %.

Times are CPU seconds. Ours are the least of the rounds, from events in memory to g2. A rival runs in a process of its
own, in the environment of `--rival-python` (`pip install boost-corr==0.1.7 xpcs-correlator==0.4.5`; without one nothing
is compared), once, on CPUs, from events in memory, too; what it takes to import is not counted. boost-corr gets
batches of events that are its own, of which it makes frames, and 6 GB, since its reader of HDF5 overwrites batches and
its default is 36 GB. It keeps frames in bfloat16, so that its g2 differs; how far is told. xpcs-correlator gets the
events sorted by pixel, which is not counted; it has every delay and no errors, and normalises each pair of frames by
the means of these, over a whole dynamic bin, so that its g2 is another: only the least delays are compared.

`--live` feeds frames one by one, and asks for g2 once in 1000. `--costs` tells what the model of costs needs: what an
event takes in frames of sixteen pixels. The limit is memory: the time to read the events once is told beside ours.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.xpcs_speckle import DYNAMIC, STATIC, Series, rings, speckle  # noqa: E402
from kernels.compiled import threads  # noqa: E402
from kernels.xpcs.lags import lags  # noqa: E402
from kernels.xpcs.multitau import LiveMultiTau, multitau  # noqa: E402
from kernels.xpcs.multitau.work import Work  # noqa: E402
from kernels.xpcs.partition import Partition  # noqa: E402

BARS = {0.0101: 100.0, 0.116: 25.0}


def cpu_s(work: Callable[[], Any], rounds: int) -> tuple[float, float]:
    """CPU and wall seconds, the least of the rounds."""
    least = wall = np.inf
    for _ in range(rounds):
        begun, on_wall = time.process_time(), time.perf_counter()
        work()
        least, wall = min(least, time.process_time() - begun), min(wall, time.perf_counter() - on_wall)
    return float(least), float(wall)


def said(name: str, ours: float, theirs: float | None, bar: float) -> None:
    other, ratio = ("absent", "-") if theirs is None else (f"{theirs:.3g}", f"{theirs / ours:.1f}")
    print(f"RESULT name={name} ours={ours:.3g} rival={other} ratio={ratio} bar={bar:g}", flush=True)


def rival(python: str, name: str, folder: Path) -> dict[str, NDArray[np.float64]] | None:
    """What it says, in a process of its own; None where it is absent or fails."""
    if not python:
        return None
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": ""}
    line = [python, str(ROOT / "benchmarks" / "xpcs_rivals.py"), name, str(folder)]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"{name}: {done.stderr.strip().splitlines()[-1:]}", flush=True)
        return None
    with np.load(folder / f"{name}.npz") as made:
        return dict(made)


def compare(series: Series, partition: Partition, mean: float, python: str, rounds: int) -> None:
    """Ours and theirs, on the same frames."""
    events = series.all
    occupancy = 100 * len(events.pixels) / series.count / int(partition.bounds[-1])
    made = multitau(series, partition)
    cpu, wall = cpu_s(lambda: multitau(series, partition), rounds)
    limit, _ = cpu_s(lambda: (events.pixels.max(), events.counts.max()), 3)
    print(f"\n{series.count} frames, {occupancy:.1f} % occupied, {len(events.pixels)} events", flush=True)
    print(f"ours: {cpu:.2f} CPU s, {wall:.2f} s, {series.count / cpu:.0f} frames per CPU s", flush=True)
    print(f"to read the events once takes {limit:.3f} CPU s, {limit / cpu:.2f} of ours", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        arrays = {"starts": events.starts, "pixels": events.pixels, "counts": events.counts}
        for word, array in {**arrays, "static": partition.static, "dynamic": partition.dynamic}.items():
            np.save(folder / f"{word}.npy", array)
        boost = rival(python, "boost_corr", folder)
        if boost is not None:
            apart = np.abs(boost["g2"] - made.g2).max(), np.abs(boost["g2_err"] - made.g2_err).max()
            theirs = float(boost["cpu"]), float(boost["wall"])
            print(
                f"boost-corr: {theirs[0]:.1f} CPU s, {theirs[1]:.1f} s; |dg2| {apart[0]:.1e}, of errors {apart[1]:.1e}"
            )
        said(
            f"g2_{occupancy:.0f}_percent_cpu_s", cpu, None if boost is None else float(boost["cpu"]), BARS.get(mean, 0)
        )
        other = rival(python, "xpcs_correlator", folder)
        if other is not None:
            far = np.abs(other["g2"][:, :8].T - made.g2[:8]).max()
            print(f"xpcs-correlator: {float(other['cpu']):.1f} CPU s, {float(other['wall']):.1f} s; |dg2| {far:.1e}")
        said(f"g2_{occupancy:.0f}_percent_vs_xpcs_correlator", cpu, None if other is None else float(other["cpu"]), 0)


def live(series: Series, partition: Partition) -> None:
    """Frames one by one, as often as the series lasts, and g2 once in 1000."""
    frames = list(series._replace(block=1).blocks())
    running = LiveMultiTau(partition)
    rounds = max(1, -(-4000 // series.count))
    begun, on_wall, slowest = time.process_time(), time.perf_counter(), 0.0
    for n in range(rounds * series.count):
        running.feed(frames[n % series.count]._replace(first=n))
        if n % 1000 == 999:
            asked = time.perf_counter()
            running.result()
            slowest = max(slowest, time.perf_counter() - asked)
    cpu, wall = time.process_time() - begun, time.perf_counter() - on_wall
    count = rounds * series.count
    print(
        f"live: {count / wall:.0f} frames per s, {count / cpu:.0f} per CPU s; an answer in {slowest:.2f} s", flush=True
    )
    print(f"RESULT name=live_frames_per_s ours={count / wall:.0f} rival=absent ratio=- bar=1000", flush=True)


def costs(series: Series, partition: Partition) -> None:
    """CPU seconds for each cost of an event that the choice may be made by."""
    delays = lags(series.count)
    for cost in (0.0, 5.0, 10.0, 15.0, 20.0, 40.0, np.inf):
        least = np.inf
        for _ in range(3):
            work = Work(partition, 4, None, cost)
            for events in series.blocks():
                work.hold(events)
            begun = time.process_time()
            work.go_on(delays)
            least = min(least, time.process_time() - begun)
        print(f"an event costs {cost:g}: {least:.2f} CPU s", flush=True)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--rival-python", default="")
    options.add_argument("--frames", type=int, default=2000)
    options.add_argument("--means", type=float, nargs="+", default=list(BARS))
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--live", action="store_true")
    options.add_argument("--costs", action="store_true")
    chosen = options.parse_args()
    partition = rings()
    print(
        f"{partition.bounds[-1]} pixels in {STATIC} static and {DYNAMIC} dynamic bins, {threads()} threads", flush=True
    )
    for mean in chosen.means:
        series = speckle(chosen.frames, mean, partition)
        compare(series, partition, mean, chosen.rival_python, chosen.rounds)
        if chosen.live:
            live(series, partition)
        if chosen.costs:
            costs(series, partition)
    return 0


if __name__ == "__main__":
    sys.exit(main())
