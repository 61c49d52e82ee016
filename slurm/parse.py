"""What Slurm's commands print, read with tolerance: a line that is not understood is left out and logged."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, datetime

import structlog

from orchestrator.jobs import WAITING, Job, JobState, Queue, Reservation
from slurm import states

log = structlog.get_logger()

# The name comes last: it is the only field that may hold the separator.
_SQUEUE = {
    "number": "%i",
    "state": "%T",
    "partition": "%P",
    "reservation": "%v",
    "nodes": "%N",
    "submitted": "%V",
    "starts": "%S",
    "ends": "%e",
    "limit": "%l",
    "reason": "%r",
    "name": "%j",
}
_SACCT = {
    "number": "JobIDRaw",
    "state": "State",
    "status": "ExitCode",
    "partition": "Partition",
    "reservation": "Reservation",
    "nodes": "NodeList",
    "submitted": "Submit",
    "starts": "Start",
    "ends": "End",
    "minutes": "TimelimitRaw",
    "reason": "Reason",
    "name": "JobName",
}
SQUEUE = "|".join(_SQUEUE.values())
SACCT = ",".join(_SACCT.values())
SINFO = "%R|%a|%l|%F"

_NO_TIME = {"", "N/A", "NONE", "UNKNOWN", "NOT_SET", "(NULL)"}
_DURATION = re.compile(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)$")
_NODES_AT_MOST = 100_000


def moment(text: str) -> float:
    """Epoch seconds of a time that was printed in UTC; 0 for none."""
    text = text.strip()
    if text.upper() in _NO_TIME:
        return 0.0
    if text.isdecimal():
        return float(text)
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()
    except ValueError:
        log.warning("slurm.time_not_understood", text=text[:80])
        return 0.0


def duration(text: str) -> float:
    """Seconds of `1-12:00:00`, `30:00`, `UNLIMITED`; 0 where there is no limit."""
    found = _DURATION.match(text.strip())
    if found is None:
        return 0.0
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)


def hosts(text: str) -> tuple[str, ...]:
    """The hosts of `n[1-3,07],gpu1`; what cannot be expanded stays as it is."""
    text = text.strip()
    if text.upper() in _NO_TIME or text in ("None assigned", "(null)"):
        return ()
    found: list[str] = []
    for part in re.findall(r"(?:[^,\[\]]|\[[^\[\]]*\])+", text):
        found += _expanded(part)
        if len(found) > _NODES_AT_MOST:
            return (text,)
    return tuple(found)


def _expanded(part: str) -> list[str]:
    found = re.match(r"([^\[\]]*)\[([^\[\]]*)\](.*)$", part)
    if found is None:
        return [part]
    names = []
    for piece in found[2].split(","):
        low, _, high = piece.partition("-")
        if not low.isdecimal() or (high and not high.isdecimal()) or int(high or low) - int(low) > _NODES_AT_MOST:
            return [part]
        names += [f"{found[1]}{n:0{len(low)}d}" for n in range(int(low), int(high or low) + 1)]
    return [whole for name in names for whole in _expanded(name + found[3])]


def squeue(text: str) -> Iterator[Job]:
    for said in _lines("squeue", text, _SQUEUE):
        yield _job(said, walltime_s=duration(said["limit"]))


def sacct(text: str) -> Iterator[Job]:
    for said in _lines("sacct", text, _SACCT):
        minutes = said["minutes"]
        yield _job(said, walltime_s=60.0 * int(minutes) if minutes.isdecimal() else 0.0)


def _lines(command: str, text: str, names: Collection[str]) -> Iterator[dict[str, str]]:
    for line in text.splitlines():
        fields = line.split("|", len(names) - 1)
        if len(fields) == len(names) and fields[0].strip():
            yield dict(zip(names, fields, strict=True))
        else:
            _odd(command, line)


def _job(said: Mapping[str, str], *, walltime_s: float) -> Job:
    number, reason = said["number"].strip(), said["reason"]
    state = states.state(said["state"], reason)
    if state is JobState.UNKNOWN:
        log.warning("slurm.state_not_understood", job=number, state=said["state"][:80])
    waits, over = state in WAITING, state not in (*WAITING, JobState.RUNNING, JobState.SUSPENDED, JobState.UNKNOWN)
    why = states.sentence(reason, state=state)
    if state in WAITING and states.never_starts(reason):
        state = JobState.REFUSED
    code, _, by_signal = said.get("status", "").partition(":")
    exit_status = int(code) if code.isdecimal() and not (by_signal.isdecimal() and int(by_signal)) else None
    return Job(
        number,
        said["name"],
        state,
        word=said["state"].strip(),
        reason=why or _HOW.get(state, ""),
        queue=said["partition"].strip(),
        reservation=_or_empty(said["reservation"].strip()),
        nodes=hosts(said["nodes"]),
        submitted_at=moment(said["submitted"]),
        starts_at=moment(said["starts"]) if waits else 0.0,
        started_at=0.0 if waits else moment(said["starts"]),
        ended_at=moment(said["ends"]) if over else 0.0,
        exit_status=0 if state is JobState.DONE else exit_status if over else None,
        walltime_s=walltime_s,
    )


_HOW = {
    JobState.FAILED: "ended with an exit status other than 0, or by a signal",
    JobState.CANCELLED: "was cancelled",
    JobState.WALLTIME: "was ended at its time limit",
    JobState.MEMORY: "used more memory than it had",
    JobState.NODE: "lost a node",
    JobState.PREEMPTED: "was preempted by a job with more right to its nodes",
    JobState.REFUSED: "could not be started",
}


def sinfo(text: str, pending: str = "") -> dict[str, Queue]:
    """`pending`: the partitions of the waiting jobs, a line each."""
    waits: dict[str, int] = {}
    for line in pending.splitlines():
        for name in line.strip().split(","):  # a job may ask for any of several
            waits[name] = waits.get(name, 0) + 1
    queues = {}
    for line in text.splitlines():
        fields = [field.strip() for field in line.split("|")]
        counts = fields[3].split("/") if len(fields) == 4 else []
        if len(counts) != 4:
            _odd("sinfo", line)
            continue
        queues[fields[0]] = Queue(
            fields[0],
            open=fields[1] == "up",
            walltime_s=duration(fields[2]),
            nodes=_count(counts[3]),
            idle_nodes=_count(counts[1]),
            pending=waits.get(fields[0], 0),
        )
    return queues


def _count(text: str) -> int:
    """`12`, or `1.5K` as Slurm prints large numbers."""
    found = re.match(r"(\d+(?:\.\d+)?)([KM]?)$", text.strip())
    return int(float(found[1]) * {"": 1, "K": 1024, "M": 1024**2}[found[2]]) if found else 0


def reservations(text: str) -> dict[str, Reservation]:
    """Of `scontrol show reservation --oneliner`."""
    found = {}
    for line in text.splitlines():
        values = pairs(line)
        name = values.get("ReservationName", "")
        if not name:
            if line.strip() and "No reservations" not in line:
                _odd("scontrol show reservation", line)
            continue
        nodes = hosts(values.get("Nodes", ""))
        found[name] = Reservation(
            name,
            from_at=moment(values.get("StartTime", "")),
            until_at=moment(values.get("EndTime", "")),
            queue=_or_empty(values.get("PartitionName", "")),
            nodes=nodes,
            node_count=_count(values.get("NodeCnt", "")) or len(nodes),
            accounts=_list(values.get("Accounts", "")),
            users=_list(values.get("Users", "")),
            active=values.get("State", "") == "ACTIVE",
        )
    return found


def pairs(line: str) -> dict[str, str]:
    return {key: value for key, _, value in (word.partition("=") for word in line.split()) if key}


def _or_empty(text: str) -> str:
    return "" if text in ("(null)", "N/A", "n/a") else text


def _list(text: str) -> tuple[str, ...]:
    return tuple(part for part in _or_empty(text).split(",") if part)


def _odd(command: str, line: str) -> None:
    if line.strip():
        log.warning("slurm.line_not_understood", command=command, line=line[:200])


def test_only(text: str) -> float | None:
    """When the job would start, of `sbatch --test-only`."""
    found = re.search(r"to start at (\S+)", text)
    return moment(found[1]) or None if found else None
