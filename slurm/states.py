"""Slurm's words for the states of jobs and for why they wait, as ours (the manual pages of squeue and sacct, 22.05 to
24.11, and "Job Reason Codes" of its documentation)."""

from __future__ import annotations

import re

from orchestrator.jobs import JobState

# Full word (squeue %T, sacct State) and short one (%t): both are read.
STATES: dict[str, JobState] = {
    "PENDING": JobState.PENDING,
    "PD": JobState.PENDING,
    "REQUEUED": JobState.PENDING,
    "RQ": JobState.PENDING,
    "REQUEUE_FED": JobState.PENDING,
    "RF": JobState.PENDING,
    "REQUEUE_HOLD": JobState.HELD,
    "RH": JobState.HELD,
    "RESV_DEL_HOLD": JobState.HELD,
    "RD": JobState.HELD,
    "SPECIAL_EXIT": JobState.HELD,
    "SE": JobState.HELD,
    "CONFIGURING": JobState.RUNNING,  # its nodes are granted and being made ready
    "CF": JobState.RUNNING,
    "RUNNING": JobState.RUNNING,
    "R": JobState.RUNNING,
    "RESIZING": JobState.RUNNING,
    "RS": JobState.RUNNING,
    "SIGNALING": JobState.RUNNING,
    "SI": JobState.RUNNING,
    "EXPEDITING": JobState.RUNNING,
    "EX": JobState.RUNNING,
    "SUSPENDED": JobState.SUSPENDED,
    "S": JobState.SUSPENDED,
    "STOPPED": JobState.SUSPENDED,
    "ST": JobState.SUSPENDED,
    "COMPLETING": JobState.ENDING,
    "CG": JobState.ENDING,
    "STAGE_OUT": JobState.ENDING,
    "SO": JobState.ENDING,
    "COMPLETED": JobState.DONE,
    "CD": JobState.DONE,
    "FAILED": JobState.FAILED,
    "F": JobState.FAILED,
    "CANCELLED": JobState.CANCELLED,
    "CA": JobState.CANCELLED,
    "REVOKED": JobState.CANCELLED,  # a sister cluster of the federation has it
    "RV": JobState.CANCELLED,
    "TIMEOUT": JobState.WALLTIME,
    "TO": JobState.WALLTIME,
    "DEADLINE": JobState.WALLTIME,
    "DL": JobState.WALLTIME,
    "OUT_OF_MEMORY": JobState.MEMORY,
    "OOM": JobState.MEMORY,
    "NODE_FAIL": JobState.NODE,
    "NF": JobState.NODE,
    "PREEMPTED": JobState.PREEMPTED,
    "PR": JobState.PREEMPTED,
    "BOOT_FAIL": JobState.REFUSED,
    "BF": JobState.REFUSED,
    "LAUNCH_FAILED": JobState.REFUSED,
    "LF": JobState.REFUSED,
    "RECONFIG_FAIL": JobState.REFUSED,
}

# A job that waits for one of these waits until a person acts.
_HELD = {"JobHeldAdmin", "JobHeldUser", "JobHoldMaxRequeue", "ReservationDeleted"}
# With one of these it is never started, and Slurm keeps it in the queue all the same.
_NEVER = {
    "AccountNotAllowed",
    "BadConstraints",
    "DeadLine",
    "DependencyNeverSatisfied",
    "InvalidAccount",
    "InvalidQOS",
    "JobLaunchFailure",
    "QOSNotAllowed",
}

