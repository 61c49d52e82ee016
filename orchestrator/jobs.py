"""The words about batch jobs, and what the product asks of a batch scheduler: one small protocol, implemented once per
scheduler (`slurm/` and `orchestrator/schedulers/`).

A *job* is a batch-scheduler job, always. It carries a *token*, written down before it is asked for, as its name: so it
is found again after a lost answer or a restart. A scheduler's word about how a job ended is a hint about the cause of a
failure and never proof of a success: that is the exit record that the job itself leaves (`orchestrator.jobscript`).
"""

from __future__ import annotations

import re
from collections.abc import Collection
from enum import StrEnum
from typing import Protocol

from msgspec import Struct

from orchestrator.errors import Unavailable, UserError

# Words of schedulers, and of what lies before them, for a person who is not let in *any more*. A wrong account, queue
# or right is a refusal: it may be the request's own fault, and waiting would not mend it.
NOT_LET_IN = re.compile(
    r"(?i)\b(credential|ticket|token|certificate|proxy|password)s?\b[\w ]{0,20}\bexpired\b"
    r"|\bexpired (credential|ticket|token|certificate|proxy|password)"
    r"|\b(no|invalid|missing|bad) (valid )?(kerberos |gssapi |ssh )?(credential|ticket|certificate)"
    r"|\binvalid user id\b|\bpermission denied \(publickey|\baccount (has )?expired\b"
)
TOKEN = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,119}")  # what every scheduler takes as a job's name


class JobState(StrEnum):
    PENDING = "pending"  # waits in the queue; `Job.reason` says for what
    HELD = "held"  # waits because a person or a rule holds it; it will not start by itself
    RUNNING = "running"
    SUSPENDED = "suspended"  # started, and stopped for the time being
    ENDING = "ending"  # its processes are being ended or cleaned up after; not over yet
    DONE = "done"  # ended with exit status 0, as the scheduler saw it
    FAILED = "failed"  # ended with another exit status or by a signal
    CANCELLED = "cancelled"  # ended because somebody asked for it
    WALLTIME = "walltime"  # ended by the scheduler at its time limit
    MEMORY = "memory"  # ended because it used more memory than it had asked for
    NODE = "node failure"  # a node under it died
    PREEMPTED = "preempted"  # ended to make room for another job
    REFUSED = "refused"  # the scheduler will never start it (bad partition, dead dependency, launch failure)
    GONE = "gone"  # the scheduler has answered, and does not know it: forgotten, or never there
    UNKNOWN = "unknown"  # a word of the scheduler that we do not know; logged, and looked at again


WAITING = frozenset({JobState.PENDING, JobState.HELD})
ALIVE = WAITING | {JobState.RUNNING, JobState.SUSPENDED, JobState.ENDING, JobState.UNKNOWN}
OVER = frozenset(JobState) - ALIVE


class Job(Struct, frozen=True):
    """What the scheduler says of one job. Times are epoch seconds (UTC), 0 when not known."""

    id: str
    token: str
    state: JobState
    word: str = ""  # the scheduler's own word for the state
    reason: str = ""  # why it waits, is held or ended: one sentence without a final stop; empty when there is none
    queue: str = ""
    reservation: str = ""
    nodes: tuple[str, ...] = ()
    submitted_at: float = 0.0
    starts_at: float = 0.0  # the scheduler's own estimate while it waits
    started_at: float = 0.0
    ended_at: float = 0.0
    exit_status: int | None = None
    walltime_s: float = 0.0


