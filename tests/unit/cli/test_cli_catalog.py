"""Experiments, files and collections on the command line, in a home of its own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import h5py
import pytest
from cli_samples import Beamway, Said

from orchestrator.store.database import Database


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store_url: str) -> Path:
    """A home, on each database, and a folder in which the commands are typed."""
    monkeypatch.setenv("BEAMWAY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("BEAMWAY_DATABASE", store_url)
    with Database(store_url) as database:
        database.upgrade()
    folder = tmp_path / "data"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def smith(beamway: Beamway) -> Beamway:
    assert beamway("experiment", "create", "smith", "--owner", "ann", "--title", "Bones").exit_code == 0
    return beamway


def scan(path: Path, energy: float, sample: str = "bone") -> Path:
    with h5py.File(path, "w") as file:
        file["exchange/data"] = [[[energy]]]
        file["measurement/sample/name"] = sample
        file["measurement/instrument/monochromator/energy"] = energy
    return path


def added(beamway: Beamway, *words: Any) -> list[int]:
    said = beamway("file", "add", *map(str, words), "--experiment", "smith", "--json")
    assert said.exit_code == 0, said
    return [each["id"] for each in said.json]


def names(said: Said) -> list[str]:
    assert said.exit_code == 0, said
    return [Path(each["name"]).name for each in said.json]


def refused(said: Said, exit_code: int, *parts: str) -> None:
    assert said.exit_code == exit_code, said
    line = said.err or str(said.json)
    assert "Traceback" not in line
    for part in parts:
        assert part in line


def test_experiments_and_people(beamway: Beamway) -> None:
    words = ["--proposal", "GUP-1", "--meta", "cycle:2026-3", "--viewer", "carol", "--owner", "ann"]
    made = beamway("experiment", "create", "smith", *words, "--json").json
    assert made["people"] == {"ann": "owner", "carol": "viewer"}
    assert made["metadata"] == {"cycle": "2026-3"}
    beamway("experiment", "add-person", "smith", "bob", "--role", "owner")
    assert beamway("experiment", "remove-person", "smith", "ann", "--json").json["people"]["bob"] == "owner"
    said = beamway("experiment", "set", "smith", "cycle:", "n:3", "--title", "Bones", "--json").json
    assert (said["title"], said["proposal"], said["metadata"]) == ("Bones", "GUP-1", {"n": 3})
    shown = beamway("experiment", "show", "smith")
    assert "bob" in shown.out
    assert "0, 0 B" in shown.out
    assert [e["name"] for e in beamway("experiment", "ls", "--json").json] == ["smith"]
    assert "GUP-1" in beamway("experiment", "ls").out
    assert beamway("experiment", "delete", "smith").exit_code == 0
    refused(beamway("experiment", "show", "smith"), 4, "no experiment 'smith'")


def test_experiment_mistakes(smith: Beamway) -> None:
    refused(smith("experiment", "create", "../x"), 2, "cannot be the name")
    refused(smith("experiment", "create", "smith"), 5, "already")
    refused(smith("experiment", "add-person", "smith", "bob", "--role", "onwer"), 2, "Did you mean 'owner'")
    refused(smith("experiment", "add-person", "smith", "ann"), 5, "only owner")
    refused(smith("experiment", "set", "smith", "title"), 2, "no KEY:VALUE")
    refused(smith("experiment", "set", "smitt", "a:1"), 4, "Did you mean 'smith'")


def test_files_are_added_found_and_shown(smith: Beamway, place: Path) -> None:
    for energy in (15.0, 25.0, 35.0):
        scan(place / f"scan_{energy:.0f}.h5", energy, "bone" if energy < 30 else "shale")
    (place / "dark.txt").write_text("dark")
    first, second, _ = added(smith, *sorted(place.glob("*.h5")))
    [dark] = added(smith, "dark.txt", "--kind", "calibration", "--meta", "run:7", "--checksum", "sha256")
    assert added(smith, "scan_15.h5") == [first]
    assert names(smith("file", "ls", "energy>=20", "--json")) == ["scan_35.h5", "scan_25.h5"]
    assert names(smith("file", "ls", "bone", "energy=20..30", "--experiment", "smith", "--json")) == ["scan_25.h5"]
    assert names(smith("file", "ls", "--meta", "sample=shale", "--text", "scan", "--json")) == ["scan_35.h5"]
    assert names(smith("file", "ls", "--kind", "calibration", "run=7", "--since", "1h", "--json")) == ["dark.txt"]
    assert names(smith("file", "ls", "--name", "./scan_1", "--json")) == ["scan_15.h5"]
    assert names(smith("file", "ls", "--limit", "2", "--copies", "verified", "--place", "local", "--json")) != []
    assert names(smith("file", "ls", "--until", "2020-01-01", "--json")) == []
    assert "No files." in smith("file", "ls", "energy>100").out
    assert "scan_25.h5" in smith("file", "ls").out
    shown = smith("file", "show", str(second))
    assert "verified" in shown.out
    assert "energy = 25.0" in shown.out
    record = smith("file", "show", "dark.txt", "--json").json
    assert record["id"] == dark
    assert record["checksum"].startswith("sha256:")
    assert record["copies"][0]["address"] == str(place / "dark.txt")
    found = smith("file", "ls", "--checksum", record["checksum"].partition(":")[2], "--json")
    assert names(found) == ["dark.txt"]
    changed = smith("file", "set", str(dark), "run:", "remark:cold", "--json").json
    assert changed["metadata"] == {"remark": "cold"}
    assert smith("experiment", "delete", "smith").exit_code == 5


def test_another_content_supersedes(smith: Beamway, place: Path) -> None:
    [old] = added(smith, scan(place / "a.h5", 15.0))
    [new] = added(smith, scan(place / "a.h5", 16.0))
    assert old != new
    assert [f["id"] for f in smith("file", "ls", "--json").json] == [new]
    assert [f["id"] for f in smith("file", "ls", "--all", "--json").json] == [new, old]
    assert smith("file", "show", "a.h5", "--json").json["id"] == new
    assert "superseded" in smith("file", "show", str(old)).out
    everything = smith("file", "ls", "--all", "--json").json
    states = {r["id"]: smith("file", "show", str(r["id"]), "--json").json["copies"][0]["state"] for r in everything}
    assert states == {old: "missing", new: "verified"}
    text = (place / "a.h5").read_bytes()
    (place / "a.h5").write_bytes(b"else")
    added(smith, "a.h5")
    (place / "a.h5").write_bytes(text)
    assert added(smith, "a.h5") == [new]
    assert smith("file", "show", "a.h5", "--json").json["id"] == new
    assert [f["id"] for f in smith("file", "ls", "--json").json] == [new]


def test_verify_sees_what_became_of_copies(smith: Beamway, place: Path) -> None:
    ids = added(smith, *(scan(place / f"{name}.h5", 1.0, name) for name in ("good", "flip", "gone", "short", "odd")))
    flipped = bytearray((place / "flip.h5").read_bytes())
    flipped[700] ^= 1
    (place / "flip.h5").write_bytes(flipped)
    (place / "gone.h5").unlink()
    (place / "short.h5").write_bytes(b"")
    (place / "odd.h5").unlink()
    os.mkfifo(place / "odd.h5")
    assert smith("file", "verify", str(ids[0])).exit_code == 0
    said = smith("file", "verify", "--experiment", "smith", "--json")
    assert said.exit_code == 1
    states = {Path(each["address"]).stem: each["state"] for each in said.json}
    assert states == {
        "good": "verified",
        "flip": "corrupted",
        "gone": "missing",
        "short": "corrupted",
        "odd": "corrupted",
    }
    assert names(smith("file", "ls", "--copies", "corrupted", "--json")) == ["odd.h5", "short.h5", "flip.h5"]
    assert names(smith("file", "ls", "--copies", "missing", "--json")) == ["gone.h5"]
    text = smith("file", "verify", "--experiment", "smith")
    assert "1 of 5 copies at local are right." in text.out
    assert "its checksum is" in text.out
    assert smith("file", "verify", str(ids[0]), "--place", "elsewhere").exit_code == 1  # nothing of it was seen


def test_files_that_cannot_be_added_are_named_and_the_others_go_in(smith: Beamway, place: Path) -> None:
    scan(place / "good.h5", 1.0)
    (place / "folder").mkdir()
    (place / "empty").touch()
    os.mkfifo(place / "fifo")
    said = smith("file", "add", "gone.h5", "folder", "fifo", "empty", "good.h5", "--experiment", "smith")
    assert said.exit_code == 1
    assert "good.h5" in said.out
    for part in ("gone.h5' is not there", "'folder' is a directory", "not a regular file", "is empty"):
        assert part in said.err
    assert len(smith("file", "ls", "--json").json) == 1


def test_a_directory_as_one_thing(smith: Beamway, place: Path) -> None:
    (place / "scan").mkdir()
    scan(place / "scan" / "a.h5", 1.0)
    scan(place / "scan" / "b.h5", 2.0)
    [number] = added(smith, "scan", "--tree")
    assert smith("file", "verify", str(number)).exit_code == 0
    scan(place / "scan" / "c.h5", 2.0)
    assert smith("file", "verify", "scan", "--json").json[0]["state"] == "corrupted"


def test_a_name_that_is_not_utf_8(smith: Beamway, place: Path) -> None:
    odd = os.fsdecode(b"\xff\n_00042.h5")
    [number] = added(smith, scan(place / odd, 5.0))
    record = smith("file", "show", odd, "--json").json
    assert (record["id"], record["name"]) == (number, str(place / odd))
    assert names(smith("file", "ls", "--name", odd, "--json")) == [odd]
    assert names(smith("file", "ls", "00042", "--json")) == [odd]
    assert "\\n_00042.h5" in smith("file", "ls").out


def test_bad_questions(smith: Beamway, place: Path) -> None:
    scan(place / "a.h5", 1.0)
    refused(smith("file", "add", "a.h5", "--experiment", "smyth"), 4, "no experiment 'smyth'", "'smith'")
    refused(smith("file", "add", "a.h5", "--experiment", "smith", "--kind", "rwa"), 2, "Did you mean 'raw'")
    refused(smith("file", "add", "a.h5", "--experiment", "smith", "--checksum", "crc"), 2, "no checksum 'crc'")
    refused(smith("file", "ls", "energy>>20"), 2, "'energy>>20' cannot be read at character 8")
    refused(smith("file", "ls", "--meta", "energy"), 2, "at character 7")
    refused(smith("file", "ls", "energy>nan"), 2, "neither a number nor a date")
    refused(smith("file", "ls", "--experiment", "smyth"), 4, "no experiment 'smyth'")
    refused(smith("file", "ls", "--copies", "bad"), 2, "no state 'bad'")
    refused(smith("file", "ls", "--place", "local"), 2, "needs the state")
    refused(smith("file", "ls", "--kind", "x"), 2, "no kind 'x'")
    refused(smith("file", "ls", "--since", "x"), 2, "no time")
    refused(smith("file", "show", "77"), 4, "no file 77")
    refused(smith("file", "show", "99999999999999999999"), 4, "no file at")
    refused(smith("file", "show", "none.h5"), 4, "no file at 'none.h5'")
    refused(smith("file", "verify"), 2, "Name files")
    refused(smith("file", "set", "77", "a:1"), 4, "no file 77")


def test_metadata_that_is_too_large_or_no_number(smith: Beamway, place: Path) -> None:
    [number] = added(smith, scan(place / "a.h5", 1.0), "--meta", "ratio:nan")
    assert smith("file", "show", str(number), "--json").json["metadata"]["ratio"] == "nan"
    assert names(smith("file", "ls", "ratio=nan", "--json")) == ["a.h5"]
    assert names(smith("file", "ls", "ratio>0", "--json")) == []
    refused(smith("file", "set", str(number), f"x:{'y' * 10_000_000}"), 2, "'x' has 10,000,000 bytes")
    assert "x" not in smith("file", "show", str(number), "--json").json["metadata"]


def test_collections(smith: Beamway, place: Path) -> None:
    a, b = added(smith, scan(place / "a.h5", 1.0), scan(place / "b.h5", 2.0))
    assert smith("collection", "create", "smith", "paper", "--description", "Figure 3").exit_code == 0
    assert smith("collection", "add", "smith", "paper", str(a), "b.h5", "--json").json == {"added": 2}
    assert smith("collection", "remove", "smith", "paper", str(a), "--json").json == {"removed": 1}
    said = smith("collection", "stats", "smith", "paper", "--json").json
    size = (place / "b.h5").stat().st_size
    assert (said["files"], said["bytes"], said["kinds"]) == (1, size, {"raw": {"files": 1, "bytes": size}})
    assert "2 files" in smith("collection", "stats", "smith").out
    found = smith("file", "ls", "--collection", "paper", "--experiment", "smith", "--json")
    assert [f["id"] for f in found.json] == [b]
    assert "Figure 3" in smith("collection", "ls", "smith").out
    refused(smith("collection", "add", "smith", "papr", str(a)), 4, "Did you mean 'paper'")
    refused(smith("collection", "create", "smith", "paper"), 5, "already")
    refused(smith("collection", "remove", "smith", "paper"), 2, "Name files")
    refused(smith("file", "ls", "--collection", "paper"), 2, "is one of an experiment")
    assert smith("collection", "remove", "smith", "paper", "--all").exit_code == 0
    assert smith("collection", "ls", "smith", "--json").json == []
