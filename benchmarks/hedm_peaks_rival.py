"""Search frames by midas-peakfit, in the environment it is installed in; CPU seconds in the last line.

    pip install torch==2.13.0 midas-peakfit==0.8.0 midas-zipper==0.4.0      # those that midas-suite 0.12.0 takes
    VENV/bin/python benchmarks/hedm_peaks_rival.py FRAMES.npy COUNT DARK THRESHOLD FIT FOLDER

The frames come again and again until there are COUNT. They are put into MIDAS's archive as `midas-ff-zip` does, a frame
a chunk, bitshuffle with zstd, and searched by `peakfit_torch` in full images, on 2 processes, with (FIT 1) or without
(0) fitting. Starting takes it long, so what a single frame takes is measured too and subtracted.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import zarr
from numcodecs import Blosc


def pack(archive: Path, stack: np.ndarray, count: int, dark: float, threshold: float, folder: Path) -> None:
    with zarr.ZipStore(str(archive), mode="w") as store:
        root = zarr.group(store=store)
        how = {"chunks": (1, *stack.shape[1:]), "compressor": Blosc(cname="zstd", clevel=1, shuffle=Blosc.BITSHUFFLE)}
        data = root.create_dataset("exchange/data", shape=(count, *stack.shape[1:]), dtype=stack.dtype, **how)
        for n in range(count):
            data[n] = stack[n % len(stack)]
        root.create_dataset("exchange/dark", data=np.full((1, *stack.shape[1:]), dark, stack.dtype), **how)
        scan = root.create_group("measurement/process/scan_parameters")
        scan["start"], scan["step"] = np.array([0.0]), np.array([0.25])
        scan["doPeakFit"] = np.array([1])
        chosen = root.create_group("analysis/process/analysis_parameters")
        for name, value in {
            "DoFullImage": 1,
            "RingThresh": [[1.0, threshold]],
            "MinNrPx": 3,
            "MaxNrPx": 10000,
            "MaxNPeaks": 400,
            "YCen": stack.shape[2] / 2,
            "ZCen": stack.shape[1] / 2,
            "PixelSize": 200.0,
            "Lsd": 1e6,
            "Width": 1500.0,
            "Wavelength": 0.22291,
            "UpperBoundThreshold": 65535.0,
            "RhoD": 2e5,
        }.items():
            chosen[name] = np.atleast_1d(np.array(value))
        chosen["ResultFolder"] = np.array([str(folder).encode()])


def spent_s() -> float:
    """CPU seconds of the processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> int:
    frames, count, dark, threshold, fits, place = sys.argv[1:]
    folder = Path(place)
    archive = folder / "scan.MIDAS.zip"
    if not archive.exists():
        pack(archive, np.load(frames, mmap_mode="r"), int(count), float(dark), float(threshold), folder)
    program = str(Path(sys.executable).with_name("peakfit_torch"))
    spent = [0.0]
    for blocks in (count, "1"):  # the first block of as many as there are frames, and all
        line = [program, str(archive), "0", blocks, "2", str(folder), fits, "--device", "cpu"]
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        if done.returncode:
            print(done.stdout[-2000:], done.stderr[-2000:], file=sys.stderr)
            return done.returncode
        spent.append(spent_s())
    one, every = np.diff(spent)
    print(f"{(every - one) * int(count) / (int(count) - 1):.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
