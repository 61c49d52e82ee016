"""What happens to Globus transfers when Globus, its collections or this process are in trouble."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.errors import Unavailable
from orchestrator.model import FailureClass
from orchestrator.outside import EFFECTS
from orchestrator.settings import Secret
from orchestrator.transfer.base import TransferStatus
from orchestrator.transfer.globus.transfer import GlobusTransfer
from tests.globus import CLIENT, SECRET
from tests.globus.ends import Ends, polled

SUBMIT = ("POST", r"/v0\.10/transfer$")

# ----------------------------------------------------------------------------------------------------------- held


def trouble(ends: Ends) -> None:
    ends.globus.faults.trouble = "CONNECT_FAILED"


def expire(ends: Ends) -> None:
    ends.globus.faults.credential_expired = True


def pause(ends: Ends) -> None:
    ends.archive.paused = "new disks until noon"


def deny(ends: Ends) -> None:
    ends.archive.may_write = False


@pytest.mark.parametrize(
    ("begin", "failure", "words"),
    [
        (trouble, FailureClass.DOWN, "CONNECT_FAILED"),
        (expire, FailureClass.AUTHENTICATION, "expired"),
        (pause, FailureClass.DOWN, "new disks until noon"),
        (deny, FailureClass.AUTHENTICATION, "PERMISSION_DENIED"),
    ],
)
def test_a_task_that_waits_is_held_and_goes_on(
    ends: Ends, begin: Callable[[Ends], None], failure: FailureClass, words: str
) -> None:
    begin(ends)
    ends.transfer.submit("t.1", ends.request())
    state = ends.polled(TransferStatus.HELD)
    (task,) = ends.globus.tasks
    assert (state.failure, state.link) == (failure, f"https://app.globus.org/activity/{task}/overview")
    assert words in state.reason
    ends.globus.faults.trouble, ends.globus.faults.credential_expired = "", False
    ends.archive.paused, ends.archive.may_write = "", True
    assert ends.transfer.submit("t.1", ends.request()).status is not TransferStatus.FAILED  # as a hold asks again
    assert ends.polled().status is TransferStatus.DONE
    assert list(ends.globus.tasks) == [task]


def test_a_full_quota_is_held_and_another_task_does_the_rest(ends: Ends) -> None:
    ends.fill("scan/one.h5")
    ends.fill("scan/two.h5")
    ends.archive.quota = 150_000
    ends.transfer.submit("t.1", ends.request("/scan", "/scan"))
    state = ends.polled(TransferStatus.HELD)
    assert state.failure is FailureClass.DOWN
    assert "no room" in state.reason
    assert ends.transfer.poll("t.1") == state
    ends.archive.quota = None
    ends.transfer.submit("t.1", ends.request("/scan", "/scan"))
    report = ends.polled().report
    assert report is not None
    assert (report.files, report.skipped) == (2, 1)
    assert len(ends.globus.tasks) == 2


def test_a_task_without_hope_is_ended(ends: Ends) -> None:
    ends.globus.faults.trouble = "FILE_NOT_FOUND"
    ends.transfer.submit("t.1", ends.request())
    state = ends.polled()
    assert (state.status, state.failure) == (TransferStatus.FAILED, FailureClass.BAD_INPUT)
    assert [t.cancelled for t in ends.globus.tasks.values()] == [True]


def test_what_is_held_can_be_cancelled(ends: Ends) -> None:
    ends.archive.quota = 10
    ends.transfer.submit("t.1", ends.request())
    ends.polled(TransferStatus.HELD)
    ends.transfer.cancel("t.1")
    assert ends.polled().status is TransferStatus.CANCELLED


def test_a_missing_consent_is_given_by_the_client_itself(ends: Ends) -> None:
    ends.archive.data_access = True
    ends.transfer.submit("t.1", ends.request())
    assert ends.polled().status is TransferStatus.DONE


def test_a_consent_that_is_refused_is_held(ends: Ends) -> None:
    ends.raw.data_access = ends.raw.refuses_consent = True
    state = ends.transfer.submit("t.1", ends.request())
    assert (state.status, state.failure) == (TransferStatus.HELD, FailureClass.AUTHENTICATION)
    assert state.link == f"https://app.globus.org/file-manager/collections/{ends.raw.id}/overview"
    assert "consent" in state.reason
    ends.raw.refuses_consent = False
    ends.transfer.poll("t.1")
    assert ends.polled().status is TransferStatus.DONE


def test_a_client_that_is_not_known_any_more_is_held(ends: Ends) -> None:
    ends.globus.faults.sign_in_refused = True
    state = ends.transfer.submit("t.1", ends.request())
    assert (state.status, state.failure) == (TransferStatus.HELD, FailureClass.AUTHENTICATION)
    assert state.link == "https://app.globus.org/settings/developers"
    assert SECRET not in state.reason
    ends.globus.faults.sign_in_refused = False
    ends.transfer.submit("t.1", ends.request())
    assert ends.polled().status is TransferStatus.DONE


def test_expired_tokens_are_renewed(ends: Ends) -> None:
    ends.transfer.submit("t.1", ends.request())
    ends.globus.forget_tokens()
    assert ends.polled().status is TransferStatus.DONE


def test_a_collection_that_is_down_is_held(ends: Ends) -> None:
    body = {"code": "ExternalError.DirListingFailed.GCDisconnected", "message": "not connected"}
    ends.globus.faults.answer("GET", f"{ends.raw.id}/stat", status=502, body=body)
    state = ends.transfer.submit("t.1", ends.request())
    assert (state.status, state.failure) == (TransferStatus.HELD, FailureClass.DOWN)
    ends.transfer.poll("t.1")
    assert ends.polled().status is TransferStatus.DONE


def test_a_task_that_globus_shows_no_more_is_not_taken_for_gone(ends: Ends) -> None:
    ends.globus.faults.bytes_per_s = 100_000
    ends.transfer.submit("t.1", ends.request())
    (task,) = ends.globus.tasks
    hidden = ends.globus.tasks.pop(task)
    state = ends.transfer.poll("t.1")
    assert (state.status, state.failure) == (TransferStatus.HELD, FailureClass.AUTHENTICATION)
    ends.globus.tasks[task] = hidden
    assert ends.polled().status is TransferStatus.DONE


# ------------------------------------------------------------------------------------------------ answers that are lost


@pytest.mark.parametrize("lost", [1, 9])
def test_a_lost_answer_to_the_submission(ends: Ends, lost: int) -> None:
    ends.globus.faults.answer(*SUBMIT, times=lost, performed=True)
    if lost == 1:  # the SDK asks again by itself
        ends.transfer.submit("t.1", ends.request())
    else:
        with pytest.raises(Unavailable, match="does not answer"):
            ends.transfer.submit("t.1", ends.request())
        ends.globus.faults.answers.clear()
        found = ends.again().find("t.1")
        assert found is not None
    assert ends.polled().status is TransferStatus.DONE
    assert len(ends.globus.tasks) == 1


def test_a_submission_that_did_not_arrive_is_made_once(ends: Ends) -> None:
    ends.globus.faults.answer(*SUBMIT, times=9)
    with pytest.raises(Unavailable):
        ends.transfer.submit("t.1", ends.request())
    ends.globus.faults.answers.clear()
    found = ends.again().find("t.1")
    assert found is not None
    assert found.status is TransferStatus.PENDING
    assert not ends.globus.tasks  # to look for it does not begin it
    assert ends.polled().status is TransferStatus.DONE
    assert len(ends.globus.tasks) == 1


def test_unreachable_is_never_absent(ends: Ends) -> None:
    ends.globus.faults.bytes_per_s = 200_000
    ends.transfer.submit("t.1", ends.request())
    ends.globus.faults.answer("GET", "/task", times=99)
    for ask in (ends.transfer.find, ends.transfer.poll):
        with pytest.raises(Unavailable):
            ask("t.1")
    ends.globus.faults.answers.clear()
    assert ends.polled().status is TransferStatus.DONE


@pytest.mark.parametrize(
    ("status", "headers", "words"),
    [(429, {"Retry-After": "1"}, "Wait 1 s"), (429, {}, "fewer requests"), (503, {}, "out of order")],
)
def test_too_many_requests_and_a_service_in_trouble(
    ends: Ends, status: int, headers: dict[str, str], words: str
) -> None:
    ends.globus.faults.answer("GET", "/submission_id", status=status, headers=headers, times=2)
    with pytest.raises(Unavailable, match=words):
        ends.transfer.submit("t.1", ends.request())
    ends.transfer.submit("t.1", ends.request())
    assert ends.polled().status is TransferStatus.DONE


def test_one_busy_answer_is_waited_for(ends: Ends) -> None:
    ends.globus.faults.answer(*SUBMIT, status=429, headers={"Retry-After": "1"})
    begun = time.monotonic()
    ends.transfer.submit("t.1", ends.request())
    assert time.monotonic() - begun >= 1
    assert ends.polled().status is TransferStatus.DONE


def test_cancelling_what_globus_took_unheard(ends: Ends) -> None:
    ends.globus.faults.trouble = "CONNECTION_RESET"
    ends.globus.faults.answer(*SUBMIT, times=9, performed=True)
    with pytest.raises(Unavailable):
        ends.transfer.submit("t.1", ends.request())
    ends.globus.faults.answers.clear()
    ends.again().cancel("t.1")
    assert ends.polled().status is TransferStatus.CANCELLED
    assert next(iter(ends.globus.tasks.values())).cancelled


def test_cancelling_what_globus_never_heard_of(ends: Ends) -> None:
    ends.globus.faults.answer(*SUBMIT, times=9)
    with pytest.raises(Unavailable):
        ends.transfer.submit("t.1", ends.request())
    ends.transfer.cancel("t.1")
    assert ends.transfer.poll("t.1").status is TransferStatus.CANCELLED
    assert not ends.globus.tasks


# ------------------------------------------------------------------------------------------------------ its final name

RENAME = ("POST", r"/rename$")


@pytest.mark.parametrize("performed", [True, False])
def test_a_lost_answer_to_the_renaming(ends: Ends, performed: bool) -> None:
    ends.globus.faults.answer(*RENAME, performed=performed)
    ends.transfer.submit("t.1", ends.request())
    assert ends.polled().status is TransferStatus.DONE
    assert ends.arrived()
    assert not ends.parts()


def test_what_appears_under_the_final_name_meanwhile_is_left_alone(ends: Ends) -> None:
    other = ends.archive.root / "in" / "a.h5"

    def appear(_source: Path) -> None:
        other.write_text("of somebody else")

    ends.globus.faults.during_file = appear
    ends.transfer.submit("t.1", ends.request())
    state = ends.polled()
    assert (state.status, state.failure) == (TransferStatus.FAILED, FailureClass.TRANSIENT)
    assert "has appeared as '/in/a.h5'" in state.reason
    assert other.read_text() == "of somebody else"


def test_a_collection_that_does_not_rename_holds_and_may_be_written_to_at_once(ends: Ends) -> None:
    body = {"code": "ExternalError.RenameFailed.NotSupported", "message": "no such operation"}
    ends.globus.faults.answer(*RENAME, times=9, status=502, body=body)
    ends.transfer.submit("t.1", ends.request())
    state = ends.polled(TransferStatus.HELD)
    assert "no such operation" in state.reason
    assert state.link
    ends.transfer.submit("t.2", ends.request(direct=True))
    assert ends.polled(token="t.2").status is TransferStatus.DONE
    assert ends.arrived()


# --------------------------------------------------------------------------------------------- this process is killed

PROGRAM = """
import sys, time
from pathlib import Path
from orchestrator.settings import Secret
from orchestrator.transfer.base import TRANSFER_ENDED, TransferRequest
from orchestrator.transfer.globus.transfer import GlobusTransfer

