"""A small job that really runs there, and what it tells: Python, kernels, ranks, devices, scratch on the node.

On a local site the same script runs as a process. The probe's files lie in a folder of their own in scratch, which is
removed; a job that is not over when the check ends, for whatever reason, is cancelled.
"""

from __future__ import annotations

import contextlib
import json
import shlex
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator import jobscript, probe
from orchestrator.jobs import OVER, Job, JobSpec, JobState, Refused, Scheduler, SchedulerSilent
from orchestrator.sitecheck import answers
from orchestrator.sitecheck.local import Process
from orchestrator.sitecheck.places import USUAL
from orchestrator.sitecheck.record import Check, Wrong, made, skipped
from orchestrator.sitecheck.scheduling import trial

if TYPE_CHECKING:
    from sites.schema import Queue, SiteProfile

SHOWN_S = 10.0  # a file of a job that is over is visible here by then, on a shared file system
JOB = "probe job"
_TAIL_BYTES = 4000


def not_run(reason: str) -> list[Check]:
    return skipped([JOB, *answers.NAMES], reason)


def checks(
    profile: SiteProfile,
    scheduler: Scheduler | None,
    *,
    queue: str,
    timeout_s: float,
    tell: Callable[[str], None],
) -> Iterator[Check]:
    chosen = _queue(profile, queue)
    folder = Path(tempfile.mkdtemp(prefix=".beamway-check-", dir=profile.paths.scratch))
    try:
        spec = _spec(profile, chosen, folder)
        found: dict[str, Any] = {}
        runner = scheduler or Process(folder)
        ran = made(JOB, lambda: _run(profile, runner, spec, folder, timeout_s, tell, found))
        yield ran
        if found:
            yield from answers.checks(profile, chosen, found)
        else:
            yield from skipped(list(answers.NAMES), "the probe job brought nothing back")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _queue(profile: SiteProfile, wanted: str) -> Queue | None:
    """The one asked for, else a debug queue, else the usual one."""
    return profile.queue(wanted) if wanted else profile.queue("debug") or profile.queue()


def launch_words(profile: SiteProfile) -> list[str]:
    """What starts two ranks of the words that follow; empty where there is no launcher."""
    launcher = profile.launcher
    if launcher.kind == "none":
        return []
    program = launcher.command or USUAL[launcher.kind]
    per_node = ["--ppn", "2"] if launcher.kind == "pals" else []
    return [program, "-n", "2", *per_node, *launcher.options]


def _spec(profile: SiteProfile, queue: Queue | None, folder: Path) -> JobSpec:
    environment = profile.environment
    program, result = folder / "probe.py", folder / "result.json"
    shutil.copyfile(probe.__file__, program)
    node = profile.node_of(queue)
    kind = node.accelerator.kind if node.gpus and node.accelerator else ""
    words = [*environment.container, environment.python or sys.executable, str(program)]
    words += ["--launch", json.dumps(launch_words(profile)), "--accelerator", kind]
    words += ["--scratch", str(folder), "--output", str(result)]
    init = [f"module load {shlex.quote(module)}" for module in environment.modules]
    init += [environment.worker_init] if environment.worker_init.strip() else []
    base = trial(profile, queue, account=profile.accounts.default)
    return JobSpec(
        token=f"beamway-check-{uuid.uuid4().hex[:12]}",
        script=jobscript.body(words, record=str(folder / "record"), init=init, environment=environment.variables),
        stdout=str(folder / "stdout"),
        stderr=str(folder / "stderr"),
        directory=str(folder),
        queue=base.queue,
        qos=base.qos,
        account=base.account,
        nodes=base.nodes,
        ranks_per_node=2 if profile.launcher.kind != "none" else 1,
        gpus_per_node=base.gpus_per_node,
        walltime_s=base.walltime_s,
        exclusive=base.exclusive,
        options=base.options,
    )


