"""Files that appear end as what they are: run once, duplicate, ignored or incomplete, whoever is killed meanwhile."""

from __future__ import annotations

import os
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.arrival import tree as trees
from orchestrator.arrival import watch as loop
from orchestrator.arrival.watch import Watcher
from orchestrator.errors import ArgumentError, Denied, SettingsError, Stale, Unavailable
from orchestrator.store import arrivals as store
from orchestrator.store import leases, watches
from orchestrator.store.arrivals import Arrival
from orchestrator.store.database import Database

RULES = """
directory = "{directory}"
experiment = "{experiment}"
workflow = "tomo"
extensions = "h5"
ready = {{ settle_s = 1, patience_s = 60 }}
"""


class Service:
    """Begins one run a key, as the service does."""

    def __init__(self) -> None:
        self.runs: dict[str, Arrival] = {}
        self.asked: list[str] = []
        self.fail: Exception | None = None

    def begun(self, run_key: str) -> str:
        return f"run-{run_key[:8]}" if run_key in self.runs else ""

    def begin(self, arrival: Arrival) -> str:
        self.asked.append(arrival.experiment)
        if self.fail is not None:
            raise self.fail
        before = self.runs.setdefault(arrival.run_key, arrival)
        assert before.arguments == arrival.arguments  # another wish under the same key is refused
        return f"run-{arrival.run_key[:8]}"

    @property
    def files(self) -> list[str]:
        return sorted(a.name for a in self.runs.values())


class Bench:
    """A watcher whose time passes when told, over a store that outlives it."""

    def __init__(self, database: Database, place: Path) -> None:
        self.database, self.place = database, place
        self.time, self.wall = 1000.0, time.time() + 60.0  # files of tests are older than their watches
        self.service = Service()
        self.watcher = self._new()

    def _new(self) -> Watcher:
        return Watcher(self.database, self.service, hints=False, clock=lambda: self.time, now=lambda: self.wall)

    def watch(self, name: str = "w", rules: str = RULES, experiment: str = "e") -> Path:
        directory = self.place / name
        directory.mkdir(exist_ok=True)
        self.watcher.add(name, rules.format(directory=directory, experiment=experiment))
        return directory

    def again(self) -> None:
        """Another process goes on."""
        self.watcher.close()
        self.watcher = self._new()
        self.watcher.resume()

    def settle(self, seconds: float = 5.0) -> None:
        end = self.time + seconds
        while self.time < end:
            for _ in range(1000):
                if not self.watcher.turn():
                    break
            self.time += 0.25

    def states(self) -> dict[str, str]:
        return {a.name: a.state.value for a in store.ls(self.database)}

    def reason(self, name: str) -> str:
        return [a.reason for a in store.ls(self.database) if a.name == name][-1]


def put(path: Path, content: bytes = b"", *, of: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content or (of or path.name).encode())
    return path


def test_each_ends_as_what_it_is(bench: Bench) -> None:
    tree = bench.watch()
    put(tree / "a.h5")
    put(tree / "deep/er/b.h5")
    put(tree / "notes.txt")
    put(tree / ".hidden.h5")
    put(tree / "copy.h5", of="a.h5")
    (tree / "empty.h5").touch()
    (tree / "link.h5").symlink_to(tree / "a.h5")
    os.mkfifo(tree / "fifo.h5")
    bench.settle()
    (one_of_the_two,) = {"a.h5", "copy.h5"} & set(bench.service.files)
    other = ({"a.h5", "copy.h5"} - {one_of_the_two}).pop()
    assert bench.states() == {
        one_of_the_two: "run",
        other: "duplicate",
        "deep/er/b.h5": "run",
        "notes.txt": "ignored",
        ".hidden.h5": "ignored",
        "link.h5": "ignored",
        "fifo.h5": "ignored",
    }
    assert [a.arguments for a in bench.service.runs.values() if a.name != one_of_the_two] == [
        {"filePath": str(tree / "deep/er/b.h5")}
    ]
    bench.settle(60.0)
    assert bench.states()["empty.h5"] == "incomplete"
    assert "empty" in bench.reason("empty.h5")
    assert "symbolic link" in bench.reason("link.h5")
    assert "hidden" in bench.reason(".hidden.h5")