client, secret, folder, source, destination, cancels = sys.argv[1:]
with GlobusTransfer(client, Secret(secret), Path(folder)) as transfer:
    transfer.submit("t.1", TransferRequest(source, destination))
    if cancels:
        transfer.cancel("t.1")
    while transfer.poll("t.1").status not in TRANSFER_ENDED:
        time.sleep(0.05)
"""


def carried_out(ends: Ends, crash: str, cancels: str = "") -> int:
    request = ends.request()
    arguments = [CLIENT, SECRET, str(ends.folder), request.source, request.destination, cancels]
    environment = {**os.environ, "BEAMWAY_CRASH": crash, "BEAMWAY_CRASH_MARK": str(ends.folder.parent / "mark")}
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments], env=environment, check=False, timeout=60
    ).returncode


@pytest.mark.parametrize(
    "point",
    [f"{name}:{when}" for name in ("globus.note", "globus.submit", "file.publish") for when in ("before", "after")],
)
def test_killed_at_each_point_it_is_moved_once(ends: Ends, point: str) -> None:
    assert carried_out(ends, point) == -signal.SIGKILL
    assert carried_out(ends, point) == 0
    assert ends.arrived()
    assert not ends.parts()
    assert len(ends.globus.tasks) == 1


def test_killed_at_every_point_of_one_transfer(ends: Ends) -> None:
    points = ",".join(
        f"{name}:{when}" for name in EFFECTS if name.startswith("globus.") for when in ("before", "after")
    )
    ends.globus.faults.trouble = "CONNECTION_RESET"  # it goes on for as long as it is not cancelled
    ends_with = [carried_out(ends, points, "cancel") for _ in range(7)]
    assert ends_with == [-signal.SIGKILL] * 6 + [0]
    assert [t.cancelled for t in ends.globus.tasks.values()] == [True]


def test_killed_in_the_middle_it_goes_on(ends: Ends) -> None:
    ends.globus.faults.bytes_per_s = 200_000
    request = ends.request()
    arguments = [CLIENT, SECRET, str(ends.folder), request.source, request.destination, ""]
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, *arguments])
    while not ends.parts():
        time.sleep(0.01)
    process.kill()
    process.wait()
    with GlobusTransfer(CLIENT, Secret(SECRET), ends.folder) as transfer:
        assert transfer.find("t.1") is not None
        state = polled(transfer, "t.1", lambda s: s.status is TransferStatus.DONE)
    assert state.report is not None
    assert len(ends.globus.tasks) == 1
