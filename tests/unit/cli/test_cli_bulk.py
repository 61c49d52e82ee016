"""Dead letters and wishes for many runs, without a service: what is asked of the client, and what is printed."""

from __future__ import annotations

import time

import pytest
from cli_samples import ID, Beamway, FakeClient, failed

from orchestrator.store.letters import Letter

OTHER = "3f2a8c1e-0000-4000-8000-000000000002"


@pytest.fixture
def letters(client: FakeClient) -> FakeClient:
    """Two dead letters: of a minute ago and of three hours ago."""
    now = time.time()
    for run_id, ago_s in ((ID, 60.0), (OTHER, 3 * 3600.0)):
        client.known[run_id] = failed()
        client.letters[run_id] = Letter(
            run_id, now - ago_s, "recon", "e1", "far", "01-A", "user error", "it ended with 3"
        )
    return client


def test_the_list(letters: FakeClient, beamway: Beamway) -> None:
    said = beamway("dead", "ls", "--experiment", "e1", "--site", "far")
    assert said.exit_code == 0
    assert all(word in said.out for word in (ID, OTHER, "user error", "it ended with 3"))
    assert letters.asked == [("dead", "experiment=e1", "site=far")]
    (record,) = beamway("dead", "ls", "--since", "2h", "--json").json
    assert (record["run_id"], record["failure"], record["fixes"]) == (ID, "user error", {})


@pytest.mark.parametrize("text", ["soon", "2 fortnights", "-1"])
def test_a_length_of_time_that_is_none(text: str, letters: FakeClient, beamway: Beamway) -> None:
    said = beamway("dead", "ls", f"--since={text}")
    assert said.exit_code == 2
    assert "is no length of time" in said.err


def test_fix_and_resend(letters: FakeClient, beamway: Beamway) -> None:
    assert beamway("dead", "resend", ID, "--json").json == {"id": ID, "instead_of": None}
    assert "begins another run in its place" in beamway("dead", "fix", ID, "axis:12").out
    assert beamway("dead", "fix", ID, "n:2", "--json").json["fixes"] == {"axis": "12", "n": "2"}
    assert beamway("dead", "resend", ID, "--json").json == {"id": f"{ID}-again", "instead_of": ID}
    assert beamway("dead", "fix", ID).exit_code == 2


def test_dismiss(letters: FakeClient, beamway: Beamway) -> None:
    assert beamway("dead", "dismiss", ID).out == f"Run {ID} is off the list.\n"
    assert list(letters.letters) == [OTHER]


def test_many_are_retried_the_oldest_first(letters: FakeClient, beamway: Beamway) -> None:
    said = beamway("retry", "--failed", "--workflow", "recon")
    assert (said.exit_code, said.out) == (0, "2 of 2 runs begun again.\n")
    assert letters.asked == [("dead", "workflow=recon"), ("resend", OTHER), ("resend", ID)]


def test_a_dry_run_changes_nothing(letters: FakeClient, beamway: Beamway) -> None:
    assert beamway("retry", "--failed", "--since", "2h", "--dry-run").out == f"{ID}\n"
    told = beamway("retry", "--failed", "--since", "2h", "--dry-run", "--json").json
    assert told == {"dry_run": True, "runs": [{"id": ID, "now": ID, "refused": None}]}
    assert not any(asked[0] == "resend" for asked in letters.asked)


def test_one_that_is_refused_does_not_stop_the_others(
    letters: FakeClient, beamway: Beamway, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = list(letters.letters.values())
    monkeypatch.setattr(letters, "dead", lambda **_: listed)
    del letters.letters[OTHER]  # somebody else was faster
    said = beamway("retry", "--failed", "--json")
    assert said.exit_code == 1
    assert [(t["id"], t["now"] is None) for t in said.json["runs"]] == [(OTHER, True), (ID, False)]
    assert "not on the list" in said.json["runs"][0]["refused"]


def test_many_are_cancelled(client: FakeClient, beamway: Beamway) -> None:
    client.known[ID] = failed()
    said = beamway("cancel", "--all", "--workflow", "recon")
    assert said.exit_code == 1
    assert "is over" in said.err
    asked = {words[1:3] for words in client.asked if words[0] == "runs"}
    assert asked == {(f"status={status}", "workflow=recon") for status in ("pending", "running", "held")}


@pytest.mark.parametrize(
    "words",
    [
        ["retry"],
        ["cancel"],
        ["retry", ID, "--failed"],
        ["retry", ID, "--since", "2h"],
        ["cancel", ID, "--dry-run"],
        ["retry", "--failed", "--from", "01-A"],
        ["retry", "--since", "2h"],
    ],
)
def test_one_run_or_many(words: list[str], letters: FakeClient, beamway: Beamway) -> None:
    assert beamway(*words).exit_code == 2
    assert not letters.asked
