"""What people read of retention."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_samples import Beamway

from orchestrator.settings import Settings
from orchestrator.store.database import Database
from tests.unit.catalog.keep import Beamline


@pytest.fixture
def facility(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Beamline:
    """Whose scans came a hundred days before the clock of this test, which is the real one."""
    monkeypatch.setenv("BEAMWAY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("BEAMWAY_SITE", "beamline")
    home = tmp_path / "home"
    home.mkdir()
    database = Database(Settings(home=home).database_url)
    database.ensure()
    made = Beamline(home, database)
    (home / "retention.toml").write_text(made.places + made.rules.replace("90 days", "0"))
    return made


def old(facility: Beamline) -> None:
    from orchestrator.store import schema

    with facility.database.write() as connection:
        connection.execute(schema.catalog_files.update().values(added_at=1.0))


def test_the_plan_says_why(facility: Beamline, beamway: Beamway) -> None:
    facility.file("a.h5", "tape")
    facility.file("b\n.h5")
    old(facility)
    said = beamway("retention", "plan")
    assert said.exit_code == 0
    rows = said.out.splitlines()
    assert rows[0].split() == ["verdict", "file", "place", "size", "name", "why"]
    assert rows[1].startswith("prune       1  beamline   6 B")
    assert rows[2:] == [
        "1 copy stays: no rule is about it",
        "1 copy stays: 0 of 1 copies elsewhere",
        "6 B would get free, 0 B of it copied elsewhere first.",
    ]
    assert "b\\n.h5" in beamway("retention", "plan", "--all").out


def test_a_dry_run_says_so_and_what_is_refused_goes_to_stderr(facility: Beamline, beamway: Beamway) -> None:
    facility.file("a.h5", "tape")
    old(facility)
    said = beamway("retention", "apply")
    assert said.exit_code == 0
    assert said.out.startswith("would prune  1  beamline")
    assert "--yes" in said.out
    (facility.home / "tape" / "a.h5").write_bytes(b"fRames")
    said = beamway("retention", "apply", "--yes")
    assert (said.exit_code, facility.raw()) == (1, ["a.h5"])
    assert said.err.startswith("refused  1  beamline")
    assert "is corrupted: its checksum is xxh3:" in said.err
    assert "refused" in beamway("retention", "log").out


def test_nothing_to_tell(facility: Beamline, beamway: Beamway) -> None:
    assert beamway("retention", "apply", "--yes").out == "Nothing is to be done.\n"
    assert beamway("retention", "log").out == "Nothing has been decided.\n"
    assert beamway("retention", "pins").out == "Nothing is pinned.\n"
    assert beamway("retention", "plan", "--json").json == []


def test_pinned_by_people(facility: Beamline, beamway: Beamway) -> None:
    file = facility.file("a.h5")
    assert beamway("retention", "pin", file.name).out == "Pinned: file 1.\n"
    assert "file" in beamway("retention", "pins").out
    assert beamway("retention", "unpin", "1").out == "Not pinned any more: file 1.\n"
    assert beamway("retention", "pin").exit_code == 2
