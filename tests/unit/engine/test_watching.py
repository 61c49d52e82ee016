"""What is asked of watches: each mistake is one sentence, and nothing of it is written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.definition import loader
from orchestrator.engine import watching
from orchestrator.errors import ArgumentError, BeamwayError, Conflict, NotFound, SettingsError
from orchestrator.model import Definition
from orchestrator.store import arrivals, watches
from orchestrator.store.arrivals import Arrival, ArrivalState
from orchestrator.store.database import Database
from orchestrator.store.watches import Watch, Wish

T = {"name": "t", "owner": "me", "stages": {"1": {"command": "cat $filePath"}}}
TAKES = {"arguments": {"n": {"type": "integer"}, "word": {"required": True}}}


class Bench:
    def __init__(self, database: Database, tree: Path) -> None:
        self.database, self.tree = database, tree
        self.definitions: dict[str, dict[str, Any]] = {"t": T, "takes": {**T, **TAKES}}

    def load(self, name: str) -> Definition:
        if name not in self.definitions:
            raise NotFound(f"There is no workflow {name!r}.")
        return loader.load(self.definitions[name])

    def put(self, rules: str = 'workflow = "t"\n', **more: Any) -> Watch:
        values = {"directory": str(self.tree), "experiment": "2026 3/smith"} | more
        return watching.put(self.database, Wish(rules, **values), self.load, owner="ann", now=1.0, here=True)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    (tmp_path / "tree").mkdir()
    with Database(f"sqlite:///{tmp_path}/x.db") as database:
        database.upgrade()
        yield Bench(database, tmp_path / "tree")


def test_a_watch_is_called_as_its_experiment_and_asked_again_it_is_the_same(bench: Bench) -> None:
    made = bench.put()
    assert (made.name, made.experiment, made.owner) == ("2026-3-smith", "2026 3/smith", "ann")
    watches.stop(bench.database, made.name, 2.0)
    assert bench.put().stopped_at == 0.0
    assert len(watches.ls(bench.database)) == 1


MISTAKES: dict[str, tuple[type[BeamwayError], str, dict[str, Any]]] = {
    "no directory": (SettingsError, "cannot be watched: No such file or directory", {"directory": "/no/such"}),
    "relative": (SettingsError, "not said from the root on", {"directory": "here"}),
    "not said": (SettingsError, "'directory' is not said", {"directory": ""}),
    "no experiment": (SettingsError, "'experiment' is not said", {"experiment": ""}),
    "no workflow": (SettingsError, "'workflow' is not said", {"rules": 'match = "*"\n'}),
    "unknown workflow": (NotFound, "There is no workflow 'u'", {"rules": 'workflow = "u"\n'}),
    "unknown argument": (ArgumentError, "'wrod'", {"rules": 'workflow = "takes"\narguments = { wrod = "a" }\n'}),
    "missing argument": (ArgumentError, "needs the argument 'word'", {"rules": 'workflow = "takes"\n'}),
    "wrong argument": (
        ArgumentError,
        "'n' must be a whole number",
        {"rules": 'workflow = "takes"\narguments = { word = "a", n = "x" }\n'},
    ),
    "another's workflow": (SettingsError, "is of 'me', not of 'you'", {"rules": 'workflow = "t"\nowner = "you"\n'}),
    "a name": (SettingsError, "cannot be called 'a b'", {"name": "a b"}),
    "a line": (SettingsError, "r.toml:2:", {"rules": 'workflow = "t"\nhiden = true\n', "source": "r.toml"}),
    "a rule file that is none": (SettingsError, "at line 1", {"rules": "workflow = \n"}),
}


@pytest.mark.parametrize("what", MISTAKES)
def test_each_mistake_is_one_sentence_and_nothing_is_written(bench: Bench, what: str) -> None:
    kind, sentence, said = MISTAKES[what]
    with pytest.raises(kind) as caught:
        bench.put(**said)
    assert sentence in caught.value.sentence
    assert watches.ls(bench.database) == []


def test_a_directory_must_be_one_that_can_be_read(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="Not a directory"):
        bench.put(directory=str(tmp_path / "file"))
    bench.tree.chmod(0)
    me = os.geteuid()
    if me == 0:
        os.seteuid(65534)  # root may read every directory
    try:
        with pytest.raises(SettingsError, match="Permission denied"):
            bench.put()
    finally:
        os.seteuid(me)


def test_two_of_one_name(bench: Bench, tmp_path: Path) -> None:
    bench.put()
    other = 'workflow = "t"\nmatch = "*.h5"\n'
    with pytest.raises(Conflict, match="watched already as '2026-3-smith', with other rules"):
        bench.put(other)
    with pytest.raises(Conflict, match="There is a watch '2026-3-smith' already, of"):
        bench.put(directory=str(tmp_path))
    assert bench.put(other, change=True).rules == other
    assert bench.put(other, name="second").name == "second"


def test_arguments_that_are_known_later_are_not_compared_now(bench: Bench) -> None:
    rules = (
        'workflow = "takes"\nmatch = "{a}_{index}.h5"\narguments = { word = "{a}" }\narguments_from = { n = "/n" }\n'
    )
    assert bench.put(rules).rules == rules


def test_a_version_is_of_what_a_workflow_says_and_of_those_it_starts() -> None:
    now = [0.0]
    child = {**T, "name": "child"}
    known = {"t": {**T, "stages": {"1": {"workflow": "child", "arguments": {}}}}, "child": child}
    versions = watching.Versions(lambda name: loader.load(known[name]), clock=lambda: now[0])
    first = versions.get("t")[1]
    assert first.startswith("t@")
    known["child"] = {**child, "stages": {"1": {"command": "other"}}}
    assert versions.get("t")[1] == first, "it was read just now"
    now[0] += 2 * watching.FRESH_S
    assert versions.get("t")[1] != first
    known["child"] = child
    now[0] += 2 * watching.FRESH_S
    assert versions.get("t")[1] == first


def arrived(bench: Bench, state: ArrivalState, **more: Any) -> int:
    mark = (1, 2, 3, 4)
    values: dict[str, Any] = {"reason": "no rule wants it"} | more
    made = Arrival("2026-3-smith", "e", arrivals.digest_of("a.h5", mark), "a.h5", mark, state, **values)
    arrivals.decide(bench.database, [made])
    return arrivals.ls(bench.database)[-1].id


def test_one_that_no_rule_wanted_is_released_with_a_workflow(bench: Bench) -> None:
    bench.put()
    number = arrived(bench, ArrivalState.IGNORED)
    with pytest.raises(Conflict, match="No rule has chosen a workflow"):
        watching.release(bench.database, number, bench.load, who="ann", now=2.0)
    with pytest.raises(NotFound, match="no workflow 'u'"):
        watching.release(bench.database, number, bench.load, who="ann", now=2.0, workflow="u")
    given = {"word": "a"}
    made = watching.release(bench.database, number, bench.load, who="ann", now=2.0, workflow="takes", given=given)
    assert (made.state, made.workflow.partition("@")[0]) == (ArrivalState.DUE, "takes")
    assert made.arguments == {"filePath": f"{bench.tree}/a.h5", "word": "a"}
    with pytest.raises(Conflict, match="runs already"):
        watching.release(bench.database, number, bench.load, who="ann", now=2.0)
    with pytest.raises(NotFound, match="no arrival 77"):
        watching.release(bench.database, 77, bench.load, who="ann", now=2.0)


def test_one_is_released_with_the_workflow_as_it_is_now(bench: Bench) -> None:
    bench.put()
    number = arrived(bench, ArrivalState.INCOMPLETE, workflow="t@", arguments={"filePath": "/f", "a": "1"})
    made = watching.release(bench.database, number, bench.load, who="ann", now=2.0, given={"a": "2"})
    assert made.workflow == watching.Versions(bench.load).get("t")[1]
    assert made.arguments == {"filePath": "/f", "a": "2"}


@pytest.mark.parametrize("state", ArrivalState)
def test_what_became_of_each_is_a_sentence(state: ArrivalState) -> None:
    sentence, then = watching.sentence(
        Arrival("w", "e", b"", "a.h5", (1, 2, 3, 4), state, reason="so it is", run_id="r1")
    )
    assert sentence.startswith("'a.h5' ")
    assert sentence.endswith(".")
    assert then
    assert ("r1" if state is ArrivalState.RUN else "so it is") in sentence
