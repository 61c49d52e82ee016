"""What came from what, on both databases: written once, asked both ways, and what is stale of it."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from immutables import Map
from msgspec.structs import replace

from orchestrator.errors import NotFound, Stale
from orchestrator.model import Plan, Run, RunStatus
from orchestrator.store import catalog, descent, leases, lineage, scans, schema, stale
from orchestrator.store import runs as store
from orchestrator.store.catalog import CatalogFile, FileKind, Replica, ReplicaState
from orchestrator.store.database import Database
from orchestrator.store.lineage import Account, Facts, Role, Step
from orchestrator.store.runs import Changed, EventRow

RAW, MASK, OUT, FURTHER = "/d/sc\udcff\n.h5", "/d/mask", "/d/out", "/d/further"
Ran = Callable[..., None]


def read(address: str, checksum: str = "xxh3:1", **more: object) -> Step:
    told = {"at": 10.0, "bytes": 7, "modified_at": 5.0, "kind": FileKind.RAW} | more
    return Step("local", address, Facts("01", "local", address, "k.one", {"k.one": "1.2"}), checksum=checksum, **told)  # type: ignore[arg-type]


def made(address: str, checksum: str = "xxh3:9", **more: object) -> Step:
    return read(address, checksum, **{"made": True} | more)


def copied(source: str, target: str, place: str = "far") -> Step:
    return Step(place, target, Facts("02", place, target), 11.0, 7, "xxh3:1", source=("local", source))


@pytest.fixture
def ran(database: Database) -> Ran:
    """Puts a run that has ended into the store, and what it did into the catalog."""
    writer = store.Writer(database)
    clock = iter(range(100, 10_000, 10))

    def put(run_id: str, *steps: Step, experiment: str = "e1") -> None:
        at = float(next(clock))
        definition = {"name": "w", "version": "2.0"}
        plan = Plan("w", "me", (), variables={"experimentName": experiment, "a": "b"}, definition=definition)
        plan = replace(plan, supplied=("a",))
        run = Run(run_id, plan, at, RunStatus.DONE, at, at + 5, variables=Map())
        writer.save([Changed(run, True, (), ())], [EventRow(run_id, at, lineage.FILES)])
        cursor, events = lineage.due(database, limit=10)
        assert [each for _, each in events] == [run_id]
        later = tuple(replace(step, at=at) for step in steps)
        assert lineage.write(database, cursor, [Account(run_id, experiment, later)], events[-1][0], now=at)

    return put


def uses(database: Database, run_id: str) -> set[tuple[Role, str]]:
    with database.read() as connection:
        found = lineage.uses_of_runs(connection, [run_id])
        files = lineage.files(connection, [use.file_id for use in found])
    return {(use.role, files[use.file_id].name) for use in found}


def number(database: Database, name: str) -> int:
    found = lineage.number_of(database, name)
    assert found
    return found


# ------------------------------------------------------------------------------------------------------- writing


def test_each_file_is_there_once_whoever_has_used_it(database: Database, ran: Ran) -> None:
    ran("r1", read(RAW), read(MASK, "xxh3:2", kind=FileKind.CALIBRATION), made(OUT))
    ran("r2", read(RAW), read(OUT, "xxh3:9"), made(FURTHER, "xxh3:8"))
    assert uses(database, "r1") == {(Role.INPUT, RAW), (Role.CALIBRATION, MASK), (Role.PRODUCT, OUT)}
    assert uses(database, "r2") == {(Role.INPUT, RAW), (Role.INPUT, OUT), (Role.PRODUCT, FURTHER)}
    assert catalog.number_of_files(database) == 4
    assert catalog.get(database, number(database, OUT)).maker == "r1"


def test_what_was_written_is_not_written_again(database: Database, ran: Ran) -> None:
    ran("r1", read(RAW), made(OUT))
    assert lineage.due(database, limit=10)[1] == []
    late = [Account("r1", "e1", (made("/d/late"),))]
    assert not lineage.write(database, 0, late, 99, now=1.0), "another one has come further meanwhile"
    assert uses(database, "r1") == {(Role.INPUT, RAW), (Role.PRODUCT, OUT)}


def test_who_has_lost_the_engine_writes_nothing(database: Database) -> None:
    lost = leases.acquire(database, leases.ENGINE, "first", lease_s=0.0)
    assert lost is not None
    time.sleep(0.01)
    assert leases.acquire(database, leases.ENGINE, "second", lease_s=60.0) is not None
    with pytest.raises(Stale):
        lineage.write(database, 0, [Account("r1", "", (read(RAW),))], 5, now=1.0, fence=lost)
    assert catalog.number_of_files(database) == 0


def test_a_copy_is_no_file_of_its_own(database: Database, ran: Ran) -> None:
    ran("r1", read(RAW), copied(RAW, "/far/scan"), replace(read("/far/scan"), place="far"), made(OUT))
    assert uses(database, "r1") == {(Role.INPUT, RAW), (Role.PRODUCT, OUT)}
    [raw] = [f for f in (catalog.get(database, n) for n in (1, 2)) if f.name == RAW]
    places = {(r.place, r.address): r.state for r in catalog.replicas(database, [raw.id])}
    assert places == {("local", RAW): ReplicaState.VERIFIED, ("far", "/far/scan"): ReplicaState.VERIFIED}


def test_a_pinned_copy_stays_pinned_and_an_earlier_content_is_gone(database: Database, ran: Ran) -> None:
    ran("r1", read(RAW), made(OUT))
    first = number(database, OUT)
    with database.write() as connection:
        catalog.put_replica(connection, Replica(first, "local", OUT, ReplicaState.VERIFIED, pinned=True))
    ran("r2", read(RAW), made(OUT))
    assert [(r.pinned, r.state) for r in catalog.replicas(database, [first])] == [(True, ReplicaState.VERIFIED)]
    ran("r3", read(RAW), made(OUT, "xxh3:10"))
    assert [(r.pinned, r.state) for r in catalog.replicas(database, [first])] == [(True, ReplicaState.MISSING)]
    assert catalog.get(database, first).superseded_at > 0


@pytest.mark.parametrize(
    ("step", "same"),
    [
        (read(OUT, "sha256:aa"), True),  # by another kind of checksum, and not changed since it was made
        (read(OUT, "sha256:aa", modified_at=1e9), False),
        (read(OUT, "sha256:aa", bytes=8), False),
        (read(OUT, "xxh3:other"), False),
        (read(OUT, "", bytes=-1), True),  # nobody has looked
    ],
)
def test_whether_a_file_is_the_one_that_is_known(database: Database, ran: Ran, step: Step, same: bool) -> None:
    ran("r1", made(OUT))
    ran("r2", step)
    assert uses(database, "r2") == {(Role.INPUT, OUT)}
    assert (catalog.number_of_files(database) == 1) is same


def test_a_content_that_is_there_again_is_not_superseded(database: Database, ran: Ran) -> None:
    ran("r1", read(RAW, "xxh3:1"))
    ran("r2", read(RAW, "xxh3:2"))
    ran("r3", read(RAW, "xxh3:1"))
    states = {f.checksum: bool(f.superseded_at) for f in (catalog.get(database, n) for n in (1, 2))}
    assert states == {"xxh3:1": False, "xxh3:2": True}


def test_a_file_that_nobody_could_read_has_its_size_and_time(database: Database, ran: Ran) -> None:
    ran("r1", read(RAW, "", modified_at=5.0))
    ran("r2", read(RAW, "", modified_at=5.0))
    assert catalog.number_of_files(database) == 1
    assert catalog.get(database, number(database, RAW)).checksum.startswith("stat:7-")


# ------------------------------------------------------------------------------------------------------- both ways


def chain(ran: Ran, length: int) -> None:
    for n in range(length):
        ran(f"r{n}", read(f"/d/{n}", f"xxh3:{n}"), made(f"/d/{n + 1}", f"xxh3:{n + 1}"))


def test_both_ways_over_several_generations(database: Database, ran: Ran) -> None:
    chain(ran, 4)
    middle = number(database, "/d/2")
    back = descent.graph(database, files=[middle], down=0)
    assert [f.name for f in back.files] == ["/d/0", "/d/1", "/d/2"]
    assert [(r.id, r.workflow, r.version, r.arguments) for r in back.runs] == [
        ("r0", "w", "2.0", {"a": "b"}),
        ("r1", "w", "2.0", {"a": "b"}),
    ]
    on = descent.graph(database, files=[middle], up=0)
    assert [f.name for f in on.files] == ["/d/2", "/d/3", "/d/4"]
    assert {use.facts.software["k.one"] for use in on.uses} == {"1.2"}
    both = descent.graph(database, runs=["r1"])
    assert {r.id for r in both.runs} == {"r0", "r1", "r2", "r3"}
    assert not both.cut


def test_no_more_generations_than_asked_for(database: Database, ran: Ran) -> None:
    chain(ran, 4)
    one = descent.graph(database, files=[number(database, "/d/4")], up=1, down=0)
    assert ([f.name for f in one.files], one.cut) == (["/d/3", "/d/4"], True)
    assert not descent.graph(database, files=[number(database, "/d/4")], up=4, down=0).cut


def test_a_circle_ends(database: Database, ran: Ran) -> None:
    ran("r1", read(RAW, "xxh3:1"), made(OUT))
    ran("r2", read(OUT, "xxh3:9"), made(RAW, "xxh3:1"))
    found = descent.graph(database, runs=["r1"])
    assert {r.id for r in found.runs} == {"r1", "r2"}


def test_what_a_person_may_mean(database: Database, ran: Ran) -> None:
    ran("11aa", read(RAW), made(OUT))
    file = number(database, OUT)
    assert descent.meant(database, OUT) == descent.meant(database, str(file)) == (file, "")
    assert descent.meant(database, "11a") == (0, "11aa")
    for text in ("", "/not/there", "zz"):
        with pytest.raises(NotFound):
            descent.meant(database, text)


# ------------------------------------------------------------------------------------------------------------ stale


def listed(database: Database, experiment: str = "") -> list[tuple[str, str, bool]]:
    return [(x.file.name, x.run_id, x.ready) for x in stale.ls(database, experiment=experiment)]


def test_products_of_what_was_changed_are_stale_until_they_are_made_anew(database: Database, ran: Ran) -> None:
    ran("r1", read(RAW, "xxh3:1"), made(OUT, "xxh3:9"))
    ran("r2", read(OUT, "xxh3:9"), made(FURTHER, "xxh3:8"))
    ran("r3", read("/d/other"), made("/d/not-of-it", "xxh3:7"))
    assert listed(database) == []
    with database.write() as connection:
        [now] = catalog.put(connection, [CatalogFile("e1", RAW, 8, "xxh3:new", added_at=200.0)])
    assert listed(database) == [(OUT, "r1", True), (FURTHER, "r2", False)]
    assert listed(database, "e2") == []
    first = stale.ls(database)[0]
    assert [(c.file.checksum, c.now) for c in first.causes] == [("xxh3:1", now)]
    ran("r4", read(RAW, "xxh3:new", bytes=8), made(OUT, "xxh3:99"))
    assert listed(database) == [(FURTHER, "r2", True)]
    ran("r5", read(OUT, "xxh3:99"), made(FURTHER, "xxh3:8"))
    assert listed(database) == [], "the same content as before, made of what is there now"


def test_a_changed_calibration_makes_stale_too(database: Database, ran: Ran) -> None:
    ran("r1", read(RAW), read(MASK, "xxh3:2", kind=FileKind.CALIBRATION), made(OUT))
    ran("r2", read("/d/x"), read(MASK, "xxh3:3", kind=FileKind.CALIBRATION))
    assert listed(database) == [(OUT, "r1", True)]


def test_a_part_that_was_replaced_makes_stale_what_was_made_of_its_master(database: Database, ran: Ran) -> None:
    ran("r1", read(RAW), made(OUT))

    def data(checksum: str, at: float) -> int:
        with database.write() as connection:
            [part] = catalog.put(connection, [CatalogFile("e1", "/d/data", 8, checksum, added_at=at)])
            scans.join(connection, number(database, RAW), [part])
        return part

    data("xxh3:5", 90.0)
    assert listed(database) == []
    now = data("xxh3:6", 104.0)
    [product] = stale.ls(database)
    assert [(cause.file.checksum, cause.now) for cause in product.causes] == [("xxh3:5", now)]
    ran("r2", read(RAW), made(OUT))
    assert listed(database) == []


def test_of_a_content_that_nobody_knew_nothing_is_stale(database: Database, ran: Ran) -> None:
    ran("r1", read(RAW, "", bytes=-1, modified_at=0.0), made(OUT))
    ran("r2", read(RAW, "xxh3:1", modified_at=1e9))
    assert listed(database) == []


def at(place: str, step: Step, *, alone: bool = True) -> Step:
    return replace(step, place=place, site=place if alone else "")


def test_one_path_at_two_sites_is_two_files_with_histories_of_their_own(database: Database, ran: Ran) -> None:
    ran("r1", at("a", read(RAW)), at("a", made(OUT)))
    ran("r2", at("b", read(RAW, "xxh3:2")), at("b", made(OUT, "xxh3:8")))
    assert catalog.number_of_files(database) == 4
    assert stale.ls(database) == []
    ran("r3", at("b", read(RAW, "xxh3:3")))
    [one] = stale.ls(database)
    assert (one.run_id, [cause.file.checksum for cause in one.causes], one.ready) == ("r2", ["xxh3:2"], True)
    assert catalog.get(database, one.causes[0].now).checksum == "xxh3:3"
    ran("r4", at("a", read(RAW, "xxh3:3")))  # what the other site has is there now as well
    assert {each.run_id for each in stale.ls(database)} == {"r1", "r2"}
    ran("r5", at("a", read(RAW)))
    assert [each.run_id for each in stale.ls(database)] == ["r2"]


def test_one_path_at_sites_that_share_their_disks_is_one_file(database: Database, ran: Ran) -> None:
    ran("r1", at("a", read(RAW), alone=False), at("a", made(OUT), alone=False))
    ran("r2", at("b", read(RAW, "xxh3:2"), alone=False))
    assert [each.run_id for each in stale.ls(database)] == ["r1"]


def test_a_copy_under_the_same_path_at_another_site_is_the_same_file(database: Database, ran: Ran) -> None:
    copy = replace(copied(RAW, RAW, "b"), source=("a", RAW), site="b")
    ran("r1", at("a", read(RAW)), copy)
    ran("r2", at("b", read(RAW)), at("b", made(OUT)))
    ran("r3", at("b", read(RAW, "", bytes=7, modified_at=5.0)))  # nobody has read it, and it was not changed since
    with database.write() as connection:
        [again] = catalog.put(connection, [CatalogFile("e1", RAW, 7, "xxh3:1", site="b", added_at=500.0)])
    assert catalog.get(database, again).site == "a"
    assert catalog.number_of_files(database) == 2
    assert {replica.place for replica in catalog.replicas(database, [again])} == {"a", "b"}
    assert uses(database, "r2") == {(Role.INPUT, RAW), (Role.PRODUCT, OUT)}
    ran("r4", at("b", read(RAW, "xxh3:5")))  # the copy is changed; what it was made of is as it was
    assert not catalog.get(database, again).superseded_at
    assert {r.place: r.state.value for r in catalog.replicas(database, [again])} == {"a": "verified", "b": "missing"}


def test_an_account_that_is_given_again_replaces_the_one_before(database: Database, ran: Ran) -> None:
    ran("r1", read(RAW), made(OUT), made(FURTHER, "xxh3:8"))
    cursor, _ = lineage.due(database, limit=1)
    again = [Account("r1", "e1", (read(RAW), made(OUT)))]
    assert lineage.write(database, cursor, again, cursor + 1, now=1.0)
    assert uses(database, "r1") == {(Role.INPUT, RAW), (Role.PRODUCT, OUT)}
    with database.read() as connection:
        assert connection.execute(schema.cursors.select()).mappings().one()["seq"] == cursor + 1
