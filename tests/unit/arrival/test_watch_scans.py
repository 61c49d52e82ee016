"""Real scans through the whole watcher: HDF5 with its writer alive or killed, sentinels, markers, many files."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import xxhash

from orchestrator.store import arrivals as store
from orchestrator.store import scans
from orchestrator.store.scans import PartFile
from tests.unit.arrival.test_contents import WRITER, N, dxchange
from tests.unit.arrival.test_watch import Bench, put

HEAD = 'directory = "{directory}"\nexperiment = "{experiment}"\n'
READY = "settle_s = 1, patience_s = 20"


def rule(text: str, ready: str = "") -> str:
    return HEAD + f'workflow = "w"\nready = {{{{ {READY}{ready} }}}}\n' + text.replace("{", "{{").replace("}", "}}")


def writing(path: Path, mode: str, frames: int) -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-c", WRITER, mode, str(path), str(N), str(frames)]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    return process


@pytest.mark.parametrize("mode", ["plain", "swmr"])
def test_half_written_then_whole_and_half_written_for_ever(bench: Bench, mode: str) -> None:
    tree = bench.watch(rules=rule("", ', frames = "/entry/data", expected = "/entry/data@expected"'))
    alive = writing(tree / "alive.h5", mode, N)
    killed = writing(tree / "killed.h5", mode, random.randrange(1, N))
    bench.settle(4.0)
    assert bench.states() == {}
    alive.communicate(b"\n")
    killed.kill()
    killed.communicate()
    bench.settle(40.0)
    assert bench.states() == {"alive.h5": "run", "killed.h5": "incomplete"}
    assert ("frames" if mode == "plain" else "its writer is at work, or died") in bench.reason("killed.h5")
    (listed,) = [a for a in store.ls(bench.database) if a.name == "killed.h5"]
    store.release(bench.database, listed.id, who="ann", now=1.0)
    bench.settle()
    assert bench.states()["killed.h5"] == "run"


def test_an_incomplete_scan_that_becomes_whole_later_runs_even_after_a_restart(bench: Bench) -> None:
    tree = bench.watch(rules=rule("", ', layout = "dxchange"'))
    dxchange(tree / "x.h5", 7, 9)
    bench.settle(30.0)
    assert bench.states() == {"x.h5": "incomplete"}
    assert bench.reason("x.h5") == "/exchange/data has 7 projections for 9 angles"
    bench.again()
    dxchange(tree / "x.h5", 9, 9)
    bench.settle(30.0)
    assert [a.state.value for a in store.ls(bench.database)] == ["incomplete", "run"]


def test_a_sentinel_makes_it_whole_whenever_it_comes(bench: Bench) -> None:
    tree = bench.watch(rules=rule('match = "*.h5"', ', sentinel = "{{stem}}.done"'))
    put(tree / "a/x.h5")
    put(tree / "x.done")  # elsewhere
    bench.settle(30.0)
    assert bench.states()["a/x.h5"] == "incomplete"
    assert "sentinel" in bench.reason("a/x.h5")
    (tree / "a/x.done").touch()
    bench.settle(60.0)
    assert bench.states()["a/x.h5"] == "run"


def test_an_end_marker(bench: Bench) -> None:
    tree = bench.watch(rules=rule("", ', end_marker = "END\\n"'))
    put(tree / "half", b"data END\nmore")
    put(tree / "short", b"ND\n")
    put(tree / "whole", b"data\nEND\n")
    bench.settle(30.0)
    assert bench.states() == {"half": "incomplete", "short": "incomplete", "whole": "run"}


def test_by_what_is_written_in_the_file(bench: Bench) -> None:
    tree = bench.watch(
        rules=HEAD
        + "".join(
            f'[[rule]]\nname = "{mode}"\nworkflow = "{mode}-flow"\nwhen = {{{{ "/mode" = "{mode}" }}}}\n'
            f'arguments_from = {{{{ energy = "/energy" }}}}\nready = {{{{ {READY} }}}}\n'
            for mode in ("fly", "step")
        )
    )
    for number, mode in enumerate(("fly", "step", "other")):
        with h5py.File(tree / f"{mode}.h5", "w") as file:
            file["mode"] = mode
            file["energy"] = 10.0 + number
    put(tree / "broken.h5", b"\x89HDF\r\n\x1a\n")
    bench.settle(40.0)
    assert bench.states() == {"fly.h5": "run", "step.h5": "run", "other.h5": "ignored", "broken.h5": "incomplete"}
    assert {(a.workflow, a.arguments["energy"]) for a in bench.service.runs.values()} == {
        ("fly-flow", "10.0"),
        ("step-flow", "11.0"),
    }
    assert "rule 'fly': not /mode is 'fly': it is 'other'" in bench.reason("other.h5")


def test_a_scan_of_many_files_runs_once_when_all_are_there(bench: Bench) -> None:
    parts = 'match = "{scan}_0000.tif"\nparts = { pattern = "{scan}_{index:04}.tif", count = 12 }'
    tree = bench.watch(rules=rule(parts))
    for number in random.sample(range(12), 12):
        if number != 7:
            put(tree / f"day/scan_{number:04}.tif", of=f"{number}")
        bench.settle(0.5)
    bench.settle(5.0)
    assert bench.service.files == []
    put(tree / "day/scan_0007.tif", of="7")
    bench.settle(30.0)
    assert bench.service.files == ["day/scan_0000.tif"]
    assert set(bench.states().values()) == {"run", "ignored"}
    assert "part of the scan 'scan'" in bench.reason("day/scan_0007.tif")
    [ran] = bench.service.runs.values()
    known = [(n, f"{n}".encode()) for n in range(1, 12)]
    parts_of = [
        PartFile(f"day/scan_{n:04}.tif", len(text), f"xxh3:{xxhash.xxh3_128_hexdigest(text)}") for n, text in known
    ]
    assert scans.kept(bench.database, "w", ran.place) == parts_of
    assert ran.parts == scans.together(parts_of)
    put(tree / "day/late_0000.tif")
    bench.settle(40.0)
    assert "'late_0001.tif' is not there" in bench.reason("day/late_0000.tif")


def test_without_checksums_the_parts_are_known_by_their_times(bench: Bench) -> None:
    parts = 'match = "{scan}_0.tif"\nchecksum = false\nparts = { pattern = "{scan}_{index}.tif", count = 2 }'
    tree = bench.watch(rules=rule(parts))
    for number in range(2):
        put(tree / f"s_{number}.tif")
    bench.settle(10.0)
    [ran] = bench.service.runs.values()
    seen = (tree / "s_1.tif").stat()
    mark = scans.unread((seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns))
    assert (ran.checksum, scans.kept(bench.database, "w", ran.place)) == ("", [PartFile("s_1.tif", 7, mark)])


@pytest.mark.parametrize("said", ["links", "virtual", "group of virtual", "count_from", "manifest"])
def test_a_master_or_a_manifest_says_how_many_parts_there_are(bench: Bench, said: str) -> None:
    how = {
        "links": 'links = "/entry/data"',
        "virtual": 'links = "/entry/virtual/all"',
        "group of virtual": 'links = "/entry/virtual"',
        "count_from": 'count_from = "/entry/images"',
        "manifest": 'manifest = "{scan}.list"',
    }[said]
    tree = bench.watch(
        rules=rule(f'match = "{{scan}}_master.h5"\nparts = {{ pattern = "{{scan}}_{{index:03}}.h5", {how} }}')
    )
    with h5py.File(tree / "x_master.h5", "w") as file:
        file["entry/images"] = np.array([3])
        for number in range(3):
            file[f"entry/data/d{number}"] = h5py.ExternalLink(f"x_{number:03}.h5", "/data")
        layout = h5py.VirtualLayout((4, N, N), "u2")
        for number in range(3):
            layout[number] = h5py.VirtualSource(f"x_{number:03}.h5", "/exchange/data", (3, N, N))[0]
        layout[3] = h5py.VirtualSource(".", "/entry/none", (N, N))
        file.create_virtual_dataset("entry/virtual/all", layout)
        file["entry/virtual/own"] = np.zeros(2)
    put(tree / "x.list", b"# parts\nx_000.h5\nx_001.h5\nx_002.h5\n")
    for number in (0, 2):
        dxchange(tree / f"x_{number:03}.h5", 3, 3)
    bench.settle(30.0)
    assert bench.states()["x_master.h5"] == "incomplete"
    assert "'x_001.h5' is not there" in bench.reason("x_master.h5")
    dxchange(tree / "x_001.h5", 3, 3)
    bench.settle(60.0)
    [ran] = bench.service.runs.values()
    assert [part.name for part in scans.kept(bench.database, "w", ran.place)] == [f"x_{n:03}.h5" for n in range(3)]


def test_a_part_that_broke_off_keeps_its_scan_waiting(bench: Bench) -> None:
    """As where the copying of a data file was interrupted: it is there, and still, and nobody writes it."""
    tree = bench.watch(
        rules=rule('match = "{scan}_master.h5"\nparts = { pattern = "{scan}_{index:03}.h5", links = "/entry/data" }')
    )
    with h5py.File(tree / "x_master.h5", "w") as file:
        for number in range(2):
            file[f"entry/data/d{number}"] = h5py.ExternalLink(f"x_{number:03}.h5", "/exchange/data")
    dxchange(tree / "x_000.h5", 3, 3)
    dxchange(bench.place / "whole", 4, 4)
    content = (bench.place / "whole").read_bytes()
    put(tree / "x_001.h5", content[: len(content) // 2])
    bench.settle(30.0)
    assert bench.service.files == []
    assert "cannot be read as HDF5" in bench.reason("x_001.h5")
    assert "'x_001.h5': not whole yet" in bench.reason("x_master.h5")
    put(tree / "x_001.h5", content)
    bench.settle(60.0)
    assert bench.service.files == ["x_master.h5"]


def test_a_file_that_is_to_open(bench: Bench) -> None:
    tree = bench.watch(rules=rule("", ", opens = true"))
    dxchange(tree / "whole.h5", 3, 3)
    put(tree / "cut.h5", (tree / "whole.h5").read_bytes()[:-100])
    bench.settle(30.0)
    assert bench.states() == {"whole.h5": "run", "cut.h5": "incomplete"}


def test_parts_outside_of_the_tree_are_never_looked_at(bench: Bench) -> None:
    put(bench.place / "secret.h5")
    tree = bench.watch(rules=rule('match = "*.h5"\nparts = { pattern = "{index}.tif", manifest = "{stem}.list" }'))
    put(tree / "x.h5")
    put(tree / "x.list", b"../secret.h5\n")
    bench.settle(30.0)
    assert "outside of the watched directory" in bench.reason("x.h5")
