"""Where a complete file could be taken for another, or for nothing at all."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from pathlib import Path

import h5py
import pytest

from orchestrator.arrival import mounts
from orchestrator.arrival import tree as trees
from orchestrator.errors import SettingsError, Unavailable
from orchestrator.store import arrivals as store
from orchestrator.store.database import Database
from orchestrator.store.schema import dead_letters
from tests.unit.arrival.test_watch import RULES, Bench, put

SECOND = 10**9


def rewrite(path: Path, content: bytes, mtime_ns: int) -> None:
    """In place, so that device, inode and size are what they were."""
    with path.open("r+b") as file:
        file.write(content)
    os.utime(path, ns=(mtime_ns, mtime_ns))


def test_masters_that_are_the_same_to_the_byte_stand_for_different_scans(bench: Bench) -> None:
    rules = (
        RULES + 'match = "{{scan}}_master.h5"\nparts = {{ pattern = "{{scan}}_data_{{index}}.h5", links = "/data" }}\n'
    )
    tree = bench.watch(rules=rules)
    for day, of in {"monday": "a", "tuesday": "b", "wednesday": "a"}.items():
        (tree / day).mkdir()
        for part in "12":
            with h5py.File(tree / day / f"1_data_{part}.h5", "w") as file:
                file["data"] = f"{part} of {of}"
        with h5py.File(tree / day / "1_master.h5", "w") as file:
            for part in "12":
                file[f"data/{part}"] = h5py.ExternalLink(f"1_data_{part}.h5", "/data")
    bench.settle(20.0)
    masters = {name.partition("/")[0]: state for name, state in bench.states().items() if "master" in name}
    assert sorted(masters.values()) == ["duplicate", "run", "run"]
    assert masters["tuesday"] == "run"
    assert len({a.checksum for a in store.ls(bench.database) if a.state is store.ArrivalState.RUN}) == 1


def test_an_inode_used_again_with_the_same_size_and_time_is_another_file(bench: Bench) -> None:
    """As where scans of one size are moved away when they have run, and their copies keep whole seconds."""
    tree = bench.watch()
    first = put(tree / "first.h5", b"1111")
    os.utime(first, ns=(SECOND, SECOND))
    bench.settle()
    assert bench.states() == {"first.h5": "run"}
    first.rename(tree / "second.h5")
    rewrite(tree / "second.h5", b"2222", SECOND)
    bench.settle()
    assert bench.states()["second.h5"] == "run"
    assert len(bench.service.runs) == 2
    bench.again()
    bench.settle()
    assert len(bench.service.runs) == 2


def test_a_file_whose_times_are_coarse_is_still_for_longer_than_their_step(bench: Bench) -> None:
    """What is written within the second of its fingerprint could not be seen later."""
    tree = bench.watch(rules=RULES.replace("settle_s = 1", "settle_s = 0.2"))
    path = put(tree / "x.h5", b"1111")
    os.utime(path, ns=(SECOND, SECOND))
    bench.settle(1.5)
    rewrite(path, b"2222", SECOND)
    bench.settle()
    (arrival,) = store.ls(bench.database)
    assert arrival.checksum == bench.watcher.trees["w"]._evidence.checksum(bench.watcher.trees["w"].root.look("x.h5"))  # type: ignore[arg-type]


def test_what_was_away_when_its_run_was_to_begin_runs_when_it_is_back(bench: Bench) -> None:
    tree = bench.watch()
    put(tree / "x.h5")
    bench.service.fail = Unavailable("Not yet.")
    bench.settle()
    (tree / "x.h5").rename(bench.place / "away.h5")
    bench.service.fail = None
    bench.settle(60.0)
    assert bench.states() == {"x.h5": "incomplete"}
    (bench.place / "away.h5").rename(tree / "x.h5")
    bench.settle()
    assert bench.states() == {"x.h5": "run"}


@pytest.mark.parametrize("due", [True, False])
def test_nothing_begins_of_a_directory_that_is_not_at_its_place(bench: Bench, due: bool) -> None:
    """It is held open, so that its files could still be looked at; a run would find nothing under their names."""
    tree = bench.watch()
    put(tree / "x.h5")
    bench.service.fail = Unavailable("Not yet.") if due else None
    bench.settle(5.0 if due else 0.5)
    tree.rename(bench.place / "elsewhere")
    bench.service.fail = None
    bench.settle(60.0)
    assert bench.service.files == []
    (bench.place / "elsewhere").rename(tree)
    bench.settle(60.0)
    assert bench.service.files == ["x.h5"]
    assert bench.states() == {"x.h5": "run"}


def test_what_arrives_before_the_first_scan_is_over_was_not_there_before(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a watcher that is killed in it does not begin anew with what came meanwhile."""
    monkeypatch.setattr(trees, "SLACK_S", 0.0)
    tree = bench.place / "w"
    put(tree / "before.h5")
    put(bench.place / "old.h5")
    time.sleep(0.05)  # several ticks of the file system's clock
    bench.wall = time.time()
    time.sleep(0.05)
    bench.watch(rules=RULES.replace("directory =", "existing = false\ndirectory ="))
    put(tree / "meanwhile.h5")
    (bench.place / "old.h5").rename(tree / "moved here.h5")
    bench.again()
    bench.settle()
    assert bench.states() == {"before.h5": "ignored", "meanwhile.h5": "run", "moved here.h5": "run"}


def fail(database: Database, name: str) -> None:
    """The run of the file of that name has failed for good."""
    with database.write() as connection:
        for arrival in store.ls(database):
            if arrival.name == name and arrival.run_id:
                row = {c.name: "" for c in dead_letters.columns} | {"run_id": arrival.run_id, "at": 1.0}
                connection.execute(dead_letters.insert().values(**row))


