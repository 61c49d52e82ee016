"""Blocks of pilot workers as jobs of our own `Scheduler`: a Parsl provider for any batch scheduler.

Parsl's own providers ask the scheduler job by job, take a vanished job for a completed one and cannot find a job again
whose submission lost its answer. This one submits once by token and hears of its jobs from the tracker.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog
from parsl.jobs.states import JobState as BlockState
from parsl.jobs.states import JobStatus as BlockStatus
from parsl.launchers import SimpleLauncher
from parsl.providers.base import ExecutionProvider

from orchestrator import jobscript
from orchestrator.agent import output
from orchestrator.agent.pulse import Pulse
from orchestrator.agent.tracker import Tracker
from orchestrator.errors import BeamwayError
from orchestrator.jobs import ALIVE, OVER, Job, JobSpec, JobState, Scheduler, SchedulerSilent
from orchestrator.outside import effect

_STATES = {
    JobState.PENDING: BlockState.PENDING,
    JobState.HELD: BlockState.HELD,
    JobState.RUNNING: BlockState.RUNNING,
    JobState.ENDING: BlockState.RUNNING,
    JobState.SUSPENDED: BlockState.HELD,
    JobState.DONE: BlockState.COMPLETED,
    JobState.CANCELLED: BlockState.CANCELLED,
    JobState.WALLTIME: BlockState.TIMEOUT,
    JobState.UNKNOWN: BlockState.UNKNOWN,
}

AGAIN_S = 5.0  # a scheduler that has lost an answer of ours is asked again so much later

log = structlog.get_logger()


class Block:
    """One job full of workers."""

    def __init__(self, job_id: str, stem: str) -> None:
        self.job_id, self.stem = job_id, stem
        self.record, self.stderr = f"{stem}.job", f"{stem}.err"
        self.begun_at = time.time()
        self.last: Job | None = None
        self.over_at = 0.0  # epoch seconds
        self.dismissed = False  # we have asked for its end
        self.connected = False  # its workers have reported in
        self.pulse = Pulse(self.record)

    @property
    def alive(self) -> bool:
        return not self.over_at

    @property
    def running(self) -> bool:
        return self.alive and self.last is not None and self.last.state is JobState.RUNNING

    def words(self) -> str:
        """What went wrong with it, as far as it is known."""
        record = jobscript.read(self.record)
        said = output.last_line(self.stderr)
        how = f"{self.last.state.value} ({self.last.reason})" if self.last and self.last.reason else ""
        how = how or (self.last.state.value if self.last else "unknown")
        if record is not None and record.step == "init":
            how = f"the environment could not be prepared, exit status {record.status}"
        return f"job {self.job_id}: {how}{f': {said}' if said else ''}"


class BlockProvider(ExecutionProvider):
    """`spec_of(token, script, stem)` makes the job of a block with that script; its files lie beside `stem`."""

    status_polling_interval = 2

    def __init__(
        self,
        label: str,
        scheduler: Scheduler,
        tracker: Tracker,
        *,
        prefix: str,
        directory: Path,
        script_of: Callable[[str, str], str],
        spec_of: Callable[[str, str, Path], JobSpec],
        nodes: int,
    ) -> None:
        self._label, self._scheduler, self._tracker = label, scheduler, tracker
        self._prefix, self._directory = prefix, directory
        self._script_of, self._spec_of = script_of, spec_of
        self.nodes_per_block = nodes
        self.init_blocks = self.min_blocks = 0
        self.max_blocks = 1_000_000  # how many there are is the pilot's to decide
        self.parallelism = 1.0
        self.script_dir = None
        self.resources: dict[object, object] = {}
        self.cores_per_node = self.mem_per_node = None
        self.launcher = SimpleLauncher()
        self.blocks: dict[str, Block] = {}
        self.trouble: BeamwayError | None = None  # of the last submission
        self._doubtful: list[str] = []  # tokens whose submission was not answered: there may be jobs of theirs
        self._ask_at = 0.0  # monotonic

    @property
    def label(self) -> str:
        return self._label

    def submit(self, command: str, tasks_per_node: int, job_name: str = "") -> str:
        token = f"{self._prefix}{uuid.uuid4().hex[:8]}"
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        stem = self._directory / token
        script = self._script_of(command, f"{stem}.job")
        stem.with_suffix(".sh").write_text("#!/bin/bash\n" + script)
        self.trouble = None
        try:
            with effect("block.submit"):
                job_id = self._scheduler.submit_once(self._spec_of(token, script, stem))
        except BeamwayError as error:
            self.trouble = error
            if isinstance(error, SchedulerSilent):
                self._doubtful.append(token)
                self._ask_at = time.monotonic() + AGAIN_S
            raise
        self.adopt(job_id, str(stem))
        log.info("block.submitted", executor=self._label, job=job_id)
        return job_id

    def adopt(self, job_id: str, stem: str) -> None:
        """A block of this job, whose files lie beside `stem`."""
        block = self.blocks[job_id] = Block(job_id, stem)
        self._tracker.watch(job_id, lambda job: self._changed(block, job))

    def end_doubtful(self) -> bool:
        """End the jobs that a lost answer may have left, which no block stands for; False while that is open."""
        if self._doubtful and time.monotonic() < self._ask_at:
            return False
        self._ask_at = time.monotonic() + AGAIN_S
        try:
            for token in list(self._doubtful):
                with effect("block.cancel"):
                    self._scheduler.cancel([job.id for job in self._scheduler.find(token) if job.state in ALIVE])
                self._doubtful.remove(token)
        except BeamwayError as error:
            log.warning("block.doubtful", executor=self._label, reason=error.sentence)
        return not self._doubtful

    def _changed(self, block: Block, job: Job) -> None:
        block.last = job
        if job.state in OVER and not block.over_at:
            block.over_at = time.time()
            log.info("block.over", executor=self._label, job=job.id, state=job.state.value, reason=job.reason)

    def status(self, job_ids: Sequence[object]) -> list[BlockStatus]:
        return [self._status(self.blocks.get(str(job_id))) for job_id in job_ids]

    def _status(self, block: Block | None) -> BlockStatus:
        if block is None:
            return BlockStatus(BlockState.MISSING)
        if block.last is None:
            return BlockStatus(BlockState.PENDING)
        return BlockStatus(_STATES.get(block.last.state, BlockState.FAILED), block.last.reason)

    def cancel(self, job_ids: Sequence[object]) -> list[bool]:
        ids = [str(job_id) for job_id in job_ids]
        for job_id in ids:
            if job_id in self.blocks:
                self.blocks[job_id].dismissed = True
        try:
            with effect("block.cancel"):
                self._scheduler.cancel(ids)
        except BeamwayError as error:
            log.warning("block.cancel_failed", executor=self._label, reason=error.sentence)
            return [False] * len(ids)
        return [True] * len(ids)