def test_renamed_touched_recopied_linked_and_replaced(bench: Bench) -> None:
    tree = bench.watch()
    for name in ("renamed", "touched", "recopied", "linked", "replaced", "changed"):
        put(tree / f"{name}.h5")
    bench.settle()
    assert len(bench.service.runs) == 6
    (tree / "renamed.h5").rename(tree / "new name.h5")
    os.utime(tree / "touched.h5", ns=(5, 5))
    shutil.copy(tree / "recopied.h5", tree / "part.tmp")
    (tree / "part.tmp").rename(tree / "recopied.h5")
    os.link(tree / "linked.h5", tree / "hard.h5")
    put(tree / "replaced.tmp", of="other").rename(tree / "replaced.h5")
    with (tree / "changed.h5").open("ab") as file:
        file.write(b"more")
    bench.settle()
    assert sorted(bench.service.files) == sorted(
        [f"{n}.h5" for n in ("changed", "changed", "linked", "recopied", "renamed", "replaced", "replaced", "touched")]
    )
    later = {a.name: (a.state.value, a.reason) for a in store.ls(bench.database, after=6)}
    assert {name: state for name, (state, _) in later.items() if name != "part.tmp"} == {
        "new name.h5": "duplicate",
        "touched.h5": "duplicate",
        "recopied.h5": "duplicate",
        "hard.h5": "duplicate",
        "replaced.h5": "run",
        "changed.h5": "run",
    }
    assert "same file as 'renamed.h5'" in later["new name.h5"][1]
    assert "same content as 'touched.h5'" in later["touched.h5"][1]


@pytest.mark.parametrize("seen", [True, False])
def test_what_is_renamed_or_replaced_before_its_run_began_runs_as_what_it_is_then(bench: Bench, seen: bool) -> None:
    tree = bench.watch()
    put(tree / "old.h5")
    put(tree / "x.h5", of="first")
    put(tree / "gone.h5")
    bench.service.fail = Unavailable("Not yet.")
    bench.settle()
    (tree / "old.h5").rename(tree / "new.h5")
    put(tree / "y.tmp", of="second").rename(tree / "x.h5")
    (tree / "gone.h5").unlink()
    if seen:
        bench.settle()
    bench.service.fail = None
    bench.settle(60.0)
    assert bench.service.files == ["new.h5", "x.h5"]
    assert {a.fingerprint[2] for a in bench.service.runs.values()} == {len("second")}
    assert bench.states()["gone.h5"] == "incomplete"
    assert "before its run began" in bench.reason("gone.h5")


