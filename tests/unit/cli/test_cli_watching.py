"""The commands about watches and arrivals: mistakes are one line, and nothing is started for them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_samples import Beamway

from orchestrator.cli import arrivals as cli_arrivals
from orchestrator.client import local
from orchestrator.settings import Settings, ensure_home
from orchestrator.store import arrivals, watches
from orchestrator.store.arrivals import Arrival, ArrivalState
from orchestrator.store.database import Database
from orchestrator.store.watches import Report, Watch

NASTY = "so\udcff\nme.h5"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With a workflow and a directory; no service is started."""
    place = tmp_path / "home"
    ensure_home(place)
    (place / "workflows").mkdir()
    written = {"name": "t", "owner": "o", "arguments": {"n": {}}, "stages": {"1": {"command": "cat $filePath"}}}
    (place / "workflows" / "t.py").write_text(repr(written))
    (tmp_path / "tree").mkdir()
    monkeypatch.setenv("BEAMWAY_HOME", str(place))
    monkeypatch.setattr(local.Local, "ensure_service", lambda self: None)
    monkeypatch.chdir(tmp_path)
    return place


@pytest.fixture
def store(home: Path) -> Iterator[Database]:
    with Database(Settings(home=home).database_url) as made:
        made.upgrade()
        yield made


MISTAKES: dict[str, tuple[list[str], int, str]] = {
    "nothing": ([], 2, "Name a directory to watch, or a run to show."),
    "no experiment": (["tree/", "--workflow", "t"], 78, "'experiment' is not said"),
    "no workflow": (["tree", "--experiment", "e"], 78, "'workflow' is not said"),
    "no directory": (["--experiment", "e", "--workflow", "t"], 2, "Name the directory to watch."),
    "missing": (["no/such", "--experiment", "e", "--workflow", "t"], 78, "No such file or directory"),
    "a file": (["home/workflows/t.py", "--experiment", "e", "--workflow", "t"], 78, "Not a directory"),
    "unknown workflow": (["tree", "--experiment", "e", "--workflow", "u"], 4, "There is no workflow 'u'"),
    "unknown argument": (["tree", "--experiment", "e", "--workflow", "t", "--argument", "m:1"], 2, "'m'"),
    "no argument": (["tree", "--experiment", "e", "--workflow", "t", "--argument", "m"], 2, "name:value"),
    "unknown key": (["tree", "hiden:1", "--experiment", "e", "--workflow", "t"], 2, "Did you mean 'hidden'?"),
    "rules and workflow": (["tree", "--rules", "r.toml", "--workflow", "t"], 2, "its file says what runs"),
    "no rules": (["tree", "--rules", "no.toml"], 78, "'no.toml' cannot be read"),
    "broken rules": (["tree", "--experiment", "e", "--rules", "r.toml"], 78, "r.toml:2: there is no key 'hiden'"),
    "no run": (["3f2a"], 4, "3f2a"),
    "a run with a name": (["3f2a", "--name", "x"], 78, "'workflow' is not said"),
}


@pytest.mark.parametrize("what", MISTAKES)
def test_each_mistake_is_one_line(home: Path, beamway: Beamway, what: str) -> None:
    words, exit_code, sentence = MISTAKES[what]
    Path("r.toml").write_text('workflow = "t"\nhiden = true\n')
    said = beamway("watch", *words)
    assert (said.exit_code, said.out) == (exit_code, "")
    assert sentence in said.err
    assert said.err.startswith("beamway: ")
    assert said.err.count("\n") == 1
    assert beamway("watch", "ls").out == "Nothing is watched.\n"


def test_one_is_made_listed_shown_stopped_and_started(home: Path, beamway: Beamway) -> None:
    said = beamway("watch", "tree", "hidden:yes", "--experiment", "e 1", "--workflow", "t", "--match", "*.h5")
    assert (said.exit_code, said.err) == (0, "")
    assert "is watched for e 1 as 'e-1'" in said.out
    [listed] = beamway("watch", "ls", "--json").json
    assert (listed["state"], listed["directory"], listed["base"]) == (
        "unseen",
        str(Path("tree").absolute()),
        str(Path.cwd()),
    )
    assert 'match = ["*.h5"]' in beamway("watch", "show", "e-1").out
    assert beamway("watch", "stop", "e-1", "--json").json["state"] == "stopped"
    assert beamway("watch", "start", "e-1", "--json").json["stopped_at"] is None
    for words in (["show", "e-2"], ["stop", "e-2"], ["start", "e-2"]):
        assert beamway("watch", *words).exit_code == 4
    other = ["watch", "tree", "--experiment", "e 1", "--workflow", "t"]
    said = beamway(*other)
    assert (said.exit_code, "--change" in said.err) == (5, True)
    assert beamway(*other, "--change").exit_code == 0


