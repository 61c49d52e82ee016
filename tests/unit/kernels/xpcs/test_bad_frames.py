"""Frames that are not what they should be: refused in one sentence, or what was left out is told."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import pytest
from recorded import SHAPES, TIME_S, events_of, read, some_frames, written

from kernels.errors import Exit, KernelError
from kernels.xpcs.metadata import Metadata, find_metadata, read_metadata, write_metadata
from kernels.xpcs.readers import Selection, bitshuffle, hdf5, imm, open_frames, streams
from kernels.xpcs.writers import FORMATS, files_of, write_frames

LZ4 = hdf5plugin.Bitshuffle(cname="lz4")


def refused(path: str | Path, sentence: str, code: int = Exit.BAD_INPUT, **how: Any) -> None:
    with pytest.raises(KernelError, match=sentence) as caught:
        for _ in open_frames(str(path), **({"frame_time_s": TIME_S} | how)).blocks():
            pass
    assert caught.value.exit_code == code
    assert "\n" not in str(caught.value)


def test_what_is_no_file(tmp_path: Path) -> None:
    refused(tmp_path / "none.h5", "No such file", Exit.NO_INPUT)
    refused(tmp_path, "is a directory", Exit.NO_INPUT)
    os.mkfifo(tmp_path / "pipe.bin")
    refused(tmp_path / "pipe.bin", "not a regular file", Exit.NO_INPUT)
    for name in ("run.h5", "run.bin", "run.imm", "run.tpx"):
        (tmp_path / name).touch()
        refused(tmp_path / name, "is empty", Exit.NO_INPUT)
    (tmp_path / "run.tif").write_bytes(b"II*\0" * 10)
    refused(tmp_path / "run.tif", "format of .* is not known")


@pytest.mark.parametrize("form", [form for form in FORMATS if form != "hdf5"])
def test_truncated(form: str, tmp_path: Path) -> None:
    """Of six modules, any."""
    path = written(tmp_path, form, some_frames(form))
    last = files_of(path, form)[-1]
    os.truncate(last, last.stat().st_size - 3)
    refused(path, "truncated")
    os.truncate(last, 7)
    refused(path, "truncated")


def test_truncated_hdf5(tmp_path: Path) -> None:
    path = written(tmp_path, "hdf5", some_frames("hdf5"))
    os.truncate(path, os.path.getsize(path) // 2)
    refused(path, "is truncated")


def in_hdf5(path: Path, how: Callable[[h5py.File], Any]) -> Path:
    with h5py.File(path, "w") as file:
        how(file)
    return path


def unwritten(file: h5py.File) -> None:
    data = file.create_dataset(hdf5.DATA, (8, 7, 9), np.uint16, chunks=(1, 7, 9), **LZ4)
    data[:5] = 1


def unknown_filter(file: h5py.File) -> None:
    how = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    how.set_chunk((1, 7, 9))
    how.set_filter(32999, h5py.h5z.FLAG_OPTIONAL, ())
    group = file.create_group("entry/data")
    space = h5py.h5s.create_simple((2, 7, 9))
    data = h5py.h5d.create(group.id, b"data", h5py.h5t.NATIVE_UINT16, space, dcpl=how)
    for n in range(2):
        data.write_direct_chunk((n, 0, 0), b"x" * 100)


def hostile(file: h5py.File) -> None:
    data = file.create_dataset(hdf5.DATA, (1 << 40, 7, 9), np.uint16, chunks=(1, 7, 9), **LZ4)
    data[0] = 1


def hostile_count(file: h5py.File) -> None:
    data = file.create_dataset(hdf5.DATA, (1 << 24, 1, 1), np.uint8, chunks=(1, 1, 1))
    data[:100] = 1
    file["padding"] = np.ones(1 << 16)


def hostile_chunk(file: h5py.File) -> None:
    data = file.create_dataset(hdf5.DATA, (2, 1 << 14, 1 << 14), np.uint16, chunks=(1, 1 << 14, 1 << 14), **LZ4)
    for n in range(2):
        data.id.write_direct_chunk((n, 0, 0), b"x" * 100)


BROKEN: list[tuple[str, Callable[[h5py.File], Any], str]] = [
    ("no data", lambda f: f.create_group("entry/data").create_dataset("dta", data=[1]), "data is missing.*'dta'"),
    ("empty file", lambda f: None, "/entry/data/data is missing; in / there is nothing"),
    ("group", lambda f: f.create_group(hdf5.DATA), "is a group"),
    ("rank", lambda f: f.create_dataset(hdf5.DATA, data=np.ones((5, 5), int)), "has 2 dimensions"),
    ("floats", lambda f: f.create_dataset(hdf5.DATA, data=np.ones((5, 5, 5))), "float64, not whole numbers"),
    ("text", lambda f: f.create_dataset(hdf5.DATA, data=["a"]), "holds object, not whole numbers"),
    ("zero frames", lambda f: f.create_dataset(hdf5.DATA, (0, 5, 5), int), "is empty"),
    ("external", lambda f: f.__setitem__(hdf5.DATA, h5py.ExternalLink("/etc/other.h5", "/d")), "link to another file"),
    ("dangling", lambda f: f.__setitem__(hdf5.DATA, h5py.SoftLink("/nowhere")), "cannot be opened"),
    ("raw elsewhere", lambda f: f.create_dataset(hdf5.DATA, (2, 3, 3), int, external="x.raw"), "in another file"),
    ("unwritten", unwritten, "3 frames of /entry/data/data were not written, from frame 5 on.*first 5 frames"),
    ("nothing", lambda f: f.create_dataset(hdf5.DATA, (9, 5, 5), int, chunks=(1, 5, 5)), "none were written"),
    ("filter", unknown_filter, "compressed by filter 32999, which is not installed"),
    ("hostile", hostile, "claims .* bytes out of only"),
    ("hostile count", hostile_count, "claims .* bytes out of only|claims 16777216 frames, of which 100 chunks"),
    ("hostile chunk", hostile_chunk, "claims chunks of"),
]


@pytest.mark.parametrize(("how", "sentence"), [case[1:] for case in BROKEN], ids=[case[0] for case in BROKEN])
def test_unusable_hdf5(how: Callable[[h5py.File], Any], sentence: str, tmp_path: Path) -> None:
    path = in_hdf5(tmp_path / "run.h5", how)
    tracemalloc.start()
    try:
        refused(path, sentence)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


def test_what_was_written_can_be_used(tmp_path: Path) -> None:
    path = in_hdf5(tmp_path / "run.h5", unwritten)
    chosen = open_frames(str(path), frame_time_s=1.0, selection=Selection(beyond=5))
    assert (read(chosen) == 1).all()


@pytest.mark.parametrize("packed", [LZ4, {"compression": "gzip"}])
def test_a_damaged_frame_is_named(packed: Any, tmp_path: Path) -> None:
    path = written(tmp_path, "hdf5", some_frames("hdf5"), how={"chunks": (1, 7, 9), **packed})
    with h5py.File(path, "r+") as file:
        file[hdf5.DATA].id.write_direct_chunk((6, 0, 0), b"\x01" * 60)
    refused(path, r"(frame 6 of \S+ is damaged|frames 0 to 12 of \S+ cannot be read \(filter)")


def test_no_damage_goes_beyond_the_frame(tmp_path: Path) -> None:
    """Bytes changed at random: a frame is refused, or other counts come out, but none beyond its pixels."""
    random = np.random.default_rng(4)
    shown = random.poisson(0.3, (1, 40 * 50)).astype(np.uint16)
    path = in_hdf5(tmp_path / "run.h5", lambda f: f.create_dataset("d", data=shown, chunks=shown.shape, **LZ4))
    with h5py.File(path) as file:
        good = np.frombuffer(file["d"].id.read_direct_chunk((0, 0))[1], np.uint8)
    keep = np.ones(shown.size, np.uint8)
    pixels, counts = np.full((1, shown.size), 7, np.uint32), np.zeros((1, shown.size), np.uint32)
    events, marked = np.zeros(1, np.int64), np.zeros(1, np.int64)
    damaged = 0
    for n in range(400):
        bad = good.copy()
        bad[random.integers(8 if n % 2 else 0, bad.size, 1 + n % 5)] = random.integers(0, 256, 1 + n % 5)
        bad = bad[: random.integers(4, bad.size)] if n % 7 == 0 else bad
        bitshuffle.sparse_from_packed(bad, np.array([0, bad.size]), keep, 2, 65535, pixels, counts, events, marked)
        damaged += events[0] == bitshuffle.DAMAGED
        assert events[0] >= bitshuffle.TOO_MANY
        assert pixels[0, : max(0, events[0])].max(initial=0) < shown.size
    assert damaged > 100


def words_of(frame: Any, pixel: Any, count: Any) -> np.ndarray[Any, np.dtype[np.uint64]]:
    frame, pixel, count = (np.asarray(value, np.uint64) for value in (frame, pixel, count))
    return frame << np.uint64(40) | pixel << np.uint64(16) | count


def test_rigaku_out_of_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames and pixels that come late by some frames are put in order, over the borders of what is read at once."""
    monkeypatch.setattr(streams, "_AT_ONCE", 32)
    random = np.random.default_rng(5)
    shown = some_frames("rigaku-500k", 60)
    frame, pixel = np.nonzero(shown)
    order = np.argsort(frame + random.uniform(0, 5, len(frame)))
    path = tmp_path / "run.bin"
    words_of(frame, pixel, shown[frame, pixel])[order].tofile(path)
    np.testing.assert_array_equal(read(open_frames(str(path), frame_time_s=1.0)), shown)


