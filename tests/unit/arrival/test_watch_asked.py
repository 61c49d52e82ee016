"""A watcher watches what people have written into the store, and tells there how it goes."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.arrival.watch import Watcher
from orchestrator.errors import Unavailable
from orchestrator.store import arrivals as store
from orchestrator.store import watches
from orchestrator.store.arrivals import Arrival
from orchestrator.store.watches import Watch
from tests.unit.arrival.test_watch import RULES, Bench, put


def test_what_the_store_says_is_watched(bench: Bench) -> None:
    """Made, changed and stopped by others; the rest goes on."""
    for name in ("a", "b"):
        (bench.place / name).mkdir()
        text = RULES.format(directory=bench.place / name, experiment=name)
        watches.put(bench.database, Watch(name, name, str(bench.place / name), text))
    watches.put(bench.database, Watch("lost", "e", "/no/such", 'workflow = "t"\n'))
    watches.put(bench.database, Watch("broken", "e", "/tmp", "x ="))
    put(bench.place / "a/x.h5")
    put(bench.place / "b/x.dat")
    bench.settle()
    assert bench.service.files == ["x.h5"]
    said = watches.reports(bench.database)
    assert (said["a"].error, said["a"].scans > 0) == ("", True)
    assert "No such file" in said["lost"].error
    assert "broken: " in said["broken"].error
    watches.stop(bench.database, "a", 1.0)
    watches.change(bench.database, "b", rules=text.replace('"h5"', '"dat"'))
    put(bench.place / "a/y.h5")
    bench.settle()
    assert bench.service.files == ["x.dat", "x.h5"]
    assert set(bench.watcher.trees) == {"b"}
    watches.change(bench.database, "a", stopped_at=0.0)
    bench.settle()
    assert bench.service.files == ["x.dat", "x.h5", "y.h5"]


def test_each_watcher_looks_at_the_watches_of_its_site_and_begins_their_runs(bench: Bench) -> None:
    for name in ("here", "there"):
        put(bench.place / name / f"{name}.h5")
        text = RULES.format(directory=bench.place / name, experiment="e")
        watches.put(bench.database, Watch(name, "e", str(bench.place / name), text, site=name))
        mark = (1, 2, len(name), 4)
        due = Arrival(name, "e", store.digest_of("old", mark), "old", mark, store.ArrivalState.DUE, workflow="tomo")
        store.decide(bench.database, [store.keyed(due)])
    bench.watcher.close()
    bench.watcher = Watcher(
        bench.database, bench.service, site="here", hints=False, clock=lambda: bench.time, now=lambda: bench.wall
    )
    bench.settle()
    assert bench.service.files == ["here.h5"]
    assert {a.name: a.state.value for a in store.ls(bench.database, watch="here")}["old"] == "incomplete", "it is gone"
    assert {a.name: a.state.value for a in store.ls(bench.database, watch="there")} == {"old": "due"}


def test_it_is_shelved_before_its_run_begins(bench: Bench) -> None:
    told: list[str] = []

    def shelve(arrivals: Sequence[Arrival]) -> None:
        told.extend(f"{a.name} {len(bench.service.runs)}" for a in arrivals)
        if len(told) == 1:
            raise Unavailable("The store is away.")

    bench.watcher._shelve = shelve
    put(bench.watch() / "x.h5")
    bench.settle()
    assert told == ["x.h5 0", "x.h5 0"]
    assert bench.states() == {"x.h5": "run"}
