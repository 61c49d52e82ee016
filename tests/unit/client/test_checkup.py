"""What `beamway doctor` finds: each fault is named with something to do about it, and nothing is changed by looking."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from orchestrator import protocol
from orchestrator.client import checkup
from orchestrator.engine.loop import Engine, new_run
from orchestrator.settings import Settings, ensure_home
from orchestrator.sitecheck import Check, Result
from orchestrator.sitecheck.record import Wrong
from orchestrator.store import tokens
from orchestrator.store.database import HEAD, Database
from tests.conftest import free_port, workflow
from tests.globus import CLIENT, SECRET, Globus


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with a database, without a service."""
    for name in [n for n in os.environ if n.startswith("BEAMWAY_")]:
        monkeypatch.delenv(name)
    home = tmp_path / "home"
    ensure_home(home)
    with opened(home) as database:
        database.upgrade()
    return home


def opened(home: Path) -> Database:
    return Database(Settings(home=home).database_url)


def looked(home: Path) -> dict[str, Check]:
    return {c.name: c for c in checkup.checks(home)}


def wrong(home: Path) -> dict[str, Check]:
    return {name: c for name, c in looked(home).items() if c.result is Result.FAILED}


def tree(home: Path) -> dict[str, tuple[int, bytes]]:
    """All there is, but for SQLite's own two files beside the database."""
    files = [p for p in home.rglob("*") if p.is_file() and not p.name.endswith(("-wal", "-shm"))]
    return {str(p): (p.stat().st_mode, p.read_bytes()) for p in files}


def test_a_home_that_is_well_passes_and_is_not_changed(place: Path) -> None:
    before = tree(place)
    found = looked(place)
    assert [c for c in found.values() if c.result is Result.FAILED] == []
    assert tree(place) == before
    passed = {name for name, c in found.items() if c.result is Result.PASSED}
    assert {"settings", "home", "disk: home", "database", "database: tables", "database: writes", "sites"} <= passed


def test_a_home_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    home = tmp_path / "none"
    assert wrong(home) == {}
    assert not home.exists()


def others_look_in(home: Path) -> None:
    home.chmod(0o755)


def secret_is_open(home: Path) -> None:
    (home / "settings.toml").write_text('token = "bw_0_x"\n')
    (home / "settings.toml").chmod(0o644)


def a_setting_is_unknown(home: Path) -> None:
    (home / "settings.toml").write_text('tokn = "x"\n')


def the_database_is_garbage(home: Path) -> None:
    (home / "beamway.db").write_bytes(b"not a database at all, whatever it is called" * 40)


def the_tables_are_newer(home: Path) -> None:
    with opened(home) as database, database.write() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")


def a_token_ends_soon(home: Path) -> None:
    with opened(home) as database:
        now = time.time()
        tokens.create(database, name="cluster", role="agent", site="far", now=now, expires_at=now + 3600)


def runs_wait_for_an_engine(home: Path) -> None:
    from orchestrator.definition import loader
    from orchestrator.definition.plan import compile_plan

    with opened(home) as database:
        engine = Engine(database, home / "runs", clock=time.time)
        plan = compile_plan(loader.load(workflow(s1={"command": "true"})), {}, directory="/")
        engine.submit(new_run("r", plan, 1.0))
        engine.turn()


def a_profile_is_wrong(home: Path) -> None:
    (home / "sites").mkdir()
    (home / "sites" / "far.toml").write_text("schedular = 1\n")


class Fault(NamedTuple):
    make: Callable[[Path], None]
    check: str
    said: str


FAULTS = [
    Fault(others_look_in, "home", "chmod 700"),
    Fault(secret_is_open, "secrets", "chmod 600"),
    Fault(a_setting_is_unknown, "settings", "Did you mean 'token'"),
    Fault(the_database_is_garbage, "database", "not a database"),
    Fault(the_tables_are_newer, "database: tables", "newer Beamway"),
    Fault(a_token_ends_soon, "tokens in the store", "cluster (agent, 1 h)"),
    Fault(runs_wait_for_an_engine, "engine", "1 runs are not over"),
    Fault(a_profile_is_wrong, "sites", "far.toml"),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f.make.__name__)
