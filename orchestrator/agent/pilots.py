"""Pilots: warm workers inside jobs that stay, one Parsl executor per (shape, queue, account, reservation).

Blocks are ours to start and to end, from one thread: one when there is work, more while there is more than they hold,
none after `idle_s` without work, since an idle block burns an allocation. A reservation's pilot is started as it opens
and is not renewed shortly before it closes.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
import uuid
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog
from msgspec.structs import replace
from parsl.dataflow.dflow import DataFlowKernel

from orchestrator.agent import attach, blocks, verdict
from orchestrator.agent.around import Around
from orchestrator.agent.provider import Block, BlockProvider
from orchestrator.agent.target import MARGIN_S, Shape, Target
from orchestrator.agent.tracker import Tracker
from orchestrator.jobs import WAITING, JobState, NotLetIn, Refused, ReservationGone, Scheduler, SchedulerSilent
from orchestrator.model import FailureClass, Outcome

if TYPE_CHECKING:
    from sites.schema import SiteProfile

HEARTBEAT_S, HEARTBEATS_LOST_S = 2, 12
TEND_S = 0.25
YIELD_S = 2.0  # an idle block is given up after so long when work of another shape waits for nodes
TAKEN_AWAY = frozenset({JobState.CANCELLED, JobState.NODE, JobState.PREEMPTED})
DEAD_STARTS = 2  # blocks in a row whose workers never reported in, before the waiting tasks are given up

log = structlog.get_logger()

GiveUp = Callable[[str, Outcome], None]  # token, outcome


class Pilot:
    """One executor and its blocks."""

    def __init__(self, label: str, target: Target, executor: attach.Lasting, provider: BlockProvider) -> None:
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
        directory: Path,
        prefix: str,
        environment: dict[str, str],
        give_up: GiveUp,
        others_wait: Callable[[], Collection[str]] = tuple,
    ) -> None:
        """`directory` is the site's own; `others_wait`: the reservations (empty: none) in which other jobs of ours wait
        for nodes."""
        self._jobs_wait = others_wait
        self._profile, self._kernel = profile, kernel
        self._scheduler, self._tracker, self._around = scheduler, tracker, around
        self._run_dir, self._states = directory / "parsl", directory / "pilots"
        self.prefix = prefix + uuid.uuid4().hex[:4]  # of this agent's own blocks
        self._made_of = blocks.made_of(profile)
        self._count = 0
        self._blocks = blocks.Blocks(profile, around, environment, self._run_dir)
        self._give_up = give_up
        self._pilots: dict[Target, Pilot] = {}
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pilots", daemon=True)
        self._thread.start()

    # ---- the agent's thread

    def take_over(self) -> dict[str, tuple[Pilot, attach.Found]]:
        """Go on with the pilots that an earlier agent has left; returns by token what was on its way there."""
        found: dict[str, tuple[Pilot, attach.Found]] = {}
        for path, state in attach.states(self._states):
            try:
                if state is None or state.made_of != self._made_of:
                    raise ValueError("the profile or the program has changed since")
                pilot = self._make(state.target, state)
            except Exception as error:  # noqa: BLE001 - whatever it is: its jobs are ended, and their work begins again
                log.warning("pilot.not_attached", state=path.name, reason=f"{type(error).__name__}: {error}")
                attach.dispose(path, state)
                continue
            self._pilots[state.target] = pilot
            for token, task in pilot.executor.found.items():
                found[token] = (pilot, task)
                if task.running:
                    pilot.tokens[token] = time.time()
                    pilot.begun.add(token)
                    task.future.add_done_callback(partial(_over, pilot, token))
            log.info("pilot.attached", label=pilot.label, jobs=[b.job for b in state.blocks], running=len(pilot.tokens))
        return found

    def beat(self) -> None:
        """The interchanges hear that their agent is there."""
        for pilot in self.all():
            pilot.executor.beat()

    def trouble(self) -> str:
        """A sentence when an executor cannot go on, and the agent should start anew."""
        return next(filter(None, (pilot.executor.trouble() for pilot in self.all())), "")

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

    def drop_lost(self) -> None:
        """End the pilots whose executor cannot go on, for good."""
        for pilot in self.all():
            if pilot.executor.trouble():
                pilot.executor.interchange_proc.kill()
                pilot.executor.let_go()
                pilot.provider.cancel([b.job_id for b in pilot.blocks])

    def close(self) -> None:
        self._stop.set()
        self._wake.set()
        self._thread.join(timeout=10.0)
        ids = [b.job_id for p in self.all() for b in p.blocks]
        if ids:
            self.all()[0].provider.cancel(ids)
        for pilot in self.all():
            pilot.executor.let_go()

    def _make(self, target: Target, known: attach.State | None = None) -> Pilot:
        """A pilot that starts, or goes on with what is `known` of it; then it raises when that cannot be."""
        node, execution = self._profile.node_of(self._profile.queue(target.queue)), self._profile.execution
        shape = target.shape
        nodes = max(execution.block_nodes, shape.nodes) // shape.nodes * shape.nodes
        per_node = blocks.per_node(shape, cores=node.cores, gpus=node.gpus, memory_bytes=node.memory_bytes)
        self._count += 1
        label = known.label if known else blocks.label(self._profile.name, target, f"{self.prefix[-4:]}{self._count}")
        state = self._states / f"{label}.json"
        walltime_s = blocks.walltime_s(execution.block_walltime_s, target)
        provider = BlockProvider(
            label,
            self._scheduler,
            self._tracker,
            prefix=self.prefix,
            directory=self._run_dir / "blocks",
            script_of=lambda command, record: self._blocks.script(command, record, shape, nodes, state),
            spec_of=lambda token, script, stem: self._blocks.spec(token, script, stem, target, nodes),
            nodes=nodes,
        )
        common: dict[str, Any] = {
            "label": label,
            "provider": provider,
            "address": self._profile.execution.address or None,
            "launch_cmd": blocks.launch_command(self._around),
            "heartbeat_period": HEARTBEAT_S,
            "heartbeat_threshold": HEARTBEATS_LOST_S,
            "drain_period": max(10, int(walltime_s - blocks.margin_s(walltime_s))),
            "block_error_handler": _no_handler,
            "encrypted": True,
        }
        executor: attach.Lasting
        if shape.nodes > 1:
            srun = self._around.launcher == "srun"
            executor = attach.LastingMPI(
                mpi_launcher="srun" if srun else "mpiexec", max_workers_per_block=nodes // shape.nodes, **common
            )
        else:
            executor = attach.Lasting(
                max_workers_per_node=per_node,
                cores_per_worker=1e-3,
                available_accelerators=blocks.devices(shape.gpus, per_node),
                **common,
            )
        executor.lasts(state, execution.lease_s, known)
        pilot = Pilot(label, target, executor, provider)
        pilot.per_block = nodes // shape.nodes if shape.nodes > 1 else per_node * nodes
        try:
            self._kernel.add_executors([executor])
        except Exception:
            with contextlib.suppress(Exception):
                executor.shutdown()
            self._kernel.executors.pop(label, None)
            raise
        for block in known.blocks if known else ():
            provider.adopt(block.job, block.stem)
        self._save(pilot)
        log.info("pilot.made", label=label, queue=target.queue, reservation=target.reservation, nodes=nodes)
        return pilot

    def _save(self, pilot: Pilot) -> None:
        """What the next agent needs to go on with it."""
        of_job = pilot.executor.job_ids_to_block
        there = [attach.BlockState(of_job[b.job_id], b.job_id, b.stem) for b in pilot.blocks if b.job_id in of_job]
        pilot.executor.save(pilot.target, self._made_of, tuple(there))

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
        self._end_ghosts(pilot)
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
            self._save(pilot)
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

    def _end_ghosts(self, pilot: Pilot) -> None:
        """End the blocks that run, says the scheduler, and give no sign of life. Their tasks are missed by Parsl."""
        limit_s = self._profile.execution.silent_s
        ghosts = [b.job_id for b in pilot.blocks if limit_s and b.pulse.silent_s(runs=b.running) > limit_s]
        if ghosts:
            log.warning("block.ghosts", label=pilot.label, jobs=ghosts)
            pilot.provider.cancel(ghosts)

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
    if failure in (FailureClass.WALLTIME, FailureClass.MEMORY, FailureClass.OUTSIDE):
        failure = FailureClass.LOST  # of the pilot's job, not of this task's own
    return Outcome(failure, f"its workers are gone: {block.words()}", job=block.job_id, ended_at=time.time())


def _fits(wanted: Target, there: Target) -> bool:
    """Can a task for `wanted` run on a worker of `there`? One node only: MPI executors hold one number of nodes."""
    small, large = wanted.shape, there.shape
    roomy = small.cores <= large.cores and small.gpus <= large.gpus
    enough = not large.memory_bytes or small.memory_bytes <= large.memory_bytes
    return small.nodes == large.nodes == 1 and roomy and enough and replace(wanted, shape=large) == there


def _over(pilot: Pilot, token: str, _future: object) -> None:
    pilot.tokens.pop(token, None)
    pilot.begun.discard(token)


def _no_handler(_executor: object, _status: object) -> None:
    """A lost block is replaced by `tend`, and its attempts are reported lost; nothing else follows from it."""
