"""Pilots: warm workers inside jobs that stay, one Parsl executor per (shape, queue, account, reservation).

Blocks are ours to start and to end, from one thread: one when there is work, more while there is more than they hold,
none after `idle_s` without work, since an idle block burns an allocation. A reservation's pilot is started as it opens
and is not renewed shortly before it closes.
"""

from __future__ import annotations

import math
import os
import shlex
import sys
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog
from msgspec.structs import replace
from parsl.dataflow.dflow import DataFlowKernel
from parsl.executors import HighThroughputExecutor, MPIExecutor
from parsl.executors.high_throughput.executor import DEFAULT_LAUNCH_CMD

from orchestrator import jobscript
from orchestrator.agent import batch, launch, leash, verdict
from orchestrator.agent.around import Around
from orchestrator.agent.provider import Block, BlockProvider
from orchestrator.agent.target import MARGIN_S, Shape, Target
from orchestrator.agent.tracker import Tracker
from orchestrator.jobs import WAITING, JobSpec, JobState, NotLetIn, Refused, ReservationGone, Scheduler, SchedulerSilent
from orchestrator.model import FailureClass, Outcome

if TYPE_CHECKING:
    from sites.schema import SiteProfile

HEARTBEAT_S, HEARTBEATS_LOST_S = 2, 12
TEND_S = 0.25
YIELD_S = 2.0  # an idle block is given up after so long when work of another shape waits for nodes
TAKEN_AWAY = frozenset({JobState.CANCELLED, JobState.NODE, JobState.PREEMPTED})
DEAD_STARTS = 2  # blocks in a row whose workers never reported in, before the waiting tasks are given up

# An MPIExecutor asks Slurm for the nodes of its block, or reads them as PBS writes them.
NODES_OF_GRID_ENGINE = ('cut -d " " -f 1 "$PE_HOSTFILE" >"$TMPDIR/nodes"', 'export PBS_NODEFILE="$TMPDIR/nodes"')

log = structlog.get_logger()

GiveUp = Callable[[str, Outcome], None]  # token, outcome


class Pilot:
    """One executor and its blocks."""

    def __init__(self, label: str, target: Target, executor: HighThroughputExecutor, provider: BlockProvider) -> None:
        self.label, self.target, self.executor, self.provider = label, target, executor, provider
        self.tokens: dict[str, float] = {}  # with the executor, since when (epoch seconds)
        self.begun: set[str] = set()  # those of them that a worker has begun
        self.per_block = 1  # tasks that one block carries at a time
        self.idle_since = time.monotonic()
        self.dead_starts = 0
        self.silent_since = 0.0  # epoch seconds: its submissions get no answer
        self.warm_until = 0.0  # epoch seconds: keep a block although there is no work

    @property
    def free(self) -> int:
        """Workers that are up and have nothing to do."""
        return self.per_block * sum(b.running and b.connected for b in self.blocks) - len(self.tokens)

    @property
    def blocks(self) -> list[Block]:
        return [b for b in self.provider.blocks.values() if b.alive and not b.dismissed]


