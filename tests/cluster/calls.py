"""Functions that the tests on clusters have called, on one rank or on many."""

from __future__ import annotations

import os
import time


def rank_of(path: str, seconds: float = 0.0) -> None:
    """Say which rank this is and on which node; the devices too when there are any."""
    rank = os.environ.get("SLURM_PROCID") or os.environ.get("OMPI_COMM_WORLD_RANK") or "0"
    node = os.environ.get("SLURMD_NODENAME") or os.environ.get("HOSTNAME") or "?"
    words = [rank, node, *filter(None, [os.environ.get("CUDA_VISIBLE_DEVICES")])]
    with open(path, "a") as file:
        file.write(" ".join(words) + "\n")
    time.sleep(float(seconds))


def mark(stem: str, seconds: float = 0.0) -> None:
    """Leave a line as it begins and one as it ends, however often it is called; end early when told to."""
    with open(f"{stem}.began", "a") as file:
        file.write(f"{os.environ.get('SLURM_JOB_ID')}\n")
    over = time.monotonic() + float(seconds)
    while time.monotonic() < over and not os.path.exists(f"{stem}.go"):
        time.sleep(0.05)
    with open(f"{stem}.ended", "a") as file:
        file.write(f"{os.environ.get('SLURM_JOB_ID')}\n")