def test_each_fault_is_found_alone_and_says_what_to_do(place: Path, fault: Fault) -> None:
    fault.make(place)
    before = tree(place)
    ((name, found),) = wrong(place).items()
    assert name == fault.check
    assert fault.said in f"{found.seen} {found.remedy}"
    assert found.remedy
    assert tree(place) == before


def test_a_disk_that_is_full(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = checkup.shutil.disk_usage(place).free
    monkeypatch.setattr(checkup, "FREE_LEAST_BYTES", free * 2)
    assert "Make room" in wrong(place)["disk: home"].remedy


def test_a_database_that_is_slow(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkup, "WRITE_MOST_S", 0.0)
    assert "fast disk" in wrong(place)["database: writes"].remedy


@pytest.fixture
def hanging(place: Path) -> Iterator[Path]:
    """A service that hears and never answers."""
    with protocol.listen(place):
        yield place


def test_a_service_that_hangs(hanging: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkup, "SOCKET_S", 0.2)
    assert "does not answer" in wrong(hanging)["service"].seen


def test_an_agent_that_is_away_is_named_with_its_last_words(place: Path) -> None:
    (place / "logs").mkdir()
    (place / "logs" / "agent-local.log").write_text("first\nno room on the disk\n")
    listening = protocol.listen(place)

    def answer() -> None:
        connection, _ = listening.accept()
        with connection:
            connection.recv(100)
            connection.sendall(protocol.pack(protocol.Pong(1, "1", (), 0)))

    with listening:
        thread = threading.Thread(target=answer)
        thread.start()
        found = wrong(place)
        thread.join()
    assert set(found) == {"agents"}
    assert "away: local; local last said: no room on the disk" in found["agents"].seen


def test_a_service_that_is_not_there(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setenv("BEAMWAY_URL", url)
    found = wrong(place)
    assert "does not answer" in found[f"service {url}"].seen
    assert "none is set" in found["token"].seen


@pytest.mark.parametrize("theirs", [103.5, 96.0])
def test_clocks_that_differ(theirs: float) -> None:
    with pytest.raises(Wrong, match="s from that of the database") as error:
        checkup._apart(100.0, theirs, 100.1, 2.0, "of the database")
    assert "chrony" in error.value.remedy


def test_clocks_that_agree() -> None:
    assert "agrees" in checkup._apart(100.9, 100.0, 101.0, 2.0, "of a service that tells whole seconds")


def test_postgresql_is_looked_at_and_not_changed(postgres: Any, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = postgres.new_database()
    monkeypatch.setenv("BEAMWAY_DATABASE", url)
    assert wrong(place)["database: tables"].remedy == "beamway db upgrade"
    with Database(url) as database:
        assert database.revision() == "", "looking makes no tables"
        database.upgrade()
    found = looked(place)
    assert [c for c in found.values() if c.result is Result.FAILED] == []
    assert "agrees" in found["clock: database"].seen
    assert HEAD in found["database: tables"].seen
    password = url.split(":")[2].split("@")[0]
    assert not [c for c in found.values() if password in c.seen]


def test_a_postgresql_that_is_away(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("BEAMWAY_DATABASE", f"postgresql+psycopg://me:hush@127.0.0.1:{taken.getsockname()[1]}/x")
        found = wrong(place)
    assert set(found) == {"database"}
    assert "hush" not in found["database"].seen


def test_the_client_of_globus_signs_in_and_nothing_is_kept(place: Path, globus: Globus) -> None:
    assert looked(place)["globus"].result is Result.SKIPPED
    path = place / "settings.toml"
    path.write_text(f'globus_client = "{CLIENT}"\nglobus_secret = "{SECRET}"\n')
    assert "secrets" in wrong(place)  # others can read it
    path.chmod(0o600)
    before = tree(place)
    found = looked(place)
    assert (found["globus"].result, found["secrets"].result) == (Result.PASSED, Result.PASSED)
    assert f"{CLIENT}@clients.auth.globus.org" in found["globus"].seen
    globus.faults.sign_in_refused = True
    found = wrong(place)
    assert "settings/developers" in found["globus"].remedy
    assert SECRET not in str(found)
    assert tree(place) == before
