"""Watches in the store: people and the watcher change them at the same time."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from orchestrator.errors import NotFound, Stale
from orchestrator.store import arrivals, leases, watches
from orchestrator.store.arrivals import Arrival, ArrivalState
from orchestrator.store.database import Database
from orchestrator.store.watches import Report, Watch

WATCH = Watch("w", "e", "/data/\udcff", "rules", device=2**63, inode=2**64 - 1, created_at=1.0)


def seen(database: Database, name: str, state: ArrivalState, reason: str = "no") -> None:
    mark = (1, 2, 3, 4)
    arrivals.decide(database, [Arrival("w", "e", arrivals.digest_of(name, mark), name, mark, state, reason=reason)])


def test_the_first_of_a_name_is_kept(database: Database) -> None:
    assert watches.add(database, WATCH)
    assert not watches.add(database, replace(WATCH, directory="/other"))
    assert watches.get(database, "w") == WATCH
    with pytest.raises(NotFound, match="no watch 'x'"):
        watches.get(database, "x")
    with pytest.raises(NotFound):
        watches.change(database, "x", stopped_at=1.0)


def test_each_sets_its_own_fields(database: Database) -> None:
    """What a person changes while the watcher holds an older record stays changed."""
    watches.put(database, WATCH)
    watches.change(database, "w", rules="others")
    watches.follow(database, WATCH, 5, 6)
    watches.change(database, "w", baseline_at=2.0)
    watches.stop(database, "w", 3.0)
    watches.stop(database, "w", 4.0)
    found = watches.get(database, "w")
    assert (found.rules, found.device, found.baseline_at, found.stopped_at) == ("others", 5, 2.0, 3.0)


def test_what_former_rules_ignored_is_looked_at_again(database: Database) -> None:
    watches.put(database, WATCH)
    watches.follow(database, WATCH, 1, 1)
    seen(database, "a", ArrivalState.IGNORED)
    seen(database, "old", ArrivalState.IGNORED, arrivals.BEFORE)
    watches.follow(database, WATCH, 1, 1)
    assert arrivals.counts(database) == {ArrivalState.IGNORED: 2}
    watches.follow(database, watches.change(database, "w", rules="others"), 1, 1)
    assert {a.name: a.state.value for a in arrivals.ls(database)} == {"a": "incomplete", "old": "ignored"}


def test_there_is_something_to_do_while_something_is_watched_or_due(database: Database) -> None:
    assert not watches.busy(database, "local")
    watches.put(database, WATCH)
    assert (watches.busy(database, "local"), watches.busy(database, "beamline")) == (True, False)
    watches.stop(database, "w", 2.0)
    assert not watches.busy(database, "local")
    seen(database, "a", ArrivalState.DUE)
    assert watches.busy(database, "local")


def test_how_it_stands(database: Database) -> None:
    watches.put(database, WATCH)
    seen(database, "a", ArrivalState.IGNORED)
    seen(database, "b", ArrivalState.IGNORED)
    watches.put_reports(database, {"w": Report(1.0, "gone")})
    watches.put_reports(database, {"w": Report(2.0, scans=3, troubles={"so\udcff": "no"})})
    [found] = watches.standing(database)
    assert found.watch == WATCH
    assert found.report == Report(2.0, scans=3, troubles={"so\udcff": "no"})
    assert found.arrivals == {"ignored": 2}


def test_one_that_lost_its_lease_writes_nothing(database: Database) -> None:
    watches.put(database, WATCH)
    old = leases.acquire(database, "watcher:local", "a", lease_s=100.0)
    assert old is not None
    leases.acquire(database, "watcher:local", "a", lease_s=100.0)
    for write in (
        lambda: watches.follow(database, WATCH, 7, 7, fence=old),
        lambda: watches.stop(database, "w", 7.0, fence=old),
        lambda: watches.change(database, "w", baseline_at=7.0, fence=old),
        lambda: watches.put_reports(database, {"w": Report(7.0)}, fence=old),
    ):
        with pytest.raises(Stale):
            write()
    assert watches.get(database, "w") == WATCH
    assert watches.reports(database) == {}
