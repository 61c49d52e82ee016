"""`beamway site`: the list, one profile, its check, and adding one."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from cli_samples import Beamway

from orchestrator import schedulers
from orchestrator.cli import siteview
from orchestrator.errors import SettingsError
from orchestrator.sitecheck import live
from sites import loader

MINE = """
[identity]
name = "{name}"
title = "My cluster"
contact = "ops@example.org"
[scheduler]
kind = "{kind}"
[[queues]]
name = "short"
use = "debug"
[paths]
scratch = "{scratch}"
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "home"
    monkeypatch.setenv("BEAMWAY_HOME", str(path))
    return path


@pytest.fixture(autouse=True)
def logs() -> Iterator[None]:
    yield
    structlog.reset_defaults()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return written(tmp_path / "any-name.toml", tmp_path)


def written(path: Path, tmp_path: Path, *, name: str = "mine", kind: str = "local") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(MINE.format(name=name, kind=kind, scratch=tmp_path / "scratch"))
    return path


def test_the_list(home: Path, tmp_path: Path, beamway: Beamway, monkeypatch: pytest.MonkeyPatch) -> None:
    written(home / "sites" / "mine.toml", tmp_path)
    (home / "sites" / "wrong.toml").write_text("x = 1")
    monkeypatch.setenv("BEAMWAY_SITE", "mine")
    lines = {line["name"]: line for line in beamway("site", "ls", "--json").json}
    assert set(lines) == {"mine", "wrong", *loader.names()}
    assert lines["mine"] == {
        "name": "mine",
        "scheduler": "local",
        "title": "My cluster",
        "queues": ["short"],
        "default": True,
        "from": "yours",
        "file": str(home / "sites" / "mine.toml"),
        "now": "",
        "error": "",
    }
    assert (lines["local"]["from"], lines["local"]["default"]) == ("shipped", False)
    assert "'x' is not known" in lines["wrong"]["error"]
    said = beamway("site", "ls")
    assert "mine (default)" in said.out
    assert "its profile is wrong, see below" in said.out
    assert (said.exit_code, said.err) == (0, "")


def test_maintenance_is_in_the_list(home: Path, tmp_path: Path, beamway: Beamway) -> None:
    path = written(home / "sites" / "mine.toml", tmp_path)
    pause = "[[maintenance]]\nfrom = 2026-01-01T00:00:00Z\nuntil = 2999-01-01T00:00:00Z\nreason = 'new disks'\n"
    path.write_text(path.read_text() + pause)
    assert "new disks until 2999-01-01T00:00:00+00:00" in beamway("site", "ls").out


@pytest.mark.parametrize("name", loader.names())
def test_every_shipped_site_shows(name: str, home: Path, beamway: Beamway) -> None:
    said = beamway("site", "show", name)
    assert said.exit_code == 0
    assert said.out.startswith(f"{name}\n")
    whole = beamway("site", "show", name, "--json").json
    assert whole["identity"]["name"] == name
    for queue in whole["queues"]:
        assert queue["name"] in said.out


def test_names_that_are_not_there(home: Path, beamway: Beamway) -> None:
    for words in (["show", "lokal"], ["check", "lokal"], ["show", "./nowhere.toml"], ["add", "nowhere.toml"]):
        said = beamway("site", *words)
        assert (said.exit_code, said.out, said.err.count("\n")) == (78, "", 1), words
    said = beamway("site", "sohw")
    assert (said.exit_code, "Did you mean 'show'?" in said.err) == (2, True)
    assert "Commands:" in beamway("site").out


def test_add(home: Path, tmp_path: Path, file: Path, beamway: Beamway) -> None:
    said = beamway("site", "add", str(file))
    there = home / "sites" / "mine.toml"
    assert said.out.startswith(f"Site mine is added: {there}\n")
    assert there.read_text() == file.read_text()
    assert list(there.parent.iterdir()) == [there]
    again = beamway("site", "add", str(file))
    assert (again.exit_code, "There is a site 'mine' already" in again.err) == (5, True)
    file.write_text(file.read_text().replace("My cluster", "Our cluster"))
    answer = beamway("site", "add", str(file), "--replace", "--json").json
    assert answer == {"name": "mine", "file": str(there), "replaced": True}
    assert "Our cluster" in there.read_text()
    assert list(there.parent.iterdir()) == [there]


