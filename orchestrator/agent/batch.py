"""Batch: one scheduler job per attempt, a Parsl executor over any `Scheduler`.

What travels is the order itself, as a file beside the attempt's logs, so that a person can read it and a restarted
agent find it. The job's name is the attempt's token: an attempt that may have been submitted before is looked for
first. An attempt is over when its outcome is on the disk, or when the scheduler says that its job is over and none
came.
"""

from __future__ import annotations

import os
import shlex
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import structlog
from parsl.executors.base import ParslExecutor

from orchestrator import codec, jobscript
from orchestrator.agent import job as payload
from orchestrator.agent import output, verdict
from orchestrator.agent.around import Around
from orchestrator.agent.pulse import Pulse
from orchestrator.agent.ranks import RankOrder
from orchestrator.agent.target import Target
from orchestrator.agent.tracker import Tracker
from orchestrator.errors import BeamwayError, UserError
from orchestrator.jobs import (
    OVER,
    WAITING,
    Job,
    JobSpec,
    JobState,
    NotLetIn,
    Refused,
    ReservationGone,
    Scheduler,
    SchedulerSilent,
)
from orchestrator.model import FailureClass, Order, Outcome
from orchestrator.outside import effect

LABEL = "batch"
PREFIX = "bw-"  # of the names of our jobs
SUBMITTERS = 4
WARNING_S = 60.0  # between the scheduler's warning and the end of the walltime; less for short jobs
LATE_S = 10.0  # a shared file system may show the outcome so long after the job is over
LOOK_S = 0.5  # how often outcomes are looked for
SILENT_RETRY_S = 5.0

log = structlog.get_logger()

Told = Callable[[str, float, str], None]  # token, since, what it waits for


class Sent(RankOrder, frozen=True):
    """The file of an order that was sent to the scheduler: what the job reads, and where it was sent."""

    target: Target


class _Job:
    """One attempt in its job. Changed under the executor's lock."""

    def __init__(self, order: Order, target: Target) -> None:
        self.order, self.target = order, target
        self.paths = output.Paths(order)
        self.future: Future[Outcome] = Future()
        self.id = ""
        self.last: Job | None = None
        self.over_at = 0.0  # monotonic; the scheduler says that it is over
        self.cancelled = False
        self.recalled = ""  # why it was taken back from the queue before it began
        self.since = time.time()
        self.ghost = False  # it has given no sign of life for too long
        self.pulse = Pulse(self.paths.job)