def test_rigaku_far_out_of_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What had to be held in memory would have no bounds."""
    monkeypatch.setattr(streams, "_AT_ONCE", 32)
    monkeypatch.setattr(streams, "_HELD", 64)
    path = tmp_path / "run.bin"
    frames = np.arange(200)
    words_of(np.concatenate([frames, frames]), np.repeat([3, 4], 200), 1).tofile(path)
    refused(path, "out of order by up to 199; sort them")


def test_rigaku_duplicates_markers_and_missing_frames(tmp_path: Path) -> None:
    frames = np.repeat(np.delete(np.arange(20), [7, 8]), 50)
    pixels = np.tile(np.arange(50), 18)
    counts = np.ones(len(frames))
    counts[10] = 4095
    words = words_of(frames, pixels, counts)
    again = words_of([3, 3, 9], [1, 2, 4], [1, 1, 2])
    path = tmp_path / "run.bin"
    np.concatenate([words, again])[np.argsort(np.concatenate([frames, [3, 3, 9]]), kind="stable")].tofile(path)
    chosen = open_frames(str(path), frame_time_s=1.0)
    shown = read(chosen)
    assert shown.sum() == 18 * 50 - 1
    assert shown.max() == 1
    assert chosen.left_out == {"duplicate events": 3, "markers": 1, "frames without events": 2}


def test_rigaku_of_another_detector(tmp_path: Path) -> None:
    path = tmp_path / "run.bin"
    words_of([0, 1], [3, 512 * 1024], 1).tofile(path)
    refused(path, "an event is in pixel 524288 of a detector of 512 x 1024")
    words_of([0, 0xFFFFFF], [3, 4], 1).tofile(path)
    refused(path, "the last of 2 events is of frame 16777215. The file is damaged")
    path.write_bytes(b"these words are of no detector at all, but of us" * 4)
    refused(path, "not usable")


def test_rigaku_modules(tmp_path: Path) -> None:
    """A module is missing, or leads out of the folder; a link inside is none."""
    (tmp_path / "here").mkdir()
    shown = some_frames("rigaku-3m", 6)
    path = written(tmp_path / "here", "rigaku-3m", shown)
    third = Path(path).with_suffix(".003")
    third.rename(tmp_path / "there.003")
    refused(path, "'run.bin.003' is missing beside it")
    third.symlink_to(tmp_path / "there.003")
    refused(path, "'run.bin.003' beside it is a link to another folder")
    third.unlink()
    (tmp_path / "there.003").rename(third.with_name("moved"))
    third.symlink_to("moved")
    np.testing.assert_array_equal(read(open_frames(path, frame_time_s=1.0)), shown)


def test_rigaku_3m_offset(tmp_path: Path) -> None:
    """Some modules count their pixels from 2^20 on."""
    shown = some_frames("rigaku-3m", 6)
    path = written(tmp_path, "rigaku-3m", shown)
    module = Path(path).with_suffix(".004")
    (np.fromfile(module, np.uint64) + np.uint64(1 << 20 + 16)).tofile(module)
    np.testing.assert_array_equal(read(open_frames(path, frame_time_s=1.0)), shown)


def patched(path: str, at: int, value: int) -> str:
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(value.to_bytes(4, "little", signed=True))
    return path


IMM = [
    (108, -5, "-5 x 9 pixels"),
    (108, 1 << 30, "pixels. It is no IMM file"),
    (116, 8, "pixels are of 8 bytes"),
    (152, 64, "claims 64 elements of 63 pixels"),
    (152, -1, "claims 4294967295 elements"),
    (152, 63, "truncated|another kind"),
    (1024, 63, "names a pixel that the detector does not have"),
    (1024, -2, "names a pixel that the detector does not have"),
]


@pytest.mark.parametrize(("at", "value", "sentence"), IMM)
def test_unusable_imm(at: int, value: int, sentence: str, tmp_path: Path) -> None:
    refused(patched(written(tmp_path, "imm", some_frames("imm")), at, value), sentence)


def test_imm_duplicates_and_lost_frames(tmp_path: Path) -> None:
    shown = some_frames("imm")
    path = written(tmp_path, "imm", shown)
    first = np.flatnonzero(shown[0])
    patched(path, 1024, int(first[1]))  # the first event's pixel is that of the second
    patched(path, 160, -3)  # before frame 1, three have been lost
    chosen = open_frames(path, frame_time_s=1.0)
    back = read(chosen)
    np.testing.assert_array_equal(back[1:], shown[1:])
    assert chosen.left_out == {"missing frames": 3, "duplicate events": 1}
    patched(path, 160, 1)
    read(chosen := open_frames(path, frame_time_s=1.0))
    assert chosen.left_out == {"frames with the number of the one before": 1, "duplicate events": 1}


def test_timepix(tmp_path: Path) -> None:
    path = tmp_path / "run.tpx"
    np.full(4, 0xE0 << 55, np.uint64).tofile(path)
    refused(path, "no packet is of a pixel")
    refused(path, "too short for Timepix4", Exit.USAGE, frame_time_s=1e-9)
    beats = np.array([0xE0 << 55 | 1 << 50, 0], np.uint64)
    beats.tofile(path)
    refused(path, "more than 2.28 frames")


def test_timepix_over_its_own_time(tmp_path: Path) -> None:
    """Times of arrival begin anew each 1.6 ms; heartbeats tell which turn it is. Frames may be of any length."""
    shown = np.zeros((40, 512 * 448), np.uint8)
    shown[np.arange(40), np.arange(40) * 5000] = 1 + np.arange(40) % 3
    path = written(tmp_path, "timepix4", shown, frame_time_s=1e-3)
    np.testing.assert_array_equal(read(open_frames(path, frame_time_s=1e-3)), shown)
    half = read(open_frames(path, frame_time_s=2e-3))
    np.testing.assert_array_equal(half, shown.reshape(20, 2, -1).sum(1))


@pytest.mark.parametrize(
    ("form", "most"), [("hdf5", 65534), ("rigaku-500k", 4094), ("imm", 32767), ("imm-dense", 65534), ("timepix4", 4094)]
)
def test_counts_beyond_the_word(form: str, most: int, tmp_path: Path) -> None:
    shown = np.zeros((3, int(np.prod(SHAPES.get(form, (7, 9))))), np.int64)
    shown[1, 5] = most
    np.testing.assert_array_equal(read(open_frames(written(tmp_path, form, shown), frame_time_s=TIME_S))[:2], shown[:2])
    shown[1, 5] += 1
    with pytest.raises(KernelError, match=rf"Pixel 5 counts {most + 1} in frame 1; this format's word holds {most}"):
        written(tmp_path, form, shown)


def test_formats_and_detectors_that_do_not_fit(tmp_path: Path) -> None:
    how: dict[str, Any] = {"rows": 7, "columns": 9, "frames": 13}
    for form, sentence in (("tiff", "no format 'tiff'"), ("rigaku-500k", "of 512 x 1024 pixels, not 7 x 9")):
        with pytest.raises(KernelError, match=sentence):
            write_frames([tmp_path / "run"], form, events_of(some_frames("imm")), **how)


def test_masks_that_do_not_fit(tmp_path: Path) -> None:
    path = written(tmp_path, "imm", some_frames("imm"))
    refused(path, r"mask is of \(9, 7\) pixels", mask=np.ones((9, 7), bool))
    refused(path, "leaves no pixel", mask=np.zeros((7, 9), bool))
    with pytest.raises(KernelError, match="No good pixel is left"):
        open_frames(path, frame_time_s=1.0).without(np.arange(63))


def metadata(path: Path, **change: Any) -> Path:
    known = Metadata(0.002, 0.001, 11.0, (7.6e-5, 7.5e-5), 4.0, (30.5, 20.25), "2026-11-22T03:00:00")
    with h5py.File(path, "w") as file:
        write_metadata(file, known)
        for name, value in change.items():
            there = next(group for group in (file["entry"], *file["entry/instrument"].values()) if name in group)
            del there[name]
            if value is not None:
                there[name] = value
    return path


def test_metadata(tmp_path: Path) -> None:
    known = read_metadata(str(metadata(tmp_path / "a_metadata.hdf")))
    assert known == Metadata(0.002, 0.001, 11.0, (7.6e-5, 7.5e-5), 4.0, (30.5, 20.25), "2026-11-22T03:00:00")
    path = written(tmp_path, "imm", some_frames("imm"))
    assert open_frames(path).frame_time_s == 0.002
    metadata(tmp_path / "b_metadata.hdf", frame_time=0.003)
    refused(path, "There is 2 files .* Or give the time of a frame", Exit.NO_INPUT, frame_time_s=None)
    own = metadata(tmp_path / "run_metadata.hdf", frame_time=0.004)
    assert find_metadata(path) == str(own)
    assert open_frames(path).frame_time_s == 0.004
    with pytest.raises(KernelError, match="There is no file"):
        find_metadata(str(tmp_path / "elsewhere" / "run.imm"))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"schema_version": None}, "schema_version is missing"),
        ({"frame_time": None}, "frame_time is missing"),
        ({"frame_time": 0.0}, "frame_time is 0"),
        ({"frame_time": np.nan}, "frame_time is nan"),
        ({"frame_time": "fast"}, "frame_time is not one number"),
        ({"incident_energy": [1.0, 2.0]}, "incident_energy is not one number"),
    ],
)
def test_unusable_metadata(change: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(KernelError, match=sentence) as caught:
        read_metadata(str(metadata(tmp_path / "a_metadata.hdf", **change)))
    assert caught.value.exit_code == Exit.BAD_INPUT


@pytest.mark.parametrize("form", ["hdf5", "raw hdf5", "rigaku-500k", "imm", "imm-dense"])
def test_memory_is_bounded(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four times as many frames take less than half of the memory that their events would, and so no more."""
    for module, name, value in (
        (hdf5, "BLOCK_EVENTS", 1 << 15),
        (hdf5, "BLOCK_BYTES", 1 << 17),
        (imm, "BLOCK_BYTES", 1 << 17),
        (streams, "_AT_ONCE", 1 << 12),
    ):
        monkeypatch.setattr(module, name, value)
    rows, columns = SHAPES.get(form, (64, 64))
    shown = np.zeros((400, rows * columns), np.uint8)
    shown[:, :4096] = np.random.default_rng(6).poisson(0.1, (400, 4096))
    path = tmp_path / f"run{FORMATS[form.removeprefix('raw ')]}"
    parts: dict[str, Any] = {"rows": rows, "columns": columns, "frames": len(shown)}
    how = {"chunks": (1, 64, 64)} if form == "raw hdf5" else None
    write_frames([path], form.removeprefix("raw "), events_of(shown), how=how, **parts)
    peaks = []
    for beyond in (100, 400):
        chosen = open_frames(str(path), frame_time_s=1.0, selection=Selection(beyond=beyond))
        for _ in chosen.blocks():  # compiled before it is measured
            break
        tracemalloc.start()
        counted = sum(int(events.counts.sum()) for events in chosen.blocks())
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert counted == shown[:beyond].sum()
    assert peaks[1] - peaks[0] < 0.5 * np.count_nonzero(shown[100:]) * 6  # bytes: its pixel and its count
