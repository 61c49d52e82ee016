"""What Grid Engine's commands print, read: pure functions from text to records. Nothing here raises on foreign text.

The commands are asked with TZ=UTC, so that their times, which name no zone, are UTC.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from xml.etree import ElementTree

import structlog
from msgspec import Struct

from orchestrator.jobs import Job, JobState

log = structlog.get_logger()

LETTERS = frozenset("qwhrtRsSTNdEPz")
RECORD = re.compile(r"^={20,}\s*$", re.MULTILINE)
LIMIT = re.compile(r"\b(h_rt|s_rt|h_vmem)=([^\s,]+)")
SILENT = re.compile(
    r"commlib|unable to (send|contact|initialize)|gdi request|receive timeout|error communicating"
    r"|got (select|send) error|can't (get|resolve|connect)|SGE_ROOT|cell directory",
    re.IGNORECASE,
)
NEVER_STARTED = {*range(1, 12), *range(13, 19), 26, 27, 28, 29, 31, 32, 33, 34, 35, 36}  # sge_status(5), before the job
NODE_FAILED = {19, 20, 21, 22, 23}  # the execution daemon lost sight of the job


class Listed(Struct, frozen=True):
    """One job of `qstat -xml -r`, with the owner and the slots that `Job` has no place for."""

    job: Job
    owner: str
    queue_asked: str


def parse_xml(text: str) -> ElementTree.Element | None:
    try:
        return ElementTree.fromstring(text)
    except ElementTree.ParseError:
        return None


def listed(root: ElementTree.Element) -> Iterator[Listed]:
    for node in root.iter("job_list"):
        number = _text(node, "JB_job_number")
        if not number:
            continue
        word = _text(node, "state")
        state, reason = state_of(word)
        if state is JobState.UNKNOWN:
            log.warning("job_state_unknown", scheduler="sge", job=number, word=word)
        limits = {n.get("name", ""): n.text or "" for n in node.iter("hard_request")}
        queue, _, host = _text(node, "queue_name").partition("@")
        asked = _text(node, "hard_req_queue")
        started = moment(_text(node, "JAT_start_time"))
        job = Job(
            id=number,
            token=_text(node, "full_job_name") or _text(node, "JB_name"),
            state=state,
            word=word,
            reason=reason,
            queue=queue or asked,
            nodes=(host,) if host else (),
            submitted_at=moment(_text(node, "JB_submission_time")),
            started_at=started if state not in (JobState.PENDING, JobState.HELD, JobState.REFUSED) else 0.0,
            walltime_s=seconds(limits.get("h_rt", "")),
        )
        yield Listed(job, _text(node, "JB_owner"), asked)


def state_of(word: str) -> tuple[JobState, str]:
    """The state and its reason for a word of `qstat`, such as `qw`, `hRwq`, `dr` or `Eqw`."""
    letters = set(word)
    if not letters or letters - LETTERS:
        return JobState.UNKNOWN, ""
    if "E" in letters:
        return JobState.REFUSED, "it could not be started and stays in the queue in error"
    if "z" in letters:
        return JobState.ENDING, "it has ended, and the accounting has no record of it yet"
    if "d" in letters:
        return JobState.ENDING, "it is being deleted"
    if letters & {"s", "S", "T", "N", "P"}:
        return JobState.SUSPENDED, "the queue is suspended" if "S" in letters else "it is suspended"
    if "r" in letters:
        return JobState.RUNNING, ""
    if "h" in letters:
        return JobState.HELD, "it is held by a user, by an operator or by a job that comes first"
    if "t" in letters:
        return JobState.PENDING, "it is being sent to its node"
    if "R" in letters:
        return JobState.PENDING, "it waits to be run again"
    return JobState.PENDING, ""


def reasons(text: str) -> dict[str, str]:
    """Why the jobs of a `qstat -j` wait or are in error, by id: one sentence each."""
    found: dict[str, str] = {}
    for block in RECORD.split(text):
        values = _fields(block)
        number = values.get("job_number", [""])[0]
        errors = [line for key, lines in values.items() if key.startswith("error reason") for line in lines]
        if errors:
            # Each begins with the moment and the account: `11/21/2026 09:38:53 [0:3967]: error: can't chdir …`.
            found[number] = re.sub(r"^.*?\]:\s*(error:\s*)?", "", errors[-1]).strip().rstrip(".")
        elif waits := values.get("scheduling info"):
            best = [line for line in waits if line.startswith(("cannot run", "(-", "job "))] or waits
            found[number] = "; ".join(dict.fromkeys(line.rstrip(".") for line in best[:2]))
    return {number: " ".join(reason.split())[:300] for number, reason in found.items() if number and reason}


def accounted(text: str) -> Iterator[tuple[str, Job]]:
    """Owner and job of each record of `qacct -j`, in the order of the accounting, which is that of their ends."""
    for block in RECORD.split(text):
        values = {key: lines[0] for key, lines in _fields(block, colon=False).items()}
        if "jobnumber" not in values:
            continue
        category = values.get("category", "")
        limits = dict(LIMIT.findall(category))
        started, ended = moment(values.get("start_time", "")), moment(values.get("end_time", ""))
        status = _leading_number(values.get("exit_status", ""))
        failed = _leading_number(values.get("failed", "")) or 0
        state, reason = _ended(failed, values.get("failed", ""), status, ended - started, limits, values)
        host = values.get("hostname", "")
        arid = values.get("arid", "undefined")
        yield (
            values.get("owner", ""),
            Job(
                id=values["jobnumber"],
                token=values.get("jobname", ""),
                state=state,
                word=f"failed {failed}, exit_status {status}",
                reason=reason,
                queue=values.get("qname", ""),
                reservation="" if arid in ("undefined", "0") else arid,
                nodes=(host,) if host not in ("", "-/-", "UNKNOWN") else (),
                submitted_at=moment(values.get("qsub_time", "")),
                started_at=started,
                ended_at=ended,
                exit_status=status,
                walltime_s=seconds(limits.get("h_rt", "")),
            ),
        )


def _ended(
    failed: int, words: str, status: int | None, elapsed_s: float, limits: dict[str, str], values: dict[str, str]
) -> tuple[JobState, str]:
    if failed == 0 and status == 0:
        return JobState.DONE, ""
    for name in ("h_rt", "s_rt"):
        # Times are whole seconds, so one is lost at each end.
        limit = seconds(limits.get(name, ""))
        if limit and elapsed_s >= limit - 1:
            return JobState.WALLTIME, f"it was ended after {elapsed_s:g} s, at its time limit ({name} {limit:g} s)"
    wanted, used = amount(limits.get("h_vmem", "")), amount(values.get("maxvmem", ""))
    if wanted and used >= 0.97 * wanted:
        return JobState.MEMORY, f"it used {values.get('maxvmem', '')} of memory and had asked for {limits['h_vmem']}"
    if failed == 37:
        return JobState.WALLTIME, "Grid Engine enforced its limit of time or memory"
    if failed in NODE_FAILED:
        return JobState.NODE, f"its node lost it ({_after_colon(words)})"
    if failed in NEVER_STARTED:
        return JobState.REFUSED, f"it could not be started ({_after_colon(words)})"
    if status is not None and status > 128:
        return JobState.FAILED, f"it ended by signal {status - 128}"
    return JobState.FAILED, f"it ended with exit status {status}" if status else _after_colon(words)


def instances(root: ElementTree.Element) -> dict[str, list[tuple[str, int, int, str]]]:
    """Host, used and all slots, and state of each instance, by queue, from `qstat -f -xml`."""
    found: dict[str, list[tuple[str, int, int, str]]] = {}
    for node in root.iter("Queue-List"):
        queue, _, host = _text(node, "name").partition("@")
        used = int(seconds(_text(node, "slots_used")) + seconds(_text(node, "slots_resv")))
        found.setdefault(queue, []).append((host, used, int(seconds(_text(node, "slots_total"))), _text(node, "state")))
    return found


def queue_limits(text: str) -> dict[str, float]:
    """The longest walltime of each queue, 0 for none, from `qconf -sq`."""
    limits: dict[str, float] = {}
    name = ""
    for line in text.replace("\\\n", " ").splitlines():
        key, _, value = line.partition(" ")
        if key == "qname":
            name = value.strip()
            limits[name] = 0.0
        elif key == "h_rt" and name:
            limits[name] = seconds(value.strip().split(",")[0])  # hosts may have their own, after commas
    return limits


def seconds(text: str) -> float:
    """A number, or `[[H:]M:]S`; 0 for INFINITY and what is not a time."""
    total = 0.0
    for part in text.split(":"):
        try:
            total = total * 60 + float(part)
        except ValueError:
            return 0.0
    return total if total == total and total not in (float("inf"), float("-inf")) else 0.0


def amount(text: str) -> float:
    """Bytes of `100M`, `3.398MB` or `12G`; 0 for what is not an amount. Small letters are powers of 1000."""
    match = re.fullmatch(r"([0-9.]+)\s*([kKmMgGtT]?)[bBs]*", text.strip())
    if not match:
        return 0.0
    try:
        number = float(match[1])
    except ValueError:
        return 0.0
    power = "kmgt".find(match[2].lower()) + 1 if match[2] else 0
    return number * float(1000 if match[2].islower() else 1024) ** power


def _fields(block: str, *, colon: bool = True) -> dict[str, list[str]]:
    """`key: value` (or `key value`) lines; a line that begins with blanks goes on with the key above it."""
    found: dict[str, list[str]] = {}
    key = ""
    for line in block.splitlines():
        if line[:1].isspace():
            if key and line.strip():
                found[key].append(line.strip())
            continue
        name, _, value = line.partition(":" if colon else " ")
        key = re.sub(r"\s+\d+$", "", name.strip())
        if key:
            found.setdefault(key, []).append(value.strip())
    return found


def _text(node: ElementTree.Element, tag: str) -> str:
    return (node.findtext(tag) or "").strip()


def moment(text: str) -> float:
    for layout in ("%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S.%f", "%a %b %d %H:%M:%S %Y"):
        try:
            return datetime.strptime(text, layout).replace(tzinfo=UTC).timestamp()
        except ValueError:
            continue
    return 0.0


def _leading_number(text: str) -> int | None:
    match = re.match(r"-?\d+", text.strip())
    return int(match[0]) if match else None


def _after_colon(words: str) -> str:
    return words.partition(":")[2].strip() or words.strip()
