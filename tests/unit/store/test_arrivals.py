"""Arrivals in the store: each file and each content runs once, and what is due stays due until its run is there."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from orchestrator.errors import Conflict, NotFound, Stale, Unavailable
from orchestrator.store import arrivals as store
from orchestrator.store import leases, watches
from orchestrator.store.arrivals import Arrival, ArrivalState
from orchestrator.store.database import Database
from orchestrator.store.watches import Watch
from tests.postgres import Postgres

NASTY = "so\udcffme/\x01\n name’s.h5"


def due(name: str, *fingerprint: int, **more: Any) -> Arrival:
    device, inode, size, mtime_ns = fingerprint or (1, 2, 3, 4)
    mark = (device, inode, size, mtime_ns)
    values: dict[str, Any] = {"watch": "w", "experiment": "e", "workflow": "tomo@1", "state": ArrivalState.DUE} | more
    arrival = Arrival(name=name, place=store.digest_of(name, mark), fingerprint=mark, **values)
    return store.keyed(arrival) if arrival.state is ArrivalState.DUE else arrival


def states(database: Database) -> dict[str, str]:
    return {a.name: a.state.value for a in store.ls(database)}


def test_comes_back_as_it_was(database: Database) -> None:
    big = due(NASTY, 2**63 + 5, 2**64 - 1, 2**62, -5, experiment="É" * 400, arguments={"x": "\udcfe\0"}, checksum="ab")
    store.decide(database, [big])
    (found,) = store.due(database, "É" * 400, limit=5)
    assert found == replace(big, id=found.id)


def test_a_file_renamed_linked_or_copied_does_not_run_again(database: Database) -> None:
    store.decide(database, [due("a", 1, 2, 3, 4, checksum="s"), due("link", 1, 2, 3, 4, checksum="s")])
    store.decide(database, [due("renamed", 1, 2, 3, 4)])
    store.decide(database, [due("copied", 1, 9, 3, 9, checksum="s"), due("touched", 1, 2, 3, 9, checksum="s")])
    store.decide(database, [due("other", 1, 9, 3, 10, checksum="t"), due("replaced", 1, 2, 3, 10)])
    assert states(database) == {
        "a": "due",
        "link": "duplicate",
        "renamed": "duplicate",
        "copied": "duplicate",
        "touched": "duplicate",
        "other": "due",
        "replaced": "due",
    }
    reasons = {a.name: a.reason for a in store.ls(database)}
    assert "the same file as 'a'" in reasons["renamed"]
    assert "the same content as 'a'" in reasons["copied"]


@pytest.mark.parametrize("other", [{"workflow": "tomo@2"}, {"experiment": "f"}])
def test_another_version_or_experiment_runs_it_too(database: Database, other: dict[str, str]) -> None:
    store.decide(database, [due("a", checksum="s"), due("a", checksum="s", watch="v", **other)])
    assert store.counts(database) == {ArrivalState.DUE: 2}


def test_the_database_itself_refuses_a_second_run(database: Database) -> None:
    store.decide(database, [due("a", 1, 2, 3, 4, checksum="s")])
    for again in (due("b", 1, 2, 3, 4), due("c", 1, 2, 3, 5, checksum="s")):
        with pytest.raises(Unavailable, match=r"(?i)unique"), database.write() as connection:
            connection.execute(store.schema.arrivals.insert().values(**store._row(again)))


def test_what_was_decided_stays_and_what_was_incomplete_may_become_due(database: Database) -> None:
    store.decide(database, [due("a", state=ArrivalState.INCOMPLETE, reason="half", seen_at=1.0), due("b", 5, 5, 5, 5)])
    store.decide(database, [due("b", 5, 5, 5, 5, state=ArrivalState.IGNORED), due("b", 5, 5, 5, 5)])
    store.decide(database, [due("a", seen_at=2.0)])
    assert states(database) == {"a": "due", "b": "due"}
    assert store.ls(database)[0].seen_at == 1.0
    assert dict(store.known(database, "w")) == {a.place: True for a in store.ls(database)}
    assert list(store.known(database, "other")) == []


def test_what_becomes_whole_between_two_writings_is_due(database: Database) -> None:
    """Its watcher goes by the last that it has said, and would not look at it again."""
    store.decide(database, [due("a", state=ArrivalState.INCOMPLETE, reason="half"), due("a")])
    assert states(database) == {"a": "due"}


def test_of_many_each_that_is_known_is_found_and_they_are_given_in_pages(database: Database) -> None:
    many = [due(f"{n}", 1, n, 3, 4, checksum=f"s{n}") for n in range(1100)]
    store.decide(database, many)
    copies = [due(f"copy of {n}", 2, n, 3, 4, checksum=f"s{n}") for n in range(1100)]
    assert store.decide(database, copies + many) == {ArrivalState.DUPLICATE: 1100}
    first = store.due(database, "e", limit=600)
    rest = store.due(database, "e", limit=600, after=first[-1].id)
    assert [a.name for a in first + rest] == [a.name for a in many]


def test_postgresql_knows_of_a_flood_at_once(postgres: Postgres) -> None:
    """Its own look comes once a minute; until then each batch reads the whole table."""
    analyzed = "SELECT last_analyze IS NOT NULL FROM pg_stat_user_tables WHERE relname = 'arrivals'"
    with Database(postgres.new_database()) as database:
        database.upgrade()
        for start in range(0, 20_000, 1000):
            store.decide(database, [due(f"{n}", 1, n, 3, 4) for n in range(start, start + 1000)])
            with database.read() as connection:
                if connection.exec_driver_sql(analyzed).scalar():
                    return
            time.sleep(1.1)  # the server counts changes once a second
    raise AssertionError("it was never analyzed")


def test_due_until_its_run_is_there(database: Database) -> None:
    store.decide(database, [due("a"), due("b", 5, 5, 5, 5)])
    first, second = store.due(database, "e", limit=5)
    store.started(database, [(first.id, "run-1")])
    store.started(database, [(first.id, "run-2")])
    assert [a.run_id for a in store.ls(database, state=ArrivalState.RUN)] == ["run-1"]
    assert store.due(database, "e", limit=5) == [second]
    store.refused(database, second, "no such workflow")
    assert [(a.state, a.reason, a.run_key) for a in store.ls(database, after=first.id)] == [
        (ArrivalState.INCOMPLETE, "no such workflow", "")
    ]


def test_a_duplicate_has_the_place_of_one_that_cannot_run(database: Database) -> None:
    """Else a file that was renamed before its run began would never run."""
    store.decide(database, [due("old", checksum="s")])
    store.decide(database, [due("new", checksum="s"), due("copy", 8, 8, 3, 8, checksum="s")])
    (old,) = store.due(database, "e", limit=9)
    store.refused(database, old, "gone")
    store.refused(database, old, "gone")
    assert states(database) == {"old": "incomplete", "new": "due", "copy": "duplicate"}
    (new,) = store.due(database, "e", limit=9)
    store.refused(database, new, "gone, too")
    assert states(database) == {"old": "incomplete", "new": "incomplete", "copy": "due"}


def test_a_duplicate_runs_in_the_place_of_one_whose_run_has_failed(database: Database) -> None:
    names = [due("a", 1, 2, 3, 4, checksum="s"), due("b", 1, 2, 3, 4, checksum="s"), due("c", 9, 9, 3, 9, checksum="s")]
    store.decide(database, [*names, due("done", 5, 5, 5, 5), due("its copy", 5, 5, 5, 5)])
    store.started(database, [(a.id, f"run of {a.name}") for a in store.due(database, "e", limit=9)])
    assert store.failed_with_duplicates(database) == []
    with database.write() as connection:
        texts = {c.name: "" for c in store.schema.dead_letters.columns}
        for run_id in ("run of a", "of no arrival"):
            connection.execute(store.schema.dead_letters.insert().values(**{**texts, "run_id": run_id, "at": 1.0}))
    (failed,) = store.failed_with_duplicates(database)
    heirs = store.duplicates(database, failed.run_key, limit=9)
    assert (failed.name, [heir.name for heir in heirs]) == ("a", ["b", "c"])
    for _ in range(2):
        store.inherit(database, failed, heirs[0], "in its place")
    assert states(database) == {"a": "run", "b": "due", "c": "duplicate", "done": "run", "its copy": "duplicate"}
    (again,) = store.due(database, "e", limit=9)
    assert again.run_key != failed.run_key
    assert [d.name for d in store.duplicates(database, again.run_key, limit=9)] == ["c"]
    store.decide(database, [due("d", 8, 8, 3, 8, checksum="s")])
    assert states(database)["d"] == "duplicate"
    assert store.failed_with_duplicates(database) == []


def test_other_content_under_the_same_numbers_is_another_file(database: Database) -> None:
    store.decide(database, [due("a", 1, 2, 3, 4, checksum="s")])
    store.decide(database, [due("b", 1, 2, 3, 4, checksum="t"), due("c", 1, 2, 3, 4, checksum="t")])
    assert states(database) == {"a": "due", "b": "due", "c": "duplicate"}
    assert len({a.run_key for a in store.due(database, "e", limit=9)}) == 2


def test_released_by_hand(database: Database) -> None:
    store.decide(database, [due("a"), due("b"), due("c", 7, 7, 7, 7, state=ArrivalState.IGNORED, workflow="")])
    one, two, three = store.ls(database)
    with pytest.raises(Conflict, match="runs already"):
        store.release(database, one.id, who="ann", now=5.0)
    with pytest.raises(Conflict, match="No rule"):
        store.release(database, three.id, who="ann", now=5.0)
    with pytest.raises(NotFound):
        store.release(database, 99, who="ann", now=5.0)
    store.release(database, two.id, who="ann", now=5.0)
    store.release(database, three.id, who="ann", now=5.0, workflow="other@1", arguments={"x": "1"})
    assert states(database) == {"a": "due", "b": "due", "c": "due"}
    assert len({a.run_key for a in store.due(database, "e", limit=9)}) == 3


def test_the_experiments_that_have_something_due(database: Database) -> None:
    assert store.due_experiments(database) == []
    names = ["b", "a", "É" * 400, "Z", "a b"]
    store.decide(database, [due(f"{n}", 1, n, 1, 1, watch=e[:9], experiment=e) for e in names for n in range(3)])
    store.decide(database, [due("x", 1, 9, 9, 9, experiment="ignored", state=ArrivalState.IGNORED)])
    found = store.due_experiments(database)
    assert len(found) == len(names)
    assert sorted(len(store.due(database, e, limit=9)) for e in found) == [3] * 5


def test_one_that_lost_its_lease_writes_nothing(database: Database) -> None:
    old = leases.acquire(database, "engine", "a", lease_s=100.0)
    assert old is not None
    leases.acquire(database, "engine", "a", lease_s=100.0)
    with pytest.raises(Stale):
        store.decide(database, [due("a")], fence=old)
    assert states(database) == {}


def test_watches(database: Database) -> None:
    watch = Watch("w", "e", "/data/\udcff", "rules", device=2**63, inode=2**64 - 1, created_at=1.0)
    watches.put(database, watch)
    watches.put(database, replace(watch, baseline_at=2.0))
    assert watches.ls(database) == [replace(watch, baseline_at=2.0)]


FILES = st.tuples(st.integers(1, 3), st.integers(1, 3), st.sampled_from(["", "s", "t"]), st.sampled_from("abc"))


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=st.lists(st.lists(FILES, max_size=6), max_size=6))
def test_no_file_and_no_content_runs_twice_whatever_comes(
    database: Database, batches: list[list[tuple[int, int, str, str]]]
) -> None:
    with database.write() as connection:
        connection.execute(store.schema.arrivals.delete())
    seen = set()
    for batch in batches:
        made = [due(name, 1, inode, 3, mtime, checksum=checksum) for inode, mtime, checksum, name in batch]
        seen |= {a.place for a in made}
        store.decide(database, made)
    found = store.ls(database)
    running = [a for a in found if a.state is ArrivalState.DUE]
    assert {a.place for a in found} == seen
    for fingerprint in {a.fingerprint for a in running}:  # an inode is used again: other content is another file
        sums = [a.checksum for a in running if a.fingerprint == fingerprint]
        assert len(set(sums)) == len(sums)
        assert "" not in sums or len(sums) == 1
    assert len({a.checksum for a in running if a.checksum}) == len([a for a in running if a.checksum])
    for a in found:
        assert any(a.fingerprint == r.fingerprint or a.checksum == r.checksum != "" for r in running)