def _run(
    profile: SiteProfile,
    scheduler: Scheduler | Process,
    spec: JobSpec,
    folder: Path,
    timeout_s: float,
    tell: Callable[[str], None],
    found: dict[str, Any],
) -> str:
    """Submit, wait, read. Fills `found` with what the probe has said."""
    begun, over = time.monotonic(), False
    try:
        try:
            job_id = _submit(scheduler, spec)
        except Wrong:
            over = True  # it was refused, so there is none
            raise
        tell(f"job {job_id} is submitted")
        job = _wait(profile, scheduler, job_id, folder, begun + timeout_s, tell)
        over = job.state in OVER
        if not over and not (folder / "result.json").exists():
            raise _late(profile, job, timeout_s)
        text = _result(folder, over)
        if text is None:
            raise _died(profile, job, folder)
        found.update(json.loads(text))
        over = True
    finally:
        if not over:
            tell("the probe job is cancelled")
            _cancel(scheduler, spec.token)
    return f"job {job_id} ran on {found.get('host', '?')} and took {time.monotonic() - begun:.1f} s in all"


def _submit(scheduler: Scheduler | Process, spec: JobSpec) -> str:
    where = f"queue {spec.queue!r}" if spec.queue else "the default queue"
    try:
        try:
            return scheduler.submit_once(spec)
        except SchedulerSilent:
            return scheduler.submit_once(spec, known=True)
    except Refused as refused:
        remedy = "Mend what failed above: the queue, its qos and options, accounts.default, scheduler.options."
        raise Wrong(f"{where} refused it: {refused.sentence}", remedy) from refused


def _wait(
    profile: SiteProfile,
    scheduler: Scheduler | Process,
    job_id: str,
    folder: Path,
    deadline: float,
    tell: Callable[[str], None],
) -> Job:
    """The job when it is over, when its result is there, or as it is at the deadline."""
    pause = 0.1 if scheduler.kind == "local" else profile.scheduler.poll_s
    told, job = "", Job(job_id, "", JobState.UNKNOWN)
    while True:
        try:
            job = scheduler.jobs([job_id]).get(job_id, job)
        except SchedulerSilent as silent:
            now = f"no answer: {silent.sentence}"
        else:
            now = f"{job.state}{f': {job.reason}' if job.reason else ''}"
        if now != told:
            tell(f"job {job_id} {now}")
            told = now
        if job.state in OVER or (scheduler.kind != "local" and (folder / "record").exists()):
            return job  # a record is the last thing a job leaves, often seen before the scheduler says that it is over
        left = deadline - time.monotonic()
        if left <= 0:
            return job
        time.sleep(min(pause, left))


def _result(folder: Path, over: bool) -> str | None:
    until = time.monotonic() + (SHOWN_S if over and not (folder / "record").exists() else 1.0)
    while True:
        try:
            return (folder / "result.json").read_text(encoding="utf-8")
        except FileNotFoundError:
            record = jobscript.read(str(folder / "record"))
            if time.monotonic() >= until or (record is not None and record.status != 0):
                return None
        time.sleep(0.2)


def _late(profile: SiteProfile, job: Job, timeout_s: float) -> Wrong:
    reason = f" ({job.reason})" if job.reason else ""
    starts = f"; it may start at {time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime(job.starts_at))}" * bool(
        job.starts_at
    )
    return Wrong(
        f"it is still {job.state}{reason} after {timeout_s:g} s{starts}",
        f"Wait longer with --timeout, name another queue with --queue, or ask {profile.identity.contact}.",
    )


def _died(profile: SiteProfile, job: Job, folder: Path) -> Wrong:
    record = jobscript.read(str(folder / "record"))
    said = _last_line(folder / "stderr") or _last_line(folder / "stdout")
    words = f": {said}" if said else ""
    if record is not None and record.step == "init":
        remedy = "Mend environment.modules or environment.worker_init; each of their lines has to succeed."
        return Wrong(f"its environment could not be prepared{words}", remedy)
    if record is not None:
        python = "environment.python" if profile.environment.python else "the agent's own Python"
        remedy = f"Set environment.python to a Python that runs on the node (now {python}), or environment.container."
        return Wrong(f"the probe ended with {record.status} on {record.host}{words}", remedy)
    reason = f" ({job.reason})" if job.reason else ""
    remedy = f"Is paths.scratch ({profile.paths.scratch}) there on the nodes too? Else call {profile.identity.contact}."
    return Wrong(f"the job is {job.state}{reason} and left no record{words}", remedy)


def _last_line(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            lines = file.read().decode("utf-8", "replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1][:300] if lines else ""


def _cancel(scheduler: Scheduler | Process, token: str) -> None:
    """By its token, so that a job whose submission was cut off is found as well."""
    with contextlib.suppress(SchedulerSilent):  # it ends by itself at its walltime, a few minutes
        scheduler.cancel([job.id for job in scheduler.find(token) if job.state not in OVER])
