"""What the jobs full of workers are made of: their script and their size, and how long they last. Starts nothing."""

from __future__ import annotations

import hashlib
import math
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import parsl
from parsl.executors.high_throughput.executor import DEFAULT_LAUNCH_CMD

from orchestrator import jobscript
from orchestrator.agent import batch, launch
from orchestrator.agent.around import Around
from orchestrator.agent.target import MARGIN_S, Shape, Target
from orchestrator.jobs import JobSpec, Refused

if TYPE_CHECKING:
    from sites.schema import SiteProfile

# An MPIExecutor asks Slurm for the nodes of its block, or reads them as PBS writes them.
NODES_OF_GRID_ENGINE = ('cut -d " " -f 1 "$PE_HOSTFILE" >"$TMPDIR/nodes"', 'export PBS_NODEFILE="$TMPDIR/nodes"')


class Blocks:
    """The jobs of one site."""

    def __init__(self, profile: SiteProfile, around: Around, environment: dict[str, str], directory: Path) -> None:
        self._profile, self._around = profile, around
        self._environment, self._directory = environment, directory

    def script(self, command: str, record: str, shape: Shape, nodes: int, state: Path) -> str:
        spread = nodes if shape.nodes == 1 else 1  # an MPI block has its workers on the first node
        argv = [*launch.per_node(self._around, spread), "bash", "-c", command]
        environment = {**self._environment, **dict.fromkeys(launch.THREADS, str(shape.cores))}
        profile = self._profile.environment
        gone = f"test -e {shlex.quote(str(state))}"  # its interchange: there is nothing to do then
        init = (gone, *batch.init_lines(profile.modules, profile.worker_init))
        if shape.nodes > 1 and self._profile.scheduler.kind == "sge":
            init += NODES_OF_GRID_ENGINE
        return jobscript.body(argv, record=record, init=init, environment=environment)

    def spec(self, token: str, script: str, stem: Path, target: Target, nodes: int) -> JobSpec:
        queue = self._profile.queue(target.queue)
        node, execution = self._profile.node_of(queue), self._profile.execution
        lasts_s = walltime_s(execution.block_walltime_s, target)
        return JobSpec(
            token,
            script,
            stdout=f"{stem}.out",
            stderr=f"{stem}.err",
            directory=str(self._directory),
            queue=target.partition,
            qos=target.qos,
            account=target.account,
            reservation=target.reservation,
            nodes=nodes,
            ranks_per_node=target.shape.ranks_per_node if target.shape.nodes > 1 else 1,
            cores_per_rank=max(1, node.cores // target.shape.ranks_per_node if target.shape.nodes > 1 else node.cores),
            gpus_per_node=node.gpus if target.shape.gpus else 0,
            walltime_s=lasts_s,
            warning_s=margin_s(lasts_s) / 2,
            exclusive=execution.exclusive,
            options=(*self._profile.scheduler.options, *target.options),
        )


def per_node(shape: Shape, *, cores: int, gpus: int, memory_bytes: int) -> int:
    fits = [max(1, cores // shape.cores)] if cores else [1]
    fits += [gpus // shape.gpus] if shape.gpus else []
    fits += [memory_bytes // shape.memory_bytes] if shape.memory_bytes and memory_bytes else []
    if min(fits) < 1:
        raise Refused("no node of the site holds such a worker")
    return min(fits)


def devices(each: int, workers: int) -> list[str]:
    """The devices of each worker of a node."""
    return [",".join(str(w * each + d) for d in range(each)) for w in range(workers)] if each else []


def label(site: str, target: Target, number: str) -> str:
    shape = target.shape
    words = [site, f"n{shape.nodes}c{shape.cores}g{shape.gpus}", target.queue, target.reservation, number]
    return "-".join("".join(c if c.isalnum() else "_" for c in w) for w in words if w)


def launch_command(around: Around) -> str:
    program = shlex.join([*around.program, "-m", "parsl.executors.high_throughput.process_worker_pool"])
    program = program.replace("{", "{{").replace("}", "}}")
    return str(DEFAULT_LAUNCH_CMD.replace("process_worker_pool.py", program, 1))


def walltime_s(wanted_s: float, target: Target) -> float:
    """In whole minutes, as schedulers count; a job that could outlast its reservation would never start in it."""
    left_s = target.until - MARGIN_S - max(time.time(), target.from_at) if target.until else math.inf
    seconds = min(wanted_s, target.longest_s or math.inf, left_s)
    return max(60.0, seconds // 60 * 60)


def margin_s(walltime_s: float) -> float:
    return min(120.0, walltime_s / 5)


def made_of(profile: SiteProfile) -> str:
    words = (profile.model_dump_json(), parsl.__version__, sys.version, sys.executable)
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:16]
