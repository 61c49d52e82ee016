"""From a far-field scan on disk to the table of its grains, by the programs that a workflow calls.

    python benchmarks/hedm_frames.py [--grains 500] [--frames 1440] [--rounds 2] [--place DIR]

`hedm.simulate` writes frames of 2048 x 2048 pixels, packed by bitshuffle and LZ4, over a full turn; then `hedm.peaks`
and `hedm.farfield` (with its CSV and picture) run as processes of their own, by the clock, the least of the rounds, two
starts of Python among them. They have compiled before. At last `hedm.compare` says what was found.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BAR_S = 30.0
CRYSTAL = ["--lattice", "4.0782", "--spaceGroup", "Fm-3m"]


def called(kernel: str, *words: object) -> tuple[str, float]:
    """What a kernel said, and its seconds."""
    line = [sys.executable, "-m", "kernels", kernel, *map(str, words)]
    begun = time.perf_counter()
    done = subprocess.run(line, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{kernel} ended with {done.returncode}: {done.stderr.strip()[-800:]}")
    return done.stdout, time.perf_counter() - begun


def metric(said: str, name: str) -> str:
    found = re.search(rf"(?m)^metric {name} (\S+)$", said)
    return found[1] if found else "?"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grains", type=int, default=500)
    parser.add_argument("--frames", type=int, default=1440)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--place", default=tempfile.gettempdir())
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bw-frames-", dir=given.place) as name:
        place = Path(name)
        frames, geometry, spots, grains = (place / n for n in ("a.h5", "a_geometry.yml", "spots.h5", "grains.nxs"))
        called(
            "hedm.simulate", "--output", frames, "--grains", given.grains, "--rows", 2048, "--columns", 2048,
            "--frames", given.frames, "--omegaStep", 360 / given.frames, "--mosaicity", 0.1, *CRYSTAL,
        )  # fmt: skip
        print(f"{given.frames} frames of 2048 x 2048 in {frames.stat().st_size / 1e9:.1f} GB", flush=True)
        peaks = ["--input", frames, "--geometry", geometry, "--output", spots]
        tables = ["--csv", place / "Grains.csv", "--picture", place / "grains.png"]
        farfield = ["--input", spots, "--geometry", geometry, "--output", grains, *tables, *CRYSTAL]
        least = float("inf")
        for number in range(given.rounds + 1):
            found, searching = called("hedm.peaks", *peaks)
            _, indexing = called("hedm.farfield", *farfield)
            print(f"round {number}: peaks {searching:.1f} s, grains {indexing:.1f} s", flush=True)
            if number:  # the first one compiles
                least = min(least, searching + indexing)
        said, _ = called("hedm.compare", "--input", grains, "--truth", place / "a_truth.h5")
        print(f"{metric(found, 'spots')} spots\n{said.strip()}")
        print(f"RESULT name=hedm_frames_to_grains_s ours={least:.1f} rival=absent ratio=- bar={BAR_S:.0f}")


if __name__ == "__main__":
    main()
