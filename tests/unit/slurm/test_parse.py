"""Text of Slurm 22.05, as recorded, and text that nobody wrote."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.jobs import JobState
from slurm import parse

AT = 1795341600.0  # 2026-11-22T10:00:00 UTC


def squeue_line(**changes: str) -> str:
    fields = {
        "id": "12",
        "state": "PENDING",
        "partition": "regular",
        "reservation": "",
        "nodes": "",
        "submitted": "2026-11-22T10:00:00",
        "starts": "N/A",
        "ends": "N/A",
        "limit": "1:00:00",
        "reason": "Resources",
        "name": "bw-one",
    }
    return "|".join((fields | changes).values())


def one(**changes: str) -> parse.Job:
    (job,) = parse.squeue(squeue_line(**changes))
    return job


def test_a_waiting_job() -> None:
    job = one(starts="2026-11-22T10:05:00")
    assert (job.id, job.token, job.state, job.word) == ("12", "bw-one", JobState.PENDING, "PENDING")
    assert job.reason == "waits for free nodes"
    assert (job.submitted_at, job.starts_at, job.started_at, job.ended_at) == (AT, AT + 300, 0.0, 0.0)
    assert (job.queue, job.nodes, job.walltime_s, job.exit_status) == ("regular", (), 3600.0, None)


def test_a_running_job_has_begun_and_has_not_ended() -> None:
    job = one(state="RUNNING", nodes="n[1-2]", starts="2026-11-22T10:05:00", ends="2026-11-22T11:05:00", reason="None")
    assert (job.state, job.nodes, job.started_at, job.ended_at, job.starts_at) == (
        JobState.RUNNING,
        ("n1", "n2"),
        AT + 300,
        0.0,
        0.0,
    )


def test_an_ended_job_keeps_its_times_and_says_how() -> None:
    job = one(state="TIMEOUT", starts="2026-11-22T10:05:00", ends="2026-11-22T11:05:00", reason="TimeLimit")
    assert (job.state, job.started_at, job.ended_at) == (JobState.WALLTIME, AT + 300, AT + 3900)
    assert job.reason == "was ended at its time limit"
    assert one(state="COMPLETED", reason="None").exit_status == 0
    assert one(state="FAILED", reason="None").reason


def test_a_job_that_never_starts_is_refused_though_slurm_keeps_it() -> None:
    assert one(reason="DependencyNeverSatisfied").state is JobState.REFUSED
    assert one(reason="ReservationDeleted").state is JobState.HELD


def test_a_name_may_hold_the_separator() -> None:
    assert one(name="a|b|c").token == "a|b|c"


def test_the_accounting_has_exit_status_and_signal() -> None:
    line = "7|FAILED|3:0|regular||n1|2026-11-22T10:00:00|2026-11-22T10:00:01|2026-11-22T10:00:02|60|None|bw-x"
    killed = line.replace("3:0", "0:9")
    (job,) = parse.sacct(line)
    assert (job.state, job.exit_status, job.walltime_s) == (JobState.FAILED, 3, 3600.0)
    (job,) = parse.sacct(killed)
    assert job.exit_status is None


@pytest.mark.parametrize("line", ["", "slurm_load_jobs error: Unable to contact", "1|2|3", "|" * 10])
def test_foreign_lines_are_left_out(line: str) -> None:
    assert list(parse.squeue(line)) == []
    assert list(parse.sacct(line)) == []


@given(st.text())
def test_no_text_raises(text: str) -> None:
    list(parse.squeue(text + "|" * 10))
    list(parse.sacct(text + "|" * 11))
    parse.sinfo(text)
    parse.reservations(text)
    parse.moment(text)
    parse.duration(text)
    parse.hosts(text)
    parse.test_only(text)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("n1", ["n1"]),
        ("n[1-3]", ["n1", "n2", "n3"]),
        ("nid[008-010,099],gpu1", ["nid008", "nid009", "nid010", "nid099", "gpu1"]),
        ("r[1-2]n[1-2]", ["r1n1", "r1n2", "r2n1", "r2n2"]),
        ("x[1-2]-ib", ["x1-ib", "x2-ib"]),
        ("(null)", []),
        ("", []),
        ("n[1-999999999]", ["n[1-999999999]"]),
        ("n[a-b]", ["n[a-b]"]),
    ],
)
def test_hosts(text: str, names: list[str]) -> None:
    assert list(parse.hosts(text)) == names


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1-12:00:00", 129_600), ("2:00:00", 7200), ("30:00", 1800), ("UNLIMITED", 0), ("infinite", 0), ("INVALID", 0)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse.duration(text) == seconds


def test_partitions() -> None:
    queues = parse.sinfo(
        "regular|up|infinite|1/2/1/4\ndebug|down|30:00|0/4/0/4\nbig|up|2-00:00:00|1.5K/0/0/2K\nnonsense\n",
        "regular\nregular,debug\n",
    )
    assert set(queues) == {"regular", "debug", "big"}
    regular, debug = queues["regular"], queues["debug"]
    assert (regular.open, regular.walltime_s, regular.nodes, regular.idle_nodes, regular.pending) == (True, 0, 4, 2, 2)
    assert (debug.open, debug.walltime_s, debug.pending) == (False, 1800, 1)
    assert queues["big"].nodes == 2048


def test_reservations() -> None:
    text = (
        "ReservationName=beam StartTime=2026-11-22T10:00:00 EndTime=2026-11-22T11:00:00 Duration=01:00:00 "
        "Nodes=n[1-2] NodeCnt=2 CoreCnt=4 Features=(null) PartitionName=regular Flags= TRES=cpu=4 Users=root,ana "
        "Groups=(null) Accounts=(null) Licenses=(null) State=INACTIVE BurstBuffer=(null) Watts=n/a MaxStartDelay=(null)"
    )
    beam = parse.reservations(text + "\n")["beam"]
    assert (beam.from_at, beam.until_at, beam.queue, beam.nodes) == (AT, AT + 3600, "regular", ("n1", "n2"))
    assert (beam.users, beam.accounts, beam.active) == (("root", "ana"), (), False)
    assert parse.reservations("No reservations in the system\n") == {}


def test_the_scheduler_s_estimate() -> None:
    said = "sbatch: Job 9 to start at 2026-11-22T10:00:00 using 1 processors on nodes n1 in partition regular"
    assert parse.test_only(said) == AT
    assert parse.test_only("allocation failure: Invalid account") is None