class BatchExecutor(ParslExecutor):
    """`submit(function, spec, order, target)`: the order is carried out by `orchestrator.agent.job` in a job of its
    own, whatever `function` is; its future holds an Outcome and never an exception."""

    def __init__(
        self,
        scheduler: Scheduler,
        tracker: Tracker,
        around: Around,
        *,
        init: tuple[str, ...],
        environment: dict[str, str],
        told: Told,
        down_after_s: float = 120.0,
        exclusive: bool = False,
        options: tuple[str, ...] = (),
        silent_s: float = 0.0,
    ) -> None:
        """`silent_s`: a job that runs and gives no sign of life for so long is lost; 0: never."""
        super().__init__()
        self.label = LABEL
        self._scheduler, self._tracker, self._around = scheduler, tracker, around
        self._init, self._environment = init, environment
        self._exclusive, self._options, self._silent_s = exclusive, options, silent_s
        self._told, self._down_after_s = told, down_after_s
        self._jobs: dict[str, _Job] = {}
        self._lock = threading.Lock()
        self._submitters = ThreadPoolExecutor(SUBMITTERS, thread_name_prefix="submit")
        self._stop = threading.Event()
        self._looking = threading.Thread(target=self._look_on, name="outcomes", daemon=True)

    def start(self) -> None:
        self._looking.start()

    def submit(
        self, func: object, resource_specification: dict[str, Any], *args: Any, **kwargs: Any
    ) -> Future[Outcome]:
        order: Order = args[0]
        job = _Job(order, args[1])
        with self._lock:
            self._jobs[order.token] = job
        self._submitters.submit(self._submit, job)
        return job.future

    def shutdown(self) -> None:
        """The jobs go on: the next agent finds them by their tokens."""
        self._stop.set()
        self._submitters.shutdown(wait=False, cancel_futures=True)
        super().shutdown()

    def monitor_resources(self) -> bool:
        return False

    def end(self, token: str) -> bool:
        """Ask for the end of this attempt's job; False when there is none."""
        with self._lock:
            job = self._jobs.get(token)
            if job is None:
                return False
            job.cancelled = True
        output.mark(job.paths)
        if job.id:
            self._submitters.submit(self._cancel, job)
        return True

    def recall(self, token: str, why: str) -> None:
        """Take a waiting attempt back from the queue of its reservation: it ends as RESERVATION, unless it begins."""
        job = self._jobs.get(token)
        if job is not None and job.id and not job.recalled:
            job.recalled = why
            self._submitters.submit(self._cancel, job)

    def of(self, token: str) -> tuple[str, Job | None]:
        """(id, the scheduler's last word) of this attempt's job."""
        job = self._jobs.get(token)
        return (job.id, job.last) if job is not None else ("", None)

    def waiting(self) -> list[tuple[str, float, str]]:
        """(token, since, reservation) of the attempts that the scheduler has not begun."""
        jobs = list(self._jobs.values())
        return [(j.order.token, j.since, j.target.reservation) for j in jobs if j.last is None or _waits(j.last)]

    # ---- in the submitters' threads

    def _submit(self, job: _Job) -> None:
        order = job.order
        try:
            if job.cancelled:
                self._settle(job, Outcome(FailureClass.CANCELLED, "cancelled before it was submitted"))
                return
            if order.adopt:
                outcome = output.known_end(job.paths)
                if outcome is not None:
                    self._settle(job, outcome)
                    return
            self._begin(job)
        except OSError as error:
            self._settle(job, Outcome(FailureClass.LOST, f"its job could not be prepared: {error}"))
        except Exception as error:  # it must end as an outcome, not in a thread's nothing
            log.exception("batch.submit_failed", token=order.token)
            self._settle(job, Outcome(FailureClass.LOST, f"its job could not be submitted: {error}"))

    def _begin(self, job: _Job) -> None:
        spec = self.spec(job.order, job.target)
        known = job.order.adopt
        begun = time.monotonic()
        while not self._stop.is_set():
            try:
                with effect("job.submit"):
                    job_id = self._scheduler.submit_once(spec, known=known)
                break
            except SchedulerSilent as error:
                known = True
                self._told(job.order.token, job.since, f"the scheduler does not answer: {error.sentence}")
                if job.cancelled and not self._scheduler_has(spec.token):
                    self._settle(job, Outcome(FailureClass.CANCELLED, "cancelled before it was submitted"))
                    return
                if not job.cancelled and time.monotonic() - begun > self._down_after_s:
                    sentence = f"the scheduler does not answer: {error.sentence}"
                    self._settle(job, Outcome(FailureClass.DOWN, sentence, unsure=True))
                    return
                self._stop.wait(SILENT_RETRY_S)
            except NotLetIn as error:
                self._settle(job, Outcome(FailureClass.AUTHENTICATION, error.sentence))
                return
            except ReservationGone as error:
                self._settle(job, Outcome(FailureClass.RESERVATION, error.sentence))
                return
            except Refused as error:
                self._settle(job, Outcome(FailureClass.SITE, error.sentence))
                return
            except UserError as error:  # no scheduler was asked: this job cannot be written down as it is
                self._settle(job, Outcome(FailureClass.USER, error.sentence))
                return
        else:
            return
        log.info("batch.submitted", token=job.order.token, job=job_id, queue=job.target.queue)
        self._track(job, job_id)

    def _track(self, job: _Job, job_id: str) -> None:
        with self._lock:
            job.id = job_id
            cancelled = job.cancelled
        self._tracker.watch(job_id, lambda seen: self._changed(job, seen))
        if cancelled:
            self._cancel(job)

    def _scheduler_has(self, token: str) -> bool:
        try:
            return bool(self._scheduler.find(token))
        except BeamwayError:
            return True  # it cannot be known

    def _cancel(self, job: _Job) -> None:
        while not self._stop.is_set() and not job.future.done():
            try:
                with effect("job.cancel"):
                    self._scheduler.cancel([job.id])
                self._tracker.look_soon()
                return
            except SchedulerSilent:
                self._stop.wait(SILENT_RETRY_S)
            except BeamwayError as error:
                log.warning("batch.cancel_refused", job=job.id, reason=error.sentence)
                return

    def spec(self, order: Order, target: Target) -> JobSpec:
        """The job of this order; its script and its order file are written beside the attempt's logs."""
        paths = output.Paths(order)
        os.makedirs(order.log_dir, mode=0o700, exist_ok=True)
        part = Path(f"{paths.order}.part")
        part.write_text(codec.dumps(Sent(order, self._around, target)))
        os.replace(part, paths.order)  # an adopted job may be about to read it
        argv = [*self._around.program, "-m", payload.__name__, paths.order]
        script = jobscript.body(argv, record=paths.job, init=self._init, environment=self._environment)
        Path(paths.script).write_text("#!/bin/bash\n" + script)
        resources = order.resources
        return JobSpec(
            PREFIX + order.token,
            script,
            stdout=paths.stdout,
            stderr=paths.stderr,
            directory=order.log_dir,
            queue=target.partition,
            qos=target.qos,
            account=target.account,
            reservation=target.reservation,
            nodes=resources.nodes,
            ranks_per_node=resources.ranks_per_node,
            cores_per_rank=resources.cores_per_rank,
            gpus_per_node=target.shape.gpus,
            memory_bytes=target.shape.memory_bytes,
            walltime_s=target.walltime_s,
            warning_s=warning_s(target.walltime_s),
            exclusive=self._exclusive,
            options=(*self._options, *target.options),
        )

    # ---- what is seen of it

    def _changed(self, job: _Job, seen: Job) -> None:
        """In the tracker's thread."""
        job.last = seen
        if seen.state in OVER:
            job.over_at = time.monotonic()
        elif seen.state in WAITING or seen.state is JobState.SUSPENDED:
            where = f"reservation {job.target.reservation!r}" if job.target.reservation else f"queue {seen.queue!r}"
            what = seen.reason or f"is {seen.state.value}"
            note = f" ({job.target.note})" if job.target.note else ""
            self._told(job.order.token, job.since, f"job {seen.id} in {where} {what}{note}")

    def _look_on(self) -> None:
        while not self._stop.wait(LOOK_S):
            try:
                for job in list(self._jobs.values()):
                    self._look(job)
            except Exception:  # as in the tracker
                log.exception("batch.look_failed")

    def _look(self, job: _Job) -> None:
        if not job.id:
            return
        if not job.over_at and (job.last is None or job.last.state in WAITING):
            return
        outcome = output.known_end(job.paths)
        if outcome is not None and outcome.failure is not FailureClass.CANCELLED:
            self._tracker.forget(job.id)
            seen = job.last or Job(job.id, "", JobState.UNKNOWN)
            self._settle(job, verdict.of(seen, outcome, None, self._limits(job)))
        elif job.over_at and (outcome is not None or time.monotonic() - job.over_at > self._patience_s(job)):
            assert job.last is not None
            record = jobscript.read(job.paths.job)
            words = output.last_line(job.paths.stderr)
            self._settle(job, verdict.of(job.last, outcome, record, self._limits(job), last_words=words))
        elif outcome is None and not job.over_at:
            self._feel(job)

    def _feel(self, job: _Job) -> None:
        """Its scheduler says that it runs: does it?"""
        runs = job.last is not None and job.last.state is JobState.RUNNING
        silent_s = job.pulse.silent_s(runs=runs)
        if self._silent_s and silent_s > self._silent_s and job.over_at == 0.0 and not job.ghost:
            job.ghost = True
            log.warning("batch.ghost", token=job.order.token, job=job.id, silent_s=round(silent_s))
            self._submitters.submit(self._end_ghost, job, silent_s)

    def _end_ghost(self, job: _Job, silent_s: float) -> None:
        """Its job is ended before its attempt is reported, so that it cannot come back to life beside the next one."""
        self._cancel(job)
        sentence = f"job {job.id} runs, says the scheduler, but has given no sign of life for {silent_s:.0f} s"
        self._settle(job, Outcome(FailureClass.LOST, sentence, job=job.id))

    def _patience_s(self, job: _Job) -> float:
        """How long after its end to wait for the outcome of a job: not at all where its script has said that none
        will come, or where its node died under it."""
        if job.last is not None and job.last.state in (JobState.NODE, JobState.REFUSED):
            return 0.0
        return 0.0 if jobscript.read(job.paths.job) is not None else LATE_S

    def _limits(self, job: _Job) -> verdict.Limits:
        asked_s = job.target.walltime_s
        granted_s = job.last.walltime_s if job.last is not None else 0.0  # schedulers round it
        return verdict.Limits(max(asked_s, granted_s), warning_s(asked_s), job.target.longest_s)

    def _settle(self, job: _Job, outcome: Outcome) -> None:
        with self._lock:
            self._jobs.pop(job.order.token, None)
            if job.future.done():
                return
            if job.cancelled and outcome.failure is not None:
                outcome = Outcome(FailureClass.CANCELLED, "cancelled", job=job.id)
            elif job.recalled and outcome.failure is FailureClass.OUTSIDE:
                outcome = Outcome(FailureClass.RESERVATION, f"job {job.id}: {job.recalled}", job=job.id)
        job.future.set_result(outcome)


def _waits(job: Job) -> bool:
    return job.state in WAITING


def warning_s(walltime_s: float) -> float:
    return min(WARNING_S, walltime_s / 10)


def init_lines(modules: list[str], worker_init: str) -> tuple[str, ...]:
    """The lines of the profile that prepare the environment of a job."""
    return (*(f"module load {shlex.quote(name)}" for name in modules), *filter(None, [worker_init.strip()]))


def sent_to(path: str) -> Target | None:
    """Where an order was sent whose file is at `path`; None when it was not, or only partly."""
    try:
        return codec.loads(Path(path).read_text(), Sent).target
    except (OSError, ValueError):
        return None
