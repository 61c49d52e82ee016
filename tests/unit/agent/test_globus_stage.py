"""A transfer stage between Globus collections, as a worker carries it out."""

from __future__ import annotations

import functools
import threading
import time
from pathlib import Path

import pytest

from orchestrator.agent import globus_stage, wrapper
from orchestrator.model import FailureClass, Order, Outcome, StageKind
from orchestrator.transfer.globus.transfer import GlobusTransfer
from tests.globus import CLIENT, SECRET
from tests.globus.ends import Ends


@pytest.fixture(autouse=True)
def home(ends: Ends, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of an installation whose settings name the client."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "settings.toml").write_text(f'globus_client = "{CLIENT}"\nglobus_secret = "{SECRET}"\n')
    monkeypatch.setenv("BEAMWAY_HOME", str(home))
    monkeypatch.setattr(globus_stage, "LOOK_S", (0.05, 0.1))
    monkeypatch.setattr(globus_stage, "GlobusTransfer", functools.partial(GlobusTransfer, retries=0))
    return home


def called(ends: Ends, *, attempt: int = 1, source: str | list[str] = "a.h5", to: str = "in/a.h5") -> Outcome:
    raw, archive = f"globus://{ends.raw.id}/", f"globus://{ends.archive.id}/"
    given = raw + source if isinstance(source, str) else [raw + each for each in source]
    order = Order(f"r.0.{attempt}", StageKind.TRANSFER, "01", arguments={"from": given, "to": archive + to})
    return wrapper._call_transfer(order)


def test_it_moves_files_and_says_how_far_it_is(ends: Ends, capfd: pytest.CaptureFixture[str]) -> None:
    ends.globus.faults.bytes_per_s = 1_000_000
    outcome = called(ends)
    assert (outcome.failure, outcome.reason) == (None, "")
    assert [(p.path, p.bytes) for p in outcome.products] == [(f"globus://{ends.archive.id}/in/a.h5", 100_000)]
    assert outcome.transfer_s > 0
    assert ends.arrived()
    said = capfd.readouterr().out
    assert "progress 0.0000 0 B of 100 kB" in said
    assert "moved 1 files" in said


def test_a_list_goes_into_a_folder(ends: Ends) -> None:
    ends.fill("b.h5")
    assert called(ends, source=["a.h5", "b.h5"], to="both").failure is None
    assert called(ends, source=["a.h5"], to="one", attempt=2).failure is None
    assert ends.arrived("both/b.h5", "b.h5")
    assert ends.arrived("one/a.h5")


def test_a_hold_has_its_link_and_the_next_attempt_takes_the_transfer_over(ends: Ends) -> None:
    ends.archive.paused = "new disks"
    held = called(ends)
    (task,) = ends.globus.tasks
    assert (held.failure, held.link) == (FailureClass.DOWN, f"https://app.globus.org/activity/{task}/overview")
    assert "new disks" in held.reason
    ends.archive.paused = ""
    assert called(ends, attempt=2).failure is None
    assert list(ends.globus.tasks) == [task]
    assert called(ends, attempt=3).failure is None  # a stage that is run again is one of its own
    assert len(ends.globus.tasks) == 2


def test_an_attempt_that_is_ended_ends_its_transfer(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    ends.globus.faults.trouble = "CONNECTION_RESET"
    sleep = time.sleep

    def ended(seconds: float) -> None:
        if threading.current_thread() is threading.main_thread():
            raise wrapper.Ended
        sleep(seconds)

    monkeypatch.setattr(time, "sleep", ended)
    with pytest.raises(wrapper.Ended):
        called(ends)
    assert [t.cancelled for t in ends.globus.tasks.values()] == [True]


def test_silence_is_not_failure_but_a_hold(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(globus_stage, "SILENCE_S", 0.0)
    ends.globus.faults.answer("POST", "transfer$", times=99, performed=True)
    outcome = called(ends)
    assert outcome.failure is FailureClass.DOWN
    ends.globus.faults.answers.clear()
    assert called(ends, attempt=2).failure is None
    assert len(ends.globus.tasks) == 1


def test_one_end_on_a_disk_is_refused(ends: Ends, tmp_path: Path) -> None:
    arguments = {"from": str(tmp_path / "raw/a.h5"), "to": f"globus://{ends.archive.id}/a.h5"}
    outcome = wrapper._call_transfer(Order("r.0.1", StageKind.TRANSFER, "01", arguments=arguments))
    assert outcome.failure is FailureClass.USER
    assert "is not an address" in outcome.reason


def test_settings_without_a_client_say_so(ends: Ends, home: Path) -> None:
    (home / "settings.toml").unlink()
    outcome = called(ends)
    assert outcome.failure is FailureClass.USER
    assert "globus_client" in outcome.reason