def test_a_rule_file_may_say_it_all(home: Path, beamway: Beamway) -> None:
    Path("r.toml").write_text(f'directory = "{Path("tree").absolute()}"\nexperiment = "e"\nworkflow = "t"\n')
    assert beamway("watch", "--rules", "r.toml", "--json").json["experiment"] == "e"
    said = beamway("watch", "tree", "--rules", "r.toml", "--experiment", "f")
    assert (said.exit_code, "'experiment' is 'e', and not 'f'" in said.err) == (78, True)


def test_what_is_wrong_with_watches_is_said(home: Path, store: Database, beamway: Beamway) -> None:
    reports = {"lost": Report(2e9, "It is gone."), "deaf": Report(2e9, troubles={"a\nb": "no", "c": "no"})}
    for name in ("lost", "deaf", "unseen"):
        watches.put(store, Watch(name, "e", f"/data/{NASTY}", "", created_at=1.0))
    watches.put_reports(store, reports)
    for words in (["watch", "ls"], ["status"]):
        out = beamway(*words).out
        assert "lost: It is gone." in out
        assert "deaf: 'a\\nb' cannot be looked at: no (and 1 other places)" in out
        assert "unseen: no watcher of site local has looked at it yet." in out
    assert {w["name"]: w["state"] for w in beamway("status", "--json").json["watches"]} == {
        "deaf": "watched",
        "lost": "wrong",
        "unseen": "unseen",
    }
    [check] = [c for c in beamway("doctor", "--json").json if c["name"] == "watches"]
    assert (check["result"], "lost: It is gone." in check["seen"]) == ("failed", True)


def seen(store: Database, name: str, state: ArrivalState, **more: str) -> None:
    mark = (1, 2, len(name), 4)
    made = Arrival("w", "e", arrivals.digest_of(name, mark), name, mark, state, **more)  # type: ignore[arg-type]
    arrivals.decide(store, [arrivals.keyed(made) if state is ArrivalState.DUE else made])


def test_arrivals_are_listed_explained_and_released(home: Path, store: Database, beamway: Beamway) -> None:
    assert beamway("arrivals").out == "No arrivals.\n"
    watches.put(store, Watch("w", "e", "/data", "", created_at=1.0))
    seen(store, NASTY, ArrivalState.INCOMPLETE, reason="it is empty", workflow="t@1")
    seen(store, "b.h5", ArrivalState.IGNORED, reason="no rule wants it")
    assert "so\\udcff\\nme.h5" in beamway("arrivals").out
    listed = beamway("arrivals", "--watch", "w", "--state", "incomplete", "--json").json
    assert [(a["name"], a["reason"]) for a in listed] == [(NASTY, "it is empty")]
    assert [a["id"] for a in beamway("arrivals", "--limit", "1", "--json").json] == [2], "the newest"
    assert beamway("arrivals", "why", "2").out.startswith("'b.h5' is ignored: no rule wants it.\nsince ")
    assert beamway("arrivals", "why", "9").exit_code == 4
    said = beamway("arrivals", "--state", "lost")
    assert (said.exit_code, "There is no state 'lost'" in said.err) == (2, True)
    assert "is due to run t" in beamway("arrivals", "release", "1").out
    said = beamway("arrivals", "release", "2")
    assert (said.exit_code, "Name the workflow" in said.err) == (5, True)
    [made] = beamway("arrivals", "release", "2", "--workflow", "t", "--argument", "n:5", "--json").json
    assert made["arguments"] == {"filePath": "/data/b.h5", "n": "5"}
    assert json.loads(beamway("arrivals", "why", "2", "--json").out)["state"] == "due"


def test_help_of_a_group_names_its_commands(beamway: Beamway) -> None:
    out = beamway("watch", "--help").out
    assert out.startswith("Usage: beamway watch [OPTIONS]")
    assert "stop" in out.partition("Commands:")[2]


def test_who_stops_looking_is_told_that_it_is_watched_on(
    home: Path, beamway: Beamway, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli_arrivals, "follow", interrupt)
    said = beamway("watch", "tree", "--experiment", "e", "--workflow", "t", "--follow")
    assert said.exit_code == 130
    assert said.err == "beamway: It is watched on. `beamway watch stop e` ends that.\n"
