from __future__ import annotations

import random
import time

import pytest
from msgspec.structs import replace
from sqlalchemy import Connection

from orchestrator.store import history
from orchestrator.store.database import Database
from orchestrator.store.measured import Moved, PlacementRow, Rate, Timing, Wait


def timing(site: str = "a", compute_s: float = 1.0, **more: object) -> Timing:
    return Timing("w", "s", site, compute_s, **more)  # type: ignore[arg-type]


def placed(run_id: str = "r", attempt: int = 1, **more: object) -> PlacementRow:
    given: dict[str, object] = {"chosen": "a", "raw_queue_s": 60.0, "predicted_queue_s": 90.0, **more}
    return PlacementRow(run_id, "s", attempt, 5.0, doc="{}", **given)  # type: ignore[arg-type]


def test_timings_come_back_newest_first_of_each_site_and_only_of_this_stage(database: Database) -> None:
    rows = [timing("a", i, at=float(i)) for i in range(5)] + [timing("b", 9.0, input_bytes=10**13, call="k", gpus=4)]
    history.record(database, [*rows, replace(rows[0], stage="other"), replace(rows[0], workflow="other")])
    assert history.timings(database, "w", "s", limit=2) == [rows[4], rows[3], rows[5]]
    assert history.timings(database, "w", "none") == []


def test_names_of_any_kind_and_length_are_kept_apart(database: Database) -> None:
    letters = random.Random(1)
    odd, long = "a\0\udcff", "".join(letters.choices("abcdefghijklmnop\u00e9", k=9000))
    for i, name in enumerate((odd, long, long + "x")):
        history.record(database, [replace(timing(compute_s=float(i)), workflow=name, stage=name)])
        history.put_placement(database, replace(placed(f"r{i}"), stage=name))
        history.finish_placement(database, f"r{i}", name, 1, transfer_s=1.0, queue_s=2.0, compute_s=float(i))
        assert [t.compute_s for t in history.timings(database, name, name)] == [float(i)]
        assert [p.compute_s for p in history.placements(database, f"r{i}")] == [float(i)]


def test_timings_are_part_of_the_callers_transaction(database: Database) -> None:
    def fail(connection: Connection) -> None:
        history.record(connection, [timing()])
        history.record_transfers(connection, [Moved("a", "b", 1, 1.0)])
        history.put_placement(connection, placed())
        raise RuntimeError

    with pytest.raises(RuntimeError), database.write() as connection:
        fail(connection)
    assert history.timings(database, "w", "s") == []
    assert history.rates(database) == {}
    assert history.placements(database, "r") == []


def test_the_oldest_timings_of_a_key_go_and_no_others(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "KEEP_TIMINGS", 3)
    history.record(database, [timing("b", 7.0), *(timing("a", i) for i in range(5))])
    history.record(database, [timing("a", 5)])
    assert [t.compute_s for t in history.timings(database, "w", "s")] == [5, 4, 3, 7]


def test_nothing_to_record_writes_nothing(database: Database) -> None:
    history.record(database, [])
    history.record_transfers(database, [Moved("a", "b", 0, 1.0), Moved("a", "b", 5, 0.0)])
    assert history.rates(database) == {}


def test_a_rate_is_that_of_the_many_bytes_and_not_of_the_small_files(database: Database) -> None:
    small = [Moved("a", "b", 1000, 1.0) for _ in range(10)]
    history.record_transfers(database, [Moved("a", "b", 10**12, 1000.0), *small, Moved("a", "c", 50, 1.0)])
    assert history.rate(database, "a", "b") == Rate(1e9, 11)
    assert history.rate(database, "b", "a") is None
    assert history.rates(database) == {("a", "b"): Rate(1e9, 11), ("a", "c"): Rate(50.0, 1)}


def test_a_rate_follows_what_was_measured_of_late(database: Database) -> None:
    before = [Moved("a", "b", 10**9, 1.0) for _ in range(25)]
    history.record_transfers(database, [*before, *(Moved("a", "b", 10**9, 10.0) for _ in range(12))])
    assert history.rate(database, "a", "b") == Rate(1e8, 30)


def test_the_oldest_transfers_go(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "KEEP_RATES", 2)
    history.record_transfers(database, [Moved("a", "b", i, 1.0) for i in range(1, 6)])
    assert history.rate(database, "a", "b") == Rate(5.0, 2)


def test_a_placement_is_kept_with_what_came_of_it(database: Database) -> None:
    row = placed(queue="regular", reservation="beam")
    history.put_placement(database, row)
    assert history.placements(database, "r") == [row]
    history.finish_placement(database, "r", "s", 1, transfer_s=1.0, queue_s=2.0, compute_s=3.0)
    history.finish_placement(database, "forgotten", "s", 1, transfer_s=1.0, queue_s=2.0, compute_s=3.0)
    assert history.placements(database, "r") == [replace(row, transfer_s=1.0, queue_s=2.0, compute_s=3.0)]


def test_choosing_again_for_the_same_attempt_replaces_the_choice(database: Database) -> None:
    history.put_placement(database, placed(chosen="a"))
    history.put_placement(database, placed(chosen="b"))
    history.put_placement(database, placed(attempt=2, chosen="c"))
    assert [p.chosen for p in history.placements(database, "r")] == ["b", "c"]


def test_waits_are_those_known_and_to_learn_from_newest_first(database: Database) -> None:
    for i in range(4):
        history.put_placement(database, placed(f"r{i}", raw_queue_s=float(i)))
        history.finish_placement(database, f"r{i}", "s", 1, transfer_s=0, queue_s=10.0 * i, compute_s=0)
    history.put_placement(database, placed("open"))
    history.put_placement(database, placed("window", raw_queue_s=-1.0))
    history.finish_placement(database, "window", "s", 1, transfer_s=0, queue_s=1, compute_s=0)
    assert history.waits(database, limit=2) == {"a": [Wait("a", 3.0, 30.0), Wait("a", 2.0, 20.0)]}


def test_the_oldest_placements_go(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "KEEP_PLACEMENTS", 2)
    history.put_placement(database, placed("other", chosen="b"))
    for i in range(4):
        history.put_placement(database, placed(f"r{i}"))
    assert [bool(history.placements(database, r)) for r in ("other", "r0", "r1", "r2", "r3")] == [1, 0, 0, 1, 1]


def test_what_is_asked_before_each_choice_is_answered_by_an_index(database: Database) -> None:
    queries = (
        "SELECT * FROM timings WHERE workflow = 'w' AND stage = 's'",
        "SELECT * FROM rates WHERE from_site = 'a'",
        "SELECT * FROM placements WHERE run_id = 'r'",
    )
    explain = "EXPLAIN" if database.postgresql else "EXPLAIN QUERY PLAN"
    with database.read() as connection:
        if database.postgresql:
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")  # empty tables are read whole otherwise
        for query in queries:
            plan = str(connection.exec_driver_sql(f"{explain} {query}").all())
            assert "USING INDEX" in plan or "Index Cond" in plan, (query, plan)


def test_full_tables_answer_fast(database: Database) -> None:
    rows = [timing(f"site{s}", float(i), input_bytes=i) for s in range(10) for i in range(history.KEEP_TIMINGS)]
    history.record(database, [*rows, *(replace(r, workflow=f"w{n}") for n in range(5) for r in rows)])
    start = time.monotonic()
    assert len(history.timings(database, "w", "s")) == 500
    assert time.monotonic() - start < 1.0  # 0.01 s where it was written; a scan of everything grows without bound
