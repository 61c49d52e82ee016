"""The words about jobs: whom a scheduler does not let in, and what is a mere refusal."""

from __future__ import annotations

import pytest

from orchestrator.jobs import NotLetIn, Refused, refusal


@pytest.mark.parametrize(
    "words",
    [
        "Your Kerberos ticket has expired",
        "Credentials cache expired",
        "No valid credentials were found",
        "Invalid credential",
        "Invalid user id",
        "user@host: Permission denied (publickey).",
        "Your account has expired; please contact your administrator",
        "expired token, log in again",
    ],
)
def test_who_is_not_let_in_any_more(words: str) -> None:
    assert type(refusal(f"Slurm does not take the job: {words}")) is NotLetIn


@pytest.mark.parametrize(
    "words",
    [
        "Invalid account or account/partition combination specified",
        "User's group not permitted to use this partition",
        "Access/permission denied",
        "qsub: Unauthorized Request",
        "Requested time limit is invalid (missing or exceeds some limit)",
        "Job violates accounting/QOS policy",
        "Unknown queue",
        "the reservation has expired",
    ],
)
def test_a_wrong_request_is_a_refusal(words: str) -> None:
    assert type(refusal(f"Slurm does not take the job: {words}")) is Refused