def test_a_run_that_was_begun_and_not_noted_down_is_known_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its file is gone by then, and a copy of it is there: the copy does not run."""
    tree = bench.watch()
    put(tree / "old.h5")

    class Killed(BaseException):
        pass

    def die(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(store, "started", die)
        with pytest.raises(Killed):
            bench.settle()
    shutil.copy(tree / "old.h5", tree / "copy.h5")
    (tree / "old.h5").unlink()
    bench.again()
    bench.settle(60.0)
    assert bench.states() == {"old.h5": "run", "copy.h5": "duplicate"}
    assert bench.service.files == ["old.h5"]


def test_what_cannot_be_read_is_listed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = bench.watch()
    put(tree / "denied.h5")
    put(tree / "x.h5")
    root = bench.watcher.trees["w"].root
    real = root.open

    def refusing(name: str) -> int:
        if name == "denied.h5":
            raise PermissionError(13, "Permission denied")
        return real(name)

    monkeypatch.setattr(root, "open", refusing)
    bench.settle(70.0)
    assert bench.states() == {"x.h5": "run", "denied.h5": "incomplete"}
    assert "Permission denied" in bench.reason("denied.h5")


def test_a_watch_ends_after_its_time(bench: Bench) -> None:
    tree = bench.watch(rules="for_hours = 1\n" + RULES)
    put(tree / "a.h5")
    bench.settle()
    bench.time += 3600
    bench.settle()
    put(tree / "b.h5")
    bench.again()
    bench.settle()
    assert bench.states() == {"a.h5": "run"}
    assert watches.ls(bench.database)[0].stopped_at


def test_a_file_that_grows_is_left_until_it_is_still(bench: Bench) -> None:
    tree = bench.watch()
    with (tree / "x.h5").open("wb", buffering=0) as file:
        for _ in range(10):
            file.write(b"frame")
            bench.settle(0.5)
        bench.settle(5.0)  # still, but open
        assert bench.states() == {}
    bench.settle(5.0)
    assert bench.states() == {"x.h5": "run"}


def test_a_file_exchanged_while_it_settles_runs_once_as_what_it_became(bench: Bench) -> None:
    tree = bench.watch()
    put(tree / "x.h5", of="first")
    bench.settle(0.75)
    put(tree / "y.tmp", of="second").rename(tree / "x.h5")
    bench.settle(5.0)
    (run,) = bench.service.runs.values()
    assert run.fingerprint[2] == len("second")


def test_clocks_that_jump_change_nothing(bench: Bench) -> None:
    tree = bench.watch()
    for number, mtime in enumerate([0, 1, 4 * 10**18, -(10**18)]):
        os.utime(put(tree / f"{number}.h5"), ns=(mtime, mtime))
    bench.wall -= 1e9
    bench.settle(0.5)
    assert bench.service.files == []
    bench.wall += 5e9
    bench.settle(3.0)
    assert len(bench.service.files) == 4


def test_a_name_in_any_encoding_runs(bench: Bench) -> None:
    tree = bench.watch()
    name = os.fsdecode(b"sc\xff\xfean.h5")
    put(tree / name, b"1")
    bench.settle()
    bench.again()
    bench.settle()
    assert bench.states() == {name: "run"}
    assert [a.arguments["filePath"] for a in bench.service.runs.values()] == [str(tree / name)]


def test_what_was_there_before_can_be_left_alone(bench: Bench) -> None:
    tree = bench.place / "w"
    put(tree / "old.h5")
    bench.watch(rules="existing = false\n" + RULES)
    bench.settle()
    put(tree / "new.h5")
    bench.settle()
    bench.again()
    put(tree / "newer.h5")
    bench.settle()
    assert bench.states() == {"old.h5": "ignored", "new.h5": "run", "newer.h5": "run"}


def test_changed_rules_look_again_at_what_the_old_ones_ignored(bench: Bench) -> None:
    put(bench.place / "w/before.tif")
    rules = "existing = false\n" + RULES
    tree = bench.watch(rules=rules)
    bench.settle()
    put(tree / "x.h5")
    put(tree / "x.tif")
    put(tree / "x.txt")
    bench.settle()
    assert bench.states() == {"before.tif": "ignored", "x.h5": "run", "x.tif": "ignored", "x.txt": "ignored"}
    bench.watch(rules=rules.replace('"h5"', '"tif"'))
    bench.again()  # before it has looked at anything
    bench.settle()
    assert bench.states() == {"before.tif": "ignored", "x.h5": "run", "x.tif": "run", "x.txt": "ignored"}


@pytest.mark.parametrize("dies", range(6))
def test_a_watcher_that_ends_anywhere_loses_nothing_and_repeats_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, dies: int
) -> None:
    """It ends at a random one of its writes and submissions, before or after; another goes on; many times over."""
    by_chance = random.Random(dies)
    tree = bench.watch()
    died = 0

    class Killed(BaseException):
        pass

    def mortal(do: Callable[..., object]) -> Callable[..., object]:
        def one(*given: object, **named: object) -> object:
            nonlocal died
            if by_chance.random() < 0.15:
                died += 1
                raise Killed
            said = do(*given, **named)
            if by_chance.random() < 0.15:
                died += 1
                raise Killed
            return said

        return one

    for name in ("decide", "started", "refused"):
        monkeypatch.setattr(store, name, mortal(getattr(store, name)))
    monkeypatch.setattr(bench.service, "begin", mortal(bench.service.begin))
    wanted = []
    for _ in range(12):
        for number in range(by_chance.randrange(8)):
            wanted.append(put(tree / f"{len(wanted)}/{number}.h5", of=str(len(wanted))))
        try:
            bench.again()
            bench.settle(2.0)
        except Killed:
            continue
    monkeypatch.undo()
    bench.again()
    bench.settle(5.0)
    assert died
    assert bench.service.files == sorted(str(p.relative_to(tree)) for p in wanted)
    assert set(bench.states().values()) == {"run"}


def test_a_service_that_is_away_is_waited_for(bench: Bench) -> None:
    tree = bench.watch()
    put(tree / "x.h5")
    for error in (Unavailable("It is away."), Denied("The token has run out.")):
        bench.service.fail = error
        bench.settle()
        assert bench.states() == {"x.h5": "due"}
        assert error.sentence in watches.reports(bench.database)["w"].error
    assert len(bench.service.asked) < 10
    bench.service.fail = None
    bench.settle(40.0)
    assert bench.states() == {"x.h5": "run"}
    assert watches.reports(bench.database)["w"].error == ""


@pytest.mark.parametrize("what", ["decide", "started", "change", "due"])
def test_a_store_that_fails_for_a_while_loses_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    put(bench.place / "w/old.h5")
    tree = bench.watch(rules="existing = false\n" + RULES)
    if what != "change":
        bench.settle()

    def fail(*_: object, **__: object) -> None:
        raise Unavailable("The disk is full.")

    with monkeypatch.context() as patch:
        patch.setattr(watches if what == "change" else store, what, fail)
        bench.settle()
        if what != "change":  # else it would be there before the watch begins
            put(tree / "x.h5")
            (tree / "link").symlink_to("x.h5")
        bench.settle()
    put(tree / "y.h5")
    bench.settle(40.0)
    expected = {"old.h5": "ignored", "y.h5": "run"}
    assert bench.states() == expected | ({"x.h5": "run", "link": "ignored"} if what != "change" else {})
    assert len(bench.service.runs) == len(bench.states()) // 2


def test_one_whose_lease_was_taken_over_stops(bench: Bench) -> None:
    tree = bench.watch()
    old = leases.acquire(bench.database, "engine", "a", lease_s=100.0)
    bench.watcher._fence = old
    put(tree / "a.h5")
    bench.settle()
    assert old is not None
    leases.release(bench.database, old)
    leases.acquire(bench.database, "engine", "b", lease_s=100.0)
    put(tree / "b.h5")
    with pytest.raises(Stale):
        bench.settle()
    assert bench.states() == {"a.h5": "run"}


def test_a_run_that_cannot_be_begun_is_said_and_can_be_released(bench: Bench) -> None:
    tree = bench.watch()
    put(tree / "x.h5")
    bench.service.fail = ArgumentError("There is no argument 'x'.")
    bench.settle()
    (arrival,) = store.ls(bench.database)
    assert arrival.state.value == "incomplete"
    assert "There is no argument 'x'." in arrival.reason
    bench.service.fail = None
    store.release(bench.database, arrival.id, who="ann", now=1.0)
    bench.settle()
    assert bench.states() == {"x.h5": "run"}


def test_a_backfill_does_not_keep_another_experiment_waiting(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "QUOTA", 20)
    many, live = bench.watch("many", experiment="a-backfill"), bench.watch("live", experiment="b-live")
    for number in range(200):
        put(many / f"{number}.h5")
    bench.service.fail = Unavailable("Not yet.")
    bench.settle(3.0)
    put(live / "scan.h5")
    bench.settle(40.0)
    bench.service.fail, bench.service.asked = None, []
    bench.settle(40.0)
    assert bench.service.asked.index("b-live") <= 20
    assert Counter(bench.service.asked) == {"a-backfill": 200, "b-live": 1}


def test_a_watched_directory_that_vanishes_is_said_and_taken_up_when_it_is_back(bench: Bench) -> None:
    tree = bench.watch()
    put(tree / "a.h5")
    bench.settle()
    tree.rename(bench.place / "away")
    bench.settle()
    assert "not there any more" in bench.watcher.trees["w"].troubles[""]
    tree.mkdir()
    put(tree / "b.h5")
    bench.settle(8.0)
    assert bench.watcher.trees["w"].troubles == {}
    assert bench.service.files == ["a.h5", "b.h5"]
    with pytest.raises(SettingsError, match="cannot be watched"):
        bench.watcher.add("x", RULES.format(directory="/nowhere", experiment="e"))
    with pytest.raises(SettingsError, match="cannot be called"):
        bench.watcher.add("x" * 129, RULES)


def test_a_file_system_under_another_number_is_the_same(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a restart of the machine: all files keep their fingerprints, without a sum having to be made."""
    rules = RULES + "checksum = false\n"
    tree = bench.watch(rules=rules)
    put(tree / "a.h5")
    bench.settle()
    with bench.database.write() as connection:  # what the first watcher saw was device 77
        connection.execute(store.schema.arrivals.delete())
    watch = watches.ls(bench.database)[0]
    from msgspec.structs import replace

    watches.put(bench.database, replace(watch, device=77))
    bench.again()
    bench.settle()
    assert [a.fingerprint[0] for a in store.ls(bench.database)] == [77]


