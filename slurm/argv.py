"""The words of Slurm's commands. Every value is a word of its own or joined to its option with `=`: none is ever read
as an option or by a shell."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import UTC, datetime

from orchestrator.jobs import JobSpec
from slurm import parse

ACCOUNTING_DAYS = 31  # how far back an ended job is looked for
_DAY_S = 86_400


def sbatch(spec: JobSpec) -> list[str]:
    """The script comes on stdin."""
    words = ["sbatch", "--parsable", f"--job-name={spec.token}", "--no-requeue"]
    return [*words, f"--output={spec.stdout}", f"--error={spec.stderr}", f"--chdir={spec.directory}", *_asked(spec)]


def test_only(spec: JobSpec) -> list[str]:
    return ["sbatch", "--test-only", f"--job-name={spec.token}", *_asked(spec)]


def _asked(spec: JobSpec) -> list[str]:
    words = [f"--nodes={spec.nodes}", f"--ntasks-per-node={spec.ranks_per_node}"]
    words.append(f"--cpus-per-task={spec.cores_per_rank}")
    for option, value in (
        ("partition", spec.queue),
        ("qos", spec.qos),
        ("account", spec.account),
        ("reservation", spec.reservation),
    ):
        if value:
            words.append(f"--{option}={value}")
    if spec.gpus_per_node:
        words.append(f"--gres=gpu:{spec.gpus_per_node}")
    if spec.memory_bytes:
        words.append(f"--mem={math.ceil(spec.memory_bytes / 2**20)}M")
    if spec.walltime_s:
        words.append(f"--time={max(1, math.ceil(spec.walltime_s / 60))}")  # Slurm counts in minutes
    if spec.exclusive:
        words.append("--exclusive")
    return [*words, *spec.options]


def squeue(user: str, *, token: str = "") -> list[str]:
    """All our jobs that the controller remembers, ended ones too, in one call."""
    words = ["squeue", "--noheader", "--array", "--states=all", f"--user={user}", f"--format={parse.SQUEUE}"]
    return [*words, f"--name={token}"] if token else words


def pending() -> list[str]:
    return ["squeue", "--noheader", "--states=PENDING", "--format=%P"]


def sacct(user: str, *, now: float, ids: Iterable[str] = (), token: str = "") -> list[str]:
    since = _stamp(now - ACCOUNTING_DAYS * _DAY_S)
    words = ["sacct", "--noheader", "--allocations", "--parsable2", f"--format={parse.SACCT}", f"--starttime={since}"]
    words.append(f"--user={user}")
    chosen = ",".join(ids)
    return [*words, *([f"--jobs={chosen}"] if chosen else []), *([f"--name={token}"] if token else [])]


def sinfo() -> list[str]:
    return ["sinfo", "--noheader", "--summarize", f"--format={parse.SINFO}"]


def scancel(ids: Iterable[str]) -> list[str]:
    return ["scancel", *ids]


def associations(user: str) -> list[str]:
    return ["sacctmgr", "--noheader", "--parsable2", "show", "associations", f"user={user}", "format=account"]


def show_reservations() -> list[str]:
    return ["scontrol", "--oneliner", "show", "reservation"]


def create_reservation(
    name: str, *, from_at: float, until_at: float, nodes: int, queue: str, users: str, accounts: str
) -> list[str]:
    """`from_at` 0: now."""
    begin = _stamp(from_at) if from_at else "now"
    words = [f"ReservationName={name}", f"StartTime={begin}", f"EndTime={_stamp(until_at)}"]
    words.append(f"NodeCnt={nodes}")
    words += [f"PartitionName={queue}"] if queue else []
    words += [f"Users={users}"] if users else []
    words += [f"Accounts={accounts}"] if accounts else []
    return ["scontrol", "create", "reservation", *words]


def extend_reservation(name: str, *, until_at: float) -> list[str]:
    return ["scontrol", "update", f"ReservationName={name}", f"EndTime={_stamp(until_at)}"]


def delete_reservation(name: str) -> list[str]:
    return ["scontrol", "delete", f"ReservationName={name}"]


def move_job(job: str, reservation: str) -> list[str]:
    """Into a reservation; with an empty name out of it."""
    return ["scontrol", "update", f"JobId={job}", f"ReservationName={reservation}"]


def _stamp(at: float) -> str:
    """As Slurm reads it with TZ=UTC."""
    return datetime.fromtimestamp(round(at), UTC).strftime("%Y-%m-%dT%H:%M:%S")
