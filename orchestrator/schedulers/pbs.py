"""PBS Pro and OpenPBS: `qsub`, `qstat -f -F json -x`, `qselect`, `qdel`, `pbs_rstat`.

A reservation is the queue that stands for it. PBS sends SIGTERM only some seconds before SIGKILL, when the walltime is
over already, so the earlier warning comes from a timer in the script itself. How long PBS remembers the jobs that are
over is the site's choice (`job_history_enable`); after that they are GONE.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence

from orchestrator.jobs import (
    ALIVE,
    Job,
    JobSpec,
    JobState,
    Queue,
    Reservation,
    ReservationGone,
    SchedulerSilent,
    refusal,
)
from orchestrator.schedulers import once, specs
from orchestrator.schedulers import pbs_text as text
from orchestrator.schedulers.calls import Answer, Calls, account

IDS_A_CALL = 500
UTC = {"TZ": "UTC"}
NO_RESERVATION = ("unknown queue", "access to queue is denied", "unauthorized", "queue is not enabled", "reservation")


class Pbs:
    kind = "pbs"

    def __init__(self, *, environment: Mapping[str, str], bin_dir: str = "", timeout_s: float = 20.0) -> None:
        self.calls = Calls(environment=environment, bin_dir=bin_dir, timeout_s=timeout_s)
        self._user = account()

    def ping(self) -> str:
        found = self._json("qstat", "-B", "-f", "-F", "json")
        return f"PBS {found.get('pbs_version', '')} on {found.get('pbs_server', '')}"

    def submit_once(self, spec: JobSpec, *, known: bool = False) -> str:
        specs.check(spec)
        argv, script = _submit_argv(spec), _script(spec)
        return once.submit_once(
            spec.token,
            known=known,
            submit=lambda: self._submit(argv, script, spec),
            find=lambda: self.find(spec.token),
            cancel=self.cancel,
        )

    def find(self, token: str) -> list[Job]:
        found = self._status(self._select("-x", "-N", token))
        return sorted((job for job in found.values() if job.token == token), key=once.order)

    def mine(self, prefix: str) -> list[Job]:
        found = self._status(self._select())
        return [job for job in found.values() if job.token.startswith(prefix) and job.state in ALIVE]

    def jobs(self, ids: Collection[str]) -> dict[str, Job]:
        wanted = set(ids)
        found = self._status(sorted(wanted))
        by_number = {_number(job_id): job for job_id, job in found.items()}  # a server may call itself otherwise
        return {
            job_id: found.get(job_id) or by_number.get(_number(job_id)) or Job(job_id, "", JobState.GONE)
            for job_id in wanted
        }

    def cancel(self, ids: Collection[str]) -> None:
        for some in _portions(sorted(set(ids))):
            answer = self.calls.run(["qdel", *some])
            if answer.rc and text.SILENT.search(answer.err + answer.out):
                raise _silent("qdel", answer)
            # Else a job is over, or not known: it is left alone.

    def queues(self) -> dict[str, Queue]:
        return text.queues(self._json("qstat", "-Q", "-f", "-F", "json"))

    def accounts(self) -> frozenset[str] | None:
        return None

    def reservations(self) -> dict[str, Reservation]:
        answer = self.calls.run(["pbs_rstat", "-f"], environment=UTC)
        if answer.rc and text.SILENT.search(answer.err + answer.out):
            raise _silent("pbs_rstat", answer)
        return text.reservations(answer.out)

    def starts_at(self, spec: JobSpec) -> float | None:
        return None  # PBS estimates the start of jobs that it has, see `Job.starts_at`

    def _submit(self, argv: list[str], script: str, spec: JobSpec) -> str:
        answer = self.calls.run(argv, stdin=script)
        lines = answer.out.split()
        if answer.rc == 0 and lines and lines[-1][:1].isdigit():
            return lines[-1]
        if answer.rc == 0 or text.SILENT.search(answer.err + answer.out):
            raise _silent("qsub", answer)
        words = answer.words.removeprefix("qsub: ").rstrip(".")
        if spec.reservation and any(word in words.lower() for word in NO_RESERVATION):
            raise ReservationGone(f"PBS does not take the job into the reservation {spec.reservation!r}: {words}.")
        raise refusal(f"PBS does not take the job: {words}.")

    def _select(self, *more: str) -> list[str]:
        answer = self.calls.run(["qselect", "-u", self._user, *more])
        if answer.rc:
            raise _silent("qselect", answer)
        return answer.out.split()

    def _status(self, ids: Sequence[str]) -> dict[str, Job]:
        found: dict[str, Job] = {}
        for some in _portions(ids):
            answer = self.calls.run(["qstat", "-x", "-f", "-F", "json", *some], environment=UTC)
            told = "nknown Job Id" in answer.err + answer.out
            if answer.rc and (not told or text.SILENT.search(answer.err)):
                raise _silent("qstat", answer)
            values = text.parse_json(answer.out)
            if values is None and (answer.out.strip() or not told):
                raise _silent("qstat", answer)
            found |= {job.id: job for job in text.jobs(values or {})}
        return found

    def _json(self, *argv: str) -> dict[str, object]:
        answer = self.calls.run(argv, environment=UTC)
        values = text.parse_json(answer.out)
        if answer.rc or values is None:
            raise _silent(argv[0], answer)
        return values


def _submit_argv(spec: JobSpec) -> list[str]:
    # `-C ''`: lines of the script that begin with `#PBS` stay what they are, wherever they come from.
    argv = ["qsub", "-N", spec.token, "-C", "", "-S", "/bin/bash", "-r", "n", "-m", "n"]
    argv += ["-o", spec.stdout, "-e", spec.stderr]
    if queue := spec.reservation or spec.queue:
        argv += ["-q", queue]
    if spec.account:
        argv += ["-A", spec.account]
    chunk = [str(spec.nodes), f"ncpus={spec.ranks_per_node * spec.cores_per_rank}", f"mpiprocs={spec.ranks_per_node}"]
    if spec.gpus_per_node:
        chunk.append(f"ngpus={spec.gpus_per_node}")
    if spec.memory_bytes:
        chunk.append(f"mem={math.ceil(spec.memory_bytes / 1024)}kb")
    argv += ["-l", f"select={':'.join(chunk)}"]
    place = [*(["scatter"] if spec.nodes > 1 else []), *(["exclhost"] if spec.exclusive else [])]
    if place:
        argv += ["-l", f"place={':'.join(place)}"]
    if spec.walltime_s > 0:
        argv += ["-l", f"walltime={math.ceil(spec.walltime_s)}"]
    if warned := specs.warned_after_s(spec):
        argv += ["-v", f"{text.WARNED}={warned}"]
    return [*argv, *spec.options]


def _script(spec: JobSpec) -> str:
    # PBS starts a job in the home of its account
    return specs.timed(spec, f"cd {shlex.quote(spec.directory)} || exit 73")


def _portions(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    return (ids[at : at + IDS_A_CALL] for at in range(0, len(ids), IDS_A_CALL))


def _number(job_id: str) -> str:
    return job_id.partition(".")[0]


def _silent(command: str, answer: Answer) -> SchedulerSilent:
    return SchedulerSilent(f"PBS does not answer {command!r}: {answer.words or 'no words'}", "Try again later.")
