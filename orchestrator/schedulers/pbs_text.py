"""What PBS Pro's commands print, read: pure functions from text to records. Nothing here raises on foreign text.

The commands are asked with TZ=UTC, so that their times, which name no zone, are UTC.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import structlog

from orchestrator.jobs import Job, JobState, Queue, Reservation
from orchestrator.schedulers.sge_text import seconds

log = structlog.get_logger()

WARNED = "BEAMWAY_WARNED_S"  # variable of a job: seconds after its start at which its script is warned
ALIVE = {
    "Q": (JobState.PENDING, ""),
    "W": (JobState.PENDING, "it waits for the time at which it may start"),
    "T": (JobState.PENDING, "it is being moved to another queue or node"),
    "H": (JobState.HELD, "it is held by a user, by an operator or by a job that comes first"),
    "R": (JobState.RUNNING, ""),
    "B": (JobState.RUNNING, ""),
    "S": (JobState.SUSPENDED, "it is suspended"),
    "U": (JobState.SUSPENDED, "it is suspended, as somebody works at its node"),
    "E": (JobState.ENDING, "it has ended and is being cleaned up after"),
}
# Exit statuses below zero are PBS's own: JOB_EXEC_* of its `job.h`, and the table in the guide of its administrators.
OWN = {
    -1: (JobState.REFUSED, "it could not be started: its files could not be made"),
    -2: (JobState.REFUSED, "it could not be started"),
    -3: (JobState.REFUSED, "it could not be started, and PBS has given up"),
    -4: (JobState.NODE, "the daemon of its node was started anew"),
    -5: (JobState.NODE, "the daemon of its node was started anew"),
    -6: (JobState.NODE, "the daemon of its node was started anew"),
    -10: (JobState.REFUSED, "the account is not known on its node"),
    -11: (JobState.PREEMPTED, "it was put back to be run again"),
    -12: (JobState.PREEMPTED, "it was put back with a checkpoint"),
    -13: (JobState.REFUSED, "the account's password is not valid on its node"),
    -14: (JobState.NODE, "a node under it failed before it had started"),
    -17: (JobState.REFUSED, "a hook of the site has deleted it"),
    -19: (JobState.REFUSED, "a hook of the site has deleted it"),
    -20: (JobState.NODE, "its first node failed"),
    -21: (JobState.REFUSED, "the security of its node has refused it"),
    -24: (JobState.FAILED, "it used more cores than it had asked for"),
    -25: (JobState.FAILED, "it used more cores than it had asked for"),
    -26: (JobState.MEMORY, "it used more virtual memory than it had asked for"),
    -27: (JobState.MEMORY, "it used more memory than it had asked for"),
    -28: (JobState.WALLTIME, "it used more processor time than it had asked for"),
    -29: (JobState.WALLTIME, "it was ended at its time limit"),
}
TERMINATED = "91"  # substate of a job that was deleted
SILENT = re.compile(
    r"cannot connect|connection (refused|timed? ?out|reset)|no server|server (is )?(busy|shutting)|pbs_iff|errno"
    r"|communication failure|protocol|end of file|timed out|no default server|Premature end",
    re.IGNORECASE,
)


def parse_json(text: str) -> dict[str, Any] | None:
    """The object in `text`. PBS prints values of a user's environment that make it no JSON: those are left out."""
    for attempt in (text, re.sub(r'"Variable_List":\{.*?\n\s*\},?\s*\n(?=\s*")', "", text, flags=re.DOTALL)):
        try:
            found = json.loads(attempt, strict=False)
        except ValueError:
            continue
        return found if isinstance(found, dict) else None
    return None


def jobs(found: dict[str, Any]) -> Iterator[Job]:
    listed = found.get("Jobs")
    for number, values in (listed if isinstance(listed, dict) else {}).items():
        if isinstance(values, dict) and "job_state" in values:
            yield job_of(str(number), values)


def job_of(number: str, values: dict[str, Any]) -> Job:
    asked, used = _table(values, "Resource_List"), _table(values, "resources_used")
    word = str(values["job_state"])
    comment = sentence(str(values.get("comment", "")))
    status = _whole(values.get("Exit_status"))
    started = moment(values.get("stime"))
    ended = 0.0
    if word in ("F", "X"):
        state, reason = _ended(values, status, seconds(str(used.get("walltime", ""))))
        ended = moment(values.get("obittime")) or moment(values.get("mtime"))
    elif word == "H" and "too many failed attempts" in comment:
        state, reason = JobState.REFUSED, comment
    elif word in ALIVE:
        state, reason = ALIVE[word]
        reason = comment if comment and state in (JobState.PENDING, JobState.HELD) else reason
    else:
        log.warning("job_state_unknown", scheduler="pbs", job=number, word=word)
        state, reason = JobState.UNKNOWN, "it was moved to another server" if word == "M" else comment
    hosts = [part.partition("/")[0] for part in str(values.get("exec_host", "")).split("+")]
    queue = str(values.get("queue", ""))
    return Job(
        id=number,
        token=str(values.get("Job_Name", "")),
        state=state,
        word=word,
        reason=reason,
        queue=queue,
        reservation=queue if re.fullmatch(r"[RSM]\d+", queue) else "",
        nodes=tuple(dict.fromkeys(host for host in hosts if host)),
        submitted_at=moment(values.get("ctime")) or moment(values.get("qtime")),
        starts_at=moment(_table(values, "estimated").get("start_time")) if word in "QHW" else 0.0,
        started_at=started,
        ended_at=ended,
        exit_status=status,
        walltime_s=seconds(str(asked.get("walltime", ""))),
    )


