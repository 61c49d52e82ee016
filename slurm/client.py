"""Slurm as the product's `Scheduler`: `sbatch`, `squeue`, `sacct`, `scancel`, `sinfo`, `scontrol`.

One `squeue` tells of all our jobs. It forgets those that are over after `MinJobAge` (five minutes by default), and
those of a node that died even sooner; the accounting (`sacct`) is asked for what it misses, where there is one. Times
are asked for in UTC. Jobs are never requeued by Slurm: what runs again, and when, is the engine's to say.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Mapping, Sequence
from itertools import islice

import structlog
from msgspec.structs import replace

from orchestrator.jobs import (
    ALIVE,
    OVER,
    Job,
    JobSpec,
    JobState,
    Queue,
    Refused,
    Reservation,
    ReservationGone,
    SchedulerSilent,
    refusal,
)
from orchestrator.schedulers import once, specs
from orchestrator.schedulers.calls import Answer, Calls, account
from slurm import argv, parse

log = structlog.get_logger()

IDS_A_CALL = 500
RESERVATIONS_S = 30.0  # how long what is known of reservations will do for the sentence why a job waits
UTC = {"TZ": "UTC"}
SILENT = re.compile(
    r"(?i)unable to contact|timed out|connection (refused|reset|timed out|failure)|connect failure|standby mode"
    r"|zero bytes|unable to establish|authentication|munge|temporarily un(able|available)|transport|no route to host"
    r"|controller (is )?busy|unexpected message|communication|i/o error|problem talking|host not found"
)
NO_RESERVATION = re.compile(r"(?i)reservation")


class Slurm:
    kind = "slurm"

    def __init__(self, *, environment: Mapping[str, str], bin_dir: str = "", timeout_s: float = 20.0) -> None:
        self.calls = Calls(environment=environment, bin_dir=bin_dir, timeout_s=timeout_s)
        self._user = account()
        self._config: dict[str, str] | None = None
        self._reservations: tuple[float, dict[str, Reservation]] = (float("-inf"), {})

    def ping(self) -> str:
        said = self.ask(["scontrol", "ping"]).out
        if not re.search(r"\bUP\b", said):
            raise SchedulerSilent(f"Slurm's controller does not answer: {' '.join(said.split())}", "Try again later.")
        config = self._settings()
        return f"Slurm {config.get('SLURM_VERSION', '')} of {config.get('ClusterName', 'a cluster')}"

    def submit_once(self, spec: JobSpec, *, known: bool = False) -> str:
        specs.check(spec)
        return once.submit_once(
            spec.token,
            known=known,
            submit=lambda: self._submit(spec),
            find=lambda: self.find(spec.token),
            cancel=self.cancel,
        )

    def find(self, token: str) -> list[Job]:
        listed = self.ask(argv.squeue(self._user, token=token)).out
        found = {job.id: job for job in parse.squeue(listed) if job.token == token}
        if self._accounting():
            said = self.ask(argv.sacct(self._user, now=time.time(), token=token)).out
            for job in parse.sacct(said):
                if job.token == token:
                    found.setdefault(job.id, job)
        return sorted(found.values(), key=once.order)

    def mine(self, prefix: str) -> list[Job]:
        return [job for job in self._list().values() if job.token.startswith(prefix) and job.state in ALIVE]

    def jobs(self, ids: Collection[str]) -> dict[str, Job]:
        wanted = set(ids)
        if not wanted:
            return {}
        found = {number: job for number, job in self._list().items() if number in wanted}
        missing = wanted - found.keys()
        if missing and self._accounting():
            for some in _groups(sorted(missing), IDS_A_CALL):
                found |= {j.id: j for j in self._accounted(some) if j.id in missing}
        return {number: self._worded(found.get(number) or Job(number, "", JobState.GONE)) for number in wanted}

    def cancel(self, ids: Collection[str]) -> None:
        numbers = sorted(number for number in ids if re.fullmatch(r"\d+(_\d+)?", number))
        for some in _groups(numbers, IDS_A_CALL):
            answer = self.calls.run(argv.scancel(some))
            if answer.rc and SILENT.search(answer.words):
                raise _silent("scancel", answer)
            if answer.rc:  # a job is over, or not ours: it is left alone
                log.info("slurm.scancel", jobs=len(some), words=answer.words)

    def queues(self) -> dict[str, Queue]:
        return parse.sinfo(self.ask(argv.sinfo()).out, self.ask(argv.pending()).out)

    def accounts(self) -> frozenset[str] | None:
        if "associations" not in self._settings().get("AccountingStorageEnforce", ""):
            return None
        return frozenset(self.ask(argv.associations(self._user)).out.split())

    def reservations(self) -> dict[str, Reservation]:
        found = parse.reservations(self.ask(argv.show_reservations()).out)
        self._reservations = (time.monotonic(), found)
        return found

    def starts_at(self, spec: JobSpec) -> float | None:
        answer = self.calls.run(argv.test_only(spec), stdin=specs.for_bash(spec.script), environment=UTC)
        words = f"{answer.err}\n{answer.out}"
        at = parse.test_only(words)
        if at is None and answer.rc:
            if SILENT.search(words):
                raise _silent("sbatch", answer)
            raise _refused(answer, spec.reservation)
        return at

    def ask(self, words: Sequence[str]) -> Answer:
        """Its answer; SchedulerSilent for every exit status other than 0."""
        answer = self.calls.run(words, environment=UTC)
        if answer.rc:
            raise _silent(words[0], answer)
        return answer

    def _submit(self, spec: JobSpec) -> str:
        # Slurm hands the caller's environment to the job; the locale of our calls is not meant for it.
        answer = self.calls.run(argv.sbatch(spec), stdin=specs.timed(spec), environment={"LC_ALL": ""})
        number = re.match(r"(\d+)(;|\s|$)", answer.out)
        if answer.rc == 0 and number:
            return number[1]
        if answer.rc <= 0 or SILENT.search(answer.words):
            raise _silent("sbatch", answer)
        raise _refused(answer, spec.reservation)

    def _list(self) -> dict[str, Job]:
        return {job.id: job for job in parse.squeue(self.ask(argv.squeue(self._user)).out)}

    def _accounted(self, ids: Sequence[str]) -> list[Job]:
        """Ended jobs. One that the accounting still calls running, and the controller has forgotten, died unseen."""
        said = self.ask(argv.sacct(self._user, now=time.time(), ids=ids)).out
        lost = "Slurm has forgotten it, and its accounting has no end of it"
        return [j if j.state in OVER else replace(j, state=JobState.GONE, reason=lost) for j in parse.sacct(said)]

    def _worded(self, job: Job) -> Job:
        """Say when its reservation opens, where it waits for that."""
        if job.state is not JobState.PENDING or not job.reservation or "reservation to open" not in job.reason:
            return job
        read_at, held = self._reservations
        if time.monotonic() - read_at > RESERVATIONS_S:
            held = self.reservations()
        there = held.get(job.reservation)
        if there is None:
            return job
        if there.active:
            return replace(job, reason=f"waits for free nodes in its reservation {job.reservation!r}")
        at = time.strftime("%H:%M", time.localtime(there.from_at))
        if there.from_at - time.time() > 43_200:
            at = time.strftime("%d %b %H:%M", time.localtime(there.from_at))
        return replace(job, reason=f"waits for its reservation {job.reservation!r}, which opens at {at}")

    def _settings(self) -> dict[str, str]:
        if self._config is None:
            lines = self.ask(["scontrol", "show", "config"]).out.splitlines()
            pairs = (line.partition("=") for line in lines if "=" in line)
            self._config = {key.strip(): value.strip() for key, _, value in pairs}
        return self._config

    def _accounting(self) -> bool:
        return "slurmdbd" in self._settings().get("AccountingStorageType", "")


def _groups(ids: Sequence[str], size: int) -> list[list[str]]:
    left = iter(ids)
    return list(iter(lambda: list(islice(left, size)), []))


def _silent(command: str, answer: Answer) -> SchedulerSilent:
    return SchedulerSilent(f"Slurm does not answer {command!r}: {answer.words or 'no words'}", "Try again later.")


def _refused(answer: Answer, reservation: str) -> Refused:
    words = re.sub(r"(sbatch: error: |allocation failure: |Batch job submission failed: )+", "", answer.words)
    sentence = f"Slurm does not take the job: {words}"
    if reservation and NO_RESERVATION.search(words):
        return ReservationGone(f"{sentence} ({reservation})")
    return refusal(sentence)


__all__ = ["Slurm"]