class Pilots:
    """All pilots of a site. `tend` runs in a thread of its own; everything else is for the agent's thread."""

    def __init__(
        self,
        profile: SiteProfile,
        kernel: DataFlowKernel,
        scheduler: Scheduler,
        tracker: Tracker,
        around: Around,
        *,
        run_dir: Path,
        prefix: str,
        environment: dict[str, str],
        give_up: GiveUp,
        others_wait: Callable[[], Collection[str]] = tuple,
    ) -> None:
        """`others_wait`: the reservations (empty: none) in which other jobs of ours wait for nodes."""
        self._jobs_wait = others_wait
        self._profile, self._kernel = profile, kernel
        self._scheduler, self._tracker, self._around = scheduler, tracker, around
        self._run_dir, self._prefix = run_dir, prefix
        self._environment, self._give_up = environment, give_up
        self._pilots: dict[Target, Pilot] = {}
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pilots", daemon=True)
        self._thread.start()

    # ---- the agent's thread

    def of(self, target: Target) -> Pilot:
        """The pilot for this target: one of larger workers that has some free now, else its own, made at the first
        call. Raises Refused when no block can hold its shape."""
        key = self._key(target)
        if key not in self._pilots:
            larger = [p for p in self.all() if _fits(key, p.target) and p.free > 0]
            if larger:
                return min(larger, key=lambda p: p.target.shape.cores)
            self._pilots[key] = self._make(key)
        return self._pilots[key]

    def _key(self, target: Target) -> Target:
        """What makes two targets share a pilot. MPI tasks of one number of nodes do, however many ranks they have."""
        shape = target.shape
        if shape.nodes > 1:
            node = self._profile.node_of(self._profile.queue(target.queue))
            shape = Shape(shape.nodes, 1, node.cores, node.gpus if shape.gpus else 0)
        longest_s = 0.0 if target.reservation else target.longest_s
        return replace(target, mode="pilot", shape=shape, walltime_s=0.0, longest_s=longest_s, note="")

    def add(self, pilot: Pilot, token: str) -> None:
        pilot.tokens[token] = time.time()
        self._wake.set()

    def warm(self, target: Target, until: float) -> None:
        """Keep a block of this shape until then, work or not."""
        self.of(target).warm_until = until
        self._wake.set()

    def leave(self, pilot: Pilot, why: str) -> None:
        """Its reservation is of no use any more: nothing waits for it, and what has not begun is reported."""
        pilot.warm_until = 0.0
        self._give_up_on(pilot, Outcome(FailureClass.RESERVATION, why))
        if pilot.blocks:
            pilot.provider.cancel([b.job_id for b in pilot.blocks])

    def all(self) -> list[Pilot]:
        return list(self._pilots.values())

    def close(self) -> None:
        self._stop.set()
        self._wake.set()
        self._thread.join(timeout=10.0)
        ids = [b.job_id for p in self.all() for b in p.blocks]
        if ids:
            self.all()[0].provider.cancel(ids)

    def _make(self, target: Target) -> Pilot:
        node, execution = self._profile.node_of(self._profile.queue(target.queue)), self._profile.execution
        shape = target.shape
        nodes = max(execution.block_nodes, shape.nodes) // shape.nodes * shape.nodes
        per_node = _per_node(shape, cores=node.cores, gpus=node.gpus, memory_bytes=node.memory_bytes)
        label = _label(self._profile.name, target, len(self._pilots))
        walltime_s = _block_walltime_s(execution.block_walltime_s, target)
        provider = BlockProvider(
            label,
            self._scheduler,
            self._tracker,
            prefix=self._prefix,
            directory=self._run_dir / "blocks",
            script_of=lambda command, record: self._script(command, record, shape, nodes),
            spec_of=lambda token, script, stem: self._spec(token, script, stem, target, nodes),
            nodes=nodes,
        )
        common: dict[str, Any] = {
            "label": label,
            "provider": provider,
            "address": self._profile.execution.address or None,
            "launch_cmd": _launch_command(self._around),
            "heartbeat_period": HEARTBEAT_S,
            "heartbeat_threshold": HEARTBEATS_LOST_S,
            "drain_period": max(10, int(walltime_s - _margin_s(walltime_s))),
            "block_error_handler": _no_handler,
            "encrypted": True,
        }
        executor: HighThroughputExecutor
        if shape.nodes > 1:
            srun = self._around.launcher == "srun"
            executor = MPIExecutor(
                mpi_launcher="srun" if srun else "mpiexec", max_workers_per_block=nodes // shape.nodes, **common
            )
        else:
            executor = HighThroughputExecutor(
                max_workers_per_node=per_node,
                cores_per_worker=1e-3,
                available_accelerators=_devices(shape.gpus, per_node),
                **common,
            )
        executor.interchange_launch_cmd = [sys.executable, "-m", leash.__name__, str(os.getpid()), "interchange.py"]
        self._kernel.add_executors([executor])
        pilot = Pilot(label, target, executor, provider)
        pilot.per_block = nodes // shape.nodes if shape.nodes > 1 else per_node * nodes
        log.info("pilot.made", label=label, queue=target.queue, reservation=target.reservation, nodes=nodes)
        return pilot

    def _script(self, command: str, record: str, shape: Shape, nodes: int) -> str:
        spread = nodes if shape.nodes == 1 else 1  # an MPI block has its workers on the first node
        argv = [*launch.per_node(self._around, spread), "bash", "-c", command]
        environment = {**self._environment, **dict.fromkeys(launch.THREADS, str(shape.cores))}
        profile = self._profile.environment
        init = batch.init_lines(profile.modules, profile.worker_init)
        if shape.nodes > 1 and self._profile.scheduler.kind == "sge":
            init += NODES_OF_GRID_ENGINE
        return jobscript.body(argv, record=record, init=init, environment=environment)

    def _spec(self, token: str, script: str, stem: Path, target: Target, nodes: int) -> JobSpec:
        queue = self._profile.queue(target.queue)
        node, execution = self._profile.node_of(queue), self._profile.execution
        walltime_s = _block_walltime_s(execution.block_walltime_s, target)
        return JobSpec(
            token,
            script,
            stdout=f"{stem}.out",
            stderr=f"{stem}.err",
            directory=str(self._run_dir),
            queue=target.partition,
            qos=target.qos,
            account=target.account,
            reservation=target.reservation,
            nodes=nodes,
            ranks_per_node=target.shape.ranks_per_node if target.shape.nodes > 1 else 1,
            cores_per_rank=max(1, node.cores // target.shape.ranks_per_node if target.shape.nodes > 1 else node.cores),
            gpus_per_node=node.gpus if target.shape.gpus else 0,
            walltime_s=walltime_s,
            warning_s=_margin_s(walltime_s) / 2,
            exclusive=execution.exclusive,
            options=(*self._profile.scheduler.options, *target.options),
        )

    # ---- the thread of the blocks

    def _run(self) -> None:
        while not self._stop.is_set():
            for pilot in self.all():
                try:
                    self._tend(pilot)
                except Exception:  # one pilot's trouble must not leave the others without blocks
                    log.exception("pilot.tend_failed", label=pilot.label)
            self._wake.wait(TEND_S)
            self._wake.clear()

    def _tend(self, pilot: Pilot) -> None:
        now = time.time()
        self._count_dead_starts(pilot)
        blocks = pilot.blocks
        warm = pilot.warm_until > now
        closing = bool(pilot.target.until) and now > pilot.target.until - MARGIN_S
        if pilot.tokens:
            pilot.idle_since = time.monotonic()
        wanted = min(self._profile.execution.blocks, math.ceil(len(pilot.tokens) / pilot.per_block))
        wanted = max(wanted, 1 if warm else 0)
        if pilot.dead_starts >= DEAD_STARTS:
            self._give_up_on(pilot, self._dead(pilot))
            pilot.dead_starts = 0
        elif pilot.tokens and self._down(pilot, now):
            self._give_up_on(pilot, Outcome(FailureClass.DOWN, self._silence(pilot)))
            pilot.silent_since = 0.0  # what comes next is tried as long again
        elif len(blocks) < wanted and not closing and not self._tracker.silent_since:
            if pilot.provider.end_doubtful():
                self._scale_out(pilot)
        elif blocks and not pilot.tokens:
            idle_s = time.monotonic() - pilot.idle_since
            if idle_s > (YIELD_S if self._others_wait(pilot) else math.inf if warm else self._profile.execution.idle_s):
                self._dismiss(pilot, blocks)

    def _others_wait(self, pilot: Pilot) -> bool:
        """Does work of another shape wait for a block, perhaps for these very nodes?"""
        mine = pilot.target.reservation  # queues may share their nodes
        waiting = (p for p in self.all() if p is not pilot and p.target.reservation == mine and p.tokens)
        blocks_wait = any(b.last is not None and b.last.state in WAITING for p in waiting for b in p.blocks)
        return blocks_wait or mine in self._jobs_wait()

    def _down(self, pilot: Pilot, now: float) -> bool:
        """Has nobody answered for so long that no worker can be had?"""
        since = self._tracker.silent_since or pilot.silent_since
        return (
            bool(since)
            and now - since > self._profile.scheduler.down_after_s
            and not any(b.running for b in pilot.blocks)
        )

    def _silence(self, pilot: Pilot) -> str:
        trouble, words = pilot.provider.trouble, self._tracker.silent_words
        if trouble is not None and not self._tracker.silent_since:
            words = trouble.sentence
        return f"the scheduler does not answer: {words}"

    def _scale_out(self, pilot: Pilot) -> None:
        pilot.executor.scale_out_facade(1)
        trouble = pilot.provider.trouble
        silent = isinstance(trouble, SchedulerSilent)
        pilot.silent_since = (pilot.silent_since or time.time()) if silent else 0.0
        if trouble is None:
            return
        log.warning("pilot.refused", label=pilot.label, reason=trouble.sentence)
        if isinstance(trouble, ReservationGone):
            self._give_up_on(pilot, Outcome(FailureClass.RESERVATION, trouble.sentence))
        elif isinstance(trouble, NotLetIn):
            self._give_up_on(pilot, Outcome(FailureClass.AUTHENTICATION, trouble.sentence))
        elif isinstance(trouble, Refused):
            self._give_up_on(pilot, Outcome(FailureClass.SITE, trouble.sentence))
        pilot.warm_until = 0.0

    def _count_dead_starts(self, pilot: Pilot) -> None:
        if any(b.running and not b.connected for b in pilot.blocks):
            connected = set(pilot.executor.connected_blocks())
            for block_id, job_id in list(pilot.executor.blocks_to_job_id.items()):
                block = pilot.provider.blocks.get(job_id)
                if block is not None and block_id in connected and not block.connected:
                    block.connected = True
                    pilot.dead_starts = 0
        for block in list(pilot.provider.blocks.values()):
            if block.over_at and not block.connected and not block.dismissed:
                block.dismissed = True  # counted
                # one that was taken away before it had a chance says nothing about the site
                if block.last is None or block.last.state not in TAKEN_AWAY:
                    pilot.dead_starts += 1

    def _dead(self, pilot: Pilot) -> Outcome:
        last = max(pilot.provider.blocks.values(), key=lambda b: b.begun_at)
        sentence = f"workers of site {self._profile.name!r} ended before they reported in; {last.words()}"
        return Outcome(FailureClass.SITE, sentence, job=last.job_id)

    def _give_up_on(self, pilot: Pilot, outcome: Outcome) -> None:
        for token in [t for t in pilot.tokens if t not in pilot.begun]:
            self._give_up(token, outcome)

    def _dismiss(self, pilot: Pilot, blocks: list[Block]) -> None:
        """End idle blocks; they are told to take no more work first."""
        log.info("pilot.idle", label=pilot.label, jobs=[b.job_id for b in blocks])
        of_job = {job: block for block, job in pilot.executor.blocks_to_job_id.items()}
        for block in blocks:
            if block.job_id in of_job:
                pilot.executor._hold_block(of_job[block.job_id])  # type: ignore[no-untyped-call]
        pilot.provider.cancel([b.job_id for b in blocks])


def cause(pilot: Pilot, outcome: Outcome, since: float) -> Outcome:
    """Parsl only knows that a worker was lost; the block that ended under it says why."""
    ended = [b for b in pilot.provider.blocks.values() if b.over_at >= since and b.last is not None]
    if not ended:
        return outcome
    block = max(ended, key=lambda b: b.over_at)
    assert block.last is not None
    failure = verdict.CLASSES.get(block.last.state, FailureClass.LOST)
    if failure in (FailureClass.WALLTIME, FailureClass.MEMORY):
        failure = FailureClass.LOST  # of the pilot's job, not of this task's own
    return Outcome(failure, f"its workers are gone: {block.words()}", job=block.job_id, ended_at=time.time())


def _fits(wanted: Target, there: Target) -> bool:
    """Can a task for `wanted` run on a worker of `there`? One node only: MPI executors hold one number of nodes."""
    small, large = wanted.shape, there.shape
    roomy = small.cores <= large.cores and small.gpus <= large.gpus
    enough = not large.memory_bytes or small.memory_bytes <= large.memory_bytes
    return small.nodes == large.nodes == 1 and roomy and enough and replace(wanted, shape=large) == there


def _per_node(shape: Shape, *, cores: int, gpus: int, memory_bytes: int) -> int:
    fits = [max(1, cores // shape.cores)] if cores else [1]
    fits += [gpus // shape.gpus] if shape.gpus else []
    fits += [memory_bytes // shape.memory_bytes] if shape.memory_bytes and memory_bytes else []
    if min(fits) < 1:
        raise Refused("no node of the site holds such a worker")
    return min(fits)


def _devices(each: int, workers: int) -> list[str]:
    """The devices of each worker of a node."""
    return [",".join(str(w * each + d) for d in range(each)) for w in range(workers)] if each else []


def _label(site: str, target: Target, number: int) -> str:
    shape = target.shape
    words = [site, f"n{shape.nodes}c{shape.cores}g{shape.gpus}", target.queue, target.reservation, str(number)]
    return "-".join("".join(c if c.isalnum() else "_" for c in w) for w in words if w)


def _launch_command(around: Around) -> str:
    program = shlex.join([*around.program, "-m", "parsl.executors.high_throughput.process_worker_pool"])
    program = program.replace("{", "{{").replace("}", "}}")
    return str(DEFAULT_LAUNCH_CMD.replace("process_worker_pool.py", program, 1))


def _block_walltime_s(wanted_s: float, target: Target) -> float:
    """In whole minutes, as schedulers count; a job that could outlast its reservation would never start in it."""
    left_s = target.until - MARGIN_S - max(time.time(), target.from_at) if target.until else math.inf
    seconds = min(wanted_s, target.longest_s or math.inf, left_s)
    return max(60.0, seconds // 60 * 60)


def _margin_s(walltime_s: float) -> float:
    return min(120.0, walltime_s / 5)


def _no_handler(_executor: object, _status: object) -> None:
    """A lost block is replaced by `tend`, and its attempts are reported lost; nothing else follows from it."""
