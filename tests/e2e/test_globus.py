"""Stages between Globus collections in the whole product, through the real SDK."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from orchestrator.client import Client
from orchestrator.model import FailureClass, Run, RunStatus
from orchestrator.settings import Settings
from tests.conftest import submit, wait, workflow
from tests.globus import CLIENT, SECRET
from tests.globus.ends import Ends
from tests.globus.world import Collection


def staged(ends: Ends, to: str = "in/a.h5") -> dict[str, Any]:
    addresses = {"from": f"globus://{ends.raw.id}/a.h5", "to": f"globus://{ends.archive.id}/{to}"}
    return workflow(s1={"transfer": addresses}, s2={"command": "true"})


@pytest.fixture
def home(home: Path, ends: Ends) -> Path:
    """One that knows the client of Globus, and is gone before Globus is."""
    home.mkdir(mode=0o700)
    (home / "settings.toml").write_text(f'globus_client = "{CLIENT}"\nglobus_secret = "{SECRET}"\n')
    return home


def test_a_file_is_held_and_arrives_once(ends: Ends, home: Path, client: Client) -> None:
    ends.archive.paused = "new disks until noon"
    run_id = submit(client, staged(ends))
    hold = held(client, run_id).tasks[0].hold
    assert hold is not None
    (task,) = ends.globus.tasks
    assert (hold.cause, hold.link) == (FailureClass.DOWN, f"https://app.globus.org/activity/{task}/overview")
    assert "new disks until noon" in hold.reason
    ends.archive.paused = ""
    assert client.resume(run_id) == (run_id,)
    assert wait(client, run_id).status is RunStatus.DONE
    assert ends.arrived()
    assert list(ends.globus.tasks) == [task]
    kept = [p for p in home.rglob("*") if p.is_file() and p.name != "settings.toml"]
    assert kept
    assert not [p for p in kept if SECRET.encode() in p.read_bytes()]


def held(client: Client, run_id: str) -> Run:
    deadline = time.monotonic() + 60
    while (run := client.run(run_id)).status is not RunStatus.HELD:
        assert time.monotonic() < deadline, run
        time.sleep(0.05)
    return run


def test_each_hold_says_what_kind_it_is_and_where_it_is_mended(ends: Ends, home: Path, client: Client) -> None:
    """A full quota, a consent that the client cannot give, and an expired credential, side by side."""
    full, mapped = ends.globus.collection(home.parent / "full"), ends.globus.collection(home.parent / "mapped")
    full.quota, mapped.data_access, mapped.refuses_consent = 10, True, True

    def moved(to: Collection) -> str:
        return submit(client, workflow(s1={"transfer": {"from": f"globus://{ends.raw.id}/a.h5", "to": to.address}}))

    expected = {
        moved(full): (FailureClass.DOWN, "no room", "activity"),
        moved(mapped): (FailureClass.AUTHENTICATION, "consent", f"collections/{mapped.id}"),
    }
    for run_id, (cause, words, link) in expected.items():
        hold = held(client, run_id).tasks[0].hold
        assert hold is not None
        assert hold.cause is cause
        assert words in hold.reason
        assert link in hold.link
    ends.globus.faults.credential_expired = True
    late = moved(ends.archive)
    hold = held(client, late).tasks[0].hold
    assert hold is not None
    assert (hold.cause, "expired" in hold.reason) == (FailureClass.AUTHENTICATION, True)
    full.quota, mapped.refuses_consent, ends.globus.faults.credential_expired = None, False, False
    for run_id in (*expected, late):
        client.resume(run_id)
    for run_id in (*expected, late):
        assert wait(client, run_id).status is RunStatus.DONE
    for to in (full, mapped, ends.archive):
        assert (to.root / "in" / "a.h5").read_bytes() == (ends.raw.root / "a.h5").read_bytes()


def test_cancelling_what_is_held_ends_its_task(ends: Ends, home: Path, client: Client) -> None:
    """Also when the answer to that is lost."""
    ends.archive.paused = "new disks until noon"
    run_id = submit(client, staged(ends))
    held(client, run_id)
    (task,) = ends.globus.tasks.values()
    ends.globus.faults.answer("POST", "/cancel$", performed=True)
    client.cancel(run_id)
    assert wait(client, run_id).status is RunStatus.ABORTED
    assert task.cancelled
    ends.archive.paused = ""
    task.thread.join(20)
    assert not (ends.archive.root / "in" / "a.h5").exists()
    client.retry(run_id)  # another task does it
    assert wait(client, run_id).status is RunStatus.DONE
    assert ends.arrived()
    assert len(ends.globus.tasks) == 2


def test_what_cannot_be_cancelled_says_where_it_can(ends: Ends, home: Path, client: Client) -> None:
    """The secret was taken away: nobody may ask Globus for the end of the task."""
    ends.archive.paused = "new disks until noon"
    run_id = submit(client, staged(ends))
    held(client, run_id)
    ends.globus.faults.sign_in_refused = True
    ends.globus.forget_tokens()
    client.cancel(run_id)
    run = wait(client, run_id)
    assert run.status is RunStatus.ABORTED
    outcome = run.tasks[0].outcome
    assert outcome is not None
    assert "may go on until its deadline" in outcome.reason
    assert outcome.link.startswith("https://")


def test_a_worker_killed_around_the_submission_moves_it_once(
    ends: Ends, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = ("globus.note:after", "globus.submit:before", "globus.submit:after")
    monkeypatch.setenv("BEAMWAY_CRASH", ",".join(points))
    monkeypatch.setenv("BEAMWAY_CRASH_MARK", str(tmp_path / "killed"))
    with Client(Settings(home=home)) as client:
        run = wait(client, submit(client, staged(ends)))
        client.stop_service()
    assert all((tmp_path / f"killed.{point}").exists() for point in points)
    assert (run.status, run.tasks[0].attempt) == (RunStatus.DONE, 4)
    assert ends.arrived()
    assert len(ends.globus.tasks) == 1