def _ended(values: dict[str, Any], status: int | None, elapsed_s: float) -> tuple[JobState, str]:
    comment = str(values.get("comment", ""))
    if "too many failed attempts" in comment:
        return JobState.REFUSED, sentence(comment)
    if status is not None and status < 0:
        return OWN.get(status, (JobState.FAILED, f"PBS ended it ({status})"))
    if str(values.get("substate", "")) == TERMINATED or status is None:
        return JobState.CANCELLED, "it was deleted" if "stime" in values else "it was deleted before it started"
    if status == 0:
        return JobState.DONE, ""
    limits = [
        seconds(str(_table(values, "Resource_List").get("walltime", ""))),
        seconds(str(_table(values, "Variable_List").get(WARNED, ""))),
    ]
    for limit in limits:
        if limit and elapsed_s >= limit - 1:
            return JobState.WALLTIME, f"it was ended after {elapsed_s:g} s, at its time limit ({limit:g} s)"
    if status == 256 + 15:
        return JobState.CANCELLED, "it was deleted"
    if status > 128:
        return JobState.FAILED, f"it ended by signal {status - (256 if status > 256 else 128)}"
    return JobState.FAILED, f"it ended with exit status {status}"


def sentence(comment: str) -> str:
    """A comment without the words that only say it again: `Not Running: Insufficient amount of resource: ncpus`."""
    text = re.sub(r"^(Not Running|Can Never Run):\s*", "", " ".join(comment.split()), flags=re.IGNORECASE)
    if comment.lower().startswith("can never run"):
        text = f"it can never run: {text}"
    return text.rstrip(".")[:300]


def queues(found: dict[str, Any]) -> dict[str, Queue]:
    listed = found.get("Queue")
    made = {}
    for name, values in (listed if isinstance(listed, dict) else {}).items():
        if not isinstance(values, dict):
            continue
        counts = dict(re.findall(r"(\w+):(\d+)", str(values.get("state_count", ""))))
        on = all(str(values.get(key, "True")) == "True" for key in ("enabled", "started"))
        limit = seconds(str(_table(values, "resources_max").get("walltime", "")))
        waiting = sum(int(counts.get(key, 0)) for key in ("Queued", "Held", "Waiting"))
        nodes = _whole(_table(values, "resources_available").get("nodect")) or 0
        busy = _whole(_table(values, "resources_assigned").get("nodect")) or 0
        made[name] = Queue(name, on, limit, nodes, max(0, nodes - busy), waiting)
    return made


def reservations(text: str) -> dict[str, Reservation]:
    """By the queue that stands for each, from `pbs_rstat -f`."""
    made = {}
    for block in re.split(r"^(?:Resv|Reservation) ID:\s*", text, flags=re.MULTILINE | re.IGNORECASE)[1:]:
        # A long value goes on in the next line, after a tab.
        lines = re.sub(r"\n\t", "", block).splitlines()
        values = {k.strip(): v.strip() for k, _, v in (line.partition(" = ") for line in lines[1:])}
        name = values.get("queue") or lines[0].partition(".")[0].strip()
        nodes = tuple(dict.fromkeys(re.findall(r"\(([^:()+]+)", values.get("resv_nodes", ""))))
        users = [user.partition("@")[0] for user in values.get("Authorized_Users", "").split(",") if user]
        made[name] = Reservation(
            name=name,
            from_at=moment(values.get("reserve_start")),
            until_at=moment(values.get("reserve_end")),
            queue=name,
            nodes=nodes,
            node_count=_whole(values.get("Resource_List.nodect")) or len(nodes),
            accounts=tuple(group for group in values.get("Authorized_Groups", "").split(",") if group),
            users=tuple(dict.fromkeys(users)),
            active=values.get("reserve_state") in ("RESV_RUNNING", "5"),
        )
    return made


def moment(value: object) -> float:
    text = str(value or "").strip()
    if text.isdecimal():
        return float(text)
    try:
        return datetime.strptime(text, "%a %b %d %H:%M:%S %Y").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return 0.0


def _table(values: dict[str, Any], name: str) -> dict[str, Any]:
    found = values.get(name)
    return found if isinstance(found, dict) else {}


def _whole(value: object) -> int | None:
    try:
        return int(str(value))
    except ValueError:
        return None
