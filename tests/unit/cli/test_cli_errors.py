"""What goes wrong is one line on stderr, or one object with --json, and an exit code."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cli_samples import ID, Beamway, FakeClient, done, failed

from orchestrator import errors
from orchestrator.cli import Interrupted, session
from orchestrator.errors import BeamwayError
from orchestrator.model import Run

ROOT = Path(__file__).resolve().parents[3]

USAGE = [
    (["frobnicate"], "There is no command 'frobnicate'"),
    (["lss"], "Did you mean 'ls'?"),
    (["ls", "--frob"], "No such option"),
    (["show"], "Missing argument"),
    (["run"], "Name the workflow to run."),
    (["run", "recon", "--id", "x"], "is not a UUID"),
    (["run", "recon", "filePath"], "does not read key:value"),
    (["ls", "--status", "don"], "Did you mean 'done'?"),
    (["ls", "--limit", "0"], "is not in the range"),
    (["export", "recon"], "--dm"),
    (["completion", "tcsh"], "is not one of"),
]


@pytest.mark.parametrize(("words", "sentence"), USAGE, ids=lambda v: " ".join(v) if isinstance(v, list) else "")
def test_a_mistake_is_one_line_and_exit_2(
    words: list[str], sentence: str, client: FakeClient, beamway: Beamway
) -> None:
    said = beamway(*words)
    assert said.exit_code == 2
    assert said.out == ""
    assert said.err.startswith("beamway: ")
    assert said.err.count("\n") == 1
    assert sentence in said.err


@pytest.mark.parametrize(("words", "sentence"), USAGE, ids=lambda v: " ".join(v) if isinstance(v, list) else "")
def test_with_json_the_mistake_is_an_object(
    words: list[str], sentence: str, client: FakeClient, beamway: Beamway
) -> None:
    said = beamway(*words, "--json")
    assert said.err == ""
    assert said.json["error"]["exit_code"] == said.exit_code == 2
    assert set(said.json["error"]) == {"sentence", "hint", "exit_code"}


@pytest.mark.parametrize("words", [["show", "nope"], ["why", "nope"], ["show", ""], ["logs", ID, "99-NOPE"]])
def test_what_is_not_there_is_exit_4(words: list[str], client: FakeClient, beamway: Beamway) -> None:
    client.known[ID] = done()
    said = beamway(*words)
    assert (said.exit_code, said.err.count("\n")) == (4, 1)


def test_cancel_of_a_run_that_is_over_is_exit_5(client: FakeClient, beamway: Beamway) -> None:
    client.known[ID] = done()
    assert beamway("cancel", "last").exit_code == 5


def _kinds(kind: type[BeamwayError] = BeamwayError) -> Iterator[type[BeamwayError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _kinds(child)


@pytest.mark.parametrize("kind", sorted(_kinds(), key=lambda k: k.__name__))
def test_every_error_of_the_tree(
    kind: type[BeamwayError], client: FakeClient, beamway: Beamway, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raising() -> FakeClient:
        raise kind("It\nis so.", "Do this.")

    monkeypatch.setattr(session, "client", raising)
    said = beamway("ls")
    assert said.exit_code == kind.exit_code
    assert said.err == "beamway: It\\nis so. Do this.\n"
    assert beamway("ls", "--json").json == {
        "error": {"sentence": "It\\nis so.", "hint": "Do this.", "exit_code": kind.exit_code}
    }


def test_documented_exit_codes_are_those_of_the_tree() -> None:
    manual = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    table = manual[manual.index("# Exit codes") :]
    for kind in _kinds():
        assert f"| {kind.exit_code} |" in table, kind
    assert errors.RunFailed.exit_code == 1


def test_a_fault_of_ours_names_the_file_with_the_traceback(
    client: FakeClient, beamway: Beamway, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> FakeClient:
        raise ZeroDivisionError("secretly\nbroken")

    monkeypatch.setattr(session, "client", broken)
    said = beamway("ls")
    assert said.exit_code == 70
    assert said.err.count("\n") == 1
    assert "Traceback" not in said.err
    (kept,) = (client.settings.home / "logs").iterdir()
    assert str(kept) in said.err
    assert "Traceback" in kept.read_text()
    assert kept.stat().st_mode & 0o777 == 0o600


def _interrupting(*first: Run) -> Callable[[str], Iterator[Run]]:
    def follow(run_id: str) -> Iterator[Run]:
        yield from first
        raise KeyboardInterrupt

    return follow


@pytest.mark.parametrize("words", [["watch", "last"], ["run", "recon", "--wait"], ["watch", "last", "--json"]])
def test_ctrl_c_leaves_the_run_going_on_and_says_so(words: list[str], client: FakeClient, beamway: Beamway) -> None:
    client.known[ID] = done()
    client.follows = _interrupting(done())
    said = beamway(*words)
    text = said.out + said.err
    assert said.exit_code == 130
    assert "goes on" in text
    assert f"beamway watch {ID}" in text
    assert f"beamway cancel {ID}" in text


def test_ctrl_c_elsewhere(client: FakeClient, beamway: Beamway, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> FakeClient:
        raise KeyboardInterrupt

    monkeypatch.setattr(session, "client", interrupted)
    assert beamway("ls").exit_code == 130
    assert issubclass(Interrupted, KeyboardInterrupt)


@pytest.mark.parametrize("words", [["watch", "last"], ["run", "recon", "--wait"]])
def test_waiting_for_a_run_that_fails_is_exit_1(words: list[str], client: FakeClient, beamway: Beamway) -> None:
    client.known[ID] = failed()
    said = beamway(*words)
    assert said.exit_code == 1
    assert said.err.startswith(f"beamway: Run {ID} failed: stage '01-A': it ended with 3. `beamway why")


def test_a_reader_that_went_away_is_no_error() -> None:
    program = "import sys; from orchestrator.cli import main; sys.exit(main(['--help']))"
    read, write = os.pipe()
    os.close(read)
    said = subprocess.run([sys.executable, "-c", program], cwd=ROOT, stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert (said.returncode, said.stderr) == (141, b"")
