"""Slurm's words as ours."""

from __future__ import annotations

import pytest

from orchestrator.jobs import JobState
from slurm import states

# All of job_state_string() in Slurm 24.11: base states and flags.
DOCUMENTED = {
    "PENDING": JobState.PENDING,
    "RUNNING": JobState.RUNNING,
    "SUSPENDED": JobState.SUSPENDED,
    "COMPLETED": JobState.DONE,
    "CANCELLED": JobState.CANCELLED,
    "FAILED": JobState.FAILED,
    "TIMEOUT": JobState.WALLTIME,
    "NODE_FAIL": JobState.NODE,
    "PREEMPTED": JobState.PREEMPTED,
    "BOOT_FAIL": JobState.REFUSED,
    "DEADLINE": JobState.WALLTIME,
    "OUT_OF_MEMORY": JobState.MEMORY,
    "COMPLETING": JobState.ENDING,
    "CONFIGURING": JobState.RUNNING,
    "LAUNCH_FAILED": JobState.REFUSED,
    "RESIZING": JobState.RUNNING,
    "REQUEUED": JobState.PENDING,
    "REQUEUE_FED": JobState.PENDING,
    "REQUEUE_HOLD": JobState.HELD,
    "SPECIAL_EXIT": JobState.HELD,
    "STAGE_OUT": JobState.ENDING,
    "STOPPED": JobState.SUSPENDED,
    "REVOKED": JobState.CANCELLED,
    "RESV_DEL_HOLD": JobState.HELD,
    "RECONFIG_FAIL": JobState.REFUSED,
    "SIGNALING": JobState.RUNNING,
    "EXPEDITING": JobState.RUNNING,
}


@pytest.mark.parametrize(("word", "expected"), DOCUMENTED.items())
def test_every_documented_state_has_a_meaning(word: str, expected: JobState) -> None:
    assert states.state(word) is expected


@pytest.mark.parametrize("word", ["", " ", "MELTED", "?", "R2"])
def test_a_word_that_is_not_known_is_unknown_and_never_an_end(word: str) -> None:
    assert states.state(word) is JobState.UNKNOWN


def test_words_come_with_more_behind_them() -> None:
    assert states.state("CANCELLED by 1000") is JobState.CANCELLED
    assert states.state("CANCELLED+") is JobState.CANCELLED
    assert states.state("cg") is JobState.ENDING


@pytest.mark.parametrize(
    "reason", ["JobHeldUser", "(JobHeldAdmin)", "ReservationDeleted", "(launch failed requeued held)"]
)
def test_a_waiting_job_that_only_a_person_can_free_is_held(reason: str) -> None:
    assert states.state("PENDING", reason) is JobState.HELD
    assert states.state("RUNNING", reason) is JobState.RUNNING


@pytest.mark.parametrize("reason", sorted(set(states.REASONS) - {"None"}))
def test_every_reason_is_a_sentence_without_a_stop(reason: str) -> None:
    said = states.sentence(reason, state=JobState.PENDING)
    assert said.split()[0].rstrip(":") in ("waits", "is", "was", "failed", "ended", "used", "could")
    assert not said.endswith(".")


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("None", ""),
        ("", ""),
        ("(Resources)", "waits for free nodes"),
        (
            "ReqNodeNotAvail, UnavailableNodes:n[1-2]",
            "waits: a node it needs is down, drained or reserved (UnavailableNodes:n[1-2])",
        ),
        (
            "AssocGrpCpuLimit",
            "waits: the limit of its account on cpu, for all its jobs together, is reached (AssocGrpCpuLimit)",
        ),
        (
            "QOSMaxJobsPerUserLimit",
            "waits: the limit of its QOS on jobs is reached (QOSMaxJobsPerUserLimit)",
        ),
        ("MaxNodePerAccount", "waits: the limit of the site on node is reached (MaxNodePerAccount)"),
        ("Solar_flare", "waits: Solar_flare"),
        ("(Nodes required for job are DOWN)", "waits: Nodes required for job are DOWN"),
    ],
)
def test_reasons(reason: str, words: str) -> None:
    assert states.sentence(reason, state=JobState.PENDING) == words


def test_what_never_starts_is_told_from_what_waits() -> None:
    assert states.never_starts("DependencyNeverSatisfied")
    assert not states.never_starts("Dependency")
