"""Transfer stages: the same figure of progress whatever carries them, and an end when it is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.agent import output, transfer_stage
from orchestrator.model import FailureClass, Order, StageKind
from orchestrator.transfer import progress
from tests import gridftp, sshd
from tests.gridftp import Gridftp
from tests.sshd import Sshd
from tests.unit.transfer.copies import noise

MB = 1 << 20


def order(tmp_path: Path, **arguments: Any) -> Order:
    given = {"from": arguments.pop("source"), "to": arguments.pop("to"), **arguments}
    return Order("r.1.1", StageKind.TRANSFER, "a", arguments=given, log_dir=str(tmp_path / "logs"))


def told(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line for line in capsys.readouterr().out.splitlines() if output.PROGRESS.match(line.encode())]


def test_local(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "EACH_S", 0.0)
    source = noise(tmp_path / "a", 3 * MB)
    outcome = transfer_stage.call(order(tmp_path, source=str(source), to=str(tmp_path / "b")))
    lines = told(capsys)
    assert outcome.failure is None
    assert outcome.moved_bytes == 3 * MB
    assert outcome.products[0].checksum.startswith("xxh3:")
    assert lines[0].startswith("progress 0.3333 1.05 MB of 3.15 MB")
    assert lines[-1].startswith("progress 1.0000 3.15 MB of 3.15 MB")
    again = transfer_stage.call(order(tmp_path, source=[str(source)], to=str(tmp_path / "c")))
    assert again.failure is None
    assert transfer_stage.call(order(tmp_path, source=str(source), to=str(tmp_path / "b"))).moved_bytes == 0


@pytest.mark.skipif(bool(gridftp.missing()), reason=gridftp.missing())
def test_gridftp(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = noise(tmp_path / "a", 3 * MB)
    with Gridftp() as server:
        outcome = transfer_stage.call(order(tmp_path, source=str(source), to=server.url("b")))
        lines = told(capsys)
        several = [server.url("b"), str(source)]
        both = transfer_stage.call(order(tmp_path, source=several, to=server.url("both")))
    assert (outcome.failure, outcome.moved_bytes) == (None, 3 * MB)
    assert lines[-1].startswith("progress 1.0000 3.15 MB of 3.15 MB")
    assert (both.failure, both.moved_bytes) == (None, 6 * MB)
    assert any(line.endswith("2 of 2") for line in told(capsys))


@pytest.mark.skipif(bool(sshd.missing()), reason=sshd.missing())
def test_rsync(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = noise(tmp_path / "a", 3 * MB)
    with Sshd() as server:
        options = {"ssh_config": str(server.config)}
        outcome = transfer_stage.call(order(tmp_path, source=str(source), to=server.url("b"), options=options))
    assert (outcome.failure, outcome.moved_bytes) == (None, 3 * MB)
    assert told(capsys)[-1].startswith("progress 1.0000 3.15 MB of 3.15 MB")


def test_a_mark_ends_it(tmp_path: Path) -> None:
    """As it ends an attempt on another host, which no signal reaches."""
    source = noise(tmp_path / "a", 3 * MB)
    asked = order(tmp_path, source=str(source), to=str(tmp_path / "b"))
    mark = Path(output.Paths(asked).cancelled)
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.touch()
    assert transfer_stage.call(asked).failure is FailureClass.CANCELLED
    assert not (tmp_path / "b").exists()


def test_who_is_not_let_in_is_on_hold_and_this_site_is_not_to_blame(tmp_path: Path) -> None:
    if reason := sshd.missing():
        pytest.skip(reason)
    source = noise(tmp_path / "a", 10)
    with Sshd() as server:
        options = {"ssh_config": str(server.configured("stranger", key="other", host="host"))}
        outcome = transfer_stage.call(order(tmp_path, source=str(source), to=server.url("b"), options=options))
    assert outcome.failure is FailureClass.AUTHENTICATION
    assert outcome.exit_status == 75
