"""The line that starts the ranks of a parallel program: srun, Open MPI's or Hydra's mpiexec, or PALS."""

from __future__ import annotations

import functools
import subprocess
from collections.abc import Sequence

from orchestrator.agent.around import Around
from orchestrator.model import Resources

THREADS = ("MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")  # how many a process has
PROGRAMS = {"srun": "srun", "mpiexec": "mpiexec", "pals": "mpiexec"}


def line(around: Around, resources: Resources, nodes: Sequence[str] = (), *, open_mpi: bool | None = None) -> list[str]:
    """The words before the program. `nodes`: the hosts it is to run on; empty: those of the surrounding job.

    `open_mpi` says whose mpiexec it is; None: it is asked. Raises ValueError where a site starts no ranks.
    """
    if around.launcher not in PROGRAMS:
        raise ValueError("the site's profile names no launcher (key 'launcher.kind'), so it runs one process a task")
    command = around.launcher_command or PROGRAMS[around.launcher]
    ranks, per_node, cores = _ranks(resources), resources.ranks_per_node, resources.cores_per_rank
    if around.launcher == "srun":
        words = [f"--nodes={resources.nodes}", f"--ntasks={ranks}", f"--ntasks-per-node={per_node}"]
        words += [f"--cpus-per-task={cores}", "--kill-on-bad-exit=1"]
        words += [f"--nodelist={','.join(nodes)}"] if nodes else []
    elif around.launcher == "pals":
        words = ["-n", str(ranks), "--ppn", str(per_node), "--depth", str(cores), "--cpu-bind", "depth"]
        words += ["--hosts", ",".join(nodes)] if nodes else []
    elif open_mpi if open_mpi is not None else is_open_mpi(command):
        words = ["-n", str(ranks), "--oversubscribe", "--bind-to", "none"]
        words += ["--host", ",".join(f"{n}:{per_node}" for n in nodes)] if nodes else []
        words += ["--map-by", f"ppr:{per_node}:node"] if resources.nodes > 1 else []
    else:
        words = ["-n", str(ranks), "-ppn", str(per_node)]
        words += ["-hosts", ",".join(nodes)] if nodes else []
    return [command, *around.launcher_options, *words]


def per_node(around: Around, nodes: int) -> list[str]:
    """The words before a program that is to run once on each node of a job; none for one node."""
    if nodes == 1:
        return []
    return line(around, Resources(nodes=nodes))


def _ranks(resources: Resources) -> int:
    return resources.nodes * resources.ranks_per_node


@functools.cache
def is_open_mpi(command: str) -> bool:
    try:
        said = subprocess.run([command, "--version"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return "Open MPI" in said.stdout or "OpenRTE" in said.stdout
