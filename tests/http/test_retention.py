"""Retention over HTTP: line by line, by the client, for those who may."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import xxhash

from orchestrator.errors import Conflict, Denied, NotFound, SettingsError, UserError
from orchestrator.settings import Settings
from orchestrator.store import catalog
from orchestrator.store.catalog import CatalogFile, Replica, ReplicaState
from orchestrator.store.database import Database
from tests.http.conftest import Running

RULES = '[place.tape]\naddress = "{tape}"\n[[rule]]\nname = "raw"\nplaces = "local"\nkeep = "90 days"\n'


def scan(running: Running, path: Path, experiment: str) -> CatalogFile:
    path.write_bytes(b"frames")
    checksum = f"xxh3:{xxhash.xxh3_128_hexdigest(b'frames')}"
    file = CatalogFile(experiment, str(path), 6, checksum, added_at=time.time() - 1e7)
    with Database(Settings(home=running.home).database_url) as database, database.write() as connection:
        [number] = catalog.put(connection, [file])
        catalog.put_replica(connection, Replica(number, "local", str(path), ReplicaState.VERIFIED))
    return file


@pytest.fixture
def tape(running: Running, tmp_path: Path) -> Path:
    folder = tmp_path / "tape"
    folder.mkdir()
    (running.home / "retention.toml").write_text(RULES.format(tape=folder))
    return folder


def test_the_client_is_the_same_over_http(running: Running, tmp_path: Path, tape: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(str(tmp_path)) + b"/scan\xff.h5"))
    scan(running, path, "e1")
    moved: list[tuple[str, int, int]] = []
    with running.client() as client:
        keeps = client.retention
        assert [d.verdict for d in keeps.plan(experiment="e1")] == ["keep"]
        [archived] = keeps.archive(str(path), to="tape", moved=lambda *told: moved.append(told))
        assert (archived.verdict, moved[-1]) == ("archived", (str(path), 6, 6))
        assert Path(archived.address).read_bytes() == b"frames"
        pin = keeps.pin(str(path), reason="figure 3")
        assert (pin.who, keeps.pins("e1")) == ("a operator", [pin])
        assert list(keeps.apply(experiment="e1", dry_run=False)) == []
        keeps.unpin(str(path))
        assert [d.verdict for d in keeps.apply(experiment="e1")] == ["would prune"]
        assert [d.verdict for d in keeps.apply(experiment="e1", dry_run=False)] == ["pruned"]
        assert not path.exists()
        [restored] = keeps.restore("", experiment="e1")
        assert (restored.verdict, path.read_bytes()) == ("restored", b"frames")
        log = keeps.log(experiment="e1")
        assert [row.verdict for row in log] == ["restored", "pruned", "unpinned", "pinned", "archived"]
        assert log[1].evidence["who"] == "a operator"
        assert keeps.log(experiment="e1", before=log[1].id, limit=1)[0].verdict == "unpinned"


def test_whoever_goes_away_ends_it_and_the_next_one_goes_on(running: Running, tmp_path: Path, tape: Path) -> None:
    for number in range(40):
        scan(running, tmp_path / f"{number}.h5", "e2")
    with running.client() as client:
        assert len(list(client.retention.archive("", experiment="e2", to="tape"))) == 40
        first = client.retention.apply(experiment="e2", dry_run=False)
        assert next(first).verdict == "pruned"
        first.close()  # type: ignore[attr-defined]
        over = time.monotonic() + 60
        while True:
            try:
                rest = list(client.retention.apply(experiment="e2", dry_run=False))
                break
            except Conflict:  # it is still at the copy that it was at
                assert time.monotonic() < over
                time.sleep(0.1)
        assert all(done.good for done in rest)
        rows = client.retention.log(experiment="e2", limit=1000)
    assert sorted(r.file_id for r in rows if r.verdict == "pruned") == sorted({r.file_id for r in rows})
    assert list(tmp_path.glob("*.h5*")) == []


def test_who_may(running: Running, tape: Path) -> None:
    with running.client("author") as client:
        assert list(client.retention.plan(experiment="none")) == []
        assert client.retention.log(experiment="none") == []
        for wish in (
            lambda: list(client.retention.apply(experiment="none")),
            lambda: list(client.retention.archive("1", to="tape")),
            lambda: list(client.retention.restore("1")),
            lambda: client.retention.pin("", experiment="none"),
            lambda: client.retention.unpin("", experiment="none"),
        ):
            with pytest.raises(Denied, match="may not remove, archive, restore or pin"):
                wish()


def test_mistakes_keep_their_class(running: Running, tape: Path) -> None:
    with running.client() as client:
        with pytest.raises(NotFound, match="no file or collection"):
            list(client.retention.restore("/gone"))
        with pytest.raises(NotFound):
            client.retention.log(file="/gone")
        with pytest.raises(UserError, match="Name a file"):
            list(client.retention.restore(""))
        (running.home / "retention.toml").write_text("rules = 1")
        with pytest.raises(SettingsError, match="Did you mean 'rule'"):
            list(client.retention.plan())


def test_nobody_may_say_what_is_not_known(running: Running, tape: Path) -> None:
    answer = running.ask("POST", "/retention/apply", json={"dryrun": False})
    assert answer.status_code == 400
