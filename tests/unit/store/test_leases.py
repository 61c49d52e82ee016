"""Leases and fences: of several who could write one may, and who lost it cannot."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.errors import Stale, Unavailable
from orchestrator.model import Plan, Run
from orchestrator.store import leases, search
from orchestrator.store import runs as store
from orchestrator.store.database import Database
from orchestrator.store.leases import Lease

LONG_S, SHORT_S = 100.0, 0.05


@pytest.fixture
def other(database: Database) -> Iterator[Database]:
    """The same store, opened by another process."""
    made = Database(database.url)
    yield made
    made.close()


def taken(database: Database, holder: str, *, lease_s: float = LONG_S, name: str = "engine") -> Lease:
    lease = leases.acquire(database, name, holder, lease_s=lease_s)
    assert lease is not None
    return lease


def event(text: str) -> store.EventRow:
    return store.EventRow("r", 1.0, "noted", text=text)


def noted(database: Database) -> list[str]:
    return [e.text for e in store.events_after(database, "r", limit=100_000)]


def test_one_that_stands_is_not_given_to_another(database: Database, other: Database) -> None:
    lease = leases.acquire(database, "engine", "a", lease_s=LONG_S, doc="host 1")
    assert lease == Lease("engine", "a", 1, LONG_S, "host 1")
    assert leases.acquire(other, "engine", "b", lease_s=LONG_S) is None
    assert leases.acquire(other, "agent:local", "b", lease_s=LONG_S) is not None
    seen = leases.read(other, "engine")
    assert seen is not None
    assert (seen.holder, seen.fence, seen.doc) == ("a", 1, "host 1")
    assert LONG_S - 20 < seen.left_s <= LONG_S
    assert [x.name for x in leases.ls(other)] == ["agent:local", "engine"]
    assert leases.read(other, "none") is None


def test_one_that_ran_out_is_taken_over_with_the_next_fence(database: Database, other: Database) -> None:
    old = taken(database, "a", lease_s=SHORT_S)
    time.sleep(2 * SHORT_S)
    assert [x.left_s for x in leases.ls(database)] == [0.0]
    new = taken(other, "b")
    assert new.fence == old.fence + 1
    assert not leases.renew(database, old, lease_s=LONG_S)
    assert not leases.release(database, old)
    assert leases.renew(other, new, lease_s=LONG_S)


def test_one_that_ran_out_and_that_nobody_took_can_be_renewed(database: Database, other: Database) -> None:
    lease = taken(database, "a", lease_s=SHORT_S)
    time.sleep(2 * SHORT_S)
    assert leases.renew(database, lease, lease_s=LONG_S)
    assert leases.acquire(other, "engine", "b", lease_s=LONG_S) is None


def test_one_given_back_is_free_at_once_and_its_fence_is_not_used_again(database: Database, other: Database) -> None:
    old = taken(database, "a")
    assert leases.release(database, old)
    assert not leases.renew(database, old, lease_s=LONG_S)
    assert taken(other, "b").fence == old.fence + 1


def test_who_asks_again_voids_their_earlier_lease(database: Database) -> None:
    earlier, later = taken(database, "a"), taken(database, "a")
    assert later.fence == earlier.fence + 1
    assert not leases.renew(database, earlier, lease_s=LONG_S)


def test_a_stale_writer_writes_nothing(database: Database, other: Database) -> None:
    old = taken(database, "a", lease_s=SHORT_S)
    writer = store.Writer(database)
    writer.save([], [event("before")], fence=old)
    time.sleep(2 * SHORT_S)
    writer.save([], [event("late, but nobody took over")], fence=old)
    new = taken(other, "b")
    run = Run("r", Plan("w", "o", ()), 1.0)
    with pytest.raises(Stale) as told:
        writer.save([store.Changed(run, True, (), ())], [event("after")], fence=old)
    assert isinstance(told.value, Unavailable)
    assert told.value.exit_code == 75
    assert search.known(database, ["r"]) == set()
    store.Writer(other).save([store.Changed(run, True, (), ())], [event("new")], fence=new)
    assert noted(database) == ["before", "late, but nobody took over", "new"]
    assert store.load(database, "r").plan == run.plan


def test_a_takeover_waits_for_a_write_that_has_begun(database: Database, other: Database) -> None:
    old = taken(database, "a", lease_s=SHORT_S)
    time.sleep(2 * SHORT_S)
    got: list[Lease] = []
    thread = threading.Thread(target=lambda: got.append(taken(other, "b")))
    with database.write() as connection:
        leases.prove(connection, old)
        thread.start()
        time.sleep(0.3)
        assert got == []
    thread.join(10)
    assert [lease.fence for lease in got] == [old.fence + 1]


def test_of_many_who_ask_at_once_one_gets_it(database: Database) -> None:
    got: list[Lease | None] = []

    def ask(holder: str) -> None:
        mine = Database(database.url)
        got.append(leases.acquire(mine, "engine", holder, lease_s=LONG_S))
        mine.close()

    threads = [threading.Thread(target=ask, args=(f"h{i}",)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(got) == 8
    assert [lease.fence for lease in got if lease is not None] == [1]


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["take", "renew", "free", "write"])), max_size=12)
)
def test_whatever_two_do_only_the_last_to_take_it_can_write_and_fences_grow(
    database: Database, other: Database, steps: list[tuple[str, str]]
) -> None:
    name = f"role{next(ROLES)}"
    stores = {"a": database, "b": other}
    last: dict[str, Lease] = {}  # what each believes to hold
    holder, fence = "", 0  # what is so
    for who, what in steps:
        if what == "take":
            got = leases.acquire(stores[who], name, who, lease_s=LONG_S)
            assert (got is not None) == (holder in ("", who))
            if got is not None:
                assert got.fence == fence + 1
                holder, fence, last[who] = who, got.fence, got
        elif who in last:
            stands = holder == who and last[who].fence == fence
            if what == "renew":
                assert leases.renew(stores[who], last[who], lease_s=LONG_S) == stands
            elif what == "free":
                assert leases.release(stores[who], last[who]) == stands
                holder = "" if stands else holder
            else:
                assert can_write(stores[who], last[who]) == stands


ROLES = itertools.count()


def can_write(database: Database, lease: Lease) -> bool:
    try:
        store.Writer(database).save([], [event("x")], fence=lease)
    except Stale:
        return False
    return True


def test_writes_of_two_holders_never_mix_however_often_it_changes_hands(database: Database) -> None:
    over = time.monotonic() + 60.0
    fences: list[int] = []
    refused: list[int] = []
    failures: list[Exception] = []

    def going() -> bool:
        return len(fences) < 8 and time.monotonic() < over

    def write_while_it_stands(writer: store.Writer, lease: Lease) -> None:
        try:
            while going():  # never renewed and never looked at: only the fence can stop it
                writer.save([], [event(str(lease.fence))] * 2, fence=lease)
        except Stale:
            refused.append(lease.fence)

    def act(holder: str) -> None:
        mine = Database(database.url)
        try:
            while going():
                lease = leases.acquire(mine, "engine", holder, lease_s=SHORT_S)
                if lease is None:
                    time.sleep(SHORT_S / 10)
                    continue
                fences.append(lease.fence)
                write_while_it_stands(store.Writer(mine), lease)
        except Exception as error:  # noqa: BLE001 - told by the test
            failures.append(error)
        finally:
            mine.close()

    threads = [threading.Thread(target=act, args=(f"h{i}",)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert sorted(fences) == list(range(1, len(fences) + 1))
    written = [int(text) for text in noted(database)]
    assert written == sorted(written)
    assert len(set(written)) > 3
    assert len(refused) >= len(fences) - 3
