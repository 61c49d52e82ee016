"""A real Slurm of our own for tests: four pretended nodes on this machine, in a directory of its own."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from slurm import cluster
from slurm.cluster import Cluster
from slurm.cluster.daemons import missing

IDLE_S = 60.0


@contextlib.contextmanager
def running(tmp: Path | None = None, *, accounting: bool = False, nodes: int = 4) -> Iterator[Cluster]:
    """Up, and down with no process left, whatever the tests did. Skips, with the reason, where there can be none.

    Without `tmp` a short directory of its own: those of pytest are too long for the names of sockets.
    """
    if reason := missing(accounting=accounting):
        pytest.skip(f"{reason} See tests/install-system-parts.")
    directory = tmp or Path(tempfile.mkdtemp(prefix="bw-slurm-"))
    directory.mkdir(exist_ok=True)
    directory.chmod(0o755)
    try:
        yield cluster.up(directory, accounting=accounting, nodes=nodes)
    finally:
        if (directory / "cluster.json").exists():
            cluster.down(directory)
        shutil.rmtree(directory, ignore_errors=True)


def until_idle(here: Cluster) -> None:
    """Every node is there and does nothing."""
    deadline = time.monotonic() + IDLE_S
    while set(here.node_states().values()) != {"idle"}:
        assert time.monotonic() < deadline, here.node_states()
        time.sleep(0.3)