@pytest.mark.parametrize("how", ["renamed", "copied, then removed", "renamed twice", "replaced"])
def test_what_is_elsewhere_when_its_run_has_failed_runs_there(bench: Bench, how: str) -> None:
    tree = bench.watch()
    put(tree / "a.h5")
    bench.settle()
    if how.startswith("copied"):
        shutil.copy(tree / "a.h5", tree / "b.h5")
        bench.settle()
        (tree / "a.h5").unlink()
    else:
        (tree / "a.h5").rename(tree / "b.h5")
    bench.settle()
    if how == "renamed twice":
        (tree / "b.h5").rename(tree / "c.h5")
        bench.settle()
    if how == "replaced":
        put(tree / "a.h5", of="other")
        bench.settle()
    others = ["a.h5"] if how == "replaced" else []
    assert bench.service.files == ["a.h5", *others]
    fail(bench.database, "a.h5")
    bench.settle()
    last = "c.h5" if how == "renamed twice" else "b.h5"
    assert bench.service.files == ["a.h5", *others, last]
    assert bench.states()[last] == "run"
    bench.again()
    shutil.copy(tree / last, tree / "d.h5")
    bench.settle()
    assert bench.service.files == ["a.h5", *others, last]
    assert bench.states()["d.h5"] == "duplicate"


def test_a_failed_run_whose_file_is_there_is_left_to_people(bench: Bench) -> None:
    tree = bench.watch()
    put(tree / "a.h5")
    bench.settle()
    shutil.copy(tree / "a.h5", tree / "b.h5")
    bench.settle()
    fail(bench.database, "a.h5")
    bench.settle()
    assert bench.service.files == ["a.h5"]


def test_a_watch_stays_with_its_directory(bench: Bench) -> None:
    """What it knows, and what is due of it, is of that one."""
    tree = bench.watch()
    put(tree / "a.h5")
    bench.settle()
    (bench.place / "other").mkdir()
    with pytest.raises(SettingsError, match="is of the directory"):
        bench.watcher.add("w", RULES.format(directory=bench.place / "other", experiment="e"))
    assert "w" in bench.watcher.trees
    put(tree / "b.h5")
    bench.settle()
    assert bench.service.files == ["a.h5", "b.h5"]


def test_a_folder_that_is_away_for_a_while_keeps_what_was_in_it(bench: Bench) -> None:
    tree = bench.watch()
    put(tree / "day/a.h5")
    bench.settle()
    (tree / "day").rename(bench.place / "day")
    bench.settle()
    (bench.place / "day").rename(tree / "day")
    put(tree / "day/b.h5")
    bench.settle()
    shutil.rmtree(tree / "day")
    bench.settle()
    put(tree / "day/c.h5")
    bench.settle()
    assert bench.service.files == ["day/a.h5", "day/b.h5", "day/c.h5"]


def test_a_store_that_fails_while_a_watch_is_taken_up_costs_no_handles(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.watch()
    bench.watcher.close()
    bench.watcher = bench._new()

    def fail(*_: object, **__: object) -> None:
        raise Unavailable("The disk is full.")

    before = len(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as patch:
        patch.setattr(store, "known", fail)
        bench.settle(20.0)
    assert len(os.listdir("/proc/self/fd")) < before + 5
    put(bench.place / "w" / "x.h5")
    bench.settle()
    assert bench.states() == {"x.h5": "run"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a file system")
def test_a_watched_file_system_that_is_unmounted_and_another_that_is_mounted(bench: Bench) -> None:
    tree = bench.place / "w"
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "beamway", str(tree)]
    tree.mkdir()
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        bench.watch()
        put(tree / "a.h5")
        bench.settle()
        put(tree / "waiting.h5")
        bench.settle(0.5)
        subprocess.run(["umount", "-l", str(tree)], check=True)
        put(tree / "below.h5")  # beneath it, in the directory that was covered
        bench.settle(30.0)
        assert bench.service.files == ["a.h5", "below.h5"]
        subprocess.run(mount, check=True)
        for name in ("a.h5", "c.h5"):
            put(tree / name)
        bench.settle(30.0)
        assert bench.service.files == ["a.h5", "below.h5", "c.h5"]
        assert bench.states()["c.h5"] == "run"
    finally:
        subprocess.run(["umount", "-l", str(tree)], check=False)


def test_what_is_mounted_at_the_place_later_may_be_written_by_others(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A watcher that began before the mount cannot see its writers, and must not think that there are none."""
    tree = bench.watch()
    bench.settle()
    tree.rename(bench.place / "local")
    monkeypatch.setattr(mounts, "kind", lambda path: "nfs4")
    put(tree / "x.h5")
    bench.settle(20.0)
    assert bench.states() == {}
    bench.settle(30.0)
    assert bench.states() == {"x.h5": "run"}


@pytest.mark.timeout(300)
def test_fifteen_thousand_files_that_come_while_they_are_looked_for(bench: Bench) -> None:
    """In folders that are made at the same time, each deep in others."""
    tree = bench.watch(rules=RULES.replace("settle_s = 1", "settle_s = 0"))

    def write() -> None:
        for number in range(15_000):
            folder = tree / f"{number % 3}" / f"{number // 10 % 10}" / f"{number // 500}"
            if number % 10 == 0 or not folder.exists():
                folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{number}.h5").write_bytes(b"%d" % number)

    writer = threading.Thread(target=write)
    writer.start()
    while writer.is_alive():
        bench.settle(1.0)
    writer.join()
    bench.settle(4.0)
    assert store.counts(bench.database) == {store.ArrivalState.RUN: 15_000}
    assert len(bench.service.runs) == 15_000
