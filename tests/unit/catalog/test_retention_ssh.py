"""Copies on a host by ssh: a real sshd."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.catalog import content
from tests.sshd import Sshd, missing
from tests.unit.catalog.keep import Beamline, E

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sshd]:
    """Which ssh reaches by the configuration of the test, as it would by that of the account."""
    with Sshd() as made:
        wrapper = tmp_path / "bin" / "ssh"
        wrapper.parent.mkdir()
        wrapper.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {made.config} "$@"\n')
        wrapper.chmod(0o755)
        monkeypatch.setenv("PATH", f"{wrapper.parent}:{os.environ['PATH']}")
        yield made


def test_archived_pruned_restored_and_removed(alone: Beamline, host: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[str] = []
    fetch = content._fetched
    monkeypatch.setattr(content, "_fetched", lambda url: (fetched.append(url), fetch(url))[1])
    alone.places = f'[place.tape]\naddress = "{host.url()}"\n'
    file = alone.file("scan 1\n%.h5")
    [archived] = alone.keeping().archive(file.name, to="tape")
    assert archived.verdict == "archived", archived
    assert Path(f"{host.root}/{E}{file.name}").read_bytes() == b"frames"
    [pruned] = alone.apply()
    assert (pruned.verdict, fetched) == ("pruned", []), pruned
    [restored] = alone.keeping().restore(file.name)
    assert (restored.verdict, Path(file.name).read_bytes()) == ("restored", b"frames"), restored
    alone.rules = '[[rule]]\nplaces = "tape"\nkeep = "90 days"\n'
    [removed] = alone.apply()
    assert (removed.verdict, len(fetched)) == ("pruned", 1), removed
    assert [p for p in host.root.rglob("*") if p.is_file()] == []


def test_corrupted_or_away(alone: Beamline, host: Sshd) -> None:
    alone.places = f'[place.tape]\naddress = "{host.url()}"\n'
    file = alone.file("a.h5")
    (host.root / "a.h5").write_bytes(b"fRames")
    alone.copy(file, "tape", host.url("a.h5"))
    [done] = alone.apply()
    assert (done.verdict, done.trouble) == ("refused", "corrupted")
    alone.copy(file, "tape", host.url("a.h5"))
    host.kill()
    [done] = alone.apply()
    assert (done.verdict, done.trouble) == ("refused", "unreachable")
    assert alone.raw() == ["a.h5"]