REASONS: dict[str, str] = {
    "AccountingPolicy": "waits: a limit of the accounting is reached",
    "AccountNotAllowed": "waits in vain: its account may not use this partition",
    "BadConstraints": "waits in vain: no nodes here can ever meet what it asks for",
    "BeginTime": "waits for its earliest start time; after a preemption or failure Slurm sets one",
    "BurstBufferOperation": "waits: its burst buffer has failed",
    "BurstBufferResources": "waits for room in the burst buffer",
    "BurstBufferStageIn": "waits for its data in the burst buffer",
    "Cleaning": "waits: its earlier start is still being cleaned up",
    "Constraints": "waits: the nodes with the features it asks for are not free",
    "DeadLine": "waits in vain: it cannot end before its deadline",
    "Dependency": "waits for another job that it depends on",
    "DependencyNeverSatisfied": "waits in vain: the job it depends on has failed",
    "FedJobLock": "waits for the clusters of the federation to agree",
    "FrontEndDown": "waits: no front end is up",
    "InactiveLimit": "was ended: the system's limit on inactivity was reached",
    "InvalidAccount": "waits in vain: its account is not valid",
    "InvalidQOS": "waits in vain: its QOS is not valid",
    "JobArrayTaskLimit": "waits: the job array has as many running tasks as it allows itself",
    "JobHeldAdmin": "is held by an administrator; ask the site to release it",
    "JobHeldUser": "is held by its own account; `scontrol release` lets it go on",
    "JobHoldMaxRequeue": "is held: it was requeued too often; ask the site to release it",
    "JobLaunchFailure": "could not be started on its node, or was killed there",
    "Licenses": "waits for a licence",
    "MaxBBPerAccount": "waits: its account has as much burst buffer in use as it may",
    "MaxCpuPerAccount": "waits: its account uses as many CPUs as it may",
    "MaxJobsPerAccount": "waits: its account has as many jobs as it may",
    "MaxMemPerLimit": "waits: it asks for more memory per CPU than the partition allows",
    "MaxPoweredUpNodes": "waits: as many nodes are powered up as the site allows",
    "NodeDown": "waits: a node it needs is down",
    "NonZeroExitCode": "ended with an exit status other than 0",
    "None": "",
    "OutOfMemory": "used more memory than it had",
    "PartitionConfig": "waits: it asks for more than the partition allows",
    "PartitionDown": "waits: the partition is down",
    "PartitionInactive": "waits: the partition starts no jobs at present",
    "PartitionNodeLimit": "waits: it asks for more nodes than the partition allows, or they are down",
    "PartitionTimeLimit": "waits: it asks for more time than the partition allows",
    "PowerNotAvail": "waits: the power budget is used up",
    "PowerReserved": "waits: the power it needs is reserved",
    "Priority": "waits: jobs with a higher priority are before it",
    "Prolog": "waits: the node is being prepared for it",
    "QOSJobLimit": "waits: its QOS has as many jobs as it may",
    "QOSNotAllowed": "waits in vain: its QOS may not be used here",
    "QOSResourceLimit": "waits: its QOS uses as much as it may",
    "QOSTimeLimit": "waits: its QOS has used up its time",
    "QOSUsageThreshold": "waits: the use of its QOS is below the threshold it needs",
    "RaisedSignal": "was ended by a signal",
    "ReqNodeNotAvail": "waits: a node it needs is down, drained or reserved",
    "Reservation": "waits for its reservation to open",
    "ReservationDeleted": "is held: its reservation was deleted",
    "Resources": "waits for free nodes",
    "SchedDefer": "waits: the scheduler defers new jobs for the moment",
    "SystemFailure": "failed with Slurm itself or a node",
    "TimeLimit": "was ended at its time limit",
}

# Families of limits, such as AssocGrpCpuLimit, QOSMaxGRESPerUser, MaxNodePerAccount
_LIMIT = re.compile(
    r"(?P<who>Assoc|QOS|Q)?(?P<kind>Grp|Max|Min)(?P<what>[A-Z]\w*?)(?:(?P<per>Per(?:Job|User|Account|Node))?(?:Limit)?)$"
)
_WHO = {"Assoc": "its account", "QOS": "its QOS", "Q": "its QOS", None: "the site"}
_KIND = {
    "Grp": "the limit of {who} on {what}, for all its jobs together, is reached",
    "Max": "the limit of {who} on {what} is reached",
    "Min": "it asks for less {what} than {who} wants",
}


def state(word: str, reason: str = "") -> JobState:
    """Of a word such as `CANCELLED by 1000` or `COMPLETING`; the reason says which waiting jobs are held."""
    found = STATES.get(word.split()[0].rstrip("+").upper() if word.split() else "", JobState.UNKNOWN)
    if found is JobState.PENDING:
        code = _code(reason)
        if code in _HELD or "launch failed requeued held" in reason:
            return JobState.HELD
    return found


def never_starts(reason: str) -> bool:
    return _code(reason) in _NEVER


def sentence(reason: str, *, state: JobState) -> str:
    """Why it waits, is held or ended. What Slurm says is given as it is where we have no words for it."""
    reason = reason.strip(" ()")
    code = _code(reason)
    if code in REASONS:
        said = REASONS[code]
        rest = reason[len(code) :].strip(" ,()")
        return f"{said} ({rest})" if said and rest else said
    if not code:
        return ""
    limit = _LIMIT.fullmatch(code)
    if limit:
        what = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", limit["what"]).lower()
        return f"waits: {_KIND[limit['kind']].format(who=_WHO[limit['who']], what=what)} ({code})"
    verb = "waits" if state in (JobState.PENDING, JobState.HELD) else "Slurm says"
    return f"{verb}: {reason}"


def _code(reason: str) -> str:
    words = re.split(r"[\s,(:]", reason.strip().lstrip("("), maxsplit=1)
    return words[0].rstrip(")")
