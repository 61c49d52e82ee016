"""Retention as a facility uses it: the command line, a GridFTP server as the archive, a corrupted replica."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import xxhash

from orchestrator.settings import Settings, ensure_home
from orchestrator.store import catalog
from orchestrator.store.catalog import CatalogFile, Replica, ReplicaState
from orchestrator.store.database import Database
from tests.gridftp import Gridftp, missing

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())
E = "2026-3-smith"
DAY = 86_400.0


class Facility:
    def __init__(self, home: Path, server: Gridftp) -> None:
        self.home, self.server = home, server
        self.data = home.parent / "data"
        self.data.mkdir()
        ensure_home(home)
        (home / "retention.toml").write_text(
            f'[place.archive]\naddress = "{server.url()}"\n'
            '[[rule]]\nname = "raw"\nkinds = "raw"\nplaces = "local"\nkeep = "90 days"\nelsewhere = "archive"\n'
        )

    def scan(self, name: str) -> Path:
        """A file that has been in the catalog for a hundred days."""
        path = self.data / name
        path.write_bytes(os.urandom(300_000))
        checksum = f"xxh3:{xxhash.xxh3_128_hexdigest(path.read_bytes())}"
        file = CatalogFile(E, str(path), 300_000, checksum, added_at=time.time() - 100 * DAY)
        with Database(Settings(home=self.home).database_url) as database:
            database.ensure()
            with database.write() as connection:
                [number] = catalog.put(connection, [file])
                catalog.put_replica(connection, Replica(number, "local", str(path), ReplicaState.VERIFIED))
        return path

    def beamway(self, *words: str, exit_code: int = 0) -> Any:
        said = subprocess.run(
            [sys.executable, "-m", "orchestrator.cli", *words, "--json"],
            env={**os.environ, "BEAMWAY_HOME": str(self.home)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert said.returncode == exit_code, said.stdout + said.stderr
        return json.loads(said.stdout)

    def archived(self, path: Path) -> Path:
        return Path(f"{self.server.root}/{E}{path}")


@pytest.fixture
def facility(home: Path) -> Iterator[Facility]:
    with Gridftp() as server:
        yield Facility(home, server)


def test_archived_pruned_and_restored(facility: Facility) -> None:
    scan = facility.scan("scan_1.h5")
    content = scan.read_bytes()
    [kept] = facility.beamway("retention", "plan", "--experiment", E)
    assert (kept["verdict"], kept["reason"]) == ("keep", "0 of 1 copies elsewhere")
    assert facility.beamway("archive", "--experiment", E, "--to", "archive")["bytes"] == 300_000
    assert facility.archived(scan).read_bytes() == content
    plan = {each["place"]: each for each in facility.beamway("retention", "plan")}
    assert (plan["local"]["verdict"], plan["local"]["bytes"]) == ("prune", 300_000)
    rehearsed = facility.beamway("retention", "apply")
    assert (rehearsed["dry_run"], rehearsed["copies"][0]["verdict"]) == (True, "would prune")
    assert scan.exists()
    [done] = facility.beamway("retention", "apply", "--yes")["copies"]
    assert done["verdict"] == "pruned"
    assert list(facility.data.iterdir()) == []
    assert facility.beamway("restore", str(scan))["refused"] == 0
    assert scan.read_bytes() == content
    log = facility.beamway("retention", "log", "--file", str(scan))
    assert [row["verdict"] for row in log] == ["restored", "pruned", "archived"]
    assert [look["how"] for look in log[1]["evidence"]["looks"]] == ["read here", "told by the server"]


def test_one_corrupted_replica_and_it_refuses_to_prune(facility: Facility) -> None:
    bad, good = facility.scan("bad.h5"), facility.scan("good.h5")
    facility.beamway("archive", "--experiment", E, "--to", "archive")
    rotten = facility.archived(bad)
    rotten.write_bytes(bytes([rotten.read_bytes()[0] ^ 1]) + rotten.read_bytes()[1:])  # one bit of 300 kB
    said = facility.beamway("retention", "apply", "--yes", exit_code=1)
    by_name = {each["name"]: each for each in said["copies"]}
    assert (by_name[str(bad)]["verdict"], by_name[str(bad)]["trouble"]) == ("refused", "corrupted")
    assert "the copy at 'archive'" in by_name[str(bad)]["reason"]
    assert by_name[str(good)]["verdict"] == "pruned"
    assert sorted(p.name for p in facility.data.iterdir()) == ["bad.h5"]
    assert facility.beamway("retention", "log", "--file", str(bad))[0]["verdict"] == "refused"


def test_pinned_it_stays(facility: Facility) -> None:
    scan = facility.scan("scan_1.h5")
    facility.beamway("archive", str(scan), "--to", "archive")
    assert facility.beamway("retention", "pin", str(scan), "--reason", "figure 3")["reason"] == "figure 3"
    assert facility.beamway("retention", "apply", "--yes")["copies"] == []
    assert len(facility.beamway("retention", "pins")) == 1
    facility.beamway("retention", "unpin", str(scan))
    assert facility.beamway("retention", "apply", "--yes")["copies"][0]["verdict"] == "pruned"


def test_mistakes_are_one_sentence(facility: Facility) -> None:
    facility.scan("scan_1.h5")
    said = facility.beamway("archive", "1", "--to", "arcive", exit_code=2)
    assert "Did you mean 'archive'?" in said["error"]["sentence"]
    assert "no file" in facility.beamway("restore", "/gone", exit_code=4)["error"]["sentence"]
    (facility.home / "retention.toml").write_text('[[rule]]\nkep = "1 d"\n')
    said = facility.beamway("retention", "plan", exit_code=78)
    assert "Did you mean 'keep'?" in said["error"]["sentence"]
