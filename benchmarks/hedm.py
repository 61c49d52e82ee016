"""All of HEDM in one run: far field, frames to grains, peak search, near field; MIDAS and ImageD11 beside them.

    python benchmarks/hedm.py [--midas-python VENV/bin/python] [--imaged11-python VENV/bin/python] [--memory DIR]
                              [--parts ff midas frames peaks nf] [--quick]

Each part is a program of its own and says what it measures: `hedm_ff.py`, `hedm_midas.py`, `hedm_frames.py`,
`hedm_peaks.py`, `hedm_nf.py`. What a rival takes to import and to compile is not counted, nor is what ours does. The
environment of MIDAS needs our libraries, too (see `hedm_midas.py`); without one its parts say what ours take. With
MIDAS it takes most of an hour on 2 cores, without it five minutes. `--quick` is to see whether all of it runs, and
measures nothing.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
Lines = dict[str, list[str]]


def lines(midas: str | None, imaged11: str | None, memory: str, *, quick: bool) -> Lines:
    """The command of each part, by its name; without MIDAS none of the part that only compares with it."""

    def line(script: str, *words: str, python: str = sys.executable) -> list[str]:
        return [python, str(ROOT / "benchmarks" / script), *words]

    rival = ["--rival-python", midas] if midas else []
    indexer = ["--rival-python", imaged11] if imaged11 else []
    voxels, frames = ("20", "2") if quick else ("120", "16")
    parts = {
        "ff": line("hedm_ff.py", *(["--grains", "50"] if quick else ["--harsh", "--systems"]), *indexer),
        "frames": line("hedm_frames.py", "--place", memory, *(["--grains", "10", "--frames", "180"] if quick else [])),
        "peaks": line(
            "hedm_peaks.py", "--place", memory, "--rival-frames", frames, *rival, *(["--frames", "96"] if quick else [])
        ),
        "nf": line("hedm_nf.py", *rival, "--rival-voxels", voxels),
    }
    if midas:
        parts["midas"] = line("hedm_midas.py", "--grains", *(["20"] if quick else ["500", "2000"]), python=midas)
    return parts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--midas-python")
    parser.add_argument("--imaged11-python")
    parser.add_argument("--memory", default="/dev/shm", help="where frames are written, 5 GB of them")
    parser.add_argument("--parts", nargs="+", choices=["ff", "midas", "frames", "peaks", "nf"])
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    failed = []
    for name, line in lines(given.midas_python, given.imaged11_python, given.memory, quick=given.quick).items():
        if given.parts and name not in given.parts:
            continue
        begun = time.perf_counter()
        print(f"== {name}", flush=True)
        if subprocess.run(line, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False).returncode:
            failed.append(name)
        print(f"== {name} took {time.perf_counter() - begun:.0f} s", flush=True)
    if failed:
        print(f"These parts failed: {', '.join(failed)}.", file=sys.stderr)
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())
