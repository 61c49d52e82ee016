"""Grid Engine (Sun, Son of, Open): `qsub`, `qstat -xml`, `qacct`, `qdel`, `qrstat`.

Its `qstat` knows the jobs that are not over, its accounting (`qacct`) those that are, some seconds later: a job
between the two is ENDING. Its accounting does not tell a deleted job from one that was killed, so our own deletions are
remembered.

A job is warned by SIGUSR1 at `s_rt` and, with `-notify`, by SIGUSR2 before a SIGKILL: `orchestrator.jobscript` hands
both to the payload as SIGTERM. A queue that suspends jobs sends SIGUSR1 too, so a suspended job of ours ends.
"""

from __future__ import annotations

import math
import re
import threading
import time
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime
from xml.etree import ElementTree

import structlog
from msgspec.structs import replace

from orchestrator.jobs import (
    ALIVE,
    WAITING,
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
from orchestrator.schedulers import sge_text as text
from orchestrator.schedulers.calls import Answer, Calls, account

log = structlog.get_logger()

REASONS_AT_MOST = 20  # jobs of which one look asks why they wait
SINGLY_AT_MOST = 3  # ended jobs that are looked up one by one before the whole accounting of this account is read
ACCOUNTING_DAYS = 31
ACCOUNTING_LAG_S = 45.0  # the accounting is written every 15 s by default
REMEMBERED = 10_000


class GridEngine:
    kind = "sge"

    def __init__(
        self,
        *,
        environment: Mapping[str, str],
        bin_dir: str = "",
        timeout_s: float = 20.0,
        mpi_environment: str = "mpi",
        smp_environment: str = "smp",
    ) -> None:
        self.calls = Calls(environment=environment, bin_dir=bin_dir, timeout_s=timeout_s)
        self._mpi, self._smp = mpi_environment, smp_environment
        self._user = account()
        self._lock = threading.Lock()
        self._alive: dict[str, Job] = {}  # as last seen alive
        self._missing: dict[str, float] = {}  # neither alive nor accounted for, since
        self._deleted: set[str] = set()

    def ping(self) -> str:
        self._ask("qconf", "-sh")
        return self.calls.run(["qstat", "-help"]).out.partition("\n")[0].strip() or "Grid Engine"

    def submit_once(self, spec: JobSpec, *, known: bool = False) -> str:
        specs.check(spec)
        argv = self._submit_argv(spec)
        return once.submit_once(
            spec.token,
            known=known,
            submit=lambda: self._submit(argv, spec),
            find=lambda: self.find(spec.token),
            cancel=self.cancel,
        )

    def find(self, token: str) -> list[Job]:
        found = {job.id: job for job in self._list() if job.token == token}
        for job in self._accounted(token):
            if job.token == token and (job.id not in found or found[job.id].word == "z"):
                found[job.id] = job
        return sorted(found.values(), key=once.order)

    def mine(self, prefix: str) -> list[Job]:
        return [job for job in self._list() if job.token.startswith(prefix) and job.state in ALIVE and job.word != "z"]

    def jobs(self, ids: Collection[str]) -> dict[str, Job]:
        wanted = set(ids)
        if not wanted:
            return {}
        all_listed = {job.id: job for job in self._list() if job.id in wanted}
        found = {number: job for number, job in all_listed.items() if job.word != "z"}
        self._add_reasons(found)
        missing = wanted - found.keys()
        ended = self._ended(missing)
        with self._lock:
            now = time.monotonic()
            for number, job in found.items():
                self._alive[number] = job
                self._missing.pop(number, None)
            for number in missing:
                if number in ended:
                    found[number] = self._as_ours(ended[number])
                    self._missing.pop(number, None)
                    self._alive.pop(number, None)
                else:
                    found[number] = self._unaccounted(number, all_listed.get(number), now)
            for memory in (self._alive, self._missing):
                while len(memory) > REMEMBERED:
                    memory.pop(next(iter(memory)))
        return found

    def cancel(self, ids: Collection[str]) -> None:
        numbers = sorted({number for number in ids if number.isdecimal()}, key=int)
        if not numbers:
            return
        answer = self.calls.run(["qdel", *numbers])
        words = answer.out + answer.err
        with self._lock:
            if len(self._deleted) > REMEMBERED:
                self._deleted.clear()
            self._deleted.update(re.findall(r"(?:registered the|deleted) job (\d+)", words))
        if answer.rc and text.SILENT.search(words):
            raise _silent("qdel", answer)
        # Else a job is over, or not ours: it is left alone.

    def queues(self) -> dict[str, Queue]:
        root = self._xml("qstat", "-f", "-r", "-xml", "-u", "*")
        waiting = [one for one in text.listed(root) if one.job.state in WAITING]
        limits = text.queue_limits(self._ask("qconf", "-sq", "*").out)
        seen = text.instances(root)
        queues = {}
        for name in limits.keys() | seen.keys():
            usable = [one for one in seen.get(name, []) if not set(one[3]) & set("dDuEsSCco")]
            queues[name] = Queue(
                name=name,
                open=bool(usable),
                walltime_s=limits.get(name, 0.0),
                nodes=len(seen.get(name, [])),
                idle_nodes=sum(used == 0 and slots > 0 for _, used, slots, _ in usable),
                pending=sum(one.queue_asked in ("", name) for one in waiting),
            )
        return queues

    def accounts(self) -> frozenset[str] | None:
        answer = self.calls.run(["qconf", "-sprjl"], environment={"TZ": "UTC"})
        if answer.rc == 0:
            return frozenset(answer.out.split())
        if "no project list" in answer.err + answer.out:
            return None
        raise _silent("qconf", answer)

    def reservations(self) -> dict[str, Reservation]:
        return {name: held for name, (_, held) in self._reservations().items()}

    def starts_at(self, spec: JobSpec) -> float | None:
        return None  # `qsub -w p` says whether, never when

    def reserve(self, name: str, *, from_at: float, until_at: float, slots: int, queue: str = "") -> str:
        """Make an advance reservation; the id of it."""
        argv = ["qrsub", "-N", name, "-a", _stamp(from_at), "-e", _stamp(until_at), "-pe", self._smp, str(slots)]
        answer = self.calls.run([*argv, *(["-q", queue] if queue else [])], environment={"TZ": "UTC"})
        granted = re.search(r"reservation (\d+) has been granted", answer.out + answer.err)
        if granted:
            return granted[1]
        if text.SILENT.search(answer.words):
            raise _silent("qrsub", answer)
        raise Refused(f"Grid Engine grants no such reservation: {answer.words}")

    def release(self, reservation: str) -> None:
        """Give an advance reservation back; its jobs are ended."""
        answer = self.calls.run(["qrdel", reservation])
        if answer.rc and text.SILENT.search(answer.words):
            raise _silent("qrdel", answer)

    def _submit_argv(self, spec: JobSpec) -> list[str]:
        # `-C ''`: lines of the script that begin with `#$` stay what they are, wherever they come from.
        argv = ["qsub", "-N", spec.token, "-terse", "-C", "", "-S", "/bin/bash", "-wd", spec.directory]
        argv += ["-o", spec.stdout, "-e", spec.stderr, "-r", "n", "-m", "n", "-notify"]
        if spec.queue:
            argv += ["-q", spec.queue]
        if spec.account:
            argv += ["-P", spec.account]
        if spec.reservation:
            argv += ["-ar", self._reservation_id(spec.reservation)]
        per_node = spec.ranks_per_node * spec.cores_per_rank
        if spec.nodes > 1:
            argv += ["-pe", self._mpi, str(spec.nodes * per_node), "-R", "y"]
        elif per_node > 1:
            argv += ["-pe", self._smp, str(per_node), "-R", "y"]
        asked = []
        if spec.walltime_s > 0:
            asked.append(f"h_rt={math.ceil(spec.walltime_s)}")
            if 0 < spec.warning_s < spec.walltime_s:
                asked.append(f"s_rt={max(1, math.floor(spec.walltime_s - spec.warning_s))}")
        if spec.memory_bytes and not spec.reservation:  # in a reservation it finds no queue with a load value
            # Not h_vmem: that limits addresses, of which a process with a GPU or big mapped files takes any number.
            asked.append(f"mem_free={max(1, spec.memory_bytes // (per_node * 1024))}K")
        if spec.gpus_per_node:  # of the whole job: the complex is counted by job (`consumable JOB`)
            asked.append(f"gpu={spec.gpus_per_node}")
        if spec.exclusive:
            asked.append("exclusive=true")
        if asked:
            argv += ["-l", ",".join(asked)]
        return [*argv, *spec.options]

    def _submit(self, argv: list[str], spec: JobSpec) -> str:
        answer = self.calls.run(argv, stdin=specs.for_bash(spec.script))
        number = re.search(r"^(\d+)\b", answer.out, re.MULTILINE)
        if answer.rc == 0 and number:
            return number[1]
        if answer.rc == 0 or text.SILENT.search(answer.err + answer.out):
            raise _silent("qsub", answer)
        words = re.sub(r"^Unable to run job:\s*|\s*Exiting\.$", "", answer.words)
        if "advance reservation" in words:
            raise ReservationGone(f"Grid Engine does not take the job: {words}.")
        raise refusal(f"Grid Engine does not take the job: {words}")

    def _list(self) -> list[Job]:
        """Our jobs that are alive, and those that ended lately (`z`), in one call."""
        root = self._xml("qstat", "-xml", "-r", "-u", self._user, "-s", "prsz")
        return [one.job for one in text.listed(root) if one.owner in ("", self._user)]

    def _add_reasons(self, found: dict[str, Job]) -> None:
        asked = [n for n, job in found.items() if job.word and job.state in (*WAITING, JobState.REFUSED)]
        asked = [n for n in asked if found[n].state is not JobState.HELD][:REASONS_AT_MOST]
        if not asked:
            return
        try:
            why = text.reasons(self.calls.run(["qstat", "-j", ",".join(asked)]).out)
        except SchedulerSilent as error:
            log.info("no_reasons", scheduler=self.kind, sentence=error.sentence)  # an extra: the states are known
            return
        for number in asked:
            if number in why:
                found[number] = replace(found[number], reason=why[number])

    def _ended(self, ids: Collection[str]) -> dict[str, Job]:
        whole = len(ids) > SINGLY_AT_MOST
        records: Iterable[Job] = (
            self._accounted("", "-d", str(ACCOUNTING_DAYS)) if whole else (j for n in ids for j in self._accounted(n))
        )
        return {job.id: job for job in records if job.id in ids}  # the last record of an id is that of its last run

    def _accounted(self, what: str, *more: str) -> list[Job]:
        argv = ["qacct", "-o", self._user, *more, "-j", *([what] if what else [])]
        answer = self.calls.run(argv, environment={"TZ": "UTC"})
        if answer.rc and "not found" not in answer.err and "no jobs" not in answer.err:
            log.info("no_accounting", scheduler=self.kind, words=answer.words)
        return [job for owner, job in text.accounted(answer.out) if owner in ("", self._user)]

    def _as_ours(self, job: Job) -> Job:
        if job.id in self._deleted and job.state is JobState.FAILED:
            return replace(job, state=JobState.CANCELLED, reason="it was deleted on our request")
        return job

    def _unaccounted(self, number: str, zombie: Job | None, now: float) -> Job:
        last = self._alive.get(number) or zombie
        if last is None:
            return Job(number, "", JobState.GONE)
        if number in self._deleted and last.state not in (JobState.RUNNING, JobState.SUSPENDED, JobState.ENDING):
            return replace(last, state=JobState.CANCELLED, word="z", reason="it was deleted before it started")
        since = self._missing.setdefault(number, now)
        if now - since < ACCOUNTING_LAG_S:
            why = "it has ended, and the accounting has no record of it yet"
            return replace(last, state=JobState.ENDING, word="z", reason=why)
        why = "it left the queue, and the accounting has no record of it"
        state = JobState.CANCELLED if number in self._deleted else JobState.GONE
        return replace(last, state=state, word="", reason=why)

    def _reservations(self) -> dict[str, tuple[str, Reservation]]:
        """Number and reservation, by name; by number those that have none."""
        numbers = [n.findtext("id", "") for n in self._xml("qrstat", "-xml", "-u", "*").iter("ar_summary")]
        if not numbers:
            return {}
        found: dict[str, tuple[str, Reservation]] = {}
        for node in self._xml("qrstat", "-xml", "-ar", ",".join(numbers)).iter("ar_summary"):
            values = {child.tag: (child.text or "").strip() for child in node}
            places = [s.get("queue_instance", "") for s in node.iter("granted_slots")]
            hosts = tuple(sorted({place.partition("@")[2] for place in places} - {""}))
            name = values.get("name") or values.get("id", "")
            held = Reservation(
                name=name,
                from_at=text.moment(values.get("start_time", "")),
                until_at=text.moment(values.get("end_time", "")),
                queue=places[0].partition("@")[0] if places else "",
                nodes=hosts,
                node_count=len(hosts),
                users=tuple(u.text or "" for u in node.iter("acl_user")) or (values.get("owner", ""),),
                active=values.get("state") == "r",
            )
            found[name] = values.get("id", ""), held
        return found

    def _reservation_id(self, name: str) -> str:
        if name.isdecimal():
            return name
        known = self._reservations()
        if name not in known:
            raise ReservationGone(f"There is no reservation {name!r} here.")
        return known[name][0]

    def _xml(self, *argv: str) -> ElementTree.Element:
        answer = self._ask(*argv)
        root = text.parse_xml(answer.out)
        if root is None:
            raise _silent(argv[0], answer)
        return root

    def _ask(self, *argv: str) -> Answer:
        answer = self.calls.run(argv, environment={"TZ": "UTC"})
        if answer.rc:
            raise _silent(argv[0], answer)
        return answer


def _silent(command: str, answer: Answer) -> SchedulerSilent:
    return SchedulerSilent(f"Grid Engine does not answer {command!r}: {answer.words or 'no words'}", "Try again later.")


def _stamp(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y%m%d%H%M.%S")


__all__ = ["GridEngine"]
