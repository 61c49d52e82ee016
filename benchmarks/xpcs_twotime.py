"""Two-time correlations: CPU time, wall time and peak memory, beside boost-corr in its CPU mode in the same run.

The speckle of `xpcs_speckle.py`, on 516 x 1556 pixels in 270 static and 27 dynamic rings: 2000 frames, 1 % and 10 % of
the pixels occupied; and 10,000 frames at 1 %, which boost-corr cannot hold in 24 GB. Ours begins with frame-major
events and ends with all tiles, g2 and its segments; boost-corr, given the same events, makes dense frames of them, as
it does with those of a detector, and ends with the same. Each runs in a process of its own, compiled code is warm, and
beside each time is how far the correlations are apart.

    python benchmarks/xpcs_twotime.py [--quick] [--sets 1pct,10pct,long] [--data DIR] [--rival-python PYTHON]

PYTHON is that of an environment with boost-corr 0.1.7 and PyTorch; without it there is no rival. `limit` tells what the
processor could do at best: sums of products of 8-bit counts, or pairs of events, per second of a core.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
ROWS, COLUMNS, DYNAMIC = 516, 1556, 27
# Name: frames, mean count of a pixel, bar of the ratio of CPU seconds.
SETS = {"1pct": (2000, 0.01, 50.0), "10pct": (2000, 0.114, 5.0), "long": (10_000, 0.01, None)}
QUICK = {name: (frames // 10, mean, bar) for name, (frames, mean, bar) in SETS.items()}
LONG_WALL_S, LONG_MEMORY_GB = 60.0, 8.0


def simulate(path: Path, frames: int, mean: float) -> None:
    """Write counts of speckle, frame by frame, and the bins."""
    from benchmarks.xpcs_speckle import rings, speckle

    bins = rings()
    events = speckle(frames, mean, bins).all
    arrays = {"starts": events.starts, "pixels": events.pixels, "counts": events.counts}
    np.savez(path, **arrays, static=bins.static, dynamic=bins.dynamic)


def timed(work: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    wall, cpu = time.perf_counter(), time.process_time()
    made = work()
    took = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
    return made, {**took, "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6}


def ours(path: Path, kept: Path | None) -> dict[str, Any]:
    """Correlate all bins; keep the first and the last of them where asked to."""
    from kernels.xpcs.events import Events
    from kernels.xpcs.partition import Partition
    from kernels.xpcs.twotime import cost, vnni
    from kernels.xpcs.twotime.correlate import twotime
    from kernels.xpcs.twotime.series import gather
    from kernels.xpcs.twotime.slices import segments

    class Simulated:
        rows, columns, frame_time_s = ROWS, COLUMNS, 1.0

        def __init__(self, frames: int | None = None) -> None:
            with np.load(path) as file:
                starts = file["starts"][: None if frames is None else frames + 1]
                self.events = Events(0, starts, file["pixels"][: starts[-1]], file["counts"][: starts[-1]])
            self.count, self.largest = self.events.frames, int(self.events.counts.max())

        def blocks(self) -> Any:
            yield self.events

    with np.load(path) as file:
        bins = Partition(file["static"], file["dynamic"])
    maps: dict[int, np.ndarray] = {}

    def correlate(frames: Any, way: Any = None) -> Any:
        def write(number: int, row: int, column: int, tile: np.ndarray) -> None:
            if kept and number in (1, DYNAMIC) and frames.count == whole.count:
                c2 = maps.setdefault(number, np.zeros((frames.count, frames.count), np.float32))
                c2[row : row + tile.shape[0], column : column + tile.shape[1]] = tile

        series = gather(frames, bins)
        return series, twotime(series, write, way=way, slices=segments(frames.count))

    whole = Simulated()
    for way in ("pairs", *(("vnni",) if vnni.available() else ())):
        correlate(Simulated(40), way)  # compiles
    (series, found), took = timed(lambda: correlate(whole))
    if kept:
        np.savez(kept, g2=found.g2, segments=found.slices, **{f"c{n}": c2 for n, c2 in maps.items()})
    events = np.diff(series.starts).astype(float)
    chosen = [cost.cheapest(series, which) for which in range(len(series.bins))]
    products = series.frames**2 / 2 * (len(series.starts) - 1)
    work = {"pairs": float((events * (events + 1) / 2).sum()), "products": products}
    return {**took, **work, "ways": {way: chosen.count(way) for way in sorted(set(chosen))}, "events": events.sum()}


def rival(path: Path, kept: Path) -> dict[str, Any]:
    """boost-corr through its own classes. Batches are made here: its HDF5 reader gives wrong ones at times."""
    import h5py
    import torch
    from boost_corr import TwotimeCorrelator
    from boost_corr.xpcs_aps_8idi.xpcs_qpartitionmap import XpcsQPartitionMap

    with np.load(path) as file:
        starts, pixels, counts, static, dynamic = (
            file[name] for name in ("starts", "pixels", "counts", "static", "dynamic")
        )
    with tempfile.TemporaryDirectory() as folder:
        with h5py.File(f"{folder}/qmap.h5", "w") as file:
            for name, data in (("static_roi_map", static), ("dynamic_roi_map", dynamic), ("mask", static > 0)):
                file[f"qmap/{name}"] = data
        partition = XpcsQPartitionMap(f"{folder}/qmap.h5", flag_sort=True, crop_ratio_threshold=2.0)
    frames, at_once = len(starts) - 1, 8

    def correlate() -> Any:
        with torch.no_grad():
            solver = TwotimeCorrelator(
                partition.qinfo, frame_num=frames, det_size=(ROWS, COLUMNS), mask_crop=partition.mask_crop
            )
            for first in range(0, frames, at_once):
                dense = torch.zeros((min(at_once, frames - first), ROWS * COLUMNS), dtype=torch.uint8)
                for n in range(len(dense)):
                    part = slice(starts[first + n], starts[first + n + 1])
                    dense[n, torch.from_numpy(pixels[part].astype(np.int64))] = torch.from_numpy(counts[part])
                solver.process(dense[:, partition.mask_crop])
            solver.post_processing(smooth_method="sqmap")
            maps, last = {}, {}
            for n, made in enumerate(solver.get_twotime_generator(), 1):
                if n in (1, DYNAMIC):
                    maps[f"c{n}"] = next(iter(made.values()))
                last = made
        return maps, last

    (maps, last), took = timed(correlate)
    np.savez(kept, g2=last["c2_g2"], segments=last["c2_g2_segments"], **maps)
    return took


def apart(one: Path, other: Path) -> dict[str, float]:
    """Largest differences, relative to 1, of C2 off the diagonal and of g2 and segments at delays above 0."""
    with np.load(one) as a, np.load(other) as b:
        maps = [np.abs(np.triu(a[name].astype(float) - b[name], 1)).max() for name in a if name.startswith("c")]
        means = {name: float(np.abs(a[name][1 : len(b[name])] - b[name][1:]).max()) for name in ("g2", "segments")}
        return {"c2": float(max(maps)), **means}


def measured(python: str, what: str, *words: Path) -> dict[str, Any]:
    argv = [python, str(Path(__file__).resolve()), what, *map(str, words)]
    said = subprocess.run(argv, capture_output=True, text=True)
    if said.returncode:
        raise SystemExit(f"{what} ended with {said.returncode}: {said.stderr[-2000:]}")
    return dict(json.loads(said.stdout.splitlines()[-1]))


def said(name: str, mine: float, theirs: float | None, bar: float | None) -> None:
    other, ratio = (f"{theirs:.2f}", f"{theirs / mine:.1f}") if theirs else ("-", "-")
    print(f"RESULT name=twotime_{name} ours={mine:.2f} rival={other} ratio={ratio} bar={bar or '-'}", flush=True)


def spent(who: str, what: dict[str, Any]) -> None:
    print(f"  {who} wall {what['wall_s']:.2f} s, CPU {what['cpu_s']:.2f} s, peak {what['peak_gb']:.2f} GB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the frames")
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--data", type=Path, help="keep simulated counts here; take those that are there")
    parser.add_argument("--rival-python", default="")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        for name in asked.sets.split(","):
            frames, mean, bar = (QUICK if asked.quick else SETS)[name]
            data = (asked.data or Path(scratch)) / f"speckle_{name}_{frames}.npz"
            if not data.exists():
                simulate(data, frames, mean)
            mine, theirs = Path(scratch) / "ours.npz", Path(scratch) / "rival.npz"
            us = measured(sys.executable, "--ours", data, *([mine] if bar else []))
            print(f"{name}: {us['events']:.4g} events, {us['pairs']:.4g} pairs of them; bins by way: {us['ways']}")
            spent("ours", us)
            way = max(us["ways"], key=us["ways"].get)
            rate = us["pairs" if way == "pairs" else "products"] / us["cpu_s"] / 1e9
            print(f"  limit: {rate:.3g} G {way} per CPU s, all told; VNNI alone does 512 G products at 4 GHz")
            them = None
            if asked.rival_python and bar:
                them = measured(asked.rival_python, "--rival", data, theirs)
                spent("boost-corr", them)
                print("  apart: " + ", ".join(f"{what} {value:.1e}" for what, value in apart(mine, theirs).items()))
            said(f"{name}_cpu_s", us["cpu_s"], them and them["cpu_s"], bar)
            if not bar:
                said(f"{name}_wall_s", us["wall_s"], None, LONG_WALL_S)
                said(f"{name}_peak_gb", us["peak_gb"], None, LONG_MEMORY_GB)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--ours"]:
        print(json.dumps(ours(Path(sys.argv[2]), Path(sys.argv[3]) if len(sys.argv) > 3 else None)))
    elif sys.argv[1:2] == ["--rival"]:
        print(json.dumps(rival(Path(sys.argv[2]), Path(sys.argv[3]))))
    else:
        main()
