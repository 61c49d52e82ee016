"""Transfers through the real globus-sdk and a stand-in that moves real bytes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestrator.errors import NotFound, SettingsError
from orchestrator.model import FailureClass
from orchestrator.settings import Secret
from orchestrator.transfer.base import TransferRequest, TransferStatus
from orchestrator.transfer.globus import place
from orchestrator.transfer.globus.transfer import GlobusTransfer
from tests.globus import CLIENT, SECRET
from tests.globus.ends import Ends, polled

# ------------------------------------------------------------------------------------------------------- the way


def test_a_file_arrives(ends: Ends) -> None:
    assert ends.transfer.find("t.1") is None
    with pytest.raises(NotFound):
        ends.transfer.poll("t.1")
    ends.transfer.submit("t.1", ends.request())
    state = ends.polled()
    assert (state.status, state.bytes_done, state.bytes_total) == (TransferStatus.DONE, 100_000, 100_000)
    assert state.report is not None
    assert (state.report.files, state.report.bytes) == (1, 100_000)
    assert ends.arrived()
    (ends.archive.root / "in/a.h5").unlink()
    assert ends.transfer.submit("t.1", ends.request()) == state  # known: not moved twice
    assert len(ends.globus.tasks) == 1


def test_globus_is_told_how(ends: Ends) -> None:
    ends.transfer.submit("t.1", ends.request())
    (task,) = ends.globus.tasks.values()
    told = task.spec
    assert (told["verify_checksum"], told["skip_source_errors"], told["sync_level"]) == (True, False, 3)
    assert told["fail_on_quota_errors"] is True
    assert [told[f"notify_on_{when}"] for when in ("succeeded", "failed", "inactive")] == [False] * 3
    assert told["label"].startswith("beamway t.1 ")
    assert told["deadline"]
    ends.polled()


def test_a_tree_and_many_files_are_one_task_each(ends: Ends) -> None:
    for name in ("scan/one.h5", "scan/deep/two.h5", "scan/deep/empty"):
        ends.fill(name, size=0 if name.endswith("empty") else 50_000)
    ends.transfer.submit("tree", ends.request("/scan", "/copy"))
    assert ends.polled(token="tree").status is TransferStatus.DONE
    assert ends.arrived("copy/deep/two.h5", "scan/deep/two.h5")
    assert (ends.archive.root / "copy/deep/empty").exists()
    sources = [f"globus://{ends.raw.id}/{name}" for name in ("a.h5", "scan/one.h5", "scan")]
    ends.transfer.submit("many", ends.request(destination="/many", sources=sources))
    assert ends.polled(token="many").status is TransferStatus.DONE
    assert ends.arrived("many/a.h5")
    assert ends.arrived("many/scan/one.h5", "scan/one.h5")
    assert len(ends.globus.tasks) == 2


def test_a_file_goes_into_a_folder(ends: Ends) -> None:
    (ends.archive.root / "there").mkdir()
    for token, destination in (("1", "/there"), ("2", "/new/")):
        ends.transfer.submit(token, ends.request(destination=destination))
        assert ends.polled(token=token).status is TransferStatus.DONE
    assert ends.arrived("there/a.h5")
    assert ends.arrived("new/a.h5")


def test_what_is_there_already_is_not_sent_again(ends: Ends) -> None:
    ends.fill("scan/one.h5")
    ends.fill("scan/two.h5")
    ends.transfer.submit("1", ends.request("/scan", "/scan"))
    ends.polled(token="1")
    os.truncate(ends.archive.root / "scan/two.h5", 7)
    ends.transfer.submit("2", ends.request("/scan", "/scan"))
    report = ends.polled(token="2").report
    assert report is not None
    assert (report.files, report.skipped, report.skipped_bytes) == (2, 1, 100_000)
    assert ends.arrived("scan/two.h5", "scan/two.h5")


def test_nothing_stands_under_its_final_name_before_it_is_whole(ends: Ends) -> None:
    """A file and a tree; the tree appears at once."""
    ends.globus.faults.bytes_per_s = 500_000
    ends.fill("scan.zarr/0/0", 200_000)
    ends.fill("scan.zarr/0/1", 200_000)
    sources = [f"globus://{ends.raw.id}/{name}" for name in ("a.h5", "scan.zarr")]
    ends.transfer.submit("t.1", ends.request(destination="/in/", sources=sources))
    polled(ends.transfer, "t.1", lambda s: s.bytes_done > 200_000)
    assert sorted(p.name.split(".")[0] for p in ends.parts()) == ["a", "scan"]
    assert not (ends.archive.root / "in" / "scan.zarr").exists()
    assert ends.polled().status is TransferStatus.DONE
    assert ends.arrived()
    assert ends.arrived("in/scan.zarr/0/1", "scan.zarr/0/1")
    assert not ends.parts()


def test_progress_rate_and_cancel(ends: Ends) -> None:
    ends.globus.faults.bytes_per_s = 200_000
    ends.fill("scan/one.h5", 10_000)
    ends.fill("scan/two.h5", 2_000_000)
    ends.transfer.submit("t.1", ends.request("/scan", "/scan"))
    state = polled(ends.transfer, "t.1", lambda s: s.bytes_done > 0)
    assert (state.status, state.bytes_done, state.bytes_total) == (TransferStatus.RUNNING, 10_000, 2_010_000)
    assert state.rate == 200_000
    ends.transfer.cancel("t.1")
    state = ends.polled()
    assert (state.status, state.failure) == (TransferStatus.CANCELLED, FailureClass.CANCELLED)
    ends.transfer.cancel("t.1")
    assert ends.transfer.find("t.1") == state


def test_a_task_cancelled_at_globus_is_not_ours(ends: Ends) -> None:
    ends.globus.faults.trouble = "CONNECTION_RESET"
    ends.transfer.submit("t.1", ends.request())
    next(iter(ends.globus.tasks.values())).cancelled = True
    state = ends.polled()
    assert (state.status, state.failure) == (TransferStatus.FAILED, FailureClass.OUTSIDE)


def test_a_deadline_ends_it(ends: Ends) -> None:
    ends.globus.faults.trouble = "CONNECTION_RESET"
    ends.transfer.submit("t.1", ends.request(deadline_s=1))
    state = ends.polled()
    assert (state.status, state.failure) == (TransferStatus.FAILED, FailureClass.TRANSIENT)
    assert "deadline" in state.reason


def test_of_a_tree_of_very_many_folders_only_some_are_looked_into(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "MOST_FOLDERS", 2)
    for number in range(4):
        ends.fill(f"scan/{number}/one.h5", 1000)
    ends.transfer.submit("t.1", ends.request("/scan", "/copy"))
    report = ends.polled().report
    assert report is not None
    assert (report.files, report.bytes) == (4, 4000)
    assert len([p for _, p in ends.globus.requests if p.endswith(f"{ends.raw.id}/ls")]) == 2


# ------------------------------------------------------------------------------------------------- bytes that go wrong


def test_a_corrupted_byte_and_a_broken_connection_are_mended(ends: Ends) -> None:
    ends.globus.faults.corrupt_files = 1
    ends.globus.faults.broken_connections = 1
    ends.transfer.submit("t.1", ends.request())
    assert ends.polled().status is TransferStatus.DONE
    assert ends.arrived()
    (task,) = ends.globus.tasks.values()
    assert task.doc["faults"] == 2


def test_a_source_changed_in_flight_is_not_done(ends: Ends) -> None:
    def change(path: Path) -> None:
        ends.globus.faults.during_file = None
        os.utime(path, (1, 1))

    ends.globus.faults.during_file = change
    ends.transfer.submit("t.1", ends.request())
    state = ends.polled()
    assert (state.status, state.failure) == (TransferStatus.FAILED, FailureClass.TRANSIENT)
    assert "changed while" in state.reason


def test_success_is_not_believed(ends: Ends) -> None:
    ends.fill("scan/one.h5")
    ends.fill("scan/two.h5")
    ends.globus.faults.left_out = "two"
    ends.transfer.submit("1", ends.request("/scan", "/scan"))
    assert "1 of 2 files" in ends.polled(token="1").reason
    ends.globus.faults.left_out = ""
    ends.globus.faults.cut_after_success = 3
    ends.transfer.submit("2", ends.request())
    state = ends.polled(token="2")
    assert (state.status, state.failure) == (TransferStatus.FAILED, FailureClass.TRANSIENT)
    assert "99997 of 100000 bytes" in state.reason
    ends.globus.faults.document = {"files_transferred": 1, "bytes_transferred": 100_000}
    ends.globus.faults.cut_after_success = 0
    ends.globus.faults.left_out = "a.h5"
    ends.transfer.submit("3", ends.request(destination="/never"))
    assert "is not there" in ends.polled(token="3").reason


def test_a_checksum_that_is_known_is_compared(ends: Ends) -> None:
    ends.transfer.submit("t.1", ends.request(checksum="sha256:" + "0" * 64))
    state = ends.polled()
    assert (state.status, state.failure) == (TransferStatus.FAILED, FailureClass.BAD_INPUT)
    assert "another checksum" in state.reason


def test_a_destination_that_may_not_be_looked_at_is_enough(ends: Ends) -> None:
    ends.archive.may_look = False
    ends.transfer.submit("t.1", ends.request())
    assert ends.polled().status is TransferStatus.DONE


# ------------------------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("source", "destination", "words"),
    [
        ("/gone", "/b", "is not there"),
        ("/empty", "/b", "is empty"),
        ("/linked", "/b", "the link"),
        ("/pipe", "/b", "not a regular file"),
    ],
)
def test_a_bad_source_is_bad_input(ends: Ends, source: str, destination: str, words: str) -> None:
    ends.fill("empty", 0)
    ends.fill("linked/a.h5")
    (ends.raw.root / "linked/link").symlink_to("a.h5")
    os.mkfifo(ends.raw.root / "pipe")
    state = ends.transfer.submit("t.1", ends.request(source, destination))
    assert (state.status, state.failure) == (TransferStatus.FAILED, FailureClass.BAD_INPUT)
    assert words in state.reason
    assert not ends.globus.tasks


def test_bad_addresses_are_refused(ends: Ends) -> None:
    good = f"globus://{ends.raw.id}/a.h5"
    for number, (source, destination, words) in enumerate(
        [
            ("/data/a.h5", good, "is not an address"),
            ("globus://nobody/a.h5", good, "is not an address"),
            (f"globus://{ends.raw.id}", good, "is not an address"),
            (good, f"globus://{ends.archive.id}/in/../../etc", "'..'"),
            (good, f"globus://{ends.archive.id}/a\n", "plain text"),
            (good, f"globus://{ends.archive.id}/ok\udcff.h5", "plain text"),
            (good, good, "overlap"),
            (good.replace(ends.raw.id, CLIENT), good, "knows no collection"),
        ]
    ):
        state = ends.transfer.submit(str(number), TransferRequest(source, destination))
        assert (state.status, state.failure) == (TransferStatus.FAILED, FailureClass.USER), source
        assert words in state.reason
        assert state.reason.isprintable()
    for number, options in enumerate(({"sources": [good, good]}, {"sources": [good, f"globus://{CLIENT}/a"]})):
        state = ends.transfer.submit(f"several {number}", ends.request(**options))
        assert (state.status, state.failure) == (TransferStatus.FAILED, FailureClass.USER)
    assert not ends.globus.tasks


def test_a_collection_that_denies_is_a_failure_with_the_name_to_admit(ends: Ends) -> None:
    ends.raw.may_look = False
    state = ends.transfer.submit("t.1", ends.request())
    assert (state.status, state.failure) == (TransferStatus.FAILED, FailureClass.USER)
    assert f"{CLIENT}@clients.auth.globus.org" in state.reason


def test_settings_without_a_client_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="globus_client"):
        GlobusTransfer("", Secret(), tmp_path)


def test_tokens_and_notes_are_for_their_owner_alone(ends: Ends) -> None:
    ends.transfer.submit("t/1", ends.request())
    ends.polled(token="t/1")
    files = [p for p in ends.folder.rglob("*") if p.is_file()]
    assert {p.name for p in files} == {f"tokens.{CLIENT}", "t%2F1.json"}
    assert {p.stat().st_mode & 0o777 for p in files} == {0o600}
    assert not any(SECRET in p.read_text() for p in files)


def test_tokens_are_used_again(ends: Ends) -> None:
    ends.transfer.submit("t.1", ends.request())
    ends.polled()
    before = ends.globus.requests.count(("POST", "/v2/oauth2/token"))
    ends.again().submit("t.2", ends.request(destination="/c"))
    assert ends.globus.requests.count(("POST", "/v2/oauth2/token")) == before