class JobSpec(Struct, frozen=True):
    """A job to be submitted. `script` is complete but for the scheduler's own directives, which the adapter adds."""

    token: str
    script: str  # text: a shell script, see `jobscript.body`
    stdout: str  # paths where the scheduler puts what the script itself says
    stderr: str
    directory: str = "/"  # working directory of the script; it exists
    queue: str = ""  # partition or queue; empty: the scheduler's default
    qos: str = ""
    account: str = ""
    reservation: str = ""
    nodes: int = 1
    ranks_per_node: int = 1
    cores_per_rank: int = 1
    gpus_per_node: int = 0
    memory_bytes: int = 0  # of one node; 0: not stated
    walltime_s: float = 0.0  # 0: the queue's default
    warning_s: float = 0.0  # a signal reaches the script this long before the walltime is over
    exclusive: bool = False
    options: tuple[str, ...] = ()  # further words of the submit command, from the site's profile


class Queue(Struct, frozen=True):
    name: str
    open: bool = True  # takes and starts jobs
    walltime_s: float = 0.0  # longest; 0: no limit known
    nodes: int = 0  # all of them
    idle_nodes: int = 0  # could start something now
    pending: int = 0  # jobs that wait


class Reservation(Struct, frozen=True):
    name: str
    from_at: float = 0.0
    until_at: float = 0.0
    queue: str = ""
    nodes: tuple[str, ...] = ()
    node_count: int = 0
    accounts: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    active: bool = False


class Refused(UserError):
    """The scheduler has answered, and will not take this job as it is; its own words are in the sentence."""


class ReservationGone(Refused):
    """The reservation that the job asks for is not there, is over, or is not for us."""


class NotLetIn(Refused):
    """The scheduler has answered, and does not accept who we are: a person has to sign in, or to renew something."""


def refusal(sentence: str) -> Refused:
    """The error for a job that was not taken, by the scheduler's own words in `sentence`."""
    return NotLetIn(sentence) if NOT_LET_IN.search(sentence) else Refused(sentence)


class SchedulerSilent(Unavailable):
    """No trusted answer: the scheduler did not answer in time or could not be reached. Never means *absent*."""


class Scheduler(Protocol):
    """One batch scheduler as one account of one host sees it.

    Every call is bounded in time, thread-safe, and raises SchedulerSilent when there was no trusted answer. Foreign
    text never raises anything else: what is not understood is UNKNOWN or left out, and logged.
    """

    kind: str

    def ping(self) -> str:
        """Its name and version; it is up."""

    def submit_once(self, spec: JobSpec, *, known: bool = False) -> str:
        """The id of the one job of this token: submitted now, or found when an answer was lost on the way.

        `known`: the token may have been submitted before, so look first. Raises Refused (ReservationGone, NotLetIn),
        and SchedulerSilent when it cannot be known whether there is such a job; ask again then, with `known`.
        """

    def find(self, token: str) -> list[Job]:
        """Every job of this token that the scheduler still knows, dead ones included; an empty list is an answer."""

    def mine(self, prefix: str) -> list[Job]:
        """The jobs of this account that are not over and whose token begins with `prefix`."""

    def jobs(self, ids: Collection[str]) -> dict[str, Job]:
        """One entry per id; GONE for what the scheduler does not know. A few calls whatever the number of ids."""

    def cancel(self, ids: Collection[str]) -> None:
        """Ask for the end of these jobs; those that are over are left alone."""

    def queues(self) -> dict[str, Queue]: ...

    def accounts(self) -> frozenset[str] | None:
        """Accounts that this user may charge; None when the scheduler keeps none."""

    def reservations(self) -> dict[str, Reservation]: ...

    def starts_at(self, spec: JobSpec) -> float | None:
        """When such a job would start, by the scheduler's own estimate, without submitting it; None: it cannot say."""


def check_token(token: str) -> str:
    if not TOKEN.fullmatch(token):
        raise UserError(f"{token!r} cannot be the name of a job: a letter, then letters, digits, '.', '_' and '-'.")
    return token


__all__ = [
    "ALIVE",
    "OVER",
    "WAITING",
    "Job",
    "JobSpec",
    "JobState",
    "NotLetIn",
    "Queue",
    "Refused",
    "Reservation",
    "ReservationGone",
    "Scheduler",
    "SchedulerSilent",
    "check_token",
    "refusal",
]