def test_a_big_file_is_summed_aside_and_one_changed_meanwhile_is_not_taken(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trees, "BIG", 1)
    tree = bench.watch()
    put(tree / "x.h5")
    changed = []
    evidence = bench.watcher.trees["w"]._evidence
    real = evidence.checksum

    def slow(found: object) -> str:
        if not changed:
            changed.append(put(tree / "x.h5", of="changed"))
        return real(found)  # type: ignore[arg-type]

    monkeypatch.setattr(evidence, "checksum", slow)
    for _ in range(100):
        bench.settle(0.5)
        if bench.service.runs:
            break
    assert [a.fingerprint[2] for a in bench.service.runs.values()] == [len("changed")]
    assert bench.states() == {"x.h5": "run"}


def test_one_that_watches_once_ends_when_all_is_decided(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trees, "MOST_WAITING", 5)
    for number in range(12):
        put(bench.place / f"w/{number}.h5")
    put(bench.place / "w/empty.h5").write_bytes(b"")
    bench.watch(rules="once = true\n" + RULES)
    bench.settle(50.0)
    assert list(bench.watcher.trees) == ["w"], "one may still become whole"
    bench.settle(30.0)
    assert list(bench.watcher.trees) == []
    assert watches.get(bench.database, "w").stopped_at
    assert Counter(bench.states().values()) == {"run": 12, "incomplete": 1}