def test_add_does_not_hide_a_shipped_site_by_chance(home: Path, tmp_path: Path, beamway: Beamway) -> None:
    file = written(tmp_path / "x.toml", tmp_path, name="local")
    said = beamway("site", "add", str(file))
    assert (said.exit_code, "is shipped with Beamway" in said.err) == (5, True)
    assert not (home / "sites").exists()
    assert beamway("site", "add", str(file), "--replace").exit_code == 0
    assert beamway("site", "show", "local").out.startswith("local\n  title      My cluster")


def test_add_refuses_what_is_wrong_with_one_line(home: Path, tmp_path: Path, file: Path, beamway: Beamway) -> None:
    file.write_text(file.read_text().replace('"debug"', '"debgu"') + "[node]\ncors = 3\n")
    said = beamway("site", "add", str(file))
    assert (said.exit_code, said.err.count("\n")) == (78, 1)
    assert "'queues[0].use' is wrong" in said.err
    assert "'node.cors' is not known" in said.err
    assert not (home / "sites").exists()


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "sites").write_text("in the way")
    with pytest.raises(SettingsError, match="cannot be written"):
        siteview.put("x", "mine", tmp_path / "sites", replace=False)


def test_check_of_a_file(home: Path, file: Path, beamway: Beamway) -> None:
    said = beamway("site", "check", str(file), "--live")
    assert said.exit_code == 0
    assert "passed" in said.out
    assert "job" in said.err
    assert said.out.splitlines()[-1].endswith("checks, 0 failed.")


def test_check_that_fails(home: Path, tmp_path: Path, file: Path, beamway: Beamway) -> None:
    (tmp_path / "scratch").write_text("in the way")
    said = beamway("site", "check", str(file))
    assert said.exit_code == 1
    assert "→ Set paths.scratch" in said.out
    assert "Contact: ops@example.org." in said.out
    answer = beamway("site", "check", str(file), "--json")
    assert (answer.exit_code, answer.err) == (1, "")
    assert [c["name"] for c in answer.json if c["result"] == "failed"] == ["scratch"]
    assert set(answer.json[0]) == {"name", "result", "seconds", "seen", "remedy"}


def test_what_adapters_log_does_not_spoil_json(
    home: Path, tmp_path: Path, beamway: Beamway, monkeypatch: pytest.MonkeyPatch
) -> None:
    def of(profile: object) -> None:
        structlog.get_logger().info("chatter")
        structlog.get_logger().warning("unknown_state", word="X")
        raise ImportError("no such adapter")

    monkeypatch.setattr(schedulers, "of", of)
    said = beamway("site", "check", str(written(tmp_path / "x.toml", tmp_path, kind="pbs")), "--json")
    assert [c["name"] for c in said.json if c["result"] == "failed"] == ["scheduler"]
    assert "unknown_state" in said.err
    assert "chatter" not in said.err


@pytest.mark.parametrize("kind", ["globus-compute", "superfacility-api"])
def test_check_of_a_scheduler_that_is_not_built(kind: str, home: Path, tmp_path: Path, beamway: Beamway) -> None:
    file = written(tmp_path / "x.toml", tmp_path, kind=kind)
    said = beamway("site", "check", str(file), "--live")
    assert said.exit_code == 1
    assert "is not built yet" in said.out


def test_check_of_a_queue_that_is_not_there(home: Path, file: Path, beamway: Beamway) -> None:
    said = beamway("site", "check", str(file), "--live", "--queue", "nope")
    assert (said.exit_code, said.err.count("\n")) == (2, 1)
    assert beamway("site", "check", str(file), "--timeout", "0").exit_code == 2


def test_ctrl_c_ends_a_check(
    home: Path, tmp_path: Path, file: Path, beamway: Beamway, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(live, "_wait", interrupted)
    file.write_text(file.read_text() + '[environment]\nworker_init = "exec sleep 61"\n')
    begun = time.monotonic()
    assert beamway("site", "check", str(file), "--live").exit_code == 130
    assert time.monotonic() - begun < 15
    assert os.listdir(tmp_path / "scratch") == []


def test_what_schedulers_say_reaches_the_user(
    home: Path, tmp_path: Path, beamway: Beamway, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(profile: object) -> None:
        raise SettingsError("The directory '/opt/none' has no sbatch.")

    monkeypatch.setattr(schedulers, "of", missing)
    said = beamway("site", "check", str(written(tmp_path / "x.toml", tmp_path, kind="slurm")))
    assert "has no sbatch" in said.out
