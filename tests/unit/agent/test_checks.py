"""Bad outputs of every kind that a stage with exit code 0 was seen to leave, and good ones beside them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from orchestrator.agent import checks
from orchestrator.model import Expectation
from tests.unit.agent.checking import ask, failed, h5, passes, values

# ---------------------------------------------------------------------------------------- there, whole, new


def test_missing_and_empty(tmp_path: Path) -> None:
    assert failed(ask(tmp_path, "a.h5")) == ("exists", "it is not there")
    (tmp_path / "a.h5").touch()
    assert failed(ask(tmp_path, "a.h5")) == ("size", "it holds 0 bytes, wanted at least 1")
    assert passes(ask(tmp_path, "a.h5", min_bytes=0)) == ["exists", "newer"]


@pytest.mark.parametrize("path", ["", "a\0b", "a/b/c", "$outDir/x.h5", "x" * 300])
def test_a_path_that_is_none_is_a_finding(tmp_path: Path, path: str) -> None:
    (tmp_path / "a").touch()
    assert failed(ask(tmp_path, path))[0] == "exists"
    if "$" in path:
        assert "no value" in failed(ask(tmp_path, path))[1]


def test_links(tmp_path: Path) -> None:
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "real").write_text("x")
    (tmp_path / "good").symlink_to("real")
    assert "link to 'nowhere', which is not there" in failed(ask(tmp_path, "dangling"))[1]
    assert failed(ask(tmp_path, "loop"))[0] == "exists"
    assert passes(ask(tmp_path, "good")) == ["exists", "size", "newer"]


def test_pipes_are_refused_and_not_waited_on(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.h5")
    (tmp_path / "d.zarr").mkdir()
    os.mkfifo(tmp_path / "d.zarr" / "zarr.json")
    assert failed(ask(tmp_path, "pipe.h5", opens="hdf5"))[0] == "exists"
    assert "'zarr.json', which is neither" in failed(ask(tmp_path, "d.zarr", opens="zarr"))[1]


def test_stale_output_of_an_earlier_run(tmp_path: Path) -> None:
    path = h5(tmp_path / "rec.h5", values(4, 4))
    now = time.time()
    os.utime(path, (now - 3600.25, now - 3600.25))
    check, seen = failed(ask(tmp_path, "rec.h5", since=now))
    assert check == "newer"
    assert "before the stage started" in seen
    assert passes(ask(tmp_path, "rec.h5", since=now, newer=False))


@pytest.mark.parametrize(
    ("late_ns", "passed"),
    [
        (0, True),  # written in the same tick
        (40_000_000, True),  # the kernel's clock tick
        (60_000_000, False),
        (1_900_000_000, False),  # sub-second times are kept here: 1.9 s early is stale
    ],
)
def test_fine_modification_times(tmp_path: Path, late_ns: int, passed: bool) -> None:
    path = tmp_path / "x"
    path.write_text("x")
    stamp = 1_700_000_000_500_000_000
    os.utime(path, ns=(stamp, stamp))
    assert (checks.verdict(ask(tmp_path, "x", since=(stamp + late_ns) / 1e9)) == "") is passed


@pytest.mark.parametrize(("late_s", "passed"), [(0.9, True), (1.99, True), (2.1, False)])
def test_coarse_modification_times(tmp_path: Path, late_s: float, passed: bool) -> None:
    path = tmp_path / "x"
    path.write_text("x")
    os.utime(path, (1_700_000_000, 1_700_000_000))
    assert (checks.verdict(ask(tmp_path, "x", since=1_700_000_000 + late_s)) == "") is passed


def test_a_directory_is_as_new_as_its_newest_file_and_as_large_as_all(tmp_path: Path) -> None:
    tree = tmp_path / "out"
    (tree / "sub").mkdir(parents=True)
    for name, stamp in (("a", 1000), ("sub/b", 2000)):
        (tree / name).write_bytes(b"x" * 10)
        os.utime(tree / name, (stamp, stamp))
    assert passes(ask(tmp_path, "out", since=2000.0, min_bytes=20))
    assert failed(ask(tmp_path, "out", since=2010.0))[0] == "newer"
    assert failed(ask(tmp_path, "out", min_bytes=21))[1] == "it holds 20 bytes, wanted at least 21"
    (tree / "out-of-here").symlink_to("/etc/passwd")
    assert "outside the directory" in failed(ask(tmp_path, "out"))[1]


# ------------------------------------------------------------------------------------------------------ HDF5


def test_a_good_hdf5_passes_every_check(tmp_path: Path) -> None:
    h5(tmp_path / "rec.h5", values(6, 5, 4), chunks=(1, 5, 4), compression="gzip")
    shape = (6, None, 4)
    wanted: dict[str, Any] = {"dataset": "/exchange/data", "shape": shape, "dtype": "float32", "finite": 1.0}
    found = ask(tmp_path, "rec.h5", opens="hdf5", nonconstant=True, **wanted)
    order = [
        "exists",
        "size",
        "newer",
        "opens",
        "dataset",
        "shape",
        "dtype",
        "chunks",
        "finite",
        "nonconstant",
    ]
    assert passes(found) == order


@pytest.mark.parametrize("keep", [0.0, 0.2, 0.9, 0.999])
def test_truncated_hdf5(tmp_path: Path, keep: float) -> None:
    path = h5(tmp_path / "rec.h5", np.random.default_rng(1).random((50, 64, 64)))
    os.truncate(path, max(1, int(path.stat().st_size * keep)))
    assert failed(ask(tmp_path, "rec.h5", opens="hdf5"))[0] == "opens"


def test_a_killed_writer_leaves_a_file_that_opens_with_half_its_frames(tmp_path: Path) -> None:
    script = """if True:
        import h5py, os, sys, numpy as np
        with h5py.File(sys.argv[1], "w") as f:
            grown = f.create_dataset("grown", (0, 32, 32), "f4", maxshape=(None, 32, 32), chunks=(1, 32, 32))
            sized = f.create_dataset("sized", (20, 32, 32), "f4", chunks=(1, 32, 32))
            for i in range(11):
                grown.resize(i + 1, 0)
                grown[i] = sized[i] = np.arange(1024).reshape(32, 32)
            f.flush()
            print("half", flush=True)
            os.read(0, 1)
    """
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "x.h5")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"half\n"
        check, seen = failed(ask(tmp_path, "x.h5", opens="hdf5"))
        assert (check, "still has it open for writing" in seen) == ("opens", True)
        writer.send_signal(signal.SIGKILL)
    assert passes(ask(tmp_path, "x.h5", opens="hdf5"))
    assert failed(ask(tmp_path, "x.h5", dataset="grown", shape=(20, 32, 32))) == (
        "shape",
        "dataset 'grown' is 11 × 32 × 32, wanted 20 × 32 × 32",
    )
    check, seen = failed(ask(tmp_path, "x.h5", dataset="sized", shape=(20, 32, 32), finite=1.0))
    assert (check, seen) == (
        "chunks",
        "only 11 of 20 chunks of dataset 'sized' are there; the rest is fill value",
    )


def test_eighty_terabytes_in_a_small_file(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "bomb.h5", "w") as file:
        shape = (10_000_000, 1000, 1000)
        file.create_dataset("chunked", shape, "f8", chunks=(1, 1000, 1000))
        file.create_dataset("contiguous", shape, "f8")
        file.create_dataset("wide", (2, 600_000_000), "f8", chunks=(1, 500_000_000))
    assert (tmp_path / "bomb.h5").stat().st_size < 10_000
    begun = time.monotonic()
    for name in ("chunked", "contiguous"):
        check, seen = failed(ask(tmp_path, "bomb.h5", dataset=name, finite=1.0, nonconstant=True))
        assert (check, seen.startswith("only 0 of")) == ("chunks", True)
    assert "too large to decode" in failed(ask(tmp_path, "bomb.h5", dataset="wide", finite=1.0))[1]
    assert time.monotonic() - begun < 2


def test_links_out_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    h5(tmp_path / "out" / "far.h5", values(4, 4))
    h5(tmp_path / "in" / "near.h5", values(4, 4))
    with h5py.File(tmp_path / "in" / "rec.h5", "w") as file:
        file["near"] = h5py.ExternalLink("near.h5", "/exchange/data")
        file["far"] = h5py.ExternalLink("../out/far.h5", "/exchange/data")
        file["absolute"] = h5py.ExternalLink("/etc/passwd", "/x")
        file["missing"] = h5py.ExternalLink("gone.h5", "/x")
        file["loop"] = h5py.SoftLink("/loop")
        file["soft"] = h5py.SoftLink("/group/far/below")
        file["group/far"] = h5py.ExternalLink("../out/far.h5", "/")
        file["alias"] = h5py.SoftLink("near")
    inside = tmp_path / "in"
    assert passes(ask(inside, "rec.h5", dataset="near", shape=(4, 4), finite=1.0))
    assert passes(ask(inside, "rec.h5", dataset="alias", nonconstant=True))
    assert passes(ask(tmp_path, "in/rec.h5", dataset="far", shape=(4, 4)))  # within the base: allowed
    for name, clause in {
        "far": "outside the output's directory",
        "absolute": "outside the output's directory",
        "soft": "outside the output's directory",
        "missing": "which is not there",
        "loop": "chain of more than 16 links",
    }.items():
        check, seen = failed(ask(inside, "rec.h5", dataset=name, shape=(4, 4)))
        assert (check, clause in seen) == ("dataset", True), seen


def test_virtual_and_raw_sources_that_are_gone_or_outside(tmp_path: Path) -> None:
    for i in range(3):
        h5(tmp_path / f"part{i}.h5", values(4))
    layout = h5py.VirtualLayout((3, 4), "f4")
    for i in range(3):
        layout[i] = h5py.VirtualSource(f"part{i}.h5", "exchange/data", (4,))
    outside = h5py.VirtualLayout((4,), "f4")
    outside[:] = h5py.VirtualSource("/etc/hostname", "x", (4,))
    with h5py.File(tmp_path / "master.h5", "w") as file:
        file.create_virtual_dataset("data", layout)
        file.create_virtual_dataset("outside", outside)
        file.create_dataset("raw", (4,), "u1", external=[("/etc/hostname", 0, 4)])
    assert passes(ask(tmp_path, "master.h5", dataset="data", finite=1.0, nonconstant=True))
    (tmp_path / "part1.h5").unlink()
    check, seen = failed(ask(tmp_path, "master.h5", dataset="data", finite=1.0))
    assert (check, "only 2 of 3 sources" in seen) == ("chunks", True)
    for name in ("outside", "raw"):
        assert "outside the output's directory" in failed(ask(tmp_path, "master.h5", dataset=name, finite=1.0))[1]


@pytest.mark.parametrize(
    ("wanted", "check", "clause"),
    [
        ({"dataset": "nope"}, "dataset", "'/' holds exchange, table"),
        ({"dataset": "exchange"}, "dataset", "group"),
        ({"dataset": "exchange/data/deeper"}, "dataset", "is not a group"),
        ({"dataset": "exchange/data", "shape": (4,)}, "shape", "is 4 × 4, wanted 4"),
        ({"dataset": "exchange/data", "shape": (4, 5)}, "shape", "is 4 × 4, wanted 4 × 5"),
        ({"dataset": "exchange/data", "dtype": "uint16"}, "dtype", "is float32, wanted uint16"),
        ({"dataset": "exchange/data", "dtype": "flaot"}, "dtype", "'flaot', which is not one"),
        ({"dataset": "table", "finite": 1.0}, "finite", "not a number"),
        ({"finite": 1.0}, "finite", "not a number"),  # the only dataset of the root is taken
        ({"opens": "png"}, "opens", "png"),
        ({"opens": "zarr"}, "opens", "it is a file"),
        ({"opens": "word"}, "opens", "not a format"),
    ],
)
def test_wrong_content(tmp_path: Path, wanted: dict[str, Any], check: str, clause: str) -> None:
    with h5py.File(tmp_path / "rec.h5", "w") as file:
        file["exchange/data"] = values(4, 4)
        file["table"] = np.zeros(3, [("a", "f4"), ("b", "i4")])
    found, seen = failed(ask(tmp_path, "rec.h5", **wanted))
    assert (found, clause in seen) == (check, True), seen


def test_an_hdf5_without_anything_in_it(tmp_path: Path) -> None:
    h5py.File(tmp_path / "empty.h5", "w").close()
    assert "holds nothing" in failed(ask(tmp_path, "empty.h5", opens="hdf5"))[1]
    (tmp_path / "text.h5").write_text("Traceback (most recent call last):\n")
    assert failed(ask(tmp_path, "text.h5", opens="hdf5"))[0] == "opens"
    assert "format is not known" in failed(ask(tmp_path, "text.h5", finite=1.0))[1]


def test_byte_order_on_disk_counts_only_if_it_is_named(tmp_path: Path) -> None:
    h5(tmp_path / "be.h5", values(4).astype(">f4"))
    assert passes(ask(tmp_path, "be.h5", dataset="exchange/data", dtype="float32"))
    assert failed(ask(tmp_path, "be.h5", dataset="exchange/data", dtype="<f4"))[0] == "dtype"


# ---------------------------------------------------------------------------------------------- the values


def write(kind: str, path: Path, data: np.ndarray[Any, Any]) -> None:
    if kind == "hdf5":
        h5(path, data, "d", chunks=tuple(max(1, n // 2) for n in data.shape) or None)
    elif kind == "npy":
        with path.open("wb") as file:
            np.save(file, np.asfortranarray(data))
    else:
        zarr.create_array(
            str(path), data=data, chunks=tuple(max(1, n // 2) for n in data.shape), zarr_format=int(kind[-1]),
            config={"write_empty_chunks": True},
        )  # fmt: skip


@pytest.mark.parametrize("kind", ["hdf5", "npy", "zarr2", "zarr3"])
@pytest.mark.parametrize("shape", [(7,), (5, 6), (3, 4, 5)])
def test_not_finite(tmp_path: Path, kind: str, shape: tuple[int, ...]) -> None:
    data = values(*shape)
    data.flat[[0, -1]] = np.nan, np.inf
    write(kind, tmp_path / "x", data)
    wanted = {} if kind != "hdf5" else {"dataset": "d"}
    check, seen = failed(ask(tmp_path, "x", finite=1.0, nonconstant=True, **wanted))
    assert (check, seen.startswith(f"2 of {data.size} values")) == ("finite", True)
    share = (data.size - 2) / data.size
    assert passes(ask(tmp_path, "x", finite=share, **wanted))
    assert failed(ask(tmp_path, "x", finite=share + 1e-6, **wanted))[0] == "finite"


@pytest.mark.parametrize("kind", ["hdf5", "npy", "zarr2", "zarr3"])
def test_all_the_same(tmp_path: Path, kind: str) -> None:
    wanted = {} if kind != "hdf5" else {"dataset": "d"}
    for name, data in {
        "zeros": np.zeros((5, 6), "f4"),
        "nans": np.full((5, 6), np.nan),
        "nan_and_one": np.array([[1.0, np.nan], [1.0, 1.0]]),
        "ints": np.full((5, 6), 7, "u2"),
    }.items():
        write(kind, tmp_path / name, data)
        assert failed(ask(tmp_path, name, nonconstant=True, **wanted))[0] == "nonconstant", name
    assert passes(ask(tmp_path, "ints", finite=1.0, **wanted))


def test_an_empty_array_is_not_finite(tmp_path: Path) -> None:
    h5(tmp_path / "x.h5", np.zeros((0, 5)))
    np.save(tmp_path / "x.npy", np.zeros((0, 5)))
    zarr.create_array(str(tmp_path / "x.zarr"), shape=(0, 5), dtype="f4")
    for name, dataset in (("x.h5", "exchange/data"), ("x.npy", ""), ("x.zarr", "")):
        for wanted in ({"finite": 0.0}, {"nonconstant": True}):
            assert "is empty" in failed(ask(tmp_path, name, dataset=dataset, **wanted))[1]


def test_scalars(tmp_path: Path) -> None:
    h5(tmp_path / "x.h5", np.float64(3.5), "axis")
    np.save(tmp_path / "x.npy", np.float64(np.nan))
    zarr.create_array(str(tmp_path / "x.zarr"), data=np.array(3.5))
    assert passes(ask(tmp_path, "x.h5", dataset="axis", shape=(), finite=1.0))
    assert passes(ask(tmp_path, "x.zarr", shape=(), finite=1.0))
    assert failed(ask(tmp_path, "x.npy", shape=(), finite=1.0))[0] == "finite"
    assert failed(ask(tmp_path, "x.h5", dataset="axis", nonconstant=True))[1] == "all values of dataset 'axis' are 3.5"


@settings(max_examples=60, deadline=None)
@given(
    data=hnp.arrays(
        st.sampled_from(["f4", "f8", "c8", "i2", "u1", "?"]),
        hnp.array_shapes(min_dims=1, max_dims=3, max_side=9),
    ),
    kind=st.sampled_from(["hdf5", "npy", "zarr3"]),
)
def test_the_fraction_is_that_of_numpy(
    tmp_path_factory: pytest.TempPathFactory, data: np.ndarray[Any, Any], kind: str
) -> None:
    base = tmp_path_factory.mktemp("x")
    write(kind, base / "x", data)
    found = ask(base, "x", finite=1.0, nonconstant=True, dataset="d" if kind == "hdf5" else "")
    by_check = {f.check: f for f in found}
    finite = data[np.isfinite(data)]
    assert by_check["finite"].passed == (finite.size == data.size)
    assert by_check["nonconstant"].passed == (np.unique(finite).size > 1)


def test_memory_is_bounded_by_blocks(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "big.h5", "w") as file:
        data = file.create_dataset("d", (600, 512, 512), "f4", chunks=(1, 512, 512), compression="lzf")
        for i in range(600):
            data[i] = i
    script = """if True:
        import resource, sys
        from orchestrator.agent import checks
        from orchestrator.model import Expectation
        import numpy, h5py
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        wanted = [Expectation("big.h5", dataset="d", finite=1.0, nonconstant=True)]
        found = checks.check(wanted, since=0, base=sys.argv[1])
        assert checks.verdict(found) == "", found
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """
    grown_kb = int(subprocess.check_output([sys.executable, "-c", script, str(tmp_path)]))
    assert grown_kb < 150_000  # the array is 629 MB


# ------------------------------------------------------------------------------------- names, words, imports


@pytest.mark.parametrize("name", [b"a b'\"\n.h5", b"-rf.h5", b"ok\xff.h5", "µ-β.h5".encode()])
def test_hostile_names(tmp_path: Path, name: bytes) -> None:
    text = os.fsdecode(name)
    h5(tmp_path / "x", values(4, 4), "d")
    (tmp_path / "x").rename(tmp_path / text)
    zarr.create_array(str(tmp_path / "z"), data=values(4, 4))
    (tmp_path / "z").rename(tmp_path / f"{text}.zarr")
    assert passes(ask(tmp_path, text, opens="hdf5", dataset="d", finite=1.0))
    assert passes(ask(tmp_path, f"{text}.zarr", opens="zarr", finite=1.0))
    sentence = checks.verdict(ask(tmp_path, text, dataset="nope"))
    assert sentence.isprintable()
    assert sentence.encode()
    assert [os.path.basename(p.path) for p in checks.products([Expectation(text)], str(tmp_path))] == [text]


def test_verdict_is_one_sentence(tmp_path: Path) -> None:
    h5(tmp_path / "rec.h5", np.full((4, 4), np.nan), "d")
    wanted = [Expectation("rec.h5", dataset="d", shape=(5, 4), finite=0.5), Expectation("gone.h5")]
    found = checks.check(wanted, since=0.0, base=str(tmp_path))
    assert checks.verdict(found) == (
        "Output 'rec.h5' failed the check 'shape': dataset 'd' is 4 × 4, wanted 5 × 4 (2 more failed)."
    )


def test_products(tmp_path: Path) -> None:
    h5(tmp_path / "rec.h5", values(4, 4), "d")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "x").write_bytes(b"12345")
    wanted = [
        Expectation("rec.h5", opens="hdf5", dataset="d"),
        Expectation("./rec.h5"),
        Expectation("d"),
        Expectation("gone"),
    ]
    found = checks.products(wanted, str(tmp_path))
    assert [(p.path, p.description) for p in found] == [
        (str(tmp_path / "rec.h5"), "hdf5 d"),
        (str(tmp_path / "d"), "directory"),
    ]
    assert found[1].bytes == 5


def test_heavy_libraries_are_imported_only_when_a_file_is_opened() -> None:
    script = """if True:
        import sys
        import orchestrator.agent.checks as checks
        from orchestrator.model import Expectation
        checks.check([Expectation("/etc/hostname")], since=0, base="/")
        print(sorted({"numpy", "h5py", "zarr", "PIL"} & set(sys.modules)))
    """
    assert subprocess.check_output([sys.executable, "-c", script], text=True).strip() == "[]"


@settings(max_examples=150, deadline=None)
@given(data=st.data(), kind=st.sampled_from(["hdf5", "png", "npy", "tiff", "json"]))
def test_any_bytes_give_a_finding_and_no_traceback(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, kind: str
) -> None:
    base = tmp_path_factory.getbasetemp()
    path = base / f"seed.{kind}"
    if not path.exists():
        match kind:
            case "hdf5":
                h5(path, values(8, 8), chunks=(4, 4), compression="gzip")
            case "npy":
                with path.open("wb") as file:
                    np.save(file, values(8, 8))
            case "json":
                path.write_text('{"a": [1, 2, {"b": null}]}')
            case _:
                Image.fromarray(values(8, 8).astype("u1")).save(path, format=kind)
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    (base / "mutant").write_bytes(raw[: data.draw(st.integers(1, len(raw)))])
    found = ask(base, "mutant", opens=kind, dataset="exchange/data" if kind == "hdf5" else "", finite=1.0)
    assert {f.check for f in found} >= {"exists", "size", "newer", "opens"}
